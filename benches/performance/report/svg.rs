//! Pictures, as text: bars in rows and curves over time, with the colours of whoever
//! looks (SVG 2; `prefers-color-scheme`).

use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const LABELS: f64 = 250.0;
/// What the longest name needs beside that.
const MARGIN: f64 = 40.0;
const VALUES: f64 = 210.0;
const BAR: f64 = 12.0;
const GAP: f64 = 10.0;
const HEAD: f64 = 64.0;

/// Of the series, in order; readable on white and on black.
const COLOURS: [&str; 5] = ["#2f81f7", "#db6d28", "#3fb950", "#a371f7", "#bf8700"];

/// One bar.
pub(crate) struct Bar {
    pub(crate) value: f64,
    /// What is written behind it.
    pub(crate) text: String,
}

/// The bars of one thing, one of each series.
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

/// Rows of bars. Those that are longer than `longest` are cut, which their end shows.
pub(crate) fn bars(title: &str, series: &[&str], rows: &[Row], longest: f64) -> String {
    let mut body = String::new();
    let mut y = HEAD;
    for row in rows {
        let height = BAR * row.bars.len() as f64;
        let middle = y + height / 2.0 + 4.0;
        let label = escaped(&row.label);
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{label}</text>",
            LABELS - 8.0
        );
        for (place, bar) in row.bars.iter().enumerate() {
            let top = y + BAR * place as f64;
            let share = (bar.value / longest.max(1e-9)).clamp(0.0, 1.0);
            let width = (share * (WIDTH - LABELS - VALUES)).max(1.0);
            let colour = COLOURS[place % COLOURS.len()];
            let cut = if bar.value > longest { " »" } else { "" };
            let _ = writeln!(
                body,
                "<rect x=\"{LABELS}\" y=\"{top}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
                 <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{}{cut}</text>",
                BAR - 1.0,
                LABELS + width + 6.0,
                top + BAR - 2.5,
                escaped(&bar.text),
            );
        }
        y += height + GAP;
    }
    whole(title, series, &body, y)
}

/// One curve, with a value for each step.
pub(crate) struct Curve<'a> {
    pub(crate) name: &'a str,
    pub(crate) values: Vec<f64>,
}

/// Curves over time, from zero; `step` is what is between two values, in words.
pub(crate) fn curves(title: &str, unit: &str, step: &str, curves: &[Curve<'_>]) -> String {
    const HEIGHT: f64 = 260.0;
    const LEFT: f64 = 70.0;
    let all = || curves.iter().flat_map(|curve| &curve.values);
    let highest = all().copied().fold(0.0, f64::max).max(1e-9) * 1.05;
    let steps = curves.iter().map(|curve| curve.values.len()).max();
    let steps = steps.unwrap_or(0).max(2) - 1;
    let x = |place: usize| LEFT + (WIDTH - LEFT - 20.0) * place as f64 / steps as f64;
    let y = |value: f64| HEAD + HEIGHT * (1.0 - value / highest);
    let mut body = String::new();
    for part in 0..=4 {
        let value = highest * f64::from(part) / 4.0;
        let at = y(value);
        let _ = writeln!(
            body,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\n\
             <text class=\"small\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>",
            WIDTH - 20.0,
            LEFT - 6.0,
            at + 4.0,
        );
    }
    for (place, curve) in curves.iter().enumerate() {
        let points: Vec<String> = curve
            .values
            .iter()
            .enumerate()
            .map(|(step, value)| format!("{:.1},{:.1}", x(step), y(*value)))
            .collect();
        let colour = COLOURS[place % COLOURS.len()];
        let points = points.join(" ");
        let _ = writeln!(
            body,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
    }
    let bottom = HEAD + HEIGHT + 22.0;
    let _ = writeln!(
        body,
        "<text class=\"small\" x=\"{LEFT}\" y=\"{bottom}\">{}, from {} to {steps}</text>",
        escaped(step),
        0,
    );
    let names: Vec<&str> = curves.iter().map(|curve| curve.name).collect();
    whole(&format!("{title}, {unit}"), &names, &body, bottom + 14.0)
}

fn whole(title: &str, series: &[&str], body: &str, height: f64) -> String {
    let mut legend = String::new();
    let mut x = 16.0;
    for (place, name) in series.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        let _ = writeln!(
            legend,
            "<rect x=\"{x}\" y=\"36\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\n\
             <text class=\"small\" x=\"{}\" y=\"45\">{}</text>",
            x + 15.0,
            escaped(name),
        );
        x += 40.0 + 6.6 * name.chars().count() as f64;
    }
    let whole = WIDTH + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-{MARGIN} 0 {whole} {height}\" width=\"{whole}\" height=\"{height}\">\n\
         <style>\n\
         .paper {{ fill: #ffffff }} text {{ fill: #1f2328; font: 13px sans-serif }}\n\
         .title {{ font-size: 16px; font-weight: bold }} .small {{ font-size: 11px }}\n\
         .grid {{ stroke: #8b949e; stroke-opacity: 0.4 }}\n\
         @media (prefers-color-scheme: dark) {{ .paper {{ fill: #0d1117 }} text {{ fill: #e6edf3 }} }}\n\
         </style>\n\
         <rect class=\"paper\" x=\"-{MARGIN}\" width=\"{whole}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"16\" y=\"24\">{}</text>\n{legend}{body}</svg>\n",
        escaped(title),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
