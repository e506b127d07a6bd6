//! An adversary between coordinator, agent and machine: it delays, repeats, reorders and cuts, restarts the agent, opens
//! doors, and lets sessions, windows, consents and lists come and go. A witness at the machine knows the truth, and says
//! what should not have reached it. With nothing left out it has nothing to say; with any one guard left out it has.

use super::consent::Rule;
use super::guard::{LEASE, Refused};
use super::interlock::{self, Fitness, Interlock};
use super::run::{Hand, Omitted, Options, Told, run};
use super::{Answer, Asked, Bid, Came, Line, Verb};
use crate::adapter::job::{Listed, Standing};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::ground::Ground;
use crate::outbox::{self, BYTES_MAX_DEFAULT, Outbox};
use millpool_proto::v1::{DispatchItem, DispatchList, MachineState, RemoteSession};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Seeds that are played, and within which a guard that is left out is missed.
const SEEDS: u64 = 300;
/// Steps of a run.
const STEPS: u32 = 250;
/// How long a step takes.
const STEP: Duration = Duration::from_millis(200);
/// One that the plant allows, and one that it does not.
const MACHINES: [&str; 2] = ["m", "forbidden"];
const VERBS: [Verb; 10] = [
    Verb::Store,
    Verb::Update,
    Verb::Start,
    Verb::Resume,
    Verb::Start,
    Verb::Pause,
    Verb::Abort,
    Verb::RevokeStart,
    Verb::Cancel,
    Verb::Clear,
];

/// What is true, whoever knows it.
struct Truth {
    /// The open session of each machine.
    open: BTreeMap<&'static str, RemoteSession>,
    /// When each session ended.
    ended: BTreeMap<u64, Instant>,
    /// Every command, and when it was asked.
    asked: BTreeMap<(u64, u32), (Asked, Instant)>,
    /// Since when the line is cut.
    cut: Option<Instant>,
    /// Until when the plant agrees.
    agreed: Option<Instant>,
    /// Since when the operation is not on the list.
    unlisted: Option<Instant>,
    fitness: Fitness,
    /// What reached a machine, in order, and how often each verb did.
    reached: Vec<(u64, u32)>,
    verbs: BTreeMap<Verb, usize>,
    highest: u64,
    /// The session in which the machine was last allowed to start, if that stands, and when it was.
    allowed: Option<u64>,
    allowed_at: Instant,
    wrongs: Vec<String>,
}

impl Truth {
    /// A bid reaches the machine: should it have?
    fn witness(&mut self, bid: &Bid) {
        match (bid.verb, bid.of) {
            (Verb::Start, Some((epoch, _))) => {
                (self.allowed, self.allowed_at) = (Some(epoch), Instant::now());
            }
            (Verb::RevokeStart | Verb::Stop | Verb::Abort | Verb::Cancel, _) => self.allowed = None,
            _ => {}
        }
        // A permission that is taken back is no command.
        let Some((epoch, nonce)) = bid.of else { return };
        let Some((asked, since)) = self.asked.get(&(epoch, nonce)).cloned() else {
            return self.wrongs.push(format!("nobody asked {epoch}/{nonce}"));
        };
        let now = Instant::now();
        let long = |since: &Option<Instant>, slack: Duration| since.is_some_and(|since| now - since > slack);
        // What was true a moment ago may not be known yet: the line's lease, or a step of this simulation.
        let moment = 2 * STEP;
        let mut wrong = |is: bool, what: &str| {
            if is {
                self.wrongs.push(format!("{epoch}/{nonce} {:?}: {what}", bid.verb));
            }
        };
        wrong(self.reached.contains(&(epoch, nonce)), "it reached the machine before");
        wrong(epoch < self.highest, "a later session has reached the machine");
        wrong(bid.machine_id != MACHINES[0], "the plant does not allow it");
        wrong(now - since > 2 * asked.valid + moment, "it is too old");
        wrong(long(&self.ended.get(&epoch).copied(), LEASE + moment), "its session is over");
        wrong(long(&self.cut, LEASE + moment), "the line is cut");
        let later = self.reached.iter().any(|(of, later)| *of == epoch && *later > nonce);
        wrong(!bid.verb.makes_safe() && later, "a later command was before it");
        let over = wall_ms() > asked.closes_at_ms;
        wrong(!bid.verb.makes_safe() && over, "the window is over");
        let needs_list = !bid.verb.makes_safe() && bid.verb != Verb::Clear;
        wrong(needs_list && long(&self.unlisted, moment), "it is not on the list");
        wrong(bid.verb == Verb::Abort && !asked.by.starts_with("member:"), "the plant did not ask it");
        let agreed = self.agreed.is_some_and(|until| now <= until + moment);
        wrong(bid.verb.moves() && !agreed, "the plant does not agree");
        wrong(bid.job != asked.job(), "it is about another's job");
        let fit = interlock::check(bid.verb, &bid.job, &self.fitness).iter().all(|lock| lock.holds);
        wrong(!fit, "an interlock is open");
        *self.verbs.entry(bid.verb).or_default() += 1;
        self.reached.push((epoch, nonce));
        self.highest = self.highest.max(epoch);
    }
}

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The plant's clock, in simulated time.
fn wall_ms() -> i64 {
    1_800_000_000_000 + BEGUN.get().map_or(0, |begun| begun.elapsed().as_millis() as i64)
}

