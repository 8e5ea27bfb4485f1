//! TABLE of four-letter words: text, who answers, and when. Adding one is adding a row. The poller recognises words
//! ([`Word::from_bytes`]) and knows which are allowed; the pipeline's shell calls [`answer`].

use super::commands::NOT_SERVING;
use super::listed::{self, Listed};
use super::{connections, mntr, server, settings, state};
use crate::config::MetricsProvider;
use crate::ids::Now;
use crate::metrics::ServerStats;

pub use super::view::{ConnView, Host, Mode, PollerView, ServerView, SessionView};

/// When a word is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// Always.
    Always,
    /// Only by a server that serves.
    Serving,
    /// The same, and the refusal has no newline: a slip of Apache's that has become its format.
    ServingBare,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $when:ident, $answer:path $(, lists $($list:ident)+)?;)*) => {
        /// The four-letter words.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Word { $($(#[$doc])* $name,)* }

        impl Word {
            /// Every word.
            pub const ALL: &'static [Word] = &[$(Word::$name,)*];

            /// Its text.
            pub fn text(self) -> &'static str {
                match self { $(Word::$name => $text,)* }
            }

            fn when(self) -> When {
                match self { $(Word::$name => When::$when,)* }
            }

            fn answer(self) -> fn(&QueryContext) -> String {
                match self { $(Word::$name => $answer,)* }
            }

            /// What it lists that may be long.
            fn lists(self) -> &'static [Listed] {
                match self { $(Word::$name => &[$($(listed::$list),+)?],)* }
            }
        }
    };
}

words! {
    /// The configuration in force.
    Conf = "conf", Serving, settings::conf;
    /// Connections in full.
    Cons = "cons", Serving, connections::cons, lists CONNECTIONS;
    /// Reset connection statistics.
    Crst = "crst", Serving, connections::crst;
    /// Sizes of the directories.
    Dirs = "dirs", Serving, settings::dirs;
    /// Sessions and ephemerals.
    Dump = "dump", Serving, state::dump, lists SESSIONS EPHEMERALS CONNECTIONS;
    /// The environment.
    Envi = "envi", Always, settings::envi;
    /// Trace mask.
    Gtmk = "gtmk", Always, server::gtmk;
    /// Are you ok?
    Ruok = "ruok", Always, server::ruok;
    /// Set the trace mask.
    Stmk = "stmk", Always, server::stmk;
    /// Reset server statistics.
    Srst = "srst", Serving, server::srst;
    /// Server statistics.
    Srvr = "srvr", Serving, server::srvr;
    /// Server statistics and connections in brief.
    Stat = "stat", Serving, server::stat, lists CONNECTIONS;
    /// Watches by session.
    Wchc = "wchc", Serving, state::wchc, lists WATCHES;
    /// Watches by path.
    Wchp = "wchp", Serving, state::wchp, lists WATCHES;
    /// Watches in numbers.
    Wchs = "wchs", Serving, state::wchs;
    /// Every metric.
    Mntr = "mntr", Serving, mntr::mntr;
    /// Read-only?
    Isro = "isro", Always, server::isro;
    /// Digests of the past.
    Hash = "hash", ServingBare, state::hash;
}

impl Word {
    /// The word that these four bytes are.
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Word> {
        Word::ALL.iter().copied().find(|word| word.text().as_bytes() == bytes)
    }
}

/// All that an answer to a word, or to a query of the admin server, is made from.
#[derive(Clone, Copy)]
pub struct QueryContext<'a> {
    /// The time.
    pub now: Now,
    /// The poller's part.
    pub poller: &'a PollerView,
    /// The pipeline's part.
    pub server: &'a dyn ServerView,
    /// The machine's part.
    pub host: &'a dyn Host,
    /// `metrics::server_stats()`.
    pub stats: ServerStats,
    /// In which form metrics are shown.
    pub provider: MetricsProvider,
}

/// The text that answers a word; the connection closes behind it. `srst` resets the metrics and `stmk` sets the mask;
/// `crst` only says so: the poller, who owns what it resets, does that when the word comes in. `stmk` without its
/// argument gives nothing, and the connection closes without an answer. Behind lists that were cut stands what is missing.
pub fn answer(word: Word, context: &QueryContext) -> String {
    match word.when() {
        When::Serving if context.server.mode() == Mode::NotServing => format!("{NOT_SERVING}\n"),
        When::ServingBare if context.server.mode() == Mode::NotServing => NOT_SERVING.to_owned(),
        When::Always | When::Serving | When::ServingBare => {
            let mut out = word.answer()(context);
            word.lists().iter().for_each(|listed| listed.push_left_out(&mut out, context));
            out
        }
    }
}
