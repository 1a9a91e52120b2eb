//! The public keys of an issuer of tokens: a JSON Web Key set (RFC 7517), and where it is published.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::unique;
use crate::identity::Fingerprint;

/// A token may be checked against each of them.
const MOST_KEYS: usize = 64;
/// Smaller RSA keys are not safe, larger ones take too long (octets of the modulus).
const RSA_OCTETS: std::ops::RangeInclusive<usize> = 256..=1024;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Keys that verify signatures. A symmetric key is never among them.
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    digest: Fingerprint,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<Box<str>>,
    /// By what kind of key it is, and by what it says of itself.
    algorithms: &'static [Algorithm],
    key: DecodingKey,
}

/// Where an issuer publishes its keys.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// The host, a name or an address.
    pub host: Box<str>,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub target: Box<str>,
    /// The only CAs by which the server is believed.
    pub cas: Vec<CertificateDer<'static>>,
    /// Whether an address of this machine may be asked.
    pub local: bool,
    /// Of all of it.
    digest: Fingerprint,
}

impl KeySource {
    /// Reads a URL of https.
    #[must_use]
    pub fn new(url: &str, cas: Vec<CertificateDer<'static>>, local: bool) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let authority = uri.authority().filter(|it| !it.as_str().contains('@'))?;
        if uri.scheme_str() != Some("https") || authority.host().is_empty() {
            return None;
        }
        let port = match authority.as_str().strip_prefix(authority.host())?.strip_prefix(':') {
            None => 443,
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        };
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let parts = cas.iter().map(|ca| Fingerprint::of(ca)).flat_map(|it| *it.as_bytes());
        let said = format!("{host} {port} {target} {local} ").into_bytes();
        let digest = Fingerprint::of(&said.into_iter().chain(parts).collect::<Vec<u8>>());
        Some(Self { host: host.into(), port, target: target.into(), cas, local, digest })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> String {
        let Self { host, port, target, .. } = self;
        if host.contains(':') {
            format!("https://[{host}]:{port}{target}")
        } else {
            format!("https://{host}:{port}{target}")
        }
    }
}

impl PartialEq for KeySource {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for KeySource {}

impl Hash for KeySource {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// Which keys does this issuer publish now? The one that is wanted, if a token names one, says when to look again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeysQuestion {
    /// Where to look.
    pub source: Arc<KeySource>,
    /// The key that the token names.
    pub key_id: Option<Box<str>>,
}

/// A set that cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeySetError {
    /// Not a key set at all.
    #[error("not a JSON Web Key set: write {{\"keys\": […]}}, as an issuer's jwks_uri shows it")]
    Malformed,
    /// Whoever can read it can sign.
    #[error("it holds a private key: publish the public part alone, and replace that key")]
    Private,
    /// Too many to try.
    #[error("it holds more than {MOST_KEYS} keys")]
    TooMany,
    /// Nothing in it is of use.
    #[error(
        "none of its keys can verify a signature: it takes RSA of 2048 to 8192 bits, EC P-256 or P-384, or Ed25519, with \"use\": \"sig\" or without use"
    )]
    NoneUsable,
}

impl KeySet {
    /// Reads a set. Keys for encryption, symmetric keys and those of unknown kinds are passed over.
    ///
    /// # Errors
    /// No key is left, or there is one that must not be there.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let set = unique::read(text).map_err(|_| KeySetError::Malformed)?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::Malformed)?;
        if listed.len() > MOST_KEYS {
            return Err(KeySetError::TooMany);
        }
        let is_private = |key: &Value| key.get("d").is_some();
        if listed.iter().any(is_private) {
            return Err(KeySetError::Private);
        }
        let keys: Vec<Key> = listed.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoneUsable);
        }
        Ok(Self { keys, digest: Fingerprint::of(text) })
    }

    /// The number of usable keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never: such a set is not read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether the key of a token that names this one may be among them.
    #[must_use]
    pub fn may_hold(&self, id: Option<&str>) -> bool {
        self.keys.iter().any(|key| key.may_be(id))
    }

    /// Keys that may have signed a token.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&Key| key.may_be(id) && key.algorithms.contains(&algorithm);
        self.keys.iter().filter(fits).map(|key| &key.key)
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for KeySet {}

impl Key {
    /// A key without a name may be anybody's; a token without one may be signed by any.
    fn may_be(&self, id: Option<&str>) -> bool {
        match (self.id.as_deref(), id) {
            (Some(own), Some(wanted)) => own == wanted,
            (None, _) | (_, None) => true,
        }
    }
}

fn key(key: &Value) -> Option<Key> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let octets = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let signs = key.get("use").is_none_or(|it| it == "sig");
    let operations = key.get("key_ops").map(|it| it.as_array().is_some_and(|it| verifies(it)));
    if !signs || operations == Some(false) {
        return None;
    }
    let (algorithms, public) = match (text("kty")?, text("crv")) {
        ("RSA", _) => (RSA, rsa(&octets("n")?, &octets("e")?)?),
        ("EC", Some("P-256")) => {
            (&[Algorithm::ES256][..], point(&octets("x")?, &octets("y")?, 32)?)
        }
        ("EC", Some("P-384")) => {
            (&[Algorithm::ES384][..], point(&octets("x")?, &octets("y")?, 48)?)
        }
        ("OKP", Some("Ed25519")) => {
            let x = octets("x").filter(|x| x.len() == 32)?;
            (&[Algorithm::EdDSA][..], DecodingKey::from_ed_der(&x))
        }
        _ => return None,
    };
    let id = match key.get("kid") {
        None => None,
        Some(id) => Some(id.as_str()?.into()),
    };
    Some(Key { id, algorithms: narrowed(algorithms, key.get("alg"))?, key: public })
}

