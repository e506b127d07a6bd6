//! `BookingService`.

use super::answer::{self, failed, reasons, refused};
use super::stream::{self, Answers, Gone, Writer};
use super::{Core, WATCH_PROGRESS, key, page_of};
use crate::planner::quote::{Candidate, Quoted};
use crate::planner::{Failure, Wish};
use crate::wire::{booking as wire, required};
use millpool_alliance::command::Caller;
use millpool_alliance::refusal::within;
use millpool_alliance::registry::Role;
use millpool_alliance::window::LATEST;
use millpool_alliance::{
    Booking, BookingId, Command, MachineId, Outcome, PrincipalId, Reason, Refusal, Reply, State,
};
use millpool_proto::v1::{self, booking_service_server::BookingService};
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

pub(super) const QUOTE: &str = "/millpool.v1.BookingService/Quote";
pub(super) const BOOK: &str = "/millpool.v1.BookingService/Book";
pub(super) const CONFIRM: &str = "/millpool.v1.BookingService/ConfirmBooking";
pub(super) const CANCEL: &str = "/millpool.v1.BookingService/CancelBooking";
const GET: &str = "/millpool.v1.BookingService/GetBooking";
const LIST: &str = "/millpool.v1.BookingService/ListBookings";
const WATCH: &str = "/millpool.v1.BookingService/WatchBookings";

#[tonic::async_trait]
impl BookingService for Core {
    async fn quote(&self, request: Request<v1::QuoteRequest>) -> Result<Response<v1::QuoteResponse>, Status> {
        match request.get_ref().consistency.is_some_and(|asked| asked.serializable) {
            true => self.local(QUOTE, request, quote_here).await,
            false => self.led(QUOTE, request, quote).await,
        }
    }

    async fn book(&self, request: Request<v1::BookRequest>) -> Result<Response<v1::BookResponse>, Status> {
        self.led(BOOK, request, book).await
    }

    async fn confirm_booking(
        &self,
        request: Request<v1::ConfirmBookingRequest>,
    ) -> Result<Response<v1::ConfirmBookingResponse>, Status> {
        self.led(CONFIRM, request, confirm).await
    }

    async fn cancel_booking(
        &self,
        request: Request<v1::CancelBookingRequest>,
    ) -> Result<Response<v1::CancelBookingResponse>, Status> {
        self.led(CANCEL, request, cancel).await
    }

    async fn get_booking(
        &self,
        request: Request<v1::GetBookingRequest>,
    ) -> Result<Response<v1::GetBookingResponse>, Status> {
        self.local(GET, request, get).await
    }

    async fn list_bookings(
        &self,
        request: Request<v1::ListBookingsRequest>,
    ) -> Result<Response<v1::ListBookingsResponse>, Status> {
        self.local(LIST, request, list).await
    }

    type WatchBookingsStream = Answers<v1::WatchBookingsResponse>;

    async fn watch_bookings(
        &self,
        request: Request<v1::WatchBookingsRequest>,
    ) -> Result<Response<Self::WatchBookingsStream>, Status> {
        self.local(WATCH, request, watch).await
    }
}

pub(super) async fn quote(
    core: Core,
    _caller: Caller,
    request: v1::QuoteRequest,
) -> Result<v1::QuoteResponse, Status> {
    let order = required("order", request.order).and_then(wire::read_order).map_err(|r| refused(&r))?;
    let quoted = core.planner.quote(order).await;
    core.consensus.look(|view| quote_answer(&core, &view.state.0, view.revision, quoted))
}

/// A quote on what this node has applied, whoever leads.
async fn quote_here(
    core: Core,
    _caller: Caller,
    request: v1::QuoteRequest,
) -> Result<v1::QuoteResponse, Status> {
    let order = required("order", request.order).and_then(wire::read_order).map_err(|r| refused(&r))?;
    let view = core.read(request.consistency).await?;
    let quoted = core.quotes.quote(&view.state.0, &order, core.clock.now_s());
    quote_answer(&core, &view.state.0, view.revision, quoted.map_err(Failure::Refused))
}

