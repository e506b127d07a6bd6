//! What `millpool-solve` says and writes beside the plan itself.

pub(crate) mod csv;
pub(crate) mod explain;
pub(crate) mod hint;
pub(crate) mod log;
