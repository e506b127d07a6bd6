//! Damage on a stopped node's disk: flipped bytes, files cut and gone, a torn tail.
//!
//! The damaged node is one of two that have everything that was acknowledged. The other of the two stays away, and
//! the third has been down from before the first booking. So whatever the damaged node has lost, nobody else can
//! bring back: it refuses to start, or the bookings show that nothing is missing.

use crate::args::Plant;
use crate::check::{Broken, broken};
use crate::machine;
use crate::stage::{Account, Run, Stage};
use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpool_proto::v1::{Changeover, Member, PutMachineRequest, PutMemberRequest};
use rand::{RngExt as _, rngs::StdRng};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The node whose disk is damaged.
const DAMAGED: usize = 0;
/// The node that knows as much, and stays away.
const AWAY: usize = 1;
/// The node that was down from before the first booking.
const BEHIND: usize = 2;

/// Bookings that are acknowledged before the damage.
const BOOKINGS: usize = 600;
/// How long they may take.
const BOOKED_WITHIN: Duration = Duration::from_secs(60);
/// Log entries between snapshots: the damaged node has two of them.
const SNAPSHOT_EVERY: u64 = 500;
/// Bytes that are put through the log before: more than it keeps in memory, so that it has tables, too.
const BALLAST_BYTES: usize = 36 << 20;
/// Setup families of the machine that is the ballast, and so the square of it changeovers.
const BALLAST_FAMILIES: usize = 32;
/// Entries after it: more than a node keeps that a snapshot has, so that the log begins after one.
const FILLER: usize = 5500;
/// Thereof on their way at once.
const AT_ONCE: usize = 32;
/// How long the damaged node may take to refuse, or to be served with.
const DECIDED_WITHIN: Duration = Duration::from_secs(20);
/// Exit codes with which a node refuses damaged data, or stops when it meets it.
const REFUSED: [i32; 2] = [3, 1];
/// One of these tells whoever runs it what to do.
const ADVICE: [&str; 3] = ["under a new id", "put back", "replace it"];

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// These bits of a byte change.
    Flip { at: u64, mask: u8 },
    /// The second half of what was written is gone.
    Half,
    /// It is gone.
    Gone,
    /// A write that was under way has got so far: a journal has the beginning of one more batch.
    Torn { bytes: u64 },
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip { at, mask } => write!(f, "byte {at} xor {mask:#04x}"),
            Self::Half => write!(f, "cut in half"),
            Self::Gone => write!(f, "gone"),
            Self::Torn { bytes } => write!(f, "a torn tail of {bytes} bytes"),
        }
    }
}

/// What the node made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Refused,
    Nothing,
}

/// Every file of the damaged node, one after another, each time from the same storage.
pub(crate) async fn run(run: &Run) -> anyhow::Result<Account> {
    let mut stage = two_know_what_the_third_does_not(run).await?;
    let sound = run.folder.join("sound");
    fs::create_dir_all(&sound)?;
    for index in [DAMAGED, BEHIND] {
        copy(stage.cluster.folder(index), &sound.join(index.to_string()))?;
    }
    let mut random = run.random();
    let mut counts = [0_usize; 2];
    let mut found = Vec::new();
    for file in files(&sound.join(DAMAGED.to_string()))? {
        let mut refused = 0;
        let blows = match run.plants(Plant::Swallow) {
            true if is_journal(&file) => vec![Blow::Half],
            true => Vec::new(),
            false => blows(&sound.join(DAMAGED.to_string()).join(&file), run.rounds, &mut random)?,
        };
        for blow in &blows {
            let trial = Trial { run, sound: &sound, file: &file, blow: *blow };
            match trial.play(&mut stage).await {
                Ok(made) => refused += usize::from(made == Made::Refused),
                Err(error) if error.is::<Broken>() => {
                    found.push(format!("{}, {blow}: {error}", file.display()));
                }
                Err(error) => return Err(error.context(format!("{}, {blow}", file.display()))),
            }
        }
        counts = [counts[0] + refused, counts[1] + blows.len()];
        let name = file.display();
        stage.account.notes.push(format!("{name}: {} blows, {refused} refused", blows.len()));
    }
    let [refused, struck] = counts;
    stage.account.faults = struck;
    let harmless = struck - refused - found.len();
    stage.account.notes.push(format!("{refused} of {struck} blows refused, {harmless} did no harm"));
    // With its own storage again, and all three nodes, everything is as it was.
    for index in [DAMAGED, BEHIND] {
        restore(&sound, index, stage.cluster.folder(index))?;
    }
    for index in [DAMAGED, AWAY, BEHIND] {
        stage.cluster.start_node(index)?;
    }
    let mut account = stage.finish().await?;
    account.verdict.faults.extend(found);
    Ok(account)
}

