//! The shipped binary, seen from outside: started as one process or three, spoken to over gRPC.

mod agents;
mod flow;
mod harness;
mod process;
mod wire;
mod world;
