//! Spans as OTLP over HTTP in JSON (opentelemetry-proto, trace/v1).

use http::Method;
use serde_json::{Value, json};

use super::record::{AccessRecord, lossy};
use super::trace_context::TraceContext;

/// Longer values are cut.
const LONGEST_VALUE: usize = 1024;
/// SPAN_KIND_SERVER
const SERVER: u8 = 2;
/// STATUS_CODE_ERROR
const ERROR: u8 = 2;

/// The span of a request that came to its end. Query, cookies and the account's name stay out of it: spans are read by
/// more people than logs.
pub(super) fn span(context: &TraceContext, record: &AccessRecord) -> Value {
    let took = i128::try_from(record.duration.as_nanos()).unwrap_or(i128::MAX);
    let end = record.time.as_nanosecond().saturating_add(took);
    let mut span = json!({
        "traceId": context.trace_id(),
        "spanId": context.span_id(),
        "name": name(record.method.as_ref().map_or("", Method::as_str)),
        "kind": SERVER,
        "startTimeUnixNano": record.time.as_nanosecond().to_string(),
        "endTimeUnixNano": end.to_string(),
        "attributes": attributes(record),
        "status": if record.status >= 500 { json!({"code": ERROR}) } else { json!({}) },
    });
    if let (Some(parent), Value::Object(span)) = (context.parent, &mut span) {
        span.insert("parentSpanId".to_owned(), format!("{parent:016x}").into());
    }
    span
}

/// Names must be few.
fn name(method: &str) -> &str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    if known.contains(&method) { method } else { "HTTP" }
}

fn attributes(record: &AccessRecord) -> Vec<Value> {
    let version = record.protocol.trim_start_matches("HTTP/").trim_end_matches(".0");
    let version = if record.protocol == "HTTP/1.0" { "1.0" } else { version };
    let scheme = if record.tls.is_some() { "https" } else { "http" };
    let (host, agent) = (lossy(record.host.as_ref()), lossy(record.user_agent.as_ref()));
    let (code, request_id) = (record.shown_code(), lossy(record.request_id.as_ref()));
    let backend = record.backend.map(|backend| backend.to_string());
    let texts = [
        ("http.request.method", record.method.as_ref().map(Method::as_str)),
        ("url.scheme", Some(scheme)),
        ("url.path", Some(record.path())),
        ("server.address", host.as_deref()),
        ("user_agent.original", agent.as_deref()),
        ("network.protocol.version", Some(version)),
        ("certmap.code", code.as_deref()),
        ("certmap.policy", record.policy.as_deref()),
        ("certmap.mechanism", record.mechanism),
        ("certmap.request_id", request_id.as_deref()),
        ("certmap.backend", backend.as_deref()),
    ];
    let texts = texts.into_iter().filter_map(|(key, value)| Some(text(key, value?)));
    let client = record.client.ip().to_canonical().to_string();
    let mut attributes: Vec<Value> = texts.collect();
    attributes.push(text("client.address", &client));
    // Integers of 64 bits are strings in this JSON.
    for (key, value) in [
        ("http.response.status_code", u64::from(record.status)),
        ("http.response.body.size", record.bytes_sent),
    ] {
        attributes.push(json!({"key": key, "value": {"intValue": value.to_string()}}));
    }
    attributes
}

fn text(key: &str, value: &str) -> Value {
    let value = value.get(..value.floor_char_boundary(LONGEST_VALUE)).unwrap_or_default();
    json!({"key": key, "value": {"stringValue": value}})
}

/// One request to a collector.
pub(super) fn batch(instance: &str, spans: &[Value]) -> Vec<u8> {
    let resource = [
        text("service.name", "certmap"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", instance),
    ];
    let scope = json!({"name": "certmap", "version": env!("CARGO_PKG_VERSION")});
    let spans = json!({
        "resourceSpans": [{
            "resource": {"attributes": resource},
            "scopeSpans": [{"scope": scope, "spans": spans}],
        }],
    });
    spans.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::telemetry::Event;

    #[test]
    fn a_span_says_what_the_record_says_but_not_who_it_was() {
        let address = "[::ffff:192.0.2.7]:443".parse().unwrap();
        let time = Timestamp::from_second(1_800_000_000).unwrap();
        let mut record = AccessRecord::new(Event::Request, time, address, address);
        record.duration = Duration::from_millis(2);
        (record.method, record.status, record.protocol) = (Some(Method::GET), 503, "HTTP/2.0");
        record.user = Some(crate::auth::Principal::named("alice"));
        record.target = format!("{}?token=1", "/".repeat(5_000)).parse().ok();
        let context = TraceContext { trace: 1, span: 2, parent: Some(3), sampled: true };
        let span = span(&context, &record);
        let text = span.to_string();
        assert!(!text.contains("alice") && !text.contains("token"), "{text}");
        assert_eq!(span["parentSpanId"], "0000000000000003");
        assert_eq!(span["startTimeUnixNano"], "1800000000000000000");
        assert_eq!(span["endTimeUnixNano"], "1800000000002000000");
        assert_eq!(span["status"]["code"], 2);
        let attribute = |key: &str| {
            let attributes = span["attributes"].as_array().unwrap();
            attributes.iter().find(|it| it["key"] == key).map(|it| it["value"].to_string())
        };
        assert_eq!(attribute("client.address").unwrap(), r#"{"stringValue":"192.0.2.7"}"#);
        assert_eq!(attribute("http.response.status_code").unwrap(), r#"{"intValue":"503"}"#);
        assert_eq!(attribute("network.protocol.version").unwrap(), r#"{"stringValue":"2"}"#);
        assert!(attribute("url.path").unwrap().len() < 1_100);
        assert_eq!((name("GET"), name("BREW")), ("GET", "HTTP"));
    }
}
