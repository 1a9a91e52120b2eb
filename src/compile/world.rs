//! Every object that certmap knows of, as its source last saw it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressLoadBalancerStatus};
use kube::core::ObjectMeta;

use crate::api::{
    self, CertMappingPolicy, CertMappingPolicyStatus, ReferenceGrant, RoutePolicy,
    RoutePolicyStatus, TargetRef,
};

/// The kinds that are read.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ObjectKind {
    /// certmap.dev/v1alpha1.
    CertMappingPolicy,
    /// v1.
    ConfigMap,
    /// discovery.k8s.io/v1.
    EndpointSlice,
    /// networking.k8s.io/v1.
    Ingress,
    /// networking.k8s.io/v1; cluster-scoped.
    IngressClass,
    /// gateway.networking.k8s.io/v1beta1.
    ReferenceGrant,
    /// certmap.dev/v1alpha1.
    RoutePolicy,
    /// v1.
    Secret,
    /// v1.
    Service,
}

impl ObjectKind {
    /// Whether its objects stand in namespaces.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        self != Self::IngressClass
    }

    /// Whether it is one of certmap's own, which say what happens at Ingresses.
    #[must_use]
    pub fn is_policy(self) -> bool {
        matches!(self, Self::CertMappingPolicy | Self::RoutePolicy)
    }
}

