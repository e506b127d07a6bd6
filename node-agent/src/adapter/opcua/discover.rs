//! What a server offers: finds the machine, its variables, and what of the companion specifications it has.
//!
//! Generations of the specifications differ, so nothing is taken for granted: what is there goes into a
//! [`Capability`], and what is missing has a fallback, or is refused with what is there.
//!
//! | missing | instead |
//! |---|---|
//! | MachineryItemState (Machinery before 1.01, or not built in) | the program's state, with MachineTool/OperationMode |
//! | MachineryOperationMode | MachineTool/OperationMode |
//! | JobManagement, ISA-95 job control (MachineTool before 1.02) | no jobs; the part count and programs tell what is done |
//! | job control of version 2 | that of version 1 is named in the record, and nothing of it is called |
//! | spindle load, power, energy (in no version of MachineTool) | a vendor's node, by mapping |
//! | all of it | `state` by mapping |

use super::jobs::{self, JobControl};
use super::signals::{Facet, MACHINE_TOOL, MACHINERY, Signal};
use super::space::{self, Child, Space};
use super::{MachineOptions, Trouble};
use crate::adapter::cut;
use crate::adapter::mapping::SignalTable;
use opcua_types::{EUInformation, NodeClass, NodeId, ObjectId, Variant};
use serde::{Deserialize, Serialize};

/// ISA-95 job control as it was first; the two do not understand each other.
const JOBS_V1: &str = "http://opcfoundation.org/UA/ISA95-JOBCONTROL";
/// Most namespaces whose version is remembered.
const VERSIONS_MAX: usize = 64;
/// Longest list of names in a refusal, bytes.
const NAMES_BYTES_MAX: usize = 2_000;
/// Machine ids in the published nodesets.
const MACHINES: u32 = 1001;
const MACHINE_TOOL_TYPE: u32 = 13;

/// Where each standard variable stands below a machine, by generation; the first that is there is taken.
const PLACES: [(Signal, &[&str]); 5] = [
    (
        Signal::ItemState,
        &[
            "MachineryBuildingBlocks/MachineryItemState",
            "Monitoring/MachineTool/MachineryItemState",
            "MachineryItemState",
        ],
    ),
    (
        Signal::OperationMode,
        &[
            "MachineryBuildingBlocks/MachineryOperationMode",
            "Monitoring/MachineTool/MachineryOperationMode",
            "MachineryOperationMode",
        ],
    ),
    (Signal::ToolMode, &["Monitoring/MachineTool/OperationMode"]),
    (Signal::Program, &["Production/ActiveProgram/Name"]),
    (Signal::ProgramState, &["Production/ActiveProgram/State"]),
];

/// What a server and its machine can do. Stored with the machine; a change is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// The server's product and version.
    pub server: String,
    /// Manufacturer, model and serial number.
    pub machine: String,
    /// Whether its type descends from MachineToolType.
    pub machine_tool: bool,
    /// The namespaces with their versions, where the server tells them.
    pub namespaces: Vec<String>,
    /// The signals that are there.
    pub signals: Vec<String>,
    /// Job control.
    pub jobs: Jobs,
    /// Whether it takes files.
    pub files: bool,
}

/// What of ISA-95 job control is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Jobs {
    /// Nothing.
    #[default]
    None,
    /// Version 1: read only.
    V1,
    /// Version 2.
    V2,
}

impl Capability {
    /// In words.
    pub fn describe(&self) -> String {
        let jobs = match self.jobs {
            Jobs::None => "no job control",
            Jobs::V1 => "job control v1 (read only)",
            Jobs::V2 => "job control v2",
        };
        let files = if self.files { "files" } else { "no files" };
        let signals = self.signals.join(" ");
        let parts = [&self.machine, &self.server, &signals, jobs, files].map(|words| words.trim());
        parts.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// A variable that is watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Its node.
    pub node: NodeId,
    /// What it stands for.
    pub signal: Signal,
    /// Which of a state machine's ways to tell its state it is.
    pub facet: Facet,
    /// What its values are multiplied by.
    pub scale: f64,
}

/// A machine as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it can do.
    pub capability: Capability,
    /// What is watched.
    pub variables: Vec<Variable>,
    /// Job control, where it is of version 2.
    pub job_control: Option<JobControl>,
}

