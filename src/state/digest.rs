//! The data digest, version 2 (`DigestCalculator`, `AdHash`): the sum modulo 2^64 of one CRC-32 per node, over path, data
//! and 60 bytes of stat. The part over path and data is kept per node, so that a change of the stat alone (a child comes
//! or goes) does not read the data again. Pure.

use crc32fast::Hasher;

use crate::records::StatPersisted;
use crate::state::path::UNDIGESTED_PREFIX;

/// CRC-32 over a node's path and data; what its digest continues from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Prefix(u32);

impl Prefix {
    /// Of a node. The root's path is empty.
    pub fn of(path: &str, data: Option<&[u8]>) -> Prefix {
        let mut crc = Hasher::new();
        crc.update(path.as_bytes());
        crc.update(data.unwrap_or_default());
        Prefix(crc.finalize())
    }

    /// The node's whole digest.
    pub fn node_digest(self, stat: &StatPersisted) -> u64 {
        let mut bytes = [0u8; 60];
        bytes[0..8].copy_from_slice(&stat.czxid.to_be_bytes());
        bytes[8..16].copy_from_slice(&stat.mzxid.to_be_bytes());
        bytes[16..24].copy_from_slice(&stat.pzxid.to_be_bytes());
        bytes[24..32].copy_from_slice(&stat.ctime.to_be_bytes());
        bytes[32..40].copy_from_slice(&stat.mtime.to_be_bytes());
        bytes[40..44].copy_from_slice(&stat.version.to_be_bytes());
        bytes[44..48].copy_from_slice(&stat.cversion.to_be_bytes());
        bytes[48..52].copy_from_slice(&stat.aversion.to_be_bytes());
        bytes[52..60].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
        let mut crc = Hasher::new_with_initial(self.0);
        crc.update(&bytes);
        u64::from(crc.finalize())
    }
}

/// Whether a node counts at all: what lies below /zookeeper does not.
pub fn counts(path: &str) -> bool {
    !path.starts_with(UNDIGESTED_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of the format description: node, stat bytes in digest order, CRC-32.
    #[test]
    fn node_digests_are_apaches() {
        let root = StatPersisted { pzxid: 4, cversion: 1, ..StatPersisted::default() };
        assert_eq!(Prefix::of("", None).node_digest(&root), 3_084_322_354);
        assert_eq!(Prefix::of("", None).node_digest(&StatPersisted::default()), 68_323_592);
        assert_eq!(Prefix::of("/zookeeper", None).node_digest(&StatPersisted::default()), 1_303_661_912);
        let app = StatPersisted {
            czxid: 4,
            mzxid: 4,
            pzxid: 4,
            ctime: 0x1a203bce96d,
            mtime: 0x1a203bce96d,
            ..StatPersisted::default()
        };
        assert_eq!(Prefix::of("/app", Some(b"hello")).node_digest(&app), 1_389_753_517);
    }
}
