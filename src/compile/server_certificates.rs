//! TLS Secrets → the certificates that the server shows.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;
use rustls::SignatureAlgorithm;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;

use super::finding::{Finding, Severity};
use super::options::Options;
use super::world::{ObjectKind, ObjectName, ObjectRef, World};
use crate::identity::{Validity, good_until, read_certificates, serial};
use crate::snapshot::{
    HostCertificates, HostPattern, HostTable, ServerCertificate, ServerCertificates, Stapled,
};

/// Where a Secret may hold an OCSP response.
const STAPLE: &str = "tls.ocsp-staple";

/// Certificates by Secret: last good is kept for each.
pub(super) type KeptCertificates = HashMap<ObjectName, KeptCertificate>;

/// A certificate, and the Secret it was made from.
#[derive(Clone, Debug)]
pub(super) struct KeptCertificate {
    made_from: Arc<Secret>,
    certificate: Arc<ServerCertificate>,
    validity: Option<Validity>,
    /// Why its OCSP response is not stapled.
    staple_problem: Option<String>,
}

/// When what the TLS Secrets in use hold ends, in seconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Expiries {
    /// The server certificate of each.
    pub certificates: Vec<(ObjectName, i64)>,
    /// The OCSP response of each that has one which is stapled: its nextUpdate.
    pub staples: Vec<(ObjectName, i64)>,
}

/// The certificates of one host, and whose Ingress brings them.
struct Candidates<'a> {
    owner: &'a ObjectName,
    certificates: Vec<KeptCertificate>,
}

/// Makes server certificates.
pub(super) struct ServerCertificateReader<'a> {
    world: &'a World,
    earlier: &'a KeptCertificates,
    pub(super) kept: KeptCertificates,
    by_host: HashMap<HostPattern, Candidates<'a>>,
    pub(super) findings: Vec<Finding>,
}

impl<'a> ServerCertificateReader<'a> {
    pub(super) fn new(world: &'a World, earlier: &'a KeptCertificates) -> Self {
        Self {
            world,
            earlier,
            kept: KeptCertificates::new(),
            by_host: HashMap::new(),
            findings: Vec::new(),
        }
    }

    /// Takes what an Ingress says; where two speak of one host, the first one counts. One Ingress may bring a certificate
    /// for each kind of key.
    pub(super) fn take(&mut self, name: &'a ObjectName, ingress: &'a Ingress) {
        let entries = ingress.spec.iter().flat_map(|spec| spec.tls.iter().flatten());
        for (index, tls) in entries.enumerate() {
            let Some(secret) = &tls.secret_name else { continue };
            let (certificate, problem) = self.get(&ObjectName::new(&name.namespace, secret));
            let object = || ObjectRef { kind: ObjectKind::Ingress, name: name.clone() };
            let finding = |severity, reason, message| Finding {
                severity,
                object: object(),
                target: None,
                field: format!("spec.tls[{index}].secretName"),
                reason,
                message,
            };
            let problem =
                problem.map(|message| finding(Severity::Error, "CertificateUnusable", message));
            let staple = certificate.as_ref().and_then(|kept| kept.staple_problem.clone());
            let staple =
                staple.map(|message| finding(Severity::Warning, "StapleUnusable", message));
            self.findings.extend(problem.into_iter().chain(staple));
            let Some(certificate) = certificate else { continue };
            let hosts = tls.hosts.iter().flatten();
            let any = tls.hosts.as_ref().is_none_or(Vec::is_empty).then_some(HostPattern::Any);
            for host in hosts.filter_map(|host| HostPattern::parse(host)).chain(any) {
                let empty = Candidates { owner: name, certificates: Vec::new() };
                let candidates = self.by_host.entry(host).or_insert(empty);
                if candidates.owner == name {
                    candidates.certificates.push(certificate.clone());
                }
            }
        }
    }

    /// What handshakes show; and when what is shown ends.
    pub(super) fn table(&mut self, options: &Options) -> (ServerCertificates, Expiries) {
        let default =
            options.default_certificate.as_ref().and_then(|name| self.default_certificate(name));
        let fallback = default.unwrap_or_else(|| options.fallback_certificate.clone());
        let mut by_host = HostTable::default();
        for (host, candidates) in std::mem::take(&mut self.by_host) {
            by_host.insert(host, best(candidates.certificates));
        }
        let certificates = self.ends(|kept| Some(kept.validity?.not_after));
        let staples = self.ends(|kept| {
            let stapled = kept.certificate.stapled.as_ref()?;
            Some(i64::try_from(stapled.until).unwrap_or(i64::MAX))
        });
        (ServerCertificates { by_host, fallback }, Expiries { certificates, staples })
    }

