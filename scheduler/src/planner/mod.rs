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

mod anywhere;
mod background;
mod live;

pub use anywhere::Quotes;
pub use background::Schedule;
/// Waits for what a cancelled optimisation has left behind; to be called before the process ends.
pub use millpool_solver::await_stragglers;

use crate::clock::Clock;
use crate::consensus::{self, LeaderHint, Offload, ProposeError};
use crate::planted::{Bug, planted};
use crate::replica::Replica;
use crate::wire;
use futures::FutureExt as _;
use live::Live;
use millpool_alliance::command::{Caller, Request};
use millpool_alliance::{
    Booking, Command, Entry, Format, MachineId, Order, Outcome, PlanKind, PrincipalId, Reason, Refusal,
    Reply, State, Terms,
};
use optimise::{Improvement, Problem};
use quote::Quoted;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

/// Most requests that wait for the planner; more are answered `Overloaded`.
pub const QUEUE_MAX: usize = 2048;
/// How often a booking is placed anew after the log has refused its place.
pub const PLACED_ANEW_MAX: u32 = 4;
/// How often a write is considered again that was refused because of something that came to nothing itself.
pub const RECONSIDERED_MAX: u32 = 4;
/// Explanations worked out at once; others wait.
pub const EXPLAINED_AT_ONCE_MAX: usize = 1;
/// How long a question why waits for its turn.
const EXPLAIN_WAIT: Duration = Duration::from_secs(5);
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

impl Wish {
    /// The command that books it at these places.
    fn at(&self, placement: Vec<(MachineId, i64)>) -> Command {
        Command::Book {
            buyer: self.buyer.clone(),
            order: self.order.clone(),
            terms: self.terms.clone(),
            placement,
            hold_s: self.hold_s,
        }
    }

    /// The command that books it where `first` stands.
    fn at_places_of(&self, first: &Booking) -> Command {
        let places = first.steps.iter().flat_map(|s| &s.place);
        self.at(places.map(|p| (p.machine.clone(), p.start)).collect())
    }
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
    /// How often it was refused because of something that came to nothing itself.
    reconsidered: u32,
    answer: Answer<Arc<Outcome>>,
}

impl Write {
    /// The log entry that does `command` for whoever asks.
    fn entry(&self, at: i64, command: Command) -> Entry {
        Entry { at, caller: self.caller.clone(), request: self.request.clone(), command }
    }
}

enum Ask {
    Quote(Box<Order>, Answer<Quoted>),
    Write(Box<Write>),
    State(Answer<State>),
    Improve(Box<Improvement>, Answer<Improved>),
}

/// A plan that was committed.
struct Improved {
    /// Operations that moved.
    moved: u32,
    /// The plan's revision after it.
    plan_revision: u64,
    /// Nothing else had changed the plan since the problem was posed.
    undisturbed: bool,
}

/// Asks the planner. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    clock: Clock,
    offload: Offload,
    explaining: Arc<Semaphore>,
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
        self.ask(|answer| {
            Ask::Write(Box::new(Write { caller, request, intent, placed_anew: 0, reconsidered: 0, answer }))
        })
        .await
    }

    /// Why, and what would help. Many searches, so not on the planner's thread, and few at once.
    pub async fn explain(&self, question: explain::Question) -> Result<explain::Explanation, Failure> {
        let turn = tokio::time::timeout(EXPLAIN_WAIT, self.explaining.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Failure::Overloaded) };
        let state = self.state(0).await?;
        let explained = self.offload.run(move || {
            let pool = pool::Pool::build(&state, state.now());
            explain::explain(&state, &pool, &question)
        });
        Ok(explained.await.map_err(|_| Failure::Unknown)??)
    }

    /// The live state as it will be `ahead_s` seconds from now if nothing happens.
    async fn state(&self, ahead_s: i64) -> Result<State, Failure> {
        let state = self.ask(Ask::State).await?;
        Ok(state.as_of(state.now().max(self.clock.now_s()) + ahead_s))
    }

    /// The problem of making the plan cheaper; None if nothing can move.
    async fn problem(&self, ready_in_s: i64) -> Result<Option<Problem>, Failure> {
        let state = self.state(ready_in_s).await?;
        self.offload.run(move || Problem::of(&state)).await.map_err(|_| Failure::Unknown)
    }

    async fn improve(&self, improvement: Improvement) -> Result<Improved, Failure> {
        self.ask(|answer| Ask::Improve(Box::new(improvement), answer)).await
    }
}

