//! The CustomResourceDefinitions as text and as schemas.

use kube::CustomResourceExt;
use saphyr::{Scalar, Yaml, YamlEmitter};
use serde_json::Value;

use super::policy::CertMappingPolicy;
use super::route_policy::RoutePolicy;

/// The kinds that certmap defines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CrdKind {
    /// Who may come in.
    CertMappingPolicy,
    /// How requests are carried.
    RoutePolicy,
}

impl CrdKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::CertMappingPolicy, Self::RoutePolicy];

    /// In lower case and in the plural, as API servers and files name it.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::CertMappingPolicy => "certmappingpolicies",
            Self::RoutePolicy => "routepolicies",
        }
    }
}

/// All definitions as YAML documents: what `certmap crds` prints.
#[must_use]
pub fn crds_yaml() -> String {
    CrdKind::ALL.map(crd_yaml).concat()
}

/// One definition as a YAML document: what a file of `crds/` holds.
#[must_use]
pub fn crd_yaml(kind: CrdKind) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, and neither can serializing a definition that the program itself holds.
    if YamlEmitter::new(&mut text).dump(&yaml(definition(kind))).is_err() {
        text.clear();
    }
    text.push('\n');
    text
}

/// The OpenAPI v3 schema of the version in use, as the API server applies it.
#[must_use]
pub fn schema(kind: CrdKind) -> Value {
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    definition(kind).pointer(schema).cloned().unwrap_or_default()
}

/// Without `nullable`: the API server then drops a null before it judges, so that null and absent are one.
fn definition(kind: CrdKind) -> Value {
    let crd = match kind {
        CrdKind::CertMappingPolicy => CertMappingPolicy::crd(),
        CrdKind::RoutePolicy => RoutePolicy::crd(),
    };
    let mut crd = serde_json::to_value(crd).unwrap_or_default();
    drop_nullable(&mut crd);
    crd
}

fn drop_nullable(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            fields.values_mut().for_each(drop_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nullable),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn yaml(value: Value) -> Yaml<'static> {
    match value {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(flag) => Yaml::Value(Scalar::Boolean(flag)),
        // The schema's bounds are small integers, which schemars writes as floats.
        Value::Number(number) => number
            .as_f64()
            .map_or(Yaml::BadValue, |float| Yaml::Value(Scalar::Integer(float as i64))),
        Value::String(text) => Yaml::Value(Scalar::String(text.into())),
        Value::Array(items) => Yaml::Sequence(items.into_iter().map(yaml).collect()),
        Value::Object(fields) => Yaml::Mapping(
            fields
                .into_iter()
                .map(|(key, value)| (Yaml::Value(Scalar::String(key.into())), yaml(value)))
                .collect(),
        ),
    }
}
