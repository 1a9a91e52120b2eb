//! CAs and certificates, as odd as a test needs them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, DnValue, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate, its key, and what a client sends along.
pub(crate) struct Identity {
    pub(crate) der: Vec<u8>,
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: KeyPair,
}

/// `None` for values of no time: `days` from now.
pub(crate) fn validity(params: &mut CertificateParams, from: i32, to: i32) {
    let date = |days: i32| {
        let date =
            Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date().saturating_add(days.days());
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (date(from), date(to));
}

pub(crate) fn leaf(common_name: &str) -> CertificateParams {
    named(&[(DnType::CommonName, common_name.into())])
}

pub(crate) fn named(name: &[(DnType, DnValue)]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for (kind, value) in name {
        params.distinguished_name.push(kind.clone(), value.clone());
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    validity(&mut params, -2, 30);
    params
}

pub(crate) fn server(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    validity(&mut params, -2, 30);
    params
}

fn ca_params(organization: &str, depth: u8) -> CertificateParams {
    let mut params = named(&[
        (DnType::OrganizationName, organization.into()),
        (DnType::CommonName, format!("{organization} CA {depth}").into()),
    ]);
    params.extended_key_usages = Vec::new();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, -900, 900);
    params
}

impl Ca {
    pub(crate) fn new(organization: &str) -> Self {
        Self::from_params(ca_params(organization, 0))
    }

    pub(crate) fn from_params(params: CertificateParams) -> Self {
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn params(organization: &str) -> CertificateParams {
        ca_params(organization, 0)
    }

    /// An intermediate CA below this one.
    pub(crate) fn intermediate(&self, organization: &str, depth: u8) -> Self {
        self.below(ca_params(organization, depth))
    }

    pub(crate) fn below(&self, params: CertificateParams) -> Self {
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub(crate) fn issue(&self, params: CertificateParams) -> Identity {
        self.issue_for(KeyPair::generate().unwrap(), params)
    }

    /// For a key of another kind than P-256.
    pub(crate) fn issue_for(&self, key: KeyPair, params: CertificateParams) -> Identity {
        let der = params.signed_by(&key, &self.0).unwrap().der().to_vec();
        Identity { chain: vec![der.clone()], der, key }
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For programs that sign.
    pub(crate) fn as_identity(&self) -> Identity {
        let key = KeyPair::from_pem(&self.0.key().serialize_pem()).unwrap();
        Identity { der: self.der(), chain: vec![self.der()], key }
    }

    /// For programs that sign as this CA.
    pub(crate) fn key_pem(&self) -> String {
        self.0.key().serialize_pem()
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }
}

impl Identity {
    /// Signed by nobody but itself.
    pub(crate) fn self_signed(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { chain: vec![der.clone()], der, key }
    }

    /// The same, sending this along.
    pub(crate) fn with(mut self, further: &[Vec<u8>]) -> Self {
        self.chain.extend_from_slice(further);
        self
    }

    pub(crate) fn base64(&self) -> String {
        STANDARD.encode(&self.der)
    }

    pub(crate) fn pem(&self) -> String {
        self.chain.iter().map(|der| pem(der)).collect()
    }

    pub(crate) fn write(&self, directory: &Path, name: &str) {
        std::fs::write(directory.join(format!("{name}.crt")), self.pem()).unwrap();
        std::fs::write(directory.join(format!("{name}.key")), self.key.serialize_pem()).unwrap();
    }

    pub(crate) fn for_rustls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = self.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        (chain, PrivateKeyDer::try_from(self.key.serialize_der()).unwrap())
    }
}

pub(crate) fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
