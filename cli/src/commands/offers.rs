//! `millpool offers`: windows of machines, lent to the alliance.

use super::pages::{LimitArgs, gather, notice_rest};
use super::put::from_file;
use super::{Desk, json_of};
use crate::failure::Failure;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use crate::written::{self, Clock, Stretch, When, flag};
use clap::{Args, Subcommand};
use millpool_proto::v1::{
    CreateOfferRequest, ListOffersRequest, ListOffersResponse, Offer, Shift, Window, WithdrawOfferRequest,
    WithdrawOfferResponse,
};
use std::path::PathBuf;

/// Windows of machines, lent to the alliance.
#[derive(Subcommand, Debug)]
pub enum OffersCommand {
    /// Lists offers
    List(ListOffersArgs),
    /// Lends windows of a machine
    #[command(after_help = "\
An offer is not changed: withdraw it and make another.

Examples:
  millpool offers create nights-1 --machine dmu50-1 --shift 'mon-fri 18:00-06:00' \\
      --shift 'sat,sun 00:00-24:00' --from now --until +28d --notice 2h \\
      --except 'sat 08:00..+6h'
  millpool offers create once-1 --machine dmu50-1 --window 'tomorrow 08:00..+10h'")]
    Create(CreateOfferArgs),
    /// Withdraws an offer, or says what that would disturb
    #[command(after_help = "\
Examples:
  millpool offers withdraw nights-1 --preview
  millpool offers withdraw nights-1 --accept-disturbance")]
    Withdraw(WithdrawOfferArgs),
}

