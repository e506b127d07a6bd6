//! `CapacityService`.

use super::answer::refused;
use super::{Core, key, paged};
use crate::wire::{registry as wire, required};
use millpool_alliance::command::Caller;
use millpool_alliance::registry::Role;
use millpool_alliance::{Command, OfferId, PlantId, Refusal, Reply, State};
use millpool_proto::v1::{self, capacity_service_server::CapacityService};
use tonic::{Request, Response, Status};

pub(super) const PUT_MEMBER: &str = "/millpool.v1.CapacityService/PutMember";
pub(super) const PUT_PLANT: &str = "/millpool.v1.CapacityService/PutPlant";
pub(super) const PUT_MACHINE: &str = "/millpool.v1.CapacityService/PutMachine";
pub(super) const CREATE_OFFER: &str = "/millpool.v1.CapacityService/CreateOffer";
pub(super) const WITHDRAW_OFFER: &str = "/millpool.v1.CapacityService/WithdrawOffer";
const LIST_MEMBERS: &str = "/millpool.v1.CapacityService/ListMembers";
const LIST_PLANTS: &str = "/millpool.v1.CapacityService/ListPlants";
const LIST_MACHINES: &str = "/millpool.v1.CapacityService/ListMachines";
const LIST_OFFERS: &str = "/millpool.v1.CapacityService/ListOffers";

#[tonic::async_trait]
impl CapacityService for Core {
    async fn put_member(
        &self,
        request: Request<v1::PutMemberRequest>,
    ) -> Result<Response<v1::PutMemberResponse>, Status> {
        self.led(PUT_MEMBER, request, put_member).await
    }

    async fn put_plant(
        &self,
        request: Request<v1::PutPlantRequest>,
    ) -> Result<Response<v1::PutPlantResponse>, Status> {
        self.led(PUT_PLANT, request, put_plant).await
    }

    async fn put_machine(
        &self,
        request: Request<v1::PutMachineRequest>,
    ) -> Result<Response<v1::PutMachineResponse>, Status> {
        self.led(PUT_MACHINE, request, put_machine).await
    }

    async fn create_offer(
        &self,
        request: Request<v1::CreateOfferRequest>,
    ) -> Result<Response<v1::CreateOfferResponse>, Status> {
        self.led(CREATE_OFFER, request, create_offer).await
    }

    async fn withdraw_offer(
        &self,
        request: Request<v1::WithdrawOfferRequest>,
    ) -> Result<Response<v1::WithdrawOfferResponse>, Status> {
        self.led(WITHDRAW_OFFER, request, withdraw_offer).await
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        self.local(LIST_MEMBERS, request, list_members).await
    }

    async fn list_plants(
        &self,
        request: Request<v1::ListPlantsRequest>,
    ) -> Result<Response<v1::ListPlantsResponse>, Status> {
        self.local(LIST_PLANTS, request, list_plants).await
    }

    async fn list_machines(
        &self,
        request: Request<v1::ListMachinesRequest>,
    ) -> Result<Response<v1::ListMachinesResponse>, Status> {
        self.local(LIST_MACHINES, request, list_machines).await
    }

    async fn list_offers(
        &self,
        request: Request<v1::ListOffersRequest>,
    ) -> Result<Response<v1::ListOffersResponse>, Status> {
        self.local(LIST_OFFERS, request, list_offers).await
    }
}

pub(super) async fn put_member(
    core: Core,
    caller: Caller,
    request: v1::PutMemberRequest,
) -> Result<v1::PutMemberResponse, Status> {
    let body = v1::PutMemberRequest { request_id: String::new(), ..request.clone() };
    let key = key(PUT_MEMBER, &request.request_id, &body)?;
    let member = required("member", request.member).and_then(wire::read_member).map_err(|r| refused(&r))?;
    let command = Command::PutMember { member, expected_revision: request.expected_revision };
    let outcome = core.execute(caller, key, command).await?;
    let member = match &outcome.result {
        Ok(Reply::Member(member)) => Some(wire::member(member)),
        _ => None,
    };
    Ok(v1::PutMemberResponse { header: Some(core.header(outcome.revision)), member })
}

