//! HTTP/1.1 for operators: one request a connection, a thread each, few at a time. What comes is bounded in bytes and in
//! time: each part of a conversation has a time by which it is over, however slowly it goes on. A crowd that says nothing
//! keeps nobody out: when there are too many, the one that owes its request the longest goes. Used by `threads::admin`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

use crate::limits::{HTTP_CONNECTIONS_MAX, HTTP_HEAD_BYTES_MAX};
use crate::quiet::{Quiet, suppressed};
use crate::sys::clock;

/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// What is read and thrown away after an answer, so that the client sees it and not a reset.
const DISCARDED_BYTES_MAX: usize = 1 << 20;
/// How long that may take, and how long a client that is one too many is waited for.
const LINGER: Duration = Duration::from_secs(1);
/// Between two attempts to accept when the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes a second that a body or an answer has time for, beside its first seconds: a megabit.
const BYTES_PER_SECOND: u64 = 128 << 10;
/// Between two lines that say that somebody was turned away, ms.
const COMPLAINT_MS: i64 = 60_000;

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

/// Serves until the process ends, on threads with this name. `patience`: how long a client may take for its head, and
/// beside what their length takes for its body and for taking its answer.
pub fn serve(listener: TcpListener, name: &'static str, patience: Duration, handler: Arc<Handler>) -> io::Result<()> {
    let body = move || {
        super::priority::yield_to_others();
        let crowd = Arc::new(Crowd::default());
        let mut complaints = Quiet::every(COMPLAINT_MS);
        loop {
            match listener.accept() {
                Ok((stream, peer)) => match crowd.admit(stream) {
                    Some(guest) => welcome(guest, peer, name, patience, &handler),
                    None => {
                        if let Some(others) = complaints.pass(clock::mono_us() / 1000) {
                            log::warn!(
                                "{name}: {HTTP_CONNECTIONS_MAX} requests are being answered, that of {peer} is one too \
                                 many and is closed{}",
                                suppressed(others)
                            );
                        }
                    }
                },
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

fn welcome(guest: Guest, peer: SocketAddr, name: &'static str, patience: Duration, handler: &Arc<Handler>) {
    let handler = Arc::clone(handler);
    let body = move || {
        if let Err(error) = talk(&guest, peer, patience, &handler) {
            log::debug!("{name}: {peer}: {error}");
        }
    };
    if let Err(error) = std::thread::Builder::new().name(name.into()).spawn(body) {
        log::warn!("{name}: cannot start a thread for {peer}: {error}");
    }
}

/// What a connection is doing; the first of these goes first where there is no room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    /// It has its answer.
    Answered,
    /// Its head is not whole.
    Head,
    /// Its body is not whole.
    Body,
    /// It is worked on, or answered: it stays.
    Whole,
    /// It had to make room. Its thread is about to see that.
    Leaving,
}

/// With a number that grows: the least came first.
type Guests = Vec<(u64, Stage, Arc<TcpStream>)>;

/// Everybody who is connected.
#[derive(Debug, Default)]
struct Crowd {
    guests: Mutex<Guests>,
    /// One of them is gone.
    left: Condvar,
}

/// One of them. Its place is free when it is dropped.
struct Guest {
    number: u64,
    stream: Arc<TcpStream>,
    crowd: Arc<Crowd>,
}

impl Crowd {
    fn guests(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection. If there are too many, the one that owes its request the longest makes room; nobody who has
    /// sent one does. While as many as may be here are still leaving it waits, for each has a thread until it has left: that
    /// takes no time, unless one does not see that it had to go.
    fn admit(self: &Arc<Crowd>, stream: TcpStream) -> Option<Guest> {
        let leaving_of = |guests: &Guests| guests.iter().filter(|(_, stage, _)| *stage == Stage::Leaving).count();
        let is_full = |guests: &mut Guests| leaving_of(guests) >= HTTP_CONNECTIONS_MAX;
        let waited = self.left.wait_timeout_while(self.guests(), LINGER, is_full);
        let mut guests = waited.unwrap_or_else(PoisonError::into_inner).0;
        let leaving = leaving_of(&guests);
        if guests.len() - leaving >= HTTP_CONNECTIONS_MAX {
            let (_, stage, idle) = guests.iter_mut().min_by_key(|(number, stage, _)| (*stage, *number))?;
            if *stage >= Stage::Whole || leaving >= HTTP_CONNECTIONS_MAX {
                return None;
            }
            *stage = Stage::Leaving;
            // Its thread, which reads, sees the end; a connection that is broken has no end to be seen.
            let _ = idle.shutdown(Shutdown::Both);
        }
        let number = guests.last().map_or(0, |(last, ..)| last + 1);
        let stream = Arc::new(stream);
        guests.push((number, Stage::Head, Arc::clone(&stream)));
        Some(Guest { number, stream, crowd: Arc::clone(self) })
    }
}

impl Guest {
    /// It is here from now on. An error: it had to go.
    fn come_to(&self, stage: Stage) -> io::Result<()> {
        let mut guests = self.crowd.guests();
        let own = guests.iter_mut().find(|(number, stage, _)| *number == self.number && *stage != Stage::Leaving);
        own.ok_or_else(|| io::Error::other("it made room for others")).map(|own| own.1 = stage)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.crowd.guests().retain(|(number, ..)| *number != self.number);
        self.crowd.left.notify_one();
    }
}

/// A connection that has until then, monotonic microseconds.
struct Until<'a> {
    stream: &'a TcpStream,
    until_us: i64,
}

impl<'a> Until<'a> {
    /// For so many bytes.
    fn new(stream: &'a TcpStream, patience: Duration, bytes: u64) -> Until<'a> {
        let time = patience.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND));
        let time_us = i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 2);
        Until { stream, until_us: clock::mono_us().saturating_add(time_us) }
    }

    fn left(&self) -> io::Result<Duration> {
        let left_us = u64::try_from(self.until_us.saturating_sub(clock::mono_us())).unwrap_or(0);
        if left_us == 0 { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Duration::from_micros(left_us)) }
    }
}

