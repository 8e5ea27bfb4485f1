//! Values that requests, transactions and snapshots share: ACL entries, the stored and the shown `Stat`, and who owns
//! a node. Plain data with its jute form; no rules about what is valid (those are in `state` and `ops`).

use crate::ids::SessionId;
use crate::jute::{JuteError, Reader, Writer, len_i32};

/// Permission bits (`ZooDefs.Perms`).
pub mod perms {
    /// Read data, list children.
    pub const READ: i32 = 1;
    /// Set data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the ACL.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

/// One entry of an access control list. Stored permissions are not validated, as in Apache.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Acl {
    /// Bits of [`perms`].
    pub perms: i32,
    /// `world`, `auth`, `digest`, `ip`, …; null is kept until the rules refuse it.
    pub scheme: Option<String>,
    /// The identity within the scheme.
    pub id: Option<String>,
}

impl Acl {
    /// `scheme:id` with these permissions.
    pub fn new(perms: i32, scheme: &str, id: &str) -> Acl {
        Acl { perms, scheme: Some(scheme.into()), id: Some(id.into()) }
    }

    /// world:anyone:cdrwa, the list of an open node.
    pub fn open() -> Vec<Acl> {
        vec![Acl::new(perms::ALL, "world", "anyone")]
    }

    /// Reads one entry.
    pub fn read(r: &mut Reader<'_>) -> Result<Acl, JuteError> {
        Ok(Acl {
            perms: r.int()?,
            scheme: r.string()?.map(|s| s.into_owned()),
            id: r.string()?.map(|s| s.into_owned()),
        })
    }

    /// Reads a vector of entries; `None` is null.
    pub fn read_list(r: &mut Reader<'_>) -> Result<Option<Vec<Acl>>, JuteError> {
        let Some(count) = r.count()? else { return Ok(None) };
        let mut list = Vec::with_capacity(r.capacity_for(count, 12));
        for _ in 0..count {
            list.push(Acl::read(r)?);
        }
        Ok(Some(list))
    }

    /// Writes a vector of entries.
    pub fn write_list(out: &mut Vec<u8>, list: &[Acl]) {
        out.put_int(len_i32(list.len()));
        for acl in list {
            out.put_int(acl.perms);
            out.put_opt_string(acl.scheme.as_deref());
            out.put_opt_string(acl.id.as_deref());
        }
    }
}

/// What is stored of a node beside its data (`StatPersisted`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatPersisted {
    /// Zxid of the creation.
    pub czxid: i64,
    /// Zxid of the last change of the data.
    pub mzxid: i64,
    /// Wall clock of the creation, ms.
    pub ctime: i64,
    /// Wall clock of the last change of the data, ms.
    pub mtime: i64,
    /// Changes of the data.
    pub version: i32,
    /// Children ever created here (the shown cversion is derived from it).
    pub cversion: i32,
    /// Changes of the ACL.
    pub aversion: i32,
    /// Raw owner: see [`Owner`].
    pub ephemeral_owner: i64,
    /// Zxid of the last creation or deletion of a child.
    pub pzxid: i64,
}

impl StatPersisted {
    /// Reads the 60 bytes of a snapshot.
    pub fn read(r: &mut Reader<'_>) -> Result<StatPersisted, JuteError> {
        Ok(StatPersisted {
            czxid: r.long()?,
            mzxid: r.long()?,
            ctime: r.long()?,
            mtime: r.long()?,
            version: r.int()?,
            cversion: r.int()?,
            aversion: r.int()?,
            ephemeral_owner: r.long()?,
            pzxid: r.long()?,
        })
    }

