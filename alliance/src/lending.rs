//! Commands on the registry: who lends what, and taking it back.

use crate::booking::{Booking, DisturbanceKind};
use crate::command::{Caller, Disturbed, Reply};
use crate::format::Format;
use crate::id::{BookingId, MachineId, OfferId, PrincipalId};
use crate::line::{Phase, Station, Use};
use crate::offer::{self, Offer};
use crate::progress::Cause;
use crate::refusal::{Reason, Refusal, text, within};
use crate::registry::{Machine, Member, Plant, Policy, Principal, Role, SETUP_FAMILIES_MAX};
use crate::state::State;
use crate::window::{Window, Windows};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Farthest that a plant may lie from the grid's origin, m.
pub const GRID_MAX_M: i64 = 10_000_000;

/// Most offers of a machine that are neither withdrawn nor over.
pub const OFFERS_STANDING_MAX: i64 = 64;

impl State {
    pub(crate) fn put_member(&mut self, mut member: Member, expected: u64) -> Result<Reply, Refusal> {
        text("member.name", &member.name, 1, 100)?;
        expect("member", member.id.as_str(), self.members.get(&member.id).map(|m| m.revision), expected)?;
        member.revision = self.revision;
        let member = Arc::new(member);
        self.members.put(member.id.clone(), member.clone());
        Ok(Reply::Member(member))
    }

    pub(crate) fn put_plant(
        &mut self,
        caller: &Caller,
        mut plant: Plant,
        expected: u64,
    ) -> Result<Reply, Refusal> {
        let member = self.members.get(&plant.member);
        let member = member.ok_or_else(|| Refusal::unknown("plant.member_id", &plant.member))?;
        owns(caller, member.id.as_str(), "plant.member_id", &plant.member)?;
        text("plant.name", &plant.name, 1, 100)?;
        text("plant.grid_region", &plant.grid_region, 1, 40)?;
        text("plant.time_zone", &plant.time_zone, 1, 64)?;
        within("plant.east_m", plant.east_m, -GRID_MAX_M, GRID_MAX_M)?;
        within("plant.north_m", plant.north_m, -GRID_MAX_M, GRID_MAX_M)?;
        let old = self.plants.get(&plant.id);
        expect("plant", plant.id.as_str(), old.map(|p| p.revision), expected)?;
        if let Some(old) = old {
            owns(caller, old.member.as_str(), "plant.id", &plant.id)?;
            let moved = (old.east_m, old.north_m) != (plant.east_m, plant.north_m);
            let inside = |m: &MachineId| self.stations.get(m).is_some_and(|s| s.machine.plant == plant.id);
            if moved && let Some(booking) = self.counts_on(inside) {
                return Err(Refusal::because(
                    Reason::WouldDisturb,
                    format!("{booking} is made in {}, which can move when it is done", plant.id),
                ));
            }
        }
        plant.revision = self.revision;
        let plant = Arc::new(plant);
        self.plants.put(plant.id.clone(), plant.clone());
        Ok(Reply::Plant(plant))
    }

    pub(crate) fn put_machine(
        &mut self,
        caller: &Caller,
        mut machine: Machine,
        expected: u64,
    ) -> Result<Reply, Refusal> {
        machine.check()?;
        self.owns_plant(caller, &machine.plant, "machine.plant_id", &machine.plant)?;
        let id = machine.id.clone();
        machine.revision = self.revision;
        self.check_families(&machine)?;
        let old = self.stations.get(&id).cloned();
        expect("machine", id.as_str(), old.as_ref().map(|s| s.machine.revision), expected)?;
        let machine = Arc::new(machine);
        let Some(old) = old else {
            self.stations.put(id.clone(), Arc::new(Station::new(machine.clone())));
            self.changes.machines.insert(id);
            return Ok(Reply::Machine(machine));
        };
        self.owns_plant(caller, &old.machine.plant, "machine.id", &id)?;
        self.refit(&id, machine.clone())?;
        Ok(Reply::Machine(machine))
    }