/// Proposals on their way to the log, by the order in which they were sent.
#[derive(Default)]
struct InFlight {
    open: Mutex<Open>,
    one_less: Notify,
    /// One of them came out otherwise than the live state assumed.
    differs: AtomicBool,
}

#[derive(Default)]
struct Open {
    tickets: BTreeSet<u64>,
    last: u64,
    differences: u64,
}

/// What was on its way at some moment, and how much had come out otherwise than assumed by then.
#[derive(Clone, Copy)]
struct Mark {
    last: u64,
    differences: u64,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> Ticket {
        let mut open = self.lock();
        open.last += 1;
        let number = open.last;
        open.tickets.insert(number);
        Ticket { in_flight: self.clone(), number, as_assumed: false }
    }

    fn mark(&self) -> Mark {
        let open = self.lock();
        Mark { last: open.last, differences: open.differences }
    }

    /// Waits until all that was on its way at `mark` has come out. Says whether all of it did as assumed.
    async fn came_out(&self, mark: Mark) -> bool {
        loop {
            let one_less = self.one_less.notified();
            {
                let open = self.lock();
                if open.tickets.first().is_none_or(|first| *first > mark.last) {
                    return open.differences == mark.differences;
                }
            }
            one_less.await;
        }
    }
}

/// A proposal's place among those on their way; given up when dropped.
struct Ticket {
    in_flight: Arc<InFlight>,
    number: u64,
    as_assumed: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.in_flight.lock();
        open.tickets.remove(&self.number);
        if !self.as_assumed {
            open.differences += 1;
            self.in_flight.differs.store(true, Ordering::Release);
        }
        drop(open);
        self.in_flight.one_less.notify_waiters();
    }
}

/// A handle that does not keep the planner going.
struct Idle {
    asks: mpsc::WeakSender<Ask>,
    clock: Clock,
    offload: Offload,
    explaining: Arc<Semaphore>,
}

impl Idle {
    fn of(handle: &Handle) -> Idle {
        let (asks, explaining) = (handle.asks.downgrade(), handle.explaining.clone());
        Idle { asks, clock: handle.clock, offload: handle.offload, explaining }
    }

    /// None when the planner is gone.
    fn handle(&self) -> Option<Handle> {
        let asks = self.asks.upgrade()?;
        let explaining = self.explaining.clone();
        Some(Handle { asks, clock: self.clock, offload: self.offload, explaining })
    }
}

struct Planner {
    consensus: consensus::Handle<Replica>,
    clock: Clock,
    asks: mpsc::WeakSender<Ask>,
    in_flight: Arc<InFlight>,
    live: Option<Live>,
    /// A repair was broken off and is to be taken up again.
    repair_broken_off: bool,
}

