//! Arguments as commons-cli takes them apart: options behind one dash, of one letter, which may be joined, or of several
//! (`-remove`); or with a long name behind two; values behind a blank, at once, or behind an equal sign; in any order. Used by
//! `shell` and `scripts`, whose commands follow Apache's word for word; our own commands are clap's. Pure.

use thiserror::Error;

/// One option that a command knows.
#[derive(Debug)]
pub struct Opt {
    /// Behind one dash: mostly a letter.
    pub name: &'static str,
    /// Behind two; empty if it has none.
    pub long: &'static str,
    /// Whether a value follows.
    pub takes_value: bool,
    /// What it does; empty where nobody shows it.
    pub about: &'static str,
}

/// One that nobody shows: its command has a help text of its own.
pub const fn opt(name: &'static str, long: &'static str, takes_value: bool) -> Opt {
    Opt { name, long, takes_value, about: "" }
}

/// What was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    options: Vec<(&'static str, Option<String>)>,
    /// What is no option, in order.
    pub words: Vec<String>,
}

impl Args {
    /// Words as they are, none of which is an option.
    pub fn bare(words: &[String]) -> Args {
        Args { options: Vec::new(), words: words.to_vec() }
    }

    /// Whether the option was given.
    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(given, _)| *given == name)
    }

    /// The option's first value.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(given, _)| *given == name)?.1.as_deref()
    }

    /// The names of the options given, in order.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        self.options.iter().map(|(name, _)| *name)
    }

    /// These options too, and the words of `other`.
    pub fn merged(&self, other: Args) -> Args {
        Args { options: self.options.iter().cloned().chain(other.options).collect(), words: other.words }
    }

    /// A word that must be there: who asks has counted them.
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }
}

/// Arguments that cannot be taken apart, in commons-cli's words.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ArgumentError {
    /// This word.
    #[error("Unrecognized option: {0}")]
    Unrecognized(String),
    /// Of this option.
    #[error("Missing argument for option: {0}")]
    MissingValue(&'static str),
}

/// Takes them apart (`DefaultParser`). Where that fails, what was given up to there comes with the error.
pub fn parse(known: &'static [Opt], words: &[String]) -> Result<Args, (Args, ArgumentError)> {
    let mut args = Args::default();
    match args.take(known, words) {
        Ok(()) => Ok(args),
        Err(error) => Err((args, error)),
    }
}

impl Args {
    fn take(&mut self, known: &'static [Opt], words: &[String]) -> Result<(), ArgumentError> {
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                self.words.extend(words.by_ref().cloned());
            } else if word.len() > 1 && word.starts_with('-') {
                let unknown = || ArgumentError::Unrecognized(word.clone());
                for (option, value) in one_word(known, word).ok_or_else(unknown)? {
                    let waits = option.takes_value && value.is_none();
                    self.options.push((option.name, value));
                    if waits {
                        let next = words.next_if(|next| !is_option(known, next));
                        let value = next.ok_or(ArgumentError::MissingValue(option.name))?;
                        if let Some((_, last)) = self.options.last_mut() {
                            *last = Some(unquoted(value).to_owned());
                        }
                    }
                }
            } else {
                self.words.push(word.clone());
            }
        }
        Ok(())
    }
}

/// The options in one word: `-s`, `-v5`, `-v=5`, `-sw`, `-remove`, `--zxid=5`. None: one of them is not known.
fn one_word(known: &'static [Opt], word: &str) -> Option<Vec<(&'static Opt, Option<String>)>> {
    let by_name = |name: &str| known.iter().find(|option| option.name == name);
    let by_long = |name: &str| known.iter().find(|option| option.long == name && !name.is_empty());
    let name = word.trim_start_matches('-');
    if let Some((name, value)) = name.split_once('=') {
        // A letter behind one dash, or a long name.
        let letter = by_name(name).filter(|_| name.chars().count() == 1 && !word.starts_with("--"));
        let option = letter.or_else(|| by_long(name)).filter(|option| option.takes_value)?;
        return Some(vec![(option, Some(value.to_owned()))]);
    }
    let whole = if word.starts_with("--") { by_long(name) } else { by_name(name).or_else(|| by_long(name)) };
    if whole.is_some() || word.starts_with("--") {
        return whole.map(|option| vec![(option, None)]);
    }
    let mut found = Vec::new();
    for (at, letter) in name.char_indices() {
        let end = at + letter.len_utf8();
        let option = by_name(&name[at..end])?;
        if option.takes_value && end < name.len() {
            found.push((option, Some(unquoted(&name[end..]).to_owned())));
            break;
        }
        found.push((option, None));
    }
    Some(found)
}

/// Whether a word is an option, and no value: a number with a minus sign is none.
fn is_option(known: &[Opt], word: &str) -> bool {
    if word == "--" {
        return true;
    }
    let Some(name) = word.strip_prefix('-').and_then(|name| name.split('=').next()) else { return false };
    let is_known = known.iter().any(|option| {
        option.name == name
            || name.strip_prefix('-').is_some_and(|long| !long.is_empty() && option.long == long)
            || name.chars().next().is_some_and(|first| option.name == first.to_string())
    });
    word.parse::<f64>().is_err() && is_known
}

fn unquoted(word: &str) -> &str {
    word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|rest| !rest.contains('"')).unwrap_or(word)
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

    static KNOWN: [Opt; 4] =
        [opt("r", "recover", false), opt("y", "yes", false), opt("z", "zxid", true), opt("remove", "", true)];

    fn parsed(line: &str) -> Result<Args, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parse(&KNOWN, &words).map_err(|(_, error)| error.to_string())
    }

    #[test]
    fn options_may_be_joined_named_and_anywhere() {
        for line in [
            "-ry f -z 7",
            "f --recover --zxid=7 --yes",
            "-r -z7 -y f",
            "-ryz7 f",
            "-ry -z=7 f",
            "f --zxid 7 -r -y",
            "-recover -yes --zxid 7 f",
        ] {
            let args = parsed(line).unwrap();
            assert!(args.has("r") && args.has("y") && args.value("z") == Some("7"), "{line}");
            assert_eq!(args.words, ["f"], "{line}");
        }
        assert_eq!(parsed("f -z -1").unwrap().value("z"), Some("-1"));
        assert_eq!(parsed("f -z \"a\"").unwrap().value("z"), Some("a"));
        assert_eq!(parsed("f -r -- -q").unwrap().words, ["f", "-q"]);
        assert_eq!(parsed("-remove 3 f").unwrap().value("remove"), Some("3"));
        assert_eq!(parsed("-z --=x f").unwrap().value("z"), Some("--=x"));
        assert_eq!(parsed("f -").unwrap().words, ["f", "-"]);
    }

    #[test]
    fn what_is_not_known_or_not_whole_is_refused() {
        for (line, said) in [
            ("-q", "Unrecognized option: -q"),
            ("-rq", "Unrecognized option: -rq"),
            ("--quiet", "Unrecognized option: --quiet"),
            ("--yes=1", "Unrecognized option: --yes=1"),
            ("-remove=3", "Unrecognized option: -remove=3"),
            ("-ryz=7", "Unrecognized option: -ryz=7"),
            ("-z7=8", "Unrecognized option: -z7=8"),
            ("-5", "Unrecognized option: -5"),
            ("f -z", "Missing argument for option: z"),
            ("-z -r f", "Missing argument for option: z"),
            ("-z -- f", "Missing argument for option: z"),
        ] {
            assert_eq!(parsed(line).unwrap_err(), said, "{line}");
        }
    }
}
