//! `ReferenceGrant` of the Gateway API, as far as certmap reads it: who may refer to objects of another namespace.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// Lets objects of other namespaces refer to objects of its own (gateway.networking.k8s.io, ReferenceGrant).
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct ReferenceGrant {
    /// Its namespace is the one of the objects that are referred to.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// From whom, to what.
    pub spec: ReferenceGrantSpec,
}

/// From whom, to what: every `from` may refer to every `to`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct ReferenceGrantSpec {
    /// Who refers.
    pub from: Vec<GrantFrom>,
    /// What is referred to.
    pub to: Vec<GrantTo>,
}

/// Who refers.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct GrantFrom {
    /// The API group of what refers.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
}

/// What is referred to.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct GrantTo {
    /// Its API group; empty for ConfigMaps and Secrets.
    #[serde(default)]
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// One object; all of the kind, if left out.
    #[serde(default)]
    pub name: Option<String>,
}
