//! The forms in which people keep certificates: PEM, DER, base64 on one line, PKCS#7.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::asn1_rs::{Any, Class, FromDer, Tag};
use x509_parser::certificate::X509Certificate;

/// Bytes in which no certificate was found.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EncodingError {
    /// Nothing there.
    #[error("empty")]
    Empty,
    /// A PEM block is broken.
    #[error("a PEM block is broken: {0}")]
    Pem(String),
    /// PEM without a certificate, such as a key.
    #[error("the PEM text holds no CERTIFICATE block")]
    NoCertificate,
    /// Neither PEM, nor base64, nor DER of a certificate or PKCS#7.
    #[error("not a certificate: expected PEM, DER, PKCS#7, or the base64 of the DER on one line")]
    Unknown,
}

/// 1.2.840.113549.1.7.2, signedData.
const SIGNED_DATA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2];

/// Reads every certificate in `bytes`, in their order, whichever of the forms they are in.
///
/// # Errors
/// There is none, or one of them cannot be read.
pub fn read_certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, EncodingError> {
    let text = std::str::from_utf8(bytes).map(str::trim);
    match text {
        Ok("") => Err(EncodingError::Empty),
        Ok(text) if text.contains("-----BEGIN") => read_pem(text),
        Ok(text) => {
            let one_line: String = text.split_ascii_whitespace().collect();
            STANDARD.decode(one_line).map_or(Err(EncodingError::Unknown), |der| read_der(&der))
        }
        Err(_) => read_der(bytes),
    }
}

fn read_pem(text: &str) -> Result<Vec<CertificateDer<'static>>, EncodingError> {
    if text.contains("-----BEGIN PKCS7-----") {
        let body: String = text
            .lines()
            .filter(|line| !line.contains("-----"))
            .flat_map(str::split_ascii_whitespace)
            .collect();
        let der = STANDARD.decode(body).map_err(|error| EncodingError::Pem(error.to_string()))?;
        return read_der(&der);
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|error| EncodingError::Pem(error.to_string()))?;
    if text.matches("-----BEGIN CERTIFICATE-----").count() > found.len() {
        return Err(EncodingError::Pem("a CERTIFICATE block does not end".to_owned()));
    }
    found.iter().try_for_each(|der| whole_certificate(der))?;
    if found.is_empty() { Err(EncodingError::NoCertificate) } else { Ok(found) }
}

fn read_der(der: &[u8]) -> Result<Vec<CertificateDer<'static>>, EncodingError> {
    if whole_certificate(der).is_ok() {
        return Ok(vec![CertificateDer::from(der.to_vec())]);
    }
    pkcs7(der).filter(|found| !found.is_empty()).ok_or(EncodingError::Unknown)
}

fn whole_certificate(der: &[u8]) -> Result<(), EncodingError> {
    match X509Certificate::from_der(der) {
        Ok(([], _)) => Ok(()),
        Ok(_) | Err(_) => Err(EncodingError::Unknown),
    }
}

/// ContentInfo { signedData, [0] { version, digestAlgorithms, encapContentInfo, [0] certificates, … } } (RFC 5652).
fn pkcs7(der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let (_, content_info) = Any::from_der(der).ok()?;
    let (rest, kind) = Any::from_der(content_info.data).ok()?;
    let (_, content) = Any::from_der(rest).ok()?;
    let (_, signed_data) = Any::from_der(content.data).ok()?;
    if kind.tag() != Tag::Oid || kind.data != SIGNED_DATA {
        return None;
    }
    let (rest, _version) = Any::from_der(signed_data.data).ok()?;
    let (rest, _digest_algorithms) = Any::from_der(rest).ok()?;
    let (rest, _content) = Any::from_der(rest).ok()?;
    let (_, certificates) = Any::from_der(rest).ok()?;
    if certificates.class() != Class::ContextSpecific || certificates.tag() != Tag(0) {
        return None;
    }
    let mut rest = certificates.data;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).ok()?;
        let length = rest.len().checked_sub(after.len())?;
        found.push(CertificateDer::from(rest.get(..length)?.to_vec()));
        rest = after;
    }
    Some(found)
}
