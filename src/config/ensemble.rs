//! The members of an ensemble: `server.N`, `group.G` and `weight.N` lines into typed servers, and back into Apache's text.
//! Called by `config::check` for zoo.cfg and for dynamic files, and by the cores for what peers send; pure, so names of
//! hosts stay unresolved.
//! Rules: `QuorumPeer.QuorumServer`, `QuorumMaj`, `QuorumHierarchical`, `ConfigUtils.getHostAndPort`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use super::syntax::{self, Entry};
use crate::limits::MEMBERS_TEXT_BYTES_MAX;

/// What zoo.cfg says about running in an ensemble, whether or not this server is in one. Limits are in ticks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EnsembleSettings {
    pub init_limit_ticks: u32,
    pub sync_limit_ticks: u32,
    /// 0 means as `init_limit_ticks`.
    pub connect_limit_ticks: u32,
    /// peerType, which the server list overrules.
    pub peer_type: Option<PeerRole>,
    pub standalone_enabled: bool,
    pub reconfig_enabled: bool,
    pub dynamic_config_file: Option<PathBuf>,
    pub listen_on_all_ips: bool,
    pub observer_master_port: Option<u16>,
    /// Committed transactions that a follower keeps for observers.
    pub observer_master_bytes_max: usize,
    /// allowUnlistedLearners; None is as `reconfig_enabled`.
    pub unlisted_learners_allowed: Option<bool>,
    pub sync_enabled: bool,
    pub local_sessions_enabled: bool,
    pub local_sessions_upgrading_enabled: bool,
    pub leader_serves: bool,
    /// The last counter of an epoch's zxids.
    pub last_counter: u32,
    /// How long connecting to another server may take.
    pub dial_timeout_ms: i64,
    /// How long another server may take to say who it is on the election port; None is as long as it may be silent.
    pub hello_timeout_ms: Option<i64>,
    /// On election sockets.
    pub tcp_keepalive: bool,
    /// First and longest pause between two notices of an election.
    pub notification_interval_ms: (i64, i64),
    /// From when on a leader without an epoch gives up as soon as one who elected it looks again.
    pub epoch_wait_ms: Option<i64>,
    pub snapshot_syncs_max: usize,
    pub diff_syncs_max: usize,
    /// Learners are never sent a part of the log.
    pub always_snapshot: bool,
    pub redial_ms: i64,
    /// An observer that lost its leader waits up to each of these, at random.
    pub observer_pauses_ms: [i64; 2],
    /// For the election port; 0 is without end, None is as many as fit what is in the way.
    pub bind_attempts: Option<u32>,
    pub multi_address_enabled: bool,
}

/// A server's place in an ensemble.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsembleConfig {
    /// From dataDir/myid.
    pub my_id: i64,
    /// Where this server is: by its line in `members`; if an ensemble has agreed on a list without it, where it was
    /// before, or is to be.
    pub own: Server,
    pub members: Members,
    /// From CONFIG.dynamic.next: proposed before the last stop, not known to be committed.
    pub next: Option<Members>,
}

/// What zoo.cfg allows in a list of members that somebody gives, in a file or in a request. On what an ensemble has agreed
/// it has no say: this server could not start again with what the others sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberRules {
    /// `multiAddress.enabled`: a server may have several addresses.
    pub multi_address: bool,
    /// `extendedTypesEnabled`: the last id that fits into a session's id is taken.
    pub extended_types: bool,
    /// Ids below 0 are taken.
    pub negative_ids: bool,
}

impl MemberRules {
    /// For a list that an ensemble has agreed on.
    pub const AGREED: MemberRules = MemberRules { multi_address: true, extended_types: false, negative_ids: true };
    /// For a server that has none of those settings.
    pub const PLAIN: MemberRules = MemberRules { multi_address: false, extended_types: false, negative_ids: false };

    pub(super) fn check_id(self, id: i64) -> Result<(), String> {
        if id < 0 && !self.negative_ids {
            return Err(format!(
                "a server id is at least 0, this is {id}: those below are given to learners without one"
            ));
        }
        if self.extended_types && id > EXTENDED_ID_MAX {
            return Err(format!("extendedTypesEnabled needs a server id of at most {EXTENDED_ID_MAX}, this is {id}"));
        }
        Ok(())
    }
}

/// Ids above this mark nodes with a time to live.
const EXTENDED_ID_MAX: i64 = 254;

/// Who belongs to the ensemble and what a quorum of it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Members {
    pub servers: BTreeMap<i64, Server>,
    pub rule: QuorumRule,
    /// The zxid of the reconfiguration that made it; 0 for a list in zoo.cfg.
    pub version: i64,
}

