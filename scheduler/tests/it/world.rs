//! Random small alliances and what happens in them, from a seed, without a process.

use millpool_alliance::command::{Caller, Event, Happening, Request};
use millpool_alliance::line::MachineState;
use millpool_alliance::offer::{Offer, Shift};
use millpool_alliance::program::Sha256;
use millpool_alliance::registry::{
    Changeover, GridFactor, Machine, MachineClass, Member, Plant, Policy, PowerModel, Principal, Role, Size,
    TransportTariff,
};
use millpool_alliance::{
    BookingId, Command, Entry, Format, MachineId, MemberId, Move, Objective, OfferId, Operation, Order,
    Outcome, PlanFigures, PlanKind, PlantId, PrincipalId, SessionId, State, Terms, Window, Windows, remote,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Numbers from a seed (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[(self.next() % of.len() as u64) as usize]
    }

    fn some(&mut self, of: &[&str], least: usize) -> BTreeSet<String> {
        let mut found: BTreeSet<String> =
            of.iter().filter(|_| self.chance(60)).map(|s| (*s).to_owned()).collect();
        while found.len() < least {
            found.insert((*self.one(of)).to_owned());
        }
        found
    }
}

const MONDAY: i64 = 1_767_571_200;
const HOUR: i64 = 3600;
const FAMILIES: [&str; 4] = ["a", "b", "c", "d"];

pub fn operator() -> Caller {
    Caller { role: Role::Operator, id: PrincipalId::trusted("operator") }
}

/// An alliance that lives: entries are applied, time passes.
pub struct World {
    pub rng: Rng,
    pub state: State,
    /// Of the last entry.
    pub revision: u64,
    pub now: i64,
    /// All that was applied.
    pub entries: Vec<Entry>,
    seqs: std::collections::BTreeMap<PlantId, u64>,
    offers: u32,
}

