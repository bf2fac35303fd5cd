//! `kms rekey`: a new key-encryption key, laid where the service looks, and how far
//! the service has come with it.
//!
//! It lays a file and reads the store. Sealing secrets anew is the service's work.

mod state;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

pub(super) use self::state::secrets_by_kek;

use self::state::State;
use super::backup::store_file;
use super::fault::{Fault, exit, load_config};
use super::owner;
use crate::adapters::data_plane::sqlite::handles::is_served;
use crate::adapters::hsm::software::kek::KeyEncryptionKey;
use crate::adapters::secret_file::LaidOutBy;
use crate::app::kek::KekFiles;

/// How often the store is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a store may be without a service that is being waited for.
const SERVICE_COMES_WITHIN: Duration = Duration::from_secs(15);

/// How long the files may take to follow the store.
const FILES_FOLLOW_WITHIN: Duration = Duration::from_secs(3);

/// What `kms rekey` is told.
#[derive(Args)]
pub(super) struct Arguments {
    /// Takes the key from this file, 32 random bytes or their base64; made where not
    /// given.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Waits, and shows progress, until every secret is sealed under the new key.
    #[arg(long)]
    wait: bool,
    /// Says how things stand, and changes nothing.
    #[arg(long, conflicts_with = "key_file")]
    status: bool,
}

/// Lays the key down, or says how things stand. Exits with 1 where that is refused or
/// fails, 2 for wrong arguments and 64 for a faulty configuration.
pub(super) fn run(config_dir: Option<PathBuf>, arguments: &Arguments) -> ExitCode {
    exit(load_config(config_dir).and_then(|config| {
        let database = store_file(&config)?;
        let files = KekFiles::of(&config);
        let (stdout, stderr) = (&mut io::stdout().lock(), &mut io::stderr().lock());
        let to = if arguments.status {
            report(database, &files, stdout)?
        } else {
            Some(lay_down(
                database,
                &files,
                arguments.key_file.as_deref(),
                stdout,
            )?)
        };
        match to {
            Some(to) if arguments.wait => follow(database, &files, &to, stdout, stderr),
            _ => Ok(()),
        }
    }))
}

/// Makes the next key's file, once nothing speaks against it; answers the key's id.
fn lay_down(
    database: &Path,
    files: &KekFiles,
    key_file: Option<&Path>,
    stdout: &mut impl Write,
) -> Result<String, Fault> {
    owner::is_ours(database)?;
    let state = State::look(database)?;
    let in_force = state.in_force()?;
    let (kek, next) = (files.kek().display(), files.next());
    if let Some(to) = state.under_way() {
        return Err(Fault::failed(format_args!(
            "a change of the key-encryption key from {in_force} to {to} is not finished, {} secrets \
             are to go: wait for it (`kms rekey --status --wait`) before the next one",
            state.not_sealed_under(to)
        )));
    }
    if next.try_exists().unwrap_or(true) {
        return Err(waiting_already(files, in_force));
    }
    let current = files.load().map_err(|fault| Fault::caused(&fault))?;
    let Some(current) = current else {
        return Err(Fault::failed(format_args!(
            "{kek} with the key-encryption key in force is missing: put it back from its backup"
        )));
    };
    if current.id() != in_force {
        return Err(Fault::failed(format_args!(
            "{kek} is not the key-encryption key that the store in {} is sealed under: this is \
             another service's data folder, or another configuration",
            database.display()
        )));
    }
    let made = match key_file {
        None => KeyEncryptionKey::create(&next).map_err(|fault| Fault::caused(&fault))?,
        Some(from) => copy(from, &next, in_force)?,
    };
    let takes_over = match is_served(database) {
        true => "the running service takes it within seconds, or within a minute of another change",
        false => "no service runs on this store, and the next one that starts takes it",
    };
    writeln!(
        stdout,
        "laid down: {next} ({id})\n\
         Now {takes_over}: it seals every secret anew, and goes on serving meanwhile. Then \
         {next} becomes {kek}, and the key that is there now {kek}.old. Until then both are \
         needed. Back the new one up.",
        next = next.display(),
        id = made.id()
    )?;
    stdout.flush()?;
    Ok(made.id())
}

