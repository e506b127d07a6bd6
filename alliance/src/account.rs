//! How machines' time is counted.
//!
//! Each machine has an [`Account`] of its time up to the last that was heard of it. What is heard next closes a stretch,
//! in which nothing changed: its seconds are counted by what the machine was reported to do, whether work of the alliance
//! was in hand, and whether it was lent; and they are cut where shifts and days begin. So every second is counted once, and
//! what is heard late, but in order, counts where it belongs. What nobody knows is counted as unknown, never as idle.
//!
//! From format 5 on.

use crate::booking::Progress;
use crate::command::{Event, Happening};
use crate::format::Format;
use crate::id::{BookingId, MachineId};
use crate::line::MachineState;
use crate::planted::{Bug, planted};
use crate::price;
use crate::registry::Policy;
use crate::state::State;
use crate::table::Table;
use crate::tally::{DAYS_KEEP_S, Grain, Spent, Tally};
use crate::window::{LATEST, Window, Windows};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Of more pieces than so many times what was ordered nobody is believed.
const PIECES_TIMES_MAX: i64 = 100;
/// Tallies of a machine that one event forgets at most; the next one goes on.
const FORGOTTEN_MAX: usize = 16;

/// Which tally: a machine's, of the shift or day that begins then.
pub type TallyKey = (MachineId, Grain, i64);

/// A shift or a day of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counted {
    /// Its end, seconds since the Unix epoch.
    pub end: i64,
    /// What the machine did.
    pub tally: Tally,
}

/// How far a machine's time is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// The machine.
    pub machine: MachineId,
    /// Since when its time is counted, seconds since the Unix epoch.
    pub since: i64,
    /// Up to when, seconds since the Unix epoch.
    pub until: i64,
    /// The operation in hand.
    pub in_hand: Option<(BookingId, u32)>,
    /// When it was and is lent, from `until` on, or before: to the second, sorted, disjoint.
    pub lent: Arc<[Window]>,
}

impl Account {
    /// The seconds from where it stands, or from `from`, to `until`, by shift or day; of these only what is still known.
    fn stretches(
        &self,
        policy: &Policy,
        grain: Grain,
        state: MachineState,
        from: i64,
        until: i64,
    ) -> BTreeMap<i64, Counted> {
        let in_hand = self.in_hand.is_some();
        let mut at = self.until.max(from).max(until - grain.keep_s());
        let mut stretches = BTreeMap::new();
        while at < until {
            let (start, end) = policy.span(grain, at);
            let to = end.min(until);
            let lent_s = between(&self.lent, at, to).map(|window| window.length()).sum();
            let seconds = [(true, lent_s), (false, to - at - lent_s)];
            let seconds = seconds.map(|(lent, seconds)| (Spent { state, in_hand, lent }, seconds));
            stretches.insert(start, Counted { end, tally: Tally::of_seconds(seconds) });
            at = to;
        }
        stretches
    }
}

impl State {
    /// How far each machine's time is counted.
    pub fn accounts(&self) -> &Table<MachineId, Arc<Account>> {
        &self.accounts
    }

    /// Tallies as far as time is counted.
    pub fn tallies(&self) -> &Table<TallyKey, Arc<Counted>> {
        &self.tallies
    }

    /// A machine's shifts or days that begin in `[from, until)`, the last up to now as it was reported to be last.
    pub fn tallies_of(
        &self,
        machine: &MachineId,
        grain: Grain,
        from: i64,
        until: i64,
    ) -> BTreeMap<i64, Counted> {
        let from = from.max(self.now - grain.keep_s());
        let first = (machine.clone(), grain, from);
        let kept = self
            .tallies
            .from(first)
            .take_while(|((of, at_grain, start), _)| of == machine && *at_grain == grain && *start < until);
        let mut all: BTreeMap<_, _> =
            kept.map(|((_, _, start), counted)| (*start, Counted::clone(counted))).collect();
        if let (Some(account), Some(station)) = (self.accounts.get(machine), self.stations.get(machine)) {
            // What is known ends where nothing is heard any more.
            let silent =
                self.silences.get(&station.machine.plant).map_or(self.now, |since| (*since).min(self.now));
            let known = account.stretches(&self.policy, grain, station.state, from, silent);
            let unknown =
                account.stretches(&self.policy, grain, MachineState::Unknown, from.max(silent), self.now);
            let open = known.into_iter().chain(unknown);
            for (start, more) in open.filter(|(start, _)| (from..until).contains(start)) {
                let counted = all.entry(start).or_insert(Counted { end: more.end, ..Counted::default() });
                counted.tally += &more.tally;
            }
        }
        all
    }

    /// Whether time is counted at all.
    fn counts_time(&self) -> bool {
        self.format >= Format::TALLIED
    }

