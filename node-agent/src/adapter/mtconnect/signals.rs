//! Which data item stands for which signal, and what state the signals amount to.
//!
//! [`resolve`] looks each signal up in the device model: by the mapping in the config where it names one,
//! else by type. A mapped name that the model does not have is refused, with what is there; nothing is
//! guessed. [`Signals`] holds the last value of each signal, and derives the machine's state from them.
//!
//! The state, first match first:
//!
//! | what is seen | state |
//! |---|---|
//! | availability UNAVAILABLE | unknown |
//! | power state OFF | off |
//! | execution UNAVAILABLE, or never seen | unknown |
//! | emergency stop TRIGGERED | blocked |
//! | a condition at FAULT | blocked |
//! | functional mode MAINTENANCE | maintenance |
//! | functional mode SETUP, TEARDOWN | setup |
//! | execution ACTIVE, WAIT, mode AUTOMATIC (or the model has no mode) | producing |
//! | execution ACTIVE, WAIT, mode UNAVAILABLE or not yet seen | unknown |
//! | execution ACTIVE, WAIT, another mode: somebody tries something by hand | setup |
//! | execution INTERRUPTED, FEED_HOLD, PROGRAM_STOPPED, OPTIONAL_STOP | held |
//! | execution READY, STOPPED, PROGRAM_COMPLETED | idle |
//! | anything else | unknown |

use super::document::{DataItem, Device, Level, Observation, Seen};
use crate::adapter::cut;
use crate::adapter::mapping::SignalTable;
use millpool_proto::v1::MachineState;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the agent wants to know of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// AVAILABILITY
    Availability,
    /// EXECUTION
    Execution,
    /// CONTROLLER_MODE
    Mode,
    /// FUNCTIONAL_MODE
    FunctionalMode,
    /// EMERGENCY_STOP
    EmergencyStop,
    /// POWER_STATE
    PowerState,
    /// PROGRAM
    Program,
    /// PART_COUNT
    PartCount,
    /// LOAD of the spindle, percent
    Load,
    /// WATTAGE, W after scaling
    Power,
    /// ELECTRICAL_ENERGY, Wh after scaling
    Energy,
}

impl Signal {
    /// Every signal, with its name in the config.
    pub const NAMED: [(Self, &'static str); 11] = [
        (Self::Availability, "availability"),
        (Self::Execution, "execution"),
        (Self::Mode, "mode"),
        (Self::FunctionalMode, "functional_mode"),
        (Self::EmergencyStop, "emergency_stop"),
        (Self::PowerState, "power_state"),
        (Self::Program, "program"),
        (Self::PartCount, "part_count"),
        (Self::Load, "load"),
        (Self::Power, "power"),
        (Self::Energy, "energy"),
    ];

    /// Its name in the config.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(signal, _)| *signal == self).map_or("", |(_, name)| name)
    }

    /// The data item type that stands for it where the config names none.
    fn kind(self) -> &'static str {
        match self {
            Self::Availability => "AVAILABILITY",
            Self::Execution => "EXECUTION",
            Self::Mode => "CONTROLLER_MODE",
            Self::FunctionalMode => "FUNCTIONAL_MODE",
            Self::EmergencyStop => "EMERGENCY_STOP",
            Self::PowerState => "POWER_STATE",
            Self::Program => "PROGRAM",
            Self::PartCount => "PART_COUNT",
            Self::Load => "LOAD",
            Self::Power => "WATTAGE",
            Self::Energy => "ELECTRICAL_ENERGY",
        }
    }

    /// What an item's values are multiplied by where the config names none: the model says in which unit they are, or
    /// leaves that to the standard, where energy is in watt-seconds (MTConnect part 2, data item types). None where the
    /// unit is another: then the item is not read, rather than guessed.
    fn scale_of(self, units: Option<&str>) -> Option<f64> {
        match (self, units) {
            (Self::Energy, None | Some("WATT_SECOND" | "JOULE")) => Some(1.0 / 3600.0),
            (Self::Energy, Some("WATT_HOUR")) | (Self::Power, None | Some("WATT")) => Some(1.0),
            (Self::Energy, Some("KILOWATT_HOUR")) | (Self::Power, Some("KILOWATT")) => Some(1000.0),
            (Self::Energy | Self::Power, Some(_)) => None,
            _ => Some(1.0),
        }
    }

    /// How well an item of the signal's type stands for it; of equals, the first in the model does.
    fn fits(self, item: &DataItem, device: &Device) -> Option<u8> {
        if item.kind != self.kind() || item.category == "CONDITION" {
            return None;
        }
        let sub_type = item.sub_type.as_deref();
        match self {
            // A subprogram is not the program; nor is a rejected part a part.
            Self::Program => matches!(sub_type, None | Some("MAIN" | "ACTIVE")).then_some(0),
            Self::PartCount => match sub_type {
                Some("GOOD") => Some(0),
                None | Some("ALL") => Some(1),
                Some(_) => None,
            },
            // A rotary axis has a load too, and is no spindle: that one has a speed, or a name that says so.
            Self::Load => match item.component.as_str() {
                "Spindle" => Some(0),
                "Rotary" if has_speed(item, device) => Some(0),
                "Rotary" if item.component_name.starts_with('S') => Some(1),
                _ => None,
            },
            Self::PowerState => matches!(sub_type, None | Some("LINE")).then_some(0),
            _ => Some(u8::from(sub_type.is_some_and(|sub_type| sub_type != "ACTUAL"))),
        }
    }
}

