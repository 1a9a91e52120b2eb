//! Header fields on their way to the backend: always strip, then perhaps set.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, Version};

use super::forwarded::{self, Arrival, is_forwarded};
use super::hop_by_hop::{self, has_plain_length, is_hop_by_hop, options, remove};
use super::hops::REQUEST_ID;
use super::told::{HeaderError, Told};
use super::upgrade;
use crate::policy::Permit;
use crate::snapshot::IdentityHeaders;

/// Of a trailer, nothing may change who asks, of whom, or where the message ends (RFC 9110, 6.5.1).
const NEVER_TRAILERS: &[&str] =
    &["authorization", "content-length", "cookie", "host", "set-cookie", "trailer"];

/// Makes a client's header fields ours.
///
/// # Errors
/// The permit says something that the fields cannot carry.
pub(super) fn to_backend(
    headers: &mut HeaderMap,
    permit: &Permit,
    arrival: &Arrival,
    stripped: &IdentityHeaders,
    service: &str,
    websocket: bool,
) -> Result<(), HeaderError> {
    let trailers = options(headers, &header::TE).any(|te| te.eq_ignore_ascii_case(b"trailers"));
    hop_by_hop::strip(headers);
    remove(headers, |name| stripped.contains(name) || is_forwarded(name));
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
    let told = Told { permit, service, arrival };
    permit.forward().map_or(Ok(()), |forward| told.set(headers, forward))
}

/// Makes a backend's header fields ours.
pub(super) fn to_client<B>(response: &mut Response<B>, request_id: &HeaderValue, websocket: bool) {
    // Each hop has a version of its own (RFC 9110, 2.5).
    *response.version_mut() = Version::HTTP_11;
    let status = response.status();
    let headers = response.headers_mut();
    settle_length(status, headers);
    hop_by_hop::strip(headers);
    if websocket {
        upgrade::set(headers);
    }
    headers.insert(REQUEST_ID, request_id.clone());
}

/// Leaves no length where the answer ends otherwise (RFC 9112, 6.3) or may have none (RFC 9110, 8.6), and elsewhere one that
/// every reader reads alike.
fn settle_length(status: StatusCode, headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONTENT_LENGTH) {
        return;
    }
    let none = headers.contains_key(header::TRANSFER_ENCODING)
        || status == StatusCode::NO_CONTENT
        || status.is_informational();
    if !none && has_plain_length(headers) {
        return;
    }
    match length(headers).filter(|_| !none) {
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        None => drop(headers.remove(header::CONTENT_LENGTH)),
    }
}

