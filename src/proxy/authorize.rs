//! From a request to its permit: route, judge, ask whatever must be asked, decide.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use rustls::pki_types::UnixTime;

use super::connection::Connection;
use super::forwarded::is_forwarded;
use super::framing;
use super::hop_by_hop::connection_options;
use super::hops::Origin;
use super::rejection::Rejection;
use crate::api::KEYS_PATH;
use crate::auth::{Answers, Credentials, Question, RequestHead};
use crate::lookup::Lookups;
use crate::policy::{Decision, Permit, Subject, Trace, decide};
use crate::snapshot::{
    Backend, ClientCertificateTerms, HostName, PathPattern, Route, RouteSettings, Snapshot,
    VirtualHost, canonical, unambiguous,
};

/// A policy asks the directory about the certificate, and then one of its modules asks for one thing; more is a fault.
const QUESTIONS_OF_A_POLICY: usize = 2;

/// What of a request a decision rests on; kept as long as the request lasts, so that it can be asked again.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) connection: Arc<Connection>,
    pub(super) host: HostName,
    credentials: Offered,
    pub(super) head: Arc<RequestHead>,
    /// What is asked once for a request, however long it lasts: external services, and whether a password is that of a hash,
    /// which does not change.
    heard: Mutex<Answers>,
}

/// What Authorization holds.
#[derive(Debug)]
enum Offered {
    Nothing,
    One(Credentials),
    /// Two readers could take different ones.
    Several,
}

/// A permit, and where it leads.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) permit: Box<Permit>,
    pub(super) backend: Arc<Backend>,
    pub(super) settings: Arc<RouteSettings>,
}

impl Case {
    /// Reads the request.
    pub(super) fn new<B>(
        connection: Arc<Connection>,
        request: &Request<B>,
        origin: &Origin,
        snapshot: &Snapshot,
    ) -> Result<Self, Rejection> {
        framing::check(request)?;
        let host = host(request.uri(), request.headers())?;
        let target = request.uri().path_and_query().filter(|it| it.path().starts_with('/'));
        let target = target.ok_or_else(|| Rejection::bad_request("the target is not a path"))?;
        let mut authorizations = request.headers().get_all(header::AUTHORIZATION).iter();
        let credentials = match (authorizations.next(), authorizations.next()) {
            (None, _) => Offered::Nothing,
            (Some(value), None) => Offered::One(Credentials::parse(value.as_bytes())),
            (Some(_), Some(_)) => Offered::Several,
        };
        let head = Arc::new(head(origin, request, target, &host, snapshot));
        Ok(Self { connection, host, credentials, head, heard: Mutex::default() })
    }

    /// Decides on a snapshot, at a time.
    pub(super) async fn authorize(
        &self,
        snapshot: &Snapshot,
        lookups: &Lookups,
        now: UnixTime,
    ) -> (Result<Admission, Rejection>, Trace) {
        match self.route(snapshot) {
            Ok((_, route)) => self.pass(route, snapshot, lookups, now).await,
            Err(rejection) => (Err(rejection), Trace::default()),
        }
    }

    /// The public keys, where the request is for those that its host publishes: they are nobody's secret. Over http
    /// anybody on the way could put others in their place.
    pub(super) fn published_keys(&self, snapshot: &Snapshot, method: &Method) -> Option<Arc<str>> {
        let asked =
            matches!(*method, Method::GET | Method::HEAD) && canonical(self.path()) == KEYS_PATH;
        let host = asked.then(|| snapshot.hosts.resolve(Some(&self.host))).flatten()?;
        let is_proven = self.connection.tls.is_some() && self.is_strong_enough(host);
        host.keys.clone().filter(|_| is_proven)
    }

