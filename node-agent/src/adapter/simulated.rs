//! A machine that follows its dispatch list, for demonstrations and tests.
//!
//! [`Machine`] is pure: it is told its items and the time, and answers with what happened until then.
//! What befalls an operation (breakdown, overrun, scrap) is drawn from the seed, the machine, the booking,
//! the operation and the attempt, and from nothing else; so the same list gives the same history, also
//! through restarts. An operation begins at its start, or when the machine is free, never before; it ends
//! at its end, or as long after as it was late or disturbed. Energy comes from the power model in the
//! config, and is reported as modelled.
//!
//! Where it is to be `like` a recorded machine ([`recorded`]), its work is made of that machine's cuts and pauses, and
//! it drops out of sight as often. When its operations begin and end, and what comes of them, stays the same.
//!
//! [`run`] drives a machine by the plant's clock, and puts what happens into the outbox together with the
//! machine's memory, so that a restart continues where the machine stood.

mod drive;
pub mod recorded;

pub use drive::run;

use super::{Happened, Power};
use crate::chance::Chance;
use crate::health;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{
    DispatchItem, MachineDown, MachineState, MachineUp, OperationFinished, OperationProgress,
    OperationScrapped, OperationStarted, StateChanged,
};
use prost::Message;
use recorded::{Course, Recorded};

/// Operations that a machine remembers to have done while they are still on its list.
const DONE_MAX: usize = 4096;
/// Events that one look at the clock may give.
const EVENTS_AT_ONCE_MAX: usize = 512;

/// How a simulated machine behaves. Everything is in plant time.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Seed of everything that befalls it.
    pub seed: u64,
    /// Progress is reported every so many seconds.
    pub progress_s: u32,
    /// Mean working time between breakdowns, hours; 0 for never.
    pub mtbf_h: u32,
    /// Shortest and longest repair, minutes.
    pub repair_min: (u32, u32),
    /// Operations of a thousand that overrun.
    pub overrun_permille: u32,
    /// Least and most that an overrun adds, thousandths of the work.
    pub overrun_extra_permille: (u32, u32),
    /// Operations of a thousand whose pieces are all lost.
    pub scrap_permille: u32,
    /// Pieces of a thousand that are bad in an operation that is done.
    pub piece_scrap_permille: u32,
    /// What it draws.
    pub power: Power,
    /// The recorded machine whose cuts, pauses and drop-outs its work is made of; without, it cuts without a pause.
    pub like: Option<&'static Recorded>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            progress_s: 900,
            mtbf_h: 0,
            repair_min: (20, 180),
            overrun_permille: 0,
            overrun_extra_permille: (50, 300),
            scrap_permille: 0,
            piece_scrap_permille: 0,
            power: Power::default(),
            like: None,
        }
    }
}

/// What a machine remembers through a restart.
#[derive(Clone, PartialEq, Message)]
pub struct Memory {
    #[prost(enumeration = "MachineState", tag = "1")]
    state: i32,
    /// Since when it could have begun something.
    #[prost(int64, tag = "2")]
    free_since_ms: i64,
    #[prost(message, optional, tag = "3")]
    running: Option<Running>,
    /// Operations over that are still listed.
    #[prost(message, repeated, tag = "4")]
    over: Vec<Over>,
}

#[derive(Clone, PartialEq, Message)]
struct Running {
    #[prost(message, optional, tag = "1")]
    item: Option<DispatchItem>,
    #[prost(uint32, tag = "2")]
    attempt: u32,
    #[prost(int64, tag = "3")]
    started_ms: i64,
    /// Expected end; grows with what befalls the operation.
    #[prost(int64, tag = "4")]
    end_ms: i64,
    /// Time lost to breakdowns.
    #[prost(int64, tag = "5")]
    down_ms: i64,
    /// Down until then; 0 when it is not.
    #[prost(int64, tag = "6")]
    down_until_ms: i64,
    #[prost(int64, tag = "7")]
    next_progress_ms: i64,
    #[prost(bool, tag = "8")]
    set_up: bool,
    #[prost(bool, tag = "9")]
    broke_down: bool,
    #[prost(bool, tag = "10")]
    overran: bool,
    /// Where its work stands, like the recorded machine's.
    #[prost(message, optional, tag = "11")]
    course: Option<Course>,
}

