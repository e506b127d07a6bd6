//! `[agent.samples]`: how long raw samples of the machines are kept.

use super::{AgentFile, Found};
use crate::samples::{BYTES_MAX_DEFAULT, BYTES_MAX_LEAST, KEEP_DAYS_DEFAULT, KEEP_DAYS_MAX, Options};
use serde::Deserialize;

/// `[agent.samples]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplesFile {
    /// So many days; 0 for none at all.
    pub keep_days: Option<u32>,
    /// Limit of their size on disk, bytes: beyond it the oldest day goes.
    pub bytes_max: Option<u64>,
}

/// Checks how an agent keeps samples; not at all, where it wants none.
pub(super) fn resolve(field: &str, agent: &AgentFile, found: &mut Found) -> Option<Options> {
    let own = agent.samples.clone().unwrap_or_default();
    let keep_days = own.keep_days.unwrap_or(KEEP_DAYS_DEFAULT);
    found.within(&format!("{field}.samples.keep_days"), keep_days, 0, KEEP_DAYS_MAX);
    let bytes_max = own.bytes_max.unwrap_or(BYTES_MAX_DEFAULT);
    found.within(&format!("{field}.samples.bytes_max"), bytes_max, BYTES_MAX_LEAST, 1 << 40);
    (keep_days > 0).then_some(Options { keep_days, bytes_max })
}
