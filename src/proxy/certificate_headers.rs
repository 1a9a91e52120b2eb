//! A verified certificate as header fields, in the forms that backends know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;

use super::traefik;
use crate::api::CertificateFormat;
use crate::identity::DistinguishedName;
use crate::policy::VerifiedCertificate;

/// Longer values would not pass the backend's limits: better one clear refusal here.
const LONGEST_VALUE: usize = 32 * 1024;

const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// A field that the certificate cannot be written into.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum UnwritableCertificate {
    /// Of the connection's chain nothing is left.
    #[error("there is no certificate to write")]
    Missing,
    /// The form has no way to write a value so that it cannot be taken for another.
    #[error("a name in the certificate cannot be written into {0}")]
    Value(&'static str),
    /// No backend would take it.
    #[error("the certificate and its chain take more than {LONGEST_VALUE} octets in {0}")]
    TooLong(&'static str),
}

/// Sets the fields of one form.
pub(super) fn set(
    headers: &mut HeaderMap,
    format: CertificateFormat,
    certificate: &VerifiedCertificate,
) -> Result<(), UnwritableCertificate> {
    let leaf = certificate.peer.leaf().ok_or(UnwritableCertificate::Missing)?;
    if format == CertificateFormat::Rfc9440 {
        // What is the same for every request of a certificate.
        let write = || field("client-cert", byte_sequence(leaf));
        headers.insert(CLIENT_CERT, certificate.peer.written.or_write(write)?);
    }
    let mut put = |name: &'static str, value: String| {
        headers.insert(HeaderName::from_static(name), field(name, value)?);
        Ok(())
    };
    match format {
        CertificateFormat::Rfc9440 => {
            let chain: Vec<String> =
                certificate.intermediates.iter().map(|der| byte_sequence(der)).collect();
            if chain.is_empty() { Ok(()) } else { put("client-cert-chain", chain.join(", ")) }
        }
        CertificateFormat::Arr => put("x-arr-clientcert", STANDARD.encode(leaf)),
        CertificateFormat::Nginx => {
            put("ssl-client-verify", "SUCCESS".to_owned())?;
            put("ssl-client-subject-dn", openssl_name(&certificate.peer.subject, ""))?;
            put("ssl-client-issuer-dn", openssl_name(&certificate.peer.issuer, ""))?;
            put("ssl-client-cert", percent_encoded(&pem(leaf)))
        }
        CertificateFormat::Xfcc => {
            let name = "x-forwarded-client-cert";
            put(name, xfcc(certificate, leaf).ok_or(UnwritableCertificate::Value(name))?)
        }
        CertificateFormat::Traefik => {
            put("x-forwarded-tls-client-cert", traefik::certificates(certificate))?;
            let name = "x-forwarded-tls-client-cert-info";
            put(name, traefik::info(certificate).ok_or(UnwritableCertificate::Value(name))?)
        }
    }
}

fn field(name: &'static str, value: String) -> Result<HeaderValue, UnwritableCertificate> {
    if value.len() > LONGEST_VALUE {
        return Err(UnwritableCertificate::TooLong(name));
    }
    HeaderValue::try_from(value).map_err(|_| UnwritableCertificate::Value(name))
}

/// RFC 8941, 3.3.5.
fn byte_sequence(der: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(der))
}

/// One element of Envoy's grammar. `By` names the proxy by a URI of its own certificate, which certmap's need not have.
fn xfcc(certificate: &VerifiedCertificate, leaf: &CertificateDer<'_>) -> Option<String> {
    let peer = &certificate.peer;
    let chain: String =
        std::iter::once(leaf).chain(certificate.intermediates.iter()).map(|der| pem(der)).collect();
    let mut element = format!(
        "Hash={};Cert=\"{}\";Chain=\"{}\";Subject=\"{}\"",
        peer.fingerprint,
        percent_encoded(&pem(leaf)),
        percent_encoded(&chain),
        // Readers agree on neither a quote nor two backslashes within quotes: hex digits need neither.
        openssl_name(&peer.subject, "\"\\"),
    );
    for (key, values) in [("URI", &peer.san.uris), ("DNS", &peer.san.dns_names)] {
        for value in values {
            element.push_str(&format!(";{key}={}", xfcc_value(value)?));
        }
    }
    Some(element)
}