/// What makes a quorum.
#[derive(Debug, Clone, PartialEq)]
pub enum QuorumRule {
    /// More than half of the participants.
    Majority,
    /// More than half the weight in more than half of the groups that have any.
    Hierarchical { group_of: BTreeMap<i64, i64>, weight_of: BTreeMap<i64, i64> },
}

/// Whether a server votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    Participant,
    Observer,
}

impl PeerRole {
    pub(super) fn parse(text: &str) -> Option<PeerRole> {
        match text.trim().to_ascii_lowercase().as_str() {
            "participant" => Some(PeerRole::Participant),
            "observer" => Some(PeerRole::Observer),
            _ => None,
        }
    }
}

/// One `server.N` line.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub id: i64,
    /// At least one, in ascending order; who gives more needs multiAddress.enabled.
    pub addresses: Vec<PeerAddress>,
    pub role: PeerRole,
    /// The part behind `;`, or this server's own clientPort.
    pub client: Option<HostPort>,
    /// `client` came from clientPort and is not written out.
    pub client_is_from_zoo_cfg: bool,
    /// Where clients connect by TLS: the part behind the second `;`, which Apache's servers read from 3.10 on.
    pub secure_client: Option<HostPort>,
}

/// Where a server talks to servers. Ordered by host, as lists of members are written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    pub host: String,
    pub quorum_port: u16,
    pub election_port: u16,
}

/// A host as written and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

/// A line about members that is wrong: which of the entries, or none for a rule over all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberError {
    pub entry: Option<Entry>,
    pub what: String,
}

impl MemberError {
    fn of(entry: &Entry, what: impl Into<String>) -> MemberError {
        let entry = Some(entry.clone());
        MemberError { entry, what: what.into() }
    }

    fn of_all(what: String) -> MemberError {
        MemberError { entry: None, what }
    }
}

impl fmt::Display for MemberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(entry) = &self.entry {
            // A peer may have sent anything.
            let shown = |text: &str| text.escape_debug().to_string();
            write!(f, "{:.40}={:.160}: ", shown(&entry.key), shown(&entry.value))?;
        }
        write!(f, "{:.240}", self.what)
    }
}

impl std::error::Error for MemberError {}

/// Whether a key is about members.
pub fn is_member_key(key: &str) -> bool {
    ["server.", "group", "weight"].iter().any(|p| key.starts_with(p))
}

impl Members {
    /// Builds the list from entries that are all member keys, each once. Values are taken as they are, blanks included.
    /// Every list comes through here, whoever gives it; so what is taken from a client or another server can be read again
    /// at the next start.
    pub fn parse(entries: &[Entry], rules: MemberRules) -> Result<Members, MemberError> {
        let mut servers = BTreeMap::new();
        let mut group_of = BTreeMap::new();
        let mut weight_of = BTreeMap::new();
        let mut hierarchical = false;
        for entry in entries {
            let number = entry.key.split_once('.').map(|(_, n)| n.parse::<i64>());
            let Some(Ok(id)) = number else {
                return Err(MemberError::of(entry, "expected a number after the dot"));
            };
            if entry.key.starts_with("server.") {
                let server = Server::parse(id, &entry.value, rules).map_err(|what| MemberError::of(entry, what))?;
                if servers.insert(id, server).is_some() {
                    return Err(MemberError::of(entry, format!("server {id} is listed twice")));
                }
                continue;
            }
            hierarchical = true;
            if entry.key.starts_with("group") {
                add_group(id, entry, &mut group_of)?;
            } else {
                // Below 0, too, Apache would take it, and find quorums where there are none.
                let weight = entry.value.parse::<i64>().ok().filter(|weight| *weight >= 0);
                let what = "expected the weight as a whole number of at least 0";
                if weight_of.insert(id, weight.ok_or_else(|| MemberError::of(entry, what))?).is_some() {
                    return Err(MemberError::of(entry, format!("server {id} has two weights")));
                }
            }
        }
        let rule = match hierarchical {
            false => QuorumRule::Majority,
            true => hierarchy(&servers, group_of, weight_of)?,
        };
        let members = Members { servers, rule, version: 0 };
        members.check_length()?;
        Ok(members)
    }

    /// The others must be able to read it in a message.
    pub(super) fn check_length(&self) -> Result<(), MemberError> {
        check_length(self.to_string().len())
    }

