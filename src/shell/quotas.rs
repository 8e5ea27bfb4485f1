//! Commands on quotas, which are ordinary nodes below /zookeeper/quota that the shell lays out.

use serde_json::json;

use super::Shell;
use super::answer::{Answer, Failure};
use super::nodes::visit;
use crate::arguments::Args;
use crate::client::{Client, CreateMode, Error};
use crate::codes::Code;
use crate::records::Acl;
use crate::state::quota::{LIMITS, ROOT, STATS, StatsTrack, limits_path, stats_path};

pub(super) fn set(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let path = args.word(1);
    if path.starts_with(ROOT) {
        return Ok(Answer::err(format!("cannot set a quota under the path: {ROOT}"), json!({ "refused": path })));
    }
    let limits = match limits(args) {
        Ok(limits) => limits,
        // Apache's shell says this and succeeds.
        Err(why) => return Ok(Answer::err(why, json!({ "refused": why }))),
    };
    let client = shell.client()?;
    if client.exists(path, false)?.is_none() {
        return Err(Failure::text(format!("{path} does not exist.")));
    }
    refuse_nesting(&client, path)?;
    let limits = store(&client, path, limits)?;
    for warning in exceeded(limits, track(&client, &stats_path(path))?) {
        shell.screen.chat(&warning);
    }
    Ok(Answer { json: Some(json!({ "path": path, "limits": limits.text() })), ..Answer::none() })
}

/// What the options say; -1 where they say nothing.
fn limits(args: &Args) -> Result<StatsTrack, &'static str> {
    let number = |name: &str| {
        let value = args.value(name).map(str::parse::<i64>).transpose();
        value.map_err(|_| "NumberFormatException happens when parsing the option value")
    };
    let count = |name| match number(name)? {
        Some(count) if count <= 0 => Err("the num quota must be greater than zero"),
        count => Ok(count.unwrap_or(-1)),
    };
    let bytes = |name| match number(name)? {
        Some(bytes) if bytes < 0 => Err("the bytes quota must be greater than or equal to zero"),
        bytes => Ok(bytes.unwrap_or(-1)),
    };
    Ok(StatsTrack { count: count("n")?, bytes: bytes("b")?, count_hard: count("N")?, bytes_hard: bytes("B")? })
}

/// A quota counts all below it, so that none may lie below another.
fn refuse_nesting(client: &Client, path: &str) -> Result<(), Failure> {
    let own = format!("{ROOT}{path}");
    let has_limits = |quota_path: &str| -> Result<bool, Failure> {
        Ok(client.exists(&format!("{quota_path}/{LIMITS}"), false)?.is_some())
    };
    let below = visit(client, &own, false, |quota_path| {
        let is_limits = quota_path.strip_suffix(LIMITS).and_then(|parent| parent.strip_suffix('/'));
        match is_limits.filter(|parent| *parent != own) {
            Some(parent) => {
                let child = &parent[ROOT.len()..];
                Err(Failure::text(format!("{path} has a child {child} which has a quota")))
            }
            None => Ok(()),
        }
    });
    below?;
    for (at, _) in path.char_indices().filter(|(at, c)| *c == '/' && *at > 0) {
        let above = &path[..at];
        if has_limits(&format!("{ROOT}{above}"))? {
            return Err(Failure::text(format!("{path} has a parent {above} which has a quota")));
        }
    }
    Ok(())
}

/// Writes what is given over what is there; what is there now.
fn store(client: &Client, path: &str, given: StatsTrack) -> Result<StatsTrack, Failure> {
    let limits_path = limits_path(path);
    if client.exists(&limits_path, false)?.is_some() {
        let old = track(client, &limits_path)?;
        let or = |new: i64, old: i64| if new > -1 { new } else { old };
        let all = StatsTrack {
            count: or(given.count, old.count),
            bytes: or(given.bytes, old.bytes),
            count_hard: or(given.count_hard, old.count_hard),
            bytes_hard: or(given.bytes_hard, old.bytes_hard),
        };
        client.set_data(&limits_path, Some(all.text().as_bytes()), -1)?;
        return Ok(all);
    }
    let own = format!("{ROOT}{path}");
    let inner = own.char_indices().filter(|(at, c)| *c == '/' && *at > ROOT.len()).map(|(at, _)| &own[..at]);
    for node in inner.chain([own.as_str()]) {
        make(client, node, None)?;
    }
    make(client, &limits_path, Some(&given.text()))?;
    // The server fills in what is really there.
    make(client, &stats_path(path), Some(&StatsTrack::usage_text(0, 0)))?;
    Ok(given)
}

