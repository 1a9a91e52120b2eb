//! A verified certificate as header fields, in the forms that backends know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::CertificateFormat;
use crate::identity::DistinguishedName;
use crate::policy::VerifiedCertificate;

/// Longer values would not pass the backend's limits: better one clear refusal here.
const LONGEST_VALUE: usize = 32 * 1024;

/// A value that no header field can carry.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0} cannot be written into a header field")]
pub(super) struct HeaderError(pub(super) &'static str);

/// Sets the fields of one form.
pub(super) fn set(
    headers: &mut HeaderMap,
    format: CertificateFormat,
    certificate: &VerifiedCertificate,
) -> Result<(), HeaderError> {
    let leaf = certificate.peer.leaf().ok_or(HeaderError("a missing certificate"))?;
    let mut put = |name: &'static str, value: String| {
        let value = Some(value)
            .filter(|value| value.len() <= LONGEST_VALUE)
            .and_then(|v| HeaderValue::try_from(v).ok());
        headers.insert(HeaderName::from_static(name), value.ok_or(HeaderError("the certificate"))?);
        Ok(())
    };
    match format {
        CertificateFormat::Rfc9440 => {
            put("client-cert", byte_sequence(leaf))?;
            let chain: Vec<String> =
                certificate.intermediates.iter().map(|der| byte_sequence(der)).collect();
            if chain.is_empty() { Ok(()) } else { put("client-cert-chain", chain.join(", ")) }
        }
        CertificateFormat::Arr => put("x-arr-clientcert", STANDARD.encode(leaf)),
        CertificateFormat::Nginx => {
            put("ssl-client-verify", "SUCCESS".to_owned())?;
            put("ssl-client-subject-dn", ascii(&certificate.peer.subject))?;
            put("ssl-client-issuer-dn", ascii(&certificate.peer.issuer))?;
            put("ssl-client-cert", percent_encoded(&pem(leaf)))
        }
        CertificateFormat::Xfcc => {
            let subject =
                ascii(&certificate.peer.subject).replace('\\', "\\\\").replace('"', "\\\"");
            let (hash, pem) = (certificate.peer.fingerprint, percent_encoded(&pem(leaf)));
            put(
                "x-forwarded-client-cert",
                format!("Hash={hash};Cert=\"{pem}\";Subject=\"{subject}\""),
            )
        }
    }
}

/// RFC 8941, 3.3.5.
fn byte_sequence(der: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(der))
}

fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut out, octet| {
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
        out
    })
}

/// RFC 4514 with every octet beyond ASCII as a backslash and two hex digits.
fn ascii(name: &DistinguishedName) -> String {
    name.to_string().bytes().fold(String::new(), |mut out, octet| {
        if octet.is_ascii() {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("\\{octet:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_encoded_by_each_forms_rule() {
        assert_eq!(byte_sequence(b"abc"), ":YWJj:");
        assert_eq!(percent_encoded("A b\n+/="), "A%20b%0A%2B%2F%3D");
        assert!(pem(&[0; 60]).lines().all(|line| line.len() <= 64));
    }
}
