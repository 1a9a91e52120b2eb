//! A client comes back to its endpoint by a cookie that it cannot make up: the endpoint's address under a key.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{self, HeaderMap, HeaderValue};

use crate::snapshot::{CookieAffinity, Endpoint};

/// So much of the code is written down: 128 bits cannot be guessed.
const OCTETS: usize = 16;

/// The endpoint that the client's cookie names. One that was made up names none.
pub(super) fn preferred(
    affinity: &CookieAffinity,
    service: &str,
    endpoints: &[Endpoint],
    headers: &HeaderMap,
) -> Option<usize> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs =
        fields.flat_map(|field| field.split(';')).filter_map(|it| it.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == &*affinity.name).map(|(_, value)| value);
    values.find_map(|value| {
        endpoints.iter().position(|endpoint| &*tag(affinity, service, endpoint) == value)
    })
}

/// The cookie for an endpoint.
pub(super) fn cookie(
    affinity: &CookieAffinity,
    service: &str,
    endpoint: &Endpoint,
    https: bool,
) -> Option<HeaderValue> {
    let (name, tag) = (&affinity.name, tag(affinity, service, endpoint));
    let age = affinity.max_age.map(|age| format!("; Max-Age={}", age.as_secs()));
    let secure = if https { "; Secure" } else { "" };
    let age = age.unwrap_or_default();
    let text = format!("{name}={tag}; Path=/{age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).ok()
}

fn tag(affinity: &CookieAffinity, service: &str, endpoint: &Endpoint) -> Arc<str> {
    endpoint.state.tag(&affinity.key, || {
        let address = endpoint.addresses.first().map(SocketAddr::to_string).unwrap_or_default();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &affinity.key);
        let code = hmac::sign(&key, format!("{service}\0{address}").as_bytes());
        let code = code.as_ref().get(..OCTETS).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(code).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(key: u8) -> CookieAffinity {
        CookieAffinity { name: "here".into(), max_age: None, key: [key; 32] }
    }

    fn endpoints() -> Vec<Endpoint> {
        (1..4).map(|host| Endpoint::new(([10, 0, 0, host], 80).into())).collect()
    }

    fn sent(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(cookie).unwrap());
        headers
    }

    fn value(key: u8, index: usize) -> String {
        let cookie = cookie(&affinity(key), "web/a", &endpoints()[index], false).unwrap();
        cookie.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_cookie_leads_back_to_its_endpoint_and_says_nothing_of_it() {
        for index in 0..3 {
            let cookie = format!("a=b; {}; c=d", value(1, index));
            let found = preferred(&affinity(1), "web/a", &endpoints(), &sent(&cookie));
            assert_eq!(found, Some(index));
            assert!(!cookie.contains("10.0"));
        }
    }

    #[test]
    fn a_forged_cookie_leads_nowhere() {
        for forged in [
            value(2, 1),
            "here=10.0.0.2:80".to_owned(),
            "here=".to_owned(),
            format!("{}A", value(1, 1)),
            value(1, 1).replace("here", "Here"),
        ] {
            assert_eq!(preferred(&affinity(1), "web/a", &endpoints(), &sent(&forged)), None);
        }
        let other = preferred(&affinity(1), "web/b", &endpoints(), &sent(&value(1, 1)));
        assert_eq!(other, None, "of another Service");
    }

    #[test]
    fn it_is_not_for_scripts_and_over_https_for_https_alone() {
        let long =
            CookieAffinity { max_age: Some(std::time::Duration::from_secs(60)), ..affinity(1) };
        let cookie = cookie(&long, "web/a", &endpoints()[0], true).unwrap();
        let text = cookie.to_str().unwrap();
        assert!(text.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"), "{text}");
    }
}