/// Starts the planner on a thread of its own, if `offload` has threads, and the background optimisation. Both
/// end when the last handle is dropped.
pub fn start(
    consensus: consensus::Handle<Replica>,
    clock: Clock,
    schedule: Schedule,
    offload: Offload,
) -> Handle {
    let (sender, mut receiver) = mpsc::channel(QUEUE_MAX);
    let mut planner = Planner {
        consensus: consensus.clone(),
        clock,
        asks: sender.downgrade(),
        in_flight: Arc::default(),
        live: None,
        repair_broken_off: false,
    };
    let plan = async move { planner.run(&mut receiver).await };
    let runtime = tokio::runtime::Handle::current();
    match offload {
        Offload::Inline => drop(tokio::spawn(plan)),
        // Placing is a search of up to some milliseconds: it has a thread, so that it never keeps the runtime's
        // threads from the network.
        Offload::Threads => std::thread::Builder::new()
            .name("planner".into())
            .spawn(move || runtime.block_on(plan))
            .map_or_else(|e| tracing::error!(error = %e, "the planner's thread cannot be started"), drop),
    }
    let explaining = Arc::new(Semaphore::new(EXPLAINED_AT_ONCE_MAX));
    let handle = Handle { asks: sender, clock, offload, explaining };
    tokio::spawn(background::optimise(Idle::of(&handle), consensus, clock, schedule));
    handle
}

impl Planner {
    async fn run(&mut self, asks: &mut mpsc::Receiver<Ask>) {
        let mut housekeeping = tokio::time::interval(Duration::from_millis(500));
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let consensus = self.consensus.clone();
        let mut stopped = std::pin::pin!(consensus.stop_reason());
        loop {
            // The clock first: it is rare, and however much is asked, holds expire and repairs go on.
            let ask = tokio::select! {
                biased;
                _ = &mut stopped => return,
                _ = housekeeping.tick() => None,
                ask = asks.recv() => match ask {
                    Some(ask) => Some(ask),
                    None => return,
                },
            };
            // One question that the planner stumbles over must not leave the leader without a planner.
            if AssertUnwindSafe(self.turn(ask)).catch_unwind().await.is_err() {
                metrics::counter!("millpool_planner_panics_total").increment(1);
                tracing::error!(
                    "the planner stumbled; what it was asked is not answered, and it begins anew"
                );
                self.live = None;
            }
            metrics::gauge!("millpool_planner_queue").set(asks.len() as f64);
        }
    }

    async fn turn(&mut self, ask: Option<Ask>) {
        match ask {
            Some(ask) => self.serve(ask).await,
            None => self.housekeep().await,
        }
        if self.live.as_ref().is_some_and(|live| live.needs_repair) {
            self.repair().await;
        }
    }

