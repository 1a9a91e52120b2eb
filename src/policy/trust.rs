//! Who may issue client certificates, and whether a chain leads there at a given time (RFC 5280, 6.1).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, VerifiedPath, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::identity::{Fingerprint, PeerCertificate, Validity};

/// Longer chains are not looked at: each certificate costs signatures to check.
const LONGEST_CHAIN: usize = 10;
/// Certificates of one name among those sent. Each could stand above each other, and every way through them is walked:
/// with eight of one name that is 20 ms of work for one handshake that anybody can make.
const MOST_OF_A_NAME: usize = 2;
/// Times at which a chain is tried that does not verify now: each try may cost as many signatures as webpki allows.
const MOST_TRIES: usize = 12;
/// A chain is shown to every host, and meets the bundles of all their policies; more are not kept.
const KEPT_VERDICTS: usize = 64;

/// The CAs of a policy.
#[derive(Debug)]
pub struct TrustBundle {
    anchors: Vec<TrustAnchor<'static>>,
    /// Of each anchor, in the same order.
    validities: Vec<Validity>,
    max_depth: usize,
    digest: Fingerprint,
}

/// A CA certificate that cannot be trusted; it makes its whole bundle unusable.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrustError {
    /// No certificates.
    #[error("holds no CA certificate")]
    Empty,
    /// One that cannot be read.
    #[error("certificate {0} cannot be read")]
    Unreadable(usize),
    /// One that may not issue others.
    #[error("certificate {0} is not a CA's (basicConstraints CA:TRUE, keyUsage keyCertSign)")]
    NotCa(usize),
}

