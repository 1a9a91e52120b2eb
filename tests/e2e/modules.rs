//! What policies refer to beyond CAs and accounts, in a cluster: key sets, external services, directories. Each comes into
//! force when it appears, and the conditions say what is missing until then.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{PublicKeyData, SigningKey};
use serde_json::json;

use super::client::curl;
use super::site::{Site, basic_secret, config_map, ingress};
use super::status::until;

/// A key set with the public half of a P-256 key, as JSON.
fn key_set(key: &rcgen::KeyPair) -> String {
    let point = key.der_bytes();
    let (x, y) = point[1..].split_at(32);
    let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
    json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "x": x, "y": y}]}).to_string()
}

/// A token of that key, for `audience`.
fn token(key: &rcgen::KeyPair, audience: &str) -> String {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims =
        json!({"iss": "https://id.test", "aud": audience, "sub": "carol", "exp": now + 300});
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "1"})), part(&claims));
    // DER to the fixed form (RFC 7518, 3.4).
    let der = key.sign(signed.as_bytes()).unwrap();
    let mut fixed = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (integer, after) = rest[2..].split_at(rest[1].into());
        let octets = &integer[integer.len().saturating_sub(32)..];
        fixed.extend(std::iter::repeat_n(0, 32 - octets.len()));
        fixed.extend(octets);
        rest = after;
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fixed))
}

#[test]
fn tokens_are_good_once_their_key_set_is_there() {
    let host = "bearer.modules.test";
    let site = Site::new("bearer", &[host], 1).ready();
    site.namespace.apply(&ingress("app", host, "/", "whoami-0"));
    site.policy("app", "app", "sslFlags: [Ssl]\nauthentication:\n- bearer: {issuer: 'https://id.test', audiences: [app], jwks: {ref: {kind: ConfigMap, name: keys}}}\nforward: {userHeader: X-Remote-User}\n");
    let message = until(&site, "app", "ResolvedRefs", "False", "KeysUnresolved");
    assert!(message.contains("keys does not exist"), "{message}");
    let key = rcgen::KeyPair::generate().unwrap();
    let ask = |audience: &str| {
        let bearer = format!("Authorization: Bearer {}", token(&key, audience));
        curl(site.installed, site.path(), "-", host, "/", &["-H", &bearer])
    };
    assert_eq!(ask("app").code(), "503.94");
    site.namespace.apply(&config_map("keys", "jwks.json", &key_set(&key)));
    until(&site, "app", "ResolvedRefs", "True", "ResolvedRefs");
    super::eventually("carol by her token", || {
        let reply = ask("app");
        if reply.user() == "carol" { Ok(()) } else { Err(format!("{reply:?}")) }
    });
    assert_eq!(ask("another").code(), "401.1");
    assert_eq!(site.get("-", host, "/").code(), "401.2");
}

#[test]
fn an_external_service_decides_as_long_as_it_is_there() {
    let host = "external.modules.test";
    let site = Site::new("external", &[host], 1).ready();
    site.namespace.apply(&ingress("app", host, "/", "whoami-0"));
    let spec = "sslFlags: [Ssl]\nauthentication:\n- external: {serviceRef: {name: verify, port: 80}, path: /verify}\n";
    site.policy("app", "app", spec);
    let message = until(&site, "app", "ResolvedRefs", "False", "ExternalUnresolved");
    assert!(message.contains("verify"), "{message}");
    site.until("-", host, "/", "503.95");
    site.namespace.apply("apiVersion: v1\nkind: Service\nmetadata: {name: verify}\nspec: {selector: {app: whoami}, ports: [{name: web, port: 80, targetPort: 8081}]}\n");
    site.until("-", host, "/", "200");
    until(&site, "app", "ResolvedRefs", "True", "ResolvedRefs");
    site.namespace.kubectl(&["delete", "service", "verify"]);
    site.until("-", host, "/", "503.95");
}

#[test]
fn a_directory_that_cannot_be_asked_admits_nobody_and_says_what_it_lacks() {
    let host = "directory.modules.test";
    let site = Site::new("directory", &[host], 1).ready();
    site.namespace.apply(&ingress("app", host, "/", "whoami-0"));
    let spec = "sslFlags: [Ssl, SslNegotiateCert]\ntrust: {caCertificateRefs: [{kind: ConfigMap, name: corporate-ca}]}\nactiveDirectory:\n  urls: ['ldaps://192.0.2.1']\n  timeoutSeconds: 1\n  caCertificateRefs: [{kind: ConfigMap, name: corporate-ca}]\n  bind: {secretRef: {name: binder}}\nauthentication: [{anonymous: {}}]\n";
    site.policy("app", "app", spec);
    let message = until(&site, "app", "ResolvedRefs", "False", "DirectoryUnusable");
    assert!(message.contains("binder"), "{message}");
    site.until("alice", host, "/", "503.93");
    site.namespace.apply(&basic_secret("binder", "CORP\\\\binder", "secret"));
    until(&site, "app", "ResolvedRefs", "True", "ResolvedRefs");
    assert_eq!(site.get("alice", host, "/").code(), "503.93", "nobody answers there");
    assert_eq!(site.get("stranger", host, "/").code(), "403.16", "nobody is asked about her");
    assert_eq!(site.get("-", host, "/").code(), "200");
}
