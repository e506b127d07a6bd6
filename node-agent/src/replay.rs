//! An MTConnect agent that serves a recorded day over HTTP: probe, current, sample and streaming sample.
//!
//! For tests and demonstrations: the adapter then speaks the real protocol with real data. The recording
//! is SHDR, the lines that a machine's adapter sends to its agent. Its time runs `speed` times as fast as
//! the wall; stretches in which nothing was recorded for longer than `gap_skipped` take no time.
//! Observations stand in a ring buffer; who asks for one that is gone gets OUT_OF_RANGE.
//! [`Replay::restart`] does what a restart of an MTConnect agent does: another instance, numbers from 1,
//! streams cut.

use crate::adapter::mtconnect::document::{self, DataItem, Device};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use quick_xml::escape::escape;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Largest recording, uncompressed.
const RECORDING_BYTES_MAX: u64 = 1 << 30;
/// Observations in one answer, at most.
const COUNT_MAX: u64 = 100_000;
/// Between the parts of a stream.
const BOUNDARY: &str = "millpool-replay-part";
/// Schema version that documents claim.
const SCHEMA: &str = "1.3";

/// Why a recording cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The device model cannot be read.
    #[error("the device model: {0}")]
    Devices(#[from] document::DocumentError),
    /// The model has no such device.
    #[error("the device model has no device {wanted:?}; it has {there}")]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// What there is.
        there: String,
    },
    /// The recording cannot be read.
    #[error("the recording: {0}")]
    Recording(#[from] std::io::Error),
    /// The recording holds nothing about the device.
    #[error("the recording has no observation of device {0:?}")]
    Nothing(String),
}

/// How a recording is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device's name in the model.
    pub device: String,
    /// Recorded seconds a wall second.
    pub speed: f64,
    /// Observations that the buffer holds.
    pub buffer: usize,
    /// Recorded silence that is longer than this is skipped.
    pub gap_skipped: Duration,
    /// Time that the first observation is moved to, ms since the Unix epoch; recorded times without.
    pub start_at_ms: Option<i64>,
}

impl Options {
    /// For a device, in real time.
    pub fn new(device: &str) -> Self {
        Self {
            device: device.to_owned(),
            speed: 1.0,
            buffer: 16_384,
            gap_skipped: Duration::from_secs(3600),
            start_at_ms: None,
        }
    }
}

/// One observation of the recording.
struct Line {
    item: usize,
    /// Recorded time, skipped gaps taken out, ms after the first.
    due_ms: i64,
    at_ms: i64,
    stamp: String,
    /// Value, or a condition's level, native code, severity, qualifier and text.
    values: Vec<String>,
}

/// An observation in the buffer.
#[derive(Clone)]
struct Held {
    seq: u64,
    line: usize,
}

struct Buffer {
    instance_id: u64,
    held: VecDeque<Held>,
    next_seq: u64,
    /// The last line of each item, and of each of a condition's codes.
    current: BTreeMap<(usize, String), Held>,
    fed: usize,
}

struct Inside {
    options: Options,
    devices_xml: String,
    device: Device,
    lines: Vec<Line>,
    buffer: Mutex<Buffer>,
    /// Instance and next number: a wake-up for streams.
    moved: watch::Sender<(u64, u64)>,
    /// When feeding began.
    began: OnceLock<Instant>,
}

/// The agent. Cheap to clone.
#[derive(Clone)]
pub struct Replay(Arc<Inside>);

