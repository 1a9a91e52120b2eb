//! What fields of several kinds have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds that certificates are read from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ObjectKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// The default of every `enabled` and the like.
pub(super) fn yes() -> bool {
    true
}
