//! The agent's side of the console: answers on a socket in its folder.

use super::{Answer, ITEMS_MAX, ItemListing, LINE_BYTES_MAX, Listing, MachineListing, Question, SOCKET};
use crate::adapter::word::{Named, Said, Word};
use crate::agent::Ears;
use crate::clock::Clock;
use crate::dispatch::Kept;
use crate::health::{Health, MachineReport};
use crate::outbox::Status;
use crate::remote::program::Program;
use crate::remote::quarantine::Quarantine;
use crate::remote::run::Told;
use crate::samples::ask::Part;
use crate::samples::{self, Samples};
use futures::future::BoxFuture;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Terminals at one time.
const TERMINALS_MAX: usize = 16;
/// A terminal that asks nothing for so long is sent away.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// One that does not take its samples for so long, too: a person may read them page by page.
const STALL_MAX: Duration = Duration::from_secs(600);
/// A machine's adapter answers within this time, or the terminal is told that it has not.
const ANSWER_MAX: Duration = Duration::from_secs(25);
/// Longest question, bytes.
const QUESTION_BYTES_MAX: u64 = 16 << 10;
/// Longest name of who says something, bytes.
const BY_BYTES_MAX: usize = 64;
/// Who may write to the socket: owner and group.
const MODE: u32 = 0o660;

/// A plant, as the console sees it.
#[derive(Clone)]
pub struct Plant {
    /// Its clock.
    pub clock: Clock,
    /// Its dispatch list.
    pub kept: watch::Receiver<Arc<Kept>>,
    /// What it says about itself.
    pub health: Health,
    /// Its outbox.
    pub outbox: watch::Receiver<Status>,
    /// The way to its machines' adapters.
    pub ears: Ears,
    /// The way to remote operation.
    pub remote: mpsc::Sender<Told>,
    /// Programs from afar.
    pub quarantine: Quarantine,
    /// Its raw samples.
    pub samples: Samples,
}

/// Binds the socket in the agent's folder, and answers until `stop`. What an earlier process left there is
/// replaced: the folder's outbox has one owner.
pub fn serve(dir: &Path, plant: Plant, stop: CancellationToken) -> std::io::Result<BoxFuture<'static, ()>> {
    let path = dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // Until here the socket takes nobody but its owner.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(MODE))?;
    Ok(Box::pin(listen(listener, path, plant, stop)))
}

async fn listen(listener: UnixListener, path: PathBuf, plant: Plant, stop: CancellationToken) {
    let seats = Arc::new(Semaphore::new(TERMINALS_MAX));
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => break,
            seat = seats.clone().acquire_owned() => seat,
        };
        let Ok(seat) = taken else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file handles, most likely; others will be given back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (plant, stop) = (plant.clone(), stop.clone());
        tokio::spawn(async move {
            let _seat = seat;
            tokio::select! {
                () = stop.cancelled() => {}
                talked = talk(stream, &plant) => {
                    if let Err(error) = talked {
                        tracing::debug!(%error, "a console's terminal went away");
                    }
                }
            }
        });
    }
    // The next start replaces it in any case.
    let _ = std::fs::remove_file(path);
}

async fn talk(mut stream: UnixStream, plant: &Plant) -> std::io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(QUESTION_BYTES_MAX);
        let read = tokio::time::timeout(IDLE_MAX, limited.read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return Ok(());
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(Question::List) => Answer::Listing(Box::new(listing(plant))),
            Ok(Question::Say { machine, word, by }) => say(plant, &machine, word, &by, uid).await,
            Ok(Question::Consent { machine: machine_id, operation, for_s, by }) => match job(operation) {
                Ok(job) => {
                    let (within, by) = (Duration::from_secs(for_s), person(&by, uid));
                    agree(plant, |answer| Told::Consent { machine_id, job, within, by, answer }).await
                }
                Err(why) => Answer::Refused { why },
            },
            Ok(Question::Withdraw { machine: machine_id, by }) => {
                agree(plant, |answer| Told::Withdraw { machine_id, by: person(&by, uid), answer }).await
            }
            Ok(Question::Programs) => {
                let quarantine = plant.quarantine.clone();
                let waiting = tokio::task::spawn_blocking(move || quarantine.list()).await;
                Answer::Programs { waiting: waiting.unwrap_or_default() }
            }
            Ok(Question::Release { machine, program, by }) => {
                move_program(plant, machine, program, true, person(&by, uid)).await
            }
            Ok(Question::Discard { machine, program, by }) => {
                move_program(plant, machine, program, false, person(&by, uid)).await
            }
            Ok(Question::Samples(question)) => match samples(plant, question, &mut writer).await? {
                Some(last) => last,
                None => return Ok(()),
            },
            Err(error) => Answer::Refused { why: format!("the question cannot be understood: {error}") },
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        if bytes.len() >= LINE_BYTES_MAX {
            let why = format!("the answer is longer than {LINE_BYTES_MAX} bytes");
            bytes = serde_json::to_vec(&Answer::Refused { why })?;
        }
        bytes.push(b'\n');
        writer.write_all(&bytes).await?;
    }
}

