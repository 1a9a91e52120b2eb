//! Which policies stand before an Ingress: a missing, unreadable or conflicting one never makes it laxer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::certificates::LastGood;
use super::dependency::{Dependency, Lookup, are_unchanged};
use super::finding::{Finding, Severity};
use super::mappings::{Mappings, compile_mappings};
use super::options::Options;
use super::policy::{acceptable, compile_policy};
use super::summary::PolicySummary;
use super::world::{ObjectName, PolicyObject, World};
use crate::api::{CertMappingPolicy, CertMappingPolicySpec, GROUP, POLICY_REQUIRED_ANNOTATION};
use crate::policy::{DenialCode, Guard, Policy};

/// Compiled policies by the objects that joined in them, for the next time.
pub(super) type KeptPolicies = HashMap<Vec<ObjectName>, Arc<KeptPolicy>>;

/// One compiled policy and what it was made from.
#[derive(Debug)]
pub(super) struct KeptPolicy {
    objects: Vec<Arc<CertMappingPolicy>>,
    mappings: Arc<Mappings>,
    /// What the mappings were made from.
    mapped_from: Arc<[Dependency]>,
    policy: Arc<Policy>,
    /// What the rest was made from.
    made_from: Vec<Dependency>,
    /// What there is to say of the rest.
    findings: Vec<Finding>,
}

impl KeptPolicy {
    /// Whether the mappings are what they would be now.
    fn maps_the_same(
        &self,
        joined: &[(ObjectName, Arc<CertMappingPolicy>)],
        world: &World,
    ) -> bool {
        let same = self.objects.iter().zip(joined).all(|(then, (_, now))| Arc::ptr_eq(then, now));
        same && self.objects.len() == joined.len() && are_unchanged(&self.mapped_from, world)
    }

    /// Every object that it was made from.
    pub(super) fn made_from(&self) -> impl Iterator<Item = &Dependency> {
        self.mapped_from.iter().chain(&self.made_from)
    }

    /// Each of its objects in figures.
    pub(super) fn summaries(&self) -> impl Iterator<Item = &(ObjectName, PolicySummary)> {
        self.mappings.summaries.iter()
    }
}

/// Attaches policies to Ingresses.
pub(super) struct Attachments<'a> {
    world: &'a World,
    options: &'a Options,
    by_target: HashMap<ObjectName, Vec<&'a ObjectName>>,
    /// Ingresses of ours.
    pub(super) met: HashSet<ObjectName>,
    earlier: &'a KeptPolicies,
    pub(super) kept: KeptPolicies,
    pub(super) last_good: LastGood,
    pub(super) findings: Vec<Finding>,
}

impl<'a> Attachments<'a> {
    pub(super) fn new(
        world: &'a World,
        options: &'a Options,
        earlier: &'a KeptPolicies,
        last_good: LastGood,
    ) -> Self {
        let mut by_target: HashMap<ObjectName, Vec<&ObjectName>> = HashMap::new();
        for (name, object) in &world.policies {
            for target in object.targets() {
                by_target.entry(ObjectName::new(&name.namespace, target)).or_default().push(name);
            }
        }
        let (kept, findings, met) = (KeptPolicies::new(), Vec::new(), HashSet::new());
        Self { met, world, options, by_target, earlier, kept, last_good, findings }
    }

