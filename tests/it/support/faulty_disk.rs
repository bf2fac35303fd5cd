//! A disk that fails on demand, for the real binary: see `faulty_disk.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::UNTHROTTLED;

const SOURCE: &str = include_str!("faulty_disk.c");

/// A data folder on a disk that can be told to fail.
pub(crate) struct FaultyDisk {
    data: TempDir,
    library: PathBuf,
    control: PathBuf,
    /// Holds the two above.
    _tools: TempDir,
}

impl FaultyDisk {
    /// A disk that is well. Compiles the library, with the compiler that linking a
    /// Rust program needs anyway.
    pub(crate) fn new() -> Self {
        let tools = tempfile::tempdir().expect("a folder");
        let source = tools.path().join("faulty_disk.c");
        let library = tools.path().join("faulty_disk.so");
        fs::write(&source, SOURCE).expect("written");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"])
            .arg("-o")
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .expect("cc, which links every Rust program, runs");
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{said}");
        Self {
            data: tempfile::tempdir().expect("a folder"),
            library,
            control: tools.path().join("control"),
            _tools: tools,
        }
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.data.path()
    }

    /// The settings of a service on this disk, without limits on its callers. A
    /// service without them finds the same folder on a disk that is well.
    pub(crate) fn settings(&self) -> Vec<(&str, &str)> {
        let mut settings = vec![
            ("LD_PRELOAD", text(&self.library)),
            ("FAULTY_DISK_FOLDER", text(self.data.path())),
            ("FAULTY_DISK_CONTROL", text(&self.control)),
        ];
        settings.extend(UNTHROTTLED);
        settings
    }

    /// From now on such calls fail like that, as `faulty_disk.c` spells it.
    pub(crate) fn fail(&self, fault: &str) {
        let scratch = self.control.with_extension("new");
        fs::write(&scratch, fault).expect("written");
        // At once: nobody reads half of it.
        fs::rename(&scratch, &self.control).expect("put in place");
    }

    /// From now on everything works, and what hangs goes on.
    pub(crate) fn heal(&self) {
        fs::remove_file(&self.control).expect("it was failing");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}
