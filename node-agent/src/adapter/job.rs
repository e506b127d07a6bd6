//! Binds a machine's activity to the dispatch item at hand, and says when a blocked machine is down.
//!
//! A controller knows programs and part counts, and nothing of bookings. The rule that bridges the two is
//! simple, and holds as long as the plant runs the item in the item's time:
//!
//! - **Started:** activity (producing, or being set up) *begins* at or after the item's start, and no item
//!   is at hand. The first item on the list that is not over is the one. Activity that began before the
//!   item's start is the plant's own.
//! - **Goes on:** whatever the machine does up to [`MERGED_GAP_MS`] after its last activity belongs to the
//!   item: cycles of half a minute with pauses between, drop-outs of a minute or two. A machine that is
//!   held or blocked within a program has not stopped.
//! - **Finished,** whichever is seen first:
//!   1. the part count has grown by the quantity: at that moment;
//!   2. the program was completed as many times as there are pieces, and nothing was active for
//!      [`SETTLED_MS`]: at the last completion (only while nothing was counted);
//!   3. nothing was active for longer than the merged gap, and the item was active for at least half of
//!      its planned work: at the end of the last activity (only while nothing was counted). For
//!      controllers that go from ACTIVE to READY, and count nothing.
//!
//! Where the machine itself lists jobs, and an item is among them (a job's id is `booking/operation`), the
//! list decides, and nothing is guessed: the item begins when its job is at work, and ends when it is done.
//! While a job of the list may begin or is at work, whosoever it is, activity belongs to it and to nothing else.
//!
//! A person's word goes before all of it ([`by_hand`]): what is started by hand is at hand, and what is finished is over.
//!
//! Everything is told in the time of the observations, so the same recording gives the same history
//! however fast it is played.

pub mod by_hand;

use super::word::{WordError, stamp, told_reason};
use super::{Happened, Power, cut};
use crate::health;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{
    DispatchItem, MachineDown, MachineState, MachineUp, OperationFinished, OperationProgress,
    OperationStarted,
};
use serde::{Deserialize, Serialize};

/// Activity closer together than this is one job.
pub const MERGED_GAP_MS: i64 = 15 * 60_000;
/// After a completed program, nothing active for so long means that it was the last piece.
pub const SETTLED_MS: i64 = 2 * 60_000;
/// Least share of the planned work that must have been active before inactivity counts as the end.
const ACTIVE_SHARE_PERMILLE: i64 = 500;
/// Items over that are remembered while they are listed.
const OVER_MAX: usize = 1024;

/// Furthest that something may be expected, ms: 90 days.
const AHEAD_MAX_MS: i64 = 90 * 24 * 3_600_000;

/// How a follower behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Whether activity is bound to the list; without, an operation begins and ends by word only.
    pub bind: bool,
    /// Progress every so many seconds.
    pub progress_s: u32,
    /// What the machine draws in each state, where nothing measures it.
    pub power: Power,
}

/// What stands on the list, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    booking_id: String,
    operation: u32,
    start_ms: i64,
    end_ms: i64,
    run_s: u32,
    quantity: u32,
    /// It has begun, as far as the coordinator knows.
    #[serde(default)]
    begun: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Running {
    item: Item,
    started_ms: i64,
    /// Time spent producing.
    producing_ms: i64,
    /// End of the last activity, or now while there is some.
    active_until_ms: i64,
    counted: u32,
    completions: u32,
    /// The machine's own list says that it is at work.
    #[serde(default)]
    by_job: bool,
    completed_ms: Option<i64>,
    /// Watt-milliseconds from the state model.
    modelled_wms: i64,
    /// Watt-milliseconds from a power signal, and the time that it covers.
    integrated_wms: f64,
    integrated_ms: i64,
    /// Watt-hours from an energy meter.
    metered_wh: Option<f64>,
    next_progress_ms: i64,
}

