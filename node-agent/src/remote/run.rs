//! Ties the rooms together: takes commands from the session in order, decides, puts the decision on disk, asks the
//! machine's adapter, and tells what came of it.
//!
//! One task a plant. What it remembers is a mark in the outbox, like an adapter's: which commands came, which are with a
//! machine and not answered, and which permissions to start were given and not used up.

use super::consent::{CONSENT_MAX, Consent, Consents, Rule};
use super::guard::{Guard, Known, LEASE, Refused};
use super::permit::{Command, Permit, lock};
use super::{Answer, Asked, Bid, Came, Line, Verb};
use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::outbox::{Entry, Mark, Outbox, OutboxError};
use bytes::Bytes;
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
/// A permission to start is taken back within this time, or tried again.
const REVOKE_WITHIN: Duration = Duration::from_secs(5);
/// A machine's adapter answers within so long after a command's time, or nothing is known.
const ANSWER_GRACE: Duration = Duration::from_secs(20);

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
}

/// A permission to start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Grant {
    machine_id: String,
    job: String,
    /// By which command it was given: its session and number.
    epoch: u64,
    nonce: u32,
    /// Whose session it was.
    holder: String,
}

impl Grant {
    fn by(asked: &Asked) -> Self {
        let (machine_id, job) = (asked.machine_id.clone(), asked.job());
        Self { machine_id, job, epoch: asked.epoch, nonce: asked.nonce, holder: asked.holder.clone() }
    }

    /// Whether another was given for the same job before.
    fn replaces(&self, other: &Grant) -> bool {
        (&self.machine_id, &self.job) == (&other.machine_id, &other.job)
            && (other.epoch, other.nonce) < (self.epoch, self.nonce)
    }
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
}

/// Decides on what is asked until `stop`.
pub async fn run(
    mut options: Options,
    mut told: mpsc::Receiver<Told>,
    stop: CancellationToken,
) -> Result<(), OutboxError> {
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
            _ = tick.tick() => remote.revoke_lost(),
            Some(told) = told.recv() => remote.hear(told).await?,
        }
    }
}

