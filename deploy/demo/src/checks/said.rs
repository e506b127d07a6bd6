//! Every acknowledged booking is there, exactly once, with the promise it was given or a better one.

use super::Fault;
use crate::ledger::{Ledger, Standing, Told};
use futures::{StreamExt as _, stream};
use millpool_cli::client::{Client, ClientError, ErrorKind};
use millpool_proto::v1::{Booking, BookingStatus};
use std::collections::{BTreeMap, BTreeSet};

const THERE: &str = "an acknowledged booking is there";
const ONCE: &str = "a request is done once";
const PROMISE: &str = "a promise is never worsened";
const STANDING: &str = "a booking stands as it was said";

/// Repetitions on their way at once.
const AT_ONCE: usize = 8;

/// Holds what was told against the bookings that there are.
pub fn judge(ledger: &Ledger, bookings: &[Booking]) -> Vec<Fault> {
    let told = ledger.told();
    let by_id: BTreeMap<&str, &Booking> =
        bookings.iter().map(|booking| (booking.id.as_str(), booking)).collect();
    let mut faults = Vec::new();
    for told in &told {
        match by_id.get(told.booking_id.as_str()) {
            None => faults.push(Fault::new(THERE, format!("{} of {} is lost", told.booking_id, told.buyer))),
            Some(booking) => faults.extend(one(told, booking)),
        }
    }
    faults.extend(doubled(&told, ledger, bookings));
    faults
}

fn one(told: &Told, booking: &Booking) -> Vec<Fault> {
    let mut faults = Vec::new();
    let id = &told.booking_id;
    let reference = |booking: &Booking| booking.order.as_ref().map(|order| order.reference.clone());
    if booking.buyer != told.buyer
        || reference(booking) != told.request.order.as_ref().map(|o| o.reference.clone())
    {
        faults.push(Fault::new(THERE, format!("{id} is another's now: {}", booking.buyer)));
    }
    let promise = booking.promise.clone().unwrap_or_default();
    if promise.by_s > told.promised_by_s || promise.by_s == 0 {
        let how = format!("{id} was promised by {}, now by {}", told.promised_by_s, promise.by_s);
        faults.push(Fault::new(PROMISE, how));
    }
    let fen = promise.price.map_or(i64::MAX, |price| price.total_fen);
    if fen > told.promised_fen {
        faults.push(Fault::new(
            PROMISE,
            format!("{id} was promised at {} fen, now at {fen}", told.promised_fen),
        ));
    }
    let fits = match told.standing {
        Standing::Held { .. } => matches!(booking.status(), BookingStatus::Held | BookingStatus::Expired),
        Standing::Confirmed => {
            matches!(booking.status(), BookingStatus::Confirmed | BookingStatus::Completed)
        }
        Standing::Cancelled => booking.status() == BookingStatus::Cancelled,
        Standing::InDoubt => true,
    };
    if !fits {
        let how =
            format!("{id} was told to be {:?} and is {}", told.standing, booking.status().as_str_name());
        faults.push(Fault::new(STANDING, how));
    }
    faults
}

/// No two answers gave one booking, and no order of the run has two bookings or one that nobody asked for.
fn doubled(told: &[Told], ledger: &Ledger, bookings: &[Booking]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut ids = BTreeSet::new();
    for told in told.iter().filter(|told| !ids.insert(&told.booking_id)) {
        faults.push(Fault::new(ONCE, format!("{} was given to two requests", told.booking_id)));
    }
    let mut orders: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for booking in bookings {
        let reference = booking.order.as_ref().map_or("", |order| order.reference.as_str());
        orders.entry((&booking.buyer, reference)).or_default().push(&booking.id);
    }
    for ((buyer, reference), ids) in orders.iter().filter(|(_, ids)| ids.len() > 1) {
        faults.push(Fault::new(
            ONCE,
            format!("{reference:?} of {buyer} was booked {} times: {ids:?}", ids.len()),
        ));
    }
    let doubts = ledger.doubts().len();
    if bookings.len() > told.len() + doubts {
        let how = format!(
            "{} bookings, but only {} acknowledged and {doubts} in doubt",
            bookings.len(),
            told.len()
        );
        faults.push(Fault::new(ONCE, how));
    }
    faults
}