/// Whether a chain verifies.
#[derive(Clone, Debug)]
pub enum ChainResult {
    /// It does; the intermediates of the path, without the certificate and its CA.
    Verified(Arc<[CertificateDer<'static>]>),
    /// It would not at any time.
    Untrusted(Box<str>),
    /// It did once.
    Expired,
    /// It will.
    NotYetValid,
}

/// What is known of a chain, and from when to when it stays true.
#[derive(Clone, Debug)]
pub struct ChainVerdict {
    /// The verdict.
    pub result: ChainResult,
    /// Seconds in which it holds.
    pub window: Validity,
}

impl TrustBundle {
    /// Takes CA certificates, all or none.
    ///
    /// # Errors
    /// There is none, or one of them (counted from 1) is no CA's.
    pub fn new(certificates: &[CertificateDer<'_>], max_depth: u8) -> Result<Self, TrustError> {
        let (mut anchors, mut validities, mut digests) = (Vec::new(), Vec::new(), Vec::new());
        for (certificate, number) in certificates.iter().zip(1..) {
            validities.push(ca_validity(certificate, number)?);
            let anchor = anchor_from_trusted_cert(certificate)
                .map_err(|_| TrustError::Unreadable(number))?;
            anchors.push(anchor.to_owned());
            digests.push(*Fingerprint::of(certificate).as_bytes());
        }
        if anchors.is_empty() {
            return Err(TrustError::Empty);
        }
        digests.sort_unstable();
        digests.dedup();
        let digest = Fingerprint::of(&[&digests.concat()[..], &[max_depth]].concat());
        Ok(Self { anchors, validities, max_depth: max_depth.into(), digest })
    }

    /// Of all CA certificates and the depth.
    #[must_use]
    pub fn digest(&self) -> Fingerprint {
        self.digest
    }

    /// The CAs' names, DER without the outer SEQUENCE.
    pub fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|anchor| anchor.subject.as_ref())
    }

    /// How many CAs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Never: a bundle without CAs cannot be made.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Judges a chain at a time.
    #[must_use]
    pub fn judge(&self, certificate: &PeerCertificate, now: UnixTime) -> ChainVerdict {
        if certificate.chain.len() > LONGEST_CHAIN {
            let reason = format!("more than {LONGEST_CHAIN} certificates were sent");
            return ChainVerdict {
                result: ChainResult::Untrusted(reason.into()),
                window: Validity::ALWAYS,
            };
        }
        if has_crowds(certificate.intermediates()) {
            let reason = format!("more than {MOST_OF_A_NAME} certificates of one name were sent");
            return ChainVerdict {
                result: ChainResult::Untrusted(reason.into()),
                window: Validity::ALWAYS,
            };
        }
        let validities = self.validities_of(certificate);
        ChainVerdict {
            result: self.result(certificate, &validities, now),
            window: window(&validities, now),
        }
    }

    fn result(
        &self,
        certificate: &PeerCertificate,
        validities: &[Validity],
        now: UnixTime,
    ) -> ChainResult {
        let error = match self.verify(certificate, now) {
            Ok(intermediates) => return ChainResult::Verified(intermediates),
            Err(error) => error,
        };
        // Of several faults webpki names that of time first: without one, no other time would be better.
        if !is_of_time(&error) {
            return ChainResult::Untrusted(describe(&error).into());
        }
        // All certificates of a path hold together from the moment the last of them begins to.
        let mut beginnings: Vec<i64> =
            validities.iter().map(|validity| validity.not_before).collect();
        beginnings.sort_unstable();
        beginnings.dedup();
        let verifies = |seconds: &i64| self.verify(certificate, unix_time(*seconds)).is_ok();
        match beginnings.into_iter().rev().take(MOST_TRIES).find(verifies) {
            Some(beginning) if unix_time(beginning) <= now => ChainResult::Expired,
            Some(_) => ChainResult::NotYetValid,
            None => ChainResult::Untrusted(describe(&error).into()),
        }
    }

    fn verify(
        &self,
        certificate: &PeerCertificate,
        time: UnixTime,
    ) -> Result<Arc<[CertificateDer<'static>]>, Error> {
        let leaf = certificate.leaf().ok_or(Error::BadDer)?;
        let within = |path: &VerifiedPath<'_>| self.check_path(path, time);
        let path_check: &dyn Fn(&VerifiedPath<'_>) -> Result<(), Error> = &within;
        let end_entity = EndEntityCert::try_from(leaf)?;
        let path = end_entity.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.anchors,
            certificate.intermediates(),
            time,
            KeyUsage::client_auth(),
            None,
            Some(path_check),
        )?;
        Ok(path
            .intermediate_certificates()
            .map(|intermediate| intermediate.der().into_owned())
            .collect())
    }

    /// What webpki leaves to us: the depth, and the CA certificate's own validity.
    fn check_path(&self, path: &VerifiedPath<'_>, time: UnixTime) -> Result<(), Error> {
        if path.intermediate_certificates().count() > self.max_depth {
            return Err(Error::MaximumPathDepthExceeded);
        }
        let anchors = self.anchors.iter().zip(&self.validities);
        let mut validities =
            anchors.filter(|(anchor, _)| *anchor == path.anchor()).map(|(_, v)| v).peekable();
        let Some(first) = validities.peek().copied() else { return Err(Error::UnknownIssuer) };
        if validities.any(|validity| validity.contains(time)) {
            return Ok(());
        }
        let (not_before, not_after) = (unix_time(first.not_before), unix_time(first.not_after));
        if time < not_before {
            Err(Error::CertNotValidYet { time, not_before })
        } else {
            Err(Error::CertExpired { time, not_after })
        }
    }

    /// Of every certificate that a path could consist of.
    fn validities_of(&self, certificate: &PeerCertificate) -> Vec<Validity> {
        let sent = certificate.chain.iter().filter_map(Validity::of);
        let issuers: Vec<Vec<u8>> = certificate.chain.iter().filter_map(issuer).collect();
        let anchors = self.anchors.iter().zip(&self.validities);
        let above = anchors
            .filter(|(anchor, _)| issuers.iter().any(|issuer| issuer == anchor.subject.as_ref()));
        sent.chain(above.map(|(_, validity)| *validity)).collect()
    }
}

/// The verdicts on one chain, on whatever connections it is shown.
#[derive(Debug, Default)]
pub struct VerdictCache(Mutex<Vec<(Fingerprint, Arc<ChainVerdict>)>>);

impl VerdictCache {
    /// Judges, or remembers while the verdict holds.
    #[must_use]
    pub fn judge(
        &self,
        trust: &TrustBundle,
        certificate: &PeerCertificate,
        now: UnixTime,
    ) -> Arc<ChainVerdict> {
        let mut verdicts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = verdicts
            .iter()
            .find(|(digest, verdict)| *digest == trust.digest && verdict.window.contains(now));
        if let Some((_, verdict)) = known {
            return verdict.clone();
        }
        let verdict = Arc::new(trust.judge(certificate, now));
        verdicts.retain(|(digest, _)| *digest != trust.digest);
        if verdicts.len() >= KEPT_VERDICTS {
            verdicts.remove(0);
        }
        verdicts.push((trust.digest, verdict.clone()));
        verdict
    }
}

fn ca_validity(certificate: &CertificateDer<'_>, number: usize) -> Result<Validity, TrustError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| TrustError::Unreadable(number))?;
    let usage = parsed.key_usage().map_err(|_| TrustError::Unreadable(number))?;
    let may_sign = usage.is_none_or(|usage| usage.value.key_cert_sign());
    if !parsed.is_ca() || !may_sign {
        return Err(TrustError::NotCa(number));
    }
    Validity::of(certificate).ok_or(TrustError::Unreadable(number))
}

/// Whether too many different certificates have one name.
fn has_crowds(certificates: &[CertificateDer<'_>]) -> bool {
    let mut different: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
    different.sort_unstable();
    different.dedup();
    let mut names: Vec<&[u8]> = different.into_iter().filter_map(subject).collect();
    names.sort_unstable();
    names.chunk_by(|a, b| a == b).any(|same| same.len() > MOST_OF_A_NAME)
}

fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.tbs_certificate.subject.as_raw())
}

