//! Arguments as commons-cli reads them: single letters that may be joined, long names, values behind a blank or an equal
//! sign, anything else for the tool. Used by the tools that were written with it.

use std::collections::HashMap;

/// One option that a tool knows.
#[derive(Clone, Copy)]
pub struct Opt {
    /// `-x`
    pub short: char,
    /// `--name`
    pub long: &'static str,
    /// Whether a value follows.
    pub takes_value: bool,
}

/// A flag, or with `true` an option that takes a value.
pub const fn opt(short: char, long: &'static str, takes_value: bool) -> Opt {
    Opt { short, long, takes_value }
}

/// What was given.
#[derive(Debug, Default)]
pub struct Given {
    values: HashMap<char, String>,
    /// What is no option, in order.
    pub rest: Vec<String>,
}

impl Given {
    /// Whether the option was given.
    pub fn has(&self, short: char) -> bool {
        self.values.contains_key(&short)
    }

    /// Its value.
    pub fn value(&self, short: char) -> Option<&str> {
        self.values.get(&short).map(String::as_str)
    }
}

/// Takes arguments apart; an error is commons-cli's message.
pub fn parse(known: &[Opt], args: &[String]) -> Result<Given, String> {
    let mut given = Given::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let unknown = || format!("Unrecognized option: {arg}");
        if arg == "--" {
            given.rest.extend(args.by_ref().cloned());
        } else if let Some(name) = arg.strip_prefix("--") {
            let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
            let option = known.iter().find(|option| option.long == name).ok_or_else(unknown)?;
            let value = match value {
                Some(_) if !option.takes_value => return Err(unknown()),
                Some(value) => value.to_owned(),
                None => next_value(option, &mut args)?,
            };
            given.values.insert(option.short, value);
        } else if arg.len() > 1 && arg.starts_with('-') {
            for (at, letter) in arg[1..].char_indices() {
                let option = known.iter().find(|option| option.short == letter).ok_or_else(unknown)?;
                let joined = &arg[1 + at + letter.len_utf8()..];
                if option.takes_value && !joined.is_empty() {
                    let value = joined.strip_prefix('=').unwrap_or(joined);
                    given.values.insert(letter, value.to_owned());
                    break;
                }
                given.values.insert(letter, next_value(option, &mut args)?);
            }
        } else {
            given.rest.push(arg.clone());
        }
    }
    Ok(given)
}

fn next_value<'a>(option: &Opt, args: &mut impl Iterator<Item = &'a String>) -> Result<String, String> {
    if !option.takes_value {
        return Ok(String::new());
    }
    args.next().cloned().ok_or_else(|| format!("Missing argument for option: {}", option.short))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Opt; 3] = [opt('r', "recover", false), opt('y', "yes", false), opt('z', "zxid", true)];

    fn given(args: &[&str]) -> Result<Given, String> {
        parse(&KNOWN, &args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_may_be_joined_named_and_anywhere() {
        for args in [&["-ry", "f", "-z", "7"][..], &["f", "--recover", "--zxid=7", "--yes"], &["-r", "-z7", "-y", "f"]]
        {
            let given = given(args).unwrap();
            assert!(given.has('r') && given.has('y') && given.value('z') == Some("7"), "{args:?}");
            assert_eq!(given.rest, ["f"]);
        }
    }

    #[test]
    fn what_is_not_known_or_not_whole_is_refused() {
        assert_eq!(given(&["-q"]).unwrap_err(), "Unrecognized option: -q");
        assert_eq!(given(&["--quiet"]).unwrap_err(), "Unrecognized option: --quiet");
        assert_eq!(given(&["f", "-z"]).unwrap_err(), "Missing argument for option: z");
    }
}
