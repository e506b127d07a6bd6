//! Reads a machine through its MTConnect agent: probe, current, and a streaming sample. Read-only: nothing
//! here can make a machine move, because MTConnect cannot.
//!
//! - [`document`]: the XML documents, with limits. [`multipart`]: the stream's parts.
//! - [`signals`]: which data item is which signal, and what state they amount to.
//! - [`watch`]: a machine's history from documents.
//!
//! [`run`] holds the line: it probes, reads on from where the watch stopped, and when it cannot
//! (`OUT_OF_RANGE`, another instance), it reads everything as it is now and records a gap in the evidence.
//! A line that is silent for twice the heartbeat is lost; a line that is back within that time is not
//! worth mentioning.

pub mod document;
pub mod multipart;
pub mod signals;
pub mod watch;

pub use signals::Signal;

use super::history::Rules;
use super::mapping::SignalTable;
use super::shop::{Post, Shop, Sight};
use super::word::Said;
use super::{Happened, Running, Time, cut};
use crate::chance::{Backoff, Chance};
use crate::outbox::OutboxError;
use document::{Device, Document, DocumentError};
use multipart::{Multipart, MultipartError};
use signals::MappingError;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use watch::Watch;

/// Observations asked for in one document.
const COUNT: u32 = 1000;
/// A connection must stand within this.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A document that is not streamed must be here whole within this.
const DOCUMENT_MAX: Duration = Duration::from_secs(20);
/// First and longest delay between attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Delay after what a retry does not cure soon: a device or data item that is not there.
const RETRY_SLOW: Duration = Duration::from_secs(30);

/// How a machine is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The MTConnect agent, e.g. `http://10.1.2.3:5000`.
    pub url: String,
    /// Name, uuid or id of the device.
    pub device: Option<String>,
    /// Heartbeat asked for.
    pub heartbeat_ms: u64,
    /// Least time between two documents.
    pub interval_ms: u64,
    /// Whose time stamps events carry.
    pub time: Time,
    /// Data items of signals that are not to be found by type.
    pub signals: BTreeMap<Signal, SignalTable>,
    /// Condition items that count; all without.
    pub conditions: Option<Vec<String>>,
    /// How its history is told.
    pub rules: Rules,
}

/// Why the line was given up.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Http(String),
    #[error("no answer within {0:?}")]
    TooLate(Duration),
    #[error("the answer is larger than {max} bytes", max = document::DOCUMENT_BYTES_MAX)]
    TooLarge,
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Multipart(#[from] MultipartError),
    #[error(transparent)]
    Mapping(#[from] MappingError),
    #[error("device {wanted:?} is not there; the MTConnect agent has {there}")]
    Device { wanted: String, there: String },
    #[error("the MTConnect agent refused: {code} {text}")]
    Refused { code: String, text: String },
    #[error("the stream ended")]
    Ended,
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Why a stream is left while the line is good.
enum Left {
    /// It cannot be read on: another instance answers, or what was next has left the buffer.
    Behind,
    /// An answer that was not a stream: ask again.
    Polled,
}

/// The HTTP client for MTConnect agents: no proxies, no redirects.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .build()
}

/// Watches one machine until `stop`.
pub fn run(
    machine_id: String,
    options: Options,
    client: reqwest::Client,
    shop: Shop,
    stop: CancellationToken,
) -> Running {
    Box::pin(async move {
        let memory = shop.outbox.mark(&machine_id);
        let watch = Watch::new(options.clone(), memory.as_deref());
        let post = Post::new(machine_id, watch);
        let mut line = Line { options, client, shop, post, heard: Instant::now() };
        let mut backoff = Backoff::new(RETRY.0, RETRY.1, Chance::from_system());
        // A restart is a time in which nothing was seen.
        line.post.lose("the agent was started", &line.shop).await?;
        loop {
            let trouble = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                trouble = line.follow(&mut backoff) => trouble,
            };
            let delay = match &trouble {
                Trouble::Outbox(error) => return Err(error.clone()),
                Trouble::Mapping(_) | Trouble::Device { .. } => backoff.jittered(RETRY_SLOW),
                _ => backoff.delay(),
            };
            line.post.show(&trouble, &line.shop);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                lost = line.wait(delay) => lost?,
            }
        }
    })
}

/// One machine's line.
struct Line {
    options: Options,
    client: reqwest::Client,
    shop: Shop,
    post: Post<Watch>,
    /// When the last document came.
    heard: Instant,
}

