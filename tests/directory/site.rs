//! A site whose certificates the directory maps.

use std::net::SocketAddr;

use super::certificates::windows_serial;
use super::domain::{ADMIN_PASSWORD, ca};
use super::support::clients::{Who, curl};
use super::support::manifests::{basic_secret, config_map};
use super::support::pki::{Identity, leaf};
use super::support::server::Server;
use super::support::tls::Reply;
use super::support::{NEGOTIATE, Site};

/// As Windows writes the name of the CA that issues the clients' certificates.
pub(crate) const ISSUER: &str = "O=ZeroSSL,CN=ZeroSSL CA 0";

pub(crate) struct Corp {
    pub(crate) site: Site,
    pub(crate) server: Server,
}

/// What a test changes.
pub(crate) struct Terms<'a> {
    pub(crate) urls: &'a str,
    pub(crate) server_name: &'a str,
    pub(crate) cache: &'a str,
    /// Further fields of activeDirectory.
    pub(crate) more: &'a str,
    /// Further fields of spec.
    pub(crate) spec: &'a str,
}

impl Default for Terms<'_> {
    fn default() -> Self {
        Self {
            urls: "ldaps://127.0.0.1",
            server_name: "dc1.corp.example",
            cache: "{ttlSeconds: 1, negativeTtlSeconds: 1}",
            more: "{}",
            spec: "{}",
        }
    }
}

impl Terms<'_> {
    pub(crate) fn policy(&self) -> String {
        let inner = |text: &str| {
            let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap();
            if inner.is_empty() { String::new() } else { format!(", {inner}") }
        };
        format!(
            "apiVersion: certmap.dev/v1alpha1
kind: CertMappingPolicy
metadata: {{name: app, namespace: web}}
spec: {{targetRefs: [{{group: networking.k8s.io, kind: Ingress, name: app}}], sslFlags: {NEGOTIATE}, forward: {{userHeader: X-Remote-User, groupsHeader: X-Remote-Groups}}, trust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}, activeDirectory: {{urls: [\"{}\"], serverName: {}, timeoutSeconds: 2, caCertificateRefs: [{{kind: ConfigMap, name: directory-ca}}], bind: {{secretRef: {{name: directory-bind}}}}, cache: {}{}}}{}}}
",
            self.urls.replace(' ', "\", \""),
            self.server_name,
            self.cache,
            inner(self.more),
            inner(self.spec),
        )
    }
}

impl Corp {
    pub(crate) fn new(terms: &Terms<'_>) -> Self {
        let site = Site::new();
        site.write("directory-ca.yaml", &config_map("directory-ca", "ca.crt", &ca()));
        let bind = basic_secret("directory-bind", "administrator@corp.example", ADMIN_PASSWORD);
        site.write("directory-bind.yaml", &bind);
        site.write("policy.yaml", &terms.policy());
        let server = site.start();
        Self { site, server }
    }

    /// A certificate of the trusted CA, for curl under its name.
    pub(crate) fn person(&self, name: &str, params: rcgen::CertificateParams) -> Identity {
        let identity = self.site.zerossl.issue(params);
        self.site.person(name, &identity);
        identity
    }

    /// And the strong string that maps it.
    pub(crate) fn mapped(&self, name: &str) -> String {
        let identity = self.person(name, leaf(name));
        self.by_serial(&identity)
    }

    pub(crate) fn by_serial(&self, identity: &Identity) -> String {
        let serial = windows_serial(self.site.directory.path(), identity);
        format!("X509:<I>{ISSUER}<SR>{serial}")
    }

    pub(crate) fn get(&self, who: Who<'_>) -> Reply {
        self.get_with(who, &[])
    }

    pub(crate) fn get_with(&self, who: Who<'_>, further: &[&str]) -> Reply {
        curl(&self.site, self.https(), who, "app.test", "/", further)
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.server.https
    }

    /// The code, and the user whom the backend was told of.
    pub(crate) fn outcome(&self, who: Who<'_>) -> (String, String) {
        outcome(&self.get(who))
    }

    /// Why a request was refused last, by the access log.
    pub(crate) fn reason(&self, who: &str) -> String {
        let subject = format!("CN={who}");
        let line =
            self.server.logged(|line| line.contains(&subject) && line.contains("\"reason\""));
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        record["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The value of a counter.
    pub(crate) fn count(&self, series: &str) -> u64 {
        let (_, text) = self.server.admin("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }
}

pub(crate) fn outcome(reply: &Reply) -> (String, String) {
    let user = reply.told()["user"].as_str().unwrap_or("-").to_owned();
    (reply.code(), user)
}

/// A certificate that begins to hold after the account was made, which weak forms need: in the next second.
pub(crate) fn later(params: &mut rcgen::CertificateParams) {
    std::thread::sleep(std::time::Duration::from_millis(1100));
    params.not_before = rcgen::date_time_ymd(1970, 1, 1)
        + std::time::Duration::from_secs(jiff::Timestamp::now().as_second().unsigned_abs());
}
