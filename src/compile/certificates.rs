//! Certificates and key sets out of ConfigMaps and Secrets.
//!
//! Last good is kept for each object and key: one that is there but cannot be read stays what it was, one that is
//! deleted is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::dependency::{Dependency, Lookup};
use super::world::ObjectName;
use crate::api::{CaCertificateRef, KeySetRef, ObjectKind};
use crate::auth::KeySet;
use crate::identity::read_certificates;
use crate::policy::TrustBundle;

/// Kind, object, key.
type Place = (&'static str, ObjectName, String);

/// What was last read, by place.
#[derive(Clone, Debug, Default)]
pub(super) struct LastGood {
    certificates: HashMap<Place, Arc<[CertificateDer<'static>]>>,
    key_sets: HashMap<Place, Arc<KeySet>>,
}

/// Certificates, perhaps older than what is there now.
pub(super) struct Found {
    pub(super) certificates: Arc<[CertificateDer<'static>]>,
    /// Why they are not what is there now.
    pub(super) stale: Option<String>,
}

impl LastGood {
    /// Reads the certificates of a key.
    ///
    /// # Errors
    /// One sentence: object, key, reason, what to do.
    pub(super) fn read(
        &mut self,
        lookup: &Lookup<'_>,
        kind: ObjectKind,
        name: &ObjectName,
        key: &str,
    ) -> Result<Found, String> {
        let word = word(kind);
        let place = (word, name.clone(), key.to_owned());
        let Some(content) = content(lookup, kind, name, key) else {
            self.certificates.remove(&place);
            return Err(format!("{word} {name} does not exist: create it with the key {key}"));
        };
        let read = content.and_then(|bytes| {
            read_certificates(&bytes).map_err(|error| format!("{word} {name}, key {key}: {error}"))
        });
        match read {
            Ok(certificates) => {
                let certificates: Arc<[_]> = certificates.into();
                self.certificates.insert(place, certificates.clone());
                Ok(Found { certificates, stale: None })
            }
            Err(problem) => match self.certificates.get(&place) {
                Some(certificates) => {
                    Ok(Found { certificates: certificates.clone(), stale: Some(problem) })
                }
                None => Err(problem),
            },
        }
    }

    /// The CAs that a policy of namespace `from` names, and why they are not what is there now. A bundle with a
    /// certificate that is no CA's is as bad as one that cannot be read.
    ///
    /// # Errors
    /// There are none: one sentence.
    pub(super) fn cas(
        &mut self,
        lookup: &Lookup<'_>,
        from: &str,
        reference: &CaCertificateRef,
    ) -> Result<(Arc<[CertificateDer<'static>]>, Option<String>), String> {
        let elsewhere = reference.namespace.as_deref();
        let name = &Self::resolve(lookup, from, reference.kind, &reference.name, elsewhere)?;
        let earlier = self.get(reference.kind, name, &reference.key);
        let found = self.read(lookup, reference.kind, name, &reference.key)?;
        let Err(error) = TrustBundle::new(&found.certificates, 0) else {
            return Ok((found.certificates, found.stale));
        };
        let problem = format!("{:?} {name}, key {}: {error}", reference.kind, reference.key);
        let restored = self.restore(earlier, reference.kind, name, &reference.key);
        // It may have been read for something else, which needs no CA.
        match restored.filter(|earlier| TrustBundle::new(earlier, 0).is_ok()) {
            Some(certificates) => Ok((certificates, Some(problem))),
            None => Err(problem),
        }
    }

    /// The key set that a policy of namespace `from` names, and why it is not what is there now.
    ///
    /// # Errors
    /// There is none: one sentence.
    pub(super) fn key_set(
        &mut self,
        lookup: &Lookup<'_>,
        from: &str,
        reference: &KeySetRef,
    ) -> Result<(Arc<KeySet>, Option<String>), String> {
        let (kind, key, elsewhere) =
            (reference.kind, &reference.key, reference.namespace.as_deref());
        let name = Self::resolve(lookup, from, kind, &reference.name, elsewhere)?;
        let place = (word(kind), name.clone(), key.clone());
        let Some(content) = content(lookup, kind, &name, key) else {
            self.key_sets.remove(&place);
            return Err(format!("{kind:?} {name} does not exist: create it with the key {key}"));
        };
        let read = content.and_then(|bytes| {
            KeySet::parse(&bytes).map_err(|error| format!("{kind:?} {name}, key {key}: {error}"))
        });
        match read {
            Ok(keys) => {
                let keys = Arc::new(keys);
                self.key_sets.insert(place, keys.clone());
                Ok((keys, None))
            }
            Err(problem) => match self.key_sets.get(&place) {
                Some(keys) => Ok((keys.clone(), Some(problem))),
                None => Err(problem),
            },
        }
    }

    /// The object that a policy of namespace `from` refers to.
    ///
    /// # Errors
    /// Nothing allows it: one sentence.
    pub(super) fn resolve(
        lookup: &Lookup<'_>,
        from: &str,
        kind: ObjectKind,
        name: &str,
        namespace: Option<&str>,
    ) -> Result<ObjectName, String> {
        lookup.resolve(from, kind.into(), name, namespace)
    }

    /// Lets go of what stands in objects that nobody looked for: whether they are deleted meanwhile would not be seen.
    pub(super) fn keep_only<'a>(&mut self, looked_for: impl Iterator<Item = &'a Dependency>) {
        let looked_for = looked_for.filter_map(|dependency| match dependency {
            Dependency::ConfigMap(name, _) => Some((word(ObjectKind::ConfigMap), name)),
            Dependency::Secret(name, _) => Some((word(ObjectKind::Secret), name)),
            Dependency::Grant { .. } => None,
        });
        let looked_for: HashSet<(&str, &ObjectName)> = looked_for.collect();
        let is_kept = |(kind, name, _): &Place| looked_for.contains(&(*kind, name));
        self.certificates.retain(|place, _| is_kept(place));
        self.key_sets.retain(|place, _| is_kept(place));
    }

    /// What was last read.
    pub(super) fn get(
        &self,
        kind: ObjectKind,
        name: &ObjectName,
        key: &str,
    ) -> Option<Arc<[CertificateDer<'static>]>> {
        self.certificates.get(&(word(kind), name.clone(), key.to_owned())).cloned()
    }

    /// Puts back what was read earlier, because what is there now turned out to be of no use.
    pub(super) fn restore(
        &mut self,
        earlier: Option<Arc<[CertificateDer<'static>]>>,
        kind: ObjectKind,
        name: &ObjectName,
        key: &str,
    ) -> Option<Arc<[CertificateDer<'static>]>> {
        let place = (word(kind), name.clone(), key.to_owned());
        match &earlier {
            Some(certificates) => self.certificates.insert(place, certificates.clone()),
            None => self.certificates.remove(&place),
        };
        earlier
    }
}

/// `None` where the object is not there, an error where its key is not.
pub(super) fn content(
    lookup: &Lookup<'_>,
    kind: ObjectKind,
    name: &ObjectName,
    key: &str,
) -> Option<Result<Vec<u8>, String>> {
    let (bytes, mut keys): (Option<Vec<u8>>, Vec<&String>) = match kind {
        ObjectKind::ConfigMap => {
            let object = lookup.config_map(name)?;
            let text = object
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .map(|text| text.as_bytes().to_vec());
            let binary = || {
                object
                    .binary_data
                    .as_ref()
                    .and_then(|data| data.get(key))
                    .map(|bytes| bytes.0.clone())
            };
            let keys = object.data.iter().flat_map(|data| data.keys());
            (
                text.or_else(binary),
                keys.chain(object.binary_data.iter().flat_map(|data| data.keys())).collect(),
            )
        }
        ObjectKind::Secret => {
            let object = lookup.secret(name)?;
            let bytes =
                object.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
            (bytes, object.data.iter().flat_map(|data| data.keys()).collect())
        }
    };
    keys.sort();
    Some(
        bytes.ok_or_else(|| {
            format!("{} {name} has no key {key} (keys: {})", word(kind), list(&keys))
        }),
    )
}

fn list(keys: &[&String]) -> String {
    if keys.is_empty() {
        "none".to_owned()
    } else {
        keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ")
    }
}

fn word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::ConfigMap => "ConfigMap",
        ObjectKind::Secret => "Secret",
    }
}
