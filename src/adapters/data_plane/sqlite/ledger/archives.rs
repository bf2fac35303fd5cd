//! Archives as the service reads them: receipts that were moved to files of their
//! own, in the tables that the store has, so that the same queries answer from both.
//!
//! Files are opened when they are first asked for, and few are kept open. One that
//! is not there, or cannot be read, is no fault of the service: what is in it is
//! not found here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::adapters::data_plane::sqlite::archive::file::{self, Contents};
use crate::adapters::data_plane::sqlite::rows::{counted, stored};

/// Connections that are kept open while nobody uses them. At most one more is open
/// for each read that is under way.
const KEPT_OPEN: usize = 4;

/// For how long a file that is away is not looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The archives of a store.
pub(in super::super) struct Archives {
    /// The store.
    database: PathBuf,
    /// The store's list, as far as it was read: nothing in it ever changes or goes.
    listed: Mutex<Vec<Arc<Archive>>>,
    /// The one used last stands last.
    idle: Mutex<Vec<(Arc<Archive>, Connection)>>,
    look_again: Duration,
}

/// One of them.
pub(super) struct Archive {
    /// The first receipt in it.
    pub(super) first: u64,
    /// The first that is not.
    pub(super) end: u64,
    file: String,
    seen: Mutex<Seen>,
}

/// What was seen of a file.
enum Seen {
    NotYet,
    /// It can be read, and this is in it.
    There(Contents),
    /// It could not be read, and nobody looks again before this instant.
    Away(Instant),
}

impl Archives {
    /// Those of the store in this file.
    pub(in super::super) fn of(database: &Path) -> Self {
        Self {
            database: database.to_owned(),
            listed: Mutex::default(),
            idle: Mutex::default(),
            look_again: LOOK_AGAIN,
        }
    }

    /// All that the store lists, the first one first.
    pub(super) fn list(&self, store: &Connection) -> rusqlite::Result<Vec<Arc<Archive>>> {
        let mut listed = lock(&self.listed);
        let end = listed.last().map_or(0, |last| last.end);
        let mut statement = store.prepare_cached(
            "SELECT first_seq, end_seq, file FROM archives WHERE first_seq >= ?1 ORDER BY first_seq",
        )?;
        let mut rows = statement.query(params![stored(end)?])?;
        while let Some(row) = rows.next()? {
            listed.push(Arc::new(Archive {
                first: counted(row, 0)?,
                end: counted(row, 1)?,
                file: row.get(2)?,
                seen: Mutex::new(Seen::NotYet),
            }));
        }
        Ok(listed.clone())
    }

    /// What is in an archive; `None` where it cannot be read.
    pub(super) fn contents(&self, archive: &Arc<Archive>) -> Option<Contents> {
        if let Some(known) = archive.known() {
            return known;
        }
        let (connection, contents) = self.open(archive)?;
        self.put_back(archive, connection);
        Some(contents)
    }