/// Finds one machine.
pub async fn find(space: &mut Space<'_>, options: &MachineOptions) -> Result<Found, Trouble> {
    let (machine, machine_tool) = pick(space, options.machine.as_deref()).await?;
    let mut variables = Vec::new();
    for (signal, places) in PLACES {
        if !options.signals.contains_key(&signal) {
            variables.extend(standard(space, &machine, signal, places).await?);
        }
    }
    for (signal, table) in &options.signals {
        variables.extend(mapped(space, &machine, *signal, table).await?);
    }
    let tells = |signal: Signal| variables.iter().any(|variable| variable.signal == signal);
    if ![Signal::State, Signal::ItemState, Signal::ProgramState].into_iter().any(tells) {
        let there = names(space.children(&machine).await?);
        let why = format!(
            "the machine has neither MachineryItemState nor a program's state; map `state` to a variable below it; \
             it has {there}"
        );
        return Err(Trouble::Mapping(why));
    }
    let jobs = job_control(space, &machine).await?;
    if let Some(list) = jobs.list.filter(|_| !options.signals.contains_key(&Signal::Jobs)) {
        variables.push(Variable { node: list, signal: Signal::Jobs, facet: Facet::Value, scale: 1.0 });
    }
    let tells = |signal: Signal| variables.iter().any(|variable| variable.signal == signal);
    let capability = Capability {
        server: server(space).await?,
        machine: identity(space, &machine).await?,
        machine_tool,
        namespaces: versions(space).await?,
        signals: Signal::NAMED
            .iter()
            .filter(|(signal, _)| tells(*signal))
            .map(|(_, name)| (*name).to_owned())
            .collect(),
        jobs: jobs.kind,
        files: space.child(&machine, "FileSystem").await?.is_some(),
    };
    Ok(Found { capability, variables, job_control: jobs.control })
}

/// The machine that the config names, or the only one that there is.
async fn pick(space: &mut Space<'_>, wanted: Option<&str>) -> Result<(NodeId, bool), Trouble> {
    if let Some(name) = wanted.filter(|wanted| wanted.starts_with("nsu=")) {
        let node = space.named(&space::objects(), name).await?;
        return node.map(|node| (node, false)).ok_or_else(|| no_machine(wanted, "no such node".to_owned()));
    }
    let Some(folder) = space.numbered(MACHINERY, MACHINES) else {
        let there = space.namespaces().join(", ");
        let why = format!("no namespace {MACHINERY}, so no folder of machines; it has {there}");
        return Err(no_machine(wanted, why));
    };
    let machines: Vec<Child> = space.children(&folder).await?.to_vec();
    let objects = machines.iter().filter(|child| child.class == NodeClass::Object);
    let mut candidates = Vec::new();
    for child in objects {
        let tool = match space.numbered(MACHINE_TOOL, MACHINE_TOOL_TYPE) {
            Some(tool) => space.descends(&child.kind, &tool).await?,
            None => false,
        };
        candidates.push((child.clone(), tool));
    }
    let chosen = match wanted {
        Some(wanted) => candidates.iter().find(|(child, _)| child.name == wanted),
        None => {
            let tools: Vec<_> = candidates.iter().filter(|(_, tool)| *tool).collect();
            match (tools.as_slice(), candidates.as_slice()) {
                ([only], _) => Some(*only),
                ([], [only]) => Some(only),
                _ => None,
            }
        }
    };
    let there = || names(candidates.iter().map(|(child, _)| child));
    chosen.map(|(child, tool)| (child.id.clone(), *tool)).ok_or_else(|| no_machine(wanted, there()))
}

fn no_machine(wanted: Option<&str>, there: String) -> Trouble {
    Trouble::Machine { wanted: wanted.unwrap_or("(none named)").to_owned(), there }
}

/// A standard variable, or the variables of a state machine.
async fn standard(
    space: &mut Space<'_>,
    machine: &NodeId,
    signal: Signal,
    places: &[&str],
) -> Result<Vec<Variable>, Trouble> {
    let variable = |node, facet| Variable { node, signal, facet, scale: 1.0 };
    for place in places {
        let Some(node) = space.path(machine, place).await? else { continue };
        let Some(text) = space.path(&node, "CurrentState").await? else {
            return Ok(vec![variable(node, Facet::Value)]);
        };
        let mut facets = Vec::new();
        for (name, facet) in [("Id", Facet::Id), ("Number", Facet::Value)] {
            let found = space.child(&text, name).await?;
            facets.extend(found.map(|child| variable(child.id, facet)));
        }
        facets.push(variable(text, Facet::Text));
        return Ok(facets);
    }
    Ok(Vec::new())
}

