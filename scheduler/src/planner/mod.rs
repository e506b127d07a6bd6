//! The planner: every write passes through it on its way to the log, and quotes are answered by it.
//!
//! It keeps a **live** state: the applied one with everything applied that is on its way, so that
//! concurrent bookings seldom collide, and beside it the pool in the solver's words. A booking is placed on
//! the pool, applied to the live state (which refuses what the log would refuse), and submitted; the log's
//! answer is the one that counts. If it differs, the booking is placed anew within its terms.
//!
//! - [`pool`]: the state in the solver's words; [`quote`]: options; [`repair`]: places for displaced work;
//! - [`optimise`]: the whole plan made cheaper in the background; [`explain`]: why, and what would help;
//! - `handle`: how it is asked; `live`: what it believes; `in_flight`: what is on its way to the log.
//!
//! Architecture invariant: nothing but this folder knows both the alliance's and the solver's vocabulary.

pub mod explain;
pub mod optimise;
pub mod pool;
pub mod quote;
pub mod repair;

mod anywhere;
mod background;
mod handle;
mod in_flight;
mod live;

pub use anywhere::Quotes;
pub use background::Schedule;
pub use handle::{Failure, Handle, Wish};
/// Waits for what a cancelled optimisation has left behind; to be called before the process ends.
pub use millpool_solver::await_stragglers;

use crate::clock::Clock;
use crate::consensus::{self, Offload, ProposeError};
use crate::planted::{Bug, planted};
use crate::replica::Replica;
use crate::wire;
use futures::FutureExt as _;
use handle::{Answer, Ask, Asks, Idle, Improved, Intent, Write};
use in_flight::{InFlight, Mark, Ticket};
use live::Live;
use millpool_alliance::{Command, Entry, Format, Order, Outcome, PlanKind, Reason, Refusal, Reply};
use optimise::Improvement;
use quote::Quoted;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Most requests that wait for the planner; more are answered `Overloaded`.
pub const QUEUE_MAX: usize = 2048;
/// Longest that a request waits for the planner; then it is answered `Overloaded`, too.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_secs(1);
/// How often a booking is placed anew after the log has refused its place.
pub const PLACED_ANEW_MAX: u32 = 4;
/// How often a write is considered again that was refused because of something that came to nothing itself.
pub const RECONSIDERED_MAX: u32 = 4;
/// Explanations worked out at once; others wait.
pub const EXPLAINED_AT_ONCE_MAX: usize = 1;
/// How long a question why waits for its turn.
const EXPLAIN_WAIT: Duration = Duration::from_secs(5);
/// Most entries that go to the log together while more is asked than is done. One by one, each would cost a message to
/// every node and a sync on every disk.
const BURST_MAX: usize = 16;
/// How long the first of them waits for the others.
const BURST_WAIT: Duration = Duration::from_millis(3);
/// How long the planner waits for what is on its way before it looks at the applied state.
const DRAIN_DEADLINE: Duration = Duration::from_secs(2);

struct Planner {
    consensus: consensus::Handle<Replica>,
    clock: Clock,
    /// To ask itself again.
    idle: Idle,
    in_flight: Arc<InFlight>,
    live: Option<Live>,
    /// In the live state and not yet on their way to the log, in order.
    burst: Vec<Placed>,
    /// A repair was broken off and is to be taken up again.
    repair_broken_off: bool,
}

/// An entry that the live state has taken.
struct Placed {
    bytes: Vec<u8>,
    /// The term and the revision in which the live state has it.
    assumed: Option<(u64, u64)>,
    ticket: Ticket,
    write: Write,
    since: Instant,
}

/// Starts the planner on a thread of its own, if `offload` has threads, and the background optimisation. Both
/// end when the last handle is dropped.
pub fn start(
    consensus: consensus::Handle<Replica>,
    clock: Clock,
    schedule: Schedule,
    offload: Offload,
) -> Handle {
    let (handle, mut asks) = Handle::new(clock, offload);
    let idle = Idle::of(&handle);
    let mut planner = Planner {
        consensus: consensus.clone(),
        clock,
        idle: idle.clone(),
        in_flight: Arc::default(),
        live: None,
        burst: Vec::new(),
        repair_broken_off: false,
    };
    let plan = async move { planner.run(&mut asks).await };
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
    tokio::spawn(background::optimise(idle, consensus, clock, schedule));
    handle
}

