//! Builders. Each gives the plainest thing that is accepted; a test overrides what it is about.

use millpool_alliance::command::{Event, Happening, Request};
use millpool_alliance::line::Station;
use millpool_alliance::offer::Offer;
use millpool_alliance::registry::{Machine, MachineClass, Member, Plant, Policy, PowerModel, Role, Size};
use millpool_alliance::{
    Booking, BookingId, Caller, Command, Entry, MachineId, MemberId, Move, Objective, OfferId, Operation,
    Order, Outcome, PlanFigures, PlanKind, PlantId, PrincipalId, Refusal, Reply, State, Terms, Window,
    Windows, invariants,
};
use std::sync::Arc;

/// Monday 2026-01-05 00:00:00 UTC.
pub const MONDAY: i64 = 1_767_571_200;
pub const MINUTE: i64 = 60;
pub const HOUR: i64 = 3600;
pub const DAY: i64 = 86_400;

pub fn names(list: &[&str]) -> std::collections::BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

pub fn machine_id(id: &str) -> MachineId {
    MachineId::trusted(id)
}

pub fn booking_id(id: &str) -> BookingId {
    BookingId::parse(id).expect("a booking's id")
}

pub fn buyer(id: &str) -> Caller {
    Caller { role: Role::Buyer, id: PrincipalId::trusted(id) }
}

pub fn operator() -> Caller {
    Caller { role: Role::Operator, id: PrincipalId::trusted("operator") }
}

pub fn member(id: &str) -> Member {
    Member { id: MemberId::trusted(id), name: id.to_uppercase(), revision: 0 }
}

pub fn plant(id: &str, member: &str) -> Plant {
    Plant {
        id: PlantId::trusted(id),
        member: MemberId::trusted(member),
        name: id.to_uppercase(),
        time_zone: "Asia/Shanghai".into(),
        east_m: 0,
        north_m: 0,
        grid_region: "CN-CQ".into(),
        revision: 0,
    }
}

/// Three axes, half a metre, steel and aluminium, families a, b and c with changeovers of half an hour.
pub fn machine(id: &str, plant: &str, class: MachineClass) -> Machine {
    Machine {
        id: machine_id(id),
        plant: PlantId::trusted(plant),
        name: id.to_uppercase(),
        class,
        axes: 3,
        envelope: Size { x_mm: 500, y_mm: 500, z_mm: 500 },
        mass_max_g: 100_000,
        tolerance_um: 10,
        materials: names(&["steel", "aluminium"]),
        certificates: names(&[]),
        setup_families: names(&["a", "b", "c"]),
        changeovers: vec![],
        changeover_default_s: 30 * MINUTE,
        initial_family: None,
        rate_fen_per_hour: 36_000,
        setup_rate_fen_per_hour: 18_000,
        speed_permille: 1000,
        power: PowerModel { idle_w: 100, setup_w: 1000, cutting_w: 10_000 },
        revision: 0,
    }
}

/// An offer of these windows, worked out as the edge does.
pub fn offer(id: &str, machine: &str, windows: &[(i64, i64)]) -> Offer {
    let mut offer = Offer {
        id: OfferId::trusted(id),
        machine: machine_id(machine),
        shifts: vec![],
        from: 0,
        until: 0,
        windows: windows.iter().map(|(start, end)| Window::new(*start, *end)).collect(),
        except: vec![],
        notice_s: 0,
        open: Windows::default(),
        withdrawn: false,
        revision: 0,
    };
    offer.expand("Asia/Shanghai").expect("a test's offer can be worked out");
    offer
}

/// One piece of `minutes` on a machine of `class`.
pub fn operation(class: MachineClass, family: &str, minutes: i64) -> Operation {
    Operation {
        class,
        axes_min: 0,
        tolerance_um: 0,
        certificates: names(&[]),
        setup_family: family.into(),
        setup_s: 0,
        run_s_per_piece: minutes * MINUTE,
        splittable: false,
    }
}

/// One piece, a decimetre of steel, due a week after Monday.
pub fn order(route: Vec<Operation>) -> Order {
    Order {
        reference: "PO-1".into(),
        quantity: 1,
        material: "steel".into(),
        size: Size { x_mm: 100, y_mm: 100, z_mm: 100 },
        mass_g: 1000,
        route,
        release: 0,
        due: MONDAY + 7 * DAY,
        deadline: None,
        budget_fen: None,
        excluded_plants: Default::default(),
    }
}