/// The number that every member says.
fn length(headers: &HeaderMap) -> Option<u64> {
    let mut members = options(headers, &header::CONTENT_LENGTH).map(|member| {
        let digits = std::str::from_utf8(member).ok();
        digits.filter(|it| it.bytes().all(|octet| octet.is_ascii_digit()))?.parse().ok()
    });
    let first = members.next()?;
    first.filter(|_| members.all(|member| member == first))
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

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use rustls::pki_types::UnixTime;

    use super::super::forwarded::shown;
    use super::super::hops::Origin;
    use super::super::settings::TrustedHops;
    use super::*;
    use crate::api::{CertificateFormat, UserFormat};
    use crate::auth::{Known, Principal, SigningError, SigningKey};
    use crate::policy::{ForwardSettings, SignedIdentity, SigningKeys};

    fn arrival() -> Arrival {
        let client = "192.0.2.7:50000".parse().unwrap();
        Arrival {
            origin: Origin::of(client, true, &HeaderMap::new(), &TrustedHops::default()),
            client: shown(client.ip()),
            host: HeaderValue::from_static("a.example"),
            host_sent: None,
            request_id: HeaderValue::from_static("id"),
            unique: HeaderValue::from_static("id"),
            at: UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_000)),
            forwarded: false,
            trace: None,
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
        let stripped = IdentityHeaders::new(["X-Employee"]);
        to_backend(&mut headers, permit, &arrival(), &stripped, "web/echo", false).map(|()| headers)
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
        ("X-Forwarded-Tls-Client-Cert", "AA"),
        ("X_Forwarded_Tls_Client_Cert_Info", "Subject"),
        ("X-Certmap-Identity", "e30.e30."),
        ("X-Remote-Groups", "admins"),
        ("Remote-Groups", "admins"),
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

    fn sent_of(groups: &[&str]) -> Result<HeaderMap, HeaderError> {
        let groups = groups.iter().map(|group| (*group).into()).collect();
        let alice = Principal::known("CORP\\alice", Known { groups, ..Known::default() });
        let forward = ForwardSettings {
            groups_header: Some("x-employee".into()),
            groups_separator: ';',
            ..ForwardSettings::default()
        };
        sent(FORGED, &Permit::for_test_of(Some(alice), None, None, Some(forward)))
    }

    #[test]
    fn groups_stand_in_one_field_between_separators() {
        let headers = sent_of(&["HR, Staff", "Jürgens", "CN=a,DC=b"]).unwrap();
        assert_eq!(all(&headers, "x-employee"), ["HR, Staff;Jürgens;CN=a,DC=b".as_bytes()]);
        assert!(!sent_of(&[]).unwrap().contains_key("x-employee"));
    }

    #[test]
    fn a_group_that_a_reader_would_take_for_others_is_refused() {
        for group in ["a;b", "", " a", "a ", "a\nb", "a\u{85}"] {
            let result = sent_of(&["x", group]);
            assert_eq!(result.unwrap_err(), HeaderError::Group, "{group:?}");
        }
        let many: Vec<String> = (0..2_000).map(|index| format!("group-{index:08}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(sent_of(&many).unwrap_err(), HeaderError::Groups);
    }

    #[test]
    fn a_name_is_written_in_the_form_that_is_asked_for_or_refused() {
        let told = |user: &str| {
            let forward =
                ForwardSettings { user_format: UserFormat::DownLevelLogonName, ..user_header() };
            sent(&[], &Permit::for_test(Some(user), None, None, Some(forward)))
        };
        assert_eq!(all(&told("CORP\\alice").unwrap(), "x-employee"), [b"CORP\\alice"]);
        assert_eq!(told("alice").unwrap_err(), HeaderError::UserForm);
    }

    fn signed(keys: Result<SigningKeys, Box<str>>) -> ForwardSettings {
        let signed_identity = Some(SignedIdentity {
            header: "x-employee".into(),
            audience: None,
            issuer: "certmap".into(),
            lifetime: 60,
            publish: false,
            keys,
        });
        ForwardSettings { signed_identity, ..ForwardSettings::default() }
    }

    #[test]
    fn a_token_takes_the_place_of_whatever_the_client_sent() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let current = SigningKey::from_pem(pem.as_bytes()).unwrap();
        let forward = signed(Ok(SigningKeys { current, others: Vec::new() }));
        let headers = sent(FORGED, &Permit::for_test(Some("alice"), None, None, Some(forward)));
        let headers = headers.unwrap();
        let tokens = all(&headers, "x-employee");
        assert_eq!(
            (tokens.len(), tokens[0].iter().filter(|octet| **octet == b'.').count()),
            (1, 2)
        );
        assert!(headers["x-employee"].is_sensitive());
    }

    #[test]
    fn without_a_key_nothing_is_sent_and_nobody_gets_no_token() {
        let permit = |user| Permit::for_test(user, None, None, Some(signed(Err("gone".into()))));
        assert_eq!(
            sent(&[], &permit(Some("alice"))).unwrap_err(),
            HeaderError::Signing(SigningError)
        );
        assert!(!sent(FORGED, &permit(None)).unwrap().contains_key("x-employee"));
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
    fn an_answer_says_its_length_once_or_not_at_all() {
        let one = |length| vec![("content-length", length)];
        let chunked = |length| vec![("content-length", length), ("transfer-encoding", "chunked")];
        for (status, said, expected) in [
            (200, vec![], None),
            (200, one("0"), Some("0")),
            (200, one("18446744073709551615"), Some("18446744073709551615")),
            (304, one("5"), Some("5")),
            (200, one("5, 5"), Some("5")),
            (200, one("005,5"), Some("5")),
            (200, [one("5"), one("5")].concat(), Some("5")),
            (200, [one("5"), one("6")].concat(), None),
            (200, one("5, 6"), None),
            (200, one("5,"), None),
            (200, one("+5"), None),
            (200, one(""), None),
            (200, one("18446744073709551616, 18446744073709551616"), None),
            (200, chunked("5"), None),
            (101, one("5"), None),
            (204, one("0"), None),
        ] {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.headers_mut() = fields(&said);
            to_client(&mut response, &HeaderValue::from_static("id"), false);
            let left = all(response.headers(), "content-length");
            let expected: Vec<&[u8]> = expected.map(str::as_bytes).into_iter().collect();
            assert_eq!(left, expected, "{status} {said:?}");
        }
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