/// A value that holds one of the grammar's separators stands in quotes, and a quote after a backslash. Of a backslash
/// itself the grammar says nothing; neither a DNS name nor a URI may hold one (RFC 3986, 2).
fn xfcc_value(value: &str) -> Option<String> {
    if value.chars().any(|c| !c.is_ascii_graphic() || c == '\\') {
        return None;
    }
    let quoted = value.contains([',', ';', '=', '"']);
    Some(if quoted { format!("\"{}\"", value.replace('"', "\\\"")) } else { value.to_owned() })
}

fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Every octet but RFC 3986's unreserved ones.
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

/// RFC 2253 as OpenSSL prints it for nginx, and BoringSSL for Envoy: the last name first, every octet beyond visible
/// ASCII as a backslash and two hex digits. So are the characters in `hex`, where others get a backslash alone.
fn openssl_name(name: &DistinguishedName, hex: &str) -> String {
    let relative = |attributes: &[crate::identity::Attribute]| {
        let attributes = attributes.iter().map(|attribute| {
            let kind = attribute.kind.to_string();
            let kind =
                OPENSSL_NAMES.iter().find(|(ours, _)| *ours == kind).map_or(&*kind, |it| it.1);
            format!("{kind}={}", escaped(&attribute.value, hex))
        });
        attributes.collect::<Vec<_>>().join("+")
    };
    name.relative_names().rev().map(relative).collect::<Vec<_>>().join(",")
}

/// Where OpenSSL's word for an attribute is another than ours.
const OPENSSL_NAMES: &[(&str, &str)] =
    &[("E", "emailAddress"), ("I", "initials"), ("STREET", "street"), ("T", "title")];

