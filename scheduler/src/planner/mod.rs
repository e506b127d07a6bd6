//! The planner: every write passes through it on its way to the log, and quotes are answered by it.
//!
//! It keeps a **live** state: the applied one with everything applied that is on its way, so that
//! concurrent bookings seldom collide, and beside it the pool in the solver's words. A booking is placed on
//! the pool, applied to the live state (which refuses what the log would refuse), and submitted; the log's
//! answer is the one that counts. If it differs, the booking is placed anew within its terms.
//!
//! - [`pool`]: the state in the solver's words; [`quote`]: options; [`repair`]: places for displaced work;
//! - [`optimise`]: the whole plan made cheaper in the background; [`explain`]: why, and what would help.
//!
//! Architecture invariant: nothing but this folder knows both the alliance's and the solver's vocabulary.

pub mod explain;
pub mod optimise;
pub mod pool;
pub mod quote;
pub mod repair;

mod background;
mod live;

pub use background::Schedule;

use crate::clock::Clock;
use crate::consensus::{self, LeaderHint, ProposeError};
use crate::replica::Replica;
use crate::wire;
use live::Live;
use millpool_alliance::command::{Caller, Request};
use millpool_alliance::{
    Command, Entry, MachineId, Order, Outcome, PlanKind, PrincipalId, Reason, Refusal, Terms,
};
use optimise::{Improvement, Problem};
use quote::Candidate;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Most requests that wait for the planner; more are answered `Overloaded`.
pub const QUEUE_MAX: usize = 2048;
/// How often a booking is placed anew after the log has refused its place.
pub const PLACED_ANEW_MAX: u32 = 4;
/// How long the planner waits for what is on its way before it looks at the applied state.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The alliance says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This node does not lead.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<LeaderHint>,
    },
    /// Too much is asked at once.
    #[error("too much is asked at once")]
    Overloaded,
    /// It may or may not be done.
    #[error("the outcome is unknown")]
    Unknown,
    /// The node is going down.
    #[error("the node is going down")]
    Stopped,
}

/// A quote: the options and the state that they were computed from.
pub struct Quoted {
    /// Revision of the live state.
    pub revision: u64,
    /// The alliance's clock, seconds since the Unix epoch.
    pub now: i64,
    /// The options, soonest first, each with what would be promised, seconds since the Unix epoch.
    pub options: Vec<(Candidate, i64)>,
}

/// What a buyer books.
#[derive(Clone, Debug)]
pub struct Wish {
    /// For whom.
    pub buyer: PrincipalId,
    /// What.
    pub order: Arc<Order>,
    /// Within which terms.
    pub terms: Terms,
    /// Where it was quoted, if it was.
    pub quoted: Option<Vec<(MachineId, i64)>>,
    /// 0 confirms at once, else hold for so many seconds.
    pub hold_s: i64,
}

type Answer<T> = oneshot::Sender<Result<T, Failure>>;

enum Intent {
    Book(Wish),
    Do(Command),
}

struct Write {
    caller: Caller,
    request: Option<Request>,
    intent: Intent,
    placed_anew: u32,
    answer: Answer<Arc<Outcome>>,
}

enum Ask {
    Quote(Box<Order>, Answer<Quoted>),
    Write(Box<Write>),
    Explain(Box<explain::Question>, Answer<explain::Explanation>),
    Problem { ready_in_s: i64, answer: Answer<Option<Problem>> },
    Improve(Box<Improvement>, Answer<u32>),
}

/// Asks the planner. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
}

impl Handle {
    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send(ask(answer)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Failure::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Failure::Stopped,
        })?;
        answered.await.unwrap_or(Err(Failure::Unknown))
    }

    /// Options for an order on the live plan.
    pub async fn quote(&self, order: Order) -> Result<Quoted, Failure> {
        self.ask(|answer| Ask::Quote(Box::new(order), answer)).await
    }

    /// Books, and answers when it is committed.
    pub async fn book(
        &self,
        caller: Caller,
        request: Option<Request>,
        wish: Wish,
    ) -> Result<Arc<Outcome>, Failure> {
        self.write(caller, request, Intent::Book(wish)).await
    }

    /// Does anything else, and answers when it is committed.
    pub async fn execute(
        &self,
        caller: Caller,
        request: Option<Request>,
        command: Command,
    ) -> Result<Arc<Outcome>, Failure> {
        self.write(caller, request, Intent::Do(command)).await
    }

    async fn write(
        &self,
        caller: Caller,
        request: Option<Request>,
        intent: Intent,
    ) -> Result<Arc<Outcome>, Failure> {
        self.ask(|answer| Ask::Write(Box::new(Write { caller, request, intent, placed_anew: 0, answer })))
            .await
    }

    /// Why, and what would help.
    pub async fn explain(&self, question: explain::Question) -> Result<explain::Explanation, Failure> {
        self.ask(|answer| Ask::Explain(Box::new(question), answer)).await
    }

    async fn problem(&self, ready_in_s: i64) -> Result<Option<Problem>, Failure> {
        self.ask(|answer| Ask::Problem { ready_in_s, answer }).await
    }

    async fn improve(&self, improvement: Improvement) -> Result<u32, Failure> {
        self.ask(|answer| Ask::Improve(Box::new(improvement), answer)).await
    }
}

