//! Raw samples: what an adapter reads is what is kept, for as long as the plant wants; what is asked for comes back, from
//! the running agent; and a store that is damaged, too large or not there keeps nobody from working.

use crate::support::plant::Plant;
use crate::support::{Cable, Coordinator};
use flate2::read::GzDecoder;
use millpool_node_agent::adapter::history::Rules;
use millpool_node_agent::adapter::mapping::SignalFile;
use millpool_node_agent::adapter::{Time, mtconnect};
use millpool_node_agent::clock::Clock;
use millpool_node_agent::health::{Health, SamplesReport};
use millpool_node_agent::replay::{self, Replay};
use millpool_node_agent::samples::ask::Part;
use millpool_node_agent::samples::{
    DAMAGED, FOLDER, Options, Question, Reading, Readings, Row, Samples, Signal, Tally, Value,
};
use millpool_proto::v1::agent_event::What;
use millpool_proto::v1::{DispatchItem, DispatchList, MachineState};
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const BINARY: &str = env!("CARGO_BIN_EXE_millpool-node-agent");
const DAY_MS: i64 = 86_400_000;
/// 2026-11-27, noon.
const NOON_MS: i64 = 20_784 * DAY_MS + DAY_MS / 2;

/// A store in a folder, and what is said of it.
struct Store {
    samples: Samples,
    health: Health,
}

impl Store {
    fn open(dir: &Path, options: Options, wall_ms: fn() -> i64) -> Self {
        let health = Health::new("plant", "agent");
        let clock = Clock::default().read_by(wall_ms);
        let samples = Samples::open(dir, "plant", options, clock, health.clone()).unwrap();
        Self { samples, health }
    }

    /// Keeps powers of machine m, in W.
    async fn keep(&self, powers: &[(i64, f64)]) {
        let mut readings = Readings::default();
        for (at_ms, power_w) in powers {
            readings.note(*at_ms, &[Reading::measured(Signal::Power, Some(*power_w))]);
        }
        self.samples.put(&Arc::from("m"), &mut readings);
        self.samples.settle().await;
    }

    async fn ask(&self, from_ms: i64, until_ms: i64) -> (Vec<Row>, Result<Vec<Tally>, String>) {
        let machine = "m".to_owned();
        ask(&self.samples, Question { machine, signal: None, from_ms, until_ms, rows: true }).await
    }

    /// All powers of machine m.
    async fn powers(&self) -> Vec<(i64, f64)> {
        let (rows, summary) = self.ask(0, i64::MAX).await;
        summary.unwrap();
        rows.iter().map(|row| (row.at_ms, row.value.as_number().unwrap())).collect()
    }

    fn report(&self) -> SamplesReport {
        self.health.report().samples.unwrap()
    }
}

