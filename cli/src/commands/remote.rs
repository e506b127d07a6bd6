//! `millpool remote`: a machine operated from afar, within strict limits, and the record of it.

use super::pages::{LimitArgs, gather, notice_rest};
use super::{Desk, json_of};
use crate::failure::Failure;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use crate::written::{self, flag};
use clap::{Args, Subcommand};
use millpool_proto::v1::{
    CloseSessionRequest, GetSessionRequest, ListSessionsRequest, ListSessionsResponse, MachineState,
    OpenSessionRequest, OperateRequest, OperateResponse, RemoteCommand as Asked, RemoteVerb, RemoteVerdict,
    Session, SessionView, UploadProgramRequest,
};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest program, bytes.
const PROGRAM_BYTES_MAX: usize = 32 << 20;
/// A program is handed over in parts of so many bytes.
const PART_BYTES: usize = 256 << 10;
/// How often an upload is begun anew, where the coordinator that had it leads no more.
const UPLOADS_MAX: usize = 3;
/// A plant that fetches a program is asked how far it is this often,
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// and for so long.
const LOOKS_MAX: usize = 600;

/// A machine operated from afar: sessions, commands, and their record.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
A session is the right to operate the machine of one operation, inside the booking's own window
there. What makes the machine move (start, resume) needs the plant's consent, and interlocks that
are read for it; start gives permission, and the machine decides when it moves. Pause is always
possible. Safety functions stay in the machine. What the plant does not answer in a command's time
it asks the machine no more.

A program is put into the plant's quarantine, and released by the plant; a job that rests on it
starts only while the file is still the one that was released. A plant may take consent and release
from its own people at its console only; then they are refused here.

Examples:
  millpool remote open b000042
  millpool remote put s000007 bracket.nc
  millpool remote store s000007 --program bracket.nc --file bracket.nc
  millpool remote start s000007
  millpool remote pause s000007
  millpool remote show s000007")]
