//! Which four-letter words are answered (`FourLetterCommands`). The poller asks before it forwards a word. Pure.

use super::words::Word;

/// The words that `4lw.commands.whitelist` names, and those that are always on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whitelist {
    words: Vec<Word>,
}

impl Whitelist {
    /// From the value of `4lw.commands.whitelist`, if it is set: names with commas between them, `*` for all. `srvr` is
    /// always on, for zkServer.sh; `isro` is with read-only mode, whose clients look for a server by it. What is no word
    /// comes back, to be warned about.
    pub fn parse(text: Option<&str>, read_only_mode: bool) -> (Whitelist, Vec<String>) {
        let mut words = vec![Word::Srvr];
        if read_only_mode {
            words.push(Word::Isro);
        }
        let mut unknown = Vec::new();
        for name in text.unwrap_or("").split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match Word::ALL.iter().find(|word| word.text() == name) {
                Some(word) => words.push(*word),
                None if name == "*" => words.extend(Word::ALL),
                None => unknown.push(name.to_owned()),
            }
        }
        (Whitelist { words }, unknown)
    }

    /// Is this word answered?
    pub fn allows(&self, word: Word) -> bool {
        self.words.contains(&word)
    }
}

/// The answer to a word that is not on the list.
pub fn refusal(word: Word) -> String {
    format!("{} is not executed because it is not in the whitelist.\n", word.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: Option<&str>, read_only_mode: bool) -> Vec<&'static str> {
        let (list, _) = Whitelist::parse(text, read_only_mode);
        Word::ALL.iter().filter(|word| list.allows(**word)).map(|word| word.text()).collect()
    }

    #[test]
    fn srvr_is_always_on_and_isro_with_read_only_mode() {
        assert_eq!(allowed(None, false), ["srvr"]);
        assert_eq!(allowed(Some(""), true), ["srvr", "isro"]);
        assert_eq!(allowed(Some(" ruok ,mntr,, "), false), ["ruok", "srvr", "mntr"]);
    }

    #[test]
    fn a_star_anywhere_means_all() {
        assert_eq!(allowed(Some("*"), false).len(), Word::ALL.len());
        assert_eq!(allowed(Some("stat, *"), false).len(), Word::ALL.len());
        assert_eq!(allowed(Some("s*"), false), ["srvr"]);
    }

    #[test]
    fn what_is_no_word_comes_back() {
        assert_eq!(Whitelist::parse(Some("stat,RUOK,telnet close"), false).1, ["RUOK", "telnet close"]);
    }
}