    /// Opens every machine's account, now.
    pub(crate) fn open_accounts(&mut self) {
        let machines: Vec<_> = self.stations.values().map(|station| station.id().clone()).collect();
        for machine in machines {
            self.open_account(&machine);
        }
    }

    /// A machine's account, which begins now if there is none.
    fn open_account(&mut self, machine: &MachineId) -> Arc<Account> {
        if let Some(known) = self.accounts.get(machine) {
            return known.clone();
        }
        let lent = self.offers.values().filter(|offer| offer.machine == *machine && !offer.withdrawn);
        let lent = Windows::union(lent.flat_map(|offer| offer.open.iter().copied()));
        let lent = lent.between(self.now, LATEST).collect();
        let (since, until) = (self.now, self.now);
        let account = Arc::new(Account { machine: machine.clone(), since, until, in_hand: None, lent });
        self.accounts.put(machine.clone(), account.clone());
        account
    }

    /// From now on the machine is lent at these times. What was lent before now was lent.
    pub(crate) fn note_lent(&mut self, machine: &MachineId, lent: &Windows) {
        if !self.counts_time() {
            return;
        }
        let account = self.open_account(machine);
        let past = between(&account.lent, account.until.max(self.now - DAYS_KEEP_S), self.now);
        let lent = joined(past.chain(lent.between(self.now, LATEST)));
        self.accounts.put(machine.clone(), Arc::new(Account { lent, ..Account::clone(&account) }));
    }

    /// Counts what has happened to a machine; `before` is the state before it happened.
    pub(crate) fn count(&mut self, before: &State, event: &Event) {
        if !self.counts_time() {
            return;
        }
        let machine = &event.machine;
        match &event.what {
            Happening::Started { booking, operation } => {
                let began = self.began(booking, *operation).unwrap_or(event.at);
                self.count_until(before.state_of(machine), machine, began, |_| Some((*booking, *operation)));
            }
            Happening::Finished { booking, operation, pieces_scrapped, .. } => {
                let done = (*booking, *operation);
                // Whichever machine of the plant tells of it.
                let Some(machine) = &self.machine_of(done) else { return };
                let (Some(began), Some(ended)) = (self.began(booking, *operation), self.ended(done)) else {
                    return;
                };
                // Where the start was never told, it is known now; where other work was begun since, that is in hand.
                if self.accounts.get(machine).is_none_or(|account| account.in_hand.is_none()) {
                    self.count_until(before.state_of(machine), machine, began, |_| Some(done));
                }
                self.count_until(before.state_of(machine), machine, ended, |in_hand| {
                    in_hand.filter(|other| *other != done)
                });
                self.count_output(machine, done, ended, *pieces_scrapped);
            }
            Happening::Scrapped { booking, operation, pieces_scrapped, .. } => {
                let lost = (*booking, *operation);
                let Some(machine) = &before.machine_of(lost) else { return };
                let began = before.began(booking, *operation).unwrap_or(event.at);
                let ended = self.plausible(event.at, began);
                self.count_until(before.state_of(machine), machine, ended, |in_hand| {
                    in_hand.filter(|other| *other != lost)
                });
                let pieces_scrapped = self.believable(booking, *pieces_scrapped);
                let run_planned_s = self.run_s(machine, lost, pieces_scrapped);
                self.add_output(machine, ended, Tally { pieces_scrapped, run_planned_s, ..Tally::default() });
            }
            Happening::State(_)
            | Happening::Progress { .. }
            | Happening::Down { .. }
            | Happening::Up
            | Happening::Gap { .. }
            | Happening::Operated { .. } => {}
        }
    }

    /// Counts a machine's time up to `at`, in which it was in this state; from there on something else is in hand.
    pub(crate) fn count_until(
        &mut self,
        state: MachineState,
        machine: &MachineId,
        at: i64,
        in_hand: impl Fn(Option<(BookingId, u32)>) -> Option<(BookingId, u32)>,
    ) {
        if !self.counts_time() {
            return;
        }
        let account = self.open_account(machine);
        let at = at.min(self.now).max(account.until);
        for grain in Grain::ALL {
            for (start, more) in account.stretches(&self.policy, grain, state, account.until, at) {
                self.add((machine.clone(), grain, start), more.end, &more.tally);
            }
            self.forget_tallies(machine, grain);
        }
        let until = if planted(Bug::TimeCountedTwice) { account.until } else { at };
        // What is over is looked at no more.
        let over = account.lent.first().is_some_and(|window| window.end <= until);
        let lent =
            if over { between(&account.lent, until, i64::MAX).collect() } else { account.lent.clone() };
        let account = Account { until, lent, in_hand: in_hand(account.in_hand), ..Account::clone(&account) };
        self.accounts.put(machine.clone(), Arc::new(account));
    }

    /// What a machine was last reported to do.
    fn state_of(&self, machine: &MachineId) -> MachineState {
        self.stations.get(machine).map_or(MachineState::Unknown, |station| station.state)
    }

