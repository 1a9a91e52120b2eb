//! Tokens as issuers make them, and as attackers would.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

/// Signs, and publishes how to verify.
enum Signer {
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

fn base64(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

impl Signer {
    fn p256() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), "P-256")
    }

    fn p384() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap(), "P-384")
    }

    fn jwk(&self, id: Option<&str>) -> Value {
        let mut key = match self {
            Self::Ec(pair, curve) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(if *curve == "P-256" {
                    32
                } else {
                    48
                });
                json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)})
            }
            Self::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key().as_ref())})
            }
            Self::Rsa(pair) => {
                let public = pair.public_key();
                let octets = |number: &[u8]| base64(number);
                json!({"kty": "RSA", "n": octets(public.modulus().big_endian_without_leading_zero()), "e": octets(public.exponent().big_endian_without_leading_zero())})
            }
        };
        if let Some(id) = id {
            key["kid"] = id.into();
        }
        key
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding =
                    if algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            base64(header.to_string().as_bytes()),
            base64(claims.to_string().as_bytes())
        );
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signature = base64(&self.sign(algorithm, message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn settings() -> BearerSettings {
    BearerSettings {
        issuer: "https://id.test".into(),
        audiences: vec!["app".into(), "other-app".into()],
        algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        clock_skew: 60,
        user_claim: "sub".into(),
        groups_claim: Some("groups".into()),
        must_be_bound: false,
    }
}

fn claims() -> Value {
    json!({"iss": "https://id.test", "aud": "app", "sub": "alice", "exp": NOW + 300, "groups": ["staff", "CORP\\hr"]})
}

fn with(mut value: Value, name: &str, to: Value) -> Value {
    value[name] = to;
    value
}

fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name);
    value
}

fn judge(token: &str, keys: &KeySet, settings: &BearerSettings) -> Result<Claims, TokenError> {
    Token::parse(token.as_bytes())?.verify(keys, settings, NOW, None)
}

#[test]
fn a_token_admits_as_its_user_and_groups() {
    let (key, header) = (Signer::p256(), json!({"alg": "ES256", "typ": "at+jwt", "kid": "a"}));
    let expected = Claims { user: "alice".into(), groups: vec!["staff".into(), "CORP\\hr".into()] };
    let keys = set(&[key.jwk(Some("a"))]);
    assert_eq!(judge(&key.token(&header, &claims()), &keys, &settings()), Ok(expected));
}

#[test]
fn every_algorithm_is_verified_with_a_key_of_its_own_kind_alone() {
    let rsa = || Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    let ed = Signer::Ed(Ed25519KeyPair::generate().unwrap());
    let signers = [
        ("RS256", rsa()),
        ("PS256", rsa()),
        ("ES256", Signer::p256()),
        ("ES384", Signer::p384()),
        ("EdDSA", ed),
    ];
    let algorithms: Vec<Algorithm> =
        signers.iter().map(|(name, _)| name.parse().unwrap()).collect();
    let all = BearerSettings { algorithms, ..settings() };
    for (name, signer) in &signers {
        let token = signer.token(&json!({ "alg": name }), &claims());
        let own = set(&[signer.jwk(None)]);
        assert!(judge(&token, &own, &all).is_ok(), "{name}");
        // Another key of any kind.
        let others: Vec<Value> = signers
            .iter()
            .filter(|(other, _)| other != name)
            .map(|(_, signer)| signer.jwk(None))
            .collect();
        assert!(judge(&token, &set(&others), &all).is_err(), "{name}");
        // Signed as one thing, said to be another.
        for (other, _) in signers.iter().filter(|(other, _)| other != name) {
            let message = signer.token(&json!({ "alg": other }), &claims());
            let message = message.rsplit_once('.').unwrap().0;
            let token = format!("{message}.{}", base64(&signer.sign(name, message.as_bytes())));
            assert!(judge(&token, &own, &all).is_err(), "{name} as {other}");
        }
        // Not listed.
        let one: Algorithm = if *name == "ES256" { Algorithm::RS256 } else { Algorithm::ES256 };
        let narrow = BearerSettings { algorithms: vec![one], ..settings() };
        assert_eq!(judge(&token, &own, &narrow), Err(TokenError::Algorithm), "{name}");
    }
}

