//! What a usual site has: people, a CA that is trusted and one that is not, pods that answer.

use std::path::Path;

use super::client::{Reply, curl};
use super::cluster::Namespace;
use super::eventually;
use super::install::{Installed, installed};
use super::pki::{self, Ca, Identity, leaf};

/// A namespace with pods that answer, certificates and accounts; files of all people.
pub(crate) struct Site {
    pub(crate) namespace: Namespace,
    pub(crate) files: tempfile::TempDir,
    pub(crate) server_ca: Ca,
    pub(crate) zerossl: Ca,
    pub(crate) alice: Identity,
    pub(crate) installed: &'static Installed,
}

/// The ports that each pod answers on: Service `whoami-N` leads to port 8080 + N.
pub(crate) const SERVICES: u16 = 6;

impl Site {
    /// `hosts` are in the server's certificate, Secret `server-tls`.
    pub(crate) fn new(name: &str, hosts: &[&str], replicas: u32) -> Self {
        let installed = installed();
        let (server_ca, zerossl, other) =
            (Ca::new("certmap e2e"), Ca::new("ZeroSSL"), Ca::new("Fabrikam"));
        let files = tempfile::tempdir().unwrap();
        let alice = zerossl.issue(leaf("Alice"));
        let mut expired = leaf("Edgar");
        pki::validity(&mut expired, -30, -1);
        alice.write(files.path(), "alice");
        zerossl.issue(leaf("Bob")).write(files.path(), "bob");
        zerossl.issue(expired).write(files.path(), "expired");
        other.issue(leaf("Stranger")).write(files.path(), "stranger");
        std::fs::write(files.path().join("server-ca.crt"), server_ca.pem()).unwrap();
        let namespace = Namespace::new(name);
        namespace.apply(&whoami(replicas));
        let server = server_ca.issue(pki::server(hosts));
        namespace.apply(&tls_secret("server-tls", &server));
        namespace.apply(&basic_secret("azureuser", "azureuser", "correct-horse"));
        namespace.apply(&basic_secret("test", "test", "battery-staple"));
        namespace.apply(&config_map("corporate-ca", "ca.crt", &zerossl.pem()));
        Self { namespace, files, server_ca, zerossl, alice, installed }
    }

    /// Until its pods answer.
    pub(crate) fn ready(self) -> Self {
        self.namespace.kubectl(&["rollout", "status", "deployment/whoami", "--timeout=90s"]);
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.files.path()
    }

    pub(crate) fn get(&self, who: &str, host: &str, path: &str) -> Reply {
        curl(self.installed, self.path(), who, host, path, &[])
    }

    /// Whatever certificate the server has: that of a host which nobody knows is not for its name.
    pub(crate) fn get_unchecked(&self, who: &str, host: &str, path: &str) -> Reply {
        curl(self.installed, self.path(), who, host, path, &["--insecure"])
    }

    /// Until a request is answered so.
    pub(crate) fn until(&self, who: &str, host: &str, path: &str, code: &str) -> Reply {
        eventually(&format!("{code} for {who} at {host}{path}"), || {
            let unknown = code == "404";
            let reply = if unknown {
                self.get_unchecked(who, host, path)
            } else {
                self.get(who, host, path)
            };
            if reply.code() == code { Ok(reply) } else { Err(format!("{reply:?}")) }
        })
    }

    /// Until the backend is told of this user.
    pub(crate) fn until_user(&self, who: &str, host: &str, path: &str, user: &str) -> Reply {
        eventually(&format!("user {user} for {who} at {host}{path}"), || {
            let reply = self.get(who, host, path);
            if reply.user() == user { Ok(reply) } else { Err(format!("{reply:?}")) }
        })
    }

    /// A policy for one Ingress; `spec` is YAML without indentation.
    pub(crate) fn policy(&self, name: &str, ingress: &str, spec: &str) {
        self.namespace.apply(&policy(name, ingress, spec));
    }

    pub(crate) fn alice_spec(&self, flags: &str) -> String {
        format!(
            "sslFlags: {flags}\ntrust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}\noneToOne:\n  mappings:\n  - name: alice-laptop\n    certificate: {}\n    account: {{userName: azureuser, secretRef: {{name: azureuser}}}}\nforward: {{userHeader: X-Remote-User}}\n",
            self.alice.base64()
        )
    }
}

pub(crate) fn indented(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

pub(crate) fn policy(name: &str, ingress: &str, spec: &str) -> String {
    format!(
        "apiVersion: certmap.dev/v1alpha1\nkind: CertMappingPolicy\nmetadata: {{name: {name}}}\nspec:\n  targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: {ingress}}}]\n{}",
        indented(spec, 2)
    )
}

/// One path of a host, with the server's certificate.
pub(crate) fn ingress(name: &str, host: &str, path: &str, service: &str) -> String {
    ingress_with(name, "ingressClassName: certmap\n", host, &[(path, "Prefix", service)])
}

/// `further` are fields of the spec.
pub(crate) fn ingress_with(
    name: &str,
    further: &str,
    host: &str,
    paths: &[(&str, &str, &str)],
) -> String {
    let paths: String = paths
        .iter()
        .map(|(path, kind, service)| {
            format!("      - {{path: \"{path}\", pathType: {kind}, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}\n")
        })
        .collect();
    let rule_host = if host.is_empty() { String::new() } else { format!("host: \"{host}\"\n    ") };
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\nspec:\n{}  rules:\n  - {rule_host}http:\n      paths:\n{paths}",
        indented(
            &format!(
                "{further}tls: [{{secretName: server-tls, hosts: [\"{}\"]}}]\n",
                if host.is_empty() { "none.test" } else { host }
            ),
            2
        )
    )
}

pub(crate) fn config_map(name: &str, key: &str, text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  {key}: |\n{}",
        indented(text, 4)
    )
}

pub(crate) fn basic_secret(name: &str, user: &str, password: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/basic-auth\nmetadata: {{name: {name}}}\nstringData: {{username: {user}, password: {password}}}\n"
    )
}

pub(crate) fn tls_secret(name: &str, identity: &Identity) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(&identity.pem(), 4),
        indented(&identity.key.serialize_pem(), 4)
    )
}

/// Pods that say who they are and what they were told, and a Service for each of their ports.
pub(crate) fn whoami(replicas: u32) -> String {
    let image = std::env::var("E2E_IMAGE").unwrap_or_else(|_| "localhost/certmap:e2e".to_owned());
    let listen: String =
        (0..SERVICES).map(|n| format!(", \"--listen=0.0.0.0:{}\"", 8080 + n)).collect();
    let services: String = (0..SERVICES)
        .map(|n| {
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: whoami-{n}}}\nspec: {{selector: {{app: whoami}}, ports: [{{name: web, port: 80, targetPort: {}}}]}}\n",
                8080 + n
            )
        })
        .collect();
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: whoami}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: whoami}}}}
  template:
    metadata: {{labels: {{app: whoami}}}}
    spec:
      securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}}}
      terminationGracePeriodSeconds: 1
      containers:
      - name: whoami
        image: {image}
        imagePullPolicy: Never
        args: [whoami{listen}]
        env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
        readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
        securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
{services}"
    )
}
