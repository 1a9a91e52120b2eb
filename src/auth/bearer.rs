//! The Bearer module: whether a JSON Web Token (RFC 7519) admits, and as whom.
//!
//! Nothing of a token is believed before its signature is verified, by a key of the set and an algorithm that is both
//! listed and the key's own. Time is an argument, which is why the claims are judged here and not by the library.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, crypto};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::keys::{KeySet, KeySource, KeysQuestion};
use super::name::is_name;
use super::question::{Answer, Answers, Question};
use super::unique;
use crate::identity::Fingerprint;

/// Longer tokens are not looked into.
const LONGEST_TOKEN: usize = 16 * 1024;
/// Keys that one token is checked against.
const MOST_TRIED: usize = 8;
/// Seconds since 1970 beyond which nobody means a time.
const LATEST: f64 = 1e12;

/// What a token has to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BearerSettings {
    /// `iss`.
    pub issuer: Box<str>,
    /// One of these in `aud`.
    pub audiences: Vec<Box<str>>,
    /// One of these in the header.
    pub algorithms: Vec<Algorithm>,
    /// Seconds by which the issuer's clock may be off.
    pub clock_skew: u64,
    /// Where the user's name stands.
    pub user_claim: Box<str>,
    /// Where the groups stand.
    pub groups_claim: Option<Box<str>>,
    /// Whether a token must be bound to the certificate on its connection (RFC 8705).
    pub must_be_bound: bool,
}

/// The issuer whose tokens admit.
#[derive(Debug)]
pub struct Bearer {
    /// What a token has to say.
    pub settings: BearerSettings,
    /// By what it is verified.
    pub keys: TokenKeys,
}

/// The keys of an issuer.
#[derive(Debug)]
pub enum TokenKeys {
    /// From an object.
    Held(Arc<KeySet>),
    /// To be asked for.
    Published(Arc<KeySource>),
    /// They could not be made out: no token is good.
    Missing(Box<str>),
}

/// Whether a token is good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BearerOutcome {
    /// It is.
    Right(Claims),
    /// It is not.
    Wrong(TokenError),
    /// Nobody can say.
    NoKeys(Box<str>),
    /// It takes the issuer's keys to know.
    Ask(KeysQuestion),
}

impl Bearer {
    /// Judges a token at a time (seconds since 1970), for a connection with this certificate.
    #[must_use]
    pub fn check(
        &self,
        token: &[u8],
        answers: &Answers,
        now: u64,
        certificate: Option<&Fingerprint>,
    ) -> BearerOutcome {
        let token = match Token::parse(token) {
            Ok(token) => token,
            Err(error) => return BearerOutcome::Wrong(error),
        };
        let keys = match &self.keys {
            TokenKeys::Held(keys) => keys,
            TokenKeys::Missing(problem) => return BearerOutcome::NoKeys(problem.clone()),
            TokenKeys::Published(source) => {
                let key_id = token.key_id().map(Into::into);
                let question = KeysQuestion { source: source.clone(), key_id };
                match answers.to(&Question::Keys(question.clone())) {
                    Some(Answer::Keys(keys)) => keys,
                    Some(_) | None => return BearerOutcome::Ask(question),
                }
            }
        };
        match token.verify(keys, &self.settings, now, certificate) {
            Ok(claims) => BearerOutcome::Right(claims),
            Err(error) => BearerOutcome::Wrong(error),
        }
    }
}