    /// Refuses more setup families than the alliance has room for.
    fn check_families(&self, machine: &Machine) -> Result<(), Refusal> {
        let others = self.stations.values().filter(|s| s.machine.id != machine.id);
        let known: BTreeSet<&String> = others.flat_map(|s| &s.machine.setup_families).collect();
        let new: Vec<&String> = machine.setup_families.iter().filter(|f| !known.contains(f)).collect();
        match new.first() {
            Some(first) if known.len() + new.len() > SETUP_FAMILIES_MAX => Err(Refusal::invalid(
                Reason::InvalidField,
                "machine.setup_families",
                first,
                &format!("families of other machines, and at most {SETUP_FAMILIES_MAX} in the alliance"),
            )),
            _ => Ok(()),
        }
    }

    /// An open booking with a step, to come or done, on such a machine: its transport starts or ends there.
    fn counts_on(&self, such: impl Fn(&MachineId) -> bool) -> Option<&BookingId> {
        let there =
            |b: &&Arc<Booking>| b.steps.iter().any(|s| s.place.as_ref().is_some_and(|p| such(&p.machine)));
        self.open_bookings().find(there).map(|b| &b.id)
    }

    /// Gives a machine new properties, if all that is planned on it can stay.
    fn refit(&mut self, id: &MachineId, machine: Arc<Machine>) -> Result<(), Refusal> {
        let disturb = |how: String| {
            Refusal::because(Reason::WouldDisturb, format!("work planned on {id} would not stand: {how}"))
        };
        let station = self.station(id)?.clone();
        if machine.plant != station.machine.plant
            && let Some(booking) = self.counts_on(|m| m == id)
        {
            return Err(disturb(format!("{booking} is made on it, in {}", station.machine.plant)));
        }
        for o in station.line.iter().filter(|o| o.phase == Phase::Planned) {
            let Use::Work { booking, operation } = &o.purpose else { continue };
            let booking = self.booking(booking)?;
            let wanted = &booking.order.route[*operation as usize];
            if let Some(unmet) = crate::eligibility::unmet(&booking.order, wanted, &machine) {
                return Err(disturb(format!("{unmet} of operation {operation} of {}", booking.id)));
            }
            if crate::price::reckon(wanted, booking.order.quantity, &machine).work_s != o.work_s {
                return Err(disturb(format!(
                    "operation {operation} of {} would take another time",
                    booking.id
                )));
            }
        }
        let before = self.clone();
        self.edit_station(id, |s| s.refit(machine));
        let touched = self.settle([id.clone()].into()).map_err(|r| disturb(r.message))?;
        let planned = station.line.iter().filter_map(|o| match &o.purpose {
            Use::Work { booking, .. } => Some(*booking),
            Use::Tooling => None,
        });
        self.check_bookings(&before, touched.into_iter().chain(planned).collect())
            .map_err(|r| disturb(r.message))
    }

    pub(crate) fn create_offer(&mut self, caller: &Caller, mut offer: Offer) -> Result<Reply, Refusal> {
        offer.check()?;
        offer.check_open()?;
        let station = self.station(&offer.machine)?;
        self.owns_plant(caller, &station.machine.plant, "offer.machine_id", &offer.machine)?;
        self.forget_offers(&offer.machine);
        if self.offers.get(&offer.id).is_some() {
            return Err(Refusal::invalid(
                Reason::AlreadyExists,
                "offer.id",
                &offer.id,
                "an id that no offer has",
            ));
        }
        let standing = |o: &&Arc<Offer>| o.machine == offer.machine && !o.withdrawn && o.ends_at() > self.now;
        let standing = self.offers.values().filter(standing).count() as i64;
        within("offers of the machine (count)", standing, 0, OFFERS_STANDING_MAX - 1)?;
        if offer.open.iter().all(|w| w.end <= self.now) {
            return Err(Refusal::invalid(
                Reason::InvalidField,
                "offer.windows",
                "all in the past",
                &format!("at least one window that ends after {}", self.now),
            ));
        }
        offer.withdrawn = false;
        offer.revision = self.revision;
        let machine = offer.machine.clone();
        let offer = Arc::new(offer);
        self.offers.put(offer.id.clone(), offer.clone());
        self.recompute_open(&machine);
        // More open time can only let a splittable operation end sooner.
        self.settle([machine].into())?;
        Ok(Reply::Offer(offer, Vec::new()))
    }

