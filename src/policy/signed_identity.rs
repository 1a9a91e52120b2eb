//! Who is calling, as a token that the backend can verify: what stands in it, and the keys.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::UnixTime;
use serde_json::{Value, json};

use crate::auth::{PublicKey, SigningError, SigningKey};
use crate::identity::Fingerprint;

/// A backend whose clock is behind by so much takes a token that was made just now.
const CLOCK_SKEW: u64 = 5;

/// `spec.forward.signedIdentity`, compiled.
#[derive(Debug)]
pub struct SignedIdentity {
    /// The header that carries the token, in lower case.
    pub header: Box<str>,
    /// Whom tokens are for; where nobody said, the backend's Service.
    pub audience: Option<Box<str>>,
    /// In whose name they are.
    pub issuer: Box<str>,
    /// Seconds that they hold.
    pub lifetime: u64,
    /// Whether the public keys are served on the policy's hosts.
    pub publish: bool,
    /// The keys; or what is wrong with them, because of which nobody is let in.
    pub keys: Result<SigningKeys, Box<str>>,
}

/// A key that signs, and those that were or will be.
#[derive(Debug)]
pub struct SigningKeys {
    /// Signs.
    pub current: SigningKey,
    /// The others' public halves: tokens that they signed are good, or will be.
    pub others: Vec<PublicKey>,
}

impl SigningKeys {
    /// All public halves.
    pub fn public(&self) -> impl Iterator<Item = &PublicKey> {
        std::iter::once(self.current.public()).chain(&self.others)
    }
}

/// What a token says of one request.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// The user's name as it is written.
    pub user: &'a str,
    /// The user's groups.
    pub groups: &'a [Arc<str>],
    /// What admitted the request.
    pub mechanism: &'static str,
    /// Which policy did.
    pub policy: Option<&'a str>,
    /// The certificate that did, where one did.
    pub certificate: Option<Fingerprint>,
    /// namespace/name of the Service that the request goes to.
    pub service: &'a str,
    /// The request's own name.
    pub id: &'a str,
    /// Now.
    pub now: UnixTime,
}

impl SignedIdentity {
    /// A token for one request.
    ///
    /// # Errors
    /// There is no key, or no random number to sign with.
    pub fn token(&self, statement: &Statement<'_>) -> Result<String, SigningError> {
        let keys = self.keys.as_ref().map_err(|_| SigningError)?;
        keys.current.sign(&self.claims(statement))
    }

    /// RFC 7519, 4.1, and what is certmap's.
    fn claims(&self, statement: &Statement<'_>) -> Value {
        let issued = statement.now.as_secs();
        let mut claims = json!({
            "iss": self.issuer,
            "sub": statement.user,
            "aud": self.audience.as_deref().unwrap_or(statement.service),
            "iat": issued,
            "nbf": issued.saturating_sub(CLOCK_SKEW),
            "exp": issued.saturating_add(self.lifetime),
            "jti": statement.id,
            "groups": statement.groups.iter().map(|group| &**group).collect::<Vec<_>>(),
            "mechanism": statement.mechanism,
            "policy": statement.policy,
        });
        // RFC 8705, 3.1: by the certificate on the client's connection.
        if let (Some(certificate), Some(claims)) = (statement.certificate, claims.as_object_mut()) {
            let thumbprint = URL_SAFE_NO_PAD.encode(certificate.as_bytes());
            claims.insert("cnf".to_owned(), json!({"x5t#S256": thumbprint}));
        }
        claims
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::KeyPair;

    use super::*;

    fn signed(audience: Option<&str>) -> SignedIdentity {
        let key = || {
            SigningKey::from_pem(KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap()
        };
        SignedIdentity {
            header: "x-certmap-identity".into(),
            audience: audience.map(Into::into),
            issuer: "certmap".into(),
            lifetime: 60,
            publish: false,
            keys: Ok(SigningKeys { current: key(), others: vec![key().public().clone()] }),
        }
    }

    fn statement(groups: &[Arc<str>]) -> Statement<'_> {
        Statement {
            user: "CORP\\alice",
            groups,
            mechanism: "oneToOne",
            policy: Some("web/app"),
            certificate: None,
            service: "web/echo",
            id: "7",
            now: UnixTime::since_unix_epoch(Duration::from_secs(1_000)),
        }
    }

    #[test]
    fn a_token_says_who_by_what_for_whom_and_how_long() {
        let groups = ["HR".into()];
        let claims = signed(None).claims(&statement(&groups));
        let expected = json!({
            "iss": "certmap", "sub": "CORP\\alice", "aud": "web/echo", "iat": 1_000, "nbf": 995, "exp": 1_060,
            "jti": "7", "groups": ["HR"], "mechanism": "oneToOne", "policy": "web/app",
        });
        assert_eq!(claims, expected);
        assert_eq!(signed(Some("api")).claims(&statement(&groups))["aud"], "api");
    }

    #[test]
    fn a_token_names_the_certificate_of_the_connection() {
        let certificate = Fingerprint::of(b"abc");
        let claims =
            signed(None).claims(&Statement { certificate: Some(certificate), ..statement(&[]) });
        let thumbprint = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
        assert_eq!(claims["cnf"], json!({"x5t#S256": thumbprint}));
    }

    #[test]
    fn without_a_key_there_is_no_token() {
        let signed = SignedIdentity { keys: Err("no such Secret".into()), ..signed(None) };
        assert_eq!(signed.token(&statement(&[])), Err(SigningError));
    }
}