    /// Asks an archive; `None` where it cannot be read.
    pub(super) fn ask<T>(
        &self,
        archive: &Arc<Archive>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Option<T> {
        let connection = match self.take_idle(archive) {
            Some(connection) => connection,
            None if matches!(archive.known(), Some(None)) => return None,
            None => self.open(archive)?.0,
        };
        match query(&connection) {
            Ok(answer) => {
                self.put_back(archive, connection);
                Some(answer)
            }
            Err(error) => {
                self.is_away(archive, &error);
                None
            }
        }
    }

    /// Closes what is idle.
    pub(in super::super) fn close(&self) {
        lock(&self.idle).clear();
    }

    fn open(&self, archive: &Archive) -> Option<(Connection, Contents)> {
        let opened = match file::path(&self.database, &archive.file) {
            Some(path) => file::open(&path),
            None => Err(file::ArchiveFileFault::NotOurs),
        };
        match opened {
            Ok((connection, contents))
                if (contents.first, contents.end) == (archive.first, archive.end) =>
            {
                *lock(&archive.seen) = Seen::There(contents.clone());
                Some((connection, contents))
            }
            Ok(_) => {
                self.is_away(archive, &file::ArchiveFileFault::NotOurs);
                None
            }
            Err(fault) => {
                self.is_away(archive, &fault);
                None
            }
        }
    }

    /// Said once, until the file is there again.
    fn is_away(&self, archive: &Archive, fault: &(dyn std::error::Error + 'static)) {
        let away = Seen::Away(Instant::now() + self.look_again);
        let before = std::mem::replace(&mut *lock(&archive.seen), away);
        if !matches!(before, Seen::Away(_)) {
            tracing::warn!(
                file = archive.file,
                folder = %file::folder(&self.database).display(),
                first = archive.first,
                end = archive.end,
                error = fault,
                "an archive of receipts cannot be read: what is in it is not found until it is in \
                 its place again"
            );
        }
    }

    fn take_idle(&self, archive: &Arc<Archive>) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        let place = idle.iter().rposition(|(of, _)| Arc::ptr_eq(of, archive))?;
        Some(idle.remove(place).1)
    }

    fn put_back(&self, archive: &Arc<Archive>, connection: Connection) {
        let mut idle = lock(&self.idle);
        if idle.len() == KEPT_OPEN {
            idle.remove(0);
        }
        idle.push((Arc::clone(archive), connection));
    }
}

impl Archive {
    /// What is known without looking; within, `None` where it is away.
    fn known(&self) -> Option<Option<Contents>> {
        match &*lock(&self.seen) {
            Seen::There(contents) => Some(Some(contents.clone())),
            Seen::Away(until) if Instant::now() < *until => Some(None),
            Seen::Away(_) | Seen::NotYet => None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each of these is whole, whoever panicked elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::OptionalExtension as _;

    use super::*;
    use crate::adapters::data_plane::sqlite::ledger::reads::find_receipt;
    use crate::adapters::data_plane::sqlite::open;
    use crate::domain::ids::ReceiptId;
    use crate::domain::scope::Scope;

    /// A store that lists so many archives of one bundle each, with one receipt a
    /// file, whose id is that of its place.
    fn store(number: u64) -> (tempfile::TempDir, Connection, Archives) {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("kms.db");
        let store = open::writable_database(&database, Duration::ZERO).expect("a new database");
        fs::create_dir(file::folder(&database)).expect("made");
        for archive in 0..number {
            list_one(&store, &database, archive);
        }
        let mut archives = Archives::of(&database);
        archives.look_again = Duration::ZERO;
        (folder, store, archives)
    }

    fn list_one(store: &Connection, database: &Path, number: u64) {
        let (first, end) = (number * 256, number * 256 + 256);
        let path = file::folder(database).join(file::name(first, end));
        fs::write(&path, "").expect("written");
        let archive = file::create(&path).expect("made");
        archive
            .execute_batch("INSERT INTO scopes VALUES (1, 't', 'prod', 'laptop')")
            .expect("inserted");
        archive
            .execute(
                "INSERT INTO receipts VALUES (?1, ?2, 1, 0, 'encrypt', NULL, x'00')",
                params![stored(first).expect("small"), id_of(number)],
            )
            .expect("inserted");
        file::seal(&archive, first, end).expect("sealed");
        store
            .execute(
                "INSERT INTO archives VALUES (?1, ?2, ?3)",
                params![
                    stored(first).expect("small"),
                    stored(end).expect("small"),
                    file::name(first, end)
                ],
            )
            .expect("listed");
    }

    fn id_of(number: u64) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn first_in(archive: &Connection) -> rusqlite::Result<Option<i64>> {
        archive
            .query_row("SELECT seq FROM receipts", [], |row| row.get(0))
            .optional()
    }

    #[test]
    fn few_files_are_kept_open_however_many_there_are() {
        let (_folder, store, archives) = store(12);
        let listed = archives.list(&store).expect("readable");
        assert_eq!(listed.len(), 12);
        for _ in 0..2 {
            for archive in &listed {
                let found = archives.ask(archive, first_in).flatten();
                assert_eq!(found, Some(archive.first as i64));
                assert!(archives.contents(archive).is_some());
                assert!(lock(&archives.idle).len() <= KEPT_OPEN);
            }
        }
        archives.close();
        assert_eq!(lock(&archives.idle).len(), 0);
    }

    #[test]
    fn what_is_known_of_a_file_is_not_read_again_and_new_ones_are_seen() {
        let (folder, store, archives) = store(8);
        for archive in archives.list(&store).expect("readable") {
            let contents = archives.contents(&archive).expect("there");
            assert_eq!((contents.first, contents.end), (archive.first, archive.end));
        }
        archives.close();
        for archive in archives.list(&store).expect("readable") {
            assert!(archives.contents(&archive).is_some());
        }
        assert_eq!(lock(&archives.idle).len(), 0, "nothing was opened for it");
        list_one(&store, &folder.path().join("kms.db"), 8);
        let listed = archives.list(&store).expect("readable");
        assert_eq!(
            listed.last().map(|last| (last.first, last.end)),
            Some((2_048, 2_304))
        );
        assert_eq!(listed.len(), 9);
    }

    #[test]
    fn a_file_that_is_away_or_another_has_no_answer_until_it_is_back() {
        let (folder, store, archives) = store(2);
        let database = folder.path().join("kms.db");
        let path = |number: u64| {
            file::folder(&database).join(file::name(number * 256, number * 256 + 256))
        };
        let listed = archives.list(&store).expect("readable");
        let whole = fs::read(path(0)).expect("a file");
        let other = fs::read(path(1)).expect("a file");
        let half = &whole[..whole.len() / 2];
        for content in [
            None,
            Some(&other[..]),
            Some(half),
            Some(&b"text"[..]),
            Some(b""),
        ] {
            match content {
                None => fs::remove_file(path(0)).expect("removed"),
                Some(content) => fs::write(path(0), content).expect("written"),
            }
            assert_eq!(archives.ask(&listed[0], first_in), None);
            assert_eq!(archives.contents(&listed[0]), None);
            assert_eq!(archives.ask(&listed[1], first_in), Some(Some(256)));
        }
        fs::write(path(0), whole).expect("written");
        assert_eq!(archives.ask(&listed[0], first_in), Some(Some(0)));
    }

    #[test]
    fn a_file_that_is_away_is_not_looked_for_at_every_question() {
        let (folder, store, mut archives) = store(1);
        archives.look_again = Duration::from_secs(1_000);
        let listed = archives.list(&store).expect("readable");
        let (there, away) = (folder.path().join("archive"), folder.path().join("away"));
        fs::rename(&there, &away).expect("moved");
        assert_eq!(archives.contents(&listed[0]), None);
        fs::rename(&away, &there).expect("moved");
        assert_eq!(archives.contents(&listed[0]), None);
        assert_eq!(archives.ask(&listed[0], first_in), None);
    }

    #[test]
    fn an_archive_is_asked_only_for_ids_between_its_smallest_and_its_largest() {
        let (_folder, store, archives) = store(6);
        let scope = Scope {
            tenant_id: "t".parse().expect("valid"),
            environment: "prod".parse().expect("valid"),
            plane: "laptop".parse().expect("valid"),
        };
        for archive in archives.list(&store).expect("readable") {
            archives.contents(&archive).expect("there");
        }
        for (id, asked) in [(id_of(3), vec![768]), (id_of(99), vec![])] {
            archives.close();
            let id = ReceiptId::from_bytes(id);
            let found = find_receipt(&store, &archives, &scope, id).expect("readable");
            assert_eq!(found.map(|kept| kept.leaf_index), asked.first().copied());
            let opened = lock(&archives.idle);
            let opened: Vec<_> = opened.iter().map(|(archive, _)| archive.first).collect();
            assert_eq!(opened, asked);
        }
    }

    #[test]
    fn a_name_in_the_list_leads_to_no_other_folder() {
        let (folder, store, archives) = store(1);
        let elsewhere = folder.path().join("elsewhere.db");
        fs::copy(
            file::folder(&folder.path().join("kms.db")).join(file::name(0, 256)),
            &elsewhere,
        )
        .expect("copied");
        for (first, name) in [
            (256, "../elsewhere.db"),
            (512, elsewhere.to_str().expect("text")),
        ] {
            let archive = create_as(&elsewhere, first);
            store
                .execute(
                    "INSERT INTO archives VALUES (?1, ?2, ?3)",
                    params![archive.0, archive.1, name],
                )
                .expect("listed");
            let listed = archives.list(&store).expect("readable");
            let last = listed.last().expect("listed");
            assert_eq!(archives.contents(last), None, "{name}");
            assert_eq!(archives.ask(last, first_in), None, "{name}");
        }
    }

    /// Makes the archive say that it begins here.
    fn create_as(path: &Path, first: i64) -> (i64, i64) {
        let archive = Connection::open(path).expect("an archive");
        archive
            .execute(
                "UPDATE archive SET first_seq = ?1, end_seq = ?1 + 256",
                [first],
            )
            .expect("changed");
        (first, first + 256)
    }
}
