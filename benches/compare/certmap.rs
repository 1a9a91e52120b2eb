//! certmap's own manifests: a policy with one-to-one and many-to-one mappings, headers stamped, the access log on.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::pki::{self, HOST};
use crate::process::{self, Server};

/// What the policy says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mappings {
    /// Fingerprints; the client's is the last of them.
    pub(crate) one_to_one: usize,
    /// Rules; none of them is the client's.
    pub(crate) many_to_one: usize,
}

/// As in every table.
pub(crate) const USUAL: Mappings = Mappings { one_to_one: 100, many_to_one: 20 };

/// The image, whose environment the program has here too.
const IMAGE: &str = include_str!("../../deploy/Dockerfile");

/// Writes the manifests and says where.
pub(crate) fn manifests(
    name: &str,
    pki: &Path,
    backend: SocketAddr,
    mappings: Mappings,
) -> anyhow::Result<PathBuf> {
    let directory = process::scratch(name)?;
    let write = |file: &str, text: String| std::fs::write(directory.join(file), text);
    write("ingress.yaml", ingress("bench", HOST, "server"))?;
    write("policy.yaml", policy(pki, mappings)?)?;
    write("trust.yaml", trust(&std::fs::read_to_string(pki.join("ca.crt"))?))?;
    write("server.yaml", secret("server", pki, "server")?)?;
    let (address, port) = (backend.ip(), backend.port());
    write(
        "backend.yaml",
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: backend, namespace: bench}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: backend-1, namespace: bench, labels: {{kubernetes.io/service-name: backend}}}}\n\
             addressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]\n"
        ),
    )?;
    Ok(directory)
}

/// Everything that a server needs, in `pki` and `manifests` of a directory.
pub(crate) fn files(directory: &Path, backend: SocketAddr) -> anyhow::Result<()> {
    let pki = pki::make(pki::Kind::Ec)?;
    process::copy(&manifests("manifests", &pki, backend, USUAL)?, &directory.join("manifests"))?;
    process::copy(&pki, &directory.join("pki"))
}

/// Serves manifests on some cores.
pub(crate) fn start(
    name: &str,
    program: &Path,
    cores: &str,
    manifests: &Path,
) -> anyhow::Result<Server> {
    let (https, http, admin) =
        (process::free_address()?, process::free_address()?, process::free_address()?);
    let log = std::env::temp_dir().join("certmap-compare").join(format!("{name}.access"));
    let mut command = process::on_cores(cores, program);
    let environment = IMAGE.lines().filter_map(|line| line.strip_prefix("ENV ")?.split_once('='));
    command
        .envs(environment)
        .args(["run", "--manifests"])
        .arg(manifests)
        .args(["--https", &https.to_string(), "--http", &http.to_string()])
        .args(["--admin", &admin.to_string(), "--access-log"])
        .arg(log)
        .args([
            "--access-log-size",
            "100000000",
            "--idle-timeout",
            "3600",
            "--head-timeout",
            "3600",
        ]);
    Server::start(name, https, command)
}

pub(crate) fn ingress(name: &str, host: &str, secret: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: certmap}}\nspec: {{controller: certmap.dev/ingress-controller}}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: bench}}\nspec:\n  ingressClassName: certmap\n\
         \x20 tls: [{{hosts: [{host}], secretName: {secret}}}]\n  rules:\n  - host: {host}\n    http: {{paths: [{{path: /, pathType: Prefix, \
         backend: {{service: {{name: backend, port: {{number: 80}}}}}}}}]}}\n---\n"
    )
}

pub(crate) fn secret(name: &str, pki: &Path, pair: &str) -> anyhow::Result<String> {
    let read = |kind: &str| {
        std::fs::read_to_string(pki.join(format!("{pair}.{kind}"))).map(|pem| indented(&pem))
    };
    Ok(format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: bench}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
        read("crt")?,
        read("key")?
    ))
}

pub(crate) fn trust(pem: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: bench}}\ndata:\n  ca.crt: |\n{}",
        indented(pem)
    )
}

fn indented(pem: &str) -> String {
    pem.lines().map(|line| format!("    {line}\n")).collect()
}

/// With no mappings at all everybody whose certificate verifies is admitted under a name of the certificate.
pub(crate) fn policy(pki: &Path, mappings: Mappings) -> anyhow::Result<String> {
    let client = pki::read(pki, "client")?.0.remove(0);
    let mut text = "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {name: bench, namespace: bench}\nspec:\n\
        \x20 targetRefs: [{group: networking.k8s.io, kind: Ingress, name: bench}]\n\
        \x20 sslFlags: [Ssl, SslNegotiateCert, SslRequireCert]\n\
        \x20 trust: {caCertificateRefs: [{kind: ConfigMap, name: ca}]}\n\
        \x20 forward: {userHeader: X-Remote-User, clientCertificate: [rfc9440]}\n"
        .to_owned();
    if mappings.one_to_one == 0 {
        text.push_str("  admitAnyVerified: {userFrom: SubjectCN}\n");
        return Ok(text);
    }
    text.push_str("  oneToOne:\n    mappings:\n");
    for number in 1..mappings.one_to_one {
        writeln!(
            text,
            "    - {{name: m{number}, sha256: \"{number:064x}\", account: {{userName: user{}}}}}",
            number % 1000
        )?;
    }
    writeln!(
        text,
        "    - {{name: client, certificate: {}, account: {{userName: azureuser}}}}",
        STANDARD.encode(&client)
    )?;
    text.push_str("  manyToOne:\n    mappings:\n");
    for number in 0..mappings.many_to_one {
        writeln!(
            text,
            "    - {{name: r{number}, rules: [{{certificateField: Subject, certificateSubField: OU, matchCriteria: Unit {number}}}], account: {{userName: unit{}}}}}",
            number % 1000
        )?;
    }
    Ok(text)
}
