//! The World as the watches make it: last good states, and nothing that nobody refers to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use kube::core::DynamicObject;

use super::read::{self, Read, Status};
use crate::compile::{
    Finding, Object, ObjectKind, ObjectName, ObjectRef, Severity, World, references,
};

/// What an event came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    Nothing,
    /// A status alone.
    Status,
    /// Something that is compiled.
    World,
}

/// An object that is asked for by name, and which time this is: an earlier answer may come later.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) reference: ObjectRef,
    ticket: u64,
}

/// Keeps the World.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    world: World,
    unreadable: BTreeMap<ObjectRef, Finding>,
    /// Policies of which it is not known whom they were to protect.
    suspects: HashSet<ObjectName>,
    /// What each object refers to.
    refers: HashMap<ObjectRef, Vec<ObjectRef>>,
    /// By how many objects each is referred to.
    wanted: HashMap<ObjectRef, usize>,
    /// Referred to since the last look, and not held.
    newly_wanted: HashSet<ObjectRef>,
    /// Asked for by name, by ticket; and no watch has spoken of them since.
    asked: HashMap<ObjectRef, u64>,
    /// The last one that was given out.
    ticket: u64,
}

impl Keeper {
    pub(super) fn new(secrets: Vec<ObjectName>) -> Self {
        let mut keeper = Self::default();
        for name in secrets {
            keeper.want(&ObjectRef { kind: ObjectKind::Secret, name });
        }
        keeper
    }

