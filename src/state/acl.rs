//! Access control: the table of distinct lists that nodes refer to (`ReferenceCountedACLCache`), and the check of a
//! list against the identities of a connection (`ZooKeeperServer.checkACL`). Pure.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::jute::Writer;
use crate::records::{Acl, perms};
use crate::shards::ShardedMap;

/// A list, shared between the table, pending changes and events.
pub type AclList = Arc<[Acl]>;

/// Which list a node has. Only meaningful within one [`AclTable`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AclId(u32);

impl AclId {
    /// world:anyone:cdrwa without an entry in the table: index -1 in snapshots.
    pub const OPEN: AclId = AclId(0);
    /// The snapshot names a list that its table lacks: every access fails with MARSHALLINGERROR.
    pub const MISSING: AclId = AclId(u32::MAX);

    /// The index in a snapshot.
    pub fn index(self) -> i64 {
        if self == AclId::OPEN { -1 } else { i64::from(self.0) }
    }
}

#[derive(Debug)]
struct Entry {
    list: AclList,
    nodes: u32,
}

/// Every distinct list in use, once.
#[derive(Debug)]
pub struct AclTable {
    /// Slot 0 is [`AclId::OPEN`], which is never freed.
    entries: Vec<Option<Entry>>,
    by_list: ShardedMap<AclList, AclId>,
    free: Vec<u32>,
}

impl Default for AclTable {
    fn default() -> AclTable {
        AclTable::new()
    }
}

impl AclTable {
    /// With the open list only.
    pub fn new() -> AclTable {
        let open = Entry { list: Acl::open().into(), nodes: 0 };
        AclTable { entries: vec![Some(open)], by_list: ShardedMap::default(), free: Vec::new() }
    }

    /// One more node uses this list.
    pub fn acquire_list(&mut self, list: &AclList) -> AclId {
        if let Some(&id) = self.by_list.get(list) {
            self.acquire(id);
            return id;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("fewer lists than nodes, and node ids are 32 bits")
        });
        let id = AclId(slot);
        self.entries[slot as usize] = Some(Entry { list: list.clone(), nodes: 1 });
        self.by_list.insert(list.clone(), id);
        id
    }

    /// One more node uses this entry.
    pub fn acquire(&mut self, id: AclId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.nodes += 1;
        }
    }

    /// One node less uses this entry; the last one frees it.
    pub fn release(&mut self, id: AclId) {
        if id == AclId::OPEN {
            // Not counted: it is given to nodes without asking, and never freed.
            return;
        }
        let Some(entry) = self.entry_mut(id) else { return };
        entry.nodes -= 1;
        if entry.nodes == 0 {
            let gone = self.entries[id.0 as usize].take().expect("entry_mut found it");
            self.by_list.remove(&gone.list);
            self.free.push(id.0);
        }
    }

    fn entry_mut(&mut self, id: AclId) -> Option<&mut Entry> {
        self.entries.get_mut(id.0 as usize)?.as_mut()
    }

    /// The list; `None` only for [`AclId::MISSING`].
    pub fn get(&self, id: AclId) -> Option<&AclList> {
        Some(&self.entries.get(id.0 as usize)?.as_ref()?.list)
    }

    /// Every list but the open one, and how many nodes have it.
    pub fn iter(&self) -> impl Iterator<Item = (&AclList, u32)> {
        self.entries.iter().skip(1).flatten().map(|entry| (&entry.list, entry.nodes))
    }

    /// Writes the table of a snapshot: count, then index and list of each entry.
    pub fn write(&self, out: &mut Vec<u8>) {
        let used = self.entries.iter().enumerate().skip(1).filter_map(|(i, e)| e.as_ref().map(|e| (i, e)));
        out.put_int(crate::jute::len_i32(used.clone().count()));
        for (index, entry) in used {
            out.put_long(index as i64);
            Acl::write_list(out, &entry.list);
        }
    }
}

/// One identity of a connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AuthId {
    /// `ip`, `digest`, `sasl`, `x509`, `super`.
    pub scheme: String,
    /// The identity.
    pub id: String,
}