    pub(crate) fn withdraw_offer(
        &mut self,
        caller: &Caller,
        id: &OfferId,
        accept_disturbance: bool,
    ) -> Result<Reply, Refusal> {
        let offer = self.offers.get(id).ok_or_else(|| Refusal::unknown("offer_id", id))?;
        self.owns_plant(caller, &self.station(&offer.machine)?.machine.plant, "offer_id", id)?;
        if offer.withdrawn {
            return Err(Refusal::invalid(
                Reason::WrongStatus,
                "offer_id",
                id,
                "an offer that is not withdrawn",
            ));
        }
        let before = self.clone();
        let machine = offer.machine.clone();
        let withdrawn = Offer { withdrawn: true, revision: self.revision, ..Offer::clone(offer) };
        self.offers.put(id.clone(), Arc::new(withdrawn));
        self.recompute_open(&machine);
        let reason = "its member took the offer back".to_owned();
        let cause = Cause {
            kind: DisturbanceKind::OfferWithdrawn,
            machine: machine.clone(),
            reason,
            before: &before,
        };
        self.give_way([machine].into(), BTreeSet::new(), &cause);
        let disturbed = self.lost_since(&before);
        if !disturbed.is_empty() && !accept_disturbance {
            return Err(Refusal::invalid(
                Reason::WouldDisturb,
                "accept_disturbance",
                false,
                &format!("true, to disturb {} planned operations", disturbed.len()),
            ));
        }
        let offer = self.offers.get(id).ok_or_else(|| Refusal::unknown("offer_id", id))?;
        Ok(Reply::Offer(offer.clone(), disturbed))
    }

    /// What withdrawing an offer would disturb; changes nothing.
    pub fn preview_withdraw(&self, caller: &Caller, id: &OfferId) -> Result<Vec<Disturbed>, Refusal> {
        match self.clone().withdraw_offer(caller, id, true)? {
            Reply::Offer(_, disturbed) => Ok(disturbed),
            _ => Ok(Vec::new()),
        }
    }

    /// Operations that had a place before and have none now, or end later and make their booking late.
    fn lost_since(&self, before: &State) -> Vec<Disturbed> {
        let mut lost = Vec::new();
        for (id, booking) in &self.changes.bookings {
            let Some(old) = before.bookings.get(id) else { continue };
            for (k, (step, was)) in booking.steps.iter().zip(&old.steps).enumerate() {
                let Some(place) = &was.place else { continue };
                let later = step.place.as_ref().is_some_and(|is| is.end > place.end)
                    && booking.lateness_s() > old.lateness_s();
                if step.place.is_none() || later {
                    lost.push(Disturbed {
                        booking: *id,
                        operation: k as u32,
                        machine: place.machine.clone(),
                        window: Window::new(place.start, place.end),
                    });
                }
            }
        }
        lost
    }

    /// Works a machine's open time out anew: what is offered, less what it is down. Offers that were over
    /// before all that is on its line count no longer, so that it does not grow for ever. O(offers).
    pub(crate) fn recompute_open(&mut self, machine: &MachineId) {
        let since = self.line_from(machine);
        let counts = |o: &&Arc<Offer>| o.machine == *machine && !o.withdrawn && o.ends_at() > since;
        let offers: Vec<Arc<Offer>> = self.offers.values().filter(counts).cloned().collect();
        let lent = Windows::union(offers.iter().flat_map(|o| o.open.iter().copied()));
        let notice_s = offers.iter().map(|o| o.notice_s).max().unwrap_or(0);
        self.note_lent(machine, &lent);
        self.edit_station(machine, |s| {
            s.set_open(lent.without(s.down.as_ref().map(|d| Window::new(d.since, d.until))));
            s.notice_s = notice_s;
        });
    }

    /// When a machine's line begins, at the latest now: nothing on it counts on what was open before.
    pub(crate) fn line_from(&self, machine: &MachineId) -> i64 {
        let first = self.stations.get(machine).and_then(|s| s.line.first());
        first.map_or(self.now, |occupation| occupation.start.min(self.now))
    }

