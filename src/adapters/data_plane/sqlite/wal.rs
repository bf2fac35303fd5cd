//! The end of the write-ahead log, judged before SQLite opens it. SQLite takes
//! the log up to the last commit before the first frame that does not check out,
//! and says nothing about the rest. The rest is either a write that was cut off,
//! of which nothing was acknowledged, or a loss. Only reads.
//!
//! The format is section 4 of <https://sqlite.org/fileformat2.html>, that of the
//! index <https://sqlite.org/walformat.html>. What tells the two apart is the
//! order in which the one writer writes with `synchronous = FULL`: a log's header
//! is on the disk before its first frame is written, and a transaction before the
//! next one's first frame. Each frame's checksum goes on from the one before it.
//! So a frame that goes on from a commit proves that this commit was on the disk,
//! whatever has become of it since. Frames of a commit that *failed* stay in the
//! file until others are written over them, and prove nothing: nothing goes on
//! from its end.
//!
//! What cannot be seen: damage to the newest transaction looks like a write that
//! was cut off, unless the index is there and says that it was committed; and
//! damage to a commit together with the frame behind it.

mod format;

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, SeekFrom};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use self::format::{FRAME_HEADER_LEN, Frame, HEADER_LEN, Header, Order, Sum, is_page_size};

/// What our databases have; asked where neither log nor database can tell.
const USUAL_PAGE_SIZE: usize = 4_096;
/// One copy of the index's header, of which there are two.
const INDEX_HEADER_LEN: usize = 48;
/// What a log begins with, in bytes.
pub(super) const LOG_HEADER_LEN: usize = HEADER_LEN;
/// What the index begins with: both copies of its header, in bytes.
pub(super) const INDEX_HEADERS_LEN: usize = 2 * INDEX_HEADER_LEN;

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogEnd {
    /// With a commit, or there is no log.
    Whole,
    /// In a write that was cut off or failed: so much of it is in the file.
    Torn {
        /// Frames, the last of them perhaps in part.
        frames: u64,
        /// Bytes.
        bytes: u64,
    },
}

/// What must not be passed over in silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A frame does not check out, and a later transaction goes on behind it.
    Frame {
        /// The first such frame, from 1.
        frame: u64,
    },
    /// The header does not check out, and frames behind it do.
    Header,
    /// The log ends before what its index says was committed.
    Short {
        /// The last commit that is there, as a number of frames.
        there: u64,
        /// The last commit that was made.
        committed: u64,
    },
    /// There are commits, and no database that they belong to.
    NoDatabase,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame { frame } => write!(
                formatter,
                "its frame {frame} does not check out, and a later transaction was written \
                 behind it"
            ),
            Self::Header => write!(
                formatter,
                "its header does not check out, and frames behind it do"
            ),
            Self::Short { there, committed } => write!(
                formatter,
                "it is good up to frame {there}, and the -shm file beside it says that frame \
                 {committed} was committed (after a restore from a backup, remove that -shm file: \
                 it belongs to what was there before)"
            ),
            Self::NoDatabase => write!(
                formatter,
                "it holds committed transactions, and the database that they belong to is \
                 missing or empty"
            ),
        }
    }
}

/// Why a log cannot be judged, or must not be passed over.
#[derive(Debug)]
pub(super) enum LogFault {
    Damaged(Damage),
    Unreadable(io::Error),
}