#[test]
fn no_token_without_a_signature_and_none_by_a_public_key_as_a_password() {
    let signer = Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    let keys = set(&[signer.jwk(Some("a"))]);
    for alg in ["none", "None", "nOnE", "NONE", ""] {
        let header = base64(json!({"alg": alg, "kid": "a"}).to_string().as_bytes());
        let payload = base64(claims().to_string().as_bytes());
        for signature in ["", "AA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert!(judge(&token, &keys, &settings()).is_err(), "{token}");
        }
    }
    let public = signer.jwk(None);
    let modulus = URL_SAFE_NO_PAD.decode(public["n"].as_str().unwrap()).unwrap();
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64(&modulus));
    let jwk = public.to_string();
    let every = ["HS256", "RS256", "ES256"].map(|name| name.parse().unwrap()).to_vec();
    // Even were HS256 listed, which the compiler never does.
    for settings in [settings(), BearerSettings { algorithms: every, ..settings() }] {
        for secret in [&modulus[..], pem.as_bytes(), jwk.as_bytes(), b""] {
            let message = signer.token(&json!({"alg": "HS256", "kid": "a"}), &claims());
            let message = message.rsplit_once('.').unwrap().0;
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            let token = format!("{message}.{}", base64(tag.as_ref()));
            let refused = judge(&token, &keys, &settings).unwrap_err();
            assert!(matches!(refused, TokenError::Algorithm | TokenError::UnknownKey));
        }
    }
}

#[test]
fn claims_are_judged_one_by_one() {
    let key = Signer::p256();
    let keys = set(&[key.jwk(None)]);
    let (issuer, audience) = (Err(TokenError::Issuer), Err(TokenError::Audience));
    let table: Vec<(Value, Result<(), TokenError>)> = vec![
        (with(claims(), "iss", json!("https://id.test/")), issuer),
        (with(claims(), "iss", json!("https://evil.test")), issuer),
        (with(claims(), "iss", json!(["https://id.test"])), Err(TokenError::Claim("iss"))),
        (without(claims(), "iss"), Err(TokenError::Claim("iss"))),
        (with(claims(), "aud", json!(["x", "other-app"])), Ok(())),
        (with(claims(), "aud", json!("App")), audience),
        (with(claims(), "aud", json!([])), audience),
        (with(claims(), "aud", json!("app other-app")), audience),
        (with(claims(), "aud", json!(["app", 1])), Err(TokenError::Claim("aud"))),
        (with(claims(), "aud", json!({"app": true})), Err(TokenError::Claim("aud"))),
        (without(claims(), "aud"), Err(TokenError::Claim("aud"))),
        (with(claims(), "exp", json!(NOW - 59)), Ok(())),
        (with(claims(), "exp", json!(NOW - 60)), Err(TokenError::Expired)),
        (with(claims(), "exp", json!(NOW as f64 + 1.5)), Ok(())),
        (with(claims(), "exp", json!((NOW + 300).to_string())), Err(TokenError::Claim("exp"))),
        (with(claims(), "exp", json!(-1)), Err(TokenError::Claim("exp"))),
        (with(claims(), "exp", json!(1e300)), Err(TokenError::Claim("exp"))),
        (with(claims(), "exp", json!(null)), Err(TokenError::Claim("exp"))),
        (without(claims(), "exp"), Err(TokenError::Claim("exp"))),
        (with(claims(), "nbf", json!(NOW + 60)), Ok(())),
        (with(claims(), "nbf", json!(NOW + 61)), Err(TokenError::NotYetValid)),
        (with(claims(), "nbf", json!("now")), Err(TokenError::Claim("nbf"))),
        (with(claims(), "iat", json!("now")), Err(TokenError::Claim("iat"))),
        (with(claims(), "sub", json!(7)), Err(TokenError::Claim("user claim"))),
        (with(claims(), "sub", json!("")), Err(TokenError::Claim("user claim"))),
        (with(claims(), "sub", json!("root\r\nX: y")), Err(TokenError::Claim("user claim"))),
        (without(claims(), "sub"), Err(TokenError::Claim("user claim"))),
        (with(claims(), "groups", json!("staff")), Ok(())),
        (without(claims(), "groups"), Ok(())),
        (with(claims(), "groups", json!(["staff", ""])), Err(TokenError::Claim("groups claim"))),
        (with(claims(), "groups", json!(["staff", 1])), Err(TokenError::Claim("groups claim"))),
        (with(claims(), "groups", json!(null)), Err(TokenError::Claim("groups claim"))),
        (with(claims(), "_claim_names", json!({"groups": "src1"})), Err(TokenError::GroupsLeftOut)),
        (with(claims(), "hasgroups", json!(true)), Err(TokenError::GroupsLeftOut)),
    ];
    for (claims, expected) in table {
        let token = key.token(&json!({"alg": "ES256"}), &claims);
        assert_eq!(judge(&token, &keys, &settings()).map(drop), expected, "{claims}");
    }
}

