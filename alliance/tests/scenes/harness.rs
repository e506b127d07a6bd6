//! Random sequences of entries on a small alliance, each entry held against what was promised. The checks
//! here compare states before and after; they share no code with the rules that they check.
//!
//! A sequence is a list of [`Step`]s. A step says what kind of thing is tried and carries the dice for it;
//! what it comes to depends on the state, so that sequences stay meaningful while they are shrunk.

use super::build::*;
use millpool_alliance::booking::{Progress, Status};
use millpool_alliance::command::{Event, Happening, Request};
use millpool_alliance::eligibility::eligible;
use millpool_alliance::line::{MachineState, Phase, Station};
use millpool_alliance::offer::Shift;
use millpool_alliance::refusal::Reason;
use millpool_alliance::registry::{
    Changeover, Machine, MachineClass, Plant, Policy, Principal, Role, TransportTariff,
};
use millpool_alliance::window::{TICK_S, ceil_tick};
use millpool_alliance::*;
use proptest::prelude::*;
use proptest::strategy::Union;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a step tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Tick,
    PutMember,
    PutPlant,
    PutMachine,
    PutPolicy,
    RaiseFormat,
    PutPrincipal,
    RevokePrincipal,
    CreateOffer,
    WithdrawOffer,
    BookWell,
    BookBlindly,
    Confirm,
    Cancel,
    MoveWell,
    MoveBlindly,
    Repair,
    Attach,
    Start,
    Progress,
    Finish,
    Scrap,
    Down,
    Up,
    State,
    Repeat,
}

/// Every kind, with how often it is tried.
pub const KINDS: [(u32, Kind); 26] = [
    (2, Kind::Tick),
    (1, Kind::PutMember),
    (2, Kind::PutPlant),
    (3, Kind::PutMachine),
    (2, Kind::PutPolicy),
    (1, Kind::RaiseFormat),
    (2, Kind::PutPrincipal),
    (1, Kind::RevokePrincipal),
    (3, Kind::CreateOffer),
    (2, Kind::WithdrawOffer),
    (24, Kind::BookWell),
    (3, Kind::BookBlindly),
    (5, Kind::Confirm),
    (5, Kind::Cancel),
    (10, Kind::MoveWell),
    (5, Kind::MoveBlindly),
    (8, Kind::Repair),
    (2, Kind::Attach),
    (14, Kind::Start),
    (6, Kind::Progress),
    (12, Kind::Finish),
    (3, Kind::Scrap),
    (2, Kind::Down),
    (2, Kind::Up),
    (1, Kind::State),
    (5, Kind::Repeat),
];

/// One step: what is tried, and the dice for it.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub kind: Kind,
    pub dice: u32,
}

/// Steps of any kind, shrunk by leaving some out.
pub fn sequence() -> impl Strategy<Value = Vec<Step>> {
    let kind = Union::new_weighted(KINDS.iter().map(|(weight, kind)| (*weight, Just(*kind))).collect());
    let step = (kind, any::<u32>().no_shrink()).prop_map(|(kind, dice)| Step { kind, dice });
    prop::collection::vec(step, 1..60)
}

/// Dice that fall the same way for the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u32) -> Self {
        Dice(u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { Some(&list[self.below(list.len())]) }
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn some_of(&mut self, list: &[&str]) -> BTreeSet<String> {
        let mut some: BTreeSet<String> =
            list.iter().filter(|_| self.one_in(2)).map(|s| (*s).to_owned()).collect();
        some.insert(self.of(list).to_owned());
        some
    }
}

/// What was answered to a request, as the harness knows it.
struct Answered {
    entry: Entry,
    reply: Reply,
    revision: u64,
    expires_at: i64,
}

/// An outbox, as the harness knows it.
struct Outbox {
    name: String,
    sent: Vec<Event>,
}

/// How often each kind was accepted and refused, to see that the harness reaches everything.
pub type Tally = BTreeMap<Kind, (u32, u32)>;

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps a panic's message for the story, instead of printing one for each attempt at shrinking.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
}

/// A sequence being run.
struct Run {
    state: State,
    /// Restored from an image halfway, and fed the same entries since.
    twin: Option<State>,
    now: i64,
    log: Vec<Entry>,
    hashes: Vec<u64>,
    trace: Vec<String>,
    /// Of each plant, the one in use last.
    outboxes: BTreeMap<PlantId, Vec<Outbox>>,
    /// How far each is applied, of each plant the one attached last at the end.
    applied: BTreeMap<PlantId, Vec<(String, u64)>>,
    answered: Vec<Answered>,
    /// Since when each booking that is over and known is so; none if it was so before anybody took it down.
    over: BTreeMap<BookingId, Option<i64>>,
    given: u32,
    tally: Tally,
}

/// Runs a sequence on the alliance that `world` stands for. An error tells the whole story.
pub fn run(world: u32, steps: &[Step]) -> Result<Tally, String> {
    let mut run = Run {
        state: State::default(),
        twin: None,
        now: MONDAY,
        log: Vec::new(),
        hashes: Vec::new(),
        trace: Vec::new(),
        outboxes: BTreeMap::new(),
        applied: BTreeMap::new(),
        answered: Vec::new(),
        over: BTreeMap::new(),
        given: 0,
        tally: Tally::new(),
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| run.all(world, steps)))
        .unwrap_or_else(|_| Err(PANIC.with_borrow_mut(std::mem::take)));
    outcome.map_err(|fault| format!("{fault}\n{}", run.trace.join("\n")))?;
    Ok(run.tally)
}

impl Run {
    fn all(&mut self, world: u32, steps: &[Step]) -> Result<(), String> {
        self.found(&mut Dice::new(world))?;
        for (n, step) in steps.iter().enumerate() {
            if n == steps.len() / 2 {
                let twin = State::from_image(self.state.image());
                equal("the hash of an image's state", &twin.hash(), &self.state.hash())?;
                self.twin = Some(twin);
            }
            let mut dice = Dice::new(step.dice);
            self.wait(&mut dice);
            let Some((caller, command)) = self.command(step.kind, &mut dice) else { continue };
            let accepted = match step.kind {
                Kind::Repeat => self.repeat(&mut dice)?,
                _ => {
                    let request = (!dice.one_in(3)).then(|| self.fresh_request());
                    self.enter(Entry { at: self.now, caller, request, command })?
                }
            };
            let count = self.tally.entry(step.kind).or_default();
            *(if accepted { &mut count.0 } else { &mut count.1 }) += 1;
        }
        self.replay()
    }

