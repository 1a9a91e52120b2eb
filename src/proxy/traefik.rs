//! A certificate as Traefik's passTLSClientCert writes it.
//!
//! Traefik 3 has no rule for a value that holds one of its separators, and lets it end its field. Here such a character
//! becomes `%` and two hex digits within the value, before the whole is escaped as Traefik escapes it: a reader splits
//! where certmap did, and sees every usual value as Traefik would have written it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::identity::{AttributeType, DistinguishedName, PeerCertificate};
use crate::policy::VerifiedCertificate;

/// The attributes that are written, in this order, and Traefik's word for each.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("DC", "DC"),
    ("C", "C"),
    ("ST", "ST"),
    ("L", "L"),
    ("O", "O"),
    ("OU", "OU"),
    ("serialNumber", "SN"),
    ("CN", "CN"),
];
/// Of these a name has one: the last, where it is written several times.
const ONCE: &[&str] = &["serialNumber", "CN"];

/// X-Forwarded-Tls-Client-Cert: base64 of the DER, the leaf first.
pub(super) fn certificates(certificate: &VerifiedCertificate) -> String {
    let all = certificate.peer.leaf().into_iter().chain(certificate.intermediates.iter());
    all.map(|der| STANDARD.encode(der)).collect::<Vec<_>>().join(",")
}

/// X-Forwarded-Tls-Client-Cert-Info; `None` where a certificate of the chain cannot be read.
pub(super) fn info(certificate: &VerifiedCertificate) -> Option<String> {
    let mut all = vec![of_one(&certificate.peer)];
    for der in certificate.intermediates.iter() {
        let peer = PeerCertificate::parse(std::slice::from_ref(der)).ok()?;
        all.push(of_one(&peer));
    }
    Some(query_escaped(&all.join(",")))
}

fn of_one(peer: &PeerCertificate) -> String {
    let mut fields = Vec::new();
    for (key, name, without) in [("Subject", &peer.subject, ""), ("Issuer", &peer.issuer, "OU")] {
        let name = of_name(name, without);
        if !name.is_empty() {
            fields.push(format!("{key}=\"{name}\""));
        }
    }
    fields.push(format!("SerialNumber=\"{}\"", decimal(&peer.serial)));
    fields.push(format!("NB=\"{}\"", peer.validity.not_before));
    fields.push(format!("NA=\"{}\"", peer.validity.not_after));
    let san = &peer.san;
    let names = san.dns_names.iter().chain(&san.emails).map(|name| whole(name));
    let addresses = san.addresses.iter().map(ToString::to_string);
    let all = names.chain(addresses).chain(san.uris.iter().map(|uri| whole(uri)));
    let all: Vec<String> = all.collect();
    if !all.is_empty() {
        fields.push(format!("SAN=\"{}\"", all.join(",")));
    }
    fields.join(";")
}

fn of_name(name: &DistinguishedName, without: &str) -> String {
    let mut parts = Vec::new();
    for (ours, theirs) in ATTRIBUTES.iter().filter(|(ours, _)| *ours != without) {
        let Some(kind) = AttributeType::parse(ours) else { continue };
        let values: Vec<&str> = name.values(&kind).filter(|value| !value.is_empty()).collect();
        let values = if ONCE.contains(ours) {
            values.get(values.len().saturating_sub(1)..).unwrap_or_default()
        } else {
            &values
        };
        parts.extend(values.iter().map(|value| format!("{theirs}={}", whole(value))));
    }
    parts.join(",")
}

/// A value that can end neither its field nor its part.
fn whole(value: &str) -> String {
    value.chars().fold(String::with_capacity(value.len()), |mut out, c| {
        if matches!(c, '"' | ',' | ';' | '%') || c.is_control() {
            percent(&mut out, c);
        } else {
            out.push(c);
        }
        out
    })
}

/// As Go's `url.QueryEscape`.
fn query_escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len() * 2), |mut out, c| {
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~') => out.push(c),
            ' ' => out.push('+'),
            c => percent(&mut out, c),
        }
        out
    })
}

fn percent(out: &mut String, c: char) {
    let mut octets = [0; 4];
    for octet in c.encode_utf8(&mut octets).bytes() {
        out.push_str(&format!("%{octet:02X}"));
    }
}

