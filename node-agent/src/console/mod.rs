//! The operator's terminal: what stands on the plant's list, and a person's word on what was done.
//!
//! The running agent listens on a socket in its folder, [`SOCKET`]; `millpool-node-agent console` asks there.
//! One JSON object a line each way: a [`Question`], and its [`Answer`]. Whoever may write to the socket, which
//! is its owner and group, speaks for the plant; who said what is in the log.
//!
//! - [`serve`]: the agent's side. [`command`]: the terminal's. [`show`]: the list as people read it.
//! - [`samples`]: `millpool-node-agent samples`, which asks at the same socket, and is answered in parts.
//! - [`when`]: times as people write them.

pub mod command;
pub mod samples;
pub mod serve;
pub mod show;
pub mod when;

use crate::adapter::word::{Named, Word};
use crate::health::Line;
use crate::remote::program::Program;
use crate::remote::quarantine::Waiting;
use crate::samples::{Question as SamplesQuestion, Row, Tally};
use serde::{Deserialize, Serialize};

/// The socket's name in the agent's folder.
pub const SOCKET: &str = "console.sock";
/// Longest question or answer, bytes.
pub const LINE_BYTES_MAX: usize = 8 << 20;
/// Items of a machine that are listed.
pub const ITEMS_MAX: usize = 100;

/// What a terminal asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How the plant stands.
    List,
    /// Take this in.
    Say {
        /// The machine's id.
        machine: String,
        /// What is said.
        word: Word,
        /// Who says it, as the terminal knows.
        by: String,
    },
    /// The plant agrees that a machine moves when it is asked from afar.
    Consent {
        /// The machine's id.
        machine: String,
        /// For this operation alone; for whatever is asked, where none is named.
        operation: Option<Named>,
        /// For so long, seconds.
        for_s: u64,
        /// Who agrees, as the terminal knows.
        by: String,
    },
    /// What was sampled of a machine? Answered in parts: any number of [`Answer::Rows`], then one other.
    Samples(SamplesQuestion),
    /// The plant agrees no more.
    Withdraw {
        /// The machine's id.
        machine: String,
        /// Who says so, as the terminal knows.
        by: String,
    },
    /// What waits in quarantine.
    Programs,
    /// Let a program out of quarantine.
    Release {
        /// The machine's id.
        machine: String,
        /// Which.
        program: Program,
        /// Who says so, as the terminal knows.
        by: String,
    },
    /// Throw a program out of quarantine.
    Discard {
        /// The machine's id.
        machine: String,
        /// Which.
        program: Program,
        /// Who says so, as the terminal knows.
        by: String,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// How the plant stands.
    Listing(Box<Listing>),
    /// What waits in quarantine.
    Programs {
        /// By machine and age.
        waiting: Vec<Waiting>,
    },
    /// It is on disk, and follows to the coordinator.
    Done {
        /// What follows, in words.
        words: String,
    },
    /// Samples; more follow.
    Rows {
        /// By signal and time; none as a sign of life.
        rows: Vec<Row>,
    },
    /// The samples in short; it is their end.
    Tallies {
        /// Every signal that has samples.
        tallies: Vec<Tally>,
    },
    /// It is not taken in; nothing has changed.
    Refused {
        /// Why, and what would be.
        why: String,
    },
    /// The machine's adapter has not answered; it may still take it in.
    Late {
        /// In words.
        why: String,
    },
}

/// How a plant stands. Times are plant time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The plant.
    pub plant_id: String,
    /// Now, ms since the Unix epoch.
    pub now_ms: i64,
    /// The line to the coordinator.
    pub line: Line,
    /// Revision of the dispatch list; 0 where there is none.
    pub revision: u64,
    /// When the list came, ms since the Unix epoch.
    pub since_ms: i64,
    /// Events that the coordinator has not applied yet.
    pub unsent: u64,
    /// The last events that the coordinator refused, with its reasons.
    pub refused: Vec<String>,
    /// The machines, by id.
    pub machines: Vec<MachineListing>,
}

/// How a machine stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineListing {
    /// Its id.
    pub id: String,
    /// Its adapter's kind.
    pub adapter: String,
    /// How its adapter stands.
    pub adapter_state: String,
    /// Its state.
    pub state: String,
    /// The operation at hand, `BOOKING/OPERATION`.
    pub at_hand: Option<String>,
    /// The open session of remote operation, in words.
    pub session: Option<String>,
    /// What went wrong last.
    pub trouble: Option<String>,
    /// Its work by start, at most [`ITEMS_MAX`] items.
    pub items: Vec<ItemListing>,
    /// How many more there are.
    pub more: usize,
}

/// An operation on a machine's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemListing {
    /// `BOOKING/OPERATION`.
    pub name: String,
    /// Start of the setup, seconds since the Unix epoch.
    pub start_s: i64,
    /// End of the work, seconds since the Unix epoch.
    pub end_s: i64,
    /// Setup, seconds.
    pub setup_s: u32,
    /// Pieces.
    pub quantity: u32,
    /// Material.
    pub material: String,
    /// Setup family.
    pub setup_family: String,
    /// Begun, as far as the coordinator knows.
    pub running: bool,
    /// It will not move but for a disturbance.
    pub frozen: bool,
}
