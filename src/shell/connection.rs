//! Commands on the shell itself: its session and its lines.

use serde_json::json;

use super::answer::{Answer, Failure};
use super::{Shell, words};
use crate::arguments::Args;
use crate::client::Hosts;

/// Lines that `history` shows before the present one.
const SHOWN: usize = 10;

pub(super) fn connect(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    if let Some(servers) = args.words.get(1) {
        // A wrong list must not cost the session that there is.
        Hosts::parse(servers)?;
        shell.start.servers.clone_from(servers);
    }
    shell.connect()?;
    Ok(Answer { json: Some(json!({ "servers": shell.start.servers })), ..Answer::none() })
}

pub(super) fn close(shell: &mut Shell, _args: &Args) -> Result<Answer, Failure> {
    shell.client()?.close();
    Ok(Answer { json: Some(json!({ "closed": true })), ..Answer::none() })
}

pub(super) fn quit(shell: &mut Shell, _args: &Args) -> Result<Answer, Failure> {
    shell.drop_client();
    shell.quits = true;
    Ok(Answer::none())
}

pub(super) fn history(shell: &mut Shell, _args: &Args) -> Result<Answer, Failure> {
    let present = shell.lines.len().saturating_sub(1);
    let shown = present.saturating_sub(SHOWN)..shell.lines.len();
    let lines: Vec<String> = shown.map(|number| format!("{number} - {}", shell.lines[number])).collect();
    Ok(Answer::out(lines.join("\n"), json!({ "lines": lines })))
}

pub(super) fn redo(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let Some(text) = args.words.get(1) else { return Ok(Answer::none()) };
    let present = shell.lines.len().saturating_sub(1);
    let number: usize = text.parse().map_err(|_| Failure::text("Command index out of range"))?;
    let line = shell.lines.get(number).filter(|_| number < present).cloned();
    let line = line.ok_or_else(|| Failure::text("Command index out of range"))?;
    let words = words::split(&line);
    if words.first().is_none_or(|word| word == "redo") {
        return Err(Failure::text("No redoing redos"));
    }
    shell.lines[present] = line;
    shell.execute(&words)
}
