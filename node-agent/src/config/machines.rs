//! The machines' sections of the configuration: what may stand in them, and its checks.

use super::broker::{self, BrokerFile, identity, topic_part};
use super::{AgentFile, File, Found, MACHINES_MAX};
use crate::adapter::history::Rules;
use crate::adapter::mapping::{STATES, SignalFile, SignalTable, state_named};
use crate::adapter::simulated::recorded::Recorded;
use crate::adapter::{Power, Time, manual, mtconnect, opcua, simulated, sparkplug};
use crate::agent::{Adapter, Machine};
use crate::remote::consent::Rule;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// `[[agent.machine]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MachineFile {
    /// The machine's id in the registry.
    pub id: String,
    /// `manual`, `simulated`, `mtconnect`, `opcua` or `sparkplug`.
    pub adapter: String,
    /// What it draws.
    pub power: Option<PowerFile>,
    /// What the plant allows of remote operation; nothing where it is left out.
    pub remote: Option<RemoteFile>,
    /// For `simulated`.
    pub simulated: Option<SimulatedFile>,
    /// For `mtconnect`.
    pub mtconnect: Option<MtconnectFile>,
    /// For `opcua`.
    pub opcua: Option<OpcuaFile>,
    /// For `sparkplug`.
    pub sparkplug: Option<SparkplugFile>,
}

/// `[agent.machine.remote]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteFile {
    /// Buyers with whom the plant always agrees that the machine moves; others need a person's consent.
    pub standing: Vec<String>,
    /// Whether the plant's member may agree, and let programs out, from afar; only the plant's people at its console without.
    pub from_afar: bool,
    /// The folder from which the machine reads its programs, if the plant takes some from afar; none are taken without.
    pub programs: Option<PathBuf>,
}

/// `[agent.machine.power]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerFile {
    /// On, doing nothing, W.
    pub idle_w: u32,
    /// Being set up, W.
    pub setup_w: u32,
    /// Cutting, W.
    pub cutting_w: u32,
}

/// `[simulated]` and `[agent.machine.simulated]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulatedFile {
    /// Seed of everything that befalls machines.
    pub seed: Option<u64>,
    /// Progress every so many plant seconds.
    pub progress_s: Option<u32>,
    /// Mean working hours between breakdowns; 0 for never.
    pub mtbf_h: Option<u32>,
    /// Shortest and longest repair, minutes.
    pub repair_min: Option<(u32, u32)>,
    /// Operations of a thousand that overrun.
    pub overrun_permille: Option<u32>,
    /// Least and most that an overrun adds, thousandths of the work.
    pub overrun_extra_permille: Option<(u32, u32)>,
    /// Operations of a thousand whose pieces are all lost.
    pub scrap_permille: Option<u32>,
    /// Pieces of a thousand that are bad.
    pub piece_scrap_permille: Option<u32>,
    /// The recorded machine whose cuts, pauses and drop-outs the work is made of.
    pub like: Option<String>,
    /// What machines draw that do not say.
    pub power: Option<PowerFile>,
}

/// `[agent.machine.mtconnect]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MtconnectFile {
    /// The MTConnect agent, e.g. `http://10.1.2.3:5000`.
    pub url: String,
    /// Name, uuid or id of the device; may be left out where there is but one.
    pub device: Option<String>,
    /// Heartbeat asked of the MTConnect agent, ms.
    pub heartbeat_ms: Option<u64>,
    /// Least time between two documents, ms.
    pub interval_ms: Option<u64>,
    /// `source`: events carry the data's own time stamps. `arrival`: the time at which the agent saw them.
    pub time: Option<String>,
    /// Data item of each signal, where it is not found by its type.
    pub signals: BTreeMap<String, SignalFile>,
    /// Condition data items that count; all of the device's where it is left out.
    pub conditions: Option<Vec<String>>,
    /// Whether the machine's activity is bound to the dispatch list.
    pub follow_dispatch: Option<bool>,
    /// Progress every so many seconds.
    pub progress_s: Option<u32>,
    /// Blocked for so long is reported as down, s.
    pub down_after_s: Option<u32>,
}

