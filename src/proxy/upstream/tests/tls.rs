//! Backends that speak TLS: who they must be, who we are, and which HTTP is agreed on.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::identity::Fingerprint;

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn acceptor(ca: &Ca, clients: Option<&Ca>, protocols: &[&str]) -> TlsAcceptor {
    let (certificate, key) = ca.issue("app.internal");
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        Some(clients) => {
            let roots = Arc::new(clients.roots());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// Answers every request with its version of HTTP, which is one of these.
async fn backend_of(ca: &Ca, clients: Option<&Ca>, protocols: &[&str]) -> SocketAddr {
    let acceptor = acceptor(ca, clients, protocols);
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                serve(stream).await;
            });
        }
    });
    address
}

async fn serve(stream: tokio_rustls::server::TlsStream<TcpStream>) {
    let service =
        hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
            let said = format!("{:?} {}", request.version(), request.uri().path());
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(said))))
        });
    let stream = hyper_util::rt::TokioIo::new(stream);
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection(stream, service).await);
}

/// What a RoutePolicy would be compiled to.
fn known(ca: &Ca, name: &str, client: Option<&Ca>) -> BackendTls {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(ca.roots());
    let config = match client {
        Some(client) => {
            let (certificate, key) = client.issue("certmap");
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let digest = Fingerprint::of(ca.0.der());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    BackendTls { config: Arc::new(config), name, digest }
}

fn way(address: SocketAddr, protocol: Protocol, tls: Option<BackendTls>) -> Way {
    let target = Target::Endpoints([Endpoint::new(address)].into());
    let backend = Backend::new("web/a:80", target, protocol);
    let settings = RouteSettings { backend_tls: tls.map(Arc::new), ..RouteSettings::default() };
    (Arc::new(backend), Arc::new(settings))
}

async fn asked(way: Way) -> String {
    Site::on(way, Timeouts::default()).await.answer(GET).await
}

#[tokio::test]
async fn the_backend_chooses_the_version_and_what_is_wanted_is_insisted_on() {
    let ca = Ca::new();
    let (both, old) = (&["h2", "http/1.1"][..], &["http/1.1"][..]);
    for (protocols, protocol, expected) in [
        (both, Protocol::Https, "HTTP/2.0 /"),
        (old, Protocol::Https, "HTTP/1.1 /"),
        (&[], Protocol::Https, "HTTP/1.1 /"),
        (both, Protocol::H2, "HTTP/2.0 /"),
        (both, Protocol::H2c, "HTTP/2.0 /"),
        (both, Protocol::Http1, "HTTP/2.0 /"),
        (old, Protocol::H2, "502.90"),
        (&[], Protocol::H2, "502.90"),
    ] {
        let address = backend_of(&ca, None, protocols).await;
        let answer = asked(way(address, protocol, Some(known(&ca, "app.internal", None)))).await;
        assert!(answer.contains(expected), "{protocols:?} {protocol:?}: {answer}");
    }
}

#[tokio::test]
async fn who_waited_for_a_connection_to_share_in_vain_does_not_wait_for_others_too() {
    let ca = Ca::new();
    let (listener, acceptor) = (listener().await, acceptor(&ca, None, &["http/1.1"]));
    let way = way(
        listener.local_addr().unwrap(),
        Protocol::Https,
        Some(known(&ca, "app.internal", None)),
    );
    let backend = way.0.clone();
    let site = Site::on(way, Timeouts::default()).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(site.sent(GET).await);
    }
    tokio::spawn(async move {
        let mut first = Some(listener.accept().await.unwrap().0);
        let Target::Endpoints(endpoints) = &backend.target else { panic!("no endpoints") };
        while endpoints[0].state.outstanding.load(std::sync::atomic::Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
        // The last one is counted, and about to wait.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let all = Arc::new(tokio::sync::Barrier::new(3));
        loop {
            let (is_first, stream) = match first.take() {
                Some(stream) => (true, stream),
                None => (false, listener.accept().await.unwrap().0),
            };
            let (acceptor, all) = (acceptor.clone(), all.clone());
            tokio::spawn(async move {
                if !is_first {
                    all.wait().await;
                }
                let Ok(stream) = acceptor.accept(stream).await else { return };
                serve(stream).await;
            });
        }
    });
    for mut client in clients {
        let answer = rest(&mut client).await;
        assert!(answer.ends_with("HTTP/1.1 /"), "{answer}");
    }
}

#[tokio::test]
async fn a_backend_that_is_not_proven_to_be_the_right_one_gets_nothing() {
    let (ca, other) = (Ca::new(), Ca::new());
    let address = backend_of(&ca, None, &["http/1.1"]).await;
    for (tls, expected) in [
        (Some(known(&other, "app.internal", None)), "502.90"),
        (Some(known(&ca, "other.internal", None)), "502.90"),
        (None, "502.91"),
    ] {
        let answer = asked(way(address, Protocol::Https, tls)).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains(expected), "{answer}");
    }
}

#[tokio::test]
async fn our_certificate_is_shown_where_there_is_one() {
    let (ca, clients, others) = (Ca::new(), Ca::new(), Ca::new());
    let address = backend_of(&ca, Some(&clients), &["http/1.1"]).await;
    for (client, expected) in [
        (Some(&clients), "HTTP/1.1 200 "),
        (Some(&others), "HTTP/1.1 502 "),
        (None, "HTTP/1.1 502 "),
    ] {
        let tls = known(&ca, "app.internal", client);
        let answer = asked(way(address, Protocol::Https, Some(tls))).await;
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn what_another_ca_proved_is_not_used_any_more() {
    let (ca, new) = (Ca::new(), Ca::new());
    let address = backend_of(&ca, None, &["http/1.1"]).await;
    let first = way(address, Protocol::Https, Some(known(&ca, "app.internal", None)));
    let site = Site::on(first, Timeouts::default()).await;
    assert_eq!(site.status().await, 200);
    let second = way(address, Protocol::Https, Some(known(&new, "app.internal", None)));
    site.store.swap(snapshot(2, Some(second)));
    assert_eq!(site.status().await, 502, "the connection that is there was made under the old CA");
}
