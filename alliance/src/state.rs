//! The state, and the one door through which it changes.

use crate::account::{Account, Counted, TallyKey};
use crate::answer::{Answer, AnswerKey, Asked, REQUEST_ID_LENGTH_MAX};
use crate::booking::{Booking, Promise, Status, Step};
use crate::command::{Changes, Command, Entry, Outcome, PlanFigures, Reply};
use crate::digest::Fold;
use crate::format::Format;
use crate::id::{BookingId, MachineId, MemberId, OfferId, PlantId, PrincipalId, SessionId};
use crate::line::Station;
use crate::offer::Offer;
use crate::planted::{Bug, planted};
use crate::price::{self, Carbon, Price, Trip};
use crate::refusal::{Refusal, text};
use crate::registry::{Machine, Member, Plant, Policy, Principal, Role};
use crate::remote::Session;
use crate::restoration::Restoration;
use crate::retention::{BOOKINGS_OVER_MAX, Over};
use crate::table::{Index, Table};
use crate::window::LATEST;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Outboxes of a plant that are remembered, the one in use among them.
pub const OUTBOXES_MAX: usize = 8;

/// A plant's agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    /// The plant.
    pub plant: PlantId,
    /// Its name.
    pub agent: String,
    /// Identity of its outbox.
    pub outbox: String,
    /// Highest event applied.
    pub applied_seq: u64,
    /// Outboxes that served the plant before and may come back, the latest last.
    pub earlier: Vec<Outbox>,
}

/// How far an outbox is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outbox {
    /// Its identity.
    pub id: String,
    /// Highest event applied.
    pub applied_seq: u64,
}

impl Agent {
    /// The plant's agent with another outbox, or the same. One that is remembered goes on where it was, so
    /// that nothing is applied twice after a spare has stood in.
    pub(crate) fn with_outbox(&self, agent: String, outbox: String) -> Agent {
        let mut earlier = self.earlier.clone();
        // One of which nothing is applied is the same as one that nobody has seen.
        if self.applied_seq > 0 {
            earlier.push(Outbox { id: self.outbox.clone(), applied_seq: self.applied_seq });
        }
        let known = earlier.iter().position(|o| o.id == outbox && !planted(Bug::OutboxForgotten));
        let applied_seq = known.map_or(0, |at| earlier.remove(at).applied_seq);
        earlier.drain(..earlier.len().saturating_sub(OUTBOXES_MAX - 1));
        Agent { plant: self.plant.clone(), agent, outbox, applied_seq, earlier }
    }
}

/// The last optimisation that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Optimisation {
    /// Revision at which it was committed.
    pub committed_revision: u64,
    /// What the solver said.
    pub figures: PlanFigures,
    /// Operations moved.
    pub moved: u32,
    /// When, seconds since the Unix epoch.
    pub at: i64,
}

/// The whole state as plain lists, for snapshots. Everything that is derived is left out.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The format in which the cluster writes.
    pub format: Format,
    /// What the alliance was restored from, the latest last.
    pub restorations: Vec<Restoration>,
    /// The alliance's clock, seconds since the Unix epoch.
    pub now: i64,
    /// Revision of the last entry.
    pub revision: u64,
    /// Bookings given out so far.
    pub bookings_given: u64,
    /// Revision of the last change to the plan.
    pub plan_revision: u64,
    /// The policy.
    pub policy: Policy,
    /// The last optimisation.
    pub optimisation: Option<Optimisation>,
    /// Members.
    pub members: Vec<Arc<Member>>,
    /// Plants.
    pub plants: Vec<Arc<Plant>>,
    /// Machines with their lines.
    pub stations: Vec<Arc<Station>>,
    /// Offers.
    pub offers: Vec<Arc<Offer>>,
    /// Principals.
    pub principals: Vec<Arc<Principal>>,
    /// Bookings.
    pub bookings: Vec<Arc<Booking>>,
    /// Agents.
    pub agents: Vec<Arc<Agent>>,
    /// Remembered answers.
    pub answers: Vec<(Arc<AnswerKey>, Arc<Answer>)>,
    /// Sessions given out so far.
    pub sessions_given: u64,
    /// Sessions.
    pub sessions: Vec<Arc<Session>>,
    /// How far machines' time is counted.
    pub accounts: Vec<Arc<Account>>,
    /// What it was counted as.
    pub tallies: Vec<(TallyKey, Arc<Counted>)>,
    /// Plants that are not heard, and since when, seconds since the Unix epoch.
    pub silences: Vec<(PlantId, i64)>,
}

