//! Keys to sign identities with: the Secrets that policies name.

use std::collections::BTreeSet;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use super::managed_keys::{KeyKind, NoKey, WantedKeys};
use crate::compile::{ObjectName, PolicyObject, World};

/// Published before they sign and after: whoever verifies need not know when they change, as long as it looks up keys more
/// often than that.
pub static SIGNING_KEYS: KeyKind = KeyKind {
    words: "signing keys",
    type_: "Opaque",
    rotated_at: "certmap.dev/signing-keys-rotated-at",
    fresh: || signing_key().map(String::into_bytes).map_err(|_| NoKey),
    is_usable: can_sign,
};

/// Which Secrets policies sign with.
#[must_use]
pub fn wanted_keys(world: &World) -> WantedKeys {
    let names: BTreeSet<ObjectName> = world
        .policies
        .iter()
        .filter_map(|(name, object)| match object {
            PolicyObject::Readable(policy) => {
                let signed = policy.spec.forward.signed_identity.as_ref()?;
                Some(ObjectName::new(&name.namespace, &signed.key_secret_ref.name))
            }
            PolicyObject::Unreadable { .. } => None,
        })
        .collect();
    names.into_iter().map(|name| (name.clone(), world.secrets.contains_key(&name))).collect()
}

/// A new private key: P-256, PKCS#8 in PEM.
///
/// # Errors
/// The system has no random numbers.
pub fn signing_key() -> Result<String, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(|key| key.serialize_pem())
}

fn can_sign(key: &[u8]) -> bool {
    let pair = std::str::from_utf8(key).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
    pair.is_some_and(|pair| pair.is_compatible(&PKCS_ECDSA_P256_SHA256))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::super::managed_keys::{CURRENT, NEXT, Step};
    use super::*;

    fn name() -> ObjectName {
        ObjectName::new("web", "keys")
    }

    fn created() -> Secret {
        let (now, period) = (Timestamp::UNIX_EPOCH, Duration::from_secs(3600));
        let Ok(Step::Create(secret)) = SIGNING_KEYS.step(&name(), None, now, period) else {
            panic!("not created")
        };
        secret
    }

    #[test]
    fn keys_that_are_made_can_sign() {
        let secret = created();
        let key = |at| SIGNING_KEYS.usable(&secret, at).unwrap();
        assert_ne!(key(CURRENT), key(NEXT));
        assert!(!can_sign(b"spoilt"));
    }

    #[test]
    fn wanted_are_the_secrets_that_policies_sign_with() {
        let mut world = World::default();
        let policy = json!({
            "apiVersion": "certmap.dev/v1alpha1", "kind": "CertMappingPolicy", "metadata": {"name": "p", "namespace": "web"},
            "spec": {"forward": {"signedIdentity": {"keySecretRef": {"name": "keys"}}}},
        });
        let policy = serde_json::from_value(policy).unwrap();
        world.apply(crate::compile::Object::Policy(std::sync::Arc::new(policy)));
        assert_eq!(wanted_keys(&world), [(name(), false)].into());
        world.apply(crate::compile::Object::Secret(std::sync::Arc::new(created())));
        assert_eq!(wanted_keys(&world), [(name(), true)].into());
    }
}
