//! `[otlp]`: a collector of OpenTelemetry to which the agent's meters are sent.

use super::Found;
use millpool_meters::otlp::{Collector, Setting, Settings};
use serde::Deserialize;
use std::fmt::Debug;
use std::path::PathBuf;

/// `[otlp]`, and what the environment and flags say of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpFile {
    /// `http://host:port` or `https://host:port` of OTLP over gRPC; nothing is sent without.
    pub endpoint: Option<String>,
    /// Time between two exports, s.
    pub every_s: Option<u64>,
    /// PEM file of the authority that signed the collector's certificate, with https.
    pub ca_file: Option<PathBuf>,
}

/// The collector, if there is one.
pub(super) fn resolve(file: &OtlpFile, overrides: &OtlpFile, found: &mut Found) -> Option<Collector> {
    let settings = Settings::given(
        overrides.endpoint.clone().or_else(|| file.endpoint.clone()),
        overrides.every_s.or(file.every_s),
        overrides.ca_file.clone().or_else(|| file.ca_file.clone()),
    )?;
    let wrong = match settings.collector() {
        Ok(collector) => return Some(collector),
        Err(wrong) => wrong,
    };
    let file = settings.ca_file.as_ref().map_or_else(|| "none".into(), |file| file.to_string_lossy());
    let (field, value): (_, &dyn Debug) = match wrong.setting {
        Setting::Endpoint => ("otlp.endpoint", &settings.endpoint),
        Setting::EveryS => ("otlp.every_s", &settings.every_s),
        Setting::CaFile => ("otlp.ca_file", &file),
    };
    found.wrong(field, value, &wrong.accepted)
}
