//! Braid's wire types, generated from `proto/**/*.proto`.
//!
//! Owns nothing but the inclusion of what `build.rs` generates. It holds no logic: conversions
//! between wire and domain live with whoever speaks the wire (`node`'s api, `client`).

#![allow(clippy::doc_lazy_continuation)] // the .proto comments are plain text, not Markdown

/// The public API: service `braid.v1.Braid`.
pub mod v1 {
    tonic::include_proto!("braid.v1");
}

/// Node to node: service `braid.peer.v1.Peer`. Not for clients.
pub mod peer {
    tonic::include_proto!("braid.peer.v1");
}

/// The envelope in which gRPC carries error details (`google.rpc.Status`).
pub mod google_rpc {
    tonic::include_proto!("google.rpc");
}

/// The encoded `FileDescriptorSet` of every file above, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/braid_descriptor.bin"));
