//! What a scenario plays on: a cluster with an alliance in it, buyers at work, and the account of how long
//! whatever happened kept them waiting.

use crate::args::{Args, Plant};
use crate::check::{Verdict, Witness, broken};
use crate::load::{Book, Load};
use anyhow::Context as _;
use millpool_cli::client::{Client, ErrorKind};
use millpool_demo::alliance::{Alliance, Blueprint};
use millpool_demo::clock::wall_ms;
use millpool_demo::cluster::{Cluster, NODES, Options, Security};
use millpool_demo::ledger::{Ledger, Standing};
use millpool_demo::setup;
use millpool_proto::v1::{
    BookRequest, Booking, GetBookingRequest, GetStatusRequest, Principal, PutPrincipalRequest, Role,
};
use rand::{SeedableRng as _, rngs::StdRng};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// While a majority can talk, and after it can again, somebody's booking is acknowledged within this.
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// Once every fault has ended, every node knows what the others know within this.
pub(crate) const LEVEL_WITHIN: Duration = Duration::from_secs(30);
/// How long a cluster without faults may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(60);
/// Buyers at work.
const BUYERS: usize = 8;
/// How long a buyer waits for one answer before it asks elsewhere.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Machines of the alliance.
const MACHINES: usize = 60;
/// Days that it lends: long, so that the pool does not fill up.
const DAYS: i64 = 90;
/// Log entries between snapshots: few, so that faults meet snapshots, too.
const SNAPSHOT_EVERY: u64 = 2000;
/// Calm before the first fault.
const CALM: Duration = Duration::from_secs(1);

/// One run of one scenario.
pub(crate) struct Run {
    pub(crate) args: Args,
    /// How often the fault strikes.
    pub(crate) rounds: usize,
    /// The folder with the built binaries.
    pub(crate) bin_dir: PathBuf,
    /// Where everything of this run is kept.
    pub(crate) folder: PathBuf,
}

impl Run {
    /// Coordinators as a scenario begins with them.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(self.bin_dir.clone(), self.folder.clone());
        (options.optimise_every_ms, options.optimise_for_ms) = (2000, 500);
        options.snapshot_every = SNAPSHOT_EVERY;
        "warn".clone_into(&mut options.log);
        options
    }

    /// Numbers from the seed.
    pub(crate) fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.args.seed)
    }

    /// Whether this is planted.
    pub(crate) fn plants(&self, plant: Plant) -> bool {
        self.args.plant == Some(plant)
    }
}

/// How a scenario went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    /// How often a fault struck.
    pub(crate) faults: usize,
    /// The longest that nobody's booking was acknowledged, around a fault.
    pub(crate) unanswered_max: Duration,
    /// The longest from a fault's end to an acknowledged booking.
    pub(crate) answered_max: Duration,
    /// The longest from a fault's end until all nodes knew the same.
    pub(crate) level_max: Duration,
    /// Whatever else is worth telling.
    pub(crate) notes: Vec<String>,
    /// What the checks said in the end.
    pub(crate) verdict: Verdict,
}

/// Everything that is running.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) alliance: Alliance,
    pub(crate) load: Load,
    pub(crate) operator: Client,
    pub(crate) account: Account,
    buyers: BTreeMap<String, Client>,
    security: Option<Security>,
    plant: Option<Plant>,
}

impl Stage {
    /// Starts a cluster and sets the alliance up in it. Nobody books yet.
    pub(crate) async fn set_up(run: &Run, options: Options) -> anyhow::Result<Self> {
        let start_s = (wall_ms() / 1000).div_euclid(60) * 60;
        let seed = run.args.seed;
        let blueprint = Blueprint { seed, machines: MACHINES, start_s, days: DAYS, own_permille: 0 };
        let security = options.security.clone();
        let mut cluster = Cluster::start(options)?;
        cluster.wait_for_leader(UP_WITHIN).await?;
        let token = security.as_ref().map_or("operator:faults", |security| &security.operator_token);
        let operator = cluster.client(token, 0)?;
        let stage = Self {
            cluster,
            alliance: Alliance::new(blueprint),
            load: Load::new(seed, start_s),
            operator,
            account: Account::default(),
            buyers: BTreeMap::new(),
            security,
            plant: run.args.plant,
        };
        setup::create(&stage.operator, &stage.alliance).await.context("creating the alliance")?;
        Ok(stage)
    }

    /// A cluster on loopback with buyers at work.
    pub(crate) async fn busy(run: &Run) -> anyhow::Result<Self> {
        let mut stage = Self::set_up(run, run.options()).await?;
        stage.go_to_work().await?;
        Ok(stage)
    }

    /// Buyers begin to book, spread over all nodes.
    pub(crate) async fn go_to_work(&mut self) -> anyhow::Result<()> {
        for number in 0..BUYERS {
            let name = format!("buyer-{number}");
            let token = self.token(&name).await?;
            let client = self.cluster.client(&token, number)?.with_patience(ATTEMPT, Duration::from_secs(30));
            self.buyers.insert(name.clone(), client.clone());
            self.load.add(&name, client);
        }
        tokio::time::sleep(CALM).await;
        Ok(())
    }

    /// The checks in the end know of a buyer whose bookings are made by others than the load.
    pub(crate) async fn acquaint(&mut self, name: &str) -> anyhow::Result<()> {
        let token = self.token(name).await?;
        self.buyers.insert(name.to_owned(), self.cluster.client(&token, 0)?);
        Ok(())
    }

