//! The alliance's state in the solver's words: machines with their calendars and lines, orders and bookings
//! as jobs. Times become ticks of a minute after an epoch, ids become indices.
//!
//! What is in hand on a machine, or should have begun, is not in the solver's hands: it closes the machine
//! until its end and leaves its setup family behind.

use millpool_alliance::digest::Fold;
use millpool_alliance::line::{Occupation, Phase, Station, Use};
use millpool_alliance::price::{self, Reckoned};
use millpool_alliance::registry::MachineClass;
use millpool_alliance::window::{ceil_tick, floor_tick};
use millpool_alliance::{
    Booking, MachineId, Operation, Order, PlantId, Reason, Refusal, State, TICK_S, Terms, eligibility,
};
use millpool_solver as solver;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// The index of a setup family. Every occupation of every machine asks for it, so it hashes; with a hasher without a
/// seed, so that the same pool is built the same everywhere.
type Families = HashMap<String, usize, BuildHasherDefault<Fold>>;

/// Machines by class and family, which exclude most of them at no cost.
type Able = HashMap<(MachineClass, usize), Vec<usize>, BuildHasherDefault<Fold>>;

/// The pool as the solver sees it, kept beside a state.
pub struct Pool {
    /// Tick 0, seconds since the Unix epoch, a whole minute: the longest trip before `from`, so that a part
    /// which is on its way has set out after it.
    epoch: i64,
    /// From when on things are planned, seconds since the Unix epoch, a whole minute.
    from: i64,
    /// Plants and machines.
    pub shop: solver::Shop,
    /// What stands on each machine.
    pub lines: solver::Lines,
    stations: Vec<Arc<Station>>,
    /// By class and family: the machines of the one that may be set up for the other.
    able: Able,
    /// By machine and family: the longest changeover into it, seconds.
    longest_changeover_s: Vec<Vec<i64>>,
    /// By machine: what a kWh emits there, mg CO2e.
    grid: Vec<u32>,
    index: BTreeMap<MachineId, usize>,
    plants: BTreeMap<PlantId, usize>,
    families: Families,
    /// Of everything else that it was built from.
    revisions: Vec<u64>,
}

/// What the remaining steps of a booking may do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Freedom {
    /// Frozen steps stay; others go where new work may go.
    Unfrozen,
    /// Every step may go anywhere from now on: what a disturbance allows.
    All,
}

/// A step that stays where it is while its booking waits for a repair.
pub struct Kept {
    /// Its index in the route.
    pub operation: usize,
    /// Nothing but itself, fixed.
    pub job: solver::Job,
    /// Where it stands, as operation 0 of job 0.
    pub assignment: solver::Assignment,
    /// What it costs where it stands, fen.
    pub cost_fen: i64,
}

/// The revisions of the policy and of every plant.
fn revisions(state: &State) -> Vec<u64> {
    let plants = state.plants().values().map(|plant| plant.revision);
    std::iter::once(state.policy().revision).chain(plants).collect()
}

impl Pool {
    /// The pool of `state`, seen from `from` on. O(machines × families² + occupations).
    pub fn build(state: &State, from: i64) -> Pool {
        let stations: Vec<Arc<Station>> = state.stations().values().cloned().collect();
        let mut families = Families::default();
        for family in stations.iter().flat_map(|s| known_families(s)) {
            let next = families.len();
            families.entry(family.to_owned()).or_insert(next);
        }
        let plants: BTreeMap<PlantId, usize> =
            state.plants().values().enumerate().map(|(i, p)| (p.id.clone(), i)).collect();
        let index = stations.iter().enumerate().map(|(i, s)| (s.id().clone(), i)).collect();
        let shop = shop(state, &stations, &plants, &families);
        let from = floor_tick(from);
        let longest_trip = shop.transport.iter().flatten().copied().max().unwrap_or(0);
        let mut pool = Pool {
            epoch: from - longest_trip * TICK_S,
            from,
            shop,
            lines: solver::Lines::default(),
            able: able(&stations, &families),
            longest_changeover_s: stations.iter().map(|s| longest_changeovers_s(s, &families)).collect(),
            grid: stations.iter().map(|s| mg_per_kwh(state, s)).collect(),
            stations,
            index,
            plants,
            families,
            revisions: revisions(state),
        };
        pool.lines = solver::Lines::new(&pool.shop);
        (0..pool.stations.len()).for_each(|m| pool.load(m));
        pool
    }

