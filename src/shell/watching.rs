//! Commands on watches, and `watch`, which follows a subtree until it is interrupted.

use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::answer::{Answer, Failure, put_data};
use super::screen::{Colour, event_json};
use super::{Shell, table};
use crate::arguments::Args;
use crate::client::{Client, Error, Event, KeeperState, Kind};
use crate::codes::Code;
use crate::ops::WatcherType;
use crate::sys::clock;

/// How often the follower looks whether it was interrupted.
const POLL: Duration = Duration::from_millis(50);
/// Events that may wait for a slow terminal; more are counted and not shown.
const EVENTS_WAITING_MAX: usize = 1 << 16;
/// Characters of data in one line of `watch -d`.
const DATA_CHARS: usize = 80;

pub(super) fn add_watch(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let command = table::find("addWatch").expect("the table has it");
    if args.words.len() != 2 {
        return Err(Failure::Usage(command));
    }
    let recursive = match args.value("m").map(str::to_uppercase).as_deref() {
        None | Some("PERSISTENT_RECURSIVE") => true,
        Some("PERSISTENT") => false,
        Some(_) => return Err(Failure::Usage(command)),
    };
    let path = args.word(1);
    shell.client()?.add_watch(path, recursive)?;
    Ok(Answer { json: Some(json!({ "path": path, "recursive": recursive })), ..Answer::none() })
}

pub(super) fn remove_watches(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let kinds = [
        ("c", WatcherType::Children),
        ("d", WatcherType::Data),
        ("p", WatcherType::Persistent),
        ("r", WatcherType::PersistentRecursive),
    ];
    let kind = kinds.iter().find(|(name, _)| args.has(name)).map_or(WatcherType::Any, |(_, kind)| *kind);
    let path = args.word(1);
    shell.client()?.remove_watches(path, kind, args.has("l"))?;
    Ok(Answer { json: Some(json!({ "path": path })), ..Answer::none() })
}

pub(super) fn print_watches(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let Some(word) = args.words.get(1) else {
        let on = shell.screen.prints_watches();
        let text = if on { "on" } else { "off" };
        return Ok(Answer::out(format!("printwatches is {text}"), json!({ "printwatches": on })));
    };
    shell.screen.print_watches(word == "on");
    Ok(Answer::none())
}

/// Prints every change at and below a node, until interrupted.
pub(super) fn watch(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let (path, with_data) = (args.word(1), args.has("d"));
    let client = shell.client()?;
    let (sender, events) = bounded(EVENTS_WAITING_MAX);
    client.add_watch(path, true)?;
    shell.screen.follow(Some(sender));
    if client.exists(path, false)?.is_none() && shell.screen.person {
        shell.screen.err_in(Colour::Hint, &format!("({path} does not exist yet)"));
    }
    let ended = loop {
        if shell.interrupt.is_raised() {
            break Ok(());
        }
        match events.recv_timeout(POLL) {
            Ok(event) => {
                if let Err(failure) = show(shell, &client, &event, with_data) {
                    break Err(failure);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let missed = shell.screen.missed();
                if missed > 0 {
                    shell.screen.err_in(Colour::Error, &format!("{missed} changes came too fast and are not shown"));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
        }
    };
    // What the removal of the watch tells is nobody's news either.
    shell.interrupt.lower();
    remove(&client, path);
    shell.screen.follow(None);
    ended.map(|()| Answer::none())
}

/// Servers before 3.9 know no more than "any".
fn remove(client: &Client, path: &str) {
    let first = client.remove_watches(path, WatcherType::PersistentRecursive, false);
    if first.is_err_and(|error| error.code() == Some(Code::MarshallingError)) {
        let _ = client.remove_watches(path, WatcherType::Any, false);
    }
}

fn show(shell: &Shell, client: &Client, event: &Event, with_data: bool) -> Result<(), Failure> {
    let screen = &shell.screen;
    if event.kind == Kind::None {
        return match event.keeper_state {
            KeeperState::Disconnected => {
                screen.err_in(Colour::Error, "the connection is lost; what changes meanwhile will not be shown");
                Ok(())
            }
            KeeperState::SyncConnected | KeeperState::ConnectedReadOnly => {
                screen.err_in(Colour::Hint, &format!("connected to {} again", client.server()));
                Ok(())
            }
            KeeperState::Expired => Err(Error::SessionExpired { path: None }.into()),
            KeeperState::AuthFailed => Err(Error::AuthFailed { path: None }.into()),
            KeeperState::Closed => Err(Error::Closed.into()),
        };
    }
    let path = event.path.as_deref().unwrap_or_default();
    let has_data = with_data && matches!(event.kind, Kind::NodeCreated | Kind::NodeDataChanged);
    // It may be gone or closed to us by now; then only the event is shown.
    let data = if has_data { client.data(path, false).ok().map(|(data, _)| data) } else { None };
    if screen.json {
        let mut json = event_json(event);
        if let (Value::Object(map), Some(data)) = (&mut json, &data) {
            put_data(map, data.as_deref());
        }
        screen.out(&json.to_string());
        return Ok(());
    }
    let at = jiff::Timestamp::from_millisecond(clock::wall_ms()).unwrap_or_default().to_zoned(TimeZone::system());
    let kind = screen.painted(Colour::Event, &format!("{:<15}", format!("{:?}", event.kind)));
    let data = data.map_or_else(String::new, |data| format!("  {}", excerpt(data.as_deref())));
    screen.out(&format!("{} {kind} {path}{data}", at.strftime("%H:%M:%S%.3f")));
    Ok(())
}

/// The beginning of some data on one line.
fn excerpt(data: Option<&[u8]>) -> String {
    let Some(data) = data else { return "null".into() };
    let text = String::from_utf8_lossy(data);
    let cut: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(DATA_CHARS).collect();
    if cut.len() < text.len() { format!("{cut}… ({} bytes)", data.len()) } else { cut }
}