impl World {
    /// One to three plants with two to six machines and their windows.
    pub fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let now = MONDAY + rng.within(0, 100);
        let mut world = World {
            rng,
            state: State::default(),
            revision: 0,
            now,
            entries: vec![],
            seqs: Default::default(),
            offers: 0,
        };
        let mut policy = world.policy();
        if world.rng.chance(50) {
            world.must(Command::RaiseFormat { to: Format::NEWEST });
            policy = Policy { history_keep_s: 600, day_start_s: 3600, shift_s: 7200, ..policy };
        }
        world.must(Command::PutPolicy { policy, expected_revision: 0 });
        let member = MemberId::trusted("ya");
        world.must(Command::PutMember {
            member: Member { id: member.clone(), name: "Ya".into(), revision: 0 },
            expected_revision: 0,
        });
        let plants = world.rng.within(1, 3);
        for p in 0..plants {
            let plant = Plant {
                id: PlantId::trusted(&format!("p-{p}")),
                member: member.clone(),
                name: "P".into(),
                time_zone: "Asia/Shanghai".into(),
                east_m: world.rng.within(-30_000, 30_000),
                north_m: world.rng.within(-30_000, 30_000),
                grid_region: (*world.rng.one(&["CN-CQ", "nowhere"])).into(),
                revision: 0,
            };
            world.must(Command::PutPlant { plant: plant.clone(), expected_revision: 0 });
            let attach =
                Command::AttachAgent { plant: plant.id.clone(), agent: "a".into(), outbox: "box".into() };
            world.must(attach);
        }
        for m in 0..world.rng.within(2, 6) {
            let plant = format!("p-{}", world.rng.within(0, plants - 1));
            let machine = world.machine(&format!("m-{m}"), &plant);
            world.must(Command::PutMachine { machine, expected_revision: 0 });
            world.lend(&format!("m-{m}"));
        }
        world
    }

    fn policy(&mut self) -> Policy {
        let r = &mut self.rng;
        Policy {
            freeze_s: *r.one(&[0, 60, 1800, 2 * HOUR]),
            lead_s: *r.one(&[0, 7, 1800]),
            promise_slack_s: *r.one(&[0, 59, HOUR, 4 * HOUR]),
            tardiness_fen_per_minute: *r.one(&[0, 1, 50]),
            transport: TransportTariff {
                base_s: *r.one(&[0, 7, 1800]),
                s_per_km: r.within(0, 120),
                base_fen: r.within(0, 3000),
                fen_per_km: r.within(0, 400),
                g_per_km: r.within(0, 300),
            },
            holds_max_per_buyer: 5,
            ..Policy::default()
        }
    }

    fn machine(&mut self, id: &str, plant: &str) -> Machine {
        let r = &mut self.rng;
        let families = r.some(&FAMILIES, 2);
        let mut changeovers = Vec::new();
        for from in &families {
            for to in &families {
                if r.chance(60) {
                    continue;
                }
                changeovers.push(Changeover {
                    from: from.clone(),
                    to: to.clone(),
                    seconds: 60 * r.within(0, 90),
                });
            }
        }
        let list: Vec<&String> = families.iter().collect();
        let initial_family = r.chance(50).then(|| (*r.one(&list)).clone());
        Machine {
            id: MachineId::trusted(id),
            plant: PlantId::trusted(plant),
            name: "M".into(),
            class: *r.one(&[MachineClass::Mill, MachineClass::Mill, MachineClass::Lathe]),
            axes: r.within(3, 5) as u32,
            envelope: Size { x_mm: 500, y_mm: 400, z_mm: 300 },
            mass_max_g: 50_000,
            tolerance_um: *r.one(&[5, 10, 50]),
            materials: r.some(&["steel", "aluminium"], 1),
            certificates: r.some(&["iso-9001", "en-9100"], 0),
            setup_families: families,
            changeovers,
            changeover_default_s: 60 * r.within(0, 60),
            initial_family,
            rate_fen_per_hour: r.within(0, 60_000),
            setup_rate_fen_per_hour: 60 * r.within(0, 500),
            speed_permille: *r.one(&[700, 1000, 1337]),
            power: PowerModel { idle_w: 100, setup_w: 1000, cutting_w: 9000 },
            revision: 0,
        }
    }

    /// Lends a machine some windows more.
    pub fn lend(&mut self, machine: &str) {
        self.offers += 1;
        let r = &mut self.rng;
        let mut from = self.now - HOUR + r.within(0, 4 * HOUR);
        let mut windows = Vec::new();
        for _ in 0..r.within(1, 6) {
            let until = from + r.within(600, 16 * HOUR);
            windows.push(Window::new(from, until));
            from = until + r.within(0, 10 * HOUR);
        }
        let mut offer = Offer {
            id: OfferId::trusted(&format!("o-{}", self.offers)),
            machine: MachineId::trusted(machine),
            shifts: vec![],
            from: 0,
            until: 0,
            windows,
            except: vec![],
            notice_s: *r.one(&[0, 0, 600, 5 * HOUR]),
            open: Windows::default(),
            withdrawn: false,
            revision: 0,
        };
        if offer.expand("Asia/Shanghai").is_ok() {
            self.do_(operator(), Command::CreateOffer(offer)).ok();
        }
    }

    pub fn order(&mut self) -> Order {
        let now = self.now;
        let r = &mut self.rng;
        let route: Vec<Operation> = (0..r.within(1, 3))
            .map(|_| Operation {
                class: *r.one(&[MachineClass::Mill, MachineClass::Mill, MachineClass::Lathe]),
                axes_min: *r.one(&[0, 0, 3, 4]),
                tolerance_um: *r.one(&[0, 0, 10]),
                certificates: if r.chance(10) { ["iso-9001".to_owned()].into() } else { Default::default() },
                setup_family: (*r.one(&FAMILIES)).into(),
                setup_s: r.within(0, 1000),
                run_s_per_piece: r.within(1, 1200),
                splittable: r.chance(40),
            })
            .collect();
        let release = if r.chance(30) { now + r.within(0, 20 * HOUR) } else { 0 };
        let due = release.max(now) + r.within(60, 48 * HOUR);
        Order {
            reference: String::new(),
            quantity: r.within(1, 12),
            material: (*r.one(&["steel", "steel", "aluminium"])).into(),
            size: Size { x_mm: 100, y_mm: 300, z_mm: 200 },
            mass_g: 1000,
            route,
            release,
            due,
            deadline: r.chance(30).then(|| due + r.within(0, 24 * HOUR)),
            budget_fen: r.chance(20).then(|| r.within(1, 300_000)),
            excluded_plants: if r.chance(10) { [PlantId::trusted("p-0")].into() } else { Default::default() },
        }
    }

    pub fn terms(&mut self) -> Terms {
        let r = &mut self.rng;
        Terms {
            objective: *r.one(&[Objective::Cheapest, Objective::Fastest, Objective::Greenest]),
            promised_by: r.chance(15).then(|| self.now + r.within(0, 48 * HOUR)),
            price_max_fen: r.chance(15).then(|| r.within(1, 300_000)),
        }
    }

    pub fn entry(&self, caller: Caller, command: Command) -> Entry {
        Entry { at: self.now, caller, request: None, command }
    }

    /// Applies an entry for good.
    pub fn apply(&mut self, entry: Entry) -> Outcome {
        self.revision += 1;
        let outcome = self.state.apply(self.revision, &entry);
        self.entries.push(entry);
        outcome
    }

    pub fn do_(&mut self, caller: Caller, command: Command) -> Result<Outcome, millpool_alliance::Refusal> {
        let entry = self.entry(caller, command);
        let outcome = self.apply(entry);
        outcome.result.clone().map(|_| outcome)
    }

    fn must(&mut self, command: Command) {
        self.do_(operator(), command).unwrap();
    }

    /// What an entry would do, without doing it.
    pub fn trial(&self, entry: &Entry) -> (State, Outcome) {
        let mut state = self.state.clone();
        let outcome = state.apply(self.revision + 1, entry);
        (state, outcome)
    }

    /// Something happens: time passes, a plant reports, an offer comes or goes, a booking is cancelled.
    pub fn happen(&mut self) {
        match self.rng.within(0, 9) {
            0..=2 => {
                self.now += self.rng.within(1, 3 * HOUR);
                self.do_(operator(), Command::Tick).ok();
            }
            3..=6 => self.report(),
            7 => {
                let machines: Vec<String> =
                    self.state.stations().values().map(|s| s.id().to_string()).collect();
                let machine = self.rng.one(&machines).clone();
                self.lend(&machine);
            }
            8 => {
                let offers: Vec<OfferId> =
                    self.state.offers().values().filter(|o| !o.withdrawn).map(|o| o.id.clone()).collect();
                if offers.len() > 2 {
                    let offer = self.rng.one(&offers).clone();
                    self.do_(operator(), Command::WithdrawOffer { offer, accept_disturbance: true }).ok();
                }
            }
            _ => {
                let open: Vec<BookingId> = self.state.open_bookings().map(|b| b.id).collect();
                if !open.is_empty() {
                    let booking = *self.rng.one(&open);
                    let confirm = self.rng.chance(50);
                    let command = match confirm {
                        true => Command::Confirm { booking },
                        false => Command::Cancel { booking, reason: String::new() },
                    };
                    self.do_(operator(), command).ok();
                }
            }
        }
    }

    fn report(&mut self) {
        let open: Vec<(BookingId, u32, Option<MachineId>)> = self
            .state
            .open_bookings()
            .flat_map(|b| {
                b.steps
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| !s.is_finished())
                    .map(|(k, s)| (b.id, k as u32, s.place.as_ref().map(|p| p.machine.clone())))
            })
            .collect();
        let machines: Vec<MachineId> = self.state.stations().values().map(|s| s.id().clone()).collect();
        let now = self.now;
        let r = &mut self.rng;
        let mut machine = r.one(&machines).clone();
        let what = if open.is_empty() || r.chance(25) {
            match r.within(0, 3) {
                0 => Happening::Up,
                1 => Happening::State(MachineState::Producing),
                _ => Happening::Down {
                    reason: "spindle".into(),
                    expected_until: now + r.within(-100, 20 * HOUR),
                },
            }
        } else {
            let (booking, operation, at) = r.one(&open).clone();
            if let (Some(at), true) = (at, r.chance(90)) {
                machine = at;
            }
            match r.within(0, 5) {
                0 | 1 => Happening::Started { booking, operation },
                2 | 3 => Happening::Finished {
                    booking,
                    operation,
                    pieces_good: 1,
                    pieces_scrapped: 0,
                    measured_s: 60,
                    energy_wh: 5,
                    energy_measured: true,
                },
                4 => Happening::Progress {
                    booking,
                    operation,
                    pieces_good: 1,
                    expected_end: now + r.within(0, 9 * HOUR),
                },
                _ => Happening::Scrapped { booking, operation, pieces_scrapped: 1, reason: "tool".into() },
            }
        };
        let at = now - r.within(0, 300);
        let Some(station) = self.state.stations().get(&machine) else { return };
        let plant = station.machine.plant.clone();
        let seq = self.seqs.entry(plant.clone()).or_insert(0);
        *seq += 1;
        let event = Event { seq: *seq, at, machine, what };
        self.do_(operator(), Command::Report { plant, outbox: "box".into(), events: vec![event] }).unwrap();
    }
}

