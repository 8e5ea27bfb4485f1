//! The rules between keys, once every value is in place: what follows from what, what excludes what, and which mode results.
//! Called at the end of `Config::load`. Rules: the tail of `QuorumPeerConfig.parseProperties`, `parseDynamicConfig`,
//! `setupClientPort`, `checkValidity`; `AuthenticationHelper`; `BlueThrottle`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::dynamic::read_member_file;
use super::ensemble::{
    EnsembleConfig, HostPort, MemberError, MemberRules, Members, PeerRole, QuorumRule, Server, is_member_key,
    without_zone,
};
use super::error::{ConfigError, Origin};
use super::load::{Loader, World};
use super::settings::{Config, Listen, Mode};
use super::syntax::Entry;

/// Completes the configuration or refuses it.
pub(super) fn finish(l: &mut Loader, world: &dyn World) -> Result<(), ConfigError> {
    derive(&mut l.config);
    session_timeouts(l)?;
    session_weights(l);
    directories(l)?;
    enforced_auth(l)?;
    listener(l, world)?;
    let my_id = my_id(l, world)?;
    l.config.server_id = my_id.unwrap_or(0);
    let lists = lists(l, world, my_id)?;
    own_client_address(l, world, &lists)?;
    warn_secure_client(l, &lists);
    mode(l, my_id, lists)
}

/// Defaults that are other values.
fn derive(c: &mut Config) {
    let given = &c.given;
    c.clients.jute_extra_bytes = given.jute_extra_bytes.unwrap_or(c.clients.jute_max_buffer_bytes);
    let third = c.storage.flush_delay_ms / 3;
    c.storage.write_queue_poll_ms = given.write_queue_poll_ms.unwrap_or(third);
    if c.features.read_only_mode_enabled {
        c.clients.four_letter_words.words.insert("isro".to_string());
    }
}

fn session_timeouts(l: &mut Loader) -> Result<(), ConfigError> {
    let c = &mut l.config;
    let ticks = |n: u32| i32::try_from(c.tick_ms.saturating_mul(n)).unwrap_or(i32::MAX);
    let min = c.given.session_timeout_min_ms.unwrap_or_else(|| ticks(2));
    let max = c.given.session_timeout_max_ms.unwrap_or_else(|| ticks(20));
    (c.session_timeout_min_ms, c.session_timeout_max_ms) = (min, max);
    if min <= max {
        return Ok(());
    }
    let key = match c.given.session_timeout_max_ms {
        Some(_) => "maxSessionTimeout",
        None => "minSessionTimeout",
    };
    let what = format!("minSessionTimeout ({min}) must not be larger than maxSessionTimeout ({max})");
    Err(ConfigError::rule(l.origin_of(key), what))
}

/// A global or renewed session cannot weigh less than a local one.
fn session_weights(l: &mut Loader) {
    let weights = &mut l.config.throttle.connections;
    let local = weights.local_session_weight;
    let mut raised = Vec::new();
    if weights.global_session_weight < local {
        weights.global_session_weight = local;
        raised.push("connection_throttle_global_session_weight");
    }
    if weights.renew_session_weight < local {
        weights.renew_session_weight = local;
        raised.push("connection_throttle_renew_session_weight");
    }
    for name in raised {
        let at = l.origin_of(name);
        l.warn(&at, format!("{name}: expected at least the weight of a local session, taken as {local}"));
    }
}

fn directories(l: &mut Loader) -> Result<(), ConfigError> {
    if l.config.data_dir.as_os_str().is_empty() {
        return Err(ConfigError::rule(l.file(), "dataDir is not set"));
    }
    if l.config.data_log_dir.as_os_str().is_empty() {
        l.config.data_log_dir = l.config.data_dir.clone();
    } else {
        warn_relative(l, "dataLogDir", &l.config.data_log_dir.clone());
    }
    warn_relative(l, "dataDir", &l.config.data_dir.clone());
    Ok(())
}

fn warn_relative(l: &mut Loader, key: &str, path: &Path) {
    if path.is_relative() && !path.starts_with(".") {
        let at = l.origin_of(key);
        let path = path.display();
        l.warn(&at, format!("{key}: {path} is relative. Prepend ./ to indicate that you're sure!"));
    }
}

