//! External services that are asked about requests (forward-auth). Asked anew for each; whatever goes wrong admits nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::names::{NameError, NameLookup};
use crate::auth::{AnswerError, ExternalAnswer, ExternalQuestion, RequestHead};
use crate::snapshot::{Backend, Snapshot, Target};

/// A dead endpoint costs one connect timeout each: not more than this many.
const MOST_ENDPOINTS: usize = 3;
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(30);
/// A refusal's body is a short page.
const LONGEST_BODY: usize = 64 * 1024;

/// Why there is no answer to follow.
#[derive(Debug, thiserror::Error)]
pub enum ExternalUnavailable {
    /// The Service is not there, or nothing stands behind it.
    #[error("external service {0} has no ready endpoint")]
    NoEndpoints(String),
    /// Its name leads nowhere.
    #[error("external service: {0}")]
    Name(#[from] NameError),
    /// It cannot be reached, or breaks off.
    #[error("external service {0}: {1}")]
    Broken(String, String),
    /// It takes too long.
    #[error("external service {0} does not answer in time")]
    TooSlow(String),
    /// More than a short page.
    #[error("external service {0} answers with more than 64 KiB, or breaks off")]
    TooLong(String),
    /// It cannot be followed.
    #[error("external service {0}: {1}")]
    Answer(String, AnswerError),
}

/// Connections to external services.
#[derive(Clone, Debug)]
pub struct ExternalLookup {
    client: Client<HttpConnector, Empty<Bytes>>,
    names: Arc<NameLookup>,
}

impl ExternalLookup {
    /// Without a connection yet.
    #[must_use]
    pub fn new(names: Arc<NameLookup>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .set_host(false)
            .build(connector);
        Self { client, names }
    }

    /// Asks.
    ///
    /// # Errors
    /// There is no answer, or none that can be followed.
    pub async fn answer(
        &self,
        question: &ExternalQuestion,
        snapshot: &Snapshot,
    ) -> Result<ExternalAnswer, ExternalUnavailable> {
        let service = &question.service;
        let name = service.backend();
        let backend = snapshot.externals.get(&*name).filter(|_| service.permitted);
        let backend = backend.ok_or_else(|| ExternalUnavailable::NoEndpoints(name.clone()))?;
        let asked = tokio::time::timeout(service.timeout, self.ask(question, backend, &name)).await;
        asked.unwrap_or(Err(ExternalUnavailable::TooSlow(name)))
    }

    async fn ask(
        &self,
        question: &ExternalQuestion,
        backend: &Backend,
        name: &str,
    ) -> Result<ExternalAnswer, ExternalUnavailable> {
        let response = self.send(question, backend, name).await?;
        let (parts, body) = response.into_parts();
        // The body of an answer that admits is of no use; a short one is read so that the connection can be used again.
        let is_short = body.size_hint().upper().is_some_and(|octets| octets <= LONGEST_BODY as u64);
        let body = match parts.status.is_success() {
            true if !is_short => Bytes::new(),
            _ => read(body, name).await?,
        };
        let answer = question.service.read(parts.status, &parts.headers, body);
        answer.map_err(|error| ExternalUnavailable::Answer(name.to_owned(), error))
    }

    async fn send(
        &self,
        question: &ExternalQuestion,
        backend: &Backend,
        name: &str,
    ) -> Result<Response<Incoming>, ExternalUnavailable> {
        let mut failure = ExternalUnavailable::NoEndpoints(name.to_owned());
        let endpoints = self.endpoints(backend).await?;
        for endpoint in backend.in_turn(&endpoints).take(MOST_ENDPOINTS) {
            let broken = |error: String| ExternalUnavailable::Broken(name.to_owned(), error);
            let request = request(question, endpoint).map_err(|error| broken(error.to_string()))?;
            match self.client.request(request).await {
                Ok(response) => return Ok(response),
                Err(error) if error.is_connect() => failure = broken(error.to_string()),
                Err(error) => return Err(broken(error.to_string())),
            }
        }
        Err(failure)
    }