#[derive(Clone, PartialEq, Message)]
struct Over {
    #[prost(string, tag = "1")]
    booking_id: String,
    #[prost(uint32, tag = "2")]
    operation: u32,
    #[prost(int64, tag = "3")]
    at_ms: i64,
    /// Lost, so that it may come again later.
    #[prost(bool, tag = "4")]
    scrapped: bool,
    #[prost(uint32, tag = "5")]
    attempt: u32,
}

/// What befalls one attempt at one operation; places are thousandths of its work.
struct Fate {
    breaks_at: Option<u64>,
    repair_ms: i64,
    overrun_known_at: Option<u64>,
    extra_ms: i64,
    scrapped_at: Option<u64>,
    bad_pieces: u32,
}

/// What happens next to a running operation.
enum Next {
    SetUp,
    BreaksDown,
    Repaired,
    OverrunKnown,
    Scrapped,
    Finished,
    Progress,
    Turns,
}

/// A machine without a clock.
#[derive(Clone, Debug)]
pub struct Machine {
    id: String,
    options: Options,
    items: Vec<DispatchItem>,
    /// Since when it has had these items.
    items_since_ms: i64,
    memory: Memory,
}

impl Machine {
    /// A machine as it remembers itself, with no items yet.
    pub fn new(id: &str, options: Options, memory: Memory) -> Self {
        Self { id: id.to_owned(), options, items: Vec::new(), items_since_ms: i64::MIN, memory }
    }

    /// What it would remember.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The state that it is in.
    pub fn state(&self) -> MachineState {
        self.memory.state()
    }

    /// The operation that it works on.
    pub fn operation(&self) -> Option<(&str, u32)> {
        let item = self.memory.running.as_ref()?.item.as_ref()?;
        Some((&item.booking_id, item.operation))
    }

    /// From `since_ms` on these are its items; call [`Machine::advance`] to that time before. What runs
    /// goes on.
    pub fn set_items(&mut self, mut items: Vec<DispatchItem>, since_ms: i64) {
        let key = |item: &DispatchItem| (item.start_s, item.booking_id.clone(), item.operation);
        items.sort_by_key(key);
        self.memory.over.retain(|over| items.iter().any(|item| over.is(item)));
        self.items = items;
        self.items_since_ms = since_ms;
    }

    /// When something happens next, if nothing is said to it.
    pub fn next_ms(&self) -> Option<i64> {
        if !self.begun() {
            return Some(i64::MIN);
        }
        match &self.memory.running {
            Some(running) => Some(self.next_of(running).0),
            None => self.next_item().map(|(_, start_ms, _)| start_ms),
        }
    }

    /// What happened until `now_ms`, in order, and at most a few hundred things: call it again until
    /// nothing is left.
    pub fn advance(&mut self, now_ms: i64) -> Vec<Happened> {
        let mut happened = Vec::new();
        if !self.begun() {
            self.memory.free_since_ms = now_ms;
            self.turn(now_ms, MachineState::Idle, &mut happened);
        }
        while happened.len() < EVENTS_AT_ONCE_MAX && self.next_ms().is_some_and(|next_ms| next_ms <= now_ms) {
            match self.memory.running.take() {
                Some(running) => self.step(running, &mut happened),
                None => self.begin(&mut happened),
            }
        }
        happened
    }

    /// Whether it was ever switched on. One that is at work has only dropped out of sight.
    fn begun(&self) -> bool {
        self.memory.state() != MachineState::Unknown || self.memory.running.is_some()
    }

    /// The first item that is not over, when it can begin, and which attempt that would be.
    fn next_item(&self) -> Option<(&DispatchItem, i64, u32)> {
        self.items.iter().find_map(|item| {
            let over = self.memory.over.iter().find(|over| over.is(item));
            let again = over.is_none_or(|over| over.scrapped && item.start_s * 1000 > over.at_ms);
            let attempt = over.map_or(0, |over| over.attempt + 1);
            let start_ms = (item.start_s * 1000).max(self.memory.free_since_ms).max(self.items_since_ms);
            again.then_some((item, start_ms, attempt))
        })
    }

