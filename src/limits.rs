//! Every bound that is not configured: value, unit, reason. Configured ones (`jute.maxbuffer` and friends) are in
//! `config`.

/// Longest record this server writes, bytes: lengths are signed 32-bit integers on disk and on the wire.
pub const RECORD_BYTES_MAX: usize = i32::MAX as usize;

/// Bytes of the log that are written between two syncs, unless one record alone has more. `storage::writer` keeps to it.
/// It is also what a crash can spoil (`storage::tail`): the less, the less damage looks like one. At 1000 records (below)
/// of 1 KiB, what is usual and more, both bounds meet; larger values still fill a disk's bandwidth with it.
pub const LOG_BATCH_BYTES_MAX: usize = 1 << 20;

/// Records that are written between two syncs, whatever `maxBatchSize` says: it is Apache's default, so that a log of either
/// is judged by the same number. `storage::writer` keeps to it.
pub const LOG_BATCH_RECORDS_MAX: usize = 1000;

/// Requests of one connection that may wait behind its own unfinished write. The poller stops reading a connection that
/// has this many unanswered requests; more is a bug.
pub const UNANSWERED_PER_CONNECTION_MAX: usize = 4096;

/// Frames up to this length take no room in the account of requests: pings, reads and small writes do not wait behind large
/// ones. They are bounded by their number, which is `globalOutstandingLimit` and one more for each connection.
pub const SMALL_FRAME_BYTES: usize = 1 << 10;

/// Bytes of a connect request: it has 45, and a password, which is 16 bytes of those if it is one of ours. So nobody takes
/// room before it has a session.
pub const CONNECT_BYTES_MAX: usize = SMALL_FRAME_BYTES;

/// Bytes taken at once from a connection that has no room, while others stand in line: of ten thousand connections that is
/// 40 MB.
pub const READ_BYTES_IN_LINE: usize = 4 << 10;

/// Pause between two looks at those who have room and those who wait for it, ms.
pub const LINE_LOOK_MS: i64 = 1_000;

/// Bytes of large frames that must come between two looks while others wait for room, of all those frames together: a
/// megabit a second (`net::load::enough_per_look`).
pub const FRAME_BYTES_PER_LOOK: u64 = 128 << 10;

/// Looks in a row at which less had come, after which the connection is closed: who sends the beginning of a request and
/// then nothing must not keep the room of others.
pub const SLOW_LOOKS_MAX: u32 = 5;

/// What a transaction or a packet is taken to cost beside its payload where their bytes are bounded.
pub const TXN_OVERHEAD_BYTES: usize = 64;

/// The pipeline says so when it has applied this many more: rarely enough to cost small writes nothing.
pub const APPLIED_BYTES_AT_ONCE: usize = 1 << 20;

/// A leader's pipeline wants to hear that this many more are in its own log: rarely enough, too.
pub const LOGGED_BYTES_AT_ONCE: usize = 1 << 20;

/// What waits for all learners may be this many times the account of links where only voters are left: one that comes late
/// may be sent all that was committed meanwhile.
pub const VOTERS_TIMES: usize = 3;

/// Unsent reply bytes of one connection above which its requests are not read any more.
pub const UNSENT_BYTES_PAUSE: usize = 1 << 20;

/// The same while replies have no room left: who does not take its answers is answered no more.
pub const UNSENT_BYTES_PAUSE_TIGHT: usize = 16 << 10;

/// Bytes of what one connection is told in a step, above which it is closed. Far above the largest reply that anybody can
/// use (a children list of tens of MB), and what a frame's length can say.
pub const REPLY_BYTES_MAX: usize = 256 << 20;

/// Bytes that a connection must take between two looks, unless that is all, while replies have no room left.
pub const TAKEN_BYTES_PER_LOOK: u64 = 64 << 10;

/// Bytes of snapshot that the pipeline hands over at once. Small enough to be made between two batches of requests.
pub const SNAPSHOT_CHUNK_BYTES: usize = 128 << 10;

/// Snapshot chunks that may wait for the disk; the pipeline makes no more until one is written.
pub const SNAPSHOT_CHUNKS_IN_FLIGHT: usize = 8;

/// Pieces of a state on their way to one learner; the pipeline makes no more until the kernel took one.
pub const SNAPSHOT_PIECES_IN_FLIGHT: usize = 4;

/// Keys (namespaces, learners) of one metric set. Clients name namespaces as they like, each costs some 500 bytes of
/// `mntr`, and so this keeps the answer near 128 KiB; more are not told apart.
pub const METRIC_KEYS_MAX: usize = 256;

/// Bytes of such a key.
pub const METRIC_KEY_BYTES_MAX: usize = 128;

/// Bytes taken from one connection in one turn of the poller. Others are served before it gets its next turn.
pub const READ_BYTES_PER_TURN: usize = 64 << 10;

