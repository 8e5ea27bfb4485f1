//! Who a connection is, and which lists may be stored: auth packets (`AuthenticationProvider.handleAuthentication`), the
//! schemes' rules for ids (`isValid`) and the fix-up of lists (`PrepRequestProcessor.fixupACL`).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use foldhash::fast::RandomState;
use sha1::Digest;

use crate::codes::Code;
use crate::config::DigestAlg;
use crate::ids::{ConnId, Zxid};
use crate::jute::Writer;
use crate::limits::{
    ACL_BYTES_MAX, ACL_ENTRIES_MAX, IDENTITIES_MAX, IDENTITY_BYTES_ALWAYS, IDENTITY_BYTES_MAX, IDENTITY_BYTES_TOTAL,
};
use crate::mail::Fate;
use crate::metrics;
use crate::ops::AuthOp;
use crate::pipeline::rules::DigestAuth;
use crate::pipeline::{Complaint, Pipeline, replies};
use crate::records::Acl;
use crate::state::acl::{AuthId, parse_ip_entry};

impl DigestAuth {
    /// The id of `user:password`: the user, a colon, and the hash of the whole in base64.
    fn id_of(&self, credentials: &[u8]) -> String {
        let hash = match self.algorithm {
            DigestAlg::Sha1 => sha1::Sha1::digest(credentials).to_vec(),
            DigestAlg::Sha224 => sha2::Sha224::digest(credentials).to_vec(),
            DigestAlg::Sha256 => sha2::Sha256::digest(credentials).to_vec(),
            DigestAlg::Sha384 => sha2::Sha384::digest(credentials).to_vec(),
            DigestAlg::Sha512 => sha2::Sha512::digest(credentials).to_vec(),
            DigestAlg::Sha512_224 => sha2::Sha512_224::digest(credentials).to_vec(),
            DigestAlg::Sha512_256 => sha2::Sha512_256::digest(credentials).to_vec(),
            DigestAlg::Sha3_224 => sha3::Sha3_224::digest(credentials).to_vec(),
            DigestAlg::Sha3_256 => sha3::Sha3_256::digest(credentials).to_vec(),
            DigestAlg::Sha3_384 => sha3::Sha3_384::digest(credentials).to_vec(),
            DigestAlg::Sha3_512 => sha3::Sha3_512::digest(credentials).to_vec(),
            DigestAlg::Md5 => md5::Md5::digest(credentials).to_vec(),
            DigestAlg::Md2 => md2::Md2::digest(credentials).to_vec(),
        };
        let text = String::from_utf8_lossy(credentials);
        let user = text.split(':').next().unwrap_or_default();
        format!("{user}:{}", STANDARD.encode(hash))
    }
}

/// Whether a `digest` entry has the form `user:hash` as Java's split sees it: exactly two parts, trailing empty ones not
/// counted.
fn is_valid_digest_id(id: &str) -> bool {
    let mut parts = id.split(':');
    parts.next().is_some() && parts.next().is_some_and(|hash| !hash.is_empty()) && parts.all(str::is_empty)
}

impl Pipeline {
    /// Whether the connection may do more than authenticate.
    pub(super) fn is_authenticated(&self, id: ConnId) -> bool {
        self.rules.enforced_schemes.is_empty()
            || self
                .conns
                .get(&id)
                .is_some_and(|conn| conn.auth.iter().any(|who| self.rules.enforced_schemes.contains(&who.scheme)))
    }