    /// Writes the 60 bytes of a snapshot.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_long(self.czxid);
        out.put_long(self.mzxid);
        out.put_long(self.ctime);
        out.put_long(self.mtime);
        out.put_int(self.version);
        out.put_int(self.cversion);
        out.put_int(self.aversion);
        out.put_long(self.ephemeral_owner);
        out.put_long(self.pzxid);
    }

    /// What a client sees, given what follows from the node itself.
    pub fn shown(&self, data_length: usize, num_children: u32, owner: Owner) -> Stat {
        let children = num_children as i32;
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(children),
            aversion: self.aversion,
            ephemeral_owner: match owner {
                Owner::Session(id) => id.0,
                Owner::None | Owner::Container | Owner::Ttl { .. } => 0,
            },
            data_length: len_i32(data_length),
            num_children: children,
            pzxid: self.pzxid,
        }
    }
}

/// A node's `Stat` as clients see it: 68 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stat {
    /// See [`StatPersisted`]; so are all that share its names.
    pub czxid: i64,
    /// Zxid of the last change of the data.
    pub mzxid: i64,
    /// Wall clock of the creation, ms.
    pub ctime: i64,
    /// Wall clock of the last change of the data, ms.
    pub mtime: i64,
    /// Changes of the data.
    pub version: i32,
    /// Creations plus deletions of children.
    pub cversion: i32,
    /// Changes of the ACL.
    pub aversion: i32,
    /// The owning session of an ephemeral, else 0.
    pub ephemeral_owner: i64,
    /// Bytes of data; 0 for null.
    pub data_length: i32,
    /// Direct children.
    pub num_children: i32,
    /// Zxid of the last creation or deletion of a child.
    pub pzxid: i64,
}

impl Stat {
    /// Reads the 68 bytes of a reply.
    pub fn read(r: &mut Reader<'_>) -> Result<Stat, JuteError> {
        Ok(Stat {
            czxid: r.long()?,
            mzxid: r.long()?,
            ctime: r.long()?,
            mtime: r.long()?,
            version: r.int()?,
            cversion: r.int()?,
            aversion: r.int()?,
            ephemeral_owner: r.long()?,
            data_length: r.int()?,
            num_children: r.int()?,
            pzxid: r.long()?,
        })
    }

    /// Writes the 68 bytes of a reply.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_long(self.czxid);
        out.put_long(self.mzxid);
        out.put_long(self.ctime);
        out.put_long(self.mtime);
        out.put_int(self.version);
        out.put_int(self.cversion);
        out.put_int(self.aversion);
        out.put_long(self.ephemeral_owner);
        out.put_int(self.data_length);
        out.put_int(self.num_children);
        out.put_long(self.pzxid);
    }
}

/// Who keeps a node alive, decoded from the raw owner (`EphemeralType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Nobody: a persistent node.
    None,
    /// The session: gone when it ends.
    Session(SessionId),
    /// Gone when its last child is.
    Container,
    /// Gone when it has no children and was not changed for this long.
    Ttl {
        /// Time to live, ms.
        ttl_ms: i64,
    },
}

/// The raw owner of a container.
pub const CONTAINER_OWNER: i64 = i64::MIN;
/// Top byte of the raw owner of an extended type; the two bytes below are the feature (0: TTL).
const EXTENDED_MASK: i64 = 0xff00_0000_0000_0000_u64 as i64;
/// The feature bits; only 0 (TTL) is known.
const FEATURE_MASK: i64 = 0x00ff_ff00_0000_0000;
/// Largest ttl, ms: 40 bits.
pub const TTL_MS_MAX: i64 = (1 << 40) - 1;
/// The same in 3.5.3: 60 bits.
const TTL_353_MS_MAX: i64 = (1 << 60) - 1;

/// How raw owners are read; from `zookeeper.extendedTypesEnabled` and `zookeeper.emulate353TTLNodes`. Nothing but the key
/// tells a TTL node from an ephemeral: the sessions of a server with the id 255 look the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnerRules {
    /// There are TTL nodes, and no session id starts with 0xff.
    pub extended_types: bool,
    /// With extended types: any other negative owner is a TTL node in the format of 3.5.3.
    pub emulate_353: bool,
}

/// A raw owner whose extended feature is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("ephemeralOwner 0x{0:x} has an unknown extended feature")]
pub struct BadOwner(pub i64);

