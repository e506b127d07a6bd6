//! The contract: the `.proto` files beneath `proto/proto`, and the types generated from them.
//! No logic lives here.
//!
//! - [`v1`]: the public API and the peers' own service (`millpool.v1`).

// The field comments of the .proto files become the docs of the generated types.
#![allow(missing_docs, clippy::all)]

/// Package `millpool.v1`: what clients, agents and peers speak.
pub mod v1 {
    tonic::include_proto!("millpool.v1");
}

/// The encoded `FileDescriptorSet` of every file, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
