//! Ties the rooms together: takes commands from the session in order, decides, puts the decision on disk, asks the
//! machine's adapter, and tells what came of it.
//!
//! One task a plant. What it remembers is a mark in the outbox, like an adapter's: which commands came, which are with a
//! machine and not answered, which permissions to start were given and not used up ([`grants`]), and on which program each
//! job rests ([`programs`]).

mod grants;
mod programs;

use super::consent::{CONSENT_MAX, Consent, Consents, Rule};
use super::guard::{Guard, Known, Refused};
use super::permit::{Command, Permit, lock};
use super::program::{Program, Rests, Wanted};
use super::quarantine::{Quarantine, Supply};
use super::{Act, Answer, Asked, Bid, Came, Line, Verb};
use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::ground::Ground;
use crate::health::Health;
use crate::outbox::{Entry, Mark, Outbox, OutboxError};
use bytes::Bytes;
use futures::future::BoxFuture;
use grants::{Grant, Revoking};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{AgentEvent, Interlock, RemoteAnswered, RemoteOutcome, RemoteVerdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Under which its memory stands in the outbox; no machine's id has a colon.
const MARK: &str = "remote:";
/// Messages that wait.
pub const WAITING_MAX: usize = 64;
/// Whether a lease or a session is lost is looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// A machine's adapter answers within so long after a command's time, or nothing is known.
const ANSWER_GRACE: Duration = Duration::from_secs(20);
/// A program is fetched within so long, or not at all.
const WORK_WITHIN: Duration = Duration::from_secs(600);
/// Commands that are being carried out; beyond these no program is fetched.
const WORKS_MAX: usize = 8;

/// What the task is told.
#[derive(Debug)]
pub enum Told {
    /// A command.
    Asked(Box<Asked>),
    /// A person agrees that a machine moves.
    Consent {
        /// The machine.
        machine_id: String,
        /// `BOOKING/OPERATION`; whatever is asked, where none is named.
        job: Option<String>,
        /// For so long.
        within: Duration,
        /// Who.
        by: String,
        /// What follows, in words, or why not.
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// A person takes that back.
    Withdraw {
        /// The machine.
        machine_id: String,
        /// Who.
        by: String,
        /// What follows, in words, or why not.
        answer: oneshot::Sender<Result<String, String>>,
    },
    /// A person lets a program out of quarantine, or throws it out.
    Program {
        /// The machine.
        machine_id: String,
        /// Which.
        program: Program,
        /// Out to where the machine reads its programs; or away.
        release: bool,
        /// Who.
        by: String,
        /// What follows, in words, or why not.
        answer: oneshot::Sender<Result<String, String>>,
    },
}

/// A machine that can be commanded.
#[derive(Clone, Debug)]
pub struct Hand {
    /// The way to its adapter.
    pub bids: mpsc::Sender<Bid>,
    /// What the plant allows.
    pub rule: Rule,
}

/// What is remembered through a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    guard: Guard,
    /// Commands that are with a machine, and not answered: (session, number, machine).
    pending: Vec<(u64, u32, String)>,
    /// Permissions to start that were given and may not be used up.
    granted: BTreeSet<Grant>,
    /// On which program each job rests.
    rests: Rests,
}

/// What the task is made with.
pub struct Options {
    /// The plant, for the log.
    pub plant_id: String,
    /// Its clock.
    pub clock: Clock,
    /// Where it tells what came of commands.
    pub outbox: Outbox,
    /// The dispatch list.
    pub kept: watch::Receiver<Arc<Kept>>,
    /// The line to the coordinator.
    pub line: watch::Receiver<Line>,
    /// The machines that can be commanded, and that the plant allows to be.
    pub hands: BTreeMap<String, Hand>,
    /// Where programs wait.
    pub quarantine: Quarantine,
    /// Whence they come; none while there is no line.
    pub supply: watch::Receiver<Option<Arc<dyn Supply>>>,
    /// What the machines are at.
    pub health: Health,
    /// Where their files are read.
    pub ground: Ground,
    /// A guard that is left out, to show that it is needed.
    #[cfg(test)]
    pub omitted: Option<Omitted>,
}

/// What can be left out, to show that it is needed; never but in this room's own tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omitted {
    /// A check of the guard's.
    Check(Refused),
    /// What came is not on disk before the machine is asked.
    Memory,
    /// Consent.
    Consent,
    /// Interlocks; the adapter's.
    Interlocks,
    /// The last look before the call; the adapter's.
    LastLook,
    /// What was not used is taken back.
    TakeBack,
    /// What comes into quarantine is held against its hash.
    ContentHash,
    /// A program that is in use is not replaced.
    InUse,
    /// What a job rests on is looked at before the call.
    Pinned,
}