    /// Takes over a machine's line and windows as they are in `state`. The registry must be unchanged.
    pub fn refresh(&mut self, state: &State, machine: &MachineId) {
        if let (Some(&m), Some(station)) = (self.index.get(machine), state.stations().get(machine)) {
            self.stations[m] = station.clone();
            self.load(m);
        }
    }

    /// Whether machines, plants and policy themselves are still those of `state`.
    pub fn same_registry(&self, state: &State) -> bool {
        self.revisions == revisions(state)
            && self.stations.len() == state.stations().len()
            && self
                .stations
                .iter()
                .zip(state.stations().values())
                .all(|(mine, its)| Arc::ptr_eq(&mine.machine, &its.machine))
    }

    /// Takes over every machine that differs from the one in `state`.
    pub fn catch_up(&mut self, state: &State) {
        for (m, station) in state.stations().values().enumerate() {
            if !Arc::ptr_eq(&self.stations[m], station) {
                self.stations[m] = station.clone();
                self.load(m);
            }
        }
    }

    /// Shows a machine as if its station were this; undone by [`Pool::refresh`].
    pub fn pretend(&mut self, station: Station) {
        if let Some(&m) = self.index.get(station.id()) {
            self.stations[m] = Arc::new(station);
            self.load(m);
        }
    }

    fn load(&mut self, m: usize) {
        let station = self.stations[m].clone();
        // What stands before something that has begun is given, too, even if nobody has reported on it.
        let given = |o: &Occupation| o.phase != Phase::Planned || o.start < self.from;
        let (in_hand, to_come) =
            station.line.split_at(station.line.iter().rposition(given).map_or(0, |i| i + 1));
        let from = in_hand.iter().map(|o| o.end).fold(self.from, i64::max);
        let windows =
            station.open.between(from, i64::MAX).map(|w| (self.tick(w.start), self.tick(w.end))).collect();
        let machine = &mut self.shop.machines[m];
        machine.calendar = solver::Calendar::new(windows).unwrap_or_else(|_| solver::Calendar::always(0));
        let family = in_hand.last().map(|o| &o.family).or(station.family.as_ref());
        machine.initial_family = family.and_then(|f| self.families.get(&**f)).copied();
        let line = to_come.iter().map(|o| self.occupation(o)).collect();
        self.lines.set(&self.shop, m, line);
    }

    fn occupation(&self, o: &Occupation) -> solver::Occupation {
        solver::Occupation {
            start: self.tick(o.start),
            end: self.tick(o.end),
            setup: o.changeover_s / TICK_S,
            work: o.work_s / TICK_S,
            family: self.families.get(&*o.family).copied().unwrap_or(0) as u32,
            splittable: o.splittable,
            ..solver::Occupation::default()
        }
    }

    /// The tick at or before `second`.
    pub fn tick(&self, second: i64) -> solver::Tick {
        (floor_tick(second) - self.epoch) / TICK_S
    }

    /// The tick at or after `second`, from when on things are planned.
    fn tick_from(&self, second: i64) -> solver::Tick {
        (ceil_tick(second).max(self.from) - self.epoch) / TICK_S
    }

    /// The tick at or after `second`; the first one for what was before it.
    fn tick_at(&self, second: i64) -> solver::Tick {
        (ceil_tick(second).max(self.epoch) - self.epoch) / TICK_S
    }

    /// How long before the first tick `due` was, ticks.
    pub fn overdue(&self, due: i64) -> solver::Tick {
        (-self.tick(due)).max(0)
    }

