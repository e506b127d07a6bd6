//! How recorded machines work: for how long they cut, what interrupts them and for how long, and when they are not
//! seen.
//!
//! `data/recorded.toml` has the tables, drawn from years of three machines' state by `data/recorded.py`, which says how.
//! A [`Course`] is where one operation's work stands in such stretches: it begins with a cut; what follows a stretch
//! is drawn as often as it followed it in the recording; each length is one of the recording's. Now and then the
//! machine drops out of sight: the stretch stands still meanwhile, and goes on where it stopped.

use crate::chance::Chance;
use millpool_proto::v1::MachineState;
use prost::Message;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The machines, as `data/recorded.py` wrote them.
static MACHINES: LazyLock<File> = LazyLock::new(|| {
    let read = toml::from_str(include_str!("../../../data/recorded.toml"));
    read.unwrap_or_else(|wrong| unreachable!("data/recorded.toml is part of the build: {wrong}"))
});

#[derive(Deserialize)]
struct File {
    machine: Vec<Recorded>,
}

/// One recorded machine.
#[derive(Debug, Deserialize)]
pub struct Recorded {
    /// Its name in the recordings.
    pub name: String,
    /// What it does within a run, in stretches.
    pub stretch: Vec<Stretch>,
    /// Time in sight between two drop-outs.
    pub seen: Lengths,
    /// Drop-outs.
    pub dropout: Lengths,
}

/// Stretches in one state.
#[derive(Debug, Deserialize)]
pub struct Stretch {
    /// Its name.
    pub state: State,
    /// Its share of the time in sight.
    pub share_permille: u32,
    /// How often each state followed.
    follows: BTreeMap<State, u64>,
    /// For how long it lasts.
    #[serde(flatten)]
    pub lengths: Lengths,
}

/// The states of a machine in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It cuts.
    Producing,
    /// It waits in the middle of a program.
    Held,
    /// It waits between programs.
    Idle,
    /// It is moved by hand.
    Setup,
}

/// Lengths as they were recorded, in classes of equally many.
#[derive(Debug, Deserialize)]
pub struct Lengths {
    /// How many were recorded.
    pub recorded: u32,
    /// The median, ms.
    pub median_ms: i64,
    /// The mean of each class, ms.
    lengths_ms: Vec<i64>,
}

impl Recorded {
    /// The machine of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        MACHINES.machine.iter().find(|machine| machine.name == name)
    }

    /// Their names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MACHINES.machine.iter().map(|machine| machine.name.as_str())
    }

    /// Drop-outs in an hour in sight.
    pub fn dropouts_an_hour(&self) -> f64 {
        let seen_ms: i64 = self.seen.lengths_ms.iter().sum();
        self.seen.lengths_ms.len() as f64 * 3_600_000.0 / seen_ms as f64
    }

    /// The stretches in a state.
    pub fn stretches(&self, state: State) -> Option<&Stretch> {
        self.stretch.iter().find(|stretch| stretch.state == state)
    }
}

