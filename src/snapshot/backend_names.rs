//! A backend that is known by other names than the one that is sent as SNI: its chain is verified as ever, and then one of
//! them must stand in its certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use webpki::EndEntityCert;

/// A subjectAltName; one of one type is never compared with one of another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BackendName {
    /// A dNSName, compared as a client compares host names (RFC 9525, 6.3).
    Hostname(ServerName<'static>),
    /// A uniformResourceIdentifier, compared octet by octet.
    Uri(Box<str>),
}

/// Verifies that a backend's certificate has one of several names.
#[derive(Debug)]
pub struct BackendNames {
    roots: RootCertStore,
    names: Box<[BackendName]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl BackendNames {
    /// Of certificates that these CAs vouch for. Without any name it verifies none.
    #[must_use]
    pub fn new(
        roots: RootCertStore,
        names: Box<[BackendName]>,
        provider: &Arc<CryptoProvider>,
    ) -> Self {
        Self { roots, names, algorithms: provider.signature_verification_algorithms }
    }

    fn is_named(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        let malformed = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let names = EndEntityCert::try_from(certificate).map_err(malformed)?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(self.names.iter().any(|name| match name {
            BackendName::Hostname(host) => verify_server_name(&parsed, host).is_ok(),
            BackendName::Uri(uri) => names.valid_uri_names().any(|it| it == &**uri),
        }))
    }
}

impl ServerCertVerifier for BackendNames {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let (roots, algorithms) = (&self.roots, self.algorithms.all);
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            roots,
            intermediates,
            now,
            algorithms,
        )?;
        if !self.is_named(end_entity)? {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose,
        IsCa, KeyPair, SanType, date_time_ymd,
    };
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::DnsName;

    use super::*;

    type Issuer = CertifiedIssuer<'static, KeyPair>;

    const SPIFFE: &str = "spiffe://corp.example/ns/web/sa/app";

    fn ca() -> Issuer {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Issuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
    }

    fn named(sans: &[SanType]) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = sans.to_vec();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.not_before = date_time_ymd(2026, 1, 1);
        parameters.not_after = date_time_ymd(2026, 12, 31);
        parameters
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn issued(ca: &Issuer, parameters: &CertificateParams) -> CertificateDer<'static> {
        parameters.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der().clone()
    }

    fn host(name: &str) -> BackendName {
        BackendName::Hostname(DnsName::try_from(name.to_owned()).unwrap().into())
    }

    /// In the middle of a year; the certificates hold in 2026.
    fn verify(
        ca: &Issuer,
        names: &[BackendName],
        certificate: &CertificateDer<'_>,
        year: u64,
    ) -> Option<Error> {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = BackendNames::new(roots, names.into(), &provider);
        let sni = ServerName::try_from("app.web.internal").unwrap();
        let now = Duration::from_secs((year - 1970) * 31_557_600 + 15_000_000);
        let now = UnixTime::since_unix_epoch(now);
        verifier.verify_server_cert(certificate, &[], &sni, &[], now).err()
    }

    #[test]
    fn one_name_of_its_own_type_is_enough_and_sni_is_none() {
        let ca = ca();
        let listed = [host("app.web.internal"), BackendName::Uri(SPIFFE.into())];
        let longer = format!("{SPIFFE}x");
        for (sans, expected) in [
            (vec![uri(SPIFFE)], true),
            (vec![dns("x.internal"), uri("spiffe://x/y"), uri(SPIFFE)], true),
            (vec![dns("app.web.internal")], true),
            (vec![dns("*.web.internal")], true),
            (vec![dns("APP.web.internal")], true),
            (vec![uri(&longer)], false),
            (vec![uri(SPIFFE.strip_suffix('p').unwrap())], false),
            (vec![uri("SPIFFE://corp.example/ns/web/sa/app")], false),
            (vec![uri("app.web.internal"), dns("x.app.web.internal")], false),
            (vec![SanType::Rfc822Name("app@app.web.internal".try_into().unwrap())], false),
            (Vec::new(), false),
        ] {
            let mut parameters = named(&sans);
            parameters.distinguished_name.push(DnType::CommonName, "app.web.internal");
            let verified = verify(&ca, &listed, &issued(&ca, &parameters), 2026);
            let wrong = Error::InvalidCertificate(CertificateError::NotValidForName);
            assert_eq!(verified, (!expected).then_some(wrong), "{sans:?}");
        }
        let only_uri = [BackendName::Uri(SPIFFE.into())];
        let sni_alone = issued(&ca, &named(&[dns("app.web.internal")]));
        assert!(verify(&ca, &only_uri, &sni_alone, 2026).is_some());
        assert!(verify(&ca, &[], &sni_alone, 2026).is_some(), "no name, no backend");
    }

    #[test]
    fn no_name_makes_up_for_a_chain_that_does_not_verify() {
        let (ca, other) = (ca(), ca());
        let listed = [BackendName::Uri(SPIFFE.into())];
        let right = issued(&ca, &named(&[uri(SPIFFE)]));
        assert_eq!(verify(&ca, &listed, &right, 2026), None);
        let mut client = named(&[uri(SPIFFE)]);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let own = KeyPair::generate().unwrap();
        let own = named(&[uri(SPIFFE)]).self_signed(&own).unwrap().der().clone();
        for (what, ca, certificate, year) in [
            ("another CA", &other, &right, 2026),
            ("not yet valid", &ca, &right, 2025),
            ("expired", &ca, &right, 2027),
            ("for clients", &ca, &issued(&ca, &client), 2026),
            ("its own CA", &ca, &own, 2026),
            ("nothing", &ca, &CertificateDer::from(&b"\x30\x00"[..]), 2026),
        ] {
            let refused = verify(ca, &listed, certificate, year).unwrap();
            let by_name = Error::InvalidCertificate(CertificateError::NotValidForName);
            assert_ne!(refused, by_name, "{what}: the chain is judged first");
        }
    }
}