impl Replay {
    /// For a device model and a recording, which may be gzipped.
    pub fn new(devices_xml: &str, recording: &[u8], options: Options) -> Result<Self, ReplayError> {
        let devices = document::devices(devices_xml)?;
        let there = devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>().join(", ");
        let device = devices.into_iter().find(|device| device.name == options.device);
        let device = device.ok_or_else(|| ReplayError::NoDevice { wanted: options.device.clone(), there })?;
        let text = unpack(recording)?;
        let lines = read_lines(&text, &device, &options);
        if lines.is_empty() {
            return Err(ReplayError::Nothing(options.device));
        }
        let instance_id = 1;
        let buffer =
            Buffer { instance_id, held: VecDeque::new(), next_seq: 1, current: BTreeMap::new(), fed: 0 };
        Ok(Self(Arc::new(Inside {
            options,
            devices_xml: devices_xml.to_owned(),
            device,
            lines,
            buffer: Mutex::new(buffer),
            moved: watch::Sender::new((instance_id, 1)),
            began: OnceLock::new(),
        })))
    }

    /// Feeds the recording into the buffer, in its time; ends with the recording.
    pub async fn feed(&self) {
        let inside = &self.0;
        let began = *inside.began.get_or_init(Instant::now);
        for (at, line) in inside.lines.iter().enumerate() {
            let due = Duration::from_secs_f64((line.due_ms as f64 / 1000.0 / inside.options.speed).max(0.0));
            let now = began.elapsed();
            if due > now {
                inside.announce();
                tokio::time::sleep(due - now).await;
            }
            let mut buffer = inside.lock();
            buffer.fed = at + 1;
            inside.push(&mut buffer, at);
        }
        inside.announce();
    }

    /// Whether the whole recording is in the buffer, or has been.
    pub fn is_over(&self) -> bool {
        self.0.lock().fed == self.0.lines.len()
    }

    /// Restarts as another instance: numbers from 1, every last value reported again, streams cut.
    pub fn restart(&self) {
        let inside = &self.0;
        let mut buffer = inside.lock();
        buffer.instance_id += 1;
        buffer.held.clear();
        buffer.next_seq = 1;
        let mut last: Vec<_> =
            std::mem::take(&mut buffer.current).into_values().map(|held| held.line).collect();
        last.sort_unstable();
        for line in last {
            inside.push(&mut buffer, line);
        }
        drop(buffer);
        inside.announce();
    }

    /// The agent's pages: `/probe`, `/current`, `/sample`, with or without the device before them.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/", get(probe))
            .route("/{verb}", get(answer))
            .route("/{device}/{verb}", get(answer_device))
            .with_state(self.clone())
    }
}

