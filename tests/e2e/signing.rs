//! Signing keys that certmap makes and changes itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::client::Reply;
use super::cluster::try_kubectl;
use super::eventually;
use super::install::Own;
use super::site::{Site, ingress_with};

const REQUIRE: &str = "[Ssl, SslNegotiateCert, SslRequireCert]";
const ROTATED_AT: &str = "certmap.dev/signing-keys-rotated-at";
const HOST: &str = "a.signing.test";

/// The names of the keys that a set holds.
fn kids(reply: &Reply) -> Vec<String> {
    let set: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let keys = set["keys"].as_array().cloned().unwrap_or_default();
    keys.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect()
}

/// The name of the key that signed what the backend was sent.
fn signed_by(reply: &Reply) -> Option<String> {
    let line =
        reply.body.lines().find(|line| line.to_lowercase().contains("x-certmap-identity"))?;
    let token = line.rsplit([' ', '"']).find(|word| word.matches('.').count() == 2)?;
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    header["kid"].as_str().map(str::to_owned)
}

#[test]
fn keys_that_nobody_made_are_made_and_changed_with_nobody_noticing() {
    let own = Own::new("signing");
    let mut site = Site::new("signing", &[HOST], 1);
    site.installed = own.install(&["--set", "signedIdentity.manageKeys=true"]);
    let site = site.ready();
    let further = "ingressClassName: signing\n";
    site.namespace.apply(&ingress_with("app", further, HOST, &[("/", "Prefix", "whoami-0")]));
    let signed = "forward: {userHeader: X-Remote-User, signedIdentity: {keySecretRef: {name: signing-key}, publish: true}}";
    let spec = site.alice_spec(REQUIRE).replace("forward: {userHeader: X-Remote-User}", signed);
    site.policy("app", "app", &spec);
    // Made by the replica that leads, and in force on all of them.
    site.until_user("alice", HOST, "/", "azureuser");
    let secret = || site.namespace.get(&["secret", "signing-key"]);
    let first = secret();
    assert_eq!(first["metadata"]["labels"]["app.kubernetes.io/managed-by"], "certmap");
    let keys = || kids(&site.get("-", HOST, "/.well-known/certmap/jwks.json"));
    assert_eq!(keys().len(), 2, "one that signs, and the next");
    let old = signed_by(&site.get("alice", HOST, "/")).expect("a signed identity");
    assert!(keys().contains(&old));
    // It is time: without a date, it was long ago.
    let removed = format!("{ROTATED_AT}-");
    site.namespace.kubectl(&["annotate", "secret", "signing-key", &removed]);
    let second = eventually("the next key", || {
        let now = secret();
        let moved = now["data"]["previous.key"] == first["data"]["current.key"];
        if moved { Ok(now) } else { Err(now["metadata"].to_string()) }
    });
    assert_eq!(second["data"]["current.key"], first["data"]["next.key"]);
    assert!(second["metadata"]["annotations"][ROTATED_AT].is_string());
    eventually("a signature by it, and both keys published", || {
        let (new, keys) = (signed_by(&site.get("alice", HOST, "/")), keys());
        let both = keys.contains(&old) && new.as_ref().is_some_and(|new| keys.contains(new));
        if both && new.as_ref() != Some(&old) && keys.len() == 3 {
            Ok(())
        } else {
            Err(format!("{new:?} {keys:?}"))
        }
    });
    // It was stolen: what comes in its place nobody knows.
    site.namespace.kubectl(&["delete", "secret", "signing-key"]);
    eventually("new keys", || {
        let (ok, text) = try_kubectl(&["get", "secret", "signing-key", "-n", &site.namespace.0]);
        if ok { Ok(()) } else { Err(text) }
    });
    eventually("none of the old ones", || {
        let keys = keys();
        if keys.len() == 2 && !keys.contains(&old) { Ok(()) } else { Err(format!("{keys:?}")) }
    });
    site.until_user("alice", HOST, "/", "azureuser");
    // What somebody else made is not touched, whatever it says.
    let patch = r#"{"metadata": {"labels": {"app.kubernetes.io/managed-by": null}, "annotations": {"certmap.dev/signing-keys-rotated-at": "2000-01-01T00:00:00Z"}}}"#;
    site.namespace.kubectl(&["patch", "secret", "signing-key", "-p", patch]);
    let before = secret()["data"].clone();
    std::thread::sleep(std::time::Duration::from_secs(40));
    assert_eq!(secret()["data"], before);
}