/// `[agent.machine.opcua]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpcuaFile {
    /// The server, e.g. `opc.tcp://10.1.2.3:4840`.
    pub url: String,
    /// The machine's browse name among the server's machines, or its node as `nsu=URI;...`; may be left out
    /// where there is but one.
    pub machine: Option<String>,
    /// `basic256sha256`, or `none` for a control that can do nothing else.
    pub security: Option<String>,
    /// A server's certificate among the trusted ones is enough; its names and dates are not looked at. For a
    /// control whose certificate names another address.
    pub pinned_certificate: Option<bool>,
    /// The server's user; nobody's name without.
    pub user: Option<String>,
    /// A file with the user's password.
    pub password_file: Option<PathBuf>,
    /// Values are sampled and sent this often, ms.
    pub interval_ms: Option<u64>,
    /// `source`: events carry the data's own time stamps. `arrival`: the time at which the agent saw them.
    pub time: Option<String>,
    /// Node of each signal that the machine-tool model does not have, or that is elsewhere.
    pub signals: BTreeMap<String, SignalFile>,
    /// Whether the machine's activity is bound to the dispatch list.
    pub follow_dispatch: Option<bool>,
    /// Progress every so many seconds.
    pub progress_s: Option<u32>,
    /// Blocked for so long is reported as down, s.
    pub down_after_s: Option<u32>,
}

/// `[agent.machine.sparkplug]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SparkplugFile {
    /// The broker, `mqtts://host:port` or `mqtt://host:port`.
    pub broker: String,
    /// The Sparkplug group.
    pub group: Option<String>,
    /// The edge node.
    pub node: Option<String>,
    /// The device behind it; left out where the metrics are the node's own.
    pub device: Option<String>,
    /// The broker's user; nobody's name without.
    pub user: Option<String>,
    /// A file with the user's password.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority that signed the broker's certificate.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the agent's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the agent's key.
    pub key_file: Option<PathBuf>,
    /// The agent's name on the broker.
    pub client_id: Option<String>,
    /// `source`: events carry the data's own time stamps. `arrival`: the time at which the agent saw them.
    pub time: Option<String>,
    /// Metric of each signal, or `topic:...` for a topic that is not Sparkplug's.
    pub signals: BTreeMap<String, SignalFile>,
    /// Whether the machine's activity is bound to the dispatch list.
    pub follow_dispatch: Option<bool>,
    /// Progress every so many seconds.
    pub progress_s: Option<u32>,
    /// Blocked for so long is reported as down, s.
    pub down_after_s: Option<u32>,
}

/// Checks the machines of one agent.
pub(super) fn resolve(field: &str, agent: &AgentFile, file: &File, found: &mut Found) -> Vec<Machine> {
    let short = agent.simulated_machines.iter().map(|id| MachineFile {
        id: id.clone(),
        adapter: "simulated".to_owned(),
        ..MachineFile::default()
    });
    let all: Vec<_> = agent.machine.iter().cloned().chain(short).collect();
    if all.is_empty() || all.len() > MACHINES_MAX {
        found.wrong::<()>(&format!("{field}.machine"), all.len(), &format!("1 to {MACHINES_MAX} machines"));
    }
    let mut ids = BTreeSet::new();
    let mut machines = Vec::new();
    for (at, machine) in all.iter().enumerate() {
        let field = format!("{field}.machine[{at}]");
        if !ids.insert(&machine.id) {
            found.wrong::<()>(
                &format!("{field}.id"),
                &machine.id,
                "an id that no other machine of the agent has",
            );
        }
        machines.extend(resolve_machine(&field, machine, agent, file, found));
    }
    client_ids(field, &machines, found);
    machines
}

