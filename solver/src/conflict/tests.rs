//! What is proven is checked against a plain enumeration, judged by `verify` alone.

use super::decide::least_changeovers;
use super::*;
use crate::place::Placer;
use crate::random::Random;
use crate::tiny::Appended;
use crate::{SetupMatrix, greedy, tiny, verify};

/// Whether jobs can be kept, all others left out.
fn keeps(instance: &Instance, jobs: &[usize]) -> bool {
    let mut others = instance.clone();
    for j in (0..instance.jobs.len()).filter(|j| !jobs.contains(j)) {
        others.jobs[j].rejection_cost = Some(0);
    }
    Appended::each(&others, jobs, &mut |plan| verify(&others, plan).is_ok())
}

/// A tiny shop where everything is promised, some of it frozen, and time is short.
fn promised(seed: u64) -> Instance {
    let mut instance = tiny::instance(seed, 4, 2, 22);
    settle(&mut instance, seed);
    instance
}

/// The same with machines of two places, and resources that may be what is short.
fn promised_with_resources(seed: u64) -> Instance {
    let mut instance = tiny::rich(seed, 4, 2, 22);
    settle(&mut instance, seed);
    instance.weighed().unwrap().into_owned()
}

/// Promises and freezes, and makes time short.
fn settle(instance: &mut Instance, seed: u64) {
    let mut r = Random::new(seed ^ 0xC0);
    for job in &mut instance.jobs {
        job.rejection_cost = None;
        job.budget = job.budget.filter(|_| r.chance(0.4)).map(|budget| budget + 30);
        job.release /= 2;
        if r.chance(0.7) {
            job.deadline = Some(job.release + 4 + r.below(12) as Tick);
        }
        let op = &mut job.ops[0];
        if r.chance(0.15) {
            let machine = op.modes[r.below(op.modes.len())].machine;
            op.fixed = Some(Fixed { machine, start: job.release + r.below(8) as Tick });
        }
    }
    if r.chance(0.4) {
        let twin = instance.jobs[0].clone();
        instance.jobs[2] = Job { id: "J2".into(), ..twin };
    }
}

fn unlimited(cancel: &AtomicBool) -> Limits<'_> {
    Limits { until: Instant::now() + Duration::from_secs(3600), cancel }
}

fn found(instance: &Instance) -> Option<Found> {
    let mut state = State::load(instance, greedy::frozen_chains(instance));
    greedy::insert_all(&mut state, &mut Placer::default(), &greedy::insertion_order(instance), &|| false);
    let missing: Vec<usize> = (0..instance.jobs.len()).filter(|&j| !state.keeps(j)).collect();
    (!missing.is_empty()).then(|| find(&state, &missing, &unlimited(&AtomicBool::new(false))))
}

#[test]
fn a_proven_conflict_is_one_and_none_of_it_can_be_spared() {
    let (mut sizes, mut kept, mut overloads, mut everywhere) = ([0; 5], 0, 0, 0);
    for seed in 0..1200 {
        let instance = promised(seed);
        let all: Vec<usize> = (0..instance.jobs.len()).collect();
        match found(&instance) {
            None => {}
            Some(Found::Kept(chains)) => {
                kept += 1;
                assert!(keeps(&instance, &all), "seed {seed}: a plan was found");
                let state = State::load(&instance, chains);
                assert_eq!(state.missing(), 0, "seed {seed}: it holds");
                verify(&instance, &state.plan()).unwrap();
            }
            Some(Found::Conflict(conflict)) => {
                let jobs = &conflict.jobs;
                assert!(!keeps(&instance, &all), "seed {seed}: the promises clash");
                assert!(conflict.proven, "seed {seed}: {conflict}");
                assert!(!keeps(&instance, jobs), "seed {seed}: {conflict}");
                if conflict.in_any_company {
                    everywhere += 1;
                    let bits = |set: &[usize]| set.iter().fold(0u32, |bits, j| bits | 1 << j);
                    for more in (0..1u32 << all.len()).filter(|more| more & bits(jobs) == bits(jobs)) {
                        let more: Vec<usize> = all.iter().copied().filter(|j| more & (1 << j) != 0).collect();
                        assert!(!keeps(&instance, &more), "seed {seed}: {conflict}, but {more:?}");
                    }
                }
                assert!(conflict.minimal, "seed {seed}: {conflict}");
                for job in jobs {
                    let rest: Vec<usize> = jobs.iter().copied().filter(|j| j != job).collect();
                    assert!(keeps(&instance, &rest), "seed {seed}: {conflict}, and without {job}");
                }
                sizes[jobs.len()] += 1;
                overloads += usize::from(counted_anew(&instance, &conflict));
            }
        }
    }
    let seen = format!("sizes {sizes:?}, {kept} kept, {overloads} overloads, {everywhere} in any company");
    assert!(sizes[1..].iter().all(|&n| n >= 5) && kept >= 5 && overloads >= 5 && everywhere >= 100, "{seen}");
}

