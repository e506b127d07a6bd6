//! Machines that fail, one after the other: how soon the plants and the buyers know where the work goes now.
//!
//! A failure is put into its agent's outbox as adapters do it. From there the clock runs until every operation that stood on
//! the failed machine stands elsewhere, or later, on the lists that the plants' agents have kept, and until the buyers' watch
//! has told so. Beside it every machine reports a change of state each second.

use crate::args::Args;
use crate::closed;
use crate::floor::{Floor, Voice};
use crate::report::{Measured, Results};
use crate::sample::{Done, Sample};
use crate::stage::Stage;
use anyhow::{Context as _, bail};
use millpool_cli::client::WatchEvent;
use millpool_demo::clock::wall_ms;
use millpool_node_agent::dispatch::Kept;
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{
    Booking, DispatchItem, MachineDown, MachineState, MachineUp, StateChanged, WatchBookingsRequest,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Bookings made before, for each machine.
const BOOKINGS_PER_MACHINE: usize = 5;
/// A failed machine is out for so long, seconds.
const OUT_S: i64 = 8 * 3600;
/// Longest until everybody knows.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between a machine's return and the next failure.
const PAUSE: Duration = Duration::from_millis(300);
/// Lists and bookings that wait to be looked at.
const NEWS_MAX: usize = 1024;

/// Lets `count` machines fail.
pub(crate) async fn run(
    stage: &Stage,
    args: &Args,
    count: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    closed::fill(stage, args, BOOKINGS_PER_MACHINE * args.machines).await?;
    let plants = stage.alliance.plants.iter().map(|plant| {
        let machines = stage.alliance.machines_of(&plant.id).map(|machine| machine.id.clone());
        (plant.id.clone(), machines.collect())
    });
    let floor = Floor::open(stage, plants).await?;
    let mut beside: JoinSet<_> =
        floor.plants.iter().map(|plant| chatter(plant.voice.clone(), plant.machines.clone())).collect();
    let mut known = Known::follow(stage, &floor).await?;
    let (mut lists, mut buyers) = (Sample::new()?, Sample::new()?);
    let (begun, mut moved, mut at_risk) = (Instant::now(), 0, BTreeSet::new());
    for number in 0..count {
        known.listen(PAUSE).await?;
        if let Some(ended) = beside.try_join_next() {
            ended??;
            bail!("a plant reports no more");
        }
        let failure = known.next_failure(&floor, number).context("no machine has work to lose")?;
        let safe: Vec<_> = failure.fallen.iter().filter(|item| !known.is_at_risk(item)).cloned().collect();
        failure.tell(&floor).await?;
        let (listed, told) = known.until_told(&failure).await?;
        lists.count(listed, Done::Well);
        buyers.count(told, Done::Well);
        moved += failure.fallen.len();
        at_risk.extend(safe.into_iter().filter(|item| known.is_at_risk(item)).map(|item| item.booking_id));
        failure.voice(&floor).tell(&failure.machine, What::MachineUp(MachineUp {})).await?;
    }
    (lists.elapsed, buyers.elapsed) = (begun.elapsed(), begun.elapsed());
    beside.shutdown().await;
    results.add("from a failure to the plants' lists", floor.plants.len(), Measured::open(&lists));
    results.add("from a failure to the buyers", floor.plants.len(), Measured::open(&buyers));
    results.note(format!(
        "{count} failures among {} machines; {moved} operations had to move; {} bookings were at risk then that had not been",
        args.machines,
        at_risk.len()
    ));
    floor.close().await
}

/// A change of state a second of each machine.
async fn chatter(voice: Voice, machines: Vec<String>) -> anyhow::Result<()> {
    let every = Duration::from_secs(1) / machines.len().max(1) as u32;
    let mut ticks = tokio::time::interval(every);
    let states = [MachineState::Producing, MachineState::Idle];
    for state in states.into_iter().cycle() {
        for machine in &machines {
            ticks.tick().await;
            let what = What::StateChanged(StateChanged { state: state.into() });
            voice.tell(machine, what).await?;
        }
    }
    Ok(())
}

/// A machine that fails, and the work that falls from it.
struct Failure {
    plant: usize,
    machine: String,
    /// Seconds since the Unix epoch.
    until_s: i64,
    fallen: Vec<DispatchItem>,
    at: Instant,
}

impl Failure {
    fn voice<'a>(&self, floor: &'a Floor) -> &'a Voice {
        &floor.plants[self.plant].voice
    }

    async fn tell(&self, floor: &Floor) -> anyhow::Result<()> {
        let down = MachineDown { reason: "spindle".to_owned(), expected_until_s: self.until_s };
        self.voice(floor).tell(&self.machine, What::MachineDown(down)).await
    }

    /// Whether a place is one that the failed machine cannot keep.
    fn hits(&self, machine: &str, start_s: i64) -> bool {
        machine == self.machine && start_s < self.until_s
    }
}

/// What plants and buyers were told last.
struct Known {
    lists: Vec<Arc<Kept>>,
    bookings: BTreeMap<String, Heard>,
    news: mpsc::Receiver<News>,
    /// Those who bring it; with them it ends.
    _bringing: JoinSet<anyhow::Result<()>>,
}