    /// The certificate that is shown where no Ingress brings one.
    fn default_certificate(&mut self, name: &ObjectName) -> Option<Arc<ServerCertificate>> {
        let (certificate, problem) = self.get(name);
        let finding = |severity, reason, message: String| Finding {
            severity,
            object: ObjectRef { kind: ObjectKind::Secret, name: name.clone() },
            target: None,
            field: String::new(),
            reason,
            message: format!("{message} (it is the default certificate)"),
        };
        let problem =
            problem.map(|message| finding(Severity::Error, "CertificateUnusable", message));
        let staple = certificate.as_ref().and_then(|kept| kept.staple_problem.clone());
        let staple = staple.map(|message| finding(Severity::Warning, "StapleUnusable", message));
        self.findings.extend(problem.into_iter().chain(staple));
        certificate.map(|kept| kept.certificate)
    }

    /// Of each Secret in use, in order.
    fn ends(&self, end: impl Fn(&KeptCertificate) -> Option<i64>) -> Vec<(ObjectName, i64)> {
        let ends = self.kept.iter().filter_map(|(name, kept)| Some((name.clone(), end(kept)?)));
        let mut ends: Vec<(ObjectName, i64)> = ends.collect();
        ends.sort_unstable();
        ends
    }

    /// The certificate of a Secret, perhaps the one read before; and what is wrong.
    fn get(&mut self, name: &ObjectName) -> (Option<KeptCertificate>, Option<String>) {
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
            return (Some(kept.clone()), None);
        }
        match certified_key(secret) {
            Ok(certificate) => {
                let kept = KeptCertificate::new(name, secret, certificate);
                self.kept.insert(name.clone(), kept.clone());
                (Some(kept), None)
            }
            Err(problem) => {
                let message = format!("Secret {name}: {problem}");
                let Some(kept) = earlier else { return (None, Some(message)) };
                self.kept.insert(name.clone(), kept.clone());
                let message = format!("{message}; the certificate read before stays in force");
                (Some(kept), Some(message))
            }
        }
    }
}

impl KeptCertificate {
    fn new(name: &ObjectName, secret: &Arc<Secret>, certificate: CertifiedKey) -> Self {
        let (stapled, problem) = match stapled(secret, &certificate).transpose() {
            Ok(stapled) => (stapled, None),
            Err(problem) => (None, Some(format!("Secret {name}, key {STAPLE}: {problem}"))),
        };
        Self {
            made_from: secret.clone(),
            validity: certificate.cert.first().and_then(Validity::of),
            certificate: Arc::new(ServerCertificate { bare: Arc::new(certificate), stapled }),
            staple_problem: problem,
        }
    }
}

/// For each kind of key the certificate that was issued last; the smallest signatures first.
fn best(mut certificates: Vec<KeptCertificate>) -> HostCertificates {
    let rank = |kept: &KeptCertificate| match kept.certificate.algorithm() {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::ED25519 => 1,
        _ => 2,
    };
    let issued = |kept: &KeptCertificate| kept.validity.map(|validity| validity.not_before);
    certificates.sort_by_key(|kept| (rank(kept), Reverse(issued(kept))));
    certificates.dedup_by_key(|kept| rank(kept));
    certificates.into_iter().map(|kept| kept.certificate).collect()
}

/// The same certificate with the OCSP response beside it, if there is one.
fn stapled(secret: &Secret, certificate: &CertifiedKey) -> Option<Result<Stapled, String>> {
    let response = secret.data.as_ref()?.get(STAPLE)?.0.clone();
    let leaf = certificate.cert.first()?;
    let until = serial(leaf)
        .ok_or_else(|| "the certificate has no serial number".to_owned())
        .and_then(|serial| good_until(&response, &serial).map_err(|error| error.to_string()));
    Some(until.map(|until| Stapled {
        key: Arc::new(CertifiedKey { ocsp: Some(response), ..certificate.clone() }),
        until: until.try_into().unwrap_or(0),
    }))
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