/// A broker ends the older of two connections of one name, so each of an agent's needs its own.
fn client_ids(field: &str, machines: &[Machine], found: &mut Found) {
    let mut brokers: Vec<&sparkplug::Broker> = Vec::new();
    for machine in machines {
        let Adapter::Sparkplug(options) = &machine.adapter else { continue };
        let broker = &options.broker;
        let name = |other: &&&sparkplug::Broker| {
            other.name() == broker.name() && other.client_id == broker.client_id
        };
        match brokers.iter().find(name) {
            Some(other) if *other != broker => {
                let accepted =
                    "another name, or the same settings, for each of the machines behind one broker";
                found.wrong::<()>(
                    &format!("{field}.machine {}.sparkplug.client_id", machine.id),
                    &broker.client_id,
                    accepted,
                );
            }
            Some(_) => {}
            None => brokers.push(broker),
        }
    }
}

fn resolve_machine(
    field: &str,
    machine: &MachineFile,
    agent: &AgentFile,
    file: &File,
    found: &mut Found,
) -> Option<Machine> {
    let id = found.name(&format!("{field}.id"), &machine.id)?;
    let power = machine.power.or(file.simulated.power).map(|power| Power {
        idle_w: power.idle_w,
        setup_w: power.setup_w,
        cutting_w: power.cutting_w,
    });
    let power = power.unwrap_or_default();
    let tables = [
        ("simulated", machine.simulated.is_some()),
        ("mtconnect", machine.mtconnect.is_some()),
        ("opcua", machine.opcua.is_some()),
        ("sparkplug", machine.sparkplug.is_some()),
    ];
    for (other, _) in tables.into_iter().filter(|(other, there)| *there && *other != machine.adapter) {
        let accepted = format!("none, with adapter = {:?}", machine.adapter);
        found.wrong::<()>(&format!("{field}.{other}"), "a table", &accepted);
    }
    let mut missing = |table: &str, least: &str| {
        found.wrong(&format!("{field}.{table}"), "none", &format!("a table with at least {least}"))
    };
    let adapter = match machine.adapter.as_str() {
        "simulated" => {
            let own = machine.simulated.clone().unwrap_or_default();
            Adapter::Simulated(simulated(field, &own, &file.simulated, power, found))
        }
        "mtconnect" => match &machine.mtconnect {
            Some(own) => Adapter::Mtconnect(Box::new(mtconnect(field, own, power, found)?)),
            None => missing("mtconnect", "`url`")?,
        },
        "opcua" => match &machine.opcua {
            Some(own) => Adapter::Opcua(Box::new(opcua(field, own, power, found)?)),
            None => missing("opcua", "`url`")?,
        },
        "sparkplug" => match &machine.sparkplug {
            Some(own) => Adapter::Sparkplug(Box::new(sparkplug(field, own, &agent.plant, power, found)?)),
            None => missing("sparkplug", "`broker`, `group`, `node` and `signals`")?,
        },
        "manual" => {
            let progress_s = simulated::Options::default().progress_s;
            Adapter::Manual(manual::Options { progress_s, power })
        }
        other => found.wrong(
            &format!("{field}.adapter"),
            other,
            "manual, simulated, mtconnect, opcua or sparkplug",
        )?,
    };
    let remote = remote(field, machine, &adapter, found)?;
    Some(Machine { id, adapter, remote })
}

/// What the plant allows of remote operation, where the adapter can do it at all.
fn remote(field: &str, machine: &MachineFile, adapter: &Adapter, found: &mut Found) -> Option<Option<Rule>> {
    let Some(own) = &machine.remote else { return Some(None) };
    if !matches!(adapter, Adapter::Opcua(_)) {
        let accepted = format!("none, with adapter = {:?}: it can only be read", adapter.name());
        return found.wrong(&format!("{field}.remote"), "a table", &accepted);
    }
    let mut standing = Vec::new();
    for (at, buyer) in own.standing.iter().enumerate() {
        standing.extend(found.name(&format!("{field}.remote.standing[{at}]"), buyer));
    }
    let programs = own.programs.clone();
    if let Some(folder) = programs.as_ref().filter(|folder| !folder.is_absolute() || !folder.is_dir()) {
        return found.wrong(
            &format!("{field}.remote.programs"),
            folder,
            "an absolute path of a folder that is there",
        );
    }
    Some(Some(Rule { standing, from_afar: own.from_afar, programs }))
}

