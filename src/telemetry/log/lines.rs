//! The lines on their way to standard output: gathered in memory and written by a
//! thread of their own, many in one system call.
//!
//! Whoever logs copies a line into a buffer and goes on. The thread is woken for the
//! first line of many only, since waking it costs more than all else about a line.
//! A reader that stalls holds up that thread and nobody else: what comes when the
//! buffer is full is dropped.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait for standard output, those being written not counted.
const MOST_WAITING: usize = 16 * 1024 * 1024;

/// Bytes of a buffer that are kept for the next lines.
const KEPT: usize = 1024 * 1024;

/// How long the first line waits for others to be written with.
const GATHERING: Duration = Duration::from_millis(1);

/// How long the end of the process waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where lines are left to be written.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    /// Told when a line comes while the thread has nothing to do, and at the end.
    arrived: Condvar,
    /// Bytes that may wait.
    most: usize,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Whether the thread has nothing to do.
    is_idle: bool,
    is_closed: bool,
}

/// Sees to it that what was logged is written. Held for as long as anything is.
#[must_use = "what waits is lost when the process ends without it"]
pub struct LogGuard {
    lines: Lines,
    /// Closes when the thread has ended.
    ended: Receiver<()>,
}

impl Lines {
    /// Lines, and the thread that writes them to `output`. Where the thread cannot
    /// be started nothing is written.
    pub(super) fn to(output: impl Write + Send + 'static) -> (Self, LogGuard) {
        Self::bounded(MOST_WAITING, output)
    }

    fn bounded(most: usize, output: impl Write + Send + 'static) -> (Self, LogGuard) {
        let lines = Self(Arc::new(Shared {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            most,
        }));
        let (end, ended) = channel();
        let writing = lines.clone();
        // Without the thread the buffer fills up once and no more.
        let _ = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writing.write_to(output, end));
        let guard = LogGuard {
            lines: lines.clone(),
            ended,
        };
        (lines, guard)
    }

    /// Writes what comes until the end is near and nothing waits.
    fn write_to(&self, mut output: impl Write, _end: Sender<()>) {
        let mut writing = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.bytes.is_empty() {
                if waiting.is_closed {
                    return;
                }
                waiting.is_idle = true;
                waiting = self
                    .0
                    .arrived
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            waiting.is_idle = false;
            if !waiting.is_closed {
                drop(waiting);
                std::thread::sleep(GATHERING);
                waiting = self.lock();
            }
            std::mem::swap(&mut waiting.bytes, &mut writing);
            drop(waiting);
            // Nobody is there to be told that the log cannot be written.
            let _ = output.write_all(&writing).and_then(|()| output.flush());
            writing.clear();
            // What a reader that stalled once let pile up is not kept for good.
            writing.shrink_to(KEPT);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Bytes are bytes, whoever panicked elsewhere.
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Lines {
    /// Takes one line, whole or not at all.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lock();
        if waiting.bytes.len() + line.len() <= self.0.most {
            waiting.bytes.extend_from_slice(line);
            if waiting.is_idle {
                waiting.is_idle = false;
                self.0.arrived.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.lines.lock().is_closed = true;
        self.lines.0.arrived.notify_one();
        // Nothing is ever sent: this waits for the thread to end, or for long enough.
        let _ = self.ended.recv_timeout(LAST_LINES);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    /// An output that says what it was given, and takes it when it is let.
    struct Held {
        given: Sender<Vec<u8>>,
        let_go: Receiver<()>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.given.send(bytes.to_vec()).map_err(io::Error::other)?;
            self.let_go.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(lines: &Lines, line: &str) {
        let mut writer = lines;
        writer.write_all(line.as_bytes()).expect("never fails");
    }

    #[test]
    fn lines_are_written_in_order_and_the_last_before_the_end() {
        let (given, written) = channel();
        let (let_go, held) = sync_channel(1_000);
        for _ in 0..1_000 {
            let_go.send(()).expect("room");
        }
        let (lines, guard) = Lines::to(Held {
            given,
            let_go: held,
        });
        for number in 0..100 {
            log(&lines, &format!("{number}\n"));
        }
        drop(guard);
        let text: Vec<u8> = written.into_iter().flatten().collect();
        let wanted: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(text), Ok(wanted));
    }

    #[test]
    fn a_line_is_written_without_another_behind_it() {
        let (given, written) = channel();
        let (let_go, held) = channel();
        let (lines, _guard) = Lines::to(Held {
            given,
            let_go: held,
        });
        for line in ["first\n", "second\n"] {
            log(&lines, line);
            assert_eq!(written.recv().as_deref(), Ok(line.as_bytes()));
            let_go.send(()).expect("it waits");
        }
    }

    #[test]
    fn an_output_that_stalls_holds_nobody_up_and_what_waits_is_bounded() {
        let (given, written) = channel();
        let (let_go, held) = channel();
        let (lines, guard) = Lines::bounded(
            10,
            Held {
                given,
                let_go: held,
            },
        );
        log(&lines, "first\n");
        assert_eq!(written.recv().as_deref(), Ok(&b"first\n"[..]));
        for _ in 0..1_000 {
            log(&lines, "more\n");
        }
        assert_eq!(lines.lock().bytes, b"more\nmore\n");
        // Whoever stalls for ever does not keep the process either.
        drop(guard);
        drop(let_go);
    }
}