/// Sends the samples that are asked for, and answers with what is to be said last; with nothing, if the terminal does not
/// take them.
async fn samples(
    plant: &Plant,
    question: samples::Question,
    writer: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<Option<Answer>> {
    let machine = question.machine.clone();
    let mut parts = match plant.samples.ask(question).await {
        Ok(parts) => parts,
        Err(why) => return Ok(Some(Answer::Refused { why })),
    };
    while let Some(part) = parts.recv().await {
        let rows = match part {
            Part::Rows(rows) => rows,
            Part::Summary(tallies) => return Ok(Some(summary(plant, &machine, tallies))),
            Part::Broken(why) => return Ok(Some(Answer::Refused { why })),
        };
        let mut bytes = serde_json::to_vec(&Answer::Rows { rows })?;
        bytes.push(b'\n');
        match tokio::time::timeout(STALL_MAX, writer.write_all(&bytes)).await {
            Ok(written) => written?,
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(Answer::Refused { why: "the samples cannot be read".to_owned() }))
}

/// The samples in short. A machine that the plant does not have, and never had, is a slip of the pen.
fn summary(plant: &Plant, machine: &str, tallies: Vec<samples::Tally>) -> Answer {
    let machines = plant.health.report().machines;
    if tallies.is_empty() && !machines.contains_key(machine) {
        let names: Vec<_> = machines.keys().map(String::as_str).collect();
        let why = format!("machine = {machine:?}: accepted is one of {}", names.join(", "));
        return Answer::Refused { why };
    }
    Answer::Tallies { tallies }
}

async fn say(plant: &Plant, machine: &str, word: Word, by: &str, uid: u32) -> Answer {
    let refused = |why: String| Answer::Refused { why };
    let report = plant.health.report();
    let Some(ear) = plant.ears.of(machine).filter(|_| report.machines.contains_key(machine)) else {
        let names: Vec<_> = report.machines.keys().map(String::as_str).collect();
        return refused(format!("machine = {machine:?}: accepted is one of {}", names.join(", ")));
    };
    let by = crate::adapter::cut(by, BY_BYTES_MAX);
    tracing::info!(plant = report.plant_id, machine, by, uid, ?word, "said at the console");
    let (answer, answered) = oneshot::channel();
    let said = Said { machine_id: machine.to_owned(), word, answer };
    if ear.try_send(said).is_err() {
        return refused("too much waits for this machine already; try again in a moment".to_owned());
    }
    match tokio::time::timeout(ANSWER_MAX, answered).await {
        Ok(Ok(Ok(words))) => Answer::Done { words },
        Ok(Ok(Err(error))) => {
            tracing::info!(plant = report.plant_id, machine, %error, "not taken in");
            refused(error.to_string())
        }
        Ok(Err(_)) => refused("the agent is stopping".to_owned()),
        Err(_) => Answer::Late {
            why: format!(
                "no answer within {} s: the line to the machine is being opened, or the outbox is full. It may still \
                 be taken in: look at the list before you say it again",
                ANSWER_MAX.as_secs()
            ),
        },
    }
}

/// The one operation that is agreed to, if one is named: a whole booking is more than anybody looks at.
fn job(named: Option<Named>) -> Result<Option<String>, String> {
    match named {
        Some(Named { operation: None, booking_id }) => Err(format!(
            "operation = {booking_id}: accepted is BOOKING/OPERATION, or none for whatever is asked"
        )),
        named => Ok(named.map(|named| named.to_string())),
    }
}

/// Who says something: as the terminal knows, and as the system knows.
fn person(by: &str, uid: u32) -> String {
    format!("{} (user {uid})", crate::adapter::cut(by, BY_BYTES_MAX)).trim_start().to_owned()
}

async fn agree(plant: &Plant, told: impl FnOnce(oneshot::Sender<Result<String, String>>) -> Told) -> Answer {
    let (answer, answered) = oneshot::channel();
    let late = || Answer::Late { why: "no answer: the agent is busy, or stopping".to_owned() };
    if plant.remote.try_send(told(answer)).is_err() {
        return late();
    }
    match tokio::time::timeout(ANSWER_MAX, answered).await {
        Ok(Ok(Ok(words))) => Answer::Done { words },
        Ok(Ok(Err(why))) => Answer::Refused { why },
        _ => late(),
    }
}

async fn move_program(
    plant: &Plant,
    machine_id: String,
    program: Program,
    release: bool,
    by: String,
) -> Answer {
    // As it came over the socket its name is anybody's.
    let Some(program) = Program::read(&program.name, &program.sha256.to_string()) else {
        return Answer::Refused {
            why: format!("program = {:?}: accepted is the name of a file", program.name),
        };
    };
    agree(plant, |answer| Told::Program { machine_id, program, release, by, answer }).await
}

fn listing(plant: &Plant) -> Listing {
    let report = plant.health.report();
    let kept = plant.kept.borrow().clone();
    let status = plant.outbox.borrow().clone();
    let machines = report.machines.into_iter().map(|(id, report)| machine_listing(id, report, &kept));
    Listing {
        plant_id: report.plant_id,
        now_ms: plant.clock.now_ms(),
        line: report.line,
        revision: kept.revision(),
        since_ms: kept.since_ms,
        unsent: status.last_seq - status.acked_seq,
        refused: report.refused_events.into(),
        machines: machines.collect(),
    }
}

fn machine_listing(id: String, report: MachineReport, kept: &Kept) -> MachineListing {
    let mut items: Vec<_> = kept.items_of(&id);
    items.sort_by_key(|item| item.start_s);
    let more = items.len().saturating_sub(ITEMS_MAX);
    let items = items.into_iter().take(ITEMS_MAX).map(|item| ItemListing {
        name: format!("{}/{}", item.booking_id, item.operation),
        start_s: item.start_s,
        end_s: item.end_s,
        setup_s: item.setup_s,
        quantity: item.quantity,
        material: item.material,
        setup_family: item.setup_family,
        running: item.running,
        frozen: item.frozen,
    });
    MachineListing {
        adapter: report.adapter.to_owned(),
        adapter_state: report.adapter_state,
        state: report.machine_state,
        at_hand: report.operation,
        session: report.session,
        trouble: report.trouble,
        items: items.collect(),
        more,
        id,
    }
}
