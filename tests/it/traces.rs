//! Traces: whose go on, what the backend is told, and what a collector gets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::support::clients::{curl, curl_http};
use super::support::server::{Server, wait};
use super::support::tls::Reply;
use super::support::{REQUIRE, Site};

const PARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const THEIRS: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn start(site: &Site, options: &[&str]) -> Server {
    Server::start_with(&site.manifests(), &site.path("access.log"), "json", options)
}

fn told(reply: &Reply, name: &str) -> Option<String> {
    let told = reply.told();
    let headers = told["headers"].as_array().unwrap_or_else(|| panic!("{reply:?}"));
    let mut values = headers.iter().filter(|field| field[0] == name);
    let value = values.next().map(|field| field[1].as_str().unwrap().to_owned());
    assert!(values.next().is_none(), "{name} twice: {reply:?}");
    value
}

/// Takes what it is sent, as a collector does; `status` is what it says to that.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, spans) = (listener.local_addr().unwrap(), Arc::new(Mutex::default()));
        let taken: Arc<Mutex<Vec<Value>>> = Arc::clone(&spans);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, taken) = (stream.unwrap(), taken.clone());
                std::thread::spawn(move || serve(stream, &taken, status));
            }
        });
        Self { address, spans }
    }

    fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// The spans of requests for a path, once there are so many.
    fn of(&self, path: &str, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        wait("spans", || {
            let spans = self.spans.lock().unwrap();
            found =
                spans.iter().filter(|span| attribute(span, "url.path") == path).cloned().collect();
            found.len() >= count
        });
        assert_eq!(found.len(), count);
        found
    }
}

fn serve(stream: TcpStream, taken: &Mutex<Vec<Value>>, status: &str) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut line) = (Vec::new(), String::new());
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            head.push(line.trim_end().to_ascii_lowercase());
            line.clear();
        }
        let Some(first) = head.first() else { return };
        assert_eq!(first, "post /v1/traces http/1.1");
        assert!(head.contains(&"content-type: application/json".to_owned()), "{head:?}");
        let length = head.iter().find_map(|field| field.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(attribute(&resource["resource"], "service.name"), "certmap");
        let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
        taken.lock().unwrap().extend(spans.iter().cloned());
        write!(reader.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").unwrap();
    }
}

fn attribute(of: &Value, key: &str) -> String {
    let attributes = of["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    let value = found.map(|attribute| &attribute["value"]);
    let text = value
        .and_then(|value| value["stringValue"].as_str().or_else(|| value["intValue"].as_str()));
    text.unwrap_or_default().to_owned()
}

#[test]
fn a_request_is_a_span_at_the_collector_in_the_log_and_for_the_backend() {
    let site = Site::with_alice(REQUIRE);
    let collector = Collector::start("200 OK");
    let server = start(&site, &["--otlp-endpoint", &collector.endpoint()]);
    let admitted = curl(&site, server.https, "alice", "app.test", "/a?secret=1", &["--http2"]);
    let refused = curl(&site, server.https, "-", "app.test", "/b", &[]);
    assert_eq!((admitted.status, refused.code().as_str()), (200, "403.7"));
    let span = &collector.of("/a", 1)[0];
    let traceparent = told(&admitted, "traceparent").unwrap();
    let (trace, own) = (span["traceId"].as_str().unwrap(), span["spanId"].as_str().unwrap());
    assert_eq!(traceparent, format!("00-{trace}-{own}-01"));
    assert!(span.get("parentSpanId").is_none(), "{span}");
    assert_eq!((&span["name"], &span["kind"]), (&"GET".into(), &2.into()));
    let nanoseconds = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(nanoseconds("startTimeUnixNano") < nanoseconds("endTimeUnixNano"));
    for (key, expected) in [
        ("http.response.status_code", "200"),
        ("certmap.policy", "web/app"),
        ("network.protocol.version", "2"),
        ("url.scheme", "https"),
        ("client.address", "127.0.0.1"),
        ("server.address", "app.test"),
    ] {
        assert_eq!(attribute(span, key), expected, "{key}");
    }
    assert!(!span.to_string().contains("secret") && !span.to_string().contains("azureuser"));
    let line: Value = serde_json::from_str(&server.logged(|line| line.contains("\"/a\""))).unwrap();
    assert_eq!(line["trace_id"], trace);
    let refused = &collector.of("/b", 1)[0];
    assert_eq!(attribute(refused, "certmap.code"), "403.7");
    assert_ne!(refused["traceId"], trace);
    let sent = "certmap_spans_total{outcome=\"sent\"} 2";
    wait(sent, || server.admin("/metrics").1.contains(sent));
}

#[test]
fn a_trusted_proxys_trace_goes_on_and_nobody_elses() {
    let site = Site::with_alice(REQUIRE);
    let collector = Collector::start("200 OK");
    let endpoint = collector.endpoint();
    let options = ["-H", PARENT, "-H", "tracestate: a=1"];
    let trusted = start(&site, &["--otlp-endpoint", &endpoint, "--trusted-proxies", "127.0.0.1"]);
    let reply = curl_http(trusted.http, "open.test", "/trusted", &options);
    let span = &collector.of("/trusted", 1)[0];
    assert_eq!(
        (&span["traceId"], &span["parentSpanId"]),
        (&THEIRS.into(), &"00f067aa0ba902b7".into())
    );
    let own = span["spanId"].as_str().unwrap();
    assert_eq!(told(&reply, "traceparent").unwrap(), format!("00-{THEIRS}-{own}-01"));
    assert_eq!(told(&reply, "tracestate").as_deref(), Some("a=1"));
    for (whose, goes_on) in [("trusted", false), ("everyone", true)] {
        // Nothing is kept of what begins here.
        let server = start(
            &site,
            &["--otlp-endpoint", &endpoint, "--trace-context", whose, "--trace-ratio", "0"],
        );
        let reply = curl_http(server.http, "open.test", "/", &options);
        let traceparent = told(&reply, "traceparent").unwrap();
        assert_eq!(traceparent.contains(THEIRS), goes_on, "{whose}: {traceparent}");
        assert_eq!(traceparent.ends_with("-01"), goes_on, "{whose}: {traceparent}");
        assert_eq!(told(&reply, "tracestate").is_some(), goes_on);
    }
    let off = start(&site, &[]);
    let reply = curl_http(off.http, "open.test", "/", &options);
    assert_eq!(format!("traceparent: {}", told(&reply, "traceparent").unwrap()), PARENT);
    assert_eq!(told(&reply, "tracestate").as_deref(), Some("a=1"));
}

#[test]
fn what_the_collector_does_not_take_is_counted_and_delays_nobody() {
    let site = Site::with_alice(REQUIRE);
    let collector = Collector::start("503 Service Unavailable");
    let server = start(&site, &["--otlp-endpoint", &collector.endpoint()]);
    assert_eq!(curl_http(server.http, "open.test", "/", &[]).status, 200);
    let dropped = "certmap_spans_total{outcome=\"dropped\"} 1";
    wait(dropped, || server.admin("/metrics").1.contains(dropped));
}

#[test]
fn what_waits_is_sent_before_the_end() {
    let site = Site::with_alice(REQUIRE);
    let collector = Collector::start("200 OK");
    let mut server = start(&site, &["--otlp-endpoint", &collector.endpoint()]);
    for _ in 0..20 {
        assert_eq!(curl_http(server.http, "open.test", "/last", &[]).status, 200);
    }
    server.terminate();
    assert_eq!(server.exit_code(), Some(0));
    collector.of("/last", 20);
}
