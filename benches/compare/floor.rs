//! The floor: the least proxy of hyper and rustls that demands a client certificate. It decides nothing, writes no log, and
//! names the same user to everyone.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::pki;

struct Floor {
    backend: SocketAddr,
    idle: Mutex<VecDeque<SendRequest<Incoming>>>,
}

pub(crate) fn run(listen: SocketAddr, backend: SocketAddr, pki: &Path) -> anyhow::Result<()> {
    let floor = Arc::new(Floor { backend, idle: Mutex::default() });
    let acceptor = TlsAcceptor::from(Arc::new(config(pki)?));
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(floor.clone(), acceptor.clone(), stream));
        }
    })
}

fn config(pki: &Path) -> anyhow::Result<ServerConfig> {
    let (chain, key) = pki::read(pki, "server")?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki::read(pki, "ca")?.0.remove(0))?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
    let mut config =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(8192);
    Ok(config)
}

async fn serve(floor: Arc<Floor>, acceptor: TlsAcceptor, stream: TcpStream) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request| proxy(floor.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}

async fn proxy(
    floor: Arc<Floor>,
    request: Request<Incoming>,
) -> anyhow::Result<Response<Incoming>> {
    let (mut parts, body) = request.into_parts();
    if let Some(authority) = parts.uri.authority() {
        parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
    }
    parts.uri = parts.uri.path_and_query().map_or_else(Uri::default, |it| it.clone().into());
    parts.version = Version::HTTP_11;
    parts.headers.insert("x-remote-user", HeaderValue::from_static("somebody"));
    let mut sender = floor.sender().await?;
    let mut response = sender.send_request(Request::from_parts(parts, body)).await?;
    floor.idle.lock().unwrap_or_else(PoisonError::into_inner).push_back(sender);
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

impl Floor {
    fn idle(&self) -> Option<SendRequest<Incoming>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().rposition(SendRequest::is_ready)?;
        idle.remove(ready)
    }

    async fn sender(&self) -> anyhow::Result<SendRequest<Incoming>> {
        if let Some(sender) = self.idle() {
            return Ok(sender);
        }
        let stream = TcpStream::connect(self.backend).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
