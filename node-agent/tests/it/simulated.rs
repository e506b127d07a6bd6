//! The simulated machine: the same seed and list give the same history, and nothing begins too early.

use millpool_node_agent::adapter::Happened;
use millpool_node_agent::adapter::simulated::recorded::{Recorded, State};
use millpool_node_agent::adapter::simulated::{Machine, Memory, Options};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{DispatchItem, MachineState};
use proptest::prelude::*;
use prost::Message;

fn item(booking: &str, start_s: i64, setup_s: u32, run_s: u32, quantity: u32) -> DispatchItem {
    DispatchItem {
        machine_id: "m".into(),
        booking_id: booking.into(),
        start_s,
        end_s: start_s + i64::from(setup_s + run_s),
        setup_s,
        run_s,
        quantity,
        ..DispatchItem::default()
    }
}

fn words(happened: &[Happened]) -> Vec<String> {
    let each = happened.iter().map(|happened| {
        let at_s = happened.at_ms as f64 / 1000.0;
        match &happened.what {
            What::StateChanged(changed) => format!("{at_s} {:?}", changed.state()),
            What::OperationStarted(started) => format!("{at_s} started {}", started.booking_id),
            What::OperationProgress(progress) => {
                format!("{at_s} good {} ends {}", progress.pieces_good, progress.expected_end_s)
            }
            What::OperationFinished(done) => format!(
                "{at_s} finished {} good {} bad {} in {} s with {} Wh",
                done.booking_id, done.pieces_good, done.pieces_scrapped, done.measured_s, done.energy_wh
            ),
            What::OperationScrapped(scrapped) => format!("{at_s} scrapped {}", scrapped.booking_id),
            What::MachineDown(down) => format!("{at_s} down until {}", down.expected_until_s),
            What::MachineUp(_) => format!("{at_s} up"),
            What::EvidenceGap(_) | What::RemoteAnswered(_) => format!("{at_s} gap"),
        }
    });
    each.collect()
}

fn all(machine: &mut Machine, now_ms: i64) -> Vec<Happened> {
    let mut happened = Vec::new();
    loop {
        let more = machine.advance(now_ms);
        if more.is_empty() {
            return happened;
        }
        happened.extend(more);
    }
}

#[test]
fn an_undisturbed_operation_is_told_from_setup_to_end() {
    let options = Options { progress_s: 1800, ..Options::default() };
    let mut machine = Machine::new("m", options, Memory::default());
    all(&mut machine, 0);
    machine.set_items(vec![item("b", 1000, 600, 3600, 4)], 0);
    assert_eq!(machine.next_ms(), Some(1_000_000));
    assert!(all(&mut machine, 999_999).is_empty());
    assert_eq!(
        words(&all(&mut machine, 9_999_999)),
        [
            "1000 Setup",
            "1000 started b",
            "1600 Producing",
            "2800 good 1 ends 5200",
            "4600 good 3 ends 5200",
            "5200 finished b good 4 bad 0 in 4200 s with 6250 Wh",
            "5200 Idle",
        ]
    );
}

#[test]
fn a_late_operation_ends_late_and_a_repaired_one_goes_on() {
    let options =
        Options { mtbf_h: 1, repair_min: (10, 10), progress_s: 86_400, seed: 3, ..Options::default() };
    let mut machine = Machine::new("m", options, Memory::default());
    all(&mut machine, 5_000_000);
    machine.set_items(vec![item("b", 1000, 0, 36_000, 1)], 5_000_000);
    let story = words(&all(&mut machine, i64::MAX / 2));
    assert_eq!(story[0], "5000 started b");
    assert!(story.iter().any(|line| line.contains("down until")), "{story:#?}");
    assert!(story.iter().any(|line| line.ends_with("up")), "{story:#?}");
    assert!(story[story.len() - 2].starts_with("41600 finished b"), "{story:#?}");
}

#[test]
fn an_operation_that_was_moved_away_during_a_repair_is_given_up() {
    let options = Options { mtbf_h: 1, repair_min: (60, 60), seed: 3, ..Options::default() };
    let mut machine = Machine::new("m", options, Memory::default());
    all(&mut machine, 0);
    machine.set_items(vec![item("b", 0, 0, 36_000, 1)], 0);
    while machine.state() != MachineState::Blocked {
        let next_ms = machine.next_ms().unwrap();
        machine.advance(next_ms);
    }
    machine.set_items(Vec::new(), machine.next_ms().unwrap() - 1);
    let story = words(&all(&mut machine, i64::MAX / 2));
    assert!(story[0].ends_with("up") && story[1].ends_with("Idle") && story.len() == 2, "{story:#?}");
}

#[test]
fn scrapped_work_comes_again_only_as_a_later_item() {
    let options = Options { scrap_permille: 1000, ..Options::default() };
    let mut machine = Machine::new("m", options, Memory::default());
    all(&mut machine, 0);
    machine.set_items(vec![item("b", 100, 0, 1000, 5)], 0);
    let first = words(&all(&mut machine, 5_000_000));
    assert_eq!(first.iter().filter(|line| line.contains("scrapped")).count(), 1, "{first:#?}");
    machine.set_items(vec![item("b", 6000, 0, 1000, 5)], 5_000_000);
    let again = words(&all(&mut machine, 9_000_000));
    assert_eq!(again[0], "6000 started b");
}