    /// The route and the pattern that the path matched, where the connection may carry requests to it.
    pub(super) fn route<'s>(
        &self,
        snapshot: &'s Snapshot,
    ) -> Result<(&'s PathPattern, &'s Route), Rejection> {
        let sni = self.connection.tls.as_ref().and_then(|tls| tls.sni.as_ref());
        let host = snapshot.hosts.resolve(Some(&self.host));
        let nothing = ClientCertificateTerms::default();
        let wanted = host.map_or(&nothing, |host| &*host.terms);
        if !self.connection.carries(&self.host, wanted, |sni| snapshot.terms(Some(sni))) {
            return Err(Rejection::misdirected(sni == Some(&self.host)));
        }
        let host = host.ok_or_else(|| Rejection::not_found("no such host"))?;
        if !self.is_strong_enough(host) {
            return Err(Rejection::too_weak(sni == Some(&self.host)));
        }
        let path = if host.policed { unambiguous(self.path())? } else { canonical(self.path()) };
        host.matched(&path).ok_or_else(|| Rejection::not_found("no such path"))
    }

    /// Whether the handshake came to what the host's routes demand of it now: it may have been another host's, or an earlier
    /// policy's.
    fn is_strong_enough(&self, host: &VirtualHost) -> bool {
        let (Some(rules), Some(tls)) = (&host.rules, &self.connection.tls) else { return true };
        tls.suite.is_some_and(|suite| rules.admit(suite))
    }

    fn path(&self) -> &str {
        self.head.target.path()
    }

    fn heard(&self) -> MutexGuard<'_, Answers> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides on a route of a snapshot, at a time.
    pub(super) async fn pass(
        &self,
        route: &Route,
        snapshot: &Snapshot,
        lookups: &Lookups,
        now: UnixTime,
    ) -> (Result<Admission, Rejection>, Trace) {
        let policies = route.guard.policies().len();
        let credentials = match &self.credentials {
            Offered::Nothing => None,
            Offered::One(credentials) => Some(credentials),
            Offered::Several if policies > 0 => {
                return (
                    Err(Rejection::bad_request("more than one Authorization field")),
                    Trace::default(),
                );
            }
            Offered::Several => None,
        };
        let mut answers = self.heard().clone();
        for _ in 0..=policies * QUESTIONS_OF_A_POLICY {
            let tls = self.connection.tls.as_ref();
            let subject = Subject {
                https: tls.is_some(),
                cipher_bits: tls.map_or(0, |tls| tls.cipher_bits),
                certificate: self.connection.certificate(),
                credentials,
                request: &self.head,
                answers: &answers,
            };
            let (decision, trace) = decide(&route.guard, &subject, now);
            match decision {
                Decision::Allow(permit) => {
                    return (
                        Ok(Admission {
                            permit,
                            backend: route.backend.clone(),
                            settings: route.settings.clone(),
                        }),
                        trace,
                    );
                }
                Decision::Deny(denial) => return (Err(denial.into()), trace),
                // Seldom asked, and large: the room for it is made only then.
                Decision::Ask(question) => {
                    match Box::pin(lookups.answer(&question, snapshot)).await {
                        Ok(answer) => {
                            if matches!(question, Question::External(_) | Question::Password(_)) {
                                self.heard().add(question.clone(), answer.clone());
                            }
                            answers.add(question, answer);
                        }
                        Err(unanswered) => return (Err(unanswered.into()), trace),
                    }
                }
            }
        }
        (Err(Rejection::bad_request("the decision does not come to an end")), Trace::default())
    }
}

/// What external services may be told; of its fields only what one of them is sent, and nothing that would say who is
/// calling, or from where.
fn head<B>(
    origin: &Origin,
    request: &Request<B>,
    target: &PathAndQuery,
    host: &HostName,
    snapshot: &Snapshot,
) -> RequestHead {
    let (mut headers, fields) = (HeaderMap::new(), request.headers());
    let listed = |name: &HeaderName| {
        connection_options(fields).any(|it| it.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let forged = |name| snapshot.identity_headers.contains(name) || is_forwarded(name);
    for name in snapshot.passed_on.iter().filter(|name| !forged(name) && !listed(name)) {
        for value in fields.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    RequestHead {
        method: request.method().clone(),
        https: origin.https,
        host: authority(request, host),
        target: target.clone(),
        client: origin.client.ip(),
        headers,
    }
}

/// As the client wrote it.
fn authority<B>(request: &Request<B>, host: &HostName) -> HeaderValue {
    let written = request
        .uri()
        .authority()
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let field = || request.headers().get(header::HOST).cloned();
    let name = || HeaderValue::from_str(host.as_str()).ok();
    written.or_else(field).or_else(name).unwrap_or_else(|| HeaderValue::from_static(""))
}

/// RFC 9112, 3.2: one host, the same wherever it stands.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<HostName, Rejection> {
    let parse = |text: &str| {
        HostName::parse(text).ok_or_else(|| Rejection::bad_request("the host is not a name"))
    };
    let mut fields = headers.get_all(header::HOST).iter();
    let field = fields
        .next()
        .map(|value| value.to_str().map_err(|_| Rejection::bad_request("the host is not a name")));
    let field = field.transpose()?.map(parse).transpose()?;
    if fields.next().is_some() {
        return Err(Rejection::bad_request("more than one Host field"));
    }
    let authority = uri.authority().map(|authority| parse(authority.as_str())).transpose()?;
    match (authority, field) {
        (Some(authority), Some(field)) if authority != field => {
            Err(Rejection::bad_request("two different hosts"))
        }
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(Rejection::bad_request("no host")),
    }
}