/// Follows one machine; survives a restart as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Follower {
    #[serde(skip)]
    items: Vec<Item>,
    /// The machine's own list of jobs.
    #[serde(skip)]
    listed: Vec<Listed>,
    over: Vec<(String, u32)>,
    /// Lost at a time; what is listed for later is another attempt.
    #[serde(default)]
    scrapped: Vec<(String, u32, i64)>,
    running: Option<Running>,
    state: i32,
    /// Everything up to then is accounted for.
    at_ms: i64,
    /// When the activity that goes on now began.
    active_since_ms: Option<i64>,
    last_count: Option<f64>,
    last_meter_wh: Option<f64>,
    power_w: Option<f64>,
}

/// A job on the machine's own list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub standing: Standing,
}

/// How a job on the machine's own list stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may not begin yet, or was broken off: somebody has to say what became of it.
    Open,
    /// The machine may begin it at any moment.
    Due,
    /// It has begun, and may be interrupted.
    AtWork,
    /// It is done.
    Done,
}

/// What a follower is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told {
    /// The machine's state from now on.
    State(MachineState),
    /// The part counter.
    Count(f64),
    /// A program was completed.
    Completed,
    /// Power now, W.
    Power(f64),
    /// An energy meter, Wh.
    Meter(f64),
    /// Nothing but the time.
    Time,
}

impl Follower {
    /// The machine's items from now on. What is at hand goes on.
    pub fn set_items(&mut self, items: Vec<DispatchItem>) {
        self.items = items.into_iter().map(Item::from).collect();
        self.items.sort_by_key(|item| (item.start_ms, item.booking_id.clone(), item.operation));
        self.over.retain(|over| self.items.iter().any(|item| item.is(over)));
        let items = &self.items;
        self.scrapped.retain(|(booking_id, operation, _)| {
            items.iter().any(|item| item.booking_id == *booking_id && item.operation == *operation)
        });
    }

    /// The operation at hand.
    pub fn operation(&self) -> Option<(&str, u32)> {
        let item = &self.running.as_ref()?.item;
        Some((&item.booking_id, item.operation))
    }

    /// Operations of the list that are over.
    pub fn over(&self) -> Vec<health::Over> {
        let done = self.over.iter().map(|(booking_id, operation)| health::Over::done(booking_id, *operation));
        let lost = self
            .scrapped
            .iter()
            .map(|(booking_id, operation, at_ms)| health::Over::lost(booking_id, *operation, *at_ms));
        done.chain(lost).collect()
    }

    /// Takes in what was seen at a time, and answers with what follows from it. Times never go back.
    pub fn tell(&mut self, at_ms: i64, told: Told, options: &Options) -> Vec<Happened> {
        let mut happened = Vec::new();
        let at_ms = at_ms.max(self.at_ms);
        self.pass_time(at_ms, options, &mut happened);
        match told {
            Told::State(state) => self.turn(at_ms, state),
            Told::Count(count) => self.count(at_ms, count, options, &mut happened),
            Told::Completed => {
                if let Some(running) = &mut self.running {
                    running.completions = running.completions.saturating_add(1);
                    running.completed_ms = Some(at_ms);
                }
            }
            Told::Power(power_w) => self.power_w = (power_w >= 0.0).then_some(power_w),
            Told::Meter(meter_wh) => self.meter(meter_wh),
            Told::Time => {}
        }
        self.begin(options, &mut happened);
        happened
    }

    /// The machine's own list of jobs, as it is from now on.
    pub fn list(&mut self, at_ms: i64, jobs: &[Listed], options: &Options) -> Vec<Happened> {
        let mut happened = self.tell(at_ms, Told::Time, options);
        let at_ms = at_ms.max(self.at_ms);
        self.listed = jobs.to_vec();
        for job in jobs.iter().filter(|job| matches!(job.standing, Standing::AtWork | Standing::Done)) {
            let item = self.items.iter().find(|item| item.job_id() == job.id);
            let Some(item) = item.filter(|item| !self.is_over(item)).cloned() else {
                continue;
            };
            match &mut self.running {
                Some(running) if running.item.job_id() == job.id => running.by_job = true,
                Some(_) => continue,
                None => self.start(item, at_ms, true, options, &mut happened),
            }
            if job.standing == Standing::Done {
                self.finish(at_ms, at_ms, &mut happened);
            }
        }
        happened
    }

