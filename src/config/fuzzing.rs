//! Configurations that somebody mistyped, or worse.

use std::collections::BTreeMap;
use std::fs;

use super::{Config, Source};

/// A file of settings and variables, with a zero byte between: every fault names a
/// setting, and no secret is repeated.
pub(crate) fn configuration(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let toml = parts.next().unwrap_or_default();
    let variables = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let mut environment: BTreeMap<String, String> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let secret = "a-pin-that-is-nobodys";
    environment.insert("KMS__HSM__PKCS11__PIN".to_owned(), secret.to_owned());
    let folder = std::env::temp_dir().join(format!("kms-fuzz-config-{}", std::process::id()));
    let thread = format!("{:?}", std::thread::current().id());
    let folder = folder.join(thread.replace(['(', ')'], ""));
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("default.toml"), toml).expect("written");
    let read = Config::load(&Source {
        environment,
        directory: Some(folder.clone()),
    });
    fs::remove_dir_all(&folder).expect("removed");
    if let Err(faults) = read {
        let said = faults.to_string();
        assert!(!said.is_empty(), "a fault without a word");
        let is_given_away = said.contains(secret) && !variables.contains(secret);
        assert!(!is_given_away, "{said}");
    }
}