/// The state of the alliance. A clone is cheap: the maps are persistent.
#[derive(Clone, Default)]
pub struct State {
    pub(crate) format: Format,
    pub(crate) restorations: Vec<Restoration>,
    pub(crate) now: i64,
    pub(crate) revision: u64,
    pub(crate) bookings_given: u64,
    pub(crate) plan_revision: u64,
    pub(crate) policy: Arc<Policy>,
    pub(crate) optimisation: Option<Optimisation>,
    pub(crate) members: Table<MemberId, Arc<Member>>,
    pub(crate) plants: Table<PlantId, Arc<Plant>>,
    pub(crate) stations: Table<MachineId, Arc<Station>>,
    pub(crate) offers: Table<OfferId, Arc<Offer>>,
    pub(crate) principals: Table<(Role, PrincipalId), Arc<Principal>>,
    pub(crate) bookings: Table<BookingId, Arc<Booking>>,
    pub(crate) agents: Table<PlantId, Arc<Agent>>,
    pub(crate) answers: Table<Asked, Arc<Answer>>,
    pub(crate) sessions_given: u64,
    pub(crate) sessions: Table<SessionId, Arc<Session>>,
    pub(crate) accounts: Table<MachineId, Arc<Account>>,
    pub(crate) tallies: Table<TallyKey, Arc<Counted>>,
    pub(crate) silences: Table<PlantId, i64>,
    // Derived from the tables above, for quick answers; not hashed, not in snapshots.
    pub(crate) open: Index<BookingId>,
    pub(crate) over: Index<Over>,
    pub(crate) of_buyer: Index<(PrincipalId, BookingId)>,
    pub(crate) holds: Index<(i64, BookingId)>,
    pub(crate) answers_by_expiry: Index<(i64, u64, Asked)>,
    pub(crate) sessions_of: Index<(BookingId, SessionId)>,
    pub(crate) sessions_by_end: Index<(i64, SessionId)>,
    pub(crate) open_sessions: Index<MachineId, SessionId>,
    pub(crate) tokens: Index<[u8; 32], (Role, PrincipalId)>,
    // What the entry being applied has changed so far.
    pub(crate) changes: Changes,
}

impl State {
    /// Applies one entry: the whole change, or none of it but that time passes. The same entries in the
    /// same order give the same state on every node.
    pub fn apply(&mut self, revision: u64, entry: &Entry) -> Outcome {
        self.attempt(revision, entry).unwrap_or_else(|refusal| {
            self.enter(revision, entry.at);
            self.keep();
            Outcome { result: Err(refusal), revision, changes: std::mem::take(&mut self.changes) }
        })
    }

    /// Applies one entry, or refuses it and leaves all as it was: not even time passes.
    pub fn attempt(&mut self, revision: u64, entry: &Entry) -> Result<Outcome, Refusal> {
        let found = self.figures();
        self.enter(revision, entry.at);
        match self.answer(entry) {
            Ok((reply, revision)) => {
                self.keep();
                Ok(Outcome { result: Ok(reply), revision, changes: std::mem::take(&mut self.changes) })
            }
            Err(refusal) => {
                self.undo(found);
                Err(refusal)
            }
        }
    }

    fn enter(&mut self, revision: u64, at: i64) {
        self.revision = revision;
        self.changes = Changes::default();
        self.pass_time(at);
        // What an entry does to a booking is held against what it was by then.
        self.bookings.mark();
    }

    /// Does what an entry asks, unless it is done. Answers with the revision at which it was.
    fn answer(&mut self, entry: &Entry) -> Result<(Reply, u64), Refusal> {
        let asked = entry.request.as_ref().map(|request| (Asked::of(&entry.caller, request), request));
        if let Some(first) = asked.as_ref().and_then(|(asked, request)| self.answer_to(asked, request)) {
            return first;
        }
        let reply = self.perform(entry)?;
        if let Some((asked, request)) = asked {
            self.remember(asked, request.fingerprint, reply.clone());
        }
        Ok((reply, self.revision))
    }

