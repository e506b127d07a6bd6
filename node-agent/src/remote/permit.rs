//! The last look before a machine is asked. What was let pass may have had to wait behind a slow control: whether its
//! session, its time, its window, the list and the plant's consent still stand is asked again, at once before the call.

use super::consent::{Consents, Rule};
use super::guard::{Guard, Known};
use super::{Asked, Line};
use crate::clock::Clock;
use crate::dispatch::Kept;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;

/// That a machine may be asked; for as long as it stands.
#[derive(Debug)]
pub enum Permit {
    /// By a command that was let pass.
    Command(Box<Command>),
    /// By the agent itself, to take a permission to start back.
    TakeBack {
        /// It is tried again after this.
        deadline: Instant,
    },
}

/// A command that was let pass, and what it rests on.
pub struct Command {
    pub(super) asked: Asked,
    pub(super) needs_consent: bool,
    pub(super) rule: Rule,
    pub(super) clock: Clock,
    pub(super) guard: Guard,
    pub(super) line: watch::Receiver<Line>,
    pub(super) kept: watch::Receiver<Arc<Kept>>,
    pub(super) consents: Arc<Mutex<Consents>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.asked.fmt(f)
    }
}

impl Permit {
    /// Whether it still stands, or why not.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Command(command) => command.check(),
            Self::TakeBack { deadline } if Instant::now() > *deadline => Err("it is tried again".to_owned()),
            Self::TakeBack { .. } => Ok(()),
        }
    }

    /// Whether somebody has to agree.
    pub fn needs_consent(&self) -> bool {
        matches!(self, Self::Command(command) if command.needs_consent)
    }

    /// Who agrees, if anybody does.
    pub fn consent(&self) -> Option<String> {
        match self {
            Self::Command(command) => command.consent(),
            Self::TakeBack { .. } => None,
        }
    }
}

impl Command {
    fn check(&self) -> Result<(), String> {
        let items = self.kept.borrow().items_of(&self.asked.machine_id);
        let line = self.line.borrow();
        let known = Known {
            now: Instant::now(),
            now_ms: self.clock.now_ms(),
            alive: line.alive,
            commanded: true,
            from_afar: self.rule.from_afar,
            sessions: &line.sessions,
            items: &items,
        };
        self.guard.still(&self.asked, &known).map_err(|refused| refused.to_string())?;
        if self.needs_consent && self.consent().is_none() {
            return Err("the plant agrees no more that the machine moves".to_owned());
        }
        Ok(())
    }

    fn consent(&self) -> Option<String> {
        let Asked { machine_id, holder, .. } = &self.asked;
        lock(&self.consents).find(machine_id, &self.asked.job(), holder, &self.rule, Instant::now())
    }
}

pub(super) fn lock(consents: &Mutex<Consents>) -> MutexGuard<'_, Consents> {
    consents.lock().unwrap_or_else(PoisonError::into_inner)
}
