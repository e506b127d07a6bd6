//! What an adapter works with, and what every adapter does alike for a machine: its items, what is said about
//! it, what happened into the outbox, and what is shown.

use super::history::History;
use super::mapping::state_name;
use super::word::{Said, Word, WordError};
use super::{Happened, cut};
use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::health::Health;
use crate::outbox::{Entry, Mark, Outbox, OutboxError};
use crate::remote::Bid;
use crate::samples::{Reading, Readings, Samples, Signal};
use millpool_proto::v1::AgentEvent;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// What a machine remembers is put on disk this often when nothing happens.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// Longest name of a program that is shown, bytes.
const PROGRAM_LENGTH_MAX: usize = 200;
/// Words that wait for an adapter.
pub const WORDS_MAX: usize = 16;

/// What an adapter is given to work with.
pub struct Shop {
    /// The plant's clock.
    pub clock: Clock,
    /// Where its events go.
    pub outbox: Outbox,
    /// Where its state is shown.
    pub health: Health,
    /// Where its raw samples go; nowhere, unless it is told.
    pub samples: Samples,
    kept: watch::Receiver<Arc<Kept>>,
    /// The list that was there at the start has been given out.
    listed: bool,
    words: mpsc::Receiver<Said>,
    bids: mpsc::Receiver<Bid>,
}

/// The ways to an adapter.
#[derive(Clone, Debug)]
pub struct Ways {
    /// For what people say.
    pub words: mpsc::Sender<Said>,
    /// For what is asked from afar; of use with an adapter that can command its machines.
    pub bids: mpsc::Sender<Bid>,
}

impl Shop {
    /// A shop, and the ways to its adapter.
    pub fn open(
        clock: Clock,
        outbox: Outbox,
        kept: watch::Receiver<Arc<Kept>>,
        health: Health,
    ) -> (Self, Ways) {
        let (to_words, words) = mpsc::channel(WORDS_MAX);
        let (to_bids, bids) = mpsc::channel(WORDS_MAX);
        let ways = Ways { words: to_words, bids: to_bids };
        let samples = Samples::default();
        (Self { clock, outbox, health, samples, kept, listed: false, words, bids }, ways)
    }

    /// The dispatch list, if it is another than at the last call.
    pub fn new_list(&mut self) -> Option<Arc<Kept>> {
        let other = !std::mem::replace(&mut self.listed, true) || self.kept.has_changed().unwrap_or(false);
        other.then(|| self.kept.borrow_and_update().clone())
    }

    /// The next that is said, or asked from afar. Nothing is lost when it is no longer waited for.
    pub async fn call(&mut self) -> Call {
        let Self { words, bids, .. } = self;
        tokio::select! {
            Some(said) = words.recv() => Call::Said(said),
            Some(bid) = bids.recv() => Call::Bid(bid),
            else => std::future::pending().await,
        }
    }

    /// Waits for another list, or for a word. Nothing is lost when it is no longer waited for.
    pub async fn news(&mut self) -> News {
        let Self { kept, words, .. } = self;
        tokio::select! {
            changed = kept.changed() => match changed {
                Ok(()) => News::List(kept.borrow_and_update().clone()),
                Err(_) => News::Over,
            },
            Some(said) = words.recv() => News::Said(said),
        }
    }

    /// The next that is said. Nothing is lost when it is no longer waited for.
    pub async fn said(&mut self) -> Said {
        match self.words.recv().await {
            Some(said) => said,
            None => std::future::pending().await,
        }
    }

    /// Puts what happened on a machine into the outbox, together with what its adapter remembers after it.
    pub async fn append(
        &self,
        machine_id: &str,
        happened: Vec<Happened>,
        memory: Vec<u8>,
    ) -> Result<(), OutboxError> {
        let events = happened.iter().cloned().map(|happened| AgentEvent {
            seq: 0,
            at_ms: happened.at_ms,
            machine_id: machine_id.to_owned(),
            what: Some(happened.what),
        });
        let mark = Mark { key: machine_id.to_owned(), state: memory.into() };
        self.outbox.append(Entry { events: events.collect(), mark: Some(mark) }).await?;
        self.health.machine(machine_id, |report| report.learn(&happened));
        Ok(())
    }
}

/// What an adapter is called for.
pub enum Call {
    /// A person says something.
    Said(Said),
    /// Something is asked from afar.
    Bid(Bid),
}

/// What comes from the plant.
pub enum News {
    /// Another dispatch list is on disk.
    List(Arc<Kept>),
    /// A person says something.
    Said(Said),
    /// No list will come any more.
    Over,
}

