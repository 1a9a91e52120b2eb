//! STUB replaced at merge.

use http::HeaderName;

/// Names.
#[derive(Clone, Debug, Default)]
pub struct IdentityHeaders(Vec<String>);

impl IdentityHeaders {
    /// New.
    pub fn new<'a>(configured: impl IntoIterator<Item = &'a str>) -> Self {
        Self(configured.into_iter().map(str::to_owned).collect())
    }

    /// Whether.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|n| n.eq_ignore_ascii_case(name.as_str()))
    }
}
