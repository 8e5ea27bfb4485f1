//! What a reconfig request asks for: a list of members made from another one, or given whole. Called by the pipeline of a
//! leader; pure. Rules: the reconfig part of `PrepRequestProcessor`, `QuorumServer.checkAddressDuplicate`.

use super::Members;
use super::ensemble::{HostPort, MemberRules, QuorumRule, Server, SharedPlace};
use crate::ops::Reconfig;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconfigError {
    /// Apache fails to parse a number there, and does not say more.
    NotANumber(String),
    /// Wrong in another way.
    Bad(String),
}

impl Members {
    /// The list that a client asks for, where this one is in force.
    pub fn requested(&self, request: &Reconfig, rules: MemberRules) -> Result<Members, ReconfigError> {
        let wanted = match &request.new_members {
            Some(list) => Members::parse_request(list, rules)?,
            None => {
                let [joining, leaving] = [&request.joining, &request.leaving].map(|f| f.as_deref().unwrap_or_default());
                self.changed(joining, leaving, rules)?
            }
        };
        // What a start only warns of. A list that is in force all the same can be mended line by line.
        let has =
            |id: &i64, place: &HostPort| self.servers.get(id).is_some_and(|server| server.places().contains(place));
        let is_new = |shared: &SharedPlace| !shared.servers.iter().all(|id| has(id, &shared.place));
        match wanted.shared_places().into_iter().find(is_new) {
            Some(shared) => Err(ReconfigError::Bad(shared.to_string())),
            None => wanted.refuse_new_secure_client(self).map(|()| wanted),
        }
    }