/// Which offers.
#[derive(Args, Debug)]
pub struct ListOffersArgs {
    /// Only offers of this machine
    #[arg(long, value_name = "MACHINE", default_value = "")]
    machine: String,
    /// Withdrawn offers too
    #[arg(long)]
    withdrawn: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

/// An offer, as flags.
#[derive(Args, Debug)]
pub struct CreateOfferArgs {
    /// Its id: lower-case letters, digits and dashes
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    /// The machine that is lent
    #[arg(long, value_name = "MACHINE", required_unless_present = "file")]
    machine: Option<String>,
    /// A shift that comes again every week, in the plant's local time, e.g. 'mon-fri 18:00-06:00'
    #[arg(long = "shift", value_name = "DAYS HOURS", value_parser = flag(written::shift))]
    shifts: Vec<Shift>,
    /// When the shifts begin [default: now]
    #[arg(long, value_name = "TIME", value_parser = flag(When::read))]
    from: Option<When>,
    /// When the shifts end, at most 92d later [default: 28d later]
    #[arg(long, value_name = "TIME", value_parser = flag(When::read))]
    until: Option<When>,
    /// A single window besides the shifts, e.g. 'tomorrow 08:00..+10h'
    #[arg(long = "window", value_name = "START..END", value_parser = flag(Stretch::read))]
    windows: Vec<Stretch>,
    /// A stretch taken out: own work, maintenance
    #[arg(long = "except", value_name = "START..END", value_parser = flag(Stretch::read))]
    except: Vec<Stretch>,
    /// Work may start no sooner than this after it is assigned
    #[arg(long, value_name = "DURATION", value_parser = flag(written::duration_s))]
    notice: Option<u32>,
    /// The whole of it as a JSON or TOML file, with the contract's field names
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "machine"])]
    file: Option<PathBuf>,
    /// Request id of an earlier try whose outcome is unknown
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Which offer to withdraw, and how.
#[derive(Args, Debug)]
pub struct WithdrawOfferArgs {
    /// The offer
    id: String,
    /// Only say what it would disturb
    #[arg(long, conflicts_with = "accept_disturbance")]
    preview: bool,
    /// Withdraw even if confirmed work is disturbed by it
    #[arg(long)]
    accept_disturbance: bool,
    /// Request id of an earlier try whose outcome is unknown
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Runs `offers`.
pub async fn run(command: &OffersCommand, desk: &mut Desk<'_>) -> Result<(), Failure> {
    match command {
        OffersCommand::List(args) => list(args, desk).await,
        OffersCommand::Create(args) => create(args, desk).await,
        OffersCommand::Withdraw(args) => withdraw(args, desk).await,
    }
}

async fn list(args: &ListOffersArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    let (offers, rest) = gather(args.limit, async |page| {
        let request = ListOffersRequest {
            machine_id: args.machine.clone(),
            include_withdrawn: args.withdrawn,
            page: Some(page),
            consistency: None,
        };
        let answer = client.list_offers(request).await?;
        Ok((answer.offers, answer.next_page_token))
    })
    .await?;
    if desk.output.json {
        let all = ListOffersResponse { header: None, offers, next_page_token: rest };
        return Ok(desk.output.value(&json_of("ListOffersResponse", &all)?)?);
    }
    show(&offers, &mut desk.output)?;
    notice_rest(offers.len(), &rest, &mut desk.output)
}

async fn create(args: &CreateOfferArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let offer = match &args.file {
        Some(path) => from_file("Offer", path, desk)?,
        None => offer(args, &desk.output.clock)?,
    };
    let request_id = args.request_id.clone().unwrap_or_default();
    let answer = desk.client()?.create_offer(CreateOfferRequest { request_id, offer: Some(offer) }).await?;
    if desk.output.json {
        return Ok(desk.output.value(&json_of("CreateOfferResponse", &answer)?)?);
    }
    show(&answer.offer.into_iter().collect::<Vec<_>>(), &mut desk.output)
}

fn offer(args: &CreateOfferArgs, clock: &Clock) -> Result<Offer, Failure> {
    if args.shifts.is_empty() && args.windows.is_empty() {
        return Err(Failure::Usage(
            "the offer lends nothing: say --shift 'mon-fri 18:00-06:00' or --window 'tomorrow 08:00..+10h'"
                .to_owned(),
        ));
    }
    let windows = |name: &str, stretches: &[Stretch]| -> Result<Vec<Window>, Failure> {
        let resolved: Result<Vec<Window>, String> = stretches
            .iter()
            .map(|stretch| stretch.resolve_s(clock).map(|(start_s, end_s)| Window { start_s, end_s }))
            .collect();
        Ok(resolved.map_err(|accepted| format!("{name}: accepted is {accepted}"))?)
    };
    let mut offer = Offer {
        id: args.id.clone().unwrap_or_default(),
        machine_id: args.machine.clone().unwrap_or_default(),
        shifts: args.shifts.clone(),
        windows: windows("--window", &args.windows)?,
        except: windows("--except", &args.except)?,
        notice_s: args.notice.unwrap_or(0),
        ..Offer::default()
    };
    if !offer.shifts.is_empty() {
        let from = args.from.clone().unwrap_or(When::In(0)).resolve_s(clock);
        offer.from_s = from.map_err(|error| format!("--from: {error}"))?;
        offer.until_s = match &args.until {
            Some(until) => until.resolve_s(clock).map_err(|error| format!("--until: {error}"))?,
            None => offer.from_s + 28 * 86_400,
        };
    }
    Ok(offer)
}

async fn withdraw(args: &WithdrawOfferArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let request = WithdrawOfferRequest {
        request_id: args.request_id.clone().unwrap_or_default(),
        offer_id: args.id.clone(),
        preview: args.preview,
        accept_disturbance: args.accept_disturbance,
    };
    let answer = desk.client()?.withdraw_offer(request).await?;
    if desk.output.json {
        return Ok(desk.output.value(&json_of("WithdrawOfferResponse", &answer)?)?);
    }
    show_withdrawal(args, &answer, &mut desk.output)
}

fn show_withdrawal(
    args: &WithdrawOfferArgs,
    answer: &WithdrawOfferResponse,
    output: &mut Output,
) -> Result<(), Failure> {
    let (id, count) = (&args.id, answer.disturbed.len());
    let operations = if count == 1 { "1 operation".to_owned() } else { format!("{count} operations") };
    output.line(match (args.preview, count) {
        (true, 0) => format!("Withdrawing {id} would disturb nothing."),
        (true, _) => format!("Withdrawing {id} would take the place of {operations}:"),
        (false, 0) => format!("{id} is withdrawn; it disturbed nothing."),
        (false, _) => format!("{id} is withdrawn; {operations} lost a place:"),
    })?;
    if count == 0 {
        return Ok(());
    }
    let mut sheet = Sheet::new(&["BOOKING", "OP", "MACHINE", "START", "END"]);
    for disturbed in &answer.disturbed {
        let window = disturbed.window.unwrap_or_default();
        sheet.row([
            disturbed.booking_id.clone(),
            disturbed.operation.to_string(),
            disturbed.machine_id.clone(),
            shown::time(window.start_s, &output.clock),
            shown::time(window.end_s, &output.clock),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}

fn show(offers: &[Offer], output: &mut Output) -> Result<(), Failure> {
    let columns = ["OFFER", "MACHINE", "SHIFTS", "FROM", "UNTIL", ">WINDOWS", ">NOTICE", ">OPEN", "STATE"];
    let mut sheet = Sheet::new(&columns);
    for offer in offers {
        let open_s: i64 = offer.open.iter().map(|window| window.end_s - window.start_s).sum();
        let shifts: Vec<String> = offer.shifts.iter().map(shown::shift).collect();
        let (first, last) = (offer.open.first(), offer.open.last());
        let state = if offer.withdrawn { (Tone::Faint, "withdrawn") } else { (Tone::Good, "lent") };
        sheet.toned(vec![
            (Tone::Strong, offer.id.clone()),
            (Tone::Plain, offer.machine_id.clone()),
            (Tone::Plain, shifts.join("; ")),
            (Tone::Plain, shown::time(first.map_or(offer.from_s, |window| window.start_s), &output.clock)),
            (Tone::Plain, shown::time(last.map_or(offer.until_s, |window| window.end_s), &output.clock)),
            (Tone::Plain, offer.open.len().to_string()),
            (Tone::Plain, shown::duration(i64::from(offer.notice_s))),
            (Tone::Plain, format!("{} h", shown::grouped(u64::try_from(open_s).unwrap_or(0) / 3600))),
            (state.0, state.1.to_owned()),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}
