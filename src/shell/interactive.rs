//! The shell for a person: line editing, history, completion, and Ctrl-C that ends a command and not the shell.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::screen::Colour;
use super::{Shell, table, words};
use crate::client::{Client, Interrupt};

/// Longest wait for the children of a path that is being completed.
const COMPLETION_WAIT: Duration = Duration::from_millis(500);
/// Longest wait for a server before the first prompt.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Lines kept in the history file.
const HISTORY_LINES: usize = 1000;

/// Reads and does lines until the end; the exit code.
pub(super) fn run(mut shell: Shell) -> u8 {
    if let Err(e) = take_interrupts(&shell.interrupt) {
        shell.screen.err(&format!("Ctrl-C will end the shell: {e}"));
    }
    if let Err(failure) = shell.begin() {
        shell.fail(&failure);
        return shell.finish();
    }
    // So that the first prompt says how it stands; who is not connected by then sees that.
    if let Some(client) = &shell.client {
        let _ = client.wait_connected(FIRST_WAIT);
    }
    shell.screen.chat("Welcome to ZooKeeper!\nJLine support is enabled");
    let client = Rc::new(RefCell::new(None));
    match editor(&client) {
        Ok(editor) => read_lines(&mut shell, editor, &client),
        Err(e) => {
            shell.screen.err(&format!("no line editing here: {e}"));
            shell.run_lines(std::io::stdin().lock());
        }
    }
    client.borrow_mut().take();
    shell.finish()
}

type Lines = Editor<Assistant, DefaultHistory>;
type Present = Rc<RefCell<Option<Arc<Client>>>>;

fn editor(client: &Present) -> rustyline::Result<Lines> {
    let config = Config::builder()
        .auto_add_history(false)
        .max_history_size(HISTORY_LINES)?
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Assistant { client: Rc::clone(client), prompt: String::new() }));
    Ok(editor)
}

fn read_lines(shell: &mut Shell, mut editor: Lines, client: &Present) {
    if let Ok(printer) = editor.create_external_printer() {
        shell.screen.print_events_with(Box::new(printer));
    }
    let file = history_file();
    if let Some(file) = &file {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    while !shell.quits {
        client.borrow_mut().clone_from(&shell.client);
        let keeper_state = shell.client.as_ref().map_or("CLOSED", |client| client.keeper_state());
        let prompt = format!("[zk: {}({keeper_state}) {}] ", shell.start.servers, shell.lines.len());
        if let Some(assistant) = editor.helper_mut() {
            assistant.prompt = shell.screen.painted(Colour::Prompt, &prompt);
        }
        match editor.readline(&prompt) {
            Ok(text) => {
                // The shell alone holds its client while a command runs, so that `connect` and `quit` really end it.
                client.borrow_mut().take();
                shell.interrupt.lower();
                // Pasted at once there may be several lines. Ctrl-C ends them all.
                for line in text.lines() {
                    if shell.quits || shell.interrupt.is_raised() {
                        break;
                    }
                    remember(&mut editor, line);
                    shell.run_line(line);
                }
            }
            // The line is given up, as in every other shell.
            Err(ReadlineError::Interrupted) => {}
            Err(_) => break,
        }
    }
    if let Some(file) = &file {
        keep(&mut editor, file);
    }
}

/// Not what holds a secret.
fn remember(editor: &mut Lines, line: &str) {
    if words::split(line).first().is_some_and(|word| word != "addauth") {
        let _ = editor.add_history_entry(line);
    }
}

fn keep(editor: &mut Lines, file: &std::path::Path) {
    let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(e) = made.map_err(ReadlineError::from).and_then(|()| editor.append_history(file)) {
        log::warn!("the history is not kept in {}: {e}", file.display());
    }
}

/// `$XDG_STATE_HOME/rookeeper/cli_history`
fn history_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(state.join("rookeeper/cli_history"))
}

/// Ctrl-C raises the interrupt of the running command. While a line is edited the terminal does not send the signal.
fn take_interrupts(interrupt: &Interrupt) -> std::io::Result<()> {
    let signals: SigSet = [Signal::SIGINT].into_iter().collect();
    signals.thread_block()?;
    let interrupt = interrupt.clone();
    let wait = move || {
        while signals.wait().is_ok() {
            interrupt.raise();
        }
    };
    std::thread::Builder::new().name("interrupts".into()).spawn(wait).map(drop)
}

/// What rustyline asks while a line is edited.
struct Assistant {
    client: Present,
    /// The prompt as it is shown, colours included.
    prompt: String,
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = &line[..at];
        let start = before.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
        let word = &before[start..];
        let candidates = if before[..start].trim().is_empty() {
            table::COMMANDS.iter().map(|command| command.name.to_owned()).collect()
        } else if word.starts_with('-') {
            let command = words::split(line).first().and_then(|name| table::find(name));
            command.map_or_else(Vec::new, |command| {
                command.options().iter().map(|option| format!("-{}", option.name)).collect()
            })
        } else if word.starts_with('/') {
            self.paths(word)
        } else {
            Vec::new()
        };
        let mut fitting: Vec<String> = candidates.into_iter().filter(|text| text.starts_with(word)).collect();
        fitting.sort_unstable();
        let path = word.starts_with('/');
        let pair = |text: String| {
            let name = if path { text.rsplit('/').next().unwrap_or(&text).to_owned() } else { text.clone() };
            let replacement = if path { text } else { format!("{text} ") };
            Pair { display: name, replacement }
        };
        Ok((start, fitting.into_iter().map(pair).collect()))
    }
}

impl Assistant {
    /// The siblings of an unfinished path.
    fn paths(&self, word: &str) -> Vec<String> {
        let parent = word.rsplit_once('/').map_or("", |(parent, _)| parent);
        let listed = if parent.is_empty() { "/" } else { parent };
        let client = self.client.borrow();
        let names = client.as_ref().and_then(|client| client.children_within(listed, COMPLETION_WAIT));
        names.unwrap_or_default().iter().map(|name| format!("{parent}/{name}")).collect()
    }
}

impl Hinter for Assistant {
    type Hint = String;

    /// The usage of a command whose name is complete and nothing else is there yet.
    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<String> {
        let name = line.strip_suffix(' ').filter(|_| at == line.len())?;
        table::find(name).map(|command| command.usage.to_owned())
    }
}

impl Highlighter for Assistant {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, default: bool) -> std::borrow::Cow<'b, str> {
        if default { self.prompt.as_str().into() } else { prompt.into() }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> std::borrow::Cow<'h, str> {
        // The prompt says whether there are colours.
        if self.prompt.starts_with('\x1b') { format!("\x1b[2m{hint}\x1b[0m").into() } else { hint.into() }
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        false
    }
}

impl Validator for Assistant {}
impl Helper for Assistant {}
