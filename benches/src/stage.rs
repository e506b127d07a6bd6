//! The cluster, the alliance and the clients that a measurement needs.

use crate::args::Args;
use anyhow::{Context as _, ensure};
use millpool_cli::client::{Client, ClientOptions};
use millpool_demo::alliance::{Alliance, Blueprint};
use millpool_demo::clock::{AllianceClock, wall_ms};
use millpool_demo::cluster::{Cluster, NODES, Options};
use millpool_demo::setup;
use millpool_proto::v1::{GetStatusRequest, Policy};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Days that the alliance lends: long, so that the pool does not fill up.
const DAYS: i64 = 90;
/// How long what is to be forgotten soon is known, seconds.
const KEPT_S: u32 = 60;
/// How long a cluster may take to have a leader.
const LEADER_WAIT: Duration = Duration::from_secs(30);

/// Everything that is running.
pub(crate) struct Stage {
    /// The alliance that was set up, or would have been.
    pub(crate) alliance: Alliance,
    /// Its clock.
    pub(crate) clock: AllianceClock,
    /// The cluster, unless another was pointed to.
    pub(crate) own: Option<Cluster>,
    endpoints: Vec<String>,
    /// Where the leader is in the endpoints, as it was at the start.
    leader: usize,
    spread: bool,
    /// A folder to remove in the end.
    temporary: Option<PathBuf>,
}

impl Stage {
    /// Starts or finds a cluster, and sets the alliance up in it.
    pub(crate) async fn set_up(args: &Args) -> anyhow::Result<Self> {
        let clock = match args.scale {
            1 => AllianceClock::wall(),
            scale => AllianceClock { epoch_ms: wall_ms(), scale },
        };
        let start_s = (wall_ms() / 1000).div_euclid(60) * 60;
        let blueprint =
            Blueprint { seed: args.seed, machines: args.machines, start_s, days: DAYS, own_permille: 0 };
        let alliance = Alliance::new(blueprint);
        let mut stage = Self {
            alliance,
            clock,
            own: None,
            endpoints: args.endpoints.clone(),
            leader: 0,
            spread: args.spread,
            temporary: None,
        };
        if args.endpoints.is_empty() {
            stage.start_own(args).await?;
        }
        let operator = stage.client("operator:load", 0)?;
        let counts = operator.get_status(GetStatusRequest {}).await?.counts.unwrap_or_default();
        if counts.machines == 0 {
            setup::create(&operator, &stage.alliance).await.context("creating the alliance")?;
        }
        Ok(stage)
    }

    async fn start_own(&mut self, args: &Args) -> anyhow::Result<()> {
        let bin_dir = std::env::current_exe()?.parent().context("the folder of this binary")?.to_owned();
        let data_dir = match &args.data {
            Some(folder) => folder.clone(),
            None => std::env::temp_dir().join(format!("millpool-load-{}", std::process::id())),
        };
        ensure!(!data_dir.exists(), "{} exists; name a new folder with --data", data_dir.display());
        std::fs::create_dir_all(&data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        self.temporary = args.data.is_none().then(|| data_dir.clone());
        let mut options = Options::new(bin_dir, data_dir);
        options.optimise_for_ms = args.optimise_for_ms;
        options.snapshot_every = args.snapshot_every;
        options.log.clone_from(&args.log);
        options.clock = self.clock;
        let mut cluster = Cluster::start(options)?;
        self.leader = cluster.wait_for_leader(LEADER_WAIT).await?;
        self.endpoints = cluster.endpoints();
        eprintln!("three coordinators on {}; node {} leads", self.endpoints.join(", "), self.leader + 1);
        self.own = Some(cluster);
        Ok(())
    }

    /// Request ids are remembered for a minute: in a measurement that asks a year's or a day's worth within minutes, as
    /// many are known as would be in that year or on that day.
    pub(crate) async fn forget_soon(&self) -> anyhow::Result<()> {
        let operator = self.client("operator:load", 0)?;
        Ok(setup::change_policy(&operator, |policy| Policy { request_id_keep_s: KEPT_S, ..policy }).await?)
    }

    /// And what is over is known for a minute: over the minutes of a measurement as much comes as goes.
    pub(crate) async fn forget_what_is_over(&self) -> anyhow::Result<()> {
        let operator = self.client("operator:load", 0)?;
        setup::wait_for_format(&operator, LEADER_WAIT).await?;
        Ok(setup::change_policy(&operator, |policy| Policy { history_keep_s: KEPT_S, ..policy }).await?)
    }

    /// A client of its own connections. The leader is preferred, or with `--spread` node after node.
    pub(crate) fn client(&self, token: &str, number: usize) -> anyhow::Result<Client> {
        let mut endpoints = self.endpoints.clone();
        let first = if self.spread { number } else { self.leader };
        let count = endpoints.len().max(1);
        endpoints.rotate_left(first % count);
        let options = ClientOptions {
            endpoints,
            token: Some(token.to_owned()),
            attempt_timeout: Duration::from_secs(5),
            ..ClientOptions::default()
        };
        Ok(Client::new(options)?)
    }

    /// The folder for storage and logs of what was started here.
    pub(crate) fn folder(&self) -> anyhow::Result<&Path> {
        self.own
            .as_ref()
            .map(|own| own.folder(0).parent().unwrap_or(own.folder(0)))
            .context("a cluster of its own")
    }

    /// Where the coordinators are.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// Where the metrics are of the coordinator that led at the start, if it was started here.
    pub(crate) fn metrics_address(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.metrics_address(self.leader))
    }

    /// The time on processors of each coordinator that was started here, seconds.
    pub(crate) fn busy_s(&self) -> Vec<f64> {
        let Some(own) = &self.own else { return Vec::new() };
        (0..NODES).filter_map(|index| crate::agents::busy_s(own.process_id(index)?)).collect()
    }

    /// As many clients, each another buyer.
    pub(crate) fn buyers(&self, count: usize) -> anyhow::Result<Vec<(String, Client)>> {
        let buyer = |number: usize| {
            let name = format!("load-{number}");
            Ok((name.clone(), self.client(&format!("buyer:{name}"), number)?))
        };
        (0..count).map(buyer).collect()
    }

    /// The cluster that was started here.
    pub(crate) fn cluster(&mut self) -> anyhow::Result<&mut Cluster> {
        self.own.as_mut().context("a cluster that was started here")
    }

    /// The resident memory of each coordinator that was started here, bytes.
    pub(crate) fn resident_bytes(&self) -> Vec<u64> {
        let Some(own) = &self.own else { return Vec::new() };
        let resident = |process: u32| {
            let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            kib.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
        };
        (0..NODES).filter_map(|index| resident(own.process_id(index)?)).collect()
    }

    /// Stops what was started.
    pub(crate) async fn tear_down(self) -> anyhow::Result<()> {
        if let Some(cluster) = self.own {
            cluster.stop().await?;
        }
        if let Some(folder) = self.temporary {
            std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        Ok(())
    }
}
