//! The configuration: a TOML file, overridden by the environment, overridden by flags.
//!
//! [`File`] is what may stand in the file. [`resolve`] checks all of it, and answers with [`Config`], which
//! holds only what can be used, or with every [`Problem`] that it found: the field, the value that stands
//! there, and what is accepted. What may stand in a machine's section is in [`machines`], what is published where in
//! [`publish`], where meters are sent in [`otlp`], how long raw samples are kept in [`samples`].

mod broker;
pub mod machines;
pub mod otlp;
pub mod publish;
pub mod samples;

use crate::clock::{Clock, SCALE_MAX, SCALE_MIN};
use crate::outbox::{BYTES_MAX_DEFAULT, BYTES_MAX_LEAST};
use crate::session::{Timing, Tls, Token};
use machines::{MachineFile, SimulatedFile};
use otlp::OtlpFile;
use publish::PublishFile;
use samples::SamplesFile;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Most plants in one process.
pub const AGENTS_MAX: usize = 256;
/// Most machines behind one agent.
pub const MACHINES_MAX: usize = 256;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, e.g. `agent[2].machine[0].adapter`.
    pub field: String,
    /// What stands there.
    pub value: String,
    /// What is accepted.
    pub accepted: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}: accepted is {}", self.field, self.value, self.accepted)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a field that is not known.
    #[error("the configuration {path} cannot be understood:\n{source}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// Values that cannot be used.
    #[error("the configuration cannot be used:\n{}", list(.0))]
    Unusable(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}\n")).collect()
}

/// What may stand in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Folder under which every plant without a `data_dir` of its own has one.
    pub data_dir: Option<PathBuf>,
    /// Metrics and health.
    pub http: HttpFile,
    /// Where meters are sent.
    pub otlp: OtlpFile,
    /// Logs.
    pub log: LogFile,
    /// The plant's clock.
    pub clock: ClockFile,
    /// The coordinators, for every agent that names none.
    pub coordinator: CoordinatorFile,
    /// How simulated machines behave where they say nothing else.
    pub simulated: SimulatedFile,
    /// One section a plant.
    pub agent: Vec<AgentFile>,
}

/// `[http]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpFile {
    /// Address for `/metrics` and `/health`; none without.
    pub listen: Option<String>,
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogFile {
    /// `text` or `json`.
    pub format: Option<String>,
    /// A tracing filter, e.g. `info` or `info,millpool_node_agent=debug`.
    pub level: Option<String>,
}

/// `[clock]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockFile {
    /// Plant seconds a wall second.
    pub scale: Option<f64>,
    /// Wall time at which plant time is `plant_epoch`: RFC 3339, or ms since the Unix epoch.
    pub epoch: Option<String>,
    /// Plant time at `epoch`; the same where it is not given.
    pub plant_epoch: Option<String>,
}

/// `[coordinator]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorFile {
    /// `host:port` of each.
    pub addresses: Vec<String>,
    /// Plain text and no token, on loopback only.
    pub insecure_dev: Option<bool>,
    /// The bearer token.
    pub token: Option<String>,
    /// A file with the bearer token.
    pub token_file: Option<PathBuf>,
    /// PEM file of the authority that signed the coordinators' certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the agent's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the agent's key.
    pub key_file: Option<PathBuf>,
    /// Name in the coordinators' certificates.
    pub domain: Option<String>,
}

/// `[[agent]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentFile {
    /// The plant's id in the registry.
    pub plant: String,
    /// The agent's name.
    pub id: Option<String>,
    /// Its folder.
    pub data_dir: Option<PathBuf>,
    /// Size limit of the outbox, bytes.
    pub outbox_bytes_max: Option<u64>,
    /// The coordinators, where they are not everyone's.
    pub coordinator: CoordinatorFile,
    /// Ids of simulated machines that behave as `[simulated]` says.
    pub simulated_machines: Vec<String>,
    /// Where its list and states are published; nowhere where it is left out.
    pub publish: Option<PublishFile>,
    /// How long raw samples are kept; as long as is usual where it is left out.
    pub samples: Option<SamplesFile>,
    /// One section a machine.
    pub machine: Vec<MachineFile>,
}