    fn begin(&mut self, happened: &mut Vec<Happened>) {
        let Some((item, started_ms, attempt)) = self.next_item() else { return };
        let item = item.clone();
        let shortest_ms = (i64::from(item.setup_s) + i64::from(item.run_s)) * 1000;
        let set_up = item.setup_s == 0;
        let started = OperationStarted { booking_id: item.booking_id.clone(), operation: item.operation };
        let mut running = Running {
            attempt,
            started_ms,
            end_ms: (item.end_s * 1000).max(started_ms + shortest_ms),
            next_progress_ms: started_ms + self.progress_ms(),
            set_up,
            item: Some(item),
            ..Running::default()
        };
        if !set_up {
            self.turn(started_ms, MachineState::Setup, happened);
        }
        happened.push(Happened { at_ms: started_ms, what: What::OperationStarted(started) });
        if set_up {
            self.enter(&mut running, started_ms);
            self.turn(started_ms, running.work_state(), happened);
        }
        self.memory.running = Some(running);
    }

    /// The operation's work begins at a time, or goes on then after a repair.
    fn enter(&self, running: &mut Running, at_ms: i64) {
        let Some(recorded) = self.options.like else { return };
        let fresh = || Course::new(self.chance(running, &["course"]));
        let mut course = running.course.clone().unwrap_or_else(fresh);
        course.go_on(recorded, at_ms);
        running.course = Some(course);
    }

    /// When what happens next to the running operation. Of things at one time the graver comes first.
    fn next_of(&self, running: &Running) -> (i64, Next) {
        if running.down_until_ms > 0 {
            return (running.down_until_ms, Next::Repaired);
        }
        let progress_ms = running.next_progress_ms;
        if !running.set_up {
            let set_up_ms = running.work_from_ms();
            return if progress_ms < set_up_ms {
                (progress_ms, Next::Progress)
            } else {
                (set_up_ms, Next::SetUp)
            };
        }
        let fate = self.fate(running);
        let place = |permille: Option<u64>| permille.map(|permille| running.place_ms(permille, &fate));
        let mut next = (running.end_ms, Next::Finished);
        let mut sooner = |at_ms: Option<i64>, what: Next| {
            if at_ms.is_some_and(|at_ms| at_ms < next.0) {
                next = (at_ms.unwrap_or_default(), what);
            }
        };
        sooner(place(fate.breaks_at).filter(|_| !running.broke_down), Next::BreaksDown);
        sooner(place(fate.overrun_known_at).filter(|_| !running.overran), Next::OverrunKnown);
        sooner(place(fate.scrapped_at), Next::Scrapped);
        sooner(Some(progress_ms), Next::Progress);
        let course = running.course.as_ref().filter(|_| self.options.like.is_some());
        sooner(course.map(Course::next_ms), Next::Turns);
        next
    }

    fn step(&mut self, mut running: Running, happened: &mut Vec<Happened>) {
        let (at_ms, next) = self.next_of(&running);
        let fate = self.fate(&running);
        match next {
            Next::SetUp => {
                running.set_up = true;
                self.enter(&mut running, at_ms);
                self.turn(at_ms, running.work_state(), happened);
            }
            Next::BreaksDown => {
                running.broke_down = true;
                running.down_until_ms = at_ms + fate.repair_ms;
                running.end_ms += fate.repair_ms;
                let expected_until_s = (at_ms + fate.repair_ms + 999) / 1000;
                let down = MachineDown { reason: "breakdown (simulated)".to_owned(), expected_until_s };
                happened.push(Happened { at_ms, what: What::MachineDown(down) });
                self.turn(at_ms, MachineState::Blocked, happened);
                happened.push(self.progress(&running, at_ms));
                if let Some(course) = &mut running.course {
                    course.stop(at_ms);
                }
            }
            Next::Repaired => return self.repaired(running, at_ms, &fate, happened),
            Next::OverrunKnown => {
                running.overran = true;
                running.end_ms += fate.extra_ms;
                happened.push(self.progress(&running, at_ms));
            }
            Next::Progress => {
                running.next_progress_ms = at_ms + self.progress_ms();
                happened.push(self.progress(&running, at_ms));
            }
            Next::Turns => {
                if let (Some(course), Some(recorded)) = (&mut running.course, self.options.like) {
                    course.step(recorded);
                }
                self.turn(at_ms, running.work_state(), happened);
            }
            Next::Scrapped => {
                let item = running.item();
                let scrapped = OperationScrapped {
                    booking_id: item.booking_id.clone(),
                    operation: item.operation,
                    pieces_scrapped: item.quantity,
                    reason: "pieces out of tolerance (simulated)".to_owned(),
                };
                happened.push(Happened { at_ms, what: What::OperationScrapped(scrapped) });
                return self.over(&running, at_ms, true, happened);
            }
            Next::Finished => {
                let finished = self.finished(&running, &fate);
                happened.push(Happened { at_ms, what: What::OperationFinished(finished) });
                return self.over(&running, at_ms, false, happened);
            }
        }
        self.memory.running = Some(running);
    }

