//! Several endpoints: which one is asked, who rests, who comes back, and what is sent again.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::snapshot::{Balance, CookieAffinity, Ejection, Retry, RouteTimeouts};

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const ONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none";
const TWO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo";

async fn site(endpoints: &[SocketAddr], settings: RouteSettings) -> Site {
    Site::on((Arc::new(backend(endpoints)), Arc::new(settings)), Timeouts::default()).await
}

fn retrying(attempts: u8) -> RouteSettings {
    let retry = Retry { attempts, codes: [503].into(), budget_percent: 20 };
    RouteSettings { retry: Some(retry), ..RouteSettings::default() }
}

/// A backend that takes the first request of each connection, and breaks off at the second; counts requests.
async fn breaking() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let requests = Arc::<AtomicUsize>::default();
    let count = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                head(&mut stream).await;
                count.fetch_add(1, Ordering::SeqCst);
                write(&mut stream, OK).await;
                head(&mut stream).await;
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn a_kept_connection_that_breaks_under_a_get_is_replaced_and_under_a_post_is_not() {
    for (method, expected) in [("GET", "200"), ("POST", "502")] {
        let (address, requests) = breaking().await;
        let site = site(&[address], RouteSettings::default()).await;
        assert_eq!(site.status().await, 200);
        // The connection has to be back.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = site.answer(&GET.replace("GET", method)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
        assert_eq!(requests.load(Ordering::SeqCst), if method == "GET" { 3 } else { 2 });
    }
}

#[tokio::test]
async fn a_listed_code_is_tried_again_elsewhere() {
    let (bad, good) = (answering(BUSY).await.0, answering(ONE).await.0);
    let site = site(&[bad, good], retrying(1)).await;
    for _ in 0..6 {
        assert_eq!(site.status().await, 200);
    }
    let post = GET.replace("GET", "POST");
    let posts = [site.answer(&post).await, site.answer(&post).await];
    assert!(posts.iter().any(|answer| answer.starts_with("HTTP/1.1 503 ")), "{posts:?}");
}

#[tokio::test]
async fn without_a_better_endpoint_the_last_answer_counts() {
    let site = site(&[answering(BUSY).await.0], retrying(2)).await;
    assert!(site.answer(GET).await.ends_with("\r\n\r\nbusy"));
}

#[tokio::test]
async fn retries_end_where_their_budget_does() {
    let listener = listener().await;
    let counted = listener.local_addr().unwrap();
    let requests = Arc::<AtomicUsize>::default();
    let count = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                loop {
                    let head = head(&mut client).await;
                    count.fetch_add(1, Ordering::SeqCst);
                    assert!(head.starts_with("GET"));
                    write(&mut client, BUSY).await;
                }
            });
        }
    });
    let site = site(&[counted], retrying(3)).await;
    for _ in 0..50 {
        assert_eq!(site.status().await, 503);
    }
    // 10 that were there at the beginning, and a fifth of 50.
    let retries = requests.load(Ordering::SeqCst) - 50;
    assert!((18..=20).contains(&retries), "{retries}");
}

#[tokio::test]
async fn a_failing_endpoint_rests_and_is_asked_again_later() {
    let (bad, good) = (closed().await, answering(ONE).await.0);
    let rest = Duration::from_millis(300);
    let ejection = Ejection { failures: 2, rest, most_percent: 50 };
    let balance = Balance { ejection: Some(ejection), ..Balance::default() };
    let way = Arc::new(backend(&[bad, good]));
    let settings = Arc::new(RouteSettings { balance, ..RouteSettings::default() });
    let site = Site::on((way.clone(), settings), Timeouts::default()).await;
    let Target::Endpoints(endpoints) = &way.target else { panic!("no endpoints") };
    let state = &endpoints[0].state;
    for _ in 0..8 {
        assert_eq!(site.status().await, 200);
    }
    assert_eq!(state.failures.load(Ordering::Relaxed), 2, "it is left alone");
    let listener = TcpListener::bind(bad).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            head(&mut client).await;
            write(&mut client, TWO).await;
        }
    });
    tokio::time::sleep(rest).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(site.answer(GET).await.rsplit("\r\n\r\n").next().unwrap().to_owned());
    }
    assert!(answers.contains(&"two".to_owned()), "{answers:?}");
    assert_eq!(state.failures.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_rest_that_is_shorter_than_the_wait_for_an_answer_is_one() {
    let (silent, millis) = (listener().await, Duration::from_millis);
    let ejection = Ejection { failures: 1, rest: millis(900), most_percent: 100 };
    let balance = Balance { ejection: Some(ejection), ..Balance::default() };
    let timeouts = RouteTimeouts { response: Some(millis(1000)), ..RouteTimeouts::default() };
    let way = Arc::new(backend(&[silent.local_addr().unwrap()]));
    let settings = Arc::new(RouteSettings { balance, timeouts, ..RouteSettings::default() });
    let site = Site::on((way.clone(), settings), Timeouts::default()).await;
    let Target::Endpoints(endpoints) = &way.target else { panic!("no endpoints") };
    let begun = balance::now();
    assert_eq!(site.status().await, 504);
    // Both lasted, one after the other.
    assert!(endpoints[0].state.is_out(begun + 1500));
}

/// A site whose only endpoint accepts connections and says nothing, and does not rest for it yet.
async fn silent(listener: &TcpListener) -> (Site, Arc<Backend>) {
    let ejection = Ejection { failures: 99, rest: Duration::from_secs(1), most_percent: 100 };
    let balance = Balance { ejection: Some(ejection), ..Balance::default() };
    let timeouts =
        RouteTimeouts { response: Some(Duration::from_millis(200)), ..RouteTimeouts::default() };
    let way = Arc::new(backend(&[listener.local_addr().unwrap()]));
    let settings = Arc::new(RouteSettings { balance, timeouts, ..RouteSettings::default() });
    (Site::on((way.clone(), settings), Timeouts::default()).await, way)
}

fn failures(backend: &Backend) -> u32 {
    let Target::Endpoints(endpoints) = &backend.target else { panic!("no endpoints") };
    endpoints[0].state.failures.load(Ordering::Relaxed)
}

/// The head of a request with a body.
fn posting(field: &str) -> String {
    GET.replace("GET", "POST").replacen("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"), 1)
}

