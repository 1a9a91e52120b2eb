//! Access records as JSON, one object on a line.

use serde_json::{Value, json};

use super::record::{AccessRecord, Event};

/// The line, newline included. Control characters are escaped by the format itself.
pub(super) fn line(record: &AccessRecord) -> Vec<u8> {
    let event = match record.event {
        Event::Request => "request",
        Event::Handshake => "handshakeFailed",
    };
    let mut fields = json!({
        "time": record.time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
        "event": event,
        "client_ip": record.client.ip().to_canonical().to_string(),
        "client_port": record.client.port(),
        "server_ip": record.local.ip().to_canonical().to_string(),
        "server_port": record.local.port(),
        "tls": record.tls,
        "protocol": record.protocol,
        "method": text(&record.method),
        "host": text(&record.host),
        "path": text(&record.path),
        "query": record.query,
        "user_agent": record.user_agent,
        "referer": record.referer,
        "status": record.status,
        "substatus": record.substatus,
        "code": text(&record.code),
        "user": record.user,
        "mechanism": record.mechanism,
        "policy": record.policy,
        "mapping": record.mapping,
        "certificate_serial": record.certificate_serial,
        "certificate_subject": record.certificate_subject,
        "reason": record.reason,
        "request_id": text(&record.request_id),
        "backend": record.backend,
        "bytes_sent": record.bytes_sent,
        "duration_ms": record.duration.as_secs_f64() * 1000.0,
        "trace": record.trace,
    });
    if let Value::Object(fields) = &mut fields {
        fields.retain(|_, value| {
            !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty())
        });
    }
    let mut line = fields.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
