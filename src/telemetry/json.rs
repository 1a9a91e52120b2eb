//! Access records as JSON, one object on a line.

use serde_json::{Value, json};

use super::record::{AccessRecord, Event};

/// Longer values are cut: a line must not become a way to fill a disk.
const LONGEST_VALUE: usize = 4096;

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
        "query": cut(record.query.as_deref()),
        "user_agent": cut(record.user_agent.as_deref()),
        "referer": cut(record.referer.as_deref()),
        "status": record.status,
        "substatus": record.substatus,
        "code": text(&record.code),
        "user": cut(record.user.as_deref()),
        "mechanism": record.mechanism,
        "policy": record.policy,
        "mapping": record.mapping,
        "certificate_serial": record.certificate_serial,
        "certificate_subject": cut(record.certificate_subject.as_deref()),
        "reason": cut(record.reason.as_deref()),
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
    let mut line = safe_to_show(fields.to_string()).into_bytes();
    line.push(b'\n');
    line
}

fn text(text: &str) -> Option<&str> {
    cut(Some(text)).filter(|text| !text.is_empty())
}

/// What a client wrote, but not at any length.
fn cut(text: Option<&str>) -> Option<&str> {
    text.map(|text| text.get(..text.floor_char_boundary(LONGEST_VALUE)).unwrap_or_default())
}

/// Escapes what JSON allows and a terminal obeys: C1 controls, and marks that turn the direction of writing.
fn safe_to_show(json: String) -> String {
    let obeyed = |c: char| matches!(c, '\u{7F}'..='\u{9F}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    if !json.contains(obeyed) {
        return json;
    }
    json.chars().fold(String::new(), |mut out, c| {
        if obeyed(c) {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_a_client_wrote() {
        let address = "10.0.0.1:443".parse().unwrap();
        let mut record = AccessRecord::new(Event::Request, Timestamp::UNIX_EPOCH, address, address);
        record.user_agent = Some("a\u{9b}31m\u{202e}b".to_owned());
        record.path = "/".repeat(10_000);
        let line = String::from_utf8(line(&record)).unwrap();
        assert!(line.contains(r"a\u009b31m\u202eb"), "{line}");
        assert!(line.len() < 6_000);
    }
}
