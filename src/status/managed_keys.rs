//! Secrets with keys that certmap makes itself, where it is told to, and nobody else made.
//!
//! A key is known everywhere for a whole period before it is used, and for one after: `next.key` becomes `current.key`,
//! which becomes `previous.key`. What certmap did not make, it does not touch; and no key is ever logged.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;

use super::FIELD_MANAGER;
use super::lease::Leadership;
use super::writer::Written;
use crate::compile::ObjectName;

/// Who made a Secret.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Set to "true" where somebody made the Secret for certmap to fill. (A chart cannot write another name than Helm's into
/// the other label.)
pub(super) const MADE_FOR: &str = "certmap.dev/managed-keys";
pub(super) const CURRENT: &str = "current.key";
pub(super) const NEXT: &str = "next.key";
pub(super) const PREVIOUS: &str = "previous.key";
/// How often it is looked whether it is time, at least.
const LOOK: Duration = Duration::from_secs(30);
/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(10);

/// Secrets that there should be, and whether each is there.
pub type WantedKeys = BTreeMap<ObjectName, bool>;

/// The system has no random numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there are no random numbers for a key")]
pub struct NoKey;

/// What such Secrets hold. Of another kind none is touched, whoever made it.
#[derive(Debug)]
pub struct KeyKind {
    /// What they are called in the log.
    pub(super) words: &'static str,
    /// The Secrets' type.
    pub(super) type_: &'static str,
    /// The annotation that says when the keys moved up last.
    pub(super) rotated_at: &'static str,
    pub(super) fresh: fn() -> Result<Vec<u8>, NoKey>,
    /// Whether a key that stands there can be used.
    pub(super) is_usable: fn(&[u8]) -> bool,
}

/// Creates what is not there and moves keys up when it is time, while this replica leads.
pub async fn keep_keys(
    kind: &'static KeyKind,
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
            let kept = tokio::time::timeout(LIMIT, kind.keep(&client, name, period));
            let kept = kept.await.unwrap_or_else(|_| Err("no answer".to_owned()));
            if let Some(outcome) = kept.transpose() {
                written("Secret", outcome.is_ok());
                kind.say(name, outcome);
            }
        }
        let gone = tokio::select! {
            changed = wanted.changed() => changed.is_err(),
            changed = leads.changed() => changed.is_err(),
            () = tokio::time::sleep(LOOK.min(period)) => false,
        };
        if gone {
            return;
        }
    }
}

/// What there is to do about a Secret.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Nothing,
    Create(Secret),
    /// The keys move up.
    Replace(Secret),
    /// They stay where they are, and those that cannot be used are made anew or go.
    Mend(Secret),
}

impl KeyKind {
    fn say(&self, name: &ObjectName, outcome: Result<&'static str, String>) {
        let what = self.words;
        match outcome {
            Ok(done) => tracing::info!(%name, "{what} are {done}"),
            Err(error) => {
                tracing::warn!(%name, error, "{what} cannot be kept, which is tried again");
            }
        }
    }