pub(super) async fn put_plant(
    core: Core,
    caller: Caller,
    request: v1::PutPlantRequest,
) -> Result<v1::PutPlantResponse, Status> {
    let body = v1::PutPlantRequest { request_id: String::new(), ..request.clone() };
    let key = key(PUT_PLANT, &request.request_id, &body)?;
    let plant = required("plant", request.plant).and_then(wire::read_plant).map_err(|r| refused(&r))?;
    State::check_time_zone(&plant.time_zone).map_err(|r| refused(&r))?;
    let command = Command::PutPlant { plant, expected_revision: request.expected_revision };
    let outcome = core.execute(caller, key, command).await?;
    let plant = match &outcome.result {
        Ok(Reply::Plant(plant)) => Some(wire::plant(plant)),
        _ => None,
    };
    Ok(v1::PutPlantResponse { header: Some(core.header(outcome.revision)), plant })
}

pub(super) async fn put_machine(
    core: Core,
    caller: Caller,
    request: v1::PutMachineRequest,
) -> Result<v1::PutMachineResponse, Status> {
    let body = v1::PutMachineRequest { request_id: String::new(), ..request.clone() };
    let key = key(PUT_MACHINE, &request.request_id, &body)?;
    let machine =
        required("machine", request.machine).and_then(wire::read_machine).map_err(|r| refused(&r))?;
    let command = Command::PutMachine { machine, expected_revision: request.expected_revision };
    let outcome = core.execute(caller, key, command).await?;
    let machine = match &outcome.result {
        Ok(Reply::Machine(machine)) => Some(wire::machine(machine)),
        _ => None,
    };
    Ok(v1::PutMachineResponse { header: Some(core.header(outcome.revision)), machine })
}

pub(super) async fn create_offer(
    core: Core,
    caller: Caller,
    request: v1::CreateOfferRequest,
) -> Result<v1::CreateOfferResponse, Status> {
    let body = v1::CreateOfferRequest { request_id: String::new(), ..request.clone() };
    let key = key(CREATE_OFFER, &request.request_id, &body)?;
    // Its open windows are worked out here, whatever the client says of them.
    let stated = |offer| v1::Offer { open: Vec::new(), ..offer };
    let offer = required("offer", request.offer).map(stated).and_then(wire::read_offer);
    let offer = offer.map_err(|r| refused(&r))?;
    let expanded = expand(&core.applied(), offer).map_err(|r| refused(&r))?;
    let outcome = core.execute(caller, key, Command::CreateOffer(expanded)).await?;
    Ok(v1::CreateOfferResponse {
        header: Some(core.header(outcome.revision)),
        offer: offered(&outcome.result),
    })
}

/// Works the windows out, in the time zone of the machine's plant, before the offer enters the log.
fn expand(
    state: &State,
    mut offer: millpool_alliance::offer::Offer,
) -> Result<millpool_alliance::offer::Offer, Refusal> {
    let station = state.stations().get(&offer.machine);
    let station = station.ok_or_else(|| Refusal::unknown("offer.machine_id", &offer.machine))?;
    let plant = &station.machine.plant;
    let plant = state.plants().get(plant).ok_or_else(|| Refusal::unknown("plant_id", plant))?;
    offer.expand(&plant.time_zone)?;
    Ok(offer)
}

fn offered(result: &Result<Reply, Refusal>) -> Option<v1::Offer> {
    match result {
        Ok(Reply::Offer(offer, _)) => Some(wire::offer(offer)),
        _ => None,
    }
}

pub(super) async fn withdraw_offer(
    core: Core,
    caller: Caller,
    request: v1::WithdrawOfferRequest,
) -> Result<v1::WithdrawOfferResponse, Status> {
    let id = OfferId::parse(&request.offer_id).map_err(|r| refused(&r))?;
    if request.preview {
        core.linearize().await?;
        let state = core.applied();
        let disturbed = state.preview_withdraw(&caller, &id).map_err(|r| refused(&r))?;
        return Ok(v1::WithdrawOfferResponse {
            header: Some(core.header(state.revision())),
            offer: state.offers().get(&id).map(|o| wire::offer(o)),
            disturbed: disturbed.iter().map(wire::disturbed).collect(),
        });
    }
    let body = v1::WithdrawOfferRequest { request_id: String::new(), ..request.clone() };
    let key = key(WITHDRAW_OFFER, &request.request_id, &body)?;
    let command = Command::WithdrawOffer { offer: id, accept_disturbance: request.accept_disturbance };
    let outcome = core.execute(caller, key, command).await?;
    let disturbed = match &outcome.result {
        Ok(Reply::Offer(_, disturbed)) => disturbed.iter().map(wire::disturbed).collect(),
        _ => Vec::new(),
    };
    Ok(v1::WithdrawOfferResponse {
        header: Some(core.header(outcome.revision)),
        offer: offered(&outcome.result),
        disturbed,
    })
}

