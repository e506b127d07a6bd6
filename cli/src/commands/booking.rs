//! `millpool book`, `confirm`, `show`, `list` and `cancel`: a buyer's bookings.

use super::pages::{LimitArgs, gather, notice_rest};
use super::quote::{assignments, in_words};
use super::{Desk, json_of};
use crate::failure::Failure;
use crate::json;
use crate::order::OrderArgs;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use crate::written::{self, When, flag};
use clap::{Args, ValueEnum};
use millpool_proto::v1::{
    BookRequest, Booking, BookingStatus, CancelBookingRequest, ConfirmBookingRequest, GetBookingRequest,
    ListBookingsRequest, ListBookingsResponse, Objective, Option as Choice, Order, Price, QuoteRequest,
    QuoteResponse, Terms,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Books an order within terms, and prints the promise.
#[derive(Args, Debug)]
#[command(after_help = "\
Without a choice it books the cheapest. An option is taken as it is while its time is free; if
somebody was quicker, it is placed anew, but never later or dearer than the option promised.

Examples:
  millpool book --order bracket.toml --cheapest --by 'fri 17:00' --at-most 5000
  millpool book --order bracket.toml --option 2
  millpool quote --order bracket.toml --save quote.json
  millpool book --quote quote.json --option 2 --hold 2h
  millpool confirm b000042")]
pub struct BookArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// File kept by 'millpool quote --save'
    #[arg(long, value_name = "FILE", conflicts_with = "order", help_heading = "Choice")]
    quote: Option<PathBuf>,
    /// Take the option with this number
    #[arg(long, value_name = "N", group = "choice", help_heading = "Choice",
          value_parser = clap::value_parser!(u32).range(1..))]
    option: Option<u32>,
    /// Take the lowest price
    #[arg(long, group = "choice", help_heading = "Choice")]
    cheapest: bool,
    /// Take the earliest completion
    #[arg(long, group = "choice", help_heading = "Choice")]
    fastest: bool,
    /// Take the least carbon
    #[arg(long, group = "choice", help_heading = "Choice")]
    greenest: bool,
    /// Only if it is promised by this
    #[arg(long, value_name = "TIME", value_parser = flag(When::read), help_heading = "Terms")]
    by: Option<When>,
    /// Only if it costs no more than this, CNY
    #[arg(long, value_name = "MONEY", value_parser = flag(written::money_fen), help_heading = "Terms")]
    at_most: Option<i64>,
    /// Hold the capacity for this long instead of confirming, at most 1d
    #[arg(long, value_name = "DURATION", value_parser = flag(written::duration_s), help_heading = "Terms")]
    hold: Option<u32>,
    /// Request id of an earlier try whose outcome is unknown
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Books.
pub async fn book(args: &BookArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let (order, quoted) = match &args.quote {
        Some(path) => kept_quote(path, desk)?,
        None => (args.order.read(&desk.output.clock)?, None),
    };
    let option = match args.option {
        Some(number) => Some(chosen(number, &order, quoted, desk).await?),
        None => None,
    };
    let terms = terms(args, option.as_ref(), desk)?;
    let request = BookRequest {
        request_id: args.request_id.clone().unwrap_or_default(),
        order: Some(order),
        terms: Some(terms),
        option,
        hold_s: args.hold.unwrap_or(0),
    };
    let booked = desk.client()?.book(request).await?;
    if desk.output.json {
        return Ok(desk.output.value(&json_of("BookResponse", &booked)?)?);
    }
    print(&booked.booking.unwrap_or_default(), &mut desk.output)
}

fn kept_quote(path: &Path, desk: &Desk) -> Result<(Order, Option<Vec<Choice>>), Failure> {
    let told = |error: String| format!("--quote {}: {error}", path.display());
    let mut kept = json::file(path)?;
    let mut part = |name: &str| kept.get_mut(name).map(Value::take).ok_or_else(|| told(format!("no {name}")));
    let order = json::read("Order", part("order")?, &desk.output.clock).map_err(told)?;
    let options = serde_json::json!({ "options": part("options")? });
    let quote: QuoteResponse = json::read("QuoteResponse", options, &desk.output.clock).map_err(told)?;
    Ok((order, Some(quote.options)))
}

/// The option with a number, counted from 1: of the kept quote, or of a fresh one.
async fn chosen(
    number: u32,
    order: &Order,
    quoted: Option<Vec<Choice>>,
    desk: &mut Desk<'_>,
) -> Result<Choice, Failure> {
    let options = match quoted {
        Some(options) => options,
        None => {
            desk.client()?
                .quote(QuoteRequest { order: Some(order.clone()), consistency: None })
                .await?
                .options
        }
    };
    let count = options.len();
    options.into_iter().nth(number as usize - 1).ok_or_else(|| {
        Failure::Usage(match count {
            0 => "--option: the quote has no options; 'millpool quote' says why".to_owned(),
            _ => format!("--option {number}: the quote has options 1 to {count}"),
        })
    })
}

