//! Findings → Events on the objects they concern, each once. Pure.
//!
//! An Event's name follows from what it says: a replica that takes the lease over, or the same replica after a restart,
//! says nothing twice, because the API server knows the name already.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use super::conditions::shorten;
use crate::compile::{Finding, Object, ObjectKind, ObjectRef, Severity, World};
use crate::identity::Fingerprint;

/// The API server's limit.
const LONGEST_NOTE: usize = 1024;

/// What was said already.
#[derive(Clone, Debug, Default)]
pub struct Said(HashSet<String>);

/// The Events that are news, in the name of `controller` and of one of its replicas.
#[must_use]
pub fn events(
    world: &World,
    findings: &[Finding],
    said: &mut Said,
    (controller, replica): (&str, &str),
    now: Timestamp,
) -> Vec<Event> {
    let mut still = HashSet::new();
    let mut news = Vec::new();
    for finding in findings {
        let Some(regarding) = regarding(world, &finding.object) else { continue };
        let name = event_name(finding, &regarding);
        if !said.0.contains(&name) && !still.contains(&name) {
            news.push(event(finding, &name, regarding, (controller, replica), now));
        }
        still.insert(name);
    }
    // What is no longer so may be said again when it comes back.
    said.0 = still;
    news
}

fn event(
    finding: &Finding,
    name: &str,
    regarding: ObjectReference,
    (controller, replica): (&str, &str),
    now: Timestamp,
) -> Event {
    let field =
        if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(regarding.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        action: Some(
            if finding.severity == Severity::Error { "Refuse" } else { "Warn" }.to_owned(),
        ),
        reason: Some(finding.reason.to_owned()),
        note: Some(shorten(&format!("{field}{}", finding.message), LONGEST_NOTE)),
        regarding: Some(regarding),
        reporting_controller: Some(controller.to_owned()),
        reporting_instance: Some(shorten(replica, 128)),
        type_: Some("Warning".to_owned()),
        ..Event::default()
    }
}

/// The object's name and a digest: within what a name may hold.
fn event_name(finding: &Finding, regarding: &ObjectReference) -> String {
    let uid = regarding.uid.as_deref().unwrap_or_default();
    let all = [uid, finding.reason, &finding.field, &finding.message].join("\n");
    let digest: String = Fingerprint::of(all.as_bytes())
        .to_string()
        .to_ascii_lowercase()
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(16)
        .collect();
    let object: String = finding.object.name.name.chars().take(200).collect();
    format!("{object}.{digest}")
}

/// The object as it is there now; one that is gone has nobody to tell.
fn regarding(world: &World, reference: &ObjectRef) -> Option<ObjectReference> {
    let metadata = match world.get(reference)? {
        Object::Policy(object) => object.metadata.clone(),
        Object::ConfigMap(object) => object.metadata.clone(),
        Object::EndpointSlice(object) => object.metadata.clone(),
        Object::Ingress(object) => object.metadata.clone(),
        Object::IngressClass(object) => object.metadata.clone(),
        Object::ReferenceGrant(object) => object.metadata.clone(),
        Object::RoutePolicy(object) => object.metadata.clone(),
        Object::Secret(object) => object.metadata.clone(),
        Object::Service(object) => object.metadata.clone(),
    };
    let version = match reference.kind {
        ObjectKind::CertMappingPolicy | ObjectKind::RoutePolicy => "certmap.dev/v1alpha1",
        ObjectKind::Ingress | ObjectKind::IngressClass => "networking.k8s.io/v1",
        ObjectKind::EndpointSlice => "discovery.k8s.io/v1",
        ObjectKind::ReferenceGrant => "gateway.networking.k8s.io/v1beta1",
        ObjectKind::ConfigMap | ObjectKind::Secret | ObjectKind::Service => "v1",
    };
    Some(ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(reference.kind.to_string()),
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        ..ObjectReference::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Service;

    use super::*;
    use crate::compile::ObjectName;

    #[test]
    fn each_thing_is_said_once_until_it_comes_back() {
        let mut world = World::default();
        let metadata = ObjectMeta {
            name: Some("s".to_owned()),
            namespace: Some("web".to_owned()),
            uid: Some("u".to_owned()),
            ..ObjectMeta::default()
        };
        world.apply(Object::Service(Arc::new(Service { metadata, ..Service::default() })));
        let finding = |name: &str| Finding {
            severity: Severity::Warning,
            object: ObjectRef { kind: ObjectKind::Service, name: ObjectName::new("web", name) },
            target: None,
            field: "spec".to_owned(),
            reason: "ReachedWithoutPolicy",
            message: "so it is".to_owned(),
        };
        let mut said = Said::default();
        let mut say = |findings: &[Finding]| {
            events(&world, findings, &mut said, ("certmap.dev/x", "pod"), Timestamp::UNIX_EPOCH)
        };
        let first = say(&[finding("s"), finding("s"), finding("gone")]);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].note.as_deref(), Some("spec: so it is"));
        assert_eq!(first[0].regarding.as_ref().unwrap().uid.as_deref(), Some("u"));
        assert!(say(&[finding("s")]).is_empty());
        assert!(say(&[]).is_empty());
        assert_eq!(say(&[finding("s")])[0].metadata.name, first[0].metadata.name);
    }
}