fn make(client: &Client, path: &str, data: Option<&str>) -> Result<(), Failure> {
    match client.create(path, data.map(str::as_bytes), &Acl::open(), CreateMode::default()) {
        Err(error) if error.code() == Some(Code::NodeExists) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

fn track(client: &Client, path: &str) -> Result<StatsTrack, Error> {
    client.data(path, false).map(|(data, _)| StatsTrack::parse(data.as_deref()))
}

fn exceeded(limits: StatsTrack, usage: StatsTrack) -> Vec<String> {
    let below = |limit: i64, used: i64| limit > -1 && limit < used;
    let warn =
        |what: &str, used| format!("[Warning]: the {what} quota you create is less than the existing {what}:{used}");
    let mut warnings = Vec::new();
    if below(limits.count, usage.count) || below(limits.count_hard, usage.count) {
        warnings.push(warn("count", usage.count));
    }
    if below(limits.bytes, usage.bytes) || below(limits.bytes_hard, usage.bytes) {
        warnings.push(warn("bytes", usage.bytes));
    }
    warnings
}

pub(super) fn list(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let path = args.word(1);
    let client = shell.client()?;
    let limits_path = limits_path(path);
    shell.screen.chat_err(&format!("absolute path is {limits_path}"));
    let read = |path: &str| client.data(path, false).map(|(data, _)| text(data));
    let both = read(&limits_path).and_then(|limits| Ok((limits, read(&stats_path(path))?)));
    match both {
        Err(error) if error.is_no_node() => Ok(none_there(path)),
        Err(error) => Err(error.into()),
        Ok((limits, usage)) => Ok(Answer::out(
            format!("Output quota for {path} {limits}\nOutput stat for {path} {usage}"),
            json!({ "path": path, "limits": limits, "usage": usage }),
        )),
    }
}

fn text(data: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&data.unwrap_or_default()).into_owned()
}

fn none_there(path: &str) -> Answer {
    Answer::err(format!("quota for {path} does not exist."), json!({ "path": path, "limits": null }))
}

pub(super) fn delete(shell: &mut Shell, args: &Args) -> Result<Answer, Failure> {
    let path = args.word(1);
    let client = shell.client()?;
    let limits_path = limits_path(path);
    if client.exists(&limits_path, false)?.is_none() {
        return Ok(Answer::out(format!("Quota does not exist for {path}"), json!({ "path": path, "limits": null })));
    }
    match delete_some(&client, path, &limits_path, args) {
        Err(error) if error.is_no_node() => Ok(none_there(path)),
        other => {
            other?;
            Ok(Answer { json: Some(json!({ "path": path })), ..Answer::none() })
        }
    }
}

/// Without an option everything goes, and the nodes above that hold nothing else.
fn delete_some(client: &Client, path: &str, limits_path: &str, args: &Args) -> Result<(), Error> {
    let named = |name: &str, value: i64| if args.has(name) { -1 } else { value };
    if ["n", "b", "N", "B"].iter().any(|name| args.has(name)) {
        let old = track(client, limits_path)?;
        let rest = StatsTrack {
            count: named("n", old.count),
            bytes: named("b", old.bytes),
            count_hard: named("N", old.count_hard),
            bytes_hard: named("B", old.bytes_hard),
        };
        return client.set_data(limits_path, Some(rest.text().as_bytes()), -1).map(drop);
    }
    let own = format!("{ROOT}{path}");
    for leaf in [LIMITS, STATS] {
        client.delete(&format!("{own}/{leaf}"), -1)?;
    }
    let mut node = own.as_str();
    while node != ROOT && client.children(node, false)?.0.is_empty() {
        client.delete(node, -1)?;
        node = node.rsplit_once('/').map_or(ROOT, |(parent, _)| parent);
    }
    Ok(())
}
