//! The real binary as a child process, and a client that says exactly what a test wants it to. Every wait is for bytes
//! or for the end of them, and gives up after a minute.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rookeeper::ops::{ConnectRequest, Op, Request};
use tempfile::TempDir;

use rookeeper::ops::encode;

const PATIENCE: Duration = Duration::from_secs(60);

/// Address space of a server: twice what it may ever have resident, and its threads' stacks.
const VIRTUAL_KB_MAX: u64 = 4 << 20;

/// A server of its own, in a directory of its own.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    errors: Option<JoinHandle<Vec<String>>>,
    _dir: TempDir,
}

/// A failed test leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(errors) = self.errors.take() {
            let log = errors.join().unwrap_or_default();
            eprintln!("the server said:\n{}", log.join("\n"));
        }
    }
}

impl Server {
    /// Starts one with these lines in its zoo.cfg, and `-D` properties. Returns when it listens.
    pub fn start(config: &str, properties: &[&str]) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("zoo.cfg");
        let data = dir.path().join("data");
        let common = "clientPort=0\nclientPortAddress=127.0.0.1\npreAllocSize=4096\nadmin.enableServer=false";
        fs::write(&file, format!("dataDir={}\n{common}\n{config}\n", data.display())).unwrap();
        // Should a test go wrong, the server ends at its limit, and not every other process of the machine.
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -v {VIRTUAL_KB_MAX}; exec \"$0\" run \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_rookeeper"))
            .args(properties.iter().map(|property| format!("-D{property}")))
            .arg(&file)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (tell, told) = channel();
        let errors = std::thread::spawn(move || read_log(BufReader::new(stderr), &tell));
        let address = address(&told);
        Server { child, address, errors: Some(errors), _dir: dir }
    }

    /// Resident memory, MB.
    pub fn resident_mb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// The most it ever was, MB.
    pub fn resident_mb_max(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// It is alive and stops in an orderly way. Gives what it logged.
    pub fn stop(mut self) -> Vec<String> {
        assert!(self.child.try_wait().unwrap().is_none(), "the server is alive");
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        let log = self.errors.take().expect("it stops once").join().unwrap();
        assert!(status.success(), "it ends with {status}:\n{}", log.join("\n"));
        assert!(!log.iter().any(|line| line.contains("panicked")), "{}", log.join("\n"));
        log
    }
}

fn read_log(log: impl BufRead, tell: &Sender<String>) -> Vec<String> {
    log.lines()
        .map_while(Result::ok)
        .inspect(|line| {
            // The test listens only for as long as the start takes.
            let _ = tell.send(line.clone());
        })
        .collect()
}

fn address(told: &Receiver<String>) -> SocketAddr {
    loop {
        let line = told.recv_timeout(PATIENCE).expect("the server says where it listens");
        if let Some((_, rest)) = line.split_once("listening on ") {
            return rest.split(',').next().unwrap().parse().unwrap();
        }
    }
}

/// A reply: error and body.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub xid: i32,
    pub err: i32,
    pub body: Vec<u8>,
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    xid: i32,
}

impl Client {
    /// Connected, and nothing said.
    pub fn dial(server: &Server) -> Client {
        Client::try_dial(server).expect("the server takes connections")
    }

    /// Connected, unless the server turned it away before this heard that it was.
    fn try_dial(server: &Server) -> Option<Client> {
        let stream = match TcpStream::connect(server.address) {
            Ok(stream) => stream,
            Err(error) if is_closed(error.kind()) => return None,
            Err(error) => panic!("nobody listens: {error}"),
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // Fails on a connection that is gone already, which the first read will tell.
        let _ = stream.set_nodelay(true);
        Some(Client { stream, xid: 0 })
    }

    /// With a session.
    pub fn connect(server: &Server) -> Client {
        Client::try_connect(server).expect("a session")
    }

    /// With a session, unless the server closes the connection.
    pub fn try_connect(server: &Server) -> Option<Client> {
        let mut client = Client::try_dial(server)?;
        // The server may have closed already.
        let _ = client.stream.write_all(&connect_frame());
        let frame = client.try_frame()?;
        assert!(frame[4..8] != [0; 4], "a session is granted");
        Some(client)
    }

    /// Sends bytes as they are. An error is the server's right.
    pub fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame; `None` when the server has closed the connection.
    pub fn try_frame(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        self.read_exact(&mut length)?;
        let mut frame = vec![0; i32::from_be_bytes(length).try_into().expect("a length")];
        self.read_exact(&mut frame)?;
        Some(frame)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if is_closed(error.kind()) => None,
            Err(error) => panic!("the server does not answer: {error}"),
        }
    }

    /// The next reply or event.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("the connection stays")
    }

    pub fn try_reply(&mut self) -> Option<Reply> {
        let frame = self.try_frame()?;
        let field = |at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        Some(Reply { xid: field(0), err: field(12), body: frame[16..].to_vec() })
    }

    /// Sends a request; gives its xid.
    pub fn send(&mut self, op_number: i32, op: Op) -> i32 {
        self.xid += 1;
        let content = encode::request(&Request { xid: self.xid, op_number, op, body: Vec::new() });
        self.say(&encode::framed(&content));
        self.xid
    }

    /// Sends a request and waits for the reply.
    pub fn ask(&mut self, op_number: i32, op: Op) -> Reply {
        let xid = self.send(op_number, op);
        let reply = self.reply();
        assert_eq!(reply.xid, xid);
        reply
    }

    /// Waits until the server closes the connection; whatever it sends before is read.
    pub fn wait_for_the_end(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if is_closed(error.kind()) => return,
                Err(error) => panic!("the server does not close the connection: {error}"),
            }
        }
    }
}

fn is_closed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// The first frame of a client that wants a session for half a minute.
pub fn connect_frame() -> Vec<u8> {
    encode::framed(&encode::connect(&ConnectRequest {
        last_zxid_seen: 0,
        timeout_ms: 30_000,
        session_id: 0,
        password: vec![0; 16],
        read_only: Some(false),
    }))
}
