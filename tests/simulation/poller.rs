//! The poller of a simulated server: clients' connections ([`rookeeper::engine::clients`]) over sockets in memory, in turns
//! that are told what came in the order in which it came.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

use rookeeper::engine::clients::Edge;
use rookeeper::ids::ConnId;
use rookeeper::mail::ToPoller;
use rookeeper::net::PollerOptions;
use rookeeper::net::admit::AdmitLimits;

use crate::client::{FromServer, ToServer};
use crate::net::{Kernel, Socket};
use crate::server::Thread;
use crate::world::World;

/// What the poller is told.
#[derive(Debug)]
pub enum PollerInput {
    /// A client connected.
    Accepted(Socket),
    /// There is something to read on a connection, or its end.
    Edge(ConnId),
    /// The pipeline has something to say.
    Replies(ToPoller),
}

/// One connection of a client, on the server's side.
#[derive(Debug)]
pub struct ClientEnd {
    client: usize,
    generation: u32,
    kernel: Rc<RefCell<Kernel>>,
}

/// As servers have it that clients of an ensemble connect to.
pub fn options() -> PollerOptions {
    PollerOptions { keep_bodies: true, admit: AdmitLimits::default(), ..PollerOptions::default() }
}

/// Where clients come from; nobody decides by it.
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);

/// The number of a connection, as the kernel is told it.
fn number(id: ConnId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.slot)
}

fn conn_id(number: u64) -> ConnId {
    ConnId { slot: number as u32, generation: (number >> 32) as u32 }
}

impl World {
    pub fn post_poller(&mut self, s: usize, input: PollerInput) {
        let Some(process) = &mut self.servers[s].process else { return };
        process.poller_mail.push_back(input);
        let at_us = self.now_us + self.random.scaled(1, self.options.thread_delay_us);
        self.wake(s, Thread::Poller, at_us);
    }

    /// Something of a client has come to its server.
    pub fn on_to_server(&mut self, c: usize, generation: u32, s: usize, incarnation: u32, what: ToServer) {
        let server = &mut self.servers[s];
        let alive = server.incarnation == incarnation;
        let Some(process) = server.process.as_mut().filter(|_| alive) else {
            if !server.is_dark {
                self.close_client(c, generation);
            }
            return;
        };
        let own = process.client_ends.iter().find(|end| (end.client, end.generation) == (c, generation));
        let mut kernel = own.map(|end| Rc::clone(&end.kernel));
        if let (None, ToServer::Connect(_)) = (&kernel, &what) {
            // Whoever reads slowly is made to wait by the same window as other servers are.
            let made = Rc::new(RefCell::new(Kernel::new(self.net.window)));
            process.client_ends.push(ClientEnd { client: c, generation, kernel: Rc::clone(&made) });
            self.post_poller(s, PollerInput::Accepted(Socket::new(Rc::clone(&made))));
            kernel = Some(made);
        }
        let Some(kernel) = kernel else { return };
        match what {
            ToServer::Connect(bytes) | ToServer::Bytes(bytes) => kernel.borrow_mut().arrive(&bytes),
            ToServer::Gone => kernel.borrow_mut().end(),
        }
        let news = kernel.borrow_mut().take_news();
        if let Some(number) = news {
            self.post_poller(s, PollerInput::Edge(conn_id(number)));
        }
    }

    pub fn poller_turn(&mut self, s: usize) {
        let mut turns = 1 + self.random.below(20);
        let server = &mut self.servers[s];
        let (now, mono_us) = (server.clock.now(self.now_us), server.clock.mono_us(self.now_us));
        let Some(process) = &mut server.process else { return };
        let clients = &mut process.clients;
        clients.set_time(mono_us, now.wall_ms);
        while turns > 0
            && let Some(input) = process.poller_mail.pop_front()
        {
            turns -= 1;
            match input {
                PollerInput::Accepted(mut socket) => {
                    let id = clients.next_id();
                    socket.register(number(id));
                    clients.welcome(socket, FROM, 0);
                    // What came before is told of, too.
                    clients.on_edge(id, Edge { readable: true, writable: true, ending: false });
                }
                PollerInput::Edge(id) => {
                    let ends = &process.client_ends;
                    let of_id = |end: &&ClientEnd| end.kernel.borrow().number() == Some(number(id));
                    let end = ends.iter().find(of_id);
                    let ending = end.is_some_and(|end| {
                        end.kernel.borrow_mut().is_looked_at(number(id));
                        end.kernel.borrow().has_ended()
                    });
                    clients.on_edge(id, Edge { readable: true, writable: true, ending });
                }
                PollerInput::Replies(mail) => clients.on_replies(mail),
            }
        }
        drop(clients.flush_all());
        clients.serve_ready();
        clients.close_shed();
        clients.relieve();
        clients.tell_taken();
        let batch = clients.take_batch();
        clients.on_time();
        let gone = clients.take_gone().len();
        let busy = !process.poller_mail.is_empty() || clients.has_work();
        let deadline_us = server.clock.world_us(clients.next_deadline_ms());
        self.trace
            .note(self.now_us, s, 10, || format!("s{} poller: {} for the pipeline, {gone} gone", s + 1, batch.len()));
        batch.into_iter().for_each(|mail| self.post_pipeline(s, mail));
        self.let_clients_have(s);
        self.wake(s, Thread::Poller, if busy { self.now_us + 1 } else { deadline_us.max(self.now_us + 1) });
    }

    /// What the kernel took for clients is sent to them; what the process closed is closed.
    fn let_clients_have(&mut self, s: usize) {
        let Some(process) = &mut self.servers[s].process else { return };
        let mut told = Vec::new();
        process.client_ends.retain(|end| {
            let mut kernel = end.kernel.borrow_mut();
            let (bytes, closes) = (kernel.take_sent(), kernel.is_closed() || kernel.take_shut());
            if closes || !bytes.is_empty() {
                told.push((end.client, end.generation, FromServer { bytes, closes }));
            }
            !kernel.is_closed()
        });
        told.into_iter().for_each(|(c, generation, what)| self.send_to_client(s, c, generation, what));
    }

    /// A client has read so much: its server may send it as much again.
    pub fn on_client_read(&mut self, c: usize, generation: u32, bytes: usize) {
        let (s, incarnation) = self.clients[c].server();
        let server = &self.servers[s];
        let Some(process) = server.process.as_ref().filter(|_| server.incarnation == incarnation) else { return };
        let own = process.client_ends.iter().find(|end| (end.client, end.generation) == (c, generation));
        let Some(kernel) = own.map(|end| Rc::clone(&end.kernel)) else { return };
        let waited = kernel.borrow_mut().on_read_there(bytes);
        let news = if waited { kernel.borrow_mut().take_news() } else { None };
        if let Some(number) = news {
            self.post_poller(s, PollerInput::Edge(conn_id(number)));
        }
    }
}
