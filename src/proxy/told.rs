//! What a permit says, as header fields: the user, the groups, credentials, the certificate, a signed token.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::certificate_headers::{self, UnwritableCertificate};
use super::forwarded::Arrival;
use crate::auth::{Principal, SigningError};
use crate::policy::{ForwardSettings, Permit, SignedIdentity, Statement};

/// Longer values would not pass the backend's limits: better one clear refusal here.
pub(super) const LONGEST_VALUE: usize = 16 * 1024;

/// What no header field can carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the account has no password to send")]
    NoPassword,
    #[error("the user's name cannot be written into a header field")]
    User,
    #[error("the account has no name of the form that forward.userFormat asks for")]
    UserForm,
    #[error("the user's name cannot be written into Basic credentials")]
    BasicUser,
    #[error(
        "a group's name holds forward.groupsSeparator, or cannot be written into a header field"
    )]
    Group,
    #[error("the groups take more than {} octets: limit them", LONGEST_VALUE)]
    Groups,
    #[error("a header of forward is no name of a header field")]
    Name,
    #[error("the signed identity takes more than {} octets: limit the groups", LONGEST_VALUE)]
    Token,
    #[error("{0}")]
    Signing(#[from] SigningError),
    #[error("{0}")]
    Certificate(#[from] UnwritableCertificate),
}

/// What there is to tell, and on what occasion.
pub(super) struct Told<'a> {
    pub(super) permit: &'a Permit,
    /// namespace/name of the Service that the request goes to.
    pub(super) service: &'a str,
    pub(super) arrival: &'a Arrival,
}

impl Told<'_> {
    /// Sets the fields.
    pub(super) fn set(
        &self,
        headers: &mut HeaderMap,
        forward: &ForwardSettings,
    ) -> Result<(), HeaderError> {
        if let Some(principal) = self.permit.principal() {
            self.set_principal(headers, forward, principal)?;
        }
        if let Some(certificate) = self.permit.certificate() {
            for format in &forward.client_certificate {
                certificate_headers::set(headers, *format, certificate)?;
            }
        }
        Ok(())
    }

    fn set_principal(
        &self,
        headers: &mut HeaderMap,
        forward: &ForwardSettings,
        principal: &Principal,
    ) -> Result<(), HeaderError> {
        if let Some(name) = &forward.user_header {
            let user = forward.written(principal).ok_or(HeaderError::UserForm)?;
            headers.insert(field(name)?, whole(&user).ok_or(HeaderError::User)?);
        }
        if let Some(name) =
            forward.groups_header.as_ref().filter(|_| !principal.groups().is_empty())
        {
            headers.insert(field(name)?, groups(principal, forward.groups_separator)?);
        }
        if forward.basic_credentials {
            let (user, password) = self.permit.credentials().ok_or(HeaderError::NoPassword)?;
            headers.insert(header::AUTHORIZATION, basic(user, password)?);
        }
        if let Some(signed) = &forward.signed_identity {
            let user = forward.written(principal).ok_or(HeaderError::UserForm)?;
            headers.insert(field(&signed.header)?, self.token(signed, &user, principal)?);
        }
        Ok(())
    }

    fn token(
        &self,
        signed: &SignedIdentity,
        user: &str,
        principal: &Principal,
    ) -> Result<HeaderValue, HeaderError> {
        let (permit, arrival) = (self.permit, self.arrival);
        let token = signed.token(&Statement {
            user,
            groups: principal.groups(),
            mechanism: permit.mechanism().as_str(),
            policy: permit.policy(),
            certificate: permit.certificate().map(|certificate| certificate.peer.fingerprint),
            service: self.service,
            id: arrival.unique.to_str().unwrap_or_default(),
            now: arrival.at,
        })?;
        let value = Some(token).filter(|token| token.len() <= LONGEST_VALUE);
        let mut value =
            value.and_then(|token| HeaderValue::try_from(token).ok()).ok_or(HeaderError::Token)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn field(name: &str) -> Result<HeaderName, HeaderError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError::Name)
}

/// UTF-8 as it is. A reader trims space at both ends, and would take " alice" for someone else.
fn whole(text: &str) -> Option<HeaderValue> {
    is_whole(text).then(|| HeaderValue::from_bytes(text.as_bytes()).ok()).flatten()
}

fn is_whole(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control)
}

fn groups(principal: &Principal, separator: char) -> Result<HeaderValue, HeaderError> {
    let mut all = String::new();
    for (index, group) in principal.groups().iter().enumerate() {
        if !is_whole(group) || group.contains(separator) {
            return Err(HeaderError::Group);
        }
        if index > 0 {
            all.push(separator);
        }
        all.push_str(group);
    }
    if all.len() > LONGEST_VALUE {
        return Err(HeaderError::Groups);
    }
    HeaderValue::from_bytes(all.as_bytes()).map_err(|_| HeaderError::Group)
}

/// RFC 7617: a reader splits at the first colon, so a name that holds one would be another's.
fn basic(user: &str, password: &[u8]) -> Result<HeaderValue, HeaderError> {
    if user.is_empty() || user.contains(|c: char| c == ':' || c.is_control()) {
        return Err(HeaderError::BasicUser);
    }
    let pair = STANDARD.encode([user.as_bytes(), b":", password].concat());
    let mut value =
        HeaderValue::try_from(format!("Basic {pair}")).map_err(|_| HeaderError::BasicUser)?;
    value.set_sensitive(true);
    Ok(value)
}
