//! Access records as JSON, one object on a line.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use http::Method;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::record::{AccessRecord, Event, lossy};
use crate::auth::Principal;

/// Longer values are cut: a line must not become a way to fill a disk.
const LONGEST_VALUE: usize = 4096;
/// Most lines are shorter.
const USUAL_LINE: usize = 1024;

/// What is written; what is not known is left out.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "milliseconds")]
    time: Timestamp,
    event: &'static str,
    #[serde(serialize_with = "shown")]
    client_ip: IpAddr,
    client_port: u16,
    #[serde(serialize_with = "shown")]
    server_ip: IpAddr,
    server_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<&'a str>,
    status: u16,
    substatus: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mechanism: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapping: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<SocketAddr>,
    bytes_sent: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "<[_]>::is_empty", serialize_with = "each_cut")]
    trace: &'a [String],
}

/// The line, newline included. Control characters are escaped by the format itself.
pub(super) fn line(record: &AccessRecord) -> Vec<u8> {
    let (host, code) = (lossy(record.host.as_ref()), record.shown_code());
    let (agent, referer) = (lossy(record.user_agent.as_ref()), lossy(record.referer.as_ref()));
    let (request_id, peer) = (lossy(record.request_id.as_ref()), record.certificate.as_deref());
    let fields = Line {
        time: record.time,
        event: match record.event {
            Event::Request => "request",
            Event::Handshake => "handshakeFailed",
        },
        client_ip: record.client.ip().to_canonical(),
        client_port: record.client.port(),
        server_ip: record.local.ip().to_canonical(),
        server_port: record.local.port(),
        tls: record.tls,
        protocol: record.protocol,
        method: record.method.as_ref().map(Method::as_str),
        host: text(host.as_deref()),
        path: text(Some(record.path())),
        query: cut(record.query()),
        user_agent: cut(agent.as_deref()),
        referer: cut(referer.as_deref()),
        status: record.status,
        substatus: record.substatus,
        code: code.as_deref(),
        user: cut(record.user.as_ref().map(Principal::name)),
        mechanism: record.mechanism,
        policy: record.policy.as_deref(),
        mapping: record.mapping.as_deref(),
        certificate_serial: cut(peer.map(|peer| &*peer.serial)),
        certificate_subject: cut(peer.map(|peer| &*peer.subject_text)),
        reason: cut(record.reason.as_deref()),
        request_id: text(request_id.as_deref()),
        trace_id: record.trace_id.as_deref(),
        backend: record.backend,
        bytes_sent: record.bytes_sent,
        duration_ms: record.duration.as_secs_f64() * 1000.0,
        trace: &record.trace,
    };
    let mut line = Vec::with_capacity(USUAL_LINE);
    // Neither can a vector refuse, nor has a record a key that is no string.
    if serde_json::to_writer(&mut line, &fields).is_err() {
        line.clear();
    }
    let mut line = safe_to_show(line);
    line.push(b'\n');
    line
}

fn milliseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn shown<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn each_cut<S: Serializer>(lines: &&[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(lines.iter().map(|line| cut(Some(line))))
}

fn text(text: Option<&str>) -> Option<&str> {
    cut(text).filter(|text| !text.is_empty())
}

/// What a client wrote, but not at any length.
fn cut(text: Option<&str>) -> Option<&str> {
    text.map(|text| text.get(..text.floor_char_boundary(LONGEST_VALUE)).unwrap_or_default())
}

/// Escapes what JSON allows and a terminal obeys: C1 controls, and marks that turn the direction of writing.
fn safe_to_show(json: Vec<u8>) -> Vec<u8> {
    // Nothing of the kind is plain ASCII, apart from DEL.
    if json.iter().all(|octet| *octet < 0x7F) {
        return json;
    }
    let obeyed = |c: char| matches!(c, '\u{7F}'..='\u{9F}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let escaped = String::from_utf8_lossy(&json).chars().fold(String::new(), |mut out, c| {
        if obeyed(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
        out
    });
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_a_client_wrote() {
        let address = "10.0.0.1:443".parse().unwrap();
        let mut record = AccessRecord::new(Event::Request, Timestamp::UNIX_EPOCH, address, address);
        record.user_agent = HeaderValue::from_bytes("a\u{9b}31m\u{202e}b".as_bytes()).ok();
        record.target = "/".repeat(10_000).parse().ok();
        record.trace = vec!["x".repeat(10_000)];
        let line = String::from_utf8(line(&record)).unwrap();
        assert!(line.contains(r"a\u009b31m\u202eb"), "{line}");
        assert!(line.len() < 10_000);
    }

    #[test]
    fn what_is_not_known_is_left_out_and_the_time_has_milliseconds() {
        let address = "[::ffff:10.0.0.1]:443".parse().unwrap();
        let time = Timestamp::from_millisecond(1_000_005).unwrap();
        let mut record = AccessRecord::new(Event::Request, time, address, address);
        record.target = "/?".parse().ok();
        let value: serde_json::Value = serde_json::from_slice(&line(&record)).unwrap();
        let names = [
            "bytes_sent",
            "client_ip",
            "client_port",
            "duration_ms",
            "event",
            "path",
            "protocol",
            "query",
            "server_ip",
            "server_port",
            "status",
            "substatus",
            "time",
        ];
        let mut written: Vec<&str> =
            value.as_object().unwrap().keys().map(String::as_str).collect();
        written.sort_unstable();
        assert_eq!(written, names);
        assert_eq!(value["time"], "1970-01-01T00:16:40.005Z");
        assert_eq!(value["client_ip"], "10.0.0.1");
    }
}