    /// auth and sasl: answered at once, with zxid 0, ahead of what the connection still waits for.
    pub(super) fn on_auth(&mut self, id: ConnId, xid: i32, op: &AuthOp, received_us: i64) {
        let added = match op {
            AuthOp::Scheme { scheme, credentials } => self.authenticate(id, scheme.as_deref(), credentials.as_deref()),
            // Without a SASL configuration Apache answers with a null token and goes on.
            AuthOp::Sasl { .. } => {
                let out = self.tell(id);
                replies::reply(out.bytes.own(), xid, Zxid::ZERO, 0, |body| body.put_buffer(None));
                out.note("SASL", xid, Zxid::ZERO, received_us);
                return;
            }
            AuthOp::Malformed => Err(Code::MarshallingError),
        };
        if self.names_another_ensemble(op) {
            let peer = self.conns.get(&id).map(|conn| conn.peer);
            self.complain(Complaint::Ensemble, || format!("{peer:?} means another ensemble; closed"));
            self.tell(id).answered += 1;
            return self.close_connection(id);
        }
        match added.and_then(|ids| self.add_identities(id, ids)) {
            Ok(()) => {
                let out = self.tell(id);
                replies::reply(out.bytes.own(), xid, Zxid::ZERO, 0, |_| ());
                out.note("AUTH", xid, Zxid::ZERO, received_us);
            }
            Err(Code::AuthFailed) => {
                metrics::AUTH_FAILED_COUNT.add(1);
                self.refuse_early(id, xid, Code::AuthFailed, received_us);
            }
            Err(code) => {
                let out = self.tell(id);
                replies::reply(out.bytes.own(), xid, Zxid::ZERO, code.value(), |_| ());
                out.note("AUTH", xid, Zxid::ZERO, received_us);
            }
        }
    }

    fn authenticate(&self, id: ConnId, scheme: Option<&str>, credentials: Option<&[u8]>) -> Result<Vec<AuthId>, Code> {
        self.identities(self.conns.get(&id).map(|conn| conn.peer), scheme, credentials)
    }

    /// Who somebody at this address is who says this.
    pub(super) fn identities(
        &self,
        peer: Option<IpAddr>,
        scheme: Option<&str>,
        credentials: Option<&[u8]>,
    ) -> Result<Vec<AuthId>, Code> {
        match (scheme, &self.rules.digest_auth) {
            (Some("ip"), _) => Ok(peer.map(|peer| vec![ip_identity(peer)]).unwrap_or_default()),
            (Some("digest"), Some(digest)) => {
                let who = digest.id_of(credentials.ok_or(Code::AuthFailed)?);
                let mut ids = Vec::with_capacity(2);
                if digest.super_digest.as_ref() == Some(&who) {
                    ids.push(AuthId::superuser());
                }
                ids.push(AuthId::new("digest", who));
                Ok(ids)
            }
            // Says which ensemble the client means, not who it is.
            (Some("ensemble"), _) if self.rules.ensemble_names.is_some() => Ok(Vec::new()),
            _ => Err(Code::AuthFailed),
        }
    }

    /// Whether scheme `ensemble` is registered and names one that this is not (`EnsembleAuthenticationProvider`).
    fn names_another_ensemble(&self, op: &AuthOp) -> bool {
        let (AuthOp::Scheme { scheme: Some(scheme), credentials }, Some(ours)) = (op, &self.rules.ensemble_names)
        else {
            return false;
        };
        let name = String::from_utf8_lossy(credentials.as_deref().unwrap_or_default());
        if scheme != "ensemble" {
            return false;
        }
        if name.is_empty() || ours.is_empty() {
            metrics::ENSEMBLE_AUTH_SKIP.add(1);
            return false;
        }
        let known = ours.iter().any(|our| *our == name);
        if known {
            metrics::ENSEMBLE_AUTH_SUCCESS.add(1)
        } else {
            metrics::ENSEMBLE_AUTH_FAIL.add(1)
        }
        !known
    }

