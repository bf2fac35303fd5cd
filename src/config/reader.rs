//! Takes settings out of the layers one by one, and remembers what was wrong,
//! what is in effect and what nobody took.
//!
//! It knows how layers override each other; names and types are the sections'.

use super::effective::{Effective, Line};
use super::fault::Fault;
use super::source::{BUILT_IN, Entry, Layers, variable_key, variable_name};
use super::value::{Outcome, Parsed, Raw};

/// Reads each setting once. A fault doesn't end the reading: the setting falls
/// back to its default, so that the faults after it are found as well.
pub(super) struct Reader {
    layers: Layers,
    known: Vec<&'static str>,
    lines: Vec<Line>,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        Self {
            layers,
            known: Vec::new(),
            lines: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// A setting whose default is in the built-in files.
    pub(super) fn take<T>(&mut self, name: &'static str, parse: impl Fn(&Raw) -> Outcome<T>) -> T {
        let default = self.default_of(name, &parse);
        self.take_or(name, parse, || {
            default.expect("default.toml holds every setting that has a default")
        })
    }

    /// A setting whose default follows from another setting.
    pub(super) fn take_or<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&Raw) -> Outcome<T>,
        default: impl FnOnce() -> Parsed<T>,
    ) -> T {
        let default = default();
        let Some(entry) = self.given(name) else {
            let origin = BUILT_IN.to_owned();
            self.record(name, Some(default.shown), origin, false);
            return default.value;
        };
        match parse(&entry.raw) {
            Ok(parsed) => {
                // A copy of the built-in file says nothing new.
                let chosen = is_variable(&entry) || parsed.shown != default.shown;
                self.record(name, Some(parsed.shown), entry.origin, chosen);
                parsed.value
            }
            Err(what) => {
                self.faults.push(Fault::new(name, what).from(entry.origin));
                default.value
            }
        }
    }

    /// A setting that can be left unset; the empty text unsets it.
    pub(super) fn take_optional<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&Raw) -> Outcome<T>,
    ) -> Option<T> {
        let default = self.default_of(name, &parse);
        let Some(entry) = self.given(name) else {
            let (value, shown) = default.map(|d| (d.value, d.shown)).unzip();
            self.record(name, shown, BUILT_IN.to_owned(), false);
            return value;
        };
        if entry.raw.is_empty() {
            let shown = default.map(|_| "\"\"".to_owned());
            let chosen = shown.is_some();
            self.record(name, shown, entry.origin, chosen);
            return None;
        }
        match parse(&entry.raw) {
            Ok(parsed) => {
                self.record(name, Some(parsed.shown), entry.origin, true);
                Some(parsed.value)
            }
            Err(what) => {
                self.faults.push(Fault::new(name, what).from(entry.origin));
                default.map(|default| default.value)
            }
        }
    }

    /// What is in effect, and every fault: those of the settings taken, and the
    /// settings that nothing took.
    pub(super) fn finish(mut self) -> (Effective, Vec<Fault>) {
        for layer in std::mem::take(&mut self.layers.files) {
            for (name, entry) in layer {
                if !self.is_empty_section(&name, &entry.raw) {
                    let what = self.unknown(&name, str::to_owned);
                    self.faults.push(Fault::new(name, what).from(entry.origin));
                }
            }
        }
        for (name, entry) in std::mem::take(&mut self.layers.variables) {
            let what = self.unknown(&name, variable_name);
            self.faults.push(Fault::new(name, what).from(entry.origin));
        }
        (Effective::new(self.lines), self.faults)
    }

    /// The names taken so far.
    #[cfg(test)]
    pub(super) fn known(&self) -> &[&'static str] {
        &self.known
    }

    /// What the built-in files hold and nothing took.
    #[cfg(test)]
    pub(super) fn left_over_defaults(&self) -> Vec<String> {
        let left = self.layers.built_in.iter();
        left.filter(|(name, entry)| !self.is_empty_section(name, &entry.raw))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The highest layer's value. Every layer's is taken out, since what is left
    /// over in the end is unknown.
    fn given(&mut self, name: &'static str) -> Option<Entry> {
        self.known.push(name);
        let mut found = None;
        for layer in &mut self.layers.files {
            found = layer.remove(name).or(found);
        }
        found = self.layers.original_names.remove(name).or(found);
        self.layers.variables.remove(&variable_key(name)).or(found)
    }

    fn default_of<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&Raw) -> Outcome<T>,
    ) -> Option<Parsed<T>> {
        let entry = self.layers.built_in.remove(name)?;
        parse(&entry.raw).ok()
    }

    fn record(&mut self, name: &'static str, shown: Option<String>, origin: String, chosen: bool) {
        self.lines.push(Line {
            name,
            shown,
            origin,
            chosen,
        });
    }

    /// A section's heading with nothing under it is no setting.
    fn is_empty_section(&self, name: &str, raw: &Raw) -> bool {
        matches!(raw, Raw::File(toml::Value::Table(_)))
            && self
                .known
                .iter()
                .any(|known| known.strip_prefix(name).is_some_and(|r| r.starts_with('.')))
    }

    fn unknown(&self, name: &str, spell: impl Fn(&str) -> String) -> String {
        let expected = "unknown setting, expected one of those in default.toml";
        match self.closest(name) {
            Some(known) => format!("{expected}; is {} meant?", spell(known)),
            None => expected.to_owned(),
        }
    }

    /// The known name a few letters away, or else the one that ends the same.
    fn closest(&self, name: &str) -> Option<&'static str> {
        const NEAR: usize = 3;
        let name = variable_key(name);
        let field = |name: &str| name.rsplit('.').next().map(str::to_owned);
        self.known
            .iter()
            .map(|known| (distance(&name, &variable_key(known)), *known))
            .filter(|(distance, _)| *distance <= NEAR)
            .min()
            .or_else(|| {
                self.known
                    .iter()
                    .find(|known| field(&variable_key(known)) == field(&name))
                    .map(|known| (0, *known))
            })
            .map(|(_, known)| known)
    }
}

fn is_variable(entry: &Entry) -> bool {
    matches!(entry.raw, Raw::Variable(_))
}

/// How many letters to add, drop or change to get from one to the other.
pub(super) fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_letters_added_dropped_and_changed() {
        assert_eq!(distance("server.listen", "server.listen"), 0);
        assert_eq!(distance("servr.listen", "server.listen"), 1);
        assert_eq!(distance("server.lisetn", "server.listen"), 2);
        assert_eq!(distance("", "abc"), 3);
    }
}
