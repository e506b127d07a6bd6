//! `millpool members` and `millpool plants`: who lends, and where.

use super::pages::{LimitArgs, gather, notice_rest};
use super::put::{PutArgs, from_file, lacks, set};
use super::{Desk, json_of};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Output, Sheet};
use clap::{Args, Subcommand};
use millpool_proto::v1::{
    ListMembersRequest, ListMembersResponse, ListPlantsRequest, ListPlantsResponse, Member, Plant,
    PutMemberRequest, PutPlantRequest,
};

/// The members of the alliance.
#[derive(Subcommand, Debug)]
pub enum MembersCommand {
    /// Lists members
    List(LimitArgs),
    /// Creates or changes a member
    #[command(
        after_help = "Example:\n  millpool members put liangjiang-precision --name 'Liangjiang Precision'"
    )]
    Put(PutMemberArgs),
}

/// A member, as flags.
#[derive(Args, Debug)]
pub struct PutMemberArgs {
    /// Its id: lower-case letters, digits and dashes
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    /// The name that people read
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    #[command(flatten)]
    put: PutArgs,
}

/// Runs `members`.
pub async fn members(command: &MembersCommand, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    match command {
        MembersCommand::List(limit) => {
            let (members, rest) = list_members(&client, *limit).await?;
            if desk.output.json {
                let all = ListMembersResponse { header: None, members, next_page_token: rest };
                return Ok(desk.output.value(&json_of("ListMembersResponse", &all)?)?);
            }
            show_members(&members, &mut desk.output)?;
            notice_rest(members.len(), &rest, &mut desk.output)
        }
        MembersCommand::Put(args) => {
            let member = member(args, &client, desk).await?;
            let request = PutMemberRequest {
                request_id: args.put.request_id(),
                expected_revision: args.put.expected(member.revision),
                member: Some(member),
            };
            let answer = client.put_member(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("PutMemberResponse", &answer)?)?);
            }
            show_members(&answer.member.into_iter().collect::<Vec<_>>(), &mut desk.output)
        }
    }
}

async fn list_members(client: &Client, limit: LimitArgs) -> Result<(Vec<Member>, String), Failure> {
    gather(limit, async |page| {
        let request = ListMembersRequest { page: Some(page), consistency: None };
        let answer = client.list_members(request).await?;
        Ok((answer.members, answer.next_page_token))
    })
    .await
}

async fn member(args: &PutMemberArgs, client: &Client, desk: &Desk<'_>) -> Result<Member, Failure> {
    let mut member: Member = match (&args.put.file, &args.id) {
        (Some(path), _) => from_file("Member", path, desk)?,
        (None, id) => {
            let id = id.clone().unwrap_or_default();
            let (known, _) = list_members(client, LimitArgs { limit: 0 }).await?;
            match known.into_iter().find(|member| member.id == id) {
                Some(member) => member,
                None => {
                    lacks("member", &id, &[("--name", args.name.is_none())])?;
                    Member { id, ..Member::default() }
                }
            }
        }
    };
    set(&mut member.id, &args.id);
    set(&mut member.name, &args.name);
    Ok(member)
}

fn show_members(members: &[Member], output: &mut Output) -> Result<(), Failure> {
    let mut sheet = Sheet::new(&["MEMBER", "NAME", ">REVISION"]);
    for member in members {
        sheet.row([member.id.clone(), member.name.clone(), member.revision.to_string()]);
    }
    Ok(output.sheet(&sheet)?)
}

/// The plants of the members.
#[derive(Subcommand, Debug)]
pub enum PlantsCommand {
    /// Lists plants
    List(ListPlantsArgs),
    /// Creates or changes a plant
    #[command(after_help = "\
Example:
  millpool plants put yubei-2 --member liangjiang-precision --name 'Yubei, hall 2' \\
      --time-zone Asia/Shanghai --east 3200 --north -1500 --grid-region CN-CQ")]
    Put(PutPlantArgs),
}

/// Which plants.
#[derive(Args, Debug)]
pub struct ListPlantsArgs {
    /// Only plants of this member
    #[arg(long, value_name = "MEMBER", default_value = "")]
    member: String,
    #[command(flatten)]
    limit: LimitArgs,
}

