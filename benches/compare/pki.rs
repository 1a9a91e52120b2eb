//! A CA, the server's certificate and the client's, in two kinds of key, as files that every server can read.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What every client asks for.
pub(crate) const HOST: &str = "bench.test";

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// ECDSA with P-256, CA and leaves
    #[default]
    Ec,
    /// RSA with 2048 bits, CA and leaves
    Rsa,
}

/// Makes everything anew and says where it is.
pub(crate) fn make(kind: Kind) -> anyhow::Result<PathBuf> {
    let directory = crate::process::scratch(&format!("pki-{kind:?}"))?;
    let key = || match kind {
        Kind::Ec => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        Kind::Rsa => KeyPair::generate_for(&PKCS_RSA_SHA256),
    };
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.push(DnType::OrganizationName, "Bench");
    ca.distinguished_name.push(DnType::CommonName, "Bench CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = CertifiedIssuer::self_signed(ca, key()?)?;
    std::fs::write(directory.join("ca.crt"), ca.pem())?;
    for (name, usage, alternative) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth, vec![HOST.to_owned()]),
        ("client", ExtendedKeyUsagePurpose::ClientAuth, vec![]),
    ] {
        let mut leaf = CertificateParams::new(alternative)?;
        leaf.distinguished_name.push(DnType::OrganizationName, "Contoso");
        leaf.distinguished_name.push(DnType::OrganizationalUnitName, "Engineering");
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        leaf.use_authority_key_identifier_extension = true;
        let key = key()?;
        let certificate = leaf.signed_by(&key, &ca)?.pem();
        std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem())?;
        std::fs::write(
            directory.join(format!("{name}.pem")),
            format!("{certificate}{}", key.serialize_pem()),
        )?;
        std::fs::write(directory.join(format!("{name}.crt")), certificate)?;
    }
    Ok(directory)
}

/// A certificate and, if there is one, its key.
pub(crate) fn read(
    directory: &Path,
    name: &str,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(directory.join(format!("{name}.crt")))?.collect();
    let key = if name == "ca" { "server" } else { name };
    let key = PrivateKeyDer::from_pem_file(directory.join(format!("{key}.key")))
        .context("a key cannot be read")?;
    Ok((chain?, key))
}
