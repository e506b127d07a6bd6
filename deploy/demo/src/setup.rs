//! The alliance, put through the public API as an operator.

use crate::alliance::Alliance;
use anyhow::ensure;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use millpool_cli::client::{Client, ClientError};
use millpool_proto::v1::{
    CreateOfferRequest, GetPolicyRequest, GetStatusRequest, Policy, PutMachineRequest, PutMemberRequest,
    PutPlantRequest, PutPolicyRequest,
};
use std::time::{Duration, Instant};

/// Requests on their way at once.
const AT_ONCE: usize = 16;

/// Creates members, plants, machines and offers in an empty alliance.
pub async fn create(client: &Client, alliance: &Alliance) -> Result<(), ClientError> {
    let members = alliance.members.iter().map(async |member| {
        client
            .put_member(PutMemberRequest { member: Some(member.clone()), ..Default::default() })
            .await
            .map(drop)
    });
    stream::iter(members).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let plants = alliance.plants.iter().map(async |plant| {
        client.put_plant(PutPlantRequest { plant: Some(plant.clone()), ..Default::default() }).await.map(drop)
    });
    stream::iter(plants).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let machines = alliance.machines.iter().map(async |machine| {
        let request = PutMachineRequest { machine: Some(machine.clone()), ..Default::default() };
        client.put_machine(request).await.map(drop)
    });
    stream::iter(machines).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let offers = alliance.offers.iter().map(async |offer| {
        let request = CreateOfferRequest { offer: Some(offer.clone()), ..Default::default() };
        client.create_offer(request).await.map(drop)
    });
    stream::iter(offers).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Lets request ids and quotes live longer, for a clock that runs fast: a client that retries for half a
/// minute must still be known.
pub async fn lengthen_memory(
    client: &Client,
    request_id_keep_s: u32,
    quote_valid_s: u32,
) -> Result<(), ClientError> {
    change_policy(client, |policy| Policy { request_id_keep_s, quote_valid_s, ..policy }).await
}

/// Puts a policy that differs from the one in force as is said.
pub async fn change_policy(
    client: &Client,
    change: impl FnOnce(Policy) -> Policy,
) -> Result<(), ClientError> {
    let held = client.get_policy(GetPolicyRequest::default()).await?.policy.unwrap_or_default();
    let (expected_revision, policy) = (held.revision, Some(change(held)));
    client.put_policy(PutPolicyRequest { policy, expected_revision, ..Default::default() }).await.map(drop)
}

/// Waits until the newest format is written that all coordinators understand, and says which. A former version says nothing
/// of it, and writes 1.
pub async fn wait_for_format(client: &Client, patience: Duration) -> anyhow::Result<u32> {
    let began = Instant::now();
    loop {
        let status = client.get_status(GetStatusRequest::default()).await?;
        let (format, newest) = (status.format.max(1), status.format_max.max(1));
        if format == newest {
            return Ok(format);
        }
        ensure!(began.elapsed() < patience, "the format is {format} and not {newest} after {patience:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
