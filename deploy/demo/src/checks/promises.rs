//! How the promises stand: kept, at risk by a recorded disturbance, or broken without cause.

use super::Fault;
use millpool_proto::v1::{Booking, BookingStatus};

const CAUSE: &str = "a breach has a disturbance as its recorded cause";

/// How the promises stand, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promises {
    /// Done in time.
    pub kept: usize,
    /// Done late, a disturbance being on record.
    pub late_with_cause: usize,
    /// To come, in time as planned.
    pub on_time: usize,
    /// To come, at risk, a disturbance being on record.
    pub at_risk_with_cause: usize,
    /// Late or at risk without a disturbance on record.
    pub broken: usize,
    /// Disturbances on record.
    pub disturbances: usize,
}

/// Judges every confirmed or completed booking.
pub fn judge(bookings: &[Booking]) -> (Promises, Vec<Fault>) {
    let mut promises = Promises::default();
    let mut faults = Vec::new();
    for booking in bookings {
        let by_s = booking.promise.as_ref().map_or(0, |promise| promise.by_s);
        let done_s = booking.assignments.iter().map(|place| place.finished_at_s).max().unwrap_or(0);
        let (count, in_time) = match booking.status() {
            BookingStatus::Completed => (true, done_s <= by_s),
            BookingStatus::Confirmed => {
                let planned = booking.completes_at_s > 0 && booking.completes_at_s <= by_s;
                (true, planned && !booking.at_risk)
            }
            _ => (false, true),
        };
        promises.disturbances += booking.disturbances.len();
        if !count {
            continue;
        }
        let completed = booking.status() == BookingStatus::Completed;
        match (completed, in_time, booking.disturbances.is_empty()) {
            (true, true, _) => promises.kept += 1,
            (true, false, false) => promises.late_with_cause += 1,
            (false, true, _) => promises.on_time += 1,
            (false, false, false) => promises.at_risk_with_cause += 1,
            (_, false, true) => {
                promises.broken += 1;
                let when = if completed { done_s } else { booking.completes_at_s };
                faults.push(Fault::new(CAUSE, format!("{} is promised by {by_s}, done {when}", booking.id)));
            }
        }
    }
    (promises, faults)
}

#[cfg(test)]
mod tests {
    use super::super::examples;
    use super::*;
    use millpool_proto::v1::Disturbance;

    #[test]
    fn a_late_booking_is_a_fault_unless_a_disturbance_is_on_record() {
        let mut booking = examples::booking(&examples::alliance());
        assert_eq!(judge(std::slice::from_ref(&booking)).0.on_time, 1);
        booking.completes_at_s = booking.promise.as_ref().expect("a promise").by_s + 1;
        let (promises, faults) = judge(std::slice::from_ref(&booking));
        assert_eq!((promises.broken, faults.len()), (1, 1));
        booking.disturbances.push(Disturbance::default());
        let (promises, faults) = judge(&[booking]);
        assert_eq!((promises.at_risk_with_cause, faults.len()), (1, 0));
    }

    #[test]
    fn a_booking_that_was_done_in_time_is_kept() {
        let mut booking = examples::booking(&examples::alliance());
        booking.status = BookingStatus::Completed.into();
        booking.assignments[1].finished_at_s = booking.assignments[1].end_s;
        assert_eq!(judge(std::slice::from_ref(&booking)).0.kept, 1);
        booking.assignments[1].finished_at_s += 3600;
        assert_eq!(judge(&[booking]).0.broken, 1);
    }
}
