//! Who may call what: one table, and who the caller is.

use super::answer::{failed, reasons, refused};
use crate::replica::Replica;
use millpool_alliance::command::Caller;
use millpool_alliance::registry::Role;
use millpool_alliance::{PrincipalId, Reason, Refusal};
use sha2::{Digest as _, Sha256};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use Role::{Agent, Auditor, Buyer, Member, Operator};

/// Every RPC of the public services and the roles that it admits.
pub const TABLE: [(&str, &[Role]); 39] = [
    ("/millpool.v1.BookingService/Quote", &[Buyer, Operator]),
    ("/millpool.v1.BookingService/Book", &[Buyer, Operator]),
    ("/millpool.v1.BookingService/ConfirmBooking", &[Buyer, Operator]),
    ("/millpool.v1.BookingService/GetBooking", &[Buyer, Operator, Auditor]),
    ("/millpool.v1.BookingService/ListBookings", &[Buyer, Operator, Auditor]),
    ("/millpool.v1.BookingService/WatchBookings", &[Buyer, Operator, Auditor]),
    ("/millpool.v1.BookingService/CancelBooking", &[Buyer, Operator]),
    ("/millpool.v1.CapacityService/PutMember", &[Operator]),
    ("/millpool.v1.CapacityService/ListMembers", &[Member, Operator, Auditor]),
    ("/millpool.v1.CapacityService/PutPlant", &[Member, Operator]),
    ("/millpool.v1.CapacityService/ListPlants", &[Buyer, Member, Agent, Operator, Auditor]),
    ("/millpool.v1.CapacityService/PutMachine", &[Member, Operator]),
    ("/millpool.v1.CapacityService/ListMachines", &[Buyer, Member, Agent, Operator, Auditor]),
    ("/millpool.v1.CapacityService/CreateOffer", &[Member, Operator]),
    ("/millpool.v1.CapacityService/ListOffers", &[Member, Operator, Auditor]),
    ("/millpool.v1.CapacityService/WithdrawOffer", &[Member, Operator]),
    ("/millpool.v1.PlanService/GetPlan", &[Buyer, Member, Operator, Auditor]),
    ("/millpool.v1.PlanService/WatchPlan", &[Member, Operator, Auditor]),
    ("/millpool.v1.PlanService/Explain", &[Buyer, Operator]),
    ("/millpool.v1.PlanService/GetIndicators", &[Member, Operator, Auditor]),
    ("/millpool.v1.RemoteService/OpenSession", &[Buyer]),
    ("/millpool.v1.RemoteService/CloseSession", &[Buyer, Member, Operator]),
    ("/millpool.v1.RemoteService/Operate", &[Buyer, Member]),
    ("/millpool.v1.RemoteService/UploadProgram", &[Buyer]),
    ("/millpool.v1.RemoteService/GetSession", &[Buyer, Member, Operator, Auditor]),
    ("/millpool.v1.RemoteService/ListSessions", &[Buyer, Member, Operator, Auditor]),
    ("/millpool.v1.AgentService/Attach", &[Agent, Operator]),
    ("/millpool.v1.AgentService/FetchProgram", &[Agent, Operator]),
    ("/millpool.v1.AdminService/GetStatus", &[Buyer, Member, Agent, Operator, Auditor]),
    ("/millpool.v1.AdminService/AddNode", &[Operator]),
    ("/millpool.v1.AdminService/RemoveNode", &[Operator]),
    ("/millpool.v1.AdminService/TransferLeader", &[Operator]),
    ("/millpool.v1.AdminService/TakeSnapshot", &[Operator]),
    ("/millpool.v1.AdminService/Backup", &[Operator]),
    ("/millpool.v1.AdminService/PutPrincipal", &[Operator]),
    ("/millpool.v1.AdminService/ListPrincipals", &[Operator, Auditor]),
    ("/millpool.v1.AdminService/RevokePrincipal", &[Operator]),
    ("/millpool.v1.AdminService/GetPolicy", &[Buyer, Member, Agent, Operator, Auditor]),
    ("/millpool.v1.AdminService/PutPolicy", &[Operator]),
];

/// Tells callers by their tokens.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Development on loopback: a caller is who it says it is (`buyer:acme` as the token), and an operator
    /// if it says nothing.
    pub insecure_dev: bool,
}

impl Access {
    /// The caller, if it may call `path`. O(log n) in the number of principals.
    pub fn admit(
        &self,
        path: &str,
        metadata: &MetadataMap,
        replica: &Replica,
        now: i64,
    ) -> Result<Caller, Status> {
        let caller = self.caller(metadata, replica, now)?;
        allow(path, &caller)?;
        Ok(caller)
    }

