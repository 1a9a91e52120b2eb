//! Header fields on their way to the backend: always strip, then perhaps set.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, Version};

use super::certificate_headers::{self, UnwritableCertificate};
use super::forwarded::{self, Arrival, REQUEST_ID, is_forwarded};
use super::hop_by_hop::{self, is_hop_by_hop, options, remove};
use super::upgrade;
use crate::policy::{ForwardSettings, Permit};
use crate::snapshot::IdentityHeaders;

/// Of a trailer, nothing may change who asks, of whom, or where the message ends (RFC 9110, 6.5.1).
const NEVER_TRAILERS: &[&str] =
    &["authorization", "content-length", "cookie", "host", "set-cookie", "trailer"];

/// What no header field can carry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the account has no password to send")]
    NoPassword,
    #[error("the user's name cannot be written into a header field")]
    User,
    #[error("the user's name cannot be written into Basic credentials")]
    BasicUser,
    #[error("forward.userHeader is no name of a header field")]
    UserHeader,
    #[error("{0}")]
    Certificate(#[from] UnwritableCertificate),
}

/// Makes a client's header fields ours.
///
/// # Errors
/// The permit says something that the fields cannot carry.
pub(super) fn to_backend(
    headers: &mut HeaderMap,
    permit: &Permit,
    arrival: &Arrival,
    identity: &IdentityHeaders,
    websocket: bool,
) -> Result<(), HeaderError> {
    let trailers = options(headers, &header::TE).any(|te| te.eq_ignore_ascii_case(b"trailers"));
    hop_by_hop::strip(headers);
    remove(headers, |name| identity.contains(name) || is_forwarded(name));
    if permit.forward().is_some_and(|forward| !forward.pass_authorization) {
        headers.remove(header::AUTHORIZATION);
    }
    merge_cookies(headers);
    forwarded::set(headers, arrival);
    if websocket {
        upgrade::set(headers);
    } else if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    permit.forward().map_or(Ok(()), |forward| set_identity(headers, forward, permit))
}

/// Makes a backend's header fields ours.
pub(super) fn to_client<B>(response: &mut Response<B>, request_id: &HeaderValue, websocket: bool) {
    // Each hop has a version of its own (RFC 9110, 2.5).
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    hop_by_hop::strip(headers);
    if websocket {
        upgrade::set(headers);
    }
    headers.insert(REQUEST_ID, request_id.clone());
}

/// Takes out of a request's trailers what identifies, and what frames.
pub(super) fn strip_trailers(trailers: &mut HeaderMap, identity: &IdentityHeaders) {
    remove(trailers, |name| {
        let never = is_hop_by_hop(name) || NEVER_TRAILERS.contains(&name.as_str());
        never || identity.contains(name) || is_forwarded(name)
    });
}

/// HTTP/2 may split Cookie; HTTP/1.1 may not (RFC 9113, 8.2.3).
fn merge_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let cookies: Vec<&[u8]> =
            headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(merged) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
            headers.insert(header::COOKIE, merged);
        }
    }
}

fn set_identity(
    headers: &mut HeaderMap,
    forward: &ForwardSettings,
    permit: &Permit,
) -> Result<(), HeaderError> {
    if let Some((name, user)) = forward.user_header.as_deref().zip(permit.user()) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeaderError::UserHeader)?;
        headers.insert(name, user_value(user)?);
    }
    if forward.basic_credentials && permit.user().is_some() {
        let (user, password) = permit.credentials().ok_or(HeaderError::NoPassword)?;
        headers.insert(header::AUTHORIZATION, basic(user, password)?);
    }
    if let Some(certificate) = permit.certificate() {
        for format in &forward.client_certificate {
            certificate_headers::set(headers, *format, certificate)?;
        }
    }
    Ok(())
}

