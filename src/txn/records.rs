//! Bodies of the transactions that have more than a field or two, as logged and as proposed. Used by `txn` alone; other
//! modules see the structs through it.

use crate::jute::{JuteError, Reader, Writer};
use crate::records::{Acl, Owner};
use crate::txn::kind;

/// Which kind of node a create makes. The session of an ephemeral is the header's, so it is not in the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateOwner {
    /// A persistent node.
    None,
    /// An ephemeral of the header's session.
    Session,
    /// A container.
    Container,
    /// A TTL node.
    Ttl {
        /// Time to live, ms.
        ttl_ms: i64,
    },
}

impl CreateOwner {
    /// The node's owner, given whose transaction it is.
    pub fn owner(self, session: crate::ids::SessionId) -> Owner {
        match self {
            CreateOwner::None => Owner::None,
            CreateOwner::Session => Owner::Session(session),
            CreateOwner::Container => Owner::Container,
            CreateOwner::Ttl { ttl_ms } => Owner::Ttl { ttl_ms },
        }
    }

    /// Forgets the session.
    pub fn from_owner(owner: Owner) -> CreateOwner {
        match owner {
            Owner::None => CreateOwner::None,
            Owner::Session(_) => CreateOwner::Session,
            Owner::Container => CreateOwner::Container,
            Owner::Ttl { ttl_ms } => CreateOwner::Ttl { ttl_ms },
        }
    }
}

fn acl_bytes(list: &[Acl]) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    list.iter().map(|acl| 12 + text(&acl.scheme) + text(&acl.id)).sum()
}

/// A node is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTxn {
    /// Final path, suffix included.
    pub path: String,
    /// Data; null is kept.
    pub data: Option<Vec<u8>>,
    /// ACL, already expanded.
    pub acl: Vec<Acl>,
    /// Which kind of node.
    pub owner: CreateOwner,
    /// A create2 outside a multi: a follower answers its client with what the type says, and so must know. Inside a multi
    /// it is a plain create: 3.8.0 drops the rest of a multi behind a create2.
    pub with_stat: bool,
    /// The parent's creation counter after this create; -1 in old records means "one more".
    pub parent_cversion: i32,
}

impl CreateTxn {
    /// The type number: 1 or 15 for plain and ephemeral, 19, 21.
    pub(super) fn kind(&self) -> i32 {
        match self.owner {
            CreateOwner::None | CreateOwner::Session if self.with_stat => kind::CREATE2,
            CreateOwner::None | CreateOwner::Session => kind::CREATE,
            CreateOwner::Container => kind::CREATE_CONTAINER,
            CreateOwner::Ttl { .. } => kind::CREATE_TTL,
        }
    }

    pub(super) fn size_hint(&self) -> usize {
        32 + self.path.len() + self.data.as_ref().map_or(0, Vec::len) + acl_bytes(&self.acl)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_string(&self.path);
        out.put_buffer(self.data.as_deref());
        Acl::write_list(out, &self.acl);
        match self.owner {
            CreateOwner::None => out.put_bool(false),
            CreateOwner::Session => out.put_bool(true),
            CreateOwner::Container | CreateOwner::Ttl { .. } => {}
        }
        out.put_int(self.parent_cversion);
        if let CreateOwner::Ttl { ttl_ms } = self.owner {
            out.put_long(ttl_ms);
        }
    }

    pub(super) fn read(kind_number: i32, r: &mut Reader<'_>) -> Result<CreateTxn, JuteError> {
        let path = r.required_string()?.into_owned();
        let data = r.buffer()?.map(<[u8]>::to_vec);
        let acl = Acl::read_list(r)?.unwrap_or_default();
        let mut owner = match kind_number {
            kind::CREATE_CONTAINER => CreateOwner::Container,
            kind::CREATE_TTL => CreateOwner::Ttl { ttl_ms: 0 },
            _ if r.bool()? => CreateOwner::Session,
            _ => CreateOwner::None,
        };
        // CreateTxnV0 of the 3.3 format ends here; only the plain kinds existed then.
        let plain = matches!(owner, CreateOwner::None | CreateOwner::Session);
        let parent_cversion = match r.int() {
            Err(JuteError::Short { .. }) if plain => -1,
            other => other?,
        };
        if let CreateOwner::Ttl { ttl_ms } = &mut owner {
            *ttl_ms = r.long()?;
        }
        Ok(CreateTxn { path, data, acl, owner, with_stat: kind_number == kind::CREATE2, parent_cversion })
    }
}

/// A node's data is replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetDataTxn {
    /// The node.
    pub path: String,
    /// Data; null is kept.
    pub data: Option<Vec<u8>>,
    /// Version after the change.
    pub version: i32,
}

impl SetDataTxn {
    pub(super) fn size_hint(&self) -> usize {
        16 + self.path.len() + self.data.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_string(&self.path);
        out.put_buffer(self.data.as_deref());
        out.put_int(self.version);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<SetDataTxn, JuteError> {
        Ok(SetDataTxn {
            path: r.required_string()?.into_owned(),
            data: r.buffer()?.map(<[u8]>::to_vec),
            version: r.int()?,
        })
    }
}

/// A node's ACL is replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAclTxn {
    /// The node.
    pub path: String,
    /// ACL, already expanded.
    pub acl: Vec<Acl>,
    /// Aversion after the change.
    pub version: i32,
}

impl SetAclTxn {
    pub(super) fn size_hint(&self) -> usize {
        16 + self.path.len() + acl_bytes(&self.acl)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_string(&self.path);
        Acl::write_list(out, &self.acl);
        out.put_int(self.version);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<SetAclTxn, JuteError> {
        Ok(SetAclTxn {
            path: r.required_string()?.into_owned(),
            acl: Acl::read_list(r)?.unwrap_or_default(),
            version: r.int()?,
        })
    }
}

/// A version was checked, inside a multi.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckVersionTxn {
    /// The node.
    pub path: String,
    /// The node's version plus one, as Apache logs it.
    pub version: i32,
}

impl CheckVersionTxn {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_string(&self.path);
        out.put_int(self.version);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<CheckVersionTxn, JuteError> {
        Ok(CheckVersionTxn { path: r.required_string()?.into_owned(), version: r.int()? })
    }
}
