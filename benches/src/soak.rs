//! Most of what a cluster bears, for long: whether anything grows that should not.

use crate::args::Args;
use crate::closed;
use crate::open::{self, Arrivals, CLIENTS};
use crate::report::{Measured, Results};
use crate::stage::Stage;
use millpool_demo::cluster::NODES;
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
    stage.forget_what_is_over().await?;
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
        let bytes = stage.resident_bytes();
        let resident: Vec<u64> = bytes.iter().map(|bytes| bytes >> 20).collect();
        results.add(
            &format!("minute {minute}: {rate}/s arriving, resident {resident:?} MiB"),
            CLIENTS,
            Measured::open(&sample),
        );
        looks.push((booked, bytes.iter().sum::<u64>()));
    }
    let settled = &looks[looks.len() / 3..];
    if let Some(bytes) = slope(settled) {
        results.note(format!(
            "after the first third each booking that was made took {:.2} KiB on each node",
            bytes / 1024.0 / NODES as f64
        ));
    }
    Ok(())
}

/// How much the second of each pair grows with the first, by least squares: single looks fall on peaks.
fn slope(pairs: &[(u64, u64)]) -> Option<f64> {
    let count = pairs.len() as f64;
    let mean = |of: fn(&(u64, u64)) -> u64| pairs.iter().map(|pair| of(pair) as f64).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let both: f64 = pairs.iter().map(|p| (p.0 as f64 - x) * (p.1 as f64 - y)).sum();
    let square: f64 = pairs.iter().map(|p| (p.0 as f64 - x).powi(2)).sum();
    (square > 0.0).then(|| both / square)
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn a_peak_in_the_middle_does_not_hide_what_grows() {
        assert_eq!(slope(&[(0, 10), (1, 12), (2, 14)]), Some(2.0));
        assert!(slope(&[(0, 10), (1, 12), (2, 30), (3, 16), (4, 18)]).is_some_and(|s| s > 1.9));
        assert_eq!(slope(&[(5, 10)]), None);
    }
}
