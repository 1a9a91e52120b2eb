//! What of a permit the backend is told.

use crate::api::CertificateFormat;

/// `spec.forward`, compiled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ForwardSettings {
    /// The header for the user's name, in lower case.
    pub user_header: Option<Box<str>>,
    /// Whether Authorization is filled with the account's credentials.
    pub basic_credentials: bool,
    /// Whether the client's own Authorization is left in the request.
    pub pass_authorization: bool,
    /// The forms in which the verified certificate is passed on.
    pub client_certificate: Vec<CertificateFormat>,
}
