//! What no HTTP/2 client sends that means well, and what becomes of it.

use super::frames::*;

/// Bytes after the beginning of a connection.
pub(super) struct Attack {
    pub(super) what: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) end: End,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The connection ends as one in error; which of the errors is the library's to
    /// say.
    Gone,
    /// The connection ends because it asks too much: it is a bound that was met.
    Calmed,
    /// Stream 1 is reset with this reason, and the connection serves the next.
    Reset(u32),
    /// Stream 1 is answered with a refusal, and the connection serves the next.
    Refused,
    /// Nothing, and the connection serves the next.
    Served,
}

use End::{Calmed, Gone, Refused, Reset, Served};

/// A stream that is opened after every attack.
pub(super) const NEXT: u32 = 100_001;

/// All of them.
pub(super) fn all() -> Vec<Attack> {
    let mut all = broken_frames();
    all.extend(broken_order());
    all.extend(broken_heads());
    all.extend(broken_requests());
    all.extend(floods());
    all
}

fn attack(what: &'static str, end: End, parts: &[&[u8]]) -> Attack {
    Attack {
        what,
        bytes: parts.concat(),
        end,
    }
}

fn broken_frames() -> Vec<Attack> {
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    vec![
        attack(
            "a frame beyond the largest",
            Gone,
            &[&frame(HEADERS, END_HEADERS, 1, &[0; 20_000])],
        ),
        attack(
            "another protocol",
            Gone,
            &[b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"],
        ),
        attack(
            "settings of five bytes",
            Gone,
            &[&frame(SETTINGS, 0, 0, &[0; 5])],
        ),
        attack("settings of a stream", Gone, &[&frame(SETTINGS, 0, 1, &[])]),
        attack("a window beyond all windows", Gone, &[&setting(4, 1 << 31)]),
        attack("a largest frame below the least", Gone, &[&setting(5, 1)]),
        attack(
            "a ping of seven bytes",
            Gone,
            &[&frame(PING, 0, 0, &[0; 7])],
        ),
        attack("a ping of a stream", Gone, &[&frame(PING, 0, 1, &[0; 8])]),
        attack(
            "a connection's window wider by nothing",
            Gone,
            &[&window(0, 0)],
        ),
        attack(
            "a connection's window beyond all windows",
            Gone,
            &[&window(0, 0x7fff_ffff), &window(0, 0x7fff_ffff)],
        ),
        attack(
            "padding longer than its frame",
            Gone,
            &[&frame(HEADERS, END_HEADERS | PADDED, 1, &[200, 0x82])],
        ),
        attack(
            "a stream's window wider by nothing",
            Gone,
            &[&post(1, b""), &window(1, 0)],
        ),
        attack(
            "a stream's window beyond all windows",
            Reset(FLOW_CONTROL_ERROR),
            &[&post(1, b""), &window(1, 0x7fff_ffff)],
        ),
    ]
}

fn broken_order() -> Vec<Attack> {
    vec![
        attack(
            "a head of no stream",
            Gone,
            &[&frame(HEADERS, END_HEADERS, 0, GET)],
        ),
        attack("a stream that is not a client's", Gone, &[&get(2)]),
        attack("a stream below the last", Gone, &[&get(5), &get(3)]),
        attack("a body of no head", Gone, &[&frame(DATA, 0, 1, b"{}")]),
        attack(
            "a body after its end",
            Gone,
            &[&get(1), &frame(DATA, 0, 1, b"{}")],
        ),
        attack(
            "a reset of no stream",
            Gone,
            &[&frame(RST_STREAM, 0, 1, &[0; 4])],
        ),
        attack(
            "a promise by a client",
            Gone,
            &[&frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])],
        ),
        attack(
            "a continuation of nothing",
            Gone,
            &[&frame(CONTINUATION, END_HEADERS, 1, GET)],
        ),
        attack(
            "a head with a ping inside",
            Gone,
            &[&frame(HEADERS, 0, 1, GET), &frame(PING, 0, 0, &[0; 8])],
        ),
        attack(
            "a head continued by another stream's",
            Gone,
            &[
                &frame(HEADERS, 0, 1, GET),
                &frame(CONTINUATION, END_HEADERS, 3, b""),
            ],
        ),
    ]
}