async fn ask(samples: &Samples, question: Question) -> (Vec<Row>, Result<Vec<Tally>, String>) {
    let mut parts = match samples.ask(question).await {
        Ok(parts) => parts,
        Err(why) => return (Vec::new(), Err(why)),
    };
    let mut rows = Vec::new();
    while let Some(part) = parts.recv().await {
        match part {
            Part::Rows(more) => rows.extend(more),
            Part::Summary(tallies) => return (rows, Ok(tallies)),
            Part::Broken(why) => return (rows, Err(why)),
        }
    }
    panic!("an answer without an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_kept_for_their_days_and_then_dropped_through_a_restart() {
    static NOW_MS: AtomicI64 = AtomicI64::new(NOON_MS);
    let now = || NOW_MS.load(Ordering::Relaxed);
    let dir = tempfile::tempdir().unwrap();
    let options = Options { keep_days: 3, ..Options::default() };
    let store = Store::open(dir.path(), options, now);
    let ago = |days: i64| NOON_MS - days * DAY_MS;
    store.keep(&[(ago(4), 4.0), (ago(3), 3.0), (ago(2), 2.0), (ago(0), 0.0)]).await;
    let kept = [(ago(3), 3.0), (ago(2), 2.0), (ago(0), 0.0)];
    assert_eq!(store.powers().await, kept, "what is too old already is not taken");
    store.samples.close().await;

    NOW_MS.store(NOON_MS + DAY_MS, Ordering::Relaxed);
    let store = Store::open(dir.path(), options, now);
    assert_eq!(store.powers().await, kept[1..], "its time was up at midnight");
    let report = store.report();
    assert_eq!((report.days, report.oldest_day.as_deref(), report.trouble), (2, Some("2026-11-25"), None));
    store.samples.close().await;

    NOW_MS.store(NOON_MS + 10 * DAY_MS, Ordering::Relaxed);
    let store = Store::open(dir.path(), options, now);
    assert_eq!(store.powers().await, []);
    assert_eq!(store.report().days, 0);
    store.samples.close().await;
    let kept = std::fs::read_dir(dir.path().join(FOLDER).join("keyspaces")).unwrap().count();
    assert_eq!(kept, 1, "of the days nothing is left on disk but the store's own list of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_size_the_oldest_days_go_and_today_stays_and_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default(), || NOON_MS);
    let powers = [(NOON_MS - 2 * DAY_MS, 2.0), (NOON_MS - DAY_MS, 1.0), (NOON_MS - 5_000, 0.0)];
    store.keep(&powers).await;
    assert_eq!(store.powers().await, powers);
    store.samples.close().await;

    let store = Store::open(dir.path(), Options { bytes_max: 1, ..Options::default() }, || NOON_MS);
    assert_eq!(store.powers().await, powers[2..]);
    store.keep(&[(NOON_MS, 9.0)]).await;
    assert_eq!(store.powers().await, powers[2..]);
    let trouble = store.report().trouble.unwrap();
    assert!(trouble.contains("bytes_max"), "{trouble}");
    store.samples.close().await;

    let store = Store::open(dir.path(), Options::default(), || NOON_MS);
    store.keep(&[(NOON_MS, 9.0)]).await;
    assert_eq!(store.powers().await, [powers[2], (NOON_MS, 9.0)]);
    assert_eq!(store.report().trouble, None);
    store.samples.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_what_comes_from_its_first_moment_to_before_its_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default(), || NOON_MS);
    let midnight_ms = NOON_MS - DAY_MS / 2;
    // Two hours around midnight.
    let all: Vec<_> = (-3_600..3_600).map(|s| (midnight_ms + s * 1_000, (s + 5_000) as f64 / 4.0)).collect();
    store.keep(&all).await;
    let powers = store.powers().await;
    assert!(
        powers == all,
        "{} of {}: {:?}",
        powers.len(),
        all.len(),
        powers.iter().zip(&all).find(|(a, b)| a != b)
    );
    for (from, until) in [(0, 7_200), (1, 7_199), (3_599, 3_602), (3_600, 3_600), (10, 11), (7_199, 7_200)] {
        let at = |index: usize| all.get(index).map_or(all[7_199].0 + 1_000, |(at_ms, _)| *at_ms);
        let (rows, summary) = store.ask(at(from), at(until)).await;
        let told: Vec<_> = rows.iter().map(|row| (row.at_ms, row.value)).collect();
        let expected: Vec<_> =
            all[from..until].iter().map(|(at_ms, number)| (*at_ms, Value::Number(*number))).collect();
        assert!(told == expected, "{from} to {until}: {} samples", told.len());
        let Some((last, tally)) = expected.last().zip(summary.unwrap().pop()) else { continue };
        assert_eq!((tally.count, tally.last), (expected.len() as u64, *last));
        let number = |index: usize| expected[index].1.as_number();
        assert_eq!((tally.min, tally.max), (number(0), number(expected.len() - 1)));
        let mean = (number(0).unwrap() + last.1.as_number().unwrap()) / 2.0;
        assert!((tally.mean.unwrap() - mean).abs() < 1e-6, "{tally:?}, {mean}");
    }
    for row in store.ask(0, i64::MAX).await.0 {
        assert_eq!((row.unit.name(), row.quality.unwrap().name()), ("W", "measured"));
    }
    // Machines and signals that begin alike are others.
    let other = |machine: &str, signal| Question {
        machine: machine.to_owned(),
        signal,
        from_ms: 0,
        until_ms: i64::MAX,
        rows: true,
    };
    assert_eq!(ask(&store.samples, other("m-1", None)).await, (Vec::new(), Ok(Vec::new())));
    assert_eq!(ask(&store.samples, other("m", Some(Signal::Load))).await, (Vec::new(), Ok(Vec::new())));
    store.samples.close().await;
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// What can become of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Harm {
    Rubbish,
    Beginning,
    Gone,
}

impl Harm {
    fn befall(self, file: &Path) {
        let mut bytes = std::fs::read(file).unwrap();
        let harmed = match self {
            Self::Rubbish => bytes.len().min(1 << 20),
            Self::Beginning => bytes.len().min(48),
            Self::Gone => return std::fs::remove_file(file).unwrap(),
        };
        bytes[..harmed].fill(0xa5);
        std::fs::write(file, bytes).unwrap();
    }
}

/// Whatever file of the store has rubbish in it, or is gone: the agent goes on, and either all that was kept is told, or
/// what is wrong is said, and the damaged store is still there to be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_moved_aside_or_said_to_be_broken_and_new_samples_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("good"), Options::default(), || NOON_MS);
    let yesterday = [(NOON_MS - DAY_MS, 1.0), (NOON_MS - DAY_MS + 1_000, 2.0)];
    store.keep(&yesterday).await;
    // The next day makes a table of it.
    let today = [(NOON_MS - 5_000, 3.0)];
    store.keep(&today).await;
    let good = dir.path().join("good").join(FOLDER);
    let all = [&yesterday[..], &today].concat();
    let mut files = Vec::new();
    for _ in 0..200 {
        files.clear();
        files_below(&good, &mut files);
        if files.iter().any(|file| file.parent().unwrap().ends_with("tables")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.samples.close().await;
    files.clear();
    files_below(&good, &mut files);
    let (mut aside, mut broken) = (0, 0);
    for (at, file) in files.iter().enumerate() {
        let name = file.strip_prefix(&good).unwrap();
        if name == Path::new("lock") {
            continue;
        }
        for harm in [Harm::Rubbish, Harm::Beginning, Harm::Gone] {
            let folder = dir.path().join(format!("{at}-{harm:?}"));
            copy(&good, &folder.join(FOLDER));
            harm.befall(&folder.join(FOLDER).join(name));
            let store = Store::open(&folder, Options::default(), || NOON_MS);
            store.keep(&[(NOON_MS, 7.0)]).await;
            let (rows, summary) = store.ask(NOON_MS, i64::MAX).await;
            let what = format!("{} {harm:?}: {:?} {summary:?}", name.display(), store.report());
            assert_eq!(rows.iter().map(|row| row.value).collect::<Vec<_>>(), [Value::Number(7.0)], "{what}");
            let trouble = store.report().trouble.unwrap_or_default();
            let (rows, summary) = store.ask(0, NOON_MS).await;
            if trouble.contains("was damaged") {
                aside += 1;
                assert!(folder.join(DAMAGED).is_dir(), "{what}");
                assert_eq!((rows.len(), summary), (0, Ok(Vec::new())), "{what}");
            } else if let Err(why) = summary {
                broken += 1;
                assert!(why.contains("cannot be read to the end"), "{what}");
            } else if name.extension().is_none_or(|kind| kind != "jnl")
                && !(harm == Harm::Gone && name.ends_with("current"))
            {
                // A journal's torn end is what a crash leaves, and a day that does not say which of its tables count is
                // one that had not begun: what they had is not told.
                let told: Vec<_> =
                    rows.iter().map(|row| (row.at_ms, row.value.as_number().unwrap())).collect();
                assert_eq!(told, all, "{what}");
            }
            store.samples.close().await;
        }
    }
    println!("of {} files: {aside} times moved aside, {broken} times said to be broken", files.len());
    assert!(aside > 0 && broken > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_made_is_shown_and_keeps_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FOLDER), "no folder").unwrap();
    let store = Store::open(dir.path(), Options::default(), || NOON_MS);
    store.keep(&[(NOON_MS, 1.0)]).await;
    let (_, answer) = store.ask(0, i64::MAX).await;
    assert!(answer.unwrap_err().contains("closed"));
    let trouble = store.report().trouble.unwrap();
    assert!(trouble.contains("cannot open"), "{trouble}");
    store.samples.close().await;
    let text = std::fs::read_to_string(dir.path().join(FOLDER)).unwrap();
    assert_eq!(text, "no folder", "what is no store is left alone");
}

/// A small disk that is gone with the test.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, mib: u32) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let disk = Self(at);
        disk.run(&["mount", "-t", "tmpfs", "-o", &format!("size={mib}m"), "small"]);
        disk
    }

    fn grow(&self, mib: u32) {
        self.run(&["mount", "-o", &format!("remount,size={mib}m")]);
    }

    fn run(&self, words: &[&str]) {
        assert!(Command::new(words[0]).args(&words[1..]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// `cargo nextest run --release -p millpool-node-agent --run-ignored only full_disk`, as root
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "mounts a small disk, as root"]
async fn a_full_disk_is_shown_keeps_nobody_waiting_and_is_gone_on_with_when_there_is_room() {
    static NOW_MS: AtomicI64 = AtomicI64::new(NOON_MS);
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::mount(dir.path().join("small"), 12);
    let store = Store::open(&disk.0, Options::default(), || NOW_MS.load(Ordering::Relaxed));
    let mut slowest = Duration::ZERO;
    let mut put = |seconds: i64| {
        let mut readings = Readings::default();
        for _ in 0..seconds {
            let at_ms = NOW_MS.fetch_add(1_000, Ordering::Relaxed);
            // No decimal of three places, so that it takes its eight bytes.
            let power = Reading::measured(Signal::Power, Some((at_ms as f64).sqrt()));
            readings.note(at_ms, &[power]);
        }
        let began = std::time::Instant::now();
        store.samples.put(&Arc::from("m"), &mut readings);
        slowest = slowest.max(began.elapsed());
    };
    let begin_ms = NOON_MS;
    let mut batches = 0;
    store.samples.settle().await;
    while store.report().trouble.is_none() && batches < 1_000 {
        put(5_000);
        store.samples.settle().await;
        batches += 1;
    }
    let trouble = store.report().trouble.unwrap();
    println!("after {batches} batches: {trouble}");
    assert!(store.ask(0, i64::MAX).await.1.is_err(), "it is closed");
    // Half a minute and more, in which it is tried again and fails again.
    for _ in 0..40 {
        put(100);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("still: {:?}", store.report().trouble);
    assert!(!disk.0.join(DAMAGED).exists(), "a full disk is no damage");
    disk.grow(400);
    for _ in 0..80 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.samples.settle().await;
        if store.report().trouble.is_none() && store.ask(0, i64::MAX).await.1.is_ok() {
            break;
        }
    }
    put(10);
    let end_ms = NOW_MS.load(Ordering::Relaxed);
    let (before, summary) = store.ask(begin_ms, begin_ms + 5_000_000).await;
    summary.unwrap();
    assert_eq!(before.len(), 5_000, "what was written before is there");
    assert_eq!(store.ask(end_ms - 10_000, end_ms).await.0.len(), 10, "and what comes now is kept");
    assert!(!disk.0.join(DAMAGED).exists());
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    store.samples.close().await;
}

/// The samples of a recorded day are its lines: the spindle's load with its times, thinned, and every change of state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_machine_reads_is_what_is_kept() {
    let data = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/nist").join(name);
        std::fs::read(file).unwrap()
    };
    let unzipped = |name: &str| {
        let mut text = String::new();
        GzDecoder::new(data(name).as_slice()).read_to_string(&mut text).unwrap();
        text
    };
    let recording = "Mazak03-20161220-20161221.shdr.txt.gz";
    let day = replay::Options { speed: 5_000.0, ..replay::Options::new("Mazak03") };
    let replay = Replay::new(&unzipped("smstestbed_Devices.xml.gz"), &data(recording), day).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = replay.router();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let dir = tempfile::tempdir().unwrap();
    // 2016-12-21, 12:00: when the recording is over.
    let store = Store::open(dir.path(), Options::default(), || 1_482_321_600_000);
    let load = SignalFile::Source("S2load".to_owned()).into();
    let options = mtconnect::Options {
        url: format!("http://{address}"),
        device: Some("Mazak03".to_owned()),
        heartbeat_ms: 250,
        interval_ms: 5,
        time: Time::Source,
        signals: [(mtconnect::Signal::Load, load)].into(),
        conditions: None,
        rules: Rules::default(),
    };
    let client = mtconnect::client().unwrap();
    let samples = store.samples.clone();
    let plant = Plant::start(&dir.path().join("agent"), |mut shop, stop| {
        shop.samples = samples;
        mtconnect::run("m".to_owned(), options, client, shop, stop)
    });
    plant.until("the first document", |events| !events.is_empty()).await;
    replay.feed().await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let events = plant.events().await;
    plant.stop().await;
    serving.abort();
    let (rows, summary) = store.ask(0, i64::MAX).await;
    summary.unwrap();

    let of = |signal| rows.iter().filter(move |row| row.signal == signal);
    let told: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.what {
            Some(What::StateChanged(changed)) => Some((event.at_ms, changed.state())),
            _ => None,
        })
        .collect();
    // Unchanged ones are repeated.
    let mut kept: Vec<_> = of(Signal::State).map(|row| (row.at_ms, row.value)).collect();
    kept.dedup_by_key(|(_, value)| *value);
    let told: Vec<_> = told.into_iter().map(|(at_ms, state)| (at_ms, Value::State(state))).collect();
    assert!(kept.len() > 20);
    assert_eq!(kept[1..], told[1..], "every change of state, with its time");

    let shdr = unzipped(recording);
    let lines: Vec<(i64, &str)> = shdr
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split('|').collect();
            let at = fields.iter().skip(1).step_by(2).position(|name| *name == "S2load")?;
            let at_ms = fields[0].parse::<jiff::Timestamp>().ok()?.as_millisecond();
            Some((at_ms, fields[2 + 2 * at]))
        })
        .collect();
    let recorded: BTreeSet<_> = lines.iter().map(|(at_ms, text)| (*at_ms, text.parse().ok())).collect();
    let recorded: BTreeSet<(i64, Option<u64>)> = recorded;
    let loads: Vec<_> = of(Signal::Load).collect();
    let mut own = 0;
    for pair in loads.windows(2) {
        let [before, row] = pair else { unreachable!() };
        assert_eq!(row.unit.name(), "%");
        let here = (row.at_ms, row.value.as_number().map(|number| number as u64));
        if row.value == before.value {
            assert!(row.at_ms - before.at_ms >= 600_000 || recorded.contains(&here), "{before:?} {row:?}");
        } else {
            own += 1;
            let lost = row.value == Value::Gap;
            assert!(lost || recorded.contains(&here), "not in the recording: {row:?}");
        }
    }
    println!("{} lines of load are {} samples, {own} of them changes", lines.len(), loads.len());
    assert!(own * 2 > lines.len() && own <= lines.len(), "{own} of {}", lines.len());
    store.samples.close().await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A day of a hundred machines whose load, power and meter all change every second: what it takes on disk and in memory.
