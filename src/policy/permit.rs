//! The proof that a request was decided upon.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::forward::ForwardSettings;
use crate::auth::{Principal, Secret};
use crate::identity::PeerCertificate;

/// What admitted a request.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Mechanism {
    /// A one-to-one mapping.
    OneToOne,
    /// A many-to-one mapping.
    ManyToOne,
    /// The directory.
    ActiveDirectory,
    /// `admitAnyVerified`.
    AdmitAnyVerified,
    /// User name and password.
    Basic,
    /// A token.
    Bearer,
    /// An external service.
    External,
    /// The anonymous module.
    Anonymous,
    /// Nothing was asked: the route has no policy.
    #[default]
    None,
}

impl Mechanism {
    /// The word in logs, metrics and `explain`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "oneToOne",
            Self::ManyToOne => "manyToOne",
            Self::ActiveDirectory => "activeDirectory",
            Self::AdmitAnyVerified => "admitAnyVerified",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::External => "external",
            Self::Anonymous => "anonymous",
            Self::None => "none",
        }
    }
}

/// Leave to forward one request. Only `decide` makes one, and forwarding takes it by value.
#[derive(Debug)]
pub struct Permit {
    pub(super) principal: Option<Principal>,
    pub(super) mechanism: Mechanism,
    pub(super) policy: Option<Arc<str>>,
    pub(super) mapping: Option<Arc<str>>,
    pub(super) password: Option<Secret<Arc<[u8]>>>,
    pub(super) certificate: Option<VerifiedCertificate>,
    pub(super) forward: Option<Arc<ForwardSettings>>,
}

/// A certificate that verified, and the intermediates of the path by which it did.
#[derive(Clone, Debug)]
pub struct VerifiedCertificate {
    /// The certificate and what the client sent with it.
    pub peer: Arc<PeerCertificate>,
    /// The verified path between the certificate and its CA, both left out.
    pub intermediates: Arc<[CertificateDer<'static>]>,
}

impl Permit {
    /// The account's name; none where nobody in particular was admitted.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.principal.as_ref().map(Principal::name)
    }

    /// Who was admitted; none where nobody in particular was.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// What admitted the request.
    #[must_use]
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The policy that decided, as namespace/name; none on a route without one.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// The names of the policy and of the mapping, for whoever keeps them longer than the permit.
    #[must_use]
    pub fn shared_names(&self) -> (Option<Arc<str>>, Option<Arc<str>>) {
        (self.policy.clone(), self.mapping.clone())
    }

    /// The name of the mapping that matched.
    #[must_use]
    pub fn mapping(&self) -> Option<&str> {
        self.mapping.as_deref()
    }

    /// The account's user name and password, where it has both.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &[u8])> {
        self.user().zip(self.password.as_ref().map(|password| &**password.expose()))
    }

    /// The certificate that decided.
    #[must_use]
    pub fn certificate(&self) -> Option<&VerifiedCertificate> {
        self.certificate.as_ref()
    }

    /// What the backend is told; none on a route without a policy.
    #[must_use]
    pub fn forward(&self) -> Option<&ForwardSettings> {
        self.forward.as_deref()
    }

    /// A permit that nobody decided on, for the tests of the rooms that are handed one.
    #[cfg(test)]
    pub(crate) fn for_test(
        user: Option<&str>,
        password: Option<&str>,
        certificate: Option<VerifiedCertificate>,
        forward: Option<ForwardSettings>,
    ) -> Self {
        Self::for_test_of(user.map(Principal::named), password, certificate, forward)
    }

    /// The same, for somebody of whom more is known.
    #[cfg(test)]
    pub(crate) fn for_test_of(
        principal: Option<Principal>,
        password: Option<&str>,
        certificate: Option<VerifiedCertificate>,
        forward: Option<ForwardSettings>,
    ) -> Self {
        Self {
            principal,
            mechanism: Mechanism::None,
            policy: None,
            mapping: None,
            password: password.map(|password| Secret::new(password.as_bytes().into())),
            certificate,
            forward: forward.map(Arc::new),
        }
    }
}