/// Whether the component that has an item has a spindle's speed, too.
fn has_speed(item: &DataItem, device: &Device) -> bool {
    device.items.iter().any(|other| {
        matches!(other.kind.as_str(), "ROTARY_VELOCITY" | "SPINDLE_SPEED")
            && (&other.component, &other.component_name) == (&item.component, &item.component_name)
    })
}

/// Why a device cannot be read as the config says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// A mapped name is not in the model.
    #[error("{signal} is mapped to {wanted:?}, which the device does not have; it has {there}")]
    NoItem {
        /// The signal, or `conditions`.
        signal: String,
        /// What the config names.
        wanted: String,
        /// What the model has.
        there: String,
    },
    /// The item has another unit.
    #[error("{signal} is mapped to {item:?}, which is in {found:?}; the mapping says {wanted:?}")]
    Unit {
        /// The signal.
        signal: &'static str,
        /// The item.
        item: String,
        /// Its unit in the model.
        found: String,
        /// The mapping's.
        wanted: String,
    },
    /// Nothing to tell a state from.
    #[error("the device has no data item of type EXECUTION; map `execution` to one of {there}")]
    NoExecution {
        /// What the model has.
        there: String,
    },
}

/// The data items that stand for signals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    /// By data item id.
    items: BTreeMap<String, (Signal, f64)>,
    /// Condition items that count, by id, with their names.
    conditions: BTreeMap<String, String>,
    has_mode: bool,
}

impl Mapping {
    /// Whether anything is to be learnt from this item.
    pub fn wants(&self, item_id: &str) -> bool {
        self.items.contains_key(item_id) || self.conditions.contains_key(item_id)
    }

    /// Whether a signal has an item.
    pub fn has(&self, signal: Signal) -> bool {
        self.items.values().any(|(mapped, _)| *mapped == signal)
    }

    /// In words: each signal and its item.
    pub fn describe(&self) -> String {
        let items = self.items.iter().map(|(item, (signal, _))| format!("{}={item}", signal.name()));
        let mut words: Vec<_> = items.collect();
        words.push(format!("{} conditions", self.conditions.len()));
        words.join(" ")
    }
}

/// Finds each signal's data item.
pub fn resolve(
    device: &Device,
    mapped: &BTreeMap<Signal, SignalTable>,
    conditions: Option<&[String]>,
) -> Result<Mapping, MappingError> {
    let mut mapping = Mapping::default();
    for (signal, _) in Signal::NAMED {
        let item = match mapped.get(&signal) {
            Some(table) => Some((mapped_item(device, signal, table)?, table.scale)),
            None => {
                let fitting = device.items.iter().filter_map(|item| Some((signal.fits(item, device)?, item)));
                let best = fitting.min_by_key(|(rank, _)| *rank);
                best.and_then(|(_, item)| Some((item, signal.scale_of(item.units.as_deref())?)))
            }
        };
        if let Some((item, scale)) = item {
            mapping.items.insert(item.id.clone(), (signal, scale));
        }
    }
    if !mapping.has(Signal::Execution) {
        return Err(MappingError::NoExecution { there: names(device.items.iter()) });
    }
    mapping.has_mode = mapping.has(Signal::Mode);
    let of_device = || device.items.iter().filter(|item| item.category == "CONDITION");
    let counted: Vec<&DataItem> = match conditions {
        None => of_device().collect(),
        Some(wanted) => {
            let find = |wanted: &String| {
                let found = of_device().find(|item| is(item, wanted));
                found.ok_or_else(|| MappingError::NoItem {
                    signal: "conditions".to_owned(),
                    wanted: wanted.clone(),
                    there: names(of_device()),
                })
            };
            wanted.iter().map(find).collect::<Result<_, _>>()?
        }
    };
    let label = |item: &DataItem| item.name.clone().unwrap_or_else(|| item.id.clone());
    mapping.conditions = counted.into_iter().map(|item| (item.id.clone(), label(item))).collect();
    Ok(mapping)
}

