//! TABLE of the shell's commands: name, usage, options, function. A command is added here and nowhere else; the usage
//! list, completion and the check of its arguments follow from its row.

use crate::arguments::{self, Args, ArgumentError, Opt};

use super::answer::{Answer, Failure};
use super::{Shell, connection, ensemble, nodes, quotas, rights, subtree, watching};

/// What may stand behind a command's name.
#[derive(Debug)]
pub enum Syntax {
    /// Words as they are.
    Bare,
    /// These options, and words.
    Options(&'static [Opt]),
    /// One of these options at most, and words.
    AtMostOneOf(&'static [Opt]),
    /// Exactly one of these options, and words.
    OneOf(&'static [Opt]),
}

/// One row.
#[derive(Debug)]
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// What stands behind it, as Apache's usage list shows it.
    pub usage: &'static str,
    /// Its options.
    pub syntax: Syntax,
    /// Fewest words behind the name; with fewer, the usage is the answer.
    pub words_min: usize,
    /// Whether it asks a server.
    pub asks: bool,
    /// Whether Apache's shell has none of this name: then its output is what it makes, with no line of Apache's before it.
    pub own: bool,
    /// Does it.
    pub run: fn(&mut Shell, &Args) -> Result<Answer, Failure>,
}

impl Command {
    /// Its options.
    pub fn options(&self) -> &'static [Opt] {
        match self.syntax {
            Syntax::Bare => &[],
            Syntax::Options(options) | Syntax::AtMostOneOf(options) | Syntax::OneOf(options) => options,
        }
    }

    /// Sorts the command's words, the first of which is its name. What is wrong is said as commons-cli does, class names
    /// included: scripts see them on standard error.
    pub fn parse(&self, words: &[String]) -> Result<Args, String> {
        if let Syntax::Bare = self.syntax {
            return Ok(Args::bare(words));
        }
        let (args, error) = match arguments::parse(self.options(), words) {
            Ok(args) => (args, None),
            Err((args, error)) => (args, Some(error)),
        };
        let is_exclusive = matches!(self.syntax, Syntax::OneOf(_) | Syntax::AtMostOneOf(_));
        let first = args.given().next();
        if let Some(first) = first.filter(|_| is_exclusive)
            && let Some(other) = args.given().find(|name| *name != first)
        {
            let why = format!(
                "The option '{other}' was specified but an option from this group has already been selected: '{first}'"
            );
            return Err(exception("AlreadySelected", &why));
        }
        match (error, &self.syntax, first) {
            (Some(error @ ArgumentError::Unrecognized(_)), ..) => {
                Err(exception("UnrecognizedOption", &error.to_string()))
            }
            (Some(error @ ArgumentError::MissingValue(_)), ..) => Err(exception("MissingArgument", &error.to_string())),
            (None, Syntax::OneOf(options), None) => {
                let all: Vec<String> =
                    options.iter().map(|option| format!("-{} {}", option.name, option.about)).collect();
                Err(exception("MissingOption", &format!("Missing required option: [{}]", all.join(", "))))
            }
            _ => Ok(args),
        }
    }

    /// The line of the usage list.
    pub fn usage_line(&self) -> String {
        format!("{} {}", self.name, self.usage)
    }

    /// The answer to wrong arguments: 3.9 lists the options of two commands, and so do our own.
    pub fn full_usage(&self) -> String {
        if self.own || matches!(self.name, "get" | "set") {
            return format!("{}\n{}", self.usage_line(), arguments::list(self.options()));
        }
        self.usage_line()
    }
}

fn exception(name: &str, message: &str) -> String {
    format!("org.apache.commons.cli.{name}Exception: {message}")
}

const fn flag(name: &'static str, about: &'static str) -> Opt {
    Opt { name, long: "", takes_value: false, about }
}

const fn value(name: &'static str, about: &'static str) -> Opt {
    Opt { name, long: "", takes_value: true, about }
}

macro_rules! command {
    ($name:literal, $usage:literal, $syntax:expr, $words:literal, $asks:literal, $run:path) => {
        Command { name: $name, usage: $usage, syntax: $syntax, words_min: $words, asks: $asks, own: false, run: $run }
    };
}

macro_rules! own_command {
    ($name:literal, $usage:literal, $syntax:expr, $words:literal, $run:path) => {
        Command { name: $name, usage: $usage, syntax: $syntax, words_min: $words, asks: true, own: true, run: $run }
    };
}

use Syntax::{AtMostOneOf, Bare, OneOf, Options};

/// Every command, sorted as Java sorts: capitals first.
pub static COMMANDS: &[Command] = &[
    command!(
        "addWatch",
        "[-m mode] path # optional mode is one of [PERSISTENT, PERSISTENT_RECURSIVE] - default is PERSISTENT_RECURSIVE",
        Options(&[value("m", "PERSISTENT or PERSISTENT_RECURSIVE")]),
        1,
        true,
        watching::add_watch
    ),
    command!("addauth", "scheme auth", Options(&[]), 1, true, rights::add_auth),
    command!("close", "", Bare, 0, true, connection::close),
    command!(
        "config",
        "[-c] [-w] [-s]",
        Options(&[flag("s", "stats"), flag("w", "watch"), flag("c", "client connection string")]),
        0,
        true,
        ensemble::config
    ),
    command!("connect", "host:port", Bare, 0, false, connection::connect),
    command!(
        "create",
        "[-s] [-e] [-c] [-t ttl] path [data] [acl]",
        Options(&[flag("e", "ephemeral"), flag("s", "sequential"), flag("c", "container"), value("t", "ttl")]),
        1,
        true,
        nodes::create
    ),
    command!("delete", "[-v version] path", Options(&[value("v", "version")]), 1, true, nodes::delete),
    command!("deleteall", "path [-b batch size]", Options(&[value("b", "batch size")]), 1, true, nodes::delete_all),
    command!("delquota", "[-n|-b|-N|-B] path", AtMostOneOf(QUOTA_FLAGS), 1, true, quotas::delete),
    command!("exit", "", Bare, 0, false, connection::quit),
    own_command!(
        "export",
        "[-n] path [file]",
        Options(&[flag("n", "Export the data without ACLs")]),
        1,
        subtree::export
    ),
    command!(
        "get",
        "[-s] [-w] [-b] [-x] path",
        Options(&[
            flag("s", "Print znode stats additionally"),
            flag("w", "Watch for changes on the znode"),
            flag("b", "Output data in base64 format"),
            flag("x", "Output data in hexdump format"),
        ]),
        1,
        true,
        nodes::get
    ),
    command!("getAcl", "[-s] path", Options(&[flag("s", "stats")]), 1, true, rights::get_acl),
    command!("getAllChildrenNumber", "path", Options(&[]), 1, true, nodes::descendants),
    command!("getEphemerals", "path", Options(&[]), 0, true, nodes::ephemerals),
    command!("history", "", Bare, 0, false, connection::history),
    own_command!(
        "import",
        "[-u] file [path]",
        Options(&[flag("u", "Update nodes that exist, instead of refusing")]),
        1,
        subtree::import
    ),
    command!("listquota", "path", Options(&[]), 1, true, quotas::list),
    command!(
        "ls",
        "[-s] [-w] [-R] path",
        Options(&[flag("?", "help"), flag("s", "stat"), flag("w", "watch"), flag("R", "recurse")]),
        0,
        true,
        nodes::ls
    ),
    command!("printwatches", "on|off", Bare, 0, false, watching::print_watches),
    command!("quit", "", Bare, 0, false, connection::quit),
    command!(
        "reconfig",
        "[-s] [-v version] [[-file path] | [-members serverID=host:port1:port2;port3[,...]*]] | [-add \
         serverId=host:port1:port2;port3[,...]]* [-remove serverId[,...]*]",
        Options(&[
            flag("s", "stats"),
            value("v", "required current config version"),
            value("file", "path of config file to parse for membership"),
            value("members", "comma-separated list of config strings for non-incremental reconfig"),
            value("add", "comma-separated list of config strings for new servers"),
            value("remove", "comma-separated list of server IDs to remove"),
        ]),
        0,
        true,
        ensemble::reconfig
    ),
    command!("redo", "cmdno", Bare, 0, false, connection::redo),
    command!(
        "removewatches",
        "path [-c|-d|-a] [-l]",
        Options(&[
            flag("c", "child watcher type"),
            flag("d", "data watcher type"),
            flag("p", "persistent watcher type"),
            flag("r", "persistent recursive watcher type"),
            flag("a", "any watcher type"),
            flag("l", "remove locally when there is no server connection"),
        ]),
        1,
        true,
        watching::remove_watches
    ),
    command!(
        "set",
        "path data [-s] [-v version] [-b]",
        Options(&[
            flag("s", "Print znode stats additionally"),
            value("v", "Set with an expected version"),
            flag("b", "Supply data in base64 format"),
        ]),
        2,
        true,
        nodes::set
    ),
    command!(
        "setAcl",
        "[-s] [-v version] [-R] path acl",
        Options(&[flag("s", "stats"), value("v", "version"), flag("R", "recursive")]),
        2,
        true,
        rights::set_acl
    ),
    command!("setquota", "-n|-b|-N|-B val path", OneOf(QUOTA_VALUES), 1, true, quotas::set),
    command!("stat", "[-w] path", Options(&[flag("w", "watch")]), 1, true, nodes::stat),
    command!("sync", "path", Options(&[]), 1, true, nodes::sync),
    command!("version", "", Options(&[]), 0, true, ensemble::version),
    own_command!("watch", "[-d] path", Options(&[flag("d", "Show the new data too")]), 1, watching::watch),
    command!("whoami", "", Bare, 0, true, rights::who_am_i),
];

const QUOTA_FLAGS: &[Opt] = &[
    flag("n", "num soft quota"),
    flag("b", "bytes soft quota"),
    flag("N", "num hard quota"),
    flag("B", "bytes hard quota"),
];

const QUOTA_VALUES: &[Opt] = &[
    value("n", "num soft quota"),
    value("b", "bytes soft quota"),
    value("N", "num hard quota"),
    value("B", "bytes hard quota"),
];

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// What is shown for a word that is no command.
pub fn usage() -> String {
    let lines: String = COMMANDS.iter().map(|command| format!("\n\t{}", command.usage_line())).collect();
    format!("ZooKeeper -server host:port -client-configuration properties-file cmd args{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, String> {
        let words = crate::shell::words::split(line);
        find(&words[0]).unwrap().parse(&words)
    }

    #[test]
    fn options_stand_anywhere_and_values_in_three_ways() {
        for line in ["set -s -v 5 /a x", "set /a x -v5 -s", "set /a -v=5 x -s", "set -sv 5 /a x"] {
            let args = parsed(line).unwrap();
            assert_eq!((args.has("s"), args.value("v"), args.words.len()), (true, Some("5"), 3), "{line}");
            assert_eq!((args.word(1), args.word(2)), ("/a", "x"), "{line}");
        }
        assert_eq!(parsed("set -v -1 /a x").unwrap().value("v"), Some("-1"));
        assert_eq!(parsed("set /a -- -x").unwrap().word(2), "-x");
        assert_eq!(parsed("reconfig -remove 3").unwrap().value("remove"), Some("3"));
    }

    #[test]
    fn what_is_wrong_is_said_as_commons_cli_does() {
        for (line, said) in [
            ("set /a -x", "UnrecognizedOptionException: Unrecognized option: -x"),
            ("set /a -5", "UnrecognizedOptionException: Unrecognized option: -5"),
            ("ls --all /", "UnrecognizedOptionException: Unrecognized option: --all"),
            ("set /a x -v", "MissingArgumentException: Missing argument for option: v"),
            (
                "delquota -n -b /a",
                "AlreadySelectedException: The option 'b' was specified but an option from this group has already been \
                 selected: 'n'",
            ),
            (
                "delquota -n -b -x /a",
                "AlreadySelectedException: The option 'b' was specified but an option from this group has already been \
                 selected: 'n'",
            ),
            (
                "setquota /a",
                "MissingOptionException: Missing required option: [-n num soft quota, -b bytes soft quota, -N num hard \
                 quota, -B bytes hard quota]",
            ),
        ] {
            assert_eq!(parsed(line).unwrap_err(), format!("org.apache.commons.cli.{said}"), "{line}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_names_nothing_twice() {
        assert!(COMMANDS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for command in COMMANDS {
            let names: std::collections::BTreeSet<_> = command.options().iter().map(|option| option.name).collect();
            assert_eq!(names.len(), command.options().len(), "{}", command.name);
        }
    }
}
