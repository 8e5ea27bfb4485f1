//! TABLE of the admin server's commands: names, what each needs, who answers. Adding one is adding a row. The thread
//! `admin` looks a command up by its name and has it answered: [`CommandQuery::answer`] runs in the pipeline's thread, which
//! has what it shows, and gives values; they become text in the thread `admin`.

use std::sync::Arc;

use serde_json::{Value, json};

pub use super::json::Fields;
use super::listed::{self, Listed};
use super::view::{Denied, Mode, QuorumView, ServerView};
use super::words::QueryContext;
use super::{connections, json as text, mntr, node, server, settings, stages, state};

/// What the process was started with.
#[derive(Debug)]
pub struct Started {
    /// The configuration file, as it was read, without secrets; `None` in an ensemble.
    pub config_text: Option<String>,
    /// All system properties by name, without secrets.
    pub properties: Vec<(String, String)>,
}

/// All that the answer to a command is made from.
pub struct CommandContext<'a> {
    /// What four-letter words are made from.
    pub context: &'a QueryContext<'a>,
    /// What is asked.
    pub query: &'a CommandQuery,
}

impl CommandContext<'_> {
    /// A parameter; of several the first counts.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Where from.
    pub address: std::net::IpAddr,
    /// The header `Authorization`.
    pub authorization: Option<String>,
}

impl Asker {
    /// Whether it may do everything with the root, which commands that change something ask for.
    pub fn authorize(&self, server: &dyn ServerView) -> Result<(), Denied> {
        if server.mode() == Mode::NotServing {
            return Err(Denied::NotServing);
        }
        let authorization = self.authorization.as_deref().ok_or(Denied::Anonymous)?;
        server.may_command(self.address, authorization)
    }
}

/// A command that shows something, as it was asked for.
#[derive(Clone, Debug)]
pub struct CommandQuery {
    /// The row.
    pub command: &'static Command,
    /// The name that was used.
    pub name: String,
    /// Parameters.
    pub parameters: Vec<(String, String)>,
    /// Who asks.
    pub asker: Asker,
    /// What the process was started with.
    pub started: Arc<Started>,
    /// Members of an ensemble: the quorum thread's part.
    pub quorum: Option<QuorumView>,
}

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// Shows something.
    Get(fn(&CommandContext) -> Fields),
    /// Takes a snapshot, and sends it; the thread `admin` does that.
    Snapshot,
    /// Replaces the data by the snapshot that is sent; so is this.
    Restore,
    /// Closes a part of the connections; so is this.
    ShedConnections,
}

/// A row.
#[derive(Debug)]
pub struct Command {
    /// The first is the one that it is listed under.
    pub names: &'static [&'static str],
    /// Whether only a server that serves answers it.
    pub serving: bool,
    /// Whether it shows the connections.
    pub shows_connections: bool,
    /// What it lists that may be long.
    pub lists: &'static [Listed],
    /// What it does.
    pub run: Run,
}

const fn get(names: &'static [&'static str], run: fn(&CommandContext) -> Fields) -> Command {
    Command { names, serving: true, shows_connections: false, lists: &[], run: Run::Get(run) }
}

impl Command {
    const fn always(mut self) -> Command {
        self.serving = false;
        self
    }

    const fn with_connections(mut self) -> Command {
        self.shows_connections = true;
        self
    }

    const fn lists(mut self, lists: &'static [Listed]) -> Command {
        self.lists = lists;
        self
    }

    const fn does(mut self, run: Run) -> Command {
        self.run = run;
        self
    }

    /// Its own name.
    pub fn name(&self) -> &'static str {
        self.names[0]
    }

    /// Whether asking resets the figures of the connections, which the poller does.
    pub fn resets_connections(&self) -> bool {
        self.name() == "connection_stat_reset"
    }

    /// The same with the connections of learners, which the quorum thread does.
    pub fn resets_links(&self) -> bool {
        self.name() == "observer_connection_stat_reset"
    }
}

