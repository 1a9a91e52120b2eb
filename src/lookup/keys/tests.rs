//! Keys from a real server over TLS, and what becomes of them when it changes its mind.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// What the server answers now: status, key set, and how long it takes.
type Shown = Arc<Mutex<(u16, String, Duration)>>;

struct Server {
    source: Arc<KeySource>,
    shown: Shown,
    count: Arc<Mutex<Vec<&'static str>>>,
    lookup: KeyLookup,
    _serving: AbortOnDropHandle<()>,
}

/// A key set with one key of that name. Nothing is signed here, so that any octets do.
fn key_set(id: &str) -> String {
    let octets = "A".repeat(43);
    format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "x": "{octets}", "kid": "{id}"}}]}}"#)
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn pauses() -> Pauses {
    let (short, long) = (Duration::from_millis(20), Duration::from_secs(3600));
    Pauses {
        usual: long,
        shortest: short,
        least: short,
        first_retry: short,
        last_retry: short,
        ..PAUSES
    }
}

impl Server {
    async fn start(trusted: bool) -> Self {
        let (ca, other) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap().der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/keys?x=1", listener.local_addr().unwrap());
        let shown: Shown = Arc::new(Mutex::new((200, key_set("a"), Duration::ZERO)));
        let serving =
            tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), shown.clone()));
        let count = Arc::new(Mutex::new(Vec::new()));
        let counted = count.clone();
        let lookup = KeyLookup::new(
            Arc::new(NameLookup::new()),
            Arc::new(move |outcome| lock(&counted).push(outcome)),
        );
        let lookup = KeyLookup { pauses: pauses(), ..lookup };
        let cas = vec![if trusted { ca.der().clone() } else { other.der().clone() }];
        let source = Arc::new(KeySource::new(&url, cas, true).unwrap());
        lookup.keep(&HashSet::from([source.clone()]));
        Self { source, shown, count, lookup, _serving: AbortOnDropHandle::new(serving) }
    }

    fn show(&self, status: u16, text: String) {
        *lock(&self.shown) = (status, text, Duration::ZERO);
    }

    fn ask(&self, id: &str) -> Result<Arc<KeySet>, KeysUnavailable> {
        let source = self.source.clone();
        self.lookup.answer(&KeysQuestion { source, key_id: Some(id.into()) })
    }

    async fn until(&self, what: impl Fn(Result<Arc<KeySet>, KeysUnavailable>) -> bool, id: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while !what(self.ask(id)) {
            assert!(Instant::now() < end, "waited in vain: {:?}", self.ask(id));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn until_it_fails(&self, times: usize) {
        let end = Instant::now() + Duration::from_secs(10);
        while lock(&self.count).iter().filter(|outcome| **outcome == "failed").count() < times {
            assert!(Instant::now() < end, "waited in vain for a failure");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, shown: Shown) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, shown) = (tls.clone(), shown.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(move |request| answer(request, shown.clone()));
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    shown: Shown,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().to_string(), "/keys?x=1");
    let (status, text, pause) = lock(&shown).clone();
    tokio::time::sleep(pause).await;
    let response = Response::builder().status(status).header(header::LOCATION, "/keys?x=1");
    Ok(response.body(Full::new(Bytes::from(text))).unwrap())
}

fn is_known(answer: &Result<Arc<KeySet>, KeysUnavailable>, id: &str) -> bool {
    answer.as_ref().is_ok_and(|keys| keys.may_hold(Some(id)))
}

#[tokio::test]
async fn keys_are_answered_once_they_are_fetched_and_new_ones_once_a_token_names_them() {
    let server = Server::start(true).await;
    assert_eq!(server.ask("a"), Err(KeysUnavailable::NeverFetched), "nobody waits");
    server.until(|answer| is_known(&answer, "a"), "a").await;
    server.show(200, key_set("b"));
    // An hour is not over, and yet the new key is soon known.
    server.until(|answer| is_known(&answer, "b"), "b").await;
    server.until(|answer| answer.is_ok_and(|keys| !keys.may_hold(Some("a"))), "a").await;
    // One that is nobody's is looked for, and then said not to be there.
    server.until(|answer| answer.is_ok_and(|keys| !keys.may_hold(Some("z"))), "z").await;
}

#[tokio::test]
async fn a_server_that_fails_takes_no_keys_away_and_brings_none() {
    let server = Server::start(true).await;
    server.until(|answer| is_known(&answer, "a"), "a").await;
    let huge = format!("{}{}", key_set("b"), " ".repeat(256 * 1024));
    let mut failures = 0;
    for (status, text) in [
        (500, key_set("b")),
        (302, key_set("b")),
        (200, huge),
        (200, "{}".to_owned()),
        (200, String::new()),
    ] {
        server.show(status, text);
        failures += 1;
        let end = Instant::now() + Duration::from_secs(10);
        // Somebody asks for a key that is not there: it is looked for, in vain.
        while lock(&server.count).iter().filter(|outcome| **outcome == "failed").count() < failures
        {
            assert!(!is_known(&server.ask("b"), "b"), "{status}");
            assert!(Instant::now() < end, "{status}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        failures = lock(&server.count).iter().filter(|outcome| **outcome == "failed").count();
        assert!(is_known(&server.ask("a"), "a"), "{status}");
    }
    server.show(200, key_set("b"));
    server.until(|answer| is_known(&answer, "b"), "b").await;
}

#[tokio::test]
async fn a_server_that_others_vouch_for_is_not_believed() {
    let server = Server::start(false).await;
    server.until_it_fails(3).await;
    assert_eq!(server.ask("a"), Err(KeysUnavailable::NeverFetched));
}

#[tokio::test]
async fn an_issuer_that_no_policy_names_is_forgotten() {
    let server = Server::start(true).await;
    server.until(|answer| is_known(&answer, "a"), "a").await;
    server.lookup.keep(&HashSet::new());
    assert_eq!(server.ask("a"), Err(KeysUnavailable::NeverFetched));
}

#[test]
fn keys_grow_old_and_unknown_ones_are_not_looked_for_all_the_time() {
    let source = Arc::new(KeySource::new("https://id.test", Vec::new(), false).unwrap());
    let issuer = Issuer::new(source, PAUSES);
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    assert_eq!(issuer.keys(Some("a"), begin), Err(KeysUnavailable::NeverFetched));
    let mut failures = 0;
    let keys = KeySet::parse(key_set("a").as_bytes()).unwrap();
    for (age, pause) in [(None, 300), (Some(5), 60), (Some(600), 600), (Some(86_400), 3600)] {
        let fetched = (keys.clone(), age.map(Duration::from_secs));
        assert_eq!(issuer.note(Ok(fetched), &mut failures), Duration::from_secs(pause));
    }
    assert!(is_known(&issuer.keys(Some("a"), after(1)), "a"));
    assert!(issuer.keys(Some("b"), after(10)).is_ok(), "just looked for");
    assert_eq!(issuer.keys(Some("b"), after(40)), Err(KeysUnavailable::Fetching));
    assert_eq!(issuer.keys(Some("b"), after(41)), Err(KeysUnavailable::Fetching));
    assert!(is_known(&issuer.keys(Some("a"), after(41)), "a"), "those that are there are");
    let fail = || Err(RefreshError::Fetch(FetchError::TooSlow));
    let pauses: Vec<u64> = (0..8).map(|_| issuer.note(fail(), &mut failures).as_secs()).collect();
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    assert!(is_known(&issuer.keys(Some("a"), after(12 * 3600 - 5)), "a"));
    assert_eq!(issuer.keys(Some("a"), after(12 * 3600 + 5)), Err(KeysUnavailable::TooOld));
}
