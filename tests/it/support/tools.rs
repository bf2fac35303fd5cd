//! Other people's programs that look at what the project lays out. `make tools`
//! installs them; a test whose program is missing fails.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Ended;

/// The root of the project.
pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file or folder of the project.
pub(crate) fn in_project(path: &str) -> PathBuf {
    project().join(path)
}

/// The text of a file of the project.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(in_project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a program in a folder of the project, with this as its input.
pub(crate) fn run(folder: &str, command: &mut Command, input: &str) -> Ended {
    let shown = format!("{command:?}");
    let mut child = command
        .current_dir(in_project(folder))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}; `make tools` installs what is missing"));
    let mut stdin = child.stdin.take().expect("piped");
    // It may have ended without reading.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ended = child.wait_with_output().expect("waited for");
    Ended {
        code: ended.status.code(),
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// Runs a program that has to find nothing wrong; what it printed.
pub(crate) fn passes(folder: &str, program: &str, arguments: &[&str]) -> String {
    let ended = run(folder, Command::new(program).args(arguments), "");
    assert_eq!(
        ended.code,
        Some(0),
        "{program} {arguments:?}: {}",
        ended.output()
    );
    ended.stdout
}

/// The documents of a YAML text.
pub(crate) fn yaml(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The one document of a YAML file of the project.
pub(crate) fn yaml_file(path: &str) -> Value {
    let mut documents = yaml(&read(path));
    assert_eq!(documents.len(), 1, "{path}");
    documents.remove(0)
}

/// The items of a list, or none where there is no list.
pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
