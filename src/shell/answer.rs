//! What a command has to say, once as Apache's text and once as JSON; and why it failed, likewise. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::table::Command;
use crate::admin::java;
use crate::client::Error;
use crate::codes::Code;
use crate::records::Stat;

/// Exit code of a word that is no command.
const NOT_FOUND: u8 = 127;

/// The result of a command.
#[derive(Debug, Default)]
pub struct Answer {
    /// For standard output, without the last line feed.
    pub out: Option<String>,
    /// For standard error, likewise.
    pub err: Option<String>,
    /// The same for programs.
    pub json: Option<Value>,
}

impl Answer {
    /// Nothing to say.
    pub fn none() -> Answer {
        Answer::default()
    }

    /// A result.
    pub fn out(text: impl Into<String>, json: Value) -> Answer {
        Answer { out: Some(text.into()), err: None, json: Some(json) }
    }

    /// A remark; not a failure.
    pub fn err(text: impl Into<String>, json: Value) -> Answer {
        Answer { out: None, err: Some(text.into()), json: Some(json) }
    }

    /// With the stat behind it.
    pub fn with_stat(mut self, stat: Option<&Stat>) -> Answer {
        let Some(stat) = stat else { return self };
        let block = stat_block(stat);
        self.out = Some(self.out.map_or(block.clone(), |out| format!("{out}\n{block}")));
        let json = self.json.get_or_insert_with(|| json!({}));
        if let Value::Object(map) = json {
            map.insert("stat".into(), stat_json(stat));
        }
        self
    }
}

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// No such command.
    Unknown(String),
    /// It was called in a way that its usage line does not allow.
    Usage(&'static Command),
    /// The server or the client refused.
    Client(Error),
    /// Anything else.
    Text(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Client(error)
    }
}

impl Failure {
    /// A failure of our own.
    pub fn text(text: impl Into<String>) -> Failure {
        Failure::Text(text.into())
    }

    /// The exit code of a command that failed so.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Failure::Unknown(_)) { NOT_FOUND } else { 1 }
    }

    /// In Apache's words (`CliWrapperException` for those of the server).
    pub fn message(&self) -> String {
        match self {
            Failure::Unknown(word) => format!("Command not found: Command not found {word}"),
            Failure::Usage(command) => command.full_usage(),
            Failure::Client(error) => client_message(error),
            Failure::Text(text) => text.clone(),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let kind = match self {
            Failure::Unknown(_) => "CommandNotFound".into(),
            Failure::Usage(_) => "Usage".into(),
            Failure::Client(error) => error.kind(),
            Failure::Text(_) => "Failed".into(),
        };
        let path = if let Failure::Client(error) = self { error.path() } else { None };
        json!({ "error": kind, "path": path, "message": self.message() })
    }

    /// What a person at the terminal can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        let Failure::Client(error) = self else { return None };
        match error {
            Error::SessionExpired { .. } | Error::AuthFailed { .. } | Error::Closed => {
                Some("`connect` starts a new session; ephemerals, watches and identities of the old one are gone")
            }
            Error::Refused { code, .. } => code_hint(*code),
            _ => None,
        }
    }
}

fn code_hint(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::NoAuth => "`whoami` shows your identities, `addauth SCHEME AUTH` adds one, `getAcl PATH` shows who may",
        Code::NotEmpty => "`deleteall PATH` deletes it with all its children",
        Code::BadVersion => "`stat PATH` shows the present version",
        Code::InvalidAcl => {
            "an ACL is scheme:id:perms, as in world:anyone:r or auth::cdrwa (which needs `addauth` first)"
        }
        Code::QuotaExceeded => "`listquota PATH` shows the limits of the quota above it",
        Code::NotReadOnly => "this server has lost its quorum and only answers reads",
        Code::ReconfigDisabled => "needs reconfigEnabled=true in every server's zoo.cfg",
        Code::Unimplemented => "the server has this switched off: TTL nodes need zookeeper.extendedTypesEnabled=true",
        _ => return None,
    })
}

fn client_message(error: &Error) -> String {
    let path = error.path().unwrap_or("null");
    if let Error::ConnectionLoss { tried, .. } = error {
        let servers: String = tried.iter().map(|attempt| format!("\n  {attempt}")).collect();
        return format!("{error}{servers}");
    }
    let Some(code) = error.code() else { return error.to_string() };
    match code {
        Code::NoNode => format!("Node does not exist: {path}"),
        Code::NoChildrenForEphemerals => format!("Ephemerals cannot have children: {path}"),
        Code::NodeExists => format!("Node already exists: {path}"),
        Code::NotEmpty => format!("Node not empty: {path}"),
        Code::NotReadOnly => format!("Not a read-only call: {path}"),
        Code::InvalidAcl => format!("Acl is not valid : {path}"),
        Code::NoAuth => format!("Insufficient permission : {path}"),
        Code::BadArguments => format!("Arguments are not valid : {path}"),
        Code::BadVersion => format!("version No is not valid : {path}"),
        Code::QuotaExceeded => format!("Quota has exceeded : {path}"),
        Code::ReconfigInProgress => {
            "Another reconfiguration is in progress -- concurrent reconfigs not supported (yet)".into()
        }
        Code::NewConfigNoQuorum => "No quorum of new config is connected and up-to-date with the leader of last \
                                    commmitted config - try invoking reconfiguration after new servers are connected \
                                    and synced"
            .into(),
        _ => error.to_string(),
    }
}

/// The eleven lines of a stat.
pub fn stat_block(stat: &Stat) -> String {
    let zone = TimeZone::system();
    format!(
        "cZxid = 0x{:x}\nctime = {}\nmZxid = 0x{:x}\nmtime = {}\npZxid = 0x{:x}\ncversion = {}\ndataVersion = {}\n\
         aclVersion = {}\nephemeralOwner = 0x{:x}\ndataLength = {}\nnumChildren = {}",
        stat.czxid,
        java::date(stat.ctime, &zone),
        stat.mzxid,
        java::date(stat.mtime, &zone),
        stat.pzxid,
        stat.cversion,
        stat.version,
        stat.aversion,
        stat.ephemeral_owner,
        stat.data_length,
        stat.num_children
    )
}

/// A stat for programs: 64-bit ids as text, because many readers of JSON have only 53 bits; times in ms since 1970.
pub fn stat_json(stat: &Stat) -> Value {
    json!({
        "czxid": format!("0x{:x}", stat.czxid),
        "mzxid": format!("0x{:x}", stat.mzxid),
        "pzxid": format!("0x{:x}", stat.pzxid),
        "ctime": stat.ctime,
        "mtime": stat.mtime,
        "cversion": stat.cversion,
        "version": stat.version,
        "aversion": stat.aversion,
        "ephemeralOwner": format!("0x{:x}", stat.ephemeral_owner),
        "dataLength": stat.data_length,
        "numChildren": stat.num_children,
    })
}

/// Data for programs: `"data"` where it is text or null, else `"base64"`.
pub fn put_data(map: &mut Map<String, Value>, data: Option<&[u8]>) {
    match data.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => map.insert("data".into(), Value::Null),
        Some(Ok(text)) => map.insert("data".into(), text.into()),
        Some(Err(bytes)) => map.insert("base64".into(), STANDARD.encode(bytes).into()),
    };
}
