//! `millpool-load`: what a cluster bears.
fn main() {}