impl Line {
    /// Reads until something goes wrong.
    async fn follow(&mut self, backoff: &mut Backoff) -> Trouble {
        match self.try_follow(backoff).await {
            Err(trouble) => trouble,
            Ok(never) => match never {},
        }
    }

    async fn try_follow(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Trouble> {
        let mut device = self.probe().await?;
        loop {
            if self.post.watch.place().is_none() {
                self.read_current(&device).await?;
            }
            match self.stream(&device, backoff).await? {
                Left::Polled => {
                    let pause = Duration::from_millis(self.options.interval_ms.max(10));
                    self.rest(Instant::now() + pause).await?;
                }
                Left::Behind => {
                    device = self.probe().await?;
                    self.read_current(&device).await?;
                }
            }
        }
    }

    /// Reads the device model, and finds the signals in it.
    async fn probe(&mut self) -> Result<String, Trouble> {
        let text = self.get("probe").await?;
        let devices = document::devices(&text)?;
        let device = pick(&devices, self.options.device.as_deref())?;
        let mapping = signals::resolve(device, &self.options.signals, self.options.conditions.as_deref())?;
        tracing::info!(machine = self.post.id, device = device.name, signals = mapping.describe(), "probed");
        let capability = [device.description.as_str(), &device.uuid].join(" ").trim().to_owned();
        self.shop.health.machine(&self.post.id, |report| report.capability = capability);
        self.post.watch.set_mapping(mapping);
        let names = [&device.name, &device.uuid, &device.id];
        Ok(names.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default())
    }

    /// Reads everything as it is now; if the machine was seen before, with a gap in the evidence.
    async fn read_current(&mut self, device: &str) -> Result<(), Trouble> {
        let text = self.get(&format!("{}/current", encode(device))).await?;
        let wanted = |item_id: &str| self.post.watch.wants(item_id);
        let (header, seen) = match document::streams(&text, wanted)? {
            Document::Streams(header, seen) => (header, seen),
            Document::Error { code, text } => return Err(Trouble::Refused { code, text }),
        };
        let why = match self.post.watch.place() {
            Some((instance_id, _)) if instance_id != header.instance_id => "the MTConnect agent restarted",
            _ => "away for longer than the MTConnect agent's buffer reaches (OUT_OF_RANGE)",
        };
        if self.post.watch.place().is_some() {
            tracing::warn!(machine = self.post.id, why, "a gap in the evidence");
            metrics::counter!("millpool_agent_evidence_gaps_total", "machine" => self.post.id.clone())
                .increment(1);
        }
        self.heard = Instant::now();
        self.take_list();
        let happened = self.post.watch.current(header, &seen, self.shop.clock.now_ms(), why);
        Ok(self.tell(happened).await?)
    }

    /// Reads the stream from where the watch stands.
    async fn stream(&mut self, device: &str, backoff: &mut Backoff) -> Result<Left, Trouble> {
        let (_, from) = self.post.watch.place().unwrap_or_default();
        let Options { interval_ms, heartbeat_ms, .. } = self.options;
        let path = format!(
            "{}/sample?from={from}&count={COUNT}&interval={interval_ms}&heartbeat={heartbeat_ms}",
            encode(device)
        );
        let mut response = self.ask(&path).await?;
        let content_type = response.headers().get(reqwest::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if !content_type.starts_with("multipart/") {
            let text = self.whole(response).await?;
            return Ok(self.take_part(&text, backoff).await?.unwrap_or(Left::Polled));
        }
        let mut parts = Multipart::new(&content_type)?;
        let silence = self.silence();
        // Only whole parts count as signs of life: a server that drips bytes is as good as silent.
        let mut heard = Instant::now();
        loop {
            while let Some(part) = parts.part()? {
                heard = Instant::now();
                if let Some(left) = self.take_part(&utf8(&part)?, backoff).await? {
                    return Ok(left);
                }
            }
            tokio::select! {
                chunk = tokio::time::timeout_at(heard + silence, response.chunk()) => {
                    let chunk = chunk.map_err(|_| Trouble::TooLate(silence))?.map_err(|error| http(&error))?;
                    parts.feed(&chunk.ok_or(Trouble::Ended)?);
                }
                said = self.shop.said() => self.hear(said).await?,
            }
        }
    }

    /// Takes in one document of a stream. Says so if the stream is to be left.
    async fn take_part(&mut self, text: &str, backoff: &mut Backoff) -> Result<Option<Left>, Trouble> {
        let wanted = |item_id: &str| self.post.watch.wants(item_id);
        let (header, seen) = match document::streams(text, wanted)? {
            Document::Streams(header, seen) => (header, seen),
            Document::Error { code, .. } if code == "OUT_OF_RANGE" => return Ok(Some(Left::Behind)),
            Document::Error { code, text } => return Err(Trouble::Refused { code, text }),
        };
        let (instance_id, next_seq) = self.post.watch.place().unwrap_or_default();
        if header.instance_id != instance_id || header.next_seq < next_seq {
            return Ok(Some(Left::Behind));
        }
        backoff.reset();
        self.heard = Instant::now();
        self.take_list();
        metrics::counter!("millpool_agent_observations_total", "machine" => self.post.id.clone())
            .increment(header.next_seq - next_seq);
        let happened = self.post.watch.sample(header, &seen, self.shop.clock.now_ms());
        self.tell(happened).await?;
        Ok(None)
    }

    fn take_list(&mut self) {
        if let Some(kept) = self.shop.new_list() {
            self.post.take_list(&kept);
        }
    }

    /// Takes in what a person says.
    async fn hear(&mut self, said: Said) -> Result<(), OutboxError> {
        self.take_list();
        self.post.hear(said, self.sight(), &self.shop).await
    }

    /// Puts what happened into the outbox, and shows it.
    async fn tell(&mut self, happened: Vec<Happened>) -> Result<(), OutboxError> {
        self.post.tell(happened, self.sight(), &self.shop).await
    }

    fn sight(&self) -> Sight {
        if self.heard.elapsed() < self.silence() { Sight::Seen } else { Sight::Lost }
    }

    /// Waits before the next attempt; a machine that was not heard of for too long is lost meanwhile.
    async fn wait(&mut self, delay: Duration) -> Result<(), OutboxError> {
        let until = Instant::now() + delay;
        let lost_at = self.heard + self.silence();
        if lost_at <= until {
            self.rest(lost_at).await?;
            self.post.lose("no line to its MTConnect agent", &self.shop).await?;
        }
        self.rest(until).await
    }

    /// Waits, and takes in what is said meanwhile.
    async fn rest(&mut self, until: Instant) -> Result<(), OutboxError> {
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                said = self.shop.said() => self.hear(said).await?,
            }
        }
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.options.heartbeat_ms.saturating_mul(2).max(200))
    }

    async fn get(&self, path: &str) -> Result<String, Trouble> {
        let response = self.ask(path).await?;
        self.whole(response).await
    }

    async fn ask(&self, path: &str) -> Result<reqwest::Response, Trouble> {
        let sent = self.client.get(format!("{}/{path}", self.options.url)).send();
        let sent = tokio::time::timeout(DOCUMENT_MAX.min(self.silence() + CONNECT_MAX), sent).await;
        sent.map_err(|_| Trouble::TooLate(DOCUMENT_MAX))?.map_err(|error| http(&error))
    }

    /// The whole of an answer, up to the limit. Refusals come as documents too, whatever the status.
    async fn whole(&self, mut response: reqwest::Response) -> Result<String, Trouble> {
        let status = response.status();
        let read = async {
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| http(&error))? {
                if body.len() + chunk.len() > document::DOCUMENT_BYTES_MAX {
                    return Err(Trouble::TooLarge);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        };
        let body =
            tokio::time::timeout(DOCUMENT_MAX, read).await.map_err(|_| Trouble::TooLate(DOCUMENT_MAX))??;
        let text = utf8(&body)?;
        if !status.is_success() && !text.contains("MTConnectError") {
            return Err(Trouble::Http(format!("HTTP status {status}")));
        }
        Ok(text)
    }
}

fn pick<'a>(devices: &'a [Device], wanted: Option<&str>) -> Result<&'a Device, Trouble> {
    let found = match (wanted, devices) {
        (Some(wanted), _) => devices
            .iter()
            .find(|device| [&device.name, &device.uuid, &device.id].contains(&&wanted.to_owned())),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.ok_or_else(|| Trouble::Device {
        wanted: wanted.unwrap_or("(none named)").to_owned(),
        there: devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

fn utf8(bytes: &[u8]) -> Result<String, DocumentError> {
    let text = std::str::from_utf8(bytes).map_err(|error| DocumentError::Malformed(error.to_string()))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

fn http(error: &reqwest::Error) -> Trouble {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    Trouble::Http(cut(&words, 500).to_owned())
}

/// A device's name in a URL.
fn encode(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let each = name
        .bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") });
    each.collect()
}
