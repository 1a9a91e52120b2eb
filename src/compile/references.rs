//! Which ConfigMaps and Secrets an object refers to: a source needs to hold no others.

use super::world::{Object, ObjectKind, ObjectName, ObjectRef};
use crate::api::{self, CertMappingPolicy, RoutePolicy};

/// The ConfigMaps, Secrets and Services that an object refers to, whether or not they exist and may be referred to.
#[must_use]
pub fn references(object: &Object) -> Vec<ObjectRef> {
    let mut found = match object {
        Object::Ingress(ingress) => of_ingress(ingress),
        Object::Policy(policy) => of_policy(policy),
        Object::RoutePolicy(policy) => of_route_policy(policy),
        Object::ConfigMap(_)
        | Object::EndpointSlice(_)
        | Object::IngressClass(_)
        | Object::ReferenceGrant(_)
        | Object::Secret(_)
        | Object::Service(_) => Vec::new(),
    };
    found.sort_unstable();
    found.dedup();
    found
}

fn of_ingress(ingress: &k8s_openapi::api::networking::v1::Ingress) -> Vec<ObjectRef> {
    let namespace = ingress.metadata.namespace.as_deref().unwrap_or_default();
    let to = |kind, name: &str| ObjectRef { kind, name: ObjectName::new(namespace, name) };
    let Some(spec) = &ingress.spec else { return Vec::new() };
    let secrets = spec.tls.iter().flatten().filter_map(|tls| tls.secret_name.as_deref());
    let paths = spec.rules.iter().flatten().filter_map(|rule| rule.http.as_ref());
    let backends = paths.flat_map(|http| http.paths.iter().map(|path| &path.backend));
    let services = backends.chain(&spec.default_backend).filter_map(|it| it.service.as_ref());
    let services = services.map(|service| to(ObjectKind::Service, &service.name));
    secrets.map(|name| to(ObjectKind::Secret, name)).chain(services).collect()
}

fn of_policy(policy: &CertMappingPolicy) -> Vec<ObjectRef> {
    let home = policy.metadata.namespace.as_deref().unwrap_or_default();
    let to = |kind: api::ObjectKind, name: &str, namespace: Option<&str>| {
        let name = ObjectName::new(namespace.unwrap_or(home), name);
        ObjectRef { kind: kind.into(), name }
    };
    let secret = |name: &str, namespace: Option<&str>| to(api::ObjectKind::Secret, name, namespace);
    let spec = &policy.spec;
    let cas = spec.trust.iter().flat_map(|trust| &trust.ca_certificate_refs);
    let cas = cas.map(|it| to(it.kind, &it.name, it.namespace.as_deref()));
    let one_to_one = spec.one_to_one.iter().flat_map(|part| &part.mappings);
    let certificates = one_to_one.clone().filter_map(|mapping| mapping.certificate_ref.as_ref());
    let certificates = certificates.map(|it| to(it.kind, &it.name, it.namespace.as_deref()));
    let many_to_one = spec.many_to_one.iter().flat_map(|part| &part.mappings);
    let directory = spec.active_directory.iter();
    let controllers = directory.clone().flat_map(|it| &it.ca_certificate_refs);
    let cas = cas.chain(controllers.map(|it| to(it.kind, &it.name, it.namespace.as_deref())));
    let binds = directory.flat_map(|it| it.bind.secret_ref.iter().chain(&it.bind.certificate_ref));
    let binds = binds.map(|it| secret(&it.name, it.namespace.as_deref()));
    let accounts = one_to_one
        .map(|mapping| &mapping.account)
        .chain(many_to_one.filter_map(|mapping| mapping.account.as_ref()))
        .filter_map(|account| account.secret_ref.as_ref());
    let accounts = accounts.map(|it| secret(&it.name, it.namespace.as_deref()));
    let modules = spec.authentication.iter().filter_map(|module| module.basic.as_ref());
    let users = modules.flat_map(|basic| &basic.secret_refs);
    let users = users.map(|it| secret(&it.name, it.namespace.as_deref()));
    let signing = spec.forward.signed_identity.iter();
    let signing = signing.map(|it| secret(&it.key_secret_ref.name, None));
    let sets = spec.authentication.iter().filter_map(|module| module.bearer.as_ref());
    let sets = sets.map(|bearer| &bearer.jwks);
    let servers = sets.clone().flat_map(|jwks| jwks.ca_certificate_refs.iter().flatten());
    let servers = servers.map(|it| to(it.kind, &it.name, it.namespace.as_deref()));
    let sets = sets.filter_map(|jwks| jwks.reference.as_ref());
    let sets = sets.map(|it| to(it.kind, &it.name, it.namespace.as_deref()));
    let externals = spec.authentication.iter().filter_map(|module| module.external.as_ref());
    let services = externals.map(|external| &external.service_ref).map(|it| ObjectRef {
        kind: ObjectKind::Service,
        name: ObjectName::new(it.namespace.as_deref().unwrap_or(home), &it.name),
    });
    let modules = servers.chain(sets).chain(services).chain(binds);
    let accounts = accounts.chain(users);
    cas.chain(certificates).chain(accounts).chain(modules).chain(signing).collect()
}

