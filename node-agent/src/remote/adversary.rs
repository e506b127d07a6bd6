//! An adversary between coordinator, agent and machine: it delays, repeats, reorders and cuts, restarts the agent, opens
//! doors, lets sessions, windows, consents and lists come and go, hands over other programs than were named, and changes
//! those that were released. A witness at the machine, and at its folder of programs, knows the truth, and says what should
//! not have reached it. With nothing left out it has nothing to say; with any one guard left out it has.

use super::consent::Rule;
use super::guard::{LEASE, Refused};
use super::interlock::{self, Fitness, Interlock};
use super::program::{Program, Sha256, Wanted};
use super::quarantine::{Part, Quarantine, Supply};
use super::run::{Hand, Omitted, Options, Told, run};
use super::{Act, Answer, Asked, Bid, Came, Line, Verb};
use crate::adapter::job::{Listed, Standing};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::ground::Ground;
use crate::health::Health;
use crate::outbox::{self, BYTES_MAX_DEFAULT, Outbox};
use millpool_proto::v1::{DispatchItem, DispatchList, MachineState, RemoteSession};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Seeds that are played.
const SEEDS: u64 = 300;
/// Within so many a guard that is left out is missed; most are within a few.
const MISSED_WITHIN: u64 = 1000;
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
/// Contents of programs, all of a length.
const CONTENTS: [&[u8]; 2] = [b"G0 X1", b"G0 X2"];
/// What nobody named.
const OTHER: &[u8] = b"G0 X3";
/// One that comes from afar, and one of the plant's own.
const FILES: [&str; 2] = ["far.nc", "own.nc"];
/// What the plant's own holds.
const OWN: &[u8] = b"M30";

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
    /// Whether it takes its member's word from afar.
    from_afar: bool,
    /// Until when it may agree by what its member asked.
    agreed_afar: Option<Instant>,
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
    /// What the plant was asked to release, by its own member.
    released: BTreeSet<Program>,
    /// What the machine's folder held when it was last looked at.
    folder: BTreeMap<String, Vec<u8>>,
    /// How often a program came into it.
    came: usize,
    /// The folder.
    programs: PathBuf,
    /// The program that the job on the machine's list rests on, if it came from afar.
    rests: Option<Program>,
    /// What stood where somebody at the plant has put something else.
    tampered: Option<Vec<u8>>,
    /// The machine shows the program from afar, and runs; since when.
    runs: Option<Instant>,
    wrongs: Vec<String>,
}

/// What a folder holds.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

