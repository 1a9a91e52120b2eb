//! Compiled rules and `decide`: facts about a request in, a verdict with its trace out.

mod forward;
mod permit;

pub use forward::ForwardSettings;
pub use permit::{Mechanism, Permit, VerifiedCertificate};