/// `revision` is the applied one.
fn quote_answer(
    core: &Core,
    state: &State,
    revision: u64,
    quoted: Result<Quoted, Failure>,
) -> Result<v1::QuoteResponse, Status> {
    match quoted {
        Ok(quoted) => Ok(options(core, state, revision, &quoted)),
        // That nothing fits is an answer to a quote, not a failure of it.
        Err(Failure::Refused(refusal)) if refusal.reason == Reason::NoEligibleMachine => {
            Ok(v1::QuoteResponse {
                header: Some(core.header(revision)),
                options: Vec::new(),
                obstacles: refusal.obstacles.iter().map(wire::obstacle).collect(),
            })
        }
        Err(failure) => Err(answer::failure(failure)),
    }
}

fn options(core: &Core, state: &State, revision: u64, quoted: &Quoted) -> v1::QuoteResponse {
    let valid_until_s = quoted.now + state.policy().quote_valid_s;
    let option = |(c, promised_by_s): &(Candidate, i64)| v1::Option {
        best_for: c.best_for.iter().map(|o| wire::objective(*o).into()).collect(),
        assignments: c
            .seats
            .iter()
            .enumerate()
            .map(|(k, (machine, start))| v1::Assignment {
                operation: k as u32,
                machine_id: machine.to_string(),
                plant_id: wire::plant_of(state, machine),
                start_s: *start,
                end_s: c.ends[k],
                changeover_s: c.changeovers_s[k] as u32,
                ..v1::Assignment::default()
            })
            .collect(),
        completes_at_s: c.completes_at,
        promised_by_s: *promised_by_s,
        price: Some(wire::price(&c.price)),
        carbon: Some(wire::carbon(&c.carbon)),
        valid_until_s,
    };
    v1::QuoteResponse {
        header: Some(core.header(revision)),
        options: quoted.options.iter().map(option).collect(),
        obstacles: Vec::new(),
    }
}

pub(super) async fn book(
    core: Core,
    caller: Caller,
    request: v1::BookRequest,
) -> Result<v1::BookResponse, Status> {
    let body = v1::BookRequest { request_id: String::new(), ..request.clone() };
    let key = key(BOOK, &request.request_id, &body)?;
    let wish = read_wish(&caller, request).map_err(|refusal| refused(&refusal))?;
    let outcome = core.planner.book(caller, Some(key), wish).await.map_err(answer::failure)?;
    let (header, booking) = booked(&core, &outcome)?;
    Ok(v1::BookResponse { header: Some(header), booking: Some(booking) })
}

fn read_wish(caller: &Caller, request: v1::BookRequest) -> Result<Wish, Refusal> {
    let order = wire::read_order(required("order", request.order)?)?;
    let mut terms = wire::read_terms(request.terms)?;
    within("terms.promised_by_s", terms.promised_by.unwrap_or(0), 0, LATEST)?;
    within("terms.price_max_fen", terms.price_max_fen.unwrap_or(0), 0, i64::MAX)?;
    let mut quoted = None;
    if let Some(option) = request.option {
        quoted = Some(read_seats(&option, order.route.len())?);
        // An option booked as quoted is owed what it said, wherever it is placed in the end.
        if let Some(price) = option.price.filter(|p| p.total_fen > 0) {
            let said = price.total_fen;
            terms.price_max_fen = Some(terms.price_max_fen.map_or(said, |most| most.min(said)));
        }
        if option.promised_by_s > 0 {
            let said = option.promised_by_s;
            terms.promised_by = Some(terms.promised_by.map_or(said, |by| by.min(said)));
        }
    }
    Ok(Wish {
        buyer: caller.id.clone(),
        order: Arc::new(order),
        terms,
        quoted,
        hold_s: request.hold_s.into(),
    })
}

fn read_seats(option: &v1::Option, operations: usize) -> Result<Vec<(MachineId, i64)>, Refusal> {
    if option.assignments.len() != operations {
        return Err(Refusal::invalid(
            Reason::InvalidField,
            "option.assignments (count)",
            option.assignments.len(),
            &format!("{operations}, one an operation of the route"),
        ));
    }
    option.assignments.iter().map(|a| Ok((MachineId::parse(&a.machine_id)?, a.start_s))).collect()
}