    /// The second at which `tick` begins.
    pub fn second(&self, tick: solver::Tick) -> i64 {
        self.epoch + tick * TICK_S
    }

    /// The machine at `index`.
    pub fn machine(&self, index: usize) -> &MachineId {
        self.stations[index].id()
    }

    /// The index of a machine.
    pub fn index(&self, id: &MachineId) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// The index of a plant.
    pub fn plant(&self, id: &PlantId) -> Option<usize> {
        self.plants.get(id).copied()
    }

    /// The last tick at which any machine is open.
    pub fn horizon(&self) -> solver::Tick {
        let last = |m: &solver::Machine| m.calendar.windows().last().map_or(0, |w| w.1);
        self.shop.machines.iter().map(last).max().unwrap_or(0)
    }

    /// Machine and start of each operation of a placement.
    pub fn seats(&self, placement: &solver::Placement) -> Vec<(MachineId, i64)> {
        let seat = |s: &solver::Step| (self.machine(s.machine).clone(), self.second(s.start));
        placement.steps.iter().map(seat).collect()
    }

    /// A new order as a job. Refused if no machine can do one of its operations.
    pub fn job_of_order(&self, state: &State, order: &Order, terms: &Terms) -> Result<solver::Job, Refusal> {
        let ops: Result<Vec<solver::Op>, Refusal> = order
            .route
            .iter()
            .enumerate()
            .map(|(k, operation)| {
                let modes = self.modes(order, operation, |s| state.earliest_start(s));
                if modes.is_empty() {
                    return Err(nobody_can(state, order, k));
                }
                Ok(self.op(operation, modes, None))
            })
            .collect();
        let latest = [order.deadline, terms.promised_by].into_iter().flatten().min();
        Ok(solver::Job {
            id: String::new(),
            release: self.tick_from(order.release.max(state.now())),
            due: self.tick(order.due).max(0),
            deadline: latest.map(|d| self.tick(d).max(0)),
            tardiness_weight: state.policy().tardiness_fen_per_minute,
            rejection_cost: None,
            budget: [order.budget_fen, terms.price_max_fen].into_iter().flatten().min(),
            ops: ops?,
            ..solver::Job::default()
        })
    }

    /// What is still to be planned of a booking, as a job, with the index of its first operation in the
    /// route. None if there is nothing.
    pub fn job_of_booking(
        &self,
        state: &State,
        booking: &Booking,
        freedom: Freedom,
    ) -> Option<(usize, solver::Job)> {
        let begun = |s: &millpool_alliance::Step| {
            !s.is_planned() || s.place.as_ref().is_some_and(|p| p.start < self.from)
        };
        let first = booking.steps.iter().rposition(begun).map_or(0, |last| last + 1);
        if first == booking.steps.len() {
            return None;
        }
        let before = first.checked_sub(1).and_then(|k| booking.steps[k].place.as_ref());
        let ops: Option<Vec<solver::Op>> =
            (first..booking.steps.len()).map(|k| self.op_of_step(state, booking, k, freedom)).collect();
        // A part that has set out arrives a trip after that, however long ago it was.
        let release = match before {
            Some(place) => self.tick_at(place.end.max(booking.order.release)),
            None => self.tick_from(booking.order.release),
        };
        let origin = before.and_then(|p| self.stations.get(*self.index.get(&p.machine)?));
        Some((
            first,
            solver::Job {
                id: booking.id.to_string(),
                release,
                due: self.tick(booking.order.due).max(0),
                deadline: latest_end(booking).map(|by| self.tick(by).max(0)),
                tardiness_weight: state.policy().tardiness_fen_per_minute,
                rejection_cost: None,
                budget: self.budget_left(state, booking, first),
                origin: origin.and_then(|s| self.plants.get(&s.machine.plant)).copied(),
                ops: ops?,
                ..solver::Job::default()
            },
        ))
    }

