//! Many times more than a cluster bears: what still gets done, how the rest is told, and how soon it is over.

use crate::args::Args;
use crate::closed;
use crate::open::{self, Arrivals};
use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use anyhow::ensure;
use millpool_cli::client::Client;
use millpool_demo::small::Orders;
use std::time::{Duration, Instant};

/// Bookings of a lone client that say how fast it is when there is nothing else to do.
const ALONE: usize = 200;
/// So many in a row as fast as before, and the overload is over.
const CALM_IN_A_ROW: usize = 20;
/// After this it is not over.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

/// Offers `factor` times what is got done at most.
pub(crate) async fn run(
    stage: &Stage,
    args: &Args,
    factor: u32,
    results: &mut Results,
) -> anyhow::Result<()> {
    let memory_before = stage.resident_bytes();
    let peak = closed::peak(stage, args, results).await?;
    let mut lone = Lone::new(stage, args)?;
    let mut alone = Sample::new()?;
    for _ in 0..ALONE {
        let (took, done) = lone.book().await;
        alone.count(took, done);
    }
    let rate = (peak * f64::from(factor)) as u32;
    let offered = open::arrive(stage, args, Arrivals { attempts_max: 1, ..Arrivals::of(args, rate) }).await?;
    let ended = Instant::now();
    let recovered = lone.calms_down(2.0 * alone.ms(0.99)).await?;
    results.add(&format!("book, {rate}/s arriving, asked once"), open::CLIENTS, Measured::open(&offered));
    let all = offered.latency_us.len() + offered.told().map(|(_, count)| count).sum::<u64>();
    results.note(format!(
        "{factor} times the peak: {:.0} bookings/s, {:.0} % of the peak; of {all} asked, {} were booked; calm again {:.1} s \
         after the last arrival",
        offered.rate(),
        100.0 * offered.rate() / peak,
        offered.latency_us.len(),
        (recovered - ended).as_secs_f64(),
    ));
    let mib = |bytes: Vec<u64>| bytes.iter().map(|b| format!("{}", b >> 20)).collect::<Vec<_>>().join(", ");
    let (before, after) = (mib(memory_before), mib(stage.resident_bytes()));
    results.note(format!("resident memory of the nodes before and after: {before} and {after} MiB"));
    Ok(())
}

/// A client that books one thing after the other.
struct Lone {
    client: Client,
    orders: Orders,
}

impl Lone {
    fn new(stage: &Stage, args: &Args) -> anyhow::Result<Self> {
        let run = format!("lone-{}", std::process::id());
        let orders = Orders::new(args.seed ^ 0x6c6f, 0, stage.alliance.blueprint.start_s, &run);
        Ok(Self { client: stage.client("buyer:lone", 0)?, orders })
    }

    async fn book(&mut self) -> (Duration, Done) {
        let began = Instant::now();
        let answer = self.client.book(self.orders.request()).await;
        (began.elapsed(), answer.map_or_else(|error| Done::from_error(&error), |_| Done::Well))
    }

    /// When it was as fast as usual again: the first of some bookings in a row that took at most `usual_ms`.
    async fn calms_down(&mut self, usual_ms: f64) -> anyhow::Result<Instant> {
        let began = Instant::now();
        let (mut since, mut in_a_row) = (began, 0);
        while in_a_row < CALM_IN_A_ROW {
            ensure!(began.elapsed() < RECOVERS_WITHIN, "not as fast as before within {RECOVERS_WITHIN:?}");
            let (took, _) = self.book().await;
            match took.as_secs_f64() * 1000.0 <= usual_ms {
                true => in_a_row += 1,
                false => (since, in_a_row) = (Instant::now(), 0),
            }
        }
        Ok(since)
    }
}