struct Remote {
    options: Options,
    memory: Memory,
    /// What is remembered and cannot be read; it stays as it is.
    unread: Option<Bytes>,
    consents: Arc<Mutex<Consents>>,
    /// What machines answer: the command, by whose consent, the answer.
    answers: JoinSet<(Asked, String, Answer)>,
    /// Permissions that are being taken back, and when it is tried again.
    revoking: BTreeMap<Grant, (Instant, oneshot::Receiver<Answer>)>,
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
        let permit = self.permit(&asked, &hand.rule);
        let consent = permit.consent();
        if consent.is_none() && permit.needs_consent() {
            let why = "the plant has not agreed that the machine moves";
            return self.tell(&asked, String::new(), Answer::not_asked(why)).await;
        }
        self.memory.pending.push((asked.epoch, asked.nonce, asked.machine_id.clone()));
        if asked.verb == Verb::Start {
            // Before the call: what may have been given may have to be taken back.
            self.memory.granted.insert(Grant::by(&asked));
        }
        if !self.omits(Omitted::Memory) {
            self.keep(Vec::new()).await?;
        }
        let consent = consent.filter(|_| asked.verb.moves()).unwrap_or_default();
        self.bid(asked, consent, permit, &hand);
        Ok(())
    }

    fn admit(&mut self, asked: &Asked) -> Result<(), Refused> {
        let items = self.options.kept.borrow().items_of(&asked.machine_id);
        let line = self.options.line.borrow();
        let known = Known {
            now: Instant::now(),
            now_ms: self.options.clock.now_ms(),
            alive: line.alive,
            commanded: self.options.hands.contains_key(&asked.machine_id),
            sessions: &line.sessions,
            items: &items,
        };
        self.memory.guard.admit(asked, &known)
    }

    fn permit(&self, asked: &Asked, rule: &Rule) -> Permit {
        Permit::Command(Box::new(Command {
            asked: asked.clone(),
            needs_consent: asked.verb.moves() && !self.omits(Omitted::Consent),
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
    fn bid(&mut self, asked: Asked, consent: String, permit: Permit, hand: &Hand) {
        let deadline = asked.deadline().unwrap_or_else(Instant::now);
        let (answer, answered) = oneshot::channel();
        let items = self.options.kept.borrow().items_of(&asked.machine_id);
        let item = items.iter().find(|item| format!("{}/{}", item.booking_id, item.operation) == asked.job());
        let bid = Bid {
            of: Some((asked.epoch, asked.nonce)),
            machine_id: asked.machine_id.clone(),
            verb: asked.verb,
            job: asked.job(),
            program: asked.program.clone(),
            planned_ms: item.map(|item| (item.start_s.saturating_mul(1000), item.end_s.saturating_mul(1000))),
            permit,
            answer,
        };
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
        self.memory.pending.retain(|(epoch, nonce, _)| (*epoch, *nonce) != (asked.epoch, asked.nonce));
        self.tell(asked, consent, answer).await
    }

    /// Tells what came of a command, together with what is remembered after it.
    async fn tell(&mut self, asked: &Asked, consent: String, answer: Answer) -> Result<(), OutboxError> {
        let outcome = self.outcome(consent, answer);
        tracing::info!(plant = self.options.plant_id, machine = asked.machine_id, session = asked.epoch,
            nonce = asked.nonce, verb = asked.verb.name(), by = asked.by, verdict = ?outcome.verdict(),
            words = outcome.words, "a remote command");
        metrics::counter!("millpool_agent_remote_commands_total", "verdict" => format!("{:?}", outcome.verdict()))
            .increment(1);
        let event = self.event(&asked.machine_id, asked.epoch, asked.nonce, outcome);
        self.keep(vec![event]).await
    }

    /// What a command's outcome means for permissions to start. Answers may be heard in another order than that in which
    /// the machine gave them: the commands' numbers tell which came first.
    fn note_grant(&mut self, asked: &Asked, came: &Came) {
        let own = Grant::by(asked);
        let ends =
            matches!(asked.verb, Verb::Start | Verb::RevokeStart | Verb::Stop | Verb::Abort | Verb::Cancel);
        match came {
            Came::Answered { done: true, .. } if ends => {
                self.memory.granted.retain(|grant| !own.replaces(grant));
                self.revoking.retain(|grant, _| !own.replaces(grant));
            }
            // It was not given; an earlier one may stand.
            Came::NotAsked(_) | Came::Rejected(_) | Came::Answered { done: false, .. } => {
                self.memory.granted.remove(&own);
            }
            Came::Answered { .. } | Came::NoAnswer(_) => {}
        }
    }

    fn outcome(&self, consent: String, answer: Answer) -> RemoteOutcome {
        let (verdict, words, return_status) = match answer.came {
            Came::NotAsked(why) => (RemoteVerdict::Refused, why, 0),
            Came::Answered { done: true, status, words } => (RemoteVerdict::Done, words, status),
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

    fn event(&self, machine_id: &str, epoch: u64, nonce: u32, outcome: RemoteOutcome) -> AgentEvent {
        let session_id = format!("s{epoch:06}");
        AgentEvent {
            seq: 0,
            at_ms: self.options.clock.now_ms(),
            machine_id: machine_id.to_owned(),
            what: Some(What::RemoteAnswered(RemoteAnswered { session_id, nonce, outcome: Some(outcome) })),
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
            let why = "the agent was restarted while the machine was asked";
            let answer = Answer { interlocks: Vec::new(), came: Came::NoAnswer(why.to_owned()) };
            self.event(&machine_id, epoch, nonce, self.outcome(String::new(), answer))
        });
        let events: Vec<_> = events.collect();
        if events.is_empty() { Ok(()) } else { self.keep(events).await }
    }

    /// Takes permissions to start back whose session is over, that were given over a line that is lost since, or to which
    /// nobody agrees any more.
    fn revoke_lost(&mut self) {
        if self.omits(Omitted::TakeBack) {
            return;
        }
        self.note_revoked();
        let now = Instant::now();
        let line = self.options.line.borrow().clone();
        let alive = line.alive.is_some_and(|alive| now - alive <= LEASE);
        let consents = lock(&self.consents).clone();
        let agreed = |Grant { machine_id, job, holder, .. }: &Grant| {
            let hand = self.options.hands.get(machine_id);
            hand.is_some_and(|hand| consents.find(machine_id, job, holder, &hand.rule, now).is_some())
        };
        let open = |grant: &Grant| line.sessions.iter().any(|session| session.epoch == grant.epoch);
        let stands = |grant: &Grant| alive && open(grant) && (agreed(grant) || self.omits(Omitted::Consent));
        let lost =
            self.memory.granted.iter().filter(|grant| !stands(grant) && !self.revoking.contains_key(*grant));
        for grant in lost.cloned().collect::<Vec<_>>() {
            let Some(hand) = self.options.hands.get(&grant.machine_id) else { continue };
            let (deadline, (answer, answered)) = (now + REVOKE_WITHIN, oneshot::channel());
            let bid = Bid {
                of: None,
                machine_id: grant.machine_id.clone(),
                verb: Verb::RevokeStart,
                job: grant.job.clone(),
                program: String::new(),
                planned_ms: None,
                permit: Permit::TakeBack { deadline },
                answer,
            };
            // Where there is no room it is tried again.
            let _ = hand.bids.try_send(bid);
            self.revoking.insert(grant, (deadline, answered));
        }
    }

    /// What has become of the permissions that are being taken back.
    fn note_revoked(&mut self) {
        let now = Instant::now();
        let Self { memory, revoking, options, .. } = self;
        revoking.retain(|grant, (again, answered)| match answered.try_recv() {
            // Done, or there is nothing to take back: it runs, is over, or is not there.
            Ok(Answer { came: Came::Answered { .. } | Came::Rejected(_), .. }) => {
                tracing::warn!(
                    plant = options.plant_id,
                    machine = grant.machine_id,
                    job = grant.job,
                    "a permission to start is taken back, unless it was used"
                );
                memory.granted.remove(grant);
                false
            }
            _ => now < *again,
        });
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
