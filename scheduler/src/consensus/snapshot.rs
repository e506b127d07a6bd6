//! Snapshots: the whole state at one revision, as a file and on the wire.
//!
//! A file is: 8 bytes of magic, the header's length (u32, little endian), the header
//! (`SnapshotHeader`), the header's CRC-32C (u32, little endian), the state. It is verified
//! whenever it is read; damage is never repaired by guessing.

use super::disk::{Offload, SnapshotDisk};
use super::error::{DecodeError, StopReason};
use super::format::{self, bad};
use super::limits;
use super::stop::Stop;
use super::types::{SnapshotMeta, StoredMembership};
use bytes::{BufMut as _, Bytes, BytesMut};
use millpool_proto::log::v1 as pb;
use std::io;
use std::sync::Arc;
use std::time::Instant;

const MAGIC: &[u8; 8] = b"MPSNAP\x00\x01";
const SUFFIX: &str = ".snapshot";
/// The magic and the header's length.
const PREFIX_BYTES: usize = 12;

/// A snapshot's header and state, as openraft passes them around.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) header: pb::SnapshotHeader,
    pub(super) state: Bytes,
}

/// Builds the header that describes a state.
pub(super) fn header(cluster_id: &str, meta: &SnapshotMeta, state: &[u8]) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        format: format::FORMAT,
        cluster_id: cluster_id.to_owned(),
        last_log_id: meta.last_log_id.as_ref().map(format::log_id),
        membership: Some(format::membership(meta.last_membership.membership())),
        membership_log_id: meta.last_membership.log_id().as_ref().map(format::log_id),
        body_bytes: state.len() as u64,
        body_crc32c: crc32c::crc32c(state),
    }
}

/// What openraft wants to know about a snapshot.
pub(super) fn meta(header: &pb::SnapshotHeader) -> Result<SnapshotMeta, DecodeError> {
    let last_membership: StoredMembership =
        format::read_stored_membership(header.membership_log_id.as_ref(), header.membership.as_ref())?;
    Ok(SnapshotMeta { last_log_id: header.last_log_id.as_ref().map(format::read_log_id), last_membership })
}

impl Body {
    /// Checks that the state is the one that the header describes, and that both are ours.
    pub(super) fn verify(&self, cluster_id: &str) -> Result<(), DecodeError> {
        format::check_format("the snapshot", self.header.format)?;
        if self.header.cluster_id != cluster_id {
            return Err(bad(format!(
                "it belongs to cluster {:?}, not {cluster_id:?}",
                self.header.cluster_id
            )));
        }
        if self.header.body_bytes != self.state.len() as u64 {
            return Err(bad(format!(
                "it should have {} bytes, it has {}",
                self.header.body_bytes,
                self.state.len()
            )));
        }
        if self.header.body_crc32c != crc32c::crc32c(&self.state) {
            return Err(bad("its checksum is wrong"));
        }
        Ok(())
    }
}

/// The snapshots on a disk.
#[derive(Clone)]
pub(super) struct Snapshots {
    disk: Arc<dyn SnapshotDisk>,
    offload: Offload,
    cluster_id: Arc<str>,
    stop: Stop,
}

impl Snapshots {
    pub(super) fn new(disk: Arc<dyn SnapshotDisk>, offload: Offload, cluster_id: &str, stop: Stop) -> Self {
        Self { disk, offload, cluster_id: cluster_id.into(), stop }
    }

    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Where the snapshots are, for those who have to see to it.
    pub(super) fn place(&self) -> String {
        self.disk.place("")
    }

