//! What enters the log, and what comes out of it.

use crate::booking::Booking;
use crate::format::Format;
use crate::id::{BookingId, MachineId, OfferId, PlantId, PrincipalId, SessionId};
use crate::line::MachineState;
use crate::offer::Offer;
use crate::order::{Order, Terms};
use crate::refusal::Refusal;
use crate::registry::{Machine, Member, Plant, Policy, Principal, Role};
use crate::remote;
use crate::window::Window;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    /// In which role.
    pub role: Role,
    /// The buyer's, member's or plant's id.
    pub id: PrincipalId,
}

/// Makes a retry safe: the same key is answered with the first answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Chosen by the client.
    pub id: String,
    /// The RPC.
    pub method: String,
    /// Hash of what was asked, to tell a retry from another request under the same id.
    pub fingerprint: u64,
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The leader's clock, seconds since the Unix epoch; the state keeps it monotonic.
    pub at: i64,
    /// Who asks.
    pub caller: Caller,
    /// Set for everything that a client asked.
    pub request: Option<Request>,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing but let time pass: expire what has expired.
    Tick,
    /// Create or replace a member.
    PutMember {
        /// As it shall be.
        member: Member,
        /// 0 to create.
        expected_revision: u64,
    },
    /// Create or replace a plant.
    PutPlant {
        /// As it shall be.
        plant: Plant,
        /// 0 to create.
        expected_revision: u64,
    },
    /// Create or replace a machine.
    PutMachine {
        /// As it shall be.
        machine: Machine,
        /// 0 to create.
        expected_revision: u64,
    },
    /// Create an offer whose windows have been worked out.
    CreateOffer(Offer),
    /// Withdraw an offer.
    WithdrawOffer {
        /// Which.
        offer: OfferId,
        /// Even if confirmed work loses its place.
        accept_disturbance: bool,
    },
    /// Replace the policy.
    PutPolicy {
        /// As it shall be.
        policy: Policy,
        /// As last seen.
        expected_revision: u64,
    },
    /// Create a principal, or give it a new token.
    PutPrincipal(Principal),
    /// Take a principal's access away.
    RevokePrincipal {
        /// In which role.
        role: Role,
        /// Which.
        id: PrincipalId,
    },
    /// Book, or hold.
    Book {
        /// For whom.
        buyer: PrincipalId,
        /// What.
        order: Arc<Order>,
        /// Within which terms.
        terms: Terms,
        /// Where: machine and start of each operation.
        placement: Vec<(MachineId, i64)>,
        /// 0 confirms at once, else hold for so many seconds.
        hold_s: i64,
    },
    /// Confirm a hold.
    Confirm {
        /// Which.
        booking: BookingId,
    },
    /// Cancel what has not begun.
    Cancel {
        /// Which.
        booking: BookingId,
        /// In words.
        reason: String,
    },
    /// Commit an improved or a repaired plan.
    CommitPlan {
        /// Which of the two.
        kind: PlanKind,
        /// Revision of the state that it was computed from.
        base_revision: u64,
        /// What changes its place.
        moves: Vec<Move>,
        /// What the solver says about it.
        figures: PlanFigures,
    },
    /// Write in a newer format from here on, this entry included.
    RaiseFormat {
        /// Which.
        to: Format,
    },
    /// A plant's agent begins or resumes an outbox.
    AttachAgent {
        /// The plant.
        plant: PlantId,
        /// The agent's name.
        agent: String,
        /// Identity of its outbox.
        outbox: String,
    },
    /// A plant's agent is not heard, or is heard again.
    NoteSilence {
        /// The plant.
        plant: PlantId,
        /// Since when it is not, seconds since the Unix epoch; None where it is heard again.
        since: Option<i64>,
    },
    /// What an agent reports.
    Report {
        /// The plant.
        plant: PlantId,
        /// Identity of the outbox that numbers the events.
        outbox: String,
        /// Consecutive events.
        events: Vec<Event>,
    },
    /// A buyer begins to operate the machine of an operation.
    OpenSession {
        /// The booking.
        booking: BookingId,
        /// Index in the route.
        operation: u32,
    },
    /// A session ends before its time.
    CloseSession {
        /// Which.
        session: SessionId,
        /// In words.
        because: String,
    },
    /// Something is asked of a machine in a session.
    Operate(remote::Asked),
}

/// Why a plan is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlanKind {
    /// It is cheaper. Frozen work stays.
    Optimisation,
    /// It gives disturbed work a place. Frozen work may move.
    Repair,
}

/// An operation gets a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Move {
    /// The booking.
    pub booking: BookingId,
    /// Index in the route.
    pub operation: u32,
    /// Where.
    pub machine: MachineId,
    /// When, seconds since the Unix epoch.
    pub start: i64,
}

