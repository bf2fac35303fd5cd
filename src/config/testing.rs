//! Configurations for the tests of this room, made without the process's own
//! environment.
//!
//! It knows how to ask for one, and not what is expected of it.

use std::path::Path;

use super::{Config, ConfigFaults, Loaded, Source};

/// What a test configures.
pub(super) struct Given(Source);

impl Given {
    pub(super) fn new(environment: &str) -> Self {
        Self::nothing().set("ENVIRONMENT", environment)
    }

    pub(super) fn nothing() -> Self {
        Self(Source {
            environment: Default::default(),
            directory: None,
        })
    }

    pub(super) fn set(mut self, variable: &str, value: &str) -> Self {
        let (variable, value) = (variable.to_owned(), value.to_owned());
        self.0.environment.insert(variable, value);
        self
    }

    pub(super) fn folder(mut self, folder: &Path) -> Self {
        self.0.directory = Some(folder.to_owned());
        self
    }

    pub(super) fn try_load(&self) -> Result<Loaded, ConfigFaults> {
        Config::load(&self.0)
    }
}

/// The configuration, which must have no fault.
pub(super) fn load(given: &Given) -> Loaded {
    match given.try_load() {
        Ok(loaded) => loaded,
        Err(faults) => panic!("{faults}"),
    }
}

/// The faults, one line each; none where it loads.
pub(super) fn faults_of(given: &Given) -> Vec<String> {
    let message = given.try_load().err().map(|faults| faults.to_string());
    let lines = message.iter().flat_map(|message| message.lines().skip(1));
    lines.map(|line| line.trim_start().to_owned()).collect()
}

/// A scratch folder with files in it.
pub(super) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a scratch folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a scratch file");
    }
    folder
}

/// Variables and no folder.
pub(super) fn source_of(variables: &[(&str, &str)]) -> Source {
    Source {
        environment: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        directory: None,
    }
}
