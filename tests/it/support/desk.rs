//! An operator's desk: the commands of a client, with a folder, variables and standard
//! input of their own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::APPROVAL;

/// A desk in the usual scope.
pub(crate) struct Desk {
    folder: TempDir,
    variables: BTreeMap<String, String>,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit code; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it printed, byte for byte.
    pub(crate) bytes: Vec<u8>,
    /// The same as text.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Desk {
    /// A desk that asks the service at this address, with an approval as development
    /// takes it.
    pub(crate) fn new(url: impl std::fmt::Display) -> Self {
        Self::bare()
            .with("KMS_CLIENT_URL", url)
            .with("KMS_CLIENT_TENANT", "tenant123")
            .with("KMS_CLIENT_ENVIRONMENT", "prod")
            .with("KMS_CLIENT_PLANE", "laptop")
            .with("KMS_CLIENT_APPROVAL", APPROVAL)
    }

    /// A desk where nothing is set.
    pub(crate) fn bare() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            variables: BTreeMap::new(),
        }
    }

    /// The same with this variable.
    pub(crate) fn with(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    /// The same without this variable.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// A file on the desk.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file on the desk.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, content).expect("written");
        path
    }

    /// Runs a command without input.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, b"")
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kms"));
        command.args(arguments);
        self.ended(&mut command, input)
    }

    /// Runs a script of bash.
    pub(crate) fn shell(&self, script: &str) -> Done {
        let mut command = Command::new("bash");
        self.ended(command.args(["-c", script]), b"")
    }

    /// Runs a command whose standard input and output, and standard error too, are one
    /// terminal; what that shows.
    pub(crate) fn run_on_terminal(&self, arguments: &str) -> Done {
        let binary = env!("CARGO_BIN_EXE_kms");
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--command"])
            .arg(format!("{binary} {arguments}"))
            .arg("/dev/null");
        self.ended(&mut command, b"")
    }

    fn ended(&self, command: &mut Command, input: &[u8]) -> Done {
        let mut child = command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .envs(&self.variables)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        let mut stdin = child.stdin.take().expect("piped");
        std::thread::scope(|scope| {
            // It may end without reading.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().expect("waited for").into()
        })
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }
}

impl Done {
    /// Checks that it was done without a word of complaint, and gives what it printed.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.stderr, "");
        &self.stdout
    }

    /// The same as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let text = self.ok();
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(text).expect("JSON")
    }

    /// Checks that it ended with this code, printed nothing, and complained with these
    /// words.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert!(self.stderr.contains(words), "{words:?} is not in {self:?}");
    }
}

/// The path as an argument.
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
