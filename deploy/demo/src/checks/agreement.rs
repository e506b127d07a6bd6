//! The coordinators agree: equal hashes of the state at equal revisions.

use super::Fault;
use crate::cluster::{Cluster, NODES};
use futures::future::join_all;
use millpool_proto::v1::GetStatusResponse;
use std::time::{Duration, Instant};

const AGREE: &str = "replicas agree";

/// Asks all nodes that are meant to run until they stand at one revision, and compares their hashes there.
/// Answers with that revision.
pub async fn compare(cluster: &Cluster, patience: Duration) -> Result<u64, Fault> {
    let began = Instant::now();
    let running = (0..NODES).filter(|index| cluster.is_up(*index)).count();
    loop {
        let statuses = join_all((0..NODES).map(|index| cluster.status(index))).await;
        let statuses: Vec<GetStatusResponse> = statuses.into_iter().flatten().collect();
        if let Some(judged) = judge(&statuses, running) {
            return judged;
        }
        if began.elapsed() > patience {
            let seen: Vec<_> = statuses.iter().map(place).collect();
            return Err(Fault::new(
                AGREE,
                format!("no common revision within {patience:?}; nodes at {seen:?}"),
            ));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Node and revision of an answer.
fn place(status: &GetStatusResponse) -> (u64, u64) {
    status.header.as_ref().map_or((0, 0), |header| (header.node_id, header.revision))
}

/// The verdict on what all nodes say, or none where one is missing or they stand at different revisions.
fn judge(statuses: &[GetStatusResponse], running: usize) -> Option<Result<u64, Fault>> {
    let (first, rest) = statuses.split_first()?;
    let revision = place(first).1;
    if statuses.len() < running || rest.iter().any(|status| place(status).1 != revision) {
        return None;
    }
    let hashes: Vec<(u64, u64)> =
        statuses.iter().map(|status| (place(status).0, status.state_hash)).collect();
    if rest.iter().all(|status| status.state_hash == first.state_hash) {
        return Some(Ok(revision));
    }
    Some(Err(Fault::new(AGREE, format!("at revision {revision} nodes have the hashes {hashes:x?}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpool_proto::v1::Header;

    fn node(node_id: u64, revision: u64, state_hash: u64) -> GetStatusResponse {
        let header = Some(Header { node_id, revision, ..Header::default() });
        GetStatusResponse { header, state_hash, ..GetStatusResponse::default() }
    }

    #[test]
    fn equal_revisions_with_different_hashes_are_found() {
        assert_eq!(judge(&[node(1, 7, 5), node(2, 7, 5), node(3, 7, 5)], 3), Some(Ok(7)));
        let differ = judge(&[node(1, 7, 5), node(2, 7, 6), node(3, 7, 5)], 3);
        assert!(differ.is_some_and(|verdict| verdict.is_err()));
        assert_eq!(judge(&[node(1, 7, 5), node(2, 8, 6), node(3, 7, 5)], 3), None);
        assert_eq!(judge(&[node(1, 7, 5), node(2, 7, 5)], 3), None);
        assert_eq!(judge(&[node(1, 7, 5), node(2, 7, 5)], 2), Some(Ok(7)));
    }
}