/// `cargo nextest run --release -p millpool-node-agent --run-ignored only --no-capture figures_of_a_day`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, by hand"]
async fn figures_of_a_day_of_samples() {
    static NOW_MS: AtomicI64 = AtomicI64::new(NOON_MS - DAY_MS / 2);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default(), || NOW_MS.load(Ordering::Relaxed));
    store.samples.settle().await;
    let mut machines: Vec<(Arc<str>, Readings)> =
        (0..100).map(|at| (Arc::from(format!("plant-04-mill-{at}")), Readings::default())).collect();
    let (before_kib, began) = (resident_kib(), std::time::Instant::now());
    let (mut chance, mut samples, mut peak_kib) = (1_u64, 0_u64, 0);
    for second in 0..86_400 {
        let at_ms = NOW_MS.fetch_add(1_000, Ordering::Relaxed) + 1_000;
        for (at, (machine, readings)) in machines.iter_mut().enumerate() {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(at as u64 | 1);
            let noise = (chance >> 40) % 2_000;
            let of = |signal, number| Reading::measured(signal, Some(number));
            let read = [
                of(Signal::Load, (20 + noise % 60) as f64),
                of(Signal::Power, 40_000.0 / 10.0 + noise as f64 / 10.0),
                of(Signal::Energy, (second * 1_100 + noise / 4) as f64 / 1_000.0),
            ];
            readings.note(at_ms, &read);
            samples += 3;
            store.samples.put(machine, readings);
        }
        if second % 10 == 9 {
            store.samples.settle().await;
            peak_kib = peak_kib.max(resident_kib());
        }
    }
    let took = began.elapsed();
    let asked = std::time::Instant::now();
    let question = Question {
        machine: "plant-04-mill-7".to_owned(),
        signal: None,
        from_ms: 0,
        until_ms: i64::MAX,
        rows: true,
    };
    let (rows, summary) = ask(&store.samples, question).await;
    summary.unwrap();
    let (asked, rows) = (asked.elapsed(), rows.len());
    store.samples.close().await;
    let mut files = Vec::new();
    files_below(&dir.path().join(FOLDER), &mut files);
    let size = |journal: bool| -> u64 {
        let of = files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "jnl") == journal);
        of.map(|file| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(file).unwrap()) * 512).sum()
    };
    let (tables, journals) = (size(false), size(true));
    println!(
        "{samples} samples in {took:?}; {:.1} bytes a sample in tables ({} MB), journals {} MB; {before_kib} KiB resident \
         before, {peak_kib} at most; {rows} rows of a machine asked in {asked:?}",
        tables as f64 / samples as f64,
        tables / 1_000_000,
        journals / 1_000_000,
    );
}

