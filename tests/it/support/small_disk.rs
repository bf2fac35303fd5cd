//! A real file system that is small enough to be filled, or to be mounted again
//! without the right to write.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A file system in memory, unmounted when dropped.
pub(crate) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// An empty disk of so many KiB. Mounting takes root.
    pub(crate) fn of_kib(kib: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = format!("size={kib}k,mode=0700");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(folder.path()));
        Self { folder }
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves so many KiB free, at most.
    pub(crate) fn fill_but(&self, free_kib: usize) {
        let mut filling = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.filling())
            .expect("made");
        let page = [0x55; 4_096];
        while filling.write_all(&page).is_ok() {}
        let size = filling.metadata().expect("a file").len();
        let free = 1_024 * free_kib as u64;
        filling.set_len(size.saturating_sub(free)).expect("set");
    }

    /// Takes away what it was filled with.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.filling()).expect("it was filled");
    }

    /// Lets nobody write, or everybody again.
    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        let options = match is_read_only {
            true => "remount,ro",
            false => "remount,rw",
        };
        run(Command::new("mount")
            .args(["-o", options])
            .arg(self.folder.path()));
    }

    fn filling(&self) -> PathBuf {
        self.folder.path().join("filling")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, since a process that a failed test leaves may still be on it.
        let unmounted = Command::new("umount")
            .arg("--lazy")
            .arg(self.folder.path())
            .status();
        let is_unmounted = unmounted.is_ok_and(|status| status.success());
        if !std::thread::panicking() {
            assert!(
                is_unmounted,
                "{} stays mounted",
                self.folder.path().display()
            );
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("mount is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "this test mounts a small file system, which takes root (and a container that may \
         mount): {command:?}: {said}"
    );
}