/// Decides on what is asked until `stop`.
pub fn run(
    mut options: Options,
    mut told: mpsc::Receiver<Told>,
    stop: CancellationToken,
) -> BoxFuture<'static, Result<(), OutboxError>> {
    Box::pin(async move {
        let mark = options.outbox.mark(MARK).unwrap_or_else(|| Bytes::from_static(b"{}"));
        let read = serde_json::from_slice(&mark);
        let unread = read.is_err().then_some(mark);
        if let Err(error) = &read {
            // What was seen is not known: anything could be a repetition.
            tracing::error!(plant = options.plant_id, %error, "remote operation is off: what it remembers cannot be read");
            options.hands.clear();
        }
        let mut remote = Remote {
            memory: read.unwrap_or_default(),
            unread,
            options,
            consents: Arc::default(),
            answers: JoinSet::new(),
            revoking: BTreeMap::new(),
        };
        #[cfg(test)]
        if let Some(Omitted::Check(check)) = remote.options.omitted {
            remote.memory.guard.without = Some(check);
        }
        remote.tell_forgotten().await?;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                // What was done and what is to be taken back goes before whatever else is asked.
                biased;
                () = stop.cancelled() => return remote.finish().await,
                Some(answered) = remote.answers.join_next() => match answered {
                    Ok((asked, consent, answer)) => remote.take(&asked, consent, answer).await?,
                    Err(died) => tracing::error!(%died, "a command's answer was lost"),
                },
                _ = tick.tick() => remote.revoke_lost().await?,
                Some(told) = told.recv() => remote.hear(told).await?,
            }
        }
    })
}

struct Remote {
    options: Options,
    memory: Memory,
    /// What is remembered and cannot be read; it stays as it is.
    unread: Option<Bytes>,
    consents: Arc<Mutex<Consents>>,
    /// What machines answer: the command, by whose consent, the answer.
    answers: JoinSet<(Asked, String, Answer)>,
    /// Permissions that are being taken back.
    revoking: BTreeMap<Grant, Revoking>,
}

impl Remote {
    async fn hear(&mut self, told: Told) -> Result<(), OutboxError> {
        match told {
            Told::Asked(asked) => self.ask(*asked).await?,
            Told::Consent { machine_id, job, within, by, answer } => {
                // Whoever asked may have gone.
                let _ = answer.send(self.consent(machine_id, job, within, by));
            }
            Told::Withdraw { machine_id, by, answer } => {
                let _ = answer.send(self.withdraw(&machine_id, &by));
            }
            Told::Program { machine_id, program, release, by, answer } => {
                tracing::info!(plant = self.options.plant_id, machine = machine_id, %program, release, by,
                    "a program in quarantine");
                let moving = self.move_program(machine_id, program, release, None);
                tokio::spawn(async move {
                    let _ = answer.send(moving.await);
                });
            }
        }
        Ok(())
    }

    fn consent(
        &mut self,
        machine_id: String,
        job: Option<String>,
        within: Duration,
        by: String,
    ) -> Result<String, String> {
        if !self.options.hands.contains_key(&machine_id) {
            return Err(Refused::Machine.to_string());
        }
        if within.is_zero() || within > CONSENT_MAX {
            let hours = CONSENT_MAX.as_secs() / 3600;
            return Err(format!("for = {} s: accepted is 1 s to {hours} h", within.as_secs()));
        }
        tracing::info!(
            plant = self.options.plant_id,
            machine = machine_id,
            job,
            by,
            "the plant agrees that it moves"
        );
        let minutes = within.as_secs().div_ceil(60);
        let what = job.clone().unwrap_or_else(|| "whatever its session's holder asks".to_owned());
        lock(&self.consents).give(Consent { machine_id, job, until: Instant::now() + within, by });
        Ok(format!("for {minutes} minutes the machine may be started for {what}"))
    }

