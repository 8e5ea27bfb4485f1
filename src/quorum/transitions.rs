//! Which change of role, stage or phase there is. Each kind of those has one table, beside its definition; a change that
//! is in no table is a bug, and ends the process before anything is said because of it. Used by `peer`, `leader` and
//! `learner`.

use std::fmt::Debug;

/// Something that a server, or one of its links, is in.
pub(super) trait Transitions: Debug {
    /// The table.
    fn may_become(&self, next: &Self) -> bool;
}

/// The only way from one to the next.
///
/// # Panics
/// If the table does not have it.
pub(super) fn enter<T: Transitions>(at: &mut T, next: T) {
    assert!(at.may_become(&next), "this server cannot go from {at:?} to {next:?}");
    *at = next;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Step(u32);

    impl Transitions for Step {
        fn may_become(&self, next: &Step) -> bool {
            next.0 == self.0 + 1
        }
    }

    #[test]
    fn one_that_is_in_the_table_is_taken() {
        let mut at = Step(1);
        enter(&mut at, Step(2));
        assert_eq!(at, Step(2));
    }

    #[test]
    #[should_panic(expected = "from Step(1) to Step(3)")]
    fn one_that_is_not_ends_the_process() {
        enter(&mut Step(1), Step(3));
    }
}