pub enum RemoteCommand {
    /// Begins a session; an earlier one of the machine ends by it
    Open {
        /// The booking, e.g. b000042
        booking: String,
        /// The operation, from 0
        #[arg(long, value_name = "N", default_value_t = 0)]
        operation: u32,
        /// Request id of an earlier try whose outcome is unknown
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
    /// Ends a session: a permission to start that was not used is taken back, a running cut is left alone
    Close {
        /// The session, e.g. s000007
        session: String,
        /// Why, in words
        #[arg(long, value_name = "TEXT", default_value = "")]
        because: String,
        /// Request id of an earlier try whose outcome is unknown
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
    /// Lists sessions, the latest first
    List {
        /// Only this booking's
        #[arg(long, value_name = "BOOKING", default_value = "")]
        booking: String,
        /// Only this machine's
        #[arg(long, value_name = "MACHINE", default_value = "")]
        machine: String,
        /// Only those that are open
        #[arg(long)]
        open: bool,
        /// How many.
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Shows a session with all that was asked in it, and what came of it
    Show {
        /// The session, e.g. s000007
        session: String,
    },
    /// Puts the operation's job on the machine's list
    Store(ProgramArgs),
    /// Replaces the job while it has not begun
    Update(ProgramArgs),
    /// Takes the job off the list before it has begun
    Cancel(AskArgs),
    /// Takes the job off the list after it is over
    Clear(AskArgs),
    /// Allows the job to start; needs the plant's consent
    Start(AskArgs),
    /// Lets the interrupted job go on; needs the plant's consent
    Resume(AskArgs),
    /// Interrupts the job
    Pause(AskArgs),
    /// Takes the permission to start back
    RevokeStart(AskArgs),
    /// Ends the job in order
    Stop(AskArgs),
    /// Breaks the job off at once; the plant's member only
    Abort(AskArgs),
    /// Puts a program into the plant's quarantine
    Put {
        /// The session, with what every command takes
        #[command(flatten)]
        ask: AskArgs,
        /// The program's file, at most 32 MiB
        file: PathBuf,
        /// Its name at the plant; the file's own without
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Lets a program out of quarantine, to where the machine reads its programs; the plant's member only
    Release(SealedArgs),
    /// Throws a program out of quarantine
    Discard(SealedArgs),
    /// Agrees that the machine moves for the session's operation; the plant's member only
    Consent {
        /// The session, with what every command takes
        #[command(flatten)]
        ask: AskArgs,
        /// For so long, at most 8h
        #[arg(long = "for", value_name = "DURATION", value_parser = flag(written::duration_s), default_value = "10m")]
        span: u32,
    },
    /// Agrees no more; the plant's member only
    Withdraw(AskArgs),
}

/// What every command of a session takes.
#[derive(Args, Debug)]
pub struct AskArgs {
    /// The session, e.g. s000007
    session: String,
    /// Good for so long, at most 30s; after that the machine is not asked
    #[arg(long, value_name = "DURATION", value_parser = flag(written::duration_s), default_value = "5s")]
    valid: u32,
    /// Request id of an earlier try whose outcome is unknown
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// And what puts a job on the list.
#[derive(Args, Debug)]
pub struct ProgramArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// The program, by a name that the machine knows
    #[arg(long, value_name = "NAME", default_value = "")]
    program: String,
    /// SHA-256 of its content: refused unless that very content was released
    #[arg(long, value_name = "HEX", default_value = "", requires = "program")]
    sha256: String,
    /// The program's file here, instead of its SHA-256
    #[arg(long, value_name = "FILE", conflicts_with = "sha256", requires = "program")]
    file: Option<PathBuf>,
}

/// And what is about a program in quarantine.
#[derive(Args, Debug)]
pub struct SealedArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// The program's name
    name: String,
    /// SHA-256 of its content, as it was told when it was put there
    sha256: String,
}

/// Runs `remote`.
pub async fn run(command: &RemoteCommand, desk: &mut Desk<'_>) -> Result<(), Failure> {
    use RemoteVerb as Verb;
    match command {
        RemoteCommand::Open { booking, operation, request_id } => {
            let request = OpenSessionRequest {
                request_id: request_id.clone().unwrap_or_default(),
                booking_id: booking.clone(),
                operation: *operation,
            };
            let answer = desk.client()?.open_session(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("OpenSessionResponse", &answer)?)?);
            }
            print(&answer.session.unwrap_or_default(), None, &mut desk.output)
        }
        RemoteCommand::Close { session, because, request_id } => {
            let request = CloseSessionRequest {
                request_id: request_id.clone().unwrap_or_default(),
                session_id: session.clone(),
                because: because.clone(),
            };
            let answer = desk.client()?.close_session(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("CloseSessionResponse", &answer)?)?);
            }
            print(&answer.session.unwrap_or_default(), None, &mut desk.output)
        }
        RemoteCommand::Show { session } => {
            let request = GetSessionRequest { session_id: session.clone(), consistency: None };
            let answer = desk.client()?.get_session(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("GetSessionResponse", &answer)?)?);
            }
            print(&answer.session.unwrap_or_default(), answer.view.as_ref(), &mut desk.output)
        }
        RemoteCommand::List { booking, machine, open, limit } => {
            let asked = ListSessionsRequest {
                booking_id: booking.clone(),
                machine_id: machine.clone(),
                open_only: *open,
                ..ListSessionsRequest::default()
            };
            list(asked, *limit, desk).await
        }
        RemoteCommand::Store(args) => ask(args.request(Verb::Store)?, desk).await,
        RemoteCommand::Update(args) => ask(args.request(Verb::Update)?, desk).await,
        RemoteCommand::Cancel(args) => ask(args.request(Verb::Cancel), desk).await,
        RemoteCommand::Clear(args) => ask(args.request(Verb::Clear), desk).await,
        RemoteCommand::Start(args) => ask(args.request(Verb::Start), desk).await,
        RemoteCommand::Resume(args) => ask(args.request(Verb::Resume), desk).await,
        RemoteCommand::Pause(args) => ask(args.request(Verb::Pause), desk).await,
        RemoteCommand::RevokeStart(args) => ask(args.request(Verb::RevokeStart), desk).await,
        RemoteCommand::Stop(args) => ask(args.request(Verb::Stop), desk).await,
        RemoteCommand::Abort(args) => ask(args.request(Verb::Abort), desk).await,
        RemoteCommand::Put { ask, file, name } => put(ask, file, name.as_deref(), desk).await,
        RemoteCommand::Release(args) => ask(args.request(Verb::Release), desk).await,
        RemoteCommand::Discard(args) => ask(args.request(Verb::Discard), desk).await,
        RemoteCommand::Consent { ask: args, span } => {
            ask(OperateRequest { consent_s: *span, ..args.request(Verb::Consent) }, desk).await
        }
        RemoteCommand::Withdraw(args) => ask(args.request(Verb::Withdraw), desk).await,
    }
}

impl AskArgs {
    fn request(&self, verb: RemoteVerb) -> OperateRequest {
        OperateRequest {
            request_id: self.request_id.clone().unwrap_or_default(),
            session_id: self.session.clone(),
            verb: verb.into(),
            valid_s: self.valid,
            ..OperateRequest::default()
        }
    }
}

