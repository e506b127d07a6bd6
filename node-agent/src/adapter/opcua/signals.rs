//! What a machine's variables say, and what state they amount to. Pure: it knows no sessions.
//!
//! A state machine of OPC UA tells its state thrice: as the id of a node, as a number, and as a text in
//! somebody's language. The id is looked at first, because it is the only one that every generation of
//! the companion specifications has and that no vendor translates.
//!
//! The state, first match first:
//!
//! | what is seen | state |
//! |---|---|
//! | `state` is mapped | as its table says; unknown for any other value |
//! | MachineryItemState is there and has no good value | unknown |
//! | MachineryItemState NotAvailable | off |
//! | operation mode Maintenance, or MachineTool/OperationMode Service | maintenance |
//! | MachineryItemState OutOfService | blocked |
//! | operation mode Setup, or MachineTool/OperationMode Setup | setup |
//! | MachineryItemState Executing, MachineTool/OperationMode Manual, and no program runs | setup |
//! | MachineryItemState Executing | producing |
//! | MachineryItemState NotExecuting, program Interrupted | held |
//! | MachineryItemState NotExecuting | idle |
//! | no MachineryItemState on the machine, and the program has no good value | unknown |
//! | program Running, MachineTool/OperationMode Manual | setup |
//! | program Running | producing |
//! | program Interrupted | held |
//! | program Initializing, Ended, Aborted | idle |
//!
//! Sources: OPC 40001-1 (Machinery: item state, operation mode), OPC 40501-1 (machine tools: monitoring,
//! production).

use super::jobs::{Job, JobState};
use crate::adapter::job::{Listed, Standing, Told};
use crate::adapter::mapping::state_named;
use millpool_proto::v1::MachineState;
use std::collections::BTreeMap;

/// What the agent wants to know of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// A vendor's own state; only by mapping.
    State,
    /// MachineryItemState
    ItemState,
    /// MachineryOperationMode
    OperationMode,
    /// Monitoring/MachineTool/OperationMode
    ToolMode,
    /// Production/ActiveProgram/Name
    Program,
    /// Production/ActiveProgram/State
    ProgramState,
    /// JobOrderList of ISA-95 job control.
    Jobs,
    /// Parts finished; only by mapping.
    PartCount,
    /// Load of the spindle, percent; only by mapping.
    Load,
    /// W after scaling; only by mapping.
    Power,
    /// Wh after scaling; only by mapping.
    Energy,
    /// Whether the door is closed; only by mapping, and for interlocks alone.
    Door,
}

impl Signal {
    /// Every signal, with its name in the config.
    pub const NAMED: [(Self, &'static str); 12] = [
        (Self::State, "state"),
        (Self::ItemState, "item_state"),
        (Self::OperationMode, "operation_mode"),
        (Self::ToolMode, "tool_mode"),
        (Self::Program, "program"),
        (Self::ProgramState, "program_state"),
        (Self::Jobs, "jobs"),
        (Self::PartCount, "part_count"),
        (Self::Load, "load"),
        (Self::Power, "power"),
        (Self::Energy, "energy"),
        (Self::Door, "door"),
    ];

    /// Its name in the config.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(signal, _)| *signal == self).map_or("", |(_, name)| name)
    }
}

/// Which of a state machine's ways to tell its state a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facet {
    /// The id of a state's node.
    Id,
    /// The state's number; of a plain variable, its value.
    Value,
    /// The state's name.
    Text,
}

/// A value, as far as anything follows from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No good value: the server says that it has none, or it cannot be understood.
    Bad,
    /// A number; a boolean is 0 or 1.
    Number(f64),
    /// Words.
    Text(String),
    /// A node, by its namespace's URI and its number.
    Node(String, u32),
    /// A list of jobs.
    Jobs(Vec<Job>),
}

