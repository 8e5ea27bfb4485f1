//! The shell on a running ensemble: every command of Apache's zkCli.sh with its output and exit codes, and some of our
//! own. Called by `cli` and `scripts`.
//!
//! ```text
//! a line -> words -> table (which command) -> options (its arguments) -> its function -> Answer or Failure -> screen
//! ```
//!
//! `interactive` reads lines from a person, `Shell::run_lines` from a pipe, `Shell::run_words` takes one command.

mod answer;
mod connection;
mod ensemble;
mod interactive;
mod nodes;
mod quotas;
mod rights;
mod screen;
mod subtree;
pub(crate) mod table;
mod watching;
mod words;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use answer::{Answer, Failure};
use screen::{Colour, Screen};

use crate::client::{Client, Error, Interrupt, Options};
use crate::sys::exit::ExitCode;

/// What the shell is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// `host:port,host:port/chroot`
    pub servers: String,
    /// Session timeout to ask for, ms.
    pub timeout_ms: i32,
    /// Servers that can only read will do.
    pub read_only: bool,
    /// Wait for a server before the first command, at most for the session timeout.
    pub wait_for_connection: bool,
    /// A properties file for Apache's client; read only to refuse what this shell does not have.
    pub client_configuration: Option<PathBuf>,
    /// Results as JSON.
    pub json: bool,
}

/// The defaults of zkCli.sh.
impl Default for Start {
    fn default() -> Start {
        Start {
            servers: "localhost:2181".to_owned(),
            timeout_ms: 30_000,
            read_only: false,
            wait_for_connection: false,
            client_configuration: None,
            json: false,
        }
    }
}

/// One shell with its session.
pub struct Shell {
    start: Start,
    /// None before the first connect, which is to say never for a command.
    client: Option<Arc<Client>>,
    screen: Arc<Screen>,
    interrupt: Interrupt,
    /// Every line so far, the present one included.
    lines: Vec<String>,
    exit_code: u8,
    quits: bool,
}

/// Connects, does what is asked, and says with which code the process ends. `words` is one command; without, lines are
/// taken from standard input.
pub fn run(start: Start, words: &[String]) -> u8 {
    if let Some(why) = start.client_configuration.as_deref().and_then(not_supported) {
        eprintln!("Error: {why}");
        return ExitCode::InvalidInvocation as u8;
    }
    let quiet = words.first().and_then(|name| table::find(name)).is_some_and(|command| command.own);
    let mut shell = Shell::new(start, quiet);
    if words.is_empty() && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return interactive::run(shell);
    }
    if let Err(failure) = shell.begin() {
        shell.fail(&failure);
        return shell.finish();
    }
    if words.is_empty() {
        shell.screen.chat("Welcome to ZooKeeper!\nJLine support is disabled");
        shell.run_lines(std::io::stdin().lock());
    } else {
        shell.run_words(words);
    }
    shell.finish()
}

/// Why a configuration of Apache's client cannot be followed.
fn not_supported(file: &Path) -> Option<String> {
    let read = || -> Result<_, java_properties::PropertiesError> { java_properties::read(std::fs::File::open(file)?) };
    match read() {
        Err(e) => Some(format!("{}: {e}", file.display())),
        Ok(properties) => {
            let secure = properties.get("zookeeper.client.secure").is_some_and(|value| value == "true");
            secure.then(|| {
                format!("{}: zookeeper.client.secure: this shell does not speak TLS; use a plain port", file.display())
            })
        }
    }
}

impl Shell {
    fn new(start: Start, quiet: bool) -> Shell {
        let screen = Arc::new(Screen::new(start.json, quiet));
        let interrupt = Interrupt::default();
        Shell { start, client: None, screen, interrupt, lines: Vec::new(), exit_code: 0, quits: false }
    }

    /// Says where it connects to, and does.
    fn begin(&mut self) -> Result<(), Failure> {
        self.screen.chat(&format!("Connecting to {}", self.start.servers));
        self.connect()
    }

    /// A new session with the servers of `start`.
    fn connect(&mut self) -> Result<(), Failure> {
        self.drop_client();
        let options = Options {
            timeout_ms: self.start.timeout_ms,
            read_only: self.start.read_only,
            interrupt: self.interrupt.clone(),
        };
        let screen = Arc::clone(&self.screen);
        let client = Client::start(&self.start.servers, options, move |event| screen.event(event))?;
        let client = self.client.insert(Arc::new(client));
        if self.start.wait_for_connection {
            let within = Duration::from_millis(u64::try_from(self.start.timeout_ms).unwrap_or(0));
            client.wait_connected(within)?;
        }
        Ok(())
    }

    fn drop_client(&mut self) {
        if let Some(client) = self.client.take() {
            client.close();
        }
    }

    /// Lines until the end or until one quits. Lines that are not UTF-8 are taken as far as they are.
    fn run_lines(&mut self, mut input: impl BufRead) {
        let mut line = Vec::new();
        while !self.quits && input.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            self.run_line(&text);
            line.clear();
        }
    }

    fn run_line(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        self.lines.push(line.to_owned());
        let words = words::split(line);
        if !words.is_empty() {
            self.run_words(&words);
        }
    }

    /// One command; its exit code is the shell's, unless another one follows.
    fn run_words(&mut self, words: &[String]) {
        match self.execute(words) {
            Ok(answer) => {
                self.say(answer);
                if !self.quits {
                    self.exit_code = 0;
                }
            }
            Err(failure) => self.fail(&failure),
        }
    }

    fn execute(&mut self, words: &[String]) -> Result<Answer, Failure> {
        let Some(command) = table::find(&words[0]) else {
            if !self.screen.json {
                self.screen.err(&table::usage());
            }
            return Err(Failure::Unknown(words[0].clone()));
        };
        if command.asks && !self.client.as_ref().is_some_and(|client| client.is_alive()) {
            if self.screen.json {
                return Err(Failure::Client(Error::Closed));
            }
            self.screen.out("Not connected");
            self.hint("`connect HOST:PORT` begins a new session");
            return Ok(Answer::none());
        }
        let args = command.parse(words).map_err(Failure::Text)?;
        if args.words.len() <= command.words_min {
            return Err(Failure::Usage(command));
        }
        (command.run)(self, &args)
    }

    fn say(&self, answer: Answer) {
        if self.screen.json {
            if let Some(json) = answer.json {
                self.screen.out(&json.to_string());
            }
            return;
        }
        if let Some(err) = answer.err {
            self.screen.err(&err);
        }
        if let Some(out) = answer.out {
            self.screen.out(&out);
        }
    }

    fn fail(&mut self, failure: &Failure) {
        self.exit_code = failure.exit_code();
        if self.screen.json {
            self.screen.err(&failure.json().to_string());
            return;
        }
        self.screen.err_in(Colour::Error, &failure.message());
        if let Some(hint) = failure.hint() {
            self.hint(hint);
        }
    }

    /// What a person can do about it.
    fn hint(&self, text: &str) {
        if self.screen.person {
            self.screen.err_in(Colour::Hint, &format!("({text})"));
        }
    }

    /// The session that commands ask; the table says which do, and `execute` has looked.
    fn client(&self) -> Result<Arc<Client>, Failure> {
        self.client.clone().ok_or(Failure::Client(Error::Closed))
    }

    /// Ends the session without a word.
    fn finish(mut self) -> u8 {
        self.screen.print_watches(false);
        self.drop_client();
        self.exit_code
    }
}