/// A plant, as flags.
#[derive(Args, Debug)]
pub struct PutPlantArgs {
    /// Its id: lower-case letters, digits and dashes
    #[arg(required_unless_present = "file")]
    id: Option<String>,
    /// The member that owns it
    #[arg(long, value_name = "MEMBER")]
    member: Option<String>,
    /// The name that people read
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// IANA time zone in which its shifts are meant, e.g. Asia/Shanghai
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Position on the alliance's plane grid, metres east
    #[arg(long, value_name = "METRES", allow_hyphen_values = true)]
    east: Option<i64>,
    /// Position on the alliance's plane grid, metres north
    #[arg(long, value_name = "METRES", allow_hyphen_values = true)]
    north: Option<i64>,
    /// Region of the electricity grid, e.g. CN-CQ
    #[arg(long, value_name = "REGION")]
    grid_region: Option<String>,
    #[command(flatten)]
    put: PutArgs,
}

/// Runs `plants`.
pub async fn plants(command: &PlantsCommand, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let client = desk.client()?;
    match command {
        PlantsCommand::List(args) => {
            let (plants, rest) = list_plants(&client, &args.member, args.limit).await?;
            if desk.output.json {
                let all = ListPlantsResponse { header: None, plants, next_page_token: rest };
                return Ok(desk.output.value(&json_of("ListPlantsResponse", &all)?)?);
            }
            show_plants(&plants, &mut desk.output)?;
            notice_rest(plants.len(), &rest, &mut desk.output)
        }
        PlantsCommand::Put(args) => {
            let plant = plant(args, &client, desk).await?;
            let request = PutPlantRequest {
                request_id: args.put.request_id(),
                expected_revision: args.put.expected(plant.revision),
                plant: Some(plant),
            };
            let answer = client.put_plant(request).await?;
            if desk.output.json {
                return Ok(desk.output.value(&json_of("PutPlantResponse", &answer)?)?);
            }
            show_plants(&answer.plant.into_iter().collect::<Vec<_>>(), &mut desk.output)
        }
    }
}

async fn list_plants(
    client: &Client,
    member: &str,
    limit: LimitArgs,
) -> Result<(Vec<Plant>, String), Failure> {
    gather(limit, async |page| {
        let request = ListPlantsRequest { member_id: member.to_owned(), page: Some(page), consistency: None };
        let answer = client.list_plants(request).await?;
        Ok((answer.plants, answer.next_page_token))
    })
    .await
}

async fn plant(args: &PutPlantArgs, client: &Client, desk: &Desk<'_>) -> Result<Plant, Failure> {
    let mut plant: Plant = match (&args.put.file, &args.id) {
        (Some(path), _) => from_file("Plant", path, desk)?,
        (None, id) => {
            let id = id.clone().unwrap_or_default();
            let (known, _) = list_plants(client, "", LimitArgs { limit: 0 }).await?;
            match known.into_iter().find(|plant| plant.id == id) {
                Some(plant) => plant,
                None => {
                    let needed = [
                        ("--member", args.member.is_none()),
                        ("--name", args.name.is_none()),
                        ("--time-zone", args.time_zone.is_none()),
                        ("--grid-region", args.grid_region.is_none()),
                    ];
                    lacks("plant", &id, &needed)?;
                    Plant { id, ..Plant::default() }
                }
            }
        }
    };
    set(&mut plant.id, &args.id);
    set(&mut plant.member_id, &args.member);
    set(&mut plant.name, &args.name);
    set(&mut plant.time_zone, &args.time_zone);
    set(&mut plant.east_m, &args.east);
    set(&mut plant.north_m, &args.north);
    set(&mut plant.grid_region, &args.grid_region);
    Ok(plant)
}

fn show_plants(plants: &[Plant], output: &mut Output) -> Result<(), Failure> {
    let columns = ["PLANT", "NAME", "MEMBER", "TIME ZONE", ">EAST M", ">NORTH M", "GRID", ">REVISION"];
    let mut sheet = Sheet::new(&columns);
    for plant in plants {
        sheet.row([
            plant.id.clone(),
            plant.name.clone(),
            plant.member_id.clone(),
            plant.time_zone.clone(),
            plant.east_m.to_string(),
            plant.north_m.to_string(),
            plant.grid_region.clone(),
            plant.revision.to_string(),
        ]);
    }
    Ok(output.sheet(&sheet)?)
}
