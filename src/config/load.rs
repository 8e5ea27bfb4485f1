//! Text into `Config`: collects what was given and by whom, applies the table, then has `check` judge the whole.
//! Called by `read` and tests. Precedence as in Apache: flags set properties, zoo.cfg overwrites those it can name.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::check;
use super::dynamic;
use super::ensemble::is_member_key;
use super::error::{ConfigError, Origin, Warning};
use super::keys;
use super::kinds::{Home, Key, Verdict};
use super::secret;
use super::settings::{AuthProvider, Config};
use super::syntax::{self, Entry, SyntaxError};

/// What a configuration points to outside itself.
pub trait World {
    /// The bytes of a file; None if there is none.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// The address of a host name that this server is to listen on.
    fn resolve(&self, host: &str) -> Option<IpAddr>;
}

impl Config {
    /// Builds the configuration from the text of `path` (Latin-1, as Apache reads it) and from properties as `-D` gives
    /// them, in order. Warnings are for the log; an error is one line and means exit code 2.
    pub fn load(
        path: &Path,
        text: &[u8],
        command_line: &[(String, String)],
        environment: &[(String, String)],
        world: &dyn World,
    ) -> (Result<Config, ConfigError>, Vec<Warning>) {
        let mut loader = Loader::new(path);
        loader.take_flags(environment, Origin::Environment);
        loader.take_flags(command_line, Origin::CommandLine);
        let loaded = loader.load(text, world);
        (loaded.map(|()| loader.config), loader.warnings)
    }
}

/// What a server decides by where zoo.cfg says nothing: the defaults of the table.
pub fn defaults() -> &'static Config {
    static DEFAULTS: OnceLock<Config> = OnceLock::new();
    struct Nowhere;
    impl World for Nowhere {
        fn read(&self, _: &Path) -> io::Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn resolve(&self, _: &str) -> Option<IpAddr> {
            None
        }
    }
    DEFAULTS.get_or_init(|| {
        let (config, _) = Config::load(Path::new("zoo.cfg"), b"dataDir=/", &[], &[], &Nowhere);
        config.expect("a file that says nothing but where the data are is a good one")
    })
}

/// A value and where it came from.
#[derive(Debug, Clone)]
struct Setting {
    at: Origin,
    /// The key as the operator wrote it.
    shown: String,
    value: String,
}

impl Setting {
    /// The value as the log may have it.
    fn shown_value(&self) -> &str {
        secret::shown(&self.shown, &self.value)
    }
}

pub(super) struct Loader {
    path: PathBuf,
    pub config: Config,
    pub warnings: Vec<Warning>,
    /// server.N, group.G and weight.N of zoo.cfg, values untrimmed.
    pub members: Vec<Entry>,
    /// Keys of the parser in zoo.cfg.
    parsed: Vec<(&'static Key, Setting)>,
    properties: BTreeMap<String, Setting>,
}

/// The entries of zoo.cfg by trimmed key, the last of duplicates.
type File = BTreeMap<String, Entry>;

impl Loader {
    fn load(&mut self, text: &[u8], world: &dyn World) -> Result<(), ConfigError> {
        self.take_file(text)?;
        self.apply()?;
        check::finish(self, world)
    }

    fn new(path: &Path) -> Loader {
        let config = Config { config_path: path.to_path_buf(), ..Config::default() };
        Loader {
            path: path.to_path_buf(),
            config,
            warnings: Vec::new(),
            members: Vec::new(),
            parsed: Vec::new(),
            properties: BTreeMap::new(),
        }
    }

    pub fn warn(&mut self, at: &Origin, what: impl std::fmt::Display) {
        self.warnings.push(Warning::new(at, what));
    }

    /// The whole of zoo.cfg, for what no line can be blamed for.
    pub fn file(&self) -> Origin {
        Origin::File(self.path.clone())
    }

    /// Where a key was given, for rules between keys.
    pub fn origin_of(&self, name: &str) -> Origin {
        let property = format!("zookeeper.{name}");
        let parsed = self.parsed.iter().find(|(row, _)| row.name == name);
        let setting = parsed.map(|(_, s)| s).or_else(|| self.properties.get(&property));
        setting.map_or_else(|| self.file(), |s| s.at.clone())
    }

