//! The real binary with a token of its own, and the tools that look at the token
//! past it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::token::{LABEL, PIN, SOFTHSM, TokenFolder};
use super::{Ended, KmsProcess, UNTHROTTLED};

/// A token, and a data folder for services that use it.
pub(crate) struct TokenService {
    pub(crate) token: TokenFolder,
    pub(crate) data: TempDir,
    pub(crate) module: PathBuf,
}

impl TokenService {
    /// A new token behind the forwarding module.
    pub(crate) fn new() -> Self {
        Self::on(TokenFolder::new())
    }

    /// This folder's token behind the forwarding module.
    pub(crate) fn on(token: TokenFolder) -> Self {
        Self {
            module: token.forwarding_module(false),
            token,
            data: tempfile::tempdir().expect("a folder"),
        }
    }

    /// What a service needs to know of the token.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let mut settings: Vec<_> = UNTHROTTLED.into_iter().map(owned).collect();
        settings.extend(
            [
                ("KMS__HSM__BACKEND", "pkcs11"),
                ("KMS__HSM__PKCS11__MODULE", &path(&self.module)),
                ("KMS__HSM__PKCS11__TOKEN_LABEL", LABEL),
                ("KMS__HSM__PKCS11__PIN", PIN),
                ("SOFTHSM2_CONF", &path(&self.token.softhsm_conf())),
                ("FORWARDING_CONTROL", &path(&self.token.control())),
            ]
            .map(owned),
        );
        settings
    }

    /// A service, with these settings in the place of the usual ones; the empty text
    /// takes one away.
    pub(crate) fn start_with(&self, others: &[(&str, &str)]) -> KmsProcess {
        let settings = self.with(others);
        KmsProcess::start(self.data.path(), &pairs(&settings))
    }

    /// The same with the files of this folder as its configuration.
    pub(crate) fn start_configured(&self, folder: &str, others: &[(&str, &str)]) -> KmsProcess {
        let settings = self.with(others);
        let arguments = ["--config", folder, "serve"];
        KmsProcess::start_as(self.data.path(), &arguments, &pairs(&settings))
    }

    /// A service that has found its token.
    pub(crate) fn start(&self) -> KmsProcess {
        Self::connected(self.start_with(&[]))
    }

    /// Waits until it has found its token.
    pub(crate) fn connected(mut kms: KmsProcess) -> KmsProcess {
        kms.wait_for_line(&["token connected"]);
        kms
    }

    /// A service that keeps keys in its own process, and knows no token.
    pub(crate) fn start_without_token(&self) -> KmsProcess {
        KmsProcess::start(self.data.path(), &UNTHROTTLED)
    }

    /// A command of the binary with the same settings.
    pub(crate) fn run(&self, arguments: &[&str], others: &[(&str, &str)]) -> Ended {
        let settings = self.with(others);
        KmsProcess::run(self.data.path(), arguments, &pairs(&settings))
    }

    fn with(&self, others: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut settings = self.settings();
        for (name, value) in others {
            settings.retain(|(known, _)| known != name);
            if !value.is_empty() {
                settings.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        settings
    }

    /// What `pkcs11-tool` lists, an object a paragraph.
    pub(crate) fn listed(&self) -> Vec<String> {
        let ended = Command::new("pkcs11-tool")
            .env("SOFTHSM2_CONF", self.token.softhsm_conf())
            .args(["--module", SOFTHSM, "--token-label", LABEL])
            .args(["--login", "--pin", PIN, "--list-objects"])
            .output()
            .expect("pkcs11-tool, which `make tools` installs, runs");
        assert!(ended.status.success(), "{ended:?}");
        let mut objects: Vec<String> = Vec::new();
        for line in String::from_utf8_lossy(&ended.stdout).lines() {
            match objects.last_mut() {
                Some(object) if line.starts_with(' ') => *object += &format!("{line}\n"),
                _ => objects.push(format!("{line}\n")),
            }
        }
        objects
    }

    /// The objects of this key among them.
    pub(crate) fn objects_of(&self, key_id: &str) -> Vec<String> {
        let id = format!("ID:         {}\n", key_id.replace('-', ""));
        let mut objects = self.listed();
        objects.retain(|object| object.contains(&id));
        objects
    }

    /// How often the module was asked for this, of what is counted.
    pub(crate) fn counted(&self, function: &str) -> usize {
        let calls = self.token.control().with_file_name("control.calls");
        let calls = fs::read_to_string(calls).unwrap_or_default();
        calls.lines().filter(|line| *line == function).count()
    }

    /// Waits until the one call that was to fail has been made.
    pub(crate) fn has_failed_once(&self) -> bool {
        !self.token.control().exists()
    }
}

/// What the health report says of the HSM.
pub(crate) fn hsm_check(health: &Value) -> &Value {
    let checks = health["checks"].as_array().expect("a list of checks");
    let found = checks.iter().find(|check| check["name"] == "hsm");
    found.expect("a check of the HSM")
}

pub(crate) fn pairs(settings: &[(String, String)]) -> Vec<(&str, &str)> {
    settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
