//! The external module: what another service is asked about a request, and what its answer means.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use super::claims::Claims;
use super::name::is_name;

/// A service that is asked, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExternalService {
    /// The Service's namespace.
    pub namespace: Box<str>,
    /// The Service's name.
    pub name: Box<str>,
    /// The number of its port.
    pub port: u16,
    /// Whether the policy may refer to it; otherwise it is never asked.
    pub permitted: bool,
    /// The path that is asked for.
    pub path: Box<str>,
    /// How long it may take.
    pub timeout: Duration,
    /// Fields of the request that it is sent.
    pub request_headers: Vec<HeaderName>,
    /// The field of its answer that names the user.
    pub user_header: Option<HeaderName>,
    /// The field of its answer that lists the groups.
    pub groups_header: Option<HeaderName>,
    /// Whether the client gets its refusals.
    pub pass_back: bool,
}

/// A request without its body, as far as somebody else may be told.
#[derive(Debug)]
pub struct RequestHead {
    /// GET, POST.
    pub method: Method,
    /// Whether it came over https.
    pub https: bool,
    /// As the client wrote it.
    pub host: HeaderValue,
    /// Path and query.
    pub target: PathAndQuery,
    /// The client.
    pub client: IpAddr,
    /// What some external module is sent of its fields; never those that say who is calling.
    pub headers: HeaderMap,
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: Method::GET,
            https: true,
            host: HeaderValue::from_static(""),
            target: PathAndQuery::from_static("/"),
            client: IpAddr::from([0, 0, 0, 0]),
            headers: HeaderMap::new(),
        }
    }
}

/// Does this service admit that request?
#[derive(Clone, Debug)]
pub struct ExternalQuestion {
    /// Who is asked.
    pub service: Arc<ExternalService>,
    /// About what.
    pub request: Arc<RequestHead>,
}

impl PartialEq for ExternalQuestion {
    /// The very same request, and the same service.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.request, &other.request) && self.service == other.service
    }
}

impl Eq for ExternalQuestion {}

/// What a service said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ExternalAnswer {
    /// It admits, as nobody in particular where it names nobody and need not.
    Admitted(Option<Claims>),
    /// It does not; what the client is to get, where that is passed back.
    Refused(Option<Box<PassedBack>>),
}

/// A refusal as the service wrote it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PassedBack {
    /// 401, 403 or a redirect.
    pub status: StatusCode,
    /// Location, Set-Cookie, Content-Type.
    pub headers: HeaderMap,
    /// WWW-Authenticate.
    pub challenges: Vec<Box<str>>,
    /// A short body.
    pub body: Bytes,
}

/// An answer that cannot be followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AnswerError {
    /// It admits somebody, and does not say whom.
    #[error("its answer names no user, or a name that cannot be used")]
    User,
    /// A group that cannot be read must not be left out: somebody may be denied by it.
    #[error("its answer lists a group that cannot be used")]
    Groups,
    /// It has troubles of its own.
    #[error("it answers {0}")]
    Failed(u16),
}

impl ExternalService {
    /// What the snapshot knows its endpoints by.
    #[must_use]
    pub fn backend(&self) -> String {
        format!("{}/{}:{}", self.namespace, self.name, self.port)
    }

