//! The Kinesis face: the service's HTTP API over the functions that the gRPC face calls.

pub mod wire;
