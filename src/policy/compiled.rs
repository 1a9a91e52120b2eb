//! A policy ready to decide.

use std::sync::Arc;

use super::authorization::Authorization;
use super::denial::DenialCode;
use super::directory::DirectoryUse;
use super::flags::SslFlags;
use super::forward::ForwardSettings;
use super::many_to_one::ManyToOneMappings;
use super::one_to_one::OneToOneMappings;
use super::trust::TrustBundle;
use crate::api::{SslFlag, UserFrom};
use crate::auth::{BasicUsers, Bearer, ExternalService};

/// What `CertMappingPolicy` says, compiled; several objects may have joined in one.
#[derive(Debug)]
pub struct Policy {
    /// namespace/name of the object; of the oldest, where several joined.
    pub name: Arc<str>,
    /// What is demanded of the connection.
    pub flags: SslFlags,
    /// Whether http is redirected to https instead of refused.
    pub https_redirect: bool,
    /// Who may issue certificates; none where that could not be made out, which refuses everyone who needs it.
    pub trust: Option<Arc<TrustBundle>>,
    /// Whether the CAs' names are sent in the handshake.
    pub advertise_issuers: bool,
    /// Looked up first.
    pub one_to_one: Arc<OneToOneMappings>,
    /// Looked through next.
    pub many_to_one: Arc<ManyToOneMappings>,
    /// Asked where no mapping decided.
    pub directory: Option<Arc<DirectoryUse>>,
    /// Whether every verified certificate is let in.
    pub admit_any_verified: Option<UserFrom>,
    /// What is tried where no certificate decided.
    pub modules: Vec<Module>,
    /// Who of those admitted may come in.
    pub authorization: Authorization,
    /// What the backend is told.
    pub forward: Arc<ForwardSettings>,
}

impl Policy {
    /// Whether a certificate matters here at all.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.flags.contains(SslFlag::SslNegotiateCert)
    }
}

/// One of IIS's "other authentication modules".
#[derive(Debug)]
pub enum Module {
    /// User name and password.
    Basic {
        /// Who may log on.
        users: BasicUsers,
        /// Who may log on whom the Secrets do not name.
        directory: Option<Arc<DirectoryUse>>,
        /// The realm of the challenge.
        realm: Box<str>,
    },
    /// JSON Web Tokens.
    Bearer {
        /// Whose.
        bearer: Bearer,
        /// The realm of the challenge.
        realm: Box<str>,
    },
    /// Another service decides.
    External(Arc<ExternalService>),
    /// Whoever offers nothing.
    Anonymous {
        /// Under what name, if any.
        user: Option<Arc<str>>,
    },
}

/// What stands before a route.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Nothing: no policy was ever asked for.
    Open,
    /// Every one of these must admit; the strictest is first and names the user.
    Policed(Arc<[Arc<Policy>]>),
    /// Nobody passes.
    Shut {
        /// One of the 503s.
        code: DenialCode,
        /// For the log.
        reason: Arc<str>,
    },
}

impl Guard {
    /// Whether both are the very same policies, or refuse in the same words.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Open, Self::Open) => true,
            (Self::Policed(a), Self::Policed(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
            }
            (Self::Shut { code: a, reason: why }, Self::Shut { code: b, reason: how }) => {
                a == b && why == how
            }
            _ => false,
        }
    }

    /// The policies; none where the route is open or shut.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Policy>] {
        match self {
            Self::Policed(policies) => policies,
            Self::Open | Self::Shut { .. } => &[],
        }
    }
}