    /// What stands before an Ingress.
    pub(super) fn guard(
        &mut self,
        name: &ObjectName,
        ingress: &Ingress,
        class: Option<&IngressClass>,
    ) -> Guard {
        self.met.insert(name.clone());
        let targeting = self.by_target.get(name).cloned().unwrap_or_default();
        if !targeting.is_empty() {
            return self.joined(&targeting, Some(name));
        }
        if let Some(default) = class.and_then(default_policy) {
            return match self.world.policies.get_key_value(&default) {
                Some((policy, _)) => self.joined(&[policy], None),
                None => shut(
                    DenialCode::PolicyMissing,
                    format!("the class's default policy {default} does not exist"),
                ),
            };
        }
        let required = ingress
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(POLICY_REQUIRED_ANNOTATION));
        // Whatever is written there but "false" was meant to close something.
        if self.options.policy_required || required.is_some_and(|required| required != "false") {
            return shut(
                DenialCode::PolicyMissing,
                format!("a policy is required, and none targets Ingress {name}"),
            );
        }
        if self.world.incomplete {
            return shut(
                DenialCode::PolicyUnusable,
                "a manifest that may hold a policy cannot be read",
            );
        }
        Guard::Open
    }

    /// Policies that stand before nothing are compiled all the same, so that what is wrong with them is known early.
    pub(super) fn unattached(&mut self) {
        let attached: HashSet<ObjectName> = self.kept.keys().flatten().cloned().collect();
        for (name, object) in &self.world.policies {
            let PolicyObject::Readable(policy) = object else { continue };
            for (index, target) in policy.spec.target_refs.iter().enumerate() {
                let target = ObjectName::new(&name.namespace, &target.name);
                if !self.met.contains(&target) {
                    let message = format!(
                        "Ingress {target} does not exist, or is not certmap's: create it, or set its ingressClassName"
                    );
                    self.find(
                        Severity::Warning,
                        (name, Some(&target)),
                        &format!("spec.targetRefs[{index}]"),
                        "TargetNotFound",
                        message,
                    );
                }
            }
            if !attached.contains(name) {
                drop(self.joined(&[name], None));
            }
        }
    }

    /// The policies as one, the oldest first.
    fn joined(&mut self, names: &[&'a ObjectName], target: Option<&ObjectName>) -> Guard {
        let mut joined = Vec::new();
        for name in names {
            match self.world.policies.get(*name) {
                Some(PolicyObject::Readable(policy)) => {
                    joined.push(((*name).clone(), policy.clone()))
                }
                Some(PolicyObject::Unreadable { .. }) | None => {
                    return shut(
                        DenialCode::PolicyUnusable,
                        format!("CertMappingPolicy {name} cannot be read"),
                    );
                }
            }
        }
        joined.sort_by_cached_key(|(name, policy)| {
            (policy.metadata.creation_timestamp.clone().map(|time| time.0), name.clone())
        });
        joined.dedup_by(|(a, _), (b, _)| a == b);
        self.check(&joined, target).unwrap_or_else(|| self.compiled(&joined))
    }

    /// The refusal where a policy cannot be accepted, or two contradict each other.
    fn check(
        &mut self,
        joined: &[(ObjectName, Arc<CertMappingPolicy>)],
        target: Option<&ObjectName>,
    ) -> Option<Guard> {
        for (name, policy) in joined {
            if let Err((field, message)) = acceptable(&policy.spec) {
                self.find(Severity::Error, (name, None), field, "Invalid", message.to_owned());
                return Some(shut(
                    DenialCode::PolicyUnusable,
                    format!("CertMappingPolicy {name}: {message}"),
                ));
            }
        }
        let (_, first) = joined.first()?;
        let names = joined.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", ");
        let field = joined.iter().find_map(|(_, other)| difference(&first.spec, &other.spec))?;
        for (name, _) in joined {
            let message = format!(
                "policies {names} target the same Ingress and differ in {field}: make it equal, or keep one policy; until then it answers 503.91"
            );
            self.find(Severity::Error, (name, target), field, "Conflicted", message);
        }
        Some(shut(DenialCode::PolicyConflicted, format!("policies {names} differ in {field}")))
    }

    fn compiled(&mut self, joined: &[(ObjectName, Arc<CertMappingPolicy>)]) -> Guard {
        let key: Vec<ObjectName> = joined.iter().map(|(name, _)| name.clone()).collect();
        if !self.kept.contains_key(&key)
            && let Some(kept) = self.compile(&key, joined)
        {
            self.findings.extend(kept.mappings.findings.iter().chain(&kept.findings).cloned());
            self.kept.insert(key.clone(), kept);
        }
        match self.kept.get(&key) {
            Some(kept) => Guard::Policed([kept.policy.clone()].into()),
            None => shut(DenialCode::PolicyMissing, "no policy"),
        }
    }

    /// Takes over what is as it was, and makes the rest.
    fn compile(
        &mut self,
        key: &[ObjectName],
        joined: &[(ObjectName, Arc<CertMappingPolicy>)],
    ) -> Option<Arc<KeptPolicy>> {
        let world = self.world;
        let earlier = self.earlier.get(key).filter(|kept| kept.maps_the_same(joined, world));
        if let Some(kept) = earlier.filter(|kept| are_unchanged(&kept.made_from, world)) {
            return Some(kept.clone());
        }
        let (mappings, mapped_from) = match earlier {
            Some(kept) => (kept.mappings.clone(), kept.mapped_from.clone()),
            None => {
                let lookup = Lookup::new(world);
                let mappings = compile_mappings(joined, &lookup, &mut self.last_good)?;
                (Arc::new(mappings), lookup.into_dependencies().into())
            }
        };
        let (name, first) = joined.first()?;
        let lookup = Lookup::new(world);
        let (policy, findings) =
            compile_policy((name, first), &mappings, self.options, &lookup, &mut self.last_good);
        Some(Arc::new(KeptPolicy {
            objects: joined.iter().map(|(_, object)| object.clone()).collect(),
            mappings,
            mapped_from,
            policy: Arc::new(policy),
            made_from: lookup.into_dependencies(),
            findings,
        }))
    }

    fn find(
        &mut self,
        severity: Severity,
        (policy, target): (&ObjectName, Option<&ObjectName>),
        field: &str,
        reason: &'static str,
        message: String,
    ) {
        let mut finding = Finding::of_policy(policy, severity, field, reason, message);
        finding.target = target.cloned();
        self.findings.push(finding);
    }
}