#[test]
fn with_resources_what_is_proven_is_so_and_the_rest_is_not_claimed() {
    let (mut proven, mut open, mut kept) = (0, 0, 0);
    for seed in 0..400 {
        let instance = promised_with_resources(seed);
        match found(&instance) {
            None => {}
            Some(Found::Kept(chains)) => {
                kept += 1;
                let state = State::load(&instance, chains);
                verify(&instance, &state.plan()).unwrap_or_else(|v| panic!("seed {seed}: {v:?}"));
            }
            Some(Found::Conflict(conflict)) => {
                let jobs = &conflict.jobs;
                assert!(!conflict.proven || !keeps(&instance, jobs), "seed {seed}: {conflict}");
                let spared = |job: &usize| jobs.iter().copied().filter(|j| j != job).collect::<Vec<_>>();
                let minimal = jobs.iter().all(|job| keeps(&instance, &spared(job)));
                assert!(!conflict.minimal || minimal, "seed {seed}: {conflict}");
                *(if conflict.proven { &mut proven } else { &mut open }) += 1;
            }
        }
    }
    assert!(proven > 20 && open > 20 && kept > 0, "{proven} proven, {open} open, {kept} kept");
}

/// Whether the conflict is an overload; if so, its open time is counted tick by tick.
fn counted_anew(instance: &Instance, conflict: &Conflict) -> bool {
    let Some(Shortage::OpenTime(o)) = &conflict.shortage else { return false };
    let is_open =
        |m: usize, t: Tick| instance.shop.machines[m].calendar.windows().iter().any(|w| w.0 <= t && t < w.1);
    let open: Tick =
        o.machines.iter().map(|&m| (o.from..o.until).filter(|&t| is_open(m, t)).count() as Tick).sum();
    match o.short {
        Short::Time { needed, open: told } => assert!(open == told && needed > open, "{conflict}"),
        Short::Room { pieces, least, room } => {
            assert!(pieces > room && least * (room as Tick) <= open, "{conflict}");
        }
    }
    true
}

#[test]
fn an_overload_holds_in_any_company() {
    let mut overloads = 0;
    for seed in 0..600 {
        let mut instance = promised(seed);
        let Some(Found::Conflict(conflict)) = found(&instance) else { continue };
        if !matches!(conflict.shortage, Some(Shortage::OpenTime(_))) {
            continue;
        }
        overloads += 1;
        // Another's work before an operation may save it any changeover but the least: they still clash.
        least_changeovers(&mut instance.shop);
        assert!(!keeps(&instance, &conflict.jobs), "seed {seed}: {conflict}");
    }
    assert!(overloads > 5, "{overloads} overloads");
}