impl AuthId {
    /// `scheme:id`.
    pub fn new(scheme: &str, id: impl Into<String>) -> AuthId {
        AuthId { scheme: scheme.into(), id: id.into() }
    }

    /// The identity that every check lets through.
    pub fn superuser() -> AuthId {
        AuthId::new("super", "")
    }
}

/// From so many pairs of an entry and an identity on, identities are looked up instead of compared with each entry.
const PAIRS_COMPARED_MAX: usize = 4096;

/// Whether these identities have one of the permissions by this list.
pub fn allows(list: &[Acl], wanted: i32, ids: &[AuthId]) -> bool {
    if list.is_empty() || ids.iter().any(|id| id.scheme == "super") {
        return true;
    }
    let mut wanted = list.iter().filter(|acl| acl.perms & wanted != 0);
    if list.len() * ids.len() <= PAIRS_COMPARED_MAX {
        return wanted.any(|acl| grants(acl, ids));
    }
    // Only those of scheme `ip` match more than themselves, and a connection has one address.
    let (addresses, others): (Vec<&AuthId>, Vec<&AuthId>) = ids.iter().partition(|id| id.scheme == "ip");
    let addresses: Vec<AuthId> = addresses.into_iter().cloned().collect();
    let others: HashSet<(&str, &str), RandomState> =
        others.into_iter().map(|id| (id.scheme.as_str(), id.id.as_str())).collect();
    wanted.any(|acl| match (acl.scheme.as_deref(), acl.id.as_deref()) {
        (Some(scheme @ ("digest" | "sasl" | "x509")), Some(id)) => others.contains(&(scheme, id)),
        _ => grants(acl, &addresses),
    })
}

fn grants(acl: &Acl, ids: &[AuthId]) -> bool {
    let (Some(scheme), Some(id)) = (acl.scheme.as_deref(), acl.id.as_deref()) else { return false };
    (scheme == "world" && id == "anyone") || ids.iter().any(|who| who.scheme == scheme && matches(scheme, &who.id, id))
}

/// Whether an identity is the one that an entry of the same scheme names (`AuthenticationProvider.matches`).
fn matches(scheme: &str, who: &str, entry: &str) -> bool {
    match scheme {
        "ip" => ip_matches(who, entry),
        "digest" | "sasl" | "x509" => who == entry,
        _ => false,
    }
}

/// The masked compare of scheme `ip`; families never match each other.
fn ip_matches(who: &str, entry: &str) -> bool {
    let (Ok(who), Some((net, bits))) = (who.parse::<IpAddr>(), parse_ip_entry(entry)) else { return false };
    match (who, net) {
        (IpAddr::V4(who), IpAddr::V4(net)) => {
            let shift = 32 - bits;
            u32::from(who).checked_shr(shift).unwrap_or(0) == u32::from(net).checked_shr(shift).unwrap_or(0)
        }
        (IpAddr::V6(who), IpAddr::V6(net)) => {
            let shift = 128 - bits;
            u128::from(who).checked_shr(shift).unwrap_or(0) == u128::from(net).checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}

/// Address and prefix length of an `ip` entry: dotted IPv4, or IPv6 in hexadecimal groups, optionally with `/bits`. An IPv4
/// address in the form of an IPv6 one (`::ffff:10.0.0.1`) is none, as in Apache: nobody ever comes from it.
pub fn parse_ip_entry(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match entry.split_once('/') {
        None => (entry, None),
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok().filter(|_| !bits.starts_with('+'))?)),
    };
    let address: IpAddr = address.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() || !address.contains('.'))?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some((address, bits))
}

/// What a caller without ADMIN sees of a list: digest entries lose their hash (`PrepRequestProcessor`, getACL).
pub fn redacted(list: &[Acl]) -> Vec<Acl> {
    list.iter()
        .map(|acl| match (acl.scheme.as_deref(), acl.id.as_deref()) {
            (Some("digest"), Some(id)) => {
                let user = id.split(':').next().unwrap_or_default();
                Acl::new(acl.perms, "digest", &format!("{user}:x"))
            }
            _ => acl.clone(),
        })
        .collect()
}

