//! What people write: flags, orders as JSON and TOML, a coordinator's settings, problems for the solver.

use crate::folder;
use crate::sample::{START_S, sample};
use clap::Parser as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use millpool_cli::written::{self, Clock, Stretch, When};
use millpool_cli::{json, order};
use millpool_proto::v1;
use millpool_scheduler::config::{Config, Flags};
use millpool_solver as solver;

fn clock() -> Clock {
    let now = Timestamp::from_second(START_S).expect("a time");
    Clock { now, zone: TimeZone::UTC }
}

/// A word of a command line, read as everything that it might be.
pub fn written(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let clock = clock();
    drop(written::duration_s(text));
    drop(written::mass_g(text));
    drop(written::tolerance_um(text));
    drop(written::size(text));
    drop(written::workpiece(text));
    drop(written::money_fen(text));
    drop(written::class(text));
    drop(written::role(text));
    drop(written::shift(text));
    drop(order::operation(text));
    drop(When::read(text).map(|when| when.resolve_s(&clock)));
    drop(Stretch::read(text).map(|stretch| stretch.resolve_s(&clock)));
}

/// Each of them as it is meant.
pub fn words() -> Vec<Vec<u8>> {
    [
        "1h30m",
        "3kg",
        "20um",
        "200x120x60",
        "1200.50",
        "five-axis",
        "buyer",
        "mon-fri 06:00-22:00",
        "five-axis family=F1 setup=20m run=6m tol=20 axes=5 cert=AS9100 splittable",
        "+5d",
        "fri 17:00",
        "2026-11-28T08:00:00+08:00",
        "now..+7d",
    ]
    .map(Into::into)
    .into()
}

/// A message as JSON: what is read can be shown, and read again.
pub fn message(input: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    fn again<M: prost::Message + Default + PartialEq + std::fmt::Debug>(
        name: &str,
        value: serde_json::Value,
    ) {
        let Ok(read) = json::read::<M>(name, value, &clock()) else { return };
        let shown = json::show(name, &read).expect("what was read can be shown");
        let again = json::read::<M>(name, shown, &clock()).expect("what was shown can be read");
        assert_eq!(again, read, "a {name} is another one after it was shown and read");
    }
    again::<v1::Order>("Order", value.clone());
    again::<v1::Machine>("Machine", value.clone());
    again::<v1::Offer>("Offer", value.clone());
    again::<v1::Policy>("Policy", value);
}

/// An order as it is shown, and one as people write it.
pub fn messages() -> Vec<Vec<u8>> {
    let shown = sample().requests.iter().flat_map(|r| &r.order).map(|order| json::show("Order", order));
    let mut seeds: Vec<Vec<u8>> = shown.flatten().map(|value| value.to_string().into_bytes()).collect();
    let by_hand = r#"{"quantity": 3, "material": "steel", "size": "200x120x60", "mass_g": "3kg", "due_s": "+5d",
        "route": [{"class": "five-axis", "setup_family": "F1", "setup_s": "20m", "run_s_per_piece": 360}]}"#;
    seeds.push(by_hand.into());
    seeds
}

/// A coordinator's settings.
pub fn config(input: &[u8]) {
    let folder = folder();
    let file = folder.path().join("scheduler.toml");
    std::fs::write(&file, input).expect("a file in a folder of our own");
    let flags = Flags::try_parse_from(["millpool-scheduler".as_ref(), "--config".as_ref(), file.as_os_str()]);
    drop(Config::load(flags.expect("flags that there are")));
}

/// The settings that are shipped as an example, and those of a developer.
pub fn configs() -> Vec<Vec<u8>> {
    let example = include_bytes!("../../deploy/scheduler.toml");
    vec![example.to_vec(), b"single = true\ninsecure_dev = true\nnode_id = 4\ncluster_id = 'file'\n".to_vec()]
}

/// Largest input of which a plan is made, too, bytes.
const PLANNED_BYTES_MAX: usize = 4096;

/// A problem as JSON: what is read is written the same again, and a first plan of a small one is what it says.
pub fn instance(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(read) = solver::read_json(text) else { return };
    let again = solver::read_json(&solver::write_json(&read)).expect("what was read can be written");
    assert_eq!(solver::write_json(&again), solver::write_json(&read));
    plan(&read, input.len());
}

/// A flexible job shop in the format of the literature.
pub fn fjs(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(read) = solver::read_fjs("fuzz", text) else { return };
    plan(&read, input.len());
}

fn plan(instance: &solver::Instance, bytes: usize) {
    if bytes > PLANNED_BYTES_MAX {
        return;
    }
    let plan = solver::first_come(instance);
    if let Err(violations) = solver::verify(instance, &plan) {
        panic!("the first plan breaks a rule: {violations:?}");
    }
}

/// Problems that the solver's own tests read, as far as they are small.
pub fn instances() -> Vec<Vec<u8>> {
    vec![include_bytes!("../../solver/tests/data/six-machines.json").to_vec()]
}

/// A job shop of the literature, and a tiny one.
pub fn shops() -> Vec<Vec<u8>> {
    let tiny = b"2 2 1\n2 1 1 5 2 1 3 2 4\n1 2 1 2 2 3\n".to_vec();
    vec![include_bytes!("../../solver/tests/data/mk01.fjs").to_vec(), tiny]
}