/// Someone who lets only authenticated clients in must not get a server that cannot tell them.
fn enforced_auth(l: &mut Loader) -> Result<(), ConfigError> {
    let access = &mut l.config.access;
    let mut key = "enforce.auth.schemes";
    if l.config.given.session_requires_sasl {
        key = "sessionRequireClientSASLAuth";
        access.enforce_auth.enabled = true;
        access.enforce_auth.schemes = vec!["sasl".to_string()];
    }
    if !access.enforce_auth.enabled {
        return Ok(());
    }
    let schemes = access.enforce_auth.schemes.clone();
    let mut providers: Vec<&str> = access.auth_providers.iter().map(|p| p.scheme()).collect();
    providers.push("ip");
    if access.digest_provider_enabled {
        providers.push("digest");
    }
    let at = l.origin_of(key);
    if schemes.is_empty() {
        let what = "enforce.auth.enabled is true, so enforce.auth.schemes must be configured";
        return Err(ConfigError::rule(l.origin_of("enforce.auth.enabled"), what));
    }
    let served = |scheme: &String| scheme != "sasl" && scheme != "x509";
    if !schemes.iter().any(served) {
        let what = format!("{key}: refused: scheme {} is not served by this version", schemes.join(", "));
        return Err(ConfigError::rule(at, what));
    }
    let missing = schemes.iter().find(|s| !providers.contains(&s.as_str()));
    if let Some(scheme) = missing {
        let what = format!("{key}: Authentication scheme {scheme} is not available: it has no authProvider");
        return Err(ConfigError::rule(at, what));
    }
    Ok(())
}

fn listener(l: &mut Loader, world: &dyn World) -> Result<(), ConfigError> {
    let given = &l.config.given;
    let at = l.origin_of("clientPortAddress");
    let ip = match (given.client_port, &given.client_address) {
        (None, Some(_)) => return Err(ConfigError::rule(at, "clientPortAddress is set but clientPort is not set")),
        (_, None) => None,
        (Some(_), Some(host)) => match resolve(world, host) {
            Some(ip) => Some(ip),
            None => {
                return Err(ConfigError::Value {
                    at,
                    key: "clientPortAddress".to_string(),
                    value: host.clone(),
                    expected: "a host name that resolves, or an address".to_string(),
                });
            }
        },
    };
    l.config.clients.listen = given.client_port.map(|port| Listen { ip, port });
    Ok(())
}

fn resolve(world: &dyn World, host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let literal = without_zone(bare.unwrap_or(host)).parse();
    literal.ok().or_else(|| world.resolve(host))
}

/// dataDir/myid: a decimal number on the first line, no blanks. Read in standalone mode too, as Apache does.
fn my_id(l: &Loader, world: &dyn World) -> Result<Option<i64>, ConfigError> {
    let path = l.config.data_dir.join("myid");
    let read = world.read(&path);
    let Some(bytes) = read.map_err(|e| ConfigError::unreadable(&path, e))? else {
        return Ok(None);
    };
    let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
    let line = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
    let shown: String = line.chars().take(80).collect();
    line.parse().map(Some).map_err(|_| {
        let what = format!("serverid {shown:?} is not a number; expected only a number on the first line");
        ConfigError::rule(Origin::File(path), what)
    })
}

/// The lists that this server finds.
struct Lists {
    members: Members,
    /// Where this server is, if one of them says so.
    own: Option<Server>,
    /// From CONFIG.dynamic.next.
    next: Option<Members>,
}

fn lists(l: &Loader, world: &dyn World, my_id: Option<i64>) -> Result<Lists, ConfigError> {
    let rules = MemberRules::of(&l.config);
    let own_of = |members: &Members| my_id.and_then(|id| members.servers.get(&id)).cloned();
    let Some(path) = l.config.ensemble.dynamic_config_file.clone() else {
        let members = Members::parse(&l.members, rules).map_err(|e| blame(&l.config.config_path, e))?;
        return Ok(Lists { own: own_of(&members), members, next: None });
    };
    if let Some(entry) = l.members.first() {
        let at = Origin::Line(l.config.config_path.clone(), entry.line);
        let what = format!("parameter: {} must be in a separate dynamic config file", entry.key);
        return Err(ConfigError::rule(at, what));
    }
    let (members, unlisted) = members_in(world, &path, rules)?;
    let next = next_members(l, world)?;
    let own = own_of(&members).or(unlisted.filter(|own| Some(own.id) == my_id)).or_else(|| {
        // Its clients are elsewhere until that list is in force.
        let own = next.as_ref().and_then(own_of)?;
        Some(Server { client: own.client.filter(|_| l.config.clients.listen.is_none()), ..own })
    });
    Ok(Lists { members, own, next })
}

