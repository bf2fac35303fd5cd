//! Paths of tiles (C2SP tlog-tiles).

use std::fmt;
use std::str::FromStr;

use super::tile::TILE_WIDTH;
use crate::domain::wire::{Unparsable, WireField};

/// The highest level that a path may name.
const HIGHEST_LEVEL: u8 = 63;

/// What a tile's path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileKind {
    /// Hashes of this level.
    Hashes {
        /// The level.
        level: u8,
    },
    /// The receipts themselves.
    Entries,
}

/// A tile as its path names it: `<L>/<N>[.p/<W>]` or `entries/<N>[.p/<W>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TilePath {
    /// What of.
    pub kind: TileKind,
    /// The place in the level, from 0.
    pub index: u64,
    /// How many hashes or receipts, 1 to 256.
    pub width: usize,
}

impl TilePath {
    /// The form of a path, as a regular expression (ECMA-262). Of its longest numbers some
    /// are larger than any tree.
    pub const PATTERN: &'static str = "^(?:entries|[0-9]|[1-5][0-9]|6[0-3])/\
        (?:[0-9]{3}|x(?:[1-9][0-9]{2}|0[1-9][0-9]|00[1-9])/(?:x[0-9]{3}/){0,4}[0-9]{3})\
        (?:[.]p/(?:[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]))?$";

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes {
                level: canonical_number::<u8>(level).filter(|level| *level <= HIGHEST_LEVEL)?,
            },
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE_WIDTH),
            Some((index, width)) => {
                let width = canonical_number::<usize>(width)?;
                (index, (1..TILE_WIDTH).contains(&width).then_some(width)?)
            }
        };
        Some(Self {
            kind,
            index: parse_index(index)?,
            width,
        })
    }
}

impl WireField for TilePath {
    const EXPECTED: &'static str =
        "<L>/<N> or entries/<N>, with .p/<W> behind it for part of a tile (C2SP tlog-tiles)";
}

impl FromStr for TilePath {
    type Err = Unparsable;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or(Unparsable(Self::EXPECTED))
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes { level } => write!(f, "{level}/")?,
            TileKind::Entries => f.write_str("entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        while let Some(group) = groups.pop() {
            if groups.is_empty() {
                write!(f, "{group:03}")?;
            } else {
                write!(f, "x{group:03}/")?;
            }
        }
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

/// A number in the one way to write it: digits, and no zero in front.
fn canonical_number<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    let number: T = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// `x001/x234/067`: groups of three digits, all but the last behind an `x`, and
/// no group of zeros in front.
fn parse_index(text: &str) -> Option<u64> {
    let mut index = 0u64;
    let mut groups = text.split('/').peekable();
    let mut is_first = true;
    while let Some(group) = groups.next() {
        let digits = match groups.peek() {
            Some(_) => group.strip_prefix('x')?,
            None => group,
        };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: u64 = digits.parse().ok()?;
        if is_first && number == 0 && groups.peek().is_some() {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(number)?;
        is_first = false;
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<TilePath> {
        text.parse().ok()
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        let hashes = |level, index, width| TilePath {
            kind: TileKind::Hashes { level },
            index,
            width,
        };
        for (text, path) in [
            ("0/000", hashes(0, 0, 256)),
            ("3/x001/x234/067", hashes(3, 1_234_067, 256)),
            ("0/x001/x234/067.p/8", hashes(0, 1_234_067, 8)),
            ("63/999.p/255", hashes(63, 999, 255)),
            (
                "entries/x018/x446/x744/x073/x709/x551/615",
                TilePath {
                    kind: TileKind::Entries,
                    index: u64::MAX,
                    width: 256,
                },
            ),
        ] {
            assert_eq!(read(text), Some(path), "{text}");
            assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_path() {
        for text in [
            "",
            "0",
            "0/",
            "/000",
            "0/0",
            "0/00",
            "0/0000",
            "0/+00",
            "0/x000",
            "0/x000/001",
            "0/001/002",
            "0/x001/x002",
            "00/000",
            "+1/000",
            "64/000",
            "256/000",
            "-1/000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/01",
            "0/000.p/",
            "0/000.p",
            "0/000/",
            "0/000.p/1/",
            "data/000",
            "Entries/000",
            "entries/x018/x446/x744/x073/x709/x551/616",
            "0/x999/x999/x999/x999/x999/x999/x999/999",
            "0/\u{661}\u{662}\u{663}",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            level in prop::option::of(0u8..=63),
            index in any::<u64>(),
            small in any::<bool>(),
            width in 1usize..=256,
        ) {
            let kind = level.map_or(TileKind::Entries, |level| TileKind::Hashes { level });
            let index = if small { index % 3_000 } else { index };
            let path = TilePath { kind, index, width };
            prop_assert_eq!(read(&path.to_string()), Some(path));
        }

        #[test]
        fn another_implementation_writes_the_same_index(index in any::<u64>(), width in 1u32..=256) {
            let theirs = tlog_tiles::Tile::new(8, 0, index, width, false).path();
            let ours = TilePath {
                kind: TileKind::Hashes { level: 0 },
                index,
                width: width as usize,
            };
            prop_assert_eq!(theirs, format!("tile/8/{ours}"));
        }
    }
}