    /// Runs long work where it disturbs nobody.
    pub(super) async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.offload.run(work).await
    }

    /// The newest snapshot, verified. A damaged one is an error: an older one may no longer meet
    /// the log, and so would lose acknowledged entries.
    pub(super) async fn newest(&self) -> io::Result<Option<Body>> {
        let this = self.clone();
        self.offload(move || this.read_newest()).await?
    }

    fn read_newest(&self) -> io::Result<Option<Body>> {
        let Some(name) = self.names()?.pop() else { return Ok(None) };
        let body = self.disk.read(&name).and_then(|file| {
            let body = parse(file).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.0))?;
            body.verify(&self.cluster_id).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.0))?;
            Ok(body)
        });
        body.map(Some).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!(
                    "snapshot {} is damaged: {e}. This node cannot start from it. Keep its data folder, remove the \
                     node from its cluster, and add a new one under a new id; or put back an undamaged copy of this \
                     very file",
                    self.disk.place(&name)
                ),
            )
        })
    }

    /// Writes a snapshot durably, then drops all but the newest few. The node stops where that fails.
    pub(super) async fn save(&self, body: Body) -> io::Result<()> {
        let this = self.clone();
        let saved = self.offload(move || this.write(&body)).await.flatten();
        saved.inspect_err(|error| {
            self.stop.set(StopReason::Storage(format!("a snapshot cannot be written: {error}")));
        })
    }

    fn write(&self, body: &Body) -> io::Result<()> {
        let name = name(&body.header);
        let begun = Instant::now();
        if !self.names()?.contains(&name) {
            self.disk.write(&name, &file(body))?;
            metrics::gauge!("millpool_snapshot_bytes").set(body.state.len() as f64);
            metrics::histogram!("millpool_snapshot_write_seconds").record(begun.elapsed().as_secs_f64());
            tracing::info!(name, bytes = body.state.len(), "snapshot written");
        }
        let mut names = self.names()?;
        names.truncate(names.len().saturating_sub(limits::SNAPSHOTS_KEPT));
        for old in names {
            match self.disk.remove(&old) {
                // Another save, of a build or from a peer, has just seen to it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Names in the order of their revisions.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.disk.list()?;
        names.retain(|name| name.ends_with(SUFFIX));
        names.sort();
        Ok(names)
    }
}

/// The revision first: names sort like revisions.
fn name(header: &pb::SnapshotHeader) -> String {
    let last = header.last_log_id.unwrap_or_default();
    format!("{:020}-{:020}{SUFFIX}", last.index, last.term)
}

/// A snapshot's file.
pub(super) fn file(body: &Body) -> [Bytes; 2] {
    [prefix(&body.header), body.state.clone()]
}

fn prefix(header: &pb::SnapshotHeader) -> Bytes {
    let header = format::encode(header);
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES + header.len() + 4);
    prefix.put_slice(MAGIC);
    prefix.put_u32_le(header.len() as u32);
    prefix.put_slice(&header);
    prefix.put_u32_le(crc32c::crc32c(&header));
    prefix.freeze()
}

pub(super) fn parse(file: Bytes) -> Result<Body, DecodeError> {
    let length = match (file.get(..8), file.get(8..PREFIX_BYTES)) {
        (Some(magic), Some(&[a, b, c, d])) if magic == MAGIC => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => return Err(bad("it does not begin like a snapshot")),
    };
    let end = PREFIX_BYTES + length;
    if file.len() < end + 4 {
        return Err(bad("it ends within its header"));
    }
    let header = file.slice(PREFIX_BYTES..end);
    let checksum = file.slice(end..end + 4);
    if checksum.as_ref() != crc32c::crc32c(&header).to_le_bytes() {
        return Err(bad("its header's checksum is wrong"));
    }
    Ok(Body { header: format::decode("its header", header)?, state: file.slice(end + 4..) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(state: &'static [u8]) -> Body {
        let meta = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        Body { header: header("c", &meta, state), state: Bytes::from_static(state) }
    }

    #[test]
    fn every_flipped_bit_of_a_snapshot_is_found() {
        let body = body(b"the whole state");
        let file = [prefix(&body.header), body.state].concat();
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let found = parse(damaged.into()).and_then(|body| body.verify("c"));
            assert!(found.is_err(), "bit {bit} was flipped unnoticed");
        }
        assert!(parse(file.into()).and_then(|body| body.verify("c")).is_ok());
    }

    #[test]
    fn every_shortened_snapshot_is_found() {
        let body = body(b"the whole state");
        let file = [prefix(&body.header), body.state].concat();
        for length in 0..file.len() {
            let found = parse(file[..length].to_vec().into()).and_then(|body| body.verify("c"));
            assert!(found.is_err(), "{length} bytes passed for a whole snapshot");
        }
    }
}