impl Planner {
    async fn run(&mut self, asks: &mut Asks) {
        let mut housekeeping = tokio::time::interval(Duration::from_millis(500));
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let consensus = self.consensus.clone();
        let mut stopped = std::pin::pin!(consensus.stop_reason());
        loop {
            let due = self.burst.first().map(|first| first.since + BURST_WAIT);
            // The clock first: it is rare, and however much is asked, holds expire and repairs go on.
            let ask = tokio::select! {
                biased;
                _ = &mut stopped => return,
                _ = housekeeping.tick() => None,
                () = at(due) => {
                    self.send().await;
                    continue;
                }
                ask = asks.next() => match ask {
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
            // While others wait, what is placed waits for them; who is alone waits for nobody.
            if asks.len() == 0 || self.burst.len() >= BURST_MAX {
                self.send().await;
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
    async fn drain(&mut self) -> bool {
        self.send().await;
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
            Ok(entry) => self.submit(&entry, write),
            Err(refusal) => self.refuse(refusal, write, mark, term),
        }
    }

    /// The first answer to a repeated request, if it is applied.
    fn answered(&self, write: &Write) -> Option<Result<Arc<Outcome>, Refusal>> {
        let first =
            self.consensus.look(|view| view.state.0.answered(&write.caller, write.request.as_ref()))?;
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
        let (in_flight, idle) = (self.in_flight.clone(), self.idle.clone());
        let consensus = self.consensus.clone();
        tokio::spawn(async move {
            let as_assumed = in_flight.came_out(mark).await;
            if !as_assumed && write.reconsidered < RECONSIDERED_MAX {
                write.reconsidered += 1;
                return idle.ask_again(write, Err(Failure::Refused(refusal))).await;
            }
            assured(consensus, write, Err(refusal), term).await;
        });
    }

    /// Lets an entry that the live state has taken wait for its way to the log.
    fn submit(&mut self, entry: &Entry, mut write: Write) {
        // The live state has this entry in it already, and with it the format that it is written in.
        let format = self.live.as_ref().map_or_else(Format::default, |live| live.state.format());
        let bytes = wire::command::encode(entry, format);
        if planted(Bug::AnsweredBeforeCommit) {
            write = self.answer_already(entry, write);
        }
        let assumed = self.live.as_ref().map(|live| (live.term, live.state.revision()));
        let ticket = self.in_flight.begin();
        self.burst.push(Placed { bytes, assumed, ticket, write, since: Instant::now() });
    }

    /// Sends what waits to the log, in order, and sees to the answers.
    async fn send(&mut self) {
        for Placed { bytes, assumed, ticket, write, .. } in std::mem::take(&mut self.burst) {
            let pending = self.consensus.submit(bytes.into(), assumed.map(|(term, _)| term)).await;
            let revision = assumed.map(|(_, revision)| revision);
            self.see_through(pending, revision, ticket, write);
        }
    }

    /// Answers when an entry is applied, or places it anew.
    fn see_through(
        &self,
        pending: Result<impl Future<Output = Committed> + Send + 'static, ProposeError>,
        assumed: Option<u64>,
        mut ticket: Ticket,
        mut write: Write,
    ) {
        let idle = self.idle.clone();
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
                idle.ask_again(write, answer).await;
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
        self.submit(&entry, write);
        self.send().await;
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

    /// Lets holds expire and what is over be forgotten, and looks for displaced work that found no place before.
    async fn housekeep(&mut self) {
        let at = self.clock.now_s();
        let broken_off = self.repair_broken_off;
        let Ok(live) = self.live().await else { return };
        let due = live.state.next_due().is_some_and(|due| due <= at);
        let waiting = broken_off || live.wants_repair_again(at);
        if due {
            let entry = Entry { at, caller: crate::api::operator(), request: None, command: Command::Tick };
            if let Err(failure) = self.commit(entry).await {
                tracing::warn!(%failure, "what was due did not happen: holds to expire, or bookings to be forgotten");
            }
        }
        if waiting {
            self.repair().await;
        }
    }
}

/// Waits until then; for ever, if that is never.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What came of an entry.
type Committed = Result<consensus::Committed<Arc<Outcome>>, ProposeError>;

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
