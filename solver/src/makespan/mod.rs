//! The makespan: the flexible job shop, with machines that are always open.
//!
//! Each thread searches by itself (`tabu`) from one start after another. The first starts are dispatched, each
//! later one lies between two schedules of the elite that all threads share (`elite`): path relinking. A lower
//! bound is proven beside, from the assignment alone (`bound`) and, where that is small, with every tick told
//! apart (`indexed`); where it meets the makespan, the search is over.

mod bound;
mod elite;
mod indexed;
mod schedule;
mod tabu;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::random::Random;
use crate::run::MASTER_POLL;
use crate::solve::lower_priority;
use crate::{Instance, Options, Prices, Progress, Solution, SolveError, Tick, verify};
use elite::Elite;
use schedule::{Graph, Schedule};
use tabu::Tabu;

/// Moves between two looks at the clock.
const MOVES_PER_LOOK: u64 = 16;
/// Moves without a new best until a search begins from another start.
const PATIENCE: u64 = 2000;
/// The share of the time that proving may take: of one thread's, or of the second's.
const PROOF_SHARE: f64 = 0.5;
const PROOF_SHARE_ALONE: f64 = 0.25;

/// Searches and proves within the options' limits.
pub(crate) fn solve(
    instance: &Instance,
    options: &Options,
    started: Instant,
    progress: impl FnMut(Progress),
) -> Result<Solution, SolveError> {
    let graph = Graph::new(instance);
    let given = options.incumbent.as_ref().map(|plan| Schedule::like(&graph, plan));
    let at = |share: f64| started + options.time_limit.mul_f64(share);
    let hunt = Hunt {
        graph: &graph,
        elite: Elite::default(),
        first: Mutex::new(given),
        proof: Proof::new(instance, options),
        moves: AtomicU64::new(0),
        limit: options.iterations.unwrap_or(u64::MAX),
        until: at(1.0),
        seed: options.seed,
    };
    let start = if options.incumbent.is_some() { "incumbent" } else { "dispatch" };
    let mut reporter = Reporter { hunt: &hunt, started, start, shown: None, progress };
    let mut first = Searcher::new(&hunt, 0);
    if options.iterations.is_some() {
        first.search(hunt.until, || reporter.look());
        hunt.proof.start(hunt.elite.best(), hunt.until).wait();
    } else if options.threads >= 2 {
        // A little search first gives the proof a makespan to aim below.
        first.search(at(0.03), || reporter.look());
        let proof = hunt.proof.start(hunt.elite.best(), at(PROOF_SHARE));
        std::thread::scope(|scope| {
            for number in 1..options.threads as u64 {
                let (hunt, proof) = (&hunt, (number == 1).then_some(&proof));
                scope.spawn(move || {
                    lower_priority(options);
                    proof.into_iter().for_each(UnderWay::wait);
                    Searcher::new(hunt, number).search(hunt.until, || ());
                });
            }
            first.search(hunt.until, || reporter.look());
            hunt.proof.stop();
        });
    } else {
        first.search(at(0.1), || reporter.look());
        hunt.proof.start(hunt.elite.best(), at(PROOF_SHARE_ALONE)).wait();
        first.search(hunt.until, || reporter.look());
    }
    hunt.proof.stop();
    reporter.look();
    let bound = hunt.proof.bound();
    let mut plan = hunt.elite.best_plan(&graph);
    plan.bound = Some(bound);
    let priced = verify(instance, &plan).map_err(|v| SolveError::Broken(v[0].to_string()))?;
    let (cost, elapsed, iterations) =
        (priced.makespan, started.elapsed(), hunt.moves.load(Ordering::Relaxed));
    let prices = Prices::default();
    Ok(Solution { plan, priced, cost, bound, prices, found_by: "tabu", iterations, moved: 0, elapsed })
}

/// One move a call, from a dispatched start.
pub(crate) fn moves(instance: &Instance) -> impl FnMut() + use<> {
    let graph = Graph::new(instance);
    let mut random = Random::new(1);
    let start = Schedule::dispatch(&graph, &mut random, 0.0);
    let mut tabu = Tabu::new(&graph, start, random);
    move || {
        tabu.step(&graph);
    }
}