fn is(item: &DataItem, wanted: &str) -> bool {
    item.id == wanted || item.name.as_deref() == Some(wanted)
}

fn mapped_item<'a>(
    device: &'a Device,
    signal: Signal,
    table: &SignalTable,
) -> Result<&'a DataItem, MappingError> {
    let others = || device.items.iter().filter(|item| item.category != "CONDITION");
    let item = others().find(|item| is(item, &table.source)).ok_or_else(|| MappingError::NoItem {
        signal: signal.name().to_owned(),
        wanted: table.source.clone(),
        there: names(others()),
    })?;
    let found = item.units.clone().unwrap_or_default();
    match &table.unit {
        Some(wanted) if *wanted != found => Err(MappingError::Unit {
            signal: signal.name(),
            item: table.source.clone(),
            found,
            wanted: wanted.clone(),
        }),
        _ => Ok(item),
    }
}

fn names<'a>(items: impl Iterator<Item = &'a DataItem>) -> String {
    let each = items.map(|item| item.name.as_deref().unwrap_or(&item.id).to_owned());
    cut(&each.collect::<Vec<_>>().join(", "), 2000).to_owned()
}

/// The last value of each signal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    values: BTreeMap<Signal, String>,
    /// Faults that stand: item id, native code, text.
    faults: BTreeMap<String, BTreeMap<String, String>>,
    has_mode: bool,
}

impl Signals {
    /// Nothing is known yet.
    pub fn new(mapping: &Mapping) -> Self {
        Self { has_mode: mapping.has_mode, ..Self::default() }
    }

    /// Takes an observation in, and says which signal it was about, if it was about one.
    pub fn take(&mut self, mapping: &Mapping, observation: &Observation) -> Option<Signal> {
        match &observation.seen {
            Seen::Value(value) => {
                let (signal, scale) = mapping.items.get(&observation.item_id)?;
                self.values.insert(*signal, scaled(value.trim(), *scale));
                Some(*signal)
            }
            Seen::Condition { level, native_code, text } => {
                if mapping.conditions.contains_key(&observation.item_id) {
                    self.take_condition(&observation.item_id, *level, native_code, text.trim());
                }
                None
            }
        }
    }

    fn take_condition(&mut self, item_id: &str, level: Level, code: &str, text: &str) {
        let standing = self.faults.entry(item_id.to_owned()).or_default();
        match level {
            Level::Fault => {
                standing.insert(code.to_owned(), text.to_owned());
            }
            Level::Warning | Level::Normal if !code.is_empty() => {
                standing.remove(code);
            }
            Level::Warning => {}
            Level::Normal | Level::Unavailable => standing.clear(),
        }
        if standing.is_empty() {
            self.faults.remove(item_id);
        }
    }

    /// A signal's value; nothing where it is not known.
    pub fn value(&self, signal: Signal) -> Option<&str> {
        self.values.get(&signal).map(String::as_str).filter(|value| *value != "UNAVAILABLE")
    }

    /// Whether a signal was ever seen, if only to have no value.
    pub fn has(&self, signal: Signal) -> bool {
        self.values.contains_key(&signal)
    }

