//! Every RPC as a method of [`Client`], from one table: its kind of repetition, service, name, request
//! and answer.

use super::retry::{Attempts, Repeat};
use super::watch::{Follow, Watch};
use super::{ANSWER_BYTES_MAX, Client, ClientError};
use futures::future::BoxFuture;
use millpool_proto::v1::{
    admin_service_client::AdminServiceClient, booking_service_client::BookingServiceClient,
    capacity_service_client::CapacityServiceClient, plan_service_client::PlanServiceClient,
    remote_service_client::RemoteServiceClient, *,
};

/// A request with a request id.
pub trait Write: Clone {
    /// The id by which repetitions are known.
    fn request_id_mut(&mut self) -> &mut String;
}

macro_rules! write {
    ($($request:ty),* $(,)?) => {$(
        impl Write for $request {
            fn request_id_mut(&mut self) -> &mut String {
                &mut self.request_id
            }
        }
    )*};
}
write!(
    BookRequest,
    ConfirmBookingRequest,
    CancelBookingRequest,
    PutMemberRequest,
    PutPlantRequest,
    PutMachineRequest,
    CreateOfferRequest,
    WithdrawOfferRequest,
    PutPrincipalRequest,
    RevokePrincipalRequest,
    PutPolicyRequest,
    OpenSessionRequest,
    CloseSessionRequest,
    OperateRequest,
);

/// Fills in an empty request id, and answers with the id.
fn identified(client: &Client, request: &mut impl Write) -> String {
    let id = request.request_id_mut();
    if id.is_empty() {
        *id = client.fresh_request_id();
    }
    id.clone()
}

macro_rules! methods {
    ($($(#[$doc:meta])* $kind:ident $service:ident $method:ident $rpc:literal
        ($request:ty) -> $answer:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            pub fn $method(&self, request: $request) -> BoxFuture<'_, Result<$answer, ClientError>> {
                let (request, request_id, repeat) = methods!(@$kind self request);
                let attempts = Attempts::new(self, $rpc, repeat, request_id);
                // Boxed, so that it is compiled here and not in every program that asks.
                Box::pin(async move {
                    let answer = attempts
                        .run(request, |channel, request| async move {
                            $service::new(channel)
                                .max_decoding_message_size(ANSWER_BYTES_MAX)
                                .$method(request)
                                .await
                        })
                        .await?;
                    Ok(answer.0)
                })
            }
        )*}
    };
    (@read $client:ident $request:ident) => {($request, None, Repeat::Read)};
    (@once $client:ident $request:ident) => {($request, None, Repeat::Once)};
    (@write $client:ident $request:ident) => {{
        let mut request = $request;
        let id = identified($client, &mut request);
        (request, Some(id), Repeat::Write)
    }};
}