pub fn terms(objective: Objective) -> Terms {
    Terms { objective, promised_by: None, price_max_fen: None }
}

/// The policy of most tests: no lead, no slack, frozen for two hours.
pub fn policy() -> Policy {
    Policy { lead_s: 0, promise_slack_s: 0, ..Policy::default() }
}

pub fn move_to(booking: &str, operation: u32, machine: &str, start: i64) -> Move {
    Move { booking: booking_id(booking), operation, machine: machine_id(machine), start }
}

/// A state with its clock and its revision, through which a test acts. After every entry the whole state
/// is held against the invariants.
pub struct Alliance {
    pub state: State,
    pub now: i64,
    pub revision: u64,
    events: std::collections::BTreeMap<PlantId, u64>,
}

impl Alliance {
    /// An empty alliance on Monday at midnight, with [`policy`].
    pub fn empty() -> Self {
        let mut alliance =
            Alliance { state: State::default(), now: MONDAY, revision: 0, events: Default::default() };
        alliance.ok(operator(), Command::PutPolicy { policy: policy(), expected_revision: 0 });
        alliance
    }

    /// One member `ya` with plant `ya-1`, where these machines stand, open from Monday 08:00 UTC for ten
    /// days without a pause.
    pub fn with(machines: Vec<Machine>) -> Self {
        let mut alliance = Alliance::empty();
        alliance.ok(operator(), Command::PutMember { member: member("ya"), expected_revision: 0 });
        alliance.plant(plant("ya-1", "ya"));
        for machine in machines {
            alliance.lend(machine, &[(MONDAY + 8 * HOUR, MONDAY + 10 * DAY)]);
        }
        alliance
    }

    /// Three-axis mills of these names.
    pub fn mills(ids: &[&str]) -> Self {
        Alliance::with(ids.iter().map(|id| machine(id, "ya-1", MachineClass::Mill)).collect())
    }

    pub fn plant(&mut self, plant: Plant) {
        self.ok(operator(), Command::PutPlant { plant, expected_revision: 0 });
    }

    /// Puts a machine and offers it as `o-` and its id.
    pub fn lend(&mut self, machine: Machine, windows: &[(i64, i64)]) {
        let id = machine.id.to_string();
        self.ok(operator(), Command::PutMachine { machine, expected_revision: 0 });
        self.ok(operator(), Command::CreateOffer(offer(&format!("o-{id}"), &id, windows)));
    }

    /// Applies an entry and holds the state against the invariants.
    pub fn apply(&mut self, entry: &Entry) -> Outcome {
        self.revision += 1;
        let outcome = self.state.apply(self.revision, entry);
        assert_eq!(invariants::violations(&self.state), Vec::<String>::new(), "after {entry:?}");
        outcome
    }

    pub fn entry(&self, caller: Caller, command: Command) -> Entry {
        Entry { at: self.now, caller, request: None, command }
    }

    pub fn try_do(&mut self, caller: Caller, command: Command) -> Result<Reply, Refusal> {
        self.apply(&self.entry(caller, command)).result
    }

    /// Does what must be accepted.
    pub fn ok(&mut self, caller: Caller, command: Command) -> Reply {
        self.try_do(caller, command).expect("accepted")
    }

    /// Tries what must be refused.
    pub fn refused(&mut self, caller: Caller, command: Command) -> Refusal {
        self.try_do(caller, command).expect_err("refused")
    }

    /// Lets time pass until `now`.
    pub fn tick(&mut self, now: i64) {
        self.now = now;
        self.ok(operator(), Command::Tick);
    }

    /// Applies a command under a request id.
    pub fn request(&mut self, id: &str, fingerprint: u64, command: Command) -> Outcome {
        let request = Request { id: id.into(), method: "Book".into(), fingerprint };
        let entry = Entry { request: Some(request), ..self.entry(buyer("bo"), command) };
        self.apply(&entry)
    }

    /// Books for buyer `bo`, fastest.
    pub fn try_book(&mut self, order: Order, placement: &[(&str, i64)]) -> Result<BookingId, Refusal> {
        self.try_book_on(order, terms(Objective::Fastest), placement, 0)
    }