/// Every command, by name.
pub static TABLE: &[Command] = &[
    get(&["configuration", "conf", "config"], settings::configuration),
    get(&["connection_stat_reset", "crst"], nothing),
    get(&["connections", "cons"], connections::connections).with_connections().lists(&[listed::CONNECTIONS]),
    get(&["dirs"], settings::directories),
    get(&["dump"], state::sessions_and_ephemerals).lists(&[listed::SESSIONS, listed::EPHEMERALS]),
    get(&["environment", "env", "envi"], settings::environment).always(),
    get(&["get_trace_mask", "gtmk"], server::trace_mask).always(),
    get(&["hash"], state::digests),
    get(&["initial_configuration", "icfg"], settings::initial_configuration),
    get(&["is_read_only", "isro"], server::is_read_only),
    get(&["last_snapshot", "lsnp"], state::last_snapshot),
    get(&["leader", "lead"], server::leader),
    get(&["memory"], server::memory).always(),
    get(&["monitor", "mntr"], mntr::monitor),
    get(&["node"], node::node),
    get(&["observer_connection_stat_reset", "orst"], nothing),
    get(&["observers", "obsr"], server::observers),
    get(&["restore", "rest"], nothing).does(Run::Restore),
    get(&["ruok"], nothing),
    get(&["server_stats", "srvr"], server::server_stats),
    get(&["set_trace_mask", "stmk"], server::set_trace_mask).always(),
    get(&["shed_connections", "shed"], nothing).does(Run::ShedConnections),
    get(&["snapshot", "snap"], nothing).does(Run::Snapshot),
    get(&["stages"], stages::stages).always(),
    get(&["stat_reset", "srst"], server::reset),
    get(&["stats", "stat"], server::stats).with_connections().lists(&[listed::CONNECTIONS]),
    get(&["status"], server::status).always(),
    get(&["system_properties", "sysp"], settings::system_properties).always(),
    get(&["voting_view"], server::voting_view),
    get(&["watch_summary", "wchs"], state::watch_summary),
    get(&["watches", "wchc"], state::watches).lists(&[listed::WATCHES]),
    get(&["watches_by_path", "wchp"], state::watches_by_path).lists(&[listed::WATCHES]),
    get(&["zabstate"], server::zab_state).always(),
];

fn nothing(_: &CommandContext) -> Fields {
    Fields::new()
}

/// The command with this name.
pub fn find(name: &str) -> Option<&'static Command> {
    TABLE.iter().find(|command| command.names.contains(&name))
}

/// The page with all names.
pub fn list(url: &str) -> String {
    TABLE.iter().map(|command| format!("<a href=\"{url}/{name}\">{name}</a>\n<br/>\n", name = command.name())).collect()
}

/// The text of an answer. An error of the command's own stands before its name, any other behind it, as in Apache.
pub fn answered(name: &str, mut fields: Fields, error: Option<&str>) -> String {
    let own_error = fields.contains_key("error");
    fields.insert("command".into(), name.into());
    if !own_error {
        fields.insert("error".into(), error.map_or(Value::Null, Value::from));
    }
    text::text(&fields)
}

/// The answer to a name that there is not.
pub fn unknown(name: &str) -> String {
    answered(name, Fields::new(), Some(&format!("Unknown command: {name}")))
}

impl CommandQuery {
    /// The answer, as values; [`answered`] makes text of them.
    pub fn answer(&self, context: &QueryContext) -> Answer {
        let command = self.command;
        if command.serving && context.server.mode() == Mode::NotServing {
            return Answer { name: self.name.clone(), fields: Fields::new(), error: Some(NOT_SERVING) };
        }
        if let Some(error) = command.lists.iter().find_map(|listed| listed.refusal(context)) {
            return Answer { name: command.name().to_owned(), fields: own_error(error), error: None };
        }
        let fields = match command.run {
            Run::Get(run) => run(&CommandContext { context, query: self }),
            Run::Snapshot | Run::Restore | Run::ShedConnections => Fields::new(),
        };
        Answer { name: command.name().to_owned(), fields, error: None }
    }
}