impl MemberRules {
    /// What this zoo.cfg says.
    pub fn of(config: &Config) -> MemberRules {
        MemberRules {
            multi_address: config.ensemble.multi_address_enabled,
            extended_types: config.features.extended_types_enabled,
            negative_ids: false,
        }
    }
}

/// The dynamic file. One with a version was written by a server: what an ensemble has agreed on must not keep it from
/// starting again, however other servers are set.
fn members_in(world: &dyn World, path: &Path, given: MemberRules) -> Result<(Members, Option<Server>), ConfigError> {
    let text = world.read(path).map_err(|e| ConfigError::unreadable(path, e))?;
    let text = text.ok_or_else(|| ConfigError::unreadable(path, "file is missing"))?;
    let file = read_member_file(path, &text)?;
    for entry in &file.entries {
        let at = Origin::Line(path.to_path_buf(), entry.line);
        if entry.key == "version" {
            return Err(ConfigError::rule(at, "dynamic file shouldn't have version inside"));
        }
        if !is_member_key(&entry.key) {
            return Err(ConfigError::rule(at, format!("Unrecognised parameter: {}", entry.key)));
        }
    }
    let version = version_of(path);
    if let Some(written) = file.version.filter(|written| *written != version) {
        let what = format!("the members in it are those of version {written:x}; give the file its name back");
        return Err(ConfigError::rule(Origin::File(path.to_path_buf()), what));
    }
    let rules = if version > 0 { MemberRules::AGREED } else { given };
    let mut members = Members::parse(&last_of_each(file.entries), rules).map_err(|e| blame(path, e))?;
    // Else this server would run alone.
    members.check_participants().map_err(|e| blame(path, e))?;
    members.version = version;
    Ok((members, file.unlisted))
}

/// The hex number after the last dot of a dynamic file's name; 0 if there is none.
fn version_of(path: &Path) -> i64 {
    let name = path.to_string_lossy();
    let suffix = name.rsplit_once('.').map_or("", |(_, s)| s);
    i64::from_str_radix(suffix, 16).unwrap_or(0).max(0)
}

fn last_of_each(entries: Vec<Entry>) -> Vec<Entry> {
    let is_last = |i: usize| entries[i + 1..].iter().all(|e| e.key != entries[i].key);
    let last = (0..entries.len()).filter(|i| is_last(*i));
    last.map(|i| entries[i].clone()).collect()
}

fn blame(path: &Path, error: MemberError) -> ConfigError {
    let Some(entry) = error.entry else {
        return ConfigError::rule(Origin::File(path.to_path_buf()), error.what);
    };
    let at = Origin::Line(path.to_path_buf(), entry.line);
    let what = format!("{}={}: {}", entry.key, entry.value, error.what);
    ConfigError::rule(at, what)
}

/// Our own server line may say where clients connect; with zoo.cfg's clientPort it must agree.
fn own_client_address(l: &mut Loader, world: &dyn World, lists: &Lists) -> Result<(), ConfigError> {
    let Some(client) = lists.own.as_ref().and_then(|server| server.client.as_ref()) else {
        return Ok(());
    };
    let at = l.origin_of("clientPort");
    let Some(ip) = resolve(world, &client.host) else {
        let what = format!("client address {client} of this server does not resolve");
        if !is_agreed(&lists.members) {
            return Err(ConfigError::rule(at, what));
        }
        l.warn(
            &at,
            format!("{what}: until it does, no client is served there; mend the name, or its line by reconfig"),
        );
        return Ok(());
    };
    let from_line = Listen { ip: Some(ip), port: client.port };
    if let Some(here) = l.config.clients.listen {
        let same_place = here.is_wildcard() || here.ip == from_line.ip;
        if here.port != from_line.port || !same_place {
            let id = l.config.server_id;
            let what = format!(
                "client address for this server (id = {id}) is {} by clientPort but {client} by its server line",
                here.socket_addr()
            );
            return Err(ConfigError::rule(at, what));
        }
    }
    l.config.clients.listen = Some(from_line);
    Ok(())
}