/// Proposals on their way to the log.
#[derive(Default)]
struct InFlight {
    count: AtomicUsize,
    idle: Notify,
    /// One of them came out otherwise than the live state assumed.
    differs: AtomicBool,
}

impl InFlight {
    fn done(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_waiters();
        }
    }
}

struct Planner {
    consensus: consensus::Handle<Replica>,
    clock: Clock,
    asks: mpsc::WeakSender<Ask>,
    in_flight: Arc<InFlight>,
    live: Option<Live>,
}

/// Starts the planner on a thread of its own, and the background optimisation. Both end when the last
/// handle is dropped.
pub fn start(consensus: consensus::Handle<Replica>, clock: Clock, schedule: Schedule) -> Handle {
    let (sender, mut receiver) = mpsc::channel(QUEUE_MAX);
    let mut planner = Planner {
        consensus: consensus.clone(),
        clock,
        asks: sender.downgrade(),
        in_flight: Arc::default(),
        live: None,
    };
    let runtime = tokio::runtime::Handle::current();
    // Placing is a search of up to some milliseconds: it has a thread, so that it never keeps the runtime's
    // threads from the network.
    std::thread::Builder::new()
        .name("planner".into())
        .spawn(move || runtime.block_on(planner.run(&mut receiver)))
        .map_err(|e| tracing::error!(error = %e, "the planner's thread cannot be started"))
        .ok();
    let handle = Handle { asks: sender };
    tokio::spawn(background::optimise(handle.asks.downgrade(), consensus, clock, schedule));
    handle
}

