//! Reads a machine through its MTConnect agent.
use super::Shop;
use super::simulated::Power;
use crate::outbox::OutboxError;
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

/// Whose time stamps events carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// The data's own.
    Source,
    /// The time at which the agent saw them.
    Arrival,
}

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal { /// a
    Availability }
impl Signal {
    /// All.
    pub const ALL: [Signal; 1] = [Signal::Availability];
    /// Name.
    pub fn name(self) -> &'static str { "availability" }
    /// From name.
    pub fn from_name(name: &str) -> Option<Self> { (name == "availability").then_some(Self::Availability) }
}
/// f
#[derive(Clone, Debug, Deserialize)]
pub struct SignalFile {}
/// s
#[derive(Clone, Debug)]
pub struct SignalSpec {}
impl From<SignalFile> for SignalSpec { fn from(_: SignalFile) -> Self { Self {} } }
/// o
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Options {
    pub url: String, pub device: Option<String>, pub heartbeat_ms: u64, pub interval_ms: u64, pub time: Time,
    pub signals: BTreeMap<Signal, SignalSpec>, pub conditions: Option<Vec<String>>, pub follow_dispatch: bool,
    pub progress_s: u32, pub down_after_s: u32, pub power: Power,
}
/// c
pub fn client() -> Result<reqwest::Client, reqwest::Error> { reqwest::Client::builder().build() }
/// r
pub async fn run(_: String, _: Options, _: reqwest::Client, _: Shop, stop: CancellationToken) -> Result<(), OutboxError> {
    stop.cancelled().await;
    Ok(())
}
