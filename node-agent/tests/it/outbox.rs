//! The outbox under crashes, damage and pressure.

use millpool_node_agent::ground::Ground;
use millpool_node_agent::outbox::log::{Log, LogError, SEGMENT_BYTES_MAX};
use millpool_node_agent::outbox::record::Group;
use millpool_node_agent::outbox::{self, BYTES_MAX_LEAST, Entry, Mark, Outbox};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{
    AgentEvent, MachineDown, MachineState, MachineUp, OperationFinished, OperationScrapped, OperationStarted,
    StateChanged,
};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn started(name: &str) -> AgentEvent {
    let what = What::OperationStarted(OperationStarted { booking_id: name.to_owned(), operation: 0 });
    AgentEvent { seq: 0, at_ms: 1, machine_id: "m".to_owned(), what: Some(what) }
}

fn state(at_ms: i64, state: MachineState) -> AgentEvent {
    let what = What::StateChanged(StateChanged { state: state.into() });
    AgentEvent { seq: 0, at_ms, machine_id: "flapper".to_owned(), what: Some(what) }
}

fn entry(events: Vec<AgentEvent>, mark: &str) -> Entry {
    Entry { events, mark: Some(Mark { key: "m".to_owned(), state: mark.to_owned().into_bytes().into() }) }
}

fn name(event: &AgentEvent) -> String {
    match &event.what {
        Some(What::OperationStarted(started)) => started.booking_id.clone(),
        other => format!("{other:?}"),
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.to_string_lossy().contains("segment-")).collect();
    paths.sort();
    paths
}

fn open(dir: &Path) -> Log {
    Log::open(dir, || "id".to_owned()).unwrap()
}

/// What a crash leaves of a write that was not synced.
#[derive(Clone, Debug)]
enum Torn {
    /// Its first bytes, of a thousand.
    Prefix(usize),
    /// All of its length, with zeros from a place on.
    Zeros(usize),
    /// All of its length, with one byte wrong.
    Flipped(usize),
    /// All of it.
    Whole,
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<u8>),
    Trim(u8),
    Crash(u8, Torn),
}

fn torn() -> impl Strategy<Value = Torn> {
    prop_oneof![
        (0_usize..1000).prop_map(Torn::Prefix),
        (0_usize..1000).prop_map(Torn::Zeros),
        (0_usize..1000).prop_map(Torn::Flipped),
        Just(Torn::Whole),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(0_u8..4, 1..5).prop_map(Step::Commit),
        1 => any::<u8>().prop_map(Step::Trim),
        2 => (1_u8..4, torn()).prop_map(|(events, torn)| Step::Crash(events, torn)),
    ]
}

/// Writes a frame without syncing, and does to the file what a crash may do to what was not synced.
fn crash(mut log: Log, dir: &Path, events: u8, names: &mut u64, torn: &Torn) -> Vec<String> {
    let path = segments(dir).pop().unwrap();
    let before = std::fs::metadata(&path).unwrap().len() as usize;
    let new: Vec<_> = (0..events)
        .map(|_| {
            *names += 1;
            started(&names.to_string())
        })
        .collect();
    let lost = new.iter().map(name).collect();
    log.write(Group { entries: vec![entry(new, &names.to_string())], ..Group::default() }).unwrap();
    let path = segments(dir).pop().filter(|last| *last != path).unwrap_or(path);
    let before = if std::fs::metadata(&path).unwrap().len() as usize > before { before } else { 0 };
    drop(log);
    let mut bytes = std::fs::read(&path).unwrap();
    let place = |permille: usize| before + (bytes.len() - before - 1) * permille / 1000;
    match torn {
        Torn::Prefix(permille) => {
            let at = place(*permille);
            bytes.truncate(at)
        }
        Torn::Zeros(permille) => {
            let at = place(*permille);
            bytes[at..].fill(0)
        }
        Torn::Flipped(permille) => {
            let at = place(*permille);
            bytes[at] ^= 0x55
        }
        Torn::Whole => {}
    }
    std::fs::write(&path, bytes).unwrap();
    lost
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn no_crash_loses_a_synced_event_or_repeats_a_number(steps in proptest::collection::vec(step(), 1..25)) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        // The event with number n + 1, as it must be found.
        let mut synced: Vec<String> = Vec::new();
        let mut names = 0;
        let mut mark = None;
        let mut noted = 0;
        for step in steps {
            match step {
                Step::Commit(sizes) => {
                    let mut entries = Vec::new();
                    for size in sizes {
                        let new: Vec<_> = (0..size).map(|_| { names += 1; started(&names.to_string()) }).collect();
                        synced.extend(new.iter().map(name));
                        mark = Some(names.to_string());
                        entries.push(entry(new, &names.to_string()));
                    }
                    log.commit(entries).unwrap();
                }
                Step::Trim(share) => {
                    log.trim(synced.len() as u64 * u64::from(share) / 255).unwrap();
                    log.note_acked().unwrap();
                    noted = log.acked_seq();
                }
                Step::Crash(events, torn) => {
                    let written = crash(log, dir.path(), events, &mut names, &torn);
                    log = open(dir.path());
                    if log.last_seq() as usize > synced.len() {
                        // Not synced, and yet it survived: whole, or not at all.
                        synced.extend(written);
                        mark = Some(names.to_string());
                    }
                }
            }
            prop_assert_eq!(log.last_seq() as usize, synced.len());
            prop_assert_eq!(log.acked_seq(), noted);
            let from = log.first_seq();
            let found = log.read(from, usize::MAX).unwrap();
            let expected: Vec<_> = (from..).zip(&synced[from as usize - 1..]).collect();
            prop_assert_eq!(found.len(), expected.len());
            for (event, (seq, expected)) in found.iter().zip(expected) {
                prop_assert_eq!((event.seq, &name(event)), (seq, expected));
            }
            let kept = log.marks().get("m").map(|state| String::from_utf8_lossy(state).into_owned());
            prop_assert_eq!(&kept, &mark);
        }
    }

    #[test]
    fn damage_in_the_middle_is_refused(at in 0_usize..100_000, flip in 1_u8..=255) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        for number in 0..20 {
            log.commit(vec![entry(vec![started(&number.to_string())], "")]).unwrap();
        }
        drop(log);
        let path = segments(dir.path()).pop().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        // Not in the last frame: there it could be a torn write.
        let at = at % (bytes.len() - 80);
        bytes[at] ^= flip;
        std::fs::write(&path, bytes).unwrap();
        let refused = Log::open(dir.path(), || "new".to_owned());
        prop_assert!(matches!(refused, Err(LogError::Damaged { .. })), "byte {}", at);
    }
}

