//! What stands on each machine, what of the resources it takes, and the one rule of editing it.
//!
//! An occupation's setup depends on the family before it, so whatever is put in front of it or taken
//! away changes it. The rule: a follower keeps its start, its setup and end are computed anew, and
//! an edit is admissible only where its end does not grow. Nothing downstream ever has to move.

use crate::resource::{Span, Usage};
use crate::{Assignment, Instance, Job, Placement, Plan, Shop, Tick};

/// Names an operation: the job's index (or the caller's handle for it) and the operation's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The job.
    pub job: u32,
    /// The operation.
    pub op: u32,
}

/// An operation's stay on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupation {
    /// When it begins, setup first.
    pub start: Tick,
    /// When it is done.
    pub end: Tick,
    /// Open ticks of setup.
    pub setup: Tick,
    /// Open ticks of work after the setup.
    pub work: Tick,
    /// Its setup family.
    pub family: u32,
    /// Whose it is.
    pub key: Key,
    /// Whether it may pause while the machine is closed.
    pub splittable: bool,
    /// Whether it is frozen.
    pub fixed: bool,
    /// Which of [`Shop::needs`] it has.
    pub needs: u32,
}

impl Occupation {
    pub(crate) fn span(&self, machine: usize) -> Span {
        Span {
            machine,
            needs: self.needs as usize,
            setup: self.setup,
            work: self.work,
            splittable: self.splittable,
        }
    }
}

/// Why an edit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It would overlap another occupation.
    #[error("operation {op} of job {job} stands in the way on machine {machine}", job = .by.job, op = .by.op)]
    Overlaps {
        /// The machine.
        machine: usize,
        /// What is in the way.
        by: Key,
    },
    /// It cannot start there: the machine is closed, or closes too early.
    #[error("machine {machine} is not open for it from {start}")]
    Closed {
        /// The machine.
        machine: usize,
        /// The start asked for.
        start: Tick,
    },
    /// The follower would end later.
    #[error("operation {op} of job {job} behind it on machine {machine} would end later", job = .follower.job, op = .follower.op)]
    Delays {
        /// The machine.
        machine: usize,
        /// What would end later.
        follower: Key,
    },
    /// A resource that it needs is taken, or away.
    #[error("operation {op} of job {job} lacks a resource on machine {machine}", job = .key.job, op = .key.op)]
    Lacks {
        /// The machine.
        machine: usize,
        /// What lacks it.
        key: Key,
    },
    /// It is not there.
    #[error("operation {op} of job {job} is not on machine {machine}", job = .key.job, op = .key.op)]
    Absent {
        /// The machine.
        machine: usize,
        /// What was looked for.
        key: Key,
    },
}

/// The live plan's occupations, machine by machine, each list sorted by start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    lines: Vec<Vec<Occupation>>,
    usage: Usage,
}

impl Lines {
    /// Empty lines for every machine of the shop.
    pub fn new(shop: &Shop) -> Lines {
        Lines { lines: vec![Vec::new(); shop.machines.len()], usage: Usage::new(shop) }
    }

    /// The lines of a plan that keeps the rules; the job index of an assignment becomes its handle.
    pub fn from_plan(instance: &Instance, plan: &Plan) -> Result<Lines, Refusal> {
        let mut lines = Lines::new(&instance.shop);
        for a in &plan.assignments {
            let occupation = raw_occupation(&instance.jobs[a.job], a);
            lines.lines[a.machine].push(occupation);
        }
        for m in 0..lines.lines.len() {
            lines.lines[m].sort_by_key(|o| (o.start, o.end));
            for at in 0..lines.lines[m].len() {
                lines.lines[m][at] = lines.refreshed(&instance.shop, m, at)?;
                lines.stands_clear(m, at)?;
                lines.hold_if_free(&instance.shop, m, at)?;
            }
        }
        Ok(lines)
    }

    /// What stands on a machine.
    pub fn on(&self, machine: usize) -> &[Occupation] {
        &self.lines[machine]
    }

    /// What stands first on a machine between two times.
    pub(crate) fn first_within(&self, (machine, from, until): (usize, Tick, Tick)) -> Option<&Occupation> {
        let line = &self.lines[machine];
        line.get(line.partition_point(|o| o.end <= from)).filter(|o| o.start < until)
    }

