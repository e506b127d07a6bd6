//! The command `millpool` in the hands of somebody who knows nothing of nodes, while they die: it books, lists and
//! watches, and must not be heard of it.

use crate::check::broken;
use crate::stage::{Account, Run, Stage};
use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};
use millpool_cli::json;
use millpool_cli::written::Clock;
use millpool_proto::v1::{BookRequest, BookResponse, Booking, Objective, Terms};
use rand::RngExt as _;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Who types.
const BUYER: &str = "commander";
/// A command is done within this, whoever has died.
const DONE_WITHIN: Duration = Duration::from_secs(10);
/// The watch has told everything within this.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// A node dies, mostly the leader, a command is typed at once, and the node comes back. All the while a watch runs.
pub(crate) async fn run(run: &Run) -> anyhow::Result<Account> {
    let mut stage = Stage::busy(run).await?;
    let mut random = run.random();
    stage.acquaint(BUYER).await?;
    let (mut watch, told) = watch(run, &stage).await?;
    let (mut booked, mut longest) = (BTreeSet::new(), Duration::ZERO);
    for round in 0..run.rounds {
        let victim = if round % 3 == 2 { random.random_range(0..3) } else { stage.leader().await? };
        let began = Instant::now();
        stage.cluster.kill_node(victim).await?;
        let (request_id, reference) = (format!("typed-{round}"), format!("commander-{round}"));
        let booking = book(run, &stage, &request_id, &reference).await?;
        longest = longest.max(began.elapsed());
        let id = booking.id.clone();
        let terms = Some(Terms { objective: Objective::Cheapest.into(), ..Terms::default() });
        let request =
            BookRequest { request_id, order: booking.order.clone(), terms, ..BookRequest::default() };
        stage.book().ledger.booked(BUYER, request, &booking);
        let listed = done(run, &stage, &["list"]).await?;
        let bookings = listed["bookings"].as_array().map_or(&[][..], Vec::as_slice);
        if !bookings.iter().any(|booking| booking["id"] == *id) {
            return Err(broken(format!("{id} was booked, and is not in the list right after it")));
        }
        booked.insert(id);
        stage.cluster.start_node(victim)?;
        stage.recovers(began, Instant::now()).await?;
    }
    let seen = told.until_all(&booked).await?;
    if let Some(ended) = watch.try_wait()? {
        return Err(broken(format!("the watch has ended: {ended}")));
    }
    watch.kill().await?;
    let commands = 2 * run.rounds;
    stage.account.notes.push(format!(
        "{commands} commands all ended with exit code 0, a booking {:.2} s after the death at most; the watch told {} \
         of {} bookings",
        longest.as_secs_f64(),
        booked.intersection(&seen).count(),
        booked.len()
    ));
    stage.finish().await
}

/// Types a booking. Answers with what was booked.
async fn book(run: &Run, stage: &Stage, request_id: &str, reference: &str) -> anyhow::Result<Booking> {
    let what = "book --quantity 1 --material steel --size 120x80x40 --mass 2kg --due +30d --op";
    let mut words: Vec<&str> = what.split(' ').collect();
    words.push("cmm family=F2 setup=5m run=3m");
    words.extend(["--request-id", request_id, "--reference", reference]);
    let answer = done(run, stage, &words).await?;
    let clock = Clock { now: Timestamp::now(), zone: TimeZone::UTC };
    let answer: BookResponse = json::read("BookResponse", answer, &clock).map_err(anyhow::Error::msg)?;
    answer.booking.context("what was booked")
}

fn command(run: &Run, stage: &Stage, words: &[&str]) -> Command {
    let mut command = Command::new(run.bin_dir.join("millpool"));
    command.args(words).arg("--json").arg("--endpoints").arg(stage.cluster.endpoints().join(","));
    command.env("MILLPOOL_TOKEN", format!("buyer:{BUYER}")).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command, which must do what it is told. Answers with what it said.
async fn done(run: &Run, stage: &Stage, words: &[&str]) -> anyhow::Result<Value> {
    let mut command = command(run, stage, words);
    let said: Output = tokio::time::timeout(DONE_WITHIN, command.output())
        .await
        .map_err(|_| broken(format!("millpool {} was not done within {DONE_WITHIN:?}", words[0])))??;
    if said.status.code() != Some(0) {
        let notices = String::from_utf8_lossy(&said.stderr).into_owned();
        return Err(broken(format!("millpool {} ended with {}: {notices}", words[0], said.status)));
    }
    serde_json::from_slice(&said.stdout).context("the command's JSON")
}

/// What a watch has told so far.
struct Told(tokio::sync::watch::Receiver<BTreeSet<String>>);

impl Told {
    /// Breaks unless all of these have been told soon.
    async fn until_all(mut self, booked: &BTreeSet<String>) -> anyhow::Result<BTreeSet<String>> {
        let all = self.0.wait_for(|told| booked.is_subset(told));
        if let Ok(Ok(told)) = tokio::time::timeout(TOLD_WITHIN, all).await {
            return Ok(told.clone());
        }
        let missing: Vec<String> = booked.difference(&self.0.borrow()).cloned().collect();
        Err(broken(format!("the watch has not told of {}", missing.join(", "))))
    }
}

/// `millpool watch`, and the bookings that it tells of.
async fn watch(run: &Run, stage: &Stage) -> anyhow::Result<(Child, Told)> {
    let mut watch = command(run, stage, &["watch"]);
    let mut process = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(process.stdout.take().context("what the watch says")?).lines();
    let (to, told) = tokio::sync::watch::channel(BTreeSet::new());
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            let ids = message["bookings"].as_array().into_iter().flatten().filter_map(|b| b["id"].as_str());
            let ids: Vec<String> = ids.map(str::to_owned).collect();
            to.send_modify(|told: &mut BTreeSet<String>| told.extend(ids));
        }
    });
    Ok((process, Told(told)))
}
