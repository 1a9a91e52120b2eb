//! Which endpoint gets a request, counted at the backends: weights and zones of EndpointSlices, who is new, busy or about
//! to go; and names outside of the cluster.

use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::backends::{head, route_policy, sent};
use super::support::Site;
use super::support::backend::Backend;
use super::support::clients::curl_http;
use super::support::manifests::{ingress, service};
use super::support::origin::Origin;
use super::support::server::{Server, wait};
use super::support::tls::get;

/// A Service with one slice of this text for each endpoint.
fn slices(ports: [u16; 2], change: impl Fn(usize, String) -> String) -> String {
    let text = service("echo", &ports);
    let mut documents = text.split("---\n").map(str::to_owned);
    let service = documents.next().unwrap();
    let slices = documents.enumerate().map(|(index, slice)| change(index, slice));
    std::iter::once(service).chain(slices).collect::<Vec<_>>().join("---\n")
}

fn weighing(ports: [u16; 2], weights: [&str; 2]) -> String {
    slices(ports, |index, slice| {
        let weight = weights[index];
        let annotation = format!("annotations: {{certmap.dev/weight: \"{weight}\"}}, labels:");
        slice.replacen("labels:", &annotation, 1)
    })
}

fn meant_for(ports: [u16; 2], zones: [&str; 2]) -> String {
    slices(ports, |index, slice| {
        let hints = format!("hints: {{forZones: [{{name: {}}}]}}, conditions:", zones[index]);
        slice.replacen("conditions:", &hints, 1)
    })
}

/// How many of so many requests each of the two got.
fn spread(server: &Server, requests: usize, backends: [&Backend; 2]) -> [usize; 2] {
    let counts = || backends.map(|backend| backend.requests.load(Ordering::SeqCst));
    let before = counts();
    let mut stream = TcpStream::connect(server.http).unwrap();
    for _ in 0..requests {
        assert_eq!(get(&mut stream, "app.test", "/").status, 200);
    }
    let after = counts();
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn requests_are_shared_out_by_the_weights_of_slices() {
    let (site, other) = (Site::new(), Backend::start());
    let (ports, backends) = ([site.backend.port, other.port], [&site.backend, &other]);
    site.write("backend.yaml", &weighing(ports, ["3", "1"]));
    let server = site.start();
    let [heavy, light] = spread(&server, 40, backends);
    assert_eq!(heavy + light, 40);
    assert!((22..=37).contains(&heavy), "of 40 with weights 3 and 1: {heavy} and {light}");
    // The more, the nearer.
    let [heavy, light] = spread(&server, 400, backends);
    assert!((260..=340).contains(&heavy), "of 400 with weights 3 and 1: {heavy} and {light}");
    server.edit("backend.yaml", &weighing(ports, ["0", "1"]));
    assert_eq!(spread(&server, 40, backends), [0, 40]);
    server.edit("backend.yaml", &weighing(ports, ["2", "2"]));
    let [one, two] = spread(&server, 40, backends);
    assert!(one.abs_diff(two) <= 20, "of 40 with equal weights: {one} and {two}");
    server.edit("backend.yaml", &weighing(ports, ["0", "0"]));
    let mut stream = TcpStream::connect(server.http).unwrap();
    assert_eq!(get(&mut stream, "app.test", "/").status, 503);
    server.said(&["BackendNotFound", "no ready endpoint"]);
}

#[test]
fn a_zones_requests_stay_in_it_for_as_long_as_anybody_answers_there() {
    let (site, other) = (Site::new(), Backend::start());
    let (ports, backends) = ([site.backend.port, other.port], [&site.backend, &other]);
    site.write("backend.yaml", &meant_for(ports, ["a", "b"]));
    let options = ["--zone", "a"];
    let server = Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options);
    assert_eq!(spread(&server, 40, backends), [40, 0]);
    server.edit("backend.yaml", &meant_for(ports, ["b", "a"]));
    assert_eq!(spread(&server, 40, backends), [0, 40]);
    // A port that is taken, and on which nobody listens.
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let dead_port = dead.local_addr().unwrap().as_socket().unwrap().port();
    server.edit("backend.yaml", &meant_for([dead_port, other.port], ["a", "b"]));
    assert_eq!(spread(&server, 40, backends), [0, 40]);
    // None for this zone, or not for each of them one: all are alike.
    server.edit("backend.yaml", &meant_for(ports, ["c", "b"]));
    let [one, two] = spread(&server, 40, backends);
    assert!(one.abs_diff(two) <= 20, "without a hint for the zone: {one} and {two}");
    let partly = slices(ports, |index, slice| match index {
        0 => slice.replacen("conditions:", "hints: {forZones: [{name: a}]}, conditions:", 1),
        _ => slice,
    });
    server.edit("backend.yaml", &partly);
    let [one, two] = spread(&server, 40, backends);
    assert!(one.abs_diff(two) <= 20, "with a hint for one of two: {one} and {two}");
}

