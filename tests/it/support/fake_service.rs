//! Something that answers where a service is expected, as no service does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// It listens until the test ends.
pub(crate) struct FakeService {
    address: String,
    heard: Arc<Mutex<Vec<Request>>>,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Method and target.
    pub(crate) line: String,
    /// The whole head.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Request {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What is answered.
pub(crate) enum Reply {
    /// This status, these headers (each with its line end) and this body.
    Answer(u16, &'static str, String),
    /// Nothing: the connection is closed.
    HangUp,
}

impl FakeService {
    /// Answers what this makes of a request and of how many came before it.
    pub(crate) fn new(reply: impl Fn(&Request, usize) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let book = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let Some(request) = read(&mut stream) else {
                    continue;
                };
                let before = {
                    let mut book = book.lock().expect("no panic");
                    book.push(request.clone());
                    book.len() - 1
                };
                if let Reply::Answer(status, headers, body) = reply(&request, before) {
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{headers}\
                         connection: close\r\n\r\n{body}"
                    );
                    // Whoever has read enough hangs up.
                    let _ = stream.get_mut().write_all(answer.as_bytes());
                }
            }
        });
        Self { address, heard }
    }

    /// Answers the same to everything.
    pub(crate) fn always(status: u16, headers: &'static str, body: impl Into<String>) -> Self {
        let body = body.into();
        Self::new(move |_, _| Reply::Answer(status, headers, body.clone()))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What was asked so far.
    pub(crate) fn heard(&self) -> Vec<Request> {
        self.heard.lock().expect("no panic").clone()
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let line = head.lines().next()?.to_owned();
    let mut request = Request {
        line,
        head,
        body: String::new(),
    };
    let length = request.header("content-length");
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}
