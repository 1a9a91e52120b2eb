//! Signing keys that certmap makes itself, where it is told to: the Secrets that policies name and nobody made.
//!
//! A key is published for a whole period before it signs, and for one after: `next.key` becomes `current.key`, which
//! becomes `previous.key`. Whoever verifies need not know when, as long as it looks up keys more often than that. What
//! certmap did not make, it does not touch.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::sync::watch;

use super::FIELD_MANAGER;
use super::lease::Leadership;
use super::writer::Written;
use crate::compile::{ObjectName, PolicyObject, World};

/// Who made a Secret.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// When its keys moved up last.
const ROTATED_AT: &str = "certmap.dev/signing-keys-rotated-at";
const CURRENT: &str = "current.key";
const NEXT: &str = "next.key";
const PREVIOUS: &str = "previous.key";
/// How often it is looked whether it is time.
const LOOK: Duration = Duration::from_secs(30);
/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(10);

/// The Secrets that policies sign with, and whether each is there.
pub type WantedKeys = BTreeMap<ObjectName, bool>;

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

/// Creates what is not there and moves keys up when it is time, while this replica leads.
pub async fn keep_signing_keys(
    client: Client,
    mut wanted: watch::Receiver<WantedKeys>,
    mut leads: Leadership,
    period: Duration,
    written: Written,
) {
    loop {
        let names = wanted.borrow_and_update().clone();
        let leading = *leads.borrow_and_update();
        for name in names.keys().filter(|_| leading) {
            let kept = tokio::time::timeout(LIMIT, keep(&client, name, period));
            let kept = kept.await.unwrap_or_else(|_| Err("no answer".to_owned()));
            if let Some(outcome) = kept.transpose() {
                written("Secret", outcome.is_ok());
                say(name, outcome);
            }
        }
        let gone = tokio::select! {
            changed = wanted.changed() => changed.is_err(),
            changed = leads.changed() => changed.is_err(),
            () = tokio::time::sleep(LOOK) => false,
        };
        if gone {
            return;
        }
    }
}

fn say(name: &ObjectName, outcome: Result<&'static str, String>) {
    match outcome {
        Ok(done) => tracing::info!(%name, "signing keys are {done}"),
        Err(error) => {
            tracing::warn!(%name, error, "signing keys cannot be kept, which is tried again")
        }
    }
}

async fn keep(
    client: &Client,
    name: &ObjectName,
    period: Duration,
) -> Result<Option<&'static str>, String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &name.namespace);
    let there = api.get_opt(&name.name).await.map_err(|error| error.to_string())?;
    let step = step(name, there.as_ref(), Timestamp::now(), period);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
    let outcome = match &step.map_err(|error| error.to_string())? {
        Step::Nothing => return Ok(None),
        Step::Create(secret) => api.create(&params, secret).await.map(|_| "created"),
        // Onto the version that was read, or not at all.
        Step::Replace(secret) => {
            api.replace(&name.name, &params, secret).await.map(|_| "moved up by one")
        }
    };
    match outcome {
        // Somebody else was quicker: the next look will tell.
        Err(Error::Api(status)) if status.code == 409 => Ok(None),
        outcome => outcome.map(Some).map_err(|error| error.to_string()),
    }
}

/// What there is to do about a Secret.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create(Secret),
    Replace(Secret),
}

fn step(
    name: &ObjectName,
    there: Option<&Secret>,
    now: Timestamp,
    period: Duration,
) -> Result<Step, rcgen::Error> {
    let Some(there) = there else { return first(name, now).map(Step::Create) };
    let metadata = &there.metadata;
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    if label.is_none_or(|by| by != FIELD_MANAGER) || metadata.deletion_timestamp.is_some() {
        return Ok(Step::Nothing);
    }
    let rotated = metadata.annotations.as_ref().and_then(|all| all.get(ROTATED_AT));
    let rotated = rotated.and_then(|text| text.parse::<Timestamp>().ok());
    let is_due =
        rotated.is_none_or(|at| now.duration_since(at).unsigned_abs() >= period && at <= now);
    if !is_due && usable(there, CURRENT).is_some() {
        return Ok(Step::Nothing);
    }
    moved_up(there.clone(), now).map(Step::Replace)
}

fn first(name: &ObjectName, now: Timestamp) -> Result<Secret, rcgen::Error> {
    let key = |at: &str| signing_key().map(|pem| (at.to_owned(), ByteString(pem.into_bytes())));
    let data = [key(CURRENT)?, key(NEXT)?].into();
    let metadata = ObjectMeta {
        name: Some(name.name.clone()),
        namespace: Some(name.namespace.clone()),
        labels: Some([(MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned())].into()),
        annotations: Some([(ROTATED_AT.to_owned(), now.to_string())].into()),
        ..ObjectMeta::default()
    };
    let type_ = Some("Opaque".to_owned());
    Ok(Secret { metadata, data: Some(data), type_, ..Secret::default() })
}

