//! `millpool nodes`, `millpool principals` and `millpool policy`: the operator's side.

use super::pages::{LimitArgs, gather, notice_rest};
use super::put::{PutArgs, from_file};
use super::{Desk, json_of};
use crate::failure::Failure;
use crate::output::{Output, Sheet, Tone};
use crate::shown;
use crate::written::{self, When, flag};
use clap::{Args, Subcommand};
use millpool_proto::v1::{
    AddNodeRequest, GetPolicyRequest, GetStatusRequest, ListPrincipalsRequest, ListPrincipalsResponse, Node,
    Policy, Principal, PutPolicyRequest, PutPrincipalRequest, RemoveNodeRequest, RevokePrincipalRequest,
    Role, TakeSnapshotRequest, TransferLeaderRequest,
};

/// The coordinators of the cluster.
#[derive(Subcommand, Debug)]
pub enum NodesCommand {
    /// Lists nodes, as the answering node knows them
    List,
    /// Adds a node: first as a learner, then, caught up, as a voter
    Add {
        /// Its id, never used before
        id: u64,
        /// Address of its peers' listener
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// Address of its public listener
        #[arg(long, value_name = "HOST:PORT")]
        public: String,
    },
    /// Removes a node. Its id is never used again
    Remove {
        /// Which
        id: u64,
    },
    /// Hands leadership to another voter
    TransferLeader {
        /// To which voter; 0 lets the leader choose the one that is furthest
        #[arg(default_value_t = 0)]
        id: u64,
    },
    /// Writes a snapshot on one node now
    Snapshot {
        /// Public address of the node [default: the preferred endpoint]
        #[arg(long, value_name = "HOST:PORT")]
        at: Option<String>,
    },
}

/// Runs `nodes`.
pub async fn nodes(command: &NodesCommand, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    let output = &mut desk.output;
    match command {
        NodesCommand::List => {
            let answer = client.get_status(GetStatusRequest {}).await?;
            if output.json {
                return Ok(output.value(&json_of("GetStatusResponse", &answer)?)?);
            }
            show_nodes(&answer.nodes, answer.leader_id, output)
        }
        NodesCommand::Add { id, peer, public } => {
            let node = Node {
                id: *id,
                peer_address: peer.clone(),
                public_address: public.clone(),
                ..Node::default()
            };
            let answer = client.add_node(AddNodeRequest { node: Some(node) }).await?;
            if output.json {
                return Ok(output.value(&json_of("AddNodeResponse", &answer)?)?);
            }
            show_nodes(&answer.nodes, 0, output)
        }
        NodesCommand::Remove { id } => {
            let answer = client.remove_node(RemoveNodeRequest { node_id: *id }).await?;
            if output.json {
                return Ok(output.value(&json_of("RemoveNodeResponse", &answer)?)?);
            }
            show_nodes(&answer.nodes, 0, output)
        }
        NodesCommand::TransferLeader { id } => {
            let answer = client.transfer_leader(TransferLeaderRequest { node_id: *id }).await?;
            if output.json {
                return Ok(output.value(&json_of("TransferLeaderResponse", &answer)?)?);
            }
            Ok(output.line(format!("Node {} leads.", answer.leader_id))?)
        }
        NodesCommand::Snapshot { at } => {
            let one = at.as_ref().map(|at| client.at(at)).transpose()?;
            let answer = one.unwrap_or(client).take_snapshot(TakeSnapshotRequest {}).await?;
            if output.json {
                return Ok(output.value(&json_of("TakeSnapshotResponse", &answer)?)?);
            }
            let node = answer.header.unwrap_or_default().node_id;
            let index = shown::grouped(answer.snapshot_index);
            Ok(output.line(format!("Node {node} wrote a snapshot up to log index {index}."))?)
        }
    }
}