    /// Reads what a peer says about members, in the form that [`Members`] is displayed in: `server.`, `group.` and
    /// `weight.` lines and a `version` in hexadecimal, 0 if there is none (`QuorumPeer.configFromString`). At least one
    /// server must be a participant.
    pub fn parse_text(text: &[u8]) -> Result<Members, MemberError> {
        Members::parse_by(text, MemberRules::AGREED)
    }

    /// The same from somebody who has to keep to this server's rules.
    pub(super) fn parse_by(text: &[u8], rules: MemberRules) -> Result<Members, MemberError> {
        check_length(text.len())?;
        let entries = syntax::entries(&escaped(text)).map_err(|e| MemberError::of_all(e.what))?;
        let mut version = 0;
        let mut last_of_each = BTreeMap::new();
        for entry in entries {
            if entry.key == "version" {
                let number = i64::from_str_radix(entry.value.trim(), 16).ok().filter(|v| *v >= 0);
                version = number.ok_or_else(|| MemberError::of(&entry, "expected a hexadecimal number"))?;
            } else if ["server.", "group.", "weight."].iter().any(|p| entry.key.starts_with(p)) {
                last_of_each.insert(entry.key.clone(), entry);
            } else {
                return Err(MemberError::of(&entry, "expected server.N, group.N, weight.N or version"));
            }
        }
        let entries: Vec<Entry> = last_of_each.into_values().collect();
        let members = Members { version, ..Members::parse(&entries, rules)? };
        members.check_participants()?;
        Ok(members)
    }

    pub(super) fn check_participants(&self) -> Result<(), MemberError> {
        let found = self.participants().next().map(drop);
        found.ok_or_else(|| MemberError::of_all("no server is a participant".to_string()))
    }

    pub fn participants(&self) -> impl Iterator<Item = &Server> {
        self.with_role(PeerRole::Participant)
    }

    pub fn observers(&self) -> impl Iterator<Item = &Server> {
        self.with_role(PeerRole::Observer)
    }

    /// Where two servers are said to be, of which only one can be reached there: a copy of a line with one number changed,
    /// most often.
    pub(super) fn shared_places(&self) -> Vec<SharedPlace> {
        let (mut first_at, mut shared) = (BTreeMap::new(), BTreeMap::new());
        for server in self.servers.values() {
            for place in server.places() {
                let first = *first_at.entry(place.clone()).or_insert(server.id);
                if first != server.id {
                    shared.entry([first, server.id]).or_insert(place);
                }
            }
        }
        shared.into_iter().map(|(servers, place)| SharedPlace { servers, place }).collect()
    }

    fn with_role(&self, role: PeerRole) -> impl Iterator<Item = &Server> {
        self.servers.values().filter(move |s| s.role == role)
    }
}

/// Two servers at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SharedPlace {
    pub servers: [i64; 2],
    pub place: HostPort,
}

impl fmt::Display for SharedPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SharedPlace { servers: [one, other], place } = self;
        write!(f, "server.{one} and server.{other} are both at {place}: only one of them can be reached there")
    }
}

fn check_length(length: usize) -> Result<(), MemberError> {
    match length > MEMBERS_TEXT_BYTES_MAX {
        true => Err(MemberError::of_all(format!("{length} bytes are too long for a list of members"))),
        false => Ok(()),
    }
}

/// UTF-8 as a properties file, which is Latin-1, says it.
pub(super) fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for c in String::from_utf8_lossy(text).chars() {
        match u8::try_from(c) {
            Ok(byte) if byte.is_ascii() => out.push(byte),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.extend(format!("\\u{unit:04x}").bytes())),
        }
    }
    out
}

fn add_group(group: i64, entry: &Entry, group_of: &mut BTreeMap<i64, i64>) -> Result<(), MemberError> {
    for member in java_split(&entry.value, ':') {
        let Ok(id) = member.parse::<i64>() else {
            let what = "expected server numbers separated by colons";
            return Err(MemberError::of(entry, what));
        };
        if group_of.insert(id, group).is_some() {
            let what = format!("Server {id} is in multiple groups");
            return Err(MemberError::of(entry, what));
        }
    }
    Ok(())
}

