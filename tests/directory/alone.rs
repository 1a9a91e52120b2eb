//! What stops the controller, slows it down, or wants the machine for itself.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use certmap::auth::{
    Asked, Directory, DirectoryBind, DirectoryQuestion, DirectorySettings, DirectoryUrl,
    DirectoryVerdict, Keeping, Secret, judge_certificate,
};
use certmap::identity::{PeerCertificate, read_certificates};
use certmap::lookup::{DirectoryCounts, DirectoryLookup};

use super::certificates::with_key_id;
use super::domain::{ADMIN_PASSWORD, User, ca, script};
use super::site::{Corp, Terms};
use super::support::clients::curl;
use super::support::pki::{Ca, Identity, leaf};
use super::support::server::wait;
use super::support::tls::{Client, get};

fn questions(outcome: &str) -> String {
    format!("certmap_directory_questions_total{{outcome=\"{outcome}\"}}")
}

#[test]
fn a_controller_that_stops_admits_nobody_and_comes_back() {
    let stale = "{ttlSeconds: 1, negativeTtlSeconds: 1, staleSeconds: 600}";
    let (strict, lenient) =
        (Corp::new(&Terms::default()), Corp::new(&Terms { cache: stale, ..Terms::default() }));
    let mut names = Vec::new();
    for (corp, name) in [(&strict, "al-strict"), (&lenient, "al-stale")] {
        User::new(name).map(&corp.mapped(name));
        assert_eq!(corp.outcome(name).0, "200");
        corp.person("al-unseen", leaf("al-unseen"));
        names.push(name);
    }
    script("stop");
    std::thread::sleep(Duration::from_millis(1200));
    let before = Instant::now();
    assert_eq!(strict.outcome("al-strict").0, "503.93");
    assert_eq!(lenient.outcome("al-unseen").0, "503.93", "what was never known is not admitted");
    assert_eq!(lenient.outcome("al-stale"), ("200".into(), "CORP\\al-stale".into()));
    println!("three answers without a controller: {:?}", before.elapsed());
    assert!(strict.count(&questions("failed")) >= 1);
    assert!(lenient.count(&questions("stale")) >= 1);
    script("start");
    wait("the controller to be asked again", || strict.outcome("al-strict").0 == "200");
    wait("the other", || lenient.outcome("al-unseen").0 == "401.2");
}

/// Passes octets on to the controller while it is not held.
struct Road {
    port: u16,
    held: Arc<AtomicBool>,
}

impl Road {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let held = Arc::new(AtomicBool::new(false));
        let shared = held.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect("127.0.0.1:636").unwrap();
                pass(client.try_clone().unwrap(), server.try_clone().unwrap(), shared.clone());
                pass(server, client, shared.clone());
            }
        });
        Self { port, held }
    }

    fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, held: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16384];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            while held.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Both));
    });
}

#[test]
fn a_controller_that_is_silent_holds_up_nobody_else() {
    let road = Road::new();
    let url = format!("ldaps://127.0.0.1:{}", road.port);
    let corp = Corp::new(&Terms { urls: &url, ..Terms::default() });
    User::new("sl-user").map(&corp.mapped("sl-user"));
    assert_eq!(corp.outcome("sl-user").0, "200");
    road.hold(true);
    std::thread::sleep(Duration::from_millis(1100));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let before = Instant::now();
            (corp.outcome("sl-user").0, before.elapsed())
        });
        std::thread::sleep(Duration::from_millis(200));
        let before = Instant::now();
        let reply = curl(&corp.site, corp.https(), "-", "open.test", "/", &[]);
        assert_eq!(reply.status, 200);
        assert!(before.elapsed() < Duration::from_millis(800), "{:?}", before.elapsed());
        let (code, took) = waiting.join().unwrap();
        assert_eq!(code, "503.93");
        assert!(took < Duration::from_secs(6), "{took:?}");
    });
    // The next one is refused at once.
    let before = Instant::now();
    assert_eq!(corp.outcome("sl-user").0, "503.93");
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    // With another controller the answer comes from there.
    let both = format!("{url} ldaps://127.0.0.1");
    corp.server.edit("policy.yaml", &Terms { urls: &both, ..Terms::default() }.policy());
    assert_eq!(corp.outcome("sl-user").0, "200");
    road.hold(false);
}

