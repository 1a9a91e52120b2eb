//! What one certificate says, parsed once and owned.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::account_facts::AccountFacts;
use super::fingerprint::Fingerprint;
use super::name::{DistinguishedName, NameError};
use super::san::SubjectAltName;

/// What a client's handshake showed: its certificate, and the chain it sent along. Possession of the key is proven,
/// nothing else is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerCertificate {
    /// The certificate first, then what the client sent after it, in its order.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// Of the certificate.
    pub fingerprint: Fingerprint,
    /// The serial number in hex.
    pub serial: Box<str>,
    /// Whom the certificate names.
    pub subject: DistinguishedName,
    /// The same as RFC 4514 writes it.
    pub subject_text: Box<str>,
    /// Who issued it.
    pub issuer: DistinguishedName,
    /// Further names.
    pub san: SubjectAltName,
    /// When the certificate holds.
    pub validity: Validity,
    /// By what a directory may know it.
    pub account: AccountFacts,
    /// The certificate as backends get it, once it was written.
    pub written: Written,
}

/// Something that is made of a certificate when it is first wanted, and kept.
#[derive(Clone, Debug, Default)]
pub struct Written(OnceLock<HeaderValue>);

impl Written {
    /// What was made, or is made now; what cannot be made is tried again.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn or_write<E>(
        &self,
        write: impl FnOnce() -> Result<HeaderValue, E>,
    ) -> Result<HeaderValue, E> {
        if let Some(written) = self.0.get() {
            return Ok(written.clone());
        }
        let written = write()?;
        Ok(self.0.get_or_init(|| written).clone())
    }
}

/// It follows from the certificate.
impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Written {}

/// A certificate that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("no certificate")]
    Missing,
    /// It is not the DER of an X.509 certificate.
    #[error("not an X.509 certificate")]
    NotX509,
    /// Bytes follow the certificate.
    #[error("bytes follow the certificate")]
    TrailingBytes,
    /// A name in it cannot be decoded.
    #[error("{0}")]
    Name(#[from] NameError),
    /// Its subjectAltName cannot be decoded.
    #[error("the subjectAltName is malformed")]
    SubjectAltName,
}

/// The time in which a certificate holds, both ends included (RFC 5280, 4.1.2.5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// Seconds since 1970, UTC.
    pub not_before: i64,
    /// Seconds since 1970, UTC.
    pub not_after: i64,
}

/// The serial number of a certificate, as it stands in the DER; `None` where the bytes are none.
#[must_use]
pub fn serial(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate.raw_serial().to_vec())
}

impl Validity {
    /// All of time.
    pub const ALWAYS: Self = Self { not_before: i64::MIN, not_after: i64::MAX };

    /// Reads it from a certificate; `None` where the bytes are none.
    #[must_use]
    pub fn of(der: &CertificateDer<'_>) -> Option<Self> {
        X509Certificate::from_der(der).ok().map(|(_, certificate)| Self::from_x509(&certificate))
    }

    fn from_x509(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        }
    }

    /// Whether the time is within.
    #[must_use]
    pub fn contains(&self, time: UnixTime) -> bool {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.not_before <= seconds && seconds <= self.not_after
    }

    /// The time in which both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

impl PeerCertificate {
    /// Parses the first certificate of a chain; the others are kept as they came.
    ///
    /// # Errors
    /// The first certificate cannot be read, or a name in it cannot be decoded: a rule that denies a name must not be
    /// passed by writing the name unreadably.
    pub fn parse(chain: &[CertificateDer<'_>]) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::Missing)?;
        let (rest, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| CertificateError::NotX509)?;
        if !rest.is_empty() {
            return Err(CertificateError::TrailingBytes);
        }
        let san =
            certificate.subject_alternative_name().map_err(|_| CertificateError::SubjectAltName)?;
        let san =
            san.map(|extension| SubjectAltName::from_general_names(&extension.value.general_names));
        let serial =
            certificate.raw_serial().iter().map(|byte| format!("{byte:02X}")).collect::<String>();
        let subject = DistinguishedName::from_x509(certificate.subject())?;
        Ok(Self {
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            fingerprint: Fingerprint::of(leaf),
            serial: serial.trim_start_matches("00").into(),
            subject_text: subject.to_string().into(),
            subject,
            issuer: DistinguishedName::from_x509(certificate.issuer())?,
            san: san.unwrap_or_default(),
            validity: Validity::from_x509(&certificate),
            account: AccountFacts::from_x509(&certificate),
            written: Written::default(),
        })
    }

    /// The certificate itself, without the chain.
    #[must_use]
    pub fn leaf(&self) -> Option<&CertificateDer<'static>> {
        self.chain.first()
    }

    /// What the client sent after its certificate.
    #[must_use]
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        self.chain.get(1..).unwrap_or_default()
    }
}
