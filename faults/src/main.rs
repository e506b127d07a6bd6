//! `millpool-faults`: real coordinators that are killed, frozen, cut off, out of disk and damaged, and restarted,
//! upgraded, replaced and restored.
//!
//! - [`kills`], [`freeze`], [`cuts`], [`disks`], [`damage`]: the faults, a file for each kind.
//! - [`operate`], [`recover`]: what operators do, while buyers book and when a cluster is lost; [`command`]: what somebody
//!   sees of it all who types `millpool`.
//! - [`stage`]: the cluster, the alliance in it, buyers at work ([`load`]) and how long they waited.
//! - [`check`]: what must hold after every scenario.
//! - [`machine`]: what scenarios ask of the machine; [`volume`]: small filesystems; [`network`]: namespaces that
//!   can be cut off from one another; [`certificates`]: for clusters that are not on loopback.

mod args;
mod certificates;
mod check;
mod command;
mod cuts;
mod damage;
mod disks;
mod freeze;
mod kills;
mod load;
mod machine;
mod network;
mod operate;
mod recover;
mod stage;
mod volume;

use anyhow::{Context as _, ensure};
use args::Args;
use check::Broken;
use clap::Parser as _;
use machine::Need;
use millpool_demo::interrupt::interrupted;
use stage::{Account, Run};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Something that must hold did not.
const EXIT_BROKEN: u8 = 1;
/// A scenario could not be carried out.
const EXIT_FAILED: u8 = 2;
/// Broken rules that are told one by one.
const TOLD_MAX: usize = 12;

/// A scenario's story, from its beginning to its checks.
type Play = for<'a> fn(&'a Run) -> Pin<Box<dyn Future<Output = anyhow::Result<Account>> + 'a>>;

struct Scenario {
    name: &'static str,
    /// What happens.
    does: &'static str,
    /// What must hold, besides what holds after every scenario.
    holds: &'static str,
    /// How often, unless something else is asked for.
    rounds: usize,
    needs: &'static [Need],
    play: Play,
}

const SERVED: &str =
    "somebody is served within 10 s of the fault, and again of its end; all nodes level within 30 s";