/// The terms: what was said, and never worse than the option that was chosen.
fn terms(args: &BookArgs, option: Option<&Choice>, desk: &Desk) -> Result<Terms, Failure> {
    let by = args.by.as_ref().map(|when| when.resolve_s(&desk.output.clock)).transpose();
    let by = by.map_err(|error| format!("--by: {error}"))?;
    let objective = match (args.fastest, args.greenest) {
        (true, _) => Objective::Fastest,
        (_, true) => Objective::Greenest,
        _ => Objective::Cheapest,
    };
    let price = option.and_then(|option| option.price.as_ref()).map(|price| price.total_fen);
    Ok(Terms {
        objective: objective.into(),
        promised_by_s: by.or(option.map(|option| option.promised_by_s)).unwrap_or(0),
        price_max_fen: args.at_most.or(price).unwrap_or(0),
    })
}

/// Turns a hold into a confirmed booking.
#[derive(Args, Debug)]
pub struct ConfirmArgs {
    /// The held booking, e.g. b000042
    booking: String,
    /// Request id of an earlier try whose outcome is unknown
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Confirms.
pub async fn confirm(args: &ConfirmArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let request = ConfirmBookingRequest {
        request_id: args.request_id.clone().unwrap_or_default(),
        booking_id: args.booking.clone(),
    };
    let answer = desk.client()?.confirm_booking(request).await?;
    if desk.output.json {
        return Ok(desk.output.value(&json_of("ConfirmBookingResponse", &answer)?)?);
    }
    print(&answer.booking.unwrap_or_default(), &mut desk.output)
}

/// Shows one booking: its promise, its operations, what disturbed it.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The booking, e.g. b000042
    booking: String,
}

/// Shows one booking.
pub async fn show(args: &ShowArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let request = GetBookingRequest { booking_id: args.booking.clone(), consistency: None };
    let answer = desk.client()?.get_booking(request).await?;
    if desk.output.json {
        return Ok(desk.output.value(&json_of("GetBookingResponse", &answer)?)?);
    }
    print(&answer.booking.unwrap_or_default(), &mut desk.output)
}

/// Gives up what has not begun; the time goes back to the pool.
#[derive(Args, Debug)]
pub struct CancelArgs {
    /// The booking, e.g. b000042
    booking: String,
    /// Why, in words
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Request id of an earlier try whose outcome is unknown
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Cancels.
pub async fn cancel(args: &CancelArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let request = CancelBookingRequest {
        request_id: args.request_id.clone().unwrap_or_default(),
        booking_id: args.booking.clone(),
        reason: args.reason.clone(),
    };
    let answer = desk.client()?.cancel_booking(request).await?;
    if desk.output.json {
        return Ok(desk.output.value(&json_of("CancelBookingResponse", &answer)?)?);
    }
    print(&answer.booking.unwrap_or_default(), &mut desk.output)
}

/// Where a booking stands, as a filter.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Held,
    Confirmed,
    Completed,
    Cancelled,
    Expired,
}

/// Lists bookings.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Only those in this status
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Only those at risk
    #[arg(long)]
    at_risk: bool,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Lists bookings.
pub async fn list(args: &ListArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let status = match args.status {
        None => BookingStatus::Unspecified,
        Some(Status::Held) => BookingStatus::Held,
        Some(Status::Confirmed) => BookingStatus::Confirmed,
        Some(Status::Completed) => BookingStatus::Completed,
        Some(Status::Cancelled) => BookingStatus::Cancelled,
        Some(Status::Expired) => BookingStatus::Expired,
    };
    let client = desk.client()?;
    let (bookings, rest) = gather(args.limit, async |page| {
        let request = ListBookingsRequest {
            status: status.into(),
            at_risk_only: args.at_risk,
            page: Some(page),
            consistency: None,
        };
        let answer = client.list_bookings(request).await?;
        Ok((answer.bookings, answer.next_page_token))
    })
    .await?;
    if desk.output.json {
        let all = ListBookingsResponse { header: None, bookings, next_page_token: rest };
        return Ok(desk.output.value(&json_of("ListBookingsResponse", &all)?)?);
    }
    let sheet = sheet(&bookings, &desk.output);
    desk.output.sheet(&sheet)?;
    notice_rest(bookings.len(), &rest, &mut desk.output)
}