/// The booking in an outcome, as it was when it was done.
fn booked(core: &Core, outcome: &Outcome) -> Result<(v1::Header, v1::Booking), Status> {
    match &outcome.result {
        Ok(Reply::Booking(booking)) => {
            let shown = core.consensus.look(|view| wire::booking(&view.state.0, booking));
            Ok((core.header(outcome.revision), shown))
        }
        _ => Err(Status::internal("a booking's command was answered with something else")),
    }
}

pub(super) async fn confirm(
    core: Core,
    caller: Caller,
    request: v1::ConfirmBookingRequest,
) -> Result<v1::ConfirmBookingResponse, Status> {
    let body = v1::ConfirmBookingRequest { request_id: String::new(), ..request.clone() };
    let key = key(CONFIRM, &request.request_id, &body)?;
    let command = Command::Confirm { booking: read_id(&request.booking_id)? };
    let (header, booking) = booked(&core, &*core.execute(caller, key, command).await?)?;
    Ok(v1::ConfirmBookingResponse { header: Some(header), booking: Some(booking) })
}

pub(super) async fn cancel(
    core: Core,
    caller: Caller,
    request: v1::CancelBookingRequest,
) -> Result<v1::CancelBookingResponse, Status> {
    let body = v1::CancelBookingRequest { request_id: String::new(), ..request.clone() };
    let key = key(CANCEL, &request.request_id, &body)?;
    let command = Command::Cancel { booking: read_id(&request.booking_id)?, reason: request.reason };
    let (header, booking) = booked(&core, &*core.execute(caller, key, command).await?)?;
    Ok(v1::CancelBookingResponse { header: Some(header), booking: Some(booking) })
}

pub(super) fn read_id(id: &str) -> Result<BookingId, Status> {
    BookingId::parse(id).map_err(|refusal| refused(&refusal))
}

/// The booking, if the caller may see it. Another's does not exist.
pub(super) fn visible<'a>(
    state: &'a State,
    caller: &Caller,
    id: &BookingId,
) -> Result<&'a Arc<Booking>, Status> {
    state
        .bookings()
        .get(id)
        .filter(|b| caller.role != Role::Buyer || b.buyer == caller.id)
        .ok_or_else(|| refused(&Refusal::unknown_booking(id)))
}

async fn get(
    core: Core,
    caller: Caller,
    request: v1::GetBookingRequest,
) -> Result<v1::GetBookingResponse, Status> {
    let view = core.read(request.consistency).await?;
    let state = &view.state.0;
    let booking = visible(state, &caller, &read_id(&request.booking_id)?)?;
    Ok(v1::GetBookingResponse {
        header: Some(core.header(view.revision)),
        booking: Some(wire::booking(state, booking)),
    })
}

async fn list(
    core: Core,
    caller: Caller,
    request: v1::ListBookingsRequest,
) -> Result<v1::ListBookingsResponse, Status> {
    let status = match request.status {
        0 => None,
        status => Some(wire::read_status(status).map_err(|refusal| refused(&refusal))?),
    };
    let view = core.read(request.consistency).await?;
    let state = &view.state.0;
    let after = match request.page.as_ref().map_or("", |p| &p.token) {
        "" => BookingId::numbered(0),
        token => BookingId::parse(token).map_err(|_| refused(&bad_token(token)))?,
    };
    let wanted = |b: &&Arc<Booking>| {
        b.id > after && status.is_none_or(|s| b.status == s) && (!request.at_risk_only || b.at_risk())
    };
    let id = |b: &&Arc<Booking>| b.id.to_string();
    let (shown, next_page_token) = match caller.role {
        Role::Buyer => page_of(state.bookings_of(&caller.id, after).filter(wanted), &request.page, id)?,
        _ => page_of(state.bookings().from(after).map(|(_, b)| b).filter(wanted), &request.page, id)?,
    };
    Ok(v1::ListBookingsResponse {
        header: Some(core.header(view.revision)),
        bookings: shown.into_iter().map(|b| wire::booking(state, b)).collect(),
        next_page_token,
    })
}

fn bad_token(token: &str) -> Refusal {
    Refusal::invalid(Reason::InvalidField, "page.token", token, "a next_page_token as it was given")
}

/// Whose bookings a watcher sees, and which.
struct Scope {
    buyer: Option<PrincipalId>,
    booking: Option<BookingId>,
}