impl From<api::ObjectKind> for ObjectKind {
    fn from(kind: api::ObjectKind) -> Self {
        match kind {
            api::ObjectKind::ConfigMap => Self::ConfigMap,
            api::ObjectKind::Secret => Self::Secret,
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Namespace and name; the namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectName {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl ObjectName {
    /// A name in a namespace.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The name that metadata says.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One object among all.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A policy of either kind, or what is left of one that cannot be read.
#[derive(Clone, Debug)]
pub enum PolicyObject<P = CertMappingPolicy> {
    /// As written.
    Readable(Arc<P>),
    /// It cannot be read and never could: the Ingresses that it names are refused.
    Unreadable {
        /// Names of Ingresses in its namespace, as far as they can be made out.
        targets: Vec<String>,
    },
}

/// A kind of policy that targets Ingresses.
pub trait Targeting {
    /// Which.
    fn target_refs(&self) -> &[TargetRef];
    /// Of the object.
    fn metadata(&self) -> &ObjectMeta;
}

impl Targeting for CertMappingPolicy {
    fn target_refs(&self) -> &[TargetRef] {
        &self.spec.target_refs
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl Targeting for RoutePolicy {
    fn target_refs(&self) -> &[TargetRef] {
        &self.spec.target_refs
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl<P: Targeting> PolicyObject<P> {
    /// The names of the Ingresses that it targets, as far as they can be made out.
    #[must_use]
    pub fn targets(&self) -> Vec<&str> {
        match self {
            Self::Readable(policy) => policy.target_refs().iter().map(|it| &*it.name).collect(),
            Self::Unreadable { targets } => targets.iter().map(String::as_str).collect(),
        }
    }

    /// Which state of it this is; unknown of one that cannot be read.
    #[must_use]
    pub fn generation(&self) -> Option<i64> {
        match self {
            Self::Readable(policy) => policy.metadata().generation,
            Self::Unreadable { .. } => None,
        }
    }
}

impl PolicyObject {
    /// The headers by which it tells backends who is calling, and is told by external services: a backend may have learnt
    /// to believe those.
    pub fn identity_headers(&self) -> impl Iterator<Item = &str> {
        let spec = match self {
            Self::Readable(policy) => Some(&policy.spec),
            Self::Unreadable { .. } => None,
        };
        spec.into_iter().flat_map(|spec| {
            let forward = &spec.forward;
            let signed = forward.signed_identity.as_ref().map(|signed| &signed.header);
            let named = forward.user_header.iter().chain(&forward.groups_header);
            let externals =
                spec.authentication.iter().filter_map(|module| module.external.as_ref());
            let told = externals.flat_map(|it| it.user_header.iter().chain(&it.groups_header));
            named.chain(signed).chain(told).map(String::as_str)
        })
    }
}

/// An object of a kind that certmap reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A policy that was read.
    Policy(Arc<CertMappingPolicy>),
    /// A ConfigMap.
    ConfigMap(Arc<ConfigMap>),
    /// An EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// An Ingress.
    Ingress(Arc<Ingress>),
    /// An IngressClass.
    IngressClass(Arc<IngressClass>),
    /// A ReferenceGrant.
    ReferenceGrant(Arc<ReferenceGrant>),
    /// A route policy that was read.
    RoutePolicy(Arc<RoutePolicy>),
    /// A Secret.
    Secret(Arc<Secret>),
    /// A Service.
    Service(Arc<Service>),
}

impl Object {
    /// Kind and name.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        let (kind, metadata) = match self {
            Self::Policy(object) => (ObjectKind::CertMappingPolicy, &object.metadata),
            Self::ConfigMap(object) => (ObjectKind::ConfigMap, &object.metadata),
            Self::EndpointSlice(object) => (ObjectKind::EndpointSlice, &object.metadata),
            Self::Ingress(object) => (ObjectKind::Ingress, &object.metadata),
            Self::IngressClass(object) => (ObjectKind::IngressClass, &object.metadata),
            Self::ReferenceGrant(object) => (ObjectKind::ReferenceGrant, &object.metadata),
            Self::RoutePolicy(object) => (ObjectKind::RoutePolicy, &object.metadata),
            Self::Secret(object) => (ObjectKind::Secret, &object.metadata),
            Self::Service(object) => (ObjectKind::Service, &object.metadata),
        };
        ObjectRef { kind, name: ObjectName::of(metadata) }
    }
}

/// Every object. Two worlds share what did not change by pointer, which is how `compile` knows what to reuse.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Policies.
    pub policies: BTreeMap<ObjectName, PolicyObject>,
    /// ConfigMaps.
    pub config_maps: BTreeMap<ObjectName, Arc<ConfigMap>>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    /// Ingresses.
    pub ingresses: BTreeMap<ObjectName, Arc<Ingress>>,
    /// IngressClasses.
    pub ingress_classes: BTreeMap<ObjectName, Arc<IngressClass>>,
    /// Which objects may be referred to from which namespaces.
    pub reference_grants: BTreeMap<ObjectName, Arc<ReferenceGrant>>,
    /// Route policies.
    pub route_policies: BTreeMap<ObjectName, PolicyObject<RoutePolicy>>,
    /// Secrets.
    pub secrets: BTreeMap<ObjectName, Arc<Secret>>,
    /// Services.
    pub services: BTreeMap<ObjectName, Arc<Service>>,
    /// IngressClasses cannot be read: the class counts by its name.
    pub classes_unknown: bool,
    /// What stands in the status of objects now: kept apart, so that writing a status changes no object.
    pub statuses: Statuses,
    /// Something that may have been a policy could never be read: routes without a policy are refused.
    pub incomplete: bool,
    /// Something that may have held a policy of either kind could never be read.
    pub unread_manifest: bool,
}

/// What stands in the status of objects now.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    /// Of policies, everybody's entries.
    pub policies: BTreeMap<ObjectName, CertMappingPolicyStatus>,
    /// Of route policies, everybody's entries.
    pub route_policies: BTreeMap<ObjectName, RoutePolicyStatus>,
    /// Which state of a policy was seen last: a status is written onto that one, or not at all.
    pub versions: BTreeMap<ObjectRef, String>,
    /// `status.loadBalancer` of Ingresses.
    pub ingresses: BTreeMap<ObjectName, IngressLoadBalancerStatus>,
}

impl World {
    /// Adds an object, or replaces the one of its kind and name.
    pub fn apply(&mut self, object: Object) {
        let name = object.reference().name;
        match object {
            Object::Policy(object) => {
                drop(self.policies.insert(name, PolicyObject::Readable(object)))
            }
            Object::ConfigMap(object) => drop(self.config_maps.insert(name, object)),
            Object::EndpointSlice(object) => drop(self.endpoint_slices.insert(name, object)),
            Object::Ingress(object) => drop(self.ingresses.insert(name, object)),
            Object::IngressClass(object) => drop(self.ingress_classes.insert(name, object)),
            Object::ReferenceGrant(object) => drop(self.reference_grants.insert(name, object)),
            Object::RoutePolicy(object) => {
                drop(self.route_policies.insert(name, PolicyObject::Readable(object)))
            }
            Object::Secret(object) => drop(self.secrets.insert(name, object)),
            Object::Service(object) => drop(self.services.insert(name, object)),
        }
    }

    /// Notes a policy that never could be read, and the Ingresses that it names.
    pub fn put_unreadable(&mut self, policy: &ObjectRef, targets: Vec<String>) {
        let name = policy.name.clone();
        if policy.kind == ObjectKind::RoutePolicy {
            drop(self.route_policies.insert(name, PolicyObject::Unreadable { targets }));
        } else if policy.kind == ObjectKind::CertMappingPolicy {
            drop(self.policies.insert(name, PolicyObject::Unreadable { targets }));
        }
    }
}

impl World {
    /// An object, where it is there and can be read.
    #[must_use]
    pub fn get(&self, reference: &ObjectRef) -> Option<Object> {
        let name = &reference.name;
        match reference.kind {
            ObjectKind::CertMappingPolicy => match self.policies.get(name)? {
                PolicyObject::Readable(policy) => Some(Object::Policy(policy.clone())),
                PolicyObject::Unreadable { .. } => None,
            },
            ObjectKind::ConfigMap => self.config_maps.get(name).cloned().map(Object::ConfigMap),
            ObjectKind::EndpointSlice => {
                self.endpoint_slices.get(name).cloned().map(Object::EndpointSlice)
            }
            ObjectKind::Ingress => self.ingresses.get(name).cloned().map(Object::Ingress),
            ObjectKind::IngressClass => {
                self.ingress_classes.get(name).cloned().map(Object::IngressClass)
            }
            ObjectKind::ReferenceGrant => {
                self.reference_grants.get(name).cloned().map(Object::ReferenceGrant)
            }
            ObjectKind::RoutePolicy => match self.route_policies.get(name)? {
                PolicyObject::Readable(policy) => Some(Object::RoutePolicy(policy.clone())),
                PolicyObject::Unreadable { .. } => None,
            },
            ObjectKind::Secret => self.secrets.get(name).cloned().map(Object::Secret),
            ObjectKind::Service => self.services.get(name).cloned().map(Object::Service),
        }
    }

    /// Removes an object; says whether it was there.
    pub fn remove(&mut self, reference: &ObjectRef) -> bool {
        let name = &reference.name;
        match reference.kind {
            ObjectKind::CertMappingPolicy => {
                self.statuses.policies.remove(name);
                self.statuses.versions.remove(reference);
                self.policies.remove(name).is_some()
            }
            ObjectKind::ConfigMap => self.config_maps.remove(name).is_some(),
            ObjectKind::EndpointSlice => self.endpoint_slices.remove(name).is_some(),
            ObjectKind::Ingress => {
                self.statuses.ingresses.remove(name);
                self.ingresses.remove(name).is_some()
            }
            ObjectKind::IngressClass => self.ingress_classes.remove(name).is_some(),
            ObjectKind::ReferenceGrant => self.reference_grants.remove(name).is_some(),
            ObjectKind::RoutePolicy => {
                self.statuses.route_policies.remove(name);
                self.statuses.versions.remove(reference);
                self.route_policies.remove(name).is_some()
            }
            ObjectKind::Secret => self.secrets.remove(name).is_some(),
            ObjectKind::Service => self.services.remove(name).is_some(),
        }
    }

    /// Adds everything of another world; what is here already stays.
    pub fn merge(&mut self, other: Self) {
        fn add<T>(here: &mut BTreeMap<ObjectName, T>, there: BTreeMap<ObjectName, T>) {
            for (name, object) in there {
                here.entry(name).or_insert(object);
            }
        }
        add(&mut self.policies, other.policies);
        add(&mut self.config_maps, other.config_maps);
        add(&mut self.endpoint_slices, other.endpoint_slices);
        add(&mut self.ingresses, other.ingresses);
        add(&mut self.ingress_classes, other.ingress_classes);
        add(&mut self.reference_grants, other.reference_grants);
        add(&mut self.route_policies, other.route_policies);
        add(&mut self.secrets, other.secrets);
        add(&mut self.services, other.services);
        self.incomplete |= other.incomplete;
        self.unread_manifest |= other.unread_manifest;
    }
}
