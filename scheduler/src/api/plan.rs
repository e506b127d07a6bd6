//! `PlanService`.

use super::answer::{self, refused};
use super::booking::{compacted, read_id, visible};
use super::capacity::sees_plant;
use super::stream::{self, Answers, Gone, Writer};
use super::{Core, WATCH_PROGRESS, indicators};
use crate::planner::explain::Question;
use crate::wire::{booking as wire, registry, required};
use millpool_alliance::command::Caller;
use millpool_alliance::line::{Occupation, Phase, Station, Use};
use millpool_alliance::registry::Role;
use millpool_alliance::{Refusal, State};
use millpool_proto::v1::{self, plan_service_server::PlanService};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

pub(super) const EXPLAIN: &str = "/millpool.v1.PlanService/Explain";
/// The plan's figures follow each other at least this far apart.
const FIGURES_APART: Duration = Duration::from_millis(100);
const GET_PLAN: &str = "/millpool.v1.PlanService/GetPlan";
const WATCH_PLAN: &str = "/millpool.v1.PlanService/WatchPlan";
const GET_INDICATORS: &str = "/millpool.v1.PlanService/GetIndicators";

#[tonic::async_trait]
impl PlanService for Core {
    async fn get_plan(
        &self,
        request: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        self.local(GET_PLAN, request, get_plan).await
    }

    type WatchPlanStream = Answers<v1::WatchPlanResponse>;

    async fn watch_plan(
        &self,
        request: Request<v1::WatchPlanRequest>,
    ) -> Result<Response<Self::WatchPlanStream>, Status> {
        self.local(WATCH_PLAN, request, watch_plan).await
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        self.led(EXPLAIN, request, explain).await
    }

    async fn get_indicators(
        &self,
        request: Request<v1::GetIndicatorsRequest>,
    ) -> Result<Response<v1::GetIndicatorsResponse>, Status> {
        self.local(GET_INDICATORS, request, indicators::get_indicators).await
    }
}

async fn get_plan(
    core: Core,
    caller: Caller,
    request: v1::GetPlanRequest,
) -> Result<v1::GetPlanResponse, Status> {
    let view = core.read(request.consistency).await?;
    let state = view.state.0.as_of(core.clock.now_s());
    let from = if request.from_s == 0 { state.now() } else { request.from_s };
    let until = if request.until_s == 0 { i64::MAX } else { request.until_s };
    if from >= until {
        return Err(refused(&Refusal::invalid(
            millpool_alliance::Reason::InvalidField,
            "until_s",
            until,
            &format!("after from_s ({from})"),
        )));
    }
    let mut rows = Vec::new();
    let mut entries = Vec::new();
    let wanted = state.stations().values().filter(|s| {
        (request.machine_id.is_empty() || s.id().as_str() == request.machine_id)
            && (request.plant_id.is_empty() || s.machine.plant.as_str() == request.plant_id)
    });
    for station in wanted {
        let all = sees_plant(&state, &caller, &station.machine.plant);
        let shown: Vec<v1::PlanEntry> = station
            .line
            .iter()
            .filter(|o| o.end > from && o.start < until)
            .filter_map(|o| entry(&state, &caller, station, o, all))
            .collect();
        if all || !shown.is_empty() {
            rows.push(row(station, from, until, all));
        }
        entries.extend(shown);
    }
    Ok(v1::GetPlanResponse {
        header: Some(core.header(view.revision)),
        summary: (caller.role != Role::Buyer).then(|| summary(&state)),
        rows,
        entries,
    })
}

fn row(station: &Station, from: i64, until: i64, all: bool) -> v1::PlanRow {
    let open = station.open.between(from, until).map(|w| registry::window(&w));
    v1::PlanRow {
        machine_id: station.id().to_string(),
        plant_id: station.machine.plant.to_string(),
        class: registry::class(station.machine.class).into(),
        open: if all { open.collect() } else { Vec::new() },
    }
}

/// An occupation as the caller may see it: whole on its own machines and for its own bookings, else not.
fn entry(
    state: &State,
    caller: &Caller,
    station: &Station,
    o: &Occupation,
    all: bool,
) -> Option<v1::PlanEntry> {
    let Use::Work { booking: id, operation } = &o.purpose else { return None };
    let booking = state.bookings().get(id)?;
    let own = caller.role == Role::Buyer && booking.buyer == caller.id;
    if !all && !own {
        return None;
    }
    let index = *operation as usize;
    Some(v1::PlanEntry {
        machine_id: station.id().to_string(),
        booking_id: id.to_string(),
        assignment: booking.steps.get(index).and_then(|s| wire::assignment(state, index, s)),
        setup_family: o.family.to_string(),
        frozen: o.phase != Phase::Planned || o.start < state.frozen_until(station),
    })
}