#[tokio::test]
async fn a_client_that_stops_sending_says_nothing_of_the_endpoint() {
    let listener = listener().await;
    let (site, backend) = silent(&listener).await;
    let (five, chunked) = ("Content-Length: 5", "Transfer-Encoding: chunked");
    for (field, body, expected) in [
        (five, "", 0),
        (five, "hal", 0),
        (chunked, "", 0),
        (chunked, "3\r\nhal\r\n", 0),
        (five, "whole", 1),
        (chunked, "5\r\nwhole\r\n0\r\n\r\n", 2),
    ] {
        let answer = site.answer(&(posting(field) + body)).await;
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert_eq!(failures(&backend), expected, "{field} {body}");
    }
    assert_eq!(site.status().await, 504);
    assert_eq!(failures(&backend), 3);
}

#[tokio::test]
async fn an_endpoint_that_does_not_read_is_at_fault_itself() {
    let listener = listener().await;
    let (site, backend) = silent(&listener).await;
    let mut client = site.sent(&posting("Transfer-Encoding: chunked")).await;
    let (mut answer, mut body) = client.split();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let sending = async {
        // Until the proxy has enough of it.
        while body.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let mut begins = [0; 13];
    let answering = tokio::time::timeout(LIMIT, answer.read_exact(&mut begins));
    tokio::select! {
        () = sending => {}
        answered = answering => { answered.unwrap().unwrap(); }
    }
    assert_eq!(&begins, b"HTTP/1.1 504 ");
    assert_eq!(failures(&backend), 1);
}

#[tokio::test]
async fn a_client_comes_back_to_its_endpoint_by_its_cookie_and_a_forged_one_is_replaced() {
    let (one, two) = (answering(ONE).await.0, answering(TWO).await.0);
    let affinity = CookieAffinity { name: "here".into(), max_age: None, key: [7; 32] };
    let balance = Balance { affinity: Some(affinity), ..Balance::default() };
    let site = site(&[one, two], RouteSettings { balance, ..RouteSettings::default() }).await;
    let first = site.answer(GET).await;
    let cookie = first.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let body = first.rsplit("\r\n\r\n").next().unwrap();
    let with = |cookie: &str| GET.replace("\r\n\r\n", &format!("\r\nCookie: {cookie}\r\n\r\n"));
    for _ in 0..5 {
        let again = site.answer(&with(&format!("a=b; {cookie}"))).await;
        assert!(again.ends_with(body) && !again.contains("set-cookie"), "{again}");
    }
    let (name, _) = cookie.split_once('=').unwrap();
    assert!(name.starts_with("here-"), "{name}");
    let forged = site.answer(&with(&format!("{name}=AAAAAAAAAAAAAAAAAAAAAA"))).await;
    assert!(forged.contains(&format!("set-cookie: {name}=")), "{forged}");
}

#[tokio::test]
async fn a_request_that_is_under_way_counts() {
    let slow = listener().await;
    let (busy, free) = (slow.local_addr().unwrap(), answering(ONE).await.0);
    let way = Arc::new(backend(&[busy, free]));
    let site = Site::on((way.clone(), Arc::default()), Timeouts::default()).await;
    let _first = site.sent(GET).await;
    let (mut stream, _) = slow.accept().await.unwrap();
    head(&mut stream).await;
    for _ in 0..10 {
        assert!(site.answer(GET).await.ends_with("one"));
    }
    let Target::Endpoints(endpoints) = &way.target else { panic!("no endpoints") };
    assert_eq!(endpoints[0].state.outstanding.load(Ordering::Relaxed), 1);
    assert_eq!(endpoints[1].state.outstanding.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn another_address_of_an_endpoint_is_tried() {
    let mut endpoint = Endpoint::new(closed().await);
    endpoint.addresses = [endpoint.addresses[0], answering(ONE).await.0].into();
    let backend = Backend::new("web/a:80", Target::Endpoints([endpoint].into()), Protocol::Http1);
    let site = Site::on((Arc::new(backend), Arc::default()), Timeouts::default()).await;
    assert_eq!(site.status().await, 200);
}

#[tokio::test]
async fn a_routes_own_timeout_goes_before() {
    let silent = listener().await;
    let timeouts =
        RouteTimeouts { response: Some(Duration::from_millis(50)), ..RouteTimeouts::default() };
    let settings = RouteSettings { timeouts, ..RouteSettings::default() };
    let site = site(&[silent.local_addr().unwrap()], settings).await;
    assert_eq!(site.status().await, 504);
}

#[tokio::test]
async fn connections_at_rest_are_let_go() {
    let (address, backend) = one_connection().await;
    let idle = Duration::from_millis(100);
    let site = Site::with(&[address], Timeouts { idle, ..Timeouts::default() }).await;
    let mut client = site.sent(GET).await;
    let mut backend = backend.await.unwrap();
    head(&mut backend).await;
    write(&mut backend, OK).await;
    rest(&mut client).await;
    assert_eq!(rest(&mut backend).await, "");
}