    /// What an answer means.
    ///
    /// # Errors
    /// Nothing that can be followed: the request is not admitted.
    pub fn read(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<ExternalAnswer, AnswerError> {
        if status.is_success() {
            return self.admitted(headers).map(ExternalAnswer::Admitted);
        }
        if status.is_server_error() {
            return Err(AnswerError::Failed(status.as_u16()));
        }
        let passed_back = self.pass_back && is_passed_back(status, headers);
        let answer = passed_back.then(|| Box::new(PassedBack::new(status, headers, body)));
        Ok(ExternalAnswer::Refused(answer))
    }

    fn admitted(&self, headers: &HeaderMap) -> Result<Option<Claims>, AnswerError> {
        let Some(name) = &self.user_header else { return Ok(None) };
        let mut values = headers.get_all(name).iter();
        let (user, more) = (values.next().and_then(text), values.next());
        let user = user.filter(|user| is_name(user) && more.is_none()).ok_or(AnswerError::User)?;
        let groups = self.groups_header.iter().flat_map(|name| headers.get_all(name));
        let mut all: Vec<Box<str>> = Vec::new();
        for value in groups {
            let value = text(value).ok_or(AnswerError::Groups)?;
            let listed = value.split(',').map(str::trim).filter(|group| !group.is_empty());
            all.extend(listed.map(Box::from));
        }
        let usable = all.iter().all(|group| is_name(group));
        if usable {
            Ok(Some(Claims { user: user.into(), groups: all }))
        } else {
            Err(AnswerError::Groups)
        }
    }
}

impl PassedBack {
    fn new(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        let mut passed = HeaderMap::new();
        for name in [header::LOCATION, header::SET_COOKIE, header::CONTENT_TYPE] {
            for value in headers.get_all(&name) {
                passed.append(name.clone(), value.clone());
            }
        }
        let challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let challenges = challenges.filter_map(|value| Some(value.to_str().ok()?.into())).collect();
        Self { status, headers: passed, challenges, body }
    }
}

fn is_passed_back(status: StatusCode, headers: &HeaderMap) -> bool {
    match status.as_u16() {
        401 | 403 => true,
        301 | 302 | 303 | 307 | 308 => headers.contains_key(header::LOCATION),
        _ => false,
    }
}

/// UTF-8, as user names are.
fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(pass_back: bool) -> ExternalService {
        ExternalService {
            namespace: "web".into(),
            name: "verify".into(),
            port: 80,
            permitted: true,
            path: "/".into(),
            timeout: Duration::from_secs(1),
            request_headers: Vec::new(),
            user_header: Some(HeaderName::from_static("x-auth-user")),
            groups_header: Some(HeaderName::from_static("x-auth-groups")),
            pass_back,
        }
    }

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn code(status: u16) -> StatusCode {
        StatusCode::from_u16(status).unwrap()
    }

    fn read(status: u16, with: &[(&'static str, &str)]) -> Result<ExternalAnswer, AnswerError> {
        service(true).read(code(status), &fields(with), Bytes::from_static(b"body"))
    }

    #[test]
    fn an_answer_of_2xx_admits_whom_it_names() {
        let claims = Claims {
            user: "Jürgen".into(),
            groups: vec!["a b".into(), "CORP\\x".into(), "c".into()],
        };
        let answer =
            [("x-auth-user", "Jürgen"), ("x-auth-groups", "a b,CORP\\x ,"), ("x-auth-groups", "c")];
        assert_eq!(read(204, &answer), Ok(ExternalAnswer::Admitted(Some(claims))));
        let nobody = ExternalService { user_header: None, ..service(true) };
        let answer = nobody.read(StatusCode::OK, &fields(&answer), Bytes::new());
        assert_eq!(answer, Ok(ExternalAnswer::Admitted(None)));
    }

    #[test]
    fn an_answer_of_2xx_that_names_nobody_two_or_somebody_unspeakable_admits_nobody() {
        for with in [
            &[][..],
            &[("x-auth-user", "")],
            &[("x-auth-user", "a"), ("x-auth-user", "a")],
            &[("x-auth-user", "a\tb")],
            &[("x-user", "alice")],
        ] {
            assert_eq!(read(200, with), Err(AnswerError::User), "{with:?}");
        }
        let long = "x".repeat(300);
        let groups = [("x-auth-user", "alice"), ("x-auth-groups", long.as_str())];
        assert_eq!(read(200, &groups), Err(AnswerError::Groups));
    }

    #[test]
    fn refusals_are_passed_back_without_anything_else_of_them() {
        let with = [
            ("location", "https://login.test/"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("www-authenticate", "Digest realm=\"x\""),
            ("x-auth-user", "alice"),
            ("server", "x"),
        ];
        for status in [302, 401, 403] {
            let Ok(ExternalAnswer::Refused(Some(passed))) = read(status, &with) else {
                panic!("{status}")
            };
            let names: Vec<&str> = passed.headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["location", "set-cookie"], "{status}");
            assert_eq!((passed.challenges.len(), &passed.body[..]), (1, &b"body"[..]));
        }
        for status in [304, 400, 404, 407, 429] {
            assert_eq!(read(status, &with), Ok(ExternalAnswer::Refused(None)), "{status}");
        }
        assert_eq!(read(302, &[]), Ok(ExternalAnswer::Refused(None)), "it leads nowhere");
        let kept = service(false).read(StatusCode::FORBIDDEN, &fields(&with), Bytes::new());
        assert_eq!(kept, Ok(ExternalAnswer::Refused(None)));
        assert_eq!(read(500, &with), Err(AnswerError::Failed(500)));
        assert_eq!(read(503, &with), Err(AnswerError::Failed(503)));
    }
}
