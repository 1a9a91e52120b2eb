//! A value that says what kind of object it is → the object, typed; what cannot be read, as far as it can be made out.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::compile::{Object, ObjectKind, ObjectRef};

/// What became of one object.
#[derive(Clone, Debug)]
pub(super) enum Reading {
    Object(Object),
    /// It is there, and cannot be read.
    Broken {
        object: ObjectRef,
        /// Of a policy: the Ingresses that it names, as far as they can be made out.
        targets: Targets,
    },
}

/// What can be made out of `spec.targetRefs`.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    pub(super) names: Vec<String>,
    /// Whether there may be more.
    pub(super) partial: bool,
}

impl Targets {
    /// The Ingresses that a policy of this kind refuses while it cannot be read. What a RoutePolicy held back of one that
    /// cannot be made out would go unnoticed: then it names nobody, and stands before all of its namespace. (Of the other
    /// kind it is noted beside the World.)
    pub(super) fn refused(self, kind: ObjectKind) -> Vec<String> {
        if self.partial && kind == ObjectKind::RoutePolicy { Vec::new() } else { self.names }
    }
}

/// `spec.targetRefs[*].name`, whatever else is wrong.
pub(super) fn salvage(value: &Value) -> Targets {
    let targets: &[Value] =
        value.pointer("/spec/targetRefs").and_then(Value::as_array).map_or(&[], Vec::as_slice);
    let name = |target: &Value| target.get("name")?.as_str().map(str::to_owned);
    let names: Vec<String> = targets.iter().filter_map(name).collect();
    Targets { partial: names.is_empty() || names.len() < targets.len(), names }
}

pub(super) fn typed(object: &ObjectRef, mut value: Value) -> Result<Object, (String, String)> {
    if let (true, Some(Value::Object(metadata))) =
        (object.kind.is_namespaced(), value.get_mut("metadata"))
    {
        metadata.insert("namespace".to_owned(), object.name.namespace.clone().into());
    }
    if object.kind == ObjectKind::Secret {
        merge_string_data(&mut value);
    }
    Ok(match object.kind {
        ObjectKind::CertMappingPolicy => Object::Policy(deserialize(value)?),
        ObjectKind::ConfigMap => Object::ConfigMap(deserialize(value)?),
        ObjectKind::EndpointSlice => Object::EndpointSlice(deserialize(value)?),
        ObjectKind::Ingress => Object::Ingress(deserialize(value)?),
        ObjectKind::IngressClass => Object::IngressClass(deserialize(value)?),
        ObjectKind::ReferenceGrant => Object::ReferenceGrant(deserialize(value)?),
        ObjectKind::RoutePolicy => Object::RoutePolicy(deserialize(value)?),
        ObjectKind::Secret => Object::Secret(deserialize(value)?),
        ObjectKind::Service => Object::Service(deserialize(value)?),
    })
}

fn deserialize<T: DeserializeOwned>(value: Value) -> Result<Arc<T>, (String, String)> {
    let secret = value.get("kind").is_some_and(|kind| kind == "Secret");
    serde_path_to_error::deserialize(value).map(Arc::new).map_err(|error| {
        let field = error.path().to_string();
        // The message may quote the value, which may be a password.
        let message = if secret && (field.starts_with("data") || field.starts_with("stringData")) {
            "cannot be read: is it base64?".to_owned()
        } else {
            error.inner().to_string()
        };
        (if field == "." { String::new() } else { field }, message)
    })
}

/// An API server does this when a Secret is written.
fn merge_string_data(value: &mut Value) {
    let Some(secret) = value.as_object_mut() else { return };
    let Some(Value::Object(plain)) = secret.remove("stringData") else { return };
    let data = secret.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(data) = data {
        for (key, text) in plain {
            let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
            data.insert(key, Value::String(STANDARD.encode(text)));
        }
    }
}