    /// Accounts for the time since the last call, and finds the ends and progress that lie in it.
    fn pass_time(&mut self, at_ms: i64, options: &Options, happened: &mut Vec<Happened>) {
        let gone_ms = at_ms - std::mem::replace(&mut self.at_ms, at_ms).min(at_ms);
        let state = self.state();
        let Some(running) = &mut self.running else { return };
        let gone_ms = gone_ms.min(at_ms - running.started_ms).max(0);
        let power_w = options.power.at(state);
        running.modelled_wms = running.modelled_wms.saturating_add(gone_ms.saturating_mul(power_w.into()));
        if let Some(power_w) = self.power_w {
            running.integrated_wms += power_w * gone_ms as f64;
            running.integrated_ms += gone_ms;
        }
        if state == MachineState::Producing {
            running.producing_ms += gone_ms;
        }
        if occupied(state) {
            running.active_until_ms = at_ms;
        }
        if let Some(end_ms) = running.ended(at_ms).filter(|_| options.bind) {
            return self.finish(end_ms, at_ms, happened);
        }
        if at_ms >= running.next_progress_ms {
            running.next_progress_ms = at_ms + i64::from(options.progress_s) * 1000;
            happened.push(running.progress(at_ms));
        }
    }

    fn turn(&mut self, at_ms: i64, state: MachineState) {
        self.state = state.into();
        if !active(state) {
            self.active_since_ms = None;
        } else if self.active_since_ms.is_none() {
            self.active_since_ms = Some(at_ms);
        }
    }

    /// A counter that falls was reset, and counts from nothing.
    fn count(&mut self, at_ms: i64, count: f64, options: &Options, happened: &mut Vec<Happened>) {
        let Some(last) = self.last_count.replace(count) else { return };
        let more = if count >= last { count - last } else { count };
        let Some(running) = self.running.as_mut().filter(|_| more > 0.0) else { return };
        running.counted = running.counted.saturating_add(more.min(f64::from(u32::MAX)) as u32);
        let all = running.item.quantity > 0 && running.counted >= running.item.quantity;
        if all && !running.by_job && options.bind {
            self.finish(at_ms, at_ms, happened);
        } else if at_ms >= running.next_progress_ms - i64::from(options.progress_s) * 1000 + 60_000 {
            running.next_progress_ms = at_ms + i64::from(options.progress_s) * 1000;
            happened.push(running.progress(at_ms));
        }
    }

    fn meter(&mut self, meter_wh: f64) {
        let last_wh = self.last_meter_wh.replace(meter_wh);
        let (Some(running), Some(last_wh)) = (&mut self.running, last_wh) else { return };
        let more_wh = if meter_wh >= last_wh { meter_wh - last_wh } else { meter_wh.max(0.0) };
        running.metered_wh = Some(running.metered_wh.unwrap_or(0.0) + more_wh);
    }

    /// Takes the next item at hand if activity that belongs to it has begun.
    fn begin(&mut self, options: &Options, happened: &mut Vec<Happened>) {
        let (None, Some(since_ms), true) = (&self.running, self.active_since_ms, options.bind) else {
            return;
        };
        let next = self.items.iter().find(|item| !self.is_over(item));
        let of_a_job = |item: &Item| {
            self.listed.iter().any(|job| {
                matches!(job.standing, Standing::Due | Standing::AtWork) || job.id == item.job_id()
            })
        };
        if let Some(item) = next.filter(|item| item.start_ms <= since_ms && !of_a_job(item)).cloned() {
            self.start(item, since_ms, false, options, happened);
        }
    }

