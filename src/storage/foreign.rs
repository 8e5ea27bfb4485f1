//! The file that names servers whose histories are known to be others (`foreign-histories`, beside the epochs), so that a
//! start refuses them, too: see `quorum::Foreigners`. Written by `engine::quorum` whenever that changes.
//!
//! It holds a line for each server, `server <id> <from> <to> <epoch> <how that was seen>`, with the zxids at which its history
//! may end and the epoch that it was of, and the Adler-32 of those lines in the last one; it is replaced by way of
//! `foreign-histories.tmp`.

use std::io;

use crate::ids::{ServerId, Zxid};
use crate::quorum::joint::Ends;
use crate::quorum::{Foreign, Foreigners};
use crate::storage::names;
use crate::sys::files::Dir;

/// Makes this what the file says; with nobody in it there is none. Durable on return.
pub fn write(dir: &Dir, foreigners: &Foreigners) -> io::Result<()> {
    if foreigners.is_empty() {
        return dir.remove_durably(names::FOREIGN);
    }
    dir.replace_durably(names::FOREIGN, names::FOREIGN_TMP, text(foreigners).as_bytes())
}

/// Whom the file names. One that cannot be read names nobody: then this server finds out anew, and is not kept from serving.
pub fn read(dir: &Dir) -> Foreigners {
    let found = match dir.read_small(names::FOREIGN) {
        Ok(Some(bytes)) => parse(&bytes).ok_or_else(|| "it was damaged or edited".to_owned()),
        Ok(None) => return Foreigners::new(),
        Err(error) => Err(error.to_string()),
    };
    found.unwrap_or_else(|why| {
        let path = dir.join(names::FOREIGN);
        let path = path.display();
        log::warn!(
            "{path}, which names servers with other histories than this one, is passed over: {why}. Remove it: this server \
             finds them out anew, or hears of them from others that know"
        );
        Foreigners::new()
    })
}

fn text(foreigners: &Foreigners) -> String {
    let mut lines = String::new();
    for (server, Foreign { ends, strange }) in foreigners {
        let strange = strange.as_deref().unwrap_or_default();
        let Ends { zxids, epoch } = ends;
        let (from, to) = (zxids.start().0, zxids.end().0);
        lines.push_str(&format!("server {} {from:x} {to:x} {epoch:x} {strange}\n", server.0));
    }
    format!("{lines}adler32 {:08x}\n", simd_adler32::adler32(&lines.as_bytes()))
}

/// `None`: it is not what [`text`] makes of anything.
fn parse(bytes: &[u8]) -> Option<Foreigners> {
    let mut foreigners = Foreigners::new();
    let zxid = |hex: &str| i64::from_str_radix(hex, 16).ok().map(Zxid);
    for line in std::str::from_utf8(bytes).ok()?.lines().filter_map(|line| line.strip_prefix("server ")) {
        let mut fields = line.splitn(5, ' ');
        let mut next = || fields.next();
        let (server, from, to) = (ServerId(next()?.parse().ok()?), zxid(next()?)?, zxid(next()?)?);
        let ends = Ends { zxids: from..=to, epoch: u32::from_str_radix(next()?, 16).ok()? };
        let strange = next().filter(|what| !what.is_empty()).map(str::to_owned);
        foreigners.insert(server, Foreign { ends, strange });
    }
    (text(&foreigners).as_bytes() == bytes).then_some(foreigners)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_written_is_read_again_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let dir = &Dir::of_host(dir.path());
        assert_eq!(read(dir), Foreigners::new());
        write(dir, &Foreigners::new()).unwrap();
        let ends = (Zxid(0x1_0000_0006)..=Zxid(0x4_ffff_ffff)).into();
        let strange = Foreign { ends, strange: Some("so and so".into()) };
        let foreign = Foreign { ends: Ends { zxids: Zxid(7)..=Zxid(7), epoch: 0x1f }, strange: None };
        let both = Foreigners::from([(ServerId(3), strange), (ServerId(2), foreign)]);
        write(dir, &both).unwrap();
        assert_eq!(read(dir), both);
        let whole = fs::read(dir.join(names::FOREIGN)).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [&whole[..at], &flipped] {
                fs::write(dir.join(names::FOREIGN), bytes).unwrap();
                assert_eq!(read(dir), Foreigners::new(), "{at}");
            }
        }
        write(dir, &Foreigners::new()).unwrap();
        assert!(!dir.join(names::FOREIGN).exists());
    }
}