    fn add_identities(&mut self, id: ConnId, ids: Vec<AuthId>) -> Result<(), Code> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let mut all = conn.auth.to_vec();
        for who in ids {
            if !all.contains(&who) {
                all.push(who);
            }
        }
        let (before, bytes) = (counted_bytes(&conn.auth), counted_bytes(&all));
        let total = self.identity_bytes - before + bytes;
        let is_too_much = bytes + IDENTITY_BYTES_ALWAYS > IDENTITY_BYTES_MAX;
        if all.len() > IDENTITIES_MAX || is_too_much || (bytes > 0 && total > IDENTITY_BYTES_TOTAL) {
            let peer = conn.peer;
            self.complain(Complaint::Identities, || {
                format!("client {peer} has {} identities, and no room for one more: it is refused", all.len() - 1)
            });
            // Java's clients give up for good what failed to authenticate; this one goes on as who it is.
            return Err(Code::BadArguments);
        }
        conn.auth = all.into();
        self.identity_bytes = total;
        Ok(())
    }

    /// An answer outside the order, with zxid 0; a connection that failed to say who it is closes.
    pub(super) fn refuse_early(&mut self, id: ConnId, xid: i32, code: Code, received_us: i64) {
        let closes = matches!(code, Code::AuthFailed | Code::SessionClosedRequireSaslAuth);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.closing |= closes;
        }
        let out = self.tell(id);
        replies::reply(out.bytes.own(), xid, Zxid::ZERO, code.value(), |_| ());
        out.note("NA", xid, Zxid::ZERO, received_us);
        if closes {
            out.fate = Fate::Close;
        }
    }

    /// A list as it will be stored: `auth` entries become the caller's identities, duplicates go, ids are checked. One
    /// that is too long then is refused like one that is wrong.
    pub(super) fn fix_up(&self, list: Option<&[Acl]>, auth: &[AuthId]) -> Result<Vec<Acl>, Code> {
        let list = list.filter(|list| !list.is_empty()).ok_or(Code::InvalidAcl)?;
        let mut fixed: Vec<Acl> = Vec::with_capacity(list.len().min(ACL_ENTRIES_MAX));
        let mut seen: HashSet<&Acl, RandomState> = HashSet::default();
        for acl in list {
            // Most lists have one entry.
            if list.len() > 1 && !seen.insert(acl) {
                continue;
            }
            match (acl.scheme.as_deref(), acl.id.as_deref()) {
                (None, _) => return Err(Code::InvalidAcl),
                (Some("world"), Some("anyone")) => fixed.push(acl.clone()),
                (Some("auth"), _) => self.expand_auth(acl.perms, auth, &mut fixed)?,
                (Some(_), None) => return Err(Code::MarshallingError),
                (Some(scheme), Some(id)) if self.is_valid_id(scheme, id) => fixed.push(acl.clone()),
                _ => return Err(Code::InvalidAcl),
            }
            if fixed.len() > ACL_ENTRIES_MAX {
                return Err(Code::InvalidAcl);
            }
        }
        let bytes = |acl: &Acl| [&acl.scheme, &acl.id].into_iter().flatten().map(String::len).sum::<usize>();
        if fixed.iter().map(bytes).sum::<usize>() > ACL_BYTES_MAX { Err(Code::InvalidAcl) } else { Ok(fixed) }
    }

    fn expand_auth(&self, perms: i32, auth: &[AuthId], fixed: &mut Vec<Acl>) -> Result<(), Code> {
        let authenticated = auth.iter().filter(|who| matches!(who.scheme.as_str(), "digest" | "sasl" | "x509"));
        let before = fixed.len();
        fixed.extend(authenticated.map(|who| Acl::new(perms, &who.scheme, &who.id)));
        if fixed.len() == before { Err(Code::InvalidAcl) } else { Ok(()) }
    }

    fn is_valid_id(&self, scheme: &str, id: &str) -> bool {
        match scheme {
            "ip" => parse_ip_entry(id).is_some(),
            "digest" => self.rules.digest_auth.is_some() && is_valid_digest_id(id),
            _ => false,
        }
    }
}

/// Bytes of a connection's identities that count for the bound on those of all connections.
pub(super) fn counted_bytes(ids: &[AuthId]) -> usize {
    let bytes: usize = ids.iter().map(|who| who.scheme.len() + who.id.len()).sum();
    bytes.saturating_sub(IDENTITY_BYTES_ALWAYS)
}

