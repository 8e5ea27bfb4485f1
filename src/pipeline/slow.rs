//! Requests that took too long: warnings that name the stages of their way, and the longest of them.

use std::fmt;

use crate::ids::{ConnId, SessionId, Zxid};
use crate::ops::ReadOp;
use crate::pipeline::{Complaint, Conn, Origin, Pipeline, Proposal, Query, Read};

/// Since when a transaction is durable, monotonic microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Durable {
    /// In this server's own log, if that was said by its commit.
    here_us: Option<i64>,
    /// Where it must be; `None`: on a learner, whose leader knows.
    committed_us: Option<i64>,
}

/// What a request waited for, and how long, microseconds.
struct Stages(Vec<(&'static str, i64)>);

impl Stages {
    /// `front` is what it waited for before it was taken up.
    fn of_write(front: &'static str, origin: &Origin, durable: Durable, is_alone: bool, now_us: i64) -> Stages {
        let (waited_us, taken_us) = (origin.taken_us - origin.received_us, origin.taken_us);
        // The pipeline reads its clock once a turn, so what it is told may be a little later than that.
        let now_us = now_us.max(taken_us);
        let Some(committed_us) = durable.committed_us else {
            return Stages(vec![(front, waited_us), ("the leader's answer", now_us - taken_us)]);
        };
        // The quorum thread reads its clock once a turn, too: what it knew of the sync here was before the commit.
        let committed_us = committed_us.max(durable.here_us.unwrap_or(i64::MIN)).clamp(taken_us, now_us);
        let mut stages = vec![(front, waited_us)];
        match durable.here_us.map(|here_us| here_us.clamp(taken_us, committed_us)) {
            _ if is_alone => stages.push(("the sync here", committed_us - taken_us)),
            Some(here_us) => {
                stages.extend([("the sync here", here_us - taken_us), ("the other servers", committed_us - here_us)]);
            }
            None => stages.push(("the other servers (it was not synced here even then)", committed_us - taken_us)),
        }
        stages.push(("the pipeline to apply it", now_us - committed_us));
        Stages(stages)
    }

    fn of_read(front: &'static str, read: &Read, now_us: i64) -> Stages {
        let (waited_us, taken_us) = (read.taken_us - read.received_us, read.taken_us);
        let before = match read.query {
            Query::Read(ReadOp::Sync { .. }) => "what its client asked before, and the leader",
            _ => "what its client asked before",
        };
        let now_us = now_us.max(taken_us);
        let begins_us = |n: usize| read.waits.get(n).map_or(now_us, |(_, from_us)| *from_us);
        let mut stages = vec![(front, waited_us), (before, begins_us(0) - taken_us)];
        stages.extend(read.waits.iter().enumerate().map(|(n, (what, from_us))| (*what, begins_us(n + 1) - from_us)));
        Stages(stages)
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all_us: i64 = self.0.iter().map(|(_, us)| us).sum();
        // Of equals the first: `max_by_key` gives the last.
        let longest = self.0.iter().rev().max_by_key(|(_, us)| *us).map_or("", |(stage, _)| *stage);
        write!(f, "waited {} ms, most of it for {longest}: ", all_us / 1000)?;
        for (n, (stage, us)) in self.0.iter().enumerate() {
            write!(f, "{}{} ms for {stage}", if n > 0 { ", " } else { "" }, us / 1000)?;
        }
        Ok(())
    }
}

impl Pipeline {
    /// Since when the next transaction in order is durable, of which it was told that it is so since `committed_us`.
    pub(super) fn durable_since(&mut self, zxid: Zxid, committed_us: i64) -> Durable {
        while self.synced.pop_front_if(|synced| synced.zxid < zxid).is_some() {}
        Durable { here_us: self.synced.front().map(|synced| synced.at_us), committed_us: Some(committed_us) }
    }

    pub(super) fn warn_of_slow_write(&mut self, origin: &Origin, proposal: &Proposal) {
        let session = self.conns.get(&origin.conn).and_then(|conn| conn.session).unwrap_or(SessionId::NONE);
        let stages = self.stages_of_write(origin, proposal.durable);
        let zxid = proposal.txn.header.zxid;
        self.complain(Complaint::SlowWrite, || format!("a write of session {session} ({zxid}) {stages}"));
    }

    fn stages_of_write(&self, origin: &Origin, durable: Durable) -> Stages {
        let front = self.front(origin.conn, origin.received_us);
        Stages::of_write(front, origin, durable, !self.rules.ensemble, self.now_us)
    }

    pub(super) fn warn_of_slow_read(&mut self, id: ConnId, session: SessionId, op: &str, read: &Read) {
        let stages = Stages::of_read(self.front(id, read.received_us), read, self.now_us);
        self.complain(Complaint::SlowRead, || format!("a read of session {session} ({op}) {stages}"));
    }

    /// What a request that was read then waited for before it was taken up.
    fn front(&self, id: ConnId, received_us: i64) -> &'static str {
        match self.conns.get(&id) {
            Some(Conn { released: Some((at_us, what)), .. }) if *at_us >= received_us => what,
            _ => "the pipeline to take it up",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Now;
    use crate::mail::{Role, Synced, ToPipeline};
    use crate::pipeline::{Asked, ReplyShape, Rules};
    use crate::records::OwnerRules;
    use crate::state::{State, StateRules};

    const CONN: ConnId = ConnId { slot: 1, generation: 1 };

    /// At 10,000 ms.
    fn pipeline(rules: Rules) -> Pipeline {
        let owners = OwnerRules { extended_types: true, emulate_353: false };
        let now = Now { mono_ms: 10_000, wall_ms: 1_700_000_000_000 };
        Pipeline::new(rules, State::fresh(StateRules::new(owners, true)), now, 1)
    }

    fn leader() -> Pipeline {
        let mut leader = pipeline(Rules { ensemble: true, ..Rules::default() });
        leader.step(ToPipeline::Role(Role::Leading { epoch: 1 }));
        leader
    }

    fn zxid(counter: i64) -> Zxid {
        Zxid(1 << 32 | counter)
    }

    /// Read at 1,000 ms and taken up at 1,020.
    fn write() -> Origin {
        let (received_us, taken_us) = (1_000_000, 1_020_000);
        Origin { conn: CONN, xid: 1, received_us, taken_us, reply: ReplyShape::Stat, audited: None }
    }

    fn told(pipeline: &mut Pipeline, now_ms: i64, durable: Durable) -> String {
        pipeline.now_us = now_ms * 1000;
        pipeline.stages_of_write(&write(), durable).to_string()
    }

    fn durable(here_ms: Option<i64>, committed_ms: i64) -> Durable {
        Durable { here_us: here_ms.map(|ms| ms * 1000), committed_us: Some(committed_ms * 1000) }
    }

    #[test]
    fn a_leader_whose_own_disk_is_slow_says_so() {
        let said = told(&mut leader(), 4030, durable(Some(4000), 4010));
        let wanted = "waited 3030 ms, most of it for the sync here: 20 ms for the pipeline to take it up, 2980 ms for the sync here, 10 ms for the other servers, 20 ms for the pipeline to apply it";
        assert_eq!(said, wanted);
        // It was the last that the quorum lacked, and its commit is of the turn in which that was heard.
        let said = told(&mut leader(), 4030, durable(Some(4020), 4019));
        assert!(
            said.contains("3000 ms for the sync here, 0 ms for the other servers, 10 ms for the pipeline"),
            "{said}"
        );
    }

    #[test]
    fn a_leader_that_waits_for_the_others_says_so() {
        let said = told(&mut leader(), 4030, durable(Some(1025), 4010));
        let wanted = "waited 3030 ms, most of it for the other servers: 20 ms for the pipeline to take it up, 5 ms for the sync here, 2985 ms for the other servers, 20 ms for the pipeline to apply it";
        assert_eq!(said, wanted);
        // They were enough without this server, which is not a reason to call its disk quick.
        let said = told(&mut leader(), 4030, durable(None, 4010));
        let wanted = "waited 3030 ms, most of it for the other servers (it was not synced here even then): 20 ms for the pipeline to take it up, 2990 ms for the other servers (it was not synced here even then), 20 ms for the pipeline to apply it";
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_commit_that_the_pipeline_takes_up_late_is_not_blamed_on_the_others() {
        let said = told(&mut leader(), 4000, durable(Some(1025), 1030));
        assert!(said.starts_with("waited 3000 ms, most of it for the pipeline to apply it: "), "{said}");
    }

    #[test]
    fn a_server_alone_has_no_others() {
        let said = told(&mut pipeline(Rules::default()), 4000, durable(None, 3900));
        let wanted = "waited 3000 ms, most of it for the sync here: 20 ms for the pipeline to take it up, 2880 ms for the sync here, 100 ms for the pipeline to apply it";
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_learner_waits_for_its_leader() {
        let mut learner = pipeline(Rules { ensemble: true, ..Rules::default() });
        learner.step(ToPipeline::Role(Role::Following));
        let said = told(&mut learner, 4000, Durable::default());
        let wanted = "waited 3000 ms, most of it for the leader's answer: 20 ms for the pipeline to take it up, 2980 ms for the leader's answer";
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_read_behind_a_slow_write_or_long_in_the_queue_says_which() {
        let read = |taken_us| {
            let asked = Asked { xid: 1, op_number: 11, body: Vec::new(), received_us: 1_000_000 };
            Read::new(&asked, Query::Read(ReadOp::Ping), Vec::new().into(), taken_us)
        };
        let said = |taken_us| Stages::of_read("the pipeline to take it up", &read(taken_us), 3_000_000).to_string();
        let behind = "waited 2000 ms, most of it for what its client asked before: 20 ms for the pipeline to take it up, 1980 ms for what its client asked before";
        assert_eq!(said(1_020_000), behind);
        let queued = "waited 2000 ms, most of it for the pipeline to take it up: 2000 ms for the pipeline to take it up, 0 ms for what its client asked before";
        assert_eq!(said(3_000_000), queued);
        // One that waited when its turn came says for what, in order.
        let mut listed = read(1_020_000);
        listed.wait("its list of children to be made, some in each turn", 1_500_000);
        listed.wait("its list of children to be made, some in each turn", 1_600_000);
        listed.wait("room for its answer, which others are to take", 2_900_000);
        let said = Stages::of_read("the pipeline to take it up", &listed, 3_000_000).to_string();
        let wanted = "waited 2000 ms, most of it for its list of children to be made, some in each turn: 20 ms for the pipeline to take it up, 480 ms for what its client asked before, 1400 ms for its list of children to be made, some in each turn, 100 ms for room for its answer, which others are to take";
        assert_eq!(said, wanted);
    }

    #[test]
    fn each_transaction_has_the_sync_that_covered_it() {
        let mut leader = leader();
        let synced = |counter, at_us| Synced { zxid: zxid(counter), at_us };
        leader.step(ToPipeline::Committed {
            zxid: zxid(0),
            at_us: 5,
            synced: vec![synced(2, 10), synced(3, 20), synced(7, 30)],
        });
        let here = |leader: &mut Pipeline, counter| leader.durable_since(zxid(counter), 99).here_us;
        let first: Vec<_> = (1..=4).map(|counter| here(&mut leader, counter)).collect();
        assert_eq!(first, [Some(10), Some(10), Some(20), Some(30)]);
        // What a later commit says goes on where this one ended.
        leader.step(ToPipeline::Committed { zxid: zxid(0), at_us: 5, synced: vec![synced(8, 40)] });
        let rest: Vec<_> = (5..=9).map(|counter| here(&mut leader, counter)).collect();
        assert_eq!(rest, [Some(30), Some(30), Some(30), Some(40), None]);
        // The next reign counts anew.
        leader.step(ToPipeline::Committed { zxid: zxid(0), at_us: 5, synced: vec![synced(12, 50)] });
        leader.step(ToPipeline::Role(Role::Looking));
        assert!(leader.synced.is_empty());
    }
}
