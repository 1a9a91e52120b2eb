//! The facts of one request that a decision rests on.

use std::sync::Arc;

use super::trust::VerdictCache;
use crate::auth::{Answers, Credentials, RequestHead};
use crate::identity::{CertificateError, PeerCertificate};

/// Who asks, and over what.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Whether the request came over https.
    pub https: bool,
    /// The strength of the connection's cipher; 0 over http.
    pub cipher_bits: u16,
    /// The certificate that the handshake showed.
    pub certificate: Option<&'a ClientCertificate>,
    /// What Authorization offers.
    pub credentials: Option<&'a Credentials>,
    /// What an external service may be told of the request.
    pub request: &'a Arc<RequestHead>,
    /// What `lookup` found out since the engine asked.
    pub answers: &'a Answers,
}

/// A certificate whose key the client has proven to hold.
#[derive(Debug)]
pub struct ClientCertificate {
    /// What it says; an error where it cannot be read.
    pub peer: Result<Arc<PeerCertificate>, CertificateError>,
    /// What policies found its chain to be worth.
    pub verdicts: VerdictCache,
}

impl ClientCertificate {
    /// A certificate that nobody has judged yet.
    #[must_use]
    pub fn new(peer: Result<PeerCertificate, CertificateError>) -> Self {
        Self { peer: peer.map(Arc::new), verdicts: VerdictCache::default() }
    }
}