    /// Replaces what stands on a machine. The caller answers for it: sorted by start, every setup and
    /// end as the rule has them, and a unit there of all that it needs.
    pub fn set(&mut self, shop: &Shop, machine: usize, line: Vec<Occupation>) {
        self.edit(shop, machine, |was| *was = line);
    }

    /// Number of machines.
    pub fn machines(&self) -> usize {
        self.lines.len()
    }

    /// Puts a job's whole chain in, or nothing. Returns the followers whose setup changed (their
    /// starts stand, their ends may have come earlier), each with its machine.
    pub fn insert(
        &mut self,
        shop: &Shop,
        handle: u32,
        job: &Job,
        placement: &Placement,
    ) -> Result<Vec<(usize, Occupation)>, Refusal> {
        let before = self.snapshot(shop, placement.steps.iter().map(|s| s.machine));
        for (k, step) in placement.steps.iter().enumerate() {
            let (op, machine) = (&job.ops[k], step.machine);
            let occupation = Occupation {
                start: step.start,
                end: step.end,
                setup: 0,
                work: op.mode_on(machine).map_or(0, |mode| mode.duration),
                family: op.family as u32,
                key: Key { job: handle, op: k as u32 },
                splittable: op.splittable,
                fixed: op.fixed.is_some(),
                needs: op.needs as u32,
            };
            let at = self.lines[machine].partition_point(|o| (o.start, o.end) < (step.start, step.end));
            self.lines[machine].insert(at, occupation);
        }
        self.settle(shop, &before, Some(handle))
    }

