//! Where the shell writes: results to standard output, remarks and errors to standard error, in colours only on a
//! terminal; and events, which come from another thread while a line is being edited.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::Sender;
use rustyline::ExternalPrinter;
use serde_json::json;

use crate::client::{Event, Kind};

/// Exit code when whoever read our output went away: as the shell shows a process that SIGPIPE ended.
const OUTPUT_GONE: i32 = 141;

/// Colours by meaning (SGR parameters).
#[derive(Debug, Clone, Copy)]
pub enum Colour {
    /// Something failed.
    Error,
    /// What can be done about it.
    Hint,
    /// Something happened by itself.
    Event,
    /// The prompt.
    Prompt,
}

impl Colour {
    fn sgr(self) -> &'static str {
        match self {
            Colour::Error => "31",
            Colour::Hint => "2",
            Colour::Event => "36",
            Colour::Prompt => "1;34",
        }
    }
}

/// The two streams.
pub struct Screen {
    /// Results as JSON, a line each, and nothing else on standard output.
    pub json: bool,
    /// Whether what Apache's shell says by itself is said.
    chats: bool,
    /// Whether standard error is a terminal: hints and progress go there.
    pub person: bool,
    colours_out: bool,
    colours_err: bool,
    print_watches: AtomicBool,
    /// Prints above the line that is being edited.
    printer: Mutex<Option<Box<dyn ExternalPrinter + Send>>>,
    /// Who gets the events instead of the screen.
    follower: Mutex<Option<Sender<Event>>>,
    /// Events that the follower was too slow for.
    missed: AtomicUsize,
}

impl Screen {
    /// `quiet`: a command's own output and nothing else.
    pub fn new(json: bool, quiet: bool) -> Screen {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let person = std::io::stderr().is_terminal();
        Screen {
            json,
            chats: !json && !quiet,
            person,
            colours_out: colours && std::io::stdout().is_terminal(),
            colours_err: colours && person,
            print_watches: AtomicBool::new(true),
            printer: Mutex::new(None),
            follower: Mutex::new(None),
            missed: AtomicUsize::new(0),
        }
    }

    /// A line of results.
    pub fn out(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            std::process::exit(OUTPUT_GONE);
        }
    }

    /// A line that only a person wants.
    pub fn chat(&self, text: &str) {
        if self.chats {
            self.out(text);
        }
    }

    /// A remark that only a person wants.
    pub fn chat_err(&self, text: &str) {
        if self.chats {
            self.err(text);
        }
    }

    /// A line on standard error. That nobody reads it is no reason to stop.
    pub fn err(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// A line on standard error in this colour.
    pub fn err_in(&self, colour: Colour, text: &str) {
        self.err(&paint(self.colours_err, colour, text));
    }

    /// The text in this colour, for standard output.
    pub fn painted(&self, colour: Colour, text: &str) -> String {
        paint(self.colours_out, colour, text)
    }

    /// Something happened by itself. Called by the client's thread.
    pub fn event(&self, event: Event) {
        if let Some(follower) = &*self.follower.lock().expect("nobody panics with it") {
            if follower.try_send(event).is_err() {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        if !self.prints_watches() || (!self.chats && event.kind == Kind::None) {
            return;
        }
        let text = if self.json {
            event_json(&event).to_string()
        } else {
            format!("\nWATCHER::\n\n{}", self.painted(Colour::Event, &event.to_string()))
        };
        match &mut *self.printer.lock().expect("nobody panics with it") {
            Some(printer) => {
                let _ = printer.print(format!("{text}\n"));
            }
            None => self.out(&text),
        }
    }

    /// Events go above the edited line from now on.
    pub fn print_events_with(&self, printer: Box<dyn ExternalPrinter + Send>) {
        *self.printer.lock().expect("nobody panics with it") = Some(printer);
    }

    /// Events go to `follower`, or to the screen again.
    pub fn follow(&self, follower: Option<Sender<Event>>) {
        *self.follower.lock().expect("nobody panics with it") = follower;
    }

    /// How many events the follower missed since it was asked last.
    pub fn missed(&self) -> usize {
        self.missed.swap(0, Ordering::Relaxed)
    }

    pub fn prints_watches(&self) -> bool {
        self.print_watches.load(Ordering::Relaxed)
    }

    pub fn print_watches(&self, on: bool) {
        self.print_watches.store(on, Ordering::Relaxed);
    }

    /// How far a long command is, for a person who sees nothing else meanwhile.
    pub fn progress(&self, what: &'static str) -> Progress {
        let shown = self.person && !self.json;
        Progress { what, shown, count: 0, drawn_ms: crate::sys::clock::now().mono_ms }
    }
}

/// An event for programs.
pub fn event_json(event: &Event) -> serde_json::Value {
    json!({
        "event": format!("{:?}", event.kind),
        "state": format!("{:?}", event.keeper_state),
        "path": event.path,
        "zxid": (event.zxid.0 > 0).then(|| event.zxid.to_string()),
    })
}

fn paint(colours: bool, colour: Colour, text: &str) -> String {
    if colours { format!("\x1b[{}m{text}\x1b[0m", colour.sgr()) } else { text.to_owned() }
}

/// Shortest time between two drawings, ms; also before the first, so that what is quick shows none.
const DRAW_MS: i64 = 200;

/// One line on a terminal that counts, and is wiped when it is dropped.
pub struct Progress {
    what: &'static str,
    shown: bool,
    count: usize,
    drawn_ms: i64,
}

impl Progress {
    /// One that is not shown: the results themselves run over the screen.
    pub fn hidden(mut self, hidden: bool) -> Progress {
        self.shown &= !hidden;
        self
    }

    /// So many more are done.
    pub fn add(&mut self, count: usize) {
        self.count += count;
        if !self.shown {
            return;
        }
        let now_ms = crate::sys::clock::now().mono_ms;
        if now_ms - self.drawn_ms >= DRAW_MS {
            self.drawn_ms = now_ms;
            let _ = write!(std::io::stderr(), "\r{} {}\x1b[K", self.count, self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