/// A permission that was not used is taken back so long after its session, or the line, was lost.
const TAKEN_BACK: Duration = Duration::from_secs(14);

/// What the coordinator sends, in its order.
#[derive(Clone)]
enum Message {
    /// The agent's sign of life of then has been heard.
    Beat(Instant),
    Sessions(Vec<RemoteSession>),
    Asked(Box<Asked>),
}

struct Agent {
    told: mpsc::Sender<Told>,
    deciding: JoinHandle<()>,
}

struct World {
    chance: Chance,
    truth: Arc<Mutex<Truth>>,
    omitted: Option<Omitted>,
    at: outbox::Options,
    ground: Ground,
    kept: watch::Sender<Arc<Kept>>,
    line: watch::Sender<Line>,
    agent: Agent,
    outbox: Outbox,
    /// Messages on their way, with the time at which they arrive.
    stream: VecDeque<(Instant, Message)>,
    /// What the adversary keeps, and delivers when it likes.
    withheld: Vec<Asked>,
    /// The agent's sign of life that the coordinator heard last.
    heard: Instant,
    epoch: u64,
}

fn list(machines: &[&str]) -> Arc<Kept> {
    let item = |machine: &&str| DispatchItem {
        machine_id: (*machine).to_owned(),
        booking_id: "b000001".to_owned(),
        end_s: i64::from(u32::MAX),
        ..DispatchItem::default()
    };
    let items = machines.iter().map(item).collect();
    let list = DispatchList { plant_id: "p".to_owned(), revision: 1, items };
    let mut kept = Kept::default();
    kept.list = Some(list);
    Arc::new(kept)
}

fn own_job(standing: Standing) -> Vec<Listed> {
    vec![Listed { id: "b000001/0".to_owned(), standing }]
}

/// A control that looks at the interlocks, and a witness before it.
async fn adapter(mut bids: mpsc::Receiver<Bid>, truth: Arc<Mutex<Truth>>, omitted: Option<Omitted>) {
    while let Some(bid) = bids.recv().await {
        // The control is slow, and now and then it is slow to say what it has done.
        tokio::time::sleep(STEP / 3).await;
        let (interlocks, came) = carry_out(&bid, &mut truth.lock().unwrap(), omitted);
        if bid.of.is_some_and(|(_, nonce)| nonce % 4 == 0) {
            tokio::time::sleep(2 * STEP).await;
        }
        let _ = bid.answer.send(Answer { interlocks, came });
    }
}

fn carry_out(bid: &Bid, truth: &mut Truth, omitted: Option<Omitted>) -> (Vec<Interlock>, Came) {
    let interlocks = interlock::check(bid.verb, &bid.job, &truth.fitness);
    let open = interlocks.iter().any(|lock| !lock.holds) && omitted != Some(Omitted::Interlocks);
    let late = bid.permit.check().is_err() && omitted != Some(Omitted::LastLook);
    if open || late {
        return (interlocks, Came::NotAsked("open, or late".to_owned()));
    }
    truth.witness(bid);
    (interlocks, Came::Answered { done: true, status: 1, words: "done".to_owned() })
}

