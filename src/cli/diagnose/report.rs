//! Findings, and how they are printed.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::adapters::remote::escaped;

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// To be known.
    Note,
    /// It has to be mended.
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Document<'a> {
    healthy: bool,
    findings: &'a [Finding],
}

impl Report {
    /// Something is as it should be.
    pub(super) fn good(&mut self, check: &'static str, what: impl Display) {
        self.add(check, Verdict::Ok, what, None);
    }

    /// Something is to be known, and stands in nobody's way.
    pub(super) fn note(&mut self, check: &'static str, what: impl Display) {
        self.add(check, Verdict::Note, what, None);
    }

    /// Something has to be mended, and how.
    pub(super) fn bad(&mut self, check: &'static str, what: impl Display, remedy: impl Display) {
        self.add(check, Verdict::Fail, what, Some(remedy.to_string()));
    }

    fn add(
        &mut self,
        check: &'static str,
        verdict: Verdict,
        what: impl Display,
        remedy: Option<String>,
    ) {
        self.findings.push(Finding {
            check,
            verdict,
            what: what.to_string(),
            remedy,
        });
    }

    /// Takes over what another one found.
    pub(super) fn take(&mut self, other: Self) {
        self.findings.extend(other.findings);
    }

    /// Whether nothing has to be mended.
    pub(super) fn is_well(&self) -> bool {
        self.to_mend() == 0
    }

    fn to_mend(&self) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.verdict == Verdict::Fail)
            .count()
    }

    /// Prints all of it: a line a finding, or one JSON document.
    pub(super) fn print(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if json {
            let document = Document {
                healthy: self.is_well(),
                findings: &self.findings,
            };
            serde_json::to_writer(&mut *out, &document)?;
            return writeln!(out);
        }
        for finding in &self.findings {
            let mark = match finding.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Note => "note",
                Verdict::Fail => "FAIL",
            };
            writeln!(
                out,
                "{mark}  {}: {}",
                finding.check,
                on_lines(&finding.what)
            )?;
            if let Some(remedy) = &finding.remedy {
                writeln!(out, "        mend: {}", on_lines(remedy))?;
            }
        }
        match self.to_mend() {
            0 => writeln!(out, "all is well")?,
            1 => writeln!(out, "1 thing has to be mended")?,
            number => writeln!(out, "{number} things have to be mended")?,
        }
        out.flush()
    }
}

/// The text with its lines set in. Paths and names of processes may hold anything.
fn on_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(escaped).collect();
    lines.join("\n        ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(report: &Report, json: bool) -> String {
        let mut text = Vec::new();
        report.print(&mut text, json).expect("written");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn what_has_to_be_mended_is_counted_and_nothing_steers_a_terminal() {
        let mut report = Report::default();
        report.good("one", "as it should be");
        report.note("two", "to be known");
        assert!(report.is_well());
        assert!(printed(&report, false).ends_with("\nall is well\n"));
        report.bad("three", "a\u{1b}[2J file\nof two lines", "mend it");
        assert!(!report.is_well());
        assert_eq!(
            printed(&report, false),
            "ok    one: as it should be\nnote  two: to be known\n\
             FAIL  three: a\\u{1b}[2J file\n        of two lines\n        mend: mend it\n\
             1 thing has to be mended\n"
        );
        let json: serde_json::Value = serde_json::from_str(&printed(&report, true)).expect("JSON");
        assert_eq!(json["healthy"], false);
        assert_eq!(json["findings"][0]["remedy"], serde_json::Value::Null);
        assert_eq!(json["findings"][2]["verdict"], "fail");
        assert_eq!(json["findings"][2]["remedy"], "mend it");
    }
}