    /// After a repair the operation goes on, unless the list has given it to another machine meanwhile.
    fn repaired(&mut self, mut running: Running, at_ms: i64, fate: &Fate, happened: &mut Vec<Happened>) {
        running.down_until_ms = 0;
        running.down_ms += fate.repair_ms;
        running.next_progress_ms = at_ms + self.progress_ms();
        happened.push(Happened { at_ms, what: What::MachineUp(MachineUp {}) });
        let same = |item: &DispatchItem| {
            item.booking_id == running.item().booking_id && item.operation == running.item().operation
        };
        if self.items.iter().any(same) {
            self.enter(&mut running, at_ms);
            self.turn(at_ms, running.work_state(), happened);
            self.memory.running = Some(running);
        } else {
            self.memory.free_since_ms = at_ms;
            self.turn(at_ms, MachineState::Idle, happened);
        }
    }

    fn over(&mut self, running: &Running, at_ms: i64, scrapped: bool, happened: &mut Vec<Happened>) {
        let item = running.item();
        self.memory.over.retain(|over| !over.is(&item));
        if self.memory.over.len() >= DONE_MAX {
            self.memory.over.remove(0);
        }
        let (booking_id, operation) = (item.booking_id, item.operation);
        let attempt = running.attempt;
        self.memory.over.push(Over { booking_id, operation, at_ms, scrapped, attempt });
        self.memory.free_since_ms = at_ms;
        self.turn(at_ms, MachineState::Idle, happened);
    }

    fn finished(&self, running: &Running, fate: &Fate) -> OperationFinished {
        let item = running.item();
        let occupied_s = (running.end_ms - running.started_ms - running.down_ms) / 1000;
        let extra_s = if running.overran { fate.extra_ms / 1000 } else { 0 };
        let worked_s = i64::from(item.setup_s) + i64::from(item.run_s) + extra_s;
        // Work that pauses while the machine is closed occupies it for less than the time it spans.
        let measured_s = if item.splittable { occupied_s.min(worked_s) } else { occupied_s };
        let measured_s = u32::try_from(measured_s).unwrap_or(0);
        let setup_s = item.setup_s.min(measured_s);
        let power = self.options.power;
        let setup_ws = u64::from(setup_s) * u64::from(power.setup_w);
        let work_s = measured_s - setup_s;
        let paused_ms = running.course.as_ref().map_or(0, |course| course.paused_ms(running.end_ms));
        let paused_s = u32::try_from(paused_ms / 1000).unwrap_or(0).min(work_s);
        let cutting_ws = u64::from(work_s - paused_s) * u64::from(power.cutting_w);
        let paused_ws = u64::from(paused_s) * u64::from(power.idle_w);
        let down_ws = u64::try_from(running.down_ms / 1000).unwrap_or(0) * u64::from(power.idle_w);
        OperationFinished {
            pieces_good: item.quantity - fate.bad_pieces.min(item.quantity),
            pieces_scrapped: fate.bad_pieces.min(item.quantity),
            booking_id: item.booking_id,
            operation: item.operation,
            measured_s,
            energy_wh: (setup_ws + cutting_ws + paused_ws + down_ws) / 3600,
            energy_measured: false,
        }
    }

    fn progress(&self, running: &Running, at_ms: i64) -> Happened {
        let item = running.item();
        let from_ms = running.work_from_ms() + running.down_ms;
        let until_ms = if running.down_until_ms > 0 {
            running.end_ms - (running.down_until_ms - at_ms)
        } else {
            running.end_ms
        };
        let span_ms = (until_ms - from_ms).max(1);
        let done_permille = ((at_ms - from_ms).clamp(0, span_ms) * 1000 / span_ms) as u32;
        let progress = OperationProgress {
            pieces_good: (u64::from(item.quantity) * u64::from(done_permille) / 1000) as u32,
            booking_id: item.booking_id,
            operation: item.operation,
            expected_end_s: (running.end_ms + 999) / 1000,
        };
        Happened { at_ms, what: What::OperationProgress(progress) }
    }

