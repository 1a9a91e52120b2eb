//! The server's side of TLS: certificates by SNI, configurations by the terms of the host that SNI names.

use std::sync::Arc;

use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureAlgorithm, SignatureScheme};

use super::host::{HostName, HostTable};
use super::ticket_keys::TicketKeys;

/// One certificate with its key, and perhaps with what its CA's OCSP responder said of it.
#[derive(Debug)]
pub struct ServerCertificate {
    /// Without that.
    pub bare: Arc<CertifiedKey>,
    /// With it.
    pub stapled: Option<Stapled>,
}

/// A certificate with an OCSP response.
#[derive(Debug)]
pub struct Stapled {
    /// Both.
    pub key: Arc<CertifiedKey>,
    /// Until when the response holds, in seconds since 1970.
    pub until: u64,
}

impl ServerCertificate {
    /// What is shown at this time: a response that no longer holds would have clients refuse the certificate.
    fn at(&self, now: UnixTime) -> &Arc<CertifiedKey> {
        let stapled = self.stapled.as_ref().filter(|stapled| now.as_secs() < stapled.until);
        stapled.map_or(&self.bare, |stapled| &stapled.key)
    }

    /// Whether a client that knows these ways to sign can take it.
    fn suits(&self, schemes: &[SignatureScheme]) -> bool {
        self.bare.key.choose_scheme(schemes).is_some()
    }

    /// What kind of key it has.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.bare.key.algorithm()
    }
}

impl From<Arc<CertifiedKey>> for ServerCertificate {
    fn from(bare: Arc<CertifiedKey>) -> Self {
        Self { bare, stapled: None }
    }
}

/// The certificates of one host, one for each kind of key, the best first.
pub type HostCertificates = Arc<[Arc<ServerCertificate>]>;

/// The server certificates of a snapshot.
#[derive(Clone, Debug)]
pub struct ServerCertificates {
    /// By the hosts of the Ingresses' `tls` entries.
    pub by_host: HostTable<HostCertificates>,
    /// Where none fits: better a warning in the browser than no handshake.
    pub fallback: Arc<ServerCertificate>,
}

impl ServerCertificates {
    /// Whether the very same certificates are shown for the same hosts.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |a: &HostCertificates, b: &HostCertificates| {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        Arc::ptr_eq(&self.fallback, &other.fallback) && self.by_host.is_same(&other.by_host, same)
    }

    /// The first that the client can take; where it can take none, it is told so by the handshake.
    fn choose(
        &self,
        host: Option<&HostName>,
        schemes: &[SignatureScheme],
    ) -> &Arc<ServerCertificate> {
        let certificates = self.by_host.resolve(host).map(|certificates| &**certificates);
        let certificates = certificates.unwrap_or_default();
        let suits = certificates.iter().find(|certificate| certificate.suits(schemes));
        suits.or_else(|| certificates.first()).unwrap_or(&self.fallback)
    }
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = client_hello.server_name().and_then(HostName::parse);
        let chosen = self.choose(host.as_ref(), client_hello.signature_schemes());
        Some(chosen.at(UnixTime::now()).clone())
    }
}

/// Everything that a handshake needs.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For the hosts whose clients are asked nothing and whose routes demand nothing, and for clients that name no host.
    pub plain: Arc<ServerConfig>,
    /// For each virtual host; none where it is the plain one.
    pub apart: HostTable<Option<Arc<ServerConfig>>>,
    /// Where replicas share them: then sessions are tickets.
    pub ticket_keys: Option<Arc<TicketKeys>>,
}

impl Tls {
    /// The configuration for a handshake. Without SNI nothing is asked: which host it is for is not known.
    #[must_use]
    pub fn config(&self, host: Option<&HostName>) -> &Arc<ServerConfig> {
        let apart = host.and_then(|host| self.apart.resolve(Some(host)));
        apart.and_then(Option::as_ref).unwrap_or(&self.plain)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::PrivateKeyDer;

    use super::super::host::HostPattern;
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<CertifiedKey> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = aws_lc_rs::default_provider();
        Arc::new(CertifiedKey::from_der(vec![certificate], key, &provider).unwrap())
    }

    #[test]
    fn a_client_gets_the_certificate_whose_key_it_can_verify() {
        let [ecdsa, edwards, other] =
            [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519, &PKCS_ECDSA_P256_SHA256]
                .map(|algorithm| Arc::new(ServerCertificate::from(certificate(algorithm))));
        let mut by_host = HostTable::default();
        by_host.insert(
            HostPattern::parse("a.test").unwrap(),
            vec![ecdsa.clone(), edwards.clone()].into(),
        );
        let certificates = ServerCertificates { by_host, fallback: other.clone() };
        let choose = |host: &str, schemes: &[SignatureScheme]| {
            Arc::as_ptr(certificates.choose(HostName::parse(host).as_ref(), schemes))
        };
        let (p256, ed25519) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
        for (host, schemes, expected) in [
            ("a.test", &[ed25519, p256][..], &ecdsa),
            ("a.test", &[ed25519], &edwards),
            ("a.test", &[SignatureScheme::RSA_PSS_SHA256], &ecdsa),
            ("b.test", &[p256], &other),
        ] {
            assert_eq!(choose(host, schemes), Arc::as_ptr(expected), "{host} {schemes:?}");
        }
    }

    #[test]
    fn a_response_is_stapled_as_long_as_it_holds() {
        let bare = certificate(&PKCS_ECDSA_P256_SHA256);
        let key = Arc::new(CertifiedKey { ocsp: Some(vec![1]), ..(*bare).clone() });
        let certificate = ServerCertificate { bare, stapled: Some(Stapled { key, until: 1_000 }) };
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        assert!(certificate.at(at(999)).ocsp.is_some());
        assert!(certificate.at(at(1_000)).ocsp.is_none());
    }
}