fn escaped(value: &str, hex: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    value.chars().enumerate().fold(String::new(), |mut out, (index, c)| {
        let at_end = (index == 0 && matches!(c, '#' | ' ')) || (index == last && c == ' ');
        if hex.contains(c) || !(c.is_ascii_graphic() || c == ' ') {
            let mut octets = [0; 4];
            c.encode_utf8(&mut octets).bytes().for_each(|octet| {
                out.push_str(&format!("\\{octet:02X}"));
            });
        } else {
            if at_end || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
                out.push('\\');
            }
            out.push(c);
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

    /// Envoy's grammar, as its documentation states it.
    fn xfcc_pairs(element: &str) -> Vec<(String, String)> {
        let (mut pairs, mut rest) = (Vec::new(), element);
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=').unwrap();
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => unquoted(quoted),
                None => {
                    let end = after.find([',', ';']).unwrap_or(after.len());
                    let (value, after) = after.split_at(end);
                    (value.to_owned(), after)
                }
            };
            pairs.push((key.to_owned(), value));
            assert!(after.is_empty() || after.starts_with(';'), "one element: {after}");
            rest = after.strip_prefix(';').unwrap_or(after);
        }
        pairs
    }

    /// Up to the closing quote, and what comes after it. A backslash matters before a quote alone.
    fn unquoted(text: &str) -> (String, &str) {
        let (mut value, mut chars) = (String::new(), text.chars());
        loop {
            match chars.next().expect("a closing quote") {
                '\\' if chars.as_str().starts_with('"') => value.extend(chars.next()),
                '"' => return (value, chars.as_str()),
                c => value.push(c),
            }
        }
    }

    /// RFC 4514, 3: relative names in the order of the DER, as sets of type and value.
    fn parsed_name(text: &str) -> Vec<Vec<(String, String)>> {
        let (mut names, mut parts, mut octets) = (Vec::new(), Vec::new(), Vec::new());
        let (mut kind, mut bytes) = (None, text.bytes().peekable());
        while let Some(octet) = bytes.next() {
            match octet {
                b'=' if kind.is_none() => {
                    kind = Some(String::from_utf8(std::mem::take(&mut octets)).unwrap())
                }
                b'\\' => {
                    let first = bytes.next().unwrap();
                    let second = bytes.peek().copied().filter(u8::is_ascii_hexdigit);
                    match second.filter(|_| first.is_ascii_hexdigit()) {
                        Some(second) => {
                            bytes.next();
                            let digits = String::from_utf8(vec![first, second]).unwrap();
                            octets.push(u8::from_str_radix(&digits, 16).unwrap());
                        }
                        None => octets.push(first),
                    }
                }
                b',' | b'+' => {
                    let value = String::from_utf8(std::mem::take(&mut octets)).unwrap();
                    parts.push((kind.take().unwrap(), value));
                    if octet == b',' {
                        names.push(std::mem::take(&mut parts));
                    }
                }
                octet => octets.push(octet),
            }
        }
        parts.push((kind.unwrap(), String::from_utf8(octets).unwrap()));
        names.push(parts);
        names.reverse();
        names
    }

    fn names_of(name: &DistinguishedName) -> Vec<Vec<(String, String)>> {
        let pair = |it: &crate::identity::Attribute| (it.kind.to_string(), it.value.to_string());
        name.relative_names().map(|names| names.iter().map(pair).collect()).collect()
    }

    #[test]
    fn xfcc_has_the_certificate_its_chain_and_its_names() {
        let chain = [certificate("1")];
        let mut certificate = verified(&chain);
        let peer = Arc::make_mut(&mut certificate.peer);
        peer.san.uris = vec!["spiffe://a.test/x?y=1,2;3".into(), "urn:x".into()];
        peer.san.dns_names = vec!["a.test".into(), "b.test".into()];
        let headers = written(CertificateFormat::Xfcc, &certificate);
        let value = headers["x-forwarded-client-cert"].to_str().unwrap();
        assert!(value.contains(r#";Subject="O=Contoso\, \22Ltd\22,CN=J\C3\BCrgen";"#), "{value}");
        assert!(
            value.ends_with(r#";URI="spiffe://a.test/x?y=1,2;3";URI=urn:x;DNS=a.test;DNS=b.test"#)
        );
        let pairs = xfcc_pairs(value);
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["Hash", "Cert", "Chain", "Subject", "URI", "URI", "DNS", "DNS"]);
        assert_eq!(pairs[0].1, certificate.peer.fingerprint.to_string());
        let read =
            |index: usize| crate::identity::read_certificates(&unescaped(&pairs[index].1)).unwrap();
        assert_eq!(read(1), certificate.peer.chain.to_vec());
        assert_eq!(read(2), [certificate.peer.chain.to_vec(), chain.to_vec()].concat());
    }

    #[test]
    fn a_value_that_xfcc_has_no_rule_for_is_refused() {
        for bad in ["a\\", "a b", "a\tb", "é", "a\r\nx: y"] {
            let mut certificate = verified(&[]);
            Arc::make_mut(&mut certificate.peer).san.uris = vec![bad.into()];
            let error = set(&mut HeaderMap::new(), CertificateFormat::Xfcc, &certificate);
            assert_eq!(
                error,
                Err(UnwritableCertificate::Value("x-forwarded-client-cert")),
                "{bad}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_certificate_holds_stays_within_its_element(
            organization in "[ -~é\u{0}\n\\\\\",;=+#]{1,12}",
            common_name in "[ \\\\\",;=+#<>aé]{1,8}",
            uri in "[!-~]{1,16}", dns in "[a\",;=.]{1,8}",
        ) {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, organization);
            params.distinguished_name.push(DnType::CommonName, common_name);
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let mut peer = PeerCertificate::parse(&[made.der().clone()]).unwrap();
            (peer.san.uris, peer.san.dns_names) = (vec![uri.as_str().into()], vec![dns.as_str().into()]);
            let names = names_of(&peer.subject);
            let certificate = VerifiedCertificate { peer: Arc::new(peer), intermediates: [].into() };
            let nginx = written(CertificateFormat::Nginx, &certificate);
            let subject = nginx["ssl-client-subject-dn"].to_str().unwrap();
            proptest::prop_assert_eq!(&parsed_name(subject), &names);
            let mut headers = HeaderMap::new();
            match set(&mut headers, CertificateFormat::Xfcc, &certificate) {
                Ok(()) => {
                    let pairs = xfcc_pairs(headers["x-forwarded-client-cert"].to_str().unwrap());
                    proptest::prop_assert_eq!(pairs.len(), 6);
                    proptest::prop_assert_eq!(parsed_name(&pairs[3].1), names);
                    proptest::prop_assert_eq!(&pairs[4], &("URI".to_owned(), uri));
                    proptest::prop_assert_eq!(&pairs[5], &("DNS".to_owned(), dns));
                }
                Err(_) => proptest::prop_assert!(uri.contains('\\')),
            }
        }
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
        assert_eq!(error, Err(UnwritableCertificate::TooLong("client-cert-chain")));
    }
}
