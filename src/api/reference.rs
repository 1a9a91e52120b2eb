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

/// A ConfigMap or Secret that holds CA certificates.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaCertificateRef {
    /// ConfigMap or Secret.
    pub kind: ObjectKind,
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The object's namespace, if it is not the policy's: then a ReferenceGrant there must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The key within it.
    #[serde(default = "default_ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// How a duration is written (GEP-2257), longer than nothing.
pub const DURATION: &str = "^[1-9][0-9]{0,4}(h|m|s|ms)([0-9]{1,5}(h|m|s|ms)){0,3}$";
/// One of a second or more.
pub const LONG_DURATION: &str = "^[1-9][0-9]{0,4}(h|m|s)([0-9]{1,5}(h|m|s|ms)){0,3}$";
/// How octets are counted, as Kubernetes writes quantities.
pub const QUANTITY: &str = "^[0-9]{1,15}(k|M|G|T|Ki|Mi|Gi|Ti)?$";

/// The default of every `enabled` and the like.
pub(super) fn yes() -> bool {
    true
}

fn default_ca_key() -> String {
    "ca.crt".to_owned()
}
