//! How the planner is asked: requests wait in a queue that is bounded in length and in time, and whoever asks awaits the
//! answer.

use super::explain::{self, Explanation, Question};
use super::optimise::{Improvement, Problem};
use super::pool::Pool;
use super::quote::Quoted;
use super::{EXPLAIN_WAIT, EXPLAINED_AT_ONCE_MAX, QUEUE_MAX, QUEUE_WAIT_MAX};
use crate::clock::Clock;
use crate::consensus::{LeaderHint, Offload};
use millpool_alliance::command::{Caller, Request};
use millpool_alliance::{
    Booking, Command, Entry, MachineId, Order, Outcome, PrincipalId, Refusal, State, Terms,
};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

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
    pub(super) fn at(&self, placement: Vec<(MachineId, i64)>) -> Command {
        Command::Book {
            buyer: self.buyer.clone(),
            order: self.order.clone(),
            terms: self.terms.clone(),
            placement,
            hold_s: self.hold_s,
        }
    }

    /// The command that books it where `first` stands.
    pub(super) fn at_places_of(&self, first: &Booking) -> Command {
        let places = first.steps.iter().flat_map(|s| &s.place);
        self.at(places.map(|p| (p.machine.clone(), p.start)).collect())
    }
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, Failure>>;

pub(super) enum Intent {
    Book(Wish),
    Do(Command),
}

pub(super) struct Write {
    pub(super) caller: Caller,
    pub(super) request: Option<Request>,
    pub(super) intent: Intent,
    pub(super) placed_anew: u32,
    /// How often it was refused because of something that came to nothing itself.
    pub(super) reconsidered: u32,
    pub(super) answer: Answer<Arc<Outcome>>,
}

impl Write {
    /// The log entry that does `command` for whoever asks.
    pub(super) fn entry(&self, at: i64, command: Command) -> Entry {
        Entry { at, caller: self.caller.clone(), request: self.request.clone(), command }
    }
}

pub(super) enum Ask {
    Quote(Box<Order>, Answer<Quoted>),
    Write(Box<Write>),
    State(Answer<State>),
    Improve(Box<Improvement>, Answer<Improved>),
}

impl Ask {
    /// Refuses what has waited for too long: whoever asked is served better by another try than by an answer that comes
    /// when he has given up.
    fn overdue(self) {
        metrics::counter!("millpool_planner_overdue_total").increment(1);
        match self {
            Ask::Quote(_, answer) => drop(answer.send(Err(Failure::Overloaded))),
            Ask::Write(write) => drop(write.answer.send(Err(Failure::Overloaded))),
            Ask::State(answer) => drop(answer.send(Err(Failure::Overloaded))),
            Ask::Improve(_, answer) => drop(answer.send(Err(Failure::Overloaded))),
        }
    }
}

/// Where things are asked, each with when it was.
type Sender = mpsc::Sender<(Ask, Instant)>;

/// What is asked, in order.
pub(super) struct Asks(mpsc::Receiver<(Ask, Instant)>);

impl Asks {
    /// The next one that has not waited for too long; None when nobody can ask any more.
    pub(super) async fn next(&mut self) -> Option<Ask> {
        loop {
            let (ask, since) = self.0.recv().await?;
            if since.elapsed() <= QUEUE_WAIT_MAX {
                return Some(ask);
            }
            ask.overdue();
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A plan that was committed.
pub(super) struct Improved {
    /// Operations that moved.
    pub(super) moved: u32,
    /// The plan's revision after it.
    pub(super) plan_revision: u64,
    /// Nothing else had changed the plan since the problem was posed.
    pub(super) undisturbed: bool,
}

/// Asks the planner. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    asks: Sender,
    clock: Clock,
    /// Where long searches run.
    pub(super) offload: Offload,
    explaining: Arc<Semaphore>,
}

impl Handle {
    /// A handle, and what is asked by it and its clones.
    pub(super) fn new(clock: Clock, offload: Offload) -> (Self, Asks) {
        let (asks, asked) = mpsc::channel(QUEUE_MAX);
        let explaining = Arc::new(Semaphore::new(EXPLAINED_AT_ONCE_MAX));
        (Handle { asks, clock, offload, explaining }, Asks(asked))
    }

    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, Failure> {
        let (answer, answered) = oneshot::channel();
        self.asks.try_send((ask(answer), Instant::now())).map_err(|e| match e {
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
    pub async fn explain(&self, question: Question) -> Result<Explanation, Failure> {
        let turn = tokio::time::timeout(EXPLAIN_WAIT, self.explaining.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Failure::Overloaded) };
        let state = self.state(0).await?;
        let explained = self.offload.run(move || {
            let pool = Pool::build(&state, state.now());
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
    pub(super) async fn problem(&self, ready_in_s: i64) -> Result<Option<Problem>, Failure> {
        let state = self.state(ready_in_s).await?;
        self.offload.run(move || Problem::of(&state)).await.map_err(|_| Failure::Unknown)
    }

    pub(super) async fn improve(&self, improvement: Improvement) -> Result<Improved, Failure> {
        self.ask(|answer| Ask::Improve(Box::new(improvement), answer)).await
    }
}

/// A handle that does not keep the planner going.
#[derive(Clone)]
pub(super) struct Idle {
    asks: mpsc::WeakSender<(Ask, Instant)>,
    clock: Clock,
    offload: Offload,
    explaining: Arc<Semaphore>,
}

impl Idle {
    pub(super) fn of(handle: &Handle) -> Idle {
        let (asks, explaining) = (handle.asks.downgrade(), handle.explaining.clone());
        Idle { asks, clock: handle.clock, offload: handle.offload, explaining }
    }

    /// None when the planner is gone.
    pub(super) fn handle(&self) -> Option<Handle> {
        let asks = self.asks.upgrade()?;
        let explaining = self.explaining.clone();
        Some(Handle { asks, clock: self.clock, offload: self.offload, explaining })
    }

    /// Puts a write to the planner again; `answer` is given if the planner is gone.
    pub(super) async fn ask_again(&self, write: Write, answer: Result<Arc<Outcome>, Failure>) {
        let Some(asks) = self.asks.upgrade() else { return drop(write.answer.send(answer)) };
        let ask = Ask::Write(Box::new(write));
        if let Err(mpsc::error::SendError((Ask::Write(write), _))) = asks.send((ask, Instant::now())).await {
            let _ = write.answer.send(answer);
        }
    }
}
