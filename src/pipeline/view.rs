//! What operators may see of the pipeline, for four-letter words and the admin server. Reads only.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::admin::view::{
    Bucket, Denied, Mode, NodeView, Quota, ServerView, Sessions, Settings, SnapshotProgress, WatchTotals,
};
use crate::codes::Code;
use crate::config::Members;
use crate::ids::{ConnId, SessionId, Zxid};
use crate::limits::{LISTED_MAX, SHOWN_CHILDREN_MAX, SHOWN_DATA_BYTES_MAX};
use crate::mail::{Fate, Outgoing, Role};
use crate::pipeline::{Pipeline, auth};
use crate::records::perms;
use crate::state::NodeId;
use crate::state::acl::AuthId;
use crate::state::quota::{self, StatsTrack};

impl Pipeline {
    /// Answers a four-letter word; its connection has said nothing else, and closes.
    pub fn answer_word(&mut self, conn: ConnId, text: String) {
        let outgoing =
            Outgoing { bytes: text.into_bytes().into(), frames: 1, fate: Fate::Close, ..Outgoing::new(conn) };
        self.out.poller.outgoing.push(outgoing);
    }

    /// What this server is.
    pub fn role(&self) -> Role {
        self.role
    }

    fn track(&self, path: &str) -> StatsTrack {
        let node = self.state.tree().lookup(path).map(|id| self.state.tree().node(id));
        StatsTrack::parse(node.and_then(|node| node.data()))
    }

    /// Who an HTTP client is: its address, and what it says (`SCHEME CREDENTIAL`).
    fn http_identities(&self, address: IpAddr, authorization: Option<&str>) -> Result<Vec<AuthId>, Code> {
        let mut ids = auth::first_identities(address).to_vec();
        if let Some(said) = authorization {
            let (scheme, credential) = said.split_once(' ').unwrap_or((said, ""));
            ids.extend(self.identities(Some(address), Some(scheme), Some(credential.trim().as_bytes()))?);
        }
        Ok(ids)
    }

    fn quota_of(&self, subject: &str) -> Quota {
        let (limits, usage) = (self.track(&quota::limits_path(subject)), self.track(&quota::stats_path(subject)));
        let harder = |hard: i64, soft: i64| if hard > -1 { hard } else { soft };
        Quota {
            namespace: crate::metrics::top_namespace(subject).unwrap_or_default().to_owned(),
            count_limit: harder(limits.count_hard, limits.count),
            bytes_limit: harder(limits.bytes_hard, limits.bytes),
            count_usage: usage.count,
            bytes_usage: usage.bytes,
        }
    }
}

/// Entries by their heads, both in order; of too many some, for to find the first, all would have to be sorted.
fn listed<H: Ord, E: Ord>(entries: impl Iterator<Item = (H, E)>) -> Vec<(H, Vec<E>)> {
    let mut by_head: BTreeMap<H, Vec<E>> = BTreeMap::new();
    for (head, entry) in entries.take(LISTED_MAX) {
        by_head.entry(head).or_default().push(entry);
    }
    by_head.values_mut().for_each(|entries| entries.sort_unstable());
    by_head.into_iter().collect()
}

/// Sum of what is said; -1 is "not said".
fn add_said(total: &mut i64, value: i64) {
    if value > -1 {
        *total = (*total).max(0).saturating_add(value);
    }
}

impl ServerView for Pipeline {
    fn mode(&self) -> Mode {
        match self.role {
            // Its words are asked for on the client port, where nobody is served.
            Role::Leading { .. } if !self.takes_clients() => Mode::NotServing,
            Role::Leading { .. } if self.rules.ensemble => Mode::Leader,
            Role::Leading { .. } => Mode::Standalone,
            Role::Following => Mode::Follower,
            Role::Observing => Mode::Observer,
            Role::ReadOnly => Mode::ReadOnly,
            Role::Looking => Mode::NotServing,
        }
    }

    fn members(&self) -> Option<&Members> {
        self.configs.as_ref().map(|configs| &configs.committed)
    }

    fn node(&self, path: &str, address: IpAddr, authorization: Option<&str>) -> Result<NodeView, Code> {
        let ids = self.http_identities(address, authorization)?;
        let id = self.readable(path, perms::READ, &ids)?;
        let tree = self.state.tree();
        let data = tree.node(id).data().unwrap_or_default();
        // Some of them where there are too many: to find the first, all would have to be sorted.
        let mut children: Vec<String> =
            tree.children(id).take(SHOWN_CHILDREN_MAX).map(|child| tree.node(child).name().to_owned()).collect();
        children.sort_unstable();
        Ok(NodeView {
            stat: self.state.stat(id),
            data: data[..data.len().min(SHOWN_DATA_BYTES_MAX)].to_vec(),
            children,
        })
    }

    fn may_command(&self, address: IpAddr, authorization: &str) -> Result<(), Denied> {
        let ids = self.http_identities(address, Some(authorization)).map_err(|_| Denied::Unknown)?;
        let root = self.state.acl(NodeId::ROOT).map_err(|_| Denied::NotAllowed)?;
        let all = [perms::READ, perms::WRITE, perms::CREATE, perms::DELETE, perms::ADMIN];
        let allowed = all.into_iter().all(|bit| self.check_acl(root, bit, &ids).is_ok());
        if allowed { Ok(()) } else { Err(Denied::NotAllowed) }
    }