    fn start(
        &mut self,
        item: Item,
        started_ms: i64,
        by_job: bool,
        options: &Options,
        happened: &mut Vec<Happened>,
    ) {
        let at_ms = self.at_ms;
        let started = OperationStarted { booking_id: item.booking_id.clone(), operation: item.operation };
        happened.push(Happened { at_ms: started_ms, what: What::OperationStarted(started) });
        let producing_ms = if self.state() == MachineState::Producing { at_ms - started_ms } else { 0 };
        self.running = Some(Running {
            item,
            started_ms,
            producing_ms,
            active_until_ms: at_ms,
            counted: 0,
            completions: 0,
            by_job,
            completed_ms: None,
            modelled_wms: 0,
            integrated_wms: 0.0,
            integrated_ms: 0,
            metered_wh: None,
            next_progress_ms: at_ms + i64::from(options.progress_s) * 1000,
        });
    }

    fn finish(&mut self, end_ms: i64, at_ms: i64, happened: &mut Vec<Happened>) {
        let Some(running) = self.running.take() else { return };
        self.end(&running.item);
        let at_ms = end_ms.min(at_ms);
        happened.push(Happened { at_ms, what: What::OperationFinished(running.finished(end_ms)) });
    }

    fn end(&mut self, item: &Item) {
        if self.over.len() >= OVER_MAX {
            self.over.remove(0);
        }
        self.over.push((item.booking_id.clone(), item.operation));
        // The next item begins with activity of its own.
        self.active_since_ms = None;
    }

    /// Whether an item is over: done, or lost and not yet listed for another attempt.
    fn is_over(&self, item: &Item) -> bool {
        let lost = |(booking_id, operation, at_ms): &(String, u32, i64)| {
            item.booking_id == *booking_id && item.operation == *operation && item.start_ms <= *at_ms
        };
        self.over.iter().any(|over| item.is(over)) || self.scrapped.iter().any(lost)
    }

    fn state(&self) -> MachineState {
        MachineState::try_from(self.state).unwrap_or(MachineState::Unknown)
    }
}

/// Whether a job makes a machine do this.
fn active(state: MachineState) -> bool {
    matches!(state, MachineState::Producing | MachineState::Setup)
}

/// Whether a job that is at hand goes on in this state.
fn occupied(state: MachineState) -> bool {
    active(state) || matches!(state, MachineState::Held | MachineState::Blocked)
}

impl Running {
    /// When it ended, if by now it has.
    fn ended(&self, at_ms: i64) -> Option<i64> {
        let inactive_ms = at_ms - self.active_until_ms;
        if self.counted > 0 || self.by_job {
            return None;
        }
        let pieces = self.item.quantity.max(1);
        if self.completions >= pieces && inactive_ms >= SETTLED_MS {
            return self.completed_ms;
        }
        let enough_ms = i64::from(self.item.run_s) * ACTIVE_SHARE_PERMILLE;
        (inactive_ms > MERGED_GAP_MS && self.producing_ms >= enough_ms).then_some(self.active_until_ms)
    }

    fn progress(&self, at_ms: i64) -> Happened {
        let run_ms = i64::from(self.item.run_s.max(1)) * 1000;
        let by_time = self.producing_ms * 1000 / run_ms;
        let by_count = i64::from(self.counted) * 1000 / i64::from(self.item.quantity.max(1));
        let done = if self.counted > 0 { by_count } else { by_time }.clamp(0, 990);
        let left_ms = run_ms * (1000 - done) / 1000;
        let progress = OperationProgress {
            booking_id: self.item.booking_id.clone(),
            operation: self.item.operation,
            pieces_good: self.counted,
            expected_end_s: self.item.end_ms.max(at_ms + left_ms) / 1000,
        };
        Happened { at_ms, what: What::OperationProgress(progress) }
    }

    fn finished(&self, end_ms: i64) -> OperationFinished {
        let spent_ms = (end_ms - self.started_ms).max(0);
        let integrated = self.integrated_ms > 0 && self.integrated_ms * 10 >= spent_ms * 9;
        let (energy_wh, energy_measured) = match self.metered_wh {
            Some(metered_wh) => (metered_wh, true),
            None if integrated => (self.integrated_wms / 3.6e6, true),
            None => (self.modelled_wms as f64 / 3.6e6, false),
        };
        OperationFinished {
            booking_id: self.item.booking_id.clone(),
            operation: self.item.operation,
            pieces_good: if self.counted > 0 { self.counted } else { self.item.quantity },
            pieces_scrapped: 0,
            measured_s: u32::try_from(spent_ms / 1000).unwrap_or(u32::MAX),
            energy_wh: energy_wh.round().clamp(0.0, 1e15) as u64,
            energy_measured,
        }
    }
}

