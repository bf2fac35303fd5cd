//! The data folder and what lies in it: whose it is, who else may reach it, and the file
//! system that it is on.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statfs, statvfs};
use rustix::process::{getegid, geteuid, getgroups};

use super::report::Report;
use crate::adapters::data_plane::sqlite::look::lock_file;
use crate::app::{CHECKPOINT_FILE, LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE};
use crate::config::{Config, StoreUrl};

const CHECK: &str = "data_dir";

/// So much less than this is left that the service will soon stand still, in bytes. A
/// receipt takes about 900 of them.
const LEAST_FREE: u64 = 64 << 20;

/// With less than this somebody should make room, in bytes.
const LITTLE_FREE: u64 = 1 << 30;

/// File systems of other machines (statfs(2), and the kernel's `magic.h`). A store of
/// SQLite needs memory that its processes share, and locks that hold.
const NETWORK: &[(u64, &str)] = &[
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// File systems that are gone with the machine's memory.
const IN_MEMORY: &[(u64, &str)] = &[(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// Programs of users stand behind these, of which some ask other machines.
const FUSE: u64 = 0x6573_5546;

/// Looks at the folder and what lies in it.
pub(super) fn look(config: &Config, report: &mut Report) {
    let folder = &config.data_dir;
    let shown = folder.display();
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {
            permissions(CHECK, folder, &found, report);
            file_system(folder, report);
            files(config, report);
        }
        Ok(_) => report.bad(
            CHECK,
            format_args!("{shown} is no folder"),
            "set data_dir to a folder, or take what is there away",
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => to_be_made(folder, report),
        Err(error) => report.bad(
            CHECK,
            format_args!("{shown}: {error}"),
            "let the service's user reach the folder (data_dir)",
        ),
    }
    if let StoreUrl::Sqlite(database) = &config.store.url {
        store_folder(folder, database, report);
    }
}

/// The folder of a store that lies elsewhere, which no start makes.
fn store_folder(data_dir: &Path, database: &Path, report: &mut Report) {
    const CHECK: &str = "store_folder";
    let folder = match database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let number = |path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let is_data_dir = match (number(folder), number(data_dir)) {
        (Ok(this), Ok(that)) => this == that,
        _ => folder == data_dir,
    };
    if is_data_dir {
        return;
    }
    let shown = folder.display();
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {
            permissions(CHECK, folder, &found, report);
            file_system(folder, report);
        }
        Ok(_) => report.bad(
            CHECK,
            format_args!("{shown} is no folder"),
            "set store.url to a file in a folder, or take what is there away",
        ),
        Err(error) => report.bad(
            CHECK,
            format_args!("{shown}: {error}"),
            "make the store's folder for the service's user, with mode 0700, or set store.url to a \
             file in another one: a start makes only data_dir",
        ),
    }
}

/// A folder that the first start makes.
fn to_be_made(folder: &Path, report: &mut Report) {
    let Ok(absolute) = std::path::absolute(folder) else {
        return;
    };
    let parent = absolute.ancestors().skip(1).find(|above| above.exists());
    let parent = parent.unwrap_or(Path::new("/"));
    if access(parent, Access::WRITE_OK | Access::EXEC_OK).is_ok() && parent.is_dir() {
        report.good(
            CHECK,
            format_args!("{} is made at the first start", folder.display()),
        );
        file_system(parent, report);
    } else {
        report.bad(
            CHECK,
            format_args!(
                "{} is not there, and cannot be made in {}",
                folder.display(),
                parent.display()
            ),
            "make it for the service's user, with mode 0700",
        );
    }
}

/// Whether this user has the folder only by the group that it is of. Volumes of a cluster
/// are given to a service so.
fn is_had_by_its_group(found: &Metadata) -> bool {
    let is_ours = |group: u32| {
        let others = getgroups().unwrap_or_default();
        others
            .iter()
            .chain([&getegid()])
            .any(|ours| ours.as_raw() == group)
    };
    found.uid() != geteuid().as_raw() && is_ours(found.gid())
}

fn permissions(check: &'static str, folder: &Path, found: &Metadata, report: &mut Report) {
    let (shown, mode) = (folder.display(), found.permissions().mode() & 0o7777);
    let whose = format!("belongs to user {} and has mode {mode:04o}", found.uid());
    if access(folder, Access::WRITE_OK | Access::READ_OK | Access::EXEC_OK).is_err() {
        report.bad(
            check,
            format_args!("{shown} {whose}, and this user cannot write in it"),
            "give the folder to the service's user (chown), or run this as that user",
        );
    } else if mode & 0o020 != 0 && mode & 0o002 == 0 && is_had_by_its_group(found) {
        report.note(
            check,
            format_args!(
                "{shown} {whose}: all of group {} can replace what is in it, and nobody but the \
                 service should be of that group",
                found.gid()
            ),
        );
    } else if mode & 0o022 != 0 {
        let who = match mode & 0o002 {
            0 => format!("all of group {}", found.gid()),
            _ => "everybody".to_owned(),
        };
        report.bad(
            check,
            format_args!("{shown} {whose}: {who} can replace what is in it, keys too"),
            format_args!("chmod 700 {shown}; and replace the keys if somebody may have been there"),
        );
    } else if mode & 0o077 != 0 {
        report.note(
            check,
            format_args!("{shown} {whose}: others than its owner can look into it"),
        );
    } else {
        report.good(check, format_args!("{shown} {whose}"));
    }
}

fn file_system(folder: &Path, report: &mut Report) {
    if let Ok(found) = statfs(folder) {
        // The type has another width, and may have a sign, on other machines.
        let kind = u64::from((found.f_type as u64) as u32);
        match named(kind) {
            Named::Network(name) => report.bad(
                "file_system",
                format_args!(
                    "{} is on {name}, a file system of other machines",
                    folder.display()
                ),
                "move the data folder to a disk of this machine: a store needs locks and shared \
                 memory that such a file system does not give",
            ),
            Named::InMemory(name) => report.note(
                "file_system",
                format_args!(
                    "{} is on {name}: all of it is gone with this machine's memory",
                    folder.display()
                ),
            ),
            Named::Fuse => report.note(
                "file_system",
                format_args!(
                    "{} is on a file system of a program (FUSE): make sure that it is a disk of \
                     this machine",
                    folder.display()
                ),
            ),
            Named::Other => {}
        }
    }
    let Ok(space) = statvfs(folder) else {
        return;
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let mebibytes = free >> 20;
    if space.f_flag.contains(StatVfsMountFlags::RDONLY) {
        report.bad(
            "file_system",
            format_args!(
                "{} is on a file system that cannot be written",
                folder.display()
            ),
            "mount it for writing",
        );
    } else if free < LEAST_FREE {
        report.bad(
            "disk_space",
            format_args!(
                "{mebibytes} MiB are free; without room no receipt is kept, and no request answered"
            ),
            "make room, or move old receipts away (kms ledger archive)",
        );
    } else if space.f_files > 0 && space.f_favail == 0 {
        report.bad(
            "disk_space",
            "there is no room for the name of one more file (no inodes)",
            "make room: take small files away",
        );
    } else if free < LITTLE_FREE {
        report.note("disk_space", format_args!("{mebibytes} MiB are free"));
    } else {
        report.good("disk_space", format_args!("{mebibytes} MiB are free"));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Named {
    Network(&'static str),
    InMemory(&'static str),
    Fuse,
    Other,
}

fn named(kind: u64) -> Named {
    let in_list = |list: &[(u64, &'static str)]| {
        let found = list.iter().find(|(number, _)| *number == kind);
        found.map(|(_, name)| *name)
    };
    match (in_list(NETWORK), in_list(IN_MEMORY)) {
        (Some(name), _) => Named::Network(name),
        (None, Some(name)) => Named::InMemory(name),
        (None, None) if kind == FUSE => Named::Fuse,
        (None, None) => Named::Other,
    }
}

/// The files that the service writes: of one owner, for nobody else, and writable.
fn files(config: &Config, report: &mut Report) {
    let mut wanted: Vec<PathBuf> = [LEDGER_KEY_FILE, NEXT_LEDGER_KEY_FILE, CHECKPOINT_FILE]
        .map(|name| config.data_dir.join(name))
        .to_vec();
    if config.hsm.software.kek_file.is_none() {
        wanted.push(config.kek_file());
    }
    let mut owner = None;
    if let StoreUrl::Sqlite(database) = &config.store.url {
        owner = fs::metadata(database).ok().map(|found| found.uid());
        let beside = |ending: &str| {
            let mut name = database.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        wanted.extend([
            database.clone(),
            beside("-wal"),
            beside("-shm"),
            lock_file(database),
        ]);
    }
    let mut faults = Vec::new();
    for file in wanted {
        let Ok(found) = fs::metadata(&file) else {
            continue;
        };
        let (shown, user) = (file.display(), found.uid());
        if let Some(owner) = owner.filter(|owner| *owner != user) {
            faults.push(format!(
                "{shown} belongs to user {user}, and the store to user {owner}"
            ));
        } else if access(&file, Access::READ_OK | Access::WRITE_OK).is_err() {
            faults.push(format!(
                "{shown} belongs to user {user}, and this user cannot write it"
            ));
        }
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            faults.push(format!(
                "{shown} has mode {mode:04o}, and is for its owner only"
            ));
        }
    }
    if faults.is_empty() {
        report.good("data_files", "are of one owner, and for nobody else");
    } else {
        report.bad(
            "data_files",
            faults.join("\n"),
            "chown them to the service's user, and chmod 600; run every command on this folder as \
             that user",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_known_by_their_numbers() {
        assert_eq!(named(0x6969), Named::Network("NFS"));
        assert_eq!(named(0xff53_4d42), Named::Network("CIFS"));
        assert_eq!(named(0x0102_1994), Named::InMemory("tmpfs"));
        assert_eq!(named(0x6573_5546), Named::Fuse);
        // ext4, XFS, Btrfs, overlayfs
        for kind in [0xef53, 0x5846_5342, 0x9123_683e, 0x794c_7630] {
            assert_eq!(named(kind), Named::Other, "{kind:x}");
        }
    }
}
