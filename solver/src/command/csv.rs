//! A plan as a table for spreadsheets, as RFC 4180 has it: a row an operation, and one for each rejected job.

use millpool_solver::{Assignment, Instance, Plan, Tick};

const HEAD: [&str; 16] = [
    "job",
    "op",
    "status",
    "machine",
    "place",
    "class",
    "plant",
    "family",
    "start_tick",
    "end_tick",
    "setup_ticks",
    "start_minute",
    "end_minute",
    "setup_minutes",
    "due_tick",
    "ticks_late",
];

/// Writes a plan that keeps the rules.
pub(crate) fn write(instance: &Instance, plan: &Plan) -> String {
    let mut text = String::new();
    row(&mut text, &HEAD.map(str::to_owned));
    let mut ends = vec![0; instance.jobs.len()];
    plan.assignments.iter().for_each(|a| ends[a.job] = ends[a.job].max(a.end));
    for (a, setup) in plan.assignments.iter().zip(setups(instance, plan)) {
        row(&mut text, &cells(instance, a, setup, ends[a.job]));
    }
    for &j in &plan.rejected {
        let job = &instance.jobs[j];
        let mut cells = HEAD.map(|_| String::new());
        (cells[0], cells[2], cells[14]) = (job.id.clone(), "rejected".into(), job.due.to_string());
        row(&mut text, &cells);
    }
    text
}

fn cells(instance: &Instance, a: &Assignment, setup: Tick, done: Tick) -> [String; HEAD.len()] {
    let (job, machine) = (&instance.jobs[a.job], &instance.shop.machines[a.machine]);
    let late = match instance.objective.is_makespan() {
        false => (done - job.due).max(0),
        true => 0,
    };
    let minutes = |ticks: Tick| minutes(ticks * instance.tick_seconds);
    [
        job.id.clone(),
        a.op.to_string(),
        if late > 0 { "late" } else { "planned" }.into(),
        machine.id.clone(),
        machine.place.map_or(String::new(), |place| place.to_string()),
        machine.class.clone(),
        instance.shop.plants[machine.plant].clone(),
        job.ops[a.op].family.to_string(),
        a.start.to_string(),
        a.end.to_string(),
        setup.to_string(),
        minutes(a.start),
        minutes(a.end),
        minutes(setup),
        job.due.to_string(),
        late.to_string(),
    ]
}

/// Whole minutes as they are, others to the hundredth.
fn minutes(seconds: i64) -> String {
    match seconds % 60 {
        0 => (seconds / 60).to_string(),
        _ => format!("{:.2}", seconds as f64 / 60.0),
    }
}

/// The setup that each assignment begins with.
fn setups(instance: &Instance, plan: &Plan) -> Vec<Tick> {
    let mut order: Vec<usize> = (0..plan.assignments.len()).collect();
    order.sort_by_key(|&i| (plan.assignments[i].machine, plan.assignments[i].start));
    let mut setups = vec![0; order.len()];
    let mut before = None;
    for i in order {
        let a = &plan.assignments[i];
        let here = before.filter(|b: &(usize, usize)| b.0 == a.machine).map(|b| b.1);
        let family = instance.jobs[a.job].ops[a.op].family;
        setups[i] = instance.shop.setup_ticks(a.machine, here, family);
        before = Some((a.machine, family));
    }
    setups
}

fn row(text: &mut String, cells: &[String]) {
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        if cell.contains([',', '"', '\r', '\n']) {
            text.push_str(&format!("\"{}\"", cell.replace('"', "\"\"")));
        } else {
            text.push_str(cell);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_would_break_a_row_is_quoted() {
        let mut text = String::new();
        super::row(&mut text, &["a".into(), "b,c".into(), "d \"e\"".into(), "f\ng".into(), String::new()]);
        assert_eq!(text, "a,\"b,c\",\"d \"\"e\"\"\",\"f\ng\",\r\n");
    }

    #[test]
    fn minutes_are_whole_where_they_can_be() {
        assert_eq!([3600, 90, 1].map(super::minutes), ["60", "1.50", "0.02"]);
    }
}