impl World {
    fn new(seed: u64, omitted: Option<Omitted>, dir: &std::path::Path) -> Self {
        let never = |_| -> Pin<Box<dyn Future<Output = _> + Send>> { Box::pin(std::future::pending()) };
        let ground = Ground::Simulation { seed, dial: Arc::new(never) };
        let at = outbox::Options { dir: dir.join("outbox"), bytes_max: BYTES_MAX_DEFAULT };
        let truth = Truth {
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            asked: BTreeMap::new(),
            cut: None,
            agreed: None,
            unlisted: None,
            fitness: Fitness {
                age: Duration::ZERO,
                state: MachineState::Idle,
                door_closed: Some(true),
                door_unreadable: false,
                jobs: Some(own_job(Standing::Open)),
            },
            reached: Vec::new(),
            verbs: BTreeMap::new(),
            highest: 0,
            allowed: None,
            allowed_at: Instant::now(),
            wrongs: Vec::new(),
        };
        let truth = Arc::new(Mutex::new(truth));
        let (kept, line) = (watch::channel(list(&MACHINES)).0, watch::channel(Line::default()).0);
        let (agent, outbox) = start(&at, &ground, &kept, &line, &truth, omitted);
        Self {
            chance: Chance::from_seed(seed),
            truth,
            omitted,
            at,
            ground,
            kept,
            line,
            agent,
            outbox,
            stream: VecDeque::new(),
            withheld: Vec::new(),
            heard: Instant::now(),
            epoch: 0,
        }
    }

    /// Whether the machine may still start on a permission whose session or line is long lost.
    fn look_for_permissions(&self) {
        let mut truth = self.truth.lock().unwrap();
        let Some(epoch) = truth.allowed else { return };
        let disagreed = truth.agreed.or(Some(truth.allowed_at));
        let since = [truth.ended.get(&epoch).copied(), truth.cut, disagreed];
        if since.into_iter().flatten().any(|since| since.elapsed() > TAKEN_BACK) {
            truth.wrongs.push(format!("{epoch}: the machine may still start"));
        }
    }

    async fn step(&mut self) {
        self.look_for_permissions();
        let (chance, now) = (&mut self.chance, Instant::now());
        let mut roll = |permille| chance.happens(permille);
        let (open, close, ask) = (roll(60), roll(20), roll(700));
        let (cut, heal, crash) = (roll(15), roll(40), roll(15));
        let (agree, disagree, relist, refit) = (roll(150), roll(40), roll(60), roll(200));
        let release = roll(300);
        if self.truth.lock().unwrap().cut.is_none() {
            self.heard = now;
            self.send(Message::Beat(now));
        }
        if open {
            self.open_session();
        }
        if close || roll_late(&mut self.chance, &self.truth) {
            self.close_session();
        }
        if ask {
            self.ask();
        }
        if release && !self.withheld.is_empty() {
            let at = self.chance.between(0, self.withheld.len() as u64 - 1) as usize;
            let asked = self.withheld[at].clone();
            self.deliver(Message::Asked(Box::new(asked)));
        }
        if cut {
            self.stream.clear();
            self.truth.lock().unwrap().cut.get_or_insert(now);
        } else if heal && self.truth.lock().unwrap().cut.take().is_some() {
            self.heard = now;
            self.resend();
        }
        self.plant(agree, disagree, relist, refit).await;
        if crash {
            self.crash().await;
        }
        while self.stream.front().is_some_and(|(arrives, _)| *arrives <= now) {
            let Some((_, message)) = self.stream.pop_front() else { break };
            self.deliver(message);
        }
        tokio::time::sleep(STEP).await;
    }

    /// What the plant does: consent, the dispatch list, the machine.
    async fn plant(&mut self, agree: bool, disagree: bool, relist: bool, refit: bool) {
        if agree || disagree {
            let (answer, answered) = oneshot::channel();
            let (machine_id, by) = (MACHINES[0].to_owned(), "anna".to_owned());
            let within = Duration::from_secs(self.chance.between(1, 4));
            let others = self.chance.happens(300);
            let job = others.then(|| "b000009/0".to_owned());
            let told = match agree {
                true => Told::Consent { machine_id, job, within, by, answer },
                false => Told::Withdraw { machine_id, by, answer },
            };
            // Whatever is asked meanwhile may already count on it.
            let until = Instant::now() + within;
            let agreed = (agree && !others).then_some(until);
            let before = self.truth.lock().unwrap().agreed;
            self.truth.lock().unwrap().agreed = before.max(agreed);
            if self.agent.told.send(told).await.is_ok() && answered.await.is_ok() {
                self.truth.lock().unwrap().agreed = agreed.or(Some(Instant::now()));
            }
        }
        let mut truth = self.truth.lock().unwrap();
        if relist {
            let gone = truth.unlisted.is_none();
            truth.unlisted = gone.then(Instant::now);
            self.kept.send_replace(list(if gone { &[] } else { &MACHINES }));
        }
        if refit {
            let of = |chance: &mut Chance, most| chance.between(0, most) as usize;
            let chance = &mut self.chance;
            truth.fitness.door_closed = [Some(true), Some(true), None, Some(false)][of(chance, 3)];
            let states = [MachineState::Idle, MachineState::Held, MachineState::Idle, MachineState::Blocked];
            truth.fitness.state = states[of(chance, 3)];
            let standings = [Standing::Open, Standing::AtWork, Standing::Open, Standing::Done];
            truth.fitness.jobs = Some(own_job(standings[of(chance, 3)]));
        }
    }