impl Value {
    /// As a mapping names it.
    fn mapped(&self) -> Option<String> {
        match self {
            Self::Number(number) => Some(number.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Bad | Self::Node(..) | Self::Jobs(_) => None,
        }
    }
}

/// The URI of the Machinery namespace.
pub const MACHINERY: &str = "http://opcfoundation.org/UA/Machinery/";
/// The URI of the MachineTool namespace.
pub const MACHINE_TOOL: &str = "http://opcfoundation.org/UA/MachineTool/";

/// The states' nodes: their ids stand in the published nodesets, and do not change between versions.
const STATE_NODES: [(&str, u32, &str); 17] = [
    (MACHINERY, 5004, "OutOfService"),
    (MACHINERY, 5005, "NotAvailable"),
    (MACHINERY, 5006, "Executing"),
    (MACHINERY, 5007, "NotExecuting"),
    (MACHINERY, 5024, "None"),
    (MACHINERY, 5025, "Maintenance"),
    (MACHINERY, 5026, "Processing"),
    (MACHINERY, 5027, "Setup"),
    (MACHINE_TOOL, 5058, "Maintenance"),
    (MACHINE_TOOL, 5059, "None"),
    (MACHINE_TOOL, 5060, "Processing"),
    (MACHINE_TOOL, 5061, "Setup"),
    (MACHINE_TOOL, 5037, "Aborted"),
    (MACHINE_TOOL, 5038, "Ended"),
    (MACHINE_TOOL, 5039, "Initializing"),
    (MACHINE_TOOL, 5040, "Interrupted"),
    (MACHINE_TOOL, 5041, "Running"),
];

/// States by number, where a state machine tells its number.
const ITEM_STATES: [&str; 4] = ["NotAvailable", "OutOfService", "NotExecuting", "Executing"];
const OPERATION_MODES: [&str; 4] = ["None", "Maintenance", "Setup", "Processing"];
const PROGRAM_STATES: [&str; 5] = ["Initializing", "Running", "Ended", "Interrupted", "Aborted"];
/// The enumeration MachineOperationMode.
const TOOL_MODES: [&str; 6] =
    ["Manual", "Automatic", "Setup", "AutoWithManualIntervention", "Service", "Other"];

/// What is known of a machine.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    values: BTreeMap<(Signal, Facet), Value>,
    /// The mapped states by value; with them nothing else decides.
    states: Option<BTreeMap<String, String>>,
    /// What the door's values mean: closed or open.
    doors: BTreeMap<String, String>,
}

/// What a mapped door's values can mean.
pub const DOORS: [&str; 2] = ["closed", "open"];

impl Signals {
    /// Nothing is known yet of these variables.
    pub fn new(
        variables: impl IntoIterator<Item = (Signal, Facet)>,
        states: Option<BTreeMap<String, String>>,
    ) -> Self {
        let values = variables.into_iter().map(|variable| (variable, Value::Bad)).collect();
        Self { values, states, doors: BTreeMap::new() }
    }

    /// What the door's values mean.
    pub fn with_doors(self, doors: BTreeMap<String, String>) -> Self {
        Self { doors, ..self }
    }

    /// The same variables, of which nothing is known.
    pub fn emptied(&self) -> Self {
        let values = self.values.keys().map(|variable| (*variable, Value::Bad)).collect();
        Self { values, ..self.clone() }
    }

    /// Whether the door is closed: none where there is none to be seen, none within where it cannot be read.
    pub fn door(&self) -> Option<Option<bool>> {
        let meant = |value: &Value| self.doors.get(&value.mapped()?).map(|meant| meant == DOORS[0]);
        self.values.get(&(Signal::Door, Facet::Value)).map(meant)
    }

    /// Takes a value in, and says what of it is to be told beside the state.
    pub fn take(&mut self, signal: Signal, facet: Facet, value: Value) -> Option<Told> {
        let program_ran = signal == Signal::ProgramState && self.name(signal) == Some("Running");
        self.values.insert((signal, facet), value);
        match signal {
            Signal::PartCount => self.number(signal).map(Told::Count),
            Signal::Power => self.number(signal).map(Told::Power),
            Signal::Energy => self.number(signal).map(Told::Meter),
            Signal::ProgramState if program_ran && self.name(signal) == Some("Ended") => {
                Some(Told::Completed)
            }
            _ => None,
        }
    }

    /// A signal's value as a number.
    pub fn number(&self, signal: Signal) -> Option<f64> {
        match self.values.get(&(signal, Facet::Value))? {
            Value::Number(number) if number.is_finite() => Some(*number),
            _ => None,
        }
    }

