//! Compiled rules and [`decide`]: facts about a request in, a verdict with its trace out.
//!
//! Pure: time is an argument, nothing waits, nothing is read. What needs the outside is asked for ([`Decision::Ask`]).
//! Every way through `decide` ends in a [`Permit`] or in a refusal with a reason; a permit cannot be made elsewhere.

mod account;
mod authorization;
mod challenge;
mod compiled;
mod decide;
mod denial;
mod directory;
mod flags;
mod forward;
mod many_to_one;
mod modules;
mod one_to_one;
mod pattern;
mod permit;
mod rule;
mod signed_identity;
mod subject;
mod trace;
mod trust;

pub use account::Account;
pub use authorization::{Authorization, People};
pub use compiled::{Guard, Module, Policy};
pub use decide::{Decision, decide};
pub use denial::{Denial, DenialCode};
pub use directory::DirectoryUse;
pub use flags::SslFlags;
pub use forward::{DomainNames, ForwardSettings};
pub use many_to_one::{ManyToOneMapping, ManyToOneMappings};
pub use one_to_one::{OneToOneMapping, OneToOneMappings, OneToOneMatch};
pub use pattern::Pattern;
pub use permit::{Mechanism, Permit, VerifiedCertificate};
pub use rule::{Mismatch, Rule, UnknownAttribute};
pub use signed_identity::{SignedIdentity, SigningKeys, Statement};
pub use subject::{ClientCertificate, Subject};
pub use trace::{Trace, TraceLine, TraceOutcome};
pub use trust::{ChainResult, ChainVerdict, TrustBundle, TrustError, VerdictCache};
