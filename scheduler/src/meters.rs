//! What a coordinator counts and times: one table of names, units and meanings. `/metrics` shows them with
//! their help, and a collector is told them where one is named; a test holds the table against the code.

use crate::config::{BadSetting, Config};
use metrics::Unit;
use millpool_meters::Kind::{Counter, Gauge, Histogram};
use millpool_meters::otlp::Source;
use millpool_meters::{Meter, Shown};

/// Every meter: name, kind, unit, meaning (with its labels).
pub const METERS: &[Meter] = &[
    ("millpool_rpc_total", Counter, Unit::Count, "Requests answered, by path and code"),
    (
        "millpool_rpc_seconds",
        Histogram,
        Unit::Seconds,
        "Time to answer a request, by path; of a stream, to open it",
    ),
    ("millpool_refusals_total", Counter, Unit::Count, "Commands refused by the rules, by reason"),
    ("millpool_planner_queue", Gauge, Unit::Count, "Questions and commands that wait for the planner"),
    (
        "millpool_planner_overdue_total",
        Counter,
        Unit::Count,
        "Of these, refused as they had waited for too long",
    ),
    (
        "millpool_planner_panics_total",
        Counter,
        Unit::Count,
        "Times the planner stumbled and began anew; should be 0",
    ),
    (
        "millpool_bookings_placed_anew_total",
        Counter,
        Unit::Count,
        "Bookings whose first place was taken in between",
    ),
    (
        "millpool_plan_cost_fen",
        Gauge,
        Unit::Count,
        "Cost of the movable and frozen work after the last optimisation, fen",
    ),
    ("millpool_plan_bound_fen", Gauge, Unit::Count, "Proven lower bound on that cost, fen"),
    ("millpool_plan_moves_total", Counter, Unit::Count, "Operations that optimisations moved"),
    (
        "millpool_plans_overtaken_total",
        Counter,
        Unit::Count,
        "Improved plans given up, as the state had moved on",
    ),
    ("millpool_solver_errors_total", Counter, Unit::Count, "Optimisations that failed; should be 0"),
    ("millpool_format", Gauge, Unit::Count, "Format in which the cluster writes log and snapshots"),
    ("millpool_machines", Gauge, Unit::Count, "Machines known"),
    ("millpool_bookings", Gauge, Unit::Count, "Bookings known"),
    ("millpool_bookings_open", Gauge, Unit::Count, "Bookings held or confirmed with work to come"),
    ("millpool_bookings_over", Gauge, Unit::Count, "Bookings known of which nothing is to come"),
    (
        "millpool_bookings_at_risk",
        Gauge,
        Unit::Count,
        "Open bookings that miss their promise as things stand",
    ),
    ("millpool_request_ids", Gauge, Unit::Count, "Request ids whose answers are remembered"),
    (
        "millpool_limit",
        Gauge,
        Unit::Count,
        "The most that there can be of what is bounded, by the name of its meter",
    ),
    ("millpool_proposals_in_flight", Gauge, Unit::Count, "Entries on their way into the log"),
    ("millpool_proposals_in_flight_bytes", Gauge, Unit::Bytes, "Bytes of entries on their way into the log"),
    ("millpool_watch_revisions", Gauge, Unit::Count, "Revisions whose changes are kept for watchers"),
    ("millpool_log_entries", Gauge, Unit::Count, "Entries in this node's log, which a snapshot makes fewer"),
    ("millpool_log_cache_bytes", Gauge, Unit::Bytes, "Bytes of the log's newest entries in memory"),
    ("millpool_agents_connected", Gauge, Unit::Count, "Plants' agents attached to this node"),
    ("millpool_plants_silent", Gauge, Unit::Count, "Plants whose agents have been away for silent_after_s"),
    ("millpool_agent_events_total", Counter, Unit::Count, "Events that agents reported and the log took"),
    (
        "millpool_evidence_gaps_total",
        Counter,
        Unit::Count,
        "Gaps that agents reported in their machines' evidence",
    ),
    (
        "millpool_lists_unkept_total",
        Counter,
        Unit::Count,
        "Dispatch lists that an agent could not keep on its disk",
    ),
    (
        "millpool_day_seconds",
        Gauge,
        Unit::Seconds,
        "Machines' time since the alliance's day began, by plant and term of ISO 22400-2",
    ),
    (
        "millpool_day_run_seconds",
        Gauge,
        Unit::Seconds,
        "What the pieces made that day should have run, by plant, all and the good ones",
    ),
    ("millpool_day_pieces", Gauge, Unit::Count, "Pieces of operations that ended that day, by plant"),
    ("millpool_day_energy_wh", Gauge, Unit::Count, "Their energy, Wh, by plant and where it comes from"),
    ("millpool_day_carbon_g", Gauge, Unit::Count, "Its emissions, g CO2e, by plant"),
    ("millpool_consensus_term", Gauge, Unit::Count, "Raft term"),
    ("millpool_consensus_is_leader", Gauge, Unit::Count, "1 on the leader, else 0"),
    ("millpool_consensus_applied_index", Gauge, Unit::Count, "Last log index applied"),
    ("millpool_consensus_applied_total", Counter, Unit::Count, "Log entries applied"),
    ("millpool_consensus_apply_seconds", Histogram, Unit::Seconds, "Time to apply a batch of entries"),
    (
        "millpool_consensus_hashes_equal_total",
        Counter,
        Unit::Count,
        "Times the leader's state hash was the same here",
    ),
    ("millpool_log_sync_seconds", Histogram, Unit::Seconds, "Time for a write to the log with its fsync"),
    ("millpool_log_group_entries", Histogram, Unit::Count, "Entries that shared an fsync"),
    ("millpool_log_bytes_total", Counter, Unit::Bytes, "Bytes written to the log"),
    ("millpool_log_last_index", Gauge, Unit::Count, "Last log index on this disk"),
    (
        "millpool_peer_rpc_errors_total",
        Counter,
        Unit::Count,
        "Calls to other coordinators that failed, by rpc",
    ),
    ("millpool_snapshot_build_seconds", Histogram, Unit::Seconds, "Time to build a snapshot"),
    ("millpool_snapshot_write_seconds", Histogram, Unit::Seconds, "Time to write a snapshot to disk"),
    ("millpool_snapshot_send_seconds", Histogram, Unit::Seconds, "Time to send a snapshot to a follower"),
    ("millpool_snapshot_bytes", Gauge, Unit::Bytes, "Size of the last snapshot"),
];

/// Begins to count, for the whole process. None the second time: several nodes in one process (tests do so) share the
/// first one's meters, and the first one's collector.
pub fn install(config: &Config) -> Result<Option<Shown>, BadSetting> {
    let collector = config.otlp.as_ref().map(|otlp| otlp.collector().map_err(|e| BadSetting::otlp(otlp, e)));
    let source = || Source {
        service: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        namespace: Some(config.cluster_id.clone()),
        instance: config.node_id.to_string(),
    };
    let collector = collector.transpose()?.map(|collector| (collector, source()));
    let shown = millpool_meters::install(METERS, collector);
    Ok(shown.inspect_err(|e| tracing::warn!("no meters of this node's own: {e}")).ok())
}