/// Bytes written to one connection in one turn of the poller: a copy of this size takes well under a millisecond.
pub const WRITE_BYTES_PER_TURN: usize = 1 << 20;

/// Descriptors that clients, strangers on the ports between servers and operators leave to the files of the store: the log,
/// the next ones, those that are cut; the snapshot that is written, the one that is proved, the one that is purged.
pub const FILE_DESCRIPTORS: u64 = 64;

/// Descriptors for links between servers, dials and listeners: enough for fifteen others.
pub const LINK_DESCRIPTORS: u64 = 64;

/// Descriptors for operators: each port has as many as may be there, and as many that are leaving.
pub const OPERATOR_DESCRIPTORS: u64 = 2 * 2 * HTTP_CONNECTIONS_MAX as u64;

/// What clients leave to all others.
pub const KEPT_DESCRIPTORS: u64 = FILE_DESCRIPTORS + LINK_DESCRIPTORS + OPERATOR_DESCRIPTORS;

/// A connection for which more than this waits takes its turn with others like it: small answers do not wait for them.
pub const BULK_BYTES: usize = 64 << 10;

/// Bytes written to all such connections in one turn of the poller: a millisecond or two.
pub const BULK_BYTES_PER_TURN: usize = 2 << 20;

/// Bytes that the kernel takes of a connection and has not begun to send: enough to keep any link busy, beside what is on its
/// way.
pub const SOCKET_UNSENT_BYTES: u32 = 128 << 10;

/// Connections accepted on one listener in one turn of the poller.
pub const ACCEPTS_PER_TURN: usize = 64;

/// Connections that are closed in one turn where an operator wants many closed.
pub const SHED_PER_TURN: usize = 256;

/// Bytes of what an operator sends with such a command: a number with its name.
pub const SHED_BODY_BYTES_MAX: u64 = 4096;

/// Bytes that are read and thrown away after a four-letter word or a closing session, so that the client sees the end of
/// the stream and not a reset.
pub const DISCARDED_BYTES_MAX: usize = 1 << 20;

/// Longest answer that our own client takes, bytes. Servers do not bound them: a long children list has tens of MB. Memory
/// grows with what really comes, not with what a length promises.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A look for silent connections that comes later than this is put off by as much, ms: what they said is read first.
pub const SWEEP_LATE_MS: i64 = 1_000;

/// How long a closing connection waits for the client to close its side, or to take one more byte, ms.
pub const LINGER_MS: i64 = 2_000;

/// Pause of accepting when the process is out of file descriptors, ms; a closing connection ends it sooner.
pub const ACCEPT_PAUSE_MS: i64 = 100;

/// How long the poller tries to get rid of what is queued when the server stops, ms.
pub const STOP_FLUSH_MS: i64 = 500;

/// Entries of an access list that a client may store. Each access to the node looks through them, and whoever needs more
/// than a few has a group, not a list; Apache has no bound but the length of a request.
pub const ACL_ENTRIES_MAX: usize = 4096;

/// Bytes of an access list that a client may store, once `auth` entries are what they stand for: a request of some bytes
/// must not become a transaction of gigabytes.
pub const ACL_BYTES_MAX: usize = 1 << 20;

/// What a transaction's record has beside its body, bytes, and then some: header, digest, paths of a multi's parts.
pub const TXN_FRAME_BYTES: usize = 64 << 10;

/// Identities of a connection. Each access looks through them, and each `auth` entry becomes all of them, which
/// [`ACL_ENTRIES_MAX`] bounds. Apache has no bound; a server of ours passes on no more than a leader of ours takes.
pub const IDENTITIES_MAX: usize = 1024;

/// Bytes of them: hashes are of 28 to 88 characters.
pub const IDENTITY_BYTES_MAX: usize = 64 << 10;

/// Bytes of the identities of all connections together, which each write of a client may add once more on its way to the
/// leader. One connection's first [`IDENTITY_BYTES_ALWAYS`] do not count.
pub const IDENTITY_BYTES_TOTAL: usize = 32 << 20;

/// What a connection may have whatever others have.
pub const IDENTITY_BYTES_ALWAYS: usize = 4096;

const _: () = assert!(IDENTITIES_MAX <= FORWARDED_IDENTITIES_MAX);
const _: () = assert!(IDENTITY_BYTES_MAX <= FORWARDED_IDENTITY_BYTES_MAX);

const _: () = assert!(UNSENT_BYTES_PAUSE < REPLY_BYTES_MAX);

/// Pieces of mail that the pipeline takes before it delivers what they led to: enough to amortise a wake-up, few enough
/// that the log and the clients are kept busy meanwhile.
pub const PIPELINE_MAIL_PER_TURN: usize = 2048;

