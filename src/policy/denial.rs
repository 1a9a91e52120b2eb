//! Why a request is refused, in IIS's codes.

use std::borrow::Cow;

use crate::auth::PassedBack;

/// The stable code of a refusal: the same word in the page, the log, the metric, the documentation and `explain`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DenialCode {
    /// 401.1: a mapped account cannot be used, or wrong credentials.
    LogonFailed,
    /// 401.2: nothing that was offered fits what is configured.
    NoCredentials,
    /// 401.3: the account may not come in here.
    AuthorizationDenied,
    /// 401.5: an external service refuses.
    ExternalDenied,
    /// 403.4: https is demanded.
    HttpsRequired,
    /// 403.5: at least 128 bits are demanded.
    WeakCipher,
    /// 403.7: a certificate is demanded.
    CertificateRequired,
    /// 403.12: a mapping denies, or the certificate must map and does not.
    MapperDenied,
    /// 403.16: the certificate would not verify at any time.
    CertificateUntrusted,
    /// 403.17: the certificate verifies at another time.
    CertificateExpired,
    /// 503.90: a policy is required and there is none.
    PolicyMissing,
    /// 503.91: policies contradict each other.
    PolicyConflicted,
    /// 503.92: the policy cannot be put in force.
    PolicyUnusable,
    /// 503.93: the directory that has to say whose a certificate or name is does not.
    DirectoryUnavailable,
    /// 503.94: the keys by which tokens are verified are not known.
    KeysUnavailable,
    /// 503.95: an external service gives no answer that can be followed.
    ExternalUnavailable,
    /// 503.96: how requests are to be carried cannot be made out.
    RoutePolicyUnusable,
}

impl DenialCode {
    /// HTTP status, IIS sub-status, the dotted code, a title.
    const fn row(self) -> (u16, u16, &'static str, &'static str) {
        match self {
            Self::LogonFailed => (401, 1, "401.1", "Unauthorized"),
            Self::NoCredentials => (401, 2, "401.2", "Unauthorized"),
            Self::AuthorizationDenied => (401, 3, "401.3", "Unauthorized"),
            Self::ExternalDenied => (401, 5, "401.5", "Unauthorized"),
            Self::HttpsRequired => (403, 4, "403.4", "HTTPS required"),
            Self::WeakCipher => (403, 5, "403.5", "128-bit encryption required"),
            Self::CertificateRequired => (403, 7, "403.7", "Client certificate required"),
            Self::MapperDenied => (403, 12, "403.12", "Client certificate denied"),
            Self::CertificateUntrusted => {
                (403, 16, "403.16", "Client certificate untrusted or invalid")
            }
            Self::CertificateExpired => {
                (403, 17, "403.17", "Client certificate expired or not yet valid")
            }
            Self::PolicyMissing => (503, 90, "503.90", "Policy missing"),
            Self::PolicyConflicted => (503, 91, "503.91", "Policy conflicted"),
            Self::PolicyUnusable => (503, 92, "503.92", "Policy unusable"),
            Self::DirectoryUnavailable => (503, 93, "503.93", "Directory unavailable"),
            Self::KeysUnavailable => (503, 94, "503.94", "Keys unavailable"),
            Self::ExternalUnavailable => (503, 95, "503.95", "External unavailable"),
            Self::RoutePolicyUnusable => (503, 96, "503.96", "Route policy unusable"),
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// IIS's sub-status.
    #[must_use]
    pub const fn substatus(self) -> u16 {
        self.row().1
    }

    /// Both, with a dot between.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().2
    }

    /// A few words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().3
    }

    /// One plain sentence that names no rule and nobody else.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::LogonFailed => "The account or the credentials cannot be used.",
            Self::NoCredentials => "Credentials are needed, and none that fit were sent.",
            Self::AuthorizationDenied => "The account is not allowed here.",
            Self::ExternalDenied => "The service that decides on access refuses.",
            Self::HttpsRequired => "This page can be reached over https only.",
            Self::WeakCipher => "The connection's encryption is too weak.",
            Self::CertificateRequired => "This page needs a client certificate, and none was sent.",
            Self::MapperDenied => "The client certificate is not allowed here.",
            Self::CertificateUntrusted => {
                "The client certificate was not issued by a CA that is trusted here, or is invalid."
            }
            Self::CertificateExpired => "The client certificate has expired or is not yet valid.",
            Self::PolicyMissing => "This page needs a policy, and none is in force.",
            Self::PolicyConflicted => "The policies for this page contradict each other.",
            Self::PolicyUnusable => "The policy for this page cannot be put in force.",
            Self::DirectoryUnavailable => "Who you are cannot be looked up now: try again soon.",
            Self::KeysUnavailable => "Tokens cannot be verified at the moment: try again soon.",
            Self::ExternalUnavailable => {
                "The service that decides on access cannot be asked at the moment: try again soon."
            }
            Self::RoutePolicyUnusable => "The route policy for this page cannot be put in force.",
        }
    }

    /// Whether another certificate could help, which takes another connection to send.
    #[must_use]
    pub const fn concerns_certificate(self) -> bool {
        matches!(
            self,
            Self::CertificateRequired | Self::CertificateUntrusted | Self::CertificateExpired
        )
    }
}

/// A refusal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Denial {
    /// What the client is told.
    pub code: DenialCode,
    /// What the log is told: object, field, reason. Never a password.
    pub reason: Cow<'static, str>,
    /// The WWW-Authenticate values that go with it.
    pub challenges: Vec<Box<str>>,
    /// Answer with a redirect to https.
    pub redirect: bool,
    /// What an external service wants the client to get in place of a page.
    pub passed_back: Option<Box<PassedBack>>,
}

impl Denial {
    /// A refusal for a reason.
    #[must_use]
    pub fn new(code: DenialCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            reason: reason.into(),
            challenges: Vec::new(),
            redirect: false,
            passed_back: None,
        }
    }
}