/// Repeats the `newest` acknowledged requests, and those that got no answer, with their request ids: each
/// must give the first answer again and make nothing new. Answers with the faults and how many it
/// repeated.
pub async fn repeat(clients: &dyn Fn(&str) -> Client, ledger: &Ledger, newest: usize) -> (Vec<Fault>, usize) {
    let told = ledger.told();
    let last = &told[told.len().saturating_sub(newest)..];
    let repeated = stream::iter(last).map(|told| {
        let client = clients(&told.buyer);
        async move { again(told, client.book(told.request.clone()).await.map(|answer| answer.booking)) }
    });
    let faults: Vec<Fault> =
        repeated.buffer_unordered(AT_ONCE).filter_map(async |fault| fault).collect().await;
    (faults, last.len())
}

fn again(told: &Told, answer: Result<Option<Booking>, ClientError>) -> Option<Fault> {
    let id = &told.request.request_id;
    match answer {
        Ok(Some(booking)) if booking.id == told.booking_id => {
            let by_s = booking.promise.map_or(0, |promise| promise.by_s);
            let how = || format!("request {id} was promised {}, repeated it says {by_s}", told.promised_by_s);
            (by_s != told.promised_by_s).then(|| Fault::new(ONCE, how()))
        }
        Ok(booking) => {
            let other = booking.map(|booking| booking.id).unwrap_or_default();
            let how = format!("request {id} gave {}, repeated it gives {other:?}", told.booking_id);
            Some(Fault::new(ONCE, how))
        }
        Err(error) => Some(Fault::new(
            ONCE,
            format!("request {id} gave {}, repeated it fails: {error}", told.booking_id),
        )),
    }
}

/// Settles what got no answer, by repeating it: what was done is told now, what is refused was not done.
/// What remains in doubt is answered.
pub async fn settle_doubts(clients: &dyn Fn(&str) -> Client, ledger: &Ledger) -> usize {
    let mut left = 0;
    for (buyer, request) in ledger.doubts() {
        match clients(&buyer).book(request.clone()).await {
            Ok(answer) => {
                if let Some(booking) = &answer.booking {
                    ledger.booked(&buyer, request, booking);
                }
            }
            Err(error) if error.kind == ErrorKind::Refused => {}
            Err(_) => left += 1,
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;
    use millpool_proto::v1::BookRequest;

    fn told() -> (Ledger, Booking) {
        let booking = examples::booking(&examples::alliance());
        let ledger = Ledger::default();
        let request =
            BookRequest { request_id: "q1".into(), order: booking.order.clone(), ..BookRequest::default() };
        ledger.booked("avocet", request, &booking);
        (ledger, booking)
    }

    fn rules(ledger: &Ledger, bookings: &[Booking]) -> Vec<&'static str> {
        judge(ledger, bookings).into_iter().map(|fault| fault.rule).collect()
    }

    #[test]
    fn what_is_as_it_was_told_has_no_fault() {
        let (ledger, booking) = told();
        assert_eq!(judge(&ledger, &[booking]), []);
    }

    #[test]
    fn a_lost_a_doubled_a_changed_and_a_worsened_booking_are_found() {
        let (ledger, booking) = told();
        assert_eq!(rules(&ledger, &[]), [THERE]);
        let twin = Booking { id: "B000002".into(), ..booking.clone() };
        assert!(rules(&ledger, &[booking.clone(), twin]).contains(&ONCE));
        let mut later = booking.clone();
        later.promise.as_mut().expect("a promise").by_s += 1;
        assert_eq!(rules(&ledger, &[later]), [PROMISE]);
        let mut dearer = booking.clone();
        let promise = dearer.promise.as_mut().expect("a promise");
        promise.price.as_mut().expect("a price").total_fen += 1;
        assert_eq!(rules(&ledger, &[dearer]), [PROMISE]);
        let cancelled = Booking { status: BookingStatus::Cancelled.into(), ..booking };
        assert_eq!(rules(&ledger, &[cancelled]), [STANDING]);
    }
}