/// Why a token does not admit. Nothing of the token stands in it but names of claims.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// No JSON Web Token with a signature.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// An algorithm that is not listed, or none.
    #[error("the token is signed by an algorithm that is not listed")]
    Algorithm,
    /// No key of the set may have signed it.
    #[error("no key of the issuer fits the token")]
    UnknownKey,
    /// Somebody else signed it, or it was changed.
    #[error("the token's signature is wrong")]
    Signature,
    /// Another issuer.
    #[error("the token's iss is another issuer")]
    Issuer,
    /// It is meant for others.
    #[error("the token's aud names none of the audiences")]
    Audience,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// It will be good.
    #[error("the token is not yet valid")]
    NotYetValid,
    /// A claim is missing or of a wrong kind.
    #[error("the token's {0} is missing, or not what it has to be")]
    Claim(&'static str),
    /// Groups are left out of the token because they are too many.
    #[error("the token leaves out groups: let the issuer put them all into it, or fewer")]
    GroupsLeftOut,
    /// It is bound to no certificate, and has to be.
    #[error("the token is bound to no certificate")]
    Unbound,
    /// It is bound to another certificate than the connection's, or to something that is not checked here.
    #[error("the token is bound to another certificate than this connection's, or to another key")]
    BoundElsewhere,
}

/// A token that was taken apart, and nothing more.
#[derive(Debug)]
pub struct Token<'a> {
    algorithm: Algorithm,
    key_id: Option<Box<str>>,
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is not three parts with a header that can be followed.
    pub fn parse(text: &'a [u8]) -> Result<Self, TokenError> {
        let malformed = TokenError::Malformed;
        if text.len() > LONGEST_TOKEN {
            return Err(malformed("it is longer than 16 KiB"));
        }
        let text = std::str::from_utf8(text).map_err(|_| malformed("it is not text"))?;
        let (signed, signature) =
            text.rsplit_once('.').ok_or(TokenError::Malformed("it has no signature"))?;
        let (header, payload) =
            signed.split_once('.').ok_or(TokenError::Malformed("it has no payload"))?;
        if payload.contains('.') || [header, payload, signature].contains(&"") {
            return Err(malformed("it is not three parts"));
        }
        let header = object(header).ok_or(TokenError::Malformed("its header is no JSON object"))?;
        // Extensions that must be understood (RFC 7515, 4.1.11), and encryption or compression.
        if ["crit", "b64", "enc", "zip"].iter().any(|name| header.contains_key(*name)) {
            return Err(malformed("its header asks for what is not supported"));
        }
        if !header.get("typ").is_none_or(is_access_token) {
            return Err(malformed("its typ is not JWT or at+jwt"));
        }
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.ok_or(TokenError::Malformed("its header names no algorithm"))?;
        let algorithm = algorithm.parse().map_err(|_| TokenError::Algorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str().into()),
            Some(_) => return Err(malformed("its kid is no text")),
        };
        Ok(Self { algorithm, key_id, signed, payload, signature })
    }

    /// The key that it names; not yet to be believed.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Judges it at a time (seconds since 1970), for a connection with this certificate.
    ///
    /// # Errors
    /// It does not admit.
    pub fn verify(
        &self,
        keys: &KeySet,
        settings: &BearerSettings,
        now: u64,
        certificate: Option<&Fingerprint>,
    ) -> Result<Claims, TokenError> {
        self.verify_signature(keys, settings)?;
        let claims =
            object(self.payload).ok_or(TokenError::Malformed("its payload is no JSON object"))?;
        verify_audience(&claims, settings)?;
        verify_time(&claims, now, settings.clock_skew)?;
        verify_binding(&claims, settings.must_be_bound, certificate)?;
        read(&claims, settings)
    }

    fn verify_signature(&self, keys: &KeySet, settings: &BearerSettings) -> Result<(), TokenError> {
        if !settings.algorithms.contains(&self.algorithm) {
            return Err(TokenError::Algorithm);
        }
        let mut candidates = keys.candidates(self.key_id(), self.algorithm).peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let (signature, signed) = (self.signature, self.signed.as_bytes());
        let is_by = |key| crypto::verify(signature, signed, key, self.algorithm).unwrap_or(false);
        if candidates.take(MOST_TRIED).any(is_by) { Ok(()) } else { Err(TokenError::Signature) }
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let text = URL_SAFE_NO_PAD.decode(part).ok()?;
    match unique::read(&text) {
        Ok(Value::Object(object)) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

/// A token for something else, such as a logout, is not taken for one (RFC 8725, 3.11).
fn is_access_token(typ: &Value) -> bool {
    let names = ["jwt", "at+jwt", "application/jwt", "application/at+jwt"];
    typ.as_str().is_some_and(|typ| names.iter().any(|name| typ.eq_ignore_ascii_case(name)))
}

fn verify_audience(
    claims: &Map<String, Value>,
    settings: &BearerSettings,
) -> Result<(), TokenError> {
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(TokenError::Claim("iss"))?;
    if issuer != &*settings.issuer {
        return Err(TokenError::Issuer);
    }
    let audiences = texts(claims.get("aud").ok_or(TokenError::Claim("aud"))?);
    let audiences = audiences.ok_or(TokenError::Claim("aud"))?;
    let is_ours = |audience: &&str| settings.audiences.iter().any(|ours| **ours == **audience);
    if audiences.iter().any(is_ours) { Ok(()) } else { Err(TokenError::Audience) }
}

fn verify_time(claims: &Map<String, Value>, now: u64, skew: u64) -> Result<(), TokenError> {
    let time = |name: &'static str| match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let seconds = value.as_f64().filter(|seconds| (0.0..LATEST).contains(seconds));
            seconds.map(|seconds| Some(seconds as u64)).ok_or(TokenError::Claim(name))
        }
    };
    let expiry = time("exp")?.ok_or(TokenError::Claim("exp"))?;
    if expiry.saturating_add(skew) <= now {
        return Err(TokenError::Expired);
    }
    if time("nbf")?.is_some_and(|begin| begin > now.saturating_add(skew)) {
        return Err(TokenError::NotYetValid);
    }
    time("iat").map(drop)
}