fn show_nodes(nodes: &[Node], leader: u64, output: &mut Output) -> Result<(), Failure> {
    let mut sheet = Sheet::new(&["NODE", "PEERS", "PUBLIC", "ROLE", ">ON DISK UP TO"]);
    for node in nodes {
        let role = match node.voter {
            _ if node.id == leader => (Tone::Good, "leader"),
            true => (Tone::Plain, "voter"),
            false => (Tone::Warn, "learner"),
        };
        sheet.toned(vec![
            (Tone::Strong, node.id.to_string()),
            (Tone::Plain, node.peer_address.clone()),
            (Tone::Plain, node.public_address.clone()),
            (role.0, role.1.to_owned()),
            (Tone::Plain, shown::grouped(node.matched_index)),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}

/// Who may call.
#[derive(Subcommand, Debug)]
pub enum PrincipalsCommand {
    /// Lists principals, without tokens
    List(LimitArgs),
    /// Creates a principal, or gives it a new token. The token is shown this once
    #[command(after_help = "Example:\n  millpool principals put acme --role buyer --expires +90d")]
    Put(PutPrincipalArgs),
    /// Takes a principal's access away
    Revoke(RevokePrincipalArgs),
}

/// A principal, as flags.
#[derive(Args, Debug)]
pub struct PutPrincipalArgs {
    /// Its id: a buyer's, a member's, a plant's for an agent
    id: String,
    /// buyer, member, agent, operator or auditor
    #[arg(long, value_name = "ROLE", value_parser = flag(written::role))]
    role: Role,
    /// When its token expires
    #[arg(long, value_name = "TIME", value_parser = flag(When::read), default_value = "+90d")]
    expires: When,
    /// Request id of an earlier try; its answer comes without the token
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Which principal.
#[derive(Args, Debug)]
pub struct RevokePrincipalArgs {
    /// Its id
    id: String,
    /// Its role
    #[arg(long, value_name = "ROLE", value_parser = flag(written::role))]
    role: Role,
    /// Request id of an earlier try whose outcome is unknown
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

/// Runs `principals`.
pub async fn principals(command: &PrincipalsCommand, desk: &mut Desk<'_>) -> Result<(), Failure> {
    match command {
        PrincipalsCommand::List(limit) => list_principals(*limit, desk).await,
        PrincipalsCommand::Put(args) => put_principal(args, desk).await,
        PrincipalsCommand::Revoke(args) => {
            let request = RevokePrincipalRequest {
                request_id: args.request_id.clone().unwrap_or_default(),
                role: args.role.into(),
                id: args.id.clone(),
            };
            let answer = desk.client()?.revoke_principal(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("RevokePrincipalResponse", &answer)?)?);
            }
            show_principals(&answer.principal.into_iter().collect::<Vec<_>>(), &mut desk.output)
        }
    }
}

async fn list_principals(limit: LimitArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    let (principals, rest) = gather(limit, async |page| {
        let answer = client.list_principals(ListPrincipalsRequest { page: Some(page) }).await?;
        Ok((answer.principals, answer.next_page_token))
    })
    .await?;
    if desk.output.json {
        let all = ListPrincipalsResponse { header: None, principals, next_page_token: rest };
        return Ok(desk.output.value(&json_of("ListPrincipalsResponse", &all)?)?);
    }
    show_principals(&principals, &mut desk.output)?;
    notice_rest(principals.len(), &rest, &mut desk.output)
}

async fn put_principal(args: &PutPrincipalArgs, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let expires =
        args.expires.resolve_s(&desk.output.clock).map_err(|error| format!("--expires: {error}"))?;
    let request = PutPrincipalRequest {
        request_id: args.request_id.clone().unwrap_or_default(),
        principal: Some(Principal {
            id: args.id.clone(),
            role: args.role.into(),
            expires_at_s: expires,
            revoked: false,
        }),
    };
    let answer = desk.client()?.put_principal(request).await?;
    if desk.output.json {
        return Ok(desk.output.value(&json_of("PutPrincipalResponse", &answer)?)?);
    }
    show_principals(&answer.principal.into_iter().collect::<Vec<_>>(), &mut desk.output)?;
    if answer.token.is_empty() {
        return Ok(desk.output.notice("The token was shown the first time only.")?);
    }
    desk.output.line(format!("\nToken, shown only now:\n{}", answer.token))?;
    Ok(())
}

fn show_principals(principals: &[Principal], output: &mut Output) -> Result<(), Failure> {
    let mut sheet = Sheet::new(&["PRINCIPAL", "ROLE", "EXPIRES", "STATE"]);
    for principal in principals {
        let state = match principal.revoked {
            true => (Tone::Bad, "revoked"),
            false if principal.expires_at_s <= output.clock.now_s() => (Tone::Warn, "expired"),
            false => (Tone::Good, "valid"),
        };
        sheet.toned(vec![
            (Tone::Strong, principal.id.clone()),
            (Tone::Plain, shown::role(principal.role()).to_owned()),
            (Tone::Plain, shown::time(principal.expires_at_s, &output.clock)),
            (state.0, state.1.to_owned()),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}

/// The rules that the alliance has given itself.
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Shows the policy
    Get,
    /// Replaces the policy by a file
    #[command(after_help = "\
Example:
  millpool policy get --json | jq .policy > policy.json
  $EDITOR policy.json
  millpool policy put --file policy.json")]
    Put(PutArgs),
}

/// Runs `policy`.
pub async fn policy(command: &PolicyCommand, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    match command {
        PolicyCommand::Get => {
            let answer = client.get_policy(GetPolicyRequest::default()).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("GetPolicyResponse", &answer)?)?);
            }
            show_policy(&answer.policy.unwrap_or_default(), &mut desk.output)
        }
        PolicyCommand::Put(args) => {
            let Some(path) = &args.file else {
                return Err(Failure::Usage("say which policy with --file FILE".to_owned()));
            };
            let policy: Policy = from_file("Policy", path, desk)?;
            let request = PutPolicyRequest {
                request_id: args.request_id(),
                expected_revision: args.expected(policy.revision),
                policy: Some(policy),
            };
            let answer = client.put_policy(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("PutPolicyResponse", &answer)?)?);
            }
            show_policy(&answer.policy.unwrap_or_default(), &mut desk.output)
        }
    }
}