#[test]
fn headers_that_ask_for_more_are_refused() {
    let key = Signer::p256();
    let keys = set(&[key.jwk(Some("a"))]);
    for header in [
        json!({"alg": "ES256", "crit": ["exp"]}),
        json!({"alg": "ES256", "crit": []}),
        json!({"alg": "ES256", "b64": false}),
        json!({"alg": "ES256", "enc": "A128GCM"}),
        json!({"alg": "ES256", "zip": "DEF"}),
        json!({"alg": "ES256", "typ": "logout+jwt"}),
        json!({"alg": "ES256", "typ": "dpop+jwt"}),
        json!({"alg": "ES256", "typ": 1}),
        json!({"alg": "ES256", "kid": 1}),
        json!({"alg": ["ES256"]}),
        json!({"typ": "JWT"}),
        json!([]),
    ] {
        let refused = judge(&key.token(&header, &claims()), &keys, &settings());
        assert!(matches!(refused, Err(TokenError::Malformed(_))), "{header}: {refused:?}");
    }
    // Where a key may be found is not the token's to say.
    let evil = Signer::p256();
    let header =
        json!({"alg": "ES256", "kid": "a", "jwk": evil.jwk(None), "jku": "https://evil.test"});
    assert_eq!(
        judge(&evil.token(&header, &claims()), &keys, &settings()),
        Err(TokenError::Signature)
    );
    assert!(judge(&key.token(&header, &claims()), &keys, &settings()).is_ok());
}

#[test]
fn the_key_is_the_one_that_the_token_names_or_any_that_fits() {
    let (a, b, nameless) = (Signer::p256(), Signer::p256(), Signer::p256());
    let keys = set(&[a.jwk(Some("a")), b.jwk(Some("b"))]);
    let by = |key: &Signer, header: Value, keys: &KeySet| {
        judge(&key.token(&header, &claims()), keys, &settings()).map(drop)
    };
    let named = |id: &str| json!({"alg": "ES256", "kid": id});
    assert_eq!(by(&b, named("b"), &keys), Ok(()));
    assert_eq!(by(&b, json!({"alg": "ES256"}), &keys), Ok(()));
    assert_eq!(by(&b, named("a"), &keys), Err(TokenError::Signature));
    assert_eq!(by(&b, named("c"), &keys), Err(TokenError::UnknownKey));
    let mixed = set(&[a.jwk(Some("a")), nameless.jwk(None)]);
    assert_eq!(by(&nameless, named("c"), &mixed), Ok(()));
    assert_eq!(by(&a, json!({"alg": "ES256"}), &mixed), Ok(()));
    assert_eq!(by(&b, json!({"alg": "ES256"}), &mixed), Err(TokenError::Signature));
    // Two keys of one name, as while one is replaced.
    let twins = set(&[a.jwk(Some("x")), b.jwk(Some("x"))]);
    assert_eq!(by(&b, named("x"), &twins), Ok(()));
}

#[test]
fn a_bound_token_is_good_on_its_own_connection_alone() {
    let key = Signer::p256();
    let keys = set(&[key.jwk(None)]);
    let (own, other) = (Fingerprint::of(b"own"), Fingerprint::of(b"other"));
    let thumbprint = base64(own.as_bytes());
    let bound = |cnf: Value| key.token(&json!({"alg": "ES256"}), &with(claims(), "cnf", cnf));
    let judge = |token: &str, must: bool, certificate: Option<&Fingerprint>| {
        let settings = BearerSettings { must_be_bound: must, ..settings() };
        let token = Token::parse(token.as_bytes()).unwrap();
        token.verify(&keys, &settings, NOW, certificate).map(drop)
    };
    let elsewhere = Err(TokenError::BoundElsewhere);
    let token = bound(json!({ "x5t#S256": thumbprint }));
    for must in [false, true] {
        assert_eq!(judge(&token, must, Some(&own)), Ok(()));
        assert_eq!(judge(&token, must, Some(&other)), elsewhere);
        assert_eq!(judge(&token, must, None), elsewhere);
        for cnf in [
            json!(null),
            json!({}),
            json!({"x5t#S256": thumbprint.to_uppercase()}),
            json!({"x5t#S256": format!("{thumbprint}=")}),
            json!({"x5t#S256": ""}),
            json!({"x5t#S256": 1}),
            json!({"x5t": thumbprint}),
            json!({"jkt": "abc"}),
            json!({"x5t#S256": thumbprint, "jkt": "abc"}),
        ] {
            assert_eq!(judge(&bound(cnf.clone()), must, Some(&own)), elsewhere, "{cnf}");
        }
    }
    let unbound = key.token(&json!({"alg": "ES256"}), &claims());
    assert_eq!(judge(&unbound, false, Some(&own)), Ok(()));
    assert_eq!(judge(&unbound, true, Some(&own)), Err(TokenError::Unbound));
}