impl Item {
    /// The id of its job on the machine's own list.
    fn job_id(&self) -> String {
        format!("{}/{}", self.booking_id, self.operation)
    }

    fn is(&self, over: &(String, u32)) -> bool {
        self.booking_id == over.0 && self.operation == over.1
    }
}

impl From<DispatchItem> for Item {
    fn from(item: DispatchItem) -> Self {
        Self {
            booking_id: item.booking_id,
            operation: item.operation,
            start_ms: item.start_s.saturating_mul(1000),
            end_ms: item.end_s.saturating_mul(1000),
            run_s: item.run_s,
            quantity: item.quantity,
            begun: item.running,
        }
    }
}

/// Says when a machine that is blocked is down. A fault that clears itself within minutes is not worth
/// planning around; one that stays is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Downtime {
    blocked_since_ms: Option<i64>,
    down: bool,
    /// A person said so; only a person's word ends it.
    #[serde(default)]
    by_hand: bool,
}

impl Downtime {
    /// Takes in the state that stands at a time.
    pub fn tell(&mut self, at_ms: i64, state: MachineState, why: &str, after_s: u32) -> Option<Happened> {
        match state {
            _ if self.by_hand => None,
            MachineState::Blocked => {
                let since_ms = *self.blocked_since_ms.get_or_insert(at_ms);
                if self.down || at_ms - since_ms < i64::from(after_s) * 1000 {
                    return None;
                }
                self.down = true;
                let why = if why.is_empty() { "blocked; the machine does not say why" } else { why };
                let reason = cut(why, 200).to_owned();
                Some(Happened { at_ms, what: What::MachineDown(MachineDown { reason, expected_until_s: 0 }) })
            }
            // Whoever sees nothing does not know that it is up again.
            MachineState::Unknown => None,
            _ => {
                self.blocked_since_ms = None;
                let was_down = std::mem::take(&mut self.down);
                was_down.then_some(Happened { at_ms, what: What::MachineUp(MachineUp {}) })
            }
        }
    }

    /// Somebody says that the machine is down, or says again until when.
    pub fn take_down(
        &mut self,
        now_ms: i64,
        reason: &str,
        until_ms: Option<i64>,
    ) -> Result<Happened, WordError> {
        let reason = told_reason(reason)?;
        if let Some(until_ms) =
            until_ms.filter(|until_ms| *until_ms <= now_ms || *until_ms > now_ms + AHEAD_MAX_MS)
        {
            return Err(WordError::field("until", stamp(until_ms), "a time to come, within 90 days"));
        }
        (self.down, self.by_hand) = (true, true);
        let expected_until_s = until_ms.map_or(0, |until_ms| until_ms / 1000);
        Ok(Happened { at_ms: now_ms, what: What::MachineDown(MachineDown { reason, expected_until_s }) })
    }