/// Any entry at all, sensible or not, within what the wire can carry.
pub fn any_entry(r: &mut Rng) -> Entry {
    let role = *r.one(&[Role::Buyer, Role::Member, Role::Agent, Role::Operator, Role::Auditor]);
    Entry {
        at: any_i64(r),
        caller: Caller { role, id: PrincipalId::trusted(&any_id(r)) },
        request: r.chance(60).then(|| Request {
            id: any_text(r),
            method: any_text(r),
            fingerprint: r.next(),
        }),
        command: any_command(r),
    }
}

fn any_id(r: &mut Rng) -> String {
    let length = r.within(1, 40);
    (0..length).map(|_| *r.one(&['a', 'z', '0', '9', '-'])).collect()
}

fn any_text(r: &mut Rng) -> String {
    (0..r.within(0, 12)).map(|_| *r.one(&['a', ' ', 'µ', '工', '\u{0}', '"', '😀'])).collect()
}

fn any_i64(r: &mut Rng) -> i64 {
    match r.within(0, 6) {
        0 => i64::MAX,
        1 => i64::MIN,
        2 => 0,
        3 => -1,
        4 => MONDAY,
        _ => r.next() as i64,
    }
}

fn any_u32(r: &mut Rng) -> u32 {
    *r.one(&[0, 1, 60, 1000, u32::MAX, u32::MAX - 1])
}