fn hierarchy(
    servers: &BTreeMap<i64, Server>,
    group_of: BTreeMap<i64, i64>,
    mut weight_of: BTreeMap<i64, i64>,
) -> Result<QuorumRule, MemberError> {
    for server in servers.values() {
        if server.role == PeerRole::Observer {
            continue;
        }
        if !group_of.contains_key(&server.id) {
            let what = format!("Server {} is not in a group", server.id);
            return Err(MemberError::of_all(what));
        }
        weight_of.entry(server.id).or_insert(1);
    }
    // Apache ends in a NullPointerException here.
    if let Some(id) = group_of.keys().find(|id| !weight_of.contains_key(id)) {
        let what = format!("Server {id} is in a group but is no participant and has no weight");
        return Err(MemberError::of_all(what));
    }
    Ok(QuorumRule::Hierarchical { group_of, weight_of })
}

const FORM: &str =
    "expected host:quorumPort:electionPort[:participant|:observer][;[[host:]clientPort][;[host:]secureClientPort]]";

impl Server {
    /// A line as a client gives it: it must say where clients connect.
    pub(super) fn parse_request(id: i64, text: &str, rules: MemberRules) -> Result<Server, String> {
        let server = Server::parse(id, text, rules)?;
        let is_for_clients = server.client.is_some() || server.secure_client.is_some();
        if is_for_clients { Ok(server) } else { Err(FORM.to_string()) }
    }

    /// Where it is reached: by other servers, who tell it from others by nothing else, and by clients. Those may all have
    /// their own server at the same loopback or wildcard address.
    pub(super) fn places(&self) -> BTreeSet<HostPort> {
        let at = |host: &str, port| HostPort { host: host.to_ascii_lowercase(), port };
        let peers = self.addresses.iter().flat_map(|a| [at(&a.host, a.quorum_port), at(&a.host, a.election_port)]);
        let clients = self.client.iter().chain(&self.secure_client).filter(|client| !is_of_every_host(&client.host));
        peers.chain(clients.map(|client| at(&client.host, client.port))).collect()
    }

    pub(super) fn parse(id: i64, text: &str, rules: MemberRules) -> Result<Server, String> {
        rules.check_id(id)?;
        let parts = java_split(text, ';');
        let (peers, client, secure_client) = match parts[..] {
            [peers] => (peers, "", ""),
            [peers, client] => (peers, client, ""),
            [peers, client, secure_client] => (peers, client, secure_client),
            _ => return Err(FORM.to_string()),
        };
        let [client, secure_client] =
            [client, secure_client].map(|text| (!text.is_empty()).then(|| client_address(text)).transpose());
        let peers = java_split(peers, '|');
        if peers.len() > 1 && !rules.multi_address {
            return Err("expected one address, since multiAddress.enabled is not true".to_string());
        }
        let mut addresses = Vec::new();
        let mut role = None;
        for peer in peers {
            let (address, peer_role) = peer_address(peer)?;
            addresses.push(address);
            let Some(peer_role) = peer_role else { continue };
            if role.is_some_and(|r| r != peer_role) {
                return Err("expected the same role with every address".to_string());
            }
            role = Some(peer_role);
        }
        addresses.sort();
        addresses.dedup();
        Ok(Server {
            id,
            addresses,
            role: role.unwrap_or(PeerRole::Participant),
            client: client?,
            client_is_from_zoo_cfg: false,
            secure_client: secure_client?,
        })
    }
}

/// Wildcard and loopback: every host has them.
fn is_of_every_host(host: &str) -> bool {
    let ip: Option<IpAddr> = host.parse().ok();
    host == "localhost" || ip.is_some_and(|ip| ip.is_unspecified() || ip.is_loopback())
}

fn peer_address(text: &str) -> Result<(PeerAddress, Option<PeerRole>), String> {
    let fields = fields(text)?;
    let (host, quorum, election, role) = match fields[..] {
        [host, quorum, election] => (host, quorum, election, None),
        [host, quorum, election, role] => (host, quorum, election, Some(role)),
        _ => return Err(FORM.to_string()),
    };
    let role = match role.map(|text| (text, PeerRole::parse(text))) {
        None => None,
        Some((_, Some(role))) => Some(role),
        Some((text, None)) => {
            return Err(format!("Unrecognised peertype: {text}; expected participant or observer"));
        }
    };
    let (quorum_port, election_port) = (port(host, quorum)?, port(host, election)?);
    let address = PeerAddress { host: checked(host)?, quorum_port, election_port };
    if address.quorum_port == address.election_port {
        return Err("expected two different ports, for quorum and election".to_string());
    }
    Ok((address, role))
}

fn client_address(text: &str) -> Result<HostPort, String> {
    match fields(text)?[..] {
        [number] => HostPort::new("0.0.0.0", number),
        [host, number] => HostPort::new(host, number),
        _ => Err(FORM.to_string()),
    }
}

