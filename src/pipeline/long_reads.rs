//! multiReads of very many operations, or of very many names, are answered some of it in each turn, between the requests of
//! others. Who asked waits; what it asks behind that is held, for its own next write must not come before the answer.
//!
//! The answer is of the moment when it is given, all of it: what one of its operations reads is noted when it changes
//! meanwhile (`state::touched`), and is read again. That goes on until nothing has changed since, in rounds that become
//! shorter. The first in line is worked on, the others have not begun: so one change costs no more, however many wait.
//!
//! It is made in chunks of a few operations. Large ones are shared with the poller, not copied, and so the chunks are put
//! together at once, however many bytes they have.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::ids::ConnId;
use crate::limits::{
    LISTED_AT_ONCE, LONG_READ_BYTES_AT_ONCE, LONG_READ_PASSES_MAX, MULTI_READ_LONG, MULTI_READ_SHORT, READ_OP_BYTES,
    READ_OPS_PER_CHUNK, REPLY_BYTES_MAX,
};
use crate::ops::{MultiReadOp, ReadOp};
use crate::parts::{Parts, Piece, SHARED_BYTES_MIN, Shared};
use crate::pipeline::reply_budget::CHILDREN_LARGE;
use crate::pipeline::{Pipeline, Query, Read, Slot, reads};
use crate::records::perms;
use crate::state::acl::AuthId;
use crate::state::{Listed, State, Trace};

/// What a name counts for, of the bytes that are gone through in a turn.
const NAME_BYTES: usize = LONG_READ_BYTES_AT_ONCE / LISTED_AT_ONCE;

/// Who waits for a long multiRead.
#[derive(Debug, Default)]
pub(super) struct LongReads {
    /// In the order they came.
    line: VecDeque<ConnId>,
    /// The answer to the first is begun, and it is noted what is touched.
    is_begun: bool,
    /// Long lists that the first of them asks for: they are kept until it is answered.
    lists: Vec<Listed>,
}

impl LongReads {
    /// The list that the first waits for.
    pub fn list_awaited(&self, state: &State) -> Option<Listed> {
        self.lists.last().copied().filter(|&listed| state.is_being_listed(listed))
    }
}

/// What there is of an answer.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Nothing that it says has changed.
    is_done: bool,
    chunks: Vec<Chunk>,
    /// Of each operation that is answered, in order.
    traces: Vec<Trace>,
    /// Chunks that are to be made again.
    stale: Vec<usize>,
    /// How often that was so.
    passes: usize,
    /// Operations whose lists were waited for.
    waited: FxHashSet<usize>,
    /// Of all chunks.
    bytes: usize,
    /// Those among them that nobody shares.
    own_bytes: usize,
}

/// Answers to some operations.
#[derive(Debug)]
struct Chunk {
    ops: Range<usize>,
    parts: Parts,
}

impl Answer {
    /// More than can be told: its connection will be closed.
    fn is_flood(&self) -> bool {
        self.bytes > REPLY_BYTES_MAX
    }

    fn is_written(&self, ops: &[MultiReadOp]) -> bool {
        self.is_flood() || (self.stale.is_empty() && self.traces.len() == ops.len())
    }

    /// What is to be made next.
    fn next_ops(&self, ops: &[MultiReadOp], per_chunk: usize) -> Range<usize> {
        match self.stale.last() {
            Some(&stale) => self.chunks[stale].ops.clone(),
            None => self.traces.len()..ops.len().min(self.traces.len() + per_chunk),
        }
    }

    fn put(&mut self, chunk: Chunk) {
        self.bytes += chunk.parts.len();
        self.own_bytes += chunk.parts.own_len();
        match self.stale.pop() {
            Some(stale) => {
                let before = std::mem::replace(&mut self.chunks[stale], chunk).parts;
                self.bytes -= before.len();
                self.own_bytes -= before.own_len();
            }
            None => self.chunks.push(chunk),
        }
    }

    /// What has changed is to be read again.
    fn go_stale(&mut self, state: &State) {
        let is_stale = |chunk: &Chunk| self.traces[chunk.ops.clone()].iter().any(|&trace| state.has_touched(trace));
        self.stale = (0..self.chunks.len()).filter(|&n| is_stale(&self.chunks[n])).collect();
        self.passes += 1;
    }

    /// Whether it can be given now.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Puts it together.
    pub fn write(self, out: &mut Parts) {
        out.own().reserve(self.own_bytes);
        for chunk in self.chunks {
            chunk.parts.for_each_piece(|piece| match piece {
                Piece::Own(bytes) => out.own().extend_from_slice(&bytes),
                Piece::Lent(lent) => out.lend(lent),
            });
        }
    }
}