fn any_set(r: &mut Rng) -> BTreeSet<String> {
    (0..r.within(0, 3)).map(|_| any_text(r)).collect()
}

fn any_class(r: &mut Rng) -> MachineClass {
    *r.one(&[
        MachineClass::Lathe,
        MachineClass::Mill,
        MachineClass::FiveAxis,
        MachineClass::Grinder,
        MachineClass::Cmm,
    ])
}

fn any_size(r: &mut Rng) -> Size {
    Size { x_mm: any_u32(r), y_mm: any_u32(r), z_mm: any_u32(r) }
}

fn any_machine(r: &mut Rng) -> Machine {
    Machine {
        id: MachineId::trusted(&any_id(r)),
        plant: PlantId::trusted(&any_id(r)),
        name: any_text(r),
        class: any_class(r),
        axes: any_u32(r),
        envelope: any_size(r),
        mass_max_g: r.next(),
        tolerance_um: any_u32(r),
        materials: any_set(r),
        certificates: any_set(r),
        setup_families: any_set(r),
        changeovers: (0..r.within(0, 3))
            .map(|_| Changeover { from: any_text(r), to: any_text(r), seconds: any_u32(r).into() })
            .collect(),
        changeover_default_s: any_u32(r).into(),
        initial_family: r.chance(50).then(|| "f".to_owned()),
        rate_fen_per_hour: any_i64(r),
        setup_rate_fen_per_hour: any_i64(r),
        speed_permille: any_u32(r).max(1).into(),
        power: PowerModel { idle_w: any_u32(r), setup_w: any_u32(r), cutting_w: any_u32(r) },
        revision: r.next(),
    }
}

fn any_order(r: &mut Rng) -> Order {
    Order {
        reference: any_text(r),
        quantity: any_u32(r).into(),
        material: any_text(r),
        size: any_size(r),
        mass_g: r.next(),
        route: (0..r.within(0, 4))
            .map(|_| Operation {
                class: any_class(r),
                axes_min: any_u32(r),
                tolerance_um: any_u32(r),
                certificates: any_set(r),
                setup_family: any_text(r),
                setup_s: any_u32(r).into(),
                run_s_per_piece: any_u32(r).into(),
                splittable: r.chance(50),
            })
            .collect(),
        release: any_i64(r),
        due: any_i64(r),
        deadline: Some(any_i64(r)).filter(|d| *d != 0),
        budget_fen: Some(any_i64(r)).filter(|d| *d != 0),
        excluded_plants: (0..r.within(0, 3)).map(|_| PlantId::trusted(&any_id(r))).collect(),
    }
}

