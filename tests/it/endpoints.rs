//! Which endpoint gets a request: weights and zones of EndpointSlices, counted at the backends.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;

use socket2::{Domain, Socket, Type};

use super::support::Site;
use super::support::backend::Backend;
use super::support::manifests::service;
use super::support::server::Server;
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