    /// The planned steps of a booking among its first `count`, which no job has: each by itself, where it
    /// stands.
    pub fn kept_steps(&self, state: &State, booking: &Booking, count: usize) -> Vec<Kept> {
        let kept = |k: usize| {
            let step = &booking.steps[k];
            let place = step.place.as_ref().filter(|p| step.is_planned() && p.start >= self.from)?;
            let m = *self.index.get(&place.machine)?;
            let operation = &booking.order.route[k];
            let machine = &self.stations[m].machine;
            let reckoned = price::reckon(operation, booking.order.quantity, machine);
            let (start, end) = (self.tick(place.start), self.tick(place.end));
            let fixed = solver::Fixed { machine: m, start };
            let job = solver::Job {
                id: format!("{} {k}", booking.id),
                release: 0,
                due: end,
                // The step behind it may count on its end.
                deadline: Some(end),
                tardiness_weight: state.policy().tardiness_fen_per_minute,
                ops: vec![self.op(operation, vec![mode(m, &reckoned, 0)], Some(fixed))],
                ..solver::Job::default()
            };
            let changeover_fen = self.stations[m].changeover_fen(place.changeover_s);
            let assignment = solver::Assignment { job: 0, op: 0, machine: m, start, end };
            Some(Kept { operation: k, job, assignment, cost_fen: reckoned.cost_fen + changeover_fen })
        };
        (0..count).filter_map(kept).collect()
    }

    /// The tooling on the lines: each a job that stays where it is, as what follows counts on its family.
    pub fn tooling(&self) -> Vec<Kept> {
        let lines = self.stations.iter().enumerate();
        let all = lines.flat_map(|(m, station)| station.line.iter().map(move |o| (m, station, o)));
        all.filter(|(_, _, o)| o.purpose == Use::Tooling && o.phase == Phase::Planned && o.start >= self.from)
            .map(|(m, station, o)| {
                let (start, end) = (self.tick(o.start), self.tick(o.end));
                let work = o.work_s / TICK_S;
                let op = solver::Op {
                    family: self.families.get(&*o.family).copied().unwrap_or(0),
                    splittable: o.splittable,
                    modes: vec![solver::Mode { machine: m, duration: work, ..solver::Mode::default() }],
                    fixed: Some(solver::Fixed { machine: m, start }),
                    ..solver::Op::default()
                };
                let job = solver::Job {
                    id: format!("tooling on {} at {}", station.id(), o.start),
                    release: 0,
                    due: end,
                    ops: vec![op],
                    ..solver::Job::default()
                };
                let assignment = solver::Assignment { job: 0, op: 0, machine: m, start, end };
                Kept { operation: 0, job, assignment, cost_fen: station.changeover_fen(o.changeover_s) }
            })
            .collect()
    }

    fn op_of_step(&self, state: &State, booking: &Booking, k: usize, freedom: Freedom) -> Option<solver::Op> {
        let operation = &booking.order.route[k];
        if let Some(place) = &booking.steps[k].place {
            let m = *self.index.get(&place.machine)?;
            let station = &self.stations[m];
            // Nothing new begins before the lead is over, so what stands there can stay but not come back.
            let soonest = state.frozen_until(station).max(state.earliest_start(station));
            if freedom == Freedom::Unfrozen && place.start < soonest {
                let reckoned = price::reckon(operation, booking.order.quantity, &station.machine);
                let fixed = solver::Fixed { machine: m, start: self.tick(place.start) };
                return Some(self.op(operation, vec![mode(m, &reckoned, 0)], Some(fixed)));
            }
        }
        let modes = self.modes(&booking.order, operation, |s| match freedom {
            Freedom::Unfrozen => state.frozen_until(s).max(state.earliest_start(s)),
            Freedom::All => state.now(),
        });
        (!modes.is_empty()).then(|| self.op(operation, modes, None))
    }

    fn op(
        &self,
        operation: &Operation,
        modes: Vec<solver::Mode>,
        fixed: Option<solver::Fixed>,
    ) -> solver::Op {
        let family = self.families.get(&operation.setup_family).copied().unwrap_or(0);
        solver::Op { family, splittable: operation.splittable, modes, fixed, ..solver::Op::default() }
    }

