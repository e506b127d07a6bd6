//! A machine's history as it is told: its state, the operation at hand, downtime, and holes in the evidence.
//!
//! Adapters differ in how they see a machine; what follows from what they see is the same for all of them,
//! and stands here. A [`History`] is pure and is remembered in the adapter's mark, so that after a restart
//! it goes on where it stopped.
//!
//! What happens is told in the time of what was seen, and that time never goes back.

use super::job::by_hand::DoneByHand;
use super::job::{self, Downtime, Follower, Listed, Told};
use super::word::{Word, WordError};
use super::{Happened, Power, cut};
use crate::health::Over;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{DispatchItem, EvidenceGap, MachineState, StateChanged};
use serde::{Deserialize, Serialize};

/// Longest reason of a gap, bytes.
const REASON_BYTES_MAX: usize = 200;

/// Values closer together than this belong to one moment, ms: a machine's parts are read or written one by one.
const MOMENT_MS: i64 = 20;

/// What came together, moment by moment in the order of time, so that no state is seen between two values that
/// belong together. O(n log n).
pub fn moments<S>(seen: &mut [S], stamp: impl Fn(&S) -> i64) -> Vec<(i64, &[S])> {
    seen.sort_by_key(&stamp);
    let mut moments = Vec::new();
    let mut rest = &*seen;
    while let Some(first) = rest.first() {
        let until_ms = stamp(first).saturating_add(MOMENT_MS);
        let (moment, later) = rest.split_at(rest.partition_point(|seen| stamp(seen) <= until_ms));
        moments.push((moment.last().map_or(until_ms, &stamp), moment));
        rest = later;
    }
    moments
}

/// What a plant decides about how a machine's history is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Whether activity is bound to the dispatch list; without, operations begin and end by a person's word.
    pub follow_dispatch: bool,
    /// Progress every so many seconds.
    pub progress_s: u32,
    /// Blocked for so long is down, s.
    pub down_after_s: u32,
    /// What the machine draws, where nothing measures it.
    pub power: Power,
}

impl Default for Rules {
    fn default() -> Self {
        Self { follow_dispatch: true, progress_s: 900, down_after_s: 300, power: Power::default() }
    }
}

/// One machine's history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The plant's; not remembered, so that another configuration holds from the next start on.
    #[serde(skip)]
    pub rules: Rules,
    /// The state that was told last.
    state: i32,
    /// When the last thing told happened.
    told_ms: i64,
    /// Until when the machine was seen; 0 before it ever was.
    seen_ms: i64,
    /// It is not seen now.
    lost: bool,
    follower: Follower,
    downtime: Downtime,
}

impl History {
    /// Whether the machine was ever seen.
    pub fn begun(&self) -> bool {
        self.seen_ms > 0
    }

    /// The machine's state, as it was told last.
    pub fn state(&self) -> MachineState {
        MachineState::try_from(self.state).unwrap_or(MachineState::Unknown)
    }

    /// When the last thing told happened, ms since the Unix epoch.
    pub fn told_ms(&self) -> i64 {
        self.told_ms
    }

    /// The operation at hand.
    pub fn operation(&self) -> Option<(&str, u32)> {
        self.follower.operation()
    }

    /// Operations of its list that are over.
    pub fn over(&self) -> Vec<Over> {
        self.follower.over()
    }

    /// The machine's items on the dispatch list.
    pub fn set_items(&mut self, items: Vec<DispatchItem>) {
        self.follower.set_items(items);
    }

    /// The machine is not seen any more: its state is unknown from when it was seen last.
    pub fn lose(&mut self) -> Vec<Happened> {
        let mut happened = Vec::new();
        if self.begun() && !std::mem::replace(&mut self.lost, true) {
            self.turn(self.seen_ms, MachineState::Unknown, &mut happened);
        }
        happened
    }

