//! The external module: which Service is asked, and where it can be reached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use k8s_openapi::api::networking::v1::{IngressServiceBackend, ServiceBackendPort};

use super::backends::Backends;
use super::dependency::Lookup;
use super::finding::{Finding, Severity};
use super::world::{ObjectKind, ObjectName};
use crate::api::{self, OnRefusal};
use crate::auth::ExternalService;
use crate::policy::{Module, Policy};
use crate::snapshot::{Backend, IdentityHeaders, Protocol};

/// What there is to say: the field within the module, reason, sentence.
type Problem = (Severity, String, &'static str, String);

/// Compiles it. A Service that may not be referred to is never asked.
pub(super) fn compile_external(
    policy: &ObjectName,
    external: &api::External,
    lookup: &Lookup<'_>,
) -> (ExternalService, Vec<Problem>) {
    let (to, from) = (&external.service_ref, &policy.namespace);
    let resolved = lookup.resolve(from, ObjectKind::Service, &to.name, to.namespace.as_deref());
    let mut problems = Vec::new();
    let permitted = resolved.is_ok();
    if let Err(problem) = resolved {
        let problem = format!("{problem}; every request is answered 503.95 until then");
        let field = "serviceRef".to_owned();
        problems.push((Severity::Error, field, "ExternalUnresolved", problem));
    }
    let identity = IdentityHeaders::new([]);
    let mut request_headers = Vec::new();
    for (index, name) in external.request_headers.iter().enumerate() {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if !identity.contains(&name) => request_headers.push(name),
            Ok(_) | Err(_) => problems.push((
                Severity::Warning,
                format!("requestHeaders[{index}]"),
                "HeaderNeverSent",
                format!("{name} says who is calling, which a client may not: it is never sent; remove it"),
            )),
        }
    }
    let header = |name: &Option<String>| name.as_ref()?.parse().ok();
    let service = ExternalService {
        namespace: to.namespace.as_deref().unwrap_or(from).into(),
        name: to.name.as_str().into(),
        port: to.port,
        permitted,
        path: external.path.as_str().into(),
        timeout: Duration::from_secs(external.timeout_seconds.into()),
        request_headers,
        user_header: header(&external.user_header),
        groups_header: header(&external.groups_header),
        pass_back: external.on_refusal == OnRefusal::PassBack,
    };
    (service, problems)
}

/// What external modules need of a snapshot, and what there is to say.
pub(super) struct Externals {
    pub(super) backends: HashMap<Box<str>, Arc<Backend>>,
    pub(super) passed_on: Box<[HeaderName]>,
    pub(super) findings: Vec<Finding>,
}

/// What the policies in force ask: their Services' endpoints by name, and what of a request they are sent.
pub(super) fn externals(policies: &[Arc<Policy>], backends: &mut Backends<'_>) -> Externals {
    let (mut found, mut headers, mut findings) = (HashMap::new(), Vec::new(), Vec::new());
    for policy in policies {
        for service in policy.modules.iter().filter_map(of) {
            headers.extend(service.request_headers.iter().cloned());
            if !service.permitted {
                continue;
            }
            let port = ServiceBackendPort { name: None, number: Some(service.port.into()) };
            let backend =
                IngressServiceBackend { name: service.name.to_string(), port: Some(port) };
            let kept = backends.get(&service.namespace, &backend);
            let (name, protocol) = (name(&policy.name), kept.backend.protocol);
            let mut find = |message: String| {
                let (field, reason) = ("spec.authentication", "ExternalUnresolved");
                findings.push(Finding::of_policy(&name, Severity::Error, field, reason, message));
            };
            if let Some(problem) = &kept.problem {
                find(format!("{problem}: every request is answered 503.95 until there is one"));
            }
            if protocol == Protocol::Http1 {
                found.insert(service.backend().into(), kept.backend.clone());
            } else {
                // What it is asked holds credentials, which would go in the clear.
                find(format!(
                    "Service {} does not speak HTTP/1.1 without TLS, which is how it is asked: every request is answered 503.95; correct its appProtocol or annotation, or name another Service",
                    kept.backend.service()
                ));
            }
        }
    }
    headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    headers.dedup();
    Externals { backends: found, passed_on: headers.into(), findings }
}

fn of(module: &Module) -> Option<&ExternalService> {
    match module {
        Module::External(service) => Some(service),
        Module::Anonymous { .. } | Module::Basic { .. } | Module::Bearer { .. } => None,
    }
}

fn name(policy: &str) -> ObjectName {
    let (namespace, name) = policy.split_once('/').unwrap_or(("", policy));
    ObjectName::new(namespace, name)
}