#[test]
fn no_time_for_all_of_them_is_no_plan_for_all_of_them() {
    let mut instance = tiny::instance(5, 60, 3, 700);
    instance.jobs.iter_mut().for_each(|job| job.rejection_cost = None);
    let state = State::empty(&instance);
    let all: Vec<usize> = (0..instance.jobs.len()).collect();
    let cancel = AtomicBool::new(false);
    for micros in (0..40_000).step_by(1000) {
        let limits = Limits { until: Instant::now() + Duration::from_micros(micros), cancel: &cancel };
        if let Found::Kept(chains) = find(&state, &all, &limits) {
            assert_eq!(State::load(&instance, chains).missing(), 0, "after {micros} µs");
        }
    }
}

#[test]
fn a_cancelled_search_claims_nothing() {
    let instance = (0..).map(promised).find(|i| matches!(found(i), Some(Found::Conflict(_)))).unwrap();
    let mut state = State::load(&instance, greedy::frozen_chains(&instance));
    greedy::insert_all(&mut state, &mut Placer::default(), &greedy::insertion_order(&instance), &|| false);
    let missing: Vec<usize> = (0..instance.jobs.len()).filter(|&j| !state.keeps(j)).collect();
    match find(&state, &missing, &unlimited(&AtomicBool::new(true))) {
        Found::Conflict(conflict) => {
            assert!(!conflict.proven && !conflict.minimal);
            assert!(missing.contains(&conflict.jobs[0]));
        }
        Found::Kept(_) => panic!("nothing was looked at"),
    }
}

#[test]
fn a_cancel_is_noticed_while_a_conflict_is_looked_for() {
    let mut instance = tiny::instance(5, 400, 3, 1100);
    for job in &mut instance.jobs {
        job.rejection_cost = None;
        job.deadline = None;
        job.budget = None;
    }
    let state = State::empty(&instance);
    let missing: Vec<usize> = (0..instance.jobs.len()).collect();
    let cancel = std::sync::Arc::new(AtomicBool::new(false));
    let canceller = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            std::thread::sleep(Duration::from_millis(200));
            cancel.store(true, Ordering::Relaxed);
            Instant::now()
        }
    });
    find(&state, &missing, &unlimited(&cancel));
    let ended = Instant::now();
    let late = ended.checked_duration_since(canceller.join().unwrap());
    let late = late.expect("it takes longer than until the cancel");
    assert!(late < Duration::from_millis(50), "cancelled {late:?} ago");
}

#[test]
fn what_is_short_is_told_in_a_sentence() {
    let told = |windows: &[(Tick, Tick)], deadline: Tick| {
        let mut instance =
            (0..).map(|seed| tiny::instance(seed, 4, 1, 30)).find(|i| i.shop.machines.len() == 1);
        let instance = instance.as_mut().unwrap();
        instance.shop.machines[0].calendar = crate::Calendar::new(windows.to_vec()).unwrap();
        instance.shop.setups.iter_mut().for_each(|matrix| *matrix = SetupMatrix::free(3));
        for job in &mut instance.jobs {
            (job.rejection_cost, job.budget, job.release, job.origin) = (None, None, 0, None);
            job.deadline = Some(deadline);
            let op = &mut job.ops[0];
            op.splittable = false;
            (op.modes[0].duration, op.modes[0].earliest) = (6, 0);
        }
        match found(instance) {
            Some(Found::Conflict(conflict)) => conflict.to_string(),
            _ => panic!("four times six do not fit"),
        }
    };
    let whole = "cannot be kept together; without any one of them the others can: they need";
    assert_eq!(
        told(&[(0, 10), (12, 22)], 22),
        format!(
            "J0, J1 and J2 {whole} 3 times 6 min or more without a pause on M0 between day 1, 00:00 and day 1, \
             00:22, where there is room for 2"
        )
    );
    assert_eq!(
        told(&[(0, 30)], 20),
        format!(
            "J0, J1, J2 and J3 {whole} 24 min on M0 between day 1, 00:00 and day 1, 00:20, which is open for 20 min"
        )
    );
    assert_eq!(
        told(&[(0, 30)], 5),
        "J0 cannot be kept, even alone: it ends on day 1, 00:06 at the earliest, after its deadline"
    );
}
