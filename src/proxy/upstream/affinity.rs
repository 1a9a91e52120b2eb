//! A client comes back to its endpoint by a cookie that it cannot make up: the endpoint's address under a key.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{self, HeaderMap, HeaderValue};

use crate::snapshot::{Backend, CookieAffinity, Endpoint};

/// So much of the code is written down: 128 bits cannot be guessed.
const OCTETS: usize = 16;
/// And that is so long.
const LENGTH: usize = 22;
/// So many cookies of the name are looked at: a browser sends one.
const MOST_VALUES: usize = 2;

/// The endpoint that the client's cookie names. One that was made up names none.
pub(super) fn preferred(
    affinity: &CookieAffinity,
    backend: &Backend,
    endpoints: &[Endpoint],
    headers: &HeaderMap,
) -> Option<usize> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs =
        fields.flat_map(|field| field.split(';')).filter_map(|it| it.trim().split_once('='));
    let mut wanted: Option<String> = None;
    let values = pairs.filter(|(name, value)| {
        value.len() == LENGTH
            && name.starts_with(&*affinity.name)
            && *name == wanted.get_or_insert_with(|| self::name(affinity, backend)).as_str()
    });
    values.take(MOST_VALUES).find_map(|(_, value)| {
        endpoints.iter().position(|endpoint| &*tag(affinity, backend, endpoint) == value)
    })
}

/// The cookie for an endpoint.
pub(super) fn cookie(
    affinity: &CookieAffinity,
    backend: &Backend,
    endpoint: &Endpoint,
    https: bool,
) -> Option<HeaderValue> {
    let (name, tag) = (name(affinity, backend), tag(affinity, backend, endpoint));
    // With 0 it would be gone at once.
    let age = affinity.max_age.map(|age| format!("; Max-Age={}", age.as_secs().max(1)));
    let secure = if https { "; Secure" } else { "" };
    let age = age.unwrap_or_default();
    let text = format!("{name}={tag}; Path=/{age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).ok()
}

/// A host's paths may lead to several backends: the cookie of one must not take the place of another's.
fn name(affinity: &CookieAffinity, backend: &Backend) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &affinity.key);
    let code = hmac::sign(&key, backend.name.as_bytes());
    let code = code.as_ref().iter().take(4).map(|octet| format!("{octet:02x}"));
    format!("{}-{}", affinity.name, code.collect::<String>())
}

fn tag(affinity: &CookieAffinity, backend: &Backend, endpoint: &Endpoint) -> Arc<str> {
    let service = backend.service();
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
    use crate::snapshot::{Protocol, Target};

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

    fn backend(name: &str) -> Backend {
        Backend::new(name, Target::default(), Protocol::Http1)
    }

    fn value(key: u8, index: usize) -> String {
        let cookie = cookie(&affinity(key), &backend("web/a:80"), &endpoints()[index], false);
        cookie.unwrap().to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    fn found(cookie: &str) -> Option<usize> {
        preferred(&affinity(1), &backend("web/a:80"), &endpoints(), &sent(cookie))
    }

    #[test]
    fn a_cookie_leads_back_to_its_endpoint_and_says_nothing_of_it() {
        for index in 0..3 {
            let cookie = format!("a=b; {}; c=d", value(1, index));
            assert_eq!(found(&cookie), Some(index));
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
            assert_eq!(found(&forged), None, "{forged}");
        }
        let others = backend("web/b:80");
        let other = preferred(&affinity(1), &others, &endpoints(), &sent(&value(1, 1)));
        assert_eq!(other, None, "of another Service");
        let renamed = value(1, 1)
            .replace(&name(&affinity(1), &backend("web/a:80")), &name(&affinity(1), &others));
        assert_eq!(preferred(&affinity(1), &others, &endpoints(), &sent(&renamed)), None);
    }

    #[test]
    fn two_backends_of_a_host_each_have_a_cookie() {
        let names = ["web/a:80", "web/a:81", "web/b:80"].map(|it| name(&affinity(1), &backend(it)));
        assert!(
            names.iter().all(|name| name.starts_with("here-") && name.len() == 13),
            "{names:?}"
        );
        assert!(names[0] != names[1] && names[0] != names[2], "{names:?}");
        let both = names.each_ref().map(|name| format!("{name}={}", "A".repeat(LENGTH))).join("; ");
        assert_eq!(found(&format!("{both}; {}", value(1, 2))), Some(2));
    }

    #[test]
    fn many_values_are_not_all_looked_at() {
        let name = name(&affinity(1), &backend("web/a:80"));
        let many = format!("{name}={}; ", "A".repeat(LENGTH)).repeat(MOST_VALUES);
        assert_eq!(found(&(many + &value(1, 1))), None);
        let short = format!("{name}=A; ").repeat(100);
        assert_eq!(found(&(short + &value(1, 1))), Some(1), "what is no code is not counted");
    }

    #[test]
    fn it_is_not_for_scripts_and_over_https_for_https_alone() {
        for (lasts, seconds) in [(60_000, 60), (500, 1)] {
            let max_age = Some(std::time::Duration::from_millis(lasts));
            let affinity = CookieAffinity { max_age, ..affinity(1) };
            let cookie = cookie(&affinity, &backend("web/a:80"), &endpoints()[0], true).unwrap();
            let text = cookie.to_str().unwrap();
            let end = format!("; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax; Secure");
            assert!(text.ends_with(&end), "{text}");
        }
    }
}