fn copy(from: &Path, next: &Path, in_force: &str) -> Result<KeyEncryptionKey, Fault> {
    let missing = || Fault::failed(format_args!("{}: no such file", from.display()));
    let given = KeyEncryptionKey::load(from, LaidOutBy::Operator);
    let given = given.map_err(|fault| Fault::caused(&fault))?;
    if given.ok_or_else(missing)?.id() == in_force {
        return Err(Fault::failed(format_args!(
            "{} is the key-encryption key that is in force already: take another one",
            from.display()
        )));
    }
    KeyEncryptionKey::copy(from, next)
        .map_err(|fault| Fault::caused(&fault))?
        .ok_or_else(missing)
}

fn waiting_already(files: &KekFiles, in_force: &str) -> Fault {
    let next = files.next();
    let next = next.display();
    match files.load_next() {
        Err(fault) => Fault::caused(&fault),
        Ok(Some(kek)) if kek.id() == in_force => Fault::failed(format_args!(
            "{next} holds the key-encryption key that is in force already: see to it that {} does \
             too, and take {next} away",
            files.kek().display()
        )),
        Ok(_) => Fault::failed(format_args!(
            "{next} waits to take over already: a running service takes it within seconds, and \
             its log says what keeps it from that; one that starts does it then"
        )),
    }
}

/// Says how things stand; answers the id of the key that everything is to be sealed
/// under, if there is such a change.
fn report(
    database: &Path,
    files: &KekFiles,
    stdout: &mut impl Write,
) -> Result<Option<String>, Fault> {
    let state = State::look(database)?;
    let in_force = state.in_force()?;
    writeln!(stdout, "in force: {in_force}")?;
    for (id, number) in &state.sealed {
        let id = id.as_deref().unwrap_or("nothing that is known");
        writeln!(stdout, "sealed under {id}: {number} secrets")?;
    }
    let waits = files.load_next().map_err(|fault| Fault::caused(&fault))?;
    let waits = waits.map(|kek| kek.id()).filter(|id| id != in_force);
    let (to, words) = match (state.under_way(), waits) {
        (Some(to), _) => (
            Some(to.to_owned()),
            format!(
                "secrets are being sealed anew under {to}, {} to go",
                state.not_sealed_under(to)
            ),
        ),
        (None, Some(id)) => {
            let words = format!("{} ({id}) waits to take over", files.next().display());
            (Some(id), words)
        }
        (None, None) => (None, "nothing is under way".to_owned()),
    };
    writeln!(stdout, "state: {words}")?;
    stdout.flush()?;
    Ok(to)
}

/// Waits until this key is in force, and says what is then to be done.
fn follow(
    database: &Path,
    files: &KekFiles,
    to: &str,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Result<(), Fault> {
    let (mut served, mut said) = (Instant::now(), None);
    // Once as it is, since there may be nothing to wait for; and then beside the
    // service, so that nothing gets in the way of one that starts.
    let mut state = State::look(database)?;
    while state.in_force()? != to {
        let remaining = state.under_way().map(|_| state.not_sealed_under(to));
        if said != Some(remaining) {
            said = Some(remaining);
            // Whoever does not listen misses nothing that lasts.
            let _ = match remaining {
                None => writeln!(stderr, "waiting for the service to take the new key"),
                Some(remaining) => writeln!(stderr, "{remaining} secrets to go"),
            };
        }
        if remaining.is_none() && !files.next().exists() {
            return Err(Fault::failed(format_args!(
                "{} was taken away before the service took it",
                files.next().display()
            )));
        }
        std::thread::sleep(LOOK_EVERY);
        if is_served(database) {
            served = Instant::now();
            state = State::look(database)?;
        } else if served.elapsed() > SERVICE_COMES_WITHIN {
            return Err(Fault::failed(
                "no service runs on this store: the next one that starts goes on with it",
            ));
        }
    }
    let is_in_place = || {
        let current = files.load().ok().flatten();
        current.is_some_and(|kek| kek.id() == to)
    };
    let finished = Instant::now();
    while !is_in_place() && finished.elapsed() < FILES_FOLLOW_WITHIN {
        std::thread::sleep(LOOK_EVERY / 10);
    }
    let kek = files.kek().display();
    writeln!(stdout, "finished: every secret is sealed under {to}")?;
    if is_in_place() {
        writeln!(
            stdout,
            "The key from before is in {kek}.old, or a name that begins so. Only backups of the \
             store from before need it: destroy it once they are no longer needed."
        )?;
    } else {
        writeln!(
            stdout,
            "The service could not put it in its place: put the content of {next} into {kek}, keep \
             what was there for as long as backups from before are needed, and take {next} away.",
            next = files.next().display()
        )?;
    }
    Ok(stdout.flush()?)
}