/// The identity every connection has from the start. Java writes IPv6 addresses without compression.
pub(super) fn ip_identity(peer: std::net::IpAddr) -> AuthId {
    let text = match peer.to_canonical() {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => {
            v6.segments().iter().map(|segment| format!("{segment:x}")).collect::<Vec<_>>().join(":")
        }
    };
    AuthId::new("ip", text)
}

/// The identities of a fresh connection.
pub(super) fn first_identities(peer: std::net::IpAddr) -> Arc<[AuthId]> {
    Arc::new([ip_identity(peer)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_ids_are_apaches() {
        let sha1 = DigestAuth { algorithm: DigestAlg::Sha1, super_digest: None };
        assert_eq!(sha1.id_of(b"u:p"), "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
        assert_eq!(sha1.id_of(b"super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
    }

    #[test]
    fn ids_by_the_other_algorithms_that_java_has_are_known() {
        // Made with Python's hashlib.
        let ids = [
            (DigestAlg::Sha224, "buY2RDLG1qb161QWn3zO7zdHv1Jw5JzOzvoq8w=="),
            (DigestAlg::Sha256, "/Y8xRBngpX5duYn15uUqIRaIaCviy5TEwSk419hCwuA="),
            (DigestAlg::Sha384, "joW9fAMExHHjPTquSoLHR7yNt+hmUQSWOdXLQ1YgEw4t89oJD5tqLNcOJbpOm3hr"),
            (
                DigestAlg::Sha512,
                "JuOwXdmk4f1omXNJj7k4ILDOHOlc+8PMyEaxl9nrWl6OmV83jKYivSqJWsp5PsMTda6BtnipueoU1r5DtBd7CA==",
            ),
            (DigestAlg::Sha512_224, "uQhd9bjKXP6GHJndVVZ2qIjzcJFAYrjzPmzxOg=="),
            (DigestAlg::Sha512_256, "GahcuEqKVDomB4u/ebwuUp9/SoZ9jjQVdblytNb5wPo="),
            (DigestAlg::Sha3_224, "VetFxgqKhf3M+E8Pj5X4NLMXFF7lPCr+KjMt9g=="),
            (DigestAlg::Sha3_256, "3+U94Pf1dSrKR/q5qu/huTFf1Fha6TtpdtpSdhWvIS0="),
            (DigestAlg::Sha3_384, "d4zgobLcJSLRER2rxMYl64bQqLziPCVxzKEWJoX+pEfq/zm0wPI8ZyXDgZrO/jZl"),
            (
                DigestAlg::Sha3_512,
                "CxK7PYZe5JmbxbczQTl9zOaNZXrjA0kC+0x9tzWMsGKrpYRMUAdSUKhye+ylfkRhhXm3ReL68pT1mUct81OUyQ==",
            ),
            (DigestAlg::Md5, "wj9ntl1lUHd6RGlGHs+1Hg=="),
        ];
        for (algorithm, hash) in ids {
            let auth = DigestAuth { algorithm, super_digest: None };
            assert_eq!(auth.id_of(b"u:p"), format!("u:{hash}"), "{algorithm:?}");
        }
    }

    #[test]
    fn digest_entries_have_two_parts() {
        for (id, valid) in [
            ("a:b", true),
            (":b", true),
            ("a:b:", true),
            ("a:", false),
            ("a", false),
            (":", false),
            ("", false),
            ("a:b:c", false),
        ] {
            assert_eq!(is_valid_digest_id(id), valid, "{id}");
        }
    }

    #[test]
    fn ipv6_identities_are_not_compressed_and_mapped_ones_are_v4() {
        assert_eq!(ip_identity("::1".parse().expect("an address")).id, "0:0:0:0:0:0:0:1");
        assert_eq!(ip_identity("::ffff:1.2.3.4".parse().expect("an address")).id, "1.2.3.4");
    }
}