/// A booking, and when it was heard of.
struct Heard {
    at: Instant,
    booking: Booking,
}

enum News {
    List(usize, Arc<Kept>),
    Bookings(Vec<Booking>),
}

impl Known {
    async fn follow(stage: &Stage, floor: &Floor) -> anyhow::Result<Self> {
        let (sender, news) = mpsc::channel(NEWS_MAX);
        let mut bringing = JoinSet::new();
        let mut lists = Vec::new();
        for (plant, mut kept) in floor.plants.iter().map(|plant| plant.kept.clone()).enumerate() {
            lists.push(kept.borrow_and_update().clone());
            let sender = sender.clone();
            bringing.spawn(async move {
                while kept.changed().await.is_ok() {
                    let list = kept.borrow_and_update().clone();
                    sender.send(News::List(plant, list)).await?;
                }
                Ok(())
            });
        }
        let mut watch = stage.client("operator:load", 0)?.watch_bookings(WatchBookingsRequest::default());
        bringing.spawn(async move {
            loop {
                if let WatchEvent::Changed(changed) = watch.next().await? {
                    sender.send(News::Bookings(changed.bookings)).await?;
                }
            }
        });
        let mut known = Self { lists, bookings: BTreeMap::new(), news, _bringing: bringing };
        known.listen(PAUSE).await?;
        Ok(known)
    }

    /// Takes what is told for a while.
    async fn listen(&mut self, span: Duration) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + span;
        while let Ok(news) = tokio::time::timeout_at(until, self.news.recv()).await {
            self.take(news.context("nobody tells anything any more")?);
        }
        Ok(())
    }

    fn take(&mut self, news: News) {
        match news {
            News::List(plant, list) => self.lists[plant] = list,
            News::Bookings(bookings) => {
                let heard = |booking: Booking| (booking.id.clone(), Heard { at: Instant::now(), booking });
                self.bookings.extend(bookings.into_iter().map(heard));
            }
        }
    }

    fn items(&self) -> impl Iterator<Item = &DispatchItem> {
        self.lists.iter().filter_map(|kept| kept.list.as_ref()).flat_map(|list| &list.items)
    }

    /// Machine after machine, those that have work while they would be out.
    fn next_failure(&self, floor: &Floor, number: usize) -> Option<Failure> {
        let until_s = wall_ms() / 1000 + OUT_S;
        let machines = floor
            .plants
            .iter()
            .enumerate()
            .flat_map(|(plant, of)| of.machines.iter().map(move |m| (plant, m)));
        let with_work = machines.filter_map(|(plant, machine)| {
            let failure =
                Failure { plant, machine: machine.clone(), until_s, fallen: Vec::new(), at: Instant::now() };
            let fallen: Vec<_> =
                self.items().filter(|item| failure.hits(&item.machine_id, item.start_s)).cloned().collect();
            (!fallen.is_empty()).then_some(Failure { fallen, ..failure })
        });
        let mut with_work: Vec<_> = with_work.collect();
        let count = with_work.len().max(1);
        (!with_work.is_empty()).then(|| with_work.swap_remove(number % count))
    }

    /// How long it takes until the plants' lists say where everything goes, and until the buyers know.
    async fn until_told(&mut self, failure: &Failure) -> anyhow::Result<(Duration, Duration)> {
        let (mut listed, mut told) = (None, None);
        let deadline = failure.at + PATIENCE;
        loop {
            listed = listed.or_else(|| self.is_listed(failure).then(|| failure.at.elapsed()));
            told = told.or_else(|| self.is_told(failure).then(|| failure.at.elapsed()));
            if let (Some(listed), Some(told)) = (listed, told) {
                return Ok((listed, told));
            }
            match tokio::time::timeout_at(deadline.into(), self.news.recv()).await {
                Ok(news) => self.take(news.context("nobody tells anything any more")?),
                Err(_) => bail!(
                    "{PATIENCE:?} after {} failed, listed after {listed:?}, told after {told:?}",
                    failure.machine
                ),
            }
        }
    }

    /// The failed machine has nothing to do while it is out, and what fell from it is to be done elsewhere or later.
    fn is_listed(&self, failure: &Failure) -> bool {
        let placed = |fallen: &DispatchItem| {
            self.items().any(|i| (&i.booking_id, i.operation) == (&fallen.booking_id, fallen.operation))
        };
        !self.items().any(|item| failure.hits(&item.machine_id, item.start_s))
            && failure.fallen.iter().all(placed)
    }

    fn is_told(&self, failure: &Failure) -> bool {
        failure.fallen.iter().all(|fallen| {
            let Some(heard) = self.bookings.get(&fallen.booking_id) else { return false };
            let placed = heard
                .booking
                .assignments
                .iter()
                .any(|a| a.operation == fallen.operation && !failure.hits(&a.machine_id, a.start_s));
            heard.at > failure.at && placed
        })
    }

    fn is_at_risk(&self, item: &DispatchItem) -> bool {
        self.bookings.get(&item.booking_id).is_some_and(|heard| heard.booking.at_risk)
    }
}