/// One machine that is like a recorded one, at work for a long time; its stretches in sight and its drop-outs, ms, with
/// what it does in each.
struct Drawn {
    stretches: Vec<(MachineState, i64)>,
    dropouts: Vec<i64>,
}

fn drawn(recorded: &'static Recorded, seed: u64, hours: u32) -> Drawn {
    let options = Options { seed, progress_s: 86_400, like: Some(recorded), ..Options::default() };
    let mut machine = Machine::new("m", options, Memory::default());
    all(&mut machine, 0);
    machine.set_items(vec![item("b", 0, 0, hours * 3600, 1)], 0);
    let mut drawn = Drawn { stretches: Vec::new(), dropouts: Vec::new() };
    let (mut since, mut at_work) = ((MachineState::Idle, 0), false);
    for happened in all(&mut machine, i64::MAX / 2) {
        match happened.what {
            What::OperationStarted(_) => at_work = true,
            // The last stretch is cut off by the end of the work.
            What::OperationFinished(_) => at_work = false,
            What::StateChanged(changed) if at_work => {
                let (state, length_ms) = (since.0, happened.at_ms - since.1);
                match (state, drawn.stretches.last_mut()) {
                    (MachineState::Unknown, _) => drawn.dropouts.push(length_ms),
                    // It goes on after a drop-out.
                    (state, Some((last, so_far_ms))) if *last == state => *so_far_ms += length_ms,
                    (state, _) if length_ms > 0 => drawn.stretches.push((state, length_ms)),
                    _ => {}
                }
                since = (changed.state(), happened.at_ms);
            }
            _ => {}
        }
    }
    drawn
}

fn median(mut lengths: Vec<i64>) -> f64 {
    lengths.sort_unstable();
    lengths[lengths.len() / 2] as f64
}

/// Medians within a tenth, or two tenths where fewer than a hundred were recorded; shares of the time in sight within
/// three hundredths; drop-outs by the hour within a tenth.
#[test]
fn what_is_drawn_is_like_what_was_recorded() {
    for recorded in Recorded::names().map(|name| Recorded::named(name).unwrap()) {
        let Drawn { stretches, dropouts } = drawn(recorded, 7, 5_000);
        let seen_ms: i64 = stretches.iter().map(|(_, length_ms)| length_ms).sum();
        let near = |what: &str, drawn: f64, table: f64, off_max: f64| {
            let name = &recorded.name;
            assert!(
                (drawn / table - 1.0).abs() <= off_max,
                "{name}: {what}: drawn {drawn}, recorded {table}"
            );
        };
        for stretch in &recorded.stretch {
            let of_state = stretches.iter().filter(|(state, _)| *state == stretch.state.into());
            let lengths: Vec<_> = of_state.map(|(_, length_ms)| *length_ms).collect();
            let share = lengths.iter().sum::<i64>() as f64 / seen_ms as f64;
            let (state, off_max) = (stretch.state, if stretch.lengths.recorded < 100 { 0.2 } else { 0.1 });
            let table = f64::from(stretch.share_permille) / 1000.0;
            assert!(
                (share - table).abs() < 0.03,
                "{}: {state:?}: share {share}, recorded {table}",
                recorded.name
            );
            near(&format!("median of {state:?}"), median(lengths), stretch.lengths.median_ms as f64, off_max);
        }
        let an_hour = dropouts.len() as f64 * 3_600_000.0 / seen_ms as f64;
        near("drop-outs an hour", an_hour, recorded.dropouts_an_hour(), 0.1);
        near("median of a drop-out", median(dropouts), recorded.dropout.median_ms as f64, 0.1);
        let longest = stretches
            .iter()
            .filter(|(state, _)| *state != State::Producing.into())
            .map(|(_, length_ms)| length_ms);
        assert!(longest.max().is_some_and(|longest| *longest <= 15 * 60_000), "longer pauses end a run");
    }
}

/// What a history says of operations and downtime: all but the states between, and the energy that follows from them.
fn told(happened: &[Happened]) -> Vec<String> {
    let work = happened.iter().filter(|happened| !matches!(happened.what, What::StateChanged(_)));
    let words = words(&work.cloned().collect::<Vec<_>>());
    words.iter().map(|words| words.split(" with ").next().unwrap_or_default().to_owned()).collect()
}

