//! What machines did with their time: the seconds, pieces and energy from which the indicators of ISO 22400-2 are reckoned
//! ([`Tally`] gives their terms; the quotients are for who shows them), by shift and by day.
//!
//! Days and shifts are the alliance's ([`Policy::day_start_s`]), not each plant's: a calendar's time zones are no matter
//! for a state machine, whose nodes must never differ. How they come about: [`crate::account`].

use crate::line::MachineState;
use crate::registry::Policy;
use std::ops::AddAssign;

/// A day, seconds.
pub const DAY_S: i64 = 86_400;
/// A shift where the policy says nothing else, seconds.
pub const SHIFT_S: i64 = 8 * 3600;
/// Shifts are known for so long, seconds.
pub const SHIFTS_KEEP_S: i64 = 35 * DAY_S;
/// Days are known for so long, seconds.
pub const DAYS_KEEP_S: i64 = 400 * DAY_S;
/// Shortest shift, seconds.
pub const SHIFT_MIN_S: i64 = 3600;
/// Most of anything but seconds in a tally: far above what can be, so that no plant's word brings a sum to overflow.
pub const COUNT_MAX: i64 = 1 << 53;

/// How finely time is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    /// Shifts, known for [`SHIFTS_KEEP_S`].
    Shift,
    /// Days, known for [`DAYS_KEEP_S`].
    Day,
}

impl Grain {
    /// Both.
    pub const ALL: [Grain; 2] = [Grain::Shift, Grain::Day];

    /// How long its tallies are known, seconds.
    pub fn keep_s(self) -> i64 {
        match self {
            Grain::Shift => SHIFTS_KEEP_S,
            Grain::Day => DAYS_KEEP_S,
        }
    }
}

impl Policy {
    /// The shift or day in which `at` lies: its start and its end, seconds since the Unix epoch.
    pub fn span(&self, grain: Grain, at: i64) -> (i64, i64) {
        let length = match (grain, self.shift_s) {
            (Grain::Day, _) => DAY_S,
            (Grain::Shift, 0) => SHIFT_S,
            (Grain::Shift, shift_s) => shift_s,
        };
        let start = at - (at - self.day_start_s).rem_euclid(length);
        (start, start + length)
    }
}

/// A kind of time of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spent {
    /// What it was reported to do.
    pub state: MachineState,
    /// Work of the alliance was in hand.
    pub in_hand: bool,
    /// It was lent.
    pub lent: bool,
}

impl Spent {
    /// Whether it is planned busy time: lent, less maintenance.
    pub fn is_planned(self) -> bool {
        self.lent && self.state != MachineState::Maintenance
    }
}

/// What a machine did in a shift or on a day, or many machines in many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    /// Seconds by kind, sorted, none of them 0.
    pub(crate) seconds: Vec<(Spent, i64)>,
    /// Good pieces of operations that ended.
    pub pieces_good: i64,
    /// Pieces lost.
    pub pieces_scrapped: i64,
    /// What running the pieces made, good and lost, should have taken, seconds.
    pub run_planned_s: i64,
    /// What running the good ones of them should have taken, seconds.
    pub run_planned_good_s: i64,
    /// Measured energy of operations that ended, Wh.
    pub energy_measured_wh: i64,
    /// Modelled energy of others that ended, Wh.
    pub energy_modelled_wh: i64,
    /// Emissions of that energy, g CO2e, by the grid factor that the policy had when each ended.
    pub carbon_g: i64,
}

impl Tally {
    /// A tally of these seconds and no output.
    pub fn of_seconds(seconds: impl IntoIterator<Item = (Spent, i64)>) -> Tally {
        let mut tally = Tally::default();
        seconds.into_iter().for_each(|(spent, seconds)| tally.spend(spent, seconds));
        tally
    }

    /// Counts `seconds` more of a kind.
    pub fn spend(&mut self, spent: Spent, seconds: i64) {
        if seconds == 0 {
            return;
        }
        match self.seconds.binary_search_by_key(&spent, |(known, _)| *known) {
            Ok(at) => self.seconds[at].1 += seconds,
            Err(at) => self.seconds.insert(at, (spent, seconds)),
        }
    }

    /// Seconds by kind, those that there were.
    pub fn seconds(&self) -> impl Iterator<Item = (Spent, i64)> {
        self.seconds.iter().copied()
    }

    /// Seconds of the kinds that are meant.
    pub fn seconds_of(&self, meant: impl Fn(Spent) -> bool) -> i64 {
        self.seconds().filter(|(spent, _)| meant(*spent)).map(|(_, seconds)| seconds).sum()
    }

    /// Planned busy time (PBT): lent, less maintenance.
    pub fn planned_busy_s(&self) -> i64 {
        self.seconds_of(Spent::is_planned)
    }

    /// Actual unit busy time (AUBT): of the planned time, with work of the alliance in hand, whatever the machine did.
    pub fn busy_s(&self) -> i64 {
        self.seconds_of(|spent| spent.is_planned() && spent.in_hand)
    }

    /// Actual production time (APT): of that, producing.
    pub fn production_s(&self) -> i64 {
        self.busy_in(MachineState::Producing)
    }

    /// Actual unit setup time (AUST): of that, set up.
    pub fn setup_s(&self) -> i64 {
        self.busy_in(MachineState::Setup)
    }

    fn busy_in(&self, state: MachineState) -> i64 {
        self.seconds_of(|spent| spent.is_planned() && spent.in_hand && spent.state == state)
    }

    /// Work of the alliance in hand while the machine was not lent, or under maintenance: an overrun, or a pause over a
    /// closed night. It is in none of the above, so that none is more than the planned time.
    pub fn busy_besides_s(&self) -> i64 {
        self.seconds_of(|spent| spent.in_hand && !spent.is_planned())
    }

    /// Lent time of which nobody knows what the machine did, seconds.
    pub fn unknown_s(&self) -> i64 {
        self.seconds_of(|spent| spent.lent && spent.state == MachineState::Unknown)
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        other.seconds().for_each(|(spent, seconds)| self.spend(spent, seconds));
        for (mine, its) in [
            (&mut self.pieces_good, other.pieces_good),
            (&mut self.pieces_scrapped, other.pieces_scrapped),
            (&mut self.run_planned_s, other.run_planned_s),
            (&mut self.run_planned_good_s, other.run_planned_good_s),
            (&mut self.energy_measured_wh, other.energy_measured_wh),
            (&mut self.energy_modelled_wh, other.energy_modelled_wh),
            (&mut self.carbon_g, other.carbon_g),
        ] {
            *mine = mine.saturating_add(its).min(COUNT_MAX);
        }
    }
}