impl Inside {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        let buffer = self.lock();
        self.moved.send_replace((buffer.instance_id, buffer.next_seq));
    }

    fn push(&self, buffer: &mut Buffer, line: usize) {
        let held = Held { seq: buffer.next_seq, line };
        buffer.next_seq += 1;
        let Line { item, values, .. } = &self.lines[line];
        if self.device.items[*item].category == "CONDITION" {
            let code = values.get(1).cloned().unwrap_or_default();
            if code.is_empty() || !level(values).eq_ignore_ascii_case("fault") {
                buffer.current.retain(|(held_item, held_code), _| {
                    held_item != item || (!code.is_empty() && *held_code != code)
                });
            }
            buffer.current.insert((*item, code), held.clone());
        } else {
            buffer.current.insert((*item, String::new()), held.clone());
        }
        buffer.held.push_back(held);
        if buffer.held.len() > self.options.buffer {
            buffer.held.pop_front();
        }
    }

    /// The recording's time, as far as it has been fed.
    fn now_ms(&self, fed: usize) -> i64 {
        let gone = self.began.get().map_or(Duration::ZERO, Instant::elapsed);
        let gone_ms = (gone.as_secs_f64() * 1000.0 * self.options.speed) as i64;
        let last = fed.checked_sub(1).and_then(|at| self.lines.get(at));
        let next = self.lines.get(fed);
        last.map_or_else(
            || self.lines[0].at_ms,
            |last| {
                let since = next.map_or(gone_ms, |next| gone_ms.min(next.due_ms)) - last.due_ms;
                last.at_ms + since.max(0)
            },
        )
    }

    fn document(&self, buffer: &Buffer, held: &[Held], next_seq: u64) -> String {
        let mut groups: BTreeMap<(&str, &str), BTreeMap<&str, String>> = BTreeMap::new();
        for held in held {
            let line = &self.lines[held.line];
            let item = &self.device.items[line.item];
            let kind = match item.category.as_str() {
                "SAMPLE" => "Samples",
                "CONDITION" => "Condition",
                _ => "Events",
            };
            let group = groups.entry((&item.component, &item.component_name)).or_default();
            observation(group.entry(kind).or_default(), item, line, held.seq);
        }
        let first_seq = buffer.held.front().map_or(buffer.next_seq, |held| held.seq);
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<MTConnectStreams xmlns=\"urn:mtconnect.org:MTConnectStreams:{SCHEMA}\" \
             xmlns:x=\"urn:millpool:replay\"><Header creationTime=\"{}\" sender=\"millpool-mtconnect-replay\" \
             instanceId=\"{}\" version=\"{SCHEMA}\" bufferSize=\"{}\" nextSequence=\"{next_seq}\" \
             firstSequence=\"{first_seq}\" lastSequence=\"{}\"/><Streams><DeviceStream name=\"{}\" uuid=\"{}\">",
            stamp(self.now_ms(buffer.fed)),
            buffer.instance_id,
            self.options.buffer,
            buffer.next_seq - 1,
            escape(&self.device.name),
            escape(&self.device.uuid),
        );
        for ((component, name), kinds) in groups {
            let name = escape(name);
            let _ = write!(
                text,
                "<ComponentStream component=\"{component}\" name=\"{name}\" componentId=\"{name}\">"
            );
            for (kind, observations) in kinds {
                let _ = write!(text, "<{kind}>{observations}</{kind}>");
            }
            text.push_str("</ComponentStream>");
        }
        text.push_str("</DeviceStream></Streams></MTConnectStreams>\n");
        text
    }

    fn current(&self) -> String {
        let buffer = self.lock();
        let mut held: Vec<_> = buffer.current.values().cloned().collect();
        held.sort_by_key(|held| held.seq);
        self.document(&buffer, &held, buffer.next_seq)
    }

    /// Observations from a number on, and the number behind them; or a refusal.
    fn sample(&self, from: Option<u64>, count: u64) -> Result<(String, u64), Refusal> {
        let buffer = self.lock();
        let first = buffer.held.front().map_or(buffer.next_seq, |held| held.seq);
        let from = from.unwrap_or(first);
        if from < first || from > buffer.next_seq {
            let text = format!("'from' is {from}; it must be between {first} and {}", buffer.next_seq);
            return Err(Refusal { code: "OUT_OF_RANGE", text, instance_id: buffer.instance_id });
        }
        let skipped = (from - first) as usize;
        let held: Vec<_> = buffer.held.iter().skip(skipped).take(count as usize).cloned().collect();
        let next_seq = held.last().map_or(from, |held| held.seq + 1);
        Ok((self.document(&buffer, &held, next_seq), next_seq))
    }
}

struct Refusal {
    code: &'static str,
    text: String,
    instance_id: u64,
}

impl Refusal {
    fn document(&self) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<MTConnectError xmlns=\"urn:mtconnect.org:MTConnectError:{SCHEMA}\">\
             <Header instanceId=\"{}\" version=\"{SCHEMA}\" sender=\"millpool-mtconnect-replay\" bufferSize=\"0\"/>\
             <Errors><Error errorCode=\"{}\">{}</Error></Errors></MTConnectError>\n",
            self.instance_id,
            self.code,
            escape(&self.text)
        )
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    from: Option<u64>,
    count: Option<u64>,
    interval: Option<u64>,
    heartbeat: Option<u64>,
}

async fn probe(State(replay): State<Replay>) -> Response {
    xml(StatusCode::OK, replay.0.devices_xml.clone())
}

async fn answer(
    State(replay): State<Replay>,
    Path(verb): Path<String>,
    Query(asked): Query<Asked>,
) -> Response {
    respond(replay, &verb, asked)
}

