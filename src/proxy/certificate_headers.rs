//! A verified certificate as header fields, in the forms that backends know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::CertificateFormat;
use crate::identity::DistinguishedName;
use crate::policy::VerifiedCertificate;

/// Longer values would not pass the backend's limits: better one clear refusal here.
const LONGEST_VALUE: usize = 32 * 1024;

/// A field that the certificate cannot be written into.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the certificate cannot be written into {0}")]
pub(super) struct UnwritableCertificate(pub(super) &'static str);

/// Sets the fields of one form.
pub(super) fn set(
    headers: &mut HeaderMap,
    format: CertificateFormat,
    certificate: &VerifiedCertificate,
) -> Result<(), UnwritableCertificate> {
    let mut put = |name: &'static str, value: String| {
        let value = Some(value)
            .filter(|value| value.len() <= LONGEST_VALUE)
            .and_then(|value| HeaderValue::try_from(value).ok());
        let value = value.ok_or(UnwritableCertificate(name))?;
        headers.insert(HeaderName::from_static(name), value);
        Ok(())
    };
    let leaf = certificate.peer.leaf().ok_or(UnwritableCertificate("any field"))?;
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
    use std::sync::Arc;

    use rcgen::{CertificateParams, DnType, KeyPair};
    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::identity::PeerCertificate;

    fn certificate(common_name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "Contoso, \"Ltd\"");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verified(intermediates: &[CertificateDer<'static>]) -> VerifiedCertificate {
        let peer = PeerCertificate::parse(&[certificate("Jürgen")]).unwrap();
        VerifiedCertificate { peer: Arc::new(peer), intermediates: intermediates.into() }
    }

    fn written(format: CertificateFormat, certificate: &VerifiedCertificate) -> HeaderMap {
        let mut headers = HeaderMap::new();
        set(&mut headers, format, certificate).unwrap();
        assert!(headers.values().all(|value| value.to_str().is_ok()), "visible ASCII alone");
        headers
    }

    fn unescaped(value: &str) -> Vec<u8> {
        let mut octets = value.bytes();
        std::iter::from_fn(|| match octets.next()? {
            b'%' => {
                let digits = [octets.next()?, octets.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).ok()
            }
            octet => Some(octet),
        })
        .collect()
    }

    #[test]
    fn octets_are_encoded_by_each_forms_rule() {
        assert_eq!(byte_sequence(b"abc"), ":YWJj:");
        assert_eq!(percent_encoded("A b\n+/="), "A%20b%0A%2B%2F%3D");
        assert!(pem(&[0; 60]).lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn rfc_9440_has_the_certificate_and_a_chain_where_there_is_one() {
        let alone = verified(&[]);
        let headers = written(CertificateFormat::Rfc9440, &alone);
        assert_eq!(headers["client-cert"], byte_sequence(alone.peer.leaf().unwrap()));
        assert!(!headers.contains_key("client-cert-chain"));
        let chain = [certificate("1"), certificate("2")];
        let headers = written(CertificateFormat::Rfc9440, &verified(&chain));
        let expected = format!("{}, {}", byte_sequence(&chain[0]), byte_sequence(&chain[1]));
        assert_eq!(headers["client-cert-chain"], expected);
    }

    #[test]
    fn nginx_has_the_verdict_the_names_and_the_escaped_pem() {
        let certificate = verified(&[]);
        let headers = written(CertificateFormat::Nginx, &certificate);
        assert_eq!(headers["ssl-client-verify"], "SUCCESS");
        let name = r#"O=Contoso\, \"Ltd\",CN=J\C3\BCrgen"#;
        assert_eq!(headers["ssl-client-subject-dn"], name);
        assert_eq!(headers["ssl-client-issuer-dn"], name);
        let pem = unescaped(headers["ssl-client-cert"].to_str().unwrap());
        let read = crate::identity::read_certificates(&pem).unwrap();
        assert_eq!(read, certificate.peer.chain.to_vec());
    }

    #[test]
    fn xfcc_quotes_what_could_end_its_own_elements() {
        let certificate = verified(&[]);
        let headers = written(CertificateFormat::Xfcc, &certificate);
        let value = headers["x-forwarded-client-cert"].to_str().unwrap();
        let hash = format!("Hash={};Cert=\"-----BEGIN%20CERTIFICATE", certificate.peer.fingerprint);
        assert!(value.starts_with(&hash), "{value}");
        let subject = r#";Subject="O=Contoso\\, \\\"Ltd\\\",CN=J\\C3\\BCrgen""#;
        assert!(value.ends_with(subject), "{value}");
    }

    #[test]
    fn arr_has_the_der_on_one_line() {
        let certificate = verified(&[]);
        let headers = written(CertificateFormat::Arr, &certificate);
        let der = STANDARD.decode(headers["x-arr-clientcert"].as_bytes()).unwrap();
        assert_eq!(der, certificate.peer.leaf().unwrap().as_ref());
    }

    #[test]
    fn a_chain_that_no_backend_would_take_is_refused() {
        let long = CertificateDer::from(vec![0; LONGEST_VALUE]);
        let error = set(&mut HeaderMap::new(), CertificateFormat::Rfc9440, &verified(&[long]));
        assert_eq!(error, Err(UnwritableCertificate("client-cert-chain")));
    }
}
