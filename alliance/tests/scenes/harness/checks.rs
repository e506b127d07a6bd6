//! What must hold of every entry, whatever it was.

use super::*;

/// One entry and what came of it.
pub(super) struct Checked<'a> {
    /// Before the entry.
    pub(super) before: &'a State,
    /// At its moment, with nothing asked.
    pub(super) passed: &'a State,
    pub(super) after: &'a State,
    pub(super) entry: &'a Entry,
    pub(super) outcome: &'a Outcome,
}

impl Checked<'_> {
    pub(super) fn check(&self, expiring: &command::Changes) -> Result<(), String> {
        let broken = invariants::violations(self.after);
        if !broken.is_empty() {
            return Err(format!("invariants: {broken:#?}"));
        }
        if self.outcome.result.is_err() {
            equal("the hash after a refusal", &self.after.hash(), &self.passed.hash())?;
            equal("what a refusal changed", &self.outcome.changes.bookings, &expiring.bookings)?;
        }
        if self.after.now() < self.before.now() {
            return Err("the clock went back".into());
        }
        if self.before.revision() == 0 || self.after.hash() == self.before.hash() {
            return Ok(());
        }
        self.check_changes()?;
        self.check_time()?;
        self.check_bookings()?;
        self.check_frozen()?;
        self.check_repeated_events()
    }

    /// Everything that changed is told, as it is now; nothing else is.
    fn check_changes(&self) -> Result<(), String> {
        let changed: BTreeMap<BookingId, Arc<Booking>> = self
            .after
            .bookings()
            .iter()
            .filter(|(id, b)| self.before.bookings().get(id) != Some(b))
            .map(|(id, b)| (*id, b.clone()))
            .collect();
        for (id, booking) in &changed {
            equal(&format!("{id} as told"), &self.outcome.changes.bookings.get(id), &Some(booking))?;
        }
        for (id, station) in self.after.stations().iter() {
            let same = self.before.stations().get(id).is_some_and(|s| s == station);
            if !same && !self.outcome.changes.machines.contains(id) {
                return Err(format!("{id} has changed and nobody is told"));
            }
        }
        Ok(())
    }

    /// No hold outlives its time, and none is given up before.
    fn check_time(&self) -> Result<(), String> {
        let now = self.after.now();
        for booking in self.after.bookings().values() {
            if booking.status == Status::Held && booking.hold_expires_at <= now {
                return Err(format!("{} is held past its time", booking.id));
            }
            let was = self.before.bookings().get(&booking.id);
            if let Some(was) = was.filter(|w| w.status == Status::Held && booking.status == Status::Expired)
                && was.hold_expires_at > now
            {
                return Err(format!("{} expired before its time", booking.id));
            }
        }
        Ok(())
    }

    /// No booking is lost or silently changed; no promise is worsened by the system's own choice.
    fn check_bookings(&self) -> Result<(), String> {
        let own_choice =
            !matches!(self.entry.command, Command::Report { .. } | Command::WithdrawOffer { .. });
        for was in self.passed.bookings().values() {
            let id = &was.id;
            let is = self.after.bookings().get(id).ok_or(format!("{id} is lost"))?;
            if (is.buyer.clone(), is.order.clone(), is.created_at)
                != (was.buyer.clone(), was.order.clone(), was.created_at)
            {
                return Err(format!("{id} is another order now"));
            }
            equal(&format!("the promise of {id}"), &is.promise, &was.promise)?;
            let fine = match (was.status, is.status) {
                (a, b) if a == b => true,
                (Status::Held, Status::Confirmed) => matches!(self.entry.command, Command::Confirm { .. }),
                (_, Status::Cancelled) => {
                    was.is_open()
                        && matches!(&self.entry.command, Command::Cancel { booking, .. } if booking == id)
                }
                (Status::Confirmed, Status::Completed) => {
                    matches!(self.entry.command, Command::Report { .. })
                }
                _ => false,
            };
            if !fine {
                return Err(format!("{id} was {:?} and is {:?}", was.status, is.status));
            }
            if own_choice && was.is_open() && is.is_open() {
                self.check_promise(was, is)?;
            }
        }
        Ok(())
    }

    fn check_promise(&self, was: &Booking, is: &Booking) -> Result<(), String> {
        let done_by = |b: &Booking| {
            let ends: Option<Vec<i64>> = b.steps.iter().map(|s| s.place.as_ref().map(|p| p.end)).collect();
            ends.and_then(|ends| ends.into_iter().max())
        };
        let id = &was.id;
        match (done_by(was), done_by(is)) {
            (Some(_), None) => return Err(format!("{id} has lost its place without a disturbance")),
            (Some(before), Some(after)) if after > before && after > was.promise.by => {
                return Err(format!(
                    "{id}, promised by {}, was done at {before} and is now at {after}",
                    was.promise.by
                ));
            }
            _ => {}
        }
        equal(&format!("the disturbances of {id}"), &is.disturbances, &was.disturbances)
    }

    /// Optimisation leaves frozen work where it is, and puts none into the frozen stretch.
    fn check_frozen(&self) -> Result<(), String> {
        let Command::CommitPlan { kind: PlanKind::Optimisation, .. } = &self.entry.command else {
            return Ok(());
        };
        let starts = |state: &State, machine: &MachineId| -> Vec<(String, i64)> {
            let Some(station) = state.stations().get(machine) else { return Vec::new() };
            let until = state.frozen_until(station);
            let early = station.line.iter().filter(|o| o.start < until && o.phase == Phase::Planned);
            early
                .filter_map(|o| match &o.purpose {
                    line::Use::Work { booking, operation } => {
                        Some((format!("{booking}/{operation}"), o.start))
                    }
                    line::Use::Tooling => None,
                })
                .collect()
        };
        for (machine, _) in self.passed.stations().iter() {
            equal(
                &format!("the frozen stretch of {machine}"),
                &starts(self.after, machine),
                &starts(self.passed, machine),
            )?;
        }
        Ok(())
    }

    /// Events that were applied before change nothing.
    fn check_repeated_events(&self) -> Result<(), String> {
        let Command::Report { plant, outbox, events } = &self.entry.command else { return Ok(()) };
        let Some(agent) = self.passed.agents().get(plant).filter(|a| a.outbox == *outbox) else {
            return Ok(());
        };
        if events.iter().all(|e| e.seq <= agent.applied_seq) && self.entry.request.is_none() {
            equal("the hash after repeated events", &self.after.hash(), &self.passed.hash())?;
        }
        Ok(())
    }

    /// What a preview says is what the withdrawal does.
    pub(super) fn check_preview(
        &self,
        preview: Option<Result<Vec<command::Disturbed>, Refusal>>,
    ) -> Result<(), String> {
        let (Some(preview), Command::WithdrawOffer { accept_disturbance, .. }) =
            (preview, &self.entry.command)
        else {
            return Ok(());
        };
        match (&self.outcome.result, preview) {
            // A repeated request is answered with what was done then.
            (Ok(_), _) if self.outcome.revision < self.after.revision() => Ok(()),
            (Ok(Reply::Offer(_, disturbed)), Ok(preview)) => equal("what was withdrawn", disturbed, &preview),
            (Err(refusal), Err(preview)) => equal("why it is not withdrawn", refusal, &preview),
            (Err(refusal), Ok(preview))
                if refusal.reason == Reason::WouldDisturb && !preview.is_empty() && !accept_disturbance =>
            {
                Ok(())
            }
            (Err(refusal), _) if refusal.reason == Reason::RequestIdReused => Ok(()),
            (result, preview) => Err(format!("the preview said {preview:?}, the withdrawal {result:?}")),
        }
    }
}