async fn answer_device(
    State(replay): State<Replay>,
    Path((device, verb)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Response {
    if device != replay.0.device.name && device != replay.0.device.uuid {
        return refuse(&replay, StatusCode::NOT_FOUND, "NO_DEVICE", format!("there is no device {device}"));
    }
    respond(replay, &verb, asked)
}

fn respond(replay: Replay, verb: &str, asked: Asked) -> Response {
    let count = asked.count.unwrap_or(100).min(COUNT_MAX);
    match verb {
        "probe" => xml(StatusCode::OK, replay.0.devices_xml.clone()),
        "current" => xml(StatusCode::OK, replay.0.current()),
        "sample" => match (replay.0.sample(asked.from, count), asked.interval) {
            (Ok((_, _)), Some(interval_ms)) => stream(replay, asked, count, interval_ms),
            (Ok((document, _)), None) => xml(StatusCode::OK, document),
            (Err(refusal), _) => xml(StatusCode::NOT_FOUND, refusal.document()),
        },
        other => refuse(&replay, StatusCode::NOT_FOUND, "UNSUPPORTED", format!("there is no {other}")),
    }
}

fn refuse(replay: &Replay, status: StatusCode, code: &'static str, text: String) -> Response {
    let instance_id = replay.0.lock().instance_id;
    xml(status, Refusal { code, text, instance_id }.document())
}

fn xml(status: StatusCode, document: String) -> Response {
    (status, [(header::CONTENT_TYPE, "text/xml")], document).into_response()
}

/// What a stream knows between two parts.
struct Streaming {
    replay: Replay,
    moved: watch::Receiver<(u64, u64)>,
    instance_id: u64,
    next_seq: u64,
    count: u64,
    interval: Duration,
    heartbeat: Duration,
    over: bool,
}

fn stream(replay: Replay, asked: Asked, count: u64, interval_ms: u64) -> Response {
    let (instance_id, first_seq) = {
        let buffer = replay.0.lock();
        (buffer.instance_id, buffer.held.front().map_or(buffer.next_seq, |held| held.seq))
    };
    let streaming = Streaming {
        moved: replay.0.moved.subscribe(),
        replay,
        instance_id,
        next_seq: asked.from.unwrap_or(first_seq),
        count,
        interval: Duration::from_millis(interval_ms.clamp(1, 60_000)),
        heartbeat: Duration::from_millis(asked.heartbeat.unwrap_or(10_000).clamp(1, 600_000)),
        over: false,
    };
    let parts = futures::stream::unfold(streaming, next_part);
    let content_type = format!("multipart/x-mixed-replace;boundary={BOUNDARY}");
    ([(header::CONTENT_TYPE, content_type)], Body::from_stream(parts)).into_response()
}

async fn next_part(mut streaming: Streaming) -> Option<(std::io::Result<Bytes>, Streaming)> {
    if streaming.over {
        return None;
    }
    tokio::time::sleep(streaming.interval).await;
    let (instance_id, next_seq) = (streaming.instance_id, streaming.next_seq);
    let news = streaming.moved.wait_for(|(instance, next)| *instance != instance_id || *next > next_seq);
    // Silence is a heartbeat: an answer without observations.
    let _ = tokio::time::timeout(streaming.heartbeat, news).await;
    if streaming.replay.0.lock().instance_id != instance_id {
        return None;
    }
    let document = match streaming.replay.0.sample(Some(next_seq), streaming.count) {
        Ok((document, next_seq)) => {
            streaming.next_seq = next_seq;
            document
        }
        Err(refusal) => {
            streaming.over = true;
            refusal.document()
        }
    };
    let length = document.len();
    let part =
        format!("--{BOUNDARY}\r\nContent-type: text/xml\r\nContent-length: {length}\r\n\r\n{document}\r\n");
    Some((Ok(Bytes::from(part)), streaming))
}

fn unpack(recording: &[u8]) -> Result<String, std::io::Error> {
    let mut bytes = Vec::new();
    if recording.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(recording).take(RECORDING_BYTES_MAX).read_to_end(&mut bytes)?;
    } else {
        bytes.extend_from_slice(recording);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads SHDR lines: `time|item|value|item|value...`, or for a condition
/// `time|item|level|native code|native severity|qualifier|text`. Lines about other devices are passed over.
fn read_lines(text: &str, device: &Device, options: &Options) -> Vec<Line> {
    let by_id = device.items.iter().enumerate().map(|(at, item)| (item.id.as_str(), at));
    let by_name = device.items.iter().enumerate().filter_map(|(at, item)| Some((item.name.as_deref()?, at)));
    let items: HashMap<&str, usize> = by_id.chain(by_name).collect();
    let gap_ms = i64::try_from(options.gap_skipped.as_millis()).unwrap_or(i64::MAX);
    let mut lines: Vec<Line> = Vec::new();
    let (mut due_ms, mut last_ms) = (0, None);
    for line in text.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [time, key, rest @ ..] = fields.as_slice() else { continue };
        let Some(at_ms) = document::instant_ms(time) else { continue };
        let gone_ms = last_ms.map_or(0, |last_ms: i64| (at_ms - last_ms).max(0));
        due_ms += if gone_ms > gap_ms { 0 } else { gone_ms };
        last_ms = Some(last_ms.map_or(at_ms, |last_ms| last_ms.max(at_ms)));
        let (at_ms, stamp) = match options.start_at_ms {
            Some(start_ms) => (start_ms + due_ms, stamp(start_ms + due_ms)),
            None => (at_ms, (*time).to_owned()),
        };
        let mut add = |item: usize, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            lines.push(Line { item, due_ms, at_ms, stamp: stamp.clone(), values });
        };
        let condition = items.get(key).filter(|item| device.items[**item].category == "CONDITION");
        if let Some(item) = condition {
            add(*item, rest);
            continue;
        }
        for pair in fields[1..].chunks_exact(2) {
            if let Some(item) = items.get(pair[0]) {
                add(*item, &pair[1..]);
            }
        }
    }
    lines
}

fn level(values: &[String]) -> &str {
    values.first().map_or("Unavailable", String::as_str)
}

fn observation(text: &mut String, item: &DataItem, line: &Line, seq: u64) {
    let mut attributes = format!(
        " dataItemId=\"{}\" timestamp=\"{}\" sequence=\"{seq}\"",
        escape(&item.id),
        escape(&line.stamp)
    );
    if let Some(name) = &item.name {
        let _ = write!(attributes, " name=\"{}\"", escape(name));
    }
    if let Some(sub_type) = &item.sub_type {
        let _ = write!(attributes, " subType=\"{}\"", escape(sub_type));
    }
    if item.category != "CONDITION" {
        let element = pascal(&item.kind);
        let value = escape(line.values.first().map_or("", String::as_str));
        let _ = write!(text, "<{element}{attributes}>{value}</{element}>");
        return;
    }
    let level = pascal(level(&line.values));
    if let Some(code) = line.values.get(1).filter(|code| !code.is_empty()) {
        let _ = write!(attributes, " nativeCode=\"{}\"", escape(code));
    }
    let words = escape(line.values.get(4).map_or("", String::as_str));
    let _ = write!(text, "<{level}{attributes} type=\"{}\">{words}</{level}>", escape(&item.kind));
}

/// `PATH_FEEDRATE` is the element `PathFeedrate`, and `x:MOTION` the element `x:Motion`.
fn pascal(kind: &str) -> String {
    let (prefix, name) = kind.split_once(':').map_or((None, kind), |(prefix, name)| (Some(prefix), name));
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        first.to_uppercase() + &rest.to_lowercase()
    });
    let name: String = words.collect();
    prefix.map_or(name.clone(), |_| format!("x:{name}"))
}

fn stamp(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms)
        .map_or_else(|_| "1970-01-01T00:00:00Z".to_owned(), |stamp| stamp.to_string())
}