#[test]
fn a_changed_token_and_one_with_two_readings_are_refused() {
    let key = Signer::p256();
    let keys = set(&[key.jwk(None)]);
    let token = key.token(&json!({"alg": "ES256"}), &claims());
    let parts: Vec<&str> = token.split('.').collect();
    let root = base64(with(claims(), "sub", json!("root")).to_string().as_bytes());
    assert_eq!(
        judge(&format!("{}.{root}.{}", parts[0], parts[2]), &keys, &settings()),
        Err(TokenError::Signature)
    );
    // Each is signed in full.
    let sign = |payload: &str| {
        let message = format!("{}.{}", parts[0], payload);
        format!("{message}.{}", base64(&key.sign("ES256", message.as_bytes())))
    };
    let twice = claims().to_string().replacen('{', "{\"sub\":\"root\",", 1);
    for payload in [base64(twice.as_bytes()), format!("{}=", parts[1]), "bnVsbA".to_owned()] {
        let refused = judge(&sign(&payload), &keys, &settings());
        assert!(matches!(refused, Err(TokenError::Malformed(_))), "{payload}: {refused:?}");
    }
    assert!(judge(&sign(parts[1]), &keys, &settings()).is_ok());
    let long = key.token(&json!({"alg": "ES256"}), &with(claims(), "x", json!("x".repeat(16_384))));
    assert!(matches!(judge(&long, &keys, &settings()), Err(TokenError::Malformed(_))));
    for text in ["", ".", "..", "...", "a.b", "a.b.c.d", &format!("{token}."), &format!(".{token}")]
    {
        assert!(judge(text, &keys, &settings()).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_is_refused_and_nothing_panics(text in "\\PC{0,200}", octets in any::<Vec<u8>>()) {
        prop_assert!(Token::parse(&octets).is_err() || octets.contains(&b'.'));
        let keys = set(&[Signer::p256().jwk(None)]);
        if let Ok(token) = Token::parse(text.as_bytes()) {
            prop_assert!(token.verify(&keys, &settings(), NOW, None).is_err());
        }
    }

    #[test]
    fn no_change_of_one_character_is_accepted(place in 0..10_000usize, to in "[A-Za-z0-9_.=-]") {
        let key = Signer::p256();
        let keys = set(&[key.jwk(None)]);
        let mut token = key.token(&json!({"alg": "ES256"}), &claims());
        let place = place % token.len();
        prop_assume!(token.as_bytes()[place] != to.as_bytes()[0]);
        token.replace_range(place..=place, &to);
        prop_assert!(judge(&token, &keys, &settings()).is_err(), "{token}");
    }

    #[test]
    fn json_in_the_places_of_header_and_claims_is_read_without_a_panic(
        header in "\\{(\"(alg|kid|typ|crit)\":(\"ES256\"|\"none\"|1|null|\\[\\]|\\{\\}),?){0,4}\\}",
        payload in "\\{(\"(iss|aud|sub|exp|nbf|cnf|groups)\":(\"app\"|1|-1e9|1e99|null|\\[\"x\"\\]|\\{\\}),?){0,6}\\}",
    ) {
        let key = Signer::p256();
        let message = format!("{}.{}", base64(header.as_bytes()), base64(payload.as_bytes()));
        let token = format!("{message}.{}", base64(&key.sign("ES256", message.as_bytes())));
        prop_assert!(judge(&token, &set(&[key.jwk(None)]), &settings()).is_err());
    }
}
