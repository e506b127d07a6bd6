//! What of a hint does not hold, by name, and what repairing it comes to.

use millpool_solver::{Instance, Objective, Plan, Progress, Violation, verify};

use super::log::grouped;

/// Breaches that are told one by one.
const TOLD_MAX: usize = 8;

/// A hint and the rules that it breaks.
pub(crate) struct Hint {
    breaches: Vec<Violation>,
    claimed: Option<i64>,
    objective: Objective,
    told: bool,
}

impl Hint {
    pub(crate) fn new(instance: &Instance, plan: &Plan) -> Hint {
        // What a hint says of its own cost and bound is not believed, and so breaks nothing.
        let plain = Plan { objective: None, bound: None, ..plan.clone() };
        let breaches = verify(instance, &plain).err().unwrap_or_default();
        Hint { breaches, claimed: plan.objective, objective: instance.objective, told: false }
    }

    /// Lines that name what does not hold, if anything.
    pub(crate) fn faults(&self) -> Vec<String> {
        if self.breaches.is_empty() {
            return Vec::new();
        }
        let count = self.breaches.len();
        let places =
            if count == 1 { "one place".to_owned() } else { format!("{} places", grouped(count as i64)) };
        let mut lines = vec![format!("the hint breaks the rules in {places} and is repaired:")];
        lines.extend(self.breaches.iter().take(TOLD_MAX).map(|breach| format!("  {breach}")));
        if count > TOLD_MAX {
            lines.push(format!("  and {} more", grouped((count - TOLD_MAX) as i64)));
        }
        lines
    }

    /// What the plan costs that the search begins with, once; nothing where the hint holds as it is.
    pub(crate) fn start(&mut self, p: &Progress) -> Option<String> {
        if std::mem::replace(&mut self.told, true) || self.breaches.is_empty() {
            return None;
        }
        let what = match self.objective.is_makespan() {
            false => "costs",
            true => "has a makespan of",
        };
        let mut line = format!("repaired, it {what} {}", grouped(p.cost));
        if let Some(claimed) = self.claimed {
            let more = p.cost.saturating_sub(claimed);
            let than = if more < 0 { "less" } else { "more" };
            let by = grouped(more.saturating_abs());
            line += &match more {
                0 => ", as it claims".to_owned(),
                _ => format!(", {by} {than} than the {} that it claims", grouped(claimed)),
            };
        }
        if p.missing > 0 {
            line += &format!("; {} promised jobs have no place in it yet", p.missing);
        }
        Some(line)
    }
}
