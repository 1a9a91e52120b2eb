//! What a policy amounts to.

/// A policy in figures.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PolicySummary {
    /// Enabled mappings.
    pub mappings: usize,
    /// When the first certificate of a one-to-one mapping expires, in seconds since 1970.
    pub earliest_expiry: Option<i64>,
}

impl PolicySummary {
    /// One more mapping, whose certificate expires then.
    pub(super) fn add(&mut self, expiry: Option<i64>) {
        self.mappings += 1;
        self.earliest_expiry = match (self.earliest_expiry, expiry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}
