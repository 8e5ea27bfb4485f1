//! Options of a command, taken from its words as commons-cli does for Apache's shell: one dash, in any place, values
//! behind a blank or at once. The messages are its own, class names included: scripts see them on standard error. Pure.

use super::table::{Command, Syntax};

/// One option of a command.
#[derive(Debug)]
pub struct Opt {
    /// Without the dash.
    pub name: &'static str,
    /// Whether a value follows.
    pub takes_value: bool,
    /// What it does.
    pub about: &'static str,
}

/// A command's words, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    options: Vec<(&'static str, Option<String>)>,
    /// What is no option; the first is the command itself.
    pub words: Vec<String>,
}

impl Args {
    /// Whether the option was given.
    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(given, _)| *given == name)
    }

    /// The option's first value.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(given, _)| *given == name)?.1.as_deref()
    }

    /// These options too, and the words of `other`.
    pub fn merged(&self, other: Args) -> Args {
        Args { options: self.options.iter().cloned().chain(other.options).collect(), words: other.words }
    }

    /// A word that must be there: the table says how many there are.
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }
}

/// Sorts the words of a command, the first of which is its name.
pub fn parse(command: &Command, words: &[String]) -> Result<Args, String> {
    let mut args = Args::default();
    let (options, exclusive) = match command.syntax {
        Syntax::Bare => {
            args.words = words.to_vec();
            return Ok(args);
        }
        Syntax::Options(options) => (options, false),
        Syntax::OneOf(options) | Syntax::AtMostOneOf(options) => (options, true),
    };
    let find = |name: &str| options.iter().find(|option| option.name == name);
    let is_option = |word: &str| {
        let Some(name) = word.strip_prefix('-').map(|name| name.split('=').next().unwrap_or_default()) else {
            return false;
        };
        let is_number = word.parse::<f64>().is_ok();
        let first = name.chars().next().map(String::from).unwrap_or_default();
        !is_number && (find(name).is_some() || find(&first).is_some())
    };
    let mut waiting: Option<&'static str> = None;
    let mut only_words = false;
    for word in words {
        if only_words {
            args.words.push(word.clone());
            continue;
        }
        if let Some(name) = waiting {
            if !is_option(word) && word != "--" {
                args.options.push((name, Some(unquoted(word).to_owned())));
                waiting = None;
                continue;
            }
            return Err(missing_value(name));
        }
        if word == "--" {
            only_words = true;
            continue;
        }
        let Some(given) = word.strip_prefix('-').filter(|given| !given.is_empty()) else {
            args.words.push(word.clone());
            continue;
        };
        for (option, value) in one_word(&find, given).ok_or_else(|| unknown(word))? {
            if exclusive
                && let Some((before, _)) = args.options.first()
                && *before != option.name
            {
                return Err(format!(
                    "org.apache.commons.cli.AlreadySelectedException: The option '{}' was specified but an option from \
                     this group has already been selected: '{before}'",
                    option.name
                ));
            }
            match value {
                None if option.takes_value => waiting = Some(option.name),
                value => args.options.push((option.name, value)),
            }
        }
    }
    if let Some(name) = waiting {
        return Err(missing_value(name));
    }
    if matches!(command.syntax, Syntax::OneOf(_)) && args.options.is_empty() {
        let all: Vec<String> = options.iter().map(|option| format!("-{} {}", option.name, option.about)).collect();
        return Err(format!(
            "org.apache.commons.cli.MissingOptionException: Missing required option: [{}]",
            all.join(", ")
        ));
    }
    Ok(args)
}

/// The options in one word: `-s`, `-v5`, `-v=5`, `-sw`.
fn one_word(find: &impl Fn(&str) -> Option<&'static Opt>, given: &str) -> Option<Vec<(&'static Opt, Option<String>)>> {
    if let Some(option) = find(given) {
        return Some(vec![(option, None)]);
    }
    if let Some((name, value)) = given.split_once('=') {
        let option = find(name).filter(|option| option.takes_value && name.len() == 1)?;
        return Some(vec![(option, Some(value.to_owned()))]);
    }
    let mut found = Vec::new();
    for (at, c) in given.char_indices() {
        let option = find(&c.to_string())?;
        let rest = &given[at + c.len_utf8()..];
        if option.takes_value && !rest.is_empty() {
            found.push((option, Some(rest.to_owned())));
            break;
        }
        found.push((option, None));
    }
    Some(found)
}

fn unquoted(word: &str) -> &str {
    word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|rest| !rest.contains('"')).unwrap_or(word)
}

fn unknown(word: &str) -> String {
    format!("org.apache.commons.cli.UnrecognizedOptionException: Unrecognized option: {word}")
}

fn missing_value(name: &str) -> String {
    format!("org.apache.commons.cli.MissingArgumentException: Missing argument for option: {name}")
}

/// The list of options below a usage line (`HelpFormatter.printOptions`), sorted by name, a line each.
pub fn list(options: &[Opt]) -> String {
    let mut sorted: Vec<&Opt> = options.iter().collect();
    sorted.sort_by_key(|option| option.name.to_lowercase());
    let left = |option: &Opt| format!(" -{}{}", option.name, if option.takes_value { " <arg>" } else { "" });
    let width = sorted.iter().map(|option| left(option).len()).max().unwrap_or(0);
    sorted.iter().map(|option| format!("{:width$}   {}\n", left(option), option.about)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::table;

    fn parsed(line: &str) -> Result<Args, String> {
        let words = crate::shell::words::split(line);
        parse(table::find(&words[0]).unwrap(), &words)
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
                "setquota /a",
                "MissingOptionException: Missing required option: [-n num soft quota, -b bytes soft quota, -N num hard \
                 quota, -B bytes hard quota]",
            ),
        ] {
            assert_eq!(parsed(line).unwrap_err(), format!("org.apache.commons.cli.{said}"), "{line}");
        }
    }
}
