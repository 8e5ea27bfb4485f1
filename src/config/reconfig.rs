//! What a reconfig request asks for: a list of members made from another one, or given whole. Called by the pipeline of a
//! leader; pure. Rules: the reconfig part of `PrepRequestProcessor`, `QuorumServer.checkAddressDuplicate`.

use std::net::IpAddr;

use super::Members;
use super::ensemble::{HostPort, MemberRules, QuorumRule, Server};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconfigError {
    /// Apache fails to parse a number there, and does not say more.
    NotANumber(String),
    /// Wrong in another way.
    Bad(String),
}

impl Members {
    /// The whole list as a client gives it, lines separated by commas or as such. Its version does not count.
    pub fn parse_request(text: &str, rules: MemberRules) -> Result<Members, ReconfigError> {
        let lines = text.replace(',', "\n");
        Members::parse_by(lines.as_bytes(), rules).map_err(|error| ReconfigError::Bad(error.to_string()))
    }

    /// This list without those who leave (`1,2`) and with those who join (`server.3=…,server.4=…`). One who joins and is
    /// there already gets a new line.
    pub fn changed(&self, joining: &str, leaving: &str, rules: MemberRules) -> Result<Members, ReconfigError> {
        if self.rule != QuorumRule::Majority {
            let what = "with groups only a whole new list can be given".to_string();
            return Err(ReconfigError::Bad(what));
        }
        let mut next = self.clone();
        for id in parts(leaving, ',') {
            next.servers.remove(&number(id)?);
        }
        for joiner in parts(joining, ',') {
            let fields: Vec<&str> = parts(joiner, '=').collect();
            let [name, line] = fields[..] else {
                return Err(ReconfigError::Bad(format!("{joiner:.160}: expected server.N=line")));
            };
            let id = number(name.rsplit('.').next().unwrap_or(name))?;
            let bad = |what: String| ReconfigError::Bad(format!("server {id}: {what:.240}"));
            let server = Server::parse_request(id, line, rules).map_err(bad)?;
            next.servers.remove(&id);
            if let Some(other) = next.servers.values().find(|other| server.shares_an_address_with(other)) {
                return Err(bad(format!("server {} has one of its addresses", other.id)));
            }
            next.servers.insert(id, server);
        }
        next.check_length().map_err(|error| ReconfigError::Bad(error.to_string()))?;
        Ok(next)
    }
}

impl Server {
    fn shares_an_address_with(&self, other: &Server) -> bool {
        let theirs = other.places();
        self.places().iter().any(|place| theirs.contains(place))
    }

    /// Where it can be reached from other hosts.
    fn places(&self) -> Vec<HostPort> {
        let at = |host: &str, port| HostPort { host: host.to_string(), port };
        let peers = self.addresses.iter().flat_map(|a| [at(&a.host, a.quorum_port), at(&a.host, a.election_port)]);
        peers.chain(self.client.clone()).filter(|place| !is_of_every_host(&place.host)).collect()
    }
}

/// Wildcard and loopback: every host has them.
fn is_of_every_host(host: &str) -> bool {
    let ip: Option<IpAddr> = host.parse().ok();
    host == "localhost" || ip.is_some_and(|ip| ip.is_unspecified() || ip.is_loopback())
}

fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    text.split(separator).map(str::trim).filter(|part| !part.is_empty())
}

fn number(text: &str) -> Result<i64, ReconfigError> {
    text.parse().map_err(|_| ReconfigError::NotANumber(format!("{text:.40} is no server number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: MemberRules = MemberRules::PLAIN;

    fn three() -> Members {
        Members::parse_text(b"server.1=a:1:2;11\nserver.2=b:1:2;11\nserver.3=c:1:2;11\nversion=5").unwrap()
    }

    fn ids(members: &Members) -> Vec<i64> {
        members.servers.keys().copied().collect()
    }

    #[test]
    fn servers_leave_and_join() {
        let changed = three().changed("server.4=d:1:2:observer;e:11, server.2=x:1:2;11", "3, 9", RULES).unwrap();
        assert_eq!(ids(&changed), [1, 2, 4]);
        let text = changed.to_string();
        assert!(
            text.contains("server.4=d:1:2:observer;e:11\n") && text.contains("server.2=x:1:2:participant;0.0.0.0:11")
        );
        assert_eq!(ids(&three().changed("", "", RULES).unwrap()), [1, 2, 3]);
    }

    #[test]
    fn what_cannot_join_is_refused() {
        let refuse = |joining: &str| three().changed(joining, "", RULES).unwrap_err();
        for joining in [
            "nonsense",
            "server.4=d:1:2",
            "server.4=d:1;11",
            "server.4=d:1:2;x",
            "server.4=a:9:1;12",
            "server.4=d:1:2|e:1:2;11",
        ] {
            assert!(matches!(refuse(joining), ReconfigError::Bad(_)), "{joining}");
        }
        assert!(matches!(refuse("server.x=d:1:2;11"), ReconfigError::NotANumber(_)));
        assert!(matches!(three().changed("", "one", RULES), Err(ReconfigError::NotANumber(_))));
        // The own address, and those that every host has, are no conflict.
        assert!(three().changed("server.1=a:1:2:observer;11", "", RULES).is_ok());
        let local = Members::parse_text(b"server.1=127.0.0.1:1:2;11").unwrap();
        assert!(local.changed("server.2=127.0.0.1:1:2;11", "", RULES).is_ok());
    }

    #[test]
    fn a_whole_list_has_commas_or_lines() {
        assert_eq!(
            ids(&Members::parse_request("server.1=a:1:2;3,server.2=b:1:2;3\nversion=77", RULES).unwrap()),
            [1, 2]
        );
        for text in ["", "server.1=a:1:2:observer", "tickTime=1", "server.1"] {
            assert!(matches!(Members::parse_request(text, RULES), Err(ReconfigError::Bad(_))), "{text}");
        }
    }
}