/// Has a certificate of the directory's CA, and answers every request with the same octets.
fn liar(answer: &'static [u8]) -> u16 {
    let pki = super::domain::home().join("pki");
    let chain = CertificateDer::pem_file_iter(pki.join("dc1.crt")).unwrap();
    let chain: Vec<_> = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(pki.join("dc1.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            std::thread::spawn(move || {
                let mut stream = rustls::StreamOwned::new(connection, stream);
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer) {
                    if stream.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_server_that_does_not_speak_the_protocol_admits_nobody_and_brings_nothing_down() {
    let corp = Corp::new(&Terms::default());
    User::new("li-user").map(&corp.mapped("li-user"));
    for answer in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        // BindResponse without its parts, a message without an operation, one with an unknown operation.
        &[0x30, 5, 2, 1, 1, 0x61, 0],
        &[0x30, 3, 2, 1, 1],
        &[0x30, 5, 2, 1, 1, 0x7E, 0],
        &[0x30, 0x84, 0x7F, 0xFF, 0xFF, 0xFF],
        // Success to whatever is asked: a bind, then searches that find nothing, not even the server's own names.
        &[0x30, 12, 2, 1, 1, 0x61, 7, 10, 1, 0, 4, 0, 4, 0],
        &[0x30, 12, 2, 1, 2, 0x65, 7, 10, 1, 0, 4, 0, 4, 0],
    ] {
        let url = format!("ldaps://127.0.0.1:{}", liar(answer));
        corp.server.edit("policy.yaml", &Terms { urls: &url, ..Terms::default() }.policy());
        assert_eq!(corp.outcome("li-user"), ("503.93".into(), "-".into()), "{answer:?}");
        let reply = curl(&corp.site, corp.https(), "-", "open.test", "/", &[]);
        assert_eq!(reply.status, 200);
    }
    corp.server.edit("policy.yaml", &Terms::default().policy());
    assert_eq!(corp.outcome("li-user").0, "200");
}

#[test]
fn many_who_ask_the_same_at_once_ask_once() {
    let person = crowd(&Ca::new("ZeroSSL"), 1).iter().map(parsed).next().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let counts = DirectoryCounts::default();
    runtime.block_on(async {
        let lookup = DirectoryLookup::new(Arc::default(), counts.clone()).unwrap();
        ask_all(&Arc::new(lookup), &vec![person; 200], None).await;
    });
    assert_eq!((counts.asked.get(), counts.failed.get()), (1, 0));
}

const PEOPLE: usize = 100;
const EACH: usize = 60;

/// Accounts with many certificates each, so that making them does not take longer than asking.
fn crowd(ca: &Ca, count: usize) -> Vec<Identity> {
    let id = |person: usize, one: usize| [0xC0, 0xFF, 0xEE, person as u8, one as u8];
    let mapping = |person, one| {
        let hex: String = id(person, one).iter().map(|octet| format!("{octet:02x}")).collect();
        format!("X509:<SKI>{hex}")
    };
    let users: Vec<_> = (0..PEOPLE)
        .map(|person| {
            let mappings = (0..EACH).map(|one| mapping(person, one)).collect();
            (format!("crowd-{person}"), mappings)
        })
        .collect();
    User::many(&users);
    let all = (0..EACH).flat_map(|one| (0..PEOPLE).map(move |person| (person, one)));
    all.take(count)
        .map(|(person, one)| ca.issue(with_key_id(&format!("{person} {one}"), &id(person, one))))
        .collect()
}

fn parsed(identity: &Identity) -> Arc<PeerCertificate> {
    let chain = read_certificates(identity.pem().as_bytes()).unwrap();
    Arc::new(PeerCertificate::parse(&chain).unwrap())
}

fn directory() -> Arc<Directory> {
    let seconds = Duration::from_secs;
    Arc::new(Directory::new(DirectorySettings {
        urls: vec![DirectoryUrl::parse("ldaps://127.0.0.1").unwrap()],
        cas: read_certificates(ca().as_bytes()).unwrap(),
        server_name: Some("dc1.corp.example".into()),
        bind: DirectoryBind::Simple {
            name: "administrator@corp.example".into(),
            password: Secret::new(ADMIN_PASSWORD.into()),
        },
        base_dn: None,
        timeout: seconds(10),
        keeping: Keeping { found: seconds(600), not_found: seconds(10), stale: seconds(0) },
        weak: Vec::new(),
        refuse_expired_password: false,
    }))
}

/// How late a timer of one millisecond is, again and again, until it is told to stop.
async fn lateness(stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut late = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let before = Instant::now();
        tokio::time::sleep(Duration::from_millis(1)).await;
        late.push(before.elapsed());
    }
    late.sort_unstable();
    late
}

/// Asks about each of them, at most so many at once, and so many a second if that is said.
async fn ask_all(lookup: &Arc<DirectoryLookup>, crowd: &[Arc<PeerCertificate>], rate: Option<u32>) {
    let directory = directory();
    let mut asking = tokio::task::JoinSet::new();
    let began = tokio::time::Instant::now();
    for (index, certificate) in crowd.iter().cloned().enumerate() {
        match rate {
            Some(rate) => {
                tokio::time::sleep_until(
                    began + Duration::from_secs(1) / rate * u32::try_from(index).unwrap(),
                )
                .await
            }
            None if asking.len() >= 64 => asking.join_next().await.unwrap().unwrap(),
            None => {}
        }
        let (lookup, directory) = (lookup.clone(), directory.clone());
        asking.spawn(async move {
            let asked = Asked::Certificate(certificate.clone());
            let question = DirectoryQuestion { directory: directory.clone(), asked };
            let answer = lookup.answer(&question).await.unwrap();
            let now = jiff::Timestamp::now().as_second();
            let verdict = judge_certificate(directory.settings(), &certificate, &answer, now);
            assert!(matches!(verdict, DirectoryVerdict::Found(_)), "{verdict:?}");
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
}

/// On one event loop of one thread: every certificate is another, nothing is remembered from before.
#[test]
fn a_thousand_certificates_a_second_do_not_stall_the_event_loop() {
    let crowd: Vec<_> = crowd(&Ca::new("ZeroSSL"), PEOPLE * EACH).iter().map(parsed).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (paced, hurried) = crowd.split_at(crowd.len() / 2);
    for (crowd, rate) in [(paced, Some(1000)), (hurried, None)] {
        let (took, late) = runtime.block_on(async {
            let lookup = DirectoryLookup::new(Arc::default(), DirectoryCounts::default()).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let ticks = tokio::spawn(lateness(stop.clone()));
            let before = Instant::now();
            ask_all(&Arc::new(lookup), crowd, rate).await;
            let took = before.elapsed();
            stop.store(true, Ordering::SeqCst);
            (took, ticks.await.unwrap())
        });
        let at = |share: usize| late[late.len() * share / 100];
        println!(
            "{} different certificates in {took:?}: {:.0} a second; a timer of 1 ms fires after {:?} (median), {:?} (p99), {:?} (longest)",
            crowd.len(),
            crowd.len() as f64 / took.as_secs_f64(),
            at(50),
            at(99),
            late.last().unwrap()
        );
        if rate.is_some() {
            assert!(at(99) < Duration::from_millis(20), "the event loop stalls: {:?}", at(99));
        }
        assert!(took < Duration::from_secs(60), "{took:?}");
    }
}

/// Through the whole program: clients with certificates that nobody has seen yet, and one that needs none.
#[test]
fn a_crowd_that_is_looked_up_does_not_slow_down_who_is_not() {
    let corp = Corp::new(&Terms::default());
    let crowd = crowd(&corp.site.zerossl, 1200);
    let plain = Client::new(&corp.site.server_ca, None, &rustls::version::TLS13);
    let mut plain = plain.connect(corp.https(), "open.test");
    let mut time = |over: &dyn Fn() -> bool| {
        let mut times = Vec::new();
        while !over() {
            let before = Instant::now();
            assert_eq!(get(&mut plain, "open.test", "/").status, 200);
            times.push(before.elapsed());
        }
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    };
    let began = Instant::now();
    let alone = time(&|| began.elapsed() > Duration::from_secs(2));
    let (before, done) = (Instant::now(), AtomicBool::new(false));
    let (took, together) = std::thread::scope(|scope| {
        let lanes: Vec<_> = crowd
            .chunks(crowd.len() / 8)
            .map(|lane| {
                let corp = &corp;
                scope.spawn(move || {
                    for identity in lane {
                        let client = Client::new(
                            &corp.site.server_ca,
                            Some(identity),
                            &rustls::version::TLS13,
                        );
                        let (reply, _) = client.get(corp.https(), "app.test", "app.test", "/");
                        assert_eq!(reply.status, 200, "{reply:?}");
                    }
                })
            })
            .collect();
        let done = &done;
        let ending = scope.spawn(move || {
            lanes.into_iter().for_each(|lane| lane.join().unwrap());
            done.store(true, Ordering::SeqCst);
            before.elapsed()
        });
        let together = time(&|| done.load(Ordering::SeqCst));
        (ending.join().unwrap(), together)
    });
    assert!(corp.count(&questions("asked")) >= crowd.len() as u64);
    println!(
        "{} clients, each with another certificate and a connection of its own, in {took:?}: {:.0} a second; one without a certificate waits {:?} (median), {:?} (p99), before them {:?}, {:?}",
        crowd.len(),
        crowd.len() as f64 / took.as_secs_f64(),
        together.0,
        together.1,
        alone.0,
        alone.1
    );
    assert!(together.1 < Duration::from_millis(250), "{:?}", together.1);
}