#[test]
fn segments_that_are_acknowledged_go_and_marks_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let long = "x".repeat(1000);
    let entries = SEGMENT_BYTES_MAX / 1000 * 3;
    for number in 0..entries / 16 {
        let of = |at: u64| entry(vec![started(&long)], &(number * 16 + at).to_string());
        log.commit((0..16).map(of).collect()).unwrap();
    }
    let entries = log.last_seq();
    assert!(segments(dir.path()).len() >= 3);
    assert_eq!(log.read(entries / 2, 10).unwrap()[0].seq, entries / 2);
    log.trim(entries - 1).unwrap();
    assert_eq!(segments(dir.path()).len(), 1);
    drop(log);
    let log = open(dir.path());
    assert_eq!(log.last_seq(), entries);
    assert_eq!(log.marks()["m"], (entries - 1).to_string().as_bytes());
    assert_eq!(log.read(entries, 10).unwrap().len(), 1);
}

#[test]
fn a_new_outbox_takes_over_what_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.commit((0..10).map(|number| entry(vec![started(&number.to_string())], "mark")).collect()).unwrap();
    log.trim(7).unwrap();
    log.refound("another".to_owned()).unwrap();
    drop(log);
    let log = open(dir.path());
    assert_eq!((log.outbox_id(), log.last_seq()), ("another", 3));
    let names: Vec<_> = log.read(1, 10).unwrap().iter().map(name).collect();
    assert_eq!(names, ["7", "8", "9"]);
    assert_eq!(log.marks()["m"], b"mark".as_slice());
}

#[test]
fn a_new_outbox_begins_with_what_still_holds() {
    let on = |machine: &str, event: AgentEvent| AgentEvent { machine_id: machine.to_owned(), ..event };
    let down = What::MachineDown(MachineDown { reason: "spindle".to_owned(), expected_until_s: 0 });
    let down = AgentEvent { what: Some(down), ..started("") };
    let up = AgentEvent { what: Some(What::MachineUp(MachineUp {})), ..started("") };
    let over = |booking_id: &str| {
        let done = OperationFinished { booking_id: booking_id.to_owned(), ..OperationFinished::default() };
        AgentEvent { what: Some(What::OperationFinished(done)), ..started("") }
    };
    let lost = OperationScrapped { booking_id: "third".to_owned(), ..OperationScrapped::default() };
    let scrapped = AgentEvent { what: Some(What::OperationScrapped(lost)), ..started("") };
    let told = [
        on("quiet", state(1, MachineState::Idle)),
        on("broken", down.clone()),
        on("mended", down.clone()),
        on("busy", started("first")),
        on("busy", over("first")),
        on("busy", started("second")),
        on("busy", over("nothing")),
        on("mended", up),
        on("idle", started("third")),
        on("idle", scrapped),
        on("flapper", state(2, MachineState::Producing)),
        // So far it is acknowledged.
        on("flapper", state(3, MachineState::Off)),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.commit(told.iter().map(|event| entry(vec![event.clone()], "")).collect()).unwrap();
    log.trim(told.len() as u64 - 1).unwrap();
    // As it is known from the disk, too.
    log.note_acked().unwrap();
    drop(log);
    let mut log = open(dir.path());
    log.refound("another".to_owned()).unwrap();
    let found = log.read(1, 100).unwrap();
    // What follows says more of the flapper than what was before.
    let expected = [0, 1, 4, 5, 6, 11].map(|at| &told[at]);
    let numbered = (1..).zip(expected).map(|(seq, event)| AgentEvent { seq, ..event.clone() });
    assert_eq!(found, numbered.collect::<Vec<_>>());
    // And once more, without telling anything twice.
    log.trim(log.last_seq()).unwrap();
    log.refound("a third".to_owned()).unwrap();
    assert_eq!(log.read(1, 100).unwrap(), found);
}

#[test]
fn two_processes_do_not_share_an_outbox() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    assert!(matches!(Log::open(dir.path(), || "x".to_owned()), Err(LogError::InUse { .. })));
}