    /// Somebody says that the machine takes work again. Where it stays blocked, it is soon down again.
    pub fn bring_up(&mut self, now_ms: i64) -> Result<Happened, WordError> {
        if !self.down {
            return Err(WordError::NotDown);
        }
        *self = Self::default();
        Ok(Happened { at_ms: now_ms, what: What::MachineUp(MachineUp {}) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn item(booking: &str, start_min: i64, run_min: u32, quantity: u32) -> DispatchItem {
        DispatchItem {
            machine_id: "m".into(),
            booking_id: booking.into(),
            start_s: start_min * 60,
            end_s: (start_min + i64::from(run_min)) * 60,
            run_s: run_min * 60,
            quantity,
            ..DispatchItem::default()
        }
    }

    const OPTIONS: Options = Options {
        bind: true,
        progress_s: 900,
        power: Power { idle_w: 800, setup_w: 1_500, cutting_w: 6_000 },
    };

    /// (minute, what happened), progress left out.
    fn in_words(happened: Vec<Happened>) -> impl Iterator<Item = (i64, String)> {
        happened.into_iter().filter_map(|happened| {
            let words = match happened.what {
                What::OperationStarted(started) => format!("started {}", started.booking_id),
                What::OperationFinished(finished) => format!(
                    "finished {} good {} in {} min",
                    finished.booking_id,
                    finished.pieces_good,
                    finished.measured_s / 60
                ),
                _ => return None,
            };
            Some((happened.at_ms / MINUTE, words))
        })
    }

    /// Tells a story of (minute, what), and answers with what happened.
    fn story(items: Vec<DispatchItem>, told: &[(i64, Told)]) -> Vec<(i64, String)> {
        let mut follower = Follower::default();
        follower.set_items(items);
        let told = told.iter().map(|(minute, told)| follower.tell(minute * MINUTE, *told, &OPTIONS));
        told.flat_map(in_words).collect()
    }

    use MachineState::{Held, Idle, Producing, Setup, Unknown};
    use Told::{Completed, Count, State, Time};

    #[test]
    fn the_part_count_ends_a_job() {
        let told = [
            (0, Count(7.0)),
            (5, State(Producing)),
            (9, State(Idle)),
            (10, State(Setup)),
            (20, State(Producing)),
            (25, Count(8.0)),
            (26, State(Idle)),
            (30, State(Producing)),
            (35, Count(9.0)),
        ];
        let seen = story(vec![item("a", 10, 30, 2)], &told);
        assert_eq!(seen, [(10, "started a".to_owned()), (35, "finished a good 2 in 25 min".to_owned())]);
    }

    #[test]
    fn a_counter_that_is_reset_counts_on() {
        let told = [
            (0, Count(99.0)),
            (10, State(Producing)),
            (11, Count(100.0)),
            (12, Count(1.0)),
            (13, Count(2.0)),
        ];
        let seen = story(vec![item("a", 10, 30, 3)], &told);
        assert_eq!(seen.last(), Some(&(13, "finished a good 3 in 3 min".to_owned())));
    }

    #[test]
    fn a_meter_is_remembered_to_its_last_bit() {
        for number in 0..10_000 {
            let follower =
                Follower { last_meter_wh: Some(f64::from(number) * 1e6 / 7.0), ..Follower::default() };
            let memory = serde_json::to_vec(&follower).unwrap();
            assert_eq!(serde_json::from_slice::<Follower>(&memory).unwrap(), follower);
        }
    }

    #[test]
    fn completed_programs_end_a_job_when_the_machine_rests() {
        let told = [
            (10, State(Producing)),
            (20, Completed),
            (20, State(Idle)),
            (21, State(Producing)),
            (30, Completed),
            (30, State(Idle)),
            (31, Time),
            (32, Time),
            (33, Time),
        ];
        let seen = story(vec![item("a", 10, 20, 2), item("b", 32, 20, 1)], &told);
        assert_eq!(seen, [(10, "started a".to_owned()), (30, "finished a good 2 in 20 min".to_owned())]);
    }

    #[test]
    fn gaps_of_a_quarter_of_an_hour_are_merged_and_longer_ones_end_the_job() {
        let told = [
            (10, State(Producing)),
            (20, State(Unknown)),
            (22, State(Producing)),
            (30, State(Idle)),
            (44, State(Producing)),
            (50, State(Idle)),
            (64, Time),
            (66, Time),
        ];
        let seen = story(vec![item("a", 10, 40, 5)], &told);
        assert_eq!(seen, [(10, "started a".to_owned()), (50, "finished a good 5 in 40 min".to_owned())]);
    }

    #[test]
    fn a_machine_that_is_held_has_not_stopped_and_little_activity_is_no_job() {
        let held = [(10, State(Producing)), (40, State(Held)), (90, Time), (91, State(Idle)), (100, Time)];
        assert_eq!(story(vec![item("a", 10, 40, 5)], &held).len(), 1);
        let little = [(10, State(Producing)), (11, State(Idle)), (60, Time)];
        assert_eq!(story(vec![item("a", 10, 40, 5)], &little).len(), 1);
    }

    #[test]
    fn the_machines_own_list_decides_what_is_at_work_and_what_is_done() {
        let job = |id: &str, standing| Listed { id: id.to_owned(), standing };
        let mut follower = Follower::default();
        follower.set_items(vec![item("a", 10, 30, 2), item("b", 20, 30, 2)]);
        let mut story = Vec::new();
        let mut list = |follower: &mut Follower, at: i64, jobs: &[Listed]| {
            story.extend(in_words(follower.list(at * MINUTE, jobs, &OPTIONS)));
        };
        for (jobs, why) in [
            ([job("a/0", Standing::Open)], "the machine lists the item's own job"),
            ([job("other", Standing::AtWork)], "the plant's own job is at work"),
            ([job("b/0", Standing::Due)], "the activity will be the other job's"),
        ] {
            list(&mut follower, 11, &jobs);
            follower.tell(12 * MINUTE, State(Producing), &OPTIONS);
            assert_eq!(follower.operation(), None, "{why}");
        }
        list(&mut follower, 13, &[job("a/0", Standing::Open), job("b/0", Standing::AtWork)]);
        follower.tell(14 * MINUTE, Count(0.0), &OPTIONS);
        follower.tell(15 * MINUTE, Count(9.0), &OPTIONS);
        follower.tell(16 * MINUTE, State(Idle), &OPTIONS);
        follower.tell(90 * MINUTE, Time, &OPTIONS);
        list(&mut follower, 91, &[job("a/0", Standing::Open), job("b/0", Standing::Done)]);
        list(&mut follower, 92, &[job("a/0", Standing::Done), job("b/0", Standing::Done)]);
        let expected =
            ["started b", "finished b good 9 in 78 min", "started a", "finished a good 2 in 0 min"];
        assert_eq!(story.iter().map(|(_, words)| words.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn own_work_before_the_start_is_not_the_job() {
        let told = [(5, State(Producing)), (12, Time), (15, State(Idle)), (16, State(Producing))];
        assert_eq!(story(vec![item("a", 10, 40, 5)], &told), [(16, "started a".to_owned())]);
    }

    #[test]
    fn a_long_fault_is_downtime_and_a_short_one_is_not() {
        let mut downtime = Downtime::default();
        assert_eq!(downtime.tell(0, MachineState::Blocked, "70 feed", 300), None);
        assert_eq!(downtime.tell(299_000, Idle, "", 300), None);
        assert_eq!(downtime.tell(400_000, MachineState::Blocked, "70 feed", 300), None);
        let down = downtime.tell(700_000, MachineState::Blocked, "70 feed", 300).unwrap();
        assert!(matches!(down.what, What::MachineDown(MachineDown { reason, .. }) if reason == "70 feed"));
        assert_eq!(downtime.tell(800_000, Unknown, "", 300), None);
        assert!(matches!(downtime.tell(900_000, Idle, "", 300).unwrap().what, What::MachineUp(_)));
    }

    #[test]
    fn only_a_persons_word_ends_what_a_person_said() {
        let mut downtime = Downtime::default();
        assert!(downtime.take_down(0, "crash", None).is_ok());
        for (at_ms, state) in [(1, Idle), (2, Producing), (3, MachineState::Blocked), (900_000, Idle)] {
            assert_eq!(downtime.tell(at_ms, state, "", 300), None, "{state:?}");
        }
        assert!(matches!(downtime.bring_up(900_001).unwrap().what, What::MachineUp(_)));
        assert_eq!(downtime.bring_up(900_002), Err(WordError::NotDown));
        // Blocked still: after its time it is down again by itself.
        assert_eq!(downtime.tell(900_003, MachineState::Blocked, "", 300), None);
        assert!(downtime.tell(1_200_003, MachineState::Blocked, "", 300).is_some());
    }
}
