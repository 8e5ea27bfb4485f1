//! What a row of the key table is made of: where Apache reads the key, what its value must look like, what we do with it.
//! Called by `config::keys` (which holds the rows) and `config::load` (which applies them); pure.

use std::fmt;
use std::path::PathBuf;

use super::settings::Config;

/// What this server does with a key that is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Does what it does in Apache.
    Honoured,
    /// Does the equivalent, or works here where Apache documents it and ignores it.
    Mapped,
    /// Accepted with a warning: it steers something this server does not have.
    NoEffect,
    /// Checked and kept, reported as not served by this version.
    NotServed,
    /// Any value but the default stops the start, since ignoring it would be unsafe.
    Refused,
}

/// Where Apache looks for the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// `QuorumPeerConfig` itself: zoo.cfg only, strict about its form.
    Parser,
    /// As `Parser`, and a system property that wins.
    ParserOr(&'static str),
    /// System property `zookeeper.` + name; zoo.cfg sets it, over any `-D`.
    Prefixed,
    /// As `Prefixed`, and the name without the prefix if that is unset.
    PrefixedOrBare,
    /// System property of the very name: Apache ignores it in zoo.cfg, we take it there unless `-D` gives it.
    Bare,
    /// A title in Apache's documentation that is read nowhere; means the key named here.
    Means(&'static str),
}

/// One key: a row of `keys::TABLE`.
pub struct Key {
    /// As written in zoo.cfg; a final `*` stands for any ending.
    pub name: &'static str,
    pub home: Home,
    pub verdict: Verdict,
    /// What it steers, in one line.
    pub doc: &'static str,
    pub kind: Kind,
    /// As text, through the same setter; empty for none.
    pub default: &'static str,
    pub unit: &'static str,
    outside: Outside,
    expected: &'static str,
}

/// The form of a value, and where a good one goes.
pub enum Kind {
    /// `true` or `false`, any case.
    Flag(fn(&mut Config, bool)),
    /// The exact words for on and off.
    Words([&'static str; 2], fn(&mut Config, bool)),
    /// Bounds included. Java's int and long differ in their widest bounds only.
    Whole(i64, i64, fn(&mut Config, i64)),
    Real(f64, f64, fn(&mut Config, f64)),
    Path(fn(&mut Config, PathBuf)),
    /// The setter says whether the text is one that it knows.
    Text(fn(&mut Config, &str) -> bool),
}

/// What becomes of a number out of bounds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outside {
    Refuse,
    /// A warning, and the nearest bound.
    Nearest,
    /// A warning, and the default; so for text that is no number.
    Default,
    /// A warning, and it is passed over.
    Nothing,
}

/// For values that are only checked and kept among the properties.
pub fn keep<T>(_: &mut Config, _: T) {}

/// The same for text.
pub fn keep_text(_: &mut Config, _: &str) -> bool {
    true
}

/// The start of a row; `kind` and `default` follow.
pub const fn key(name: &'static str, home: Home, verdict: Verdict, doc: &'static str) -> Key {
    Key {
        name,
        home,
        verdict,
        doc,
        kind: Kind::Text(keep_text),
        default: "",
        unit: "",
        outside: Outside::Refuse,
        expected: "",
    }
}

impl Key {
    pub const fn flag(mut self, set: fn(&mut Config, bool)) -> Key {
        self.kind = Kind::Flag(set);
        self
    }

    pub const fn words(mut self, words: [&'static str; 2], set: fn(&mut Config, bool)) -> Key {
        self.kind = Kind::Words(words, set);
        self
    }

    pub const fn whole(mut self, bounds: (i64, i64), set: fn(&mut Config, i64)) -> Key {
        self.kind = Kind::Whole(bounds.0, bounds.1, set);
        self
    }

    pub const fn real(mut self, min: f64, max: f64, set: fn(&mut Config, f64)) -> Key {
        self.kind = Kind::Real(min, max, set);
        self
    }

    pub const fn path(mut self, set: fn(&mut Config, PathBuf)) -> Key {
        self.kind = Kind::Path(set);
        self
    }

    pub const fn text(mut self, set: fn(&mut Config, &str) -> bool) -> Key {
        self.kind = Kind::Text(set);
        self
    }

    pub const fn default(mut self, value: &'static str) -> Key {
        self.default = value;
        self
    }

    pub const fn unit(mut self, unit: &'static str) -> Key {
        self.unit = unit;
        self
    }

    /// Words for the error line, where the form alone does not say it.
    pub const fn expected(mut self, words: &'static str) -> Key {
        self.expected = words;
        self
    }

    pub const fn or_nearest(mut self) -> Key {
        self.outside = Outside::Nearest;
        self
    }

    pub const fn or_nothing(mut self) -> Key {
        self.outside = Outside::Nothing;
        self
    }

    pub const fn or_default(mut self) -> Key {
        self.outside = Outside::Default;
        self
    }

    /// The system properties that give this key a value, the first that is set winning. Empty for `Parser`.
    pub fn properties(&self) -> Vec<String> {
        match self.home {
            Home::Parser | Home::Means(_) => Vec::new(),
            Home::ParserOr(property) => vec![property.to_string()],
            Home::Prefixed => vec![format!("zookeeper.{}", self.name)],
            Home::PrefixedOrBare => vec![format!("zookeeper.{}", self.name), self.name.to_string()],
            Home::Bare => vec![self.name.to_string()],
        }
    }

    /// Whether a row's name, or its family, covers this key.
    pub fn covers(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(family) => name.starts_with(family),
            None => name == self.name,
        }
    }

    /// Whether the value wants something that the default does not give.
    pub fn asks(&self, value: &str) -> bool {
        let off = matches!(self.kind, Kind::Flag(_) | Kind::Words(..)) && self.is_off(value);
        !off && !value.eq_ignore_ascii_case(self.default)
    }

    fn is_off(&self, value: &str) -> bool {
        match self.kind {
            Kind::Words([_, off], _) => value == off,
            _ => !value.eq_ignore_ascii_case("true"),
        }
    }

    /// Parses and sets. `Ok` may carry a warning on what was made of the value; `Err` says what was expected.
    pub fn apply(&self, config: &mut Config, value: &str) -> Result<Option<String>, String> {
        match self.kind {
            Kind::Flag(set) => self.apply_flag(config, value, set),
            Kind::Words(words, set) => Ok(self.apply_words(config, value, words, set)),
            Kind::Whole(min, max, set) => match self.parse_whole(value) {
                Some(n) if (min..=max).contains(&n) => put(set, config, n),
                Some(n) if self.outside == Outside::Nearest => {
                    let nearest = n.clamp(min, max);
                    set(config, nearest);
                    Ok(Some(format!("expected {self}, taken as {nearest}")))
                }
                _ => self.fall_back(config, value),
            },
            Kind::Real(min, max, set) => match value.parse::<f64>() {
                Ok(x) if (min..=max).contains(&x) => put(set, config, x),
                _ => self.fall_back(config, value),
            },
            Kind::Path(_) if value.is_empty() => Err(self.to_string()),
            Kind::Path(set) => put(set, config, PathBuf::from(value)),
            Kind::Text(set) if set(config, value) => Ok(None),
            Kind::Text(_) => self.fall_back(config, value),
        }
    }

    /// The parser knows two words (`parseBoolean`); a property is off unless it is true (`Boolean.getBoolean`).
    fn apply_flag(
        &self,
        config: &mut Config,
        value: &str,
        set: fn(&mut Config, bool),
    ) -> Result<Option<String>, String> {
        let on = value.eq_ignore_ascii_case("true");
        if !on && !value.eq_ignore_ascii_case("false") {
            if matches!(self.home, Home::Parser | Home::ParserOr(_)) {
                return Err(self.to_string());
            }
            set(config, false);
            return Ok(Some(format!("expected {self}, taken as false")));
        }
        put(set, config, on)
    }

    fn apply_words(
        &self,
        config: &mut Config,
        value: &str,
        [on, off]: [&str; 2],
        set: fn(&mut Config, bool),
    ) -> Option<String> {
        if value == on || value == off {
            set(config, value == on);
            return None;
        }
        set(config, self.default == on);
        Some(format!("expected {self}, taken as {}", self.default))
    }

    fn fall_back(&self, config: &mut Config, value: &str) -> Result<Option<String>, String> {
        if self.outside == Outside::Nothing {
            return Ok(Some(format!("expected {self}, passed over")));
        }
        // Integer.getInteger takes an empty property for an unset one.
        let unset = value.is_empty() && !matches!(self.home, Home::Parser | Home::ParserOr(_));
        if !unset && self.outside != Outside::Default {
            return Err(self.complaint(value));
        }
        self.apply_default(config);
        let taken = if self.default.is_empty() { "the default" } else { self.default };
        Ok(Some(format!("expected {self}, taken as {taken}")))
    }

    /// Gives the setter the default; a row without one leaves the field as it is.
    pub fn apply_default(&self, config: &mut Config) {
        if self.default.is_empty() || matches!(self.home, Home::Means(_)) {
            return;
        }
        let applied = self.apply(config, self.default);
        assert_eq!(applied, Ok(None), "the default of {} is good", self.name);
    }

    /// Decimal for the parser (`Integer.parseInt`); properties also know hexadecimal and octal (`Integer.decode`).
    fn parse_whole(&self, value: &str) -> Option<i64> {
        if matches!(self.home, Home::Parser | Home::ParserOr(_)) {
            return value.parse().ok();
        }
        let (negative, digits) = match value.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, value.strip_prefix('+').unwrap_or(value)),
        };
        let hex = ["0x", "0X", "#"].iter().find_map(|p| digits.strip_prefix(p));
        let octal = digits.strip_prefix('0').filter(|rest| !rest.is_empty());
        let (digits, radix) = match (hex, octal) {
            (Some(digits), _) => (digits, 16),
            (None, Some(digits)) => (digits, 8),
            (None, None) => (digits, 10),
        };
        if digits.starts_with(['+', '-']) {
            return None;
        }
        let n = i64::from_str_radix(digits, radix).ok()?;
        Some(if negative { -n } else { n })
    }
}