    /// A signal's value as a number.
    pub fn number(&self, signal: Signal) -> Option<f64> {
        self.value(signal)?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// Why the machine is blocked, in words: the faults that stand, or the emergency stop.
    pub fn faults(&self) -> String {
        if self.faults.is_empty() && self.value(Signal::EmergencyStop) == Some("TRIGGERED") {
            return "emergency stop".to_owned();
        }
        let each: BTreeSet<_> =
            self.faults.values().flatten().map(|(code, text)| format!("{code} {text}")).collect();
        let words = each.iter().map(|words| words.trim()).collect::<Vec<_>>().join("; ");
        if words.is_empty() && !self.faults.is_empty() { "fault".to_owned() } else { words }
    }

    /// The state that the signals amount to.
    pub fn state(&self) -> MachineState {
        let is = |signal: Signal, value: &str| self.values.get(&signal).is_some_and(|seen| seen == value);
        if is(Signal::Availability, "UNAVAILABLE") {
            return MachineState::Unknown;
        }
        if is(Signal::PowerState, "OFF") {
            return MachineState::Off;
        }
        let Some(execution) = self.value(Signal::Execution) else { return MachineState::Unknown };
        if is(Signal::EmergencyStop, "TRIGGERED") || !self.faults.is_empty() {
            return MachineState::Blocked;
        }
        match self.value(Signal::FunctionalMode) {
            Some("MAINTENANCE") => return MachineState::Maintenance,
            Some("SETUP" | "TEARDOWN") => return MachineState::Setup,
            _ => {}
        }
        match (execution, self.value(Signal::Mode)) {
            ("ACTIVE" | "WAIT", Some("AUTOMATIC")) => MachineState::Producing,
            ("ACTIVE" | "WAIT", None) if self.has_mode => MachineState::Unknown,
            ("ACTIVE" | "WAIT", None) => MachineState::Producing,
            ("ACTIVE" | "WAIT", Some(_)) => MachineState::Setup,
            (
                "INTERRUPTED" | "FEED_HOLD" | "PROGRAM_STOPPED" | "OPTIONAL_STOP" | "PROGRAM_OPTIONAL_STOP",
                _,
            ) => MachineState::Held,
            ("READY" | "STOPPED" | "PROGRAM_COMPLETED", _) => MachineState::Idle,
            _ => MachineState::Unknown,
        }
    }
}

fn scaled(value: &str, scale: f64) -> String {
    match value.parse::<f64>() {
        Ok(number) if scale != 1.0 => (number * scale).to_string(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::mapping::SignalFile;

    fn state_of(values: &[(Signal, &str)], fault: bool, has_mode: bool) -> MachineState {
        let values = values.iter().map(|(signal, value)| (*signal, (*value).to_owned())).collect();
        let mut signals = Signals { values, has_mode, ..Signals::default() };
        if fault {
            signals.take_condition("c", Level::Fault, "7", "no oil");
        }
        signals.state()
    }

    #[test]
    fn the_state_is_derived_as_the_table_says() {
        use MachineState as State;
        use Signal::{Availability, EmergencyStop, Execution, FunctionalMode, Mode, PowerState};
        let auto = (Mode, "AUTOMATIC");
        let on = (Availability, "AVAILABLE");
        let cases: &[(&[(Signal, &str)], State)] = &[
            (&[], State::Unknown),
            (&[(Availability, "UNAVAILABLE"), (Execution, "ACTIVE"), auto], State::Unknown),
            (&[on, (PowerState, "OFF"), (Execution, "UNAVAILABLE")], State::Off),
            (&[on, (Execution, "UNAVAILABLE"), auto], State::Unknown),
            (&[on, (Execution, "ACTIVE"), auto], State::Producing),
            (&[(Execution, "WAIT"), auto], State::Producing),
            (&[on, (Execution, "ACTIVE"), (Mode, "MANUAL_DATA_INPUT")], State::Setup),
            (&[on, (Execution, "ACTIVE"), (Mode, "UNAVAILABLE")], State::Unknown),
            (&[on, (Execution, "ACTIVE"), auto, (EmergencyStop, "TRIGGERED")], State::Blocked),
            (&[on, (Execution, "ACTIVE"), auto, (EmergencyStop, "ARMED")], State::Producing),
            (&[on, (Execution, "ACTIVE"), auto, (FunctionalMode, "MAINTENANCE")], State::Maintenance),
            (&[on, (Execution, "READY"), auto, (FunctionalMode, "TEARDOWN")], State::Setup),
            (&[on, (Execution, "FEED_HOLD"), auto], State::Held),
            (&[on, (Execution, "INTERRUPTED"), auto], State::Held),
            (&[on, (Execution, "OPTIONAL_STOP"), auto], State::Held),
            (&[on, (Execution, "PROGRAM_COMPLETED"), auto], State::Idle),
            (&[on, (Execution, "STOPPED"), (Mode, "MANUAL")], State::Idle),
            (&[on, (Execution, "DANCING"), auto], State::Unknown),
        ];
        for (values, state) in cases {
            assert_eq!(state_of(values, false, true), *state, "{values:?}");
        }
        assert_eq!(state_of(&[on, (Execution, "ACTIVE"), auto], true, true), State::Blocked);
        assert_eq!(state_of(&[on, (Execution, "UNAVAILABLE"), auto], true, true), State::Unknown);
        assert_eq!(state_of(&[on, (Execution, "ACTIVE")], false, false), State::Producing);
    }

    #[test]
    fn a_fault_stands_until_its_code_or_the_whole_condition_is_normal() {
        let mut signals = Signals::default();
        signals.take_condition("c", Level::Fault, "1", "a");
        signals.take_condition("c", Level::Fault, "2", "b");
        assert_eq!(signals.faults(), "1 a; 2 b");
        signals.take_condition("c", Level::Normal, "1", "");
        assert_eq!(signals.faults(), "2 b");
        signals.take_condition("d", Level::Warning, "9", "");
        signals.take_condition("c", Level::Normal, "", "");
        assert_eq!(signals.faults(), "");
    }

    #[test]
    fn what_is_not_mapped_is_read_in_the_models_unit_or_not_at_all() {
        let item = |kind: &str, units: Option<&str>| DataItem {
            id: kind.to_owned(),
            kind: kind.to_owned(),
            category: "SAMPLE".to_owned(),
            units: units.map(str::to_owned),
            ..DataItem::default()
        };
        let read = |kind: &str, units: Option<&str>| {
            let device =
                Device { items: vec![item("EXECUTION", None), item(kind, units)], ..Device::default() };
            let mapping = resolve(&device, &BTreeMap::new(), None).unwrap();
            let (signal, scale) = mapping.items.get(kind)?;
            Some((*signal, scaled("7200", *scale)))
        };
        let energy = |wh: &str| Some((Signal::Energy, wh.to_owned()));
        assert_eq!(read("ELECTRICAL_ENERGY", Some("WATT_SECOND")), energy("2"));
        assert_eq!(read("ELECTRICAL_ENERGY", None), energy("2"), "as the standard has it");
        assert_eq!(read("ELECTRICAL_ENERGY", Some("WATT_HOUR")), energy("7200"));
        assert_eq!(read("ELECTRICAL_ENERGY", Some("KILOWATT_HOUR")), energy("7200000"));
        assert_eq!(read("ELECTRICAL_ENERGY", Some("CALORIE")), None);
        assert_eq!(read("WATTAGE", None), Some((Signal::Power, "7200".to_owned())));
        assert_eq!(read("WATTAGE", Some("HORSEPOWER")), None);
        assert_eq!(read("PART_COUNT", None), Some((Signal::PartCount, "7200".to_owned())));
    }

    #[test]
    fn a_mapped_name_that_is_not_there_is_refused_with_what_is() {
        let item = |id: &str, kind: &str| DataItem {
            id: id.to_owned(),
            kind: kind.to_owned(),
            category: "EVENT".to_owned(),
            ..DataItem::default()
        };
        let device =
            Device { items: vec![item("e1", "EXECUTION"), item("m1", "MESSAGE")], ..Device::default() };
        let wanted = SignalTable::from(SignalFile::Source("counter".to_owned()));
        let refused = resolve(&device, &[(Signal::PartCount, wanted)].into(), None);
        let Err(MappingError::NoItem { there, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(there, "e1, m1");
        let conditions = ["hot".to_owned()];
        assert!(resolve(&device, &BTreeMap::new(), Some(&conditions)).is_err());
        assert!(resolve(&device, &BTreeMap::new(), None).unwrap().has(Signal::Execution));
        let bare = Device { items: vec![item("m1", "MESSAGE")], ..Device::default() };
        assert!(matches!(resolve(&bare, &BTreeMap::new(), None), Err(MappingError::NoExecution { .. })));
    }
}
