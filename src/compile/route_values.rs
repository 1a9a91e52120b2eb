//! The values of a RoutePolicy, word by word. The schema's bounds hold here too: an object may have been stored under an
//! older one.

use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::api;
use crate::snapshot::{
    Coding, Compression, Cors, HeaderEdits, PathRewrite, RateKey, RateLimit, Rewrite, RouteTls,
    StatusRange, TlsRules, TlsVersion, cipher_suite,
};

static NO_SUITE: LazyLock<String> = LazyLock::new(|| {
    let known = TlsRules::default().names().join(", ");
    format!("no cipher suite that certmap has: write some of {known}")
});
/// Longer ones are a slip of the pen, and more than a clock may be able to add.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A field within the policy's `spec`, and what to write there.
pub(super) type Wrong = (String, &'static str);

/// A duration as GEP-2257 writes it.
pub(super) fn duration(text: &str, field: &str) -> Result<Duration, Wrong> {
    let wrong = || (field.to_owned(), "not a duration: write for example 500ms, 30s or 1h30m");
    read_duration(text).filter(|it| !it.is_zero() && *it <= LONGEST).ok_or_else(wrong)
}

fn read_duration(mut text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, rest) = text.split_at_checked(digits)?;
        let number: u64 = number.parse().ok()?;
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at_checked(unit)?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        text = rest;
    }
    Some(sum)
}

/// Octets as Kubernetes writes a quantity.
pub(super) fn octets(text: &str, field: &str) -> Result<u64, Wrong> {
    let wrong = || (field.to_owned(), "not a number of octets: write for example 512Ki or 10Mi");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let times: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(times)).ok_or_else(wrong)
}

pub(super) fn rate_limit(limit: &api::RateLimit, field: &str) -> Result<RateLimit, Wrong> {
    let (requests, burst) = (limit.requests, limit.burst.unwrap_or(limit.requests));
    if requests == 0 || burst == 0 {
        return Err((field.to_owned(), "requests and burst are at least 1: write a number"));
    }
    let per = match limit.per {
        api::RateKey::ClientAddress => RateKey::ClientAddress,
        api::RateKey::Account => RateKey::Account,
    };
    let period = duration(&limit.period, &format!("{field}.period"))?;
    Ok(RateLimit { per, requests, period, burst })
}

/// What handshakes must come to.
pub(super) fn client_tls(tls: &api::ClientTls) -> Result<RouteTls, Wrong> {
    let oldest = tls.min_version.map(|version| match version {
        api::TlsVersion::Tls12 => TlsVersion::Tls12,
        api::TlsVersion::Tls13 => TlsVersion::Tls13,
    });
    let named = |(index, name): (usize, &String)| {
        let wrong = || (format!("spec.tls.cipherSuites[{index}]"), NO_SUITE.as_str());
        cipher_suite(name).ok_or_else(wrong)
    };
    let suites = tls.cipher_suites.as_ref();
    let suites = suites.map(|names| names.iter().enumerate().map(named).collect()).transpose()?;
    let read = RouteTls { oldest, suites };
    let none =
        "none of them is of TLS 1.3, which nobody may take from a host: add TLS_AES_256_GCM_SHA384";
    let is_met = read.suites.as_ref().is_none_or(|suites| suites.is_empty())
        || TlsRules::default().with(&read).is_some();
    is_met.then_some(read).ok_or_else(|| ("spec.tls.cipherSuites".to_owned(), none))
}

pub(super) fn rewrite(rewrite: &api::Rewrite) -> Result<Rewrite, Wrong> {
    let host = rewrite.host.as_ref().map(|host| {
        let wrong = |_| ("spec.rewrite.host".to_owned(), "not a host: write for example app.test");
        HeaderValue::try_from(host).map_err(wrong)
    });
    let path = rewrite.path.as_ref().map(path).transpose()?;
    Ok(Rewrite { host: host.transpose()?, path })
}

fn path(path: &api::PathRewrite) -> Result<PathRewrite, Wrong> {
    let plain = |text: &str| {
        let odd = |c: char| !c.is_ascii_graphic() || "?#%\\;\"<>^`{|}".contains(c);
        text.starts_with('/') && !text.contains("//") && !text.contains("/.") && !text.contains(odd)
    };
    match (&path.replace_prefix, &path.replace_full) {
        (Some(prefix), None) if plain(prefix) => Ok(PathRewrite::Prefix(prefix.as_str().into())),
        (None, Some(full)) if plain(full) => Ok(PathRewrite::Full(full.as_str().into())),
        (Some(_), None) | (None, Some(_)) => {
            Err(("spec.rewrite.path".to_owned(), "not a plain path: write for example /v1"))
        }
        (Some(_), Some(_)) | (None, None) => {
            let one = "write exactly one of replacePrefix and replaceFull";
            Err(("spec.rewrite.path".to_owned(), one))
        }
    }
}

