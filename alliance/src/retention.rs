//! What is over, and how long it is known.
//!
//! Bookings that are over, and offers whose time has passed, are of use for a while: to read, to settle, to answer for.
//! [`Policy::history_keep_s`](crate::registry::Policy::history_keep_s) says how long; and as every node has the whole state
//! in memory, there is a most of each, whatever the policy says. All of it from format 3 on: a coordinator of a former
//! version keeps everything for ever.

use crate::booking::{Booking, Progress, Status};
use crate::format::Format;
use crate::id::{BookingId, MachineId, OfferId};
use crate::line::Use;
use crate::offer::Offer;
use crate::planted::{Bug, planted};
use crate::refusal::{Reason, Refusal};
use crate::state::State;
use std::sync::Arc;

/// Most bookings with work to come or in hand; more are refused.
pub const BOOKINGS_OPEN_MAX: usize = 100_000;
/// Most bookings that are over and known. Above it those go first that came to nothing more than
/// [`NOTHING_KEEP_S`] ago, then whatever is over for longest.
pub const BOOKINGS_OVER_MAX: usize = 300_000;
/// What came to nothing does not make room for what was made before this, seconds: who cancels can see that it is so.
pub const NOTHING_KEEP_S: i64 = 86_400;
/// Most bookings that one entry forgets, so that none takes long; the next one goes on.
pub const FORGOTTEN_MAX: usize = 256;
/// Most offers of a machine that are over, or withdrawn, and known; above it those go first that changed longest ago.
pub const OFFERS_OVER_MAX: usize = 256;
/// Shortest that a policy can ask for what is over to be known, seconds.
pub const HISTORY_KEEP_MIN_S: i64 = 60;
/// Longest, seconds.
pub const HISTORY_KEEP_MAX_S: i64 = 10 * 366 * 86_400;

/// A booking that is over, as it waits to be forgotten: what came to nothing apart from what was made, each the longest
/// over first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Over {
    was_made: bool,
    since: i64,
    id: BookingId,
}

impl Over {
    /// None while the booking is open.
    pub(crate) fn of(booking: &Booking) -> Option<Over> {
        let since = booking.over_since()?;
        let was_made = booking.steps.iter().any(|step| step.is_finished());
        Some(Over { was_made, since, id: booking.id })
    }
}

impl Booking {
    /// Since when it is over, seconds since the Unix epoch; None while it is open.
    pub fn over_since(&self) -> Option<i64> {
        let finished = || {
            let times = self.steps.iter().filter_map(|step| match step.progress {
                Progress::Finished { finished_at, .. } => Some(finished_at),
                _ => None,
            });
            times.max().unwrap_or(self.created_at)
        };
        match (self.status, self.over_at) {
            (Status::Held | Status::Confirmed, _) => None,
            // Before format 3 nobody took it down: since it was due, or made if that was later.
            (Status::Cancelled | Status::Expired, 0) => Some(self.order.due.max(self.created_at)),
            (Status::Completed, 0) => Some(finished()),
            (_, over_at) => Some(over_at),
        }
    }
}

impl State {
    /// How many bookings are over and known.
    pub fn over_len(&self) -> usize {
        self.over.len()
    }

    /// Whether what is over is forgotten at all.
    pub(crate) fn forgets(&self) -> bool {
        self.format >= Format::FORGETTING
    }

    /// When the next booking is to be forgotten, seconds since the Unix epoch. O(log n).
    pub(crate) fn next_forgetting(&self) -> Option<i64> {
        self.next_to_forget(BOOKINGS_OVER_MAX).map(|(due, _)| due)
    }

    /// Forgets bookings that were known for as long as the policy says, and those above `most`.
    pub(crate) fn forget_bookings(&mut self, most: usize) {
        for _ in 0..FORGOTTEN_MAX {
            let next = self.next_to_forget(most).filter(|(due, _)| *due <= self.now);
            let Some(over) = next.map(|(_, over)| over.clone()) else { break };
            self.forget_booking(&over);
        }
    }