/// A variable that the config names.
async fn mapped(
    space: &mut Space<'_>,
    machine: &NodeId,
    signal: Signal,
    table: &SignalTable,
) -> Result<Vec<Variable>, Trouble> {
    let Some(node) = space.named(machine, &table.source).await? else {
        let there = neighbours(space, machine, &table.source).await?;
        let why = format!(
            "{} is mapped to {:?}, which the server does not have; {there}",
            signal.name(),
            table.source
        );
        return Err(Trouble::Mapping(why));
    };
    if let Some(wanted) = &table.unit {
        let found = unit(space, &node).await?;
        if !found.iter().any(|unit| unit == wanted) {
            let found = if found.is_empty() { "no unit".to_owned() } else { found.join(" or ") };
            let why = format!(
                "{} is mapped to {:?}, which is in {found}; the mapping says {wanted:?}",
                signal.name(),
                table.source
            );
            return Err(Trouble::Mapping(why));
        }
    }
    Ok(vec![Variable { node, signal, facet: Facet::Value, scale: table.scale }])
}

/// What stands where a path breaks off, in words.
async fn neighbours(space: &mut Space<'_>, machine: &NodeId, path: &str) -> Result<String, Trouble> {
    if path.contains('=') {
        return Ok(format!("its namespaces are {}", space.namespaces().join(", ")));
    }
    let (mut at, mut walked) = (machine.clone(), "the machine".to_owned());
    for name in path.split('/') {
        let Some(child) = space.child(&at, name).await? else { break };
        (at, walked) = (child.id, name.to_owned());
    }
    Ok(format!("{walked} has {}", names(space.children(&at).await?)))
}

/// A variable's unit: its name, and its code of UNECE recommendation 20.
async fn unit(space: &mut Space<'_>, node: &NodeId) -> Result<Vec<String>, Trouble> {
    let Some(property) = space.child(node, "EngineeringUnits").await? else { return Ok(Vec::new()) };
    let Some(Variant::ExtensionObject(object)) = space.read(&property.id).await? else {
        return Ok(Vec::new());
    };
    let Some(information) = object.inner_as::<EUInformation>() else { return Ok(Vec::new()) };
    let letters = information.unit_id.to_be_bytes();
    let code: String =
        letters.iter().filter(|byte| byte.is_ascii_graphic()).map(|byte| *byte as char).collect();
    let name = information.display_name.text.to_string();
    Ok([name, code].into_iter().filter(|unit| !unit.is_empty()).collect())
}

struct Below {
    kind: Jobs,
    control: Option<JobControl>,
    list: Option<NodeId>,
}

/// Job control below the machine. Its version is told by the namespace of its list.
async fn job_control(space: &mut Space<'_>, machine: &NodeId) -> Result<Below, Trouble> {
    let nothing = Below { kind: Jobs::None, control: None, list: None };
    for place in ["MachineryBuildingBlocks/JobManagement/JobOrderControl", "JobManagement/JobOrderControl"] {
        let Some(control) = space.path(machine, place).await? else { continue };
        let Some(list) = space.child(&control, "JobOrderList").await? else { continue };
        return Ok(match list.namespace.trim_end_matches('/') {
            uri if uri == jobs::JOB_CONTROL.trim_end_matches('/') => {
                let control = JobControl::find(space, control).await?;
                Below { kind: Jobs::V2, control, list: Some(list.id) }
            }
            JOBS_V1 => Below { kind: Jobs::V1, control: None, list: None },
            _ => nothing,
        });
    }
    Ok(nothing)
}

async fn server(space: &mut Space<'_>) -> Result<String, Trouble> {
    let build = space.words(&ObjectId::Server.into(), "ServerStatus/BuildInfo/ProductName").await?;
    let version = space.words(&ObjectId::Server.into(), "ServerStatus/BuildInfo/SoftwareVersion").await?;
    Ok(format!("{build} {version}").trim().to_owned())
}

async fn identity(space: &mut Space<'_>, machine: &NodeId) -> Result<String, Trouble> {
    let mut words = Vec::new();
    for name in ["Manufacturer", "Model", "SerialNumber"] {
        words.push(space.words(machine, &format!("Identification/{name}")).await?);
    }
    words.retain(|word| !word.is_empty());
    Ok(words.join(" "))
}

/// Each namespace that tells its version.
async fn versions(space: &mut Space<'_>) -> Result<Vec<String>, Trouble> {
    let folder: NodeId = ObjectId::Server_Namespaces.into();
    let told: Vec<Child> = space.children(&folder).await?.iter().take(VERSIONS_MAX).cloned().collect();
    let mut versions = Vec::new();
    for namespace in told.iter().filter(|child| child.class == NodeClass::Object) {
        let version = space.words(&namespace.id, "NamespaceVersion").await?;
        versions.push(format!("{} {version}", namespace.name).trim().to_owned());
    }
    versions.sort();
    Ok(versions)
}

fn names<'a>(children: impl IntoIterator<Item = &'a Child>) -> String {
    let each: Vec<_> = children.into_iter().map(|child| child.name.as_str()).collect();
    let words = if each.is_empty() { "nothing".to_owned() } else { each.join(", ") };
    cut(&words, NAMES_BYTES_MAX).to_owned()
}
