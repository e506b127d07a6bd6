//! The log that experts read, and the progress bar of a terminal; both on standard error, the bar below the log.
//!
//! A line where the incumbent (marked with a star) or the bound has moved, at most some a second; a head before them
//! and a summary behind.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use millpool_solver::{Instance, Objective, Options, Plan, Progress, Solution};

/// The least time between two lines.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: usize = 30;

/// What is said while it runs.
pub(crate) struct Log {
    on: bool,
    bar: Option<ProgressBar>,
    shown: Option<Shown>,
}

/// The last line.
#[derive(Clone, Copy)]
struct Shown {
    at: Duration,
    cost: i64,
    bound: i64,
    missing: usize,
}

impl Log {
    pub(crate) fn new(on: bool, limit: Duration) -> Log {
        Log { on, bar: std::io::stderr().is_terminal().then(|| bar(limit)), shown: None }
    }

    /// Says something whether a log is asked for or not.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn line(&self, line: &str) {
        if self.on {
            self.say(line);
        }
    }

    pub(crate) fn head(&self, instance: &Instance, options: &Options) {
        let operations: usize = instance.jobs.iter().map(|job| job.ops.len()).sum();
        let promised = instance.jobs.iter().filter(|job| job.rejection_cost.is_none()).count();
        let machines = instance.shop.machines.len();
        self.line(&format!("millpool-solve {}", env!("CARGO_PKG_VERSION")));
        self.line(&format!("instance    {}", instance.name));
        let jobs = grouped(instance.jobs.len() as i64);
        let operations = grouped(operations as i64);
        let of_which = match instance.objective.is_makespan() {
            false => format!(" ({} promised)", grouped(promised as i64)),
            true => String::new(),
        };
        self.line(&format!(
            "            {machines} machines, {jobs} jobs{of_which}, {operations} operations"
        ));
        self.line(&match instance.objective {
            Objective::COST => format!("objective   cost in fen; ticks of {} s", instance.tick_seconds),
            Objective::MAKESPAN => "objective   makespan in ticks".to_owned(),
            weights => format!("objective   {weights}; ticks of {} s", instance.tick_seconds),
        });
        let tries = options.iterations.map_or(String::new(), |n| format!(" or {} tries", grouped(n as i64)));
        self.line(&format!(
            "options     threads {}, seed {}, limit {} s{tries}",
            options.threads,
            options.seed,
            options.time_limit.as_secs_f64()
        ));
        self.line("");
        self.line(&format!(
            "{:>9} {:>17} {:>17} {:>8} {:>13}  found by",
            "time", "incumbent", "bound", "gap", "tries"
        ));
    }

    pub(crate) fn progress(&mut self, p: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}  gap {}", incumbent(p), gap(p)));
        }
        let now = Shown { at: p.elapsed, cost: p.cost, bound: p.bound, missing: p.missing };
        let better = self.shown.is_none_or(|last| (p.missing, p.cost) != (last.missing, last.cost));
        let stands =
            |last: Shown| (!better && last.bound == p.bound) || p.elapsed.saturating_sub(last.at) < PAUSE;
        if self.shown.is_some_and(stands) {
            return;
        }
        self.shown = Some(now);
        let found_by = match (better, p.missing) {
            (false, _) => "bound".to_owned(),
            (true, 0) => p.found_by.to_owned(),
            (true, n) => format!("{}; {n} promised jobs have no place yet", p.found_by),
        };
        self.line(&format!(
            "{}{:>7.1}s {:>17} {:>17} {:>8} {:>13}  {found_by}",
            if better { "*" } else { " " },
            p.elapsed.as_secs_f64(),
            incumbent(p),
            grouped(p.bound),
            gap(p),
            grouped(p.iterations as i64),
        ));
    }

    /// The bar goes; whatever comes now stands below the log.
    pub(crate) fn end(&mut self) {
        self.bar.take().into_iter().for_each(|bar| bar.finish_and_clear());
    }

    pub(crate) fn summary(&self, instance: &Instance, options: &Options, s: &Solution, status: &str) {
        let (plan, priced) = (&s.plan, &s.priced);
        self.line("");
        self.line(&format!("status      {status}"));
        self.line(&format!("incumbent   {} (found by {})", grouped(s.cost), s.found_by));
        self.line(&format!("bound       {}", grouped(s.bound)));
        self.line(&format!("gap         {:.2} %", 100.0 * s.gap()));
        if !instance.objective.is_makespan() {
            self.parts(instance, s);
            self.line(&format!("jobs        {}", jobs(plan, priced.accepted, priced.late)));
        }
        if options.incumbent.is_some() {
            self.line(&format!("moved       {} operations against the hint", grouped(s.moved as i64)));
        }
        for (i, row) in s.prices.to_string().lines().enumerate() {
            self.line(&format!("{:<11} {row}", if i == 0 { "an hour at" } else { "" }));
        }
        let seconds = s.elapsed.as_secs_f64();
        let rate = (s.iterations as f64 / seconds.max(1e-9)) as i64;
        self.line(&format!("tries       {} ({} a second)", grouped(s.iterations as i64), grouped(rate)));
        self.line(&format!("time        {seconds:.2} s"));
    }

    /// What the objective consists of: the cost by its parts, or each measure that weighs something.
    fn parts(&self, instance: &Instance, s: &Solution) {
        let priced = &s.priced;
        let measures = instance.objective.weights().into_iter().zip(priced.measures());
        let parts: Vec<(String, i64)> = match instance.objective {
            Objective::COST => vec![
                ("processing".to_owned(), priced.processing),
                ("setup".to_owned(), priced.setup),
                ("transport".to_owned(), priced.transport),
                ("tardiness".to_owned(), priced.tardiness),
                ("rejection".to_owned(), priced.rejection),
            ],
            _ => measures
                .filter(|((_, weight), _)| *weight > 0)
                .map(|((name, weight), measure)| {
                    (format!("{weight} x {name} {}", grouped(measure)), weight * measure)
                })
                .collect(),
        };
        let width = parts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let share = |part: i64| 100.0 * part as f64 / s.cost.max(1) as f64;
        for (i, (name, part)) in parts.into_iter().enumerate() {
            let head = if i == 0 { "cost" } else { "" };
            self.line(&format!("{head:<11} {name:<width$} {:>15} {:>5.1} %", grouped(part), share(part)));
        }
    }
}

