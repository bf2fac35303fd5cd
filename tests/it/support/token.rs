//! Tokens of SoftHSM, and a module before them whose calls fail on demand: see
//! `forwarding_module.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const SOURCE: &str = include_str!("forwarding_module.c");

/// Where Debian's SoftHSM is.
pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Where Debian's p11-kit has the module that speaks to its server.
pub(crate) fn p11_kit_client() -> String {
    let machine = std::env::consts::ARCH;
    format!("/usr/lib/{machine}-linux-gnu/pkcs11/p11-kit-client.so")
}

/// The label of the token that a [`TokenFolder`] has.
pub(crate) const LABEL: &str = "kms-tests";

/// Its user's PIN.
pub(crate) const PIN: &str = "4711-0815";

/// A folder with one token of SoftHSM, and a forwarding module before it.
pub(crate) struct TokenFolder {
    folder: TempDir,
}

impl TokenFolder {
    /// A new token.
    pub(crate) fn new() -> Self {
        let folder = Self::without_token();
        folder.add_token(LABEL);
        folder
    }

    /// A place for tokens without one.
    pub(crate) fn without_token() -> Self {
        let folder = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        fs::create_dir(folder.path().join("tokens")).expect("a folder");
        let settings = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            folder.path().join("tokens").display()
        );
        fs::write(folder.softhsm_conf(), settings).expect("written");
        folder
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What `SOFTHSM2_CONF` names.
    pub(crate) fn softhsm_conf(&self) -> PathBuf {
        self.path().join("softhsm2.conf")
    }

    /// What is to fail, as `forwarding_module.c` spells it.
    pub(crate) fn control(&self) -> PathBuf {
        self.path().join("control")
    }

    /// Makes another token, of the same PIN.
    pub(crate) fn add_token(&self, label: &str) {
        let made = Command::new("softhsm2-util")
            .env("SOFTHSM2_CONF", self.softhsm_conf())
            .args(["--init-token", "--free", "--label", label])
            .args(["--pin", PIN, "--so-pin", "12345678"])
            .output()
            .expect("softhsm2-util, which `make tools` installs, runs");
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
    }

    /// From now on such calls fail like that.
    pub(crate) fn fail(&self, lines: &[&str]) {
        // In one step, so that no call reads half of it.
        let new = self.path().join("control.new");
        fs::write(&new, lines.join("\n") + "\n").expect("written");
        fs::rename(new, self.control()).expect("renamed");
    }

    /// All calls are well again.
    pub(crate) fn heal(&self) {
        self.fail(&[]);
    }

    /// Compiles the forwarding module, with the compiler that linking a Rust program
    /// needs anyway. In the process of the tests it also says where SoftHSM's
    /// settings are; other processes are told by their environment.
    pub(crate) fn forwarding_module(&self, in_this_process: bool) -> PathBuf {
        let source = self.path().join("forwarding_module.c");
        let module = self.path().join("forwarding_module.so");
        fs::write(&source, SOURCE).expect("written");
        let quoted = |name: &str, path: &Path| format!("-D{name}=\"{}\"", path.display());
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"])
            .arg(quoted("FORWARD_TO", Path::new(SOFTHSM)))
            .arg(quoted("CONTROL", &self.control()));
        if in_this_process {
            cc.arg(quoted("SOFTHSM2_CONF", &self.softhsm_conf()));
        }
        let compiled = cc
            .arg("-o")
            .args([&module, &source])
            .arg("-ldl")
            .output()
            .expect("cc, which links every Rust program, runs");
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{said}");
        module
    }
}
