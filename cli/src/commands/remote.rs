//! `millpool remote`: a machine operated from afar, within strict limits, and the record of it.

use super::pages::{LimitArgs, gather, notice_rest};
use super::{Desk, json_of};
use crate::failure::Failure;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use crate::written::{self, flag};
use clap::{Args, Subcommand};
use millpool_proto::v1::{
    CloseSessionRequest, GetSessionRequest, ListSessionsRequest, ListSessionsResponse, OpenSessionRequest,
    OperateRequest, RemoteCommand as Asked, RemoteVerb, RemoteVerdict, Session,
};

/// A machine operated from afar: sessions, commands, and their record.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
A session is the right to operate the machine of one operation, inside the booking's own window there. What
makes the machine move (start, resume) needs the plant's consent and interlocks that are read for it; start
gives permission, and the machine decides when it moves. Pause is always possible. Safety functions stay in
the machine. What the plant does not answer in a command's time it asks the machine no more.

Examples:
  millpool remote open b000042
  millpool remote store s000007 --program P4711
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
            print(&answer.session.unwrap_or_default(), &mut desk.output)
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
            print(&answer.session.unwrap_or_default(), &mut desk.output)
        }
        RemoteCommand::Show { session } => {
            let request = GetSessionRequest { session_id: session.clone(), consistency: None };
            let answer = desk.client()?.get_session(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("GetSessionResponse", &answer)?)?);
            }
            print(&answer.session.unwrap_or_default(), &mut desk.output)
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
        RemoteCommand::Store(args) => ask(Verb::Store, &args.ask, &args.program, desk).await,
        RemoteCommand::Update(args) => ask(Verb::Update, &args.ask, &args.program, desk).await,
        RemoteCommand::Cancel(args) => ask(Verb::Cancel, args, "", desk).await,
        RemoteCommand::Clear(args) => ask(Verb::Clear, args, "", desk).await,
        RemoteCommand::Start(args) => ask(Verb::Start, args, "", desk).await,
        RemoteCommand::Resume(args) => ask(Verb::Resume, args, "", desk).await,
        RemoteCommand::Pause(args) => ask(Verb::Pause, args, "", desk).await,
        RemoteCommand::RevokeStart(args) => ask(Verb::RevokeStart, args, "", desk).await,
        RemoteCommand::Stop(args) => ask(Verb::Stop, args, "", desk).await,
        RemoteCommand::Abort(args) => ask(Verb::Abort, args, "", desk).await,
    }
}

async fn ask(verb: RemoteVerb, args: &AskArgs, program: &str, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let request = OperateRequest {
        request_id: args.request_id.clone().unwrap_or_default(),
        session_id: args.session.clone(),
        verb: verb.into(),
        program: program.to_owned(),
        valid_s: args.valid,
    };
    let answer = desk.client()?.operate(request).await?;
    let asked = answer.command.clone().unwrap_or_default();
    let (tone, words) = in_words(&asked);
    if desk.output.json {
        desk.output.value(&json_of("OperateResponse", &answer)?)?;
    } else {
        let name = name(asked.verb());
        let told = desk.output.paint(tone, &words);
        desk.output.line(format!("{} {} {name}: {told}", args.session, asked.nonce))?;
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
    let words = &outcome.words;
    match outcome.verdict() {
        RemoteVerdict::Done => (Tone::Good, words.clone()),
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

/// Prints a session for people.
fn print(session: &Session, output: &mut Output) -> Result<(), Failure> {
    let clock = output.clock.clone();
    let at = |s: i64| format!("{} ({})", shown::time(s, &clock), shown::relative(s, &clock));
    let open = session.closed_at_s == 0;
    let (tone, words) = if open { (Tone::Good, "open") } else { (Tone::Faint, "over") };
    let heading = format!("{}  {}", output.paint(Tone::Strong, &session.id), output.paint(tone, words));
    output.line(heading)?;
    let ended =
        if open { String::new() } else { format!("{}: {}", at(session.closed_at_s), session.closed_because) };
    output.particulars(&[
        ("booking", format!("{}, operation {}", session.booking_id, session.operation)),
        ("machine", format!("{} in {}", session.machine_id, session.plant_id)),
        ("holder", session.holder.clone()),
        ("opened", at(session.opened_at_s)),
        ("until", at(session.closes_at_s)),
        ("ended", ended),
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
