//! What a compiled part was made from, and whether that is still the same.
//!
//! Two worlds share what did not change by pointer, so that comparing pointers tells what can be reused. The objects are
//! kept alive here: a pointer to a freed one could come back with another content.

use std::cell::RefCell;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::world::{ObjectName, World};

/// One object that was looked for, and what was found.
#[derive(Clone, Debug)]
pub(super) enum Dependency {
    ConfigMap(ObjectName, Option<Arc<ConfigMap>>),
    Secret(ObjectName, Option<Arc<Secret>>),
}

impl Dependency {
    fn is_unchanged(&self, world: &World) -> bool {
        match self {
            Self::ConfigMap(name, then) => same(then.as_ref(), world.config_maps.get(name)),
            Self::Secret(name, then) => same(then.as_ref(), world.secrets.get(name)),
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

/// Looks objects up and remembers what it looked for.
pub(super) struct Lookup<'a> {
    world: &'a World,
    seen: RefCell<Vec<Dependency>>,
}

impl<'a> Lookup<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self { world, seen: RefCell::default() }
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