fn shut(code: DenialCode, reason: impl Into<String>) -> Guard {
    Guard::Shut { code, reason: reason.into().into() }
}

/// `spec.parameters` of an IngressClass, where it names a policy.
fn default_policy(class: &IngressClass) -> Option<ObjectName> {
    let parameters = class.spec.as_ref()?.parameters.as_ref()?;
    let ours =
        parameters.api_group.as_deref() == Some(GROUP) && parameters.kind == "CertMappingPolicy";
    ours.then(|| {
        ObjectName::new(parameters.namespace.as_deref().unwrap_or_default(), &parameters.name)
    })
}

/// The first field in which two policies differ that must be equal to join.
fn difference(a: &CertMappingPolicySpec, b: &CertMappingPolicySpec) -> Option<&'static str> {
    let flags = |spec: &CertMappingPolicySpec| {
        let mut flags = spec.ssl_flags.clone();
        flags.sort_unstable();
        flags
    };
    let enabled = |spec: &CertMappingPolicySpec| {
        let one_to_one = spec.one_to_one.as_ref().is_none_or(|one_to_one| one_to_one.enabled);
        (one_to_one, spec.many_to_one.as_ref().is_none_or(|many_to_one| many_to_one.enabled))
    };
    let checks = [
        (flags(a) == flags(b), "spec.sslFlags"),
        (a.https_redirect == b.https_redirect, "spec.httpsRedirect"),
        (a.trust == b.trust, "spec.trust"),
        (enabled(a).0 == enabled(b).0, "spec.oneToOne.enabled"),
        (enabled(a).1 == enabled(b).1, "spec.manyToOne.enabled"),
        (a.active_directory == b.active_directory, "spec.activeDirectory"),
        (a.admit_any_verified == b.admit_any_verified, "spec.admitAnyVerified"),
        (a.authentication == b.authentication, "spec.authentication"),
        (a.authorization == b.authorization, "spec.authorization"),
        (a.forward == b.forward, "spec.forward"),
    ];
    checks.into_iter().find(|(equal, _)| !equal).map(|(_, field)| field)
}