fn sheet(bookings: &[Booking], output: &Output) -> Sheet {
    let mut sheet = Sheet::new(&[
        "BOOKING",
        "REFERENCE",
        "STATUS",
        ">PIECES",
        "MATERIAL",
        "DONE BY PLAN",
        "PROMISED BY",
        ">AT MOST",
    ]);
    for booking in bookings {
        let order = booking.order.clone().unwrap_or_default();
        let promise = booking.promise.as_ref();
        sheet.toned(vec![
            (Tone::Strong, booking.id.clone()),
            (Tone::Plain, order.reference),
            status(booking),
            (Tone::Plain, shown::grouped(u64::from(order.quantity))),
            (Tone::Plain, order.material),
            (Tone::Plain, shown::time(booking.completes_at_s, &output.clock)),
            (Tone::Plain, shown::time(promise.map_or(0, |promise| promise.by_s), &output.clock)),
            (
                Tone::Plain,
                promise
                    .and_then(|promise| promise.price)
                    .map_or_else(String::new, |price| shown::money(price.total_fen)),
            ),
        ]);
    }
    sheet
}

/// A booking's status in words, and the tone that it calls for.
pub fn status(booking: &Booking) -> (Tone, String) {
    let words = shown::booking_status(booking.status());
    if booking.at_risk {
        return (Tone::Bad, format!("{words}, at risk"));
    }
    let tone = match booking.status() {
        BookingStatus::Held => Tone::Warn,
        BookingStatus::Confirmed | BookingStatus::Completed => Tone::Good,
        _ => Tone::Faint,
    };
    (tone, words.to_owned())
}

/// Prints a booking for people.
pub fn print(booking: &Booking, output: &mut Output) -> Result<(), Failure> {
    let clock = output.clock.clone();
    let at = |s: i64| format!("{} ({})", shown::time(s, &clock), shown::relative(s, &clock));
    let order = booking.order.clone().unwrap_or_default();
    let (tone, words) = status(booking);
    let heading = format!("{}  {}", output.paint(Tone::Strong, &booking.id), output.paint(tone, &words));
    output.line(heading)?;
    let held = booking.status() == BookingStatus::Held;
    let promise = booking.promise.as_ref().map_or_else(String::new, |promise| {
        let price = promise.price.unwrap_or_default();
        format!("done by {}, at no more than {}", at(promise.by_s), price_in_words(&price))
    });
    let carbon = booking.promise.as_ref().and_then(|promise| promise.carbon.as_ref());
    let carbon = carbon.map_or_else(String::new, |carbon| {
        format!("{} CO2e as quoted ({})", shown::carbon(carbon.total_g), carbon.grid_factors.join(", "))
    });
    let or_nothing = |s: i64| if s == 0 { String::new() } else { at(s) };
    output.particulars(&[
        ("reference", order.reference.clone()),
        ("order", in_words(&order)),
        ("wanted by", or_nothing(order.due_s)),
        ("no use after", or_nothing(order.deadline_s)),
        (if held { "would promise" } else { "promise" }, promise),
        ("planned", planned(booking, &at)),
        ("carbon", carbon),
        ("hold runs out", or_nothing(booking.hold_expires_at_s)),
        ("booked", or_nothing(booking.created_at_s)),
    ])?;
    if !booking.assignments.is_empty() {
        output.line("")?;
        let sheet = assignments(&order, &booking.assignments, output, true);
        output.sheet(&sheet)?;
    }
    if !booking.disturbances.is_empty() {
        output.line("\nDisturbances")?;
        let sheet = disturbances(booking, output);
        output.sheet(&sheet)?;
    }
    if held {
        output.line(format!("\nTo confirm it:\n  millpool confirm {}", booking.id))?;
    }
    Ok(())
}

fn price_in_words(price: &Price) -> String {
    format!(
        "{} ({} processing, {} setup, {} transport)",
        shown::money(price.total_fen),
        shown::amount(price.processing_fen),
        shown::amount(price.setup_fen),
        shown::amount(price.transport_fen)
    )
}

fn planned(booking: &Booking, at: &impl Fn(i64) -> String) -> String {
    let open = matches!(booking.status(), BookingStatus::Held | BookingStatus::Confirmed);
    match (booking.completes_at_s, booking.promise.as_ref()) {
        (0, _) if open => "an operation has no place".to_owned(),
        (0, _) => String::new(),
        (done, Some(promise)) if done > promise.by_s => {
            format!("done {}, {} after the promise", at(done), shown::duration(done - promise.by_s))
        }
        (done, _) => format!("done {}", at(done)),
    }
}

fn disturbances(booking: &Booking, output: &Output) -> Sheet {
    let mut sheet = Sheet::new(&["WHEN", "WHAT", "MACHINE", "OP", "REASON"]);
    for disturbance in &booking.disturbances {
        sheet.row([
            shown::time(disturbance.at_s, &output.clock),
            shown::disturbance(disturbance.kind()).to_owned(),
            disturbance.machine_id.clone(),
            disturbance.operation.to_string(),
            disturbance.reason.clone(),
        ]);
    }
    sheet
}