impl ProgramArgs {
    fn request(&self, verb: RemoteVerb) -> Result<OperateRequest, Failure> {
        let program_sha256 = match &self.file {
            Some(file) => sha256(&read(file)?),
            None => self.sha256.clone(),
        };
        Ok(OperateRequest { program: self.program.clone(), program_sha256, ..self.ask.request(verb) })
    }
}

impl SealedArgs {
    fn request(&self, verb: RemoteVerb) -> OperateRequest {
        let (program, program_sha256) = (self.name.clone(), self.sha256.clone());
        OperateRequest { program, program_sha256, ..self.ask.request(verb) }
    }
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A program's content.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |why: String| Failure::Usage(format!("{}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| unreadable(error.to_string()))?.len();
    if !(1..=PROGRAM_BYTES_MAX as u64).contains(&length) {
        return Err(unreadable(format!("{length} bytes; accepted are 1 to {PROGRAM_BYTES_MAX}")));
    }
    std::fs::read(file).map_err(|error| unreadable(error.to_string()))
}

/// Hands a program over, has it put into quarantine, and waits until the plant has fetched it.
async fn put(args: &AskArgs, file: &Path, name: Option<&str>, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let content = read(file)?;
    let own = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let request = OperateRequest {
        program: name.map_or(own, str::to_owned),
        program_sha256: sha256(&content),
        program_bytes: content.len() as u64,
        ..args.request(RemoteVerb::Put)
    };
    upload(&request, &content, desk).await?;
    let client = desk.client()?;
    let mut answer = client.operate(request).await?;
    let nonce = answer.command.as_ref().map(|command| command.nonce).unwrap_or_default();
    for look in 0..LOOKS_MAX {
        if answer.command.as_ref().is_some_and(|command| command.outcome.is_some()) {
            break;
        }
        if look == 0 {
            let told = "the plant is fetching it; Ctrl-C leaves it to that, and `show` says how it went";
            writeln!(desk.output.notices, "{told}").map_err(Failure::Output)?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let request = GetSessionRequest { session_id: args.session.clone(), consistency: None };
        let session = client.get_session(request).await?.session.unwrap_or_default();
        answer.command = session.commands.into_iter().find(|command| command.nonce == nonce);
    }
    told(&args.session, &answer, desk)
}

/// Hands a program's content over, part by part; anew where another coordinator leads.
async fn upload(request: &OperateRequest, content: &[u8], desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    for attempt in 1.. {
        let mut offset = 0;
        let trouble = loop {
            let Some(rest) = content.get(offset..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
            let part = UploadProgramRequest {
                session_id: request.session_id.clone(),
                program: request.program.clone(),
                program_sha256: request.program_sha256.clone(),
                program_bytes: request.program_bytes,
                offset: offset as u64,
                part: rest[..rest.len().min(PART_BYTES)].to_vec().into(),
            };
            match client.upload_program(part).await {
                Ok(answer) => offset = usize::try_from(answer.received_bytes).unwrap_or(usize::MAX),
                Err(error) => break error,
            }
        };
        if offset == 0 || attempt == UPLOADS_MAX {
            return Err(trouble.into());
        }
    }
    Ok(())
}

async fn ask(request: OperateRequest, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let session_id = request.session_id.clone();
    let answer = desk.client()?.operate(request).await?;
    told(&session_id, &answer, desk)
}

/// Says what came of a command.
fn told(session_id: &str, answer: &OperateResponse, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let asked = answer.command.clone().unwrap_or_default();
    let (tone, words) = in_words(&asked);
    if desk.output.json {
        desk.output.value(&json_of("OperateResponse", answer)?)?;
    } else {
        let name = name(asked.verb());
        let told = desk.output.paint(tone, &words);
        desk.output.line(format!("{session_id} {} {name}: {told}", asked.nonce))?;
    }
    match asked.outcome.as_ref().map(|outcome| outcome.verdict()) {
        Some(RemoteVerdict::Done) => Ok(()),
        Some(RemoteVerdict::Refused | RemoteVerdict::Rejected) => Err(Failure::Refused),
        _ => Err(Failure::InDoubt),
    }
}

/// What came of a command, in words, and the tone that it calls for.
fn in_words(asked: &Asked) -> (Tone, String) {
    let Some(outcome) = &asked.outcome else {
        return (Tone::Warn, "the plant has not answered".to_owned());
    };
    let words = match &asked.taken_back {
        Some(back) => format!("{}; taken back by the agent: {}", outcome.words, back.words),
        None => outcome.words.clone(),
    };
    match outcome.verdict() {
        RemoteVerdict::Done => (Tone::Good, words),
        RemoteVerdict::Refused => (Tone::Bad, format!("not asked: {words}")),
        RemoteVerdict::Rejected => (Tone::Bad, format!("the machine says no: {words}")),
        _ => (Tone::Warn, format!("nobody knows: {words}")),
    }
}

/// A verb as it is typed.
fn name(verb: RemoteVerb) -> String {
    verb.as_str_name().trim_start_matches("REMOTE_VERB_").to_lowercase().replace('_', "-")
}

async fn list(asked: ListSessionsRequest, limit: LimitArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    let (sessions, rest) = gather(limit, async |page| {
        let answer = client.list_sessions(ListSessionsRequest { page: Some(page), ..asked.clone() }).await?;
        Ok((answer.sessions, answer.next_page_token))
    })
    .await?;
    if desk.output.json {
        let all = ListSessionsResponse { header: None, sessions, next_page_token: rest };
        return Ok(desk.output.value(&json_of("ListSessionsResponse", &all)?)?);
    }
    let mut sheet =
        Sheet::new(&["SESSION", "BOOKING", ">OP", "MACHINE", "HOLDER", "OPENED", "UNTIL", "ENDED"]);
    for session in &sessions {
        let at = |s: i64| shown::time(s, &desk.output.clock);
        let over = if session.closed_at_s == 0 { String::new() } else { session.closed_because.clone() };
        sheet.toned(vec![
            (if session.closed_at_s == 0 { Tone::Good } else { Tone::Faint }, session.id.clone()),
            (Tone::Plain, session.booking_id.clone()),
            (Tone::Plain, session.operation.to_string()),
            (Tone::Plain, session.machine_id.clone()),
            (Tone::Plain, session.holder.clone()),
            (Tone::Plain, at(session.opened_at_s)),
            (Tone::Plain, at(session.closes_at_s)),
            (Tone::Faint, over),
        ]);
    }
    desk.output.sheet(&sheet)?;
    notice_rest(sessions.len(), &rest, &mut desk.output)
}

/// What the machine is at, and how far the session's operation is, in words.
fn in_view(view: &SessionView, clock: &written::Clock) -> (String, String) {
    let state = view.machine_state().as_str_name().trim_start_matches("MACHINE_STATE_").to_lowercase();
    let since = match view.machine_state() {
        MachineState::Unknown => String::new(),
        _ => format!(" since {}", shown::time(view.machine_state_since_s, clock)),
    };
    let down = if view.machine_down { ", down" } else { "" };
    let goes = match view.started {
        true => {
            format!("{} good, expected to end {}", view.pieces_good, shown::time(view.expected_end_s, clock))
        }
        false => "not begun".to_owned(),
    };
    (format!("{state}{since}{down}"), goes)
}

/// Prints a session for people.
fn print(session: &Session, view: Option<&SessionView>, output: &mut Output) -> Result<(), Failure> {
    let clock = output.clock.clone();
    let at = |s: i64| format!("{} ({})", shown::time(s, &clock), shown::relative(s, &clock));
    let open = session.closed_at_s == 0;
    let (tone, words) = if open { (Tone::Good, "open") } else { (Tone::Faint, "over") };
    let heading = format!("{}  {}", output.paint(Tone::Strong, &session.id), output.paint(tone, words));
    output.line(heading)?;
    let (state, pieces) = view.map(|view| in_view(view, &clock)).unwrap_or_default();
    let ended =
        if open { String::new() } else { format!("{}: {}", at(session.closed_at_s), session.closed_because) };
    output.particulars(&[
        ("booking", format!("{}, operation {}", session.booking_id, session.operation)),
        ("machine", format!("{} in {}", session.machine_id, session.plant_id)),
        ("holder", session.holder.clone()),
        ("opened", at(session.opened_at_s)),
        ("until", at(session.closes_at_s)),
        ("ended", ended),
        ("state", state),
        ("pieces", pieces),
    ])?;
    if session.commands.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut sheet = Sheet::new(&[">#", "WHEN", "BY", "WHAT", "CONSENT", "CAME OF IT"]);
    for asked in &session.commands {
        let outcome = asked.outcome.clone().unwrap_or_default();
        let (tone, words) = in_words(asked);
        sheet.toned(vec![
            (Tone::Plain, asked.nonce.to_string()),
            (Tone::Plain, shown::time(asked.asked_at_s, &clock)),
            (Tone::Plain, asked.by.clone()),
            (Tone::Plain, format!("{} {}", name(asked.verb()), asked.program).trim_end().to_owned()),
            (Tone::Plain, outcome.consent),
            (tone, words),
        ]);
    }
    output.sheet(&sheet)?;
    Ok(())
}