fn simulated(
    field: &str,
    own: &SimulatedFile,
    all: &SimulatedFile,
    power: Power,
    found: &mut Found,
) -> simulated::Options {
    let default = simulated::Options::default();
    let number =
        |pick: fn(&SimulatedFile) -> Option<u32>, otherwise| pick(own).or(pick(all)).unwrap_or(otherwise);
    let mut permille =
        |name: &str, value: u32| found.within(&format!("{field}.simulated.{name}"), value, 0, 1000);
    let overrun_permille =
        permille("overrun_permille", number(|s| s.overrun_permille, default.overrun_permille));
    let scrap_permille = permille("scrap_permille", number(|s| s.scrap_permille, default.scrap_permille));
    let pieces = number(|s| s.piece_scrap_permille, default.piece_scrap_permille);
    let piece_scrap_permille = permille("piece_scrap_permille", pieces);
    let progress_s = number(|s| s.progress_s, default.progress_s);
    found.within(&format!("{field}.simulated.progress_s"), progress_s, 1, 86_400);
    let mut span = |name: &str, value: (u32, u32), high: u32| {
        if value.0 > value.1 || value.1 > high {
            let accepted = format!("[least, most], at most {high}");
            found.wrong::<()>(&format!("{field}.simulated.{name}"), value, &accepted);
        }
        value
    };
    let repair_min =
        span("repair_min", own.repair_min.or(all.repair_min).unwrap_or(default.repair_min), 43_200);
    let extra = own.overrun_extra_permille.or(all.overrun_extra_permille);
    let extra = span("overrun_extra_permille", extra.unwrap_or(default.overrun_extra_permille), 10_000);
    let like = own.like.as_ref().or(all.like.as_ref()).and_then(|name| {
        let names: Vec<_> = Recorded::names().collect();
        let accepted = format!("a recorded machine: {}", names.join(", "));
        Recorded::named(name).or_else(|| found.wrong(&format!("{field}.simulated.like"), name, &accepted))
    });
    simulated::Options {
        seed: own.seed.or(all.seed).unwrap_or(default.seed),
        progress_s,
        mtbf_h: number(|s| s.mtbf_h, default.mtbf_h),
        repair_min,
        overrun_permille,
        overrun_extra_permille: extra,
        scrap_permille,
        piece_scrap_permille,
        power,
        like,
    }
}

fn mtconnect(
    field: &str,
    own: &MtconnectFile,
    power: Power,
    found: &mut Found,
) -> Option<mtconnect::Options> {
    let field = format!("{field}.mtconnect");
    let url = own.url.trim_end_matches('/');
    if !url.starts_with("http://") || url.len() <= "http://".len() {
        return found.wrong(&format!("{field}.url"), url, "http://host:port");
    }
    let heartbeat_ms =
        found.within(&format!("{field}.heartbeat_ms"), own.heartbeat_ms.unwrap_or(5_000), 10, 300_000);
    let interval_ms =
        found.within(&format!("{field}.interval_ms"), own.interval_ms.unwrap_or(100), 0, 60_000);
    let rules = rules(&field, [own.progress_s, own.down_after_s], own.follow_dispatch, power, found);
    Some(mtconnect::Options {
        url: url.to_owned(),
        device: own.device.clone(),
        heartbeat_ms,
        interval_ms,
        time: time(&field, own.time.as_deref(), found)?,
        signals: signals(&field, &own.signals, &mtconnect::Signal::NAMED, found),
        conditions: own.conditions.clone(),
        rules,
    })
}