/// What a good value is, in words: `a whole number of milliseconds, at least 1`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.expected.is_empty() {
            return f.write_str(self.expected);
        }
        match self.kind {
            Kind::Flag(_) => f.write_str("true or false"),
            Kind::Words([on, off], _) => write!(f, "{on} or {off}"),
            Kind::Whole(min, max, _) => {
                write!(f, "a whole number{}{}", self.of(), bounds(min, max))
            }
            Kind::Real(min, max, _) => write!(f, "a number between {min} and {max}"),
            Kind::Path(_) => f.write_str("a path"),
            Kind::Text(_) => f.write_str("text"),
        }
    }
}

impl Key {
    /// What was expected, with the bound that this value breaks.
    fn complaint(&self, value: &str) -> String {
        match self.kind {
            Kind::Whole(_, max, _) if self.expected.is_empty() && self.parse_whole(value).is_some_and(|n| n > max) => {
                format!("a whole number{}, at most {max}", self.of())
            }
            _ => self.to_string(),
        }
    }

    fn of(&self) -> String {
        match self.unit {
            "" => String::new(),
            unit => format!(" of {unit}"),
        }
    }
}

/// The widest bounds of Java's int and long go without saying.
fn bounds(min: i64, max: i64) -> String {
    let from = (min > i64::from(i32::MIN)).then_some(min);
    let to = (max < i64::from(i32::MAX)).then_some(max);
    match (from, to) {
        (Some(min), Some(max)) => format!(" between {min} and {max}"),
        (Some(min), None) => format!(", at least {min}"),
        (None, Some(max)) => format!(", at most {max}"),
        (None, None) => String::new(),
    }
}

/// A value that needs no remark.
fn put<T>(set: fn(&mut Config, T), config: &mut Config, value: T) -> Result<Option<String>, String> {
    set(config, value);
    Ok(None)
}
