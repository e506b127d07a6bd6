//! A signal in the config: where it is found on a machine, and how its values are read.
//!
//! The same table serves every protocol; what `source` names is a data item (MTConnect), a node (OPC UA) or
//! a metric (Sparkplug). A name that the machine does not have is refused with those that it has; nothing
//! is guessed.

use millpool_proto::v1::MachineState;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A signal in the config: its source alone, or a table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum SignalFile {
    /// Its source.
    Source(String),
    /// Its source, and how to read it.
    Table(SignalTable),
}

/// A signal in the config, in full.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalTable {
    /// The data item's id or name, the node's id or path, or the metric's name.
    #[serde(alias = "item", alias = "node", alias = "metric")]
    pub source: String,
    /// What values are multiplied by, e.g. 1000 where the source is in kW.
    #[serde(default = "one")]
    pub scale: f64,
    /// The unit that the source must have on the machine; not checked without.
    pub unit: Option<String>,
    /// For `state`: the machine's state for each value of the source; any other value is unknown.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

fn one() -> f64 {
    1.0
}

impl From<SignalFile> for SignalTable {
    fn from(file: SignalFile) -> Self {
        match file {
            SignalFile::Source(source) => Self { source, scale: 1.0, unit: None, values: BTreeMap::new() },
            SignalFile::Table(table) => table,
        }
    }
}

/// Every state with its name.
pub const STATES: [(&str, MachineState); 8] = [
    ("unknown", MachineState::Unknown),
    ("off", MachineState::Off),
    ("idle", MachineState::Idle),
    ("setup", MachineState::Setup),
    ("producing", MachineState::Producing),
    ("held", MachineState::Held),
    ("blocked", MachineState::Blocked),
    ("maintenance", MachineState::Maintenance),
];

/// A state's name, as the docs write it.
pub fn state_name(state: MachineState) -> &'static str {
    STATES.iter().find(|(_, named)| *named == state).map_or("unknown", |(name, _)| name)
}

/// The state of this name.
pub fn state_named(name: &str) -> Option<MachineState> {
    STATES.iter().find(|(named, _)| *named == name).map(|(_, state)| *state)
}
