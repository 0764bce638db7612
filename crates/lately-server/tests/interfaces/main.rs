//! gRPC, the packed form, the Open Inference Protocol, HTTP/2 and the graceful end, over real sockets on port 0.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, also in its helpers")]

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod client;
mod connections;
mod drain;
mod grpc;
mod oip;
mod packed;
mod refusals;