    async fn serve(&mut self, ask: Ask) {
        match ask {
            Ask::Quote(order, answer) => {
                let _ = answer.send(self.quote(&order).await);
            }
            Ask::Write(write) => self.write(*write).await,
            Ask::State(answer) => {
                let state = self.live().await.map(|live| live.state.clone());
                let _ = answer.send(state);
            }
            Ask::Improve(improvement, answer) => self.improve(*improvement, answer).await,
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
        let all_out = self.in_flight.came_out(self.in_flight.mark());
        tokio::time::timeout(DRAIN_DEADLINE, all_out).await.is_ok()
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
        let mark = self.in_flight.mark();
        let live = match self.live().await {
            Ok(live) => live,
            Err(failure) => return drop(write.answer.send(Err(failure))),
        };
        let term = live.term;
        let entry = match &write.intent {
            Intent::Do(command) => live.accept(write.entry(at, command.clone())),
            Intent::Book(wish) => match live.state.answered(&write.caller, write.request.as_ref()) {
                // A repeated request whose first attempt is still on its way: the same again. The log gives
                // the first answer, or, if that came to nothing, books it now.
                Some(Ok((Reply::Booking(first), _))) => {
                    live.accept(write.entry(at, wish.at_places_of(&first)))
                }
                _ => live.book(wish, at, &write),
            },
        };
        match entry {
            Ok(entry) => self.submit(entry, write).await,
            Err(refusal) => self.refuse(refusal, write, mark, term),
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
        let term = self.consensus.leadership().term;
        tokio::spawn(assured(self.consensus.clone(), write, first, term));
    }

    /// Refuses once all has come out that the live state counted on when it said no, and once it is sure
    /// that this node still leads: a deposed leader's refusal may be out of date. If something came out
    /// otherwise, the question is put again.
    fn refuse(&self, refusal: Refusal, mut write: Write, mark: Mark, term: u64) {
        metrics::counter!("millpool_refusals_total", "reason" => refusal.reason.code()).increment(1);
        let (in_flight, asks) = (self.in_flight.clone(), self.asks.clone());
        let consensus = self.consensus.clone();
        tokio::spawn(async move {
            let as_assumed = in_flight.came_out(mark).await;
            if !as_assumed && write.reconsidered < RECONSIDERED_MAX {
                write.reconsidered += 1;
                return ask_again(&asks, write, Err(Failure::Refused(refusal))).await;
            }
            assured(consensus, write, Err(refusal), term).await;
        });
    }

    /// Sends an entry to the log, in order, and sees to its answer.
    async fn submit(&mut self, entry: Entry, mut write: Write) {
        // The live state has this entry in it already, and with it the format that it is written in.
        let format = self.live.as_ref().map_or_else(Format::default, |live| live.state.format());
        let bytes = wire::command::encode(&entry, format);
        let term = self.live.as_ref().map(|live| live.term);
        let assumed = self.live.as_ref().map(|live| live.state.revision());
        let mut ticket = self.in_flight.begin();
        let pending = self.consensus.submit(bytes.into(), term).await;
        if planted(Bug::AnsweredBeforeCommit) {
            write = self.answer_already(&entry, write);
        }
        let asks = self.asks.clone();
        tokio::spawn(async move {
            let outcome = match pending {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            ticket.as_assumed = matches!(
                &outcome,
                Ok(committed) if committed.reply.result.is_ok() && Some(committed.revision) == assumed
            );
            drop(ticket);
            let answer = match outcome.map(|committed| committed.reply) {
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
            if again {
                write.placed_anew += 1;
                metrics::counter!("millpool_bookings_placed_anew_total").increment(1);
                ask_again(&asks, write, answer).await;
            } else {
                let _ = write.answer.send(answer);
            }
        });
    }

    /// Answers with what the live state believes, as [`Bug::AnsweredBeforeCommit`] would have it.
    fn answer_already(&self, entry: &Entry, mut write: Write) -> Write {
        let known =
            self.live.as_ref().and_then(|live| live.state.answered(&entry.caller, entry.request.as_ref()));
        if let Some(Ok((reply, revision))) = known {
            let (nobody, _) = oneshot::channel();
            let outcome = Outcome { result: Ok(reply), revision, changes: Default::default() };
            let _ = std::mem::replace(&mut write.answer, nobody).send(Ok(Arc::new(outcome)));
        }
        write
    }

    /// Commits an improved plan if it still holds and is still better.
    async fn improve(&mut self, improvement: Improvement, answer: Answer<Improved>) {
        let moved = improvement.moves.len() as u32;
        match self.improved(improvement).await {
            Err(failure) => drop(answer.send(Err(failure))),
            Ok((committed, undisturbed)) => drop(tokio::spawn(async move {
                let outcome = committed.await.unwrap_or(Err(Failure::Unknown));
                let improved = outcome.map(|o| Improved { moved, plan_revision: o.revision, undisturbed });
                let _ = answer.send(improved);
            })),
        }
    }

    async fn improved(&mut self, improvement: Improvement) -> Result<(Pending, bool), Failure> {
        let at = self.clock.now_s();
        let live = self.settled().await?;
        let cost_before = live.state.cost_fen();
        let undisturbed = live.state.plan_revision() == improvement.plan_revision;
        let mut moves = improvement.moves;
        if planted(Bug::PlanSpoilt) {
            moves.iter_mut().for_each(|m| m.start -= 3600);
        }
        let some = !moves.is_empty();
        let entry = live.plan_entry(PlanKind::Optimisation, moves, improvement.figures, at);
        let mut trial = live.state.clone();
        let outcome = trial.apply(live.state.revision() + 1, &entry);
        outcome.result?;
        if some && trial.cost_fen() >= cost_before {
            return Err(Failure::Refused(Refusal::because(
                Reason::PlanOutdated,
                "the plan has changed so that the improvement is none any more",
            )));
        }
        Ok((self.commit(entry).await?, undisturbed))
    }

    /// Applies and submits an entry of the planner's own.
    async fn commit(&mut self, entry: Entry) -> Result<Pending, Failure> {
        self.live().await?.apply(&entry)?;
        let (answer, answered) = oneshot::channel();
        let intent = Intent::Do(entry.command.clone());
        let caller = entry.caller.clone();
        let write = Write { caller, request: None, intent, placed_anew: 0, reconsidered: 0, answer };
        self.submit(entry, write).await;
        Ok(answered)
    }

    /// Gives displaced work its places. Broken off, it is taken up again at the next housekeeping.
    async fn repair(&mut self) {
        let done = self.repair_all().await;
        self.repair_broken_off = done.is_err();
        if let Err(failure) = done {
            tracing::warn!(%failure, "the repair was broken off, and will be taken up again");
            if let Some(live) = &mut self.live {
                live.needs_repair = false;
            }
        }
    }

    /// The most urgent promise first. Fails only where trying again may help.
    async fn repair_all(&mut self) -> Result<(), Failure> {
        let at = self.clock.now_s();
        let live = self.settled().await?;
        let wanting = live.begin_repair(at);
        if !wanting.is_empty() {
            tracing::info!(bookings = wanting.len(), "placing disturbed work anew");
        }
        for id in wanting {
            // A plan entry names the revision that it was computed from, so each waits for the one before.
            let live = self.settled().await?;
            let Some(entry) = live.repair_entry(&id, at) else { continue };
            let committed = match self.commit(entry).await {
                Ok(pending) => tokio::time::timeout(DRAIN_DEADLINE, pending).await,
                Err(failure) => Ok(Ok(Err(failure))),
            };
            match committed {
                Ok(Ok(Ok(_))) => {}
                Ok(Ok(Err(Failure::Refused(refusal)))) => {
                    tracing::warn!(booking = %id, %refusal, "displaced work was not placed");
                }
                Ok(Ok(Err(failure))) => return Err(failure),
                Ok(Err(_)) | Err(_) => return Err(Failure::Unknown),
            }
        }
        Ok(())
    }

    /// Lets holds expire, and looks for displaced work that found no place before.
    async fn housekeep(&mut self) {
        let at = self.clock.now_s();
        let broken_off = self.repair_broken_off;
        let Ok(live) = self.live().await else { return };
        let due = live.state.next_expiry().is_some_and(|expires_at| expires_at <= at);
        let waiting = broken_off || live.wants_repair_again(at);
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

/// The answer to an entry of the planner's own.
type Pending = oneshot::Receiver<Result<Arc<Outcome>, Failure>>;

/// Gives an answer once it is sure that this node has led in `term` all the while: a node that leads no more
/// can read the truth of whoever does, but what it concluded before may be out of date.
async fn assured(
    consensus: consensus::Handle<Replica>,
    write: Write,
    answer: Result<Arc<Outcome>, Refusal>,
    term: u64,
) {
    let read = consensus.linearize().await;
    let leadership = consensus.leadership();
    let answer = match read {
        Ok(_) if leadership.is_ready && leadership.term == term => answer.map_err(Failure::Refused),
        _ => Err(Failure::NotLeader { leader: leadership.leader }),
    };
    let _ = write.answer.send(answer);
}

/// Puts a write to the planner again; `answer` is given if the planner is gone.
async fn ask_again(asks: &mpsc::WeakSender<Ask>, write: Write, answer: Result<Arc<Outcome>, Failure>) {
    let Some(asks) = asks.upgrade() else { return drop(write.answer.send(answer)) };
    if let Err(mpsc::error::SendError(Ask::Write(write))) = asks.send(Ask::Write(Box::new(write))).await {
        let _ = write.answer.send(answer);
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