impl OwnerRules {
    /// Decodes a raw owner.
    pub fn decode(self, raw: i64) -> Result<Owner, BadOwner> {
        match raw {
            0 => Ok(Owner::None),
            CONTAINER_OWNER => Ok(Owner::Container),
            _ if !self.extended_types => Ok(Owner::Session(SessionId(raw))),
            _ if has_ttl_shape(raw) => Ok(Owner::Ttl { ttl_ms: raw & TTL_MS_MAX }),
            _ if self.emulate_353 && raw < 0 => Ok(Owner::Ttl { ttl_ms: raw & TTL_353_MS_MAX }),
            _ if raw & EXTENDED_MASK == EXTENDED_MASK => Err(BadOwner(raw)),
            _ => Ok(Owner::Session(SessionId(raw))),
        }
    }

    /// Whether what is read as a session may be the owner of a TTL node, from the time before the key was taken away.
    pub fn may_be_ttl(self, session: SessionId) -> bool {
        !self.extended_types && has_ttl_shape(session.0)
    }
}

/// The top byte says extended, the feature is TTL.
fn has_ttl_shape(raw: i64) -> bool {
    raw & (EXTENDED_MASK | FEATURE_MASK) == EXTENDED_MASK
}

impl Owner {
    /// The raw form that is stored and digested.
    pub fn raw(self) -> i64 {
        match self {
            Owner::None => 0,
            Owner::Session(id) => id.0,
            Owner::Container => CONTAINER_OWNER,
            Owner::Ttl { ttl_ms } => EXTENDED_MASK | ttl_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENDED: OwnerRules = OwnerRules { extended_types: true, emulate_353: false };

    #[test]
    fn owners_survive_their_raw_form() {
        for owner in [
            Owner::None,
            Owner::Session(SessionId(0x100001f6b130000)),
            Owner::Container,
            Owner::Ttl { ttl_ms: 1 << 39 },
        ] {
            assert_eq!(EXTENDED.decode(owner.raw()), Ok(owner));
        }
    }

    #[test]
    fn an_unknown_extended_feature_is_an_error() {
        let raw = 0xff01_0000_0000_0005_u64 as i64;
        assert_eq!(EXTENDED.decode(raw), Err(BadOwner(raw)));
    }

    #[test]
    fn the_keys_decide_what_a_negative_owner_is() {
        let (off, on) = (OwnerRules::default(), EXTENDED);
        let (emulated, alone) = (OwnerRules { emulate_353: true, ..on }, OwnerRules { emulate_353: true, ..off });
        let session = |raw: i64| Ok(Owner::Session(SessionId(raw)));
        let ttl = |ttl_ms| Ok(Owner::Ttl { ttl_ms });
        // Of a server with the id 255: up for less than five hours, and for longer.
        let (early, late) = (0xff00_0012_3456_0001_u64 as i64, 0xff01_9c66_d000_0001_u64 as i64);
        let in_353 = i64::MIN | 5000;
        for (raw, expected) in [
            (early, [session(early), ttl(0x12_3456_0001), ttl(0x12_3456_0001), session(early)]),
            (late, [session(late), Err(BadOwner(late)), ttl(0x0f01_9c66_d000_0001), session(late)]),
            (in_353, [session(in_353), session(in_353), ttl(5000), session(in_353)]),
            (i64::MIN, [Ok(Owner::Container); 4]),
            (0, [Ok(Owner::None); 4]),
            (7, [session(7); 4]),
        ] {
            assert_eq!([off, on, emulated, alone].map(|rules| rules.decode(raw)), expected, "{raw:x}");
        }
        assert!(off.may_be_ttl(SessionId(early)) && !off.may_be_ttl(SessionId(late)));
        assert!(!on.may_be_ttl(SessionId(early)));
    }

    #[test]
    fn a_fresh_root_shows_cversion_minus_one() {
        assert_eq!(StatPersisted::default().shown(0, 1, Owner::None).cversion, -1);
    }
}
