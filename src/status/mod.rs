//! What certmap says back: conditions, addresses, events, and the lease that says which replica says it.
//!
//! What is to be said is worked out without waiting for anybody (`report`, `conditions`, `events`); saying it waits and tries again
//! (`writer`, `lease`, `addresses`), and so does keeping the signing keys that certmap was told to make (`signing_keys`).
//! Nothing that a request gets depends on any of it but on those keys.

mod addresses;
mod conditions;
mod events;
mod lease;
mod report;
mod signing_keys;
mod writer;

pub use addresses::{Publish, addresses};
pub use events::{Said, events};
pub use lease::{Election, Leadership};
pub use report::{Author, Patch, patches};
pub use signing_keys::{WantedKeys, keep_signing_keys, signing_key, wanted_keys};
pub use writer::{Outbox, Work, Written, outbox};

/// Who writes, to server-side apply.
pub const FIELD_MANAGER: &str = "certmap";