    /// The machine is seen again; says whether it was lost.
    pub fn find(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Everything of one instant is taken in: the state that it amounts to, what else it says, and the
    /// faults that stand, in words.
    pub fn settle(
        &mut self,
        at_ms: i64,
        state: MachineState,
        told: &[Told],
        faults: &str,
        happened: &mut Vec<Happened>,
    ) {
        let at_ms = at_ms.max(self.told_ms);
        self.turn(at_ms, state, happened);
        for told in told {
            self.tell(at_ms, *told, happened);
        }
        self.told_ms = at_ms;
        self.pass_time(at_ms, faults, happened);
    }

    /// The machine's own list of jobs, as it is from now on.
    pub fn list(&mut self, at_ms: i64, jobs: &[Listed], happened: &mut Vec<Happened>) {
        if self.rules.follow_dispatch {
            let options = self.options();
            happened.extend(self.follower.list(at_ms.max(self.told_ms), jobs, &options));
        }
    }

    /// A person says something. What is refused has changed nothing.
    pub fn hear(
        &mut self,
        now_ms: i64,
        word: &Word,
        happened: &mut Vec<Happened>,
    ) -> Result<String, WordError> {
        let (now_ms, options) = (now_ms.max(self.told_ms), self.options());
        match word {
            Word::Start { operation, at_ms, .. } => {
                let name =
                    self.follower.start_by_hand(now_ms, operation.as_ref(), *at_ms, &options, happened)?;
                Ok(format!("{name} is started"))
            }
            Word::Count { good, end_ms } => {
                let name = self.follower.count_by_hand(now_ms, *good, *end_ms, &options, happened)?;
                Ok(format!("{name} goes on, {good} good so far"))
            }
            Word::Finish { good, scrapped, energy_wh, at_ms } => {
                let done =
                    DoneByHand { good: *good, scrapped: *scrapped, energy_wh: *energy_wh, at_ms: *at_ms };
                let name = self.follower.finish_by_hand(now_ms, &done, &options, happened)?;
                Ok(format!("{name} is finished"))
            }
            Word::Scrap { pieces, reason, at_ms } => {
                let name =
                    self.follower.scrap_by_hand(now_ms, *pieces, reason, *at_ms, &options, happened)?;
                Ok(format!("{name} is scrapped, and has to be done again"))
            }
            Word::Down { reason, until_ms } => {
                happened.push(self.downtime.take_down(now_ms, reason, *until_ms)?);
                Ok("the machine is down".to_owned())
            }
            Word::Up => {
                happened.push(self.downtime.bring_up(now_ms)?);
                Ok("the machine takes work again".to_owned())
            }
        }
    }

    /// The state is this from now on; for a machine whose state is told.
    pub fn turn_to(&mut self, now_ms: i64, state: MachineState, happened: &mut Vec<Happened>) {
        self.turn(now_ms, state, happened);
        self.seen(now_ms);
    }

    /// Nothing but time has passed. It does not count as told: what is on its way may be a little older,
    /// and keeps its own time.
    pub fn pass_time(&mut self, now_ms: i64, faults: &str, happened: &mut Vec<Happened>) {
        self.tell(now_ms, Told::Time, happened);
        happened.extend(self.downtime.tell(now_ms, self.state(), faults, self.rules.down_after_s));
    }

    /// Between when the machine was seen last and now there is a hole in the evidence.
    pub fn gap(&self, now_ms: i64, why: &str, happened: &mut Vec<Happened>) {
        let from_ms = self.seen_ms;
        if now_ms > from_ms {
            let reason = cut(why, REASON_BYTES_MAX).to_owned();
            let gap = EvidenceGap { from_ms, until_ms: now_ms, reason };
            happened.push(Happened { at_ms: now_ms, what: What::EvidenceGap(gap) });
        }
    }

    /// The machine was seen until now.
    pub fn seen(&mut self, now_ms: i64) {
        self.seen_ms = now_ms.max(self.seen_ms);
        self.lost = false;
    }

    fn turn(&mut self, at_ms: i64, state: MachineState, happened: &mut Vec<Happened>) {
        if self.state() == state && self.begun() {
            return;
        }
        let at_ms = at_ms.max(self.told_ms);
        self.told_ms = at_ms;
        self.state = state.into();
        happened.push(Happened { at_ms, what: What::StateChanged(StateChanged { state: state.into() }) });
        self.tell(at_ms, Told::State(state), happened);
    }

    fn tell(&mut self, at_ms: i64, told: Told, happened: &mut Vec<Happened>) {
        let options = self.options();
        happened.extend(self.follower.tell(at_ms, told, &options));
    }

    fn options(&self) -> job::Options {
        let Rules { follow_dispatch, progress_s, power, .. } = self.rules;
        job::Options { bind: follow_dispatch, progress_s, power }
    }
}