/// What the solver says about a plan. Cost and bound are of the same set of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PlanFigures {
    /// Revision of the state that they were computed from. The plan may have gone on since.
    pub base_revision: u64,
    /// Cost before, fen.
    pub cost_before_fen: i64,
    /// Cost after, fen.
    pub cost_fen: i64,
    /// Proven lower bound, fen.
    pub bound_fen: i64,
    /// Time it took, ms.
    pub took_ms: u64,
}

/// One thing that happened in a plant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Number in the outbox, from 1.
    pub seq: u64,
    /// When, seconds since the Unix epoch.
    pub at: i64,
    /// The machine.
    pub machine: MachineId,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// The machine's state changed.
    State(MachineState),
    /// An operation began.
    Started {
        /// The booking.
        booking: BookingId,
        /// Index in the route.
        operation: u32,
    },
    /// An operation goes on.
    Progress {
        /// The booking.
        booking: BookingId,
        /// Index in the route.
        operation: u32,
        /// Pieces finished well.
        pieces_good: u32,
        /// Expected end, seconds since the Unix epoch.
        expected_end: i64,
    },
    /// An operation is done.
    Finished {
        /// The booking.
        booking: BookingId,
        /// Index in the route.
        operation: u32,
        /// Pieces finished well.
        pieces_good: u32,
        /// Pieces scrapped.
        pieces_scrapped: u32,
        /// Occupied, seconds.
        measured_s: i64,
        /// Energy, Wh.
        energy_wh: u64,
        /// Measured, not modelled.
        energy_measured: bool,
    },
    /// An operation has to be done again.
    Scrapped {
        /// The booking.
        booking: BookingId,
        /// Index in the route.
        operation: u32,
        /// Pieces scrapped.
        pieces_scrapped: u32,
        /// In words.
        reason: String,
    },
    /// The machine takes no work.
    Down {
        /// In words.
        reason: String,
        /// Expected back, seconds since the Unix epoch; 0 if nobody knows.
        expected_until: i64,
    },
    /// The machine takes work again.
    Up,
    /// A command of a session was refused by the agent, or the machine was asked.
    Operated {
        /// The session.
        session: SessionId,
        /// The command's number in it.
        nonce: u32,
        /// What came of it.
        outcome: remote::Outcome,
        /// It is not the command's own: the permission to start that it gave was taken back by the agent itself.
        taken_back: bool,
    },
    /// Nothing was seen for a while.
    Gap {
        /// How long, seconds.
        seconds: i64,
    },
}

impl Happening {
    /// The operation that is in hand by it.
    pub fn in_hand(&self) -> Option<(BookingId, u32)> {
        match self {
            Happening::Started { booking, operation } | Happening::Progress { booking, operation, .. } => {
                Some((*booking, *operation))
            }
            _ => None,
        }
    }
}

/// An operation that loses its place, or keeps its start and ends so late that its promise is broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disturbed {
    /// The booking.
    pub booking: BookingId,
    /// Index in the route.
    pub operation: u32,
    /// The machine.
    pub machine: MachineId,
    /// The place that it loses.
    pub window: Window,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// The member as stored.
    Member(Arc<Member>),
    /// The plant as stored.
    Plant(Arc<Plant>),
    /// The machine as stored.
    Machine(Arc<Machine>),
    /// The offer as stored, and what lost its place.
    Offer(Arc<Offer>, Vec<Disturbed>),
    /// The policy as stored.
    Policy(Arc<Policy>),
    /// The principal as stored.
    Principal(Arc<Principal>),
    /// The booking as it was then.
    Booking(Arc<Booking>),
    /// The plan was committed; so many operations moved.
    Plan(u32),
    /// The highest sequence number applied, and which events changed nothing, and why.
    Applied(u64, Vec<(u64, String)>),
    /// The session, and the number of the command in it that was put on record; 0 for none.
    Remote(SessionId, u32),
}

/// What one entry did to the state.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Bookings that changed, as they are after it.
    pub bookings: BTreeMap<BookingId, Arc<Booking>>,
    /// Machines whose line, windows or state changed.
    pub machines: BTreeSet<MachineId>,
    /// Sessions that changed.
    pub sessions: BTreeSet<SessionId>,
    /// The plan changed.
    pub plan: bool,
}

/// What comes of applying an entry.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done, or why not. A refusal has changed nothing (but that time has passed).
    pub result: Result<Reply, Refusal>,
    /// The revision at which it was done: an earlier one where a request is repeated.
    pub revision: u64,
    /// What changed.
    pub changes: Changes,
}