/// A cluster that is down, in which only two nodes have what was acknowledged.
async fn two_know_what_the_third_does_not(run: &Run) -> anyhow::Result<Stage> {
    let mut options = run.options();
    (options.snapshot_every, options.optimise_for_ms) = (SNAPSHOT_EVERY, 0);
    let mut stage = Stage::set_up(run, options).await?;
    ballast(&stage).await?;
    filler(&stage).await?;
    stage.cluster.wait_until_level(BOOKED_WITHIN).await?;
    stage.cluster.kill_node(BEHIND).await?;
    stage.go_to_work().await?;
    let began = Instant::now();
    while stage.book().count() < BOOKINGS {
        stage.check_alive()?;
        anyhow::ensure!(began.elapsed() < BOOKED_WITHIN, "too few bookings within {BOOKED_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.load.rest().await?;
    for index in [DAMAGED, AWAY] {
        stage.cluster.kill_node(index).await?;
    }
    Ok(stage)
}

/// Puts a machine with a long list of changeovers again and again.
async fn ballast(stage: &Stage) -> anyhow::Result<()> {
    let families: Vec<String> =
        (0..BALLAST_FAMILIES).map(|n| format!("ballast-{n:02}-{}", "f".repeat(28))).collect();
    let pairs = families.iter().flat_map(|from| families.iter().map(move |to| (from, to)));
    let changeovers: Vec<Changeover> = pairs
        .filter(|(from, to)| from != to)
        .map(|(from, to)| Changeover { from: from.clone(), to: to.clone(), seconds: 600 })
        .collect();
    let bytes: usize = changeovers.iter().map(|one| one.from.len() + one.to.len()).sum();
    let mut machine = stage.alliance.machines.first().context("a machine")?.clone();
    "ballast".clone_into(&mut machine.id);
    machine.initial_family.clear();
    machine.setup_families = families;
    machine.changeovers = changeovers;
    let mut expected_revision = 0;
    for _ in 0..BALLAST_BYTES / bytes {
        let machine = Some(machine.clone());
        let request = PutMachineRequest { machine, expected_revision, ..Default::default() };
        let put = stage.operator.put_machine(request).await.context("writing ballast")?;
        expected_revision = put.machine.map_or(0, |machine| machine.revision);
    }
    Ok(())
}

/// Puts so many members that a snapshot takes the place of the log's beginning.
async fn filler(stage: &Stage) -> anyhow::Result<()> {
    let put = (0..FILLER).map(|number| {
        let name = format!("filler-{number}");
        let member = Some(Member { id: name.clone(), name, ..Member::default() });
        stage.operator.put_member(PutMemberRequest { member, ..Default::default() })
    });
    stream::iter(put).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await.context("writing filler")
}

/// What is to happen to a file, one at a time.
fn blows(file: &Path, drawn: usize, random: &mut StdRng) -> anyhow::Result<Vec<Blow>> {
    let end = written(file)?;
    let length = fs::metadata(file)?.len();
    let mut blows = vec![Blow::Gone];
    if end == 0 {
        return Ok(blows);
    }
    blows.push(Blow::Half);
    let mut places = vec![0, end - 1];
    places.extend((0..drawn).map(|_| random.random_range(0..end)));
    if length > end {
        places.push(random.random_range(end..length));
    }
    blows.extend(places.into_iter().map(|at| Blow::Flip { at, mask: 1 << random.random_range(0..8) }));
    if is_journal(file) {
        blows.extend([1, 13, 14, 40, 100].map(|bytes| Blow::Torn { bytes }));
    }
    Ok(blows)
}

/// One blow, and what came of it.
struct Trial<'a> {
    run: &'a Run,
    /// The storage before the blow.
    sound: &'a Path,
    file: &'a Path,
    blow: Blow,
}

impl Trial<'_> {
    async fn play(&self, stage: &mut Stage) -> anyhow::Result<Made> {
        for index in [DAMAGED, BEHIND] {
            restore(self.sound, index, stage.cluster.folder(index))?;
            // Only what is said from here on is of interest.
            let _ = fs::remove_file(stage.cluster.log_file(index));
        }
        strike(&stage.cluster.folder(DAMAGED).join(self.file), self.blow)?;
        if self.run.plants(Plant::Swallow) {
            fs::remove_file(stage.cluster.folder(DAMAGED).join("log.mark")).context("the mark")?;
        }
        stage.cluster.start_node(DAMAGED)?;
        stage.cluster.start_node(BEHIND)?;
        let made = self.watch(stage).await;
        for index in [DAMAGED, BEHIND] {
            if stage.cluster.is_up(index) {
                stage.cluster.kill_node(index).await?;
            }
        }
        made
    }

    /// Waits until the node has refused, or serves; then everything must be there.
    async fn watch(&self, stage: &mut Stage) -> anyhow::Result<Made> {
        let began = Instant::now();
        loop {
            if let Some(ended) = stage.cluster.wait_for_end(DAMAGED, Duration::from_millis(20)).await? {
                self.refused_well(stage, ended.code())?;
                return Ok(Made::Refused);
            }
            let answers = stage.cluster.status(DAMAGED).await.is_some();
            if answers && stage.cluster.leader().await.is_some() {
                break;
            }
            if began.elapsed() > DECIDED_WITHIN {
                let said = fs::read_to_string(stage.cluster.log_file(DAMAGED)).unwrap_or_default();
                return Err(broken(format!("neither refused nor served within {DECIDED_WITHIN:?}:\n{said}")));
            }
        }
        let looked = stage.witness().look().await;
        if let Some(ended) = stage.cluster.wait_for_end(DAMAGED, Duration::from_millis(1)).await? {
            self.refused_well(stage, ended.code())?;
            return Ok(Made::Refused);
        }
        match looked?.faults.as_slice() {
            [] => Ok(Made::Nothing),
            faults => {
                Err(broken(format!("the node took it, and {} rules are broken: {}", faults.len(), faults[0])))
            }
        }
    }

    /// A refusal names the file, or the folder of the database that it belongs to, and says what to do.
    fn refused_well(&self, stage: &Stage, code: Option<i32>) -> anyhow::Result<()> {
        let said = fs::read_to_string(stage.cluster.log_file(DAMAGED)).unwrap_or_default();
        let bad = |what: &str| Err(broken(format!("it ended with {code:?} and {what}:\n{said}")));
        if !code.is_some_and(|code| REFUSED.contains(&code)) {
            return bad("another code than for damaged data");
        }
        if said.contains("panicked at") {
            return bad("panicked");
        }
        let whole = stage.cluster.folder(DAMAGED);
        let within = self.file.ancestors().filter(|part| !part.as_os_str().is_empty());
        let named =
            within.map(|part| whole.join(part)).any(|path| said.contains(&path.display().to_string()));
        if !named {
            return bad("names neither the file nor its folder");
        }
        if !ADVICE.iter().any(|advice| said.contains(advice)) {
            return bad("does not say what to do");
        }
        Ok(())
    }
}