    /// The same log on a new state has the same hash at every revision.
    fn replay(&self) -> Result<(), String> {
        let mut again = State::default();
        for (n, entry) in self.log.iter().enumerate() {
            again.apply(n as u64 + 1, entry);
            equal(&format!("the hash at revision {} of a replay", n + 1), &again.hash(), &self.hashes[n])?;
        }
        Ok(())
    }

    /// Members, plants in three places, machines of all classes, a policy and offers.
    fn found(&mut self, dice: &mut Dice) -> Result<(), String> {
        let mut policy = Policy {
            freeze_s: dice.of(&[0, 2 * HOUR]),
            lead_s: dice.of(&[0, HOUR / 2]),
            promise_slack_s: dice.of(&[0, 0, HOUR, DAY]),
            request_id_keep_s: dice.of(&[60, 2 * HOUR, DAY]),
            holds_max_per_buyer: dice.of(&[1, 20]),
            transport: TransportTariff { base_s: dice.of(&[0, 600, HOUR]), ..policy().transport },
            ..policy()
        };
        if dice.of(&[true, true, false]) {
            self.must(Command::RaiseFormat { to: Format::NEWEST })?;
            policy.history_keep_s = dice.of(&[0, 60, HOUR, 2 * DAY]);
        }
        self.must(Command::PutPolicy { policy, expected_revision: 0 })?;
        for id in ["ya", "bao"] {
            self.must(Command::PutMember { member: member(id), expected_revision: 0 })?;
        }
        let places = [("ya-1", "ya", 0), ("ya-2", "ya", 3_000), ("bao-1", "bao", 40_000)];
        for (id, owner, east_m) in &places[..1 + dice.below(3)] {
            let plant = Plant { east_m: *east_m, ..plant(id, owner) };
            self.must(Command::PutPlant { plant, expected_revision: 0 })?;
            self.attach(&PlantId::trusted(id), dice)?;
        }
        for n in 0..2 + dice.below(4) {
            let machine = self.machine(&format!("m{n}"), dice);
            let id = machine.id.to_string();
            self.must(Command::PutMachine { machine, expected_revision: 0 })?;
            let offer = self.offer(&id, dice);
            self.enter(Entry {
                at: self.now,
                caller: operator(),
                request: None,
                command: Command::CreateOffer(offer),
            })?;
        }
        Ok(())
    }

    fn must(&mut self, command: Command) -> Result<(), String> {
        let entry = Entry { at: self.now, caller: operator(), request: None, command };
        if self.enter(entry)? { Ok(()) } else { Err("the alliance could not be founded".into()) }
    }

    fn wait(&mut self, dice: &mut Dice) {
        self.now += match dice.below(40) {
            0 => -HOUR,
            1 => DAY,
            2..=4 => 4 * HOUR,
            5..=9 => 47 * MINUTE,
            10..=15 => 61,
            _ => 0,
        };
    }

    fn fresh_request(&mut self) -> Request {
        self.given += 1;
        Request { id: format!("r{}", self.given), method: "Any".into(), fingerprint: self.given.into() }
    }

    /// Applies an entry and holds the step against everything that was promised. Answers whether it was
    /// accepted.
    fn enter(&mut self, entry: Entry) -> Result<bool, String> {
        let revision = self.log.len() as u64 + 1;
        self.trace.push(format!("{revision:>4}  {}", told(&entry, self.state.now())));
        // The same moment, but nothing asked: what a refusal must leave.
        let mut passed = self.state.clone();
        let tick = Entry { request: None, command: Command::Tick, ..entry.clone() };
        let expiring = passed.apply(revision, &tick).changes;
        let preview = match &entry.command {
            Command::WithdrawOffer { offer, .. } => Some(passed.preview_withdraw(&entry.caller, offer)),
            _ => None,
        };
        let before = self.state.clone();
        let outcome = self.state.apply(revision, &entry);
        let verdict = match &outcome.result {
            Ok(_) => "done".into(),
            Err(refusal) => refusal.to_string(),
        };
        if let Some(line) = self.trace.last_mut() {
            line.push_str(&format!("  ->  {verdict}"));
        }
        if let Some(twin) = &mut self.twin {
            twin.apply(revision, &entry);
            equal("the hash of the twin restored from an image", &twin.hash(), &self.state.hash())?;
        }
        self.log.push(entry.clone());
        self.hashes.push(self.state.hash());
        let step = Checked {
            before: &before,
            passed: &passed,
            after: &self.state,
            entry: &entry,
            outcome: &outcome,
        };
        step.check(&expiring)?;
        step.check_preview(preview)?;
        self.check_request(&entry, &outcome)?;
        self.check_forgotten(&before)?;
        self.check_outbox(&entry, &outcome)?;
        Ok(outcome.result.is_ok())
    }

    /// A request that was answered is answered the same way for as long as it is remembered; another body
    /// under its id is refused.
    fn check_request(&mut self, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        let Some(request) = &entry.request else { return Ok(()) };
        let now = self.state.now();
        self.answered.retain(|a| a.expires_at > now);
        let same = |a: &&Answered| {
            a.entry.caller == entry.caller
                && a.entry
                    .request
                    .as_ref()
                    .is_some_and(|r| (&r.id, &r.method) == (&request.id, &request.method))
        };
        match (self.answered.iter().find(same), &outcome.result) {
            (Some(first), result) if first.entry.request == entry.request => {
                equal("the answer to a repeated request", &result.as_ref().ok(), &Some(&first.reply))?;
                equal("the revision of a repeated request", &outcome.revision, &first.revision)
            }
            (Some(_), Err(refusal)) if refusal.reason == Reason::RequestIdReused => Ok(()),
            (Some(_), other) => Err(format!("another body under a known request id was answered {other:?}")),
            (None, Ok(reply)) => {
                let expires_at = now + self.state.policy().request_id_keep_s;
                let revision = outcome.revision;
                self.answered.push(Answered {
                    entry: entry.clone(),
                    reply: reply.clone(),
                    revision,
                    expires_at,
                });
                Ok(())
            }
            (None, Err(_)) => Ok(()),
        }
    }