    pub fn try_book_on(
        &mut self,
        order: Order,
        terms: Terms,
        placement: &[(&str, i64)],
        hold_s: i64,
    ) -> Result<BookingId, Refusal> {
        match self.try_do(buyer("bo"), book(order, terms, placement, hold_s))? {
            Reply::Booking(booking) => Ok(booking.id),
            other => panic!("a booking, not {other:?}"),
        }
    }

    pub fn book(&mut self, order: Order, placement: &[(&str, i64)]) -> BookingId {
        self.try_book(order, placement).expect("booked")
    }

    /// One operation of `minutes` in `family` on a mill.
    pub fn book_mill(&mut self, family: &str, minutes: i64, machine: &str, start: i64) -> BookingId {
        self.book(order(vec![operation(MachineClass::Mill, family, minutes)]), &[(machine, start)])
    }

    pub fn hold(&mut self, order: Order, placement: &[(&str, i64)], hold_s: i64) -> BookingId {
        self.try_book_on(order, terms(Objective::Fastest), placement, hold_s).expect("held")
    }

    pub fn booking(&self, id: &BookingId) -> &Arc<Booking> {
        self.state.bookings().get(id).expect("the booking exists")
    }

    pub fn station(&self, id: &str) -> &Arc<Station> {
        self.state.stations().get(&machine_id(id)).expect("the machine exists")
    }

    /// Machine, start and end of an operation; None while it has no place.
    pub fn place(&self, id: &BookingId, operation: usize) -> Option<(String, i64, i64)> {
        let place = self.booking(id).steps[operation].place.as_ref()?;
        Some((place.machine.to_string(), place.start, place.end))
    }

    /// Commits moves computed from the present state.
    pub fn plan(&mut self, kind: PlanKind, moves: Vec<Move>) -> Result<Reply, Refusal> {
        let base_revision = self.revision;
        self.try_do(
            operator(),
            Command::CommitPlan { kind, base_revision, moves, figures: PlanFigures::default() },
        )
    }

    /// Reports one thing that happens now; answers with why it changed nothing, if so.
    pub fn happens(&mut self, machine: &str, what: Happening) -> Option<String> {
        self.happened(machine, self.now, what)
    }

    /// Reports one thing that happened at `at`.
    pub fn happened(&mut self, machine: &str, at: i64, what: Happening) -> Option<String> {
        let plant = self.station(machine).machine.plant.clone();
        let outbox = format!("outbox-{plant}");
        if !self.events.contains_key(&plant) {
            let attach =
                Command::AttachAgent { plant: plant.clone(), agent: "agent".into(), outbox: outbox.clone() };
            self.ok(operator(), attach);
        }
        let seq = self.events.entry(plant.clone()).or_insert(0);
        *seq += 1;
        let event = Event { seq: *seq, at, machine: machine_id(machine), what };
        match self.ok(operator(), Command::Report { plant, outbox, events: vec![event] }) {
            Reply::Applied(_, refused) => refused.into_iter().next().map(|(_, why)| why),
            other => panic!("applied, not {other:?}"),
        }
    }
}

pub fn book(order: Order, terms: Terms, placement: &[(&str, i64)], hold_s: i64) -> Command {
    Command::Book {
        buyer: PrincipalId::trusted("bo"),
        order: Arc::new(order),
        terms,
        placement: placement.iter().map(|(machine, start)| (machine_id(machine), *start)).collect(),
        hold_s,
    }
}

pub fn started(booking: &BookingId, operation: u32) -> Happening {
    Happening::Started { booking: *booking, operation }
}

pub fn finished(booking: &BookingId, operation: u32) -> Happening {
    Happening::Finished {
        booking: *booking,
        operation,
        pieces_good: 1,
        pieces_scrapped: 0,
        measured_s: 0,
        energy_wh: 0,
        energy_measured: true,
    }
}

pub fn progress(booking: &BookingId, operation: u32, expected_end: i64) -> Happening {
    Happening::Progress { booking: *booking, operation, pieces_good: 0, expected_end }
}

pub fn scrapped(booking: &BookingId, operation: u32) -> Happening {
    Happening::Scrapped { booking: *booking, operation, pieces_scrapped: 1, reason: "tool broke".into() }
}

pub fn down(until: i64) -> Happening {
    Happening::Down { reason: "spindle".into(), expected_until: until }
}
