//! What a compiled part was made from, and whether that is still the same.
//!
//! Two worlds share what did not change by pointer, so that comparing pointers tells what can be reused. The objects are
//! kept alive here: a pointer to a freed one could come back with another content.

use std::cell::RefCell;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::world::{ObjectKind, ObjectName, World};
use crate::api::GROUP;

/// One object that was looked for, and what was found.
#[derive(Clone, Debug)]
pub(super) enum Dependency {
    ConfigMap(ObjectName, Option<Arc<ConfigMap>>),
    Secret(ObjectName, Option<Arc<Secret>>),
    /// Whether policies of a kind and namespace may refer to an object of another namespace.
    Grant {
        by: ObjectKind,
        from: String,
        kind: ObjectKind,
        to: ObjectName,
        then: bool,
    },
}

impl Dependency {
    fn is_unchanged(&self, world: &World) -> bool {
        match self {
            Self::ConfigMap(name, then) => same(then.as_ref(), world.config_maps.get(name)),
            Self::Secret(name, then) => same(then.as_ref(), world.secrets.get(name)),
            Self::Grant { by, from, kind, to, then } => {
                *then == is_granted(world, (*by, from), *kind, to)
            }
        }
    }
}

/// Whether all of them are as they were.
pub(super) fn are_unchanged(dependencies: &[Dependency], world: &World) -> bool {
    dependencies.iter().all(|dependency| dependency.is_unchanged(world))
}

/// Whether both are absent, or both the very same object.
pub(super) fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// Whether a ReferenceGrant lets the policies of a kind and namespace refer to an object of another namespace.
fn is_granted(
    world: &World,
    (by, from): (ObjectKind, &str),
    kind: ObjectKind,
    to: &ObjectName,
) -> bool {
    let (by, kind) = (by.to_string(), kind.to_string());
    let grants = world.reference_grants.iter().filter(|(name, _)| name.namespace == to.namespace);
    grants.into_iter().any(|(_, grant)| {
        let from_us = grant
            .spec
            .from
            .iter()
            .any(|who| who.group == GROUP && who.kind == by && who.namespace == from);
        let to_it = grant.spec.to.iter().any(|what| {
            what.group.is_empty()
                && what.kind == kind
                && what.name.as_ref().is_none_or(|name| *name == to.name)
        });
        from_us && to_it
    })
}

/// Looks objects up and remembers what it looked for.
pub(super) struct Lookup<'a> {
    world: &'a World,
    /// The kind of policy that looks.
    by: ObjectKind,
    seen: RefCell<Vec<Dependency>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self::by(ObjectKind::CertMappingPolicy, world)
    }

    /// In the name of a kind of policy: grants are given to one.
    pub(super) fn by(by: ObjectKind, world: &'a World) -> Self {
        Self { world, by, seen: RefCell::default() }
    }

    /// The object that a policy of namespace `from` refers to.
    ///
    /// # Errors
    /// It stands in another namespace, and nothing there allows it: one sentence.
    pub(super) fn resolve(
        &self,
        from: &str,
        kind: ObjectKind,
        name: &str,
        namespace: Option<&str>,
    ) -> Result<ObjectName, String> {
        let to = ObjectName::new(namespace.unwrap_or(from), name);
        if to.namespace == from {
            return Ok(to);
        }
        let by = self.by;
        let then = is_granted(self.world, (by, from), kind, &to);
        let grant = Dependency::Grant { by, from: from.to_owned(), kind, to: to.clone(), then };
        self.seen.borrow_mut().push(grant);
        if then {
            return Ok(to);
        }
        Err(format!(
            "{kind} {to} may not be referred to from namespace {from}: create a ReferenceGrant in namespace {} from {by} in {from} to {kind} {name}",
            to.namespace
        ))
    }

    pub(super) fn config_map(&self, name: &ObjectName) -> Option<&'a Arc<ConfigMap>> {
        let found = self.world.config_maps.get(name);
        self.seen.borrow_mut().push(Dependency::ConfigMap(name.clone(), found.cloned()));
        found
    }

    pub(super) fn secret(&self, name: &ObjectName) -> Option<&'a Arc<Secret>> {
        let found = self.world.secrets.get(name);
        self.seen.borrow_mut().push(Dependency::Secret(name.clone(), found.cloned()));
        found
    }

    pub(super) fn into_dependencies(self) -> Vec<Dependency> {
        self.seen.into_inner()
    }
}