/// RFC 8705, 3.1. A token that is bound to anything else (RFC 9449) needs a proof that nobody asks for here.
fn verify_binding(
    claims: &Map<String, Value>,
    must_be_bound: bool,
    certificate: Option<&Fingerprint>,
) -> Result<(), TokenError> {
    let Some(confirmation) = claims.get("cnf") else {
        return if must_be_bound { Err(TokenError::Unbound) } else { Ok(()) };
    };
    let methods = confirmation.as_object().filter(|methods| methods.len() == 1);
    let thumbprint = methods.and_then(|methods| methods.get("x5t#S256")?.as_str());
    let thumbprint = thumbprint.and_then(|thumbprint| URL_SAFE_NO_PAD.decode(thumbprint).ok());
    let is_here = thumbprint
        .zip(certificate)
        .is_some_and(|(thumbprint, certificate)| thumbprint == certificate.as_bytes());
    if is_here { Ok(()) } else { Err(TokenError::BoundElsewhere) }
}

fn read(claims: &Map<String, Value>, settings: &BearerSettings) -> Result<Claims, TokenError> {
    let user = claims.get(&*settings.user_claim).and_then(Value::as_str);
    let user = user.filter(|user| is_name(user)).ok_or(TokenError::Claim("user claim"))?;
    let groups = match &settings.groups_claim {
        Some(name) => groups(claims, name)?,
        None => Vec::new(),
    };
    Ok(Claims { user: user.into(), groups })
}

/// A group that cannot be read must not be left out: somebody may be denied by it.
fn groups(claims: &Map<String, Value>, name: &str) -> Result<Vec<Box<str>>, TokenError> {
    let elsewhere = claims.get("_claim_names").is_some_and(|names| names.get(name).is_some());
    if elsewhere || claims.get("hasgroups").is_some_and(|has| has != false) {
        return Err(TokenError::GroupsLeftOut);
    }
    let Some(value) = claims.get(name) else { return Ok(Vec::new()) };
    let groups = texts(value).filter(|groups| groups.iter().all(|group| is_name(group)));
    let groups = groups.ok_or(TokenError::Claim("groups claim"))?;
    Ok(groups.into_iter().map(Into::into).collect())
}

/// A text, or a list of nothing but texts.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