fn of_route_policy(policy: &RoutePolicy) -> Vec<ObjectRef> {
    let home = policy.metadata.namespace.as_deref().unwrap_or_default();
    let to = |kind, name: &str| ObjectRef { kind, name: ObjectName::new(home, name) };
    let tls = policy.spec.backend_tls.iter();
    let cas = tls.clone().flat_map(|tls| &tls.ca_certificate_refs).map(|it| ObjectRef {
        kind: it.kind.into(),
        name: ObjectName::new(it.namespace.as_deref().unwrap_or(home), &it.name),
    });
    let clients = tls.filter_map(|tls| tls.client_certificate_ref.as_ref());
    let affinity = policy.spec.load_balancing.iter().filter_map(|it| it.cookie_affinity.as_ref());
    let secrets = clients.chain(affinity.map(|affinity| &affinity.key_secret_ref));
    let secrets = secrets.map(|it| to(ObjectKind::Secret, &it.name));
    let pages = policy.spec.error_pages.iter().flatten();
    let pages = pages.map(|page| to(ObjectKind::ConfigMap, &page.config_map_ref.name));
    cas.chain(secrets).chain(pages).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn names(object: &Object) -> Vec<String> {
        references(object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_policy_refers_to_its_cas_certificates_accounts_users_keys_and_services() {
        let policy = json!({
            "apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy", "metadata": {"name": "p", "namespace": "web"},
            "spec": {
                "trust": {"caCertificateRefs": [{"kind": "ConfigMap", "name": "ca", "namespace": "infra"}]},
                "oneToOne": {"mappings": [{"name": "a", "certificateRef": {"kind": "Secret", "name": "cert"}, "account": {"secretRef": {"name": "s"}}}]},
                "manyToOne": {"mappings": [{"name": "m", "rules": [], "account": {"secretRef": {"name": "s"}}}]},
                "forward": {"signedIdentity": {"keySecretRef": {"name": "signing"}}},
                "authentication": [
                    {"basic": {"secretRefs": [{"name": "users"}]}},
                    {"bearer": {"issuer": "i", "audiences": ["a"], "jwks": {"ref": {"kind": "ConfigMap", "name": "keys"}}}},
                    {"bearer": {"issuer": "i", "audiences": ["a"], "jwks": {"url": "https://i", "caCertificateRefs": [{"kind": "Secret", "name": "id-ca"}]}}},
                    {"external": {"serviceRef": {"name": "verify", "namespace": "auth", "port": 80}}},
                ],
                "activeDirectory": {
                    "urls": ["ldaps://dc1"], "caCertificateRefs": [{"kind": "ConfigMap", "name": "dc-ca"}], "bind": {"secretRef": {"name": "dc-bind"}},
                },
            },
        });
        let policy = Object::Policy(Arc::new(serde_json::from_value(policy).unwrap()));
        assert_eq!(
            names(&policy),
            [
                "ConfigMap infra/ca",
                "ConfigMap web/dc-ca",
                "ConfigMap web/keys",
                "Secret web/cert",
                "Secret web/dc-bind",
                "Secret web/id-ca",
                "Secret web/s",
                "Secret web/signing",
                "Secret web/users",
                "Service auth/verify"
            ]
        );
    }

    #[test]
    fn a_route_policy_refers_to_its_cas_certificate_key_and_pages() {
        let policy = json!({
            "apiVersion": "certmap.dev/v1alpha1", "kind": "RoutePolicy", "metadata": {"name": "r", "namespace": "web"},
            "spec": {
                "backendTLS": {
                    "hostname": "app", "caCertificateRefs": [{"kind": "ConfigMap", "name": "ca", "namespace": "infra"}],
                    "clientCertificateRef": {"name": "client"},
                },
                "loadBalancing": {"cookieAffinity": {"keySecretRef": {"name": "affinity"}}},
                "errorPages": [{"codes": ["5xx"], "configMapRef": {"name": "pages", "key": "sorry.html"}}],
            },
        });
        let policy = Object::RoutePolicy(Arc::new(serde_json::from_value(policy).unwrap()));
        let expected = [
            "ConfigMap infra/ca",
            "ConfigMap web/pages",
            "Secret web/affinity",
            "Secret web/client",
        ];
        assert_eq!(names(&policy), expected);
    }

    #[test]
    fn an_ingress_refers_to_its_certificates_and_services() {
        let service = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let ingress = json!({
            "metadata": {"name": "i", "namespace": "web"},
            "spec": {
                "defaultBackend": service("b"), "tls": [{"secretName": "t"}, {}],
                "rules": [{"http": {"paths": [{"pathType": "Prefix", "backend": service("a")}]}}, {"host": "x"}],
            },
        });
        let ingress = Object::Ingress(Arc::new(serde_json::from_value(ingress).unwrap()));
        assert_eq!(names(&ingress), ["Secret web/t", "Service web/a", "Service web/b"]);
    }
}
