//! One connection with its socket: reading a turn's worth, writing what is queued, ending politely. Called by
//! `engine::clients`.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use crate::limits;
use crate::metrics;
use crate::net::conn::{CloseCause, Conn};
use crate::net::ingress::{Flow, Ingress};
use crate::net::output::SLICES_MAX;

/// The socket of a client, which never waits: what cannot be read or written now is [`ErrorKind::WouldBlock`].
pub trait Socket: Read + Write {
    /// Nothing more is sent: what was written arrives, and then the end of the stream.
    fn end_writing(&self) -> io::Result<()>;
}

/// What an edge announces.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// There is something to read, the end of the stream among it.
    pub readable: bool,
    /// More can be written.
    pub writable: bool,
    /// The client closed its side, or the connection broke.
    pub ending: bool,
}

/// A connection. The readiness flags are what the last edges said, minus what was seen to be used up since.
#[derive(Debug)]
pub struct Client<S> {
    /// The core.
    pub conn: Conn,
    /// Which listener it came by.
    pub listener: usize,
    /// In the poller's list of connections to serve.
    pub queued: bool,
    /// In the poller's list of connections to flush.
    pub dirty: bool,
    /// Not read until an answer or a write makes room.
    pub paused: bool,
    /// In the poller's list of connections that are closing.
    pub lingers: bool,
    /// The pipeline waits for what it was told to be taken.
    pub tell_drained: bool,
    /// What this connection adds to the poller's sum of unsent bytes.
    pub counted_unsent: usize,
    socket: S,
    readable: bool,
    writable: bool,
    /// The client closed its side: reads go on until they say so.
    ending: bool,
    /// Our side is shut down: only the client's end is awaited.
    is_shut: bool,
}

impl<S: Socket> Client<S> {
    /// Just accepted and registered.
    pub fn new(conn: Conn, socket: S, listener: usize) -> Client<S> {
        Client {
            conn,
            listener,
            queued: false,
            dirty: false,
            paused: false,
            lingers: false,
            tell_drained: false,
            counted_unsent: 0,
            socket,
            readable: false,
            writable: true,
            ending: false,
            is_shut: false,
        }
    }

    /// An edge.
    pub fn on_edge(&mut self, edge: Edge) {
        self.readable |= edge.readable;
        self.ending |= edge.ending;
        self.writable |= edge.writable;
    }

    /// Looks through what is held, then reads once. True: there may be more, another turn is wanted.
    pub fn serve(&mut self, ingress: &mut Ingress, buffer: &mut [u8], now_us: i64) -> Result<bool, CloseCause> {
        self.paused = false;
        if self.conn.holds_input() && !self.conn.is_deaf() {
            self.take(ingress, &[], now_us)?;
        }
        if !self.readable || self.paused || !self.may_read(ingress) {
            return Ok(false);
        }
        let buffer = &mut buffer[..ingress.read_bytes_max(&self.conn)];
        let count = match self.read(buffer)? {
            None => return Ok(false),
            Some(0) => return self.on_end(),
            Some(count) => count,
        };
        self.conn.last_io_ms = now_us / 1000;
        self.conn.received_bytes += count as u64;
        metrics::BYTES_RECEIVED_COUNT.add(count as i64);
        // A short read has emptied the socket: what comes later makes an edge. (Asking again would cost a system call.)
        self.readable = count == buffer.len() || self.ending;
        self.take(ingress, &buffer[..count], now_us)?;
        Ok(self.readable && !self.paused)
    }

    fn may_read(&mut self, ingress: &Ingress) -> bool {
        self.paused = !ingress.may_read(&self.conn);
        !self.paused
    }

    fn take(&mut self, ingress: &mut Ingress, bytes: &[u8], now_us: i64) -> Result<(), CloseCause> {
        self.paused = ingress.take(&mut self.conn, bytes, now_us)? == Flow::Paused;
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, CloseCause> {
        loop {
            match self.socket.read(buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(CloseCause::Broken(error)),
            }
        }
    }

    /// The client will send no more. Whoever asked a four-letter word, or closed its session, may have said so before it
    /// reads the answer.
    fn on_end(&mut self) -> Result<bool, CloseCause> {
        self.readable = false;
        if self.conn.is_deaf() && !self.is_shut {
            return Ok(false);
        }
        Err(CloseCause::EndOfStream)
    }

    /// Writes what is queued, as far as the socket takes it. True: another turn is wanted.
    pub fn flush(&mut self, now_ms: i64) -> Result<bool, CloseCause> {
        let mut room = limits::WRITE_BYTES_PER_TURN;
        while self.writable && !self.conn.output.is_empty() {
            if room == 0 {
                return Ok(true);
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.conn.output.slices(&mut slices, room);
            let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            match self.socket.write_vectored(&slices[..filled]) {
                Ok(count) => {
                    self.conn.on_sent(count, now_ms);
                    room -= count;
                    // A short write has filled the socket: room makes an edge.
                    self.writable = count == offered;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => return Err(CloseCause::Broken(error)),
            }
        }
        if self.conn.is_closing() && self.conn.output.is_empty() && !self.is_shut {
            self.shut()?;
        }
        Ok(false)
    }

    /// Ends our side, so that the client reads all and then the end of the stream; closing with unread input would reset
    /// the connection under its hands.
    fn shut(&mut self) -> Result<(), CloseCause> {
        self.is_shut = true;
        match self.socket.end_writing() {
            Ok(()) if self.ending && !self.readable => Err(CloseCause::Done),
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotConnected => Err(CloseCause::Done),
            Err(error) => Err(CloseCause::Broken(error)),
        }
    }

    /// The server stops: what was written should arrive, so our side is shut and the input looked at once more.
    pub fn end(&mut self, buffer: &mut [u8]) {
        // Whatever fails here, the connection is closed next.
        let _ = self.socket.end_writing();
        let _ = self.socket.read(buffer);
    }
}