    /// What is over is known for as long as the policy said, and no longer; nothing else is forgotten.
    fn check_forgotten(&mut self, before: &State) -> Result<(), String> {
        let (now, keep_s) = (self.state.now(), before.policy().history_keep_s);
        for id in before.bookings().iter().map(|(id, _)| id) {
            let known = self.state.bookings().get(id).is_some();
            let fine = match self.over.get(id) {
                None => known,
                Some(None) => known || keep_s > 0,
                Some(Some(since)) => known != (keep_s > 0 && since + keep_s <= now),
            };
            if !fine {
                let since = self.over.get(id);
                return Err(format!(
                    "{id}, over since {since:?} and to be kept {keep_s} s, is known: {known}"
                ));
            }
        }
        let bookings = self.state.bookings();
        self.over.retain(|id, _| bookings.get(id).is_some());
        for booking in bookings.values().filter(|b| !b.is_open()) {
            self.over.entry(booking.id).or_insert((booking.over_at != 0).then_some(now));
        }
        Ok(())
    }

    /// An outbox goes on where it was, whichever others have stood in for it; only one that has been away
    /// for long may begin anew.
    fn check_outbox(&mut self, entry: &Entry, outcome: &Outcome) -> Result<(), String> {
        let Ok(Reply::Applied(seq, _)) = outcome.result else { return Ok(()) };
        if outcome.revision < self.state.revision() {
            return Ok(());
        }
        let (Command::AttachAgent { plant, outbox, .. } | Command::Report { plant, outbox, .. }) =
            &entry.command
        else {
            return Err("only agents' commands have something applied".into());
        };
        let known = self.applied.entry(plant.clone()).or_default();
        let at = known.iter().position(|(id, _)| id == outbox);
        let away = at.map_or(0, |at| known.len() - 1 - at);
        let (_, was) = at.map_or((String::new(), 0), |at| known.remove(at));
        known.push((outbox.clone(), seq));
        let attached = matches!(entry.command, Command::AttachAgent { .. });
        if attached && seq != was && (seq > 0 || away < state::OUTBOXES_MAX) {
            return Err(format!("{outbox} was applied up to {was} and is to go on from {seq}"));
        }
        Ok(())
    }

    /// Enters an earlier request again: the same, or another body under its id.
    fn repeat(&mut self, dice: &mut Dice) -> Result<bool, String> {
        let Some(first) = dice.pick(&self.answered) else { return Ok(false) };
        let mut entry = Entry { at: self.now, ..first.entry.clone() };
        if dice.one_in(2)
            && let Some(request) = &mut entry.request
        {
            request.fingerprint ^= 1 << 40;
            entry.command = Command::PutMember { member: member("ma"), expected_revision: 0 };
        }
        self.enter(entry)
    }

    // What is tried.

    fn command(&mut self, kind: Kind, dice: &mut Dice) -> Option<(Caller, Command)> {
        let mut caller = operator();
        let command = match kind {
            Kind::Tick | Kind::Repeat => Command::Tick,
            Kind::PutMember => {
                let id = dice.of(&["ya", "bao", "cui"]);
                let known = self.state.members().get(&MemberId::trusted(id)).map_or(0, |m| m.revision);
                Command::PutMember { member: member(id), expected_revision: dice.of(&[known, known, 7]) }
            }
            Kind::PutPlant => self.put_plant(dice)?,
            Kind::PutMachine => self.put_machine(dice),
            Kind::PutPolicy => {
                let known = self.state.policy().clone();
                let expected_revision = dice.of(&[known.revision, known.revision, 3]);
                let freeze_s = dice.of(&[0, HOUR, 2 * HOUR, -1, i64::MAX]);
                let transport =
                    TransportTariff { base_s: dice.of(&[known.transport.base_s, 1200]), ..known.transport };
                let history_keep_s = dice.of(&[known.history_keep_s, 0, 60, HOUR]);
                let policy = Policy { freeze_s, transport, history_keep_s, ..known };
                Command::PutPolicy { policy, expected_revision }
            }
            Kind::RaiseFormat => Command::RaiseFormat { to: Format::NEWEST },
            Kind::PutPrincipal => Command::PutPrincipal(Principal {
                id: PrincipalId::trusted(dice.of(&["bo", "bi", "ya"])),
                role: dice.of(&[Role::Buyer, Role::Member]),
                token_sha256: [dice.of(&[1, 2, 3, 4]); 32],
                expires_at: self.now + dice.of(&[-5, DAY]),
                revoked: false,
            }),
            Kind::RevokePrincipal => {
                let known: Vec<_> = self.state.principals().iter().map(|(key, _)| key.clone()).collect();
                let nobody = (Role::Auditor, PrincipalId::trusted("nobody"));
                let (role, id) = dice.pick(&known).cloned().unwrap_or(nobody);
                Command::RevokePrincipal { role, id }
            }
            Kind::CreateOffer => {
                let machine = self.some_machine(dice);
                Command::CreateOffer(self.offer(machine.as_str(), dice))
            }
            Kind::WithdrawOffer => {
                let standing = |o: &&Arc<offer::Offer>| !o.withdrawn;
                let ids: Vec<OfferId> =
                    self.state.offers().values().filter(standing).map(|o| o.id.clone()).collect();
                let offer = if dice.one_in(9) { OfferId::trusted("o1") } else { dice.pick(&ids)?.clone() };
                Command::WithdrawOffer { offer, accept_disturbance: !dice.one_in(3) }
            }
            Kind::BookWell | Kind::BookBlindly => {
                caller = buyer(dice.of(&["bo", "bi"]));
                self.book(kind, caller.id.clone(), dice)?
            }
            Kind::Confirm => {
                let booking = self.some_booking(dice, |b| b.status == Status::Held)?;
                caller = self.owner(&booking, dice);
                Command::Confirm { booking }
            }
            Kind::Cancel => {
                let booking = self.some_booking(dice, Booking::is_open)?;
                caller = self.owner(&booking, dice);
                Command::Cancel { booking, reason: "no longer wanted".into() }
            }
            Kind::MoveWell => {
                let thaw = self.now.max(self.state.now()) + self.state.policy().freeze_s.max(3 * HOUR);
                let from = if dice.one_in(6) { 0 } else { thaw };
                self.moves(dice, PlanKind::Optimisation, |b, k| {
                    b.steps[k].is_planned() && b.steps[k].place.as_ref().is_some_and(|p| p.start >= from)
                })?
            }
            Kind::Repair => self.moves(dice, PlanKind::Repair, |b, k| b.steps[k].place.is_none())?,
            Kind::MoveBlindly => self.blind_moves(dice)?,
            Kind::Attach => {
                let plant = self.some_plant(dice);
                self.attach_command(&plant, dice)
            }
            _ => self.report(kind, dice)?,
        };
        Some((caller, command))
    }

