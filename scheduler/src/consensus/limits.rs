//! Every bound of the consensus room, with its unit.

use std::time::Duration;

/// The largest entry that may be proposed.
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;
/// Proposals that may be on their way at once, by default.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 4096;
/// Bytes of all proposals on their way at once.
pub const PROPOSAL_BYTES_IN_FLIGHT_MAX: usize = 64 * 1024 * 1024;
/// Entries that the state machine applies before it tells who waits, and answers.
pub const APPLY_BATCH_ENTRIES_MAX: usize = 256;
/// Events kept for a subscriber that is behind, by default.
pub const EVENTS_KEPT: usize = 16_384;

/// Entries in one append message.
pub const APPEND_ENTRIES_MAX: u64 = 1024;
/// Bytes of entries in one append message; a single larger entry goes alone.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// The largest message that a peer may send. Above an append message and its framing.
pub const PEER_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of state in one message of a snapshot's transfer.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1024;
/// The largest state that a node takes from a peer, by default.
pub const SNAPSHOT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Snapshots kept on disk.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Storage jobs that may wait for the writer.
pub const LOG_QUEUE_JOBS_MAX: usize = 8192;
/// Storage jobs in one fsync.
pub const GROUP_JOBS_MAX: usize = 1024;
/// Bytes of entries in one fsync, beyond which no further job joins.
pub const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of recent entries kept in memory, so that replication and apply need no disk.
pub const LOG_CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a proposal waits for its answer, by default.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);
/// Readers that may wait for one read index.
pub const READERS_MAX: usize = 4096;
/// How long a read index may take.
pub const LINEARIZE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a connection to a peer may take to come up.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// The least time without an answer after which an append stream is given up. Longer than a slow
/// fsync, shorter than an election timeout.
pub const APPEND_STALL: Duration = Duration::from_millis(500);
/// How often HTTP/2 asks a silent peer whether it is there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(1000);
/// How long HTTP/2 waits for that answer.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1000);
/// How long a forwarded request may take when its sender names no deadline.
pub const FORWARD_DEADLINE: Duration = Duration::from_secs(15);
/// How long a change of membership may take.
pub const MEMBERSHIP_DEADLINE: Duration = Duration::from_secs(30);

/// State hashes remembered for comparison.
pub const HASHES_KEPT: usize = 16;