/// A serial number, which is kept in hex, as Go prints it.
fn decimal(hex: &str) -> String {
    let mut digits = vec![0_u32];
    for value in hex.chars().filter_map(|c| c.to_digit(16)) {
        let mut carry = value;
        for digit in &mut digits {
            carry += *digit * 16;
            *digit = carry % 10;
            carry /= 10;
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().filter_map(|digit| char::from_digit(*digit, 10)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(names: &[(DnType, &str)]) -> VerifiedCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serial_number = Some(vec![1, 0, 0, 0, 0, 0, 0, 0, 0].into());
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let peer = PeerCertificate::parse(&[made.der().clone()]).unwrap();
        VerifiedCertificate { peer: Arc::new(peer), intermediates: [].into() }
    }

    fn unescaped(text: &str, plus: bool) -> String {
        let mut octets = text.bytes();
        let octet = || match octets.next()? {
            b'%' => {
                let digits = [octets.next()?, octets.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).ok()
            }
            b'+' if plus => Some(b' '),
            octet => Some(octet),
        };
        String::from_utf8(std::iter::from_fn(octet).collect()).unwrap()
    }

    /// Fields of the first certificate, read as a backend does: unescape, split at separators outside of quotes.
    fn fields(info: &str) -> Vec<(String, Vec<String>)> {
        let text = unescaped(info, true);
        let mut inside = false;
        let field = text.split(|c| {
            inside ^= c == '"';
            c == ';' && !inside
        });
        field
            .map(|field| {
                let (key, value) = field.split_once('=').unwrap();
                let value = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
                assert!(!value.contains('"'));
                let parts = value.split(',').map(|part| unescaped(part, false)).collect();
                (key.to_owned(), parts)
            })
            .collect()
    }

    #[test]
    fn usual_values_stand_as_traefik_writes_them() {
        let names = [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Contoso"),
            (DnType::OrganizationalUnitName, "HR"),
            (DnType::CommonName, "Jürgen Doe"),
        ];
        let mut certificate = certificate(&names);
        let san = &mut Arc::make_mut(&mut certificate.peer).san;
        san.dns_names = vec!["a.test".into()];
        san.emails = vec!["j@a.test".into()];
        san.addresses = vec!["10.0.0.1".parse().unwrap()];
        san.uris = vec!["urn:x".into()];
        let validity = certificate.peer.validity;
        let info = info(&certificate).unwrap();
        assert_eq!(
            unescaped(&info, true),
            format!(
                "Subject=\"C=DE,O=Contoso,OU=HR,CN=Jürgen Doe\";Issuer=\"C=DE,O=Contoso,CN=Jürgen Doe\";SerialNumber=\"18446744073709551616\";NB=\"{}\";NA=\"{}\";SAN=\"a.test,j@a.test,10.0.0.1,urn:x\"",
                validity.not_before, validity.not_after
            )
        );
        assert!(info.is_ascii() && !info.contains([' ', '"', ';', ',']), "{info}");
        let der = STANDARD.decode(certificates(&certificate)).unwrap();
        assert_eq!(der, certificate.peer.leaf().unwrap().as_ref());
    }

    #[test]
    fn the_chain_follows_after_commas() {
        let mut certificate = certificate(&[(DnType::CommonName, "leaf")]);
        let leaf = certificate.peer.leaf().unwrap().clone();
        certificate.intermediates = [leaf.clone(), leaf].into();
        assert_eq!(certificates(&certificate).split(',').count(), 3);
        let text = unescaped(&info(&certificate).unwrap(), true);
        assert_eq!(text.matches("\",Subject=\"CN=leaf\"").count(), 2, "{text}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_certificate_holds_stays_within_its_part(
            organization in "[ -~é\u{0}\n\",;=%+]{1,16}", name in "[\",;=%+a]{1,8}",
            uri in "[ -~é]{1,12}", dns in "[a\",;%]{1,6}",
        ) {
            let mut certificate = certificate(&[(DnType::OrganizationName, &organization), (DnType::CommonName, &name)]);
            let san = &mut Arc::make_mut(&mut certificate.peer).san;
            (san.uris, san.dns_names) = (vec![uri.as_str().into()], vec![dns.as_str().into()]);
            let fields = fields(&info(&certificate).unwrap());
            let keys: Vec<&str> = fields.iter().map(|(key, _)| key.as_str()).collect();
            proptest::prop_assert_eq!(keys, ["Subject", "Issuer", "SerialNumber", "NB", "NA", "SAN"]);
            proptest::prop_assert_eq!(&fields[0].1, &vec![format!("O={organization}"), format!("CN={name}")]);
            proptest::prop_assert_eq!(&fields[5].1, &vec![dns, uri]);
        }

        #[test]
        fn serial_numbers_are_read_in_hex_and_written_in_decimal(number: u128) {
            proptest::prop_assert_eq!(decimal(&format!("{number:X}")), number.to_string());
        }
    }
}