fn strike(file: &Path, blow: Blow) -> anyhow::Result<()> {
    let end = written(file)?;
    let open = || OpenOptions::new().read(true).write(true).open(file);
    match blow {
        Blow::Gone => fs::remove_file(file)?,
        Blow::Half => open()?.set_len(end / 2)?,
        Blow::Flip { at, mask } => {
            let file = open()?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            file.write_all_at(&[byte[0] ^ mask], at)?;
        }
        Blow::Torn { bytes } => {
            // The file begins with a whole batch; what was being written begins like it.
            let file = open()?;
            let mut begun = vec![0; bytes as usize];
            file.read_exact_at(&mut begun, 0)?;
            file.write_all_at(&begun, end)?;
        }
    }
    Ok(())
}

/// Bytes of a file up to the last that is not zero: a journal is made long before it is filled.
fn written(file: &Path) -> anyhow::Result<u64> {
    let bytes = fs::read(file)?;
    Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1))
}

fn is_journal(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "jnl")
}

/// All files under a folder, relative to it.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn restore(sound: &Path, index: usize, folder: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    copy(&sound.join(index.to_string()), folder)
}

/// Copies a folder; what is a hole in a file stays one.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    machine::run("cp", [Path::new("--recursive"), Path::new("--sparse=always"), from, to])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blow_changes_what_it_says_and_nothing_else() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("0.jnl");
        let after = |blow| {
            fs::write(&file, b"abcdef\0\0\0\0")?;
            strike(&file, blow)?;
            anyhow::Ok(fs::read(&file).unwrap_or_default())
        };
        assert_eq!(after(Blow::Flip { at: 1, mask: 1 })?, b"accdef\0\0\0\0");
        assert_eq!(after(Blow::Half)?, b"abc");
        assert_eq!(after(Blow::Torn { bytes: 2 })?, b"abcdefab\0\0");
        assert_eq!(after(Blow::Gone)?, b"");
        assert_eq!(files(folder.path())?, Vec::<PathBuf>::new());
        Ok(())
    }
}