    fn send(&mut self, message: Message) {
        let stalls = self.chance.happens(20);
        let delay = if stalls { 3_000 } else { self.chance.between(0, 300) };
        let arrives = Instant::now() + Duration::from_millis(delay);
        // In order: nothing overtakes on a stream.
        let arrives = self.stream.back().map_or(arrives, |(last, _)| arrives.max(*last));
        self.stream.push_back((arrives, message));
    }

    fn deliver(&self, message: Message) {
        match message {
            Message::Beat(sent) => self.line.send_modify(|line| line.alive = line.alive.max(Some(sent))),
            Message::Sessions(sessions) => self.line.send_modify(|line| line.sessions = sessions),
            Message::Asked(asked) => drop(self.agent.told.try_send(Told::Asked(asked))),
        }
    }

    fn tell_sessions(&mut self) {
        let truth = self.truth.lock().unwrap();
        let (open, up) = (truth.open.values().cloned().collect(), truth.cut.is_none());
        drop(truth);
        if up {
            self.send(Message::Sessions(open));
        }
    }

    fn open_session(&mut self) {
        self.epoch += 1;
        let machine = MACHINES[usize::from(self.chance.happens(200))];
        let closes_s = (wall_ms() / 1000) + self.chance.between(3, 20) as i64;
        let session = RemoteSession {
            epoch: self.epoch,
            machine_id: machine.to_owned(),
            booking_id: "b000001".to_owned(),
            operation: 0,
            holder: "bo".to_owned(),
            closes_at_s: closes_s,
        };
        let mut truth = self.truth.lock().unwrap();
        if let Some(earlier) = truth.open.insert(machine, session) {
            truth.ended.insert(earlier.epoch, Instant::now());
        }
        drop(truth);
        self.tell_sessions();
    }

    fn close_session(&mut self) {
        let mut truth = self.truth.lock().unwrap();
        let Some((_, session)) = truth.open.pop_first() else { return };
        truth.ended.insert(session.epoch, Instant::now());
        drop(truth);
        self.tell_sessions();
    }

    fn ask(&mut self) {
        let mut truth = self.truth.lock().unwrap();
        let open: Vec<_> = truth.open.values().cloned().collect();
        if open.is_empty() {
            return;
        }
        let session = open[self.chance.between(0, open.len() as u64 - 1) as usize].clone();
        let nonce = truth.asked.range((session.epoch, 0)..=(session.epoch, u32::MAX)).count() as u32 + 1;
        let verb = VERBS[self.chance.between(0, VERBS.len() as u64 - 1) as usize];
        let asked = Asked {
            epoch: session.epoch,
            nonce,
            machine_id: session.machine_id,
            booking_id: session.booking_id,
            operation: 0,
            holder: session.holder,
            // A coordinator that does not look who asks.
            by: if self.chance.happens(300) { "member:ya" } else { "buyer:bo" }.to_owned(),
            closes_at_ms: session.closes_at_s * 1000,
            verb,
            program: String::new(),
            valid: Duration::from_secs(if self.chance.happens(300) { 20 } else { self.chance.between(1, 4) }),
            sent: Some(self.heard),
        };
        truth.asked.insert((asked.epoch, nonce), (asked.clone(), Instant::now()));
        let up = truth.cut.is_none();
        drop(truth);
        if up && !self.chance.happens(200) {
            self.send(Message::Asked(Box::new(asked.clone())));
        }
        if self.chance.happens(500) {
            self.withheld.push(asked);
        }
    }

    /// The line is back: the sessions, and what is still good, with a new echo.
    fn resend(&mut self) {
        self.tell_sessions();
        let truth = self.truth.lock().unwrap();
        let good = truth.asked.values().filter(|(asked, since)| {
            let open = truth.open.values().any(|session| session.epoch == asked.epoch);
            open && since.elapsed() <= asked.valid
        });
        let good: Vec<_> = good.map(|(asked, _)| Asked { sent: Some(self.heard), ..asked.clone() }).collect();
        drop(truth);
        for asked in good {
            self.send(Message::Asked(Box::new(asked)));
        }
    }