    fn is_at_rest(&self) -> bool {
        self.role == Role::Looking && !self.owes_quiesced
    }

    fn snapshot_progress(&self) -> SnapshotProgress {
        self.snapshots.progress()
    }

    fn is_observer_master(&self) -> bool {
        self.rules.observer_master
    }

    fn local_sessions(&self) -> u64 {
        self.locals.len() as u64
    }

    fn peer_state(&self) -> Option<String> {
        let doing = match self.mode() {
            Mode::Leader => "leading",
            Mode::Follower => "following",
            Mode::Observer => "observing",
            Mode::Standalone | Mode::NotServing | Mode::ReadOnly => return None,
        };
        Some(format!("{doing} - broadcast"))
    }

    fn last_zxid(&self) -> Zxid {
        // A leader shows where its epoch begins until the first transaction.
        match self.role {
            Role::Leading { epoch } => self.state.last_zxid().max(Zxid(i64::from(epoch) << 32)),
            _ => self.state.last_zxid(),
        }
    }

    fn node_count(&self) -> u64 {
        // Apache has the root in its table twice, as "" and as "/", and its tools expect 5 nodes of a fresh store.
        self.state.tree().len() as u64 + 1
    }

    fn ephemerals_count(&self) -> u64 {
        self.state.ephemerals_count() as u64
    }

    fn approximate_data_size(&self) -> u64 {
        let root = self.state.tree().node(NodeId::ROOT);
        self.state.approximate_data_size() + "/".len() as u64 + root.data_len() as u64
    }

    fn watch_count(&self) -> u64 {
        self.watches.count() as u64
    }

    fn outstanding(&self) -> u64 {
        self.conns.values().map(|conn| conn.waiting.len() as u64).sum()
    }

    fn global_sessions(&self) -> u64 {
        self.state.session_count() as u64
    }

    fn uptime_ms(&self) -> i64 {
        self.now.mono_ms - self.started_mono_ms
    }

    fn settings(&self) -> Settings {
        let mut settings = self.rules.settings.clone();
        if self.role == Role::ReadOnly
            && let Some(quorum) = &mut settings.quorum
        {
            quorum.membership = None;
        }
        settings
    }

    fn quotas(&self) -> Vec<Quota> {
        if self.state.quotas().len() > LISTED_MAX {
            return Vec::new();
        }
        let mut by_namespace: BTreeMap<String, Quota> = BTreeMap::new();
        for found in self.state.quotas().iter().map(|subject| self.quota_of(subject)) {
            let total = by_namespace.entry(found.namespace.clone()).or_insert(Quota {
                namespace: found.namespace.clone(),
                count_limit: -1,
                bytes_limit: -1,
                count_usage: -1,
                bytes_usage: -1,
            });
            add_said(&mut total.count_limit, found.count_limit);
            add_said(&mut total.bytes_limit, found.bytes_limit);
            add_said(&mut total.count_usage, found.count_usage);
            add_said(&mut total.bytes_usage, found.bytes_usage);
        }
        by_namespace.into_values().collect()
    }

    fn listed_sessions(&self) -> u64 {
        if self.leads() { self.sessions.len() as u64 } else { self.state.session_count() as u64 }
    }

    fn sessions(&self) -> Sessions {
        if !self.leads() {
            let mut known: Vec<(SessionId, i32)> = self.state.sessions().take(LISTED_MAX).collect();
            known.sort_unstable();
            return Sessions::Known(known);
        }
        let mut buckets: Vec<Bucket> = Vec::new();
        for (expires_mono_ms, session) in self.sessions.deadlines().take(LISTED_MAX) {
            match buckets.last_mut().filter(|bucket| bucket.expires_mono_ms == expires_mono_ms) {
                Some(bucket) => bucket.sessions.push(session),
                None => buckets.push(Bucket { expires_mono_ms, sessions: vec![session] }),
            }
        }
        Sessions::Expiring(buckets)
    }

    fn ephemerals(&self) -> Vec<(SessionId, Vec<Cow<'_, str>>)> {
        listed(self.state.ephemerals().map(|(session, path)| (session, Cow::Owned(path))))
    }

    fn data_watch_count(&self) -> u64 {
        self.watches.data_count() as u64
    }

    fn watch_totals(&self) -> WatchTotals {
        WatchTotals {
            connections: self.watches.data_conn_count() as u64,
            paths: self.watches.data_path_count() as u64,
            watches: self.data_watch_count(),
        }
    }

    fn watches_by_session(&self) -> Vec<(SessionId, Vec<Cow<'_, str>>)> {
        // A session that moves has two connections until the old one is closed.
        let of_conns =
            self.watches.data().map(|(path, conn)| ((self.watches.session_of(conn), conn), Cow::Borrowed(path)));
        listed(of_conns).into_iter().map(|((session, _), paths)| (session, paths)).collect()
    }

    fn watches_by_path(&self) -> Vec<(Cow<'_, str>, Vec<SessionId>)> {
        listed(self.watches.data().map(|(path, conn)| (Cow::Borrowed(path), self.watches.session_of(conn))))
    }

    fn digest_log(&self) -> Vec<(Zxid, u64)> {
        self.state.digest_log().collect()
    }
}
