//! Which RoutePolicy an Ingress's routes are carried by: the oldest that targets it, and for what that leaves out the
//! default one. One that is missing, unreadable or makes no sense never makes a route laxer: it answers 503.96.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::HeaderName;

use super::certificates::LastGood;
use super::dependency::{Dependency, Lookup, are_unchanged};
use super::finding::{Finding, Severity};
use super::options::Options;
use super::route_parts::{Read, RouteParts, changed_in_requests, read};
use super::world::{ObjectKind, ObjectName, PolicyObject, World};
use crate::api::RoutePolicy;
use crate::policy::{DenialCode, Guard};
use crate::snapshot::{IdentityHeaders, RouteSettings};

/// What the next compilation may take over.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptRoutePolicies {
    policies: HashMap<ObjectName, Arc<KeptRoutePolicy>>,
    /// By the policy that targets, if any.
    settings: HashMap<Option<ObjectName>, KeptSettings>,
    /// Of routes without any.
    none: Arc<RouteSettings>,
}

impl KeptRoutePolicies {
    /// Every object that one of them was made from.
    pub(super) fn made_from(&self) -> impl Iterator<Item = &Dependency> {
        self.policies.values().flat_map(|kept| &kept.made_from)
    }
}

/// One policy, read, and what it was made from.
#[derive(Debug)]
struct KeptRoutePolicy {
    object: Arc<RoutePolicy>,
    read: Read,
    made_from: Vec<Dependency>,
    /// The request headers that it changes, and whether each told who is calling.
    changes: Vec<(HeaderName, bool)>,
}

impl KeptRoutePolicy {
    fn is_current(
        &self,
        object: &Arc<RoutePolicy>,
        world: &World,
        identity: &IdentityHeaders,
    ) -> bool {
        Arc::ptr_eq(&self.object, object)
            && self.changes.iter().all(|(name, then)| identity.contains(name) == *then)
            && are_unchanged(&self.made_from, world)
    }
}

/// Settings, and the policies that they were made from: the one that targets, and the default.
#[derive(Clone, Debug)]
struct KeptSettings {
    from: [Option<Arc<KeptRoutePolicy>>; 2],
    settings: Result<Arc<RouteSettings>, Arc<str>>,
}

impl KeptSettings {
    fn is_from(&self, from: &[Option<Arc<KeptRoutePolicy>>; 2]) -> bool {
        self.from.iter().zip(from).all(|(then, now)| match (then, now) {
            (Some(then), Some(now)) => Arc::ptr_eq(then, now),
            (None, None) => true,
            _ => false,
        })
    }
}

/// Attaches route policies to Ingresses.
pub(super) struct RoutePolicies<'a> {
    world: &'a World,
    default: Option<&'a ObjectName>,
    identity: &'a IdentityHeaders,
    by_target: HashMap<ObjectName, Vec<(&'a ObjectName, &'a PolicyObject<RoutePolicy>)>>,
    /// Unreadable ones that name nobody: any Ingress of their namespace may be meant.
    of_anyone: HashMap<&'a str, &'a ObjectName>,
    earlier: &'a KeptRoutePolicies,
    pub(super) kept: KeptRoutePolicies,
    pub(super) findings: Vec<Finding>,
}

impl<'a> RoutePolicies<'a> {
    pub(super) fn new(
        world: &'a World,
        options: &'a Options,
        identity: &'a IdentityHeaders,
        earlier: &'a KeptRoutePolicies,
    ) -> Self {
        let mut by_target: HashMap<ObjectName, Vec<_>> = HashMap::new();
        let mut of_anyone = HashMap::new();
        for (name, object) in &world.route_policies {
            let mut named = object.targets().into_iter().peekable();
            if named.peek().is_none() && matches!(object, PolicyObject::Unreadable { .. }) {
                of_anyone.insert(&*name.namespace, name);
            }
            for target in named {
                let target = ObjectName::new(&name.namespace, target);
                by_target.entry(target).or_default().push((name, object));
            }
        }
        let kept = KeptRoutePolicies { none: earlier.none.clone(), ..Default::default() };
        let (default, findings) = (options.default_route_policy.as_ref(), Vec::new());
        Self { world, default, identity, by_target, of_anyone, earlier, kept, findings }
    }