impl Pipeline {
    /// Whether this is a multiRead that is answered in turns. Nearly always it is short, and nothing is looked up.
    fn is_long(&self, read: &Read) -> bool {
        let Query::Read(ReadOp::MultiRead(ops)) = &read.query else { return false };
        let names_max = self.state.rules().listed_at_once;
        if ops.len() <= MULTI_READ_SHORT && !self.state.tree().is_wide() {
            return false;
        }
        ops.len() > MULTI_READ_LONG || ops.iter().map(|op| self.unlisted(op, &read.auth)).sum::<usize>() > names_max
    }

    /// How many names must be gone through for this.
    fn unlisted(&self, op: &MultiReadOp, auth: &[AuthId]) -> usize {
        match op {
            MultiReadOp::GetData { .. } => 0,
            MultiReadOp::GetChildren { path } => match self.readable(path, perms::READ, auth) {
                Ok(node) => self.state.unlisted(Listed::Children(node)),
                Err(_) => 0,
            },
        }
    }

    /// A long multiRead stands behind a write: what comes after it is held from now on. It is begun when its turn has come.
    pub(super) fn hold_behind_long_read(&mut self, id: ConnId, read: &mut Read) {
        if self.is_long(read)
            && let Some(conn) = self.conns.get_mut(&id)
        {
            conn.in_turns = true;
            read.answer = Some(Box::default());
        }
    }

    /// Whether this, whose turn has come, is answered in turns and is not done. Then its connection waits.
    pub(super) fn is_answered_in_turns(&mut self, id: ConnId, read: &mut Read) -> bool {
        if read.answer.is_none() && !self.is_long(read) {
            return false;
        }
        if read.answer.get_or_insert_default().is_done {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.in_turns = true;
            if !self.long_reads.line.contains(&id) {
                self.long_reads.line.push_back(id);
            }
        }
        true
    }

    /// Whether there is something to do for those in line: not while the first waits for room, as all of them would. While a
    /// list of members is not in force there is not, see [`Pipeline::can_go_on_with_lists`].
    pub(super) fn can_go_on_with_long_reads(&self) -> bool {
        let LongReads { line, is_begun, .. } = &self.long_reads;
        let waits_for_room = |id| !is_begun && self.conns.get(id).is_some_and(|conn| conn.in_line);
        line.front().is_some_and(|id| !waits_for_room(id)) && !self.is_reconfiguring()
    }

    /// On with the first in line, and with the next one if there is time left.
    pub(super) fn go_on_with_long_reads(&mut self) {
        let mut left = NAME_BYTES * self.state.rules().listed_at_once;
        while left > 0
            && self.can_go_on_with_long_reads()
            && self.long_reads.list_awaited(&self.state).is_none()
            && let Some(&id) = self.long_reads.line.front()
        {
            let Some(mut read) = self.take_long_read(id) else {
                // It was answered at once, before a write of its own, or its connection is gone or full.
                self.leave_line(id);
                continue;
            };
            if !self.long_reads.is_begun {
                if self.must_wait(id, &read) {
                    return self.put_back(id, read);
                }
                self.long_reads.is_begun = true;
                read.answer = Some(Box::default());
                self.state.note_touched();
            }
            self.answer_some(&mut read, &mut left);
            let is_done = read.answer.as_ref().is_some_and(|answer| answer.is_done);
            self.reply_budget.on_making(read.answer.as_ref().map_or(0, |answer| answer.own_bytes));
            self.put_back(id, read);
            if !is_done {
                return;
            }
            self.leave_line(id);
        }
    }

    /// Not of a connection that is full, where it could not be given when it is done.
    fn take_long_read(&mut self, id: ConnId) -> Option<Read> {
        let is_long = |slot: &mut Slot| matches!(slot, Slot::Read(read) if read.answer.is_some());
        let conn = self.conns.get_mut(&id).filter(|conn| !conn.is_full)?;
        match conn.waiting.pop_front_if(is_long)? {
            Slot::Read(read) => Some(read),
            Slot::Write => None,
        }
    }

