//! What the API server sends → an object with what certmap uses of it, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressLoadBalancerStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicObject;
use serde_json::Value;

use super::super::reading::{Targets, salvage, typed};
use crate::api::{CertMappingPolicyStatus, RoutePolicyStatus};
use crate::compile::{Object, ObjectKind, ObjectName, ObjectRef};

/// Annotations that are read.
const ANNOTATIONS: &[&str] = &[
    crate::api::BACKEND_PROTOCOL_ANNOTATION,
    crate::api::POLICY_REQUIRED_ANNOTATION,
    crate::api::WEIGHT_ANNOTATION,
    "kubernetes.io/ingress.class",
    "ingressclass.kubernetes.io/is-default-class",
];
/// Labels that are read.
const LABELS: &[&str] = &["kubernetes.io/service-name"];

/// What became of an object.
pub(super) struct Read {
    pub(super) reference: ObjectRef,
    /// The object; or the field and a sentence, and whom it was to protect.
    pub(super) object: Result<Object, (String, String, Targets)>,
    pub(super) status: Option<Status>,
}

/// A status that certmap writes.
pub(super) enum Status {
    Policy(CertMappingPolicyStatus),
    RoutePolicy(RoutePolicyStatus),
    Ingress(IngressLoadBalancerStatus),
}

pub(super) fn name(object: &DynamicObject) -> ObjectName {
    ObjectName::of(&object.metadata)
}

pub(super) fn read(kind: ObjectKind, object: DynamicObject) -> Read {
    let reference = ObjectRef { kind, name: name(&object) };
    let DynamicObject { types, metadata, data: mut value } = object;
    let status =
        value.get_mut("status").map(Value::take).and_then(|status| read_status(kind, status));
    if let Value::Object(fields) = &mut value {
        fields.remove("status");
        // Neither cannot be written as JSON.
        fields.insert(
            "metadata".to_owned(),
            serde_json::to_value(trimmed(metadata)).unwrap_or_default(),
        );
        for (name, text) in types.into_iter().flat_map(|types| {
            [("apiVersion".to_owned(), types.api_version), ("kind".to_owned(), types.kind)]
        }) {
            fields.insert(name, Value::String(text));
        }
    }
    let targets = salvage(&value);
    let object = typed(&reference, value).map(slim);
    Read { object: object.map_err(|(field, message)| (field, message, targets)), reference, status }
}

fn read_status(kind: ObjectKind, mut status: Value) -> Option<Status> {
    match kind {
        ObjectKind::CertMappingPolicy => serde_json::from_value(status).ok().map(Status::Policy),
        ObjectKind::RoutePolicy => serde_json::from_value(status).ok().map(Status::RoutePolicy),
        ObjectKind::Ingress => {
            let balancer = status.get_mut("loadBalancer").map(Value::take)?;
            serde_json::from_value(balancer).ok().map(Status::Ingress)
        }
        _ => None,
    }
}

fn trimmed(metadata: ObjectMeta) -> ObjectMeta {
    let only = |all: Option<BTreeMap<String, String>>, names: &[&str]| {
        let mut all = all.unwrap_or_default();
        all.retain(|name, _| names.contains(&name.as_str()));
        Some(all).filter(|all| !all.is_empty())
    };
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp,
        annotations: only(metadata.annotations, ANNOTATIONS),
        labels: only(metadata.labels, LABELS),
        ..ObjectMeta::default()
    }
}

/// Without the fields that nothing reads.
fn slim(object: Object) -> Object {
    match object {
        Object::EndpointSlice(mut slice) => {
            for endpoint in &mut Arc::make_mut(&mut slice).endpoints.iter_mut().flatten() {
                (endpoint.hostname, endpoint.node_name, endpoint.zone) = (None, None, None);
            }
            Object::EndpointSlice(slice)
        }
        Object::Service(mut service) => {
            if let Some(spec) = &mut Arc::make_mut(&mut service).spec {
                (spec.selector, spec.cluster_ip, spec.cluster_ips) = (None, None, None);
            }
            Object::Service(service)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nothing_reads_is_dropped() {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"a": "eA=="},
            "metadata": {
                "name": "s", "namespace": "web", "uid": "u", "resourceVersion": "7",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "password"},
                "managedFields": [{"manager": "kubectl"}], "labels": {"app": "x"},
            },
        });
        let read = read(ObjectKind::Secret, serde_json::from_value(secret).unwrap());
        let Ok(Object::Secret(secret)) = read.object else { panic!("no secret") };
        let text = serde_json::to_string(&*secret).unwrap();
        for gone in ["last-applied", "managedFields", "resourceVersion", "labels"] {
            assert!(!text.contains(gone), "{text}");
        }
        assert_eq!(secret.metadata.uid.as_deref(), Some("u"));
    }

    #[test]
    fn a_status_is_read_apart() {
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i", "namespace": "web"},
            "spec": {}, "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}},
        });
        let read = read(ObjectKind::Ingress, serde_json::from_value(ingress).unwrap());
        let Some(Status::Ingress(status)) = read.status else { panic!("no status") };
        assert_eq!(status.ingress.unwrap()[0].ip.as_deref(), Some("10.0.0.1"));
        let Ok(Object::Ingress(ingress)) = read.object else { panic!("no ingress") };
        assert_eq!(ingress.status, None);
    }

    #[test]
    fn an_unreadable_policy_says_field_and_targets() {
        let policy = json!({
            "apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy", "metadata": {"name": "p", "namespace": "web"},
            "spec": {"targetRefs": [{"name": "i"}], "fromTheFuture": true},
        });
        let read = read(ObjectKind::CertMappingPolicy, serde_json::from_value(policy).unwrap());
        let Err((field, message, targets)) = read.object else { panic!("read") };
        assert!(field.starts_with("spec"), "{field}");
        assert!(!message.is_empty() && targets.names == ["i"]);
    }
}