/// What the environment and flags say; each wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `host:port` of each coordinator.
    pub coordinators: Vec<String>,
    /// The bearer token.
    pub token: Option<String>,
    /// A file with it.
    pub token_file: Option<PathBuf>,
    /// Plain text and no token.
    pub insecure_dev: bool,
    /// Address for metrics and health.
    pub http_listen: Option<String>,
    /// Where meters are sent.
    pub otlp: OtlpFile,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// A tracing filter.
    pub log_level: Option<String>,
    /// Plant seconds a wall second.
    pub clock_scale: Option<f64>,
    /// Wall time of the clock's epoch.
    pub clock_epoch: Option<String>,
    /// Plant time at the epoch.
    pub clock_plant_epoch: Option<String>,
    /// Folder of the plants' folders.
    pub data_dir: Option<PathBuf>,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Metrics and health.
    pub http_listen: Option<SocketAddr>,
    /// Where meters are sent.
    pub otlp: Option<millpool_meters::otlp::Collector>,
    /// Whether logs are JSON.
    pub log_json: bool,
    /// The tracing filter.
    pub log_level: String,
    /// The plants' clock.
    pub clock: Clock,
    /// The plants.
    pub agents: Vec<crate::agent::Options>,
    /// Where plants publish, by plant.
    pub publish: BTreeMap<String, crate::publish::Options>,
    /// How plants keep raw samples, by plant; not at all, where a plant is missing.
    pub samples: BTreeMap<String, crate::samples::Options>,
    /// Whether any line is in plain text without a token.
    pub insecure_dev: bool,
}

/// Reads a file and resolves it.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Config, ConfigError> {
    resolve(read(path)?, overrides)
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source: Box::new(source) })
}

/// The plants of a file, each with its agent's folder; where nothing else of the file is of interest, and its
/// secrets may not be readable.
pub fn folders(path: &Path, data_dir: Option<&Path>) -> Result<Vec<(String, PathBuf)>, ConfigError> {
    let file = read(path)?;
    let root = data_dir.or(file.data_dir.as_deref());
    let folder = |agent: &AgentFile| agent.data_dir.clone().or_else(|| Some(root?.join(&agent.plant)));
    let folders = file.agent.iter().filter_map(|agent| Some((agent.plant.clone(), folder(agent)?)));
    Ok(folders.collect())
}

/// Checks everything, and says all that is wrong.
pub fn resolve(file: File, overrides: &Overrides) -> Result<Config, ConfigError> {
    let mut found = Found::default();
    let clock = clock(&file.clock, overrides, &mut found);
    let log_json = match overrides.log_format.as_ref().or(file.log.format.as_ref()).map(String::as_str) {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => found.wrong("log.format", other, "text or json").unwrap_or_default(),
    };
    let http_listen = overrides.http_listen.as_ref().or(file.http.listen.as_ref()).and_then(|listen| {
        let parsed = listen.parse().ok();
        parsed.or_else(|| found.wrong("http.listen", listen, "an IP address and port, e.g. 127.0.0.1:9464"))
    });
    let otlp = otlp::resolve(&file.otlp, &overrides.otlp, &mut found);
    if file.agent.is_empty() || file.agent.len() > AGENTS_MAX {
        found.wrong::<()>("agent", file.agent.len(), &format!("1 to {AGENTS_MAX} [[agent]] sections"));
    }
    let (mut agents, mut publish, mut samples) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    let (mut plants, mut dirs) = (BTreeSet::new(), BTreeSet::new());
    for (at, agent) in file.agent.iter().enumerate() {
        let field = format!("agent[{at}]");
        if !plants.insert(agent.plant.clone()) {
            found.wrong::<()>(&format!("{field}.plant"), &agent.plant, "a plant that no other [[agent]] has");
        }
        let kept = samples::resolve(&field, agent, &mut found);
        let resolved = resolve_agent(&field, agent, &file, overrides, &mut found);
        if let Some((options, published)) = resolved {
            if !dirs.insert(options.data_dir.clone()) {
                let dir = options.data_dir.display().to_string();
                found.wrong::<()>(&format!("{field}.data_dir"), dir, "a folder that no other [[agent]] has");
            }
            if let Some(own) = published {
                publish::apart_from(&field, &own, publish.values(), &mut found);
                publish.insert(options.plant_id.clone(), own);
            }
            samples.extend(kept.map(|kept| (options.plant_id.clone(), kept)));
            agents.push(options);
        }
    }
    if !found.0.is_empty() {
        return Err(ConfigError::Unusable(found.0));
    }
    let insecure_dev = agents.iter().any(|agent| agent.tls.is_none());
    let level = overrides.log_level.clone().or(file.log.level).unwrap_or_else(|| "info".to_owned());
    Ok(Config {
        http_listen,
        otlp,
        log_json,
        log_level: level,
        clock,
        agents,
        publish,
        samples,
        insecure_dev,
    })
}

