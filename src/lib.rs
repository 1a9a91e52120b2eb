//! certmap: client certificates become named accounts, on every request, in front of any backend.
pub mod api;
pub mod auth;
pub mod compile;
pub mod identity;
pub mod lookup;
pub mod policy;
pub mod proxy;
pub mod snapshot;
pub mod source;
pub mod telemetry;
