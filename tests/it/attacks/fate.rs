//! What is to become of an attempt.

/// As the client and the backend see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// Nothing reaches the backend whole.
    Refused,
    /// One request does, and nothing more.
    Once,
    /// The standard leaves it open: one or none.
    Either,
}
