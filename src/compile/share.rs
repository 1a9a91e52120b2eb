//! One Ingress's share: its routes, host by host, and what there is to say of them.
//!
//! A share is made again only when its Ingress, what stands before it, how it is carried, or one of its backends is another.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};

use super::backends::Backends;
use super::finding::{Finding, Severity};
use super::world::{ObjectKind, ObjectName, ObjectRef};
use crate::policy::Guard;
use crate::snapshot::{Backend, HostPattern, PathPattern, Protocol, Route, RouteSettings, Target};

/// What an Ingress brings.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) name: ObjectName,
    ingress: Arc<Ingress>,
    /// What its CertMappingPolicies come to.
    pub(super) attached: Guard,
    /// What stands before its own routes: that, or that they cannot be carried.
    guard: Guard,
    pub(super) settings: Arc<RouteSettings>,
    /// In the order in which they are named.
    backends: Vec<Arc<Backend>>,
    pub(super) entries: Vec<Entry>,
    /// Services and the fields that lead to them.
    pub(super) ways: Vec<(ObjectName, String)>,
    pub(super) findings: Vec<Finding>,
}

/// What stands before an Ingress, and how it is carried.
pub(super) struct Standing {
    /// What its CertMappingPolicies come to.
    pub(super) attached: Guard,
    pub(super) settings: Arc<RouteSettings>,
    /// Why it cannot be carried.
    pub(super) shut: Option<Guard>,
}

/// One route of one host.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) host: HostPattern,
    pub(super) path: PathPattern,
    pub(super) route: Route,
    /// Where it stands.
    pub(super) field: String,
    /// Of `defaultBackend`: it gives way to any other.
    pub(super) is_default: bool,
}

impl Share {
    /// Makes it, or takes over the earlier one.
    pub(super) fn of(
        name: &ObjectName,
        ingress: &Arc<Ingress>,
        Standing { attached, settings, shut }: Standing,
        backends: &mut Backends<'_>,
        earlier: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let reachable: Vec<Arc<Backend>> = named(ingress)
            .filter_map(|it| it.service.as_ref())
            .map(|service| backends.get(&name.namespace, service).backend.clone())
            .collect();
        let shut = shut.filter(|_| !matches!(attached, Guard::Shut { .. }));
        let guard = shut.unwrap_or_else(|| attached.clone());
        let is_same = |share: &&Arc<Self>| {
            Arc::ptr_eq(&share.ingress, ingress)
                && share.attached.is_same(&attached)
                && share.guard.is_same(&guard)
                && Arc::ptr_eq(&share.settings, &settings)
                && share.backends.len() == reachable.len()
                && share.backends.iter().zip(&reachable).all(|(then, now)| Arc::ptr_eq(then, now))
        };
        if let Some(share) = earlier.filter(is_same) {
            return share.clone();
        }
        let mut share = Self {
            name: name.clone(),
            ingress: ingress.clone(),
            attached,
            guard,
            settings,
            backends: reachable,
            entries: Vec::new(),
            ways: Vec::new(),
            findings: Vec::new(),
        };
        share.read(ingress, backends);
        Arc::new(share)
    }

    fn read(&mut self, ingress: &Ingress, backends: &mut Backends<'_>) {
        let Some(spec) = &ingress.spec else { return };
        let default = spec.default_backend.as_ref();
        let default = default.map(|it| self.backend(it, "spec.defaultBackend", backends));
        for (index, rule) in spec.rules.iter().flatten().enumerate() {
            let Some(host) = HostPattern::parse(rule.host.as_deref().unwrap_or_default()) else {
                let message = "not a host name: write a DNS name, or *. and one";
                self.find(format!("spec.rules[{index}].host"), "HostInvalid", message.to_owned());
                continue;
            };
            let paths = rule.http.iter().flat_map(|http| http.paths.iter().enumerate());
            for (path_index, path) in paths {
                let field = format!("spec.rules[{index}].http.paths[{path_index}]");
                self.path(&host, path, field, backends);
            }
            self.default(host, default.clone());
        }
        self.default(HostPattern::Any, default);
    }

    fn path(
        &mut self,
        host: &HostPattern,
        path: &HTTPIngressPath,
        field: String,
        backends: &mut Backends<'_>,
    ) {
        let text = path.path.as_deref().unwrap_or("/");
        if !text.starts_with('/') {
            let message = format!("path {text} does not begin with a slash: write /{text}");
            return self.find(format!("{field}.path"), "PathInvalid", message);
        }
        let backend = self.backend(&path.backend, &format!("{field}.backend"), backends);
        let pattern = PathPattern::new(text, path.path_type == "Exact");
        self.entry(host.clone(), pattern, backend, field, false);
    }

    fn default(&mut self, host: HostPattern, backend: Option<Arc<Backend>>) {
        if let Some(backend) = backend {
            let (root, field) = (PathPattern::new("/", false), "spec.defaultBackend".to_owned());
            self.entry(host, root, backend, field, true);
        }
    }

    fn entry(
        &mut self,
        host: HostPattern,
        path: PathPattern,
        backend: Arc<Backend>,
        field: String,
        is_default: bool,
    ) {
        let ingress = self.name.to_string().into();
        let settings = self.settings.clone();
        let route = Route { ingress, guard: self.guard.clone(), backend, settings };
        self.entries.push(Entry { host, path, route, field, is_default });
    }

    fn backend(
        &mut self,
        backend: &IngressBackend,
        field: &str,
        backends: &mut Backends<'_>,
    ) -> Arc<Backend> {
        let Some(service) = &backend.service else {
            let message =
                "only a Service can be a backend: it answers 501; write service".to_owned();
            self.find(field.to_owned(), "BackendInvalid", message);
            return Arc::new(Backend::new("resource", Target::Unsupported, Protocol::Http1));
        };
        let kept = backends.get(&self.name.namespace, service);
        let (backend, problem) = (kept.backend.clone(), kept.problem.clone());
        if let Some(problem) = problem {
            let message = format!("{problem}: it answers 503 until there is one");
            self.find(format!("{field}.service"), "BackendNotFound", message);
        }
        if backend.protocol.is_tls() && self.settings.backend_tls.is_none() {
            let message = format!(
                "Service {} speaks TLS, and nothing says how it is known: it answers 502.91; write backendTLS into a RoutePolicy of this Ingress",
                backend.service()
            );
            self.find(format!("{field}.service"), "BackendTLSMissing", message);
        }
        let service = ObjectName::new(&self.name.namespace, &service.name);
        self.ways.push((service, format!("Ingress {} {field}", self.name)));
        backend
    }

    fn find(&mut self, field: String, reason: &'static str, message: String) {
        let object = ObjectRef { kind: ObjectKind::Ingress, name: self.name.clone() };
        let (severity, target) = (Severity::Error, None);
        self.findings.push(Finding { severity, object, target, field, reason, message });
    }
}

/// The backends that an Ingress names, the default one first.
fn named(ingress: &Ingress) -> impl Iterator<Item = &IngressBackend> {
    let spec = ingress.spec.iter();
    spec.flat_map(|spec| {
        let rules = spec.rules.iter().flatten().filter_map(|rule| rule.http.as_ref());
        let paths = rules.flat_map(|http| http.paths.iter().map(|path| &path.backend));
        spec.default_backend.iter().chain(paths)
    })
}
