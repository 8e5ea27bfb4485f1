//! The audit log (`audit.enable`; `AuditHelper`, `DataTree.deleteNodes`): one line for every write of a client of this
//! server, done or refused, and one for every ephemeral node that goes with its session, whosever client that was. Lines
//! have Apache's form: `key=value`, tabs between. They go to the log under a target of their own.

use crate::config::AUDIT_LOGGER;
use crate::ids::SessionId;
use crate::ops::{Create, MultiOp, OpCode, WriteOp};
use crate::pipeline::Pipeline;
use crate::records::{Acl, perms};
use crate::state::Applied;
use crate::state::acl::AuthId;
use crate::txn::{Txn, TxnBody};

/// What is told of a request once it is known what became of it.
#[derive(Debug)]
pub(super) struct Audited {
    session: SessionId,
    /// Who asked, as far as it has a name.
    user: Option<String>,
    ip: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    /// One operation: its name, the path asked for, the type of a node to be made, the list to be set.
    One { operation: &'static str, path: Option<String>, znode_type: Option<&'static str>, acl: Option<String> },
    /// A multi: the types of the nodes that it makes, by the path asked for.
    Multi { znode_types: Vec<(String, &'static str)> },
}

#[derive(Clone, Copy)]
enum Outcome {
    Success,
    Failure,
    Invoked,
}

/// This server starts to serve, or failed to.
pub fn server_start(user: &str, succeeded: bool) {
    let outcome = if succeeded { Outcome::Success } else { Outcome::Failure };
    write(outcome, &[("user", Some(user)), ("operation", Some("serverStart"))]);
}

/// This server was told to stop.
pub fn server_stop(user: &str) {
    write(Outcome::Invoked, &[("user", Some(user)), ("operation", Some("serverStop"))]);
}

impl Audited {
    /// What there is to tell of a request; `None`: nothing. A lone createTTL is told of as in Apache since 3.9.4.
    pub fn of(op: &WriteOp, session: SessionId, auth: &[AuthId], ip: String) -> Option<Box<Audited>> {
        let one = |operation, path: Option<&String>, znode_type, acl| {
            Some(Action::One { operation, path: path.cloned(), znode_type, acl })
        };
        let action = match op {
            WriteOp::Create(create) => one("create", Some(&create.path), znode_type(create), None),
            WriteOp::Delete(delete) => one("delete", Some(&delete.path), None, None),
            WriteOp::SetData(set) => one("setData", Some(&set.path), None, None),
            WriteOp::SetAcl(set) => one("setAcl", Some(&set.path), None, set.acl.as_deref().map(acl_text)),
            WriteOp::Reconfig(_) => one("reconfig", None, None, None),
            WriteOp::Multi(ops) => Some(Action::Multi { znode_types: ops.iter().filter_map(made_by).collect() }),
            WriteOp::Malformed => None,
        };
        Some(Box::new(Audited { session, user: users(auth), ip, action: action? }))
    }

    /// Tells what became of it.
    pub fn tell(&self, body: &TxnBody, applied: &Applied) {
        let failed = matches!(applied, Applied::Failed(_)) || body.is_error();
        match (&self.action, body) {
            (Action::One { operation, path, znode_type, acl }, _) => {
                let path = if failed { path.as_deref() } else { path_of(body) };
                self.line(
                    operation,
                    path,
                    *znode_type,
                    acl.as_deref(),
                    if failed { Outcome::Failure } else { Outcome::Success },
                );
            }
            (Action::Multi { znode_types }, TxnBody::Multi(subs)) if !subs.iter().any(TxnBody::is_error) => {
                for sub in subs {
                    let operation = match sub {
                        TxnBody::Create(_) => "create",
                        TxnBody::Delete { .. } => "delete",
                        TxnBody::SetData(_) => "setData",
                        _ => continue,
                    };
                    let path = path_of(sub);
                    // The type of a sequential node is not found: its path is another by now. Apache's is not either.
                    let made = znode_types.iter().find(|(asked, _)| path == Some(asked) && operation == "create");
                    self.line(operation, path, made.map(|(_, znode_type)| *znode_type), None, Outcome::Success);
                }
            }
            (Action::Multi { .. }, _) => self.line("multiOperation", None, None, None, Outcome::Failure),
        }
    }

    fn line(&self, operation: &str, znode: Option<&str>, kind: Option<&str>, acl: Option<&str>, outcome: Outcome) {
        let session = self.session.to_string();
        let fields = [
            ("session", Some(session.as_str())),
            ("user", self.user.as_deref()),
            ("ip", Some(self.ip.as_str())),
            ("operation", Some(operation)),
            ("znode", znode),
            ("znode_type", kind),
            ("acl", acl),
        ];
        write(outcome, &fields);
    }
}

impl Pipeline {
    /// Tells of the ephemeral nodes that are about to go with their session; before the transaction is applied.
    pub(super) fn audit_ephemerals(&self, txn: &Txn) {
        let (Some(user), TxnBody::CloseSession { .. }) = (&self.rules.audit_as, &txn.body) else { return };
        let session = txn.header.client_id.to_string();
        for path in self.state.ephemerals_of(txn.header.client_id) {
            let fields = [
                ("session", Some(session.as_str())),
                ("user", Some(user.as_str())),
                ("operation", Some("ephemeralZNodeDeletionOnSessionCloseOrExpire")),
                ("znode", Some(path.as_str())),
            ];
            write(Outcome::Success, &fields);
        }
    }
}

fn made_by(op: &MultiOp) -> Option<(String, &'static str)> {
    match op {
        // Not of one with a TTL, as in Apache.
        MultiOp::Create(create) if create.code != OpCode::CreateTtl => Some((create.path.clone(), znode_type(create)?)),
        _ => None,
    }
}

fn path_of(body: &TxnBody) -> Option<&str> {
    match body {
        TxnBody::Create(create) => Some(&create.path),
        TxnBody::Delete { path, .. } => Some(path),
        TxnBody::SetData(set) | TxnBody::Reconfig(set) => Some(&set.path),
        TxnBody::SetAcl(set) => Some(&set.path),
        _ => None,
    }
}

/// `CreateMode`, by its flags.
fn znode_type(create: &Create) -> Option<&'static str> {
    Some(match create.flags {
        0 => "persistent",
        1 => "ephemeral",
        2 => "persistent_sequential",
        3 => "ephemeral_sequential",
        4 => "container",
        5 => "persistent_with_ttl",
        6 => "persistent_sequential_with_ttl",
        _ => return None,
    })
}

/// Names of the identities that have one; what is more than an address goes first.
fn users(auth: &[AuthId]) -> Option<String> {
    let is_ip = |who: &&AuthId| who.scheme == "ip";
    let named = auth.iter().filter(|who| !is_ip(who)).chain(auth.iter().filter(is_ip));
    let names = named.filter_map(|who| match who.scheme.as_str() {
        // No provider has this scheme.
        "super" => None,
        "digest" => who.id.split(':').next(),
        _ => Some(who.id.as_str()),
    });
    let names: Vec<&str> = names.filter(|name| !name.trim().is_empty()).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// Entries one behind the other, without anything between, as Apache has it.
fn acl_text(list: &[Acl]) -> String {
    let letters =
        [(perms::CREATE, 'c'), (perms::DELETE, 'd'), (perms::READ, 'r'), (perms::WRITE, 'w'), (perms::ADMIN, 'a')];
    let entry = |acl: &Acl| {
        let said: String = letters.iter().filter(|(bit, _)| acl.perms & bit != 0).map(|(_, letter)| letter).collect();
        format!("{}:{}:{said}", acl.scheme.as_deref().unwrap_or("null"), acl.id.as_deref().unwrap_or("null"))
    };
    list.iter().map(entry).collect()
}

fn write(outcome: Outcome, fields: &[(&str, Option<&str>)]) {
    let (level, result) = match outcome {
        Outcome::Success => (log::Level::Info, "success"),
        Outcome::Failure => (log::Level::Error, "failure"),
        Outcome::Invoked => (log::Level::Info, "invoked"),
    };
    log::log!(target: AUDIT_LOGGER, level, "{}", text(fields, result));
}

/// Clients choose much of this: a line break of theirs must not begin another line.
fn text(fields: &[(&str, Option<&str>)], result: &str) -> String {
    let mut out = String::new();
    let given = fields.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
    for (key, value) in given.chain([("result", result)]) {
        if !out.is_empty() {
            out.push('\t');
        }
        out.push_str(key);
        out.push('=');
        for c in value.chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_tabs_between_its_fields_and_nothing_of_those_that_are_not_there() {
        let fields = [("session", Some("0x1")), ("user", None), ("znode", Some("/a\n\tb"))];
        assert_eq!(text(&fields, "success"), "session=0x1\tznode=/a\\n\\tb\tresult=success");
    }

    #[test]
    fn users_are_named_and_addresses_come_last() {
        let auth = [AuthId::new("ip", "10.0.0.1"), AuthId::superuser(), AuthId::new("digest", "bob:hash")];
        assert_eq!(users(&auth).as_deref(), Some("bob,10.0.0.1"));
        assert_eq!(users(&[AuthId::new("digest", ":hash")]), None);
    }

    #[test]
    fn lists_are_written_as_apache_writes_them() {
        let list = [Acl::new(31, "world", "anyone"), Acl::new(perms::READ, "digest", "u:h")];
        assert_eq!(acl_text(&list), "world:anyone:cdrwadigest:u:h:r");
    }
}
