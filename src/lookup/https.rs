//! One document over https, from a server that CAs of one's own vouch for. Small, soon, and from where it was asked for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::names::{NameError, NameLookup};
use crate::auth::KeySource;

/// From the name to the last octet.
const WHOLE_LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A key set is a few kilobytes.
const LONGEST: usize = 256 * 1024;
const MOST_ADDRESSES: usize = 3;

/// A document, and how long it says it is good.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) body: Bytes,
    pub(super) max_age: Option<Duration>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("the server's CAs cannot be used: {0}")]
    Cas(String),
    #[error("{0} cannot be connected to: {1}")]
    Connect(SocketAddr, String),
    #[error("{0}: the TLS handshake fails: {1}")]
    Tls(SocketAddr, String),
    #[error("the server broke off: {0}")]
    Broken(String),
    #[error("the server answers {0} in place of 200; redirects are not followed")]
    Status(StatusCode),
    #[error("the answer is longer than 256 KiB, or broke off: {0}")]
    Body(String),
    #[error("the server takes longer than 10 s")]
    TooSlow,
}

/// Fetches.
pub(super) async fn fetch(source: &KeySource, names: &NameLookup) -> Result<Document, FetchError> {
    timeout(WHOLE_LIMIT, fetch_unhurried(source, names)).await.unwrap_or(Err(FetchError::TooSlow))
}

async fn fetch_unhurried(source: &KeySource, names: &NameLookup) -> Result<Document, FetchError> {
    let tls = connect(source, names).await?;
    let broken = |error: hyper::Error| FetchError::Broken(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await.map_err(broken)?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let request = Request::get(&*source.target)
        .header(header::HOST, host(source))
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| FetchError::Broken(error.to_string()))?;
    let response: Response<Incoming> = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let max_age = max_age(response.headers());
    #[expect(clippy::disallowed_methods, reason = "the body is limited")]
    let body = Limited::new(response.into_body(), LONGEST).collect().await;
    let body = body.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes();
    Ok(Document { body, max_age })
}

async fn connect(
    source: &KeySource,
    names: &NameLookup,
) -> Result<TlsStream<TcpStream>, FetchError> {
    let config = Arc::new(config(source)?);
    let name = ServerName::try_from(source.host.to_string());
    let name = name.map_err(|error| FetchError::Cas(error.to_string()))?;
    let mut failure = FetchError::Name(NameError::NoAnswer);
    for address in addresses(source, names).await?.into_iter().take(MOST_ADDRESSES) {
        let stream = match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                failure = FetchError::Connect(address, error.to_string());
                continue;
            }
            Err(_) => {
                failure = FetchError::Connect(address, "no answer in time".to_owned());
                continue;
            }
        };
        let tls = TlsConnector::from(config.clone()).connect(name.clone(), stream).await;
        return tls.map_err(|error| FetchError::Tls(address, error.to_string()));
    }
    Err(failure)
}

/// An address of this machine is asked only where the source allows it, however it is written.
async fn addresses(source: &KeySource, names: &NameLookup) -> Result<Vec<SocketAddr>, FetchError> {
    match source.host.parse::<IpAddr>() {
        Ok(address) if source.local || !super::names::is_local(address) => {
            Ok(vec![SocketAddr::new(address, source.port)])
        }
        Ok(_) => Err(NameError::Local(source.host.to_string()).into()),
        Err(_) => Ok(names.find(&source.host, source.port).await?),
    }
}

/// The source's CAs and no others.
fn config(source: &KeySource) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    for ca in &source.cas {
        roots.add(ca.clone()).map_err(|error| FetchError::Cas(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| FetchError::Cas(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn host(source: &KeySource) -> String {
    let url = source.url();
    let authority = url.strip_prefix("https://").unwrap_or_default();
    let authority = authority.split('/').next().unwrap_or_default();
    authority.strip_suffix(":443").unwrap_or(authority).to_owned()
}

/// RFC 9111, 5.2.2: what forbids to keep the answer counts as no time at all.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|it| it.to_str().ok());
    let directives: Vec<String> = values
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    if directives.iter().any(|it| it == "no-store" || it == "no-cache") {
        return Some(Duration::ZERO);
    }
    let age = directives.iter().find_map(|directive| directive.strip_prefix("max-age="));
    age.and_then(|age| age.trim_matches('"').parse().ok()).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is_good() {
        for (value, age) in [
            ("max-age=600", Some(600)),
            ("public, Max-Age=30, must-revalidate", Some(30)),
            ("max-age=\"5\"", Some(5)),
            ("no-store, max-age=600", Some(0)),
            ("no-cache", Some(0)),
            ("public", None),
            ("max-age=x", None),
            ("s-maxage=5", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, value.parse().unwrap());
            assert_eq!(max_age(&headers), age.map(Duration::from_secs), "{value}");
        }
        assert_eq!(max_age(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn an_address_of_this_machine_is_asked_only_where_that_is_allowed() {
        let names = NameLookup::new();
        for url in ["https://127.0.0.1:1/", "https://[::1]:1/", "https://169.254.169.254/"] {
            let source = KeySource::new(url, Vec::new(), false).unwrap();
            let refused = fetch(&source, &names).await.unwrap_err();
            assert!(matches!(refused, FetchError::Name(NameError::Local(_))), "{url}: {refused}");
        }
        let source = KeySource::new("https://127.0.0.1:1/", Vec::new(), true).unwrap();
        let refused = fetch(&source, &names).await.unwrap_err();
        assert!(matches!(refused, FetchError::Connect(..)), "{refused}");
    }
}
