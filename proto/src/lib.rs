//! The contract: the `.proto` files beneath `proto/proto`, and the types generated from them.
//! No logic lives here.
//!
//! - [`log::v1`]: the consensus room's disk formats (`millpool.log.v1`).
//! - [`v1`]: the public API and the peers' own service (`millpool.v1`);
//! - [`log`]: what the consensus room keeps on disk; [`state`]: what the state machine keeps.

// The field comments of the .proto files become the docs of the generated types.
#![allow(missing_docs, clippy::all)]

/// What coordinators keep on disk.
pub mod log {
    /// Package `millpool.log.v1`: entries, votes and snapshots of the replicated log.
    pub mod v1 {
        tonic::include_proto!("millpool.log.v1");
    }
}

/// What the alliance's state machine keeps.
pub mod state {
    /// Package `millpool.state.v1`: commands and snapshots.
    pub mod v1 {
        tonic::include_proto!("millpool.state.v1");
    }
}

/// Package `millpool.v1`: what clients, agents and peers speak.
pub mod v1 {
    tonic::include_proto!("millpool.v1");
}

/// The encoded `FileDescriptorSet` of every file, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
