//! Which events a connection is due, and when: those of a transaction before any answer that reflects it, each once, none
//! left out and none beside; and what its client holds on to, to ask for it again on its next connection.

use std::collections::{BTreeMap, VecDeque};

use rookeeper::ids::Zxid;
use rookeeper::ops::{Op, ReadOp, SetWatches, WatchSelection, WatcherType};

use super::acl::{READ, Who};
use super::code::{self, Code};
use super::tree::{CONFIG, Change, Kind};
use super::{Model, Wrong};

const DATA: u8 = 1;
const CHILD: u8 = 2;
const PERSISTENT: u8 = 4;
const RECURSIVE: u8 = 8;
/// The client's: it was left for a node that was not there.
const EXIST: u8 = 16;

/// An event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Of the transaction; -1 when it catches up with what was missed.
    pub zxid: Zxid,
    pub kind: i32,
    pub path: String,
}

/// A connection and its client.
#[derive(Debug, Default)]
pub struct Watching {
    /// What the connection watches.
    modes: BTreeMap<String, u8>,
    /// What it was told reflects this transaction.
    upto: Zxid,
    due: VecDeque<Event>,
    /// Events of what was missed, whose answer is still to come.
    caught_up: Vec<Event>,
    /// What the client believes to watch, whatever its connection.
    held: BTreeMap<String, u8>,
}

impl Watching {
    /// There is a new connection, which watches nothing.
    pub fn on_connected(&mut self) {
        let held = std::mem::take(&mut self.held);
        *self = Watching { held, ..Watching::default() };
    }

    /// The client is a new one.
    pub fn forget(&mut self) {
        *self = Watching::default();
    }

    pub fn watches_anything(&self) -> bool {
        !self.held.is_empty()
    }

    /// What is held, as it is asked for again.
    pub fn again(&self, seen: Zxid) -> SetWatches {
        let of = |mode: u8| {
            let with = self.held.iter().filter(|(_, held)| **held & mode != 0);
            with.map(|(path, _)| path.clone()).collect::<Vec<String>>()
        };
        SetWatches {
            relative_zxid: seen.0,
            data: of(DATA),
            exist: of(EXIST),
            child: of(CHILD),
            persistent: of(PERSISTENT),
            persistent_recursive: of(RECURSIVE),
        }
    }

    /// An event has come.
    pub fn on_event(&mut self, model: &Model, last: Zxid, who: &Who, event: Event) -> Result<(), Wrong> {
        let spent = match event.kind {
            1 | 3 => DATA | EXIST,
            2 => DATA | EXIST | CHILD,
            _ => CHILD,
        };
        if let Some(held) = self.held.get_mut(&event.path) {
            *held &= !spent;
        }
        self.held.retain(|_, held| *held != 0);
        if event.zxid == Zxid(-1) {
            self.caught_up.push(event);
            return Ok(());
        }
        // What it is of is committed: somebody has applied it.
        if self.due.is_empty() && event.zxid > self.upto && event.zxid <= last {
            self.advance(model, who, event.zxid);
        }
        match self.due.pop_front() {
            Some(due) if due == event => Ok(()),
            due => Err(format!("is told {event:?}, and {due:?} was due next")),
        }
    }

    /// Any reply has come: all events up to its transaction must have come before.
    pub fn on_reply(&mut self, model: &Model, who: &Who, zxid: Zxid) -> Result<(), Wrong> {
        if zxid > self.upto {
            self.advance(model, who, zxid);
        }
        match self.due.front() {
            Some(missing) if missing.zxid <= zxid => Err(format!("is answered at {zxid}, and never told {missing:?}")),
            _ if zxid < self.upto => Err(format!("is answered at {zxid} after an event of {}", self.upto)),
            _ => Ok(()),
        }
    }

    fn advance(&mut self, model: &Model, who: &Who, to: Zxid) {
        if !self.modes.is_empty() {
            for (zxid, change) in model.tree().changes(self.upto, to) {
                self.meet(who, *zxid, change);
            }
        }
        self.upto = to;
    }

    fn meet(&mut self, who: &Who, zxid: Zxid, change: &Change) {
        let (wanted, spent) = match change.kind {
            Kind::Created | Kind::DataChanged => (DATA | PERSISTENT | RECURSIVE, DATA),
            Kind::Deleted => (u8::MAX, DATA | CHILD),
            Kind::ChildrenChanged => (CHILD | PERSISTENT, CHILD),
        };
        let modes = self.modes.get(&*change.path).copied().unwrap_or_default();
        let mut is_hit = modes & wanted != 0;
        if modes & spent != 0 {
            self.take_away(&change.path, spent);
        }
        if change.kind != Kind::ChildrenChanged {
            is_hit |= above(&change.path).any(|path| self.modes.get(path).is_some_and(|modes| modes & RECURSIVE != 0));
        }
        if is_hit && who.may(&change.acl, READ) {
            let kind = change.kind.number();
            self.due.push_back(Event { zxid, kind, path: change.path.as_ref().to_owned() });
        }
    }

