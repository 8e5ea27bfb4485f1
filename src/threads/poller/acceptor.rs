//! A listening socket and who is in by it. Called by `threads::poller`.

use std::io::ErrorKind;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};

use crate::limits;
use crate::net::admit::{Admission, AdmitLimits, Surplus};
use crate::quiet::{Quiet, suppressed};
use crate::sys::files::{self, is_out_of_descriptors};
use crate::sys::net::{Listener, close_at_once, prepare_client};

/// A listener.
#[derive(Debug)]
pub struct Acceptor {
    /// Who is in.
    pub admission: Admission,
    socket: TcpListener,
    address: SocketAddr,
    /// Connections may be waiting.
    ready: bool,
    /// Out of descriptors: nobody is accepted before this time, monotonic ms.
    pause_until_ms: Option<i64>,
    /// Accepting failed, was complained of, and has not worked since.
    is_stuck: bool,
    complaints: Quiet,
}

/// What accepting brought.
#[derive(Debug)]
pub enum Accepted {
    /// A client, counted in.
    Client(TcpStream, SocketAddr),
    /// One too many: closed already.
    Surplus,
    /// Nobody is waiting, or nobody can be taken now.
    Nobody,
}

impl Acceptor {
    /// A bound listener.
    pub fn new(listener: Listener, limits: AdmitLimits) -> Acceptor {
        Acceptor {
            admission: Admission::new(limits),
            socket: listener.socket,
            address: listener.address,
            ready: true,
            pause_until_ms: None,
            is_stuck: false,
            complaints: Quiet::default(),
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same at another address.
    pub fn move_to(&mut self, listener: Listener) {
        self.socket = listener.socket;
        self.address = listener.address;
        self.ready = true;
        self.pause_until_ms = None;
    }

    /// The socket, to register it.
    pub fn socket_mut(&mut self) -> &mut TcpListener {
        &mut self.socket
    }

    /// An edge.
    pub fn on_event(&mut self) {
        self.ready = true;
    }

    /// Whether accepting is worth a try.
    pub fn is_ready(&self, now_ms: i64) -> bool {
        self.ready && self.pause_until_ms.is_none_or(|until_ms| until_ms <= now_ms)
    }

    /// When accepting is to be tried again, monotonic ms.
    pub fn retry_ms(&self) -> Option<i64> {
        self.pause_until_ms.filter(|_| self.ready)
    }

    /// A descriptor came free.
    pub fn on_descriptor_free(&mut self) {
        self.pause_until_ms = None;
    }

    /// Takes one of those who wait, if the process has room for it.
    pub fn accept(&mut self, room: Result<(), Surplus>, keepalive: bool, now_ms: i64) -> Accepted {
        self.pause_until_ms = None;
        let (stream, peer) = match self.socket.accept() {
            Ok(accepted) => accepted,
            Err(error) => return self.on_accept_error(&error, now_ms),
        };
        self.is_stuck = false;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        if let Err(surplus) = room.and_then(|()| self.admission.on_accepted(peer.ip())) {
            self.refuse(&surplus, stream, now_ms);
            return Accepted::Surplus;
        }
        if let Err(error) = prepare_client(&stream, keepalive) {
            log::debug!("{peer} was gone before it was served: {error}");
            self.admission.on_closed(peer.ip());
            return Accepted::Surplus;
        }
        Accepted::Client(stream, peer)
    }

    /// Turns somebody away.
    fn refuse(&mut self, surplus: &Surplus, stream: TcpStream, now_ms: i64) {
        if let Some(others) = self.complaints.pass(now_ms) {
            log::warn!("{surplus}{}", suppressed(others));
        }
        close_at_once(stream);
    }

    fn on_accept_error(&mut self, error: &std::io::Error, now_ms: i64) -> Accepted {
        match error.kind() {
            ErrorKind::WouldBlock => self.ready = false,
            // The one that waited is gone; the next may be there.
            ErrorKind::Interrupted | ErrorKind::ConnectionAborted => return Accepted::Surplus,
            _ => self.become_stuck(error, now_ms),
        }
        Accepted::Nobody
    }

    /// Nobody can be taken: tries again later, and says so once.
    fn become_stuck(&mut self, error: &std::io::Error, now_ms: i64) {
        self.pause_until_ms = Some(now_ms + limits::ACCEPT_PAUSE_MS);
        if !std::mem::replace(&mut self.is_stuck, true)
            && let Some(others) = self.complaints.pass(now_ms)
        {
            let advice = if is_out_of_descriptors(error) { files::advice(error) } else { "it is tried again" };
            log::error!("cannot accept on {}: {error}; {advice}{}", self.address, suppressed(others));
        }
    }
}