    async fn keep(
        &self,
        client: &Client,
        name: &ObjectName,
        period: Duration,
    ) -> Result<Option<&'static str>, String> {
        let api: Api<Secret> = Api::namespaced(client.clone(), &name.namespace);
        let there = api.get_opt(&name.name).await.map_err(|error| error.to_string())?;
        let step = self.step(name, there.as_ref(), Timestamp::now(), period);
        let params =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let outcome = match &step.map_err(|error| error.to_string())? {
            Step::Nothing => return Ok(None),
            Step::Create(secret) => api.create(&params, secret).await.map(|_| "created"),
            // Onto the version that was read, or not at all.
            Step::Replace(secret) => {
                api.replace(&name.name, &params, secret).await.map(|_| "moved up by one")
            }
            Step::Mend(secret) => api.replace(&name.name, &params, secret).await.map(|_| "mended"),
        };
        match outcome {
            // Somebody else was quicker: the next look will tell.
            Err(Error::Api(status)) if status.code == 409 => Ok(None),
            outcome => outcome.map(Some).map_err(|error| error.to_string()),
        }
    }

    pub(super) fn step(
        &self,
        name: &ObjectName,
        there: Option<&Secret>,
        now: Timestamp,
        period: Duration,
    ) -> Result<Step, NoKey> {
        let Some(there) = there else { return self.first(name, now).map(Step::Create) };
        let metadata = &there.metadata;
        if !self.made(there) || metadata.deletion_timestamp.is_some() {
            return Ok(Step::Nothing);
        }
        let rotated = metadata.annotations.as_ref().and_then(|all| all.get(self.rotated_at));
        let rotated = rotated.and_then(|text| text.parse::<Timestamp>().ok());
        // A time further ahead than that is of a clock that went wrong: waited for, it might never come.
        let is_due = rotated.is_none_or(|at| now.duration_since(at).unsigned_abs() >= period);
        if is_due || self.usable(there, CURRENT).is_none() {
            return self.moved_up(there.clone(), now).map(Step::Replace);
        }
        let is_there = |at: &str| there.data.as_ref().is_some_and(|data| data.contains_key(at));
        let is_well = self.usable(there, NEXT).is_some()
            && self.usable(there, PREVIOUS).is_some() == is_there(PREVIOUS);
        if is_well { Ok(Step::Nothing) } else { self.mended(there.clone()).map(Step::Mend) }
    }

    /// Whether certmap made it, or it was made for certmap, as one of this kind.
    fn made(&self, secret: &Secret) -> bool {
        let says = |label: &str, word: &str| {
            let labels = secret.metadata.labels.as_ref();
            labels.and_then(|labels| labels.get(label)).is_some_and(|it| it == word)
        };
        let type_ = secret.type_.as_deref().unwrap_or(self.type_);
        (says(MANAGED_BY, FIELD_MANAGER) || says(MADE_FOR, "true")) && type_ == self.type_
    }

    fn first(&self, name: &ObjectName, now: Timestamp) -> Result<Secret, NoKey> {
        let key = |at: &str| (self.fresh)().map(|key| (at.to_owned(), ByteString(key)));
        let data = [key(CURRENT)?, key(NEXT)?].into();
        let metadata = ObjectMeta {
            name: Some(name.name.clone()),
            namespace: Some(name.namespace.clone()),
            labels: Some([(MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned())].into()),
            annotations: Some([(self.rotated_at.to_owned(), now.to_string())].into()),
            ..ObjectMeta::default()
        };
        let type_ = Some(self.type_.to_owned());
        Ok(Secret { metadata, data: Some(data), type_, ..Secret::default() })
    }

    /// What is to be the next key has to be known before it is the current one.
    fn mended(&self, mut secret: Secret) -> Result<Secret, NoKey> {
        let next = match self.usable(&secret, NEXT) {
            Some(next) => next.clone(),
            None => ByteString((self.fresh)()?),
        };
        let is_previous_usable = self.usable(&secret, PREVIOUS).is_some();
        let data = secret.data.get_or_insert_default();
        data.insert(NEXT.to_owned(), next);
        if !is_previous_usable {
            data.remove(PREVIOUS);
        }
        Ok(secret)
    }

    fn moved_up(&self, mut secret: Secret, now: Timestamp) -> Result<Secret, NoKey> {
        let fresh = || (self.fresh)().map(ByteString);
        let current = match self.usable(&secret, NEXT) {
            Some(next) => next.clone(),
            None => fresh()?,
        };
        let previous = self.usable(&secret, CURRENT).cloned();
        let data = secret.data.get_or_insert_default();
        match previous {
            Some(previous) => drop(data.insert(PREVIOUS.to_owned(), previous)),
            None => drop(data.remove(PREVIOUS)),
        }
        data.insert(CURRENT.to_owned(), current);
        data.insert(NEXT.to_owned(), fresh()?);
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(self.rotated_at.to_owned(), now.to_string());
        Ok(secret)
    }

    pub(super) fn usable<'a>(&self, secret: &'a Secret, at: &str) -> Option<&'a ByteString> {
        let key = secret.data.as_ref()?.get(at)?;
        (self.is_usable)(&key.0).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: KeyKind = KeyKind {
        words: "keys",
        type_: "Opaque",
        rotated_at: "certmap.dev/rotated-at",
        fresh: || {
            let mut key = vec![0; 8];
            aws_lc_rs::rand::fill(&mut key).map(|()| key).map_err(|_| NoKey)
        },
        is_usable: |key| key.len() == 8,
    };

    const PERIOD: Duration = Duration::from_secs(3600);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn name() -> ObjectName {
        ObjectName::new("web", "keys")
    }

    fn created() -> Secret {
        let Ok(Step::Create(secret)) = KIND.step(&name(), None, at(0), PERIOD) else {
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
        let (current, next) =
            (KIND.usable(&secret, CURRENT).unwrap(), KIND.usable(&secret, NEXT).unwrap());
        assert_ne!(current, next);
        assert_eq!(KIND.step(&name(), Some(&secret), at(59), PERIOD), Ok(Step::Nothing));
    }

    #[test]
    fn when_it_is_time_every_key_moves_up_by_one() {
        let first = created();
        let Ok(Step::Replace(second)) = KIND.step(&name(), Some(&first), at(60), PERIOD) else {
            panic!("not replaced")
        };
        assert_eq!(key(&second, PREVIOUS), key(&first, CURRENT));
        assert_eq!(key(&second, CURRENT), key(&first, NEXT));
        assert!(key(&second, NEXT) != key(&first, NEXT) && KIND.usable(&second, NEXT).is_some());
        assert_eq!(KIND.step(&name(), Some(&second), at(119), PERIOD), Ok(Step::Nothing));
        let Ok(Step::Replace(third)) = KIND.step(&name(), Some(&second), at(120), PERIOD) else {
            panic!("not replaced")
        };
        assert_eq!(key(&third, PREVIOUS), key(&first, NEXT));
    }

    #[test]
    fn what_certmap_did_not_make_is_not_touched() {
        let mut secret = created();
        secret.metadata.labels = Some([(MANAGED_BY.to_owned(), "Helm".to_owned())].into());
        secret.data = None;
        assert_eq!(KIND.step(&name(), Some(&secret), at(9999), PERIOD), Ok(Step::Nothing));
        secret.metadata.labels = None;
        assert_eq!(KIND.step(&name(), Some(&secret), at(9999), PERIOD), Ok(Step::Nothing));
    }

    #[test]
    fn a_key_that_cannot_sign_is_replaced_and_never_moves_up() {
        let mut secret = created();
        let bad = ByteString(b"spoilt".to_vec());
        secret.data.as_mut().unwrap().insert(NEXT.to_owned(), bad.clone());
        let Ok(Step::Replace(then)) = KIND.step(&name(), Some(&secret), at(61), PERIOD) else {
            panic!("not replaced")
        };
        assert!(KIND.usable(&then, CURRENT).is_some());
        secret.data.as_mut().unwrap().insert(CURRENT.to_owned(), bad);
        let Ok(Step::Replace(then)) = KIND.step(&name(), Some(&secret), at(1), PERIOD) else {
            panic!("not replaced")
        };
        assert!(KIND.usable(&then, CURRENT).is_some() && key(&then, PREVIOUS).is_none());
    }

    #[test]
    fn a_spoilt_key_that_is_not_the_current_one_is_mended_at_once_and_nothing_moves() {
        let first = created();
        let bad = || ByteString(b"spoilt".to_vec());
        let rotated_at = |secret: &Secret| secret.metadata.annotations.clone();
        for (spoil, expected) in [
            (Some((NEXT, Some(bad()))), true),
            (Some((NEXT, None)), true),
            (Some((PREVIOUS, Some(bad()))), true),
            (None, false),
        ] {
            let mut secret = first.clone();
            let data = secret.data.as_mut().unwrap();
            match spoil.clone() {
                Some((at, Some(key))) => drop(data.insert(at.to_owned(), key)),
                Some((at, None)) => drop(data.remove(at)),
                None => {}
            }
            let step = KIND.step(&name(), Some(&secret), at(1), PERIOD);
            let Ok(Step::Mend(mended)) = step else {
                assert!(!expected && step == Ok(Step::Nothing), "{spoil:?}");
                continue;
            };
            assert!(expected, "{spoil:?}");
            assert_eq!(key(&mended, CURRENT), key(&first, CURRENT));
            assert_eq!(rotated_at(&mended), rotated_at(&first));
            assert!(KIND.usable(&mended, NEXT).is_some() && key(&mended, PREVIOUS).is_none());
            if spoil.is_some_and(|(at, _)| at == PREVIOUS) {
                assert_eq!(key(&mended, NEXT), key(&first, NEXT), "the other one stays");
            }
            assert_eq!(KIND.step(&name(), Some(&mended), at(1), PERIOD), Ok(Step::Nothing));
        }
    }

    #[test]
    fn an_empty_secret_that_was_made_for_certmap_gets_its_first_keys() {
        let mut secret = created();
        (secret.data, secret.metadata.annotations) = (None, None);
        let by_helm = (MANAGED_BY.to_owned(), "Helm".to_owned());
        secret.metadata.labels = Some([by_helm, (MADE_FOR.to_owned(), "true".to_owned())].into());
        let Ok(Step::Replace(first)) = KIND.step(&name(), Some(&secret), at(1), PERIOD) else {
            panic!("not replaced")
        };
        assert!(KIND.usable(&first, CURRENT).is_some() && KIND.usable(&first, NEXT).is_some());
        assert!(key(&first, PREVIOUS).is_none());
        assert_eq!(KIND.step(&name(), Some(&first), at(2), PERIOD), Ok(Step::Nothing));
    }

    #[test]
    fn a_time_that_cannot_be_read_or_is_far_ahead_counts_as_long_ago_and_a_near_one_is_waited_for()
    {
        let mut secret = created();
        assert_eq!(KIND.step(&name(), Some(&secret), at(-59), PERIOD), Ok(Step::Nothing));
        let ahead = KIND.step(&name(), Some(&secret), at(-60), PERIOD);
        let Ok(Step::Replace(moved)) = ahead else { panic!("a clock that went wrong") };
        assert_eq!(KIND.step(&name(), Some(&moved), at(-60), PERIOD), Ok(Step::Nothing));
        secret.metadata.annotations = None;
        assert!(matches!(KIND.step(&name(), Some(&secret), at(1), PERIOD), Ok(Step::Replace(_))));
    }
}