/// Whether the caller sees all of what stands in `plant`: its owner, its agent, and who runs the alliance.
pub(super) fn sees_plant(state: &State, caller: &Caller, plant: &PlantId) -> bool {
    match caller.role {
        Role::Operator | Role::Auditor => true,
        Role::Member => state.plants().get(plant).is_some_and(|p| p.member.as_str() == caller.id.as_str()),
        Role::Agent => plant.as_str() == caller.id.as_str(),
        Role::Buyer => false,
    }
}

async fn list_members(
    core: Core,
    _caller: Caller,
    request: v1::ListMembersRequest,
) -> Result<v1::ListMembersResponse, Status> {
    let view = core.read(request.consistency).await?;
    let members = view.state.0.members().values();
    let (shown, next_page_token) = paged(members, &request.page, |m| m.id.to_string())?;
    Ok(v1::ListMembersResponse {
        header: Some(core.header(view.revision)),
        members: shown.into_iter().map(|m| wire::member(m)).collect(),
        next_page_token,
    })
}

async fn list_plants(
    core: Core,
    _caller: Caller,
    request: v1::ListPlantsRequest,
) -> Result<v1::ListPlantsResponse, Status> {
    let view = core.read(request.consistency).await?;
    let of_member = |p: &&std::sync::Arc<millpool_alliance::registry::Plant>| {
        request.member_id.is_empty() || p.member.as_str() == request.member_id
    };
    let plants = view.state.0.plants().values().filter(of_member);
    let (shown, next_page_token) = paged(plants, &request.page, |p| p.id.to_string())?;
    Ok(v1::ListPlantsResponse {
        header: Some(core.header(view.revision)),
        plants: shown.into_iter().map(|p| wire::plant(p)).collect(),
        next_page_token,
    })
}

async fn list_machines(
    core: Core,
    caller: Caller,
    request: v1::ListMachinesRequest,
) -> Result<v1::ListMachinesResponse, Status> {
    let class = match request.class {
        0 => None,
        class => Some(wire::read_class("class", class).map_err(|r| refused(&r))?),
    };
    let view = core.read(request.consistency).await?;
    let state = &view.state.0;
    let stations = state.stations().values().filter(|s| {
        (request.plant_id.is_empty() || s.machine.plant.as_str() == request.plant_id)
            && class.is_none_or(|c| s.machine.class == c)
    });
    let (shown, next_page_token) = paged(stations, &request.page, |s| s.id().to_string())?;
    let machines = shown.into_iter().map(|s| {
        let hidden = !sees_plant(state, &caller, &s.machine.plant);
        let mut machine = wire::station(state, s, hidden);
        if hidden {
            // What a machine can do is public; what it earns and draws is its member's.
            (machine.rate_fen_per_hour, machine.setup_rate_fen_per_hour, machine.power) = (0, 0, None);
        }
        machine
    });
    Ok(v1::ListMachinesResponse {
        header: Some(core.header(view.revision)),
        machines: machines.collect(),
        next_page_token,
    })
}

async fn list_offers(
    core: Core,
    caller: Caller,
    request: v1::ListOffersRequest,
) -> Result<v1::ListOffersResponse, Status> {
    let view = core.read(request.consistency).await?;
    let state = &view.state.0;
    let offers = state.offers().values().filter(|o| {
        (request.machine_id.is_empty() || o.machine.as_str() == request.machine_id)
            && (request.include_withdrawn || !o.withdrawn)
            && state.stations().get(&o.machine).is_some_and(|s| sees_plant(state, &caller, &s.machine.plant))
    });
    let (shown, next_page_token) = paged(offers, &request.page, |o| o.id.to_string())?;
    Ok(v1::ListOffersResponse {
        header: Some(core.header(view.revision)),
        offers: shown.into_iter().map(|o| wire::offer(o)).collect(),
        next_page_token,
    })
}