    pub(crate) fn put_policy(&mut self, mut policy: Policy, expected: u64) -> Result<Reply, Refusal> {
        policy.check()?;
        if policy.history_keep_s != 0 && self.format() < Format::FORGETTING {
            let accepted = "0 while a coordinator of a former version is in the cluster: upgrade all first";
            let (field, value) = ("policy.history_keep_s", policy.history_keep_s);
            return Err(Refusal::invalid(Reason::InvalidField, field, value, accepted));
        }
        for (field, value) in [("policy.day_start_s", policy.day_start_s), ("policy.shift_s", policy.shift_s)]
        {
            if value != 0 && self.format() < Format::TALLIED {
                let accepted =
                    "0 while a coordinator of a former version is in the cluster: upgrade all first";
                return Err(Refusal::invalid(Reason::InvalidField, field, value, accepted));
            }
        }
        if policy.transport != self.policy.transport && !self.open.is_empty() {
            return Err(Refusal::because(
                Reason::WouldDisturb,
                "the transport tariff can change when no booking is open: plans and promises count on it",
            ));
        }
        if self.policy.revision != expected {
            return Err(mismatch("policy", self.policy.revision, expected));
        }
        policy.revision = self.revision;
        self.policy = Arc::new(policy);
        Ok(Reply::Policy(self.policy.clone()))
    }

    pub(crate) fn put_principal(&mut self, principal: Principal) -> Result<Reply, Refusal> {
        if principal.expires_at <= self.now {
            return Err(Refusal::invalid(
                Reason::InvalidField,
                "principal.expires_at_s",
                principal.expires_at,
                &format!("after {}", self.now),
            ));
        }
        let key = (principal.role, principal.id.clone());
        if self.tokens.get(&principal.token_sha256).is_some_and(|holder| *holder != key) {
            return Err(Refusal::because(Reason::AlreadyExists, "another principal has this token"));
        }
        if let Some(old) = self.principals.get(&key) {
            self.tokens.take(&old.token_sha256);
        }
        self.tokens.put(principal.token_sha256, key.clone());
        let principal = Arc::new(principal);
        self.principals.put(key, principal.clone());
        Ok(Reply::Principal(principal))
    }

    pub(crate) fn revoke_principal(&mut self, role: Role, id: &PrincipalId) -> Result<Reply, Refusal> {
        let key = (role, id.clone());
        let old = self.principals.get(&key).ok_or_else(|| Refusal::unknown("id", id))?;
        let revoked = Arc::new(Principal { revoked: true, ..Principal::clone(old) });
        self.principals.put(key, revoked.clone());
        Ok(Reply::Principal(revoked))
    }

    fn owns_plant(
        &self,
        caller: &Caller,
        plant: &crate::PlantId,
        field: &str,
        given: impl ToString,
    ) -> Result<(), Refusal> {
        let plant = self.plants.get(plant).ok_or_else(|| Refusal::unknown(field, plant))?;
        owns(caller, plant.member.as_str(), field, given)
    }

    /// Checks that a time zone is one that this binary knows; called before a plant enters the log.
    pub fn check_time_zone(name: &str) -> Result<(), Refusal> {
        offer::zone(name).map(|_| ())
    }
}

/// A member changes its own things only; what is another's does not exist, and whose it is is not told.
fn owns(caller: &Caller, member: &str, field: &str, given: impl ToString) -> Result<(), Refusal> {
    match caller.role {
        Role::Operator => Ok(()),
        Role::Member if caller.id.as_str() == member => Ok(()),
        _ => Err(Refusal::unknown(field, given)),
    }
}

fn expect(what: &str, id: &str, found: Option<u64>, expected: u64) -> Result<(), Refusal> {
    match found {
        None if expected == 0 => Ok(()),
        None => Err(Refusal::unknown(&format!("{what}.id"), id)),
        Some(_) if expected == 0 => Err(Refusal::invalid(
            Reason::AlreadyExists,
            &format!("{what}.id"),
            id,
            "a new id, or expected_revision to replace what exists",
        )),
        Some(revision) if revision == expected => Ok(()),
        Some(revision) => Err(mismatch(what, revision, expected)),
    }
}

fn mismatch(what: &str, revision: u64, expected: u64) -> Refusal {
    Refusal::invalid(
        Reason::RevisionMismatch,
        "expected_revision",
        expected,
        &format!("{revision}, the {what}'s present revision"),
    )
}
