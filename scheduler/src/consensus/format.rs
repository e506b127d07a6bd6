//! Our types to and from protobuf: `millpool.log.v1` on disk and inside the peers' messages.
//!
//! Reading refuses what it does not know. Nothing here guesses a default for a missing part.

use super::error::DecodeError;
use super::types::{
    Addresses, Command, CommittedLeaderId, Entry, LogId, Member, Membership, NodeId, Payload,
    StoredMembership, Vote,
};
use millpool_proto::log::v1 as pb;
use openraft::EntryPayload;
use openraft::impls::leader_id_std::LeaderId;
use std::collections::{BTreeMap, BTreeSet};

/// The one format that this version writes, and the highest that it reads.
pub(super) const FORMAT: u32 = 1;

pub(super) fn bad(what: impl Into<String>) -> DecodeError {
    DecodeError(what.into())
}

/// Refuses a format number from the future, and 0, which nothing ever wrote.
pub(super) fn check_format(what: &str, format: u32) -> Result<(), DecodeError> {
    if format == FORMAT {
        return Ok(());
    }
    Err(bad(format!("{what} has format {format}, this version reads {FORMAT}: upgrade this node")))
}

pub(super) fn log_id(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, index: id.index }
}

pub(super) fn read_log_id(id: &pb::LogId) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(id.term), index: id.index }
}

pub(super) fn vote(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed }
}

pub(super) fn read_vote(vote: &pb::Vote) -> Vote {
    Vote { leader_id: LeaderId { term: vote.term, voted_for: vote.node_id }, committed: vote.committed }
}

pub(super) fn membership(from: &Membership) -> pb::Membership {
    pb::Membership {
        voters: from
            .get_joint_config()
            .iter()
            .map(|set| pb::VoterSet { node_ids: set.iter().copied().collect() })
            .collect(),
        members: from
            .nodes()
            .map(|(id, member)| pb::Member {
                node_id: *id,
                peer_address: member.addresses.peers.clone(),
                public_address: member.addresses.public.clone(),
                store_id: member.store_id,
            })
            .collect(),
    }
}

pub(super) fn read_membership(from: &pb::Membership) -> Result<Membership, DecodeError> {
    let voters: Vec<BTreeSet<NodeId>> =
        from.voters.iter().map(|set| set.node_ids.iter().copied().collect()).collect();
    let members: BTreeMap<NodeId, Member> = from
        .members
        .iter()
        .map(|member| {
            let addresses =
                Addresses { peers: member.peer_address.clone(), public: member.public_address.clone() };
            (member.node_id, Member { addresses, store_id: member.store_id })
        })
        .collect();
    if voters.is_empty() && members.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(voters, members).map_err(|e| bad(format!("membership: {e}")))
}

pub(super) fn read_stored_membership(
    set_by: Option<&pb::LogId>,
    from: Option<&pb::Membership>,
) -> Result<StoredMembership, DecodeError> {
    let membership = match from {
        Some(from) => read_membership(from)?,
        None => Membership::default(),
    };
    Ok(StoredMembership::new(set_by.map(read_log_id), membership))
}

pub(super) fn entry(from: &Entry) -> pb::Entry {
    let payload = match &from.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(command) => pb::entry::Payload::Command(command.0.clone()),
        EntryPayload::Membership(m) => pb::entry::Payload::Membership(membership(m)),
    };
    pb::Entry { format: FORMAT, log_id: Some(log_id(&from.log_id)), payload: Some(payload) }
}

pub(super) fn read_entry(from: pb::Entry) -> Result<Entry, DecodeError> {
    check_format("a log entry", from.format)?;
    let log_id = from.log_id.as_ref().map(read_log_id).ok_or_else(|| bad("a log entry without its place"))?;
    let payload: Payload = match from.payload {
        Some(pb::entry::Payload::Blank(_)) => EntryPayload::Blank,
        Some(pb::entry::Payload::Command(bytes)) => EntryPayload::Normal(Command(bytes)),
        Some(pb::entry::Payload::Membership(m)) => EntryPayload::Membership(read_membership(&m)?),
        None => return Err(bad(format!("log entry {log_id} has a payload that this version does not know"))),
    };
    Ok(Entry { log_id, payload })
}

/// Decodes a message of ours from a disk.
pub(super) fn decode<M: prost::Message + Default>(what: &str, bytes: bytes::Bytes) -> Result<M, DecodeError> {
    M::decode(bytes).map_err(|e| bad(format!("{what} cannot be read: {e}")))
}

pub(super) fn encode<M: prost::Message>(message: &M) -> bytes::Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_the_round_trip() {
        let member =
            Member { addresses: Addresses { peers: "a:1".into(), public: "b:2".into() }, store_id: 7 };
        let membership = Membership::new(
            vec![BTreeSet::from([1]), BTreeSet::from([1, 2])],
            BTreeMap::from([(1, member.clone()), (2, member)]),
        )
        .unwrap();
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Command(bytes::Bytes::from_static(b"x"))),
            EntryPayload::Normal(Command(bytes::Bytes::new())),
            EntryPayload::Membership(membership),
        ] {
            let before = Entry { log_id: LogId { leader_id: CommittedLeaderId::new(3), index: 9 }, payload };
            let after = read_entry(decode("an entry", encode(&entry(&before))).unwrap()).unwrap();
            assert_eq!(before, after);
        }
    }

    #[test]
    fn what_comes_from_the_future_is_refused() {
        let from = pb::Entry { format: 2, log_id: Some(pb::LogId { term: 1, index: 1 }), payload: None };
        assert!(read_entry(from).unwrap_err().0.contains("upgrade"));
        let from = pb::Entry { format: 1, log_id: Some(pb::LogId { term: 1, index: 1 }), payload: None };
        assert!(read_entry(from).unwrap_err().0.contains("does not know"));
    }
}