impl HostPort {
    fn new(host: &str, number: &str) -> Result<HostPort, String> {
        Ok(HostPort { port: port(host, number)?, host: checked(host)? })
    }

    /// Reads `host:port`; an IPv6 address stands in brackets.
    pub fn parse(text: &str) -> Result<HostPort, String> {
        match fields(text)?[..] {
            [host, number] => HostPort::new(host, number),
            _ => Err("expected host:port, an IPv6 address in brackets".to_string()),
        }
    }
}

/// An IPv6 address without the interface that Java writes behind it (`0:0:0:0:0:0:0:1%lo`), where that says nothing; of a
/// link-local address it is a part.
pub fn without_zone(host: &str) -> &str {
    match host.split_once('%').map(|(address, _)| (address, address.parse::<Ipv6Addr>())) {
        Some((address, Ok(ip))) if !ip.is_unicast_link_local() => address,
        _ => host,
    }
}

/// A host as it is written into lists. What cannot be written there and read back is none.
fn checked(host: &str) -> Result<String, String> {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "[]\\".contains(c);
    match host.is_empty() || host.contains(bad) {
        true => Err(format!("{host:?} is no host")),
        false => Ok(host.parse::<Ipv6Addr>().map_or_else(|_| host.to_string(), ipv6)),
    }
}

/// Blanks count: a trailing one after the last port is Apache's fatal "Address unresolved", and an easy slip.
fn port(host: &str, number: &str) -> Result<u16, String> {
    number.parse().map_err(|_| {
        let blank = if number.trim() == number { "" } else { " without blanks" };
        format!("Address unresolved: {host}:{number}; expected a port between 0 and 65535{blank}")
    })
}

/// The fields between colons; an IPv6 host stands in brackets.
fn fields(text: &str) -> Result<Vec<&str>, String> {
    let Some(inside) = text.strip_prefix('[') else {
        return Ok(java_split(text, ':'));
    };
    let Some((host, rest)) = inside.split_once(']') else {
        return Err(format!("{text} starts with '[' but has no matching ']:'"));
    };
    let mut fields = vec![host];
    match rest.strip_prefix(':') {
        Some("") => return Err(format!("{text} doesn't have a port after colon")),
        Some(rest) => fields.extend(java_split(rest, ':')),
        None if rest.is_empty() => {}
        None => return Err(FORM.to_string()),
    }
    Ok(fields)
}

/// `String.split`: empty fields at the end are dropped.
fn java_split(text: &str, separator: char) -> Vec<&str> {
    text.trim_end_matches(separator).split(separator).collect()
}

/// The form in dynamic files and in /zookeeper/config (`QuorumServer.toString`).
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, a) in self.addresses.iter().enumerate() {
            let bar = if i == 0 { "" } else { "|" };
            let host = delimited(&a.host);
            write!(f, "{bar}{host}:{}:{}", a.quorum_port, a.election_port)?;
        }
        f.write_str(match self.role {
            PeerRole::Participant => ":participant",
            PeerRole::Observer => ":observer",
        })?;
        let client = self.client.as_ref().filter(|_| !self.client_is_from_zoo_cfg);
        match (client, &self.secure_client) {
            (None, None) => Ok(()),
            (Some(client), None) => write!(f, ";{client}"),
            (None, Some(secure)) => write!(f, ";;{secure}"),
            (Some(client), Some(secure)) => write!(f, ";{client};{secure}"),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", delimited(&self.host), self.port)
    }
}

/// Java's form, all eight groups without leading zeros: every server must write the same.
fn ipv6(ip: Ipv6Addr) -> String {
    ip.segments().map(|s| format!("{s:x}")).join(":")
}

/// IPv6 literals stand in brackets.
fn delimited(host: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{}]", ipv6(ip)),
        // With a zone.
        Err(_) if host.contains(':') => format!("[{host}]"),
        Err(_) => host.to_string(),
    }
}

/// The data of /zookeeper/config: a line per server, group and weight, the version last, no newline at the end.
impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, server) in &self.servers {
            writeln!(f, "server.{id}={server}")?;
        }
        if let QuorumRule::Hierarchical { group_of, weight_of } = &self.rule {
            let mut groups: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for (id, group) in group_of {
                groups.entry(*group).or_default().push(id.to_string());
            }
            for (group, ids) in groups {
                writeln!(f, "group.{group}={}", ids.join(":"))?;
            }
            for (id, weight) in weight_of {
                writeln!(f, "weight.{id}={weight}")?;
            }
        }
        write!(f, "version={:x}", self.version)
    }
}