fn opcua(field: &str, own: &OpcuaFile, power: Power, found: &mut Found) -> Option<opcua::Options> {
    let field = format!("{field}.opcua");
    let host = own.url.strip_prefix("opc.tcp://").unwrap_or_default();
    if !host.split('/').next().is_some_and(super::is_address) {
        return found.wrong(
            &format!("{field}.url"),
            &own.url,
            "opc.tcp://host:port, and a path where the server has one",
        );
    }
    let security = match own.security.as_deref() {
        None | Some("basic256sha256") => {
            opcua::Security::Basic256Sha256 { pinned: own.pinned_certificate.unwrap_or(false) }
        }
        Some("none") => opcua::Security::None,
        Some(other) => found.wrong(&format!("{field}.security"), other, "basic256sha256 or none")?,
    };
    let readable = (security == opcua::Security::None).then_some("security = \"none\"");
    let identity = identity(&field, own.user.as_deref(), own.password_file.as_deref(), readable, found)?;
    let interval_ms =
        found.within(&format!("{field}.interval_ms"), own.interval_ms.unwrap_or(200), 10, 60_000);
    let rules = rules(&field, [own.progress_s, own.down_after_s], own.follow_dispatch, power, found);
    let signals = signals(&field, &own.signals, &opcua::Signal::NAMED, found);
    states(&field, signals.get(&opcua::Signal::State), found);
    doors(&field, signals.get(&opcua::Signal::Door), found);
    Some(opcua::Options {
        server: opcua::Server {
            url: own.url.clone(),
            security,
            identity,
            interval: Duration::from_millis(interval_ms),
            channel_lifetime: opcua::CHANNEL_LIFETIME,
        },
        machine: opcua::MachineOptions {
            machine: own.machine.clone(),
            time: time(&field, own.time.as_deref(), found)?,
            signals,
            rules,
        },
    })
}

fn sparkplug(
    field: &str,
    own: &SparkplugFile,
    plant: &str,
    power: Power,
    found: &mut Found,
) -> Option<sparkplug::Options> {
    let field = format!("{field}.sparkplug");
    let settings = BrokerFile {
        broker: &own.broker,
        user: own.user.as_deref(),
        password_file: own.password_file.as_deref(),
        ca_file: own.ca_file.as_ref(),
        cert_file: own.cert_file.as_ref(),
        key_file: own.key_file.as_ref(),
        client_id: own.client_id.as_deref(),
    };
    let broker = broker::resolve(&field, settings, &format!("millpool-{plant}"), found)?;
    let rules = rules(&field, [own.progress_s, own.down_after_s], own.follow_dispatch, power, found);
    let signals = signals(&field, &own.signals, &sparkplug::Signal::NAMED, found);
    match signals.get(&sparkplug::Signal::State) {
        None => found.wrong(
            &format!("{field}.signals.state"),
            "none",
            "a metric, with a state for each of its values: Sparkplug has no state of its own",
        )?,
        state => states(&field, state, found),
    }
    for (signal, table) in &signals {
        let good =
            |topic: &str| !topic.is_empty() && !topic.starts_with(['$', '/']) && !topic.contains(['+', '#']);
        if sparkplug::topic(table)
            .is_some_and(|topic| !good(topic) || topic.starts_with(sparkplug::host::NAMESPACE))
        {
            let accepted = "topic: and one topic outside Sparkplug, without wildcards";
            found.wrong::<()>(&format!("{field}.signals.{}", signal.name()), &table.source, accepted);
        }
    }
    let topics_only = signals.values().all(|table| sparkplug::topic(table).is_some());
    Some(sparkplug::Options {
        broker,
        machine: sparkplug::MachineOptions {
            address: address_of(&field, own, topics_only, found)?,
            time: time(&field, own.time.as_deref(), found)?,
            signals,
            rules,
        },
    })
}

