//! An explanation in sentences that a planner can read.

use std::fmt::{Display, Formatter, Result};

use super::{
    Change, Constraint, Ends, Exclusion, Explanation, OpExplained, Outcome, Place, Relaxation, Relaxed,
    Verdict,
};
use crate::{Fen, Tick};

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let clock = Clock { tick_seconds: self.tick_seconds };
        self.verdict_line(f, clock)?;
        self.as_is_line(f, clock)?;
        if self.leant_on {
            writeln!(
                f,
                "Work behind it relies on the changeover that it leaves; that work is taken to stand."
            )?;
        }
        for (k, op) in self.ops.iter().enumerate() {
            op_lines(f, clock, op, (k + 1, self.ops.len()), self.verdict)?;
        }
        self.constraint_lines(f, clock)?;
        self.relaxation_lines(f, clock)
    }
}

impl Explanation {
    fn verdict_line(&self, f: &mut Formatter<'_>, clock: Clock) -> Result {
        let job = &self.job;
        match self.verdict {
            Verdict::LeftOut { rejection_cost: None } => {
                writeln!(f, "{job} is promised, and is not in the plan.")
            }
            Verdict::LeftOut { rejection_cost: Some(cost) } => {
                writeln!(f, "{job} is left out of the plan, which costs {}.", Money(cost))
            }
            Verdict::Late { completion, due } => {
                let (end, due, late) = (clock.at(completion), clock.at(due), clock.span(completion - due));
                writeln!(f, "{job} ends on {end}, {late} after it is due on {due}.")
            }
            Verdict::InTime { completion, due } => {
                let (end, due) = (clock.at(completion), clock.at(due));
                writeln!(f, "{job} ends on {end}, in time: it is due on {due}.")
            }
        }
    }

    fn as_is_line(&self, f: &mut Formatter<'_>, clock: Clock) -> Result {
        let Some(ends) = self.as_is else {
            return writeln!(f, "With everything else as it is, there is no place for it.");
        };
        let Ends { earliest, cheapest } = ends;
        write!(f, "With everything else as it is, it could {}", clock.ends(&earliest))?;
        if cheapest != earliest {
            write!(f, " at the earliest, or {} at the cheapest", clock.ends(&cheapest))?;
        }
        match (self.verdict, self.as_is_suffices) {
            (Verdict::LeftOut { rejection_cost: Some(_) }, false) => writeln!(f, ": more than it is worth."),
            (Verdict::LeftOut { .. }, true) => writeln!(f, ": the plan has room for it."),
            (Verdict::Late { .. }, true) => writeln!(f, ": it could be in time."),
            _ => writeln!(f, "."),
        }
    }

    fn constraint_lines(&self, f: &mut Formatter<'_>, clock: Clock) -> Result {
        let (helping, idle): (Vec<&Relaxed>, Vec<&Relaxed>) = self.relaxed.iter().partition(|r| r.helps);
        if let Some(binding) = self.binding() {
            writeln!(f, "What binds most is {}.", binding.constraint.name())?;
        }
        let others = helping.iter().find(|r| r.constraint == Constraint::OptionalWork).map(|r| r.ends);
        for relaxed in helping {
            // Where promised work adds nothing, it is not in the way.
            if relaxed.constraint == Constraint::Capacity && others == Some(relaxed.ends) {
                continue;
            }
            let Some(ends) = &relaxed.ends else { continue };
            let Ends { earliest, cheapest } = ends;
            write!(f, "  {}, it could {}", without(relaxed.constraint), clock.ends(earliest))?;
            if cheapest != earliest {
                write!(f, ", or {}", clock.ends(cheapest))?;
            }
            writeln!(f, ".")?;
        }
        if !idle.is_empty() {
            let all_work = idle.iter().any(|r| r.constraint == Constraint::Capacity);
            let names = idle.iter().filter(|r| !all_work || r.constraint != Constraint::OptionalWork);
            let names: Vec<&str> = names
                .map(
                    |r| if r.constraint == Constraint::Capacity { "other work" } else { r.constraint.name() },
                )
                .collect();
            writeln!(f, "Nothing is gained by giving up, alone, {}.", listed(&names, "or"))?;
        }
        Ok(())
    }