fn any_offer(r: &mut Rng) -> Offer {
    let windows = |r: &mut Rng| -> Vec<Window> {
        (0..r.within(0, 3)).map(|_| Window::new(any_i64(r), any_i64(r))).collect()
    };
    let start = MONDAY + 60 * r.within(0, 1000);
    Offer {
        id: OfferId::trusted(&any_id(r)),
        machine: MachineId::trusted(&any_id(r)),
        shifts: (0..r.within(0, 3))
            .map(|_| Shift {
                weekdays: (0..r.within(0, 7)).map(|_| any_u32(r)).collect(),
                start_minute: any_u32(r).into(),
                end_minute: any_u32(r).into(),
            })
            .collect(),
        from: any_i64(r),
        until: any_i64(r),
        windows: windows(r),
        except: windows(r),
        notice_s: any_u32(r).into(),
        open: Windows::union([Window::new(start, start + 60 * r.within(0, 100))]),
        withdrawn: r.chance(50),
        revision: r.next(),
    }
}

fn any_happening(r: &mut Rng) -> Happening {
    let booking = BookingId::numbered(r.next());
    let operation = any_u32(r);
    match r.within(0, 8) {
        8 => Happening::Operated {
            session: SessionId::numbered(r.next()),
            nonce: any_u32(r),
            outcome: any_outcome(r),
            taken_back: r.chance(50),
        },
        0 => Happening::State(*r.one(&[
            MachineState::Unknown,
            MachineState::Off,
            MachineState::Idle,
            MachineState::Setup,
            MachineState::Producing,
            MachineState::Held,
            MachineState::Blocked,
            MachineState::Maintenance,
        ])),
        1 => Happening::Started { booking, operation },
        2 => Happening::Progress { booking, operation, pieces_good: any_u32(r), expected_end: any_i64(r) },
        3 => Happening::Finished {
            booking,
            operation,
            pieces_good: any_u32(r),
            pieces_scrapped: any_u32(r),
            measured_s: any_u32(r).into(),
            energy_wh: r.next(),
            energy_measured: r.chance(50),
        },
        4 => Happening::Scrapped { booking, operation, pieces_scrapped: any_u32(r), reason: any_text(r) },
        5 => Happening::Down { reason: any_text(r), expected_until: any_i64(r) },
        6 => Happening::Up,
        _ => Happening::Gap { seconds: r.within(0, 1_000_000_000) },
    }
}

fn any_asked(r: &mut Rng) -> remote::Asked {
    remote::Asked {
        session: SessionId::numbered(r.next()),
        verb: r.one(&remote::Verb::TABLE).0,
        program: any_text(r),
        sha256: any_sha256(r),
        bytes: r.next(),
        consent_s: any_u32(r).into(),
        valid_s: any_u32(r).into(),
    }
}

fn any_sha256(r: &mut Rng) -> Option<Sha256> {
    r.chance(50).then(|| Sha256([r.within(0, 255) as u8; 32]))
}

fn any_outcome(r: &mut Rng) -> remote::Outcome {
    use remote::Verdict;
    remote::Outcome {
        verdict: *r.one(&[Verdict::Refused, Verdict::Done, Verdict::Rejected, Verdict::Unknown]),
        at: any_i64(r),
        words: any_text(r),
        consent: any_text(r),
        interlocks: (0..r.within(0, 3))
            .map(|_| remote::Interlock { name: any_text(r), holds: r.chance(50), seen: any_text(r) })
            .collect(),
        return_status: r.next(),
    }
}