const SCENARIOS: [Scenario; 17] = [
    Scenario {
        name: "kill-one",
        does: "kill -9 of one node, mostly the leader, and its return, over and over",
        holds: SERVED,
        rounds: 20,
        needs: &[],
        play: |run| Box::pin(kills::one(run)),
    },
    Scenario {
        name: "kill-all",
        does: "kill -9 of all nodes at once, and their return, over and over",
        holds: "somebody is served within 10 s of their return; all nodes level within 30 s",
        rounds: 8,
        needs: &[],
        play: |run| Box::pin(kills::all(run)),
    },
    Scenario {
        name: "freeze-leader",
        does: "SIGSTOP of the leader, for moments and for seconds, and SIGCONT",
        holds: "the others go on; thawed, it answers no fresh read from what it knew before",
        rounds: 6,
        needs: &[],
        play: |run| Box::pin(freeze::leader(run)),
    },
    Scenario {
        name: "freeze-all",
        does: "SIGSTOP of all nodes, and SIGCONT",
        holds: SERVED,
        rounds: 4,
        needs: &[],
        play: |run| Box::pin(freeze::all(run)),
    },
    Scenario {
        name: "cut-leader",
        does: "the leader cut off from both followers, in network namespaces, and the cut healed",
        holds: "the others go on; cut off, it answers no fresh read from what it knew before",
        rounds: 4,
        needs: cuts::NEEDS,
        play: |run| Box::pin(cuts::leader(run)),
    },
    Scenario {
        name: "cut-one-way",
        does: "the leader cut off one way: it is not heard, or hears nothing",
        holds: "the others go on; cut off, it answers no fresh read from what it knew before",
        rounds: 4,
        needs: cuts::NEEDS,
        play: |run| Box::pin(cuts::one_way(run)),
    },
    Scenario {
        name: "cut-one-link",
        does: "one follower does not hear the leader, and everybody else does",
        holds: SERVED,
        rounds: 4,
        needs: cuts::NEEDS,
        play: |run| Box::pin(cuts::one_link(run)),
    },
    Scenario {
        name: "cut-minority",
        does: "one node cut off together with a client that knows no other",
        holds: "nothing is acknowledged to that client meanwhile; everybody else is served, and it is again when healed",
        rounds: 3,
        needs: cuts::NEEDS,
        play: |run| Box::pin(cuts::minority(run)),
    },
    Scenario {
        name: "disk-full",
        does: "a node's disk is full, the leader's first (ext4 on a loop device)",
        holds: "it stops, says so and what to do, and refuses to start; with room again it is back. The others go on",
        rounds: 3,
        needs: disks::NEEDS,
        play: |run| Box::pin(disks::full(run)),
    },
    Scenario {
        name: "disk-read-only",
        does: "a node's disk turns read-only, the leader's first (ext4 on a loop device)",
        holds: "it stops, says so and what to do, and refuses to start; repaired it is back. The others go on",
        rounds: 3,
        needs: disks::NEEDS,
        play: |run| Box::pin(disks::read_only(run)),
    },
    Scenario {
        name: "damage",
        does: "one byte flipped in each file of a stopped node, at many places; files cut in half, and gone; a tail \
               torn in the middle of a write. The node then has to answer for its cluster",
        holds: "the node refuses to start, and says which file or folder and what to do, or nothing is lost",
        rounds: 4,
        needs: &[],
        play: |run| Box::pin(damage::run(run)),
    },
    Scenario {
        name: "command",
        does: "kill -9 of one node, mostly the leader, and at once somebody types millpool book, and millpool list",
        holds: "every command does what it is told within 10 s; a millpool watch tells every booking, whoever dies",
        rounds: 6,
        needs: &[],
        play: |run| Box::pin(command::run(run)),
    },
    Scenario {
        name: "rolling-restart",
        does: "every node in turn is asked to stop, and started again",
        holds: SERVED,
        rounds: 3,
        needs: &[],
        play: |run| Box::pin(operate::rolling_restart(run)),
    },
    Scenario {
        name: "rolling-upgrade",
        does: "every node in turn is stopped, and started in the present version, which then leads the former ones",
        holds: "the format of log and snapshots rises when the last node is upgraded, and not before",
        rounds: 1,
        needs: &[],
        play: |run| Box::pin(operate::rolling_upgrade(run)),
    },
    Scenario {
        name: "replace-node",
        does: "a node dies with its disk, the leader first; it is removed, and a new one takes its place",
        holds: SERVED,
        rounds: 3,
        needs: &[],
        play: |run| Box::pin(operate::replace_node(run)),
    },
    Scenario {
        name: "restore",
        does: "a backup is taken under load; all nodes are lost with their disks, and a new cluster begins from a backup",
        holds: "everything that was acknowledged before a backup is in it, and stands in the new cluster",
        rounds: 2,
        needs: &[],
        play: |run| Box::pin(recover::from_backup(run)),
    },
    Scenario {
        name: "quorum-loss",
        does: "two of three nodes are lost with their disks; a new cluster begins from what the third one has",
        holds: "everything that the third one had stands in the new cluster",
        rounds: 2,
        needs: &[],
        play: |run| Box::pin(recover::from_one_node(run)),
    },
];

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for scenario in &SCENARIOS {
            println!(
                "{} ({} rounds)\n    {}\n    holds: {}",
                scenario.name, scenario.rounds, scenario.does, scenario.holds
            );
        }
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let own = || std::env::temp_dir().join(format!("millpool-faults-{}", std::process::id()));
    let folder = args.data.clone().unwrap_or_else(own);
    // Broken off, it takes with it whatever it has started, mounted and made.
    let all = async {
        let outcome = tokio::select! {
            worst = run_all(&args, &folder) => worst,
            () = interrupted() => Err(anyhow::anyhow!("interrupted")),
        };
        if outcome.is_err() && args.data.is_none() && !args.keep {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_dir_all(&folder);
        }
        outcome
    };
    match runtime.context("starting the runtime").and_then(|runtime| runtime.block_on(all)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("millpool-faults: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Runs what is asked for, and answers with the exit code.
async fn run_all(args: &Args, folder: &Path) -> anyhow::Result<u8> {
    let only = args.only.as_deref().unwrap_or_default();
    let chosen: Vec<&Scenario> =
        SCENARIOS.iter().filter(|scenario| scenario.name.starts_with(only)).collect();
    let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    ensure!(!chosen.is_empty(), "--only is {only:?}; accepted: the beginning of one of {}", names.join(", "));
    ensure!(!folder.exists(), "{} exists; name a new folder with --data", folder.display());
    let mut codes = Vec::new();
    for scenario in chosen {
        codes.push(scenario.run(args, &folder.join(scenario.name)).await);
    }
    // It stays while something in it is kept.
    let _ = std::fs::remove_dir(folder);
    // What broke is worse than what could not be tried.
    Ok(if codes.contains(&EXIT_BROKEN) { EXIT_BROKEN } else { codes.into_iter().max().unwrap_or_default() })
}

impl Scenario {
    /// Plays it, tells how it went, and answers with an exit code.
    async fn run(&self, args: &Args, folder: &Path) -> u8 {
        println!("{}: {}", self.name, self.does);
        let began = Instant::now();
        let outcome = self.play(args, folder).await;
        let took = began.elapsed().as_secs_f64();
        let code = match outcome {
            Ok(account) => {
                tell(&account);
                let held = account.verdict.faults.is_empty();
                println!("{} {} ({took:.0} s)", self.name, if held { "held" } else { "BROKE" });
                if held { 0 } else { EXIT_BROKEN }
            }
            Err(error) if error.is::<Broken>() => {
                println!("  BROKEN  {error:#}\n{} BROKE ({took:.0} s)", self.name);
                EXIT_BROKEN
            }
            Err(error) => {
                eprintln!("millpool-faults: {} could not be carried out: {error:#}", self.name);
                EXIT_FAILED
            }
        };
        if code == 0 && !args.keep {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_dir_all(folder);
        } else if folder.exists() {
            println!("  storage and logs are kept in {}", folder.display());
        }
        code
    }

    async fn play(&self, args: &Args, folder: &Path) -> anyhow::Result<Account> {
        machine::require(self.needs)?;
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let rounds = args.rounds.unwrap_or(self.rounds);
        let (bin_dir, folder) = (stage::binaries()?, folder.to_owned());
        (self.play)(&Run { args: args.clone(), rounds, bin_dir, folder }).await
    }
}

fn tell(account: &Account) {
    let s = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let verdict = &account.verdict;
    if account.answered_max.is_zero() {
        println!("  {} faults", account.faults);
    } else {
        println!(
            "  {} faults: at most {} without a booking; {} from the end of a fault to a booking, {} to level nodes",
            account.faults,
            s(account.unanswered_max),
            s(account.answered_max),
            s(account.level_max)
        );
    }
    println!(
        "  {} bookings acknowledged, {} refused, {} in doubt at first; {} repeated, {} there in the end",
        verdict.acknowledged, verdict.refused, verdict.in_doubt_at_first, verdict.repeated, verdict.bookings
    );
    for note in &account.notes {
        println!("  {note}");
    }
    for fault in verdict.faults.iter().take(TOLD_MAX) {
        println!("  BROKEN  {fault}");
    }
    if verdict.faults.len() > TOLD_MAX {
        println!("  {} broken rules, of which {TOLD_MAX} are told", verdict.faults.len());
    }
}
