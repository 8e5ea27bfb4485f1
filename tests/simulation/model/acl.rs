//! Who a client is, which lists it may give, and what it may do by those that are there.

use std::rc::Rc;

use rookeeper::records::Acl;

use super::code::{self, Code};

pub const READ: i32 = 1;
pub const WRITE: i32 = 2;
pub const CREATE: i32 = 4;
pub const DELETE: i32 = 8;
pub const ADMIN: i32 = 16;

/// Somebody with a password, and the id that this makes: base64 of the SHA-1 of both.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub credentials: &'static str,
    pub id: &'static str,
    pub is_super: bool,
}

pub const SUPER: User = User { credentials: "super:test", id: "super:D/InIHSb7yEEbrWz8b9l71RjZJU=", is_super: true };

pub const USERS: [User; 3] = [
    User { credentials: "u:p", id: "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=", is_super: false },
    User { credentials: "v:q", id: "v:Mfy8apI9YguGKmh+AxUmAFSwkII=", is_super: false },
    User { credentials: "w:r", id: "w:ED+5oRP8eM6BxVVC5sdXadjf3AA=", is_super: false },
];

/// Where all clients are.
pub const ADDRESS: &str = "127.0.0.1";

/// Who a connection is, beside its address.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Who {
    pub users: Vec<&'static User>,
    /// Nobody looks at lists.
    pub skips_acl: bool,
}

impl Who {
    pub fn is_super(&self) -> bool {
        self.users.iter().any(|user| user.is_super)
    }

    fn matches(&self, acl: &Acl) -> bool {
        let id = acl.id.as_deref().unwrap_or_default();
        match acl.scheme.as_deref() {
            Some("world") => id == "anyone",
            Some("ip") => is_within(id),
            Some("digest") => self.users.iter().any(|user| user.id == id),
            _ => false,
        }
    }

    /// Whether it may do one of these.
    pub fn may(&self, list: &[Acl], perms: i32) -> bool {
        let is_granted = || list.iter().any(|acl| acl.perms & perms != 0 && self.matches(acl));
        self.skips_acl || list.is_empty() || self.is_super() || is_granted()
    }

    pub fn must(&self, list: &[Acl], perms: i32) -> Result<(), Code> {
        if self.may(list, perms) { Ok(()) } else { Err(code::NO_AUTH) }
    }

    /// A list as it is kept.
    pub fn fix_up(&self, list: Option<&[Acl]>) -> Result<Rc<[Acl]>, Code> {
        let list = list.filter(|list| !list.is_empty()).ok_or(code::INVALID_ACL)?;
        let mut kept = Vec::new();
        for (n, acl) in list.iter().enumerate() {
            if list[..n].contains(acl) {
                continue;
            }
            match (acl.scheme.as_deref(), acl.id.as_deref().unwrap_or_default()) {
                (Some("auth"), _) if !self.users.is_empty() => {
                    kept.extend(self.users.iter().map(|user| Acl::new(acl.perms, "digest", user.id)));
                }
                (Some("world"), "anyone") => kept.push(acl.clone()),
                (Some("digest"), id) if id.split_once(':').is_some_and(|(_, hash)| !hash.is_empty()) => {
                    kept.push(acl.clone());
                }
                (Some("ip"), id) if network(id).is_some() => kept.push(acl.clone()),
                _ => return Err(code::INVALID_ACL),
            }
        }
        Ok(kept.into())
    }

    /// What getACL tells: who may not change a list sees no hashes.
    pub fn seen(&self, list: &[Acl]) -> Vec<Acl> {
        let is_admin = self.may(list, ADMIN);
        let hide = |acl: &Acl| match (acl.scheme.as_deref(), acl.id.as_deref()) {
            (Some("digest"), Some(id)) if !is_admin => {
                Acl::new(acl.perms, "digest", &format!("{}:x", id.split(':').next().unwrap_or_default()))
            }
            _ => acl.clone(),
        };
        list.iter().map(hide).collect()
    }

    /// What whoAmI tells, in any order.
    pub fn shown(&self) -> Vec<(String, String)> {
        let mut shown = vec![("ip".to_owned(), ADDRESS.to_owned())];
        for user in &self.users {
            let name = user.credentials.split(':').next().unwrap_or_default();
            shown.push(("digest".to_owned(), name.to_owned()));
            if user.is_super {
                shown.push(("super".to_owned(), String::new()));
            }
        }
        shown.sort_unstable();
        shown
    }
}

/// An address, and how many of its bits count.
fn network(id: &str) -> Option<(u32, u32)> {
    let (address, bits) = id.split_once('/').unwrap_or((id, "32"));
    let parts: Vec<u32> =
        address.split('.').map(|part| part.parse::<u8>().map(u32::from)).collect::<Result<_, _>>().ok()?;
    let bits = bits.parse::<u32>().ok().filter(|bits| *bits <= 32)?;
    (parts.len() == 4).then(|| (parts.iter().fold(0, |all, part| all << 8 | part), bits))
}

/// Whether clients are in this network.
fn is_within(id: &str) -> bool {
    let (Some((address, bits)), Some((own, _))) = (network(id), network(ADDRESS)) else { return false };
    (address ^ own).checked_shr(32 - bits).unwrap_or(0) == 0
}