    fn take_flags(&mut self, flags: &[(String, String)], at: Origin) {
        for (name, value) in flags {
            let name = name.trim();
            if name.starts_with("zookeeper.") && keys::find_property(name).is_none() {
                self.warn_unknown_property(name, &at);
            }
            let setting = Setting { at: at.clone(), shown: format!("-D{name}"), value: value.trim().to_string() };
            self.properties.insert(name.to_string(), setting);
        }
    }

    fn warn_unknown_property(&mut self, property: &str, at: &Origin) {
        let name = property.trim_start_matches("zookeeper.");
        let advice = match keys::find(name) {
            Some(row) if row.home == Home::Bare => format!("the property is called {name}"),
            Some(_) => format!("{name} is read from zoo.cfg only"),
            None => nearest(name),
        };
        self.warn(at, format!("-D{property}: unknown property; {advice}"));
    }

    fn take_file(&mut self, text: &[u8]) -> Result<(), ConfigError> {
        let entries = parse(&self.path, text)?;
        if dynamic::is_cut_short(text, &entries) {
            let what = "the end of the file is missing: its first line says that the last one names the file of the \
                        members. Restore it, or name the zoo.cfg.dynamic file with the greatest version as \
                        dynamicConfigFile in a line at the end; if the members are to stand here, remove the first line";
            return Err(ConfigError::rule(self.file(), what));
        }
        let mut file = File::new();
        for entry in entries {
            let at = Origin::Line(self.path.clone(), entry.line);
            let name = entry.key.trim().to_string();
            let (line, same) = (entry.line, entry.value.clone());
            let Some(before) = file.insert(name.clone(), entry) else {
                continue;
            };
            if before.value != same && line > before.line {
                let what = format!("{name}: overrides line {}", before.line);
                self.warn(&at, what);
            }
        }
        let mut ordered: Vec<(&String, &Entry)> = file.iter().collect();
        ordered.sort_by_key(|(_, entry)| entry.line);
        for (name, entry) in ordered {
            self.take_entry(name, entry, &file);
        }
        Ok(())
    }

    /// Files a line of zoo.cfg under the row that `name` means, which may differ from what was written.
    fn take_entry(&mut self, name: &str, entry: &Entry, file: &File) {
        let at = Origin::Line(self.path.clone(), entry.line);
        let setting =
            Setting { at: at.clone(), shown: entry.key.trim().to_string(), value: entry.value.trim().to_string() };
        if name.is_empty() {
            self.warn(&at, "a line without a key, ignored");
            return;
        }
        if entry.value.contains(" #") || entry.value.contains("\t#") {
            self.warn(
                &at,
                format!("{name}: what follows the # is a part of the value; a comment needs a line of its own"),
            );
        }
        if is_member_key(name) {
            self.members.push(Entry { key: name.to_string(), ..entry.clone() });
            return;
        }
        if let Some(right) = name.strip_prefix("zookeeper.") {
            // At Apache it becomes `zookeeper.zookeeper.X`, which nothing reads. Whoever takes over a file must not
            // get a `forceSync=no` or `skipACL=yes` that never was in effect.
            let written = entry.key.trim();
            self.warn(&at, format!("{written}: ignored, as by Apache; to set it, write {right}, without the prefix"));
            return;
        }
        let property = format!("zookeeper.{name}");
        let Some(row) = keys::find(name) else {
            if keys::find_property(&property).is_none() {
                let what = format!("{name}: unknown key; {}", nearest(name));
                self.warn(&at, format!("{what}; it becomes property {property}"));
            }
            self.properties.insert(property, setting);
            return;
        };
        match row.home {
            Home::Parser | Home::ParserOr(_) => self.parsed.push((row, setting)),
            Home::Prefixed | Home::PrefixedOrBare => {
                self.properties.insert(property, setting);
            }
            Home::Means(right) if file.contains_key(right) => {
                self.warn(&at, format!("{name}: ignored, {right} is given too"));
            }
            Home::Means(right) => self.take_entry(right, entry, file),
            Home::Bare => self.take_bare(row, setting),
        }
    }

