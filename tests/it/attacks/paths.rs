//! Tricks with paths: whatever a backend is handed, no reader of it may find a path there that another policy is for
//! than the one that judged it.

use std::collections::{BTreeMap, BTreeSet};

use rustls::version::TLS13;

use crate::support::Site;
use crate::support::frames::{
    END_HEADERS, END_STREAM, H2, HEADERS, UNINDEXED, frame, get as head_of_get,
};
use crate::support::manifests::{ingress, policy};
use crate::support::recorder::{Received, Recorder};
use crate::support::server::Server;
use crate::support::tls::{Client, Stream, get};
use crate::support::{NEGOTIATE, REQUIRE};

/// app.test: everybody may see everything but /admin, which takes a certificate. Each has a backend of its own.
fn site() -> (Site, Recorder, Recorder) {
    let (site, open, closed) = (Site::new(), Recorder::start(), Recorder::start());
    site.write("open-backend.yaml", &open.manifest("everybody"));
    site.write("closed-backend.yaml", &closed.manifest("admin"));
    site.write("ingress.yaml", &ingress("app", "app.test", "/admin", "admin"));
    site.write("policy.yaml", &policy("app", "app", &site.alice_spec(REQUIRE)));
    site.write("everybody.yaml", &ingress("everybody", "app.test", "/", "everybody"));
    let spec = format!("{}authentication: [{{anonymous: {{}}}}]\n", site.alice_spec(NEGOTIATE));
    site.write("everybody-policy.yaml", &policy("everybody", "everybody", &spec));
    (site, open, closed)
}

/// Ways to write `/`, `.`, and what stands between: tricks on decoding, on merging, on cutting off.
const SLASHES: &[&str] = &[
    "/",
    "//",
    "/./",
    "/.//",
    "%2f",
    "%2F",
    "\\",
    "%5c",
    "/%2e/",
    "/;/",
    "/;x=1/",
    "%00/",
    "/%09/",
    "/public/../",
    "/public/..;/",
    "/public/%2e%2e/",
    "/public/.%2E/",
    "/public/%2e%2e%2f",
    "/public%2f..%2f",
    "/public\\..\\",
    "/public/%5c../",
    "%c0%af",
    "/%c0%ae%c0%ae/",
    "/%e0%80%af",
    "/public/%u002e%u002e/",
    "/?/",
    "/#/",
    "/%23/",
    "/%3f/",
    "/\u{2215}",
    "/\u{ff0f}",
];
const NAMES: &[&str] = &[
    "admin",
    "%61dmin",
    "adm%69n",
    "admin;",
    "admin;x=y",
    "admin%3bx",
    "admin.",
    "admin/",
    "admin%2f",
    "admin/.",
    "admin/..",
    "admin/%2e%2e",
    "admin%00",
    "admin%20",
    "admin%09",
    "admin\\",
    "admin%5c",
    "admin?x",
    "admin#x",
    "x/../admin",
    "x/%2e%2e/admin",
    "x/..;/admin",
    "x/.../admin",
    "admin//",
    "%2561dmin",
    "admin/../public",
    "admin/%2e%2e/public",
];

fn paths() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for slash in SLASHES {
        for name in NAMES {
            paths.insert(format!("{}{slash}{name}", if slash.starts_with('/') { "" } else { "/" }));
            paths.insert(format!("/public{slash}{name}"));
            paths.insert(format!("/admin{slash}{name}"));
        }
    }
    paths
}

/// How backends read paths, each in its own way: decoded or not, before or after dots are taken out, with or without
/// parameters, with every kind of slash.
fn readings(target: &str) -> BTreeSet<String> {
    let path = target.split(['?', '#']).next().unwrap();
    let mut readings = BTreeSet::from([path.to_owned()]);
    let steps: [fn(&str) -> String; 6] = [
        decoded,
        without_dots,
        without_parameters,
        merged,
        |path| path.replace('\\', "/"),
        |path| path.split('\0').next().unwrap().to_owned(),
    ];
    // In every order, and as often as they change anything.
    loop {
        let further: Vec<String> = readings
            .iter()
            .flat_map(|path| steps.iter().map(|step| step(path)))
            .filter(|path| !readings.contains(path))
            .collect();
        if further.is_empty() {
            return readings;
        }
        readings.extend(further);
    }
}

/// Once: whoever decodes twice reads `%25` as no standard does.
fn decoded(path: &str) -> String {
    if path.contains('\u{1}') {
        return path.to_owned();
    }
    let octets = path.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < octets.len() {
        let escaped = octets.get(at + 1..at + 3).filter(|_| octets[at] == b'%');
        let octet =
            escaped.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        out.push(octet.unwrap_or(octets[at]));
        at += if octet.is_some() { 3 } else { 1 };
    }
    // Marked, so that it is not decoded again; overlong forms of a slash and a dot are taken for what they mean.
    let text: String = out.iter().map(|octet| char::from(*octet)).collect();
    format!(
        "{}\u{1}",
        text.replace("\u{c0}\u{af}", "/")
            .replace("\u{c0}\u{ae}", ".")
            .replace("\u{e0}\u{80}\u{af}", "/")
    )
}

fn without_dots(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for segment in path.trim_end_matches('\u{1}').split('/') {
        match segment {
            "." => {}
            ".." => drop(out.pop().filter(|_| out.len() > 1)),
            segment => out.push(segment),
        }
    }
    let mark = if path.ends_with('\u{1}') { "\u{1}" } else { "" };
    format!("{}{mark}", out.join("/"))
}