    fn caller(&self, metadata: &MetadataMap, replica: &Replica, now: i64) -> Result<Caller, Status> {
        let header = metadata.get("authorization").map(|v| v.to_str().unwrap_or_default());
        let token = header.and_then(|h| h.strip_prefix("Bearer ").or_else(|| h.strip_prefix("bearer ")));
        match token {
            None if self.insecure_dev => Ok(operator()),
            Some(claimed) if self.insecure_dev => claim(claimed),
            None => Err(unauthenticated("the call carries no bearer token")),
            Some(token) => replica
                .0
                .principal_of_token(&hash(token), now)
                .map(|p| Caller { role: p.role, id: p.id.clone() })
                .ok_or_else(|| unauthenticated("the token is unknown, expired or revoked")),
        }
    }
}

/// Refuses a caller whose role the table does not admit to `path`.
pub fn allow(path: &str, caller: &Caller) -> Result<(), Status> {
    let admitted = TABLE.iter().find(|(known, _)| *known == path).map_or(&[][..], |(_, roles)| roles);
    if admitted.contains(&caller.role) {
        return Ok(());
    }
    let roles: Vec<String> = admitted.iter().map(|r| format!("{r:?}").to_lowercase()).collect();
    Err(refused(&Refusal::invalid(
        Reason::NotAllowed,
        "authorization",
        format!("{:?} {}", caller.role, caller.id).to_lowercase(),
        &format!("a token of a {}", roles.join(" or ")),
    )))
}

/// The node itself, where it acts without being asked.
pub fn operator() -> Caller {
    Caller { role: Operator, id: PrincipalId::trusted("operator") }
}

/// SHA-256 of a token: all that is ever stored of it.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn claim(claimed: &str) -> Result<Caller, Status> {
    let (role, id) = claimed.split_once(':').unwrap_or((claimed, "operator"));
    let role = match role {
        "buyer" => Buyer,
        "member" => Member,
        "agent" => Agent,
        "operator" => Operator,
        "auditor" => Auditor,
        _ => {
            return Err(unauthenticated(
                "with --insecure-dev a token is ROLE:ID, e.g. buyer:acme; roles: buyer, member, agent, operator, auditor",
            ));
        }
    };
    let id = PrincipalId::parse(id).map_err(|refusal| refused(&refusal))?;
    Ok(Caller { role, id })
}

fn unauthenticated(message: &str) -> Status {
    failed(Code::Unauthenticated, reasons::UNAUTHENTICATED, message, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    /// Every RPC of every service but the peers' has its row, and no row is without its RPC.
    #[test]
    fn the_table_names_every_rpc_and_no_other() {
        let files = FileDescriptorSet::decode(millpool_proto::DESCRIPTORS).unwrap();
        let mut rpcs: Vec<String> = files
            .file
            .iter()
            .flat_map(|f| f.service.iter().map(move |s| (f.package(), s)))
            .filter(|(_, s)| s.name() != "PeerService")
            .flat_map(|(package, s)| {
                s.method.iter().map(move |m| format!("/{package}.{}/{}", s.name(), m.name()))
            })
            .collect();
        let mut rows: Vec<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        rpcs.sort();
        rows.sort();
        assert_eq!(rows, rpcs);
    }

    #[test]
    fn each_role_is_admitted_where_the_table_says_and_nowhere_else() {
        for (path, roles) in TABLE {
            for role in [Buyer, Member, Agent, Operator, Auditor] {
                let caller = Caller { role, id: PrincipalId::trusted("x") };
                assert_eq!(allow(path, &caller).is_ok(), roles.contains(&role), "{role:?} {path}");
            }
        }
        assert!(allow("/millpool.v1.Nothing/Here", &operator()).is_err());
    }

    #[test]
    fn without_a_token_nobody_is_anybody_but_in_development() {
        let (none, replica) = (MetadataMap::new(), Replica::default());
        let path = "/millpool.v1.AdminService/GetStatus";
        assert!(Access { insecure_dev: false }.admit(path, &none, &replica, 0).is_err());
        assert_eq!(Access { insecure_dev: true }.admit(path, &none, &replica, 0).unwrap(), operator());
        let mut bearer = MetadataMap::new();
        bearer.insert("authorization", "Bearer buyer:acme".parse().unwrap());
        assert!(Access { insecure_dev: false }.admit(path, &bearer, &replica, 0).is_err());
        assert_eq!(Access { insecure_dev: true }.admit(path, &bearer, &replica, 0).unwrap().role, Buyer);
    }
}