    /// The machine on which an operation stands.
    fn machine_of(&self, (booking, operation): (BookingId, u32)) -> Option<MachineId> {
        let step = self.bookings.get(&booking)?.steps.get(operation as usize)?;
        step.place.as_ref().map(|place| place.machine.clone())
    }

    /// When an operation began.
    fn began(&self, booking: &BookingId, operation: u32) -> Option<i64> {
        self.bookings.get(booking)?.steps.get(operation as usize)?.started_at()
    }

    /// When an operation ended.
    fn ended(&self, (booking, operation): (BookingId, u32)) -> Option<i64> {
        match self.bookings.get(&booking)?.steps.get(operation as usize)?.progress {
            Progress::Finished { finished_at, .. } => Some(finished_at),
            _ => None,
        }
    }

    /// What so many pieces of an operation should run on a machine, seconds.
    fn run_s(&self, machine: &MachineId, (booking, operation): (BookingId, u32), pieces: i64) -> i64 {
        let wanted =
            self.bookings.get(&booking).and_then(|booking| booking.order.route.get(operation as usize));
        let station = self.stations.get(machine);
        wanted
            .zip(station)
            .map_or(0, |(wanted, station)| price::reckon(wanted, pieces, &station.machine).run_s)
    }

    fn believable(&self, booking: &BookingId, pieces: u32) -> i64 {
        let ordered = self.bookings.get(booking).map_or(0, |booking| booking.order.quantity);
        i64::from(pieces).min(ordered * PIECES_TIMES_MAX)
    }

    /// Counts what an operation that has ended has made and used.
    fn count_output(&mut self, machine: &MachineId, done: (BookingId, u32), ended: i64, scrapped: u32) {
        let (id, operation) = done;
        let step = self.bookings.get(&id).and_then(|booking| booking.steps.get(operation as usize));
        let Some(Progress::Finished { pieces_good, energy_wh, energy_measured, .. }) =
            step.map(|step| step.progress.clone())
        else {
            return;
        };
        let (good, scrapped) = (self.believable(&id, pieces_good), self.believable(&id, scrapped));
        let energy_wh = energy_wh as i64;
        let plant = self.stations.get(machine).and_then(|station| self.plants.get(&station.machine.plant));
        let factor = plant.and_then(|plant| self.policy.grid_factor(&plant.grid_region));
        let output = Tally {
            pieces_good: good,
            pieces_scrapped: scrapped,
            run_planned_s: self.run_s(machine, done, good + scrapped),
            run_planned_good_s: self.run_s(machine, done, good),
            energy_measured_wh: if energy_measured { energy_wh } else { 0 },
            energy_modelled_wh: if energy_measured { 0 } else { energy_wh },
            carbon_g: factor.map_or(0, |factor| price::machine_grams(energy_wh, factor.mg_per_kwh)),
            ..Tally::default()
        };
        self.add_output(machine, ended, output);
    }

    /// Output counts where its operation ended: with its last second.
    fn add_output(&mut self, machine: &MachineId, ended: i64, output: Tally) {
        for grain in Grain::ALL {
            let (start, end) = self.policy.span(grain, ended - 1);
            self.add((machine.clone(), grain, start), end, &output);
        }
    }

    fn add(&mut self, key: TallyKey, end: i64, more: &Tally) {
        let mut counted = self.tallies.get(&key).map(|known| Counted::clone(known)).unwrap_or_default();
        // Where the policy's shifts were longer before, what is counted of this one may be longer than one of now.
        counted.end = counted.end.max(end);
        counted.tally += more;
        self.tallies.put(key, Arc::new(counted));
    }

    fn forget_tallies(&mut self, machine: &MachineId, grain: Grain) {
        let known_since = self.now - grain.keep_s();
        for _ in 0..FORGOTTEN_MAX {
            let first =
                self.tallies.from((machine.clone(), grain, i64::MIN)).next().map(|(key, _)| key.clone());
            let over = first.filter(|(of, at_grain, _)| of == machine && *at_grain == grain);
            let Some(over) = over.filter(|(_, _, start)| *start < known_since) else { return };
            self.tallies.take(&over);
        }
    }
}

/// The part of sorted windows from `from` up to `until`.
fn between(windows: &[Window], from: i64, until: i64) -> impl Iterator<Item = Window> {
    let cut = move |w: &Window| Window::new(w.start.max(from), w.end.min(until));
    windows.iter().map(cut).filter(|w| w.start < w.end)
}

/// Sorted windows, those that touch as one: what was lent until now and is lent from now on has no seam.
fn joined(windows: impl Iterator<Item = Window>) -> Arc<[Window]> {
    let mut all: Vec<Window> = Vec::new();
    for window in windows {
        match all.last_mut() {
            Some(last) if window.start <= last.end => last.end = last.end.max(window.end),
            _ => all.push(window),
        }
    }
    all.into()
}