    /// Notes whether IngressClasses can be read.
    pub(super) fn classes_unknown(&mut self, unknown: bool) {
        self.world.classes_unknown = unknown;
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn into_parts(self) -> (World, BTreeMap<ObjectRef, Finding>) {
        (self.world, self.unreadable)
    }

    pub(super) fn unreadable(&self) -> Vec<Finding> {
        self.unreadable.values().cloned().collect()
    }

    /// Objects that are to be fetched, each once. Those of a kind that is still being listed may yet come with the list.
    pub(super) fn newly_wanted(&mut self, is_listed: impl Fn(ObjectKind) -> bool) -> Vec<Asked> {
        let wanted = self.newly_wanted.extract_if(|reference| is_listed(reference.kind));
        let wanted = wanted.map(|reference| {
            self.ticket += 1;
            self.asked.insert(reference.clone(), self.ticket);
            Asked { reference, ticket: self.ticket }
        });
        wanted.collect()
    }

    /// Whether an answer is still of use.
    pub(super) fn is_asked(&self, asked: &Asked) -> bool {
        self.asked.get(&asked.reference) == Some(&asked.ticket)
    }

    /// A watch says that an object came or changed.
    pub(super) fn apply(&mut self, kind: ObjectKind, object: DynamicObject) -> Change {
        if !self.asked.is_empty() {
            self.asked.remove(&ObjectRef { kind, name: read::name(&object) });
        }
        self.keep(kind, object)
    }

    fn keep(&mut self, kind: ObjectKind, object: DynamicObject) -> Change {
        if is_held_by_reference(kind)
            && !self.wanted.contains_key(&ObjectRef { kind, name: read::name(&object) })
        {
            return Change::Nothing;
        }
        let version = object.metadata.resource_version.clone();
        let Read { reference, object, status } = read::read(kind, object);
        if let (true, Some(version)) = (kind.is_policy(), version) {
            self.world.statuses.versions.insert(reference.clone(), version);
        }
        let status = self.put_status(&reference.name, status);
        self.newly_wanted.remove(&reference);
        let world = match object {
            Ok(object) => self.put(&reference, object),
            Err((field, message, targets)) => {
                if targets.partial && kind == ObjectKind::CertMappingPolicy {
                    self.suspects.insert(reference.name.clone());
                }
                self.put_unreadable(&reference, field, &message, targets.refused(kind))
            }
        };
        self.world.incomplete = !self.suspects.is_empty();
        match (world, status) {
            (true, _) => Change::World,
            (false, true) => Change::Status,
            (false, false) => Change::Nothing,
        }
    }

    /// An object that was asked for by name: it, or that it is not there. Where a watch has spoken of it meanwhile, or it
    /// was asked for once more, this may be from before, and nothing would ever correct it.
    pub(super) fn fetched(&mut self, asked: &Asked, object: Option<DynamicObject>) -> Change {
        if !self.is_asked(asked) {
            return Change::Nothing;
        }
        self.asked.remove(&asked.reference);
        match object {
            Some(object) => self.keep(asked.reference.kind, object),
            None => self.forget(&asked.reference),
        }
    }

    /// A watch says that an object is gone.
    pub(super) fn delete(&mut self, reference: &ObjectRef) -> Change {
        self.asked.remove(reference);
        self.forget(reference)
    }

    fn forget(&mut self, reference: &ObjectRef) -> Change {
        let matters = self.matters(reference);
        for other in self.refers.remove(reference).unwrap_or_default() {
            self.unwant(&other);
        }
        let was_unreadable = self.unreadable.remove(reference).is_some();
        if reference.kind == ObjectKind::CertMappingPolicy {
            self.suspects.remove(&reference.name);
            self.world.incomplete = !self.suspects.is_empty();
        }
        let was_there = self.world.remove(reference);
        if (was_there || was_unreadable) && matters { Change::World } else { Change::Nothing }
    }

    /// After a list: whatever was not in it is gone. An empty namespace stands for all.
    pub(super) fn keep_only(
        &mut self,
        kind: ObjectKind,
        namespace: &str,
        names: &HashSet<ObjectName>,
    ) -> Change {
        let is_gone = |name: &ObjectName| {
            (namespace.is_empty() || name.namespace == namespace) && !names.contains(name)
        };
        // An answer that is on its way may be from before the list.
        self.asked.retain(|asked, _| asked.kind != kind || !is_gone(&asked.name));
        let unreadable = self.unreadable.keys().filter(|it| it.kind == kind).map(|it| &it.name);
        let known = self.names(kind).chain(unreadable);
        let gone: BTreeSet<ObjectName> = known.filter(|name| is_gone(name)).cloned().collect();
        for name in gone {
            self.delete(&ObjectRef { kind, name });
        }
        // Even an empty list is news: before it, nothing was known.
        Change::World
    }

    fn names(&self, kind: ObjectKind) -> Box<dyn Iterator<Item = &ObjectName> + '_> {
        let world = &self.world;
        match kind {
            ObjectKind::CertMappingPolicy => Box::new(world.policies.keys()),
            ObjectKind::ConfigMap => Box::new(world.config_maps.keys()),
            ObjectKind::EndpointSlice => Box::new(world.endpoint_slices.keys()),
            ObjectKind::Ingress => Box::new(world.ingresses.keys()),
            ObjectKind::IngressClass => Box::new(world.ingress_classes.keys()),
            ObjectKind::ReferenceGrant => Box::new(world.reference_grants.keys()),
            ObjectKind::RoutePolicy => Box::new(world.route_policies.keys()),
            ObjectKind::Secret => Box::new(world.secrets.keys()),
            ObjectKind::Service => Box::new(world.services.keys()),
        }
    }

    /// Whether the object is new or different, and anything depends on it.
    fn put(&mut self, reference: &ObjectRef, object: Object) -> bool {
        let was_unreadable = self.unreadable.remove(reference).is_some();
        if reference.kind == ObjectKind::CertMappingPolicy {
            self.suspects.remove(&reference.name);
        }
        if self.world.get(reference).is_some_and(|known| known == object) {
            return was_unreadable;
        }
        let then = self.refers.remove(reference).unwrap_or_default();
        let now = references(&object);
        now.iter().for_each(|other| self.want(other));
        then.iter().for_each(|other| self.unwant(other));
        if !now.is_empty() {
            self.refers.insert(reference.clone(), now);
        }
        // A slice may move from one Service to another: both matter.
        let mattered = self.matters(reference);
        self.world.apply(object);
        mattered || self.matters(reference) || was_unreadable
    }