/// The pool's figures. O(open operations + occupations).
pub(super) fn summary(state: &State) -> v1::PlanSummary {
    let now = state.now();
    let (open_s, booked_s) = state
        .stations()
        .values()
        .map(|s| s.load(now))
        .fold((0, 0), |sum, load| (sum.0 + load.0, sum.1 + load.1));
    let open = || state.open_bookings();
    v1::PlanSummary {
        revision: state.plan_revision(),
        bookings_open: open().count() as u32,
        assignments: open().flat_map(|b| &b.steps).filter(|s| s.place.is_some() && !s.is_finished()).count()
            as u32,
        cost_fen: state.cost_fen(),
        last_optimisation: state.optimisation().map(|o| v1::Optimisation {
            base_revision: o.figures.base_revision,
            committed_revision: o.committed_revision,
            cost_before_fen: o.figures.cost_before_fen,
            cost_fen: o.figures.cost_fen,
            bound_fen: o.figures.bound_fen,
            moved: o.moved,
            took_ms: o.figures.took_ms,
            at_s: o.at,
        }),
        bookings_at_risk: open().filter(|b| b.at_risk()).count() as u32,
        open_s,
        booked_s,
    }
}

async fn watch_plan(
    core: Core,
    _caller: Caller,
    request: v1::WatchPlanRequest,
) -> Result<Answers<v1::WatchPlanResponse>, Status> {
    core.linearize().await?;
    if let Some(after) = request.start_revision.checked_sub(1) {
        core.history.after(after).map_err(compacted)?;
    }
    let (writer, answers) = stream::channel();
    tokio::spawn(async move {
        let _: Result<(), Gone> = follow(&core, &writer).await;
    });
    Ok(answers)
}

/// Sends the newest figures whenever the plan has changed: a reader who is behind skips to the present.
async fn follow(core: &Core, writer: &Writer<v1::WatchPlanResponse>) -> Result<(), Gone> {
    loop {
        let (at, summary) = {
            let state = core.applied().as_of(core.clock.now_s());
            (state.revision(), summary(&state))
        };
        let message = v1::WatchPlanResponse { header: Some(core.header(at)), summary: Some(summary) };
        writer.send(message, at).await?;
        // Reckoning takes as long as the plan is large, so not for each of a thousand bookings a second.
        tokio::time::sleep(FIGURES_APART).await;
        tokio::select! {
            changed = changed_after(core, at) => if !changed { return Err(Gone) },
            () = tokio::time::sleep(WATCH_PROGRESS) => {
                if let Err(lost) = core.linearize().await {
                    writer.end(lost).await;
                    return Ok(());
                }
            }
            () = writer.closed() => return Err(Gone),
        }
    }
}

async fn changed_after(core: &Core, after: u64) -> bool {
    let mut seen = after;
    while core.history.wait_after(seen).await {
        if core.consensus.look(|view| view.state.0.plan_revision()) > after {
            return true;
        }
        seen = core.history.newest();
    }
    false
}

pub(super) async fn explain(
    core: Core,
    caller: Caller,
    request: v1::ExplainRequest,
) -> Result<v1::ExplainResponse, Status> {
    core.linearize().await?;
    let state = core.applied();
    let question = match request.booking_id.as_str() {
        "" => {
            let order = required("order", request.order).and_then(wire::read_order);
            Question::Order(Arc::new(order.map_err(|r| refused(&r))?))
        }
        id => Question::Booking(visible(&state, &caller, &read_id(id)?)?.clone()),
    };
    let said = core.planner.explain(question).await.map_err(answer::failure)?;
    Ok(v1::ExplainResponse {
        header: Some(core.header(state.revision())),
        reasons: said.reasons,
        obstacles: said.obstacles.iter().map(wire::obstacle).collect(),
        relaxations: said
            .relaxations
            .into_iter()
            .map(|r| v1::Relaxation { what: r.what, completes_at_s: r.completes_at, price_fen: r.price_fen })
            .collect(),
    })
}