/// The problems found so far.
#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn wrong<T>(&mut self, field: &str, value: impl std::fmt::Debug, accepted: &str) -> Option<T> {
        let value = format!("{value:?}");
        self.0.push(Problem { field: field.to_owned(), value, accepted: accepted.to_owned() });
        None
    }

    /// A name as the registry has them.
    fn name(&mut self, field: &str, name: &str) -> Option<String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=40).contains(&name.len()) && name.chars().all(plain) {
            return Some(name.to_owned());
        }
        self.wrong(field, name, "1 to 40 lower-case letters, digits and dashes")
    }

    fn within<T: PartialOrd + std::fmt::Debug + Copy>(
        &mut self,
        field: &str,
        value: T,
        low: T,
        high: T,
    ) -> T {
        if !(low..=high).contains(&value) {
            self.wrong::<()>(field, value, &format!("{low:?} to {high:?}"));
        }
        value
    }

    fn file(&mut self, field: &str, path: &Path) -> Option<Vec<u8>> {
        match std::fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) => self.wrong(field, path, &format!("a file that can be read ({error})")),
        }
    }
}

fn clock(file: &ClockFile, overrides: &Overrides, found: &mut Found) -> Clock {
    let scale = overrides.clock_scale.or(file.scale).unwrap_or(1.0);
    found.within("clock.scale", scale, SCALE_MIN, SCALE_MAX);
    let epoch = overrides.clock_epoch.as_ref().or(file.epoch.as_ref());
    let plant_epoch = overrides.clock_plant_epoch.as_ref().or(file.plant_epoch.as_ref());
    if epoch.is_none() && (scale != 1.0 || plant_epoch.is_some()) {
        found.wrong::<()>(
            "clock.epoch",
            "none",
            "a time, where the clock is scaled or shifted: the coordinator's",
        );
    }
    let epoch_ms = epoch.and_then(|text| instant_ms("clock.epoch", text, found)).unwrap_or(0);
    let plant_ms =
        plant_epoch.and_then(|text| instant_ms("clock.plant_epoch", text, found)).unwrap_or(epoch_ms);
    Clock::new(epoch_ms, plant_ms, scale)
}

fn instant_ms(field: &str, text: &str, found: &mut Found) -> Option<i64> {
    let digits = text.parse::<i64>().ok();
    let stamp = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    let accepted = "RFC 3339, e.g. 2026-11-23T08:00:00Z, or milliseconds since the Unix epoch";
    digits.or_else(stamp).or_else(|| found.wrong(field, text, accepted))
}

fn resolve_agent(
    field: &str,
    agent: &AgentFile,
    file: &File,
    overrides: &Overrides,
    found: &mut Found,
) -> Option<(crate::agent::Options, Option<crate::publish::Options>)> {
    let before = found.0.len();
    let plant_id = found.name(&format!("{field}.plant"), &agent.plant);
    let agent_id = found.name(&format!("{field}.id"), agent.id.as_deref().unwrap_or("agent"));
    let root = overrides.data_dir.as_ref().or(file.data_dir.as_ref());
    let in_root = || root.map(|root| root.join(&agent.plant));
    let data_dir = agent.data_dir.clone().or_else(in_root);
    if data_dir.is_none() {
        found.wrong::<()>(&format!("{field}.data_dir"), "none", "a folder, here or as data_dir at the top");
    }
    let coordinator = coordinator(field, &agent.coordinator, &file.coordinator, overrides, found);
    let bytes_max = agent.outbox_bytes_max.unwrap_or(BYTES_MAX_DEFAULT);
    found.within(&format!("{field}.outbox_bytes_max"), bytes_max, BYTES_MAX_LEAST, 1 << 40);
    let machines = machines::resolve(field, agent, file, found);
    let published = publish::resolve(field, agent, &machines, found);
    let (coordinators, token, tls) = coordinator?;
    if found.0.len() > before {
        return None;
    }
    let options = crate::agent::Options {
        plant_id: plant_id?,
        agent_id: agent_id?,
        data_dir: data_dir?,
        outbox_bytes_max: bytes_max,
        coordinators,
        token,
        tls,
        timing: Timing::default(),
        machines,
    };
    Some((options, published))
}

