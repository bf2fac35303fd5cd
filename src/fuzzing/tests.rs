//! The corpus as an ordinary test: what the fuzzer once found stays found.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Changed copies of each input that are tried as well.
const CHANGED_COPIES: u64 = 200;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = corpus().join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{target}: {error}"));
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("readable"))
        .collect()
}

/// Numbers that are the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap_or(0)
    }
}

/// One to four changes: a byte, a bit, a piece gone, a piece twice, an end cut off.
fn changed(input: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=numbers.below(4) {
        let place = numbers.below(bytes.len() + 1);
        let end = bytes.len().min(place + 1 + numbers.below(16));
        match numbers.below(5) {
            0 if place < bytes.len() => bytes[place] = numbers.below(256) as u8,
            1 if place < bytes.len() => bytes[place] ^= 1 << numbers.below(8),
            2 => drop(bytes.drain(place..end)),
            3 => {
                let piece = bytes[place..end].to_vec();
                bytes.splice(place..place, piece);
            }
            _ => bytes.truncate(place),
        }
    }
    bytes
}

#[test]
fn what_has_to_hold_holds_for_the_corpus_and_for_changed_copies_of_it() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() >= 3, "{name} has hardly a corpus");
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        for input in &inputs {
            target(input);
            for _ in 0..CHANGED_COPIES {
                target(&changed(input, &mut numbers));
            }
        }
        target(b"");
    }
}

#[test]
fn each_target_has_a_program_and_a_corpus_and_no_other_has() {
    let names_in = |folder: PathBuf| {
        let entries = fs::read_dir(folder).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut names: Vec<String> = paths
            .map(|path| {
                path.file_stem()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    };
    let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(known.is_sorted());
    assert_eq!(names_in(corpus()), known);
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    assert_eq!(names_in(programs), known);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("readable");
    for name in known {
        let declared = format!("name = \"{name}\"");
        assert!(manifest.contains(&declared), "{name}");
    }
}