    async fn endpoints(&self, backend: &Backend) -> Result<Vec<SocketAddr>, ExternalUnavailable> {
        match &backend.target {
            Target::Endpoints(endpoints) => {
                let addresses = endpoints.iter().flat_map(|endpoint| &*endpoint.addresses);
                Ok(addresses.copied().collect())
            }
            Target::Name(name, port) => Ok(self.names.find(name, *port).await?),
            Target::Unsupported => Ok(Vec::new()),
        }
    }
}

async fn read(body: Incoming, name: &str) -> Result<Bytes, ExternalUnavailable> {
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let body = Limited::new(body, LONGEST_BODY).collect().await;
    Ok(body.map_err(|_| ExternalUnavailable::TooLong(name.to_owned()))?.to_bytes())
}

/// GET, without the client's body, and of its fields only those that are listed.
fn request(
    question: &ExternalQuestion,
    endpoint: SocketAddr,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let (service, head) = (&question.service, &question.request);
    let mut request = Request::get(format!("http://{endpoint}{}", service.path))
        .version(Version::HTTP_11)
        .header(header::HOST, format!("{}.{}:{}", service.name, service.namespace, service.port))
        .body(Empty::new())?;
    let headers = request.headers_mut();
    for name in &service.request_headers {
        for value in head.headers.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    merge_cookies(headers)?;
    describe(head, headers)?;
    Ok(request)
}

/// HTTP/2 may split Cookie; HTTP/1.1 may not (RFC 9113, 8.2.3).
fn merge_cookies(headers: &mut HeaderMap) -> Result<(), http::Error> {
    let cookies = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let cookies: Vec<&[u8]> = cookies.collect();
    if cookies.len() > 1 {
        let merged = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))?;
        headers.insert(header::COOKIE, merged);
    }
    Ok(())
}

/// What the request is: by us alone, whatever the client says.
fn describe(head: &RequestHead, headers: &mut HeaderMap) -> Result<(), http::Error> {
    let proto = if head.https { "https" } else { "http" };
    let client = head.client.to_canonical().to_string();
    // Beyond ASCII, readers of a field take octets for different letters, or the request for malformed.
    let target = utf8_percent_encode(head.target.as_str(), CONTROLS).to_string();
    for (name, value) in [
        ("x-forwarded-method", HeaderValue::from_str(head.method.as_str())?),
        ("x-forwarded-proto", HeaderValue::from_static(proto)),
        ("x-forwarded-host", head.host.clone()),
        ("x-forwarded-uri", HeaderValue::try_from(target)?),
        ("x-forwarded-for", HeaderValue::from_str(&client)?),
    ] {
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::auth::ExternalService;

    #[test]
    fn a_question_is_a_get_with_what_is_listed_and_what_we_know() {
        let service = ExternalService {
            namespace: "auth".into(),
            name: "verify".into(),
            port: 8080,
            permitted: true,
            path: "/check?app=1".into(),
            timeout: Duration::from_secs(1),
            request_headers: vec![header::COOKIE],
            user_header: None,
            groups_header: None,
            pass_back: true,
        };
        let mut sent = HeaderMap::new();
        sent.append(header::COOKIE, HeaderValue::from_static("a=1"));
        sent.append(header::COOKIE, HeaderValue::from_static("b=2"));
        sent.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        sent.append("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        let head = RequestHead {
            method: Method::POST,
            host: HeaderValue::from_static("app.test:8443"),
            target: "/\u{e9}?b=%c3".parse().unwrap(),
            client: "::ffff:192.0.2.7".parse().unwrap(),
            headers: sent,
            ..RequestHead::default()
        };
        let question = ExternalQuestion { service: Arc::new(service), request: Arc::new(head) };
        let request = request(&question, "10.0.0.9:80".parse().unwrap()).unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!(request.uri().to_string(), "http://10.0.0.9:80/check?app=1");
        let mut fields: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        fields.sort();
        assert_eq!(
            fields,
            [
                "cookie: a=1; b=2",
                "host: verify.auth:8080",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: app.test:8443",
                "x-forwarded-method: POST",
                "x-forwarded-proto: https",
                "x-forwarded-uri: /%C3%A9?b=%c3"
            ]
        );
    }
}