/// A machine's history in an adapter's hands.
pub trait Watched {
    /// The history.
    fn history(&self) -> &History;
    /// The history, to be told something.
    fn history_mut(&mut self) -> &mut History;
    /// All that is to be remembered through a restart.
    fn memory(&self) -> Vec<u8>;
    /// The program that is active, if the machine says.
    fn program(&self) -> Option<String> {
        None
    }
    /// What it reads now: its state, and every signal of the machine that is a number.
    fn read(&self) -> Vec<Reading>;
    /// What it has read, to be kept.
    fn readings_mut(&mut self) -> &mut Readings;
    /// What it reads now is so since this time; its state not before what was told last, as it is told.
    fn note(&mut self, at_ms: i64) {
        let (read, told_ms) = (self.read(), self.history().told_ms());
        for reading in read {
            let since_ms = if reading.signal == Signal::State { at_ms.max(told_ms) } else { at_ms };
            self.readings_mut().note(since_ms, &[reading]);
        }
    }
    /// Takes in what a person says, and answers in words.
    fn hear(&mut self, now_ms: i64, word: &Word, happened: &mut Vec<Happened>) -> Result<String, WordError> {
        self.history_mut().hear(now_ms, word, happened)
    }
}

/// How an adapter stands to its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It sees what the machine does.
    Seen,
    /// It sees nothing.
    Lost,
    /// It is told at the console, and sees nothing by itself.
    Told,
}

impl Sight {
    fn name(self) -> &'static str {
        match self {
            Self::Seen => "streaming",
            Self::Lost => "lost",
            Self::Told => "told at the console",
        }
    }
}

/// An adapter's post at one machine.
pub struct Post<W> {
    /// The machine.
    pub id: String,
    /// Its history.
    pub watch: W,
    /// Its id, as samples have it.
    name: Arc<str>,
    /// When what it remembers was last put on disk.
    marked: Instant,
}

impl<W: Watched> Post<W> {
    /// A post at a machine.
    pub fn new(id: String, watch: W) -> Self {
        Self { name: id.as_str().into(), id, watch, marked: Instant::now() }
    }

    /// The machine's items on another list.
    pub fn take_list(&mut self, kept: &Kept) {
        self.watch.history_mut().set_items(kept.items_of(&self.id));
    }

    /// Puts what happened into the outbox, and shows it.
    pub async fn tell(
        &mut self,
        happened: Vec<Happened>,
        sight: Sight,
        shop: &Shop,
    ) -> Result<(), OutboxError> {
        if !happened.is_empty() || self.marked.elapsed() >= MARK_EVERY {
            self.marked = Instant::now();
            shop.append(&self.id, happened, self.watch.memory()).await?;
        }
        shop.samples.put(&self.name, self.watch.readings_mut());
        let loads = self.watch.read().into_iter().filter(|reading| reading.signal == Signal::Load);
        if let Some(load) = loads.filter_map(|reading| reading.value.as_number()).next() {
            metrics::gauge!("millpool_agent_machine_load_percent", "machine" => self.id.clone()).set(load);
        }
        let program = self.watch.program();
        let history = self.watch.history();
        shop.health.machine(&self.id, |report| {
            report.adapter_state = sight.name().to_owned();
            report.machine_state = state_name(history.state()).to_owned();
            let operation = history.operation();
            report.operation = operation.map(|(booking, operation)| format!("{booking}/{operation}"));
            report.program = program.map(|program| cut(&program, PROGRAM_LENGTH_MAX).to_owned());
            report.there = sight != Sight::Lost;
            report.over = history.over();
            if sight != Sight::Lost {
                report.trouble = None;
            }
        });
        Ok(())
    }

    /// The machine is not seen any more.
    pub async fn lose(&mut self, why: &str, shop: &Shop) -> Result<(), OutboxError> {
        let history = self.watch.history_mut();
        let happened = history.lose();
        if history.begun() {
            let since_ms = history.told_ms();
            self.watch.readings_mut().lose(since_ms);
        }
        if !happened.is_empty() {
            tracing::warn!(machine = self.id, why, "lost sight of the machine");
        }
        self.tell(happened, Sight::Lost, shop).await
    }

    /// Takes in what a person says, and answers when it is on disk.
    pub async fn hear(&mut self, said: Said, sight: Sight, shop: &Shop) -> Result<(), OutboxError> {
        let mut happened = Vec::new();
        let heard = self.watch.hear(shop.clock.now_ms(), &said.word, &mut happened);
        self.tell(happened, sight, shop).await?;
        // Whoever asked may have gone; what was said stands.
        let _ = said.answer.send(heard);
        Ok(())
    }

    /// Shows what is in the way of the machine's reading.
    pub fn show(&self, trouble: &dyn std::fmt::Display, shop: &Shop) {
        tracing::warn!(machine = self.id, why = %trouble, "the machine is not read");
        metrics::counter!("millpool_agent_adapter_troubles_total", "machine" => self.id.clone()).increment(1);
        shop.health.machine(&self.id, |report| {
            report.adapter_state = "reconnecting".to_owned();
            report.trouble = Some(trouble.to_string());
        });
    }
}