methods! {
    /// Asks for options; keeps nothing.
    read BookingServiceClient quote "Quote" (QuoteRequest) -> QuoteResponse;
    /// Books, or holds. An empty request id is filled in.
    write BookingServiceClient book "Book" (BookRequest) -> BookResponse;
    /// Confirms a hold. An empty request id is filled in.
    write BookingServiceClient confirm_booking "ConfirmBooking"
        (ConfirmBookingRequest) -> ConfirmBookingResponse;
    /// One booking.
    read BookingServiceClient get_booking "GetBooking" (GetBookingRequest) -> GetBookingResponse;
    /// One page of bookings.
    read BookingServiceClient list_bookings "ListBookings" (ListBookingsRequest) -> ListBookingsResponse;
    /// Cancels. An empty request id is filled in.
    write BookingServiceClient cancel_booking "CancelBooking"
        (CancelBookingRequest) -> CancelBookingResponse;

    /// Creates or replaces a member. An empty request id is filled in.
    write CapacityServiceClient put_member "PutMember" (PutMemberRequest) -> PutMemberResponse;
    /// One page of members.
    read CapacityServiceClient list_members "ListMembers" (ListMembersRequest) -> ListMembersResponse;
    /// Creates or replaces a plant. An empty request id is filled in.
    write CapacityServiceClient put_plant "PutPlant" (PutPlantRequest) -> PutPlantResponse;
    /// One page of plants.
    read CapacityServiceClient list_plants "ListPlants" (ListPlantsRequest) -> ListPlantsResponse;
    /// Creates or replaces a machine. An empty request id is filled in.
    write CapacityServiceClient put_machine "PutMachine" (PutMachineRequest) -> PutMachineResponse;
    /// One page of machines.
    read CapacityServiceClient list_machines "ListMachines" (ListMachinesRequest) -> ListMachinesResponse;
    /// Creates an offer. An empty request id is filled in.
    write CapacityServiceClient create_offer "CreateOffer" (CreateOfferRequest) -> CreateOfferResponse;
    /// One page of offers.
    read CapacityServiceClient list_offers "ListOffers" (ListOffersRequest) -> ListOffersResponse;
    /// Withdraws an offer, or previews that. An empty request id is filled in.
    write CapacityServiceClient withdraw_offer "WithdrawOffer"
        (WithdrawOfferRequest) -> WithdrawOfferResponse;

    /// The plan, or a part of it.
    read PlanServiceClient get_plan "GetPlan" (GetPlanRequest) -> GetPlanResponse;
    /// Why a booking is where it is, or why an order finds no place.
    read PlanServiceClient explain "Explain" (ExplainRequest) -> ExplainResponse;
    /// What machines did with their time.
    read PlanServiceClient get_indicators "GetIndicators" (GetIndicatorsRequest) -> GetIndicatorsResponse;

    /// Begins a session of remote operation. An empty request id is filled in.
    write RemoteServiceClient open_session "OpenSession" (OpenSessionRequest) -> OpenSessionResponse;
    /// Ends a session. An empty request id is filled in.
    write RemoteServiceClient close_session "CloseSession" (CloseSessionRequest) -> CloseSessionResponse;
    /// Asks something of a machine, and waits for what came of it. An empty request id is filled in.
    write RemoteServiceClient operate "Operate" (OperateRequest) -> OperateResponse;
    /// Hands over a part of a program's content. The same part may be handed over again.
    read RemoteServiceClient upload_program "UploadProgram" (UploadProgramRequest) -> UploadProgramResponse;
    /// One session with its commands.
    read RemoteServiceClient get_session "GetSession" (GetSessionRequest) -> GetSessionResponse;
    /// One page of sessions.
    read RemoteServiceClient list_sessions "ListSessions" (ListSessionsRequest) -> ListSessionsResponse;

    /// What the answering node knows of the cluster.
    read AdminServiceClient get_status "GetStatus" (GetStatusRequest) -> GetStatusResponse;
    /// Adds a node. Without a request id: an unknown outcome is not retried.
    once AdminServiceClient add_node "AddNode" (AddNodeRequest) -> AddNodeResponse;
    /// Removes a node. Without a request id: an unknown outcome is not retried.
    once AdminServiceClient remove_node "RemoveNode" (RemoveNodeRequest) -> RemoveNodeResponse;
    /// Hands leadership over. Without a request id: an unknown outcome is not retried.
    once AdminServiceClient transfer_leader "TransferLeader"
        (TransferLeaderRequest) -> TransferLeaderResponse;
    /// Writes a snapshot on the answering node.
    once AdminServiceClient take_snapshot "TakeSnapshot" (TakeSnapshotRequest) -> TakeSnapshotResponse;
    /// Creates a principal, or gives it a new token. An empty request id is filled in.
    write AdminServiceClient put_principal "PutPrincipal" (PutPrincipalRequest) -> PutPrincipalResponse;
    /// One page of principals.
    read AdminServiceClient list_principals "ListPrincipals"
        (ListPrincipalsRequest) -> ListPrincipalsResponse;
    /// Takes a principal's access away. An empty request id is filled in.
    write AdminServiceClient revoke_principal "RevokePrincipal"
        (RevokePrincipalRequest) -> RevokePrincipalResponse;
    /// The alliance's policy.
    read AdminServiceClient get_policy "GetPolicy" (GetPolicyRequest) -> GetPolicyResponse;
    /// Replaces the alliance's policy. An empty request id is filled in.
    write AdminServiceClient put_policy "PutPolicy" (PutPolicyRequest) -> PutPolicyResponse;
}

impl Client {
    /// Follows bookings from a revision on, or from the present with `start_revision` 0.
    pub fn watch_bookings(&self, request: WatchBookingsRequest) -> Watch<WatchBookingsRequest> {
        Watch::new(self.clone(), request)
    }

    /// Follows the plan's figures from a revision on, or from the present with `start_revision` 0.
    pub fn watch_plan(&self, request: WatchPlanRequest) -> Watch<WatchPlanRequest> {
        Watch::new(self.clone(), request)
    }
}

macro_rules! follow {
    ($request:ty, $answer:ty, $continued:expr, $service:ident.$method:ident, $rpc:literal) => {
        impl Follow for $request {
            type Answer = $answer;
            const RPC: &'static str = $rpc;

            fn start_revision_mut(&mut self) -> &mut u64 {
                &mut self.start_revision
            }

            fn revision(answer: &$answer) -> u64 {
                answer.header.as_ref().map_or(0, |header| header.revision)
            }

            fn continued(answer: &$answer) -> bool {
                $continued(answer)
            }

            async fn open(
                channel: tonic::transport::Channel,
                request: tonic::Request<Self>,
            ) -> Result<tonic::Response<tonic::Streaming<$answer>>, tonic::Status> {
                $service::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).$method(request).await
            }
        }
    };
}
follow!(
    WatchBookingsRequest,
    WatchBookingsResponse,
    |answer: &WatchBookingsResponse| answer.continued,
    BookingServiceClient.watch_bookings,
    "WatchBookings"
);
follow!(WatchPlanRequest, WatchPlanResponse, |_| false, PlanServiceClient.watch_plan, "WatchPlan");
