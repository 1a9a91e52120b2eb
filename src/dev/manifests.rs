//! The story as manifests: the kind of files that a newcomer can learn from.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{DevError, read};
use crate::identity::read_certificates;

/// Files that hold certificates.
const BOUND: &[&str] = &["policy.yaml", "trust.yaml", "server-certificate.yaml"];

/// Puts aside what belongs to earlier certificates; nothing of it is lost.
pub(super) fn set_aside(manifests: &Path) -> Result<(), DevError> {
    for name in BOUND {
        let path = manifests.join(name);
        let free = (1..)
            .map(|number| manifests.join(format!("{name}.{number}.old")))
            .find(|aside| !aside.exists());
        if let (true, Some(aside)) = (path.exists(), free) {
            std::fs::rename(&path, &aside)
                .map_err(|error| DevError::File { path: path.clone(), error })?;
        }
    }
    Ok(())
}

/// Writes what is not there yet: people edit these files. Where the backend is changes with every start.
pub(super) fn write(
    directory: &Path,
    manifests: &Path,
    whoami: SocketAddr,
) -> Result<(), DevError> {
    let pem = |name: &str| read(&directory.join(name));
    let alice = read_certificates(pem("alice.crt")?.as_bytes()).unwrap_or_default();
    let alice = alice.first().map(|der| STANDARD.encode(der)).unwrap_or_default();
    let server = (indented(&pem("localhost.crt")?), indented(&pem("localhost.key")?));
    let files = [
        ("ingress.yaml", INGRESS.to_owned()),
        ("policy.yaml", POLICY.replace("ALICE", &alice)),
        ("basic.yaml", BASIC.to_owned()),
        ("accounts.yaml", ACCOUNTS.to_owned()),
        ("trust.yaml", TRUST.replace("    CA\n", &indented(&pem("client-ca.crt")?))),
        (
            "server-certificate.yaml",
            SERVER.replace("    CRT\n", &server.0).replace("    KEY\n", &server.1),
        ),
    ];
    for (name, content) in files {
        let path = manifests.join(name);
        if !path.exists() {
            super::write(&path, content)?;
            super::private(&path, 0o600)?;
        }
    }
    let backend = BACKEND
        .replace("ADDRESS", &whoami.ip().to_string())
        .replace("PORT", &whoami.port().to_string());
    super::write(&manifests.join("whoami.yaml"), backend)
}

fn indented(pem: &str) -> String {
    pem.lines().map(|line| format!("    {line}\n")).collect()
}

const INGRESS: &str = "\
# The class says whose Ingresses these are.
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: certmap
spec:
  controller: certmap.dev/ingress-controller
---
# Two Ingresses share one host; each path is judged by the policy of its own Ingress.
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: intranet
  namespace: web
spec:
  ingressClassName: certmap
  tls:
  - hosts: [localhost]
    secretName: localhost-tls
  rules:
  - host: localhost
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: whoami, port: {number: 80}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: basic
  namespace: web
spec:
  ingressClassName: certmap
  rules:
  - host: localhost
    http:
      paths:
      - path: /basic
        pathType: Prefix
        backend: {service: {name: whoami, port: {number: 80}}}
";

const POLICY: &str = "\
# A certificate is demanded, and becomes an account.
apiVersion: certmap.dev/v1alpha1
kind: CertMappingPolicy
metadata:
  name: intranet
  namespace: web
spec:
  targetRefs:
  - {group: networking.k8s.io, kind: Ingress, name: intranet}
  sslFlags: [Ssl, SslNegotiateCert, SslRequireCert]
  trust:
    caCertificateRefs:
    - {kind: ConfigMap, name: corporate-ca}
  oneToOne:
    mappings:
    # This one certificate is azureuser: the base64 of its DER, on one line.
    - name: alice-laptop
      certificate: ALICE
      account: {userName: azureuser, secretRef: {name: azureuser}}
  manyToOne:
    # Hot reload: set this to true and save. unmapped.crt gets 200 as test, at once.
    enabled: false
    mappings:
    - name: zerossl
      description: anyone ZeroSSL vouches for
      rules:
      - {certificateField: Issuer, certificateSubField: O, matchCriteria: ZeroSSL}
      account: {userName: test, secretRef: {name: test}}
  forward:
    userHeader: X-Remote-User
    clientCertificate: [rfc9440]
";

const BASIC: &str = "\
# A certificate is welcome; without one, a password will do. A wrong certificate is refused all the same.
apiVersion: certmap.dev/v1alpha1
kind: CertMappingPolicy
metadata:
  name: basic
  namespace: web
spec:
  targetRefs:
  - {group: networking.k8s.io, kind: Ingress, name: basic}
  sslFlags: [Ssl, SslNegotiateCert]
  trust:
    caCertificateRefs:
    - {kind: ConfigMap, name: corporate-ca}
  authentication:
  - basic: {secretRefs: [{name: test}]}
  forward:
    userHeader: X-Remote-User
";

const ACCOUNTS: &str = "\
# The accounts that certificates stand for.
apiVersion: v1
kind: Secret
type: kubernetes.io/basic-auth
metadata: {name: azureuser, namespace: web}
stringData: {username: azureuser, password: correct-horse}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/basic-auth
metadata: {name: test, namespace: web}
stringData: {username: test, password: battery-staple}
";

const TRUST: &str = "\
# Who may issue client certificates. Never the system's roots.
apiVersion: v1
kind: ConfigMap
metadata: {name: corporate-ca, namespace: web}
data:
  ca.crt: |
    CA
";

const SERVER: &str = "\
# The server's own certificate.
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {name: localhost-tls, namespace: web}
stringData:
  tls.crt: |
    CRT
  tls.key: |
    KEY
";

const BACKEND: &str = "\
# Where the whoami backend of this run is. Written anew at each start.
apiVersion: v1
kind: Service
metadata: {name: whoami, namespace: web}
spec:
  ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: whoami-1
  namespace: web
  labels: {kubernetes.io/service-name: whoami}
addressType: IPv4
ports: [{port: PORT}]
endpoints:
- addresses: [ADDRESS]
  conditions: {ready: true}
";