    /// When the next booking is to be forgotten, and which.
    fn next_to_forget(&self, most: usize) -> Option<(i64, &Over)> {
        let keep_s = self.policy.history_keep_s;
        let keep_s = if planted(Bug::ForgottenTooSoon) { keep_s / 2 } else { keep_s };
        let is_nothing = |over: &&Over| !over.was_made && over.since + NOTHING_KEEP_S <= self.now;
        match self.forgets() {
            false => None,
            true if self.over.len() > most => {
                let first = self.over.first().filter(is_nothing).or_else(|| self.longest_over());
                first.map(|over| (self.now, over))
            }
            true if keep_s == 0 => None,
            true => self.longest_over().map(|over| (over.since + keep_s, over)),
        }
    }

    fn longest_over(&self) -> Option<&Over> {
        let from = |was_made| {
            let first = Over { was_made, since: i64::MIN, id: BookingId::numbered(0) };
            self.over.range(first..).next()
        };
        [from(false), from(true)].into_iter().flatten().min_by_key(|over| over.since)
    }

    fn forget_booking(&mut self, over: &Over) {
        self.over.take(over);
        let Some(booking) = self.bookings.take(&over.id) else { return };
        self.of_buyer.take(&(booking.buyer.clone(), over.id));
        self.forget_sessions(&over.id);
        // The last work on a line stays while a changeover counts on it, and nobody needs to know whose it was.
        for (k, step) in booking.steps.iter().enumerate() {
            let machine = step.place.as_ref().map(|place| &place.machine);
            let at = machine.and_then(|id| self.stations.get(id)?.find_begun(&over.id, k as u32, self.now));
            if let (Some(machine), Some(at)) = (machine, at)
                && let Some(station) = self.stations.get_mut(machine)
            {
                Arc::make_mut(station).line[at].purpose = Use::Tooling;
                self.changes.machines.insert(machine.clone());
            }
        }
    }

    /// Refuses a booking for which the state has no room.
    pub(crate) fn check_room(&self) -> Result<(), Refusal> {
        let open = self.open.len();
        if open < BOOKINGS_OPEN_MAX || !self.forgets() {
            return Ok(());
        }
        let accepted = format!("fewer than {BOOKINGS_OPEN_MAX} in the alliance: cancel what is not wanted");
        Err(Refusal::invalid(Reason::TooManyBookings, "open bookings (count)", open, &accepted))
    }