    fn some_machine(&self, dice: &mut Dice) -> MachineId {
        let ids: Vec<MachineId> = self.state.stations().iter().map(|(id, _)| id.clone()).collect();
        if dice.one_in(40) {
            machine_id("nowhere")
        } else {
            dice.pick(&ids).cloned().unwrap_or(machine_id("m0"))
        }
    }

    fn some_plant(&self, dice: &mut Dice) -> PlantId {
        let ids: Vec<PlantId> = self.state.plants().iter().map(|(id, _)| id.clone()).collect();
        dice.pick(&ids).cloned().unwrap_or(PlantId::trusted("ya-1"))
    }

    /// A booking, mostly one that it makes sense for.
    fn some_booking(&self, dice: &mut Dice, sense: impl Fn(&Booking) -> bool) -> Option<BookingId> {
        let any = dice.one_in(8);
        let fits = |b: &&Arc<Booking>| any || sense(b);
        let ids: Vec<BookingId> = self.state.bookings().values().filter(fits).map(|b| b.id).collect();
        dice.pick(&ids).cloned()
    }

    fn owner(&self, booking: &BookingId, dice: &mut Dice) -> Caller {
        match self.state.bookings().get(booking) {
            Some(known) if !dice.one_in(12) => Caller { role: Role::Buyer, id: known.buyer.clone() },
            _ => buyer("bu"),
        }
    }

    fn put_plant(&mut self, dice: &mut Dice) -> Option<Command> {
        let id = self.some_plant(dice);
        let known = Plant::clone(self.state.plants().get(&id)?);
        let expected_revision = dice.of(&[known.revision, known.revision, known.revision, 0]);
        let north_m = dice.of(&[known.north_m, 5_000, 90_000, i64::MAX]);
        Some(Command::PutPlant { plant: Plant { north_m, ..known }, expected_revision })
    }

    fn put_machine(&mut self, dice: &mut Dice) -> Command {
        let id = if dice.one_in(4) { machine_id("m9") } else { self.some_machine(dice) };
        let Some(known) = self.state.stations().get(&id).map(|s| Machine::clone(&s.machine)) else {
            return Command::PutMachine { machine: self.machine(id.as_str(), dice), expected_revision: 0 };
        };
        let expected_revision = known.revision;
        let other = self.machine(id.as_str(), dice);
        let machine = match dice.below(5) {
            0 => Machine { changeovers: other.changeovers, setup_families: other.setup_families, ..known },
            1 => Machine { rate_fen_per_hour: known.rate_fen_per_hour * 2, ..known },
            2 => Machine { plant: other.plant, ..known },
            3 => Machine { changeover_default_s: other.changeover_default_s, ..known },
            _ => other,
        };
        Command::PutMachine { machine, expected_revision }
    }

    fn machine(&self, id: &str, dice: &mut Dice) -> Machine {
        use MachineClass::*;
        let class = dice.of(&[Mill, Mill, Mill, FiveAxis, Lathe, Grinder, Cmm]);
        let families = dice.some_of(&["a", "b", "c", "d"]);
        let mut changeovers = Vec::new();
        for from in &families {
            for to in &families {
                if dice.one_in(2) {
                    // Longer than the way over a third family, now and then: no triangle inequality.
                    let seconds = dice.of(&[0, 10, 20, 60, 180]) * MINUTE;
                    changeovers.push(Changeover { from: from.clone(), to: to.clone(), seconds });
                }
            }
        }
        let plant = self.some_plant(dice);
        Machine {
            class,
            axes: dice.of(&[3, 5]),
            tolerance_um: dice.of(&[5, 20]),
            materials: dice.some_of(&["steel", "aluminium", "titanium"]),
            certificates: dice.some_of(&["iso-9001", "as-9100"]),
            changeover_default_s: dice.of(&[0, 30, 90]) * MINUTE,
            initial_family: if dice.one_in(2) { families.first().cloned() } else { None },
            setup_families: families,
            changeovers,
            speed_permille: dice.of(&[700, 1000, 1000, 1400]),
            rate_fen_per_hour: dice.of(&[0, 20_000, 36_000, 50_001]),
            ..machine(id, plant.as_str(), class)
        }
    }

    fn offer(&mut self, machine: &str, dice: &mut Dice) -> offer::Offer {
        self.given += 1;
        let id = if dice.one_in(20) { "o1".into() } else { format!("o{}", self.given) };
        let from = self.now - self.now.rem_euclid(HOUR) + dice.of(&[-5, 0, 3]) * HOUR;
        let mut lent = offer(&id, machine, &[(from, from + dice.of(&[9, 40, 300]) * HOUR)]);
        lent.notice_s = dice.of(&[0, 0, 0, 3 * HOUR]);
        if dice.one_in(2) {
            let weekdays = (1..=7).filter(|_| !dice.one_in(4)).chain([1]).collect();
            let (start_minute, end_minute) = dice.of(&[(0, 1440), (480, 960), (1320, 361), (540, 545)]);
            lent.shifts = vec![Shift { weekdays, start_minute, end_minute }];
            (lent.from, lent.until) = (from, from + dice.of(&[3, 14]) * DAY);
        }
        if dice.one_in(3) {
            let hole = from + dice.of(&[2, 8, 30]) * HOUR + dice.of(&[0, 30]);
            lent.except = vec![Window::new(hole, hole + dice.of(&[1, 90, 6000]))];
        }
        let single = lent.clone();
        if lent.expand("Europe/Berlin").is_err() {
            return single;
        }
        lent
    }

