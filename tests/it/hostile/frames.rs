//! HTTP/2 by hand: frames (RFC 9113 §4 and §6) and heads in HPACK (RFC 7541).

/// How an HTTP/2 connection begins: the preface and our settings.
pub(super) const BEGINNING: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// The kinds of frames (RFC 9113 §6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_HEADERS: u8 = 4;
pub(super) const END_STREAM: u8 = 1;
pub(super) const PADDED: u8 = 8;
pub(super) const ACK: u8 = 1;

/// What a connection or a stream ends for (RFC 9113 §7).
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET http://a/health`: three entries of the static table, and a path that is in
/// none.
pub(super) const GET: &[u8] = b"\x82\x86\x41\x01a\x04\x07/health";

/// `:status: 200`, which is in the static table.
const STATUS_200: u8 = 0x88;

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a length")
        .to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request without a body.
pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)
}

/// A request without a body for another path.
pub(super) fn get_path(stream: u32, path: &str) -> Vec<u8> {
    let mut head = b"\x82\x86\x41\x01a".to_vec();
    head.extend(literal(4, path));
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
}

/// The head of a request to sign, with a body to come and these fields too.
pub(super) fn post(stream: u32, fields: &[u8]) -> Vec<u8> {
    let mut head = b"\x83\x86\x41\x01a".to_vec();
    head.extend(literal(4, "/kms/v1/sign"));
    head.extend(literal(31, "application/json"));
    head.extend(fields);
    frame(HEADERS, END_HEADERS, stream, &head)
}

/// A field whose name is in the static table, never indexed (RFC 7541 §6.2.3).
pub(super) fn literal(name: u8, value: &str) -> Vec<u8> {
    let mut field = match name {
        0..15 => vec![0x10 | name],
        _ => vec![0x1f, name - 15],
    };
    field.push(short_length(value));
    field.extend(value.as_bytes());
    field
}

/// A field with this name, never indexed.
pub(super) fn named(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0x10, short_length(name)];
    field.extend(name.as_bytes());
    field.push(short_length(value));
    field.extend(value.as_bytes());
    field
}

fn short_length(text: &str) -> u8 {
    let length = u8::try_from(text.len()).expect("short");
    assert!(length < 127, "one byte says its length");
    length
}

/// A setting (RFC 9113 §6.5.1).
pub(super) fn setting(name: u16, value: u32) -> Vec<u8> {
    let mut payload = name.to_be_bytes().to_vec();
    payload.extend(value.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

/// What came, read as frames.
pub(super) struct Received<'a> {
    kind: u8,
    stream: u32,
    payload: &'a [u8],
}

/// The whole frames in these bytes.
pub(super) fn received(mut bytes: &[u8]) -> Vec<Received<'_>> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, s, t, u, v, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, after)) = rest.split_at_checked(length) else {
            break;
        };
        frames.push(Received {
            kind: *kind,
            stream: u32::from_be_bytes([*s, *t, *u, *v]),
            payload,
        });
        bytes = after;
    }
    frames
}

/// The settings in the first frame.
pub(super) fn settings(bytes: &[u8]) -> Vec<(u16, u32)> {
    let frames = received(bytes);
    assert_eq!(frames[0].kind, SETTINGS, "the first frame");
    let six = frames[0].payload.chunks_exact(6);
    six.map(|six| {
        let name = u16::from_be_bytes([six[0], six[1]]);
        let value = u32::from_be_bytes([six[2], six[3], six[4], six[5]]);
        (name, value)
    })
    .collect()
}

/// Why the service said that it would go away, if it did.
pub(super) fn gone_for(bytes: &[u8]) -> Option<u32> {
    let frames = received(bytes);
    let last = frames.iter().rfind(|frame| frame.kind == GOAWAY)?;
    Some(number(&last.payload[4..8]))
}

/// Why the service reset this stream, if it did.
pub(super) fn reset_for(bytes: &[u8], stream: u32) -> Option<u32> {
    let frames = received(bytes);
    let reset = frames
        .iter()
        .find(|frame| frame.kind == RST_STREAM && frame.stream == stream)?;
    Some(number(reset.payload))
}

/// Whether a request was answered, and with 200.
pub(super) fn answered(bytes: &[u8], stream: u32) -> Option<bool> {
    let frames = received(bytes);
    let head = frames
        .iter()
        .find(|frame| frame.kind == HEADERS && frame.stream == stream)?;
    Some(head.payload.first() == Some(&STATUS_200))
}

/// How many frames of this kind came.
pub(super) fn count(bytes: &[u8], kind: u8) -> usize {
    let frames = received(bytes);
    frames.iter().filter(|frame| frame.kind == kind).count()
}

fn number(four: &[u8]) -> u32 {
    u32::from_be_bytes(four.try_into().expect("four bytes"))
}
