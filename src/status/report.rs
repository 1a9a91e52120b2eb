//! Findings → the status of each policy at each of its targets, and what of it differs from what stands there. Pure.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{
    IngressClass, IngressLoadBalancerIngress, IngressLoadBalancerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::conditions::{conditions, in_figures};
use crate::api::{
    AncestorRef, CertMappingPolicyStatus, GROUP, PolicyAncestorStatus, RoutePolicyStatus,
};
use crate::compile::{
    Finding, ObjectKind, ObjectName, ObjectRef, PolicyObject, PolicySummary, Targeting, World,
};

const NETWORKING: &str = "networking.k8s.io";

/// In whose name, and when.
#[derive(Clone, Debug)]
pub struct Author<'a> {
    /// `controllerName` of the entries that are ours.
    pub controller_name: &'a str,
    /// Now.
    pub now: Timestamp,
    /// The route policy that is the default of every class of ours.
    pub default_route_policy: Option<&'a ObjectName>,
}

/// A status that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// Of a policy: everybody's entries, ours made new, onto this version of the object.
    Policy {
        /// Which.
        name: ObjectName,
        /// What is to stand there.
        status: CertMappingPolicyStatus,
        /// The `resourceVersion` that the other entries were read from.
        version: Option<String>,
    },
    /// Of a route policy, likewise.
    RoutePolicy {
        /// Which.
        name: ObjectName,
        /// What is to stand there.
        status: RoutePolicyStatus,
        /// The `resourceVersion` that the other entries were read from.
        version: Option<String>,
    },
    /// Of an Ingress.
    Ingress {
        /// Which.
        name: ObjectName,
        /// Where it can be reached.
        status: IngressLoadBalancerStatus,
    },
}

/// What is to be written: nothing that stands there already.
#[must_use]
pub fn patches(
    world: &World,
    findings: &[Finding],
    summaries: &HashMap<ObjectName, PolicySummary>,
    ours: &HashSet<ObjectName>,
    addresses: Option<&[IngressLoadBalancerIngress]>,
    author: &Author<'_>,
) -> Vec<Patch> {
    let mut by_policy: HashMap<&ObjectRef, Vec<&Finding>> = HashMap::new();
    for finding in findings.iter().filter(|it| it.object.kind.is_policy()) {
        by_policy.entry(&finding.object).or_default().push(finding);
    }
    let of = |kind, name: &ObjectName| ObjectRef { kind, name: name.clone() };
    let found = |object: &ObjectRef| by_policy.get(object).map(Vec::as_slice).unwrap_or_default();
    let policies = world.policies.iter().filter_map(|(name, object)| {
        let reference = of(ObjectKind::CertMappingPolicy, name);
        let there = world.statuses.policies.get(name).cloned().unwrap_or_default();
        let (summary, found) = (summaries.get(name), found(&reference));
        let policy = Policy::of(reference.kind, (name, object), found, ours, in_figures(summary));
        let status = policy.mapping_status(world, &there, summary, author);
        let version = world.statuses.versions.get(&reference).cloned();
        (status != there).then(|| Patch::Policy { name: name.clone(), status, version })
    });
    let route_policies = world.route_policies.iter().filter_map(|(name, object)| {
        let reference = of(ObjectKind::RoutePolicy, name);
        let there = world.statuses.route_policies.get(name).cloned().unwrap_or_default();
        let (figures, found) = ("routes are carried by it".to_owned(), found(&reference));
        let policy = Policy::of(reference.kind, (name, object), found, ours, figures);
        let status =
            RoutePolicyStatus { ancestors: policy.entries(world, &there.ancestors, author) };
        let version = world.statuses.versions.get(&reference).cloned();
        (status != there).then(|| Patch::RoutePolicy { name: name.clone(), status, version })
    });
    let ingresses = addresses.into_iter().flat_map(|addresses| {
        let wanted = IngressLoadBalancerStatus {
            ingress: Some(addresses.to_vec()).filter(|addresses| !addresses.is_empty()),
        };
        let differs = {
            let wanted = wanted.clone();
            move |name: &&ObjectName| {
                let there = world.statuses.ingresses.get(*name).cloned().unwrap_or_default();
                there != wanted
                    && (there.ingress.is_some_and(|it| !it.is_empty()) || wanted.ingress.is_some())
            }
        };
        let mut names: Vec<&ObjectName> = ours.iter().filter(differs).collect();
        names.sort_unstable();
        names
            .into_iter()
            .map(move |name| Patch::Ingress { name: name.clone(), status: wanted.clone() })
    });
    policies.chain(route_policies).chain(ingresses).collect()
}

