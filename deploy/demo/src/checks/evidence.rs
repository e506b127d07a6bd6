//! What the coordinators now show.

use millpool_cli::client::{Client, ClientError};
use millpool_proto::v1::{
    Booking, Consistency, GetPlanRequest, GetPlanResponse, GetPolicyRequest, ListBookingsRequest, Page,
    Policy,
};
use std::time::Duration;

/// Bookings on a page.
const PAGE: u32 = 500;
/// Looks at a state that keeps changing, before it is taken as it comes.
const LOOKS_MAX: usize = 40;

/// Bookings and plan, as one state shows them.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Every booking of the alliance.
    pub bookings: Vec<Booking>,
    /// The whole plan, from its beginning.
    pub plan: GetPlanResponse,
    /// The policy in force.
    pub policy: Policy,
    /// True if all of it was read at one revision.
    pub at_one_revision: bool,
}

/// Reads everything, again until nothing changed meanwhile. `from_s` is where the plan begins.
pub async fn gather(client: &Client, from_s: i64) -> Result<Evidence, ClientError> {
    let mut evidence = Evidence::default();
    for _ in 0..LOOKS_MAX {
        evidence = look(client, from_s).await?;
        if evidence.at_one_revision {
            break;
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    Ok(evidence)
}

async fn look(client: &Client, from_s: i64) -> Result<Evidence, ClientError> {
    let request = GetPlanRequest { from_s, ..GetPlanRequest::default() };
    let plan = client.get_plan(request).await?;
    let revision = plan.header.as_ref().map_or(0, |header| header.revision);
    let mut at_one_revision = true;
    let mut bookings = Vec::new();
    let mut token = String::new();
    loop {
        let request = ListBookingsRequest {
            page: Some(Page { size: PAGE, token }),
            consistency: Some(Consistency::default()),
            ..ListBookingsRequest::default()
        };
        let answer = client.list_bookings(request).await?;
        at_one_revision &= answer.header.as_ref().is_some_and(|header| header.revision == revision);
        bookings.extend(answer.bookings);
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let policy = client.get_policy(GetPolicyRequest::default()).await?.policy.unwrap_or_default();
    Ok(Evidence { bookings, plan, policy, at_one_revision })
}