    fn take_away(&mut self, path: &str, modes: u8) -> u8 {
        let Some(own) = self.modes.get_mut(path) else { return 0 };
        let had = *own & modes;
        *own &= !modes;
        if *own == 0 {
            self.modes.remove(path);
        }
        had
    }

    fn add(&mut self, path: &str, mode: u8, held: u8) {
        *self.modes.entry(path.to_owned()).or_default() |= mode;
        *self.held.entry(path.to_owned()).or_default() |= held;
    }

    /// A request was answered, after everything up to its transaction: it may leave watches, or take some away.
    pub fn on_answered(&mut self, model: &Model, zxid: Zxid, op: &Op, err: Code) -> Result<(), Wrong> {
        match op {
            Op::Read(ReadOp::Exists(target)) if target.watch && matches!(err, 0 | code::NO_NODE) => {
                self.add(&target.path, DATA, if err == 0 { DATA } else { EXIST });
            }
            Op::Read(ReadOp::GetData(target)) if target.watch && err == 0 => self.add(&target.path, DATA, DATA),
            Op::Read(ReadOp::GetChildren { target, .. }) if target.watch && err == 0 => {
                self.add(&target.path, CHILD, CHILD)
            }
            Op::Read(ReadOp::AddWatch { path, recursive }) => {
                let mode = if *recursive { RECURSIVE } else { PERSISTENT };
                if err != 0 {
                    return Err(format!("{op:?} fails with {err}"));
                }
                self.add(path, mode, mode);
            }
            Op::Read(ReadOp::CheckWatches(selected)) => {
                let modes = self.modes.get(&selected.path).copied().unwrap_or_default();
                return must_tell(op, modes & modes_of(selected), err);
            }
            Op::Read(ReadOp::RemoveWatches(selected)) => {
                let modes = modes_of(selected);
                let had = self.take_away(&selected.path, modes);
                if let Some(held) = self.held.get_mut(&selected.path) {
                    *held &= !(modes | if modes & DATA != 0 { EXIST } else { 0 });
                }
                self.held.retain(|_, held| *held != 0);
                return must_tell(op, had, err);
            }
            Op::Read(ReadOp::SetWatches(watches)) => return self.on_set_again(model, zxid, watches, err),
            _ => {}
        }
        Ok(())
    }

    /// What was missed since was told in front of the answer; the rest waits.
    fn on_set_again(&mut self, model: &Model, zxid: Zxid, watches: &SetWatches, err: Code) -> Result<(), Wrong> {
        if err != 0 {
            return Err(format!("setting watches again fails with {err}"));
        }
        let seen = Zxid(watches.relative_zxid);
        let mut missed = Vec::new();
        let mut miss = |kind: Kind, path: &str| {
            missed.push(Event { zxid: Zxid(-1), kind: kind.number(), path: path.to_owned() });
        };
        let modes = &mut self.modes;
        let mut add = |path: &str, mode: u8| *modes.entry(path.to_owned()).or_default() |= mode;
        // A leader may put a list of members in force that no transaction has: then the server alone knows whether it is new.
        let told = std::mem::take(&mut self.caught_up);
        let has_new_config = told.iter().any(|event| (event.kind, event.path.as_str()) == (3, CONFIG));
        for path in &watches.data {
            match model.node_zxids(path, zxid) {
                Some(_) if path == CONFIG && has_new_config => miss(Kind::DataChanged, path),
                Some(_) if path == CONFIG => add(path, DATA),
                None => miss(Kind::Deleted, path),
                Some((modified, _)) if modified > seen => miss(Kind::DataChanged, path),
                Some(_) => add(path, DATA),
            }
        }
        for path in &watches.exist {
            match model.node_zxids(path, zxid) {
                Some(_) => miss(Kind::Created, path),
                None => add(path, DATA),
            }
        }
        for path in &watches.child {
            match model.node_zxids(path, zxid) {
                None => miss(Kind::Deleted, path),
                Some((_, child_changed)) if child_changed > seen => miss(Kind::ChildrenChanged, path),
                Some(_) => add(path, CHILD),
            }
        }
        watches.persistent.iter().for_each(|path| add(path, PERSISTENT));
        watches.persistent_recursive.iter().for_each(|path| add(path, RECURSIVE));
        if told == missed {
            Ok(())
        } else {
            Err(format!("was to catch up with {missed:?} since {seen}, is told {told:?}"))
        }
    }
}

fn must_tell(op: &Op, modes: u8, err: Code) -> Result<(), Wrong> {
    let expected = if modes == 0 { code::NO_WATCHER } else { 0 };
    if err == expected { Ok(()) } else { Err(format!("{op:?} is answered {err}, and should be {expected}")) }
}

fn modes_of(selected: &WatchSelection) -> u8 {
    match selected.kind {
        WatcherType::Children => CHILD,
        WatcherType::Data => DATA,
        WatcherType::Any => DATA | CHILD | PERSISTENT | RECURSIVE,
        WatcherType::Persistent => PERSISTENT,
        WatcherType::PersistentRecursive => RECURSIVE,
    }
}

/// The paths above this one, the root last.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rsplit_once('/') {
        _ if *path == "/" => None,
        None | Some(("", _)) => Some("/"),
        Some((parent, _)) => Some(parent),
    })
    .skip(1)
}
