//! TLS Secrets → the certificates that the server shows.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use super::world::{ObjectName, World};
use crate::identity::{Validity, read_certificates};

/// Certificates by Secret, with the Secret each was made from: last good is kept for each.
pub(super) type KeptCertificates = HashMap<ObjectName, (Arc<Secret>, Arc<CertifiedKey>)>;

/// Makes server certificates.
pub(super) struct ServerCertificateReader<'a> {
    world: &'a World,
    earlier: &'a KeptCertificates,
    pub(super) kept: KeptCertificates,
}

impl<'a> ServerCertificateReader<'a> {
    pub(super) fn new(world: &'a World, earlier: &'a KeptCertificates) -> Self {
        Self { world, earlier, kept: KeptCertificates::new() }
    }

    /// When each leaf expires, in seconds since 1970.
    pub(super) fn expiries(&self) -> Vec<(ObjectName, i64)> {
        let leaf = |certificate: &CertifiedKey| Validity::of(certificate.cert.first()?);
        let all = self.kept.iter();
        all.filter_map(|(name, (_, made))| Some((name.clone(), leaf(made)?.not_after))).collect()
    }

    /// The certificate of a Secret, perhaps the one read before; and what is wrong.
    pub(super) fn get(&mut self, name: &ObjectName) -> (Option<Arc<CertifiedKey>>, Option<String>) {
        let Some(secret) = self.world.secrets.get(name) else {
            return (
                None,
                Some(format!(
                    "Secret {name} does not exist: create it with kubectl create secret tls"
                )),
            );
        };
        let earlier = self.kept.get(name).or_else(|| self.earlier.get(name));
        if let Some((made_from, certificate)) =
            earlier.filter(|(made_from, _)| Arc::ptr_eq(made_from, secret))
        {
            let kept = (made_from.clone(), certificate.clone());
            let certificate = certificate.clone();
            self.kept.insert(name.clone(), kept);
            return (Some(certificate), None);
        }
        match certified_key(secret) {
            Ok(certificate) => {
                let certificate = Arc::new(certificate);
                self.kept.insert(name.clone(), (secret.clone(), certificate.clone()));
                (Some(certificate), None)
            }
            Err(problem) => {
                let message = format!("Secret {name}: {problem}");
                let Some(kept) = earlier.cloned() else { return (None, Some(message)) };
                let certificate = kept.1.clone();
                self.kept.insert(name.clone(), kept);
                (
                    Some(certificate),
                    Some(format!("{message}; the certificate read before stays in force")),
                )
            }
        }
    }
}

fn certified_key(secret: &Secret) -> Result<CertifiedKey, String> {
    let key = |key: &str| {
        let bytes =
            secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        bytes.ok_or_else(|| format!("no key {key}"))
    };
    let chain = read_certificates(key("tls.crt")?).map_err(|error| format!("tls.crt: {error}"))?;
    let private = PrivateKeyDer::from_pem_slice(key("tls.key")?)
        .map_err(|_| "tls.key: not a private key in PEM".to_owned())?;
    CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).map_err(|error| {
        match error {
            rustls::Error::InconsistentKeys(_) => "tls.key does not belong to tls.crt".to_owned(),
            other => format!("{other}"),
        }
    })
}