fn broken_heads() -> Vec<Attack> {
    let head = |block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
    let with = |more: &[u8]| head(&[GET, more].concat());
    // An entry of the dynamic table as large as it may be, and then its number, so
    // often that what is meant takes 48 MiB.
    let mut bomb = b"\x82\x86\x41\x01a\x04\x01/\x40\x01b\x7f\x81\x1e".to_vec();
    bomb.extend([b'c'; 3_968]);
    bomb.extend([0xbe; 12_000]);
    let beyond_measure: Vec<u8> = (0..400)
        .flat_map(|_| named("a-name-of-some-length", &"b".repeat(80)))
        .collect();
    let (first, second) = beyond_measure.split_at(16_000);
    let (second, third) = second.split_at(16_000);
    vec![
        attack("a field of no number", Gone, &[&head(b"\x80")]),
        attack(
            "a field of too large a number",
            Gone,
            &[&with(b"\xff\x80\x01")],
        ),
        attack("a number without end", Gone, &[&with(&[0xff; 100])]),
        attack(
            "a table larger than agreed",
            Gone,
            &[&head(&[b"\x3f\xe1\xff\x03", GET].concat())],
        ),
        attack(
            "a code for the end inside a text",
            Gone,
            &[&with(b"\x10\x01a\x84\xff\xff\xff\xff")],
        ),
        attack(
            "a text longer than its head",
            Gone,
            &[&with(b"\x10\x01a\x7e1")],
        ),
        attack("a few bytes that mean 48 MiB", Calmed, &[&head(&bomb)]),
        attack(
            "a head beyond measure",
            Refused,
            &[
                &frame(HEADERS, END_STREAM, 1, &[GET, first].concat()),
                &frame(CONTINUATION, 0, 1, second),
                &frame(CONTINUATION, END_HEADERS, 1, third),
            ],
        ),
    ]
}

fn broken_requests() -> Vec<Attack> {
    let head = |block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
    let with = |more: &[u8]| head(&[GET, more].concat());
    let of_two_bytes = post(1, &literal(28, "2"));
    let reset = Reset(PROTOCOL_ERROR);
    vec![
        attack("no path", reset, &[&head(b"\x82\x86\x41\x01a")]),
        attack("two paths", reset, &[&with(b"\x84")]),
        attack("an answer", reset, &[&head(&[0x88])]),
        attack("a name in capitals", Gone, &[&with(&named("X-Up", "a"))]),
        attack(
            "a field of HTTP/1.1's connections",
            reset,
            &[&with(&named("connection", "close"))],
        ),
        attack(
            "a coding of HTTP/1.1's",
            reset,
            &[&with(&named("transfer-encoding", "chunked"))],
        ),
        attack(
            "a method after a field",
            reset,
            &[&head(b"\x86\x41\x01a\x04\x01/\x10\x01b\x01c\x82")],
        ),
        attack(
            "a body longer than it said",
            reset,
            &[&of_two_bytes, &frame(DATA, END_STREAM, 1, b"{}{}{}")],
        ),
        attack(
            "a body shorter than it said",
            reset,
            &[&of_two_bytes, &frame(DATA, END_STREAM, 1, b"{")],
        ),
        attack(
            "two lengths of one body",
            reset,
            &[&post(1, &[literal(28, "2"), literal(28, "3")].concat())],
        ),
    ]
}

/// Each frame of these is well-formed; there are too many of them.
fn floods() -> Vec<Attack> {
    let many = |how_many: u32, of: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> {
        let streams = (0..how_many).map(|number| 2 * number + 1);
        streams.flat_map(of).collect()
    };
    let same = |one: Vec<u8>| one.repeat(20_000);
    let resets = |reason: u32| {
        many(20_000, &|stream| {
            let reset = frame(RST_STREAM, 0, stream, &reason.to_be_bytes());
            [get(stream), reset].concat()
        })
    };
    let too_wide = |stream| {
        let wider = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [post(stream, b""), wider].concat()
    };
    let broken_once = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, b"\x82\x86");
    // A field of one byte, never indexed.
    let endless = frame(CONTINUATION, 0, 1, &[0x10, 1, b'a', 1, b'b']);
    let empty = frame(CONTINUATION, 0, 1, b"");
    vec![
        attack("streams opened to be reset", Calmed, &[&resets(8)]),
        attack(
            "streams that make the service reset them",
            Calmed,
            &[&many(2_000, &too_wide)],
        ),
        attack(
            "requests that make the service reset them",
            Calmed,
            &[&many(2_000, &broken_once)],
        ),
        attack(
            "a head without end",
            Calmed,
            &[&frame(HEADERS, 0, 1, GET), &same(endless)],
        ),
        attack(
            "a head continued by nothing without end",
            Calmed,
            &[&frame(HEADERS, 0, 1, GET), &same(empty)],
        ),
        attack("settings", Served, &[&same(frame(SETTINGS, 0, 0, b""))]),
        attack("pings", Served, &[&same(frame(PING, 0, 0, &[1; 8]))]),
        attack(
            "answers to no ping",
            Served,
            &[&same(frame(PING, ACK, 0, &[1; 8]))],
        ),
        attack(
            "priorities",
            Served,
            &[&same(frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]))],
        ),
        attack(
            "frames of a kind nobody knows",
            Served,
            &[&same(frame(0xbe, 0xff, 1, b"any"))],
        ),
        attack(
            "a body of nothing without end",
            Calmed,
            &[&post(1, b""), &same(frame(DATA, 0, 1, b""))],
        ),
        attack(
            "more streams than were agreed, again and again",
            Calmed,
            &[&many(2_000, &|stream| post(stream, b""))],
        ),
    ]
}
