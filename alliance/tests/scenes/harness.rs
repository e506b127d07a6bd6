//! Random sequences of entries on a small alliance, each entry held against what was promised. The checks
//! here compare states before and after; they share no code with the rules that they check.
//!
//! A sequence is a list of [`Step`]s. A step says what kind of thing is tried and carries the dice for it;
//! what it comes to depends on the state, so that sequences stay meaningful while they are shrunk.

mod checks;
mod tried;

use super::build::*;
use checks::Checked;
use millpool_alliance::booking::{Progress, Status};
use millpool_alliance::command::{Event, Happening, Request};
use millpool_alliance::eligibility::eligible;
use millpool_alliance::line::{MachineState, Phase, Station};
use millpool_alliance::offer::Shift;
use millpool_alliance::program::Sha256;
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
    Silence,
    Start,
    Progress,
    Finish,
    Scrap,
    Down,
    Up,
    State,
    OpenSession,
    CloseSession,
    Operate,
    Operated,
    Repeat,
}

/// Every kind, with how often it is tried.
pub const KINDS: [(u32, Kind); 31] = [
    (2, Kind::Tick),
    (1, Kind::PutMember),
    (2, Kind::PutPlant),
    (3, Kind::PutMachine),
    (2, Kind::PutPolicy),
    (3, Kind::RaiseFormat),
    (2, Kind::PutPrincipal),
    (1, Kind::RevokePrincipal),
    (3, Kind::CreateOffer),
    (2, Kind::WithdrawOffer),
    (24, Kind::BookWell),
    (3, Kind::BookBlindly),
    (5, Kind::Confirm),
    (5, Kind::Cancel),
    (10, Kind::MoveWell),
    (8, Kind::MoveBlindly),
    (8, Kind::Repair),
    (2, Kind::Attach),
    (2, Kind::Silence),
    (14, Kind::Start),
    (6, Kind::Progress),
    (12, Kind::Finish),
    (3, Kind::Scrap),
    (2, Kind::Down),
    (2, Kind::Up),
    (1, Kind::State),
    (10, Kind::OpenSession),
    (4, Kind::CloseSession),
    (12, Kind::Operate),
    (4, Kind::Operated),
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
