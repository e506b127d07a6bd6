//! What an agent counts and times: one table of names, units and meanings. `/metrics` shows them with their help, and a
//! collector is told them where one is named; a test holds the table against the code.

use crate::http::Plant;
use metrics::Unit;
use millpool_meters::Kind::{Counter, Gauge, Histogram};
use millpool_meters::otlp::{Collector, Source};
use millpool_meters::{Again, Meter, Shown};

/// Every meter: name, kind, unit, meaning (with its labels).
pub const METERS: &[Meter] = &[
    (
        "millpool_agent_connected",
        Gauge,
        Unit::Count,
        "1 while there is a line to a coordinator, else 0, by plant",
    ),
    (
        "millpool_agent_disconnects_total",
        Counter,
        Unit::Count,
        "Lines that ended or could not be made, by plant",
    ),
    ("millpool_agent_events_sent_total", Counter, Unit::Count, "Events sent, repeated ones too, by plant"),
    (
        "millpool_agent_events_refused_total",
        Counter,
        Unit::Count,
        "Events that the coordinator refused, by plant",
    ),
    (
        "millpool_agent_append_to_send_seconds",
        Histogram,
        Unit::Seconds,
        "Time from an event's fsync until it is sent, by plant",
    ),
    ("millpool_agent_outbox_depth_events", Gauge, Unit::Count, "Events not yet applied, by plant"),
    ("millpool_agent_outbox_bytes", Gauge, Unit::Bytes, "Size of the outbox on disk, by plant"),
    ("millpool_agent_dispatch_revision", Gauge, Unit::Count, "Revision of the dispatch list, by plant"),
    (
        "millpool_agent_clock_ahead_ms",
        Gauge,
        Unit::Milliseconds,
        "How far the agent's clock is ahead of the coordinator's, by plant",
    ),
    ("millpool_agent_observations_total", Counter, Unit::Count, "Observations read, by machine"),
    (
        "millpool_agent_evidence_gaps_total",
        Counter,
        Unit::Count,
        "Times that something of a machine was missed, by machine",
    ),
    (
        "millpool_agent_adapter_troubles_total",
        Counter,
        Unit::Count,
        "Times that a machine could not be read, by machine",
    ),
    ("millpool_agent_machine_load_percent", Gauge, Unit::Percent, "Load of the spindle, by machine"),
    (
        "millpool_agent_capability_changes_total",
        Counter,
        Unit::Count,
        "Times that a machine came back as another than it was, by machine",
    ),
    (
        "millpool_agent_server_clock_ahead_ms",
        Gauge,
        Unit::Milliseconds,
        "How far an OPC UA server's clock is ahead of the agent's, by url",
    ),
    (
        "millpool_agent_remote_commands_total",
        Counter,
        Unit::Count,
        "Commands of remote operation that were answered, by verdict",
    ),
    (
        "millpool_agent_remote_refused_total",
        Counter,
        Unit::Count,
        "Commands of remote operation that the guard refused, by why",
    ),
    (
        "millpool_agent_programs_total",
        Counter,
        Unit::Count,
        "Programs from afar, by what became of them: quarantined, wrong hash, released, discarded",
    ),
    ("millpool_agent_samples_kept_total", Counter, Unit::Count, "Raw samples written, by plant"),
    (
        "millpool_agent_samples_dropped_total",
        Counter,
        Unit::Count,
        "Raw samples that were not kept, by plant and why",
    ),
    (
        "millpool_agent_samples_troubles_total",
        Counter,
        Unit::Count,
        "Failures of the store of raw samples, by plant",
    ),
    ("millpool_agent_samples_bytes", Gauge, Unit::Bytes, "Size of the raw samples on disk, by plant"),
    ("millpool_agent_samples_days", Gauge, Unit::Count, "Days of which raw samples are kept, by plant"),
    (
        "millpool_agent_samples_working",
        Gauge,
        Unit::Count,
        "1 while the store of raw samples takes what it is given, by plant",
    ),
    ("millpool_agent_rebirths_asked_total", Counter, Unit::Count, "Rebirths asked for, by edge node"),
    (
        "millpool_agent_mqtt_ignored_total",
        Counter,
        Unit::Count,
        "Messages of a broker that were not taken, by broker and why",
    ),
    (
        "millpool_agent_publishing",
        Gauge,
        Unit::Count,
        "1 while there is a line to the plant's own broker, else 0, by plant",
    ),
    ("millpool_agent_published_total", Counter, Unit::Count, "Messages published, by plant and kind"),
    (
        "millpool_agent_publish_commands_ignored_total",
        Counter,
        Unit::Count,
        "Commands to the published edge node that were not taken, by plant",
    ),
];

/// Begins to count, for the whole process. Fails the second time.
pub fn install(collector: Option<Collector>, plants: &[Plant]) -> Result<Shown, Again> {
    // No two processes run one plant's agent, so that the first names the process.
    let first = plants.first().map(|plant| plant.health.report());
    let instance = first.map(|report| format!("{}/{}", report.plant_id, report.agent_id)).unwrap_or_default();
    let source = Source {
        service: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        namespace: None,
        instance,
    };
    millpool_meters::install(METERS, collector.map(|collector| (collector, source)))
}

/// Sets what is cheaper to count when somebody looks than at every change.
pub fn gauges(plants: &[Plant]) {
    for plant in plants {
        let (report, outbox) = (plant.health.report(), plant.outbox.borrow().clone());
        for (name, value) in [
            ("millpool_agent_outbox_depth_events", outbox.last_seq - outbox.acked_seq),
            ("millpool_agent_outbox_bytes", outbox.bytes),
            ("millpool_agent_dispatch_revision", report.dispatch_revision),
        ] {
            metrics::gauge!(name, "plant" => report.plant_id.clone()).set(value as f64);
        }
    }
}