/// What `shed_connections` is sent, `{"percentage": 30}`; or what is wrong with it, in Apache's words. A percentage that is no
/// whole number from 0 to 100 is refused, also where Apache takes one for 0.
pub fn percentage(body: &[u8]) -> Result<u8, String> {
    const FIELD: &str = "percentage";
    if body.is_empty() {
        return Err("Request body is required".to_owned());
    }
    let sent: Value = serde_json::from_slice(body)
        .map_err(|error| format!("Invalid JSON or failed to read request body: {error}"))?;
    let value = sent.get(FIELD).ok_or_else(|| format!("Missing required field: {FIELD}"))?;
    let number = match value {
        Value::String(text) => text.parse().ok(),
        _ => value.as_f64(),
    };
    let is_share = |number: &f64| (0.0..=100.0).contains(number) && number.fract() == 0.0;
    number.filter(is_share).map(|number| number as u8).ok_or("Percentage must be between 0 and 100".to_owned())
}

/// What a server that does not serve says.
pub const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// What a command shows.
#[derive(Debug)]
pub struct Answer {
    /// The name to show.
    pub name: String,
    /// What is shown.
    pub fields: Fields,
    /// Why it cannot be.
    pub error: Option<&'static str>,
}

impl Answer {
    /// As it is sent.
    pub fn into_text(self) -> String {
        answered(&self.name, self.fields, self.error)
    }
}

/// Fields from a literal.
pub(super) fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        other => Fields::from_iter([("value".to_owned(), other)]),
    }
}

/// A list of values as an array.
pub(super) fn array<T: Into<Value>>(items: impl IntoIterator<Item = T>) -> Value {
    Value::Array(items.into_iter().map(Into::into).collect())
}

/// An object of the command's own error.
pub(super) fn own_error(text: impl Into<String>) -> Fields {
    fields(json!({ "error": text.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once_and_the_list_is_in_order() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(|command| command.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(TABLE.windows(2).all(|pair| pair[0].name() < pair[1].name()));
        assert!(list("/commands").starts_with("<a href=\"/commands/configuration\">configuration</a>\n<br/>\n"));
    }

    #[test]
    fn the_part_of_the_connections_to_be_closed_is_a_whole_number() {
        for (body, percent) in [
            (r#"{"percentage": 30}"#, 30),
            (r#" {"percentage":0,"more":[1]} "#, 0),
            (r#"{"percentage":"100"}"#, 100),
            (r#"{"percentage":12.0}"#, 12),
        ] {
            assert_eq!(percentage(body.as_bytes()), Ok(percent), "{body}");
        }
        for body in [
            r#"{"percentage":101}"#,
            r#"{"percentage":-1}"#,
            r#"{"percentage":"x"}"#,
            r#"{"percentage":null}"#,
            r#"{"percentage":1e99}"#,
            r#"{"percentage":12.5}"#,
            r#"{"percentage":[]}"#,
        ] {
            assert_eq!(percentage(body.as_bytes()), Err("Percentage must be between 0 and 100".to_owned()), "{body}");
        }
        for body in ["{}", "[30]", "30", r#"{"Percentage":30}"#] {
            assert_eq!(percentage(body.as_bytes()), Err("Missing required field: percentage".to_owned()), "{body}");
        }
        assert_eq!(percentage(b""), Err("Request body is required".to_owned()));
        let error = percentage(b"{percentage:30}").unwrap_err();
        assert!(error.starts_with("Invalid JSON or failed to read request body: "), "{error}");
    }

    #[test]
    fn an_error_of_the_commands_own_stands_first() {
        assert_eq!(
            answered("leader", own_error("no"), None),
            "{\n  \"error\" : \"no\",\n  \"command\" : \"leader\"\n}"
        );
        assert_eq!(unknown("x"), "{\n  \"command\" : \"x\",\n  \"error\" : \"Unknown command: x\"\n}");
    }
}