    /// A signal's value in words.
    pub fn text(&self, signal: Signal) -> Option<&str> {
        match self.values.get(&(signal, Facet::Value))? {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// The machine's own list of jobs, if it has one that can be read.
    pub fn jobs(&self) -> Option<Vec<Listed>> {
        let Some(Value::Jobs(jobs)) = self.values.get(&(Signal::Jobs, Facet::Value)) else { return None };
        let listed = jobs.iter().map(|job| Listed {
            id: job.id.clone(),
            standing: match job.state {
                JobState::Running | JobState::Interrupted => Standing::AtWork,
                JobState::AllowedToStart => Standing::Due,
                JobState::Ended => Standing::Done,
                _ => Standing::Open,
            },
        });
        Some(listed.collect())
    }

    /// The state that the variables amount to.
    pub fn state(&self) -> MachineState {
        if let Some(states) = &self.states {
            return self.mapped(states).unwrap_or(MachineState::Unknown);
        }
        let tool_mode = self.name(Signal::ToolMode);
        let mode = match (self.name(Signal::OperationMode), tool_mode) {
            (Some("Maintenance"), _) | (_, Some("Service")) => Some(MachineState::Maintenance),
            (Some("Setup"), _) | (_, Some("Setup")) => Some(MachineState::Setup),
            _ => None,
        };
        let (manual, program) = (tool_mode == Some("Manual"), self.name(Signal::ProgramState));
        if !self.has(Signal::ItemState) {
            return match (program, mode) {
                (None, _) => MachineState::Unknown,
                (_, Some(mode)) => mode,
                (Some("Running"), _) if manual => MachineState::Setup,
                (Some("Running"), _) => MachineState::Producing,
                (Some("Interrupted"), _) => MachineState::Held,
                (Some(_), _) => MachineState::Idle,
            };
        }
        let by_hand = manual && program.is_some_and(|program| program != "Running");
        match (self.name(Signal::ItemState), mode) {
            (Some("NotAvailable"), _) => MachineState::Off,
            (Some("OutOfService"), Some(MachineState::Maintenance)) => MachineState::Maintenance,
            (Some("OutOfService"), _) => MachineState::Blocked,
            (Some("Executing" | "NotExecuting"), Some(mode)) => mode,
            (Some("Executing"), None) if by_hand => MachineState::Setup,
            (Some("Executing"), None) => MachineState::Producing,
            (Some("NotExecuting"), None) if program == Some("Interrupted") => MachineState::Held,
            (Some("NotExecuting"), None) => MachineState::Idle,
            _ => MachineState::Unknown,
        }
    }

    fn mapped(&self, states: &BTreeMap<String, String>) -> Option<MachineState> {
        state_named(states.get(&self.values.get(&(Signal::State, Facet::Value))?.mapped()?)?)
    }

    /// Whether the machine has a signal.
    pub fn has(&self, signal: Signal) -> bool {
        self.values.range((signal, Facet::Id)..=(signal, Facet::Text)).next().is_some()
    }

    /// The name of the state that a state machine is in, or of an enumeration's value.
    fn name(&self, signal: Signal) -> Option<&str> {
        let names: &'static [&'static str] = match signal {
            Signal::ItemState => &ITEM_STATES,
            Signal::OperationMode => &OPERATION_MODES,
            Signal::ProgramState => &PROGRAM_STATES,
            Signal::ToolMode => &TOOL_MODES,
            _ => return None,
        };
        [Facet::Id, Facet::Value, Facet::Text].into_iter().find_map(|facet| {
            match self.values.get(&(signal, facet))? {
                Value::Bad | Value::Jobs(_) => None,
                Value::Node(uri, id) => {
                    let node = STATE_NODES.iter().find(|(of, number, _)| of == uri && number == id);
                    node.map(|(_, _, name)| *name)
                }
                Value::Number(number) => {
                    names.iter().enumerate().find(|(at, _)| *at as f64 == *number).map(|(_, name)| *name)
                }
                Value::Text(text) => names.iter().find(|name| text == *name).copied(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MachineState as State;
    use Signal::{ItemState, OperationMode, ProgramState, ToolMode};

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    #[test]
    fn a_door_is_closed_where_its_mapping_says_so_and_unreadable_otherwise() {
        assert_eq!(Signals::default().door(), None);
        let doors = [("1", "closed"), ("OFFEN", "open")];
        let doors = doors.map(|(value, meant)| (value.to_owned(), meant.to_owned())).into();
        let mut signals = Signals::new([(Signal::Door, Facet::Value)], None).with_doors(doors);
        assert_eq!(signals.door(), Some(None));
        for (value, closed) in [
            (Value::Number(1.0), Some(true)),
            (text("OFFEN"), Some(false)),
            (Value::Number(0.0), None),
            (Value::Bad, None),
        ] {
            signals.take(Signal::Door, Facet::Value, value);
            assert_eq!(signals.door(), Some(closed));
        }
        signals.take(Signal::Door, Facet::Value, Value::Number(1.0));
        assert_eq!(signals.emptied().door(), Some(None), "what was known is not what is read now");
    }

    fn state_of(values: &[(Signal, Facet, Value)]) -> State {
        let mut signals = Signals::new(values.iter().map(|(signal, facet, _)| (*signal, *facet)), None);
        for (signal, facet, value) in values {
            signals.take(*signal, *facet, value.clone());
        }
        signals.state()
    }

    #[test]
    fn the_state_is_derived_as_the_table_says() {
        let cases: &[(&[(Signal, &str)], State)] = &[
            (&[], State::Unknown),
            (&[(ItemState, "bad")], State::Unknown),
            (&[(ItemState, "bad"), (ProgramState, "Running")], State::Unknown),
            (&[(ItemState, "NotAvailable"), (OperationMode, "Maintenance")], State::Off),
            (&[(ItemState, "OutOfService")], State::Blocked),
            (&[(ItemState, "OutOfService"), (OperationMode, "Setup")], State::Blocked),
            (&[(ItemState, "OutOfService"), (OperationMode, "Maintenance")], State::Maintenance),
            (&[(ItemState, "NotExecuting"), (ToolMode, "Service")], State::Maintenance),
            (&[(ItemState, "Executing"), (OperationMode, "Setup")], State::Setup),
            (&[(ItemState, "Executing"), (ToolMode, "Setup")], State::Setup),
            (&[(ItemState, "Executing"), (OperationMode, "Processing")], State::Producing),
            (&[(ItemState, "Executing"), (OperationMode, "None")], State::Producing),
            (&[(ItemState, "Executing"), (ToolMode, "Manual")], State::Producing),
            (&[(ItemState, "Executing"), (ToolMode, "Manual"), (ProgramState, "Running")], State::Producing),
            (&[(ItemState, "Executing"), (ToolMode, "Manual"), (ProgramState, "Ended")], State::Setup),
            (&[(ItemState, "NotExecuting"), (ProgramState, "Interrupted")], State::Held),
            (&[(ItemState, "NotExecuting"), (ProgramState, "Aborted")], State::Idle),
            (&[(ItemState, "NotExecuting")], State::Idle),
            (&[(ProgramState, "bad"), (ToolMode, "Setup")], State::Unknown),
            (&[(ProgramState, "Ended"), (ToolMode, "Setup")], State::Setup),
            (&[(ProgramState, "Running"), (ToolMode, "Automatic")], State::Producing),
            (&[(ProgramState, "Running"), (ToolMode, "Manual")], State::Setup),
            (&[(ProgramState, "Interrupted")], State::Held),
            (&[(ProgramState, "Initializing")], State::Idle),
        ];
        for (values, state) in cases {
            let values = values.iter().map(|(signal, name)| {
                let value = if *name == "bad" { Value::Bad } else { text(name) };
                (*signal, Facet::Text, value)
            });
            assert_eq!(
                state_of(&values.clone().collect::<Vec<_>>()),
                *state,
                "{:?}",
                values.collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_states_node_wins_over_its_number_and_that_over_its_text() {
        let executing = Value::Node(MACHINERY.to_owned(), 5006);
        let german = (ItemState, Facet::Text, text("In Bearbeitung"));
        assert_eq!(state_of(&[(ItemState, Facet::Id, executing.clone()), german.clone()]), State::Producing);
        assert_eq!(state_of(std::slice::from_ref(&german)), State::Unknown);
        let number = (ItemState, Facet::Value, Value::Number(1.0));
        assert_eq!(state_of(&[number.clone(), german.clone()]), State::Blocked);
        assert_eq!(state_of(&[(ItemState, Facet::Id, executing), number.clone()]), State::Producing);
        // A vendor's own state node is no state that is known; its number is.
        let own = (ItemState, Facet::Id, Value::Node("urn:vendor".to_owned(), 5006));
        assert_eq!(state_of(&[own, number]), State::Blocked);
    }

    #[test]
    fn a_vendors_state_is_what_the_mapping_says_and_nothing_else_decides() {
        let states = [("2", "producing"), ("AUS", "off")];
        let states = states.map(|(value, state)| (value.to_owned(), state.to_owned())).into();
        let variables = [(Signal::State, Facet::Value), (ItemState, Facet::Text)];
        let mut signals = Signals::new(variables, Some(states));
        assert_eq!(signals.state(), State::Unknown);
        signals.take(ItemState, Facet::Text, text("Executing"));
        for (value, state) in [
            (Value::Number(2.0), State::Producing),
            (text("AUS"), State::Off),
            (Value::Number(3.0), State::Unknown),
            (Value::Bad, State::Unknown),
        ] {
            signals.take(Signal::State, Facet::Value, value);
            assert_eq!(signals.state(), state);
        }
    }

    #[test]
    fn a_program_is_completed_when_it_ran_and_ended() {
        let mut signals = Signals::new([(ProgramState, Facet::Value)], None);
        let mut tell = |number: f64| signals.take(ProgramState, Facet::Value, Value::Number(number));
        assert_eq!(tell(2.0), None);
        assert_eq!(tell(1.0), None);
        assert_eq!(tell(2.0), Some(Told::Completed));
        assert_eq!(tell(1.0), None);
        assert_eq!(tell(4.0), None);
    }
}