impl Planner {
    async fn run(&mut self, asks: &mut mpsc::Receiver<Ask>) {
        let mut housekeeping = tokio::time::interval(Duration::from_millis(500));
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let consensus = self.consensus.clone();
        let mut stopped = std::pin::pin!(consensus.stop_reason());
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => return,
                ask = asks.recv() => match ask {
                    Some(ask) => {
                        self.serve(ask).await;
                        if self.live.as_ref().is_some_and(|live| live.needs_repair) {
                            self.repair().await;
                        }
                    }
                    None => return,
                },
                _ = housekeeping.tick() => self.housekeep().await,
            }
            metrics::gauge!("millpool_planner_queue").set(asks.len() as f64);
        }
    }

    async fn serve(&mut self, ask: Ask) {
        match ask {
            Ask::Quote(order, answer) => {
                let _ = answer.send(self.quote(&order).await);
            }
            Ask::Write(write) => self.write(*write).await,
            Ask::Explain(question, answer) => {
                let now = self.clock.now_s();
                let explained = match self.live().await {
                    Ok(live) => live.explain(&question, now).map_err(Failure::from),
                    Err(failure) => Err(failure),
                };
                let _ = answer.send(explained);
            }
            Ask::Problem { ready_in_s, answer } => {
                let now = self.clock.now_s();
                let problem = self.live().await.map(|live| live.problem(now, ready_in_s));
                let _ = answer.send(problem);
            }
            Ask::Improve(improvement, answer) => {
                let moved = self.improve(*improvement).await;
                let _ = answer.send(moved);
            }
        }
    }

    /// The live state, taken anew from the applied one when this node has come to lead, or when something
    /// came out otherwise than assumed.
    async fn live(&mut self) -> Result<&mut Live, Failure> {
        let leadership = self.consensus.leadership();
        if !leadership.is_ready {
            self.live = None;
            return Err(Failure::NotLeader { leader: leadership.leader });
        }
        let stale = self.live.as_ref().is_none_or(|live| live.term != leadership.term);
        if stale || self.in_flight.differs.load(Ordering::Acquire) {
            return self.settled().await;
        }
        self.live.as_mut().ok_or(Failure::Stopped)
    }

    /// The live state when nothing is on its way: exactly the applied one, its revisions too.
    async fn settled(&mut self) -> Result<&mut Live, Failure> {
        let leadership = self.consensus.leadership();
        if !leadership.is_ready {
            self.live = None;
            return Err(Failure::NotLeader { leader: leadership.leader });
        }
        if !self.drain().await {
            return Err(Failure::Overloaded);
        }
        self.in_flight.differs.store(false, Ordering::Release);
        let view = self.consensus.state();
        let applied = view.state.0.seen_at(view.revision);
        let live = match self.live.take() {
            Some(live) => live.rebase(leadership.term, applied),
            None => Live::new(leadership.term, applied),
        };
        Ok(self.live.insert(live))
    }

    /// Waits until nothing is on its way, so that the applied state is the live one.
    async fn drain(&self) -> bool {
        let idle = async {
            loop {
                let notified = self.in_flight.idle.notified();
                if self.in_flight.count.load(Ordering::Acquire) == 0 {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(DRAIN_DEADLINE, idle).await.is_ok()
    }

    async fn quote(&mut self, order: &Order) -> Result<Quoted, Failure> {
        let now = self.clock.now_s();
        let live = self.live().await?;
        Ok(live.quote(order, now)?)
    }

    async fn write(&mut self, write: Write) {
        if let Some(first) = self.answered(&write) {
            return self.answer_again(write, first);
        }
        let at = self.clock.now_s();
        let live = match self.live().await {
            Ok(live) => live,
            Err(failure) => return drop(write.answer.send(Err(failure))),
        };
        let command = match &write.intent {
            Intent::Do(command) => Ok(command.clone()),
            // A repeated request whose first attempt is still on its way: the log will answer it.
            Intent::Book(_) if live.state.answered(&write.caller, write.request.as_ref()).is_some() => {
                Ok(Command::Tick)
            }
            Intent::Book(wish) => live.place(wish, at, write.placed_anew == 0),
        };
        let entry = command.map(|command| Entry {
            at,
            caller: write.caller.clone(),
            request: write.request.clone(),
            command,
        });
        match entry.and_then(|entry| live.apply(&entry).map(|()| entry)) {
            Ok(entry) => self.submit(entry, write).await,
            Err(refusal) => self.refuse(refusal, write),
        }
    }

    /// The first answer to a repeated request, if it is applied.
    fn answered(&self, write: &Write) -> Option<Result<Arc<Outcome>, Refusal>> {
        let applied = self.consensus.state();
        let first = applied.state.0.answered(&write.caller, write.request.as_ref())?;
        Some(first.map(|(reply, revision)| {
            Arc::new(Outcome { result: Ok(reply), revision, changes: Default::default() })
        }))
    }

    /// Answers a repeated request once it is sure that this node still leads.
    fn answer_again(&self, write: Write, first: Result<Arc<Outcome>, Refusal>) {
        let consensus = self.consensus.clone();
        tokio::spawn(async move {
            let answer = match consensus.linearize().await {
                Ok(_) => first.map_err(Failure::Refused),
                Err(_) => Err(Failure::NotLeader { leader: consensus.leadership().leader }),
            };
            let _ = write.answer.send(answer);
        });
    }

    /// Refuses once it is sure that this node still leads: a deposed leader's refusal may be out of date.
    fn refuse(&self, refusal: Refusal, write: Write) {
        metrics::counter!("millpool_refusals_total", "reason" => refusal.reason.code()).increment(1);
        self.answer_again(write, Err(refusal));
    }

    /// Sends an entry to the log, in order, and sees to its answer.
    async fn submit(&mut self, entry: Entry, mut write: Write) {
        let bytes = wire::command::encode(&entry);
        let term = self.live.as_ref().map(|live| live.term);
        let assumed = self.live.as_ref().map(|live| live.state.revision());
        self.in_flight.count.fetch_add(1, Ordering::AcqRel);
        let pending = self.consensus.submit(bytes.into(), term).await;
        let (in_flight, asks) = (self.in_flight.clone(), self.asks.clone());
        tokio::spawn(async move {
            let outcome = match pending {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            let as_assumed = matches!(
                &outcome,
                Ok(committed) if committed.reply.result.is_ok() && Some(committed.revision) == assumed
            );
            let outcome = outcome.map(|committed| committed.reply);
            if !as_assumed {
                in_flight.differs.store(true, Ordering::Release);
            }
            in_flight.done();
            let answer = match outcome {
                Ok(outcome) => match &outcome.result {
                    Ok(_) => Ok(outcome),
                    Err(refusal) => Err(Failure::Refused(refusal.clone())),
                },
                Err(error) => Err(unproposed(error)),
            };
            let lost_its_place = matches!(
                &answer,
                Err(Failure::Refused(r)) if matches!(r.reason, Reason::PlacementConflict | Reason::PromiseWorsened)
            );
            let again = lost_its_place
                && matches!(write.intent, Intent::Book(_))
                && write.placed_anew < PLACED_ANEW_MAX;
            match asks.upgrade() {
                Some(asks) if again => {
                    write.placed_anew += 1;
                    metrics::counter!("millpool_bookings_placed_anew_total").increment(1);
                    if let Err(mpsc::error::SendError(Ask::Write(write))) =
                        asks.send(Ask::Write(Box::new(write))).await
                    {
                        let _ = write.answer.send(answer);
                    }
                }
                _ => drop(write.answer.send(answer)),
            }
        });
    }

    /// Commits an improved plan if it still holds and is still better.
    async fn improve(&mut self, improvement: Improvement) -> Result<u32, Failure> {
        let at = self.clock.now_s();
        let live = self.settled().await?;
        let cost_before = live.state.cost_fen();
        let count = improvement.moves.len() as u32;
        let entry = live.plan_entry(PlanKind::Optimisation, improvement.moves, improvement.figures, at);
        let mut trial = live.state.clone();
        let outcome = trial.apply(live.state.revision() + 1, &entry);
        outcome.result?;
        if count > 0 && trial.cost_fen() >= cost_before {
            return Err(Failure::Refused(Refusal::because(
                Reason::PlanOutdated,
                "the plan has changed so that the improvement is none any more",
            )));
        }
        self.commit(entry).await?;
        Ok(count)
    }

    /// Applies and submits an entry of the planner's own.
    async fn commit(&mut self, entry: Entry) -> Result<(), Failure> {
        self.live().await?.apply(&entry)?;
        let (answer, answered) = oneshot::channel();
        let intent = Intent::Do(entry.command.clone());
        let write = Write { caller: entry.caller.clone(), request: None, intent, placed_anew: 0, answer };
        self.submit(entry, write).await;
        tokio::spawn(async move {
            if let Ok(Err(failure)) = answered.await {
                tracing::warn!(%failure, "the planner's own entry was not committed");
            }
        });
        Ok(())
    }

    /// Gives displaced work its places, the most urgent promise first.
    async fn repair(&mut self) {
        let at = self.clock.now_s();
        let Ok(live) = self.settled().await else { return };
        live.needs_repair = false;
        let displaced = repair::displaced(&live.state);
        if !displaced.is_empty() {
            tracing::info!(bookings = displaced.len(), "placing displaced work anew");
        }
        for id in displaced {
            // A plan entry names the revision that it was computed from, so each waits for the one before.
            let Ok(live) = self.settled().await else { return };
            let Some(entry) = live.repair_entry(&id, at) else { continue };
            if let Err(failure) = self.commit(entry).await {
                tracing::warn!(booking = %id, %failure, "displaced work was not placed");
            }
        }
    }

    /// Lets holds expire, and looks for displaced work that found no place before.
    async fn housekeep(&mut self) {
        let at = self.clock.now_s();
        let Ok(live) = self.live().await else { return };
        let due = live.state.next_expiry().is_some_and(|expires_at| expires_at <= at);
        let waiting = live.wants_repair_again(at);
        if due {
            let entry = Entry { at, caller: crate::api::operator(), request: None, command: Command::Tick };
            if let Err(failure) = self.commit(entry).await {
                tracing::warn!(%failure, "expired holds were not released");
            }
        }
        if waiting {
            self.repair().await;
        }
    }
}

fn unproposed(error: ProposeError) -> Failure {
    match error {
        ProposeError::NotLeader { leader } => Failure::NotLeader { leader },
        ProposeError::Unknown { .. } => Failure::Unknown,
        ProposeError::Overloaded { .. } => Failure::Overloaded,
        ProposeError::TooLarge { bytes, bytes_max } => Failure::Refused(Refusal::invalid(
            Reason::InvalidField,
            "request",
            format!("{bytes} bytes as a log entry"),
            &format!("at most {bytes_max} bytes"),
        )),
        ProposeError::Stopped(_) => Failure::Stopped,
    }
}