fn verifies(operations: &[Value]) -> bool {
    operations.iter().any(|operation| operation == "verify")
}

/// What the key says of itself, where that fits its kind.
fn narrowed(algorithms: &'static [Algorithm], own: Option<&Value>) -> Option<&'static [Algorithm]> {
    let Some(own) = own else { return Some(algorithms) };
    let own: Algorithm = own.as_str()?.parse().ok()?;
    algorithms.chunks(1).find(|one| one.contains(&own))
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<DecodingKey> {
    let zeros = modulus.iter().take_while(|&&octet| octet == 0).count();
    let modulus = modulus.get(zeros..).filter(|it| RSA_OCTETS.contains(&it.len()))?;
    Some(DecodingKey::from_rsa_raw_components(modulus, exponent))
}

/// SEC 1, 2.3.3: uncompressed.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<DecodingKey> {
    let whole = x.len() == length && y.len() == length;
    whole.then(|| DecodingKey::from_ec_der(&[&[4], x, y].concat()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn octets(count: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xAB; count])
    }

    fn parse(keys: &[Value]) -> Result<KeySet, KeySetError> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn keys_that_cannot_sign_here_are_passed_over() {
        let rsa = |bits: usize| json!({"kty": "RSA", "n": octets(bits / 8), "e": "AQAB"});
        let with = |mut key: Value, name: &str, value: Value| {
            key[name] = value;
            key
        };
        let useless = [
            rsa(1024),
            rsa(16_384),
            json!({"kty": "RSA", "n": octets(256)}),
            with(rsa(2048), "use", json!("enc")),
            with(rsa(2048), "key_ops", json!(["encrypt"])),
            with(rsa(2048), "key_ops", json!("verify")),
            with(rsa(2048), "alg", json!("RSA-OAEP")),
            with(rsa(2048), "alg", json!("ES256")),
            with(rsa(2048), "alg", json!("HS256")),
            with(rsa(2048), "kid", json!(7)),
            json!({"kty": "oct", "k": octets(32), "alg": "HS256"}),
            json!({"kty": "EC", "crv": "P-256", "x": octets(31), "y": octets(32)}),
            json!({"kty": "EC", "crv": "P-521", "x": octets(66), "y": octets(66)}),
            json!({"kty": "EC", "crv": "secp256k1", "x": octets(32), "y": octets(32)}),
            json!({"kty": "OKP", "crv": "X25519", "x": octets(32)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": octets(33)}),
            json!({"kty": "new"}),
            json!("key"),
        ];
        assert_eq!(parse(&useless), Err(KeySetError::NoneUsable));
        let mut all = useless.to_vec();
        all.push(with(rsa(2048), "use", json!("sig")));
        assert_eq!(parse(&all).unwrap().len(), 1);
    }

    #[test]
    fn a_set_that_gives_something_away_or_is_none_is_refused() {
        let private =
            json!({"kty": "EC", "crv": "P-256", "x": octets(32), "y": octets(32), "d": octets(32)});
        assert_eq!(parse(&[private]), Err(KeySetError::Private));
        assert_eq!(parse(&vec![json!({}); 65]), Err(KeySetError::TooMany));
        for text in ["", "[]", "{}", "{\"keys\": {}}", "{\"keys\": [], \"keys\": []}"] {
            assert_eq!(KeySet::parse(text.as_bytes()), Err(KeySetError::Malformed), "{text}");
        }
    }

    #[test]
    fn a_place_is_a_url_of_https_and_nothing_else() {
        for (url, read) in [
            ("https://id.test", "https://id.test:443/"),
            ("https://ID.test:8443/a/jwks?x=1", "https://id.test:8443/a/jwks?x=1"),
            ("https://[2001:db8::1]/k", "https://[2001:db8::1]:443/k"),
        ] {
            let source = KeySource::new(url, Vec::new(), false).unwrap();
            assert_eq!(source.url(), read);
            assert_ne!(Some(source), KeySource::new(url, Vec::new(), true));
        }
        for url in [
            "http://id.test/",
            "https://a@id.test/",
            "https://id.test:0/",
            "https://id.test:x/",
            "/x",
            "",
        ] {
            assert_eq!(KeySource::new(url, Vec::new(), false), None, "{url}");
        }
    }

    #[test]
    fn a_key_serves_the_algorithms_of_its_kind_and_of_its_own_word() {
        let ec = json!({"kty": "EC", "crv": "P-256", "x": octets(32), "y": octets(32), "kid": "a"});
        let own = json!({"kty": "RSA", "n": octets(256), "e": "AQAB", "alg": "PS256", "kid": "b"});
        let set = parse(&[ec, own]).unwrap();
        let count = |id, algorithm| set.candidates(id, algorithm).count();
        assert_eq!(count(Some("a"), Algorithm::ES256), 1);
        assert_eq!(count(None, Algorithm::ES256), 1);
        assert_eq!(count(Some("b"), Algorithm::ES256), 0);
        assert_eq!(count(Some("b"), Algorithm::PS256), 1);
        for other in [Algorithm::RS256, Algorithm::HS256, Algorithm::ES384, Algorithm::EdDSA] {
            assert_eq!(count(None, other), 0, "{other:?}");
        }
        assert!(set.may_hold(Some("a")) && set.may_hold(None) && !set.may_hold(Some("c")));
    }
}