    /// A buyer who knows one node alone begins to book.
    pub(crate) async fn stand_beside(&mut self, name: &str, index: usize) -> anyhow::Result<()> {
        let token = self.token(name).await?;
        let anywhere = self.cluster.client(&token, index)?;
        let one = anywhere.at(&self.cluster.endpoints()[index])?;
        self.buyers.insert(name.to_owned(), anywhere);
        self.load.add(name, one.with_patience(ATTEMPT, 2 * ATTEMPT));
        Ok(())
    }

    /// A buyer's token, made by the operator where tokens are asked for.
    async fn token(&self, name: &str) -> anyhow::Result<String> {
        if self.security.is_none() {
            return Ok(format!("buyer:{name}"));
        }
        let expires_at_s = wall_ms() / 1000 + 86_400;
        let principal =
            Principal { id: name.to_owned(), role: Role::Buyer.into(), expires_at_s, revoked: false };
        let request = PutPrincipalRequest { principal: Some(principal), ..Default::default() };
        Ok(self.operator.put_principal(request).await.context("making a buyer's token")?.token)
    }

    /// What the buyers were told so far.
    pub(crate) fn book(&self) -> &Book {
        self.load.book()
    }

    /// The node that leads.
    pub(crate) async fn leader(&mut self) -> anyhow::Result<usize> {
        self.check_alive()?;
        self.cluster.wait_for_leader(ANSWERS_WITHIN).await.map_err(|error| broken(format!("{error:#}")))
    }

    /// Breaks unless every node runs that is meant to.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        self.cluster.check_alive().map_err(|error| broken(format!("{error:#}")))
    }

    /// Breaks unless a booking is acknowledged soon after an instant. Answers with how soon.
    pub(crate) async fn answers_after(&mut self, instant: Instant) -> anyhow::Result<Duration> {
        loop {
            self.check_alive()?;
            if let Some(at) = self.book().first_after(instant) {
                return Ok(at - instant);
            }
            if instant.elapsed() > ANSWERS_WITHIN {
                return Err(broken(format!("no booking was acknowledged within {ANSWERS_WITHIN:?}")));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A fault that began at `began` ended at `healed`: somebody must be served soon, and all nodes must come to
    /// know the same. The account takes the times.
    pub(crate) async fn recovers(&mut self, began: Instant, healed: Instant) -> anyhow::Result<()> {
        let answered = self.answers_after(healed).await?;
        let level = self.cluster.wait_until_level(LEVEL_WITHIN).await;
        level.map_err(|error| broken(format!("{error:#}")))?;
        let level = healed.elapsed();
        let unanswered = self.book().longest_gap(began, healed + answered);
        let account = &mut self.account;
        account.faults += 1;
        account.unanswered_max = account.unanswered_max.max(unanswered);
        account.answered_max = account.answered_max.max(answered);
        account.level_max = account.level_max.max(level);
        Ok(())
    }

    /// Asks a node that may have lost its cluster for the newest acknowledged booking, freshly. It may give no
    /// answer; it must not say that there is none. Answers whether it gave one.
    pub(crate) async fn reads_freshly(&self, index: usize, patience: Duration) -> anyhow::Result<bool> {
        let Some((buyer, booking_id)) = self.book().newest() else { return Ok(false) };
        let client =
            self.buyers[&buyer].at(&self.cluster.endpoints()[index])?.with_patience(patience, patience);
        let request = GetBookingRequest { booking_id: booking_id.clone(), ..GetBookingRequest::default() };
        match client.get_booking(request).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::Refused => {
                let how = format!("node {} does not know the acknowledged {booking_id}: {error}", index + 1);
                Err(broken(how))
            }
            Err(_) => Ok(false),
        }
    }

    /// What the checks need.
    pub(crate) fn witness(&self) -> Witness<'_> {
        Witness {
            cluster: &self.cluster,
            alliance: &self.alliance,
            operator: &self.operator,
            buyers: &self.buyers,
            book: self.load.book(),
        }
    }

    /// The buyers go, everything is checked, and the nodes stop in good order.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Account> {
        self.load.rest().await?;
        self.plant()?;
        self.operator.get_status(GetStatusRequest {}).await.map_err(|error| broken(error.to_string()))?;
        let mut verdict = self.witness().judge().await?;
        if let Err(error) = self.check_alive() {
            verdict.faults.push(format!("{error:#}"));
        }
        self.account.verdict = verdict;
        self.cluster.stop().await.map_err(|error| broken(format!("{error:#}")))?;
        Ok(self.account)
    }

    /// Plants what the checks must find, if anything is to be planted.
    fn plant(&self) -> anyhow::Result<()> {
        match self.plant {
            Some(Plant::Lose) => invent(&self.book().ledger),
            Some(Plant::Die) => self.cluster.signal_node(NODES - 1, rustix::process::Signal::KILL)?,
            Some(Plant::Deaf | Plant::Swallow) | None => {}
        }
        Ok(())
    }
}

/// Notes a booking as acknowledged that was never made.
fn invent(ledger: &Ledger) {
    let booking = Booking { id: "b999999".to_owned(), ..Booking::default() };
    ledger.booked("buyer-0", BookRequest::default(), &booking);
    ledger.now_stands(&booking.id, Standing::InDoubt);
}

/// The folder of this binary, where the others are, too.
pub(crate) fn binaries() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().unwrap_or(Path::new(".")).to_owned())
}