    fn perform(&mut self, entry: &Entry) -> Result<Reply, Refusal> {
        if let Some(request) = &entry.request {
            text("request_id", &request.id, 1, REQUEST_ID_LENGTH_MAX)?;
        }
        let caller = &entry.caller;
        match entry.command.clone() {
            Command::Tick => Ok(Reply::Done),
            Command::PutMember { member, expected_revision } => self.put_member(member, expected_revision),
            Command::PutPlant { plant, expected_revision } => {
                self.put_plant(caller, plant, expected_revision)
            }
            Command::PutMachine { machine, expected_revision } => {
                self.put_machine(caller, machine, expected_revision)
            }
            Command::CreateOffer(offer) => self.create_offer(caller, offer),
            Command::WithdrawOffer { offer, accept_disturbance } => {
                self.withdraw_offer(caller, &offer, accept_disturbance)
            }
            Command::PutPolicy { policy, expected_revision } => self.put_policy(policy, expected_revision),
            Command::PutPrincipal(principal) => self.put_principal(principal),
            Command::RevokePrincipal { role, id } => self.revoke_principal(role, &id),
            Command::Book { buyer, order, terms, placement, hold_s } => {
                self.book(buyer, order, &terms, &placement, hold_s)
            }
            Command::Confirm { booking } => self.confirm(caller, &booking),
            Command::Cancel { booking, reason } => self.cancel(caller, &booking, &reason),
            Command::CommitPlan { kind, base_revision, moves, figures } => {
                self.commit_plan(kind, base_revision, &moves, figures)
            }
            Command::RaiseFormat { to } => self.raise_format(to),
            Command::AttachAgent { plant, agent, outbox } => self.attach_agent(plant, agent, outbox),
            Command::NoteSilence { plant, since } => self.note_silence(plant, since),
            Command::Report { plant, outbox, events } => self.report(&plant, &outbox, &events),
            Command::OpenSession { booking, operation } => self.open_session(caller, &booking, operation),
            Command::CloseSession { session, because } => self.close_session(caller, &session, &because),
            Command::Operate(asked) => self.operate(caller, &asked),
        }
    }

    /// The alliance's clock, seconds since the Unix epoch.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Revision of the last entry.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Revision of the last change to the plan.
    pub fn plan_revision(&self) -> u64 {
        self.plan_revision
    }

    /// Hash of everything that is replicated. O(rows that have changed lately, a thousand of each kind at most).
    pub fn hash(&self) -> u64 {
        let mut hasher = Fold::default();
        (self.now, self.bookings_given, self.plan_revision, &self.policy, &self.optimisation)
            .hash(&mut hasher);
        self.digests().hash(&mut hasher);
        // What an older version does not know must not make its hash another.
        if self.format > Format::FIRST {
            (self.format, &self.restorations).hash(&mut hasher);
        }
        if self.format >= Format::REMOTE {
            (self.sessions_given, self.sessions.digest()).hash(&mut hasher);
        }
        if self.format >= Format::TALLIED {
            (self.accounts.digest(), self.tallies.digest()).hash(&mut hasher);
        }
        if self.format >= Format::SILENCES {
            self.silences.digest().hash(&mut hasher);
        }
        hasher.finish()
    }