    fn withdraw(&mut self, machine_id: &str, by: &str) -> Result<String, String> {
        tracing::info!(plant = self.options.plant_id, machine = machine_id, by, "the plant agrees no more");
        match lock(&self.consents).withdraw(machine_id) {
            true => Ok("nothing that makes it move is let pass any more, but by a standing rule".to_owned()),
            false => Err("nobody had agreed to anything".to_owned()),
        }
    }

    /// The first two rooms. What passes goes to the machine's adapter, which is the third.
    async fn ask(&mut self, asked: Asked) -> Result<(), OutboxError> {
        if let Err(refused) = self.admit(&asked) {
            return self.refuse(&asked, refused).await;
        }
        let Some(hand) = self.options.hands.get(&asked.machine_id).cloned() else { return Ok(()) };
        match asked.act.clone() {
            Act::Machine(verb, wanted) => self.ask_machine(asked, verb, wanted, &hand).await,
            Act::Put(program, bytes) => self.put(asked, program, bytes).await,
            Act::Release(program) => {
                let moving = self.move_program(asked.machine_id.clone(), program, true, None);
                self.work(asked, moving).await
            }
            Act::Discard(program) => {
                let holder = (!asked.is_by_the_plant()).then(|| asked.holder.clone());
                let moving = self.move_program(asked.machine_id.clone(), program, false, holder);
                self.work(asked, moving).await
            }
            Act::Consent(within) => {
                let (machine_id, job, by) = (asked.machine_id.clone(), asked.job(), asked.by.clone());
                let said = self.consent(machine_id, Some(job), within, by);
                self.tell(&asked, asked.by.clone(), done(said)).await
            }
            Act::Withdraw => {
                let said = self.withdraw(&asked.machine_id, &asked.by);
                self.tell(&asked, String::new(), done(said)).await
            }
        }
    }

    /// Does for a command what is not the machine's, aside.
    async fn work(
        &mut self,
        asked: Asked,
        work: impl Future<Output = Result<String, String>> + Send + 'static,
    ) -> Result<(), OutboxError> {
        self.memory.pending.push((asked.epoch, asked.nonce, asked.machine_id.clone()));
        self.keep(Vec::new()).await?;
        self.answers.spawn(async move {
            let answer = match tokio::time::timeout(WORK_WITHIN, work).await {
                Ok(said) => done(said),
                Err(_) => Answer::not_asked(format!("it was not done within {WORK_WITHIN:?}")),
            };
            (asked, String::new(), answer)
        });
        Ok(())
    }

    /// Asks the machine, if the plant agrees and it is known on which program its job rests.
    async fn ask_machine(
        &mut self,
        asked: Asked,
        verb: Verb,
        wanted: Option<Wanted>,
        hand: &Hand,
    ) -> Result<(), OutboxError> {
        let permit = self.permit(&asked, &hand.rule);
        let consent = permit.consent();
        if consent.is_none() && permit.needs_consent() {
            let why = "the plant has not agreed that the machine moves";
            return self.tell(&asked, String::new(), Answer::not_asked(why)).await;
        }
        let pinned = match self.pinned(&asked, verb, wanted.as_ref(), hand) {
            Ok(pinned) => pinned,
            Err(why) => return self.tell(&asked, String::new(), Answer::not_asked(why)).await,
        };
        self.memory.pending.push((asked.epoch, asked.nonce, asked.machine_id.clone()));
        if verb == Verb::Start {
            // Before the call: what may have been given may have to be taken back.
            self.memory.granted.insert(Grant::by(&asked));
        }
        if verb.changes_program() {
            // Until it is answered nobody knows on what the job rests.
            // What is released under this name only later is looked for then.
            let sha256 = pinned.as_ref().map(|pinned| pinned.program.sha256);
            let on = wanted.clone().map(|wanted| Wanted { sha256, ..wanted });
            self.memory.rests.begin(&asked.machine_id, &asked.job(), asked.id(), on);
        }
        if !self.omits(Omitted::Memory) {
            self.keep(Vec::new()).await?;
        }
        let consent = consent.filter(|_| verb.moves()).unwrap_or_default();
        let items = self.options.kept.borrow().items_of(&asked.machine_id);
        let item = items.iter().find(|item| job_of(&item.booking_id, item.operation) == asked.job());
        let (answer, answered) = oneshot::channel();
        let bid = Bid {
            of: Some(asked.id()),
            machine_id: asked.machine_id.clone(),
            verb,
            job: asked.job(),
            program: wanted.map(|wanted| wanted.name).unwrap_or_default(),
            pinned: pinned.filter(|_| !self.omits(Omitted::Pinned)),
            planned_ms: item.map(|item| (item.start_s.saturating_mul(1000), item.end_s.saturating_mul(1000))),
            permit,
            answer,
        };
        self.hand_over(asked, consent, bid, answered, hand);
        Ok(())
    }

