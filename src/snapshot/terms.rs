//! What a host's handshakes ask of a client, and the TLS configuration that asks it.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

use super::tls_rules::TlsRules;
use crate::identity::Fingerprint;
use crate::policy::{Policy, TrustBundle};

/// More CA names than this are not sent: they stand in every handshake, and clients cut them off.
const LONGEST_HINTS: usize = 16 * 1024;

/// Whether a certificate is asked for, and which ones are worth sending.
#[derive(Clone, Debug, Default)]
pub struct ClientCertificateTerms {
    /// Whether the handshake asks.
    pub asks: bool,
    /// Of every CA that some path of the host trusts.
    pub trust: Option<Fingerprint>,
    /// The CAs' names; empty where they are not advertised.
    pub hints: Vec<DistinguishedName>,
}

impl ClientCertificateTerms {
    /// The terms of a host whose paths have these policies.
    #[must_use]
    pub fn of(policies: &[Arc<Policy>]) -> Self {
        let asking: Vec<&Arc<Policy>> = policies.iter().filter(|policy| policy.asks()).collect();
        if asking.is_empty() {
            return Self::default();
        }
        let bundles: Vec<&TrustBundle> =
            asking.iter().filter_map(|policy| policy.trust.as_deref()).collect();
        let advertise = asking.iter().all(|policy| policy.advertise_issuers);
        let hints = if advertise { hints(&bundles) } else { Vec::new() };
        Self { asks: true, trust: Some(digest(&bundles)), hints }
    }

    /// Whether a connection made under the one may carry requests under the other.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.asks == other.asks && self.trust == other.trust
    }
}

fn digest(bundles: &[&TrustBundle]) -> Fingerprint {
    let mut digests: Vec<[u8; 32]> =
        bundles.iter().map(|bundle| *bundle.digest().as_bytes()).collect();
    digests.sort_unstable();
    digests.dedup();
    Fingerprint::of(&digests.concat())
}

fn hints(bundles: &[&TrustBundle]) -> Vec<DistinguishedName> {
    let mut subjects: Vec<&[u8]> = bundles.iter().flat_map(|bundle| bundle.subjects()).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let hints: Vec<DistinguishedName> =
        subjects.into_iter().map(DistinguishedName::in_sequence).collect();
    let length: usize = hints.iter().map(|hint| hint.as_ref().len() + 2).sum();
    if length > LONGEST_HINTS { Vec::new() } else { hints }
}

impl TlsRules {
    /// The TLS configuration for these terms. Sessions are not kept here: each connection brings its own store.
    ///
    /// # Errors
    /// The provider does not support what rustls needs.
    pub fn server_config(
        &self,
        terms: &ClientCertificateTerms,
        certificates: Arc<dyn ResolvesServerCert>,
    ) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(self.provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions())?;
        let builder = if terms.asks {
            builder.with_client_cert_verifier(Arc::new(AnyChain {
                algorithms,
                hints: terms.hints.clone(),
                provider,
            }))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(certificates);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

/// Lets any chain through the handshake, so that a refusal can be an HTTP answer with its reason. The handshake still
/// proves that the client holds the certificate's key; whether the certificate is worth anything is judged for each
/// request, and nothing may be concluded from the handshake having succeeded.
struct AnyChain {
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyChain {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for AnyChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyChain").field("hints", &self.hints.len()).finish_non_exhaustive()
    }
}
