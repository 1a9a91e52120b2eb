//! TLS Secrets → the certificates that the server shows.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use super::finding::{Finding, Severity};
use super::options::Options;
use super::world::{ObjectKind, ObjectName, ObjectRef, World};
use crate::identity::{Validity, read_certificates};
use crate::snapshot::{HostPattern, HostTable, ServerCertificates};

/// Certificates by Secret: last good is kept for each.
pub(super) type KeptCertificates = HashMap<ObjectName, KeptCertificate>;

/// A certificate, and the Secret it was made from.
#[derive(Clone, Debug)]
pub(super) struct KeptCertificate {
    made_from: Arc<Secret>,
    certificate: Arc<CertifiedKey>,
    /// Seconds since 1970.
    expiry: Option<i64>,
}

/// Makes server certificates.
pub(super) struct ServerCertificateReader<'a> {
    world: &'a World,
    earlier: &'a KeptCertificates,
    pub(super) kept: KeptCertificates,
    by_host: HostTable<Arc<CertifiedKey>>,
    owners: HashMap<HostPattern, &'a ObjectName>,
    pub(super) findings: Vec<Finding>,
}

impl<'a> ServerCertificateReader<'a> {
    pub(super) fn new(world: &'a World, earlier: &'a KeptCertificates) -> Self {
        Self {
            world,
            earlier,
            kept: KeptCertificates::new(),
            by_host: HostTable::default(),
            owners: HashMap::new(),
            findings: Vec::new(),
        }
    }

    /// Takes what an Ingress says; where two speak of one host, the first one counts.
    pub(super) fn take(&mut self, name: &'a ObjectName, ingress: &'a Ingress) {
        let entries = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        for (index, tls) in entries.enumerate() {
            let Some(secret) = &tls.secret_name else { continue };
            let (certificate, problem) = self.get(&ObjectName::new(&name.namespace, secret));
            if let Some(message) = problem {
                self.findings.push(Finding {
                    severity: Severity::Error,
                    object: ObjectRef { kind: ObjectKind::Ingress, name: name.clone() },
                    target: None,
                    field: format!("spec.tls[{index}].secretName"),
                    reason: "CertificateUnusable",
                    message,
                });
            }
            let Some(certificate) = certificate else { continue };
            let hosts = tls.hosts.iter().flatten();
            let any = tls.hosts.as_ref().is_none_or(Vec::is_empty).then_some(HostPattern::Any);
            for host in hosts.filter_map(|host| HostPattern::parse(host)).chain(any) {
                if *self.owners.entry(host.clone()).or_insert(name) == name {
                    self.by_host.insert(host, certificate.clone());
                }
            }
        }
    }

    /// What handshakes show; and when the certificate of each Secret expires, in seconds since 1970.
    pub(super) fn table(
        &mut self,
        options: &Options,
    ) -> (ServerCertificates, Vec<(ObjectName, i64)>) {
        let default = options.default_certificate.as_ref().and_then(|name| {
            let (certificate, problem) = self.get(name);
            self.findings.extend(problem.map(|message| Finding {
                severity: Severity::Error,
                object: ObjectRef { kind: ObjectKind::Secret, name: name.clone() },
                target: None,
                field: String::new(),
                reason: "CertificateUnusable",
                message: format!("{message} (it is the default certificate)"),
            }));
            certificate
        });
        let fallback = default.unwrap_or_else(|| options.fallback_certificate.clone());
        let by_host = std::mem::take(&mut self.by_host);
        let expiries =
            self.kept.iter().filter_map(|(name, kept)| Some((name.clone(), kept.expiry?)));
        let mut expiries: Vec<(ObjectName, i64)> = expiries.collect();
        expiries.sort_unstable();
        (ServerCertificates { by_host, fallback }, expiries)
    }

    /// The certificate of a Secret, perhaps the one read before; and what is wrong.
    fn get(&mut self, name: &ObjectName) -> (Option<Arc<CertifiedKey>>, Option<String>) {
        let Some(secret) = self.world.secrets.get(name) else {
            return (
                None,
                Some(format!(
                    "Secret {name} does not exist: create it with kubectl create secret tls"
                )),
            );
        };
        let earlier = self.kept.get(name).or_else(|| self.earlier.get(name)).cloned();
        if let Some(kept) = earlier.as_ref().filter(|kept| Arc::ptr_eq(&kept.made_from, secret)) {
            self.kept.insert(name.clone(), kept.clone());
            return (Some(kept.certificate.clone()), None);
        }
        match certified_key(secret) {
            Ok(certificate) => {
                let expiry = certificate.cert.first().and_then(Validity::of);
                let kept = KeptCertificate {
                    made_from: secret.clone(),
                    certificate: Arc::new(certificate),
                    expiry: expiry.map(|validity| validity.not_after),
                };
                self.kept.insert(name.clone(), kept.clone());
                (Some(kept.certificate), None)
            }
            Err(problem) => {
                let message = format!("Secret {name}: {problem}");
                let Some(kept) = earlier else { return (None, Some(message)) };
                self.kept.insert(name.clone(), kept.clone());
                let message = format!("{message}; the certificate read before stays in force");
                (Some(kept.certificate), Some(message))
            }
        }
    }
}

/// The certificate of a TLS Secret, with its key.
///
/// # Errors
/// What is wrong with it.
pub(super) fn certified_key(secret: &Secret) -> Result<CertifiedKey, String> {
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