    fn admit(&mut self, asked: &Asked) -> Result<(), Refused> {
        let items = self.options.kept.borrow().items_of(&asked.machine_id);
        let line = self.options.line.borrow();
        let hand = self.options.hands.get(&asked.machine_id);
        let known = Known {
            now: Instant::now(),
            now_ms: self.options.clock.now_ms(),
            alive: line.alive,
            commanded: hand.is_some(),
            from_afar: hand.is_some_and(|hand| hand.rule.from_afar),
            sessions: &line.sessions,
            items: &items,
        };
        self.memory.guard.admit(asked, &known)
    }

    fn permit(&self, asked: &Asked, rule: &Rule) -> Permit {
        Permit::Command(Box::new(Command {
            asked: asked.clone(),
            needs_consent: asked.act.moves() && !self.omits(Omitted::Consent),
            rule: rule.clone(),
            clock: self.options.clock,
            guard: self.memory.guard.clone(),
            line: self.options.line.clone(),
            kept: self.options.kept.clone(),
            consents: self.consents.clone(),
        }))
    }

    async fn refuse(&mut self, asked: &Asked, refused: Refused) -> Result<(), OutboxError> {
        metrics::counter!("millpool_agent_remote_refused_total", "why" => format!("{refused:?}"))
            .increment(1);
        tracing::warn!(plant = self.options.plant_id, ?asked, why = %refused, "a remote command is refused");
        match refused {
            // The first of them is answered.
            Refused::Repeated => Ok(()),
            refused => self.tell(asked, String::new(), Answer::not_asked(refused.to_string())).await,
        }
    }

    #[cfg(test)]
    fn omits(&self, what: Omitted) -> bool {
        self.options.omitted == Some(what)
    }

    #[cfg(not(test))]
    fn omits(&self, _: Omitted) -> bool {
        false
    }

    /// Hands a command to its machine's adapter, and waits for the answer aside.
    fn hand_over(
        &mut self,
        asked: Asked,
        consent: String,
        bid: Bid,
        answered: oneshot::Receiver<Answer>,
        hand: &Hand,
    ) {
        let deadline = asked.deadline().unwrap_or_else(Instant::now);
        let taken = hand.bids.try_send(bid).is_ok();
        self.answers.spawn(async move {
            let no_answer =
                |why: &str| Answer { interlocks: Vec::new(), came: Came::NoAnswer(why.to_owned()) };
            let answer = match tokio::time::timeout_at(deadline + ANSWER_GRACE, answered).await {
                Ok(Ok(answer)) => answer,
                _ if !taken => Answer::not_asked("too much waits for the machine already"),
                Ok(Err(_)) => no_answer("the machine's adapter stopped while it asked the machine"),
                Err(_) => no_answer("the machine's adapter has not answered"),
            };
            (asked, consent, answer)
        });
    }

    /// Takes in what came of a command that was let pass.
    async fn take(&mut self, asked: &Asked, consent: String, answer: Answer) -> Result<(), OutboxError> {
        self.note_grant(asked, &answer.came);
        self.note_rest(asked, &answer.came);
        self.memory.pending.retain(|(epoch, nonce, _)| (*epoch, *nonce) != (asked.epoch, asked.nonce));
        self.tell(asked, consent, answer).await
    }