/// `remove`, `set` and `add` of a field, as far as `may` lets them; the field that it does not.
pub(super) fn edits(
    (remove, set, add): (&[String], &[api::HeaderField], &[api::HeaderField]),
    field: &str,
    may: impl Fn(&HeaderName) -> bool,
) -> Result<HeaderEdits, Wrong> {
    let named = |name: &str, at: String| {
        let name: Option<HeaderName> = name.parse().ok();
        let free = "not a header that can be changed: leave it out";
        name.filter(&may).ok_or((at, free))
    };
    let fields = |list: &[api::HeaderField], word: &str| {
        let fields = list.iter().enumerate().map(|(index, it)| {
            let at = format!("{field}.{word}[{index}]");
            let wrong = |_| (format!("{at}.value"), "not a header's value: write printable ASCII");
            let value = HeaderValue::try_from(&it.value).map_err(wrong)?;
            Ok((named(&it.name, at)?, value))
        });
        fields.collect::<Result<Box<[_]>, Wrong>>()
    };
    let removed = remove.iter().enumerate();
    let removed = removed.map(|(index, name)| named(name, format!("{field}.remove[{index}]")));
    Ok(HeaderEdits {
        remove: removed.collect::<Result<_, _>>()?,
        set: fields(set, "set")?,
        add: fields(add, "add")?,
    })
}

pub(super) fn cors(cors: &api::Cors) -> Result<Cors, Wrong> {
    let names = |list: &[String], word: &str| {
        let names = list.iter().map(|name| name.parse::<HeaderName>());
        let wrong =
            |_| (format!("spec.cors.{word}"), "not names of headers: write for example X-A");
        names.collect::<Result<Box<[_]>, _>>().map_err(wrong)
    };
    let methods = cors.allow_methods.iter().map(|method| method.parse::<Method>());
    let wrong = |_| ("spec.cors.allowMethods".to_owned(), "not methods: write for example GET");
    if cors.allow_credentials && cors.allow_origins.iter().any(|origin| origin == "*") {
        let field = "spec.cors.allowOrigins".to_owned();
        return Err((field, "allowCredentials does not go with the origin *: name the origins"));
    }
    Ok(Cors {
        allow_origins: cors.allow_origins.iter().map(|it| it.to_ascii_lowercase().into()).collect(),
        allow_methods: methods.collect::<Result<_, _>>().map_err(wrong)?,
        allow_headers: names(&cors.allow_headers, "allowHeaders")?,
        expose_headers: names(&cors.expose_headers, "exposeHeaders")?,
        allow_credentials: cors.allow_credentials,
        max_age: duration(&cors.max_age, "spec.cors.maxAge")?,
    })
}

pub(super) fn compression(compression: &api::Compression) -> Compression {
    let coding = |coding: &api::Coding| match coding {
        api::Coding::Br => Coding::Brotli,
        api::Coding::Gzip => Coding::Gzip,
        api::Coding::Zstd => Coding::Zstd,
    };
    Compression {
        codings: compression.codings.iter().map(coding).collect(),
        types: compression.types.iter().map(|it| it.to_ascii_lowercase().into()).collect(),
        least: compression.least.into(),
    }
}

/// `404`, `403.7` or `5xx`.
pub(super) fn code(text: &str) -> Option<(StatusRange, Option<u16>)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class = class.parse().ok().filter(|class| (4..=5).contains(class))?;
        return Some((StatusRange::Class(class), None));
    }
    let (status, substatus) = match text.split_once('.') {
        Some((status, substatus)) => (status, Some(substatus.parse().ok()?)),
        None => (text, None),
    };
    let status = status.parse().ok().filter(|status| (400..600).contains(status))?;
    Some((StatusRange::One(status), substatus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("500ms", Some(500)),
            ("60s", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1m1ms", Some(60_001)),
            ("0s", None),
            ("", None),
            ("60", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999h", None),
            ("99999h", None),
        ] {
            let read = duration(text, "f").ok().map(|it| it.as_millis());
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn quantities_are_octets() {
        for (text, expected) in [
            ("8192", Some(8192)),
            ("10Mi", Some(10_485_760)),
            ("1k", Some(1000)),
            ("2Gi", Some(2_147_483_648)),
            ("0", Some(0)),
            ("", None),
            ("Mi", None),
            ("1.5Mi", None),
            ("10MB", None),
            ("99999999999999999Ti", None),
        ] {
            assert_eq!(octets(text, "f").ok(), expected, "{text}");
        }
    }

    #[test]
    fn codes_are_a_status_a_substatus_or_a_hundred() {
        for (text, expected) in [
            ("404", Some((StatusRange::One(404), None))),
            ("403.7", Some((StatusRange::One(403), Some(7)))),
            ("5xx", Some((StatusRange::Class(5), None))),
            ("200", None),
            ("2xx", None),
            ("404.", None),
            ("x", None),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn a_path_that_two_could_read_differently_is_none() {
        let read = |text: &str| {
            let spec =
                api::PathRewrite { replace_prefix: Some(text.to_owned()), replace_full: None };
            path(&spec).is_ok()
        };
        assert!(read("/") && read("/v1/") && read("/a.b"));
        for text in ["", "v1", "//x", "/../x", "/a/.", "/a?b", "/a#b", "/a%2fb", "/a;b", "/a b"] {
            assert!(!read(text), "{text}");
        }
    }
}