/// A running agent, and the terminal before it.
struct Shift {
    config: PathBuf,
    agent: Option<Child>,
}

impl Shift {
    fn new(dir: &Path, coordinator: std::net::SocketAddr, http: u16, more: &str) -> Self {
        let config = dir.join("agent.toml");
        let text = format!(
            "data_dir = {dir:?}\n[http]\nlisten = \"127.0.0.1:{http}\"\n[coordinator]\naddresses = [\"{coordinator}\"]\n\
             insecure_dev = true\n[[agent]]\nplant = \"plant\"\nid = \"agent\"\nsimulated_machines = [\"sim-1\"]\n{more}\n\
             [[agent.machine]]\nid = \"lathe-3\"\nadapter = \"manual\"\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut shift = Self { config, agent: None };
        shift.start();
        shift
    }

    fn start(&mut self) {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(&self.config).args(["--log", "error"]).stderr(Stdio::null());
        self.agent = Some(command.spawn().unwrap());
        let asked = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            self.say(&["console", "list"]).0 == 0
        });
        assert!(asked, "no console within ten seconds");
    }

    fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// One command; its exit code, what it said, and what it complained of.
    fn say(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(BINARY);
        command.arg(words[0]).arg("--config").arg(&self.config).args(&words[1..]);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn samples(&self, words: &[&str]) -> (i32, String, String) {
        self.say(&[&["samples"], words].concat())
    }
}

