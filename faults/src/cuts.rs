//! Cuts in the network: the leader from both followers, one way only, and a node with a client beside it.

use crate::certificates;
use crate::check::broken;
use crate::machine::Need;
use crate::network::{self, Network};
use crate::stage::{ANSWERS_WITHIN, Account, Run, Stage};
use millpool_demo::cluster::NODES;
use rand::RngExt as _;
use std::time::{Duration, Instant};

/// What these scenarios need.
pub(crate) const NEEDS: &[Need] = network::NEEDS;

/// How long a node that is cut off may take for a read, to say in the end that it cannot.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// What an acknowledgement that was on its way may take to arrive after a cut.
const ON_ITS_WAY: Duration = Duration::from_secs(3);
/// The client beside the node that is cut off.
const BESIDE: &str = "beside";

/// Which way the leader is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Both,
    /// It is not heard.
    Out,
    /// It hears nothing.
    In,
}

/// The leader is cut off from both followers.
pub(crate) async fn leader(run: &Run) -> anyhow::Result<Account> {
    play(run, |_| Way::Both).await
}

/// The leader is cut off one way: it is not heard, or hears nothing.
pub(crate) async fn one_way(run: &Run) -> anyhow::Result<Account> {
    play(run, |round| if round % 2 == 0 { Way::Out } else { Way::In }).await
}

async fn play(run: &Run, way: impl Fn(usize) -> Way) -> anyhow::Result<Account> {
    let (mut stage, network) = begin(run).await?;
    let mut random = run.random();
    let mut answered = 0;
    for round in 0..run.rounds {
        let leader = stage.leader().await?;
        let others = (0..NODES).filter(|other| *other != leader);
        let began = Instant::now();
        for other in others {
            if way(round) != Way::In {
                network.cut(leader, other)?;
            }
            if way(round) != Way::Out {
                network.cut(other, leader)?;
            }
        }
        // The others elect another. What is left of the former one gives no old answer.
        let lasts = Duration::from_millis(random.random_range(4000..7000));
        stage.answers_after(began + Duration::from_secs(2)).await?;
        answered += usize::from(stage.reads_freshly(leader, READ_WITHIN).await?);
        tokio::time::sleep(lasts.saturating_sub(began.elapsed())).await;
        network.heal()?;
        stage.recovers(began, Instant::now()).await?;
    }
    stage
        .account
        .notes
        .push(format!("{answered} of {} fresh reads answered by the node cut off", run.rounds));
    end(stage, network).await
}

/// One direction between a leader and one follower is cut: the follower hears nothing of it, and of it all others do.
pub(crate) async fn one_link(run: &Run) -> anyhow::Result<Account> {
    let (mut stage, network) = begin(run).await?;
    let mut random = run.random();
    for round in 0..run.rounds {
        let leader = stage.leader().await?;
        let follower = (leader + 1 + round % 2) % NODES;
        let began = Instant::now();
        network.cut(leader, follower)?;
        tokio::time::sleep(Duration::from_millis(random.random_range(3000..6000))).await;
        stage.answers_after(Instant::now()).await?;
        network.heal()?;
        stage.recovers(began, Instant::now()).await?;
    }
    end(stage, network).await
}

/// A node is cut off together with a client that knows no other: nothing that it asks may be acknowledged, and
/// everybody else is served.
pub(crate) async fn minority(run: &Run) -> anyhow::Result<Account> {
    let (mut stage, network) = begin(run).await?;
    let mut random = run.random();
    for round in 0..run.rounds {
        let leader = stage.leader().await?;
        let alone = (leader + round) % NODES;
        let beside = format!("{BESIDE}-{round}");
        stage.stand_beside(&beside, alone).await?;
        stage.acknowledges_of(&beside, Instant::now()).await?;
        let began = Instant::now();
        for other in (0..NODES).filter(|other| *other != alone) {
            network.cut(alone, other)?;
            network.cut(other, alone)?;
        }
        let cut = Instant::now();
        stage.answers_after(cut + Duration::from_secs(2)).await?;
        let lasts = Duration::from_millis(random.random_range(5000..8000));
        tokio::time::sleep(lasts.saturating_sub(cut.elapsed())).await;
        let told = stage.book().of_after(&beside, cut + ON_ITS_WAY);
        if told > 0 {
            let how =
                format!("node {}, cut off, acknowledged {told} bookings of the client beside it", alone + 1);
            return Err(broken(how));
        }
        network.heal()?;
        let healed = Instant::now();
        stage.recovers(began, healed).await?;
        stage.acknowledges_of(&beside, healed).await?;
    }
    end(stage, network).await
}

/// A cluster with a namespace for each node, and buyers at work.
async fn begin(run: &Run) -> anyhow::Result<(Stage, Network)> {
    let network = Network::create()?;
    let mut options = run.options();
    options.sites = std::array::from_fn(|index| network.place(index, &options.sites[index]));
    options.security = Some(certificates::issue(&run.folder.join("certificates"), &options.sites)?);
    let mut stage = Stage::set_up(run, options).await?;
    stage.go_to_work().await?;
    Ok((stage, network))
}

/// The nodes end before the network that they are in.
async fn end(stage: Stage, network: Network) -> anyhow::Result<Account> {
    let account = stage.finish().await;
    drop(network);
    account
}

impl Stage {
    /// Breaks unless this buyer is served soon after an instant.
    async fn acknowledges_of(&mut self, buyer: &str, instant: Instant) -> anyhow::Result<()> {
        while self.book().of_after(buyer, instant) == 0 {
            self.check_alive()?;
            if instant.elapsed() > ANSWERS_WITHIN {
                return Err(broken(format!("{buyer} was not served within {ANSWERS_WITHIN:?}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}