/// Cutting draws more than pausing, and nothing else is new in what is told of an operation.
#[test]
fn pauses_and_dropouts_change_nothing_but_the_energy() {
    let history = |like| {
        let options = Options {
            mtbf_h: 4,
            overrun_permille: 500,
            piece_scrap_permille: 50,
            like,
            ..Options::default()
        };
        let mut machine = Machine::new("m", options, Memory::default());
        all(&mut machine, 0);
        let items = (0..20).map(|at| item(&format!("b{at}"), at * 20_000, 900, 14_400, 20));
        machine.set_items(items.collect(), 0);
        all(&mut machine, i64::MAX / 2)
    };
    let energy = |happened: &[Happened]| -> u64 {
        let each = happened.iter().filter_map(|happened| match &happened.what {
            What::OperationFinished(done) => Some(done.energy_wh),
            _ => None,
        });
        each.sum()
    };
    let plain = history(None);
    for name in Recorded::names() {
        let like = history(Recorded::named(name));
        assert_eq!(told(&plain), told(&like));
        let states = |state: MachineState| {
            let is = |happened: &&Happened| matches!(&happened.what, What::StateChanged(changed) if changed.state() == state);
            like.iter().filter(is).count()
        };
        assert!(states(MachineState::Held) > 20 && states(MachineState::Unknown) > 20, "{name}: {like:#?}");
        let saved = energy(&like) as f64 / energy(&plain) as f64;
        // 800 W instead of 6,000 W for nearly half of the time.
        assert!((0.5..0.7).contains(&saved), "{name}: {saved} of the energy");
    }
}

fn items() -> impl Strategy<Value = Vec<DispatchItem>> {
    let one = (0_i64..50_000, 0_u32..2000, 1_u32..20_000, 0_u32..50);
    proptest::collection::vec(one, 0..12).prop_map(|items| {
        let each = items.into_iter().enumerate();
        each.map(|(at, (start, setup, run, quantity))| item(&format!("b{at}"), start, setup, run, quantity))
            .collect()
    })
}

proptest! {
    #[test]
    fn the_same_seed_and_list_give_the_same_history_through_looks_and_restarts(
        items in items(), seed: u64, looks in proptest::collection::vec(0_i64..200_000_000, 0..40),
        like in proptest::sample::select(vec!["none", "GFAgie01", "Mazak01", "Mazak03"]),
    ) {
        let options = Options {
            seed, mtbf_h: 5, overrun_permille: 300, scrap_permille: 100, piece_scrap_permille: 50,
            like: Recorded::named(like), ..Options::default()
        };
        let mut plain = Machine::new("m", Options { like: None, ..options.clone() }, Memory::default());
        let mut plainly = all(&mut plain, 0);
        plain.set_items(items.clone(), 0);
        plainly.extend(all(&mut plain, 300_000_000_000));
        let mut once = Machine::new("m", options.clone(), Memory::default());
        let mut often = once.clone();
        let mut history = all(&mut once, 0);
        let mut history_often = all(&mut often, 0);
        once.set_items(items.clone(), 0);
        often.set_items(items.clone(), 0);
        history.extend(all(&mut once, 300_000_000_000));
        let mut looks = looks;
        looks.sort_unstable();
        for look_ms in looks.into_iter().chain([300_000_000_000]) {
            history_often.extend(all(&mut often, look_ms));
            // A restart: nothing but the memory and the list on disk remains.
            let memory = Memory::decode(often.memory().encode_to_vec().as_slice()).unwrap();
            often = Machine::new("m", options.clone(), memory);
            often.set_items(items.clone(), 0);
        }
        prop_assert_eq!(words(&history), words(&history_often));
        prop_assert_eq!(told(&history), told(&plainly));
        check(&history, &items)?;
    }
}

/// Nothing begins before its start, operations never overlap, and every item ends once.
fn check(history: &[Happened], items: &[DispatchItem]) -> Result<(), TestCaseError> {
    let mut at_hand: Option<String> = None;
    let mut last_ms = i64::MIN;
    let mut ended = 0;
    for happened in history {
        prop_assert!(happened.at_ms >= last_ms);
        last_ms = happened.at_ms;
        match &happened.what {
            What::OperationStarted(started) => {
                let item = items.iter().find(|item| item.booking_id == started.booking_id).unwrap();
                prop_assert!(happened.at_ms >= item.start_s * 1000);
                prop_assert_eq!(at_hand.replace(started.booking_id.clone()), None);
            }
            What::OperationFinished(done) => {
                prop_assert_eq!(at_hand.take(), Some(done.booking_id.clone()));
                let item = items.iter().find(|item| item.booking_id == done.booking_id).unwrap();
                prop_assert!(done.measured_s >= item.run_s);
                prop_assert_eq!(done.pieces_good + done.pieces_scrapped, item.quantity);
                ended += 1;
            }
            What::OperationScrapped(scrapped) => {
                prop_assert_eq!(at_hand.take(), Some(scrapped.booking_id.clone()));
                ended += 1;
            }
            What::OperationProgress(progress) => {
                prop_assert!(progress.expected_end_s * 1000 >= happened.at_ms);
                let item = items.iter().find(|item| item.booking_id == progress.booking_id).unwrap();
                prop_assert!(progress.pieces_good <= item.quantity);
            }
            _ => {}
        }
    }
    prop_assert_eq!(ended, items.len());
    Ok(())
}
