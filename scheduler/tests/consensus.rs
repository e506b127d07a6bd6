//! The consensus room from outside: a toy state machine over loopback, with real connections and
//! real threads. openraft's storage suite runs inside the crate; simulated faults have their own
//! harness.

#[path = "consensus/cluster.rs"]
mod cluster;
#[path = "consensus/ledger.rs"]
mod ledger;

use cluster::{Cluster, Disk, Node, PATIENCE, addresses, eventually, free_address, options};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use ledger::{Ledger, STRANGE, number};
use millpool_scheduler::consensus::disk::memory::{Bug, MemoryDisk};
use millpool_scheduler::consensus::disk::{Durability, LogDisk, Slot, Write};
use millpool_scheduler::consensus::{
    Change, LinearizeError, MembershipError, Offload, Options, ProposeError, StartError, StateMachine as _,
    StopReason, Storage, Taken, WaitError, limits, read_backup, restore, salvage,
};
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

fn plain(_: &mut Options) {}

// ---- replication ----

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_apply_the_same_entries_and_have_the_same_hash() {
    let cluster = Cluster::new(3, |options| options.hash_every_entries = 8).await;
    let first = cluster.propose_all(0..100).await;
    assert!(first > 100, "the membership and the leader's first entry come before");
    let ledger = cluster.agree().await;
    assert_eq!(ledger.numbers(), (0..100).collect::<Vec<_>>());
    let hashes = || cluster.nodes.values().map(|node| node.handle.status().hash);
    // A busy node leaves out a revision; with more entries there is one that all have taken.
    let (begun, mut n) = (Instant::now(), 100);
    while !hashes().all(|hash| hash.is_some() && hash == hashes().next().flatten()) {
        assert!(begun.elapsed() < PATIENCE, "never have all compared the same revision");
        cluster.propose(n).await.expect("it is committed");
        n += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submits_of_one_task_are_applied_in_their_order() {
    let cluster = Cluster::new(3, plain).await;
    let leader = cluster.handle(cluster.leader().await);
    let tasks = (0..4_u64).map(|task| {
        let leader = leader.clone();
        tokio::spawn(async move {
            for i in 0..250 {
                // Nobody waits for the outcomes: they happen all the same.
                drop(leader.submit(number(task * 1000 + i), None).await.expect("it is taken"));
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("it ends");
    }
    eventually("all are applied", || leader.state().state.lines.len() == 1000).await;
    let numbers = cluster.agree().await.numbers();
    for task in 0..4 {
        let of_task: Vec<u64> = numbers.iter().copied().filter(|n| n / 1000 == task).collect();
        assert!(of_task.is_sorted(), "task {task}: {of_task:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_too_large_is_refused_and_the_largest_one_is_not() {
    let cluster = Cluster::new(3, plain).await;
    let leader = cluster.handle(cluster.leader().await);
    let large = vec![0; limits::ENTRY_BYTES_MAX + 1];
    let refused = leader.propose(large.into(), None).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })), "{refused:?}");
    let largest = vec![0; limits::ENTRY_BYTES_MAX];
    for _ in 0..20 {
        leader.propose(largest.clone().into(), None).await.expect("it fits");
    }
    assert_eq!(cluster.agree().await.count(0), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_answers_who_leads() {
    let cluster = Cluster::new(3, plain).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let refused = cluster.handle(follower).propose(number(1), None).await;
    let Err(ProposeError::NotLeader { leader: Some(hint) }) = refused else { panic!("{refused:?}") };
    assert_eq!((hint.node_id, hint.addresses), (leader, addresses(&cluster.listen[&leader])));
}

#[tokio::test(flavor = "multi_thread")]
async fn linearize_sees_the_last_acknowledged_write_on_every_node() {
    let cluster = Cluster::new(3, plain).await;
    for n in 0..20 {
        let revision = cluster.propose(n).await.expect("it is committed");
        for (node, up) in &cluster.nodes {
            let read = up.handle.linearize().await.expect("it reads");
            assert!(read >= revision, "node {node} reads {read}, acknowledged was {revision}");
            assert_eq!(up.handle.state().state.count(n), 1, "node {node} lacks {n}");
        }
    }
}

// ---- one cluster ends, another begins ----

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_cluster_had_goes_on_in_another_that_nodes_join() {
    let mut lost = Cluster::new(3, plain).await;
    lost.propose_all(0..40).await;
    let leader = lost.leader().await;
    lost.handle(leader).trigger_snapshot().await.expect("it is written");
    lost.propose_all(40..60).await;
    let hash = lost.agree().await.hash();
    let (revision, file) = lost.handle(leader).backup().await.expect("it is put together");
    (1..=3).for_each(|node| lost.kill(node));

    // A backup of the leader's, and what another node's disk has, are the same state.
    let backup = read_backup(file.concat().into(), &Ledger::default()).expect("it is whole");
    let Disk::Memory(disk) = &lost.disks[&(leader % 3 + 1)] else { panic!("a disk in memory") };
    let left = disk.storage(Offload::Threads);
    let salvaged = salvage(&left, Ledger::default()).await.expect("it is sound").taken;
    for taken in [&backup, &salvaged] {
        assert_eq!((taken.cluster_id.as_str(), taken.state.hash()), ("test", hash));
        assert!(taken.revision >= revision, "{} of {revision}", taken.revision);
    }
    let refused = restore(&left, &options(1), addresses("127.0.0.1:1"), &backup).await;
    assert!(matches!(refused, Err(StartError::NotEmpty(_))), "{refused:?}");

    // The first node has it alone; the others come to it as nodes always do.
    let elsewhere = |options: &mut Options| options.cluster_id = "elsewhere".to_owned();
    let (disk, listen) = (MemoryDisk::new(), free_address());
    let mut first = options(1);
    elsewhere(&mut first);
    let jumped = Taken { revision: salvaged.revision + 1_000_000_000, ..salvaged };
    restore(&disk.storage(Offload::Threads), &first, addresses(&listen), &jumped).await.expect("it is empty");
    let mut again = Cluster::started(1, Disk::Memory(disk), listen, elsewhere).await;
    assert!(again.propose(60).await.expect("it is committed") > jumped.revision);
    let folder = tempfile::tempdir().expect("a folder");
    for node in [2, 3] {
        let listen = free_address();
        again.disks.insert(node, Disk::Folder(folder.path().join(node.to_string())));
        again.listen.insert(node, listen.clone());
        again.start(node).await;
        let leader = again.handle(again.leader().await);
        leader.add_learner(node, addresses(&listen)).await.expect("it is added");
        leader.promote(node).await.expect("it votes");
    }
    again.propose(61).await.expect("it is committed");
    assert_eq!(again.agree().await.numbers(), (0..62).collect::<Vec<_>>());
    // The restored node alone is not what holds it together.
    again.kill(1);
    again.propose(62).await.expect("two of three are enough");
    again.start(1).await;
    assert_eq!(again.agree().await.count(62), 1);
}

// ---- leaders come and go ----

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new(3, plain).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for n in round * 100..round * 100 + 30 {
            cluster.propose(n).await.expect("it is committed");
            acknowledged.push(n);
        }
        let leader = cluster.leader().await;
        cluster.kill(leader);
        assert_ne!(cluster.leader_other_than(leader).await, leader);
        cluster.propose(round * 100 + 99).await.expect("two of three are enough");
        acknowledged.push(round * 100 + 99);
        cluster.start(leader).await;
    }
    let ledger = cluster.agree().await;
    assert_eq!(ledger.numbers(), acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_acknowledged_nor_read() {
    let mut cluster = Cluster::new(3, |options| options.propose_deadline = Duration::from_secs(2)).await;
    let leader = cluster.leader().await;
    for node in [1, 2, 3].into_iter().filter(|node| *node != leader) {
        cluster.kill(node);
    }
    let handle = cluster.handle(leader);
    let outcome = handle.propose(number(7), None).await;
    assert!(
        matches!(outcome, Err(ProposeError::Unknown { .. } | ProposeError::NotLeader { .. })),
        "{outcome:?}"
    );
    let read = handle.linearize().await;
    assert!(matches!(read, Err(LinearizeError::NoQuorum(_) | LinearizeError::NoLeader)), "{read:?}");
    cluster.start_all().await;
    cluster.propose(8).await.expect("they are back");
    assert_eq!(cluster.agree().await.count(8), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_majority_had_is_cut_off_from_the_log_of_the_one_that_had_it() {
    let mut cluster = Cluster::new(3, plain).await;
    cluster.propose_all(0..10).await;
    let old = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|node| *node != old).collect();
    for node in &others {
        cluster.kill(*node);
    }
    let handle = cluster.handle(old);
    let before = handle.status().last_log_index;
    for n in 1000..1020 {
        drop(handle.submit(number(n), None).await.expect("it is taken"));
    }
    eventually("its own log has them", || handle.status().last_log_index == before + 20).await;
    cluster.kill(old);
    for node in &others {
        cluster.start(*node).await;
    }
    cluster.propose_all(10..15).await;
    cluster.start(old).await;
    assert_eq!(cluster.agree().await.numbers(), (0..15).collect::<Vec<_>>());
    // What it has on its disk now is what the others have.
    for node in 1..=3 {
        cluster.kill(node);
    }
    cluster.start_all().await;
    assert_eq!(cluster.agree().await.numbers(), (0..15).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_where_it_is_told_to() {
    let cluster = Cluster::new(3, plain).await;
    for n in 0..6 {
        let leader = cluster.leader().await;
        let to = leader % 3 + 1;
        let begun = Instant::now();
        let now = cluster.handle(leader).transfer_leader(Some(to)).await.expect("it moves");
        assert_eq!(now, to);
        assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
        assert_eq!(cluster.leader_other_than(leader).await, to);
        cluster.propose(n).await.expect("it is committed");
    }
    let leader = cluster.leader().await;
    let refused = cluster.handle(leader).transfer_leader(Some(9)).await;
    assert!(matches!(refused, Err(MembershipError::Refused(_))), "{refused:?}");
    let follower = cluster.follower().await;
    let refused = cluster.handle(follower).transfer_leader(None).await;
    assert!(matches!(refused, Err(MembershipError::NotLeader { .. })), "{refused:?}");
    assert_eq!(cluster.agree().await.numbers(), (0..6).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_fenced_by_a_term_is_refused_once_leadership_has_moved() {
    let cluster = Cluster::new(3, plain).await;
    let first = cluster.leader().await;
    let old = cluster.handle(first);
    let term = old.leadership().term;
    old.propose(number(1), Some(term)).await.expect("it leads that term");
    let second = old.transfer_leader(None).await.expect("it moves");
    cluster.leader_other_than(first).await;
    for node in [first, second] {
        let refused = cluster.handle(node).propose(number(2), Some(term)).await;
        assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "node {node}: {refused:?}");
    }
    // And back: the same node leads again, but not that term.
    let third = cluster.handle(second).transfer_leader(Some(first)).await.expect("it moves back");
    assert_eq!((third, cluster.leader_other_than(second).await), (first, first));
    let refused = old.propose(number(3), Some(term)).await;
    assert!(matches!(refused, Err(ProposeError::NotLeader { .. })), "{refused:?}");
    old.propose(number(4), Some(old.leadership().term)).await.expect("it leads this term");
    assert_eq!(cluster.agree().await.numbers(), [1, 4]);
}

// ---- durability ----

/// Acknowledged entries that are gone after all nodes lost power at once, under load.
async fn lost_with_the_power(bug: Option<Bug>) -> Result<Vec<u64>, String> {
    let disks: BTreeMap<u64, Disk> = (1..=3).map(|node| (node, Disk::Memory(MemoryDisk::new()))).collect();
    let mut cluster = Cluster::on(disks, plain).await;
    if let Some(bug) = bug {
        for disk in cluster.disks.values() {
            let Disk::Memory(disk) = disk else { unreachable!("all are in memory") };
            disk.plant(bug);
        }
    }
    let mut acknowledged = Vec::new();
    for round in 0..3_u64 {
        let leader = cluster.handle(cluster.leader().await);
        let mut pending = Vec::new();
        for n in round * 1000..round * 1000 + 200 {
            pending.push((n, leader.submit(number(n), None).await.map_err(|e| e.to_string())?));
        }
        for (n, outcome) in pending.drain(..100) {
            outcome.await.map_err(|e| e.to_string())?;
            acknowledged.push(n);
        }
        for node in 1..=3 {
            cluster.cut_power(node);
        }
        cluster.start_all().await;
        let ready = async {
            while !cluster.nodes.values().any(|node| node.handle.leadership().is_ready) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let elected = tokio::time::timeout(PATIENCE / 4, ready).await;
        elected.map_err(|_| "nobody leads any more".to_owned())?;
        let ledger = cluster.agree().await;
        let lost: Vec<u64> = acknowledged.iter().copied().filter(|n| ledger.count(*n) != 1).collect();
        if !lost.is_empty() {
            return Ok(lost);
        }
    }
    Ok(Vec::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_loss_of_all_power() {
    assert_eq!(lost_with_the_power(None).await, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_only_claims_to_sync_is_found_by_the_same_test() {
    let found = lost_with_the_power(Some(Bug::SkipSync)).await;
    assert_ne!(found, Ok(Vec::new()), "the planted bug was not noticed");
}

const CHILD_FOLDER: &str = "MILLPOOL_TEST_CHILD_FOLDER";

/// Not a test: the process that the next one kills. It says every number that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_proposes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let listen = free_address();
    let node = Node::start(options(1), &Disk::Folder(folder.into()), &listen).await.expect("it starts");
    match node.handle.initialize(BTreeMap::from([(1, addresses(&listen))])).await {
        Ok(()) | Err(MembershipError::AlreadyInitialized) => {}
        Err(e) => panic!("{e}"),
    }
    eventually("it leads", || node.handle.leadership().is_ready).await;
    let first = node.handle.state().state.numbers().into_iter().max().map_or(0, |last| last + 1);
    let mut pending = std::collections::VecDeque::new();
    for n in first..first + 1_000_000 {
        pending.push_back((n, node.handle.submit(number(n), None).await.expect("it is taken")));
        if pending.len() == 16 {
            let (n, outcome) = pending.pop_front().expect("16");
            outcome.await.expect("it is committed");
            let mut out = io::stdout().lock();
            writeln!(out, "acknowledged {n}").and_then(|()| out.flush()).expect("the parent listens");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged: Vec<u64> = Vec::new();
    for enough in [100, 300, 200] {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_that_proposes_until_it_is_killed", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let said = |line: io::Result<String>| {
            let line = line.ok()?;
            line.split_once("acknowledged ")?.1.trim().parse::<u64>().ok()
        };
        acknowledged.extend(lines.by_ref().filter_map(said).take(enough));
        child.kill().expect("SIGKILL");
        // What was in the pipe was acknowledged too.
        acknowledged.extend(lines.filter_map(said));
        child.wait().expect("it is dead");

        let node = Node::start(options(1), &Disk::Folder(folder.path().into()), &free_address()).await;
        let node = node.expect("it starts again");
        eventually("it leads", || node.handle.leadership().is_ready).await;
        let ledger = node.handle.state().state.clone();
        let lost: Vec<_> = acknowledged.iter().filter(|n| ledger.count(**n) != 1).collect();
        assert!(lost.is_empty(), "lost or doubled of {}: {lost:?}", acknowledged.len());
        assert!(ledger.numbers().is_sorted(), "in order");
        node.handle.shutdown().await;
    }
    assert!(acknowledged.len() >= 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_restart_and_everything_is_there() {
    let folders: Vec<tempfile::TempDir> = (0..3).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let disks = (1..=3).zip(&folders).map(|(node, folder)| (node, Disk::Folder(folder.path().into())));
    let mut cluster = Cluster::on(disks.collect(), |options| options.snapshot_every_entries = 64).await;
    for round in 0..3_u64 {
        cluster.propose_all(round * 100..round * 100 + 100).await;
        let term = cluster.handle(cluster.leader().await).leadership().term;
        for node in 1..=3 {
            if round == 1 {
                cluster.kill(node);
            } else {
                let node = cluster.nodes.remove(&node).expect("it runs");
                node.handle.shutdown().await;
            }
        }
        cluster.start_all().await;
        let leader = cluster.leader().await;
        assert!(cluster.handle(leader).leadership().term > term, "a new reign");
        let ready = cluster.handle(leader).state().state.numbers();
        assert_eq!(ready, (0..round * 100 + 100).collect::<Vec<_>>(), "a ready leader has everything");
        assert_eq!(cluster.agree().await.lines.len() as u64, round * 100 + 100);
    }
}

/// A disk that can be made to wait, or to fail.
#[derive(Clone, Default)]
struct GatedDisk(Arc<GatedInner>);

#[derive(Default)]
struct GatedInner {
    disk: MemoryDisk,
    closed: Mutex<bool>,
    changed: Condvar,
}

impl GatedDisk {
    fn close(&self, closed: bool) {
        *self.0.closed.lock().expect("whole") = closed;
        self.0.changed.notify_all();
    }

    fn storage(&self) -> Disk {
        Disk::Given(Storage {
            log: Arc::new(self.clone()),
            snapshots: Arc::new(self.0.disk.clone()),
            offload: Offload::Threads,
        })
    }
}

impl LogDisk for GatedDisk {
    fn write(&self, changes: Vec<Write>, durability: Durability) -> io::Result<()> {
        drop(self.0.changed.wait_while(self.0.closed.lock().expect("whole"), |closed| *closed));
        LogDisk::write(&self.0.disk, changes, durability)
    }

    fn slot(&self, slot: Slot) -> io::Result<Option<bytes::Bytes>> {
        self.0.disk.slot(slot)
    }

    fn entries(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, bytes::Bytes)>> {
        self.0.disk.entries(range, bytes_max)
    }

    fn last_index(&self) -> io::Result<Option<u64>> {
        self.0.disk.last_index()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_stops_the_node_and_what_was_not_synced_is_not_acknowledged() {
    let mut cluster = Cluster::new(3, plain).await;
    cluster.propose(1).await.expect("it is committed");
    let leader = cluster.leader().await;
    let handle = cluster.handle(leader);
    let Disk::Memory(disk) = cluster.disks[&leader].clone() else { unreachable!("it is in memory") };
    disk.fail_writes("no space left on device");
    let outcome = handle.propose(number(2), None).await;
    // The others may have had it before the disk said no: then it is committed, and may be said so.
    let committed = outcome.is_ok();
    let reason = tokio::time::timeout(PATIENCE, handle.stop_reason()).await.expect("it stops");
    let text = reason.to_string();
    assert!(matches!(reason, StopReason::Storage(_)), "{text}");
    assert!(text.contains("no space left") && text.contains("replace the node"), "{text}");
    let refused = handle.propose(number(3), None).await;
    assert!(matches!(refused, Err(ProposeError::Stopped(StopReason::Storage(_)))), "{refused:?}");
    cluster.kill(leader);
    cluster.leader_other_than(leader).await;
    cluster.propose(4).await.expect("two of three are enough");
    let ledger = cluster.agree().await;
    assert_eq!((ledger.count(1), ledger.count(3), ledger.count(4)), (1, 0, 1));
    assert!(!committed || ledger.count(2) == 1, "{:?}", ledger.numbers());
}

// ---- snapshots ----

fn small_snapshots(options: &mut Options) {
    options.snapshot_every_entries = 50;
    options.log_keep_entries = 10;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_long_away_is_caught_up_by_a_snapshot() {
    let mut cluster = Cluster::new(3, small_snapshots).await;
    cluster.propose_all(0..10).await;
    let away = cluster.follower().await;
    cluster.kill(away);
    for n in 1..=40 {
        cluster.propose_all(n * 10..n * 10 + 10).await;
    }
    // A leader purges what it was about to send only after it has found that nobody answers.
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.start(away).await;
    let (before, mut changes) = cluster.handle(away).subscribe();
    let ledger = cluster.agree().await;
    assert_eq!(ledger.numbers(), (0..410).collect::<Vec<_>>());
    // The subscriber is told that it missed some, and misses none of the rest.
    let mut last = before.revision;
    let mut replaced = 0;
    let mut seen = Vec::new();
    while last < cluster.handle(away).state().revision && seen.last() != Some(&409) {
        let change = tokio::time::timeout(PATIENCE, changes.next()).await.expect("it comes");
        match change.expect("it runs").expect("it is fast") {
            Change::Replaced { revision } => {
                assert!(revision > last);
                (last, replaced) = (revision, replaced + 1);
                seen.clear();
            }
            Change::Applied { revision, event } => {
                assert!(revision > last);
                last = revision;
                seen.push(event);
            }
        }
        if last + 1 >= cluster.handle(away).state().revision {
            break;
        }
    }
    assert!(replaced >= 1 || before.revision > 300, "no snapshot was needed: {}", cluster.describe());
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_refused_with_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::Folder(folder.path().into());
    let cluster = Cluster::on(BTreeMap::from([(1, disk.clone())]), small_snapshots).await;
    cluster.propose_all(0..120).await;
    let covered = cluster.handle(1).trigger_snapshot().await.expect("it is written");
    assert!(covered >= 120);
    cluster.handle(1).shutdown().await;
    drop(cluster);
    let snapshots: Vec<PathBuf> = files(&folder.path().join("snapshots"));
    assert!(snapshots.len() <= limits::SNAPSHOTS_KEPT, "{snapshots:?}");
    let newest = snapshots.last().expect("a snapshot").clone();
    let whole = std::fs::read(&newest).expect("it is read");
    let flipped = {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        bytes
    };
    for damaged in [&whole[..whole.len() - 1], &whole[..7], &[], &flipped] {
        std::fs::write(&newest, damaged).expect("it is damaged");
        let refused = Node::start(options(1), &disk, &free_address()).await;
        let text = refused.err().expect("it must not start").to_string();
        assert!(text.contains("is damaged") && text.contains("put back an undamaged copy"), "{text}");
        assert!(text.contains(newest.file_name().unwrap().to_str().unwrap()), "{text}");
    }
    // A file that was never finished is of no account; the undamaged copy is.
    std::fs::write(&newest, &whole).expect("it is put back");
    std::fs::write(newest.with_extension("snapshot.unfinished"), b"torn").expect("it is left over");
    let node = Node::start(options(1), &disk, &free_address()).await.expect("it starts");
    eventually("it leads", || node.handle.leadership().is_ready).await;
    assert_eq!(node.handle.state().state.numbers(), (0..120).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_damaged_or_shorter_than_it_was_is_refused_with_advice_or_is_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let sound = folder.path().join("sound");
    let cluster = Cluster::on(BTreeMap::from([(1, Disk::Folder(sound.clone()))]), plain).await;
    cluster.propose_all(0..120).await;
    cluster.handle(1).shutdown().await;
    drop(cluster);
    let whole = std::fs::read(sound.join("log/0.jnl")).expect("it is read");
    let end = whole.iter().rposition(|byte| *byte != 0).expect("something is written");
    let mut damaged: Vec<Vec<u8>> = (1..4).map(|quarter| whole[..end * quarter / 4].to_vec()).collect();
    // Somewhere in each of many batches, also where the store takes a byte that it does not know for the end.
    for at in (0..end).step_by(end / 40 + 7) {
        damaged.push(whole.clone());
        damaged.last_mut().expect("it was pushed")[at] ^= 0x40;
    }
    let mut refusals = 0;
    for (number, bytes) in damaged.iter().enumerate() {
        let data = folder.path().join(number.to_string());
        assert!(Command::new("cp").arg("-r").args([&sound, &data]).status().expect("it is copied").success());
        std::fs::write(data.join("log/0.jnl"), bytes).expect("it is damaged");
        match Node::start(options(1), &Disk::Folder(data.clone()), &free_address()).await {
            Err(refused) => {
                refusals += 1;
                let text = refused.to_string();
                assert!(text.contains("damaged") && text.contains("under a new id"), "{text}");
                assert!(text.contains(&data.join("log").display().to_string()), "{text}");
            }
            Ok(node) => {
                eventually("it leads", || node.handle.leadership().is_ready).await;
                let numbers = node.handle.state().state.numbers();
                assert_eq!(numbers, (0..120).collect::<Vec<_>>(), "with damage {number}");
            }
        }
        std::fs::remove_dir_all(&data).expect("it goes");
    }
    assert!(refusals > damaged.len() / 2, "{refusals} of {}", damaged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_after_the_newest_snapshot_is_refused_with_advice() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::Folder(folder.path().into());
    let cluster = Cluster::on(BTreeMap::from([(1, disk.clone())]), small_snapshots).await;
    cluster.propose_all(0..300).await;
    cluster.handle(1).trigger_snapshot().await.expect("it is written");
    cluster.propose_all(300..600).await;
    cluster.handle(1).trigger_snapshot().await.expect("it is written");
    cluster.handle(1).shutdown().await;
    drop(cluster);
    while let Some(newest) = files(&folder.path().join("snapshots")).pop() {
        std::fs::remove_file(newest).expect("it is gone");
        let refused = Node::start(options(1), &disk, &free_address()).await;
        let text = refused.err().expect("it must not start").to_string();
        assert!(text.contains("lacks a snapshot") && text.contains("under a new id"), "{text}");
        assert!(text.contains(&folder.path().join("snapshots").display().to_string()), "{text}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

// ---- who belongs ----

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go() {
    let mut cluster = Cluster::new(3, small_snapshots).await;
    cluster.propose_all(0..100).await;
    cluster.disks.insert(4, Disk::Memory(MemoryDisk::new()));
    cluster.listen.insert(4, free_address());
    cluster.start(4).await;
    let leader = cluster.leader().await;
    let handle = cluster.handle(leader);
    handle.add_learner(4, addresses(&cluster.listen[&4])).await.expect("it follows");
    let voter = |node| {
        let status = handle.status();
        status.members.iter().find(|member| member.node_id == node).map(|member| member.voter)
    };
    assert_eq!(voter(4), Some(false));
    cluster.propose_all(100..110).await;
    assert_eq!(cluster.agree().await.lines.len(), 110);
    handle.promote(4).await.expect("it votes");
    assert_eq!(voter(4), Some(true));

    let gone = (1..=3).find(|node| *node != leader).expect("a follower");
    handle.remove(gone).await.expect("it goes");
    assert_eq!(voter(gone), None);
    cluster.kill(gone);
    let refused = handle.remove(gone).await;
    assert!(matches!(refused, Err(MembershipError::Refused(_))), "{refused:?}");
    cluster.propose(110).await.expect("it is committed");

    // The new one can lead, and the old leader can go.
    assert_eq!(handle.transfer_leader(Some(4)).await, Ok(4));
    assert_eq!(cluster.leader_other_than(leader).await, 4);
    cluster.handle(4).remove(leader).await.expect("it goes");
    cluster.kill(leader);
    cluster.propose(111).await.expect("it is committed");
    assert_eq!(cluster.agree().await.numbers(), (0..112).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_can_remove_itself() {
    let mut cluster = Cluster::new(3, plain).await;
    let leader = cluster.leader().await;
    cluster.propose(1).await.expect("it is committed");
    cluster.handle(leader).remove(leader).await.expect("it goes");
    assert_ne!(cluster.leader_other_than(leader).await, leader);
    cluster.kill(leader);
    cluster.propose(2).await.expect("the other two go on");
    assert_eq!(cluster.agree().await.numbers(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_serves_only_the_node_and_cluster_that_it_was_made_for() {
    let disk = Disk::Memory(MemoryDisk::new());
    Node::start(options(1), &disk, &free_address()).await.expect("an empty store").kill();
    for other in [Options::new("other", 1, 9), Options::new("test", 2, 9)] {
        let refused = Node::start(other, &disk, &free_address()).await.err().expect("it must not start");
        assert!(matches!(refused, StartError::OtherStore { .. }), "{refused}");
        assert!(refused.to_string().contains("check the data folder"), "{refused}");
    }
    Node::start(options(1), &disk, &free_address()).await.expect("the right one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_forms_only_of_the_nodes_that_were_meant() {
    let listen: BTreeMap<u64, String> = (1..=3).map(|node| (node, free_address())).collect();
    let memory = || Disk::Memory(MemoryDisk::new());
    let first = Node::start(options(1), &memory(), &listen[&1]).await.expect("it starts");
    let members = |nodes: &[(u64, &str)]| nodes.iter().map(|(n, at)| (*n, addresses(at))).collect();
    let absent = first.handle.initialize(members(&[(1, &listen[&1]), (2, &listen[&2])])).await;
    assert!(matches!(absent, Err(MembershipError::Unreachable { node: 2, .. })), "{absent:?}");

    let _second = Node::start(options(2), &memory(), &listen[&2]).await.expect("it starts");
    let wrong_node = first.handle.initialize(members(&[(1, &listen[&1]), (3, &listen[&2])])).await;
    assert!(
        matches!(wrong_node, Err(MembershipError::OtherNode { node: 3, found_node: 2, .. })),
        "{wrong_node:?}"
    );
    let other = Node::start(Options::new("other", 3, 9), &memory(), &listen[&3]).await.expect("it starts");
    let wrong_cluster = first.handle.initialize(members(&[(1, &listen[&1]), (3, &listen[&3])])).await;
    assert!(matches!(wrong_cluster, Err(MembershipError::OtherNode { node: 3, .. })), "{wrong_cluster:?}");
    drop(other);
    let without = first.handle.initialize(members(&[(2, &listen[&2])])).await;
    assert!(matches!(without, Err(MembershipError::Refused(_))), "{without:?}");

    first.handle.initialize(members(&[(1, &listen[&1]), (2, &listen[&2])])).await.expect("it forms");
    let again = first.handle.initialize(members(&[(1, &listen[&1])])).await;
    assert_eq!(again, Err(MembershipError::AlreadyInitialized));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_replaced_disk_takes_no_part() {
    let mut cluster = Cluster::new(3, plain).await;
    cluster.propose_all(0..20).await;
    let wiped = cluster.follower().await;
    cluster.kill(wiped);
    let fresh = Options { fresh_store_id: 77, ..cluster.options(wiped) };
    let disk = Disk::Memory(MemoryDisk::new());
    let node = Node::start(fresh, &disk, &cluster.listen[&wiped]).await.expect("it starts");
    cluster.propose_all(20..40).await;
    let leader = cluster.handle(cluster.leader().await);
    let refused = leader.add_learner(wiped, addresses(&cluster.listen[&wiped])).await;
    assert_eq!(refused, Err(MembershipError::StoreReplaced { node: wiped }));
    // It has had the time of several elections to get anything.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(node.handle.state().revision, 0);
    assert_eq!(node.handle.status().last_log_index, 0);
    // Without it there is no majority beside one that dies: its vote does not count.
    let other = *cluster.nodes.keys().find(|n| **n != leader.node_id()).expect("the other");
    cluster.kill(leader.node_id());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!cluster.handle(other).leadership().is_ready, "{}", cluster.describe());
}

// ---- limits ----

#[tokio::test(flavor = "multi_thread")]
async fn more_proposals_than_fit_are_answered_overloaded_and_the_rest_is_served() {
    let disk = GatedDisk::default();
    let disks = BTreeMap::from([(1, disk.storage())]);
    let cluster = Cluster::on(disks, |options| options.proposals_in_flight_max = 8).await;
    let handle = cluster.handle(1);
    for round in 0..3 {
        disk.close(true);
        let mut pending = Vec::new();
        for n in 0..8 {
            pending.push(handle.submit(number(round * 10 + n), None).await.expect("there is room"));
        }
        for _ in 0..5 {
            let refused = handle.propose(number(99), None).await;
            assert!(matches!(refused, Err(ProposeError::Overloaded { .. })), "{refused:?}");
        }
        disk.close(false);
        for outcome in pending {
            outcome.await.expect("it is committed");
        }
    }
    let ledger = cluster.agree().await;
    assert_eq!((ledger.lines.len(), ledger.count(99)), (24, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_is_not_answered_in_time_is_unknown_and_may_still_happen() {
    let disk = GatedDisk::default();
    let disks = BTreeMap::from([(1, disk.storage())]);
    let cluster = Cluster::on(disks, |options| options.propose_deadline = Duration::from_millis(200)).await;
    disk.close(true);
    let late = cluster.handle(1).propose(number(1), None).await;
    assert!(matches!(late, Err(ProposeError::Unknown { .. })), "{late:?}");
    disk.close(false);
    eventually("it happens", || cluster.handle(1).state().state.count(1) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_answers_what_is_pending() {
    let disk = GatedDisk::default();
    let disks = BTreeMap::from([(1, disk.storage())]);
    let cluster = Cluster::on(disks, plain).await;
    let handle = cluster.handle(1);
    let (_, mut changes) = handle.subscribe();
    disk.close(true);
    let mut pending = Vec::new();
    for n in 0..8 {
        pending.push(handle.submit(number(n), None).await.expect("it is taken"));
    }
    let waiting = {
        let handle = handle.clone();
        tokio::spawn(async move { handle.wait_applied(1_000_000, PATIENCE).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let down = tokio::spawn({
        let handle = handle.clone();
        async move { handle.shutdown().await }
    });
    let begun = Instant::now();
    for outcome in pending {
        let outcome = tokio::time::timeout(PATIENCE, outcome).await.expect("it is answered");
        assert!(matches!(outcome, Err(ProposeError::Unknown { .. })), "{outcome:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    disk.close(false);
    tokio::time::timeout(PATIENCE, down).await.expect("it ends").expect("it does not panic");
    let waited = waiting.await.expect("it does not panic");
    assert!(matches!(waited, Err(WaitError::Stopped(StopReason::Shutdown))), "{:?}", waited.err());
    let over = tokio::time::timeout(PATIENCE, async { while changes.next().await.is_some() {} }).await;
    assert!(over.is_ok(), "the subscription ends with the node");
    let refused = handle.propose(number(9), None).await;
    assert_eq!(refused.err(), Some(ProposeError::Stopped(StopReason::Shutdown)));
    assert!(handle.linearize().await.is_err());
    assert!(!handle.leadership().is_ready);
}

// ---- trust ----

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_state_differs_from_the_leaders_stops() {
    let cluster = Cluster::new(3, |options| options.hash_every_entries = 8).await;
    let liar = cluster.follower().await;
    cluster.handle(liar).state().state.lies.store(true, std::sync::atomic::Ordering::Relaxed);
    cluster.propose_all(0..64).await;
    let handle = cluster.handle(liar);
    let reason = tokio::time::timeout(PATIENCE, handle.stop_reason()).await.expect("it is found out");
    assert!(matches!(reason, StopReason::Diverged { .. }), "{reason}");
    assert!(reason.to_string().contains("replace the node under a new id"), "{reason}");
    assert!(handle.linearize().await.is_err(), "it must not serve");
    cluster.propose(64).await.expect("the others go on");
    for (node, up) in cluster.nodes.iter().filter(|(node, _)| **node != liar) {
        let running = tokio::time::timeout(Duration::from_millis(100), up.handle.stop_reason()).await;
        assert!(running.is_err(), "node {node} stopped too: {running:?}");
    }
}

/// Whoever learns that the entry is committed stops. The last of three may never learn it, since the two
/// that could tell it have stopped: it then serves nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_understood_is_applied_nowhere_and_the_cluster_stops() {
    let cluster = Cluster::new(3, plain).await;
    let before = cluster.propose(1).await.expect("it is committed");
    let leader = cluster.handle(cluster.leader().await);
    let outcome = leader.propose(STRANGE, None).await;
    assert!(matches!(outcome, Err(ProposeError::Unknown { .. })), "{outcome:?}");
    let mut stops = FuturesUnordered::new();
    for up in cluster.nodes.values() {
        stops.push(async { up.handle.stop_reason().await });
    }
    let mut strange = before;
    for _ in 0..2 {
        let stop = tokio::time::timeout(PATIENCE, stops.next()).await.expect("a majority stops");
        let reason = stop.expect("there are three");
        let StopReason::Apply { revision, .. } = &reason else { panic!("{reason}") };
        assert!(*revision > before && reason.to_string().contains("upgrade it"), "{reason}");
        strange = *revision;
    }
    for (node, up) in &cluster.nodes {
        assert!(up.handle.linearize().await.is_err(), "node {node} serves");
        let view = up.handle.state();
        assert!(view.revision < strange && view.state.numbers() == [1], "node {node} went past it");
    }
}

// ---- subscribers ----

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_get_each_change_once_and_in_order() {
    let cluster = Cluster::new(3, plain).await;
    let proposing = cluster.propose_all(0..500);
    let following = async {
        let mut tasks = Vec::new();
        for up in cluster.nodes.values() {
            for late_ms in [0, 15, 40] {
                let handle = up.handle.clone();
                tasks.push(tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(late_ms)).await;
                    let (view, mut changes) = handle.subscribe();
                    let mut lines = view.state.lines.to_vec();
                    let mut last = view.revision;
                    while lines.len() < 500 {
                        let next = tokio::time::timeout(PATIENCE, changes.next()).await.expect("it comes");
                        match next.expect("it runs").expect("it is fast") {
                            Change::Applied { revision, event } => {
                                assert!(revision > last, "{revision} after {last}");
                                // Whoever has the event finds it in the state.
                                assert!(handle.state().revision >= revision);
                                last = revision;
                                lines.push((revision, event));
                            }
                            Change::Replaced { .. } => panic!("no snapshot came"),
                        }
                    }
                    lines
                }));
            }
        }
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.expect("a subscriber"));
        }
        all
    };
    let (_, followed) = tokio::join!(proposing, following);
    let ledger = cluster.agree().await;
    for lines in followed {
        assert_eq!(lines, *ledger.lines);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_is_too_slow_is_told_and_let_go() {
    let cluster = Cluster::new(1, |options| options.events_kept = 16).await;
    let (view, mut slow) = cluster.handle(1).subscribe();
    cluster.propose_all(0..100).await;
    let lagged = slow.next().await.expect("it runs").expect_err("it is too slow");
    assert_eq!(lagged.last, view.revision);
    assert!(lagged.missed >= 100 - 16, "{lagged}");
    assert!(slow.next().await.is_none(), "it has to subscribe again");
    let (view, _) = cluster.handle(1).subscribe();
    assert_eq!(view.state.numbers(), (0..100).collect::<Vec<_>>());
}

#[test]
fn the_toy_survives_its_own_snapshot() {
    use millpool_scheduler::consensus::StateMachine as _;
    let mut ledger = Ledger::default();
    for n in 0..10 {
        ledger.apply(n + 1, &number(n * n)).expect("it is applied");
    }
    let again = ledger.decode(&ledger.encode()).expect("it is read");
    assert_eq!((&again.lines, again.hash()), (&ledger.lines, ledger.hash()));
}