    fn turn(&mut self, at_ms: i64, state: MachineState, happened: &mut Vec<Happened>) {
        if self.memory.state() != state {
            self.memory.state = state.into();
            let changed = StateChanged { state: state.into() };
            happened.push(Happened { at_ms, what: What::StateChanged(changed) });
        }
    }

    fn progress_ms(&self) -> i64 {
        i64::from(self.options.progress_s.max(1)) * 1000
    }

    /// What chance has for an attempt at an operation, and for nothing else.
    fn chance(&self, running: &Running, more: &[&str]) -> Chance {
        let item = running.item.as_ref();
        let (booking_id, operation) = item.map_or(("", 0), |item| (item.booking_id.as_str(), item.operation));
        let (operation, attempt) = (operation.to_string(), running.attempt.to_string());
        let names = [&[self.id.as_str(), booking_id, &operation, &attempt], more].concat();
        Chance::from_names(self.options.seed, &names)
    }

    fn fate(&self, running: &Running) -> Fate {
        let item = running.item();
        let mut chance = self.chance(running, &[]);
        let options = &self.options;
        let run_s = u64::from(item.run_s);
        let breaks_permille = match u64::from(options.mtbf_h) * 3600 {
            0 => 0,
            mtbf_s => (run_s * 1000 / mtbf_s).min(900),
        };
        // Each draw is made whatever the others say, so that one option never shifts another's luck.
        let breaks = chance.happens(breaks_permille);
        let breaks_at = chance.between(50, 950);
        let repair_min = chance.between(options.repair_min.0.into(), options.repair_min.1.into());
        let overruns = chance.happens(options.overrun_permille.into());
        let known_at = chance.between(400, 900);
        let extra = options.overrun_extra_permille;
        let extra_permille = chance.between(extra.0.into(), extra.1.into());
        let scrapped = chance.happens(options.scrap_permille.into());
        let scrapped_at = chance.between(300, 990);
        // Of a large quantity a thousand are drawn, and stand for the rest.
        let drawn = item.quantity.min(1000);
        let bad = (0..drawn).filter(|_| chance.happens(options.piece_scrap_permille.into())).count();
        let bad = bad as u64 * u64::from(item.quantity) / u64::from(drawn.max(1));
        Fate {
            breaks_at: breaks.then_some(breaks_at),
            repair_ms: (repair_min.max(1) * 60_000) as i64,
            overrun_known_at: overruns.then_some(known_at),
            extra_ms: ((run_s * extra_permille / 1000).max(60) * 1000) as i64,
            scrapped_at: scrapped.then_some(scrapped_at),
            bad_pieces: bad as u32,
        }
    }
}

impl Over {
    fn shown(&self) -> health::Over {
        let Self { booking_id, operation, at_ms, scrapped, .. } = self;
        match scrapped {
            true => health::Over::lost(booking_id, *operation, *at_ms),
            false => health::Over::done(booking_id, *operation),
        }
    }

    fn is(&self, item: &DispatchItem) -> bool {
        self.booking_id == item.booking_id && self.operation == item.operation
    }
}

impl Running {
    fn item(&self) -> DispatchItem {
        self.item.clone().unwrap_or_default()
    }

    /// The state that its work shows.
    fn work_state(&self) -> MachineState {
        self.course.as_ref().map_or(MachineState::Producing, Course::seen)
    }

    fn work_from_ms(&self) -> i64 {
        self.started_ms + self.item.as_ref().map_or(0, |item| i64::from(item.setup_s) * 1000)
    }

    /// When a place in the work is reached, as the operation was planned, and moved by breakdowns.
    fn place_ms(&self, permille: u64, fate: &Fate) -> i64 {
        let extra_ms = if self.overran { fate.extra_ms } else { 0 };
        let span_ms = self.end_ms - extra_ms - self.down_ms - self.work_from_ms();
        self.work_from_ms() + self.down_ms + span_ms * permille as i64 / 1000
    }
}