fn moved_up(mut secret: Secret, now: Timestamp) -> Result<Secret, rcgen::Error> {
    let fresh = || signing_key().map(|pem| ByteString(pem.into_bytes()));
    let current = match usable(&secret, NEXT) {
        Some(next) => next.clone(),
        None => fresh()?,
    };
    let previous = usable(&secret, CURRENT).cloned();
    let data = secret.data.get_or_insert_default();
    match previous {
        Some(previous) => drop(data.insert(PREVIOUS.to_owned(), previous)),
        None => drop(data.remove(PREVIOUS)),
    }
    data.insert(CURRENT.to_owned(), current);
    data.insert(NEXT.to_owned(), fresh()?);
    let annotations = secret.metadata.annotations.get_or_insert_default();
    annotations.insert(ROTATED_AT.to_owned(), now.to_string());
    Ok(secret)
}

/// A key that can sign.
fn usable<'a>(secret: &'a Secret, at: &str) -> Option<&'a ByteString> {
    let key = secret.data.as_ref()?.get(at)?;
    let pem = std::str::from_utf8(&key.0).ok()?;
    let pair = KeyPair::from_pem(pem).ok()?;
    pair.is_compatible(&PKCS_ECDSA_P256_SHA256).then_some(key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(3600);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn name() -> ObjectName {
        ObjectName::new("web", "keys")
    }

    fn created() -> Secret {
        let Ok(Step::Create(secret)) = step(&name(), None, at(0), PERIOD) else {
            panic!("not created")
        };
        secret
    }

    fn key<'a>(secret: &'a Secret, at: &str) -> Option<&'a ByteString> {
        secret.data.as_ref()?.get(at)
    }

    #[test]
    fn a_secret_that_nobody_made_is_made_with_a_key_and_the_one_after_it() {
        let secret = created();
        assert_eq!(ObjectName::of(&secret.metadata), name());
        let (current, next) = (usable(&secret, CURRENT).unwrap(), usable(&secret, NEXT).unwrap());
        assert_ne!(current, next);
        assert_eq!(step(&name(), Some(&secret), at(59), PERIOD), Ok(Step::Nothing));
    }

    #[test]
    fn when_it_is_time_every_key_moves_up_by_one() {
        let first = created();
        let Ok(Step::Replace(second)) = step(&name(), Some(&first), at(60), PERIOD) else {
            panic!("not replaced")
        };
        assert_eq!(key(&second, PREVIOUS), key(&first, CURRENT));
        assert_eq!(key(&second, CURRENT), key(&first, NEXT));
        assert!(key(&second, NEXT) != key(&first, NEXT) && usable(&second, NEXT).is_some());
        assert_eq!(step(&name(), Some(&second), at(119), PERIOD), Ok(Step::Nothing));
        let Ok(Step::Replace(third)) = step(&name(), Some(&second), at(120), PERIOD) else {
            panic!("not replaced")
        };
        assert_eq!(key(&third, PREVIOUS), key(&first, NEXT));
    }

    #[test]
    fn what_certmap_did_not_make_is_not_touched() {
        let mut secret = created();
        secret.metadata.labels = Some([(MANAGED_BY.to_owned(), "Helm".to_owned())].into());
        secret.data = None;
        assert_eq!(step(&name(), Some(&secret), at(9999), PERIOD), Ok(Step::Nothing));
        secret.metadata.labels = None;
        assert_eq!(step(&name(), Some(&secret), at(9999), PERIOD), Ok(Step::Nothing));
    }

    #[test]
    fn a_key_that_cannot_sign_is_replaced_and_never_moves_up() {
        let mut secret = created();
        let bad = ByteString(b"spoilt".to_vec());
        secret.data.as_mut().unwrap().insert(NEXT.to_owned(), bad.clone());
        assert_eq!(
            step(&name(), Some(&secret), at(1), PERIOD),
            Ok(Step::Nothing),
            "it does not sign yet"
        );
        let Ok(Step::Replace(then)) = step(&name(), Some(&secret), at(61), PERIOD) else {
            panic!("not replaced")
        };
        assert!(usable(&then, CURRENT).is_some());
        secret.data.as_mut().unwrap().insert(CURRENT.to_owned(), bad);
        let Ok(Step::Replace(then)) = step(&name(), Some(&secret), at(1), PERIOD) else {
            panic!("not replaced")
        };
        assert!(usable(&then, CURRENT).is_some() && key(&then, PREVIOUS).is_none());
    }

    #[test]
    fn a_time_that_cannot_be_read_is_long_ago_and_one_to_come_is_waited_for() {
        let mut secret = created();
        assert_eq!(step(&name(), Some(&secret), at(-9999), PERIOD), Ok(Step::Nothing));
        secret.metadata.annotations = None;
        assert!(matches!(step(&name(), Some(&secret), at(1), PERIOD), Ok(Step::Replace(_))));
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
