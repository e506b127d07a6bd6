//! The third room: is the machine fit for it now? Pure: an adapter reads the machine for the purpose, and asks here.
//!
//! An interlock that cannot be read does not hold, but for a door that the machine does not show: then the machine's
//! own guard stands alone, and the record says so.

use super::Verb;
use super::program::Pinned;
use crate::adapter::job::{Listed, Standing};
use millpool_proto::v1::MachineState;
use std::time::Duration;

/// What is older than this is not telemetry of now.
pub const TELEMETRY_AGE_MAX: Duration = Duration::from_secs(2);

/// What an interlock showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interlock {
    /// Its name.
    pub name: &'static str,
    /// Whether it lets the command pass.
    pub holds: bool,
    /// What was seen, in words.
    pub seen: String,
}

/// The machine, as it was just read.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitness {
    /// How long the reading took: nothing in it is older.
    pub age: Duration,
    /// Its state.
    pub state: MachineState,
    /// Whether its door is closed; none where the machine does not show it.
    pub door_closed: Option<bool>,
    /// A door is mapped, and had no good value.
    pub door_unreadable: bool,
    /// Its own list of jobs; none where it cannot be read.
    pub jobs: Option<Vec<Listed>>,
}

/// The interlock on a job's program: it has to be the one that was released. What did not come from here is the plant's
/// own, and the record says so.
pub async fn program(pinned: Option<&Pinned>) -> Interlock {
    let (holds, seen) = match pinned {
        None => (true, "the plant's own".to_owned()),
        Some(pinned) => match pinned.check().await {
            Ok(()) => (true, pinned.program.to_string()),
            Err(why) => (false, why),
        },
    };
    Interlock { name: "program", holds, seen }
}

/// The interlocks of what lets a machine move; none for anything else.
pub fn check(verb: Verb, job: &str, fitness: &Fitness) -> Vec<Interlock> {
    if !verb.moves() {
        return Vec::new();
    }
    let lock = |name, holds, seen: String| Interlock { name, holds, seen };
    let Fitness { age, state, door_closed, door_unreadable, jobs } = fitness;
    let own = jobs.iter().flatten().find(|listed| listed.id == job).map(|listed| listed.standing);
    let other = jobs
        .iter()
        .flatten()
        .find(|listed| listed.id != job && matches!(listed.standing, Standing::AtWork | Standing::Due));
    let fit = match verb {
        Verb::Start => *state == MachineState::Idle,
        _ => matches!(state, MachineState::Idle | MachineState::Held),
    };
    let ready = match verb {
        Verb::Start => own == Some(Standing::Open),
        _ => own == Some(Standing::AtWork),
    };
    let mode = !matches!(
        state,
        MachineState::Unknown | MachineState::Off | MachineState::Setup | MachineState::Maintenance
    );
    let door = match (door_closed, door_unreadable) {
        (_, true) => (false, "its value cannot be read"),
        (Some(true), _) => (true, "closed"),
        (Some(false), _) => (false, "open"),
        (None, _) => (true, "not shown by the machine"),
    };
    vec![
        lock("telemetry", *age <= TELEMETRY_AGE_MAX, format!("read within {} ms", age.as_millis())),
        lock("mode", mode, format!("{state:?}").to_lowercase()),
        lock("fault", *state != MachineState::Blocked, format!("{state:?}").to_lowercase()),
        lock("at rest", fit, format!("{state:?}").to_lowercase()),
        lock("door", door.0, door.1.to_owned()),
        lock(
            "job",
            ready,
            own.map_or("not on the machine's list".to_owned(), |own| format!("{own:?}").to_lowercase()),
        ),
        lock(
            "in use",
            jobs.is_some() && other.is_none(),
            match (jobs, other) {
                (None, _) => "the machine's list cannot be read".to_owned(),
                (_, Some(other)) => format!("{} is {:?}", other.id, other.standing).to_lowercase(),
                _ => "no other job".to_owned(),
            },
        ),
    ]
}