impl Truth {
    /// A program in the machine's folder: should it be there?
    fn look_at_folder(&mut self) {
        let found = contents(&self.programs);
        for (name, content) in &found {
            if self.folder.get(name) == Some(content) {
                continue;
            }
            let program = Program { name: name.clone(), sha256: Sha256::of(content) };
            let mut wrong = |is: bool, what: &str| {
                if is {
                    self.wrongs.push(format!("{program}: {what}"));
                }
            };
            wrong(name == FILES[1], "the plant's own program is gone");
            wrong(!self.released.contains(&program), "nobody released it");
            let replaced = self.folder.contains_key(name);
            let runs = self.runs.is_some_and(|since| since.elapsed() > STEP);
            wrong(replaced && runs, "the one before it is in use");
            let other = self.rests.as_ref().is_some_and(|rests| rests.name == *name && *rests != program);
            wrong(replaced && other && self.unlisted.is_none(), "a job rests on the one before it");
            self.came += 1;
        }
        self.folder = found;
    }
    /// A bid reaches the machine: should it have?
    fn witness(&mut self, bid: &Bid) {
        match (bid.verb, bid.of) {
            (Verb::Start, Some((epoch, _))) => {
                (self.allowed, self.allowed_at) = (Some(epoch), Instant::now());
            }
            (Verb::RevokeStart | Verb::Stop | Verb::Abort | Verb::Cancel, _) => self.allowed = None,
            _ => {}
        }
        let on_disk = |name: &str| {
            let content = std::fs::read(self.programs.join(name)).ok()?;
            Some(Program { name: name.to_owned(), sha256: Sha256::of(&content) })
        };
        match bid.verb {
            // The plant's own may be any; what came from afar is what it was when the job was stored.
            Verb::Store | Verb::Update => {
                self.rests = on_disk(&bid.program).filter(|program| self.released.contains(program));
            }
            Verb::Cancel | Verb::Clear => self.rests = None,
            _ => {}
        }
        let other = self.rests.as_ref().is_some_and(|rests| on_disk(&rests.name).as_ref() != Some(rests));
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
        wrong(bid.verb == Verb::Abort && !asked.is_by_the_plant(), "the plant did not ask it");
        let until = self.agreed.max(self.agreed_afar);
        let agreed = until.is_some_and(|until| now <= until + moment);
        wrong(bid.verb.moves() && !agreed, "the plant does not agree");
        wrong(bid.verb.moves() && other, "its program is another than when it was stored");
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
    health: Health,
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

/// A coordinator that hands over what it likes.
struct Liar(Mutex<Chance>);

impl Supply for Liar {
    fn part(&self, _: u64, sha256: Sha256, offset: u64) -> Part<'_> {
        let chance = &mut self.0.lock().unwrap();
        let named = CONTENTS.iter().find(|content| Sha256::of(content) == sha256).copied();
        let content = if chance.happens(300) { OTHER } else { named.unwrap_or(OTHER) };
        let part = content[(offset as usize).min(content.len())..].to_vec();
        let slow = Duration::from_millis(chance.between(0, 400));
        Box::pin(async move {
            tokio::time::sleep(slow).await;
            Ok(part.into())
        })
    }
}

/// A control that looks at the interlocks, and a witness before it.
async fn adapter(mut bids: mpsc::Receiver<Bid>, truth: Arc<Mutex<Truth>>, omitted: Option<Omitted>) {
    while let Some(bid) = bids.recv().await {
        // The control is slow, and now and then it is slow to say what it has done.
        tokio::time::sleep(STEP / 3).await;
        let program = match bid.pinned.is_some() {
            true => Some(interlock::program(bid.pinned.as_ref()).await),
            false => None,
        };
        let (interlocks, came) = carry_out(&bid, program, &mut truth.lock().unwrap(), omitted);
        if bid.of.is_some_and(|(_, nonce)| nonce % 4 == 0) {
            tokio::time::sleep(2 * STEP).await;
        }
        let _ = bid.answer.send(Answer { interlocks, came });
    }
}

fn carry_out(
    bid: &Bid,
    program: Option<Interlock>,
    truth: &mut Truth,
    omitted: Option<Omitted>,
) -> (Vec<Interlock>, Came) {
    let mut interlocks = interlock::check(bid.verb, &bid.job, &truth.fitness);
    interlocks.extend(program);
    let open = interlocks.iter().any(|lock| !lock.holds) && omitted != Some(Omitted::Interlocks);
    let late = bid.permit.check().is_err() && omitted != Some(Omitted::LastLook);
    if open || late {
        return (interlocks, Came::NotAsked("open, or late".to_owned()));
    }
    truth.witness(bid);
    (interlocks, Came::Answered { done: true, status: 1, words: "done".to_owned() })
}

impl World {
    fn new(seed: u64, omitted: Option<Omitted>, dir: &Path) -> Self {
        let never = |_| -> Pin<Box<dyn Future<Output = _> + Send>> { Box::pin(std::future::pending()) };
        let ground = Ground::Simulation { seed, dial: Arc::new(never) };
        let at = outbox::Options { dir: dir.join("outbox"), bytes_max: BYTES_MAX_DEFAULT };
        let programs = dir.join("programs");
        std::fs::create_dir(&programs).unwrap();
        std::fs::write(programs.join(FILES[1]), OWN).unwrap();
        let truth = Truth {
            released: BTreeSet::new(),
            folder: contents(&programs),
            came: 0,
            programs,
            rests: None,
            tampered: None,
            runs: None,
            from_afar: seed % 8 != 7,
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            asked: BTreeMap::new(),
            cut: None,
            agreed: None,
            agreed_afar: None,
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
        let health = Health::new("p", "a");
        let (agent, outbox) = start(&at, &ground, &kept, &line, &health, &truth, omitted);
        Self {
            health,
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
        let disagreed = truth.agreed.max(truth.agreed_afar).or(Some(truth.allowed_at));
        let since = [truth.ended.get(&epoch).copied(), truth.cut, disagreed];
        if since.into_iter().flatten().any(|since| since.elapsed() > TAKEN_BACK) {
            truth.wrongs.push(format!("{epoch}: the machine may still start"));
        }
    }

    async fn step(&mut self) {
        self.look_for_permissions();
        self.truth.lock().unwrap().look_at_folder();
        let (chance, now) = (&mut self.chance, Instant::now());
        let mut roll = |permille| chance.happens(permille);
        let (open, close, ask) = (roll(60), roll(20), roll(850));
        let (cut, heal, crash) = (roll(15), roll(40), roll(15));
        let (agree, disagree, relist, refit) = (roll(150), roll(40), roll(60), roll(200));
        // A file matters to somebody who would harm while a job rests on it.
        let rests = self.truth.lock().unwrap().rests.is_some();
        let (tamper, restore) = if rests { (roll(400), roll(100)) } else { (roll(60), roll(300)) };
        let (run, release) = (roll(100), roll(300));
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
        self.programs(tamper, restore, run);
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

    /// What happens to programs at the plant: somebody changes one that was released, or the machine takes one up.
    fn programs(&mut self, tamper: bool, restore: bool, run: bool) {
        let mut truth = self.truth.lock().unwrap();
        // What the agent did until now is not the plant's doing.
        truth.look_at_folder();
        let path = truth.programs.join(FILES[0]);
        if let Some(content) = truth.tampered.take_if(|_| restore) {
            std::fs::write(path, content).unwrap();
        } else if let (Ok(content), None, true) = (std::fs::read(&path), &truth.tampered, tamper) {
            std::fs::write(path, b"G0 X9").unwrap();
            truth.tampered = Some(content);
        }
        truth.folder = contents(&truth.programs);
        if run {
            truth.runs = if truth.runs.is_some() { None } else { Some(Instant::now()) };
            let runs = truth.runs.is_some();
            self.health.machine(MACHINES[0], |report| {
                report.program = Some(if runs { "//NC/FAR" } else { "other" }.to_owned());
                report.machine_state = if runs { "producing" } else { "idle" }.to_owned();
            });
        }
    }

    /// What is asked next, by whom.
    fn act(&mut self) -> Act {
        let sha256 = Sha256::of(CONTENTS[self.chance.between(0, 1) as usize]);
        let name = FILES[usize::from(self.chance.happens(150))].to_owned();
        let program = Program { name: name.clone(), sha256 };
        let rests = self.truth.lock().unwrap().rests.is_some();
        match self.chance.between(0, 29) {
            // Who has put something else in the file's place would have it run.
            12..=19 if rests => Act::Machine(Verb::Start, None),
            0..=3 => Act::Put(program, CONTENTS[0].len() as u64),
            4..=7 => Act::Release(program),
            8 => Act::Discard(program),
            9 => Act::Consent(Duration::from_secs(self.chance.between(1, 4))),
            10 => Act::Withdraw,
            _ => {
                let verb = VERBS[self.chance.between(0, VERBS.len() as u64 - 1) as usize];
                let wants = matches!(verb, Verb::Store | Verb::Update) && self.chance.happens(800);
                let sha256 = Some(sha256).filter(|_| self.chance.happens(400));
                Act::Machine(verb, wants.then_some(Wanted { name, sha256 }))
            }
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
        let truth = self.truth.lock().unwrap();
        let open: Vec<_> = truth.open.values().cloned().collect();
        if open.is_empty() {
            return;
        }
        let session = open[self.chance.between(0, open.len() as u64 - 1) as usize].clone();
        let nonce = truth.asked.range((session.epoch, 0)..=(session.epoch, u32::MAX)).count() as u32 + 1;
        drop(truth);
        let act = self.act();
        // A coordinator that does not look who asks.
        let by = if self.chance.happens(if act.is_the_plants() { 700 } else { 300 }) {
            "member:ya"
        } else {
            "buyer:bo"
        }
        .to_owned();
        let long = self.chance.happens(300) && !matches!(act, Act::Consent(_));
        let valid = Duration::from_secs(if long { 20 } else { self.chance.between(1, 4) });
        let mut truth = self.truth.lock().unwrap();
        let heeded = truth.from_afar && by == "member:ya";
        if let (Act::Release(program), true) = (&act, heeded) {
            truth.released.insert(program.clone());
        }
        if let (Act::Consent(within), true) = (&act, heeded) {
            // It may come late, and be repeated by nobody.
            let until = Instant::now() + *within + 2 * valid + 2 * STEP;
            truth.agreed_afar = truth.agreed_afar.max(Some(until));
        }
        let asked = Asked {
            epoch: session.epoch,
            nonce,
            machine_id: session.machine_id,
            booking_id: session.booking_id,
            operation: 0,
            holder: session.holder,
            by,
            closes_at_ms: session.closes_at_s * 1000,
            act,
            valid,
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
            start(&self.at, &self.ground, &self.kept, &self.line, &self.health, &self.truth, self.omitted);
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
    health: &Health,
    truth: &Arc<Mutex<Truth>>,
    omitted: Option<Omitted>,
) -> (Agent, Outbox) {
    let outbox = outbox::open(at, ground).unwrap();
    let (bids, taken) = mpsc::channel::<Bid>(16);
    let allowed = if omitted == Some(Omitted::Check(Refused::Machine)) { 2 } else { 1 };
    let known = truth.lock().unwrap();
    let (from_afar, programs) = (known.from_afar, Some(known.programs.clone()));
    drop(known);
    let rule = Rule { standing: Vec::new(), from_afar, programs };
    let hand = |id: &&str| ((*id).to_owned(), Hand { bids: bids.clone(), rule: rule.clone() });
    let mut quarantine = Quarantine::open(at.dir.parent().unwrap(), ground);
    quarantine.trusting = omitted == Some(Omitted::ContentHash);
    let supply: Arc<dyn Supply> = Arc::new(Liar(Mutex::new(ground.chance())));
    let options = Options {
        plant_id: "p".to_owned(),
        clock: Clock::default().read_by(wall_ms),
        outbox: outbox.clone(),
        kept: kept.subscribe(),
        line: line.subscribe(),
        hands: MACHINES[..allowed].iter().map(hand).collect(),
        quarantine,
        supply: watch::channel(Some(supply)).1,
        health: health.clone(),
        ground: ground.clone(),
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

/// What the witness says of a run, what reached the machine in it, and how many programs came into its folder.
fn play(seed: u64, omitted: Option<Omitted>) -> (Vec<String>, BTreeMap<Verb, usize>, usize) {
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
        (truth.wrongs.clone(), truth.verbs.clone(), truth.came)
    })
}

#[test]
fn nothing_forbidden_reaches_the_machine() {
    let mut reached: BTreeMap<Verb, usize> = BTreeMap::new();
    let more = std::env::var("MILLPOOL_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let mut programs = 0;
    for seed in 0..more.unwrap_or(SEEDS) {
        let (wrongs, verbs, came) = play(seed, None);
        programs += came;
        assert_eq!(wrongs, Vec::<String>::new(), "seed {seed}");
        verbs.into_iter().for_each(|(verb, count)| *reached.entry(verb).or_default() += count);
    }
    // A guard that lets nothing pass would be safe, too.
    for (verb, ..) in Verb::NAMED.iter().filter(|(verb, ..)| *verb != Verb::Stop) {
        assert!(reached.get(verb).is_some_and(|count| *count > 10), "{verb:?}: {reached:?}");
    }
    assert!(programs > 100, "{programs} programs came to the machine");
}

#[test]
fn every_guard_is_missed_when_it_is_left_out() {
    let checks = super::guard::CHECKS.iter().map(|(refused, _)| Omitted::Check(*refused));
    let others = [
        Omitted::Memory,
        Omitted::Consent,
        Omitted::Interlocks,
        Omitted::LastLook,
        Omitted::TakeBack,
        Omitted::ContentHash,
        Omitted::InUse,
        Omitted::Pinned,
    ];
    for omitted in checks.chain(others) {
        let found = (0..MISSED_WITHIN)
            .find_map(|seed| play(seed, Some(omitted)).0.first().map(|what| (seed, what.clone())));
        let Some((seed, what)) = found else {
            panic!("{omitted:?} is not missed within {MISSED_WITHIN} seeds")
        };
        println!("{omitted:?}: seed {seed}: {what}");
    }
}