    /// What was read before stays in force; a policy that never could be read refuses.
    fn put_unreadable(
        &mut self,
        reference: &ObjectRef,
        field: String,
        message: &str,
        targets: Vec<String>,
    ) -> bool {
        let is_policy = reference.kind.is_policy();
        let has_good = self.world.get(reference).is_some();
        if is_policy && !has_good {
            self.world.put_unreadable(reference, targets);
        } else if reference.kind == ObjectKind::CertMappingPolicy {
            self.suspects.remove(&reference.name);
        }
        let consequence = match (has_good, is_policy) {
            (true, _) => "what was read before stays in force",
            (false, true) => "its targets are refused until it can be read",
            (false, false) => "it counts as missing",
        };
        let finding = Finding {
            severity: Severity::Error,
            object: reference.clone(),
            target: None,
            field,
            reason: "Unreadable",
            message: format!("{message}; {consequence}"),
        };
        self.unreadable.insert(reference.clone(), finding.clone()) != Some(finding)
    }

    fn put_status(&mut self, name: &ObjectName, status: Option<Status>) -> bool {
        let statuses = &mut self.world.statuses;
        match status {
            Some(Status::Policy(status)) => {
                statuses.policies.get(name) != Some(&status) && {
                    statuses.policies.insert(name.clone(), status);
                    true
                }
            }
            Some(Status::RoutePolicy(status)) => {
                statuses.route_policies.get(name) != Some(&status) && {
                    statuses.route_policies.insert(name.clone(), status);
                    true
                }
            }
            Some(Status::Ingress(status)) => {
                statuses.ingresses.get(name) != Some(&status) && {
                    statuses.ingresses.insert(name.clone(), status);
                    true
                }
            }
            None => false,
        }
    }

    /// Whether anything that is compiled could depend on the object.
    fn matters(&self, reference: &ObjectRef) -> bool {
        match reference.kind {
            ObjectKind::Service => self.wanted.contains_key(reference),
            ObjectKind::EndpointSlice => {
                let slice = self.world.endpoint_slices.get(&reference.name);
                let labels = slice.and_then(|slice| slice.metadata.labels.as_ref());
                let service = labels.and_then(|labels| labels.get("kubernetes.io/service-name"));
                service.is_some_and(|service| {
                    let name = ObjectName::new(&reference.name.namespace, service);
                    self.wanted.contains_key(&ObjectRef { kind: ObjectKind::Service, name })
                })
            }
            _ => true,
        }
    }

    fn want(&mut self, reference: &ObjectRef) {
        let count = self.wanted.entry(reference.clone()).or_default();
        *count += 1;
        if *count == 1 && is_held_by_reference(reference.kind) {
            self.newly_wanted.insert(reference.clone());
        }
    }

    fn unwant(&mut self, reference: &ObjectRef) {
        let Some(count) = self.wanted.get_mut(reference) else { return };
        *count -= 1;
        if *count == 0 {
            self.wanted.remove(reference);
            if is_held_by_reference(reference.kind) {
                self.newly_wanted.remove(reference);
                self.asked.remove(reference);
                self.unreadable.remove(reference);
                self.world.remove(reference);
            }
        }
    }
}