    fn relaxation_lines(&self, f: &mut Formatter<'_>, clock: Clock) -> Result {
        if self.as_is_suffices || matches!(self.verdict, Verdict::InTime { .. }) {
            return Ok(());
        }
        if self.relaxations.is_empty() {
            return writeln!(f, "No change of its own terms, of hours or of other work would suffice.");
        }
        writeln!(f, "What would suffice, the cheapest plan first:")?;
        for Relaxation { changes, outcome } in &self.relaxations {
            let told: Vec<String> = changes.iter().map(|change| told(change, clock)).collect();
            writeln!(f, "  {}: it would {}.", told.join(" and "), clock.ends(outcome))?;
        }
        Ok(())
    }
}

impl Constraint {
    /// What it is called in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Constraint::Freeze => "what is frozen of it",
            Constraint::Deadline => "its deadline",
            Constraint::Budget => "its budget",
            Constraint::Release => "its release",
            Constraint::Earliest => "the notice that machines ask for",
            Constraint::Pausing => "the rule that it may not pause",
            Constraint::Calendar => "the machines' hours",
            Constraint::Setup => "changeovers",
            Constraint::Transport => "transport",
            Constraint::Resources => "what it needs besides machines",
            Constraint::OptionalWork => "other work that is not promised",
            Constraint::Capacity => "other work, promised work included",
        }
    }
}

fn op_lines(
    f: &mut Formatter<'_>,
    clock: Clock,
    op: &OpExplained,
    (number, of): (usize, usize),
    verdict: Verdict,
) -> Result {
    let machines = counted(op.modes.len(), "machine");
    write!(f, "Operation {number} of {of}: {machines} may do it")?;
    let mut reasons: Vec<Exclusion> = op.modes.iter().filter_map(|mode| mode.excluded).collect();
    reasons.sort_unstable();
    let mut parts = Vec::new();
    for group in reasons.chunk_by(|a, b| a == b) {
        parts.push(format!("{} {}", group.len(), excluded(group[0], group.len() == 1)));
    }
    let usable = op.modes.len() - reasons.len();
    let (when, parts) =
        (if matches!(verdict, Verdict::Late { .. }) { "to be in time, " } else { "" }, parts.join(", "));
    match (parts.is_empty(), usable) {
        (true, _) => writeln!(f, ", none ruled out.")?,
        (false, 0) => writeln!(f, "; {when}{parts}; none is left.")?,
        (false, _) => writeln!(f, "; {when}{parts}; {usable} left.")?,
    }
    match &op.place {
        Some(place) => place_line(f, clock, place, matches!(verdict, Verdict::LeftOut { .. })),
        None => Ok(()),
    }
}

fn place_line(f: &mut Formatter<'_>, clock: Clock, place: &Place, left_out: bool) -> Result {
    let verb = if left_out { "would run" } else { "runs" };
    let (machine, start, end) = (&place.machine, clock.at(place.start), clock.at(place.end));
    write!(f, "  It {verb} on {machine} from {start} to {end}")?;
    let w = &place.wait;
    let causes = [
        (w.travel, "on its way"),
        (w.not_before, "until the machine takes it"),
        (w.occupied, "while the machine does other work"),
        (w.closed, "while the machine is closed"),
        (w.too_short, "while the machine is free, too briefly"),
        (w.lacking, "while something else that it needs is taken or away"),
        (w.unused, "while the machine could have begun"),
        (w.changeover, "of changeover"),
    ];
    let told = causes.into_iter().filter(|cause| cause.0 > 0);
    let told: Vec<String> = told.map(|(time, cause)| format!("{} {cause}", clock.span(time))).collect();
    match told.is_empty() {
        true => writeln!(f, ", without a wait."),
        false => writeln!(f, "; before its work {} go by: {}.", clock.span(w.total()), told.join(", ")),
    }
}

fn excluded(why: Exclusion, one: bool) -> &'static str {
    match (why, one) {
        (Exclusion::Frozen, _) => "ruled out because it is frozen",
        (Exclusion::NoWindow, true) => "has no open window that is long enough",
        (Exclusion::NoWindow, false) => "have no open window that is long enough",
        (Exclusion::OverBudget, true) => "is beyond the budget",
        (Exclusion::OverBudget, false) => "are beyond the budget",
        (Exclusion::NotReached, _) => "never reached, as no machine is left for the operation before",
        (Exclusion::NotBefore, true) => "takes it only when it is too late",
        (Exclusion::NotBefore, false) => "take it only when it is too late",
        (Exclusion::TooLate, true) => "would be done too late, even with nothing else to do",
        (Exclusion::TooLate, false) => "would be done too late, even with nothing else to do",
        (Exclusion::Lacking, _) => "without what else it needs in time",
        (Exclusion::Taken, true) => "is taken by other work",
        (Exclusion::Taken, false) => "are taken by other work",
    }
}