/// A shift where the policy says nothing else, seconds; the contract's number.
const SHIFT_S: u32 = 28_800;

fn show_policy(policy: &Policy, output: &mut Output) -> Result<(), Failure> {
    let time = |seconds: u32| shown::duration(i64::from(seconds));
    let transport = policy.transport.unwrap_or_default();
    let history = match policy.history_keep_s {
        0 => "as long as there is room".to_owned(),
        seconds => time(seconds),
    };
    output.line(output.paint(Tone::Strong, &format!("Policy, revision {}", policy.revision)))?;
    output.particulars(&[
        ("freeze horizon", time(policy.freeze_s)),
        ("lead before new work", time(policy.lead_s)),
        ("promise slack", time(policy.promise_slack_s)),
        ("quotes stand for", time(policy.quote_valid_s)),
        ("a late minute costs", shown::money(policy.tardiness_fen_per_minute)),
        ("transport time", format!("{} + {} a km", time(transport.base_s), time(transport.s_per_km))),
        (
            "transport price",
            format!("{} + {} a km", shown::money(transport.base_fen), shown::money(transport.fen_per_km)),
        ),
        ("transport carbon", format!("{} g CO2e a km", transport.g_per_km)),
        ("request ids kept", time(policy.request_id_keep_s)),
        ("holds a buyer may have", policy.holds_max_per_buyer.to_string()),
        ("what is over is known for", history),
        (
            "days begin at",
            format!("{:02}:{:02} UTC", policy.day_start_s / 3600, policy.day_start_s / 60 % 60),
        ),
        ("a shift is", time(if policy.shift_s == 0 { SHIFT_S } else { policy.shift_s })),
    ])?;
    if policy.grid_factors.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut sheet = Sheet::new(&["GRID", ">YEAR", ">G CO2E/KWH", "BASIS", "SOURCE"]);
    for factor in &policy.grid_factors {
        sheet.row([
            factor.region.clone(),
            factor.year.to_string(),
            format!("{}.{}", factor.mg_per_kwh / 1000, factor.mg_per_kwh % 1000 / 100),
            factor.basis.clone(),
            factor.source.clone(),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}