    /// What is said of an Ingress's routes; or what stands before them instead.
    pub(super) fn of(
        &mut self,
        ingress: &ObjectName,
        last_good: &mut LastGood,
    ) -> (Arc<RouteSettings>, Option<Guard>) {
        let (own, readable) = self.targeting(ingress);
        let carried = match readable {
            Ok(()) => self.settings(own, last_good).map_err(|reason| ("DefaultUnusable", reason)),
            Err(reason) => Err(("OtherUnreadable", reason)),
        };
        match carried {
            Ok(settings) => (settings, None),
            Err((word, reason)) => {
                self.blame(own, ingress, (word, &reason), last_good);
                let code = DenialCode::RoutePolicyUnusable;
                (self.kept.none.clone(), Some(Guard::Shut { code, reason }))
            }
        }
    }

    /// A policy that is well, and carries nothing because another one is not, says so.
    fn blame(
        &mut self,
        own: Option<&'a ObjectName>,
        ingress: &ObjectName,
        (word, reason): (&'static str, &str),
        last_good: &mut LastGood,
    ) {
        let Some(name) = own else { return };
        let is_well = self
            .policy(name, last_good)
            .is_ok_and(|kept| kept.read.parts.as_ref().is_ok_and(RouteParts::stands_alone));
        if is_well {
            let message =
                format!("{reason}: until that is mended, Ingress {ingress} answers 503.96");
            let (severity, field) = (Severity::Error, String::new());
            let mut finding = Finding::of_route_policy(name, severity, field, word, message);
            finding.target = Some(ingress.clone());
            self.findings.push(finding);
        }
    }

    fn settings(
        &mut self,
        own: Option<&'a ObjectName>,
        last_good: &mut LastGood,
    ) -> Result<Arc<RouteSettings>, Arc<str>> {
        if own.is_none() && self.world.unread_manifest {
            return Err("a manifest that may hold a route policy cannot be read".into());
        }
        let default = self.default.filter(|default| own.is_none_or(|own| own != *default));
        let from = [
            own.map(|name| self.policy(name, last_good)).transpose()?,
            default.map(|name| self.policy(name, last_good)).transpose()?,
        ];
        if from.iter().all(Option::is_none) {
            return Ok(self.kept.none.clone());
        }
        let key = own.cloned();
        let known = self.kept.settings.get(&key).or_else(|| self.earlier.settings.get(&key));
        let kept = match known.filter(|known| known.is_from(&from)) {
            Some(known) => known.clone(),
            None => KeptSettings { settings: joined([own, default], &from), from },
        };
        let settings = kept.settings.clone();
        self.kept.settings.insert(key, kept);
        settings
    }

    /// The policy that counts at an Ingress; an error where another one that cannot be read might.
    fn targeting(
        &mut self,
        ingress: &ObjectName,
    ) -> (Option<&'a ObjectName>, Result<(), Arc<str>>) {
        let mut unreadable = self.of_anyone.get(&*ingress.namespace).copied();
        let mut readable = Vec::new();
        let all = self.by_target.get(ingress).map(Vec::as_slice).unwrap_or_default();
        for (name, object) in all {
            match object {
                PolicyObject::Readable(policy) => readable.push((*name, policy)),
                PolicyObject::Unreadable { .. } => unreadable = Some(*name),
            }
        }
        let all_readable = unreadable.map_or(Ok(()), |name| Err(cannot_be_read(name)));
        readable.sort_by_key(|(name, policy)| {
            (policy.metadata.creation_timestamp.as_ref().map(|time| time.0), *name)
        });
        readable.dedup_by_key(|(name, _)| *name);
        let mut all = readable.into_iter().map(|(name, _)| name);
        let Some(oldest) = all.next() else { return (None, all_readable) };
        for other in all {
            let message = format!(
                "RoutePolicy {oldest} is older and counts for Ingress {ingress}: this one is not in force there; keep one of them"
            );
            let (field, reason) = ("spec.targetRefs", "Conflicted");
            let mut finding =
                Finding::of_route_policy(other, Severity::Error, field, reason, message);
            finding.target = Some(ingress.clone());
            self.findings.push(finding);
        }
        (Some(oldest), all_readable)
    }

    /// A policy, read now or taken over.
    fn policy(
        &mut self,
        name: &ObjectName,
        last_good: &mut LastGood,
    ) -> Result<Arc<KeptRoutePolicy>, Arc<str>> {
        if let Some(kept) = self.kept.policies.get(name) {
            return Ok(kept.clone());
        }
        let (world, identity) = (self.world, self.identity);
        let object = match world.route_policies.get(name) {
            Some(PolicyObject::Readable(object)) => object,
            Some(PolicyObject::Unreadable { .. }) => return Err(cannot_be_read(name)),
            None => return Err(self.missing(name)),
        };
        let earlier = self.earlier.policies.get(name);
        let kept = match earlier.filter(|kept| kept.is_current(object, world, identity)) {
            Some(kept) => kept.clone(),
            None => {
                let client = earlier.and_then(|kept| kept.read.client.clone());
                let lookup = Lookup::by(ObjectKind::RoutePolicy, world);
                let read = read(name, &object.spec, (&lookup, identity), last_good, &client);
                let changes = changed_in_requests(&object.spec);
                let changes = changes.map(|name| (identity.contains(&name), name));
                Arc::new(KeptRoutePolicy {
                    object: object.clone(),
                    read,
                    made_from: lookup.into_dependencies(),
                    changes: changes.map(|(tells, name)| (name, tells)).collect(),
                })
            }
        };
        self.findings.extend(kept.read.findings.iter().cloned());
        self.kept.policies.insert(name.clone(), kept.clone());
        Ok(kept)
    }

    /// Somebody relies on a default that is not there.
    fn missing(&mut self, name: &ObjectName) -> Arc<str> {
        let message = format!(
            "RoutePolicy {name} does not exist, and is the default (--default-route-policy): until it is created, routes answer 503.96"
        );
        let (field, reason) = (String::new(), "DefaultMissing");
        let finding =
            Finding::of_route_policy(name, Severity::Error, field, reason, message.clone());
        self.findings.push(finding);
        message.into()
    }

    /// What is wrong with policies that carry nothing is said all the same.
    pub(super) fn unattached(&mut self, met: &HashSet<ObjectName>, last_good: &mut LastGood) {
        let world = self.world;
        for (name, object) in &world.route_policies {
            let PolicyObject::Readable(policy) = object else { continue };
            for (index, target) in policy.spec.target_refs.iter().enumerate() {
                let target = ObjectName::new(&name.namespace, &target.name);
                if met.contains(&target) {
                    continue;
                }
                let message = format!(
                    "Ingress {target} does not exist, or is not certmap's: create it, or set its ingressClassName"
                );
                let (field, reason) = (format!("spec.targetRefs[{index}]"), "TargetNotFound");
                let mut finding =
                    Finding::of_route_policy(name, Severity::Warning, field, reason, message);
                finding.target = Some(target);
                self.findings.push(finding);
            }
            // What it comes to is in the findings.
            drop(self.policy(name, last_good));
        }
    }
}

fn joined(
    names: [Option<&ObjectName>; 2],
    [own, default]: &[Option<Arc<KeptRoutePolicy>>; 2],
) -> Result<Arc<RouteSettings>, Arc<str>> {
    let [name, default_name] =
        names.map(|name| name.map(|name| name.to_string().into()).unwrap_or_default());
    let default = parts(default)?.map(|it| (&default_name, it));
    let settings = match (parts(own)?, default) {
        (Some(own), default) => own.settings(&name, default)?,
        (None, Some(_)) => RouteParts::default().settings(&default_name, default)?,
        (None, None) => RouteSettings::default(),
    };
    Ok(Arc::new(settings))
}

fn parts(kept: &Option<Arc<KeptRoutePolicy>>) -> Result<Option<&RouteParts>, Arc<str>> {
    kept.as_ref().map(|kept| kept.read.parts.as_ref().map_err(Arc::clone)).transpose()
}

fn cannot_be_read(name: &ObjectName) -> Arc<str> {
    format!("RoutePolicy {name} cannot be read").into()
}