    fn modes(
        &self,
        order: &Order,
        operation: &Operation,
        earliest: impl Fn(&Station) -> i64,
    ) -> Vec<solver::Mode> {
        // A family that no machine has makes none eligible.
        let Some(&family) = self.families.get(&operation.setup_family) else { return Vec::new() };
        let able = self.able.get(&(operation.class, family)).into_iter().flatten();
        let stations = able.map(|&m| (m, &self.stations[m]));
        stations
            .filter(|(_, s)| !s.open.is_empty() && eligibility::eligible(order, operation, &s.machine))
            .map(|(m, s)| {
                let longest = self.longest_changeover_s[m][family];
                let reckoned = price::reckon_given(operation, order.quantity, &s.machine, longest);
                let carbon = price::machine_grams(reckoned.energy_wh, self.grid[m]);
                solver::Mode { carbon, ..mode(m, &reckoned, self.tick_from(earliest(s))) }
            })
            .collect()
    }

    /// What the promise leaves for the operations from `first` on; no limit for a booking that has lost a
    /// place: the pool owes it one, and the buyer pays no more than promised anyway.
    pub fn budget_left(&self, state: &State, booking: &Booking, first: usize) -> Option<i64> {
        let places: Option<Vec<MachineId>> =
            booking.steps.iter().map(|s| s.place.as_ref().map(|p| p.machine.clone())).collect();
        let now = state.price(&booking.order, &places?).ok()?.0.total_fen();
        let mut left = now.max(booking.promise.price.total_fen());
        for (k, operation) in booking.order.route.iter().enumerate().take(first) {
            let machine = &booking.steps[k].place.as_ref()?.machine;
            let station = &self.stations[*self.index.get(machine)?];
            let reckoned = price::reckon(operation, booking.order.quantity, &station.machine);
            left -= charge(&reckoned);
            if let Some(Some(before)) = k.checked_sub(1).map(|p| booking.steps[p].place.as_ref()) {
                left -= state.trip(&before.machine, machine).fen;
            }
        }
        Some(left.max(0))
    }
}

/// The families that a machine may be set up for, and those that it is or will have been: it may have given
/// one up.
fn known_families(station: &Station) -> impl Iterator<Item = &str> {
    let may = station.machine.setup_families.iter().map(String::as_str);
    may.chain(station.family.as_deref()).chain(station.line.iter().map(|o| &*o.family))
}

/// The latest end that the rule of promises allows: the promise, or where it stands if that is later; None
/// while a step has no place.
fn latest_end(booking: &Booking) -> Option<i64> {
    booking.completes_at().map(|end| end.max(booking.promise.by))
}

/// By class and family: the machines of the one that may be set up for the other, in order.
fn able(stations: &[Arc<Station>], families: &Families) -> Able {
    let mut all = Able::default();
    for (m, station) in stations.iter().enumerate() {
        for family in &station.machine.setup_families {
            all.entry((station.machine.class, families[family])).or_default().push(m);
        }
    }
    all
}

/// By family: the longest changeover into it, seconds.
fn longest_changeovers_s(station: &Station, families: &Families) -> Vec<i64> {
    let mut all = vec![0; families.len()];
    families.iter().for_each(|(family, &at)| all[at] = station.machine.longest_changeover_s(family));
    all
}

fn charge(reckoned: &Reckoned) -> i64 {
    reckoned.processing_fen + reckoned.setup_fen
}

fn mode(machine: usize, reckoned: &Reckoned, earliest: solver::Tick) -> solver::Mode {
    solver::Mode {
        machine,
        duration: reckoned.work_s / TICK_S,
        cost: reckoned.cost_fen,
        charge: charge(reckoned),
        earliest,
        ..solver::Mode::default()
    }
}