/// What all threads of a solve share.
struct Hunt<'a> {
    graph: &'a Graph,
    elite: Elite,
    /// Where the first search begins, if that is given.
    first: Mutex<Option<Schedule>>,
    proof: Proof,
    /// Made by all threads.
    moves: AtomicU64,
    limit: u64,
    until: Instant,
    seed: u64,
}

impl Hunt<'_> {
    fn is_over(&self, until: Instant) -> bool {
        self.proof.is_cancelled()
            || self.elite.best() <= self.proof.bound()
            || self.moves.load(Ordering::Relaxed) >= self.limit
            || Instant::now() >= until
    }
}

/// One thread's search.
struct Searcher<'a> {
    hunt: &'a Hunt<'a>,
    random: Random,
    tabu: Option<Tabu>,
    /// Its moves that all threads' count has.
    counted: u64,
}

impl<'a> Searcher<'a> {
    fn new(hunt: &'a Hunt<'a>, number: u64) -> Searcher<'a> {
        Searcher { hunt, random: Random::new(hunt.seed ^ (number << 32)), tabu: None, counted: 0 }
    }

    /// From one start to the next, until the time or the moves are up, or nothing shorter can be.
    fn search(&mut self, until: Instant, mut look: impl FnMut()) {
        let Hunt { graph, elite, moves, first, .. } = self.hunt;
        let mut tabu = self.tabu.take().unwrap_or_else(|| {
            let given = first.lock().ok().and_then(|mut first| first.take());
            let start = given.unwrap_or_else(|| elite.start(graph, &mut self.random));
            Tabu::new(graph, start, Random::new(self.random.next()))
        });
        elite.offer(graph, &tabu.best);
        loop {
            if tabu.moves.is_multiple_of(MOVES_PER_LOOK) {
                moves.fetch_add(tabu.moves - self.counted, Ordering::Relaxed);
                self.counted = tabu.moves;
                look();
                if self.hunt.is_over(until) {
                    break;
                }
            }
            if tabu.step(graph) {
                elite.met(&tabu.best);
            } else if tabu.moves - tabu.best_at > PATIENCE {
                elite.offer(graph, &tabu.best);
                tabu.begin(elite.start(graph, &mut self.random));
                elite.met(&tabu.best);
            }
        }
        self.tabu = Some(tabu);
    }
}

/// Tells of each shorter makespan and better bound.
struct Reporter<'a, P> {
    hunt: &'a Hunt<'a>,
    started: Instant,
    /// What the first schedule comes from.
    start: &'static str,
    shown: Option<(Tick, Tick)>,
    progress: P,
}

impl<P: FnMut(Progress)> Reporter<'_, P> {
    fn look(&mut self) {
        let (cost, bound) = (self.hunt.elite.best(), self.hunt.proof.bound());
        if cost == Tick::MAX || self.shown == Some((cost, bound)) {
            return;
        }
        let found_by = if self.shown.is_some() { "tabu" } else { self.start };
        self.shown = Some((cost, bound));
        let (elapsed, iterations) = (self.started.elapsed(), self.hunt.moves.load(Ordering::Relaxed));
        (self.progress)(Progress { elapsed, cost, missing: 0, bound, iterations, found_by });
    }
}

/// A makespan's bound, proven on a thread of its own. HiGHS cannot be interrupted, so the thread is
/// left to its own time limit when nobody wants its answer any more.
struct Proof {
    instance: Arc<Instance>,
    options: Options,
    bound: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
}

