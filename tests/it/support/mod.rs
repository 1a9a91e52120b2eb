//! What the tests stand on: certificates, manifests, a backend, the program itself, and clients.

pub(crate) mod backend;
pub(crate) mod clients;
pub(crate) mod cores;
pub(crate) mod frames;
pub(crate) mod key_server;
pub(crate) mod manifests;
pub(crate) mod origin;
pub(crate) mod pki;
pub(crate) mod recorder;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod verifier;

use std::path::Path;
use std::process::Command;

use backend::Backend;
use manifests::{basic_secret, config_map, ingress, policy, tls_secret};
use pki::{Ca, Identity, leaf};
use server::Server;

/// What a usual site has: a CA that is trusted, one that is not, people, a backend.
pub(crate) struct Site {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) server_ca: Ca,
    pub(crate) zerossl: Ca,
    pub(crate) other: Ca,
    pub(crate) alice: Identity,
    pub(crate) backend: Backend,
}

/// `Ssl, SslNegotiateCert, SslRequireCert`, and alice one-to-one.
pub(crate) const REQUIRE: &str = "[Ssl, SslNegotiateCert, SslRequireCert]";
/// `Ssl, SslNegotiateCert`.
pub(crate) const NEGOTIATE: &str = "[Ssl, SslNegotiateCert]";

impl Site {
    /// Hosts app.test and open.test with a server certificate, accounts azureuser and test, trust in ZeroSSL; no policy.
    pub(crate) fn new() -> Self {
        cores::leave_one();
        let (server_ca, zerossl, other) =
            (Ca::new("certmap test"), Ca::new("ZeroSSL"), Ca::new("Fabrikam"));
        let site = Self {
            directory: tempfile::tempdir().unwrap(),
            alice: zerossl.issue(leaf("Alice")),
            backend: Backend::start(),
            server_ca,
            zerossl,
            other,
        };
        let server = site.server_ca.issue(pki::server(&[
            "app.test",
            "*.app.test",
            "open.test",
            "other.test",
            "localhost",
        ]));
        site.write("tls.yaml", &tls_secret("server-tls", &server));
        site.write(
            "accounts.yaml",
            &format!(
                "{}---\n{}",
                basic_secret("azureuser", "azureuser", "correct-horse"),
                basic_secret("test", "test", "battery-staple")
            ),
        );
        site.write("trust.yaml", &config_map("corporate-ca", "ca.crt", &site.zerossl.pem()));
        site.write("backend.yaml", &site.backend.manifest("echo"));
        site.write("ingress.yaml", &ingress("app", "app.test", "/", "echo"));
        site.write("open.yaml", &ingress("open", "open.test", "/", "echo"));
        site.alice.write(site.directory.path(), "alice");
        std::fs::write(site.path("server-ca.crt"), site.server_ca.pem()).unwrap();
        site
    }

    /// With a policy for app.test that maps alice one-to-one.
    pub(crate) fn with_alice(flags: &str) -> Self {
        let site = Self::new();
        site.write("policy.yaml", &policy("app", "app", &site.alice_spec(flags)));
        site
    }

    /// And two more whose certificates are refused: `stranger` of another CA, `expired`.
    pub(crate) fn with_people(flags: &str) -> Self {
        let site = Self::with_alice(flags);
        site.person("stranger", &site.other.issue(leaf("Stranger")));
        let mut expired = leaf("Edgar");
        pki::validity(&mut expired, -30, -1);
        site.person("expired", &site.zerossl.issue(expired));
        site
    }

    pub(crate) fn alice_spec(&self, flags: &str) -> String {
        let alice = self.alice.base64();
        format!(
            "sslFlags: {flags}\ntrust: {{caCertificateRefs: [{{kind: ConfigMap, name: corporate-ca}}]}}\noneToOne:\n  mappings:\n  - name: alice-laptop\n    certificate: {alice}\n    account: {{userName: azureuser, secretRef: {{name: azureuser}}}}\nforward: {{userHeader: X-Remote-User, clientCertificate: [rfc9440]}}\n"
        )
    }

    /// Another person's certificate and key, as files.
    pub(crate) fn person(&self, name: &str, identity: &Identity) {
        identity.write(self.directory.path(), name);
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Where the manifests are.
    pub(crate) fn manifests(&self) -> std::path::PathBuf {
        self.path("manifests")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        write_whole(&self.manifests().join(name), text);
    }

    pub(crate) fn start(&self) -> Server {
        Server::start(&self.manifests(), &self.path("access.log"), "json")
    }
}

/// In one step, as editors and volumes do.
pub(crate) fn write_whole(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let part = path.with_extension("part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(part, path).unwrap();
}

/// The output of a program that must be installed.
pub(crate) fn run(command: &mut Command) -> (bool, String) {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