    fn put_back(&mut self, id: ConnId, read: Read) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.waiting.push_front(Slot::Read(read));
        }
    }

    /// The first in line waits no more: on with what its connection asked.
    fn leave_line(&mut self, id: ConnId) {
        self.long_reads.line.pop_front();
        self.end_first();
        self.end_turns_of(id);
    }

    /// Nothing is kept for the first in line any more.
    fn end_first(&mut self) {
        self.long_reads.is_begun = false;
        std::mem::take(&mut self.long_reads.lists).into_iter().for_each(|listed| self.state.release_list(listed));
        self.state.end_touched();
        self.reply_budget.on_making(0);
    }

    /// Nobody waits any more.
    pub(super) fn give_up_long_reads(&mut self) {
        self.end_first();
        self.long_reads.line.clear();
    }

    /// Goes through so many bytes, or on to a list that has to be made first. The answer is done when nothing that it says
    /// has changed.
    fn answer_some(&mut self, read: &mut Read, left: &mut usize) {
        let Read { query: Query::Read(ReadOp::MultiRead(ops)), auth, answer: Some(answer), .. } = read else { return };
        loop {
            while !answer.is_written(ops) {
                if *left == 0 && answer.passes < LONG_READ_PASSES_MAX {
                    return;
                }
                while let Err((op, listed)) = self.answer_chunk(answer, ops, auth, left) {
                    if !self.keep_list(listed, left, answer.waited.contains(&op)) {
                        answer.waited.insert(op);
                        return;
                    }
                }
            }
            if answer.is_flood() || !self.state.is_touched() {
                answer.is_done = true;
                return;
            }
            answer.go_stale(&self.state);
            self.state.note_touched();
        }
    }

    /// A long list is kept until all is answered. Whether it is made by now, as one is that is not too long for this turn,
    /// and one of an operation that has waited: its node was made since, and so it can be at every turn.
    fn keep_list(&mut self, listed: Listed, left: &mut usize, has_waited: bool) -> bool {
        self.state.await_list(listed);
        self.long_reads.lists.push(listed);
        let bytes = NAME_BYTES * self.state.unlisted(listed);
        let is_made = has_waited || bytes <= *left;
        if is_made {
            self.state.list(listed);
            *left = left.saturating_sub(bytes);
        }
        is_made
    }

    /// Answers the operations that are next, a few of them, or all of a chunk whose answers are stale. Fails with an operation
    /// and its long list, which is to be made first.
    fn answer_chunk(
        &mut self,
        answer: &mut Answer,
        ops: &[MultiReadOp],
        auth: &[AuthId],
        left: &mut usize,
    ) -> Result<(), (usize, Listed)> {
        let names_max = self.state.rules().listed_at_once;
        let few = (names_max + 1).min(CHILDREN_LARGE as usize);
        let is_again = !answer.stale.is_empty();
        let mut range = answer.next_ops(ops, READ_OPS_PER_CHUNK.min(names_max));
        let mut parts = Parts::default();
        let mut read_bytes = 0;
        for n in range.clone() {
            let path = ops[n].path();
            let found = self.readable(path, perms::READ, auth);
            if let (MultiReadOp::GetChildren { .. }, Ok(node)) = (&ops[n], found)
                && self.state.tree().node(node).num_children() as usize >= few
                && self.state.unlisted(Listed::Children(node)) > 0
            {
                if is_again || n == range.start {
                    return Err((n, Listed::Children(node)));
                }
                range.end = n;
                break;
            }
            let content_bytes = self.write_read(&mut parts, &ops[n], found);
            read_bytes += READ_OP_BYTES + path.len();
            if is_again {
                continue;
            }
            reads::count_found(path, content_bytes);
            if parts.own_len() >= SHARED_BYTES_MIN {
                range.end = n + 1;
                break;
            }
        }
        if !is_again {
            answer.traces.extend(ops[range.clone()].iter().map(|op| self.state.trace(op.path())));
        }
        *left = left.saturating_sub(read_bytes + parts.own_len());
        answer.put(Chunk { ops: range, parts: self.share_large(parts) });
        Ok(())
    }

    /// What is large among these bytes is shared with those who send it, and counts as such from now on.
    fn share_large(&mut self, parts: Parts) -> Parts {
        if parts.own_len() < SHARED_BYTES_MIN {
            return parts;
        }
        let mut shared = Parts::default();
        parts.for_each_piece(|piece| match piece {
            Piece::Own(mut bytes) if bytes.len() >= SHARED_BYTES_MIN => {
                bytes.shrink_to_fit();
                shared.lend(self.reply_budget.lend(Shared::Whole(Arc::new(bytes)), 0));
            }
            Piece::Own(bytes) => shared.own().extend_from_slice(&bytes),
            Piece::Lent(lent) => shared.lend(lent),
        });
        shared
    }
}