/// Where a machine is among the edge nodes; nowhere, where it has topics only and names none.
fn address_of(
    field: &str,
    own: &SparkplugFile,
    topics_only: bool,
    found: &mut Found,
) -> Option<Option<sparkplug::Address>> {
    if topics_only && own.group.is_none() && own.node.is_none() && own.device.is_none() {
        return Some(None);
    }
    let mut name = |name: &str, value: Option<&String>| topic_part(&format!("{field}.{name}"), value, found);
    let (group, node) = (name("group", own.group.as_ref()), name("node", own.node.as_ref()));
    let device = own.device.as_ref().map(|device| name("device", Some(device)));
    Some(Some(sparkplug::Address {
        group: group?,
        node: node?,
        device: device.map_or(Some(None), |d| d.map(Some))?,
    }))
}

fn rules(
    field: &str,
    [progress_s, down_after_s]: [Option<u32>; 2],
    follow_dispatch: Option<bool>,
    power: Power,
    found: &mut Found,
) -> Rules {
    let default = Rules::default();
    let mut seconds = |name: &str, value: Option<u32>, default: u32| {
        found.within(&format!("{field}.{name}"), value.unwrap_or(default), 1, 86_400)
    };
    Rules {
        follow_dispatch: follow_dispatch.unwrap_or(default.follow_dispatch),
        progress_s: seconds("progress_s", progress_s, default.progress_s),
        down_after_s: seconds("down_after_s", down_after_s, default.down_after_s),
        power,
    }
}

fn time(field: &str, own: Option<&str>, found: &mut Found) -> Option<Time> {
    match own {
        None | Some("source") => Some(Time::Source),
        Some("arrival") => Some(Time::Arrival),
        Some(other) => found.wrong(&format!("{field}.time"), other, "source or arrival"),
    }
}

/// The mapped signals; a name that is none is refused with those that are.
fn signals<S: Copy + Ord>(
    field: &str,
    mapped: &BTreeMap<String, SignalFile>,
    known: &[(S, &str)],
    found: &mut Found,
) -> BTreeMap<S, SignalTable> {
    let mut signals = BTreeMap::new();
    for (name, signal) in mapped {
        match known.iter().find(|(_, named)| named == name) {
            Some((kind, _)) => {
                signals.insert(*kind, SignalTable::from(signal.clone()));
            }
            None => {
                let names: Vec<_> = known.iter().map(|(_, name)| *name).collect();
                let accepted = format!("one of {}", names.join(", "));
                found.wrong::<()>(&format!("{field}.signals.{name}"), name, &accepted);
            }
        }
    }
    signals
}

/// A mapped door needs a meaning for each of its values.
fn doors(field: &str, door: Option<&SignalTable>, found: &mut Found) {
    let Some(table) = door else { return };
    let field = format!("{field}.signals.door.values");
    let accepted = "closed or open for each value of the source, e.g. { \"1\" = \"closed\" }";
    let means = |meant: &str| table.values.values().any(|own| own == meant);
    if !means(opcua::signals::DOORS[0])
        || table.values.values().any(|own| !opcua::signals::DOORS.contains(&own.as_str()))
    {
        found.wrong::<()>(&field, &table.values, accepted);
    }
}

/// A mapped state needs the machine's states for its values.
fn states(field: &str, state: Option<&SignalTable>, found: &mut Found) {
    let Some(table) = state else { return };
    let field = format!("{field}.signals.state.values");
    if table.values.is_empty() {
        found.wrong::<()>(
            &field,
            "none",
            "a state for each value of the source, e.g. { \"2\" = \"producing\" }",
        );
    }
    for (value, state) in &table.values {
        if state_named(state).is_none() {
            let names: Vec<_> = STATES.iter().map(|(name, _)| *name).collect();
            found.wrong::<()>(&format!("{field}.{value}"), state, &format!("one of {}", names.join(", ")));
        }
    }
}
