//! Settings: a TOML file, then the environment, then flags; the later wins. Every setting has the same name
//! in all three (`public_listen`, `MILLPOOL_PUBLIC_LISTEN`, `--public-listen`).

use crate::consensus;
use clap::{Parser, Subcommand};
use millpool_alliance::Format;
use millpool_meters::otlp;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Exit codes, as `--help` lists them.
pub mod exit {
    /// Stopped in good order.
    pub const OK: u8 = 0;
    /// The node stopped by itself: disk failure, divergence, an entry that it cannot read.
    pub const FAILED: u8 = 1;
    /// A setting is wrong.
    pub const CONFIG: u8 = 2;
    /// The data folder is damaged, or another node's.
    pub const DATA: u8 = 3;
    /// A listener's address is taken or not allowed.
    pub const LISTEN: u8 = 4;
}

/// The operator's token of a single node that was given none, in its data folder.
const OPERATOR_TOKEN_FILE: &str = "operator.token";

const AFTER_HELP: &str = "\
Settings come from the file given by --config, then the environment, then flags; the later wins.

Examples:
  millpool-scheduler --single
      one node on loopback; the operator's token is in ./millpool-data/operator.token
  millpool-scheduler --single --insecure-dev --data-dir ./data
      the same, and everybody is who they say they are: to try things out
  millpool-scheduler --config /etc/millpool/scheduler.toml
      a node of a cluster
  millpool-scheduler restore monday.backup --reason 'disks failed' --config /etc/millpool/scheduler.toml
      its first node, from a backup
  millpool-scheduler --node-id 1 --data-dir /var/lib/millpool --peer-listen 10.0.0.1:7401 \\
      --public-listen 10.0.0.1:7400 --tls-cert node.pem --tls-key node.key --peer-ca peers-ca.pem \\
      --initial-cluster 1=10.0.0.1:7401/10.0.0.1:7400,2=10.0.0.2:7401/10.0.0.2:7400,3=10.0.0.3:7401/10.0.0.3:7400

Exit codes: 0 stopped in good order, 1 the node failed and said why, 2 a setting is wrong,
3 the data folder is damaged or another node's, 4 an address cannot be listened on.

Health and metrics: http://METRICS_LISTEN/health and /metrics; gRPC health and reflection on the
public listener.";

/// The command line. Every flag is also a setting of the file and of the environment.
#[derive(Parser, Debug)]
#[command(
    name = "millpool-scheduler",
    version,
    about = "The coordinator of a Millpool alliance: books machine time, keeps the plan, answers plants' agents",
    after_help = AFTER_HELP
)]
pub struct Flags {
    /// Settings file, TOML
    #[arg(long, global = true, env = "MILLPOOL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the settings, print them, and exit
    #[arg(long)]
    pub check_config: bool,
    /// What to do instead of serving
    #[command(subcommand)]
    pub act: Option<Act>,
    #[command(flatten)]
    settings: Settings,
}