fn jobs(plan: &Plan, accepted: usize, late: usize) -> String {
    let [accepted, rejected, late] = [accepted, plan.rejected.len(), late].map(|n| grouped(n as i64));
    format!("{accepted} accepted, {late} of them late; {rejected} rejected")
}

fn bar(limit: Duration) -> ProgressBar {
    let limit = limit.as_secs_f64().max(1e-9);
    let time = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let passed = state.elapsed().as_secs_f64();
        let full = (WIDTH as f64 * (passed / limit).min(1.0)) as usize;
        let (done, left) = ("#".repeat(full), "-".repeat(WIDTH - full));
        // A bar that cannot be drawn is no reason to fail.
        let _ = write!(out, "[{done}{left}] {passed:.0} of {limit:.0} s");
    };
    let style =
        ProgressStyle::with_template("{time}  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new_spinner().with_style(style.with_key("time", time));
    bar.enable_steady_tick(TICK);
    bar
}

fn incumbent(p: &Progress) -> String {
    if p.missing == 0 { grouped(p.cost) } else { "-".to_owned() }
}

fn gap(p: &Progress) -> String {
    if p.missing > 0 {
        return "-".to_owned();
    }
    format!("{:.2} %", 100.0 * (p.cost - p.bound) as f64 / p.cost.max(1) as f64)
}

/// Digits in groups of three.
pub(crate) fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn digits_stand_in_groups() {
        assert_eq!([0, 999, 1000, -1_234_567].map(super::grouped), ["0", "999", "1,000", "-1,234,567"]);
    }
}