fn any_command(r: &mut Rng) -> Command {
    let plant = PlantId::trusted(&any_id(r));
    let booking = BookingId::numbered(r.next());
    let expected_revision = r.next();
    match r.within(0, 19) {
        0 => Command::Tick,
        16 => Command::OpenSession { booking, operation: any_u32(r) },
        17 => Command::CloseSession { session: SessionId::numbered(r.next()), because: any_text(r) },
        18 => Command::Operate(any_asked(r)),
        19 => Command::NoteSilence { plant, since: r.chance(50).then(|| any_i64(r)) },
        15 => Command::RaiseFormat { to: *r.one(&[Format::FIRST, Format::NEWEST]) },
        1 => Command::PutMember {
            member: Member { id: MemberId::trusted(&any_id(r)), name: any_text(r), revision: r.next() },
            expected_revision,
        },
        2 => Command::PutPlant {
            plant: Plant {
                id: plant,
                member: MemberId::trusted(&any_id(r)),
                name: any_text(r),
                time_zone: any_text(r),
                east_m: any_i64(r),
                north_m: any_i64(r),
                grid_region: any_text(r),
                revision: r.next(),
            },
            expected_revision,
        },
        3 => Command::PutMachine { machine: any_machine(r), expected_revision },
        4 => Command::CreateOffer(any_offer(r)),
        5 => Command::WithdrawOffer { offer: OfferId::trusted(&any_id(r)), accept_disturbance: r.chance(50) },
        6 => Command::PutPolicy {
            policy: Policy {
                freeze_s: any_u32(r).into(),
                lead_s: any_u32(r).into(),
                promise_slack_s: any_u32(r).into(),
                quote_valid_s: any_u32(r).into(),
                tardiness_fen_per_minute: any_i64(r),
                transport: TransportTariff {
                    base_s: any_u32(r).into(),
                    s_per_km: any_u32(r).into(),
                    base_fen: any_i64(r),
                    fen_per_km: any_i64(r),
                    g_per_km: any_i64(r),
                },
                grid_factors: (0..r.within(0, 3))
                    .map(|_| GridFactor {
                        region: any_text(r),
                        year: any_u32(r),
                        mg_per_kwh: any_u32(r),
                        basis: any_text(r),
                        source: any_text(r),
                    })
                    .collect(),
                request_id_keep_s: any_u32(r).into(),
                holds_max_per_buyer: any_u32(r).into(),
                revision: r.next(),
                history_keep_s: any_u32(r).into(),
                day_start_s: any_u32(r).into(),
                shift_s: any_u32(r).into(),
            },
            expected_revision,
        },
        7 => Command::PutPrincipal(Principal {
            id: PrincipalId::trusted(&any_id(r)),
            role: Role::Member,
            token_sha256: std::array::from_fn(|_| r.next() as u8),
            expires_at: any_i64(r),
            revoked: r.chance(50),
        }),
        8 => Command::RevokePrincipal { role: Role::Agent, id: PrincipalId::trusted(&any_id(r)) },
        9 => Command::Book {
            buyer: PrincipalId::trusted(&any_id(r)),
            order: Arc::new(any_order(r)),
            terms: Terms {
                objective: *r.one(&[Objective::Cheapest, Objective::Fastest, Objective::Greenest]),
                promised_by: Some(any_i64(r)).filter(|d| *d != 0),
                price_max_fen: Some(any_i64(r)).filter(|d| *d != 0),
            },
            placement: (0..r.within(0, 4)).map(|_| (MachineId::trusted(&any_id(r)), any_i64(r))).collect(),
            hold_s: any_u32(r).into(),
        },
        10 => Command::Confirm { booking },
        11 => Command::Cancel { booking, reason: any_text(r) },
        12 => Command::CommitPlan {
            kind: *r.one(&[PlanKind::Optimisation, PlanKind::Repair]),
            base_revision: r.next(),
            moves: (0..r.within(0, 4))
                .map(|_| Move {
                    booking: BookingId::numbered(r.next()),
                    operation: any_u32(r),
                    machine: MachineId::trusted(&any_id(r)),
                    start: any_i64(r),
                })
                .collect(),
            figures: PlanFigures {
                base_revision: 7,
                cost_before_fen: any_i64(r),
                cost_fen: any_i64(r),
                bound_fen: any_i64(r),
                took_ms: r.next(),
            },
        },
        13 => Command::AttachAgent { plant, agent: any_text(r), outbox: any_text(r) },
        _ => Command::Report {
            plant,
            outbox: any_text(r),
            events: (0..r.within(0, 4))
                .map(|_| Event {
                    seq: r.next(),
                    at: r.within(-1_000_000_000_000, 1_000_000_000_000),
                    machine: MachineId::trusted(&any_id(r)),
                    what: any_happening(r),
                })
                .collect(),
        },
    }
}