    /// An order that some machine could make, mostly.
    fn order(&self, dice: &mut Dice) -> Option<Order> {
        let stations: Vec<Arc<Station>> = self.state.stations().values().cloned().collect();
        let patron = dice.pick(&stations)?.machine.clone();
        let material = dice.pick(&patron.materials.iter().cloned().collect::<Vec<_>>())?.clone();
        let mut route = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let able: Vec<&Arc<Station>> =
                stations.iter().filter(|s| s.machine.materials.contains(&material)).collect();
            let model = &dice.pick(&able)?.machine;
            let families: Vec<String> = model.setup_families.iter().cloned().collect();
            let mut wanted = operation(model.class, dice.pick(&families)?, dice.of(&[7, 30, 60, 200, 700]));
            wanted.setup_s = dice.of(&[0, 0, 90, 600]);
            wanted.splittable = dice.one_in(3);
            wanted.axes_min = dice.of(&[0, 3, 3, 5]);
            wanted.tolerance_um = dice.of(&[0, 10, 20]);
            if dice.one_in(6) {
                wanted.certificates = names(&["as-9100"]);
            }
            route.push(wanted);
        }
        let now = self.state.now().max(self.now);
        let due = now + dice.of(&[8 * HOUR, 2 * DAY, 9 * DAY]);
        let mut order = Order { quantity: dice.of(&[1, 1, 3]), material, due, ..order(route) };
        if dice.one_in(4) {
            order.release = now + dice.of(&[10 * MINUTE, 7 * HOUR + 1]);
            order.due = order.due.max(order.release + 1);
        }
        if dice.one_in(3) {
            order.deadline = Some(order.due + dice.of(&[0, DAY]));
        }
        if dice.one_in(9) {
            order.budget_fen = Some(dice.of(&[1, 50_000, 500_000, 5_000_000]));
        }
        if dice.one_in(9) {
            order.excluded_plants = [self.some_plant(dice)].into();
        }
        Some(order)
    }

    fn book(&mut self, kind: Kind, buyer: PrincipalId, dice: &mut Dice) -> Option<Command> {
        let order = self.order(dice)?;
        let placement = if kind == Kind::BookBlindly {
            let start = |run: &Run, dice: &mut Dice| match dice.below(6) {
                0 => dice.of(&[0, i64::MAX, i64::MIN, i64::MAX - 59, run.now + 1]),
                _ => ceil_tick(run.now) + dice.below(96) as i64 * 30 * MINUTE,
            };
            (0..order.route.len() + usize::from(dice.one_in(9)))
                .map(|_| (self.some_machine(dice), start(self, dice)))
                .collect()
        } else {
            let steps: Vec<usize> = (0..order.route.len()).collect();
            let mut board = self.board();
            self.place(&mut board, &BookingId::numbered(u64::MAX), &order, &steps, None, dice)?
        };
        let mut order = order;
        match dice.below(90) {
            0 => order.quantity = dice.of(&[0, -1, i64::MAX]),
            1 => order.due = dice.of(&[0, i64::MAX, i64::MIN]),
            2 => order.release = dice.of(&[1, i64::MAX, i64::MIN]),
            3 => order.route[0].run_s_per_piece = dice.of(&[0, i64::MAX]),
            4 => order.deadline = Some(dice.of(&[0, i64::MAX, i64::MIN])),
            _ => {}
        }
        let mut terms = terms(dice.of(&[Objective::Fastest, Objective::Cheapest, Objective::Greenest]));
        if dice.one_in(6) {
            terms.promised_by = Some(dice.of(&[self.now + 6 * HOUR, self.now + 3 * DAY, i64::MIN, i64::MAX]));
        }
        if dice.one_in(12) {
            terms.price_max_fen = Some(dice.of(&[40_000, 400_000, 4_000_000, i64::MIN]));
        }
        let hold_s = match dice.below(24) {
            0..=8 => dice.of(&[60, HOUR, 20 * HOUR]),
            9 => dice.of(&[-1, i64::MAX]),
            _ => 0,
        };
        Some(Command::Book { buyer, order: Arc::new(order), terms, placement, hold_s })
    }

    /// Every machine as the greedy placer's scratch paper.
    fn board(&self) -> BTreeMap<MachineId, Station> {
        self.state.stations().iter().map(|(id, s)| (id.clone(), Station::clone(s))).collect()
    }

    /// Places the operations `steps` of an order greedily, one after another. `earlier` is where and when
    /// the part comes from.
    fn place(
        &self,
        board: &mut BTreeMap<MachineId, Station>,
        id: &BookingId,
        order: &Order,
        steps: &[usize],
        mut earlier: Option<(MachineId, i64)>,
        dice: &mut Dice,
    ) -> Option<Vec<(MachineId, i64)>> {
        let mut placed = Vec::new();
        for &k in steps {
            let (machine, start, end, station) =
                self.best_place(board, id, order, k, earlier.as_ref(), dice)?;
            board.insert(machine.clone(), station);
            placed.push((machine.clone(), start));
            earlier = Some((machine, end));
        }
        Some(placed)
    }

    fn best_place(
        &self,
        board: &BTreeMap<MachineId, Station>,
        id: &BookingId,
        order: &Order,
        k: usize,
        earlier: Option<&(MachineId, i64)>,
        dice: &mut Dice,
    ) -> Option<(MachineId, i64, i64, Station)> {
        let wanted = &order.route[k];
        let mut best: Option<(MachineId, i64, i64, Station)> = None;
        let fussy = !dice.one_in(40);
        for (machine, station) in board {
            if (fussy && !eligible(order, wanted, &station.machine)) || dice.one_in(5) {
                continue;
            }
            let arrives = earlier.map_or(0, |(from, end)| end + self.state.trip(from, machine).seconds);
            let lead_s = self.state.earliest_start(station) - self.state.now();
            let soonest = (self.now.max(self.state.now()) + lead_s).max(order.release).max(arrives);
            let soonest = ceil_tick(soonest) + dice.of(&[0, 0, 0, 2 * HOUR, DAY]);
            let mut starts = vec![soonest];
            starts.extend(station.open.iter().map(|w| w.start).filter(|s| *s > soonest));
            starts.extend(station.line.iter().map(|o| ceil_tick(o.end)).filter(|s| *s > soonest));
            starts.sort_unstable();
            let work_s = price::reckon(wanted, order.quantity, &station.machine).work_s;
            for start in starts.into_iter().take(12) {
                let mut scratch = station.clone();
                scratch.put(Station::planned(
                    id,
                    k as u32,
                    &wanted.setup_family,
                    start,
                    work_s,
                    wanted.splittable,
                ));
                if !scratch.settle().broken.is_empty() {
                    continue;
                }
                let end = scratch.find(id, k as u32).map(|at| scratch.line[at].end)?;
                if best.as_ref().is_none_or(|b| end < b.2) {
                    best = Some((machine.clone(), start, end, scratch));
                }
                break;
            }
        }
        best
    }

    /// Places operations of one or two bookings anew, greedily.
    fn moves(
        &self,
        dice: &mut Dice,
        kind: PlanKind,
        which: impl Fn(&Booking, usize) -> bool,
    ) -> Option<Command> {
        let fits = |b: &&Arc<Booking>| b.is_open() && (0..b.steps.len()).any(|k| which(b, k));
        let mut bookings: Vec<Arc<Booking>> = self.state.bookings().values().filter(fits).cloned().collect();
        let mut board = self.board();
        let mut moves = Vec::new();
        for _ in 0..1 + dice.below(2) {
            if bookings.is_empty() {
                break;
            }
            let booking = bookings.swap_remove(dice.below(bookings.len()));
            let first = (0..booking.steps.len()).find(|&k| which(&booking, k))?;
            let steps: Vec<usize> =
                (first..booking.steps.len()).filter(|&k| booking.steps[k].is_planned()).collect();
            for &k in &steps {
                for station in board.values_mut() {
                    station.take(&booking.id, k as u32);
                    station.settle();
                }
            }
            let earlier = first.checked_sub(1).and_then(|p| booking.steps[p].place.as_ref());
            let earlier = earlier.map(|p| (p.machine.clone(), p.end));
            let Some(placed) = self.place(&mut board, &booking.id, &booking.order, &steps, earlier, dice)
            else {
                continue;
            };
            moves.extend(steps.iter().zip(placed).map(|(&k, (machine, start))| Move {
                booking: booking.id,
                operation: k as u32,
                machine,
                start,
            }));
        }
        (!moves.is_empty()).then(|| self.plan(dice, kind, moves))
    }

    fn blind_moves(&self, dice: &mut Dice) -> Option<Command> {
        let mut moves = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let booking = self.some_booking(dice, Booking::is_open)?;
            let start = match dice.below(9) {
                0 => dice.of(&[0, i64::MIN, i64::MAX, self.now + 7]),
                _ => ceil_tick(self.now) + dice.below(200) as i64 * 15 * MINUTE,
            };
            let known = self.state.bookings().get(&booking)?;
            let operation = dice.below(known.steps.len()) as u32;
            if let Some(place) = known.steps[operation as usize].place.as_ref().filter(|_| !dice.one_in(4)) {
                // A little sooner or later where it stands.
                let start = place.start + dice.of(&[-60, -15, 1, 15, 45, 300]) * MINUTE;
                moves.push(Move { booking, operation, machine: place.machine.clone(), start });
                continue;
            }
            moves.push(Move {
                booking,
                operation: dice.of(&[0, 0, 1, 2, 99]),
                machine: self.some_machine(dice),
                start,
            });
        }
        if dice.one_in(3) {
            let twice = Move { machine: self.some_machine(dice), ..moves[0].clone() };
            moves.push(twice);
        }
        let kind = dice.of(&[PlanKind::Optimisation, PlanKind::Repair]);
        Some(self.plan(dice, kind, moves))
    }

    fn plan(&self, dice: &mut Dice, kind: PlanKind, moves: Vec<Move>) -> Command {
        let base_revision = self.log.len() as u64 - dice.of(&[0, 0, 0, 0, 1, 6]).min(self.log.len() as u64);
        Command::CommitPlan { kind, base_revision, moves, figures: PlanFigures::default() }
    }

    // What plants report.

    fn attach(&mut self, plant: &PlantId, dice: &mut Dice) -> Result<(), String> {
        let command = self.attach_command(plant, dice);
        self.must(command)
    }

    fn attach_command(&mut self, plant: &PlantId, dice: &mut Dice) -> Command {
        let known = self.outboxes.entry(plant.clone()).or_default();
        if known.is_empty() || dice.one_in(2) {
            self.given += 1;
            known.push(Outbox { name: format!("outbox-{}", self.given), sent: Vec::new() });
        } else if dice.one_in(2) {
            let again = known.remove(dice.below(known.len()));
            known.push(again);
        }
        let outbox = known.last().map(|o| o.name.clone()).unwrap_or_default();
        Command::AttachAgent { plant: plant.clone(), agent: "agent".into(), outbox }
    }

    /// An operation that `sense` speaks for: booking, index, machine, start and end.
    fn some_step(
        &self,
        dice: &mut Dice,
        sense: impl Fn(&Booking, &booking::Step) -> bool,
    ) -> Option<(BookingId, u32, MachineId, i64, i64)> {
        let mut found = Vec::new();
        for booking in self.state.open_bookings() {
            for (k, step) in booking.steps.iter().enumerate() {
                let Some(place) = &step.place else {
                    if step.is_planned() && dice.one_in(9) {
                        found.push((booking.id, k as u32, self.some_machine(dice), self.now, self.now));
                    }
                    continue;
                };
                if sense(booking, step) {
                    found.push((booking.id, k as u32, place.machine.clone(), place.start, place.end));
                }
            }
        }
        found.sort_by_key(|f| f.3);
        let soon = if dice.one_in(4) { found.len() } else { found.len().min(2) };
        dice.pick(&found[..soon]).cloned()
    }

    fn happening(&mut self, kind: Kind, dice: &mut Dice) -> Option<(MachineId, Happening)> {
        let planned = |_: &Booking, s: &booking::Step| s.is_planned();
        let running = |_: &Booking, s: &booking::Step| matches!(s.progress, Progress::Running { .. });
        let sometimes_any = dice.one_in(9);
        let in_hand = |b: &Booking, s: &booking::Step| running(b, s) || (sometimes_any && planned(b, s));
        Some(match kind {
            Kind::Start => {
                let (booking, operation, machine, start, _) = self.some_step(dice, planned)?;
                let from = start + dice.of(&[0, 0, 0, 29, -40 * MINUTE, 20 * MINUTE, 3 * HOUR]);
                self.now = if dice.one_in(6) { self.now } else { self.now.max(from) };
                (machine, Happening::Started { booking, operation })
            }
            Kind::Progress => {
                let (booking, operation, machine, _, end) = self.some_step(dice, in_hand)?;
                let late = dice.of(&[0, 60, 61, 45 * MINUTE, 5 * HOUR, -HOUR]);
                let expected_end = dice.of(&[end + late, end + late, end + late, i64::MAX, i64::MIN, 0]);
                let expected_end = if dice.one_in(5) { expected_end } else { end + late };
                (machine, Happening::Progress { booking, operation, pieces_good: 1, expected_end })
            }
            Kind::Finish => {
                let (booking, operation, machine, _, end) = self.some_step(dice, in_hand)?;
                let at = end + dice.of(&[0, 0, 0, -20 * MINUTE, 31, 4 * HOUR]);
                self.now = if dice.one_in(6) { self.now } else { self.now.max(at) };
                let what = Happening::Finished {
                    booking,
                    operation,
                    pieces_good: 1,
                    pieces_scrapped: dice.of(&[0, u32::MAX]),
                    measured_s: dice.of(&[HOUR, 0, i64::MIN, i64::MAX]),
                    energy_wh: dice.of(&[5, u64::MAX]),
                    energy_measured: true,
                };
                (machine, what)
            }
            Kind::Scrap => {
                let (booking, operation, machine, ..) = self.some_step(dice, in_hand)?;
                let reason = dice.of(&["tool broke", "two\nlines"]).into();
                (machine, Happening::Scrapped { booking, operation, pieces_scrapped: 2, reason })
            }
            Kind::Down => {
                let until =
                    dice.of(&[0, self.now + 2 * HOUR, self.now + DAY + 7, self.now - 1, i64::MAX, i64::MIN]);
                (self.some_machine(dice), Happening::Down { reason: "spindle".into(), expected_until: until })
            }
            Kind::Up => (self.some_machine(dice), Happening::Up),
            _ => (self.some_machine(dice), Happening::State(MachineState::Producing)),
        })
    }

    fn report(&mut self, kind: Kind, dice: &mut Dice) -> Option<Command> {
        let (mut machine, what) = self.happening(kind, dice)?;
        if dice.one_in(10) {
            machine = self.some_machine(dice);
        }
        let plant = self.state.stations().get(&machine).map(|s| s.machine.plant.clone());
        let plant = plant.unwrap_or_else(|| self.some_plant(dice));
        let at =
            if dice.one_in(8) { dice.of(&[0, i64::MIN, i64::MAX, self.now - 3 * HOUR]) } else { self.now };
        let outbox = self.outboxes.get_mut(&plant)?.last_mut()?;
        let seq = outbox.sent.len() as u64 + 1;
        let event = Event { seq, at, machine, what };
        let name = outbox.name.clone();
        let report = |events| Some(Command::Report { plant: plant.clone(), outbox: name, events });
        match dice.below(24) {
            0 => return report(vec![Event { seq: dice.of(&[seq + 1, 0, u64::MAX]), ..event }]),
            1 => {
                return Some(Command::Report {
                    plant: plant.clone(),
                    outbox: "another".into(),
                    events: vec![event],
                });
            }
            // A batch that was delivered before, and nothing new.
            2..=4 => return report(outbox.sent.iter().rev().take(3).rev().cloned().collect()),
            _ => {}
        }
        outbox.sent.push(event);
        let repeated = dice.of(&[0, 0, 1, 3]);
        report(outbox.sent.iter().rev().take(1 + repeated).rev().cloned().collect())
    }
}