/// A proof under way.
struct UnderWay<'a> {
    proof: &'a Proof,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Proof {
    fn new(instance: &Instance, options: &Options) -> Proof {
        Proof {
            instance: Arc::new(instance.clone()),
            options: options.clone(),
            bound: Arc::new(AtomicI64::new(bound::plain(instance))),
            stop: Arc::default(),
        }
    }

    fn bound(&self) -> Tick {
        self.bound.load(Ordering::Relaxed)
    }

    fn is_cancelled(&self) -> bool {
        self.options.cancel.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn start(&self, incumbent: Tick, until: Instant) -> UnderWay<'_> {
        let (instance, options) = (self.instance.clone(), self.options.clone());
        let (bound, stop) = (self.bound.clone(), self.stop.clone());
        let thread = std::thread::spawn(move || {
            lower_priority(&options);
            let report = |proven| {
                bound.fetch_max(proven, Ordering::Relaxed);
                stop.load(Ordering::Relaxed) || options.cancel.load(Ordering::Relaxed)
            };
            let proven = bound::assignment(&instance, incumbent, until, report);
            if !report(proven) && proven < incumbent {
                let (operations, machines) = (bound::operations(&instance), instance.shop.machines.len());
                report(indexed::refute(&operations, machines, proven, incumbent, until, report));
            }
        });
        UnderWay { proof: self, thread: Some(thread) }
    }
}

