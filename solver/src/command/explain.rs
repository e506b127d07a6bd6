//! The command's `--explain`: which job is meant; its explanation, and what the time is worth that it asks for, on
//! standard output.

use std::io::Write;

use anyhow::Context;
use millpool_solver::{Instance, Objective, Plan, Prices, explain};

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

/// Prints what an hour is worth of the classes of machines that might do the job.
pub(crate) fn print_prices(instance: &Instance, prices: &Prices, job: usize) -> anyhow::Result<()> {
    let modes = || instance.jobs[job].ops.iter().flat_map(|op| &op.modes);
    let asked = prices.of(|class| modes().any(|mode| instance.shop.machines[mode.machine].class == class));
    if asked.classes.is_empty() {
        return Ok(());
    }
    let unit = if instance.objective == Objective::COST { "CNY" } else { "hundredths of the objective" };
    write!(std::io::stdout(), "What an hour of machine time is worth, in {unit}, by class and day:\n{asked}")
        .context("cannot write to standard output")
}
