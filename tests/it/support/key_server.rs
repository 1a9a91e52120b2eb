//! An issuer's key server, over https, that misbehaves on demand.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::pki::{Ca, server};

/// Serves until it is dropped.
pub(crate) struct KeyServer {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<AtomicUsize>,
    _runtime: Runtime,
}

/// What it answers: status, text, and after how long.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) pause: Duration,
}

impl Shown {
    pub(crate) fn keys(text: String) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { status: 200, text, pause: Duration::ZERO }))
    }
}

impl KeyServer {
    /// On any port, or on this one.
    pub(crate) fn start(ca: &Ca, shown: &Arc<Mutex<Shown>>, port: u16) -> Self {
        let (chain, key) = ca.issue(server(&["127.0.0.1"])).for_rustls();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", port))).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let tls = TlsAcceptor::from(Arc::new(config));
        runtime.spawn(accept(listener, tls, shown.clone(), asked.clone()));
        Self { address, asked, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/keys", self.address)
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    shown: Arc<Mutex<Shown>>,
    asked: Arc<AtomicUsize>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, shown, asked) = (tls.clone(), shown.clone(), asked.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                let shown = shown.lock().unwrap().clone();
                async move {
                    tokio::time::sleep(shown.pause).await;
                    let response = Response::builder().status(shown.status);
                    let body = Full::new(Bytes::from(shown.text));
                    Ok::<_, Infallible>(response.body(body).unwrap())
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            drop(connection.await);
        });
    }
}
