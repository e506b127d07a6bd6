//! The ways of running: search and bound by turns on one thread, or each on a thread of its own, with the master now
//! and then; or counted, so that every run is the same.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use crate::bound::{Bound, Choice, Proof};
use crate::master::{Decision, Master, Pool};
use crate::random::Random;
use crate::search::Search;
use crate::solve::{Checked, lower_priority};
use crate::state::State;
use crate::{Fen, Fixed, Instance, Options, Progress};

/// Whether to go on.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub(crate) started: Instant,
    pub(crate) limit: Duration,
    pub(crate) cancel: &'a AtomicBool,
}

impl Watch<'_> {
    /// The share of the time that is used up.
    fn share(&self) -> f64 {
        self.started.elapsed().as_secs_f64() / self.limit.as_secs_f64().max(1e-9)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.share() >= 1.0 || self.is_cancelled()
    }
}

/// Tries between two looks at the clock.
const TRIES_PER_LOOK: u64 = 32;
/// Jobs of a bound pass between two looks at the clock.
const JOBS_PER_LOOK: usize = 16;
/// Search and bound take turns on one thread: this long each.
const SEARCH_SLICE: Duration = Duration::from_millis(40);
const BOUND_SLICE: Duration = Duration::from_millis(10);
/// When, as shares of the time, a pass is made exact.
const EXACT_AT: [f64; 3] = [0.4, 0.7, 0.9];
/// When, as shares of the time, one thread turns to the master, and for what share of it.
const MASTER_AT: [f64; 3] = [0.5, 0.75, 0.92];
const MASTER_SHARE: f64 = 0.04;
/// With a thread for it, a master may take this long; then the bound has its turn for as long as the master took.
const MASTER_LIMIT: Duration = Duration::from_millis(500);
/// Tries for each job that a round takes at least, and how many rounds there are at most.
const TRIES_PER_ROUND: f64 = 2000.0;
const ROUNDS_MAX: f64 = 24.0;
/// How far from hot to cold plans are worth the master's attention.
const COLD_FROM: f64 = 0.85;
/// The share of the time after which the number of rounds is settled.
const SETTLED_AT: f64 = 0.02;
/// After an exchange between threads, which takes as long as the instance is large, this many times as long
/// passes until the next.
const EXCHANGE_APART: u32 = 20;
/// How long to wait for HiGHS between two looks at whether to go on at all.
pub(crate) const MASTER_POLL: Duration = Duration::from_millis(10);

/// The annealing in rounds, each from hot to cold, and each later one from the best plan so far. A small instance
/// is cold long before the time is up, and finds another valley in each round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    count: f64,
}

impl Rounds {
    /// As many as the tries that are expected allow.
    pub(crate) fn expecting(tries: f64, jobs: usize) -> Rounds {
        Rounds { count: (tries / jobs.max(1) as f64 / TRIES_PER_ROUND).floor().clamp(1.0, ROUNDS_MAX) }
    }

    /// Which round it is after a share of the whole, and how far from hot to cold.
    fn at(&self, share: f64) -> (usize, f64) {
        let at = (share * self.count).min(self.count - 1e-9);
        (at as usize, at.fract())
    }

    fn is_cold(&self, share: f64) -> bool {
        self.at(share).1 > COLD_FROM
    }
}

/// What the ways of running share.
pub(crate) struct Run<'a, 'p> {
    pub(crate) rounds: Rounds,
    pub(crate) round: usize,
    /// As it was given.
    pub(crate) asked: &'a Instance,
    /// With its weights worked in.
    pub(crate) instance: &'a Instance,
    pub(crate) options: &'a Options,
    pub(crate) watch: Watch<'a>,
    pub(crate) best: Fen,
    pub(crate) found_by: &'static str,
    pub(crate) checked: Option<Checked>,
    pub(crate) progress: &'p mut dyn FnMut(Progress),
}