#[test]
fn a_new_endpoints_share_grows_until_it_is_like_the_others() {
    const GROWN: Duration = Duration::from_secs(8);
    let (site, other) = (Site::new(), Backend::start());
    let (ports, backends) = ([site.backend.port, other.port], [&site.backend, &other]);
    site.write("route.yaml", &route_policy("loadBalancing: {slowStart: 8s}"));
    let server = site.start();
    assert_eq!(spread(&server, 10, backends), [10, 0]);
    // The first one grows up alone.
    std::thread::sleep(GROWN);
    server.edit("backend.yaml", &service("echo", &ports));
    let begun = Instant::now();
    let [old, new] = spread(&server, 40, backends);
    assert!(begun.elapsed() < GROWN / 2, "the machine is too busy: {:?}", begun.elapsed());
    assert!(new <= 14, "at once, of 40: {old} and {new}");
    std::thread::sleep(GROWN);
    assert_eq!(spread(&server, 40, backends), [20, 20]);
}

#[test]
fn who_is_busy_with_more_gets_nothing_while_another_is_at_rest() {
    let begins = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n".to_vec();
    let busy = Origin::start(&[("/held", vec![begins, b"ok".to_vec()])]);
    let site = Site::new();
    site.write("backend.yaml", &busy.manifest("echo"));
    let server = site.start();
    let held = [0; 3].map(|_| {
        let mut held = sent(server.http, "GET /held HTTP/1.1\r\nHost: app.test\r\n\r\n");
        assert!(head(&mut held).starts_with("HTTP/1.1 200 "));
        held
    });
    server.edit("backend.yaml", &service("echo", &[busy.port, site.backend.port]));
    assert_eq!(spread(&server, 20, [&site.backend, &site.backend]), [20, 20]);
    assert_eq!(busy.requests.load(Ordering::SeqCst), 3);
    for mut held in held {
        busy.go_on.send(()).unwrap();
        let mut body = [0; 2];
        held.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"ok");
    }
    // What it was busy with is done: its turn comes again. It has nothing else to say than to close.
    wait("a request for it", || {
        drop(curl_http(server.http, "app.test", "/", &[]));
        busy.requests.load(Ordering::SeqCst) > 3
    });
}

#[test]
fn endpoints_that_are_about_to_go_finish_what_they_have_and_get_nothing_new() {
    let (site, other) = (Site::new(), Backend::start());
    let backends = [&site.backend, &other];
    let mark = |manifest: &str, conditions: &str| manifest.replace("ready: true", conditions);
    let (ready, going) = (other.manifest("echo"), "ready: false, serving: true, terminating: true");
    site.write("backend.yaml", &ready);
    let server = site.start();
    let mut under_way = sent(server.http, "GET /stream HTTP/1.1\r\nHost: app.test\r\n\r\n");
    assert!(head(&mut under_way).starts_with("HTTP/1.1 200 "));
    // The second slice is that of the other one.
    let both = service("echo", &[site.backend.port, other.port]);
    let (first, last) = both.rsplit_once("ready: true").unwrap();
    server.edit("backend.yaml", &format!("{first}{going}{last}"));
    assert_eq!(spread(&server, 10, backends), [10, 0]);
    let mut body = String::new();
    let chunks = "6\r\nchunk\n\r\n".repeat(50) + "0\r\n\r\n";
    Read::by_ref(&mut under_way).take(chunks.len() as u64).read_to_string(&mut body).unwrap();
    assert_eq!(body, chunks);
    // Where there is nobody else, better they than nobody: for as long as they serve.
    server.edit("backend.yaml", &mark(&ready, going));
    assert_eq!(spread(&server, 10, backends), [0, 10]);
    server.edit("backend.yaml", &mark(&both, going));
    assert_eq!(spread(&server, 10, backends), [5, 5]);
    server.edit("backend.yaml", &mark(&both, "ready: false, serving: false, terminating: true"));
    assert_eq!(curl_http(server.http, "app.test", "/", &[]).status, 503);
}

/// An address of this machine by which others know it, too: what is sent there stays here all the same.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent.
    socket.connect("198.51.100.1:9").expect("this test needs an address that is not loopback");
    socket.local_addr().unwrap().ip()
}

#[test]
fn a_name_outside_of_the_cluster_is_a_backend_where_that_is_allowed() {
    let named = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: echo, namespace: web}}\nspec: {{type: ExternalName, externalName: {name}}}\n"
        )
    };
    let (site, address) = (Site::new(), own_address());
    let backend = Backend::at(address);
    let port = format!("number: {}", backend.port);
    site.write(
        "ingress.yaml",
        &ingress("app", "app.test", "/", "echo").replace("number: 80", &port),
    );
    site.write("backend.yaml", &named(&address.to_string()));
    let ask = |server: &Server| curl_http(server.http, "app.test", "/", &[]);
    let server = site.start();
    assert_eq!(ask(&server).status, 503);
    server.said(&["BackendNotFound", "echo is an ExternalName", "--allow-external-names"]);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 0);
    drop(server);
    let (manifests, log) = (site.manifests(), site.path("access.log"));
    let server = Server::start_with(&manifests, &log, "json", &["--allow-external-names"]);
    let reply = ask(&server);
    assert_eq!((reply.status, &reply.told()["port"]), (200, &backend.port.into()), "{reply:?}");
    // Whoever may write a Service must not reach what listens for this machine alone.
    server.edit("backend.yaml", &named("localhost"));
    assert_eq!(ask(&server).code(), "502");
    server.logged(|line| line.contains("localhost leads to this machine itself"));
}