fn without_parameters(path: &str) -> String {
    let mark = if path.ends_with('\u{1}') { "\u{1}" } else { "" };
    let segments =
        path.trim_end_matches('\u{1}').split('/').map(|segment| segment.split(';').next().unwrap());
    format!("{}{mark}", segments.collect::<Vec<_>>().join("/"))
}

fn merged(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

fn is_admin(reading: &str) -> bool {
    let path = reading.trim_end_matches('\u{1}').trim_start_matches('/');
    path == "admin" || path.starts_with("admin/")
}

/// What everybody's backend got is nobody else's, however it is read.
fn is_everybodys(received: &[Received]) {
    for received in received {
        assert_eq!(received.fault, None, "{received:?}");
        for reading in readings(received.target()) {
            assert!(!is_admin(&reading), "{:?} may be read as {reading:?}", received.target());
        }
    }
}

/// What the administrators' backend got may be read so that it is theirs.
fn is_theirs(received: &[Received]) {
    for received in received {
        assert_eq!(received.fault, None, "{received:?}");
        assert!(
            readings(received.target()).iter().any(|reading| is_admin(reading)),
            "{received:?}"
        );
    }
}

#[test]
fn the_oracle_knows_the_tricks() {
    for path in [
        "/admin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x%2f..%2fadmin",
        "/x/..;/admin",
        "/;/admin",
        "/\\admin",
        "/x\\..\\admin",
        "/%61dmin",
        "/admin;x",
        "/admin%00.png",
        "/admin/",
        "/%c0%af/admin",
    ] {
        assert!(
            readings(path).iter().any(|reading| is_admin(reading)),
            "{path}: {:?}",
            readings(path)
        );
    }
    for path in ["/", "/public", "/administrator", "/public/admin", "/admin.html", "/%2561dmin"] {
        assert!(
            !readings(path).iter().any(|reading| is_admin(reading)),
            "{path}: {:?}",
            readings(path)
        );
    }
}

#[test]
fn no_path_is_read_as_one_that_another_policy_is_for() {
    let (site, open, closed) = site();
    let server = site.start();
    let client = Client::new(&site.server_ca, None, &TLS13);
    let mut stream: Option<Stream> = None;
    let mut served = 0;
    for path in paths().iter().filter(|path| path.is_ascii()) {
        let connected = stream.get_or_insert_with(|| client.connect(server.https, "app.test"));
        let reply = get(connected, "app.test", path);
        served += usize::from(reply.status == 200);
        assert!(matches!(reply.code().as_str(), "200" | "400" | "403.7"), "{path}: {reply:?}");
        if reply.status != 200 {
            // A refusal may be the connection's last answer.
            stream = None;
        }
    }
    assert!(closed.received().is_empty(), "without a certificate: {:?}", closed.received());
    assert!(
        served > 20 && open.received().len() == served,
        "{served} of {} were served",
        paths().len()
    );
    is_everybodys(&open.received());
    // With one, whatever is let through goes where it belongs all the same.
    let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
    let mut stream = client.connect(server.https, "app.test");
    for path in paths().iter().filter(|path| path.is_ascii()) {
        if get(&mut stream, "app.test", path).head.contains("connection: close") {
            stream = client.connect(server.https, "app.test");
        }
    }
    assert!(!closed.received().is_empty());
    is_theirs(&closed.received());
    is_everybodys(&open.received());
}

/// How often each path was answered so; 0 is a stream that was reset.
fn answers_over_http_2(client: &Client, server: &Server) -> BTreeMap<u16, usize> {
    let mut connection: Option<(H2<Stream>, u32)> = None;
    let mut answers = BTreeMap::new();
    for path in paths() {
        let (h2, stream) = connection.get_or_insert_with(|| {
            (H2::over(client.connect(server.https, "app.test"), UNINDEXED).unwrap(), 1)
        });
        let get = head_of_get("app.test", &path);
        h2.send(&frame(HEADERS, END_HEADERS | END_STREAM, *stream, &get)).unwrap();
        let status = h2.outcome(*stream).unwrap_or(0);
        *answers.entry(status).or_default() += 1;
        *stream += 2;
        // What cannot be read as a path ends the stream; a certificate that is missing, the connection.
        if matches!(status, 0 | 403) {
            connection = None;
        }
    }
    answers
}

#[test]
fn nor_over_http_2() {
    let (site, open, closed) = site();
    let server = site.start();
    let client = |identity| Client::new(&site.server_ca, identity, &TLS13).with_alpn("h2");
    let known = |answers: &BTreeMap<u16, usize>| {
        answers.keys().all(|status| matches!(status, 0 | 200 | 400 | 403))
    };
    let answers = answers_over_http_2(&client(None), &server);
    assert!(closed.received().is_empty(), "without a certificate: {:?}", closed.received());
    let served = answers[&200];
    assert!(known(&answers) && served > 20 && answers[&403] > 20, "{answers:?}");
    assert_eq!(open.received().len(), served, "{answers:?}");
    is_everybodys(&open.received());
    // With one, whatever is let through goes where it belongs all the same, and nothing else is served.
    let answers = answers_over_http_2(&client(Some(&site.alice)), &server);
    assert!(known(&answers) && !answers.contains_key(&403), "{answers:?}");
    assert!(answers[&200] > served && !closed.received().is_empty(), "{answers:?}");
    assert_eq!(open.received().len() + closed.received().len(), served + answers[&200]);
    is_theirs(&closed.received());
    is_everybodys(&open.received());
}
