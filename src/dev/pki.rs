//! CAs, the server's certificate and those of the story's people.

use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::{DevError, private, read, write};
use crate::identity::{PeerCertificate, read_certificates};

/// Of every .p12 file.
pub(super) const P12_PASSWORD: &str = "certmap";

/// Days before and after today.
struct Days(i64, i64);

/// Makes all certificates.
pub(super) fn make(directory: &Path, now: Timestamp) -> Result<(), DevError> {
    let server_ca = ca("certmap", "certmap Dev Server CA", now)?;
    let client_ca = ca("ZeroSSL", "ZeroSSL Dev Client CA", now)?;
    let other_ca = ca("Fabrikam", "Fabrikam Dev CA", now)?;
    write(&directory.join("server-ca.crt"), server_ca.pem())?;
    write(&directory.join("client-ca.crt"), client_ca.pem())?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut server = params("localhost", now, &Days(-1, 397))?;
    server.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    issue(directory, "localhost", &server, &server_ca)?;
    for (name, common_name, issuer, days) in [
        ("alice", "Alice", &client_ca, Days(-1, 825)),
        ("unmapped", "Una Mapped", &client_ca, Days(-1, 825)),
        ("expired", "Edgar Expired", &client_ca, Days(-30, -1)),
        ("untrusted", "Uwe Untrusted", &other_ca, Days(-1, 825)),
    ] {
        let mut client = params(common_name, now, &days)?;
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        issue(directory, name, &client, issuer)?;
    }
    Ok(())
}

/// Whether what was made the last time is all there, and holds for another day.
pub(super) fn is_current(directory: &Path, now: Timestamp) -> bool {
    let kinds = ["crt", "key", "p12"];
    let people = ["localhost", "alice", "unmapped", "expired", "untrusted"];
    let files =
        people.iter().flat_map(|name| kinds.iter().map(move |kind| format!("{name}.{kind}")));
    let cas = ["server-ca.crt", "client-ca.crt"].map(str::to_owned);
    let whole = files.chain(cas).all(|file| directory.join(file).exists());
    let holds = |name: &str| {
        let pem = read(&directory.join(name)).ok()?;
        let certificate = PeerCertificate::parse(&read_certificates(pem.as_bytes()).ok()?).ok()?;
        Some(certificate.validity.not_after > now.as_second() + 86_400)
    };
    whole && holds("localhost.crt") == Some(true) && holds("alice.crt") == Some(true)
}

fn params(common_name: &str, now: Timestamp, days: &Days) -> Result<CertificateParams, DevError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    let date = |days: i64| {
        let date = now.to_zoned(TimeZone::UTC).date().saturating_add(days.days());
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (date(days.0), date(days.1));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn ca(
    organization: &str,
    common_name: &str,
    now: Timestamp,
) -> Result<CertifiedIssuer<'static, KeyPair>, DevError> {
    let mut ca = params(common_name, now, &Days(-60, 3650))?;
    ca.distinguished_name = rcgen::DistinguishedName::new();
    ca.distinguished_name.push(DnType::OrganizationName, organization);
    ca.distinguished_name.push(DnType::CommonName, common_name);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.use_authority_key_identifier_extension = false;
    Ok(CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?)
}

fn issue(
    directory: &Path,
    name: &str,
    params: &CertificateParams,
    issuer: &CertifiedIssuer<'static, KeyPair>,
) -> Result<(), DevError> {
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let path = |kind: &str| directory.join(format!("{name}.{kind}"));
    write(&path("crt"), certificate.pem())?;
    write(&path("key"), key.serialize_pem())?;
    let chain = [certificate.der().to_vec(), issuer.der().to_vec()];
    let p12 = pkcs12(name, &key.serialize_der(), &chain)
        .map_err(|error| DevError::Pkcs12(path("p12"), error))?;
    write(&path("p12"), p12)?;
    private(&path("key"), 0o600)?;
    private(&path("p12"), 0o600)
}

fn pkcs12(name: &str, key: &[u8], chain: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let text = |error: p12_keystore::error::Error| error.to_string();
    let key = PrivateKey::from_der(key).map_err(text)?;
    let chain: Result<Vec<Certificate>, _> =
        chain.iter().map(|der| Certificate::from_der(der)).collect();
    let mut store = KeyStore::new();
    let entry = PrivateKeyChain::new(name.as_bytes(), key, chain.map_err(text)?);
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(entry));
    store.writer(P12_PASSWORD).write().map_err(text)
}