/// What can be done with a data folder while no coordinator runs on it.
#[derive(Subcommand, Clone, Debug)]
pub enum Act {
    /// Make this node the first of a new cluster, from a backup. Its data folder must be empty
    #[command(after_help = RESTORE_HELP)]
    Restore {
        /// A backup, made by `millpool backup` or by `salvage`
        backup: PathBuf,
        /// Why, in words; kept for ever and shown by `millpool status`
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Write a backup of what the data folder of a lost cluster's node still has; nothing in it is lost by that
    #[command(after_help = SALVAGE_HELP)]
    Salvage {
        /// The file to write; it must not be there yet
        backup: PathBuf,
    },
}

const RESTORE_HELP: &str = "\
The alliance goes on as it stood when the backup was taken; whatever was acknowledged later is gone. The new
cluster needs another cluster_id than the old one had. Other nodes begin with empty data folders and are added.

Example:
  millpool-scheduler restore monday.backup --reason 'both other machine rooms flooded' \\
      --config /etc/millpool/scheduler.toml --cluster-id yangtze-2";

const SALVAGE_HELP: &str = "\
For when most coordinators are lost for good. Salvage every node that is left, restore the backup with the
highest term, and among those the highest revision. Entries of which the node does not know whether they were acknowledged are taken in.

Example:
  millpool-scheduler salvage node-3.backup --data-dir /var/lib/millpool";

macro_rules! settings {
    // A switch may stand alone; everything else takes its value.
    (@args bool) => { 0..=1 };
    (@args $other:ident) => { 1 };
    ($($(#[$doc:meta])* $name:ident: $type:ident = $env:literal, $value:literal;)*) => {
        /// Settings that may be given anywhere; what is not given has a default.
        #[derive(clap::Args, Deserialize, Clone, Debug, Default)]
        #[serde(deny_unknown_fields)]
        struct Settings {
            $($(#[$doc])* #[arg(long, global = true, env = $env, value_name = $value, num_args = settings!(@args $type), default_missing_value = "true")] $name: Option<$type>,)*
        }

        impl Settings {
            /// `self`, and where it says nothing, `other`.
            fn or(self, other: Settings) -> Settings {
                Settings { $($name: self.$name.or(other.$name),)* }
            }
        }
    };
}

settings! {
    /// This node's id in the cluster, never used before [default: 1]
    node_id: u64 = "MILLPOOL_NODE_ID", "N";
    /// The cluster's name; nodes of another cluster are refused [default: millpool]
    cluster_id: String = "MILLPOOL_CLUSTER_ID", "NAME";
    /// Where log and snapshots are kept [default: ./millpool-data]
    data_dir: PathBuf = "MILLPOOL_DATA_DIR", "DIR";
    /// Run a cluster of one: no peers' listener [default: false]
    single: bool = "MILLPOOL_SINGLE", "BOOL";
    /// The first members, ID=PEER_ADDRESS/PUBLIC_ADDRESS,...; used only on an empty data folder
    initial_cluster: String = "MILLPOOL_INITIAL_CLUSTER", "LIST";
    /// Listener for clients and agents [default: 127.0.0.1:7400]
    public_listen: SocketAddr = "MILLPOOL_PUBLIC_LISTEN", "ADDR";
    /// Listener for other coordinators [default: 127.0.0.1:7401]
    peer_listen: SocketAddr = "MILLPOOL_PEER_LISTEN", "ADDR";
    /// Listener for metrics and health over HTTP [default: 127.0.0.1:7402]
    metrics_listen: SocketAddr = "MILLPOOL_METRICS_LISTEN", "ADDR";
    /// Address at which clients reach this node, if not the listener's
    public_address: String = "MILLPOOL_PUBLIC_ADDRESS", "HOST:PORT";
    /// Address at which other coordinators reach this node, if not the listener's
    peer_address: String = "MILLPOOL_PEER_ADDRESS", "HOST:PORT";
    /// Development on loopback: no certificates, and a caller is who it says it is [default: false]
    insecure_dev: bool = "MILLPOOL_INSECURE_DEV", "BOOL";
    /// This node's certificate chain, PEM
    tls_cert: PathBuf = "MILLPOOL_TLS_CERT", "FILE";
    /// Its private key, PEM
    tls_key: PathBuf = "MILLPOOL_TLS_KEY", "FILE";
    /// The authority that signs the coordinators' certificates, PEM
    peer_ca: PathBuf = "MILLPOOL_PEER_CA", "FILE";
    /// File that holds the first operator's token; read when the alliance has no principal yet [default: with
    /// single, DATA_DIR/operator.token, made if missing]
    operator_token_file: PathBuf = "MILLPOOL_OPERATOR_TOKEN_FILE", "FILE";
    /// Pause between two optimisations of the plan, ms [default: 5000]
    optimise_every_ms: u64 = "MILLPOOL_OPTIMISE_EVERY_MS", "MS";
    /// Time for one optimisation, ms; 0 switches them off [default: 5000]
    optimise_for_ms: u64 = "MILLPOOL_OPTIMISE_FOR_MS", "MS";
    /// Solver threads, at idle priority [default: cores less one, at least 1]
    solver_threads: usize = "MILLPOOL_SOLVER_THREADS", "N";
    /// A plant whose agent has been away for so long counts as silent, s: what its machines do is unknown [default: 60]
    silent_after_s: u64 = "MILLPOOL_SILENT_AFTER_S", "S";
    /// Log entries between two snapshots [default: 20000]
    snapshot_every: u64 = "MILLPOOL_SNAPSHOT_EVERY", "N";
    /// Newest format of log and snapshots that this node takes part in; held at the former one during an upgrade, the
    /// way back stays open [default: the newest there is]
    format_max: u32 = "MILLPOOL_FORMAT_MAX", "N";
    /// Collector that meters are sent to by OTLP over gRPC, http://HOST:PORT or https://HOST:PORT [default: none]
    otlp_endpoint: String = "MILLPOOL_OTLP_ENDPOINT", "URL";
    /// Time between two exports to it, s [default: 10]
    otlp_every_s: u64 = "MILLPOOL_OTLP_EVERY_S", "S";
    /// The authority that signed its certificate, PEM; with https
    otlp_ca: PathBuf = "MILLPOOL_OTLP_CA", "FILE";
    /// Demonstrations: how fast the alliance's clock runs [default: 1]
    clock_scale: i64 = "MILLPOOL_CLOCK_SCALE", "N";
    /// Demonstrations: when the clock began to run fast, ms since the Unix epoch
    clock_epoch_ms: i64 = "MILLPOOL_CLOCK_EPOCH_MS", "MS";
    /// What is logged, e.g. info or millpool_scheduler=debug [default: info, and warn of the libraries]
    log: String = "MILLPOOL_LOG", "FILTER";
    /// How it is logged: text or json [default: text]
    log_format: String = "MILLPOOL_LOG_FORMAT", "FORMAT";
}

/// A member of the first cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstMember {
    /// Its id.
    pub node_id: u64,
    /// Its peers' address.
    pub peer_address: String,
    /// Its public address.
    pub public_address: String,
}

/// How the public and the peers' listeners prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// The peers' authority, PEM.
    pub peer_ca: Option<PathBuf>,
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's id.
    pub node_id: u64,
    /// The cluster's name.
    pub cluster_id: String,
    /// Where log and snapshots are kept.
    pub data_dir: PathBuf,
    /// A cluster of one.
    pub single: bool,
    /// The first members, this node among them.
    pub initial_cluster: Vec<FirstMember>,
    /// For clients and agents.
    pub public_listen: SocketAddr,
    /// For other coordinators.
    pub peer_listen: SocketAddr,
    /// For metrics and health.
    pub metrics_listen: SocketAddr,
    /// Where clients reach this node.
    pub public_address: String,
    /// Where other coordinators reach this node.
    pub peer_address: String,
    /// Development.
    pub insecure_dev: bool,
    /// Certificates; None only in development.
    pub tls: Option<Tls>,
    /// The first operator's token.
    pub operator_token_file: Option<PathBuf>,
    /// Pause between optimisations, ms.
    pub optimise_every_ms: u64,
    /// Time for one, ms.
    pub optimise_for_ms: u64,
    /// Solver threads.
    pub solver_threads: usize,
    /// How long an agent is away before its plant counts as silent, s.
    pub silent_after_s: u64,
    /// Log entries between snapshots.
    pub snapshot_every: u64,
    /// Newest format of log and snapshots.
    pub format_max: Format,
    /// Where meters are sent.
    pub otlp: Option<otlp::Settings>,
    /// How fast the clock runs.
    pub clock_scale: i64,
    /// Since when, ms since the Unix epoch.
    pub clock_epoch_ms: i64,
    /// Log filter.
    pub log: String,
    /// Log as JSON lines.
    pub log_json: bool,
}

fn format(number: u32) -> Result<Format, BadSetting> {
    let accepted = || format!("{} to {}", Format::FIRST, Format::NEWEST);
    Format::of(number).ok_or_else(|| bad("format_max", number, accepted()))
}

/// A setting that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {value:?}; accepted: {accepted}")]
pub struct BadSetting {
    setting: String,
    value: String,
    accepted: String,
}

fn bad(setting: &str, value: impl ToString, accepted: impl Into<String>) -> BadSetting {
    BadSetting { setting: setting.into(), value: value.to_string(), accepted: accepted.into() }
}

impl BadSetting {
    /// What is wrong with where meters are sent.
    pub(crate) fn otlp(otlp: &otlp::Settings, wrong: otlp::Wrong) -> Self {
        match wrong.setting {
            otlp::Setting::Endpoint => bad("otlp_endpoint", &otlp.endpoint, wrong.accepted),
            otlp::Setting::EveryS => bad("otlp_every_s", otlp.every_s, wrong.accepted),
            otlp::Setting::CaFile => {
                let file = otlp.ca_file.as_ref().map(|file| file.display().to_string());
                bad("otlp_ca", file.unwrap_or_default(), wrong.accepted)
            }
        }
    }
}

impl Config {
    /// Puts file, environment and flags together, and checks the whole.
    pub fn load(flags: Flags) -> Result<Config, BadSetting> {
        let file = match &flags.config {
            None => Settings::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| bad("config", path.display(), format!("a readable file ({e})")))?;
                toml::from_str(&text)
                    .map_err(|e| bad("config", path.display(), format!("known settings in TOML; {e}")))?
            }
        };
        Config::of(flags.settings.or(file))
    }

    fn of(s: Settings) -> Result<Config, BadSetting> {
        let listen = |given: Option<SocketAddr>, port: u16| {
            given.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)))
        };
        let (public_listen, peer_listen) = (listen(s.public_listen, 7400), listen(s.peer_listen, 7401));
        let public_address = s.public_address.unwrap_or_else(|| public_listen.to_string());
        let peer_address = s.peer_address.unwrap_or_else(|| peer_listen.to_string());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let node_id = s.node_id.unwrap_or(1);
        let single = s.single.unwrap_or(false);
        let me = FirstMember {
            node_id,
            peer_address: peer_address.clone(),
            public_address: public_address.clone(),
        };
        let initial_cluster = match s.initial_cluster.as_deref() {
            None | Some("") if single => vec![me],
            None | Some("") => Vec::new(),
            Some(list) => first_members(list)?,
        };
        let data_dir = s.data_dir.unwrap_or_else(|| "millpool-data".into());
        let insecure_dev = s.insecure_dev.unwrap_or(false);
        let own_token = (single && !insecure_dev).then(|| data_dir.join(OPERATOR_TOKEN_FILE));
        let log_json = match s.log_format.as_deref().unwrap_or("text") {
            "text" => false,
            "json" => true,
            other => return Err(bad("log_format", other, "text or json")),
        };
        let config = Config {
            node_id,
            cluster_id: s.cluster_id.unwrap_or_else(|| "millpool".into()),
            data_dir,
            single,
            initial_cluster,
            public_listen,
            peer_listen,
            metrics_listen: listen(s.metrics_listen, 7402),
            public_address,
            peer_address,
            insecure_dev,
            tls: tls(s.tls_cert, s.tls_key, s.peer_ca)?,
            operator_token_file: s.operator_token_file.or(own_token),
            optimise_every_ms: s.optimise_every_ms.unwrap_or(5000),
            optimise_for_ms: s.optimise_for_ms.unwrap_or(5000),
            solver_threads: s.solver_threads.unwrap_or(cores.saturating_sub(1).max(1)),
            silent_after_s: s.silent_after_s.unwrap_or(60),
            snapshot_every: s.snapshot_every.unwrap_or(20_000),
            format_max: s.format_max.map_or(Ok(Format::NEWEST), format)?,
            otlp: otlp::Settings::given(s.otlp_endpoint, s.otlp_every_s, s.otlp_ca),
            clock_scale: s.clock_scale.unwrap_or(1),
            clock_epoch_ms: s.clock_epoch_ms.unwrap_or(0),
            log: s.log.unwrap_or_else(|| consensus::LOG_DEFAULT.into()),
            log_json,
        };
        config.check().map(|()| config)
    }

    fn check(&self) -> Result<(), BadSetting> {
        if self.node_id == 0 {
            return Err(bad("node_id", 0, "1 or more"));
        }
        if self.cluster_id.is_empty() || self.cluster_id.len() > 64 {
            return Err(bad("cluster_id", &self.cluster_id, "1 to 64 characters"));
        }
        if !(1..=100_000).contains(&self.clock_scale) {
            return Err(bad("clock_scale", self.clock_scale, "1 to 100000"));
        }
        if self.clock_scale > 1 && !self.insecure_dev {
            return Err(bad(
                "clock_scale",
                self.clock_scale,
                "1; only demonstrations with insecure_dev run faster",
            ));
        }
        if !(1..=1024).contains(&self.solver_threads) {
            return Err(bad("solver_threads", self.solver_threads, "1 to 1024"));
        }
        if !(1..=86_400).contains(&self.silent_after_s) {
            return Err(bad("silent_after_s", self.silent_after_s, "1 to 86400"));
        }
        if self.snapshot_every < 100 {
            return Err(bad("snapshot_every", self.snapshot_every, "100 or more"));
        }
        if let Some(otlp) = &self.otlp {
            otlp.check().map_err(|wrong| BadSetting::otlp(otlp, wrong))?;
        }
        let member = self.initial_cluster.iter().any(|m| m.node_id == self.node_id);
        if !self.initial_cluster.is_empty() && !member {
            return Err(bad("initial_cluster", self.node_id, "a list that names this node's id"));
        }
        self.check_security()
    }

    /// Without certificates only this machine may speak to a node, and a node only to itself.
    fn check_security(&self) -> Result<(), BadSetting> {
        match &self.tls {
            Some(tls) if tls.peer_ca.is_none() && !self.single => {
                Err(bad("peer_ca", "", "the authority that signs the coordinators' certificates"))
            }
            Some(_) if !self.insecure_dev => Ok(()),
            None if !self.insecure_dev && !self.single => Err(bad(
                "tls_cert",
                "",
                "a certificate (with tls_key); or, on loopback, single or insecure_dev",
            )),
            _ => self.check_loopback(),
        }
    }

    fn check_loopback(&self) -> Result<(), BadSetting> {
        let listeners = [("public_listen", self.public_listen), ("peer_listen", self.peer_listen)];
        match listeners.into_iter().find(|(_, address)| !address.ip().is_loopback()) {
            Some((setting, address)) if self.insecure_dev => {
                Err(bad(setting, address, "a loopback address, as insecure_dev is on"))
            }
            Some((setting, address)) => {
                Err(bad(setting, address, "a loopback address, as there is no certificate (tls_cert)"))
            }
            None => Ok(()),
        }
    }
}

