//! Backends over HTTP/2 that take no more: they go away after a few requests, refuse one, or allow one at a time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::support::clients::curl;
use super::super::support::frames::{
    DATA, END_HEADERS, END_STREAM, Event, GOAWAY, H2, HEADERS, RST_STREAM, SETTINGS, UNINDEXED,
    block, frame, get,
};
use super::super::support::manifests::{policy, service};
use super::super::support::server::{Server, wait};
use super::super::support::tls::{reply, request};
use super::super::support::{REQUIRE, Site, run};
use super::{route_policy, sent};

const GET: &str = "GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n";
const POST: &str = "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhello";
const EMPTY: &str = "POST /x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 0\r\n\r\n";

/// RFC 9113, 7.
const REFUSED_STREAM: u32 = 7;
/// SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, 6.5.2).
const MOST_STREAMS: u16 = 3;
/// Of a backend that sends none.
const MUTE: &[(u16, u32)] = &[(0, 0)];

/// What is done with a request.
#[derive(Clone, Copy)]
enum Act {
    Answer,
    /// Once its body is through: how long it was.
    Count,
    Refuse,
    /// It has begun to come.
    RefuseTheRest,
    /// This one is answered, and none after it.
    AnswerLast,
    /// Neither this one nor any after it is looked at.
    GoAway,
    Nothing,
}

/// A backend over HTTP/2 without TLS. What it does follows from the connection's number and the request's on it.
struct Frames {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Frames {
    fn start(
        settings: &'static [(u16, u32)],
        act: impl Fn(usize, usize) -> Act + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::default());
        let open = Arc::<Mutex<Vec<TcpStream>>>::default();
        let backend = Self { port, connections, requests, open };
        let (connections, requests, open) =
            (backend.connections.clone(), backend.requests.clone(), backend.open.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, act, requests) = (stream.unwrap(), act.clone(), requests.clone());
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let number = connections.fetch_add(1, Ordering::SeqCst);
                // However it ends.
                std::thread::spawn(move || drop(serve(stream, settings, number, &act, &requests)));
            }
        });
        backend
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

fn serve(
    mut stream: TcpStream,
    settings: &[(u16, u32)],
    connection: usize,
    act: &impl Fn(usize, usize) -> Act,
    requests: &AtomicUsize,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; 24])?;
    let pairs = settings
        .iter()
        .flat_map(|(name, to)| [&name.to_be_bytes()[..], &to.to_be_bytes()].concat());
    if settings != MUTE {
        stream.write_all(&frame(SETTINGS, 0, 0, &pairs.collect::<Vec<u8>>()))?;
    }
    let mut client = H2::of(stream);
    let (mut asked, mut octets, mut last) = (0, 0, u32::MAX);
    let go_away = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
    let answer = |stream: u32, body: &str| {
        // 200, as HPACK's table has it.
        let length = body.len().to_string();
        let fields = [&[0x88], &block(&[(b"content-length", length.as_bytes())])[..]].concat();
        let head = frame(HEADERS, END_HEADERS, stream, &fields);
        [head, frame(DATA, END_STREAM, stream, body.as_bytes())].concat()
    };
    loop {
        match client.next()? {
            Event::Head { stream, .. } if stream > last => {}
            Event::Head { stream, .. } => {
                requests.fetch_add(1, Ordering::SeqCst);
                let octets = match act(connection, asked) {
                    Act::Answer => answer(stream, "ok"),
                    Act::Refuse => frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()),
                    Act::AnswerLast => {
                        last = stream;
                        [go_away(stream), answer(stream, "ok")].concat()
                    }
                    Act::GoAway => {
                        last = stream.saturating_sub(2);
                        go_away(last)
                    }
                    Act::Count | Act::RefuseTheRest | Act::Nothing => Vec::new(),
                };
                asked += 1;
                client.send(&octets)?;
            }
            Event::Data { stream, length, end } if stream <= last => {
                octets += length;
                match act(connection, asked - 1) {
                    Act::Count if end => client.send(&answer(stream, &octets.to_string()))?,
                    Act::RefuseTheRest => {
                        client.send(&frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()))?
                    }
                    _ => {}
                }
                if end {
                    octets = 0;
                }
            }
            _ => {}
        }
    }
}

fn over_http2(ports: &[u16]) -> String {
    let h2c = "{port: 80, appProtocol: kubernetes.io/h2c}";
    service("echo", ports).replace("{port: 80}", h2c)
}