/// The system says that it would block where its time is over.
fn in_time<T>(done: io::Result<T>) -> io::Result<T> {
    done.map_err(|error| if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error })
}

impl Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        in_time(stream.read(bytes))
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        let mut stream = self.stream;
        in_time(stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A body, of which is known when it is whole.
struct BodyOf<'a, R> {
    from: R,
    left: u64,
    guest: &'a Guest,
}

impl<R: Read> Read for BodyOf<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.from.read(&mut bytes[..most])?;
        self.left -= read as u64;
        if self.left == 0 {
            self.guest.come_to(Stage::Whole)?;
        }
        Ok(read)
    }
}

fn talk(guest: &Guest, peer: SocketAddr, patience: Duration, handler: &Arc<Handler>) -> io::Result<()> {
    let stream: &TcpStream = &guest.stream;
    stream.set_nodelay(true)?;
    let response = match read_head(&mut Until::new(stream, patience, 0))? {
        Head::Closed => return Ok(()),
        Head::Bad(status, why) => respond(stream, patience, Response::text(status, why), false),
        Head::Good { mut request, early, expects } => {
            request.peer = peer.ip().to_canonical();
            guest.come_to(if request.body_bytes == 0 { Stage::Whole } else { Stage::Body })?;
            if expects {
                Until::new(stream, patience, 0).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let from = early.as_slice().chain(Until::new(stream, patience, request.body_bytes));
            let mut body = BodyOf { from, left: request.body_bytes, guest };
            let response = handler(&request, &mut body);
            // What is not read of the body was not wanted.
            guest.come_to(Stage::Whole)?;
            respond(stream, patience, response, request.method == "HEAD")
        }
    };
    response?;
    guest.come_to(Stage::Answered)?;
    stream.shutdown(Shutdown::Write)?;
    discard(&mut Until::new(stream, LINGER, 0))
}

/// Reads what is left, for a while.
fn discard(from: &mut impl Read) -> io::Result<()> {
    let mut piece = [0; 16 << 10];
    let mut left = DISCARDED_BYTES_MAX;
    while left > 0 {
        match from.read(&mut piece)? {
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

fn read_head(from: &mut impl Read) -> io::Result<Head> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match parse(&bytes) {
            Some(head) => return Ok(head),
            None if bytes.len() >= HTTP_HEAD_BYTES_MAX => return Ok(Head::Bad(431, "the head is too long")),
            None => {}
        }
        match from.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Ok(Head::Bad(408, "the head took too long"));
            }
            Ok(0) if bytes.is_empty() => return Ok(Head::Closed),
            Ok(0) => return Ok(Head::Bad(400, "the head is not complete")),
            read => bytes.extend_from_slice(&piece[..read?]),
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
    let target = origin_form(head.path.unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
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

/// The path of what may be a whole URI, as clients of proxies send it: whoever is asked answers.
fn origin_form(target: &str) -> &str {
    let is_whole = |scheme: &str| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let Some(scheme) = ["http://", "https://"].into_iter().find(|scheme| is_whole(scheme)) else { return target };
    let rest = &target[scheme.len()..];
    match rest.find(['/', '?']) {
        Some(end) if rest[end..].starts_with('/') => &rest[end..],
        _ => "/",
    }
}

fn respond(stream: &TcpStream, patience: Duration, response: Response, head_only: bool) -> io::Result<()> {
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
    let mut to = Until::new(stream, patience, length);
    to.write_all(head.as_bytes())?;
    match body {
        _ if head_only => Ok(()),
        Body::Bytes(bytes) => to.write_all(&bytes),
        Body::File(file, bytes) => io::copy(&mut file.take(bytes), &mut to).map(drop),
    }
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|known| known.canonical_reason()).unwrap_or_default()
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
    fn a_whole_uri_is_as_good_as_a_path() {
        for (target, path, query) in [
            ("http://h:8080/commands/x?a=1", "/commands/x", Some("1")),
            ("HTTPS://user@[::1]/x", "/x", None),
            ("http://h", "/", None),
            ("http://h?a=1", "/", None),
            ("*", "*", None),
            ("/http://h/", "/http://h/", None),
        ] {
            let request = good(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()).expect("whole");
            assert_eq!((request.path.as_str(), request.parameter("a")), (path, query), "{target}");
        }
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
            let guest = Arc::new(Crowd::default()).admit(stream).unwrap();
            let server = std::thread::spawn(move || talk(&guest, peer, Duration::from_secs(60), &handler));
            client.set_nodelay(true).unwrap();
            bytes.chunks(piece_bytes).for_each(|piece| client.write_all(piece).unwrap());
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n12345"), "{answer}");
            server.join().unwrap().unwrap();
        }
    }

    /// A port with a handler that answers after its body; and where.
    fn serving(patience: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handler = |_: &Request, body: &mut dyn Read| match io::copy(body, &mut io::sink()) {
            Ok(bytes) => Response::text(200, &format!("{bytes} bytes")),
            Err(error) => Response::text(408, &error.to_string()),
        };
        serve(listener, "test", patience, Arc::new(handler)).unwrap();
        address
    }

    fn said(mut client: &TcpStream) -> String {
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = client.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn connected(address: SocketAddr, bytes: &str) -> TcpStream {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(bytes.as_bytes()).unwrap();
        client
    }

    #[test]
    fn a_crowd_that_says_nothing_keeps_nobody_out_and_its_oldest_goes() {
        let address = serving(Duration::from_secs(600));
        let silent: Vec<TcpStream> = (0..HTTP_CONNECTIONS_MAX).map(|_| connected(address, "GET / HT")).collect();
        for _ in 0..2 {
            let client = connected(address, "GET / HTTP/1.1\r\n\r\n");
            let answer = said(&client);
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
        // At least the first of them made room, and ended at once.
        assert_eq!(said(&silent[0]).find("200"), None);
    }

    #[test]
    fn an_upload_outlives_a_crowd_that_says_nothing() {
        let address = serving(Duration::from_secs(600));
        let mut upload = connected(address, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        let mut go_on = [0; 25];
        upload.read_exact(&mut go_on).unwrap();
        upload.write_all(b"a").unwrap();
        let crowd: Vec<TcpStream> = (0..HTTP_CONNECTIONS_MAX + 8).map(|_| connected(address, "")).collect();
        // With the upload one more than there is room for is out: so the last of the crowd is in.
        assert_eq!(said(&crowd[8]), "");
        upload.write_all(b"bc").unwrap();
        assert!(said(&upload).contains("3 bytes"));
    }

    #[test]
    fn who_dawdles_is_over_by_its_time_though_it_is_never_silent() {
        let address = serving(Duration::from_millis(200));
        for beginning in ["", "POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"] {
            let client = connected(address, beginning);
            let (mut writer, reader) = (client.try_clone().unwrap(), client);
            let dawdling = std::thread::spawn(move || {
                // Until the other side has had enough.
                while writer.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            let answer = said(&reader);
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
            let _ = reader.shutdown(Shutdown::Both);
            dawdling.join().unwrap();
        }
    }

    #[test]
    fn who_does_not_take_its_answer_is_over_by_its_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        // More than the kernel takes.
        let written = Until::new(&stream, Duration::from_millis(100), 0).write_all(&vec![b'x'; 64 << 20]);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (short, long) = (Until::new(&stream, Duration::ZERO, 0), Until::new(&stream, Duration::ZERO, 1 << 30));
        assert!(long.until_us - short.until_us > 8_000_000_000, "a gigabyte has its time");
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