impl From<io::Error> for LogFault {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// The log of a database.
pub(super) fn log_of(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

/// The index of a database's log.
pub(super) fn index_of(database: &Path) -> PathBuf {
    beside(database, "-shm")
}

/// A file's length, time and number; nothing where it is not there.
pub(super) type FileState = Option<(u64, i64, i64, u64)>;

/// What shows from outside that a database or its log was written.
pub(super) fn file_states(database: &Path) -> io::Result<[FileState; 2]> {
    let state = |path: &Path| match fs::metadata(path) {
        Ok(file) => Ok(Some((
            file.len(),
            file.mtime(),
            file.mtime_nsec(),
            file.ino(),
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    Ok([state(database)?, state(&log_of(database))?])
}

/// Judges the log of a database that no process has open.
pub(super) fn judge(database: &Path) -> Result<LogEnd, LogFault> {
    let Some(file) = open_if_there(&log_of(database))? else {
        return Ok(LogEnd::Whole);
    };
    let mut log = BufReader::new(file);
    let mut bytes = [0; HEADER_LEN];
    if read_up_to(&mut log, &mut bytes)? < HEADER_LEN {
        // Not even a header: SQLite writes it, durably, before everything else.
        return Ok(LogEnd::Whole);
    }
    let Some(header) = Header::parse(&bytes) else {
        return judge_without_header(&mut log, &bytes, page_size_of(database)?);
    };
    let (good, end) = judge_frames(&mut log, &header)?;
    if good > 0 && database.metadata().map_or(0, |database| database.len()) == 0 {
        // SQLite would remove the log and begin anew.
        return Err(LogFault::Damaged(Damage::NoDatabase));
    }
    let committed = committed_by_index(&index_of(database), header.salts)?;
    if committed > good {
        return Err(LogFault::Damaged(Damage::Short {
            there: good,
            committed,
        }));
    }
    Ok(end)
}

/// Follows the frames as SQLite does, up to the last commit before the first that
/// does not check out, and looks at what is behind. Answers that commit too, as a
/// number of frames.
fn judge_frames(log: &mut impl Read, header: &Header) -> Result<(u64, LogEnd), LogFault> {
    let mut buffer = vec![0; FRAME_HEADER_LEN + header.page_size];
    let mut sum = header.sum;
    let mut broken: Option<Broken> = None;
    let (mut index, mut good, mut size) = (0, 0, 0);
    // Up to where the file holds what was written after the last good commit.
    let mut torn_until = 0;
    let mut length;
    loop {
        length = read_up_to(log, &mut buffer)?;
        if length < buffer.len() {
            break;
        }
        index += 1;
        let frame = Frame(&buffer);
        let due = frame.sum(header.order, sum);
        if broken.is_none()
            && frame.salts() == header.salts
            && frame.page() != 0
            && due == frame.stored_sum()
        {
            sum = due;
            torn_until = index;
            if frame.is_commit() {
                good = index;
                size = frame.database_size();
            }
            continue;
        }
        let this = match &broken {
            None => {
                // A database never shrinks, and grows by no more than was written.
                let sizes = match index - good {
                    _ if good == 0 => 1..=u32::MAX,
                    written => {
                        size..=size.saturating_add(u32::try_from(written).unwrap_or(u32::MAX))
                    }
                };
                Broken::first(index, &frame, header, sum, &sizes)
            }
            Some(before) => before.next(&frame, header),
        };
        if this.is_behind_commit && this.is_ours {
            return Err(LogFault::Damaged(Damage::Frame { frame: this.first }));
        }
        if this.is_ours || frame.is_unfinished() {
            torn_until = index;
        }
        broken = Some(this);
    }
    let frame_len = buffer.len() as u64;
    // A frame of which the file has a part: of an earlier log only by its salts.
    let is_leftover = match length {
        0 => true,
        1..16 => broken.is_some(),
        _ => buffer[8..16] != header.salts,
    };
    let end = if !is_leftover {
        LogEnd::Torn {
            frames: index + 1 - good,
            bytes: (index - good) * frame_len + length as u64,
        }
    } else if torn_until > good {
        LogEnd::Torn {
            frames: torn_until - good,
            bytes: (torn_until - good) * frame_len,
        }
    } else {
        LogEnd::Whole
    };
    Ok((good, end))
}

/// Judges a log whose header does not check out. The header is 32 bytes in one
/// sector, and durable before the first frame is written: cut off in the middle of
/// it, a log has no frame yet. What checks out behind it was therefore written
/// behind a good header, and may be all that there is of what was acknowledged.
/// (It may also be left over from an earlier log, and no loss; but then a disk has
/// written half a sector, and nobody can say what else.)
fn judge_without_header(
    log: &mut (impl Read + io::Seek),
    header: &[u8; HEADER_LEN],
    page_size: usize,
) -> Result<LogEnd, LogFault> {
    let mut buffer = vec![0; FRAME_HEADER_LEN + page_size];
    let mut bytes = 0;
    for order in [Order::Little, Order::Big] {
        log.seek(SeekFrom::Start(HEADER_LEN as u64))?;
        let (body, sum) = header.split_at(HEADER_LEN - 8);
        // Whichever of the two is damaged, the other tells how the log goes on.
        let mut before = [Sum::stored(sum), Sum::START.plus(order, body)];
        bytes = 0;
        loop {
            let length = read_up_to(log, &mut buffer)?;
            bytes += length as u64;
            if length < buffer.len() {
                break;
            }
            let frame = Frame(&buffer);
            let sums = before.map(|sum| frame.sum(order, sum));
            if frame.page() != 0 && sums.contains(&frame.stored_sum()) {
                return Err(LogFault::Damaged(Damage::Header));
            }
            before = [frame.stored_sum(), sums[0]];
        }
    }
    Ok(LogEnd::Torn {
        frames: bytes.div_ceil(buffer.len() as u64),
        bytes: HEADER_LEN as u64 + bytes,
    })
}

/// How many frames the index says are committed. SQLite writes that down, and not
/// for good, once they are durable: it may be behind the log, and never before it.
fn committed_by_index(index: &Path, salts: [u8; 8]) -> io::Result<u64> {
    let Some(mut file) = open_if_there(index)? else {
        return Ok(0);
    };
    let mut copies = [0; INDEX_HEADERS_LEN];
    let length = read_up_to(&mut file, &mut copies)?;
    let (copies, _) = copies[..length].as_chunks::<INDEX_HEADER_LEN>();
    let committed = copies.iter().filter_map(|copy| {
        let number =
            |at: usize| u32::from_ne_bytes([copy[at], copy[at + 1], copy[at + 2], copy[at + 3]]);
        let sum = Sum::START.plus(Order::NATIVE, &copy[..INDEX_HEADER_LEN - 8]);
        let is_good = copy[12] == 1 && sum == Sum(number(40), number(44));
        (is_good && copy[32..40] == salts).then(|| u64::from(number(16)))
    });
    Ok(committed.max().unwrap_or(0))
}

/// A frame at or behind the first that does not check out.
struct Broken {
    /// That first one.
    first: u64,
    /// From which checksum the next frame goes on, and whether this one was a
    /// commit in that case: its own, if something else in it is damaged, or the
    /// one that it should have, if it is the checksum.
    onward: [(Sum, bool); 2],
    /// Whether it is of this log, and not of an earlier one.
    is_ours: bool,
    /// Whether it goes on from the frame before it, and that was a commit.
    is_behind_commit: bool,
}

impl Broken {
    /// The first one. If it is a commit, the database has one of these sizes.
    fn first(
        first: u64,
        frame: &Frame<'_>,
        header: &Header,
        before: Sum,
        sizes: &RangeInclusive<u32>,
    ) -> Self {
        let due = frame.sum(header.order, before);
        let was_commit = frame.was_commit(header.order, before, sizes);
        Self {
            first,
            onward: [(frame.stored_sum(), was_commit), (due, frame.is_commit())],
            // Right but for its salts, it is not left over from an earlier log.
            is_ours: frame.salts() == header.salts || due == frame.stored_sum(),
            is_behind_commit: false,
        }
    }

    fn next(&self, frame: &Frame<'_>, header: &Header) -> Self {
        let stored = frame.stored_sum();
        let [due, other] = self.onward.map(|(sum, _)| frame.sum(header.order, sum));
        let from = [due, other].iter().position(|sum| *sum == stored);
        let is_ours = frame.salts() == header.salts;
        Self {
            first: self.first,
            onward: [stored, due].map(|sum| (sum, frame.is_commit())),
            // What goes on from a frame of this log is of this log.
            is_ours: is_ours || from.is_some() && self.is_ours,
            is_behind_commit: from.is_some_and(|from| self.onward[from].1),
        }
    }
}

/// The size of the pages, as the database itself says.
fn page_size_of(database: &Path) -> io::Result<usize> {
    let mut start = [0; 18];
    if let Some(mut file) = open_if_there(database)? {
        read_up_to(&mut file, &mut start)?;
    }
    let size = match usize::from(u16::from_be_bytes([start[16], start[17]])) {
        1 => 65_536,
        size => size,
    };
    Ok(match is_page_size(size) {
        true => size,
        false => USUAL_PAGE_SIZE,
    })
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(suffix);
    path.into()
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match source.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
