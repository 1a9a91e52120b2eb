//! Ingresses → virtual hosts: rules, paths and the guards before them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressSpec,
};

use super::attach::Attachments;
use super::backends::{Backends, Reached};
use super::finding::{Finding, Severity};
use super::options::Options;
use super::server_certificates::ServerCertificateReader;
use super::world::{ObjectKind, ObjectName, ObjectRef, World};
use crate::policy::{Guard, Policy};
use crate::snapshot::{Backend, HostPattern, HostTable, PathPattern, Route};

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// The routes of each host, as they come together.
pub(super) type Hosts = BTreeMap<HostPattern, HashMap<PathPattern, Route>>;

/// Brings the Ingresses together, the oldest first.
pub(super) struct Router<'a, 'b> {
    pub(super) world: &'a World,
    pub(super) options: &'b Options,
    pub(super) attachments: &'b mut Attachments<'a>,
    pub(super) backends: &'b mut Backends<'a>,
    pub(super) server_certificates: &'b mut ServerCertificateReader<'a>,
    pub(super) hosts: Hosts,
    pub(super) certificates: HostTable<Arc<rustls::sign::CertifiedKey>>,
    certificate_owners: HashMap<HostPattern, ObjectName>,
    pub(super) reached: Reached,
    pub(super) findings: Vec<Finding>,
}

impl<'a, 'b> Router<'a, 'b> {
    pub(super) fn new(
        world: &'a World,
        options: &'b Options,
        attachments: &'b mut Attachments<'a>,
        backends: &'b mut Backends<'a>,
        server_certificates: &'b mut ServerCertificateReader<'a>,
    ) -> Self {
        Self {
            world,
            options,
            attachments,
            backends,
            server_certificates,
            hosts: Hosts::new(),
            certificates: HostTable::default(),
            certificate_owners: HashMap::new(),
            reached: Reached::new(),
            findings: Vec::new(),
        }
    }

    pub(super) fn route_all(&mut self) {
        let mut ingresses: Vec<(&ObjectName, &Arc<Ingress>)> =
            self.world.ingresses.iter().collect();
        ingresses.sort_by_cached_key(|(name, ingress)| {
            (ingress.metadata.creation_timestamp.clone().map(|time| time.0), (*name).clone())
        });
        for (name, ingress) in ingresses {
            if let (Some(class), Some(spec)) = (self.class(name, ingress), &ingress.spec) {
                let guard = self.attachments.guard(name, ingress, class);
                self.rules(name, spec, &guard);
                self.tls(name, spec);
            }
        }
    }