/// A policy of either kind and what there is to say about it.
struct Policy<'a> {
    kind: ObjectKind,
    name: &'a ObjectName,
    targets: Vec<&'a str>,
    generation: Option<i64>,
    findings: &'a [&'a Finding],
    ours: &'a HashSet<ObjectName>,
    /// What is said of it where there is nothing to say.
    figures: String,
}

impl<'a> Policy<'a> {
    fn of<P: Targeting>(
        kind: ObjectKind,
        (name, object): (&'a ObjectName, &'a PolicyObject<P>),
        findings: &'a [&'a Finding],
        ours: &'a HashSet<ObjectName>,
        figures: String,
    ) -> Self {
        let (targets, generation) = (object.targets(), object.generation());
        Self { kind, name, targets, generation, findings, ours, figures }
    }

    fn mapping_status(
        &self,
        world: &World,
        there: &CertMappingPolicyStatus,
        summary: Option<&PolicySummary>,
        author: &Author<'_>,
    ) -> CertMappingPolicyStatus {
        let days = |expiry: i64| (expiry - author.now.as_second()).div_euclid(86_400);
        CertMappingPolicyStatus {
            ancestors: self.entries(world, &there.ancestors, author),
            mappings: summary.map(|summary| i64::try_from(summary.mappings).unwrap_or(i64::MAX)),
            days_to_earliest_expiry: summary.and_then(|summary| summary.earliest_expiry).map(days),
        }
    }

    /// Everybody's entries, ours made new.
    fn entries(
        &self,
        world: &World,
        there: &[PolicyAncestorStatus],
        author: &Author<'_>,
    ) -> Vec<PolicyAncestorStatus> {
        let is_ours =
            |entry: &&PolicyAncestorStatus| entry.controller_name == author.controller_name;
        let foreign = there.iter().filter(|entry| !is_ours(entry)).cloned();
        let mut entries: Vec<PolicyAncestorStatus> = foreign.collect();
        for ancestor_ref in self.ancestors(world, &entries, author) {
            let earlier = there
                .iter()
                .find(|entry| is_ours(entry) && entry.ancestor_ref == ancestor_ref)
                .map(|entry| entry.conditions.as_slice())
                .unwrap_or_default();
            let conditions = self.conditions(&ancestor_ref, earlier, author.now);
            let controller_name = author.controller_name.to_owned();
            entries.push(PolicyAncestorStatus { ancestor_ref, controller_name, conditions });
        }
        // GEP-713 has no more room than that.
        entries.truncate(16);
        entries
    }

    /// The Ingresses that it targets and the classes whose default it is. A target of another controller is its to speak of.
    fn ancestors(
        &self,
        world: &World,
        foreign: &[PolicyAncestorStatus],
        author: &Author<'_>,
    ) -> Vec<AncestorRef> {
        let ingress = |name: &&str| AncestorRef {
            group: NETWORKING.to_owned(),
            kind: "Ingress".to_owned(),
            namespace: Some(self.name.namespace.clone()),
            name: (*name).to_owned(),
        };
        let classes = world.ingress_classes.iter().filter(|(_, class)| {
            let of = class.spec.as_ref().and_then(|spec| spec.controller.as_deref());
            of == Some(author.controller_name) && self.is_default_of(class, author)
        });
        let classes = classes.map(|(name, _)| AncestorRef {
            group: NETWORKING.to_owned(),
            kind: "IngressClass".to_owned(),
            namespace: None,
            name: name.name.clone(),
        });
        let mut all: Vec<AncestorRef> = self.targets.iter().map(ingress).chain(classes).collect();
        let mut seen = HashSet::new();
        all.retain(|it| seen.insert((it.kind.clone(), it.name.clone())));
        all.retain(|it| {
            let is_met = self.ours.contains(&ObjectName::new(&self.name.namespace, &it.name));
            is_met || it.kind != "Ingress" || !foreign.iter().any(|other| other.ancestor_ref == *it)
        });
        all
    }

    fn is_default_of(&self, class: &IngressClass, author: &Author<'_>) -> bool {
        if self.kind == ObjectKind::RoutePolicy {
            return author.default_route_policy == Some(self.name);
        }
        let parameters = class.spec.as_ref().and_then(|spec| spec.parameters.as_ref());
        parameters.is_some_and(|it| {
            it.api_group.as_deref() == Some(GROUP)
                && it.kind == "CertMappingPolicy"
                && it.name == self.name.name
                && it.namespace.as_deref() == Some(&self.name.namespace)
        })
    }

    fn conditions(
        &self,
        ancestor: &AncestorRef,
        earlier: &[Condition],
        now: Timestamp,
    ) -> Vec<Condition> {
        let here = |finding: &&&Finding| {
            let target = finding.target.as_ref();
            target.is_none_or(|target| ancestor.kind == "Ingress" && target.name == ancestor.name)
        };
        let findings: Vec<&Finding> = self.findings.iter().filter(here).copied().collect();
        conditions(&findings, &self.figures, self.generation, (earlier, now))
    }
}