/// The issuer's name without its outer SEQUENCE, as trust anchors hold theirs.
fn issuer(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let (_, sequence) = x509_parser::asn1_rs::Any::from_der(parsed.issuer().as_raw()).ok()?;
    Some(sequence.data.to_vec())
}

/// Around `now`, as far as no certificate begins or ceases to hold.
fn window(validities: &[Validity], now: UnixTime) -> Validity {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let turns = || validities.iter().flat_map(|v| [v.not_before, v.not_after.saturating_add(1)]);
    Validity {
        not_before: turns().filter(|turn| *turn <= now).max().unwrap_or(i64::MIN),
        not_after: turns().filter(|turn| *turn > now).min().map_or(i64::MAX, |turn| turn - 1),
    }
}

fn unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn is_of_time(error: &Error) -> bool {
    matches!(error, Error::CertExpired { .. } | Error::CertNotValidYet { .. })
}

fn describe(error: &Error) -> String {
    match error {
        Error::UnknownIssuer => "no CA of the policy issued it".to_owned(),
        Error::MaximumPathDepthExceeded => "the chain is deeper than trust.maxDepth".to_owned(),
        Error::RequiredEkuNotFoundContext(_) => {
            "it is not for client authentication (extendedKeyUsage)".to_owned()
        }
        Error::NameConstraintViolation => "a name constraint of its chain forbids it".to_owned(),
        Error::CaUsedAsEndEntity => "it is a CA's certificate, not a client's".to_owned(),
        Error::PathLenConstraintViolated => {
            "a path length constraint of its chain forbids it".to_owned()
        }
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } => {
            "it does not verify at any time: among other faults, a certificate of its chain is out of its time".to_owned()
        }
        other => format!("{other:?}"),
    }
}
