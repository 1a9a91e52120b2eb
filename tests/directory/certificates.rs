//! Certificates with what Windows looks at, and the strings for them as `openssl` shows the parts.

use std::path::Path;
use std::process::Command;

use rcgen::{CertificateParams, CustomExtension, SanType, string::Ia5String};

use super::support::pki::{Identity, leaf};
use super::support::run;

/// The extension that an enterprise CA writes: SEQUENCE { [0] { OID, [0] { OCTET STRING } } }.
pub(crate) fn with_sid(mut params: CertificateParams, sid: &str) -> CertificateParams {
    let wrap =
        |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
    let oid = [0x2B, 6, 1, 4, 1, 0x82, 0x37, 25, 2, 1];
    let value = wrap(0xA0, &wrap(0x04, sid.as_bytes()));
    let content = wrap(0x30, &wrap(0xA0, &[wrap(0x06, &oid), value].concat()));
    let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 311, 25, 2], content);
    params.custom_extensions.push(extension);
    params
}

pub(crate) fn with_sid_uri(mut params: CertificateParams, sid: &str) -> CertificateParams {
    let uri = format!("tag:microsoft.com,2022-09-14:sid:{sid}");
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from(uri).unwrap()));
    params
}

pub(crate) fn with_upn(mut params: CertificateParams, upn: &str) -> CertificateParams {
    let oid = vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
    params.subject_alt_names.push(SanType::OtherName((oid, upn.into())));
    params
}

pub(crate) fn with_email(name: &str, email: &str) -> CertificateParams {
    let mut params = leaf(name);
    params.subject_alt_names.push(SanType::Rfc822Name(Ia5String::try_from(email).unwrap()));
    params
}

pub(crate) fn with_key_id(name: &str, id: &[u8]) -> CertificateParams {
    let content = [&[0x04, u8::try_from(id.len()).unwrap()], id].concat();
    let mut params = leaf(name);
    params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 14], content));
    params
}

fn openssl(folder: &Path, identity: &Identity, option: &str) -> String {
    identity.write(folder, "shown");
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", option, "-in"]).arg(folder.join("shown.crt"));
    let (ok, text) = run(&mut command);
    assert!(ok, "{text}");
    text
}

/// The serial number as Windows writes it: the last octet first.
pub(crate) fn windows_serial(folder: &Path, identity: &Identity) -> String {
    let text = openssl(folder, identity, "-serial");
    let hex = text.trim().strip_prefix("serial=").unwrap();
    let octets: Vec<&str> =
        hex.as_bytes().chunks(2).map(|octet| std::str::from_utf8(octet).unwrap()).collect();
    octets.iter().rev().copied().collect()
}

/// SHA-1 of the public key's bits, which openssl computes for OCSP.
pub(crate) fn key_sha1(folder: &Path, identity: &Identity) -> String {
    let text = openssl(folder, identity, "-ocspid");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Public key OCSP hash: "));
    line.unwrap().to_owned()
}