fn tls(
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    peer_ca: Option<PathBuf>,
) -> Result<Option<Tls>, BadSetting> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(Tls { cert, key, peer_ca })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(bad("tls_key", "", "the key of tls_cert")),
        (None, Some(_)) => Err(bad("tls_cert", "", "the certificate of tls_key")),
    }
}

fn first_members(list: &str) -> Result<Vec<FirstMember>, BadSetting> {
    let member = |entry: &str| {
        let (id, addresses) = entry.trim().split_once('=')?;
        let (peer, public) = addresses.split_once('/')?;
        let node_id = id.parse().ok().filter(|id| *id > 0)?;
        let fine = peer.contains(':') && public.contains(':');
        fine.then(|| FirstMember { node_id, peer_address: peer.into(), public_address: public.into() })
    };
    let accepted = "ID=PEER_HOST:PORT/PUBLIC_HOST:PORT, separated by commas, each id once";
    let mut members = Vec::new();
    for entry in list.split(',') {
        let found = member(entry).ok_or_else(|| bad("initial_cluster", entry, accepted))?;
        if members.iter().any(|m: &FirstMember| m.node_id == found.node_id) {
            return Err(bad("initial_cluster", entry, accepted));
        }
        members.push(found);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Config, BadSetting> {
        let args = std::iter::once("millpool-scheduler").chain(args.iter().copied());
        Config::load(Flags::try_parse_from(args).unwrap())
    }

    #[test]
    fn a_single_development_node_needs_nothing_else() {
        let config = load(&["--single", "true", "--insecure-dev", "true"]).unwrap();
        assert_eq!(config.public_listen.port(), 7400);
        assert_eq!(config.initial_cluster.len(), 1);
    }

    #[test]
    fn a_single_node_makes_its_own_operator() {
        let config = load(&["--single", "--data-dir", "/d"]).unwrap();
        assert_eq!(config.operator_token_file, Some(PathBuf::from("/d/operator.token")));
        assert!(!config.insecure_dev);
    }

    #[test]
    fn the_example_file_is_accepted() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/scheduler.toml");
        let config = load(&["--config", example]).unwrap();
        assert_eq!((config.node_id, config.initial_cluster.len()), (1, 3));
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "single = true\ninsecure_dev = true\nnode_id = 4\ncluster_id = 'file'")
            .unwrap();
        let path = file.path().to_str().unwrap();
        let config = load(&["--config", path, "--cluster-id", "flag"]).unwrap();
        assert_eq!((config.node_id, config.cluster_id.as_str()), (4, "flag"));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_accepted() {
        for (args, setting) in [
            (&[][..], "tls_cert"),
            (&["--single", "--public-listen", "10.0.0.1:7400"], "public_listen"),
            (&["--insecure-dev", "true", "--public-listen", "0.0.0.0:1"], "public_listen"),
            (&["--insecure-dev", "true", "--node-id", "0"], "node_id"),
            (&["--insecure-dev", "true", "--initial-cluster", "1=a:1"], "initial_cluster"),
            (&["--insecure-dev", "true", "--initial-cluster", "2=a:1/b:2"], "initial_cluster"),
            (&["--insecure-dev", "true", "--initial-cluster", "1=a:1/b:2,1=a:1/b:2"], "initial_cluster"),
            (&["--insecure-dev", "true", "--log-format", "xml"], "log_format"),
            (&["--tls-cert", "x"], "tls_key"),
            (
                &["--single", "true", "--tls-cert", "x", "--tls-key", "y", "--clock-scale", "60"],
                "clock_scale",
            ),
            (&["--tls-cert", "x", "--tls-key", "y"], "peer_ca"),
            (&["--single", "--otlp-endpoint", "collector:4317"], "otlp_endpoint"),
            (&["--single", "--otlp-endpoint", "http://c:4317", "--otlp-every-s", "0"], "otlp_every_s"),
            (&["--single", "--otlp-endpoint", "https://c:4317"], "otlp_ca"),
        ] {
            assert_eq!(load(args).unwrap_err().setting, setting, "{args:?}");
        }
    }

    #[test]
    fn meters_are_sent_nowhere_unless_a_collector_is_named() {
        assert_eq!(load(&["--single"]).unwrap().otlp, None);
        let named = load(&["--single", "--otlp-endpoint", "http://127.0.0.1:4317"]).unwrap().otlp.unwrap();
        assert_eq!((named.endpoint.as_str(), named.every_s), ("http://127.0.0.1:4317", 10));
        let refused = load(&["--single", "--otlp-endpoint", "http://c:4317/v1/metrics"]).unwrap_err();
        let said =
            "otlp_endpoint is \"http://c:4317/v1/metrics\"; accepted: http://host:port or https://host:port";
        assert!(refused.to_string().starts_with(said), "{refused}");
    }

    #[test]
    fn an_unknown_setting_in_the_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sinlge = true").unwrap();
        let refused = load(&["--config", file.path().to_str().unwrap()]).unwrap_err();
        assert!(refused.to_string().contains("sinlge"), "{refused}");
    }
}