impl Drop for Shift {
    fn drop(&mut self) {
        if self.agent.is_some() {
            self.kill();
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn get(port: u16, path: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("http://127.0.0.1:{port}/{path}")).send().await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analyst_asks_the_running_agent_and_what_was_asked_once_outlives_a_crash() {
    let coordinator = Coordinator::new();
    let stop = CancellationToken::new();
    let cable = Cable::to(coordinator.serve(&stop).await).await;
    let now_s = jiff::Timestamp::now().as_second();
    let work = DispatchItem {
        machine_id: "sim-1".into(),
        booking_id: "a".into(),
        start_s: now_s,
        end_s: now_s + 3_600,
        setup_s: 1,
        run_s: 3_599,
        quantity: 1,
        ..DispatchItem::default()
    };
    let list = DispatchList { plant_id: "plant".into(), revision: 1, items: vec![work] };
    coordinator.manner(|manner| manner.list = Some(list));
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut shift = Shift::new(dir.path(), cable.address, port, "");
    let producing = |durable: &crate::support::Durable| {
        let mut events = durable.applied.values().flatten();
        events.any(|event| matches!(&event.what, Some(What::StateChanged(changed)) if changed.state() == MachineState::Producing))
    };
    coordinator.until("it works", producing).await;
    assert_eq!(shift.say(&["console", "down", "lathe-3", "the pump leaks"]).0, 0);

    let (code, said, _) = shift.samples(&["--machine", "sim-1"]);
    assert_eq!(code, 0, "{said}");
    for words in ["sim-1 from ", "signal ", "state ", "producing at ", "power W", "6000 at ", "modelled"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (code, csv, _) = shift.samples(&["--machine", "sim-1", "--from", "-1h", "--csv"]);
    assert_eq!(code, 0, "{csv}");
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines[0], "time,machine,signal,value,unit,quality");
    let rows: Vec<Vec<&str>> = lines[1..].iter().map(|line| line.split(',').collect()).collect();
    let values = |signal: &str| -> Vec<&str> {
        rows.iter().filter(|row| row[2] == signal).map(|row| row[3]).collect()
    };
    let states = values("state");
    assert_eq!(states[states.len() - 2..], ["setup", "producing"], "{csv}");
    let powers = values("power");
    assert_eq!(powers.last(), Some(&"6000"), "{csv}");
    for row in &rows {
        assert!(row[0].ends_with('Z') && row[0].parse::<jiff::Timestamp>().is_ok(), "{row:?}");
        let expected = if row[2] == "power" { ["sim-1", "W", "modelled"] } else { ["sim-1", "", "modelled"] };
        assert_eq!([row[1], row[4], row[5]], expected, "{row:?}");
    }
    let (_, said, _) = shift.samples(&["--machine", "lathe-3", "--signal", "state", "--csv"]);
    assert!(said.contains(",lathe-3,state,unknown,,") && said.contains(",lathe-3,state,blocked,,"), "{said}");

    for (words, code, why) in [
        (&["--machine", "sim-2"][..], 1, "machine = \"sim-2\": accepted is one of lathe-3, sim-1"),
        (
            &["--machine", "sim-1", "--signal", "speed"],
            2,
            "accepted is one of state, part_count, load, power, energy",
        ),
        (&["--machine", "sim-1", "--from", "soon"], 1, "accepted is a time of day (14:30)"),
        (&["--machine", "sim-1", "--from", "-1h", "--to", "-2h"], 1, "accepted is a time before --to"),
        (&["--machine", "sim-1", "--plant", "p9"], 69, "--plant = p9: accepted is one of plant"),
    ] {
        let refused = shift.samples(words);
        assert!(refused.0 == code && refused.2.contains(why), "{words:?}: {refused:?}");
    }
    let (code, said, _) = shift.samples(&["--machine", "sim-1", "--from", "-3h", "--to", "-2h"]);
    assert!(code == 0 && said.contains("no samples"), "{said}");

    let health = get(port, "health").await;
    assert!(health.contains("\"samples\": {") && health.contains("\"days\": 1"), "{health}");
    let metrics = get(port, "metrics").await;
    for meter in ["samples_kept_total", "samples_bytes", "samples_days"] {
        assert!(
            metrics.contains(&format!("millpool_agent_{meter}{{plant=\"plant\"}}")),
            "{meter}: {metrics}"
        );
    }
    assert!(metrics.contains("millpool_agent_samples_working{plant=\"plant\"} 1"), "{metrics}");

    shift.kill();
    assert_eq!(shift.samples(&["--machine", "sim-1"]).0, 69);
    shift.start();
    let (code, again, _) = shift.samples(&["--machine", "sim-1", "--from", "-1h", "--csv"]);
    assert_eq!(code, 0);
    assert!(again.starts_with(&lines[..2].join("\n")), "{again}\nafter\n{csv}");
    for line in &lines {
        assert!(again.contains(line), "{line} is not in {again}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plant_without_a_store_works_and_tells_as_ever() {
    for (more, why) in [("", "closed"), ("samples = { keep_days = 0 }", "keep_days = 0")] {
        let coordinator = Coordinator::new();
        let stop = CancellationToken::new();
        let cable = Cable::to(coordinator.serve(&stop).await).await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("plant")).unwrap();
        std::fs::write(dir.path().join("plant").join(FOLDER), "in the way").unwrap();
        let port = free_port();
        let shift = Shift::new(dir.path(), cable.address, port, more);
        assert_eq!(shift.say(&["console", "down", "lathe-3", "the pump leaks"]).0, 0);
        let down = |durable: &crate::support::Durable| {
            let mut events = durable.applied.values().flatten();
            events.any(|event| matches!(event.what, Some(What::MachineDown(_))))
        };
        coordinator.until("the word is told", down).await;
        let refused = shift.samples(&["--machine", "lathe-3"]);
        assert!(refused.0 == 1 && refused.2.contains(why), "{refused:?}");
        let health = get(port, "health").await;
        assert!(health.contains("\"well\": true"), "{health}");
        assert_eq!(health.contains("cannot open"), more.is_empty(), "{health}");
    }
}