/// By name: there is one of each.
impl PartialEq for Recorded {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Lengths {
    /// One of them; never nothing, so that time goes on.
    fn draw_ms(&self, chance: &mut Chance) -> i64 {
        let last = self.lengths_ms.len().saturating_sub(1);
        let class = chance.between(0, last as u64) as usize;
        self.lengths_ms.get(class).copied().unwrap_or_default().max(1)
    }
}

impl Stretch {
    /// What follows.
    fn draw_next(&self, chance: &mut Chance) -> State {
        let all: u64 = self.follows.values().sum();
        let mut rest = chance.between(1, all.max(1));
        for (state, times) in &self.follows {
            match rest.checked_sub(*times) {
                None | Some(0) => return *state,
                Some(more) => rest = more,
            }
        }
        State::Producing
    }
}

impl From<State> for MachineState {
    fn from(state: State) -> Self {
        match state {
            State::Producing => Self::Producing,
            State::Held => Self::Held,
            State::Idle => Self::Idle,
            State::Setup => Self::Setup,
        }
    }
}

/// Where an operation's work stands; remembered with it.
#[derive(Clone, PartialEq, Message)]
pub struct Course {
    /// What the machine does, seen or not.
    #[prost(enumeration = "MachineState", tag = "1")]
    state: i32,
    /// Since when.
    #[prost(int64, tag = "2")]
    since_ms: i64,
    /// Until when, if it stays in sight.
    #[prost(int64, tag = "3")]
    until_ms: i64,
    /// It is out of sight.
    #[prost(bool, tag = "4")]
    hidden: bool,
    /// When it drops out of sight, or comes back.
    #[prost(int64, tag = "5")]
    sight_until_ms: i64,
    /// Time that it has not cut, up to `since_ms`.
    #[prost(int64, tag = "6")]
    paused_ms: i64,
    /// What was drawn last; the next number is drawn from it.
    #[prost(fixed64, tag = "7")]
    chance: u64,
}

impl Course {
    /// Work that has not begun.
    pub fn new(mut chance: Chance) -> Self {
        Self { state: MachineState::Producing.into(), chance: chance.next(), ..Self::default() }
    }

    /// The work begins, or goes on after a breakdown: in sight, with a cut.
    pub fn go_on(&mut self, recorded: &Recorded, at_ms: i64) {
        let mut chance = Chance::from_seed(self.chance);
        self.hidden = false;
        self.sight_until_ms = at_ms.saturating_add(recorded.seen.draw_ms(&mut chance));
        self.turn(recorded, at_ms, State::Producing, &mut chance);
        self.chance = chance.next();
    }

    /// A breakdown: from now on nothing counts as a pause, until the work goes on.
    pub fn stop(&mut self, at_ms: i64) {
        self.paused_ms = self.paused_ms(at_ms);
        self.state = MachineState::Producing.into();
    }

    /// The state as it is seen.
    pub fn seen(&self) -> MachineState {
        if self.hidden { MachineState::Unknown } else { self.state() }
    }

    /// When it changes next.
    pub fn next_ms(&self) -> i64 {
        if self.hidden { self.sight_until_ms } else { self.until_ms.min(self.sight_until_ms) }
    }

    /// It changes, at [`Course::next_ms`].
    pub fn step(&mut self, recorded: &Recorded) {
        let at_ms = self.next_ms();
        let mut chance = Chance::from_seed(self.chance);
        if self.hidden {
            self.hidden = false;
            self.sight_until_ms = at_ms.saturating_add(recorded.seen.draw_ms(&mut chance));
        } else if at_ms == self.until_ms {
            let stretch =
                recorded.stretch.iter().find(|stretch| MachineState::from(stretch.state) == self.state());
            let next = stretch.map_or(State::Producing, |stretch| stretch.draw_next(&mut chance));
            self.turn(recorded, at_ms, next, &mut chance);
        } else {
            let lasts_ms = recorded.dropout.draw_ms(&mut chance);
            self.hidden = true;
            self.sight_until_ms = at_ms.saturating_add(lasts_ms);
            self.until_ms = self.until_ms.saturating_add(lasts_ms);
        }
        self.chance = chance.next();
    }

    /// For how long it has not cut until now.
    pub fn paused_ms(&self, now_ms: i64) -> i64 {
        match self.state() {
            MachineState::Producing => self.paused_ms,
            _ => self.paused_ms + (now_ms - self.since_ms).max(0),
        }
    }

    fn turn(&mut self, recorded: &Recorded, at_ms: i64, state: State, chance: &mut Chance) {
        self.paused_ms = self.paused_ms(at_ms);
        self.state = MachineState::from(state).into();
        self.since_ms = at_ms;
        let lasts_ms = recorded.stretches(state).map_or(1, |stretch| stretch.lengths.draw_ms(chance));
        self.until_ms = at_ms.saturating_add(lasts_ms);
    }
}
