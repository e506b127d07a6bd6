//! Bookings beside etcd's puts: both clusters of three on this machine, taking turns, several times over.

use crate::args::Args;
use crate::closed;
use crate::etcd::Etcd;
use crate::report::{Measured, Results};
use crate::sample::Done;
use crate::stage::Stage;

/// Measures both at every number of clients, `repeats` times.
pub(crate) async fn run(
    stage: &Stage,
    args: &Args,
    repeats: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    let etcd = Etcd::start(stage.folder()?).await?;
    for repeat in 0..repeats {
        for &clients in &args.clients {
            let putters = etcd.clients(clients, &format!("{repeat}/{clients}"))?;
            let puts = closed::drive(args, putters, async |putter| match putter.put().await {
                Ok(()) => Done::Well,
                Err(error) => Done::Unanswered(error.to_string()),
            });
            let puts = Measured::closed(&puts.await?);
            let booked = Measured::closed(&closed::book(stage, args, clients).await?);
            results.add_pair(clients, puts, booked);
        }
    }
    Ok(())
}
