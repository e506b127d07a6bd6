//! Most of what a cluster bears, for long: whether anything grows that should not.

use crate::args::Args;
use crate::closed;
use crate::open::{self, Arrivals, CLIENTS};
use crate::report::{Measured, Results};
use crate::stage::Stage;
use std::time::Duration;

/// Of the peak, of bookings and cancellations together.
const SHARE: f64 = 0.7;
/// Between two looks.
const LOOK: Duration = Duration::from_secs(60);

/// Offers so many minutes of load, and looks at the nodes every minute.
pub(crate) async fn run(
    stage: &Stage,
    args: &Args,
    minutes: u64,
    results: &mut Results,
) -> anyhow::Result<()> {
    stage.forget_soon().await?;
    let peak = closed::peak(stage, args, results).await?;
    // Each is cancelled, which is a write, too.
    let rate = (peak * SHARE / 2.0) as u32;
    let mut looks = Vec::new();
    let mut booked = 0;
    for minute in 1..=minutes {
        let arrivals =
            Arrivals { cancelled: true, warm_up: Duration::ZERO, measured: LOOK, ..Arrivals::of(args, rate) };
        let sample = open::arrive(stage, args, arrivals).await?;
        booked += sample.latency_us.len();
        let resident: Vec<u64> = stage.resident_bytes().iter().map(|bytes| bytes >> 20).collect();
        results.add(
            &format!("minute {minute}: {rate}/s arriving, resident {resident:?} MiB"),
            CLIENTS,
            Measured::open(&sample),
        );
        looks.push((booked, resident.iter().sum::<u64>()));
    }
    if let (Some(middle), Some(last)) = (looks.get(looks.len() / 2), looks.last())
        && last.0 > middle.0
    {
        let (bookings, mib) = (last.0 - middle.0, last.1 as f64 - middle.1 as f64);
        results.note(format!(
            "in the second half {bookings} bookings more were known, and the three nodes grew by {mib:.0} MiB: {:.1} KiB a \
             booking on each",
            mib * 1024.0 / 3.0 / bookings as f64
        ));
    }
    Ok(())
}