/// The part of our own server line that is not served. The list is taken all the same: the others and the clients read it.
fn warn_secure_client(l: &mut Loader, lists: &Lists) {
    let Some((id, secure)) = lists.own.as_ref().and_then(|own| Some((own.id, own.secure_client.as_ref()?))) else {
        return;
    };
    let served = match l.config.clients.listen {
        Some(listen) => format!("clients connect to {} without it", listen.socket_addr()),
        None => "it has no clientPort either, so that no client can connect to this server".to_string(),
    };
    let what = format!(
        "server.{id}: secureClientPort {secure}, behind the second ';', is refused: TLS for clients is not served by this \
         version, and nobody listens there; {served}"
    );
    let at = lists_file(l);
    l.warn(&at, what);
}

/// Standalone, or one of an ensemble (`QuorumPeerConfig.isDistributed`).
fn mode(l: &mut Loader, my_id: Option<i64>, lists: Lists) -> Result<(), ConfigError> {
    let at = l.file();
    let standalone = l.config.ensemble.standalone_enabled;
    let members = &lists.members;
    let (voters, observers) = (members.participants().count(), members.observers().count());
    // Others may have agreed on a list with one voter; the rest of them are no servers that stand alone.
    let is_shared = is_agreed(members) && (members.servers.len() > 1 || is_unlisted(my_id, members));
    let refuse = |what: &str| Err(ConfigError::rule(at.clone(), what));
    match (voters, observers) {
        (0, _) if !standalone => {
            return refuse("standaloneEnabled = false then number of participants should be >0");
        }
        (0, 1..) => return refuse("Observers w/o participants is an invalid configuration"),
        (1, 1..) if standalone && !is_shared => {
            return refuse("Observers w/o quorum is an invalid configuration");
        }
        (1, _) if standalone && !is_shared => {
            l.warn(&at, "only one server specified: running standalone");
        }
        (1 | 2, _) => l.warn(&at, "No server failure will be tolerated. You need at least 3 servers."),
        (n, _) if n > 0 && n % 2 == 0 && members.rule == QuorumRule::Majority => {
            l.warn(&at, "Non-optimal configuration, consider an odd number of servers.");
        }
        _ => {}
    }
    warn_role(l, my_id, members);
    if !is_agreed(members) {
        warn_shared_places(l, members);
    }
    if voters <= 1 && standalone && !is_shared {
        l.config.mode = Mode::Standalone;
        return Ok(());
    }
    let (my_id, own) = quorum_requirements(l, my_id, &lists)?;
    let own = with_client(l, own);
    let Lists { mut members, next, .. } = lists;
    if let Some(listed) = members.servers.get_mut(&my_id) {
        listed.clone_from(&own);
    }
    l.config.mode = Mode::Quorum(Box::new(EnsembleConfig { my_id, own, members, next }));
    Ok(())
}

/// Whether an ensemble has agreed on the list, and not only an operator.
fn is_agreed(members: &Members) -> bool {
    members.version > 0
}

fn is_unlisted(my_id: Option<i64>, members: &Members) -> bool {
    my_id.is_none_or(|id| !members.servers.contains_key(&id))
}

/// Where the lines of the servers are.
fn lists_file(l: &Loader) -> Origin {
    l.config.ensemble.dynamic_config_file.clone().map_or_else(|| l.file(), Origin::File)
}

fn warn_shared_places(l: &mut Loader, members: &Members) {
    let at = lists_file(l);
    for shared in members.shared_places() {
        l.warn(&at, shared.to_string());
    }
}