    /// Forgets a machine's offers whose time has passed for as long as the policy says; and of those and the withdrawn
    /// ones what is above the most that are known. None goes on which the machine's line still counts. O(offers).
    pub(crate) fn forget_offers(&mut self, machine: &MachineId) {
        if !self.forgets() {
            return;
        }
        let line_from = self.line_from(machine);
        let has_passed = |offer: &Offer| offer.ends_at() <= line_from;
        let over = |o: &&Arc<Offer>| o.machine == *machine && (o.withdrawn || has_passed(o));
        let mut over: Vec<Arc<Offer>> = self.offers.values().filter(over).cloned().collect();
        over.sort_unstable_by_key(|offer| offer.revision);
        let too_many = over.len().saturating_sub(OFFERS_OVER_MAX);
        let keep_s = self.policy.history_keep_s;
        let is_old = |o: &Offer| keep_s > 0 && has_passed(o) && o.ends_at() + keep_s <= self.now;
        let goes = |(at, offer): &(usize, Arc<Offer>)| *at < too_many || is_old(offer);
        let gone: Vec<OfferId> =
            over.into_iter().enumerate().filter(goes).map(|(_, o)| o.id.clone()).collect();
        for id in gone {
            self.offers.take(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Phase;
    use crate::registry::{MachineClass, Policy};
    use crate::scenes::build::*;
    use crate::{Command, Entry, Objective, PrincipalId, Reason};

    const EIGHT: i64 = MONDAY + 8 * HOUR;

    /// Mills in the newest format, where what is over is known for so long.
    fn mills_that_keep(keep_s: i64) -> Alliance {
        let mut alliance = Alliance::mills(&["m1", "m2"]);
        alliance.ok(operator(), Command::RaiseFormat { to: Format::NEWEST });
        keep(&mut alliance, keep_s);
        alliance
    }

    fn keep(alliance: &mut Alliance, keep_s: i64) {
        let known = alliance.state.policy().clone();
        let expected_revision = known.revision;
        let policy = Policy { history_keep_s: keep_s, ..known };
        alliance.ok(operator(), Command::PutPolicy { policy, expected_revision });
    }

    fn is_known(alliance: &Alliance, id: &BookingId) -> bool {
        alliance.state.bookings().get(id).is_some()
    }

    #[test]
    fn what_is_over_is_forgotten_when_its_time_is_up_and_what_is_open_never() {
        let mut alliance = mills_that_keep(DAY);
        let made = alliance.book_mill("a", 60, "m1", EIGHT);
        let open = alliance.book_mill("b", 60, "m1", EIGHT + 2 * HOUR);
        let held = alliance.hold(order(vec![operation(MachineClass::Mill, "a", 5)]), &[("m2", EIGHT)], 600);
        assert_eq!(alliance.state.next_due(), Some(MONDAY + 600), "the hold expires");
        alliance.tick(EIGHT);
        alliance.happens("m1", started(&made, 0));
        alliance.now = EIGHT + HOUR;
        alliance.happens("m1", finished(&made, 0));
        assert_eq!(alliance.state.over_len(), 2);
        assert_eq!(alliance.state.next_due(), Some(EIGHT + DAY), "the hold is forgotten");
        alliance.tick(EIGHT + DAY - 1);
        assert!(is_known(&alliance, &held) && is_known(&alliance, &made));
        alliance.tick(EIGHT + DAY);
        assert!(!is_known(&alliance, &held) && is_known(&alliance, &made));
        alliance.tick(EIGHT + HOUR + DAY);
        assert!(!is_known(&alliance, &made) && is_known(&alliance, &open));
        assert_eq!(
            alliance.state.bookings_of(&PrincipalId::trusted("bo"), BookingId::numbered(0)).count(),
            1
        );
        assert_eq!(alliance.state.next_due(), None);
        let gone = alliance.happens("m1", started(&made, 0)).expect("it is not known");
        assert!(gone.contains("history_keep_s"), "{gone}");
    }

    #[test]
    fn work_that_stands_on_a_line_outlives_its_booking_as_tooling() {
        let mut alliance = mills_that_keep(HOUR);
        let done = alliance.book_mill("a", 60, "m1", EIGHT);
        let next = alliance.book_mill("b", 60, "m1", EIGHT + DAY);
        alliance.tick(EIGHT);
        alliance.happens("m1", started(&done, 0));
        alliance.now = EIGHT + HOUR + 1;
        alliance.happens("m1", finished(&done, 0));
        let before = alliance.place(&next, 0);
        assert_eq!(alliance.station("m1").line[0].operation(), Some((done, 0)));
        alliance.tick(EIGHT + 2 * HOUR + 1);
        assert!(!is_known(&alliance, &done));
        let first = &alliance.station("m1").line[0];
        assert_eq!((first.phase, &first.purpose, &*first.family), (Phase::Done, &Use::Tooling, "a"));
        assert_eq!(alliance.place(&next, 0), before);
    }

    #[test]
    fn there_is_a_most_of_what_is_over_and_what_came_to_nothing_goes_first() {
        let mut alliance = mills_that_keep(0);
        let made = alliance.book_mill("a", 60, "m1", EIGHT);
        let cancelled: Vec<BookingId> = (1..=3)
            .map(|n| {
                let id = alliance.book_mill("a", 5, "m2", EIGHT + n * HOUR);
                alliance.now += MINUTE;
                alliance.ok(buyer("bo"), Command::Cancel { booking: id, reason: String::new() });
                id
            })
            .collect();
        alliance.now = EIGHT;
        alliance.happens("m1", finished(&made, 0));
        alliance.tick(EIGHT + 3000 * DAY);
        assert_eq!(alliance.state.over_len(), 4, "as long as there is room");
        for (most, left) in [(3, 3), (2, 2), (1, 1)] {
            alliance.state.forget_bookings(most);
            assert_eq!((alliance.state.over_len(), is_known(&alliance, &made)), (left, true));
        }
        assert!(cancelled.iter().all(|id| !is_known(&alliance, id)));
        alliance.state.forget_bookings(0);
        assert!(!is_known(&alliance, &made));
    }

    #[test]
    fn in_a_full_store_what_comes_to_nothing_can_still_be_seen() {
        let mut alliance = mills_that_keep(0);
        let made = alliance.book_mill("a", 60, "m1", EIGHT);
        alliance.now = EIGHT;
        alliance.happens("m1", finished(&made, 0));
        let cancelled = alliance.book_mill("a", 5, "m2", EIGHT + HOUR);
        alliance.now += 60;
        alliance.ok(buyer("bo"), Command::Cancel { booking: cancelled, reason: String::new() });
        alliance.state.forget_bookings(1);
        assert!(is_known(&alliance, &cancelled) && !is_known(&alliance, &made), "the longest over goes");
    }

    #[test]
    fn a_machine_has_a_limited_number_of_offers_that_are_withdrawn() {
        let mut alliance = mills_that_keep(0);
        for n in 0..300 {
            let far = EIGHT + 1000 * DAY;
            alliance
                .ok(operator(), Command::CreateOffer(offer(&format!("w{n:03}"), "m1", &[(far, far + HOUR)])));
            let offer = OfferId::trusted(&format!("w{n:03}"));
            alliance.ok(operator(), Command::WithdrawOffer { offer, accept_disturbance: false });
        }
        let known = alliance.state.offers().len();
        assert_eq!(known, OFFERS_OVER_MAX + 3, "those of both machines that stand, and the newest");
        assert!(alliance.state.offers().get(&OfferId::trusted("w000")).is_none());
        assert!(alliance.state.offers().get(&OfferId::trusted("o-m1")).is_some());
    }

    #[test]
    fn one_entry_forgets_so_many_and_the_next_goes_on() {
        let mut alliance = mills_that_keep(0);
        for n in 0..300 {
            let id = alliance.book_mill("a", 1, "m1", EIGHT + n * MINUTE);
            alliance.ok(buyer("bo"), Command::Cancel { booking: id, reason: String::new() });
        }
        alliance.now += DAY;
        keep(&mut alliance, 60);
        assert_eq!(alliance.state.over_len(), 300);
        alliance.tick(alliance.now);
        assert_eq!(alliance.state.over_len(), 300 - FORGOTTEN_MAX);
        assert!(alliance.state.next_due().is_some_and(|due| due <= alliance.now), "more is due");
        alliance.tick(alliance.now);
        assert_eq!((alliance.state.over_len(), alliance.state.next_due()), (0, None));
    }

    #[test]
    fn more_open_bookings_than_there_is_room_for_are_refused() {
        let mut alliance = mills_that_keep(0);
        let id = alliance.book_mill("a", 60, "m1", EIGHT);
        let many = (1_000_000..).map(BookingId::numbered).take(BOOKINGS_OPEN_MAX - 2);
        many.for_each(|id| alliance.state.open.add(id));
        alliance.state.keep();
        let room = alliance.state.check_room();
        alliance.state.open.add(BookingId::numbered(999_999));
        alliance.state.keep();
        let full = alliance.state.check_room().unwrap_err();
        assert_eq!((room, full.reason, full.value.as_str()), (Ok(()), Reason::TooManyBookings, "100000"));
        let again = book(
            order(vec![operation(MachineClass::Mill, "a", 5)]),
            terms(Objective::Fastest),
            &[("m2", EIGHT)],
            0,
        );
        let entry = Entry { at: MONDAY, caller: buyer("bo"), request: None, command: again };
        assert_eq!(alliance.state.apply(99, &entry).result.unwrap_err(), full);
        assert!(is_known(&alliance, &id));
    }

    #[test]
    fn offers_whose_time_has_passed_go_when_their_machine_is_offered_again() {
        let mut alliance = mills_that_keep(DAY);
        let lend = |alliance: &mut Alliance, id: &str, from: i64| {
            alliance.ok(operator(), Command::CreateOffer(offer(id, "m1", &[(from, from + HOUR)])));
        };
        let known = |alliance: &Alliance| -> Vec<String> {
            alliance.state.offers().iter().map(|(id, _)| id.to_string()).collect()
        };
        lend(&mut alliance, "o1", EIGHT + 11 * DAY);
        alliance.tick(EIGHT + 11 * DAY + HOUR + DAY - 1);
        lend(&mut alliance, "o2", EIGHT + 20 * DAY);
        assert_eq!(known(&alliance), ["o-m2", "o1", "o2"], "its first has been over for a day");
        alliance.tick(EIGHT + 12 * DAY + HOUR);
        lend(&mut alliance, "o3", EIGHT + 21 * DAY);
        assert_eq!(known(&alliance), ["o-m2", "o2", "o3"]);
    }

    #[test]
    fn an_offer_stays_while_work_in_hand_began_before_its_end() {
        let mut alliance = mills_that_keep(60);
        let long = alliance.book_mill("a", 600, "m1", EIGHT);
        alliance.tick(EIGHT);
        alliance.happens("m1", started(&long, 0));
        alliance.tick(MONDAY + 12 * DAY);
        let next = offer("o1", "m1", &[(MONDAY + 13 * DAY, MONDAY + 14 * DAY)]);
        alliance.ok(operator(), Command::CreateOffer(next));
        assert!(alliance.state.offers().get(&OfferId::trusted("o-m1")).is_some());
    }

    #[test]
    fn a_former_format_keeps_everything() {
        let mut alliance = Alliance::mills(&["m1"]);
        let known = alliance.state.policy().clone();
        let expected_revision = known.revision;
        let policy = Policy { history_keep_s: DAY, ..known };
        let refusal = alliance.refused(operator(), Command::PutPolicy { policy, expected_revision });
        assert_eq!((refusal.field.as_str(), refusal.value.as_str()), ("policy.history_keep_s", "86400"));
        let id = alliance.book_mill("a", 60, "m1", EIGHT);
        alliance.ok(buyer("bo"), Command::Cancel { booking: id, reason: String::new() });
        assert_eq!(alliance.booking(&id).over_at, 0);
        alliance.state.forget_bookings(0);
        assert!(is_known(&alliance, &id));

        // It is raised: what was over before is taken to be so since it was due.
        alliance.ok(operator(), Command::RaiseFormat { to: Format::NEWEST });
        keep(&mut alliance, DAY);
        alliance.tick(MONDAY + 8 * DAY - 1);
        assert!(is_known(&alliance, &id));
        alliance.tick(MONDAY + 8 * DAY);
        assert!(!is_known(&alliance, &id));
    }

    #[test]
    fn a_policy_keeps_what_is_over_for_a_time_that_can_be() {
        for (history_keep_s, fine) in
            [(0, true), (59, false), (60, true), (HISTORY_KEEP_MAX_S, true), (-60, false)]
        {
            let policy = Policy { history_keep_s, ..policy() };
            assert_eq!(policy.check().is_ok(), fine, "{history_keep_s}");
        }
        let policy = Policy { history_keep_s: HISTORY_KEEP_MAX_S + 1, ..policy() };
        let accepted = policy.check().unwrap_err().accepted;
        assert_eq!(accepted, "0, or 60 to 316224000");
    }
}
