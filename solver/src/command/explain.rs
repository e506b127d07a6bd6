//! The command's `--explain`: which job is meant, and its explanation on standard output.

use std::io::Write;

use anyhow::Context;
use millpool_solver::{Instance, Plan, explain};

/// The index of the job with this id.
pub(crate) fn job_named(instance: &Instance, id: &str) -> anyhow::Result<usize> {
    let job = instance.jobs.iter().position(|job| job.id == id);
    job.with_context(|| format!("--explain: {} has no job \"{id}\"", instance.name))
}

/// Prints how the job fares in the plan, why, and what would help.
pub(crate) fn print(instance: &Instance, plan: &Plan, job: usize) -> anyhow::Result<()> {
    let explanation = explain(instance, plan, job)?;
    write!(std::io::stdout(), "{explanation}").context("cannot write to standard output")
}