/// One entry and what came of it.
struct Checked<'a> {
    /// Before the entry.
    before: &'a State,
    /// At its moment, with nothing asked.
    passed: &'a State,
    after: &'a State,
    entry: &'a Entry,
    outcome: &'a Outcome,
}

impl Checked<'_> {
    fn check(&self, expiring: &command::Changes) -> Result<(), String> {
        let broken = invariants::violations(self.after);
        if !broken.is_empty() {
            return Err(format!("invariants: {broken:#?}"));
        }
        if self.outcome.result.is_err() {
            equal("the hash after a refusal", &self.after.hash(), &self.passed.hash())?;
            equal("what a refusal changed", &self.outcome.changes.bookings, &expiring.bookings)?;
        }
        if self.after.now() < self.before.now() {
            return Err("the clock went back".into());
        }
        if self.before.revision() == 0 || self.after.hash() == self.before.hash() {
            return Ok(());
        }
        self.check_changes()?;
        self.check_time()?;
        self.check_bookings()?;
        self.check_frozen()?;
        self.check_repeated_events()
    }

    /// Everything that changed is told, as it is now; nothing else is.
    fn check_changes(&self) -> Result<(), String> {
        let changed: BTreeMap<BookingId, Arc<Booking>> = self
            .after
            .bookings()
            .iter()
            .filter(|(id, b)| self.before.bookings().get(id) != Some(b))
            .map(|(id, b)| (*id, b.clone()))
            .collect();
        for (id, booking) in &changed {
            equal(&format!("{id} as told"), &self.outcome.changes.bookings.get(id), &Some(booking))?;
        }
        for (id, station) in self.after.stations().iter() {
            let same = self.before.stations().get(id).is_some_and(|s| s == station);
            if !same && !self.outcome.changes.machines.contains(id) {
                return Err(format!("{id} has changed and nobody is told"));
            }
        }
        Ok(())
    }

    /// No hold outlives its time, and none is given up before.
    fn check_time(&self) -> Result<(), String> {
        let now = self.after.now();
        for booking in self.after.bookings().values() {
            if booking.status == Status::Held && booking.hold_expires_at <= now {
                return Err(format!("{} is held past its time", booking.id));
            }
            let was = self.before.bookings().get(&booking.id);
            if let Some(was) = was.filter(|w| w.status == Status::Held && booking.status == Status::Expired)
                && was.hold_expires_at > now
            {
                return Err(format!("{} expired before its time", booking.id));
            }
        }
        Ok(())
    }

    /// No booking is lost or silently changed; no promise is worsened by the system's own choice.
    fn check_bookings(&self) -> Result<(), String> {
        let own_choice =
            !matches!(self.entry.command, Command::Report { .. } | Command::WithdrawOffer { .. });
        for was in self.passed.bookings().values() {
            let id = &was.id;
            let is = self.after.bookings().get(id).ok_or(format!("{id} is lost"))?;
            if (is.buyer.clone(), is.order.clone(), is.created_at)
                != (was.buyer.clone(), was.order.clone(), was.created_at)
            {
                return Err(format!("{id} is another order now"));
            }
            equal(&format!("the promise of {id}"), &is.promise, &was.promise)?;
            let fine = match (was.status, is.status) {
                (a, b) if a == b => true,
                (Status::Held, Status::Confirmed) => matches!(self.entry.command, Command::Confirm { .. }),
                (_, Status::Cancelled) => {
                    was.is_open()
                        && matches!(&self.entry.command, Command::Cancel { booking, .. } if booking == id)
                }
                (Status::Confirmed, Status::Completed) => {
                    matches!(self.entry.command, Command::Report { .. })
                }
                _ => false,
            };
            if !fine {
                return Err(format!("{id} was {:?} and is {:?}", was.status, is.status));
            }
            if own_choice && was.is_open() && is.is_open() {
                self.check_promise(was, is)?;
            }
        }
        Ok(())
    }

    fn check_promise(&self, was: &Booking, is: &Booking) -> Result<(), String> {
        let done_by = |b: &Booking| {
            let ends: Option<Vec<i64>> = b.steps.iter().map(|s| s.place.as_ref().map(|p| p.end)).collect();
            ends.and_then(|ends| ends.into_iter().max())
        };
        let id = &was.id;
        match (done_by(was), done_by(is)) {
            (Some(_), None) => return Err(format!("{id} has lost its place without a disturbance")),
            (Some(before), Some(after)) if after > before && after > was.promise.by => {
                return Err(format!(
                    "{id}, promised by {}, was done at {before} and is now at {after}",
                    was.promise.by
                ));
            }
            _ => {}
        }
        equal(&format!("the disturbances of {id}"), &is.disturbances, &was.disturbances)
    }

    /// Optimisation leaves frozen work where it is, and puts none into the frozen stretch.
    fn check_frozen(&self) -> Result<(), String> {
        let Command::CommitPlan { kind: PlanKind::Optimisation, .. } = &self.entry.command else {
            return Ok(());
        };
        let starts = |state: &State, machine: &MachineId| -> Vec<(String, i64)> {
            let Some(station) = state.stations().get(machine) else { return Vec::new() };
            let until = state.frozen_until(station);
            let early = station.line.iter().filter(|o| o.start < until && o.phase == Phase::Planned);
            early
                .filter_map(|o| match &o.purpose {
                    line::Use::Work { booking, operation } => {
                        Some((format!("{booking}/{operation}"), o.start))
                    }
                    line::Use::Tooling => None,
                })
                .collect()
        };
        for (machine, _) in self.passed.stations().iter() {
            equal(
                &format!("the frozen stretch of {machine}"),
                &starts(self.after, machine),
                &starts(self.passed, machine),
            )?;
        }
        Ok(())
    }

    /// Events that were applied before change nothing.
    fn check_repeated_events(&self) -> Result<(), String> {
        let Command::Report { plant, outbox, events } = &self.entry.command else { return Ok(()) };
        let Some(agent) = self.passed.agents().get(plant).filter(|a| a.outbox == *outbox) else {
            return Ok(());
        };
        if events.iter().all(|e| e.seq <= agent.applied_seq) && self.entry.request.is_none() {
            equal("the hash after repeated events", &self.after.hash(), &self.passed.hash())?;
        }
        Ok(())
    }

    /// What a preview says is what the withdrawal does.
    fn check_preview(&self, preview: Option<Result<Vec<command::Disturbed>, Refusal>>) -> Result<(), String> {
        let (Some(preview), Command::WithdrawOffer { accept_disturbance, .. }) =
            (preview, &self.entry.command)
        else {
            return Ok(());
        };
        match (&self.outcome.result, preview) {
            // A repeated request is answered with what was done then.
            (Ok(_), _) if self.outcome.revision < self.after.revision() => Ok(()),
            (Ok(Reply::Offer(_, disturbed)), Ok(preview)) => equal("what was withdrawn", disturbed, &preview),
            (Err(refusal), Err(preview)) => equal("why it is not withdrawn", refusal, &preview),
            (Err(refusal), Ok(preview))
                if refusal.reason == Reason::WouldDisturb && !preview.is_empty() && !accept_disturbance =>
            {
                Ok(())
            }
            (Err(refusal), _) if refusal.reason == Reason::RequestIdReused => Ok(()),
            (result, preview) => Err(format!("the preview said {preview:?}, the withdrawal {result:?}")),
        }
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, should: &T) -> Result<(), String> {
    if is == should { Ok(()) } else { Err(format!("{what} is\n  {is:?}\nand should be\n  {should:?}")) }
}

