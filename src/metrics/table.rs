//! TABLE of metrics (`ServerMetrics`, `ZooKeeperServer.dumpMonitorValues`): adding one is adding a row. In the order of
//! `mntr`: gauges, counters, gauge and counter sets, summaries, those with percentiles, summary sets; then what is not in
//! `mntr`: histograms. Gauges that tools have read since 3.4 come first. Times are milliseconds and sizes bytes unless
//! the name says otherwise.

use super::{
    Advanced, AdvancedSet, Counter, CounterSet, FloatGauge, Gauge, GaugeSet, Histogram, Metric, Row, Scope, Summary,
    SummarySet,
};

macro_rules! scope {
    () => {
        Scope::Always
    };
    ($scope:ident) => {
        Scope::$scope
    };
}

macro_rules! table {
    ($(#[doc = $doc:literal] $id:ident: $kind:ident = $name:literal $(, $scope:ident)?;)*) => {
        $(#[doc = $doc] pub static $id: $kind = $kind::new();)*

        /// Every metric, in the order of `mntr`.
        pub static TABLE: &[Row] = &[$(Row {
            name: $name,
            doc: $doc.trim_ascii(),
            scope: scope!($($scope)?),
            metric: Metric::$kind(&$id),
        },)*];
    };
}

table! {
    /// Mean time from reading a request to answering it.
    AVG_LATENCY: FloatGauge = "avg_latency";
    /// Shortest time from reading a request to answering it.
    MIN_LATENCY: Gauge = "min_latency";
    /// Longest time from reading a request to answering it.
    MAX_LATENCY: Gauge = "max_latency";
    /// Requests read, four-letter words included.
    PACKETS_RECEIVED: Gauge = "packets_received";
    /// Answers and events sent.
    PACKETS_SENT: Gauge = "packets_sent";
    /// Open client connections.
    NUM_ALIVE_CONNECTIONS: Gauge = "num_alive_connections";
    /// Requests read and not answered.
    OUTSTANDING_REQUESTS: Gauge = "outstanding_requests";
    /// Nodes in the tree.
    ZNODE_COUNT: Gauge = "znode_count";
    /// Watches, on data and on children.
    WATCH_COUNT: Gauge = "watch_count";
    /// Ephemeral nodes.
    EPHEMERALS_COUNT: Gauge = "ephemerals_count";
    /// Bytes of paths and data in the tree.
    APPROXIMATE_DATA_SIZE: Gauge = "approximate_data_size";
    /// File descriptors in use.
    OPEN_FILE_DESCRIPTOR_COUNT: Gauge = "open_file_descriptor_count";
    /// File descriptors that may be in use.
    MAX_FILE_DESCRIPTOR_COUNT: Gauge = "max_file_descriptor_count";
    /// The server that an observer gets its transactions from.
    OBSERVER_MASTER_ID: Gauge = "observer_master_id", Observer;
    /// Members of the ensemble that vote.
    QUORUM_SIZE: Gauge = "quorum_size", Quorum;
    /// Followers and observers connected to the leader.
    LEARNERS: Gauge = "learners", Leader;
    /// Followers in step with the leader, itself not counted.
    SYNCED_FOLLOWERS: Gauge = "synced_followers", Leader;
    /// Followers in step that do not vote.
    SYNCED_NON_VOTING_FOLLOWERS: Gauge = "synced_non_voting_followers", Leader;
    /// Observers in step.
    SYNCED_OBSERVERS: Gauge = "synced_observers", ObserverMaster;
    /// Sync requests waiting for their proposal.
    PENDING_SYNCS: Gauge = "pending_syncs", Leader;
    /// Time since this server took the lead.
    LEADER_UPTIME: Gauge = "leader_uptime", Leader;
    /// Size of the last proposal, -1 before the first.
    LAST_PROPOSAL_SIZE: Gauge = "last_proposal_size", Leader;
    /// Size of the smallest proposal, -1 before the first.
    MIN_PROPOSAL_SIZE: Gauge = "min_proposal_size", Leader;
    /// Size of the largest proposal, -1 before the first.
    MAX_PROPOSAL_SIZE: Gauge = "max_proposal_size", Leader;
    /// Time since the server began to serve.
    UPTIME: Gauge = "uptime";
    /// Sessions known to the whole ensemble.
    GLOBAL_SESSIONS: Gauge = "global_sessions";
    /// Sessions known to this server alone.
    LOCAL_SESSIONS: Gauge = "local_sessions";
    /// Probability that the connection throttle turns a new connection away.
    CONNECTION_DROP_PROBABILITY: FloatGauge = "connection_drop_probability";
    /// Size of the last answer, -1 before the first.
    LAST_CLIENT_RESPONSE_SIZE: Gauge = "last_client_response_size";
    /// Size of the smallest answer, -1 before the first.
    MIN_CLIENT_RESPONSE_SIZE: Gauge = "min_client_response_size";
    /// Size of the largest answer, -1 before the first.
    MAX_CLIENT_RESPONSE_SIZE: Gauge = "max_client_response_size";
    /// TLS handshakes under way.
    OUTSTANDING_TLS_HANDSHAKE: Gauge = "outstanding_tls_handshake";
    /// Snapshots that could not be written since the last one that could.
    SNAPSHOT_FAILURES_IN_A_ROW: Gauge = "snapshot_failures_in_a_row";
    /// Connections closed because authentication failed.
    AUTH_FAILED_COUNT: Gauge = "auth_failed_count";
    /// Open connections of other hosts without a client certificate.
    NON_MTLS_REMOTE_CONN_COUNT: Gauge = "non_mtls_remote_conn_count";
    /// Open connections of this host without a client certificate.
    NON_MTLS_LOCAL_CONN_COUNT: Gauge = "non_mtls_local_conn_count";

    /// Transactions committed, as the leader counts them.
    COMMIT_COUNT: Counter = "commit_count";
    /// Transactions proposed, as the leader counts them.
    PROPOSAL_COUNT: Counter = "proposal_count";
    /// Connect requests.
    CONNECTION_REQUEST_COUNT: Counter = "connection_request_count";
    /// Connections that the other side ended, or that broke, in the middle of the conversation.
    CONNECTION_DROP_COUNT: Counter = "connection_drop_count";
    /// Connections refused for a limit.
    CONNECTION_REJECTED: Counter = "connection_rejected";
    /// Reconnects whose session was looked up.
    CONNECTION_REVALIDATE_COUNT: Counter = "connection_revalidate_count";
    /// Sessions that learners asked the leader to confirm.
    REVALIDATE_COUNT: Counter = "revalidate_count";
    /// Connections closed because they never sent a connect request.
    SESSIONLESS_CONNECTIONS_EXPIRED: Counter = "sessionless_connections_expired";
    /// Sessions ended because nothing was heard of them.
    STALE_SESSIONS_EXPIRED: Counter = "stale_sessions_expired";
    /// Bytes of requests.
    BYTES_RECEIVED_COUNT: Counter = "bytes_received_count";
    /// Bytes of answers.
    RESPONSE_BYTES: Counter = "response_bytes";
    /// Bytes of watch events.
    WATCH_BYTES: Counter = "watch_bytes";
    /// Large requests refused because too many bytes of such were in flight.
    LARGE_REQUESTS_REJECTED: Counter = "large_requests_rejected";
    /// Requests that reached their turn after their time or connection was gone.
    STALE_REQUESTS: Counter = "stale_requests";
    /// Stale requests that were not worked on.
    STALE_REQUESTS_DROPPED: Counter = "stale_requests_dropped";
    /// Answers to connections that were gone.
    STALE_REPLIES: Counter = "stale_replies";
    /// Times the request throttle made a request wait.
    REQUEST_THROTTLE_WAIT_COUNT: Counter = "request_throttle_wait_count";
    /// Requests refused because they waited too long.
    THROTTLED_OPS: Counter = "throttled_ops";
    /// Snapshots sent to learners.
    SNAP_COUNT: Counter = "snap_count";
    /// Transaction ranges sent to learners.
    DIFF_COUNT: Counter = "diff_count";
    /// Times this server went looking for a leader.
    LOOKING_COUNT: Counter = "looking_count";
    /// Transactions after which the digest of the tree was not the one logged.
    DIGEST_MISMATCHES_COUNT: Counter = "digest_mismatches_count";
    /// Errors that ended the server or its role.
    UNRECOVERABLE_ERROR_COUNT: Counter = "unrecoverable_error_count";
    /// Requests queued for preparation.
    PREP_PROCESSOR_REQUEST_QUEUED: Counter = "prep_processor_request_queued";
    /// Transactions given to the log.
    SYNC_PROCESSOR_REQUEST_QUEUED: Counter = "sync_processor_request_queued";
    /// Requests queued behind their commit.
    REQUEST_COMMIT_QUEUED: Counter = "request_commit_queued";
    /// Changes prepared and not yet applied: entered.
    OUTSTANDING_CHANGES_QUEUED: Counter = "outstanding_changes_queued";
    /// Changes prepared and not yet applied: left.
    OUTSTANDING_CHANGES_REMOVED: Counter = "outstanding_changes_removed";
    /// Commits that this learner heard of.
    LEARNER_COMMIT_RECEIVED_COUNT: Counter = "learner_commit_received_count";
    /// Proposals that this learner heard of.
    LEARNER_PROPOSAL_RECEIVED_COUNT: Counter = "learner_proposal_received_count";
    /// Answers of getData made from a cache. Nothing is cached here.
    RESPONSE_PACKET_CACHE_HITS: Counter = "response_packet_cache_hits";
    /// Answers of getData not found in the cache.
    RESPONSE_PACKET_CACHE_MISSES: Counter = "response_packet_cache_misses";
    /// Answers of getChildren made from a cache. Nothing is cached here.
    RESPONSE_PACKET_GET_CHILDREN_CACHE_HITS: Counter = "response_packet_get_children_cache_hits";
    /// Answers of getChildren not found in the cache.
    RESPONSE_PACKET_GET_CHILDREN_CACHE_MISSES: Counter = "response_packet_get_children_cache_misses";
    /// Watchers of closed connections waiting to be cleaned up. They go at once here.
    DEAD_WATCHERS_QUEUED: Counter = "dead_watchers_queued";
    /// Watchers of closed connections cleaned up.
    DEAD_WATCHERS_CLEARED: Counter = "dead_watchers_cleared";
    /// Time spent waiting for the clean-up of watchers.
    ADD_DEAD_WATCHER_STALL_TIME: Counter = "add_dead_watcher_stall_time";
    /// Connections closed because the server was not serving.
    CNXN_CLOSED_WITHOUT_ZK_SERVER_RUNNING: Counter = "cnxn_closed_without_zk_server_running";
    /// TLS handshakes that failed.
    UNSUCCESSFUL_HANDSHAKE: Counter = "unsuccessful_handshake";
    /// Connections refused because too many TLS handshakes were under way.
    TLS_HANDSHAKE_EXCEEDED: Counter = "tls_handshake_exceeded";
    /// Admin commands that came without TLS.
    INSECURE_ADMIN_COUNT: Counter = "insecure_admin_count";
    /// Clients refused for the name of the ensemble.
    ENSEMBLE_AUTH_FAIL: Counter = "ensemble_auth_fail";
    /// Clients that did not name the ensemble.
    ENSEMBLE_AUTH_SKIP: Counter = "ensemble_auth_skip";
    /// Clients that named the ensemble.
    ENSEMBLE_AUTH_SUCCESS: Counter = "ensemble_auth_success";
    /// Learner requests that skipped the commit stage.
    REQUESTS_NOT_FORWARDED_TO_COMMIT_PROCESSOR: Counter = "requests_not_forwarded_to_commit_processor";
    /// Learner requests that skipped a stage because their connection was gone.
    SKIP_LEARNER_REQUEST_TO_NEXT_PROCESSOR_COUNT: Counter = "skip_learner_request_to_next_processor_count";
    /// Times this server gave up the lead over a voter that followed another.
    QUIT_LEADING_DUE_TO_DISLOYAL_VOTER: Counter = "quit_leading_due_to_disloyal_voter";
    /// Snapshots that could not be written, for want of room or because the disk failed.
    SNAPSHOT_FAILED_COUNT: Counter = "snapshot_failed_count";
    /// Admin snapshots that failed. Since 3.9.
    SNAPSHOT_ERROR_COUNT: Counter = "snapshot_error_count";
    /// Admin snapshots refused for coming too soon. Since 3.9.
    SNAPSHOT_RATE_LIMITED_COUNT: Counter = "snapshot_rate_limited_count";
    /// Admin restores that failed. Since 3.9.
    RESTORE_ERROR_COUNT: Counter = "restore_error_count";
    /// Admin restores refused for coming too soon. Since 3.9.
    RESTORE_RATE_LIMITED_COUNT: Counter = "restore_rate_limited_count";
    /// TTL nodes deleted, by time or by a client, what is replayed from the log included. Since master.
    TTL_NODE_DELETED_COUNT: Counter = "ttl_node_deleted_count";
    /// TTL nodes made, what is replayed from the log included. Since master.
    TTL_NODE_CREATED_COUNT: Counter = "ttl_node_created_count";
    /// Requests of this server's clients that were answered, failed writes not counted. Since master, as the next ones.
    OP_COUNT_TOTAL: Counter = "op_count_total";
    /// Persistent watches asked for.
    OP_COUNT_ADD_WATCH: Counter = "op_count_add_watch";
    /// Checks of a version. They come inside a multi only, which counts as one.
    OP_COUNT_CHECK: Counter = "op_count_check";
    /// Questions for a watch.
    OP_COUNT_CHECK_WATCHES: Counter = "op_count_check_watches";
    /// Sessions that their clients ended.
    OP_COUNT_CLOSE_SESSION: Counter = "op_count_close_session";
    /// Nodes made, of any kind.
    OP_COUNT_CREATE: Counter = "op_count_create";
    /// Sessions made.
    OP_COUNT_CREATE_SESSION: Counter = "op_count_create_session";
    /// Nodes deleted.
    OP_COUNT_DELETE: Counter = "op_count_delete";
    /// Questions for a node's stat.
    OP_COUNT_EXISTS: Counter = "op_count_exists";
    /// ACLs read.
    OP_COUNT_GET_ACL: Counter = "op_count_get_acl";
    /// Questions for the number of descendants.
    OP_COUNT_GET_ALL_CHILDREN_NUMBER: Counter = "op_count_get_all_children_number";
    /// Lists of children read, with a stat or without.
    OP_COUNT_GET_CHILDREN: Counter = "op_count_get_children";
    /// Data read.
    OP_COUNT_GET_DATA: Counter = "op_count_get_data";
    /// Lists of a session's ephemeral nodes read.
    OP_COUNT_GET_EPHEMERALS: Counter = "op_count_get_ephemerals";
    /// Multis, failed ones too.
    OP_COUNT_MULTI: Counter = "op_count_multi";
    /// Multis that only read.
    OP_COUNT_MULTI_READ: Counter = "op_count_multi_read";
    /// Pings.
    OP_COUNT_PING: Counter = "op_count_ping";
    /// Changes of the ensemble.
    OP_COUNT_RECONFIG: Counter = "op_count_reconfig";
    /// Watches taken back.
    OP_COUNT_REMOVE_WATCHES: Counter = "op_count_remove_watches";
    /// ACLs replaced.
    OP_COUNT_SET_ACL: Counter = "op_count_set_acl";
    /// Data replaced.
    OP_COUNT_SET_DATA: Counter = "op_count_set_data";
    /// Lists of watches left again after a reconnect.
    OP_COUNT_SET_WATCHES: Counter = "op_count_set_watches";
    /// Syncs.
    OP_COUNT_SYNC: Counter = "op_count_sync";
    /// Questions of a client for its identities.
    OP_COUNT_WHO_AM_I: Counter = "op_count_who_am_i";

    /// Quotas of a namespace on nodes, added up.
    QUOTA_COUNT_LIMIT_PER_NAMESPACE: GaugeSet = "quota_count_limit_per_namespace";
    /// Quotas of a namespace on bytes, added up.
    QUOTA_BYTES_LIMIT_PER_NAMESPACE: GaugeSet = "quota_bytes_limit_per_namespace";
    /// Nodes under the quotas of a namespace.
    QUOTA_COUNT_USAGE_PER_NAMESPACE: GaugeSet = "quota_count_usage_per_namespace";
    /// Bytes under the quotas of a namespace.
    QUOTA_BYTES_USAGE_PER_NAMESPACE: GaugeSet = "quota_bytes_usage_per_namespace";
    /// Bytes in each account of the memory budget, and of the process as `process`.
    MEMORY_ACCOUNT_BYTES: GaugeSet = "memory_account_bytes";
    /// What each account may have, and the whole budget as `process`.
    MEMORY_ACCOUNT_BYTES_MAX: GaugeSet = "memory_account_bytes_max";
    /// Writes that were refused since they exceeded a quota.
    QUOTA_EXCEEDED_ERROR_PER_NAMESPACE: CounterSet = "quota_exceeded_error_per_namespace";

    /// Duration of a sync of the transaction log.
    FSYNCTIME: Summary = "fsynctime";
    /// Duration of writing a snapshot.
    SNAPSHOTTIME: Summary = "snapshottime";
    /// Duration of loading snapshot and log at the start.
    DBINITTIME: Summary = "dbinittime";
    /// Duration of loading the snapshot at the start.
    STARTUP_SNAP_LOAD_TIME: Summary = "startup_snap_load_time";
    /// Duration of replaying the log at the start.
    STARTUP_TXNS_LOAD_TIME: Summary = "startup_txns_load_time";
    /// Transactions replayed at the start.
    STARTUP_TXNS_LOADED: Summary = "startup_txns_loaded";
    /// Duration of restoring from a snapshot by admin command. Since 3.9.
    RESTORE_TIME: Summary = "restore_time";
    /// Watches fired by one creation.
    NODE_CREATED_WATCH_COUNT: Summary = "node_created_watch_count";
    /// Watches fired by one deletion.
    NODE_DELETED_WATCH_COUNT: Summary = "node_deleted_watch_count";
    /// Watches fired by one change of data.
    NODE_CHANGED_WATCH_COUNT: Summary = "node_changed_watch_count";
    /// Watches fired by one change of children.
    NODE_CHILDREN_WATCH_COUNT: Summary = "node_children_watch_count";
    /// Requests waiting for preparation.
    PREP_PROCESSOR_QUEUE_SIZE: Summary = "prep_processor_queue_size";
    /// Duration of preparing a request.
    PREP_PROCESS_TIME: Summary = "prep_process_time";
    /// Duration of handing a prepared request on.
    PROPOSAL_PROCESS_TIME: Summary = "proposal_process_time";
    /// Transactions waiting for the log.
    SYNC_PROCESSOR_QUEUE_SIZE: Summary = "sync_processor_queue_size";
    /// Transactions under one sync.
    SYNC_PROCESSOR_BATCH_SIZE: Summary = "sync_processor_batch_size";
    /// Duration of appending to the log.
    SYNC_PROCESS_TIME: Summary = "sync_process_time";
    /// Duration of applying a commit.
    COMMIT_PROCESS_TIME: Summary = "commit_process_time";
    /// Commits waiting in the commit stage.
    COMMIT_COMMIT_PROC_REQ_QUEUED: Summary = "commit_commit_proc_req_queued";
    /// Reads waiting in the commit stage.
    READ_COMMIT_PROC_REQ_QUEUED: Summary = "read_commit_proc_req_queued";
    /// Writes waiting in the commit stage.
    WRITE_COMMIT_PROC_REQ_QUEUED: Summary = "write_commit_proc_req_queued";
    /// Reads that left the commit stage in one round.
    READ_COMMIT_PROC_ISSUED: Summary = "read_commit_proc_issued";
    /// Writes that left the commit stage in one round.
    WRITE_COMMIT_PROC_ISSUED: Summary = "write_commit_proc_issued";
    /// Requests of one session waiting behind its write.
    REQUESTS_IN_SESSION_QUEUE: Summary = "requests_in_session_queue";
    /// Sessions with requests waiting behind a write.
    PENDING_SESSION_QUEUE_SIZE: Summary = "pending_session_queue_size";
    /// Reads waiting behind a write of their session.
    READS_AFTER_WRITE_IN_SESSION_QUEUE: Summary = "reads_after_write_in_session_queue";
    /// Reads let go by the commit of a write of their session.
    READS_ISSUED_FROM_SESSION_QUEUE: Summary = "reads_issued_from_session_queue";
    /// Sessions that had nothing waiting after a commit.
    SESSION_QUEUES_DRAINED: Summary = "session_queues_drained";
    /// Time the commit stage waited for its workers.
    TIME_WAITING_EMPTY_POOL_IN_COMMIT_PROCESSOR_READ_MS: Summary = "time_waiting_empty_pool_in_commit_processor_read_ms";
    /// Duration of one batch of writes in the commit stage.
    WRITE_BATCH_TIME_IN_COMMIT_PROCESSOR: Summary = "write_batch_time_in_commit_processor";
    /// Requests worked on at once in the commit stage.
    CONCURRENT_REQUEST_PROCESSING_IN_COMMIT_PROCESSOR: Summary = "concurrent_request_processing_in_commit_processor";
    /// Tokens that the connection throttle lacked.
    CONNECTION_TOKEN_DEFICIT: Summary = "connection_token_deficit";
    /// Duration of an election.
    ELECTION_TIME: Summary = "election_time";
    /// Time without service between two roles.
    UNAVAILABLE_TIME: Summary = "unavailable_time";
    /// Time without service between two reigns of this leader.
    LEADER_UNAVAILABLE_TIME: Summary = "leader_unavailable_time";
    /// Duration of a follower's synchronization.
    FOLLOWER_SYNC_TIME: Summary = "follower_sync_time";
    /// Duration of an observer's synchronization.
    OBSERVER_SYNC_TIME: Summary = "observer_sync_time";
    /// Transaction ranges being sent to learners at once.
    INFLIGHT_DIFF_COUNT: Summary = "inflight_diff_count";
    /// Snapshots being sent to learners at once.
    INFLIGHT_SNAP_COUNT: Summary = "inflight_snap_count";
    /// Learners' requests waiting on the leader.
    LEARNER_REQUEST_PROCESSOR_QUEUE_SIZE: Summary = "learner_request_processor_queue_size";
    /// Bytes queued in one connection's read buffer.
    NETTY_QUEUED_BUFFER_CAPACITY: Summary = "netty_queued_buffer_capacity";
    /// Duration of closing a peer's socket.
    SOCKET_CLOSING_TIME: Summary = "socket_closing_time";

    /// Time from reading a request that changes something to answering it.
    UPDATELATENCY: Advanced = "updatelatency";
    /// Time from reading a request that changes nothing to answering it.
    READLATENCY: Advanced = "readlatency";
    /// Time a request waited for preparation.
    PREP_PROCESSOR_QUEUE_TIME_MS: Advanced = "prep_processor_queue_time_ms";
    /// Duration of preparing the end of a session.
    CLOSE_SESSION_PREP_TIME: Advanced = "close_session_prep_time";
    /// Time a transaction waited for the log.
    SYNC_PROCESSOR_QUEUE_TIME_MS: Advanced = "sync_processor_queue_time_ms";
    /// Duration of a sync as its transactions saw it.
    SYNC_PROCESSOR_QUEUE_FLUSH_TIME_MS: Advanced = "sync_processor_queue_flush_time_ms";
    /// Time from reaching the log to being durable.
    SYNC_PROCESSOR_QUEUE_AND_FLUSH_TIME_MS: Advanced = "sync_processor_queue_and_flush_time_ms";
    /// Time from proposal to local apply.
    PROPAGATION_LATENCY: Advanced = "propagation_latency";
    /// Time from proposal to this learner hearing of it.
    PROPOSAL_LATENCY: Advanced = "proposal_latency";
    /// Time from proposal to this learner's acknowledgement.
    PROPOSAL_ACK_CREATION_LATENCY: Advanced = "proposal_ack_creation_latency";
    /// Time from proposal to a majority of acknowledgements.
    QUORUM_ACK_LATENCY: Advanced = "quorum_ack_latency";
    /// Time from proposal to this learner hearing of the commit.
    COMMIT_PROPAGATION_LATENCY: Advanced = "commit_propagation_latency";
    /// Time a read spent in the commit stage.
    READ_COMMITPROC_TIME_MS: Advanced = "read_commitproc_time_ms";
    /// Time a write spent in the commit stage.
    WRITE_COMMITPROC_TIME_MS: Advanced = "write_commitproc_time_ms";
    /// Time a local write waited in the commit stage.
    LOCAL_WRITE_COMMITTED_TIME_MS: Advanced = "local_write_committed_time_ms";
    /// Time a commit waited in the commit stage.
    SERVER_WRITE_COMMITTED_TIME_MS: Advanced = "server_write_committed_time_ms";
    /// Time from the commit stage to the answer, reads.
    READ_FINAL_PROC_TIME_MS: Advanced = "read_final_proc_time_ms";
    /// Time from the commit stage to the answer, writes.
    WRITE_FINAL_PROC_TIME_MS: Advanced = "write_final_proc_time_ms";
    /// Time a request waited in the throttle.
    REQUEST_THROTTLE_QUEUE_TIME_MS: Advanced = "request_throttle_queue_time_ms";
    /// Time an observer master took over a proposal.
    OM_PROPOSAL_PROCESS_TIME_MS: Advanced = "om_proposal_process_time_ms";
    /// Time an observer master took over a commit.
    OM_COMMIT_PROCESS_TIME_MS: Advanced = "om_commit_process_time_ms";
    /// Duration of one clean-up of watchers.
    DEAD_WATCHERS_CLEANER_LATENCY: Advanced = "dead_watchers_cleaner_latency";
    /// Pauses of the Java machine. There is none here.
    JVM_PAUSE_TIME_MS: Advanced = "jvm_pause_time_ms";

    /// Size of a write: path and data, by namespace.
    WRITE_PER_NAMESPACE: SummarySet = "write_per_namespace";
    /// Size of a read: path, data and stat, by namespace.
    READ_PER_NAMESPACE: SummarySet = "read_per_namespace";
    /// Proposals that a learner has not acknowledged, at each ping.
    LEARNER_HANDLER_QP_SIZE: SummarySet = "learner_handler_qp_size";
    /// Time a packet waited for a learner.
    LEARNER_HANDLER_QP_TIME_MS: AdvancedSet = "learner_handler_qp_time_ms";
    /// Time from proposal to a learner's acknowledgement.
    ACK_LATENCY: AdvancedSet = "ack_latency";

    /// Write: from reading it to taking it up in the pipeline.
    WRITE_RECEIVED: Histogram = "write_received_seconds";
    /// Write: from taking it up to giving its transaction to the log.
    WRITE_PREPARED: Histogram = "write_prepared_seconds";
    /// Transaction: from reaching the log to being in its file, which waits for the sync before.
    WRITE_APPENDED: Histogram = "write_appended_seconds";
    /// Transaction: the sync of the log that covers it.
    WRITE_SYNCED: Histogram = "write_synced_seconds";
    /// Write: from taking it up to knowing that a quorum has it.
    WRITE_ACKNOWLEDGED: Histogram = "write_acknowledged_seconds";
    /// Write: from knowing that a quorum has it to having applied it.
    WRITE_APPLIED: Histogram = "write_applied_seconds";
    /// Write: from having applied it to giving its answer to the kernel.
    WRITE_REPLIED: Histogram = "write_replied_seconds";
}