impl Patch {
    /// What it is written onto.
    #[must_use]
    pub fn target(&self) -> (ObjectKind, &ObjectName) {
        match self {
            Self::Policy { name, .. } => (ObjectKind::CertMappingPolicy, name),
            Self::RoutePolicy { name, .. } => (ObjectKind::RoutePolicy, name),
            Self::Ingress { name, .. } => (ObjectKind::Ingress, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::compile::{Object, Severity};

    const CONTROLLER: &str = "certmap.dev/ingress-controller";

    fn world() -> World {
        let policy = json!({
            "apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy",
            "metadata": {"name": "p", "namespace": "web", "generation": 4},
            "spec": {"targetRefs": [{"group": NETWORKING, "kind": "Ingress", "name": "a"}, {"group": NETWORKING, "kind": "Ingress", "name": "b"}]},
        });
        let mut world = World::default();
        world.apply(Object::Policy(Arc::new(serde_json::from_value(policy).unwrap())));
        world
    }

    fn finding(reason: &'static str, field: &str, target: Option<&str>) -> Finding {
        Finding {
            severity: Severity::Error,
            object: ObjectRef {
                kind: ObjectKind::CertMappingPolicy,
                name: ObjectName::new("web", "p"),
            },
            target: target.map(|name| ObjectName::new("web", name)),
            field: field.to_owned(),
            reason,
            message: format!("{reason} it is"),
        }
    }

    fn status(world: &World, findings: &[Finding], second: i64) -> Option<CertMappingPolicyStatus> {
        let summaries = [(
            ObjectName::new("web", "p"),
            PolicySummary { mappings: 2, earliest_expiry: Some(86_400 * 10) },
        )]
        .into();
        let ours = ["a", "b"].map(|name| ObjectName::new("web", name)).into();
        let author = Author {
            controller_name: CONTROLLER,
            now: Timestamp::from_second(second).unwrap(),
            default_route_policy: None,
        };
        let mut patches = patches(world, findings, &summaries, &ours, None, &author);
        patches.pop().map(|patch| match patch {
            Patch::Policy { status, .. } => status,
            Patch::RoutePolicy { .. } => panic!("there are none"),
            Patch::Ingress { .. } => panic!("no addresses are known"),
        })
    }

    fn words(status: &CertMappingPolicyStatus, ancestor: usize) -> Vec<String> {
        let conditions = status.ancestors[ancestor].conditions.iter();
        conditions.map(|it| format!("{} {} {}", it.type_, it.status, it.reason)).collect()
    }

    #[test]
    fn a_policy_without_findings_is_in_force_at_every_target() {
        let status = status(&world(), &[], 0).unwrap();
        assert_eq!((status.mappings, status.days_to_earliest_expiry), (Some(2), Some(10)));
        assert_eq!(status.ancestors.len(), 2);
        assert_eq!(
            words(&status, 0),
            [
                "Accepted True Accepted",
                "ResolvedRefs True ResolvedRefs",
                "Programmed True Programmed"
            ]
        );
        assert_eq!(status.ancestors[1].conditions[2].message, "2 mappings are in force");
        assert_eq!(status.ancestors[0].conditions[0].observed_generation, Some(4));
    }

    #[test]
    fn what_is_wrong_at_one_target_is_said_there_alone() {
        let status =
            status(&world(), &[finding("TargetNotFound", "spec.targetRefs[1]", Some("b"))], 0)
                .unwrap();
        assert_eq!(words(&status, 0)[0], "Accepted True Accepted");
        assert_eq!(
            words(&status, 1),
            [
                "Accepted False TargetNotFound",
                "ResolvedRefs True ResolvedRefs",
                "Programmed False TargetNotFound"
            ]
        );
    }

    #[test]
    fn a_reference_that_does_not_resolve_leaves_the_rest_in_force() {
        let field = "spec.oneToOne.mappings[0].account";
        let status = status(&world(), &[finding("AccountUnusable", field, None)], 0).unwrap();
        assert_eq!(
            words(&status, 0),
            [
                "Accepted True Accepted",
                "ResolvedRefs False AccountUnusable",
                "Programmed True PartiallyProgrammed"
            ]
        );
        assert_eq!(
            status.ancestors[0].conditions[1].message,
            format!("{field}: AccountUnusable it is")
        );
    }

    #[test]
    fn a_policy_that_trusts_nobody_is_accepted_and_not_programmed() {
        let findings =
            [finding("NoTrust", "spec.trust", None), finding("CABundleUnresolved", "x", None)];
        assert_eq!(
            words(&status(&world(), &findings, 0).unwrap(), 0),
            ["Accepted True Accepted", "ResolvedRefs False NoTrust", "Programmed False NoTrust"]
        );
    }

    #[test]
    fn a_door_that_stands_open_is_told_of_a_policy_that_is_in_force() {
        let mut door = finding("AnonymousFallback", "spec.authentication", None);
        door.severity = Severity::Warning;
        let status = status(&world(), &[door], 1).unwrap();
        let programmed = &status.ancestors[0].conditions[2];
        assert_eq!((&*programmed.reason, &*programmed.status), ("Programmed", "True"));
        let door = " in force; spec.authentication: ";
        assert!(programmed.message.contains(door), "{}", programmed.message);
    }

    #[test]
    fn what_stands_there_is_not_written_again_and_foreign_entries_stay() {
        let mut world = world();
        let name = ObjectName::new("web", "p");
        let foreign = PolicyAncestorStatus {
            ancestor_ref: AncestorRef {
                group: "x".to_owned(),
                kind: "y".to_owned(),
                namespace: None,
                name: "z".to_owned(),
            },
            controller_name: "example.org/other".to_owned(),
            conditions: Vec::new(),
        };
        let there =
            CertMappingPolicyStatus { ancestors: vec![foreign.clone()], ..Default::default() };
        world.statuses.policies.insert(name.clone(), there);
        let first = status(&world, &[], 100).unwrap();
        assert_eq!((first.ancestors.len(), &first.ancestors[0]), (3, &foreign));
        world.statuses.policies.insert(name, first);
        assert_eq!(status(&world, &[], 200), None, "nothing differs");
        let changed = status(&world, &[finding("NoTrust", "spec.trust", None)], 300).unwrap();
        let time = |status: &CertMappingPolicyStatus, index: usize| {
            status.ancestors[1].conditions[index].last_transition_time.0.as_second()
        };
        assert_eq!((time(&changed, 0), time(&changed, 1), time(&changed, 2)), (100, 300, 300));
    }

    #[test]
    fn a_route_policy_has_the_same_conditions_and_a_default_stands_at_the_classes() {
        let mut world = World::default();
        let name = ObjectName::new("web", "r");
        let policy = json!({
            "apiVersion": "certmap.dev/v1alpha1", "kind": "RoutePolicy", "metadata": {"name": "r", "namespace": "web", "generation": 2},
            "spec": {"targetRefs": [{"group": NETWORKING, "kind": "Ingress", "name": "a"}]},
        });
        world.apply(Object::RoutePolicy(Arc::new(serde_json::from_value(policy).unwrap())));
        let class = json!({"metadata": {"name": "certmap"}, "spec": {"controller": CONTROLLER}});
        world.apply(Object::IngressClass(Arc::new(serde_json::from_value(class).unwrap())));
        let ours = [ObjectName::new("web", "a")].into();
        let now = Timestamp::from_second(7).unwrap();
        let said = |findings: &[Finding], default_route_policy| {
            let author = Author { controller_name: CONTROLLER, now, default_route_policy };
            match patches(&world, findings, &HashMap::new(), &ours, None, &author).pop() {
                Some(Patch::RoutePolicy { status, .. }) => status.ancestors,
                other => panic!("{other:?}"),
            }
        };
        let words = |entry: &PolicyAncestorStatus| {
            let conditions = entry.conditions.iter();
            let words: Vec<String> =
                conditions.map(|it| format!("{} {}", it.status, it.reason)).collect();
            (entry.ancestor_ref.kind.clone(), words.join(", "))
        };
        let well = said(&[], None);
        assert_eq!(well.len(), 1);
        assert_eq!(words(&well[0]).1, "True Accepted, True ResolvedRefs, True Programmed");
        assert_eq!(well[0].conditions[0].observed_generation, Some(2));
        let mut unusable = finding("BackendTLSUnusable", "spec.backendTLS", None);
        let object = ObjectRef { kind: ObjectKind::RoutePolicy, name: name.clone() };
        unusable.object = object.clone();
        let closed = said(&[unusable], Some(&name));
        assert_eq!(closed.len(), 2);
        let expected = "True Accepted, False BackendTLSUnusable, False BackendTLSUnusable";
        assert_eq!(words(&closed[1]), ("IngressClass".to_owned(), expected.to_owned()));
        let mut shut = finding("DefaultUnusable", "", Some("a"));
        shut.object = object;
        let expected = "True Accepted, True ResolvedRefs, False DefaultUnusable";
        assert_eq!(words(&said(&[shut], None)[0]).1, expected);
    }
}
