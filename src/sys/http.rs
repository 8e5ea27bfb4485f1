//! HTTP/1.1 for operators: one request a connection, a thread each, few at a time. What comes is bounded in bytes and in
//! time, so that neither a crowd nor a client that dawdles takes more than that. Used by `threads::admin`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::limits::{HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX};
use crate::sys::clock;

/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// What is read and thrown away after an answer, so that the client sees it and not a reset.
const DISCARDED_BYTES_MAX: usize = 1 << 20;
/// How long that may take, and how long a client that is one too many is waited for.
const LINGER: Duration = Duration::from_secs(1);
/// Between two attempts to accept when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client asks.
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// The path as sent, without the query.
    pub path: String,
    /// The query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// Where from.
    pub peer: IpAddr,
    /// Bytes of the body; 0 without one.
    pub body_bytes: u64,
}

impl Request {
    /// A parameter of the query; of several the first counts.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What it is answered.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Headers, but for length and connection.
    pub headers: Vec<(&'static str, String)>,
    /// What follows.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Bytes(Vec<u8>),
    /// This many bytes of a file, from where it stands.
    File(File, u64),
}

impl Response {
    /// An answer of this type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        Response { status, headers: vec![("Content-Type", content_type.to_owned())], body: Body::Bytes(body.into()) }
    }

    /// A line of text that says what is wrong.
    pub fn text(status: u16, text: &str) -> Response {
        Response::new(status, "text/plain; charset=utf-8", format!("{text}\n"))
    }
}

/// Answers a request; what it does not read of the body is dropped. Called from several threads at once.
pub type Handler = dyn Fn(&Request, &mut dyn Read) -> Response + Send + Sync;