/// Sessions whose time is up, their ephemerals, containers and TTL nodes, whose ends a leader has on their way at once: a
/// millisecond or two of work for the pipeline, and less than a batch of the log. `pipeline::expiring` keeps to it; a session
/// with more ends alone.
pub const EXPIRING_NODES: usize = 256;

/// Names that are put into lists in one turn of the pipeline, less than a millisecond: of a node with more children, or a
/// session with more ephemerals, the list is made over several turns, and those who asked for it wait (`pipeline::listing`).
pub const LISTED_AT_ONCE: usize = 4096;

/// Operations of a multiRead that are answered in the turn in which it came, whatever they are: what lists they ask for need
/// not be looked at, as long as no node has more children than are listed in a turn.
pub const MULTI_READ_SHORT: usize = 16;

/// More operations are a long multiRead, as are fewer that list more than [`LISTED_AT_ONCE`] names: it is answered over
/// several turns (`pipeline::long_reads`).
pub const MULTI_READ_LONG: usize = 512;

/// Of a long multiRead, so many bytes of paths and answers are gone through in one turn of the pipeline: a millisecond or two.
pub const LONG_READ_BYTES_AT_ONCE: usize = 128 << 10;

/// What each of its operations counts for beside its bytes.
pub const READ_OP_BYTES: usize = 32;

/// Operations of a long multiRead whose answers are made together, and made again when what one of them read has changed.
pub const READ_OPS_PER_CHUNK: usize = 64;

/// How often what changed is read again, some in each turn. After that it is read at once: others change it faster.
pub const LONG_READ_PASSES_MAX: usize = 8;

/// Pause between two looks for lists of children that nobody asked for since the last, ms.
pub const LISTS_LOOK_MS: i64 = 60_000;

/// Watches that one setWatches may set in the turn in which it came; of one with more, some are set in each turn, and no more
/// than so many before it is the next one's turn.
pub const WATCHES_SET_IN_TURNS: usize = 512;

/// Watches of such requests that are set in one turn of the pipeline, some milliseconds.
pub const WATCHES_SET_AT_ONCE: usize = 2048;

/// Watches of connections that are gone that are removed in one turn of the pipeline, a millisecond or so.
pub const WATCHES_REMOVED_AT_ONCE: usize = 4096;

/// Watchers of the same path who move up when one goes, whose moving takes about as long as to remove one: a few kilobytes
/// of memory.
pub const WATCHERS_MOVED_AS_ONE: usize = 256;

/// Containers and TTL nodes that are looked at in one turn of the leader's pipeline, a millisecond or so.
pub const CHILDLESS_LOOKED_AT_ONCE: usize = 8192;

/// Connections whose lists of children are made and that are answered in one turn.
pub const LISTERS_PER_TURN: usize = 256;

/// How long poller and pipeline stay awake for the next request when requests have come this close together lately,
/// microseconds. Without it a get over loopback has two speeds here, 15 or 100 us, by whether a core was halted.
pub const SPIN_IDLE_US: i64 = 50;

/// The same while an answer is on its way, microseconds: longer than a quorum of servers takes to sync a write on good
/// disks, so that neither thread needs to be woken for it.
pub const SPIN_IN_FLIGHT_US: i64 = 600;

/// How long the log's thread stays awake for the next record, microseconds: a client that writes again as soon as it is
/// answered is back by then, and its write does not wait for a thread to be woken.
pub const SPIN_TXNLOG_US: i64 = 500;

/// Bytes of a list of members: what fits into a notification of an election, of which no server takes more. 255 servers,
/// each with many addresses, have room in it.
pub const MEMBERS_TEXT_BYTES_MAX: usize = (512 << 10) - 44;

/// Identities of a client in a request that a learner forwards. Each costs a look at each access.
pub const FORWARDED_IDENTITIES_MAX: usize = 1024;

/// Bytes of them; Java servers let their clients have more than [`IDENTITY_BYTES_MAX`].
pub const FORWARDED_IDENTITY_BYTES_MAX: usize = 1 << 20;

/// The last counter that a zxid may have: the one after the next would run into the epoch, and Apache stops here too.
pub const LAST_COUNTER: u32 = u32::MAX - 1;

/// Connections to an HTTP port at a time, each with a thread: a person with a browser and a scraper or two. For one more
/// the one goes that owes its request the longest; where all have sent theirs, it is closed (`sys::http`).
pub const HTTP_CONNECTIONS_MAX: usize = 16;

/// Bytes of the head of an HTTP request.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 << 10;

/// Entries of a list (connections, watches, sessions, ephemeral nodes) that operators are shown. Lists are made in the
/// turns of poller and pipeline, and nobody is served meanwhile. The status page knows the number too.
pub const LISTED_MAX: usize = 10_000;

/// Bytes of a node's data that the status page shows.
pub const SHOWN_DATA_BYTES_MAX: usize = 4096;

/// Children of a node that the status page shows.
pub const SHOWN_CHILDREN_MAX: usize = 1000;