    /// A port for TLS is served by nobody here, and a list with one is read by no server of Apache before 3.10: such a member
    /// would be out of the ensemble for as long as the list is in force. What the list before has, its readers can read.
    fn refuse_new_secure_client(&self, before: &Members) -> Result<(), ReconfigError> {
        let had = |id: &i64| before.servers.get(id).and_then(|server| server.secure_client.as_ref());
        let new = |(id, server): (&i64, &Server)| {
            let secure = server.secure_client.as_ref().filter(|secure| had(id) != Some(secure))?;
            Some(ReconfigError::Bad(format!(
                "server {id}: secureClientPort {secure}, behind the second ';', is refused: TLS for clients is not served by \
                 this version, and Apache's servers before 3.10 cannot read such a list and would leave the ensemble"
            )))
        };
        self.servers.iter().find_map(new).map_or(Ok(()), Err)
    }

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
            next.servers.insert(id, server);
        }
        next.check_length().map_err(|error| ReconfigError::Bad(error.to_string()))?;
        Ok(next)
    }
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
    fn a_port_for_tls_is_refused_that_the_list_before_does_not_have() {
        let request = |joining: &str| request(joining, "", None);
        let refused = three().requested(&request("server.4=d:1:2;11;12"), RULES).unwrap_err();
        let words = "server 4: secureClientPort 0.0.0.0:12, behind the second ';', is refused";
        assert!(matches!(refused, ReconfigError::Bad(what) if what.starts_with(words)), "{words}");
        // A list that Apache's newer servers agreed on can be changed all the same.
        let theirs = three().changed("server.3=c:1:2;11;12", "", RULES).unwrap();
        assert!(theirs.requested(&request("server.4=d:1:2;11,server.3=c:1:2;11;12"), RULES).is_ok());
        assert!(theirs.requested(&request("server.3=c:1:2;11;13"), RULES).is_err());
        assert!(theirs.requested(&request("server.2=b:1:2;11;12"), RULES).is_err());
        assert!(theirs.requested(&request("server.3=c:1:2;11"), RULES).is_ok(), "and does without");
    }

    #[test]
    fn what_cannot_join_is_refused() {
        let refuse = |joining: &str| three().changed(joining, "", RULES).unwrap_err();
        for joining in [
            "nonsense",
            "server.4=d:1:2",
            "server.4=d:1;11",
            "server.4=d:1:2;x",
            "server.-4=d:1:2;11",
            "server.4=d:1:2;;",
            "server.4=d:1:2;;x",
            "server.4=d:1:2;11;12;13",
            "server.4=d:1:2|e:1:2;11",
        ] {
            assert!(matches!(refuse(joining), ReconfigError::Bad(_)), "{joining}");
        }
        assert!(matches!(refuse("server.x=d:1:2;11"), ReconfigError::NotANumber(_)));
        assert!(matches!(three().changed("", "one", RULES), Err(ReconfigError::NotANumber(_))));
        let secure = three().changed("server.4=d:1:2;;d:12,server.5=e:1:2;11;12", "", RULES).unwrap().to_string();
        assert!(secure.contains("server.4=d:1:2:participant;;d:12\n"));
        assert!(secure.contains("server.5=e:1:2:participant;0.0.0.0:11;0.0.0.0:12\n"));
    }

    fn request(joining: &str, leaving: &str, new_members: Option<String>) -> Reconfig {
        let [joining, leaving] = [joining, leaving].map(|text| Some(text.to_owned()));
        Reconfig { joining, leaving, new_members, cur_config_id: -1 }
    }

    #[test]
    fn two_servers_at_one_place_are_refused_however_they_are_asked_for() {
        for (joining, leaving, shared) in [
            // Quorum with election port, a host in other letters, clients.
            ("server.4=A:9:1;12", "", Some([1, 4])),
            ("server.4=d:1:2;a:2", "", Some([1, 4])),
            ("server.4=d:1:2;;a:2", "", Some([1, 4])),
            ("server.4=d:1:2;d:11,server.5=e:1:2;d:11", "", Some([4, 5])),
            // They would reach themselves there.
            ("server.4=127.0.0.1:1:2;11,server.5=127.0.0.1:1:3;12", "", Some([4, 5])),
            ("server.4=0.0.0.0:1:2;11,server.5=0.0.0.0:3:2;12", "", Some([4, 5])),
            // Whoever leaves makes room, two may change places, and one may keep its own.
            ("server.4=a:1:2;12", "1", None),
            ("server.1=b:1:2;11,server.2=a:1:2;11", "", None),
            ("server.1=a:1:2:observer;11", "", None),
            // Each host has these for its own clients.
            ("server.4=d:1:2;127.0.0.1:9,server.5=e:1:2;127.0.0.1:9", "", None),
        ] {
            let whole = three().changed(joining, leaving, RULES).unwrap();
            let asked = [request(joining, leaving, None), request("", "", Some(whole.to_string()))];
            for taken in asked.map(|request| three().requested(&request, RULES)) {
                let [one, other] = match (shared, taken) {
                    (Some(servers), Err(ReconfigError::Bad(why))) => {
                        assert!(why.ends_with(": only one of them can be reached there"), "{why}");
                        assert_eq!(why, whole.shared_places()[0].to_string());
                        servers
                    }
                    (None, Ok(_)) => continue,
                    (_, taken) => panic!("{joining}: {taken:?}"),
                };
                assert_eq!(whole.shared_places()[0].servers, [one, other], "{joining}");
            }
        }
    }

    #[test]
    fn a_list_with_two_servers_at_one_place_can_be_mended_and_not_made_worse() {
        let list = b"server.1=a:1:2;11\nserver.2=a:1:2;11\nserver.3=c:1:2;11\nserver.-4=d:1:2;11\nversion=5";
        let members = Members::parse_text(list).unwrap();
        let ask = |joining, leaving| members.requested(&request(joining, leaving, None), RULES);
        assert_eq!(ids(&ask("server.5=e:1:2;11", "").unwrap()), [-4, 1, 2, 3, 5]);
        assert_eq!(ids(&ask("server.2=b:1:2;11", "-4").unwrap()), [1, 2, 3]);
        assert!(ask("server.3=a:1:2;11", "").is_err());
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