fn warn_role(l: &mut Loader, my_id: Option<i64>, members: &Members) {
    let listed = my_id.and_then(|id| members.servers.get(&id));
    let by_list = listed.map_or(PeerRole::Participant, |server| server.role);
    let by_key = l.config.ensemble.peer_type.unwrap_or(PeerRole::Participant);
    if by_list != by_key {
        let at = l.origin_of("peerType");
        let what = format!("peerType ({by_key:?}) doesn't match the servers list ({by_list:?}), which counts");
        l.warn(&at, what);
    }
}

/// Who this server is, and where.
fn quorum_requirements(l: &mut Loader, my_id: Option<i64>, lists: &Lists) -> Result<(i64, Server), ConfigError> {
    let refuse = |l: &Loader, what: String| Err(ConfigError::rule(l.file(), what));
    if l.config.ensemble.init_limit_ticks == 0 {
        return refuse(l, "initLimit is not set".to_string());
    }
    if l.config.ensemble.sync_limit_ticks == 0 {
        return refuse(l, "syncLimit is not set".to_string());
    }
    let id_path = l.config.data_dir.join("myid");
    let Some(id) = my_id else {
        return Err(ConfigError::rule(Origin::File(id_path), "myid file is missing"));
    };
    MemberRules::of(&l.config).check_id(id).map_err(|what| ConfigError::rule(l.file(), what))?;
    let is_unlisted = is_unlisted(my_id, &lists.members);
    let known: Vec<String> = lists.members.servers.keys().map(i64::to_string).collect();
    let may_ask = is_agreed(&lists.members) && l.config.ensemble.reconfig_enabled;
    let Some(own) = lists.own.clone().filter(|_| !is_unlisted || may_ask) else {
        let hint = match may_ask {
            true => "; nothing says where it listens: list it in the dynamic file, as for a server that is to join",
            false => "",
        };
        let what = format!(
            "My id {id} not in the peer list: {} says {id}, and the list has servers {}{hint}",
            id_path.display(),
            known.join(", ")
        );
        return refuse(l, what);
    };
    if is_unlisted {
        let what = format!(
            "My id {id} ({}) not in the peer list of version {:x}, servers {}: this server asks those for the list in \
             force, and has no vote until it is in it. If it is to join, add it by reconfig; if it is another server, mend \
             myid",
            id_path.display(),
            lists.members.version,
            known.join(", ")
        );
        let at = lists_file(l);
        l.warn(&at, what);
    }
    Ok((id, own))
}

/// Others learn our client address from our entry, though it is not written out.
fn with_client(l: &Loader, mut own: Server) -> Server {
    if let (Some(listen), None) = (l.config.clients.listen, &own.client) {
        let host = listen.ip.map_or("0.0.0.0".to_string(), |ip| ip.to_string());
        own.client = Some(HostPort { host, port: listen.port });
        own.client_is_from_zoo_cfg = true;
    }
    own
}

/// CONFIG.dynamic.next, looked for only beside a dynamic file. What is proposed there may have been acknowledged: it is
/// read whole, or this server does not start.
fn next_members(l: &Loader, world: &dyn World) -> Result<Option<Members>, ConfigError> {
    let mut name = l.config.config_path.clone().into_os_string();
    name.push(".dynamic.next");
    let path = PathBuf::from(name);
    let read = world.read(&path);
    let Some(text) = read.map_err(|e| ConfigError::unreadable(&path, e))? else {
        return Ok(None);
    };
    let file = read_member_file(&path, &text)?;
    let (lines, rest): (Vec<Entry>, Vec<Entry>) = file.entries.into_iter().partition(|e| is_member_key(&e.key));
    let mut members = Members::parse(&last_of_each(lines), MemberRules::AGREED).map_err(|e| blame(&path, e))?;
    members.check_participants().map_err(|e| blame(&path, e))?;
    let Some(entry) = rest.iter().rfind(|e| e.key == "version") else {
        let what = "it does not say its version: it was cut short. Copy the file from another server; or remove it, if no \
                    reconfiguration was under way";
        return Err(ConfigError::rule(Origin::File(path), what));
    };
    members.version = i64::from_str_radix(entry.value.trim(), 16).map_err(|_| {
        let at = Origin::Line(path.clone(), entry.line);
        ConfigError::rule(at, format!("version={}: expected a hexadecimal number", entry.value))
    })?;
    Ok(Some(members))
}
