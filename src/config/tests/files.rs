//! The files of the project against the settings the code reads.
//!
//! It knows how a file is written, and no setting by its name.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::testing::{Given, folder, load, source_of};
use super::super::*;

#[test]
fn what_is_printed_reads_back_as_the_same_configuration() {
    let given = Given::nothing()
        .set("KMS__DATA_DIR", "a \"quoted\" \\ folder")
        .set("KMS__KEYS__ALLOWED_MODULES", "M1,M2")
        .set("KMS__SERVER__MAX_BODY_BYTES", "2MiB")
        .set("KMS__SERVER__OPS_LISTEN", "")
        .set("KMS__HSM__BACKEND", "mock");
    let printed = load(&given).effective.to_string();
    let files = folder(&[("default.toml", &printed), ("development.toml", "")]);
    let again = load(&Given::nothing().folder(files.path()))
        .effective
        .to_string();
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split("  # ").next());
        lines.map(str::to_owned).collect()
    };
    assert_eq!(values(&printed), values(&again));
    assert!(printed.starts_with("# environment: development (default)\n"));
}

#[test]
fn the_files_of_the_project_are_the_built_in_ones_and_change_nothing() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let loaded = load(
        &Given::new("development")
            .folder(&config)
            .set("KMS__DATA_DIR", "data"),
    );
    assert_eq!(loaded.config.warnings(), Vec::<String>::new());
    assert_eq!(loaded.config.log.format, LogFormat::Text);
}

/// The dotted names of a table's values.
fn names(section: &str, table: &toml::Table, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = format!("{section}{key}");
        match value {
            toml::Value::Table(table) => names(&format!("{name}."), table, found),
            _ => {
                found.insert(name);
            }
        }
    }
}

#[test]
fn default_toml_names_every_setting_there_is_and_no_other() {
    let text = include_str!("../../../config/default.toml");
    let is_setting = |line: &str| {
        let name = line.split(" = ").next().filter(|name| *name != line);
        name.is_some_and(|name| !name.contains([' ', '.', '"']))
    };
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(commented) if is_setting(commented) => commented,
            _ => line,
        })
        .collect();
    let table = uncommented.join("\n").parse().expect("TOML");
    let mut written = BTreeSet::new();
    names("", &table, &mut written);

    let environment = EnvironmentName::development();
    let layers = source_of(&[]).layers(&environment, &mut Vec::new());
    let mut reader = Reader::new(layers);
    Config::read(environment, &mut reader);
    let known: BTreeSet<String> = reader
        .known()
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(written, known);
}

#[test]
fn development_and_production_toml_hold_settings_only() {
    for name in ["development", "production", "staging"] {
        let environment: EnvironmentName = name.parse().expect("a name");
        let layers = source_of(&[]).layers(&environment, &mut Vec::new());
        let mut reader = Reader::new(layers);
        Config::read(environment, &mut reader);
        assert_eq!(reader.left_over_defaults(), Vec::<String>::new(), "{name}");
    }
}
