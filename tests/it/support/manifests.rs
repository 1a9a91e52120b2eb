//! Manifests as text.

use super::pki::Identity;

fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// A policy named so for the Ingress named so; `spec` is YAML without indentation.
pub(crate) fn policy(name: &str, ingress: &str, spec: &str) -> String {
    format!(
        "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {{name: {name}, namespace: web}}\nspec:\n  targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: {ingress}}}]\n{}",
        indented(spec, 2)
    )
}

/// A route policy named so for the Ingress named so; `spec` is YAML without indentation.
pub(crate) fn route_policy(name: &str, ingress: &str, spec: &str) -> String {
    policy(name, ingress, spec).replace("CertMappingPolicy", "RoutePolicy")
}

/// One path of one host, with the server's certificate.
pub(crate) fn ingress(name: &str, host: &str, path: &str, service: &str) -> String {
    ingress_with(name, host, &[(path, "Prefix", service)])
}

pub(crate) fn ingress_with(name: &str, host: &str, paths: &[(&str, &str, &str)]) -> String {
    let paths: String = paths
        .iter()
        .map(|(path, kind, service)| {
            format!("      - {{path: \"{path}\", pathType: {kind}, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}\n")
        })
        .collect();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: web}}\nspec:\n  ingressClassName: certmap\n  tls: [{{hosts: [\"{host}\"], secretName: server-tls}}]\n  rules:\n  - host: \"{host}\"\n    http:\n      paths:\n{paths}"
    )
}

pub(crate) fn config_map(name: &str, key: &str, text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: web}}\ndata:\n  {key}: |\n{}",
        indented(text, 4)
    )
}

pub(crate) fn basic_secret(name: &str, user: &str, password: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/basic-auth\nmetadata: {{name: {name}, namespace: web}}\nstringData: {{username: {user}, password: {password}}}\n"
    )
}

pub(crate) fn tls_secret(name: &str, identity: &Identity) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: web}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(&identity.pem(), 4),
        indented(&identity.key.serialize_pem(), 4)
    )
}

/// A Service and the addresses behind it.
pub(crate) fn service(name: &str, ports: &[u16]) -> String {
    let slices: String = ports
        .iter()
        .map(|port| {
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{port}, namespace: web, labels: {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]\n"
            )
        })
        .collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: web}}\nspec: {{ports: [{{port: 80}}]}}\n{slices}"
    )
}
