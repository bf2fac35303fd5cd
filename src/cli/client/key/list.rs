//! `kms key list`: page after page, to the end.

use std::collections::HashSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::open;
use crate::cli::client::connection::Connection;
use crate::cli::client::shown::{self, in_words, malformed};
use crate::cli::fault::Fault;
use crate::cli::words::one_of;
use crate::domain::algorithm::KeyType;
use crate::domain::ids::KeyAlias;
use crate::domain::key::KeyState;

/// How many keys are asked for at a time, which is the most that a page holds.
const PAGE: u64 = 1_000;

/// From when on the progress is told, and how often.
const TOLD_FROM: Duration = Duration::from_secs(1);
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// The columns: a field, its heading, and how wide what it holds is at most. The last
/// one has no width, since aliases have many.
const COLUMNS: [(&str, &str, usize); 6] = [
    ("key_id", "KEY_ID", 36),
    ("key_type", "TYPE", 8),
    ("key_state", "STATE", 16),
    ("valid_until", "VALID_UNTIL", 27),
    ("rotation_count", "ROTATIONS", 9),
    ("key_alias", "ALIAS", 0),
];

/// Which keys.
#[derive(Args)]
pub(in crate::cli) struct List {
    /// Only those in this state: active, pending_rotation, archived or destroyed.
    #[arg(
        long,
        hide_possible_values = true,
        value_parser = one_of::<KeyState>(KeyState::ALL.map(KeyState::as_str)),
    )]
    state: Option<KeyState>,
    /// Only those of this type.
    #[arg(
        long = "type",
        value_name = "TYPE",
        hide_possible_values = true,
        value_parser = one_of::<KeyType>(KeyType::ALL.map(KeyType::as_str)),
    )]
    key_type: Option<KeyType>,
    /// Only those that bear, or bore, this alias.
    #[arg(long)]
    alias: Option<KeyAlias>,
    /// At most so many; all where it is not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
    next_cursor: Option<String>,
}

/// Prints them as they come.
pub(super) fn run(wanted: &List) -> Result<(), Fault> {
    let session = open(&wanted.connection)?;
    let json = wanted.connection.json;
    let filters = [
        ("key_state", wanted.state.map(|state| state.to_string())),
        ("key_type", wanted.key_type.map(|kind| kind.to_string())),
        ("alias", wanted.alias.as_ref().map(ToString::to_string)),
    ];
    let mut progress = Progress::new();
    let mut left = wanted.limit.unwrap_or(u64::MAX);
    let mut cursor: Option<String> = None;
    let mut told = 0;
    let mut lines = match json {
        true => String::new(),
        false => row(&COLUMNS.map(|(_, heading, _)| heading.to_owned())),
    };
    let mut followed = HashSet::new();
    loop {
        let limit = left.min(PAGE).to_string();
        let mut query: Vec<(&str, &str)> = vec![("limit", &limit)];
        query.extend(
            filters
                .iter()
                .filter_map(|(name, value)| Some((*name, value.as_deref()?))),
        );
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let answer = session.get("keys", &query)?;
        let page: Page<'_> =
            serde_json::from_slice(answer.expose()).map_err(|_| malformed("list of keys"))?;
        progress.clear();
        for key in page
            .keys
            .iter()
            .take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            match json {
                true => {
                    lines.push_str(&shown::one_line(key.get().as_bytes())?);
                    lines.push('\n');
                }
                false => lines.push_str(&line(key)?),
            }
            told += 1;
            left -= 1;
        }
        if !shown::write_on(&std::mem::take(&mut lines))? {
            return Ok(());
        }
        // A cursor that leads nowhere new would go on for ever.
        let is_new = |cursor: &String| followed.insert(cursor.clone());
        if !page.next_cursor.as_ref().is_none_or(is_new) {
            return Err(malformed("page of a list: its cursor leads back to it"));
        }
        cursor = page.next_cursor;
        if left == 0 || cursor.is_none() {
            return Ok(());
        }
        progress.tell(told);
    }
}

fn line(key: &RawValue) -> Result<String, Fault> {
    let key: Value = serde_json::from_str(key.get()).map_err(|_| malformed("list of keys"))?;
    let cells = COLUMNS.map(|(field, _, _)| {
        let value = key.get(field).and_then(in_words);
        value.map_or_else(|| "-".to_owned(), |text| text.into_owned())
    });
    Ok(row(&cells))
}

fn row(cells: &[String; COLUMNS.len()]) -> String {
    let mut line = String::new();
    for (cell, (_, _, width)) in cells.iter().zip(COLUMNS) {
        line.push_str(&format!("{cell:width$}  "));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

/// How far it has come: for a terminal that does not show the keys themselves.
struct Progress {
    is_wanted: bool,
    began: Instant,
    told: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        Self {
            is_wanted: io::stderr().is_terminal() && !io::stdout().is_terminal(),
            began: Instant::now(),
            told: None,
        }
    }

    fn tell(&mut self, keys: u64) {
        let is_late = self.began.elapsed() >= TOLD_FROM;
        let is_old = self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if self.is_wanted && is_late && is_old {
            // Whether anybody sees it matters not.
            let _ = write!(io::stderr(), "\r{keys} keys");
            self.told = Some(Instant::now());
        }
    }

    /// Takes the line away, so that what comes next stands alone.
    fn clear(&mut self) {
        if self.told.is_some() {
            let _ = write!(io::stderr(), "\r\u{1b}[K");
        }
    }
}
