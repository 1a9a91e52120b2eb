//! Signing keys, out of Secrets.

use k8s_openapi::api::core::v1::Secret;

use super::account::key;
use super::dependency::Lookup;
use super::world::ObjectName;
use crate::api;
use crate::auth::{PublicKey, SigningKey};
use crate::policy::{SignedIdentity, SigningKeys};

/// Signs.
const CURRENT: &str = "current.key";
/// Published only.
const OTHERS: &[&str] = &["previous.key", "next.key"];

/// What a policy signs with, and what is wrong although it can sign.
pub(super) fn signed_identity(
    namespace: &str,
    spec: &api::SignedIdentity,
    issuer: &str,
    lookup: &Lookup<'_>,
) -> (SignedIdentity, Vec<String>) {
    let name = ObjectName::new(namespace, &spec.key_secret_ref.name);
    let mut problems = Vec::new();
    let keys = lookup.secret(&name).ok_or_else(|| {
        format!(
            "Secret {name} does not exist: create it (certmap signing-key prints one), or let certmap do so (--manage-signing-keys)"
        )
    });
    let keys = keys.and_then(|secret| {
        let current = read(&name, secret, CURRENT)?.ok_or_else(|| {
            format!("Secret {name} has no key {CURRENT}: create it anew (certmap signing-key prints one)")
        })?;
        let mut others: Vec<PublicKey> = Vec::new();
        for other in OTHERS {
            match read(&name, secret, other) {
                Ok(found) => others.extend(found.map(|key| key.public().clone())),
                Err(problem) => problems.push(format!("{problem}; it is not published")),
            }
        }
        Ok(SigningKeys { current, others })
    });
    let signed = SignedIdentity {
        header: spec.header.to_ascii_lowercase().into(),
        audience: spec.audience.as_deref().map(Into::into),
        issuer: issuer.into(),
        lifetime: spec.lifetime_seconds.into(),
        publish: spec.publish,
        keys: keys.map_err(Into::into),
    };
    (signed, problems)
}

fn read(name: &ObjectName, secret: &Secret, at: &str) -> Result<Option<SigningKey>, String> {
    let Some(pem) = key(secret, at) else { return Ok(None) };
    let read = SigningKey::from_pem(pem).map(Some);
    read.map_err(|error| format!("Secret {name}, key {at}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use k8s_openapi::ByteString;
    use rcgen::KeyPair;
    use serde_json::json;

    use super::super::world::{Object, World};
    use super::*;

    fn compiled(data: &[(&str, &str)]) -> (SignedIdentity, Vec<String>) {
        let mut world = World::default();
        if !data.is_empty() {
            let data = data
                .iter()
                .map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())));
            let mut secret =
                Secret { data: Some(data.collect::<BTreeMap<_, _>>()), ..Secret::default() };
            (secret.metadata.namespace, secret.metadata.name) =
                (Some("web".to_owned()), Some("keys".to_owned()));
            world.apply(Object::Secret(Arc::new(secret)));
        }
        let spec: api::SignedIdentity =
            serde_json::from_value(json!({"keySecretRef": {"name": "keys"}})).unwrap();
        signed_identity("web", &spec, "certmap", &Lookup::new(&world))
    }

    #[test]
    fn the_current_key_signs_and_the_others_are_published() {
        let [a, b, c] = [(); 3].map(|()| KeyPair::generate().unwrap().serialize_pem());
        let (signed, problems) =
            compiled(&[("current.key", &a), ("previous.key", &b), ("next.key", &c)]);
        let keys = signed.keys.unwrap();
        assert_eq!((keys.public().count(), problems.len()), (3, 0));
        let current = SigningKey::from_pem(a.as_bytes()).unwrap();
        assert_eq!(keys.current.public(), current.public());
        assert_eq!((&*signed.header, signed.lifetime), ("x-certmap-identity", 60));
    }

    #[test]
    fn a_bad_key_among_the_others_is_left_out_and_a_bad_current_one_is_no_key() {
        let good = KeyPair::generate().unwrap().serialize_pem();
        let (signed, problems) = compiled(&[("current.key", &good), ("next.key", "x")]);
        assert_eq!(signed.keys.unwrap().public().count(), 1);
        assert!(
            problems[0].starts_with("Secret web/keys, key next.key: it is no private key"),
            "{problems:?}"
        );
        for (data, expected) in [
            (&[][..], "Secret web/keys does not exist"),
            (&[("tls.key", &*good)], "has no key current.key"),
            (&[("current.key", "x")], "key current.key: it is no private key in PEM"),
        ] {
            let problem = compiled(data).0.keys.unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