/// An entry in one line.
fn told(entry: &Entry, now: i64) -> String {
    let at = |t: i64| match t.checked_sub(MONDAY) {
        Some(s) if s.abs() < 400 * DAY => {
            format!(
                "d{}+{:02}:{:02}:{:02}",
                s.div_euclid(DAY),
                s.rem_euclid(DAY) / HOUR,
                s.rem_euclid(HOUR) / 60,
                s.rem_euclid(60)
            )
        }
        _ => t.to_string(),
    };
    let request = entry.request.as_ref().map_or(String::new(), |r| format!(" [{}]", r.id));
    let what = match &entry.command {
        Command::Book { buyer, order, terms, placement, hold_s } => {
            let route: Vec<String> = order
                .route
                .iter()
                .zip(placement)
                .map(|(op, (machine, start))| {
                    let split = if op.splittable { " splittable" } else { "" };
                    format!(
                        "{}s {}{split} on {machine} at {}",
                        op.setup_s
                            + op.run_s_per_piece
                                * order.quantity.clamp(0, 9).min(if op.run_s_per_piece > DAY {
                                    0
                                } else {
                                    9
                                }),
                        op.setup_family,
                        at(*start)
                    )
                })
                .collect();
            format!(
                "Book for {buyer} {:?} due {} hold {hold_s}: {}",
                terms.objective,
                at(order.due),
                route.join(", ")
            )
        }
        Command::CommitPlan { kind, base_revision, moves, .. } => {
            let moves: Vec<String> = moves
                .iter()
                .map(|m| format!("{}/{} to {} at {}", m.booking, m.operation, m.machine, at(m.start)))
                .collect();
            format!("CommitPlan {kind:?} from {base_revision}: {}", moves.join(", "))
        }
        Command::Report { plant, events, .. } => {
            let events: Vec<String> = events
                .iter()
                .map(|e| format!("#{} {} at {}: {:?}", e.seq, e.machine, at(e.at), e.what))
                .collect();
            format!("Report of {plant}: {}", events.join("; "))
        }
        Command::CreateOffer(o) => {
            let windows: Vec<String> =
                o.open.iter().take(6).map(|w| format!("{} to {}", at(w.start), at(w.end))).collect();
            format!("CreateOffer {} of {}: {}", o.id, o.machine, windows.join(", "))
        }
        Command::PutMachine { machine: m, expected_revision } => format!(
            "PutMachine {} {:?} in {} speed {} default {} first {:?} expected {expected_revision}: {:?} {:?}",
            m.id,
            m.class,
            m.plant,
            m.speed_permille,
            m.changeover_default_s,
            m.initial_family,
            m.setup_families,
            m.changeovers.iter().map(|c| format!("{}{}:{}", c.from, c.to, c.seconds)).collect::<Vec<_>>()
        ),
        other => format!("{other:?}"),
    };
    let late = if entry.at < now { " (late)" } else { "" };
    format!("{}{late} {}{request}  {what}", at(entry.at), entry.caller.id)
}

/// How long a tick is, so that a test need not know.
pub const TICK: i64 = TICK_S;