/// What a kWh emits at a station, mg CO2e; nothing where no factor is known, as the price has it.
fn mg_per_kwh(state: &State, station: &Station) -> u32 {
    let plant = state.plants().get(&station.machine.plant);
    let factor = plant.and_then(|plant| state.policy().grid_factor(&plant.grid_region));
    factor.map_or(0, |factor| factor.mg_per_kwh)
}

fn shop(
    state: &State,
    stations: &[Arc<Station>],
    plants: &BTreeMap<PlantId, usize>,
    families: &Families,
) -> solver::Shop {
    let trips: Vec<Vec<price::Trip>> = state
        .plants()
        .values()
        .map(|a| state.plants().values().map(|b| price::trip(&state.policy().transport, a, b)).collect())
        .collect();
    let table = |what: fn(&price::Trip) -> i64| -> Vec<Vec<i64>> {
        trips.iter().map(|row| row.iter().map(what).collect()).collect()
    };
    let mut setups = Vec::new();
    let mut known = BTreeMap::new();
    let machines = stations
        .iter()
        .map(|s| solver::Machine {
            id: s.id().to_string(),
            class: s.machine.class.name().to_owned(),
            plant: plants.get(&s.machine.plant).copied().unwrap_or(0),
            calendar: solver::Calendar::always(0),
            setup: setup_matrix(s, families, &mut setups, &mut known),
            setup_cost_per_tick: s.machine.setup_rate_fen_per_hour / (3600 / TICK_S),
            ..solver::Machine::default()
        })
        .collect();
    solver::Shop {
        plants: plants.keys().map(ToString::to_string).collect(),
        transport: table(|t| t.seconds / TICK_S),
        transport_cost: table(|t| t.fen),
        transport_carbon: table(|t| t.grams),
        setups,
        machines,
        ..solver::Shop::default()
    }
}

/// The index of a machine's setup matrix; equal matrices are shared.
fn setup_matrix(
    station: &Station,
    families: &Families,
    setups: &mut Vec<solver::SetupMatrix>,
    known: &mut BTreeMap<Vec<Vec<i64>>, usize>,
) -> usize {
    let ticks = |f: &String, g: &String| station.machine.changeover_s(Some(f), g) / TICK_S;
    let mut rows = vec![vec![0; families.len()]; families.len()];
    for (f, &i) in families {
        for (g, &j) in families {
            rows[i][j] = ticks(f, g);
        }
    }
    if let Some(&at) = known.get(&rows) {
        return at;
    }
    // Every row has as many entries as there are rows, and none is negative: this cannot fail.
    if let Ok(matrix) = solver::SetupMatrix::new(&rows) {
        setups.push(matrix);
        known.insert(rows, setups.len() - 1);
    }
    setups.len().saturating_sub(1)
}

/// The refusal of an operation that no machine can do: which requirement excludes which machines.
fn nobody_can(state: &State, order: &Order, index: usize) -> Refusal {
    let machines = state.stations().values().map(|s| &*s.machine);
    let obstacles = eligibility::obstacles(order, index, machines);
    let alone: Vec<&str> =
        obstacles.iter().filter(|o| o.excluded == o.of_class).map(|o| o.requirement).collect();
    let class = order.route[index].class.name();
    let why = match (obstacles.first(), alone.as_slice()) {
        (Some(first), _) if first.requirement == "class" => format!("there is no {class} in the alliance"),
        (None, _) => format!("no {class} has open windows"),
        (_, []) => "no machine meets all its requirements at once".to_owned(),
        (_, names) => format!("no machine meets {}", names.join(", nor ")),
    };
    let first = obstacles.first();
    Refusal {
        field: format!("order.route[{index}].{}", first.map_or("class", |o| o.requirement)),
        value: first.map(|o| o.asked.clone()).unwrap_or_default(),
        accepted: first.map(|o| format!("the best there is: {}", o.available)).unwrap_or_default(),
        obstacles: obstacles.clone(),
        ..Refusal::because(Reason::NoEligibleMachine, format!("operation {index} ({class}): {why}"))
    }
}
