//! What certmap says back: conditions, addresses, events, and the lease that says which replica says it.
//!
//! What is to be said is worked out without waiting for anybody (`report`, `conditions`, `events`); saying it waits and
//! tries again (`writer`, `lease`, `addresses`), and so does keeping the keys that certmap was told to make
//! (`managed_keys`: to sign identities, `signing_keys`, and to seal tickets, `ticket_keys`). Nothing that a request gets
//! depends on any of it but on those keys.

mod addresses;
mod conditions;
mod events;
mod lease;
mod managed_keys;
mod report;
mod signing_keys;
mod ticket_keys;
mod writer;

pub use addresses::{Publish, addresses};
pub use events::{Said, events};
pub use lease::{Election, Leadership};
pub use managed_keys::{KeyKind, NoKey, WantedKeys, keep_keys};
pub use report::{Author, Patch, patches};
pub use signing_keys::{SIGNING_KEYS, signing_key, wanted_keys};
pub use ticket_keys::{TICKET_KEYS, wanted_ticket_keys};
pub use writer::{Outbox, Work, Written, outbox};

/// Who writes, to server-side apply.
pub const FIELD_MANAGER: &str = "certmap";