/// app.test with these behind it, over HTTP/2, and this said of the way.
fn site(ports: &[u16], spec: &str) -> (Site, Server) {
    let site = Site::new();
    site.write("backend.yaml", &over_http2(ports));
    site.write("route.yaml", &route_policy(spec));
    let server = site.start();
    (site, server)
}

const NOTHING_SAID: &str = "timeouts: {response: 60s}";
const QUICK_TO_EJECT: &str = "loadBalancing: {ejection: {failures: 1, rest: 60s}}";

fn status(server: &Server, text: &str) -> u16 {
    request(&mut sent(server.http, ""), text).status
}

/// What so many clients are answered that each ask so often, on a connection of their own.
fn crowd(server: &Server, clients: usize, each: usize) -> Vec<u16> {
    let ask = || {
        let mut client = sent(server.http, "");
        (0..each).map(|_| request(&mut client, GET).status).collect::<Vec<u16>>()
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn after(most: usize) -> impl Fn(usize, usize) -> Act + Clone {
    move |_, asked| if asked + 1 < most { Act::Answer } else { Act::AnswerLast }
}

#[test]
fn nobody_notices_that_a_backend_goes_away_every_few_requests() {
    for most in [1, 7, 100] {
        let backend = Frames::start(&[], after(most));
        let (_site, server) = site(&[backend.port], NOTHING_SAID);
        let statuses = crowd(&server, 64, 40);
        let failed = statuses.iter().filter(|status| **status != 200).count();
        assert_eq!(failed, 0, "of {} requests, {most} on each connection", statuses.len());
        assert_eq!(backend.requests(), statuses.len(), "each is asked once");
        assert!(backend.connections() >= statuses.len() / most);
    }
}

#[test]
fn one_after_the_other_meets_no_end_of_a_kept_connection() {
    for most in [1, 2, 3] {
        let backend = Frames::start(&[(MOST_STREAMS, 100)], after(most));
        let (_site, server) = site(&[backend.port], NOTHING_SAID);
        let mut client = sent(server.http, "");
        for round in 0..300 {
            let text = if round % 2 == 0 { GET } else { EMPTY };
            assert_eq!(request(&mut client, text).status, 200, "{round} of {most}");
        }
        assert_eq!(backend.requests(), 300);
    }
}

#[test]
fn who_goes_away_in_good_order_is_not_put_out() {
    let backends = [0; 2].map(|_| Frames::start(&[], after(5)));
    let (_site, server) = site(&[backends[0].port, backends[1].port], QUICK_TO_EJECT);
    assert_eq!(crowd(&server, 32, 20), [200; 640]);
    let before = [backends[0].requests(), backends[1].requests()];
    let mut client = sent(server.http, "");
    assert!((0..20).all(|_| request(&mut client, GET).status == 200));
    let asked = [0, 1].map(|which| backends[which].requests() - before[which]);
    assert!(asked.iter().all(|asked| *asked > 5), "{asked:?}");
}

#[test]
fn what_a_backend_refused_is_sent_again_with_whatever_method() {
    // On a new connection; on a kept one; and where it goes away before it looks at it.
    let acts: [fn(usize, usize) -> Act; 3] = [
        |connection, asked| if (connection, asked) == (0, 0) { Act::Refuse } else { Act::Answer },
        |connection, asked| if (connection, asked) == (0, 1) { Act::Refuse } else { Act::Answer },
        |connection, _| if connection == 0 { Act::GoAway } else { Act::Answer },
    ];
    for (which, act) in acts.into_iter().enumerate() {
        for text in [GET, EMPTY] {
            let backend = Frames::start(&[], act);
            let (_site, server) = site(&[backend.port], QUICK_TO_EJECT);
            // On one connection: what one worker has just learned, another may not see yet.
            let mut client = sent(server.http, "");
            let statuses = [(); 3].map(|()| request(&mut client, text).status);
            assert_eq!(statuses, [200; 3], "{which}: {text}");
            assert_eq!(backend.requests(), 4, "{which}: {text}");
        }
    }
}

#[test]
fn what_holds_a_signed_identity_is_sent_again_where_nobody_has_seen_it() {
    for act in [Act::Refuse, Act::GoAway] {
        let act = move |connection, _| if connection == 0 { act } else { Act::Answer };
        let backend = Frames::start(&[], act);
        let site = Site::new();
        let mut certmap = Command::new(env!("CARGO_BIN_EXE_certmap"));
        let (ok, key) = run(certmap.args(["signing-key", "signing", "-n", "web"]));
        assert!(ok, "{key}");
        site.write("signing.yaml", &key);
        let (forward, signed) =
            ("[rfc9440]", "[rfc9440], signedIdentity: {keySecretRef: {name: signing}}");
        let spec = site.alice_spec(REQUIRE).replace(forward, signed);
        site.write("policy.yaml", &policy("app", "app", &spec));
        site.write("backend.yaml", &over_http2(&[backend.port]));
        let server = site.start();
        for text in [&[][..], &["-X", "POST"]] {
            let answered = curl(&site, server.https, "alice", "app.test", "/", text);
            assert_eq!(answered.status, 200, "{answered:?}");
        }
    }
}

#[test]
fn a_body_that_nobody_has_read_is_sent_again_and_another_is_not() {
    let refuse = |connection, asked| match (connection, asked) {
        (0, 0) => Act::Refuse,
        _ => Act::Count,
    };
    let backend = Frames::start(&[], refuse);
    let (_site, server) = site(&[backend.port], NOTHING_SAID);
    let (head, body) = POST.split_at(POST.len() - 5);
    let mut client = sent(server.http, head);
    wait("it is asked again", || backend.requests() == 2);
    client.write_all(body.as_bytes()).unwrap();
    let answered = reply(&mut client).unwrap();
    assert_eq!((answered.status, answered.body.as_str()), (200, "5"));

    // Whoever refuses once it has some of it.
    let healthy = Frames::start(&[], |_, _| Act::Count);
    let backend = Frames::start(&[], |_, _| Act::RefuseTheRest);
    let (_site, server) = site(&[backend.port, healthy.port], QUICK_TO_EJECT);
    let mut client = sent(server.http, "");
    let statuses: Vec<u16> = (0..8).map(|_| request(&mut client, POST).status).collect();
    let failed = statuses.iter().filter(|status| **status == 502).count();
    assert_eq!(failed, backend.requests(), "{statuses:?}");
    assert_eq!(8 - failed, healthy.requests(), "{statuses:?}");
    assert!(failed > 2, "it is not put out: {statuses:?}");
}

#[test]
fn who_refuses_everything_is_asked_a_few_times_and_then_another() {
    for act in [Act::Refuse, Act::GoAway] {
        let backend = Frames::start(&[], move |_, _| act);
        let (_site, server) = site(&[backend.port], NOTHING_SAID);
        assert_eq!([GET, EMPTY].map(|text| status(&server, text)), [502; 2]);
        let asked = backend.requests();
        assert!((3..=12).contains(&asked), "{asked}");
        let healthy = Frames::start(&[], |_, _| Act::Answer);
        let (_site, server) = site(&[backend.port, healthy.port], QUICK_TO_EJECT);
        assert_eq!([(); 8].map(|()| status(&server, EMPTY)), [200; 8]);
        let more = backend.requests() - asked;
        assert!((1..=6).contains(&more), "it is put out: {more}");
    }
}

/// A request, the next one that nobody answers, and five that are sent one after the other meanwhile: on one connection, for
/// every thread has connections of its own to the backend.
fn beside_a_slow_one(settings: &'static [(u16, u32)], first: usize) {
    let act = move |connection, asked| match (connection, asked) {
        (0, asked) if asked == first => Act::Nothing,
        _ => Act::Answer,
    };
    let backend = Frames::start(settings, act);
    let (_site, server) = site(&[backend.port], "timeouts: {response: 10s}");
    let mut client = H2::plain(server.http, UNINDEXED).unwrap();
    let ask = |client: &mut H2<TcpStream>, stream| {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("app.test", "/x"));
        client.send(&head).unwrap();
    };
    let mut streams = (1..).step_by(2);
    for stream in streams.by_ref().take(first) {
        ask(&mut client, stream);
        assert_eq!(client.outcome(stream), Some(200));
    }
    let slow = streams.next().unwrap();
    ask(&mut client, slow);
    wait("it is under way", || backend.requests() == first + 1);
    for stream in streams.take(5) {
        ask(&mut client, stream);
        assert_eq!(client.outcome(stream), Some(200));
    }
    assert_eq!(backend.connections(), 2, "the other one is kept");
    assert_eq!(client.outcome(slow), Some(504));
}

#[test]
fn a_backend_that_allows_one_request_gets_the_next_one_on_another_connection() {
    for first in [0, 1] {
        beside_a_slow_one(&[(MOST_STREAMS, 1)], first);
    }
}

#[test]
fn a_backend_that_does_not_say_how_many_it_allows_is_not_waited_for_for_long() {
    beside_a_slow_one(MUTE, 0);
}
