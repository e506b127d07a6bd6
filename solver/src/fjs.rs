//! The text format of the public flexible job shops.

use crate::{
    Calendar, Instance, Job, Machine, Malformed, Mode, Objective, Op, SetupMatrix, Shop, TICK_MAX, Tick,
};

/// The numbers of an `.fjs` file, each with its line.
struct Numbers<'a> {
    tokens: Vec<(usize, &'a str)>,
    at: usize,
}

impl<'a> Numbers<'a> {
    fn of(text: &'a str) -> Numbers<'a> {
        let lines = text.lines().enumerate();
        let tokens = lines.flat_map(|(i, line)| line.split_whitespace().map(move |t| (i + 1, t))).collect();
        Numbers { tokens, at: 0 }
    }

    fn token(&mut self, what: &str) -> Result<(usize, &'a str), Malformed> {
        let Some(&token) = self.tokens.get(self.at) else {
            let line = self.tokens.last().map_or(1, |t| t.0);
            return Err(Malformed::new(
                format!("line {line}"),
                format!("the file ends where {what} should be"),
            ));
        };
        self.at += 1;
        Ok(token)
    }

    fn next(&mut self, what: &str, least: i64, most: i64) -> Result<i64, Malformed> {
        let (line, text) = self.token(what)?;
        match text.parse::<i64>() {
            Ok(x) if (least..=most).contains(&x) => Ok(x),
            Ok(x) => {
                let reason = format!("{what} is {x}, allowed are {least} to {most}");
                Err(Malformed::new(format!("line {line}"), reason))
            }
            Err(_) => {
                Err(Malformed::new(format!("line {line}"), format!("{what} is \"{text}\", not a number")))
            }
        }
    }
}

/// Reads the flexible job shop's text format: jobs, machines and average flexibility, then a line a
/// job. The makespan is the objective; jobs and machines are named by the file's numbers, from 1.
pub fn read_fjs(name: &str, text: &str) -> Result<Instance, Malformed> {
    let mut numbers = Numbers::of(text);
    let job_count = numbers.next("the number of jobs", 1, 1 << 20)?;
    let machine_count = numbers.next("the number of machines", 1, 1 << 20)? as usize;
    let first_line = numbers.tokens[0].0;
    if numbers.tokens.get(numbers.at).is_some_and(|t| t.0 == first_line) {
        numbers.token("the average flexibility")?;
    }
    let mut jobs = Vec::new();
    for j in 1..=job_count {
        let ops = read_fjs_job(&mut numbers, j, machine_count)?;
        jobs.push(Job { id: j.to_string(), ops, ..Job::default() });
    }
    if let Some(&(line, text)) = numbers.tokens.get(numbers.at) {
        return Err(Malformed::new(format!("line {line}"), format!("\"{text}\" stands after the last job")));
    }
    let longest = |op: &Op| op.modes.iter().map(|m| m.duration).max().unwrap_or(0);
    let horizon: Tick = jobs.iter().flat_map(|job| &job.ops).map(longest).sum();
    let calendar = Calendar::always(horizon);
    let machine =
        |i: usize| Machine { id: (i + 1).to_string(), calendar: calendar.clone(), ..Machine::default() };
    let instance = Instance {
        name: name.to_owned(),
        tick_seconds: 60,
        horizon,
        objective: Objective::MAKESPAN,
        shop: Shop {
            plants: vec!["shop".to_owned()],
            transport: vec![vec![0]],
            transport_cost: vec![vec![0]],
            setups: vec![SetupMatrix::new(&[vec![0]]).map_err(|e| Malformed::new("setup", e))?],
            machines: (0..machine_count).map(machine).collect(),
            ..Shop::default()
        },
        jobs,
    };
    instance.check()?;
    Ok(instance)
}

fn read_fjs_job(numbers: &mut Numbers<'_>, job: i64, machine_count: usize) -> Result<Vec<Op>, Malformed> {
    let op_count = numbers.next(&format!("job {job}'s number of operations"), 1, 65_535)?;
    let mut ops = Vec::new();
    for k in 1..=op_count {
        let what = format!("operation {k} of job {job}");
        let mode_count = numbers.next(&format!("{what}: the number of machines"), 1, machine_count as i64)?;
        let mut modes = Vec::new();
        for _ in 0..mode_count {
            let machine = numbers.next(&format!("{what}: a machine"), 1, machine_count as i64)? as usize - 1;
            let duration = numbers.next(&format!("{what}: a duration"), 1, TICK_MAX >> 20)?;
            modes.push(Mode { machine, duration, ..Mode::default() });
        }
        ops.push(Op { modes, ..Op::default() });
    }
    Ok(ops)
}
