//! The live state: what is applied with what is on its way, and the pool beside it.

use super::handle::{Wish, Write};
use super::pool::Pool;
use super::quote::{self, Quoted};
use super::repair;
use millpool_alliance::{BookingId, Command, Entry, Move, Order, PlanFigures, PlanKind, Refusal, State};

/// Disturbed work that found no place is tried again after this, seconds of the alliance's clock.
const REPAIR_AGAIN_S: i64 = 600;

pub(super) struct Live {
    /// The term in which this node leads.
    pub(super) term: u64,
    pub(super) state: State,
    /// Some booking has lost a place, or is late where it stands.
    pub(super) needs_repair: bool,
    /// Since the last repair something may have made room for what found no place then.
    room_made: bool,
    repaired_at: i64,
    /// Built when it is first needed, and again when the registry has changed.
    pool: Option<Pool>,
}

impl Live {
    pub(super) fn new(term: u64, state: State) -> Self {
        Live { term, state, needs_repair: false, room_made: true, repaired_at: 0, pool: None }
    }

    /// Replaces the state by the applied one, and keeps the pool where it is still true.
    pub(super) fn rebase(mut self, term: u64, state: State) -> Self {
        // Another leader in between may have changed what the pool does not compare.
        let mut pool = self.pool.take().filter(|p| term == self.term && p.same_registry(&state));
        if let Some(pool) = &mut pool {
            pool.catch_up(&state);
        }
        Live { term, state, pool, ..self }
    }

    fn pool(&mut self) -> &mut Pool {
        let state = &self.state;
        self.pool.get_or_insert_with(|| Pool::build(state, state.now()))
    }

    /// Applies an entry that is about to be submitted; refuses what the log would refuse.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), Refusal> {
        // What is refused never reaches the log, so it takes no revision and no time passes by it.
        let outcome = self.state.attempt(self.state.revision() + 1, entry)?;
        match &entry.command {
            Command::PutPlant { .. } | Command::PutMachine { .. } | Command::PutPolicy { .. } => {
                self.pool = None
            }
            _ => {
                if let Some(pool) = &mut self.pool {
                    outcome.changes.machines.iter().for_each(|m| pool.refresh(&self.state, m));
                }
            }
        }
        self.needs_repair |= outcome.changes.bookings.values().any(|b| repair::is_wanting(b));
        let takes_room = matches!(
            entry.command,
            Command::Book { .. } | Command::CommitPlan { kind: PlanKind::Repair, .. }
        );
        self.room_made |= outcome.changes.plan && !takes_room;
        Ok(())
    }

    /// [`Live::apply`], and the entry back.
    pub(super) fn accept(&mut self, entry: Entry) -> Result<Entry, Refusal> {
        self.apply(&entry)?;
        Ok(entry)
    }

    pub(super) fn quote(&mut self, order: &Order, now: i64) -> Result<Quoted, Refusal> {
        let Live { state, pool, .. } = self;
        let pool = pool.get_or_insert_with(|| Pool::build(state, state.now()));
        quote::quoted(state, pool, order, now)
    }

    /// Books a wish: where it was quoted if that still holds, else where it fits best.
    pub(super) fn book(&mut self, wish: &Wish, at: i64, write: &Write) -> Result<Entry, Refusal> {
        let as_quoted = wish.quoted.as_ref().filter(|_| write.placed_anew == 0);
        if let Some(quoted) = as_quoted
            && let Ok(entry) = self.accept(write.entry(at, wish.at(quoted.clone())))
        {
            return Ok(entry);
        }
        let now = self.state.now().max(at);
        wish.order.check(now)?;
        let best = quote::best(&self.state.as_of(now), self.pool(), &wish.order, &wish.terms)?;
        self.accept(write.entry(at, wish.at(best.seats)))
    }

    pub(super) fn plan_entry(
        &self,
        kind: PlanKind,
        moves: Vec<Move>,
        figures: PlanFigures,
        at: i64,
    ) -> Entry {
        let base_revision = self.state.revision();
        Entry {
            at,
            caller: crate::api::operator(),
            request: None,
            command: Command::CommitPlan { kind, base_revision, moves, figures },
        }
    }

    /// The bookings that a repair may help, the most urgent promise first; what becomes known from now on is
    /// for the next one.
    pub(super) fn begin_repair(&mut self, at: i64) -> Vec<BookingId> {
        (self.needs_repair, self.room_made, self.repaired_at) = (false, false, at);
        repair::wanting(&self.state)
    }

    /// The entry that gives a disturbed booking its places; None where there are none, or none better.
    pub(super) fn repair_entry(&mut self, id: &BookingId, at: i64) -> Option<Entry> {
        let booking = self.state.bookings().get(id)?.clone();
        let state = self.state.as_of(at);
        let moves = repair::moves(&state, self.pool(), &booking)?;
        Some(self.plan_entry(PlanKind::Repair, moves, PlanFigures::default(), at))
    }

    pub(super) fn wants_repair_again(&self, now: i64) -> bool {
        let due = self.room_made || now - self.repaired_at >= REPAIR_AGAIN_S;
        self.needs_repair || (due && !repair::wanting(&self.state).is_empty())
    }
}