#[test]
fn what_is_acknowledged_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.commit((0..10).map(|number| entry(vec![started(&number.to_string())], "")).collect()).unwrap();
    log.trim(3).unwrap();
    log.note_acked().unwrap();
    drop(log);
    let mut log = open(dir.path());
    assert_eq!((log.acked_seq(), log.last_seq()), (3, 10));
    // With the next entries, and no write of its own.
    log.trim(7).unwrap();
    log.commit(vec![entry(vec![started("10")], "")]).unwrap();
    let bytes = log.bytes();
    log.note_acked().unwrap();
    assert_eq!(log.bytes(), bytes);
    drop(log);
    assert_eq!(open(dir.path()).acked_seq(), 7);
}

fn small(dir: &Path) -> Outbox {
    outbox::open(&outbox::Options { dir: dir.to_owned(), bytes_max: BYTES_MAX_LEAST }, &Ground::Machine)
        .unwrap()
}

/// What stands on disk once a process is gone that said nothing to its outbox.
async fn found_after_a_kill(outbox: Outbox, dir: &Path) -> Vec<AgentEvent> {
    drop(outbox);
    loop {
        match Log::open(dir, || "new".to_owned()) {
            Ok(log) => return log.read(log.first_seq(), usize::MAX).unwrap(),
            Err(LogError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn every_state_change_that_was_answered_is_on_disk_after_a_kill_however_full_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = small(dir.path());
    let long = "x".repeat(4000);
    let mut told: Vec<i64> = Vec::new();
    // A machine that flaps every millisecond, until there is no room for another long event.
    while outbox.status().borrow().bytes + 8_000 < BYTES_MAX_LEAST {
        outbox.append(entry(vec![started(&long)], "")).await.unwrap();
        for _ in 0..3 {
            let at_ms = told.len() as i64;
            let flap = if at_ms % 2 == 0 { MachineState::Idle } else { MachineState::Producing };
            outbox.append(Entry { events: vec![state(at_ms, flap)], mark: None }).await.unwrap();
            told.push(at_ms);
        }
    }
    let found = found_after_a_kill(outbox, dir.path()).await;
    let states = found.iter().filter(|event| event.machine_id == "flapper").map(|event| event.at_ms);
    assert_eq!(states.collect::<Vec<_>>(), told);
}

#[tokio::test]
async fn when_it_is_full_whoever_appends_waits_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = small(dir.path());
    let long = "x".repeat(4000);
    while outbox.status().borrow().bytes < BYTES_MAX_LEAST {
        outbox.append(entry(vec![started(&long)], "")).await.unwrap();
    }
    let written = outbox.status().borrow().last_seq;
    let (more, own) = (outbox.clone(), long.clone());
    let flapping = tokio::spawn(async move {
        for at_ms in 0..100 {
            let flap = if at_ms % 2 == 0 { MachineState::Idle } else { MachineState::Producing };
            more.append(Entry { events: vec![state(at_ms, flap)], mark: None }).await.unwrap();
        }
    });
    let more = outbox.clone();
    let working = tokio::spawn(async move { more.append(entry(vec![started(&own)], "")).await.unwrap() });
    outbox.status().wait_for(|status| status.waiting == 2).await.unwrap();
    assert_eq!(outbox.status().borrow().last_seq, written);
    outbox.trim(written).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(flapping, working) })
        .await
        .unwrap()
        .0
        .unwrap();
    let rest = outbox.read(written + 1, 1000).await.unwrap();
    let states = rest.iter().filter(|event| event.machine_id == "flapper").map(|event| event.at_ms);
    assert_eq!(states.collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert_eq!(rest.len(), 101);
}