    /// A property without prefix: only `-D` sets it in Apache, so that wins where both are given.
    fn take_bare(&mut self, row: &Key, setting: Setting) {
        match self.properties.get(row.name).map(|s| s.value.clone()) {
            None => {
                self.properties.insert(row.name.to_string(), setting);
            }
            Some(flag) if flag != setting.value => {
                let (name, value) = (row.name, setting.shown_value());
                let flag = secret::shown(name, &flag);
                let what = format!("{name}={value}: ignored, -D{name}={flag} is given");
                self.warn(&setting.at, what);
            }
            Some(_) => {}
        }
    }

    /// Defaults first, then every value that was given, through the setters of the table.
    fn apply(&mut self) -> Result<(), ConfigError> {
        for row in keys::TABLE {
            row.apply_default(&mut self.config);
        }
        let mut not_served = Vec::new();
        for (row, setting) in self.effective() {
            self.apply_one(row, &setting)?;
            let provider = AuthProvider::from_java_class(&setting.value).filter(|_| row.name == "authProvider.*");
            let is_served = row.verdict != Verdict::NotServed && provider.is_none_or(AuthProvider::is_served);
            if !is_served && row.asks(&setting.value) {
                not_served.push(setting.shown);
            }
        }
        if !not_served.is_empty() {
            let names = not_served.join(", ");
            self.warn(&self.file(), format!("not served by this version: {names}"));
        }
        let strings = self.properties.iter();
        self.config.properties = strings.map(|(k, s)| (k.clone(), s.value.clone())).collect();
        Ok(())
    }

    /// What counts, in the order of where it was given.
    fn effective(&self) -> Vec<(&'static Key, Setting)> {
        let overruled = |row: &Key| row.properties().iter().any(|p| self.properties.contains_key(p));
        let parsed = self.parsed.iter().filter(|(row, _)| !overruled(row));
        let mut all: Vec<(&'static Key, Setting)> = parsed.cloned().collect();
        for (property, setting) in &self.properties {
            let Some(row) = keys::find_property(property) else {
                continue;
            };
            let second = row.home == Home::PrefixedOrBare && property == row.name;
            if second && self.properties.contains_key(&row.properties()[0]) {
                continue;
            }
            all.push((row, setting.clone()));
        }
        all.sort_by(|a, b| a.1.at.cmp(&b.1.at));
        all
    }

    fn apply_one(&mut self, row: &Key, setting: &Setting) -> Result<(), ConfigError> {
        let Setting { at, shown, value } = setting;
        let shown_value = || setting.shown_value().to_owned();
        let asks = row.asks(value);
        if row.verdict == Verdict::Refused && asks {
            return Err(ConfigError::Refused {
                at: at.clone(),
                key: shown.clone(),
                value: shown_value(),
                why: row.doc.to_string(),
            });
        }
        if let Some(why) = AuthProvider::needed(value).filter(|_| row.name == "authProvider.*") {
            let (at, key, value) = (at.clone(), shown.clone(), value.clone());
            return Err(ConfigError::Refused { at, key, value, why: why.to_owned() });
        }
        let applied = row.apply(&mut self.config, value);
        let warning = applied.map_err(|expected| ConfigError::Value {
            at: at.clone(),
            key: shown.clone(),
            value: shown_value(),
            expected,
        })?;
        if let Some(what) = warning {
            self.warn(at, format!("{shown}={}: {what}", shown_value()));
        }
        if row.verdict == Verdict::NoEffect && asks {
            self.warn(at, format!("{shown}: no effect on this server ({})", row.doc));
        }
        Ok(())
    }
}

/// The entries of a properties file, with its path in the error.
pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Vec<Entry>, ConfigError> {
    syntax::entries(text)
        .map_err(|SyntaxError { line, what }| ConfigError::Syntax { at: Origin::Line(path.to_path_buf(), line), what })
}

fn nearest(name: &str) -> String {
    match keys::nearest(name) {
        Some(known) => format!("the nearest known is {known}"),
        None => "no known one is near it".to_string(),
    }
}