    /// Takes a job's occupations off the machines named, or nothing. Returns the followers whose
    /// setup changed. Fails where a follower would end later for want of the setup that the job left
    /// behind it.
    pub fn remove(
        &mut self,
        shop: &Shop,
        handle: u32,
        machines: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<(usize, Occupation)>, Refusal> {
        let before = self.snapshot(shop, machines);
        for (m, _) in &before.0 {
            self.lines[*m].retain(|o| o.key.job != handle);
        }
        self.settle(shop, &before, None)
    }

    /// The machines named as they are, and the usage; what stands on them takes no resource any more.
    fn snapshot(&mut self, shop: &Shop, machines: impl IntoIterator<Item = usize>) -> Before {
        let mut touched: Vec<usize> = machines.into_iter().collect();
        touched.sort_unstable();
        touched.dedup();
        let usage = self.usage.clone();
        touched.iter().for_each(|&m| self.clear_usage(shop, m));
        (touched.into_iter().map(|m| (m, self.lines[m].clone())).collect(), usage)
    }

    fn clear_usage(&mut self, shop: &Shop, machine: usize) {
        (0..self.lines[machine].len()).for_each(|at| self.release(shop, machine, at));
    }

    /// Recomputes the machines in `before`; puts them back as they were where a rule is broken.
    fn settle(
        &mut self,
        shop: &Shop,
        (before, usage): &Before,
        new: Option<u32>,
    ) -> Result<Vec<(usize, Occupation)>, Refusal> {
        let mut changed = Vec::new();
        for (m, old) in before {
            if let Err(refusal) = self.settle_machine(shop, *m, old, new, &mut changed) {
                for (m, old) in before {
                    self.lines[*m].clone_from(old);
                }
                self.usage.clone_from(usage);
                return Err(refusal);
            }
        }
        Ok(changed)
    }

    fn settle_machine(
        &mut self,
        shop: &Shop,
        m: usize,
        old: &[Occupation],
        new: Option<u32>,
        changed: &mut Vec<(usize, Occupation)>,
    ) -> Result<(), Refusal> {
        let mut olds = old.iter().peekable();
        for at in 0..self.lines[m].len() {
            let (key, fresh) = (self.lines[m][at].key, self.refreshed(shop, m, at)?);
            self.lines[m][at] = fresh;
            self.stands_clear(m, at)?;
            self.hold_if_free(shop, m, at)?;
            if Some(key.job) == new {
                continue;
            }
            while olds.peek().is_some_and(|o| o.key != key) {
                olds.next();
            }
            if let Some(was) = olds.next().filter(|was| **was != fresh) {
                if fresh.end > was.end {
                    return Err(Refusal::Delays { machine: m, follower: key });
                }
                changed.push((m, fresh));
            }
        }
        Ok(())
    }

    fn stands_clear(&self, m: usize, at: usize) -> Result<(), Refusal> {
        match at.checked_sub(1).map(|i| self.lines[m][i]) {
            Some(before) if before.end > self.lines[m][at].start => {
                Err(Refusal::Overlaps { machine: m, by: before.key })
            }
            _ => Ok(()),
        }
    }

    /// The occupation at a position with its setup and end as the rule has them.
    pub(crate) fn refreshed(&self, shop: &Shop, m: usize, at: usize) -> Result<Occupation, Refusal> {
        let line = &self.lines[m];
        let mut o = line[at];
        let before = at.checked_sub(1).map(|i| line[i].family as usize);
        o.setup = shop.setup_ticks(m, before, o.family as usize);
        let calendar = &shop.machines[m].calendar;
        o.end = calendar
            .finish(o.start, o.setup + o.work, o.splittable)
            .ok_or(Refusal::Closed { machine: m, start: o.start })?;
        Ok(o)
    }

    /// Puts an occupation at a position of a machine's line. The caller answers for it, as in [`Lines::set`].
    pub(crate) fn put(&mut self, shop: &Shop, machine: usize, at: usize, occupation: Occupation) {
        self.lines[machine].insert(at, occupation);
        self.hold(shop, machine, at);
    }

    /// Takes the occupation at a position off.
    pub(crate) fn take(&mut self, shop: &Shop, machine: usize, at: usize) -> Occupation {
        self.release(shop, machine, at);
        self.lines[machine].remove(at)
    }

    /// Writes the occupation at a position anew.
    pub(crate) fn write(&mut self, shop: &Shop, machine: usize, at: usize, occupation: Occupation) {
        self.release(shop, machine, at);
        self.lines[machine][at] = occupation;
        self.hold(shop, machine, at);
    }

    /// Changes a machine's line as a whole.
    pub(crate) fn edit(&mut self, shop: &Shop, machine: usize, change: impl FnOnce(&mut Vec<Occupation>)) {
        self.clear_usage(shop, machine);
        change(&mut self.lines[machine]);
        (0..self.lines[machine].len()).for_each(|at| self.hold(shop, machine, at));
    }

    /// A machine's line for whoever sees to the resources: what is put there takes none yet.
    pub(crate) fn unheld_mut(&mut self, machine: usize) -> &mut Vec<Occupation> {
        &mut self.lines[machine]
    }

    /// Has the occupation at a position take its resources, if a unit of each is free.
    pub(crate) fn hold_if_free(&mut self, shop: &Shop, machine: usize, at: usize) -> Result<(), Refusal> {
        let o = self.lines[machine][at];
        if o.needs != 0 && self.usage.obstacle(shop, &o.span(machine), (o.start, o.end)).is_some() {
            return Err(Refusal::Lacks { machine, key: o.key });
        }
        self.hold(shop, machine, at);
        Ok(())
    }

    /// Has the occupation at a position take its resources.
    pub(crate) fn hold(&mut self, shop: &Shop, machine: usize, at: usize) {
        let o = self.lines[machine][at];
        if o.needs != 0 {
            self.usage.take(shop, &o.span(machine), (o.start, o.end));
        }
    }

    /// Has it give them back.
    pub(crate) fn release(&mut self, shop: &Shop, machine: usize, at: usize) {
        let o = self.lines[machine][at];
        if o.needs != 0 {
            self.usage.give_back(shop, &o.span(machine), (o.start, o.end));
        }
    }

    /// What is taken of the resources.
    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }
}

/// Lines as they were, by machine, and the usage.
type Before = (Vec<(usize, Vec<Occupation>)>, Usage);

/// An assignment's occupation, its setup not yet computed.
pub(crate) fn raw_occupation(job: &Job, a: &Assignment) -> Occupation {
    let op = &job.ops[a.op];
    Occupation {
        start: a.start,
        end: a.end,
        setup: 0,
        work: op.mode_on(a.machine).map_or(0, |mode| mode.duration),
        family: op.family as u32,
        key: Key { job: a.job as u32, op: a.op as u32 },
        splittable: op.splittable,
        fixed: op.fixed.is_some(),
        needs: op.needs as u32,
    }
}
