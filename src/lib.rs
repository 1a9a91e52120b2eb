//! certmap: client certificates become named accounts, on every request, in front of any backend.
pub mod api;
pub mod auth;
pub mod compile;
pub mod identity;
pub mod policy;
pub mod snapshot;
