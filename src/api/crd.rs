//! The CustomResourceDefinition as text and as a schema.

use kube::CustomResourceExt;
use saphyr::{Scalar, Yaml, YamlEmitter};
use serde_json::Value;

use super::policy::CertMappingPolicy;

/// The definition as YAML: what `crds/` holds and `certmap crds` prints.
#[must_use]
pub fn crd_yaml() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, and neither can serializing a definition that the program itself holds.
    if YamlEmitter::new(&mut text).dump(&yaml(definition())).is_err() {
        text.clear();
    }
    text.push('\n');
    text
}

/// The OpenAPI v3 schema of the version in use, as the API server applies it.
#[must_use]
pub fn schema() -> Value {
    definition().pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default()
}

/// Without `nullable`: the API server then drops a null before it judges, so that null and absent are one.
fn definition() -> Value {
    let mut crd = serde_json::to_value(CertMappingPolicy::crd()).unwrap_or_default();
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