    /// Tells what came of a command, together with what is remembered after it.
    async fn tell(&mut self, asked: &Asked, consent: String, answer: Answer) -> Result<(), OutboxError> {
        let outcome = self.outcome(consent, answer);
        tracing::info!(plant = self.options.plant_id, machine = asked.machine_id, session = asked.epoch,
            nonce = asked.nonce, verb = asked.act.name(), by = asked.by, verdict = ?outcome.verdict(),
            words = outcome.words, "a remote command");
        metrics::counter!("millpool_agent_remote_commands_total", "verdict" => format!("{:?}", outcome.verdict()))
            .increment(1);
        let event = self.event(&asked.machine_id, asked.id(), outcome, false);
        self.keep(vec![event]).await
    }

    fn outcome(&self, consent: String, answer: Answer) -> RemoteOutcome {
        let (verdict, words, return_status) = match answer.came {
            Came::NotAsked(why) => (RemoteVerdict::Refused, why, 0),
            Came::Answered { done: true, status, words } => (RemoteVerdict::Done, words, status),
            Came::Done(words) => (RemoteVerdict::Done, words, 0),
            Came::Answered { done: false, status, words } => (RemoteVerdict::Rejected, words, status),
            Came::Rejected(why) => (RemoteVerdict::Rejected, why, 0),
            Came::NoAnswer(why) => (RemoteVerdict::Unknown, why, 0),
        };
        let locks = answer.interlocks.into_iter();
        let locks =
            locks.map(|lock| Interlock { name: lock.name.to_owned(), holds: lock.holds, seen: lock.seen });
        RemoteOutcome {
            verdict: verdict.into(),
            at_s: self.options.clock.now_ms().div_euclid(1000),
            words: crate::adapter::cut(&words, 500).to_owned(),
            consent,
            interlocks: locks.collect(),
            return_status,
        }
    }

    fn event(
        &self,
        machine_id: &str,
        (epoch, nonce): (u64, u32),
        outcome: RemoteOutcome,
        taken_back: bool,
    ) -> AgentEvent {
        let (session_id, outcome) = (format!("s{epoch:06}"), Some(outcome));
        AgentEvent {
            seq: 0,
            at_ms: self.options.clock.now_ms(),
            machine_id: machine_id.to_owned(),
            what: Some(What::RemoteAnswered(RemoteAnswered { session_id, nonce, outcome, taken_back })),
        }
    }

    async fn keep(&self, events: Vec<AgentEvent>) -> Result<(), OutboxError> {
        let state = || serde_json::to_vec(&self.memory).unwrap_or_default().into();
        let mark = Mark { key: MARK.to_owned(), state: self.unread.clone().unwrap_or_else(state) };
        self.options.outbox.append(Entry { events, mark: Some(mark) }).await
    }

    /// Commands that were with a machine when the agent stopped: nobody knows what came of them.
    async fn tell_forgotten(&mut self) -> Result<(), OutboxError> {
        let forgotten = std::mem::take(&mut self.memory.pending);
        let events = forgotten.into_iter().map(|(epoch, nonce, machine_id)| {
            let why = "the agent was restarted while it was being done";
            let answer = Answer { interlocks: Vec::new(), came: Came::NoAnswer(why.to_owned()) };
            self.event(&machine_id, (epoch, nonce), self.outcome(String::new(), answer), false)
        });
        let events: Vec<_> = events.collect();
        if events.is_empty() { Ok(()) } else { self.keep(events).await }
    }

    /// What machines still answer is told, for a moment; the rest is told after the next start.
    async fn finish(mut self) -> Result<(), OutboxError> {
        let until = Instant::now() + Duration::from_secs(1);
        while let Ok(Some(answered)) = tokio::time::timeout_at(until, self.answers.join_next()).await {
            if let Ok((asked, consent, answer)) = answered {
                self.take(&asked, consent, answer).await?;
            }
        }
        Ok(())
    }
}

/// What the plant did without the machine, as an answer.
fn done(said: Result<String, String>) -> Answer {
    match said {
        Ok(words) => Answer { interlocks: Vec::new(), came: Came::Done(words) },
        Err(why) => Answer::not_asked(why),
    }
}

/// The id of an operation's job.
fn job_of(booking_id: &str, operation: u32) -> String {
    format!("{booking_id}/{operation}")
}