/// Serves until the process ends, on threads with this name. `idle`: how long a client may take for its head, and for
/// every piece of its body or of its answer.
pub fn serve(listener: TcpListener, name: &'static str, idle: Duration, handler: Arc<Handler>) -> io::Result<()> {
    let body = move || {
        super::priority::yield_to_others();
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            match listener.accept() {
                Ok((stream, peer)) => welcome(stream, peer, name, idle, &handler, &open),
                // A connection that was reset before it was accepted, or no descriptors: neither is mended by haste.
                Err(error) => {
                    log::debug!("{name}: cannot accept: {error}");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(body).map(drop)
}

fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    name: &'static str,
    idle: Duration,
    handler: &Arc<Handler>,
    open: &Arc<AtomicUsize>,
) {
    if open.fetch_add(1, Relaxed) >= HTTP_CONNECTIONS_MAX {
        open.fetch_sub(1, Relaxed);
        log::debug!("{name}: {peer} is one connection too many");
        return;
    }
    let (handler, counter) = (Arc::clone(handler), Arc::clone(open));
    let body = move || {
        if let Err(error) = talk(&stream, peer, idle, &handler) {
            log::debug!("{name}: {peer}: {error}");
        }
        counter.fetch_sub(1, Relaxed);
    };
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(body) {
        open.fetch_sub(1, Relaxed);
        log::warn!("{name}: cannot start a thread for {peer}: {error}");
    }
}

fn talk(mut stream: &TcpStream, peer: SocketAddr, idle: Duration, handler: &Arc<Handler>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(idle))?;
    stream.set_write_timeout(Some(idle))?;
    let response = match read_head(stream, idle)? {
        Head::Closed => return Ok(()),
        Head::Bad(status, why) => respond(stream, Response::text(status, why), false),
        Head::Good { mut request, early, expects } => {
            request.peer = peer.ip().to_canonical();
            if expects {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let rest = request.body_bytes.saturating_sub(early.len() as u64);
            let mut body = early.as_slice().chain(stream.take(rest));
            let response = handler(&request, &mut body);
            respond(stream, response, request.method == "HEAD")
        }
    };
    response?;
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(LINGER))?;
    discard(stream)
}

/// Reads what is left, for a while.
fn discard(mut stream: &TcpStream) -> io::Result<()> {
    let until_us = clock::mono_us() + LINGER.as_micros() as i64;
    let mut piece = [0; 16 << 10];
    let mut left = DISCARDED_BYTES_MAX;
    while left > 0 && clock::mono_us() < until_us {
        match stream.read(&mut piece)? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

enum Head {
    /// Nothing was said.
    Closed,
    /// Refused with this status.
    Bad(u16, &'static str),
    /// The request; what of its body came with it; and whether the client waits to be told to send it.
    Good { request: Request, early: Vec<u8>, expects: bool },
}

fn read_head(mut stream: &TcpStream, idle: Duration) -> io::Result<Head> {
    let until_us = clock::mono_us() + i64::try_from(idle.as_micros()).unwrap_or(i64::MAX / 2);
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match parse(&bytes) {
            Some(head) => return Ok(head),
            None if bytes.len() >= HTTP_HEAD_BYTES_MAX => return Ok(Head::Bad(431, "the head is too long")),
            None if clock::mono_us() > until_us => return Ok(Head::Bad(408, "the head took too long")),
            None => {}
        }
        match stream.read(&mut piece)? {
            0 if bytes.is_empty() => return Ok(Head::Closed),
            0 => return Ok(Head::Bad(400, "the head is not complete")),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

/// `None`: more is to come.
fn parse(bytes: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Head::Bad(431, "too many headers")),
        Err(_) => return Some(Head::Bad(400, "this is not HTTP")),
    };
    let (path, query) = head.path.unwrap_or_default().split_once('?').unwrap_or((head.path.unwrap_or_default(), ""));
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    if header("Transfer-Encoding").is_some() {
        return Some(Head::Bad(411, "a body needs a Content-Length"));
    }
    let Ok(body_bytes) = header("Content-Length").unwrap_or("0").trim().parse() else {
        return Some(Head::Bad(400, "Content-Length is not a number"));
    };
    let early = &bytes[head_bytes..];
    let early = &early[..early.len().min(usize::try_from(body_bytes).unwrap_or(usize::MAX))];
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        authorization: header("Authorization").map(str::to_owned),
        peer: IpAddr::from([0, 0, 0, 0]),
        body_bytes,
    };
    let expects = header("Expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    Some(Head::Good { request, early: early.to_owned(), expects })
}

fn respond(mut stream: &TcpStream, response: Response, head_only: bool) -> io::Result<()> {
    let Response { status, headers, body } = response;
    let length = match &body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::File(_, bytes) => *bytes,
    };
    let mut head = format!("HTTP/1.1 {status} {}\r\nConnection: close\r\nContent-Length: {length}\r\n", reason(status));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    match body {
        _ if head_only => Ok(()),
        Body::Bytes(bytes) => stream.write_all(&bytes),
        Body::File(file, bytes) => io::copy(&mut file.take(bytes), &mut stream).map(drop),
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(bytes: &[u8]) -> Option<Request> {
        match parse(bytes)? {
            Head::Good { request, .. } => Some(request),
            Head::Bad(..) | Head::Closed => None,
        }
    }

    #[test]
    fn a_request_is_taken_apart() {
        let request =
            good(b"GET /commands/x?a=1%20b&a=2&c HTTP/1.1\r\nauthorization: digest u:p\r\n\r\n").expect("whole");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/commands/x"));
        assert_eq!(request.parameter("a"), Some("1 b"));
        assert_eq!(request.parameter("c"), Some(""));
        assert_eq!(request.parameter("d"), None);
        assert_eq!(request.authorization.as_deref(), Some("digest u:p"));
    }

    #[test]
    fn half_a_head_waits_for_the_rest_and_a_body_stops_at_its_length() {
        assert!(parse(b"GET / HTTP/1.1\r\nHost: x\r\n").is_none());
        match parse(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcdef") {
            Some(Head::Good { early, .. }) => assert_eq!(early, b"abc"),
            _ => panic!("a whole head"),
        }
    }

    #[test]
    fn a_body_follows_its_head_however_the_bytes_are_cut() {
        let bytes = b"POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345 and what nobody asked for";
        for piece_bytes in [bytes.len(), 1] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, peer) = listener.accept().unwrap();
            let handler: Arc<Handler> = Arc::new(|_: &Request, body: &mut dyn Read| {
                let mut all = Vec::new();
                body.read_to_end(&mut all).unwrap();
                Response::new(200, "text/plain", all)
            });
            let server = std::thread::spawn(move || talk(&stream, peer, Duration::from_secs(60), &handler));
            client.set_nodelay(true).unwrap();
            bytes.chunks(piece_bytes).for_each(|piece| client.write_all(piece).unwrap());
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n12345"), "{answer}");
            server.join().unwrap().unwrap();
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_status() {
        for (bytes, wanted) in [
            (&b"\x00\x00\x00\x2d\x00\x00"[..], 400),
            (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        ] {
            assert!(matches!(parse(bytes), Some(Head::Bad(status, _)) if status == wanted), "{wanted}");
        }
    }
}