impl UnderWay<'_> {
    /// Until it is done, or nobody wants it any more.
    fn wait(&self) {
        let running = || self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        let wanted = || !self.proof.is_cancelled() && !self.proof.stop.load(Ordering::Relaxed);
        while running() && wanted() {
            std::thread::sleep(MASTER_POLL);
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.thread.take().into_iter().for_each(crate::stragglers::leave);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Assignment, Plan, Shop, read_instance};
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// A random shop in the text format, small enough to enumerate.
    fn shop(seed: u64, jobs: usize, ops: usize, machines: usize) -> Instance {
        let mut r = Random::new(seed);
        let mut text = format!("{jobs} {machines} 1\n");
        for _ in 0..jobs {
            let count = 1 + r.below(ops);
            text += &count.to_string();
            for _ in 0..count {
                let first = r.below(machines);
                let able: Vec<usize> = (0..machines).filter(|&m| m == first || r.chance(0.4)).collect();
                text += &format!(" {}", able.len());
                able.iter().for_each(|m| text += &format!(" {} {}", m + 1, 1 + r.below(9)));
            }
            text += "\n";
        }
        read_instance("shop", &text).unwrap()
    }

    /// The shortest makespan by enumeration: operations appended in every order that the jobs allow, on every
    /// machine.
    fn shortest(instance: &Instance) -> Tick {
        fn append(graph: &Graph, next: &mut [u32], ready: &mut [Tick], free: &mut [Tick], least: &mut Tick) {
            let so_far = ready.iter().copied().max().unwrap_or(0);
            if so_far >= *least {
                return;
            }
            let mut done = true;
            for job in 0..next.len() {
                if next[job] == graph.base[job + 1] {
                    continue;
                }
                done = false;
                for &(machine, duration) in graph.modes(next[job]) {
                    let (was, open) = (ready[job], free[machine as usize]);
                    let end = was.max(open) + duration;
                    (ready[job], free[machine as usize]) = (end, end);
                    next[job] += 1;
                    append(graph, next, ready, free, least);
                    next[job] -= 1;
                    (ready[job], free[machine as usize]) = (was, open);
                }
            }
            if done {
                *least = so_far;
            }
        }
        let graph = Graph::new(instance);
        let jobs = graph.base.len() - 1;
        let (mut next, mut least) = (graph.base[..jobs].to_vec(), Tick::MAX);
        append(&graph, &mut next, &mut vec![0; jobs], &mut vec![0; graph.machines], &mut least);
        least
    }

    fn counted(iterations: u64) -> Options {
        let time_limit = Duration::from_secs(600);
        Options { iterations: Some(iterations), time_limit, ..Options::default() }
    }

    #[test]
    fn bound_and_search_meet_at_the_optimum_of_small_shops() {
        let (mut found, mut proven) = (0, 0);
        for seed in 0..150 {
            let instance = shop(seed, 3, 3, 3);
            let optimum = shortest(&instance);
            let solution = crate::solve(&instance, &counted(2000), |_| ()).unwrap();
            assert!(solution.bound <= optimum, "seed {seed}: bound {} above {optimum}", solution.bound);
            assert!(solution.cost >= optimum, "seed {seed}: {} below the optimum {optimum}", solution.cost);
            found += usize::from(solution.cost == optimum);
            proven += usize::from(solution.bound == optimum);
        }
        assert!(found >= 149 && proven >= 149, "of 150: {found} found, {proven} proven");
    }

    #[test]
    fn refuting_ends_at_the_optimum() {
        for seed in 0..150 {
            let instance = shop(seed, 3, 3, 3);
            let operations = bound::operations(&instance);
            let optimum = shortest(&instance);
            // As if no schedule had been found that is short.
            let until = Instant::now() + Duration::from_secs(60);
            let proven =
                indexed::refute(&operations, 3, bound::plain(&instance), optimum + 5, until, |_| false);
            assert_eq!(proven, optimum, "seed {seed}");
        }
    }

    #[test]
    fn an_incumbent_is_where_the_search_begins_mended_where_it_must_be() {
        for seed in 0..30 {
            let instance = shop(seed, 4, 3, 3);
            let found = crate::solve(&instance, &counted(1000), |_| ()).unwrap();
            let begins = |plan: &Plan| {
                let mut first = None;
                let incumbent = Some(plan.clone());
                let time_limit = Duration::from_millis(20);
                let options = Options { incumbent, time_limit, ..counted(0) };
                crate::solve(&instance, &options, |p| {
                    first.get_or_insert((p.cost, p.found_by));
                })
                .unwrap();
                first.unwrap()
            };
            assert_eq!(begins(&found.plan), (found.cost, "incumbent"), "seed {seed}");
            let mut half = found.plan.clone();
            half.assignments.retain(|a| (a.job + a.op) % 2 == 0);
            half.assignments.iter_mut().step_by(3).for_each(|a| a.start += 5);
            assert!(begins(&half).0 >= found.bound, "seed {seed}");
        }
    }

    /// Heads, tails and makespan by walking the plan, sharing nothing with the schedule.
    fn walked(shop: &Shop, plan: &Plan) -> Tick {
        let mut by_machine: BTreeMap<usize, Vec<&Assignment>> = BTreeMap::new();
        plan.assignments.iter().for_each(|a| by_machine.entry(a.machine).or_default().push(a));
        assert!(by_machine.len() <= shop.machines.len());
        for line in by_machine.values_mut() {
            line.sort_by_key(|a| a.start);
            assert!(line.windows(2).all(|pair| pair[0].end <= pair[1].start), "two at once");
        }
        plan.assignments.iter().map(|a| a.end).max().unwrap_or(0)
    }

    #[test]
    fn every_move_leaves_a_schedule_and_every_blend_is_one() {
        let mut between = 0;
        for seed in 0..40 {
            let instance = shop(seed, 12, 5, 4);
            let graph = Graph::new(&instance);
            let mut random = Random::new(seed);
            let start = Schedule::dispatch(&graph, &mut random, 0.3);
            let other = Schedule::dispatch(&graph, &mut random, 1.0);
            let blend = Schedule::between(&graph, &start, &other, 0.5, &mut random);
            assert_eq!(start.distance(&start), 0);
            between += usize::from(blend.distance(&start) > 0 && blend.distance(&other) > 0);
            let mut tabu = Tabu::new(&graph, blend, Random::new(seed));
            for _ in 0..400 {
                tabu.step(&graph);
                let plan = tabu.now.plan(&graph);
                assert_eq!(walked(&instance.shop, &plan), tabu.now.makespan, "seed {seed}");
                assert_eq!(verify(&instance, &plan).unwrap().makespan, tabu.now.makespan, "seed {seed}");
            }
        }
        assert!(between >= 30, "only {between} of 40 lie between");
    }

    #[test]
    fn two_threads_stop_at_a_proven_optimum() {
        let instance = shop(5, 6, 4, 4);
        let options = Options { threads: 2, time_limit: Duration::from_secs(60), ..Options::default() };
        let mut last = 0;
        let solution = crate::solve(&instance, &options, |p| last = p.bound).unwrap();
        assert_eq!((solution.bound, solution.cost), (last, last));
        assert!(solution.elapsed < Duration::from_secs(30), "it goes on after the proof");
    }
}