impl Scope {
    fn holds(&self, b: &Booking) -> bool {
        self.buyer.as_ref().is_none_or(|buyer| b.buyer == *buyer)
            && self.booking.as_ref().is_none_or(|id| b.id == *id)
    }
}

async fn watch(
    core: Core,
    caller: Caller,
    request: v1::WatchBookingsRequest,
) -> Result<Answers<v1::WatchBookingsResponse>, Status> {
    let booking = match request.booking_id.as_str() {
        "" => None,
        id => Some(read_id(id)?),
    };
    let scope = Scope { buyer: (caller.role == Role::Buyer).then(|| caller.id.clone()), booking };
    core.linearize().await?;
    if let Some(id) = &scope.booking {
        visible(&core.applied(), &caller, id)?;
    }
    let from = request.start_revision.checked_sub(1);
    if let Some(after) = from {
        core.history.after(after).map_err(compacted)?;
    }
    let (writer, answers) = stream::channel();
    tokio::spawn(async move {
        let after = match from {
            Some(after) => after,
            None => present(&core, &scope, &writer).await?,
        };
        follow(&core, &scope, &writer, after).await
    });
    Ok(answers)
}

pub(super) fn compacted(e: crate::watch::Compacted) -> Status {
    let oldest = e.complete_after + 1;
    failed(
        Code::OutOfRange,
        reasons::COMPACTED,
        format!("revisions before {oldest} are no longer kept; read the present state and watch from there"),
        &[("compacted_revision", oldest.to_string())],
    )
}

/// Bookings of one message, so that it stays well below what a client accepts.
const BOOKINGS_PER_MESSAGE: usize = 500;

/// The present state of all that the watcher sees, in as many messages as it takes, at least one. Answers
/// with its revision.
async fn present(
    core: &Core,
    scope: &Scope,
    writer: &Writer<v1::WatchBookingsResponse>,
) -> Result<u64, Gone> {
    let view = core.consensus.state();
    let state = &view.state.0;
    let shown: Vec<&Arc<Booking>> = state.bookings().values().filter(|b| scope.holds(b)).collect();
    let parts = shown.len().div_ceil(BOOKINGS_PER_MESSAGE).max(1);
    for part in 0..parts {
        let some = shown.iter().skip(part * BOOKINGS_PER_MESSAGE).take(BOOKINGS_PER_MESSAGE);
        let message = v1::WatchBookingsResponse {
            header: Some(core.header(view.revision)),
            bookings: some.map(|b| wire::booking(state, b)).collect(),
            continued: part + 1 < parts,
        };
        writer.send(message, 0).await?;
    }
    Ok(view.revision)
}

async fn follow(
    core: &Core,
    scope: &Scope,
    writer: &Writer<v1::WatchBookingsResponse>,
    mut after: u64,
) -> Result<(), Gone> {
    loop {
        let revised = match core.history.after(after) {
            Ok(revised) => revised,
            Err(e) => {
                writer.end(compacted(e)).await;
                return Ok(());
            }
        };
        for (revision, changes) in revised {
            let shown: Vec<_> = changes.bookings.values().filter(|b| scope.holds(b)).collect();
            if !shown.is_empty() {
                let wire = |b: &Arc<Booking>| core.consensus.look(|view| wire::booking(&view.state.0, b));
                let bookings = shown.into_iter().map(wire).collect();
                let message = v1::WatchBookingsResponse {
                    header: Some(core.header(revision)),
                    bookings,
                    continued: false,
                };
                writer.send(message, after).await?;
            }
            after = revision;
        }
        tokio::select! {
            moved = core.history.wait_after(after) => if !moved { return Err(Gone) },
            () = tokio::time::sleep(WATCH_PROGRESS) => {
                // A node that has lost its cluster, or is no member any more, has no news, and does not say so.
                if let Err(lost) = core.linearize().await {
                    writer.end(lost).await;
                    return Ok(());
                }
                // A start in the future does not make the present later than it is.
                let header = Some(core.header(after.min(core.history.newest())));
                writer.send(v1::WatchBookingsResponse { header, ..Default::default() }, after).await?;
            }
            () = writer.closed() => return Err(Gone),
        }
    }
}