type Line = (Vec<String>, Token, Option<Tls>);

/// The agent's own line to the coordinators, where it has one, else everyone's.
fn coordinator(
    field: &str,
    own: &CoordinatorFile,
    all: &CoordinatorFile,
    overrides: &Overrides,
    found: &mut Found,
) -> Option<Line> {
    let field = format!("{field}.coordinator");
    let addresses = [&overrides.coordinators, &own.addresses, &all.addresses];
    let addresses =
        addresses.into_iter().find(|addresses| !addresses.is_empty()).cloned().unwrap_or_default();
    if addresses.is_empty() {
        found.wrong::<()>(
            &format!("{field}.addresses"),
            &addresses,
            "at least one host:port, here or in [coordinator]",
        );
    }
    for address in &addresses {
        if !is_address(address) {
            found.wrong::<()>(&format!("{field}.addresses"), address, "host:port, e.g. 127.0.0.1:7400");
        }
    }
    let insecure = overrides.insecure_dev || own.insecure_dev.or(all.insecure_dev).unwrap_or(false);
    let token_file = || own.token_file.as_ref().or(all.token_file.as_ref());
    let token = match (&overrides.token, &overrides.token_file) {
        (Some(token), _) => Token::Given(token.clone()),
        (None, Some(path)) => Token::File(path.clone()),
        (None, None) => match (own.token.as_ref().or(all.token.as_ref()), token_file()) {
            (Some(token), None) => Token::Given(token.clone()),
            (None, Some(path)) => Token::File(path.clone()),
            (None, None) => Token::None,
            (Some(_), Some(_)) => {
                found.wrong(&format!("{field}.token"), "(hidden)", "token or token_file, not both")?
            }
        },
    };
    if let Token::File(path) = &token {
        found.file(&format!("{field}.token_file"), path);
    }
    let tls = if insecure {
        for address in addresses.iter().filter(|address| !is_loopback(address)) {
            found.wrong::<()>(
                &format!("{field}.addresses"),
                address,
                "a loopback address, with insecure_dev",
            );
        }
        None
    } else {
        if matches!(token, Token::None) && own.cert_file.as_ref().or(all.cert_file.as_ref()).is_none() {
            found.wrong::<()>(
                &format!("{field}.token"),
                "none",
                "a token, a token_file, a cert_file, or insecure_dev",
            );
        }
        Some(tls(&field, own, all, found)?)
    };
    Some((addresses, token, tls))
}

fn tls(field: &str, own: &CoordinatorFile, all: &CoordinatorFile, found: &mut Found) -> Option<Tls> {
    let file = |pick: fn(&CoordinatorFile) -> &Option<PathBuf>| pick(own).as_ref().or(pick(all).as_ref());
    let Some(ca_file) = file(|c| &c.ca_file) else {
        return found.wrong(
            &format!("{field}.ca_file"),
            "none",
            "a PEM file, or insecure_dev = true on loopback",
        );
    };
    let ca_pem = found.file(&format!("{field}.ca_file"), ca_file)?;
    let identity_pem = match (file(|c| &c.cert_file), file(|c| &c.key_file)) {
        (Some(cert), Some(key)) => Some((
            found.file(&format!("{field}.cert_file"), cert)?,
            found.file(&format!("{field}.key_file"), key)?,
        )),
        (None, None) => None,
        (cert, key) => {
            found.wrong(&format!("{field}.cert_file"), (cert, key), "cert_file and key_file together")?
        }
    };
    Some(Tls { ca_pem, identity_pem, domain: own.domain.clone().or_else(|| all.domain.clone()) })
}

fn is_address(address: &str) -> bool {
    let bare = address.trim_start_matches("http://").trim_start_matches("https://");
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    bare.rsplit_once(':')
        .is_some_and(|(host, digits)| !host.is_empty() && !host.contains('/') && port(digits))
}

fn is_loopback(address: &str) -> bool {
    let bare = address.trim_start_matches("http://").trim_start_matches("https://");
    let host = bare.rsplit_once(':').map_or(bare, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