    /// The agent dies, and is started again on what is on disk.
    async fn crash(&mut self) {
        self.agent.deciding.abort();
        let _ = (&mut self.agent.deciding).await;
        self.outbox.close().await;
        self.truth.lock().unwrap().agreed = None;
        (self.agent, self.outbox) =
            start(&self.at, &self.ground, &self.kept, &self.line, &self.truth, self.omitted);
        // Its line is a new one.
        self.stream.clear();
        self.line.send_replace(Line::default());
        if self.truth.lock().unwrap().cut.is_none() {
            self.heard = Instant::now();
            self.send(Message::Beat(self.heard));
            self.resend();
        }
    }
}

/// Sessions whose windows are over are closed by a coordinator that takes its time.
fn roll_late(chance: &mut Chance, truth: &Mutex<Truth>) -> bool {
    let over = truth.lock().unwrap().open.values().any(|session| wall_ms() >= session.closes_at_s * 1000);
    over && chance.happens(100)
}

fn start(
    at: &outbox::Options,
    ground: &Ground,
    kept: &watch::Sender<Arc<Kept>>,
    line: &watch::Sender<Line>,
    truth: &Arc<Mutex<Truth>>,
    omitted: Option<Omitted>,
) -> (Agent, Outbox) {
    let outbox = outbox::open(at, ground).unwrap();
    let (bids, taken) = mpsc::channel::<Bid>(16);
    let allowed = if omitted == Some(Omitted::Check(Refused::Machine)) { 2 } else { 1 };
    let hand = |id: &&str| ((*id).to_owned(), Hand { bids: bids.clone(), rule: Rule::default() });
    let options = Options {
        plant_id: "p".to_owned(),
        clock: Clock::default().read_by(wall_ms),
        outbox: outbox.clone(),
        kept: kept.subscribe(),
        line: line.subscribe(),
        hands: MACHINES[..allowed].iter().map(hand).collect(),
        omitted,
    };
    let (told, telling) = mpsc::channel(64);
    let control = adapter(taken, truth.clone(), omitted);
    let deciding = run(options, telling, CancellationToken::new());
    let deciding = tokio::spawn(async move {
        tokio::select! {
            biased;
            done = deciding => done.unwrap(),
            () = control => {}
        }
    });
    (Agent { told, deciding }, outbox)
}

/// What the witness says of a run, and what reached the machine in it.
fn play(seed: u64, omitted: Option<Omitted>) -> (Vec<String>, BTreeMap<Verb, usize>) {
    let dir = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        BEGUN.set(Some(Instant::now()));
        let mut world = World::new(seed, omitted, dir.path());
        for _ in 0..STEPS {
            world.step().await;
            if !world.truth.lock().unwrap().wrongs.is_empty() {
                break;
            }
        }
        let truth = world.truth.lock().unwrap();
        (truth.wrongs.clone(), truth.verbs.clone())
    })
}

#[test]
fn nothing_forbidden_reaches_the_machine() {
    let mut reached: BTreeMap<Verb, usize> = BTreeMap::new();
    let more = std::env::var("MILLPOOL_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..more.unwrap_or(SEEDS) {
        let (wrongs, verbs) = play(seed, None);
        assert_eq!(wrongs, Vec::<String>::new(), "seed {seed}");
        verbs.into_iter().for_each(|(verb, count)| *reached.entry(verb).or_default() += count);
    }
    // A guard that lets nothing pass would be safe, too.
    for (verb, ..) in Verb::NAMED.iter().filter(|(verb, ..)| *verb != Verb::Stop) {
        assert!(reached.get(verb).is_some_and(|count| *count > 10), "{verb:?}: {reached:?}");
    }
}

#[test]
fn every_guard_is_missed_when_it_is_left_out() {
    let checks = super::guard::CHECKS.iter().map(|(refused, _)| Omitted::Check(*refused));
    let others =
        [Omitted::Memory, Omitted::Consent, Omitted::Interlocks, Omitted::LastLook, Omitted::TakeBack];
    for omitted in checks.chain(others) {
        let found =
            (0..SEEDS).find_map(|seed| play(seed, Some(omitted)).0.first().map(|what| (seed, what.clone())));
        let Some((seed, what)) = found else { panic!("{omitted:?} is not missed within {SEEDS} seeds") };
        println!("{omitted:?}: seed {seed}: {what}");
    }
}
