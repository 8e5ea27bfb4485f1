//! Deliberate wrongs inside the cores, which the simulation must catch: with the feature `breakages` a test turns one on, for
//! all servers of its thread. Without it there is none, and nothing asks.

/// What is done wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// Votes are compared by server before zxid.
    VoteByServerFirst,
    /// Of one transaction in eight nobody hears who watches.
    WatchLost,
    /// Events leave after the answer to what caused them.
    EventsAfterAnswer,
    /// Who may not read a node hears of it.
    EventsUnfiltered,
    /// What was missed of a child list is not caught up with.
    ChildrenNotCaughtUp,
    /// A delete looks at children before the version.
    DeleteErrorsSwapped,
    /// What stands in a multi before what fails is done.
    MultiPartlyApplied,
    /// A delete asks nobody's permission.
    DeleteUnchecked,
    /// A multi's check lets any version pass.
    CheckIgnoresVersion,
    /// A delete leaves its parent's pzxid.
    ChildZxidKept,
    /// Sequential nodes are numbered by the children that are there.
    SequenceReused,
    /// What is deleted goes on counting for its quota.
    QuotaKeepsDeleted,
    /// The last ephemeral of a session stays when it ends.
    EphemeralOutlivesSession,
    /// Nodes with a time to live go at half of it.
    TtlHalved,
    /// A list that no node has any more stays in the table.
    AclKept,
    /// A local session's ephemeral needs no global one.
    LocalSessionOwns,
}

#[cfg(feature = "breakages")]
thread_local! {
    static ON: std::cell::Cell<Option<Wrong>> = const { std::cell::Cell::new(None) };
}

/// From now on this is done wrong by all servers of this thread, and nothing else.
#[cfg(feature = "breakages")]
pub fn turn_on(wrong: Option<Wrong>) {
    ON.set(wrong);
}

/// Whether this is to be done wrong.
#[cfg(feature = "breakages")]
pub fn is_on(wrong: Wrong) -> bool {
    ON.get() == Some(wrong)
}

/// Whether this is to be done wrong.
#[cfg(not(feature = "breakages"))]
pub const fn is_on(_: Wrong) -> bool {
    false
}