fn without(constraint: Constraint) -> &'static str {
    match constraint {
        Constraint::Freeze => "Were none of it frozen",
        Constraint::Deadline => "Without a deadline",
        Constraint::Budget => "Without a budget",
        Constraint::Release => "Could it begin at once",
        Constraint::Earliest => "Did machines ask for no notice",
        Constraint::Pausing => "Could it pause while machines are closed",
        Constraint::Calendar => "Were machines never closed",
        Constraint::Setup => "Without changeovers",
        Constraint::Transport => "Did parts travel in no time",
        Constraint::Resources => "Did it need nothing but machines",
        Constraint::OptionalWork => "With only promised work beside it",
        Constraint::Capacity => "With no other work beside it",
    }
}

fn told(change: &Change, clock: Clock) -> String {
    match change {
        Change::DeadlineLater(by) => format!("a deadline {} later", clock.span(*by)),
        Change::BudgetMore(by) => format!("a budget {} higher", Money(*by)),
        Change::ReleaseEarlier(by) => format!("a release {} earlier", clock.span(*by)),
        Change::MachinesEarlier(by) => format!("machines that take it {} earlier", clock.span(*by)),
        Change::MayPause(ops) => {
            let numbers: Vec<String> = ops.iter().map(|k| (k + 1).to_string()).collect();
            let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
            let noun = if ops.len() == 1 { "operation" } else { "operations" };
            format!("{noun} {} pausing while the machine is closed", listed(&numbers, "and"))
        }
        Change::Thaw => "its frozen operations free to move".into(),
        Change::Overtime(spans) => {
            let span = |s: &super::Overtime| {
                format!("{} open from {} to {}", s.name, clock.at(s.from), clock.at(s.until))
            };
            spans.iter().map(span).collect::<Vec<_>>().join(" and ")
        }
        Change::OthersGiveWay { jobs, promised: 0 } => {
            format!("{} giving way, none of them promised", counted(*jobs, "other job"))
        }
        Change::OthersGiveWay { jobs, promised } => {
            format!("{} giving way, {promised} of them promised", counted(*jobs, "other job"))
        }
        Change::WorthMore(by) => format!("leaving it out costing {} more", Money(*by)),
    }
}

fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

pub(crate) fn listed(items: &[&str], last: &str) -> String {
    match items {
        [] => String::new(),
        [one] => (*one).into(),
        [most @ .., end] => format!("{} {last} {end}", most.join(", ")),
    }
}

/// Fen, as people write it.
pub(crate) struct Money(pub(crate) Fen);

impl Money {
    /// The yuan without the currency.
    pub(crate) fn number(&self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        format!("{sign}{}.{:02}", self.0.abs() / 100, self.0.abs() % 100)
    }
}

impl Display for Money {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} CNY", self.number())
    }
}

/// Turns ticks into times of day.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) tick_seconds: i64,
}

pub(crate) const DAY: i64 = 86_400;

impl Clock {
    /// A point in time, the first day being day 1.
    pub(crate) fn at(self, tick: Tick) -> String {
        let s = tick * self.tick_seconds;
        let (day, h, min) = (s / DAY + 1, s % DAY / 3600, s % 3600 / 60);
        match s % 60 {
            0 => format!("day {day}, {h:02}:{min:02}"),
            s => format!("day {day}, {h:02}:{min:02}:{s:02}"),
        }
    }

    /// A length of time.
    pub(crate) fn span(self, ticks: Tick) -> String {
        let s = ticks * self.tick_seconds;
        let units = [(s / DAY, "d"), (s % DAY / 3600, "h"), (s % 3600 / 60, "min"), (s % 60, "s")];
        let told: Vec<String> =
            units.iter().filter(|unit| unit.0 > 0).map(|(n, unit)| format!("{n} {unit}")).collect();
        if told.is_empty() { "no time".into() } else { told.join(" ") }
    }

    fn ends(self, outcome: &Outcome) -> String {
        format!("end on {} for {}", self.at(outcome.completion), Money(outcome.cost))
    }
}