/// Permissions of getACL: either bit is enough.
pub const READ_OR_ADMIN: i32 = perms::READ | perms::ADMIN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_list_outlives_every_release() {
        let mut table = AclTable::new();
        table.release(AclId::OPEN);
        assert_eq!(table.get(AclId::OPEN), Some(&Acl::open().into()));
    }

    #[test]
    fn a_list_is_stored_once_and_freed_with_its_last_node() {
        let mut table = AclTable::new();
        let list: AclList = vec![Acl::new(1, "world", "anyone")].into();
        let a = table.acquire_list(&list);
        assert_eq!(table.acquire_list(&list), a);
        table.release(a);
        assert!(table.get(a).is_some());
        table.release(a);
        assert!(table.get(a).is_none());
        assert_eq!(table.acquire_list(&Acl::open().into()).index(), 1);
    }

    #[test]
    fn ip_entries_match_by_prefix() {
        let ids = [AuthId::new("ip", "10.1.2.3")];
        for (entry, expected) in [
            ("10.1.2.3", true),
            ("10.1.0.0/16", true),
            ("0.0.0.0/0", true),
            ("10.2.0.0/16", false),
            ("::1", false),
            ("10.1.2.3/", false),
        ] {
            assert_eq!(allows(&[Acl::new(1, "ip", entry)], 1, &ids), expected, "{entry}");
        }
    }

    #[test]
    fn ipv6_entries_match_by_prefix_however_they_are_written() {
        // As Java writes the address of a client.
        let ids = [AuthId::new("ip", "2001:db8:0:1:0:0:0:a5")];
        for (entry, expected) in [
            ("2001:db8:0:1:0:0:0:a5", true),
            ("2001:db8:0:1::a5", true),
            ("2001:0DB8::1:0:0:0:A5", true),
            ("2001:db8:0:1::/64", true),
            ("2001:db8::/47", true),
            ("2001:db8:0:1::a0/125", true),
            ("2001:db8:0:1::a0/126", false),
            ("::/0", true),
            ("2001:db8:0:2::/64", false),
            ("0.0.0.0/0", false),
            ("2001:db8:0:1::a5/129", false),
            ("2001:db8:0:1::a5/", false),
        ] {
            assert_eq!(allows(&[Acl::new(1, "ip", entry)], 1, &ids), expected, "{entry}");
        }
    }

    /// `IPAuthenticationProvider.isValid` since 3.9.4.
    #[test]
    fn what_is_no_address_is_no_entry() {
        for valid in ["10.0.0.1", "10.0.0.0/8", "::", "::1", "1::", "1:2:3:4:5:6:7:8/128", "fe80::1", "::ffff:a00:1"] {
            assert!(parse_ip_entry(valid).is_some(), "{valid}");
        }
        for none in [
            "",
            "10",
            "10.0.0",
            "10.0.0.256",
            "10.0.0.1/33",
            "10.0.0.1/-1",
            "10.0.0.1/+1",
            "10.0.0.1/",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1::2::3",
            ":::",
            "12345::",
            "g::",
            "::1/129",
            "fe80::1%eth0",
            "[::1]",
            "::ffff:10.0.0.1",
            "world",
            "::1 ",
        ] {
            assert!(parse_ip_entry(none).is_none(), "{none}");
        }
    }

    #[test]
    fn super_passes_every_check_and_an_empty_list_is_open() {
        let closed = [Acl::new(31, "digest", "u:h")];
        assert!(!allows(&closed, 1, &[AuthId::new("digest", "u:other")]));
        assert!(allows(&closed, 1, &[AuthId::new("digest", "u:h")]));
        assert!(allows(&closed, 1, &[AuthId::superuser()]));
        assert!(allows(&[], 1, &[]));
    }

    #[test]
    fn redaction_keeps_the_user_and_hides_the_hash() {
        assert_eq!(redacted(&[Acl::new(31, "digest", "u:h")]), vec![Acl::new(31, "digest", "u:x")]);
    }
}