/// UTF-8 as it is. A reader trims space at both ends, and would take " alice" for someone else.
fn user_value(user: &str) -> Result<HeaderValue, HeaderError> {
    let whole = !user.is_empty() && user.trim() == user && !user.chars().any(char::is_control);
    let value = whole.then(|| HeaderValue::from_bytes(user.as_bytes()).ok()).flatten();
    value.ok_or(HeaderError::User)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CertificateFormat;

    fn arrival() -> Arrival {
        Arrival {
            client: "192.0.2.7:50000".parse().unwrap(),
            https: true,
            host: HeaderValue::from_static("a.example"),
            request_id: HeaderValue::from_static("id"),
        }
    }

    fn fields(fields: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut headers = HeaderMap::new();
        fields.iter().map(parse).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn all<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h [u8]> {
        headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    }

    fn sent(sent: &[(&str, &str)], permit: &Permit) -> Result<HeaderMap, HeaderError> {
        let mut headers = fields(sent);
        let identity = IdentityHeaders::new(["X-Employee"]);
        to_backend(&mut headers, permit, &arrival(), &identity, false).map(|()| headers)
    }

    fn user_header() -> ForwardSettings {
        ForwardSettings { user_header: Some("x-employee".into()), ..Default::default() }
    }

    fn basic_credentials() -> ForwardSettings {
        ForwardSettings { basic_credentials: true, ..Default::default() }
    }

    const FORGED: &[(&str, &str)] = &[
        ("X-Remote-User", "root"),
        ("x-remote-user", "root"),
        ("X_Remote_User", "root"),
        ("X.Remote.User", "root"),
        ("x-employee", "root"),
        ("X_EMPLOYEE", "root"),
        ("X-Forwarded-Client-Cert", "Hash=0"),
        ("Client-Cert", ":AA==:"),
        ("Client-Cert-Chain", ":AA==:"),
        ("SSL_CLIENT_VERIFY", "SUCCESS"),
        ("ssl-client-subject-dn", "CN=root"),
        ("X-ARR-ClientCert", "AA=="),
        ("X-Forwarded-Prefix", "/x"),
        ("X_Forwarded_Host", "evil.example"),
        ("Forwarded", "for=1.2.3.4"),
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("Proxy", "http://evil.example"),
    ];

    #[test]
    fn a_forged_identity_is_removed_in_every_spelling_with_and_without_a_policy() {
        for permit in [
            Permit::for_test(None, None, None, None),
            Permit::for_test(Some("alice"), None, None, Some(ForwardSettings::default())),
        ] {
            let headers = sent(FORGED, &permit).unwrap();
            let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(
                names,
                [
                    "host",
                    "x-forwarded-for",
                    "x-forwarded-host",
                    "x-forwarded-port",
                    "x-forwarded-proto",
                    "x-real-ip",
                    "x-request-id"
                ]
            );
        }
    }

    #[test]
    fn the_users_name_stands_alone_whatever_the_client_sent() {
        let headers =
            sent(FORGED, &Permit::for_test(Some("Jürgen"), None, None, Some(user_header())))
                .unwrap();
        assert_eq!(all(&headers, "x-employee"), ["Jürgen".as_bytes()]);
    }

    #[test]
    fn connection_cannot_remove_what_is_set() {
        let tricks = [("Connection", "x-employee, Authorization, X-Forwarded-For, host, close")];
        let forward = ForwardSettings { basic_credentials: true, ..user_header() };
        let headers =
            sent(&tricks, &Permit::for_test(Some("alice"), Some("p"), None, Some(forward)))
                .unwrap();
        for name in ["x-employee", "authorization", "x-forwarded-for", "host"] {
            assert_eq!(all(&headers, name).len(), 1, "{name}");
        }
        assert!(!headers.contains_key("connection"));
    }

    #[test]
    fn te_trailers_goes_on_with_its_connection_option() {
        let headers = sent(
            &[("TE", "gzip, Trailers"), ("Connection", "TE")],
            &Permit::for_test(None, None, None, None),
        )
        .unwrap();
        assert_eq!(all(&headers, "te"), [b"trailers"]);
        assert_eq!(all(&headers, "connection"), [b"te"]);
    }

    #[test]
    fn cookies_are_merged() {
        let headers = sent(
            &[("Cookie", "a=1"), ("Cookie", "b=2")],
            &Permit::for_test(None, None, None, None),
        )
        .unwrap();
        assert_eq!(all(&headers, "cookie"), [b"a=1; b=2"]);
    }

    #[test]
    fn authorization_reaches_the_backend_only_where_nobody_judges_it_or_the_policy_passes_it() {
        let offered = [("Authorization", "Bearer x")];
        let pass = ForwardSettings { pass_authorization: true, ..Default::default() };
        let authorization = |permit| {
            let headers = sent(&offered, &permit).unwrap();
            headers.get("authorization").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(
            authorization(Permit::for_test(None, None, None, None)).as_deref(),
            Some("Bearer x")
        );
        assert_eq!(
            authorization(Permit::for_test(Some("alice"), None, None, Some(pass))).as_deref(),
            Some("Bearer x")
        );
        assert_eq!(
            authorization(Permit::for_test(
                Some("alice"),
                None,
                None,
                Some(ForwardSettings::default())
            )),
            None
        );
        let basic = authorization(Permit::for_test(
            Some("Jürgen"),
            Some("pä:ß"),
            None,
            Some(basic_credentials()),
        ));
        assert_eq!(basic.as_deref(), Some("Basic SsO8cmdlbjpww6Q6w58="));
    }

    #[test]
    fn nobody_in_particular_gets_neither_name_nor_credentials() {
        let forward = ForwardSettings { basic_credentials: true, ..user_header() };
        let anonymous = Permit::for_test(None, None, None, Some(forward));
        let headers = sent(&[("Authorization", "Basic eA=="), ("X-Employee", "x")], &anonymous);
        let headers = headers.unwrap();
        assert!(!headers.contains_key("authorization") && !headers.contains_key("x-employee"));
    }

    #[test]
    fn a_name_that_a_reader_would_take_for_another_is_refused() {
        for user in
            ["", " alice", "alice ", "al\tice", "a\r\nX-Role: admin", "a\0", "a\u{85}", "a\u{a0}"]
        {
            let result = sent(&[], &Permit::for_test(Some(user), None, None, Some(user_header())));
            assert_eq!(result.unwrap_err(), HeaderError::User, "{user:?}");
        }
        let result = sent(
            &[],
            &Permit::for_test(Some("alice:x"), Some("p"), None, Some(basic_credentials())),
        );
        assert_eq!(result.unwrap_err(), HeaderError::BasicUser);
        let result =
            sent(&[], &Permit::for_test(Some("alice"), None, None, Some(basic_credentials())));
        assert_eq!(result.unwrap_err(), HeaderError::NoPassword);
    }

    #[test]
    fn no_certificate_means_no_certificate_fields() {
        let forward = ForwardSettings {
            client_certificate: vec![CertificateFormat::Rfc9440, CertificateFormat::Nginx],
            ..Default::default()
        };
        let headers =
            sent(FORGED, &Permit::for_test(Some("alice"), None, None, Some(forward))).unwrap();
        assert!(!headers.contains_key("client-cert"));
        assert!(!headers.contains_key("ssl-client-verify"));
    }

    #[test]
    fn trailers_neither_identify_nor_frame() {
        let mut trailers = fields(FORGED);
        trailers.extend(fields(&[
            ("Authorization", "x"),
            ("Content-Length", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Host", "x"),
            ("Cookie", "x"),
            ("X-Checksum", "1"),
        ]));
        strip_trailers(&mut trailers, &IdentityHeaders::new(["X-Employee"]));
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-checksum"]);
    }

    #[test]
    fn a_response_keeps_its_own_fields_and_gets_the_requests_name() {
        let mut response = Response::new(());
        *response.version_mut() = Version::HTTP_10;
        *response.headers_mut() = fields(&[
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("Server", "theirs"),
            ("X-Request-ID", "theirs"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
        ]);
        to_client(&mut response, &HeaderValue::from_static("id"), false);
        let mut names: Vec<&str> = response.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["server", "set-cookie", "x-request-id"]);
        assert_eq!(all(response.headers(), "x-request-id"), [b"id"]);
        assert_eq!(all(response.headers(), "set-cookie").len(), 2);
        assert_eq!(response.version(), Version::HTTP_11);
    }
}