    fn digests(&self) -> [u64; 8] {
        [
            self.members.digest(),
            self.plants.digest(),
            self.stations.digest(),
            self.offers.digest(),
            self.principals.digest(),
            self.bookings.digest(),
            self.agents.digest(),
            self.answers.digest(),
        ]
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The last optimisation that was committed.
    pub fn optimisation(&self) -> Option<Optimisation> {
        self.optimisation
    }

    /// Members by id.
    pub fn members(&self) -> &Table<MemberId, Arc<Member>> {
        &self.members
    }

    /// Plants by id.
    pub fn plants(&self) -> &Table<PlantId, Arc<Plant>> {
        &self.plants
    }

    /// Machines with their lines by id.
    pub fn stations(&self) -> &Table<MachineId, Arc<Station>> {
        &self.stations
    }

    /// Offers by id.
    pub fn offers(&self) -> &Table<OfferId, Arc<Offer>> {
        &self.offers
    }

    /// Principals by role and id.
    pub fn principals(&self) -> &Table<(Role, PrincipalId), Arc<Principal>> {
        &self.principals
    }

    /// Bookings by id.
    pub fn bookings(&self) -> &Table<BookingId, Arc<Booking>> {
        &self.bookings
    }

    /// Agents by plant.
    pub fn agents(&self) -> &Table<PlantId, Arc<Agent>> {
        &self.agents
    }

    /// Bookings with work to come, by id.
    pub fn open_bookings(&self) -> impl Iterator<Item = &Arc<Booking>> {
        self.open.keys().filter_map(|id| self.bookings.get(id))
    }

    /// A buyer's bookings, by id, from `from` on.
    pub fn bookings_of(&self, buyer: &PrincipalId, from: BookingId) -> impl Iterator<Item = &Arc<Booking>> {
        let buyer = buyer.clone();
        self.of_buyer
            .range((buyer.clone(), from)..)
            .take_while(move |(of, _)| *of == buyer)
            .filter_map(|(_, id)| self.bookings.get(id))
    }

    /// When something next changes by itself: a hold expires, a session ends, or a booking is forgotten. Seconds since the Unix epoch.
    pub fn next_due(&self) -> Option<i64> {
        let next_expiry = self.holds.first().map(|(at, _)| *at);
        let next_end = self.sessions_by_end.first().map(|(at, _)| *at);
        [next_expiry, next_end, self.next_forgetting()].into_iter().flatten().min()
    }

    /// Who holds the token with this SHA-256, if it is good now.
    pub fn principal_of_token(&self, sha256: &[u8; 32], now: i64) -> Option<&Arc<Principal>> {
        let key = self.tokens.get(sha256)?;
        self.principals.get(key).filter(|p| !p.revoked && p.expires_at > now)
    }

    /// Moves the clock on, never back, expires what has expired, and forgets what is over for long.
    fn pass_time(&mut self, at: i64) {
        self.now = self.now.max(at.min(LATEST));
        self.expire_answers();
        while let Some((expires_at, id)) = self.holds.first().cloned() {
            if expires_at > self.now || planted(Bug::HoldNeverExpires) {
                break;
            }
            self.holds.take(&(expires_at, id));
            self.release(&id, Status::Expired);
        }
        self.expire_sessions();
        self.forget_bookings(BOOKINGS_OVER_MAX);
    }

    /// Gives a booking's planned time back and closes it.
    pub(crate) fn release(&mut self, id: &BookingId, status: Status) {
        let Some(booking) = self.bookings.get(id) else { return };
        let mut booking = Booking::clone(booking);
        for (k, step) in booking.steps.iter_mut().enumerate().filter(|(_, step)| step.is_planned()) {
            if let Some(place) = step.place.take() {
                let settled = self.edit_station(&place.machine, |station| {
                    station.vacate(id, k as u32);
                    station.settle()
                });
                self.sync(&place.machine, settled.unwrap_or_default().changed);
            }
        }
        booking.status = status;
        booking.hold_expires_at = 0;
        self.put_booking(booking);
    }

    pub(crate) fn put_booking(&mut self, mut booking: Booking) {
        booking.revision = self.revision;
        let id = booking.id;
        if let Some(old) = self.bookings.get(&id).cloned() {
            self.holds.take(&(old.hold_expires_at, id));
            if let Some(over) = Over::of(&old) {
                self.over.take(&over);
            } else if !booking.is_open() && self.forgets() {
                booking.over_at = self.now;
            }
            self.note_plants_left(&old, &mut booking);
        }
        self.index(&booking);
        let booking = Arc::new(booking);
        self.changes.bookings.insert(id, booking.clone());
        self.bookings.put(id, booking.clone());
        self.follow_sessions(&booking);
    }

    /// Puts a booking where it is looked for.
    fn index(&mut self, booking: &Booking) {
        let id = booking.id;
        if booking.hold_expires_at != 0 {
            self.holds.add((booking.hold_expires_at, id));
        }
        match Over::of(booking) {
            None => self.open.add(id),
            Some(over) => {
                self.open.take(&id);
                self.over.add(over);
            }
        }
        self.of_buyer.add((booking.buyer.clone(), id));
    }

    /// Every step that stands in another plant than before, or nowhere, remembers the plant that it left.
    fn note_plants_left(&self, old: &Booking, new: &mut Booking) {
        let plant = |step: &Step| {
            let station = self.stations.get(&step.place.as_ref()?.machine)?;
            Some(station.machine.plant.clone())
        };
        for (was, is) in old.steps.iter().zip(&mut new.steps).filter(|(was, is)| was.place != is.place) {
            if let Some(left) = plant(was).filter(|left| plant(is).as_ref() != Some(left)) {
                is.leave(&left);
            }
        }
    }

    /// Edits a machine's line or windows, and marks the plan as changed.
    pub(crate) fn edit_station<R>(
        &mut self,
        id: &MachineId,
        edit: impl FnOnce(&mut Station) -> R,
    ) -> Option<R> {
        let (now, revision) = (self.now, self.revision);
        let station = Arc::make_mut(self.stations.get_mut(id)?);
        // Before the edit, so that an index which it answers with is one of the line as stored.
        station.prune(now);
        let result = edit(station);
        station.revision = revision;
        self.changes.machines.insert(id.clone());
        self.changes.plan = true;
        self.plan_revision = self.revision;
        Some(result)
    }

    pub(crate) fn booking(&self, id: &BookingId) -> Result<&Arc<Booking>, Refusal> {
        self.bookings.get(id).ok_or_else(|| Refusal::unknown_booking(id))
    }

    pub(crate) fn station(&self, id: &MachineId) -> Result<&Arc<Station>, Refusal> {
        self.stations.get(id).ok_or_else(|| Refusal::unknown("machine_id", id))
    }

    pub(crate) fn plant(&self, id: &PlantId) -> Result<&Arc<Plant>, Refusal> {
        self.plants.get(id).ok_or_else(|| Refusal::unknown("plant_id", id))
    }

    /// The trip of a part from one machine to another.
    pub fn trip(&self, from: &MachineId, to: &MachineId) -> Trip {
        let plant = |id: &MachineId| self.stations.get(id).and_then(|s| self.plants.get(&s.machine.plant));
        match (plant(from), plant(to)) {
            (Some(a), Some(b)) => price::trip(&self.policy.transport, a, b),
            _ => Trip::default(),
        }
    }

    /// Price and carbon of making `order` on these machines, one an operation.
    pub fn price(
        &self,
        order: &crate::order::Order,
        machines: &[MachineId],
    ) -> Result<(Price, Carbon), Refusal> {
        let mut chain: Vec<(&Machine, &Plant)> = Vec::with_capacity(machines.len());
        for id in machines {
            let machine = &self.station(id)?.machine;
            chain.push((machine, self.plant(&machine.plant)?));
        }
        Ok(price::of_chain(&self.policy, order, &chain))
    }

    /// What would be promised for work that completes at `completes_at`: the fastest option promises its
    /// own completion with the policy's slack; others the due date where that is later. Never after the
    /// deadline or the terms.
    pub fn promise_by(
        &self,
        order: &crate::order::Order,
        terms: &crate::order::Terms,
        completes_at: i64,
    ) -> i64 {
        let soon = completes_at + self.policy.promise_slack_s;
        let by = match terms.objective {
            crate::order::Objective::Fastest => soon,
            _ => soon.max(order.due),
        };
        [order.deadline, terms.promised_by].into_iter().flatten().fold(by, i64::min)
    }

    /// A machine's frozen stretch ends here: what starts sooner is not moved by optimisation.
    pub fn frozen_until(&self, station: &Station) -> i64 {
        self.now + self.policy.freeze_s.max(station.notice_s)
    }

    /// New work starts here at the soonest.
    pub fn earliest_start(&self, station: &Station) -> i64 {
        self.now + self.policy.lead_s.max(station.notice_s)
    }

    /// Everything as plain lists.
    pub fn image(&self) -> Image {
        fn all<K: Ord + Clone + Hash, V: Clone + Hash>(table: &Table<K, V>) -> Vec<V> {
            table.values().cloned().collect()
        }
        Image {
            format: self.format,
            restorations: self.restorations.clone(),
            now: self.now,
            revision: self.revision,
            bookings_given: self.bookings_given,
            plan_revision: self.plan_revision,
            policy: Policy::clone(&self.policy),
            optimisation: self.optimisation,
            members: all(&self.members),
            plants: all(&self.plants),
            stations: all(&self.stations),
            offers: all(&self.offers),
            principals: all(&self.principals),
            bookings: all(&self.bookings),
            agents: all(&self.agents),
            answers: self.answers.iter().map(|(asked, answer)| (asked.key.clone(), answer.clone())).collect(),
            sessions_given: self.sessions_given,
            sessions: all(&self.sessions),
            accounts: all(&self.accounts),
            tallies: self.tallies.iter().map(|(key, counted)| (key.clone(), counted.clone())).collect(),
            silences: self.silences.iter().map(|(plant, since)| (plant.clone(), *since)).collect(),
        }
    }

    /// The state that an image was taken of.
    pub fn from_image(image: Image) -> State {
        let mut state = State {
            format: image.format,
            restorations: image.restorations,
            now: image.now,
            revision: image.revision,
            bookings_given: image.bookings_given,
            plan_revision: image.plan_revision,
            policy: Arc::new(image.policy),
            optimisation: image.optimisation,
            sessions_given: image.sessions_given,
            ..State::default()
        };
        image.members.into_iter().for_each(|m| state.members.put(m.id.clone(), m));
        image.plants.into_iter().for_each(|p| state.plants.put(p.id.clone(), p));
        image.stations.into_iter().for_each(|s| state.stations.put(s.id().clone(), s));
        image.offers.into_iter().for_each(|o| state.offers.put(o.id.clone(), o));
        image.agents.into_iter().for_each(|a| state.agents.put(a.plant.clone(), a));
        for principal in image.principals {
            let key = (principal.role, principal.id.clone());
            state.tokens.put(principal.token_sha256, key.clone());
            state.principals.put(key, principal);
        }
        for booking in image.bookings {
            state.index(&booking);
            state.bookings.put(booking.id, booking);
        }
        for session in image.sessions {
            state.index_session(&session);
            state.sessions.put(session.id, session);
        }
        image.accounts.into_iter().for_each(|a| state.accounts.put(a.machine.clone(), a));
        image.tallies.into_iter().for_each(|(key, counted)| state.tallies.put(key, counted));
        image.silences.into_iter().for_each(|(plant, since)| state.silences.put(plant, since));
        for (key, answer) in image.answers {
            state.keep_answer(key.into(), answer);
        }
        state.keep();
        state
    }

    pub(crate) fn new_booking(
        &mut self,
        buyer: PrincipalId,
        order: Arc<crate::order::Order>,
        steps: Vec<Step>,
        promise: Promise,
        hold_s: i64,
    ) -> Booking {
        self.bookings_given += 1;
        Booking {
            id: BookingId::numbered(self.bookings_given),
            buyer,
            order,
            status: if hold_s > 0 { Status::Held } else { Status::Confirmed },
            steps,
            promise,
            hold_expires_at: if hold_s > 0 { self.now + hold_s } else { 0 },
            disturbances: Vec::new(),
            created_at: self.now,
            revision: self.revision,
            over_at: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::MachineClass;
    use crate::scenes::build::*;

    #[test]
    fn what_a_booking_was_before_an_entry_is_what_it_was_after_time_had_passed() {
        let mut alliance = Alliance::mills(&["m1"]);
        let order = order(vec![operation(MachineClass::Mill, "a", 60)]);
        let held = alliance.hold(order, &[("m1", MONDAY + 8 * HOUR)], HOUR);
        let state = &mut alliance.state;
        state.enter(state.revision + 1, state.now + 2 * HOUR);
        let was = |state: &State| state.bookings.was(&held).map(|booking| booking.status);
        assert_eq!(was(state), Some(Status::Expired), "its expiry is not what the entry is about");
        state.release(&held, Status::Cancelled);
        assert_eq!(was(state), Some(Status::Expired));
        assert_eq!(state.bookings.get(&held).map(|booking| booking.status), Some(Status::Cancelled));
    }
}
