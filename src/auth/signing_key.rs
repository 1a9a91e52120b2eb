//! Keys that say "certmap vouches for this": ECDSA on P-256 (ES256), and their public halves as JWKs (RFC 7517).

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

/// A key to sign with. Nothing of its private half is ever printed.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    /// The first part of every token that it signs, encoded.
    header: Box<str>,
}

/// The public half.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PublicKey {
    /// Its name: the thumbprint of RFC 7638.
    pub kid: Box<str>,
    x: Box<str>,
    y: Box<str>,
}

/// Text that holds no key to sign with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SigningKeyError {
    /// No PEM block of a private key.
    #[error("it is no private key in PEM (PRIVATE KEY or EC PRIVATE KEY)")]
    NotPem,
    /// Another algorithm or curve.
    #[error("it is no EC key on the curve P-256 (prime256v1), which ES256 needs")]
    NotP256,
}

/// The system's random numbers fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the token cannot be signed")]
pub struct SigningError;

impl SigningKey {
    /// Reads a private key: PKCS#8 or SEC1, in PEM.
    ///
    /// # Errors
    /// There is none, or it is of another kind.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| SigningKeyError::NotPem)?;
        let pair = match &der {
            PrivateKeyDer::Pkcs8(_) | PrivateKeyDer::Sec1(_) => {
                let der = der.secret_der();
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            }
            _ => return Err(SigningKeyError::NotP256),
        };
        let pair = pair.map_err(|_| SigningKeyError::NotP256)?;
        let public =
            PublicKey::from_point(pair.public_key().as_ref()).ok_or(SigningKeyError::NotP256)?;
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": public.kid});
        Ok(Self { header: encoded(&header).into(), pair, public })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A JWT with these claims (RFC 7515, compact).
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn sign(&self, claims: &Value) -> Result<String, SigningError> {
        let mut token = format!("{}.{}", self.header, encoded(claims));
        let signed = self.pair.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signed.map_err(|_| SigningError)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public.kid).finish()
    }
}

impl PublicKey {
    /// SEC 1, 2.3.3: an uncompressed point.
    fn from_point(point: &[u8]) -> Option<Self> {
        let [4, coordinates @ ..] = point else { return None };
        let (x, y) = coordinates.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Some(Self { kid: kid.into(), x: x.into(), y: y.into() })
    }

    /// As an entry of a key set.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let Self { kid, x, y } = self;
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y})
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use rcgen::KeyPair as Generated;

    use super::*;

    /// The example of RFC 7515, A.3, whose key is that of RFC 7517, A.1 too.
    const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEII6bEJ5xkJi/mASH3x9dd+nLKWBuvtImO19XwhPfhPSyoAoGCCqGSM49\nAwEHoUQDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEXH8UTNG72b\nfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n-----END EC PRIVATE KEY-----\n";

    #[test]
    fn both_encodings_of_a_private_key_are_read() {
        let key = SigningKey::from_pem(SEC1.as_bytes()).unwrap();
        let jwk = key.public().jwk();
        assert_eq!(jwk["x"], "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        assert_eq!(jwk["y"], "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        assert_eq!(jwk["kid"], "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
        let pkcs8 = Generated::generate().unwrap().serialize_pem();
        SigningKey::from_pem(pkcs8.as_bytes()).unwrap();
        let with_parameters = format!(
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{SEC1}"
        );
        SigningKey::from_pem(with_parameters.as_bytes()).unwrap();
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        for text in [
            "",
            "hello",
            "-----BEGIN PRIVATE KEY-----\n",
            "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n",
        ] {
            let error = SigningKey::from_pem(text.as_bytes()).unwrap_err();
            assert_eq!(error, SigningKeyError::NotPem, "{text}");
        }
        for kind in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let pem = Generated::generate_for(kind).unwrap().serialize_pem();
            let error = SigningKey::from_pem(pem.as_bytes()).unwrap_err();
            assert_eq!(error, SigningKeyError::NotP256);
        }
    }

    #[test]
    fn a_token_is_signed_by_the_key_that_it_names() {
        let key = SigningKey::from_pem(SEC1.as_bytes()).unwrap();
        let token = key.sign(&json!({"sub": "alice"})).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key());
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        public.verify(signed.as_bytes(), &signature).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let read = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(read(header)["alg"], "ES256");
        assert_eq!(read(header)["kid"], *key.public().kid);
        assert_eq!(read(claims)["sub"], "alice");
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let key = SigningKey::from_pem(SEC1.as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), format!("SigningKey({:?})", key.public().kid));
    }
}
