//! Holds the imports between the rooms to the table in `docs/architecture.md`.
//!
//! Modules may form circles as far as the compiler cares; this test cares.

use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may import. A room may always import itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &["domain"]),
    ("telemetry", &["domain"]),
    ("ports", &["domain"]),
    ("adapters", &["ports", "domain", "telemetry"]),
    ("service", &["ports", "domain", "telemetry"]),
    ("http", &["service", "domain", "telemetry"]),
    ("tls", &["ports", "domain", "telemetry"]),
    ("main", &["cli"]),
];

/// The rooms that see everything.
const SEES_EVERYTHING: &[&str] = &["app", "cli", "fuzzing"];

/// Crates that only one room may know.
const KNOWN_ONLY_IN: &[(&str, &[&str])] = &[
    ("axum", &["http"]),
    // The client's errors are its own, behind the HTTP client that asks other services.
    ("hyper", &["http", "adapters"]),
    ("rusqlite", &["adapters"]),
    ("cryptoki", &["adapters"]),
    // The domain hashes the ledger's tree with the one engine there is.
    ("aws_lc_rs", &["adapters", "cli", "domain"]),
    ("ed25519_dalek", &["adapters"]),
    ("x509_parser", &["adapters", "tls"]),
    ("jsonwebtoken", &["adapters"]),
    ("reqwest", &["adapters"]),
    // The adapters for webpki's types of certificates, and to read what it says of a
    // handshake of the HTTP client; TLS is spoken in one room.
    ("rustls", &["tls", "adapters"]),
    ("tokio_rustls", &["tls"]),
    ("webpki", &["tls", "adapters"]),
    ("rcgen", &["cli"]),
    ("prometheus", &["telemetry", "app"]),
    ("utoipa", &["http"]),
    ("utoipa_swagger_ui", &["http"]),
    ("toml", &["config"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
];

/// The folder of a port's adapters, and the shared files beside them.
const SHARED_BY_ADAPTERS: &[&str] = &["backlog", "cache", "secret_file", "clock", "remote"];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
    files
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The parts of a file's path below `src`, the last without `.rs`.
fn parts(file: &Path) -> Vec<String> {
    let below = file.strip_prefix(sources()).expect("below src");
    below
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect()
}

/// The code of a file without its comments and its unit tests, which may look
/// anywhere.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("readable");
    let before_tests = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    before_tests
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether a whole file is compiled for tests only.
fn is_test_only(file: &Path) -> bool {
    parts(file)
        .iter()
        .any(|part| ["tests", "testing", "conformance"].contains(&part.as_str()))
}

/// The names that follow `prefix` in the code, such as `domain` in `crate::domain::x`.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    code.match_indices(prefix)
        .map(|(place, _)| {
            code[place + prefix.len()..]
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect()
        })
        .collect()
}

#[test]
fn every_room_imports_only_what_lies_below_it() {
    let mut faults = Vec::new();
    let files = rust_files(&sources());
    assert!(files.len() > 50, "the sources have moved");
    for file in files {
        let room = parts(&file)[0].clone();
        if room == "lib" || is_test_only(&file) || SEES_EVERYTHING.contains(&room.as_str()) {
            continue;
        }
        let allowed = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("{room} has no place in the table"))
            .1;
        let code = code(&file);
        for imported in [names_after(&code, "crate::"), names_after(&code, "kms::")].concat() {
            if imported != room && !allowed.contains(&imported.as_str()) {
                faults.push(format!("{} imports {imported}", file.display()));
            }
        }
        assert!(
            !code.contains("crate::{"),
            "{}: one path a use, so that this test can read it",
            file.display()
        );
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn adapters_of_different_ports_do_not_know_each_other() {
    let mut faults = Vec::new();
    for file in rust_files(&sources().join("adapters")) {
        if is_test_only(&file) {
            continue;
        }
        let port = parts(&file)[1].clone();
        for imported in names_after(&code(&file), "crate::adapters::") {
            if imported != port && !SHARED_BY_ADAPTERS.contains(&imported.as_str()) {
                faults.push(format!("{} imports {imported}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_library_is_known_only_where_it_has_its_home() {
    let mut faults = Vec::new();
    for file in rust_files(&sources()) {
        if is_test_only(&file) {
            continue;
        }
        let room = parts(&file)[0].clone();
        let code = code(&file);
        for (library, rooms) in KNOWN_ONLY_IN {
            let used = code.contains(&format!("{library}::"))
                && names_after(&code, &format!("{library}::"))
                    .iter()
                    .any(|name| !name.is_empty());
            if used && !rooms.contains(&room.as_str()) {
                faults.push(format!("{} uses {library}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_permit_is_made_in_one_file_only() {
    for file in rust_files(&sources()) {
        let made = ["Permit {", "CheckedUse {"]
            .iter()
            .any(|literal| code(&file).contains(&format!("Ok({literal}")));
        let is_home = parts(&file) == ["domain", "permit"];
        assert!(!made || is_home, "{} makes a permit", file.display());
    }
}