    /// Whether the Ingress is ours, and its class if there is one.
    fn class(&mut self, name: &ObjectName, ingress: &Ingress) -> Option<Option<&'a IngressClass>> {
        let annotation =
            || ingress.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
        let class_name = ingress
            .spec
            .as_ref()
            .and_then(|spec| spec.ingress_class_name.as_ref())
            .or_else(annotation);
        let Some(class_name) = class_name else {
            let default = self
                .world
                .ingress_classes
                .values()
                .find(|class| self.is_ours(class) && is_default(class));
            return (default.is_some() || self.options.directory)
                .then_some(default.map(|class| &**class));
        };
        match self.world.ingress_classes.get(&ObjectName::new("", class_name)) {
            Some(class) if self.is_ours(class) => Some(Some(class)),
            None if self.is_ours_by_name(class_name) => Some(None),
            Some(_) | None => {
                if self.options.directory {
                    let message = format!(
                        "class {class_name} is not certmap's: the Ingress is passed over; write ingressClassName: {}",
                        self.options.class_name
                    );
                    self.find(
                        Severity::Warning,
                        name,
                        "spec.ingressClassName".to_owned(),
                        "ClassIgnored",
                        message,
                    );
                }
                None
            }
        }
    }

    fn is_ours(&self, class: &IngressClass) -> bool {
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref());
        controller == Some(&*self.options.controller_name)
    }

    fn is_ours_by_name(&self, class_name: &str) -> bool {
        (self.options.directory || self.world.classes_unknown)
            && class_name == self.options.class_name
    }

    fn rules(&mut self, name: &ObjectName, spec: &IngressSpec, guard: &Guard) {
        let rules = spec.rules.as_deref().unwrap_or_default();
        for (index, rule) in rules.iter().enumerate() {
            let Some(host) = HostPattern::parse(rule.host.as_deref().unwrap_or_default()) else {
                let message = "not a host name: write a DNS name, or *. and one".to_owned();
                self.find(
                    Severity::Error,
                    name,
                    format!("spec.rules[{index}].host"),
                    "HostInvalid",
                    message,
                );
                continue;
            };
            for (path_index, path) in
                rule.http.iter().flat_map(|http| http.paths.iter().enumerate())
            {
                let field = format!("spec.rules[{index}].http.paths[{path_index}]");
                self.path(name, &host, path, guard, &field);
            }
            self.default_backend(name, &host, spec, guard);
        }
        self.default_backend(name, &HostPattern::Any, spec, guard);
    }

    fn path(
        &mut self,
        name: &ObjectName,
        host: &HostPattern,
        path: &HTTPIngressPath,
        guard: &Guard,
        field: &str,
    ) {
        let text = path.path.as_deref().unwrap_or("/");
        if !text.starts_with('/') {
            let message = format!("path {text} does not begin with a slash: write /{text}");
            self.find(Severity::Error, name, format!("{field}.path"), "PathInvalid", message);
            return;
        }
        let pattern = PathPattern::new(text, path.path_type == "Exact");
        let backend = self.backend(name, &path.backend, guard, &format!("{field}.backend"));
        let route = Route { ingress: name.to_string().into(), guard: guard.clone(), backend };
        self.add(name, host, pattern, route, field);
    }

    fn default_backend(
        &mut self,
        name: &ObjectName,
        host: &HostPattern,
        spec: &IngressSpec,
        guard: &Guard,
    ) {
        let Some(backend) = &spec.default_backend else { return };
        let root = PathPattern::new("/", false);
        let taken = self.hosts.get(host).is_some_and(|routes| routes.contains_key(&root));
        if !taken {
            let backend = self.backend(name, backend, guard, "spec.defaultBackend");
            let route = Route { ingress: name.to_string().into(), guard: guard.clone(), backend };
            self.add(name, host, root, route, "spec.defaultBackend");
        }
    }

    fn backend(
        &mut self,
        name: &ObjectName,
        backend: &IngressBackend,
        guard: &Guard,
        field: &str,
    ) -> Arc<Backend> {
        let Some(service) = &backend.service else {
            let message = "only a Service can be a backend: write service".to_owned();
            self.find(Severity::Error, name, field.to_owned(), "BackendInvalid", message);
            return Arc::default();
        };
        let (backend, problem) = self.backends.get(&name.namespace, service);
        if let Some(problem) = problem {
            let message = format!("{problem}: it answers 503 until there is one");
            self.find(
                Severity::Error,
                name,
                format!("{field}.service"),
                "BackendNotFound",
                message,
            );
        }
        let reached =
            self.reached.entry(ObjectName::new(&name.namespace, &service.name)).or_default();
        let ways = if matches!(guard, Guard::Open) { &mut reached.0 } else { &mut reached.1 };
        ways.push(format!("Ingress {name} {field}"));
        backend
    }

    /// The oldest Ingress keeps the path; what stands before it is everything that any of them asks for.
    fn add(
        &mut self,
        name: &ObjectName,
        host: &HostPattern,
        path: PathPattern,
        route: Route,
        field: &str,
    ) {
        let routes = self.hosts.entry(host.clone()).or_default();
        let Some(oldest) = routes.get_mut(&path) else {
            routes.insert(path, route);
            return;
        };
        oldest.guard = stricter(&oldest.guard, &route.guard);
        let message = format!(
            "Ingress {} has the same path of host {host}: it keeps it, under the policies of both",
            oldest.ingress
        );
        self.find(Severity::Warning, name, field.to_owned(), "PathTaken", message);
    }

    fn tls(&mut self, name: &ObjectName, spec: &IngressSpec) {
        for (index, tls) in spec.tls.iter().flatten().enumerate() {
            let Some(secret) = &tls.secret_name else { continue };
            let (certificate, problem) =
                self.server_certificates.get(&ObjectName::new(&name.namespace, secret));
            if let Some(problem) = problem {
                let field = format!("spec.tls[{index}].secretName");
                self.find(Severity::Error, name, field, "CertificateUnusable", problem);
            }
            let Some(certificate) = certificate else { continue };
            let hosts = tls.hosts.iter().flatten().filter_map(|host| HostPattern::parse(host));
            let hosts: Vec<HostPattern> = if tls.hosts.as_ref().is_none_or(Vec::is_empty) {
                vec![HostPattern::Any]
            } else {
                hosts.collect()
            };
            for host in hosts {
                let owner =
                    self.certificate_owners.entry(host.clone()).or_insert_with(|| name.clone());
                if owner == name {
                    self.certificates.insert(host, certificate.clone());
                }
            }
        }
    }

    fn find(
        &mut self,
        severity: Severity,
        ingress: &ObjectName,
        field: String,
        reason: &'static str,
        message: String,
    ) {
        let object = ObjectRef { kind: ObjectKind::Ingress, name: ingress.clone() };
        self.findings.push(Finding { severity, object, target: None, field, reason, message });
    }
}

fn is_default(class: &IngressClass) -> bool {
    let annotation =
        class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS_ANNOTATION));
    annotation.is_some_and(|value| value == "true")
}

/// Both guards in one: shut stays shut, and of policies every one must admit, the strictest first.
fn stricter(a: &Guard, b: &Guard) -> Guard {
    match (a, b) {
        (Guard::Shut { .. }, _) | (_, Guard::Open) => a.clone(),
        (_, Guard::Shut { .. }) | (Guard::Open, _) => b.clone(),
        (Guard::Policed(a), Guard::Policed(b)) => {
            let mut both: Vec<Arc<Policy>> = a.iter().chain(b.iter()).cloned().collect();
            both.sort_by_key(|policy| {
                (std::cmp::Reverse(policy.flags.strictness()), policy.name.clone())
            });
            both.dedup_by(|a, b| Arc::ptr_eq(a, b));
            Guard::Policed(both.into())
        }
    }
}