impl<'a> Run<'a, '_> {
    fn share(&self) -> f64 {
        self.watch.share()
    }

    fn over(&self) -> bool {
        self.watch.is_over()
    }

    /// Whether no plan can be better than the best.
    fn is_proven(&self, search: &Search<'_>, bound: Fen) -> bool {
        search.best_weight() <= bound
    }

    fn report(&mut self, search: &Search<'_>, bound: Fen) {
        let cost = search.best_cost();
        if search.best_weight() < self.best {
            self.best = search.best_weight();
            self.found_by = search.found_by();
        }
        let (elapsed, found_by) = (self.watch.started.elapsed(), self.found_by);
        (self.progress)(Progress {
            elapsed,
            cost,
            missing: search.best_missing(),
            bound: bound.min(cost),
            iterations: search.tries,
            found_by,
        });
    }

    /// A fixed number of tries, then a fixed number of passes: the same result on every run.
    pub(crate) fn counted(&mut self, search: &mut Search<'a>, tries: u64) -> Proof {
        let incumbent = search.best_cost();
        self.rounds = Rounds::expecting(tries as f64, self.instance.jobs.len());
        while self.options.searches()
            && search.tries < tries
            && !(search.tries.is_multiple_of(TRIES_PER_LOOK) && self.over())
        {
            let progress = self.progress(search, search.tries as f64 / tries as f64);
            search.attempt(progress);
        }
        let mut bound = Bound::new(self.instance);
        let passes = 20 + tries / (10 * self.instance.jobs.len().max(1) as u64);
        while bound.passes < passes && !self.over() {
            if bound.passes + 1 == passes {
                bound.sharpen();
            }
            let share = bound.passes as f64 / passes as f64;
            while !bound.work(JOBS_PER_LOOK, incumbent, share, &mut |_, _| ()) && !self.over() {}
            if bound.is_plain() {
                break;
            }
        }
        self.report(search, bound.best());
        bound.into_proof()
    }

    /// Search and bound by turns, until the time is up.
    pub(crate) fn sliced(&mut self, search: &mut Search<'a>) -> Proof {
        let mut bound = Bound::new(self.instance);
        let mut sharpened = 0;
        let mut masters = 0;
        let (mut pool, mut priced) = (Pool::new(self.instance), Pool::new(self.instance));
        let mut random = Random::new(self.options.seed);
        while !self.over() && !self.is_proven(search, bound.best()) {
            self.search_for(search, SEARCH_SLICE);
            if self.rounds.is_cold(self.share()) {
                pool.collect(&search.state);
            }
            if self.options.assembles() && MASTER_AT.get(masters).is_some_and(|&at| self.share() > at) {
                masters += 1;
                pool.collect(&search.best_state());
                let until = Instant::now() + self.options.time_limit.mul_f64(MASTER_SHARE);
                while !self.over() && Instant::now() < until {
                    let limit = MASTER_LIMIT.min(until - Instant::now());
                    let (best, pools) = (search.best_state(), [&pool, &priced]);
                    let master = Master::around(pools, &best, &mut random, &|| self.over());
                    if let Some(chains) = master.and_then(|m| await_chains(m, limit, || self.over())) {
                        search.merge(chains, &|| self.over());
                    }
                }
            }
            let until = Instant::now() + BOUND_SLICE;
            let incumbent = search.best_cost();
            while Instant::now() < until && !bound.is_plain() && !self.over() {
                let mut chosen = |j, choice: &Choice| priced.price(self.instance, j, choice);
                if bound.work(JOBS_PER_LOOK, incumbent, self.share(), &mut chosen)
                    && EXACT_AT.get(sharpened).is_some_and(|&at| self.share() > at)
                {
                    bound.sharpen();
                    sharpened += 1;
                }
            }
            self.report(search, bound.best());
        }
        bound.into_proof()
    }

    /// Tries for a while.
    fn search_for(&mut self, search: &mut Search<'a>, span: Duration) {
        let until = Instant::now() + span;
        if !self.options.searches() {
            std::thread::sleep(MASTER_POLL);
            return;
        }
        loop {
            let share = self.share();
            if share >= 1.0 || Instant::now() >= until || self.watch.is_cancelled() {
                return;
            }
            if share < SETTLED_AT {
                self.rounds =
                    Rounds::expecting(search.tries as f64 / share.max(1e-9), self.instance.jobs.len());
            }
            let progress = self.progress(search, share);
            for _ in 0..TRIES_PER_LOOK {
                search.attempt(progress);
            }
        }
    }

    /// How far from hot to cold the search is; where a round begins, it goes back to its best plan.
    fn progress(&mut self, search: &mut Search<'a>, share: f64) -> f64 {
        let (round, progress) = self.rounds.at(share);
        if round > self.round {
            self.round = round;
            search.return_to_best();
        }
        progress
    }

    /// Search here, the bound on a thread of its own.
    pub(crate) fn parallel(&mut self, search: &mut Search<'a>) -> Proof {
        let shared = Shared {
            incumbent: AtomicI64::new(search.best_cost()),
            bound: AtomicI64::new(0),
            stop: AtomicBool::new(false),
            pool: Mutex::new((Pool::new(self.instance), Vec::new())),
            answer: Mutex::new(Vec::new()),
        };
        let (instance, options, watch) = (self.instance, self.options, self.watch);
        std::thread::scope(|scope| {
            let proving = (!watch.is_over()).then(|| scope.spawn(|| shared.prove(instance, options, watch)));
            let mut next_exchange = Instant::now();
            while !self.over() && !self.is_proven(search, shared.bound.load(Ordering::Relaxed)) {
                self.search_for(search, SEARCH_SLICE);
                let began = Instant::now();
                shared.incumbent.store(search.best_cost(), Ordering::Relaxed);
                let cold = self.rounds.is_cold(self.share()) || !self.options.searches();
                if cold && began >= next_exchange {
                    shared.exchange(search, watch);
                    next_exchange = Instant::now() + began.elapsed() * EXCHANGE_APART;
                }
                self.report(search, shared.bound.load(Ordering::Relaxed));
            }
            shared.stop.store(true, Ordering::Relaxed);
            // A large plan takes the checker some time, in which the proving thread comes to its end.
            self.checked = Some(Checked::new(self.asked, search));
            proving.map_or_else(Proof::default, |proving| {
                proving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }
}

/// What the searching and the proving thread tell each other.
struct Shared {
    incumbent: AtomicI64,
    bound: AtomicI64,
    stop: AtomicBool,
    /// Columns met, and the best plan's chains.
    pool: Mutex<(Pool, Chains)>,
    /// What the master has found.
    answer: Mutex<Vec<Decision>>,
}

type Chains = Vec<Option<Vec<Fixed>>>;

/// The master's answer, if it comes in time and before `over`.
fn await_chains(master: Master, limit: Duration, over: impl Fn() -> bool) -> Option<Vec<Decision>> {
    let answer = master.start(limit);
    // HiGHS looks at its clock now and then only.
    let patience = Instant::now() + 2 * limit;
    while !over() && Instant::now() < patience {
        match answer.recv_timeout(MASTER_POLL) {
            Ok(chains) => return Some(chains),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
    None
}

impl Shared {
    /// The searching thread's part: leaves what it has met, takes what the master has found.
    fn exchange(&self, search: &mut Search<'_>, watch: Watch<'_>) {
        let decided = self.answer.lock().map(|mut answer| std::mem::take(&mut *answer)).unwrap_or_default();
        if !decided.is_empty() {
            search.merge(decided, &|| watch.is_over());
        }
        if let Ok(mut pool) = self.pool.lock() {
            pool.0.collect(&search.state);
            pool.1 = search.best_chains();
        }
    }

    /// Assembles one plan from the columns met.
    fn assemble(&self, instance: &Instance, priced: &Pool, watch: Watch<'_>, random: &mut Random) {
        let Ok((mut pool, chains)) = self.pool.lock().map(|pool| pool.clone()) else { return };
        let over = || self.stop.load(Ordering::Relaxed) || watch.is_over();
        if chains.is_empty() || over() {
            return;
        }
        let best = State::load(instance, chains);
        pool.collect(&best);
        if over() {
            return;
        }
        let master = Master::around([&pool, priced], &best, random, &over);
        let found = master.and_then(|m| await_chains(m, MASTER_LIMIT, over));
        let Some(decided) = found else { return };
        if let Ok(mut pool) = self.pool.lock() {
            // The next goes on from here.
            decided.iter().for_each(|(j, chain)| pool.1[*j].clone_from(chain));
        }
        if let Ok(mut answer) = self.answer.lock() {
            answer.extend(decided);
        }
    }

    fn prove(&self, instance: &Instance, options: &Options, watch: Watch<'_>) -> Proof {
        let mut bound = Bound::new(instance);
        let mut sharpened = 0;
        let mut random = Random::new(options.seed);
        let (mut turn, mut took) = (Instant::now(), MASTER_LIMIT.min(options.time_limit / 20));
        let mut priced = Pool::new(instance);
        let assembles = options.assembles();
        lower_priority(options);
        while !self.stop.load(Ordering::Relaxed) && !watch.is_over() {
            let incumbent = self.incumbent.load(Ordering::Relaxed);
            let ended = bound.work(JOBS_PER_LOOK, incumbent, watch.share(), &mut |j, choice| {
                if assembles {
                    priced.price(instance, j, choice);
                }
            });
            self.bound.store(bound.best(), Ordering::Relaxed);
            if bound.is_plain() {
                std::thread::sleep(MASTER_POLL);
            }
            if assembles && turn.elapsed() > took {
                let began = Instant::now();
                self.assemble(instance, &priced, watch, &mut random);
                took = began.elapsed().max(MASTER_POLL);
                turn = Instant::now();
            }
            if ended && EXACT_AT.get(sharpened).is_some_and(|&at| watch.share() > at) {
                bound.sharpen();
                sharpened += 1;
            }
        }
        bound.into_proof()
    }
}