fn is_held_by_reference(kind: ObjectKind) -> bool {
    matches!(kind, ObjectKind::ConfigMap | ObjectKind::Secret)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::compile::PolicyObject;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    fn secret(name: &str, value: &str) -> DynamicObject {
        object(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "web"}, "data": {"k": value},
        }))
    }

    fn ingress(secret: &str) -> DynamicObject {
        object(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i", "namespace": "web"},
            "spec": {"tls": [{"secretName": secret}], "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}},
        }))
    }

    fn policy(spec: &Value) -> DynamicObject {
        object(json!({
            "apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy", "metadata": {"name": "p", "namespace": "web"}, "spec": spec,
        }))
    }

    fn names(wanted: &[Asked]) -> Vec<String> {
        wanted.iter().map(|asked| asked.reference.to_string()).collect()
    }

    fn slice(service: &str) -> DynamicObject {
        object(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [],
            "metadata": {"name": "e", "namespace": "web", "labels": {"kubernetes.io/service-name": service}},
        }))
    }

    #[test]
    fn secrets_are_held_while_something_names_them() {
        let mut keeper = Keeper::new(Vec::new());
        assert_eq!(keeper.apply(ObjectKind::Secret, secret("a", "eA==")), Change::Nothing);
        assert!(keeper.world.secrets.is_empty());
        keeper.apply(ObjectKind::Ingress, ingress("a"));
        let wanted = keeper.newly_wanted(|_| true);
        assert_eq!(names(&wanted), ["Secret web/a"]);
        assert_eq!(keeper.fetched(&wanted[0], Some(secret("a", "eA=="))), Change::World);
        assert_eq!(keeper.apply(ObjectKind::Secret, secret("a", "eA==")), Change::Nothing);
        assert_eq!(keeper.apply(ObjectKind::Secret, secret("a", "eQ==")), Change::World);
        keeper.apply(ObjectKind::Ingress, ingress("b"));
        assert!(keeper.world.secrets.is_empty(), "nobody names it any more");
    }

    #[test]
    fn an_answer_from_before_does_not_undo_what_a_watch_said() {
        let mut keeper = Keeper::new(Vec::new());
        keeper.apply(ObjectKind::Ingress, ingress("a"));
        let wanted = keeper.newly_wanted(|_| true);
        assert_eq!(keeper.apply(ObjectKind::Secret, secret("a", "eA==")), Change::World);
        assert_eq!(keeper.fetched(&wanted[0], None), Change::Nothing);
        assert_eq!(keeper.world.secrets.len(), 1);
        keeper.delete(&wanted[0].reference);
        assert_eq!(keeper.fetched(&wanted[0], Some(secret("a", "eA=="))), Change::Nothing);
        assert!(keeper.world.secrets.is_empty());
    }

    #[test]
    fn an_answer_from_before_a_new_list_does_not_bring_back_what_is_gone() {
        let mut keeper = Keeper::new(Vec::new());
        keeper.apply(ObjectKind::Ingress, ingress("a"));
        let wanted = keeper.newly_wanted(|_| true);
        let there = [ObjectName::new("web", "a")].into();
        for (kind, namespace, names) in [
            (ObjectKind::ConfigMap, "", &HashSet::new()),
            (ObjectKind::Secret, "other", &HashSet::new()),
            (ObjectKind::Secret, "", &there),
        ] {
            keeper.keep_only(kind, namespace, names);
            assert!(keeper.is_asked(&wanted[0]), "{kind} {namespace}");
        }
        keeper.keep_only(ObjectKind::Secret, "web", &HashSet::new());
        assert_eq!(keeper.fetched(&wanted[0], Some(secret("a", "eA=="))), Change::Nothing);
        assert!(keeper.world.secrets.is_empty());
    }

    #[test]
    fn of_two_answers_the_one_that_was_asked_for_last_counts() {
        let mut keeper = Keeper::new(Vec::new());
        keeper.apply(ObjectKind::Ingress, ingress("a"));
        let first = keeper.newly_wanted(|_| true);
        keeper.apply(ObjectKind::Ingress, ingress("b"));
        assert!(!keeper.is_asked(&first[0]), "nobody names it any more");
        keeper.apply(ObjectKind::Ingress, ingress("a"));
        let second = keeper.newly_wanted(|_| true);
        assert_eq!(names(&first), names(&second));
        assert_eq!(keeper.fetched(&first[0], Some(secret("a", "eA=="))), Change::Nothing);
        assert_eq!(keeper.fetched(&second[0], Some(secret("a", "eQ=="))), Change::World);
        assert_eq!(keeper.fetched(&second[0], None), Change::Nothing, "it was answered");
        assert_eq!(keeper.world.secrets.len(), 1);
    }

    #[test]
    fn a_policy_that_becomes_unreadable_stays_what_it_was() {
        let mut keeper = Keeper::new(Vec::new());
        let (kind, good) = (ObjectKind::CertMappingPolicy, json!({"targetRefs": []}));
        keeper.apply(kind, policy(&good));
        assert_eq!(keeper.apply(kind, policy(&json!({"nonsense": 1}))), Change::World);
        assert!(matches!(keeper.world.policies.values().next(), Some(PolicyObject::Readable(_))));
        assert_eq!(keeper.unreadable()[0].reason, "Unreadable");
        assert_eq!(keeper.apply(kind, policy(&good)), Change::World);
        assert!(keeper.unreadable().is_empty() && !keeper.world.incomplete);
    }

    #[test]
    fn a_policy_that_never_could_be_read_refuses() {
        let mut keeper = Keeper::new(Vec::new());
        let kind = ObjectKind::CertMappingPolicy;
        keeper.apply(kind, policy(&json!({"targetRefs": [{"name": "i"}], "nonsense": 1})));
        let unreadable = keeper.world.policies.values().next();
        assert!(
            matches!(unreadable, Some(PolicyObject::Unreadable { targets }) if targets == &["i"])
        );
        assert!(!keeper.world.incomplete);
        keeper.apply(kind, policy(&json!("not even an object")));
        assert!(keeper.world.incomplete, "whom it was to protect is not known");
    }

    #[test]
    fn a_route_policy_is_kept_as_long_as_it_was_readable_and_holds_what_it_refers_to() {
        let mut keeper = Keeper::new(Vec::new());
        let kind = ObjectKind::RoutePolicy;
        let route_policy = |spec: &Value| {
            object(json!({
                "apiVersion": "certmap.dev/v1alpha1", "kind": "RoutePolicy", "spec": spec,
                "metadata": {"name": "r", "namespace": "web", "resourceVersion": "7"},
            }))
        };
        let page = json!({"codes": ["404"], "configMapRef": {"name": "pages", "key": "a"}});
        keeper.apply(kind, route_policy(&json!({"targetRefs": [{"name": "i"}], "nonsense": 1})));
        let reference = ObjectRef { kind, name: ObjectName::new("web", "r") };
        let unreadable = &keeper.world.route_policies[&reference.name];
        assert!(matches!(unreadable, PolicyObject::Unreadable { targets } if targets == &["i"]));
        assert!(!keeper.world.incomplete, "it protects nobody");
        assert_eq!(keeper.world.statuses.versions[&reference], "7");
        keeper.apply(kind, route_policy(&json!({"errorPages": [page]})));
        let wanted = keeper.newly_wanted(|_| true);
        assert_eq!(names(&wanted), ["ConfigMap web/pages"]);
        keeper.apply(kind, route_policy(&json!({"nonsense": 1})));
        assert!(matches!(keeper.world.route_policies[&reference.name], PolicyObject::Readable(_)));
        assert_eq!(keeper.unreadable()[0].reason, "Unreadable");
        assert_eq!(keeper.delete(&reference), Change::World);
        assert!(keeper.world.route_policies.is_empty() && keeper.wanted.is_empty());
    }

    #[test]
    fn a_route_policy_of_whose_targets_some_cannot_be_made_out_names_nobody() {
        let mut keeper = Keeper::new(Vec::new());
        let spec = json!({"targetRefs": [{"name": "a"}, {"nme": "b"}]});
        let metadata = json!({"name": "r", "namespace": "web"});
        let policy = json!({"metadata": metadata, "spec": spec});
        keeper.apply(ObjectKind::RoutePolicy, object(policy));
        let unreadable = keeper.world.route_policies.values().next();
        assert!(
            matches!(unreadable, Some(PolicyObject::Unreadable { targets }) if targets.is_empty())
        );
    }

    #[test]
    fn endpoints_matter_where_an_ingress_names_their_service() {
        let mut keeper = Keeper::new(Vec::new());
        let kind = ObjectKind::EndpointSlice;
        assert_eq!(keeper.apply(kind, slice("s")), Change::Nothing);
        keeper.apply(ObjectKind::Ingress, ingress("a"));
        assert_eq!(keeper.apply(kind, slice("s")), Change::Nothing, "the same");
        assert_eq!(keeper.apply(kind, slice("t")), Change::World, "it left");
        assert_eq!(keeper.apply(kind, slice("u")), Change::Nothing);
    }

    #[test]
    fn what_a_new_list_leaves_out_is_gone() {
        let mut keeper = Keeper::new(Vec::new());
        keeper.apply(ObjectKind::Ingress, ingress("a"));
        keeper.keep_only(ObjectKind::Ingress, "other", &HashSet::new());
        assert_eq!(keeper.world.ingresses.len(), 1);
        keeper.keep_only(ObjectKind::Ingress, "", &HashSet::new());
        assert!(keeper.world.ingresses.is_empty() && keeper.wanted.is_empty());
        let service = json!({"metadata": {"name": "s", "namespace": "web"}, "spec": 7});
        keeper.apply(ObjectKind::Service, object(service));
        assert_eq!(keeper.unreadable().len(), 1);
        keeper.keep_only(ObjectKind::Service, "web", &HashSet::new());
        assert!(keeper.unreadable().is_empty(), "nor is anything said of it");
    }
}
