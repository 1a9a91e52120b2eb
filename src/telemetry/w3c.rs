//! Access records in the W3C extended log format, with IIS's field names.

use std::fmt::Write;

use http::Method;
use jiff::Timestamp;

use super::record::{AccessRecord, lossy};
use crate::auth::Principal;

/// The fields, in order.
pub(super) const FIELDS: &str = "date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip \
cs(User-Agent) cs(Referer) sc-status sc-substatus sc-win32-status time-taken x-host x-policy x-mapping \
x-certificate-serial x-reason x-request-id";

/// Longer values are cut: a line must not become a way to fill a disk.
const LONGEST_VALUE: usize = 4096;

/// The directives that begin a file.
pub(super) fn directives(now: Timestamp) -> Vec<u8> {
    let (version, date) = (env!("CARGO_PKG_VERSION"), now.strftime("%Y-%m-%d %H:%M:%S"));
    format!("#Software: certmap {version}\n#Version: 1.0\n#Date: {date}\n#Fields: {FIELDS}\n")
        .into_bytes()
}

/// The line, newline included.
pub(super) fn line(record: &AccessRecord) -> Vec<u8> {
    let mut line = record.time.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut field = |value: Option<&str>| {
        line.push(' ');
        escape(&mut line, value.unwrap_or_default());
    };
    let text = |number: u64| number.to_string();
    field(Some(&record.local.ip().to_canonical().to_string()));
    field(record.method.as_ref().map(Method::as_str));
    field(Some(record.path()));
    field(record.query());
    field(Some(&text(record.local.port().into())));
    field(record.user.as_ref().map(Principal::name));
    field(Some(&record.client.ip().to_canonical().to_string()));
    field(lossy(record.user_agent.as_ref()).as_deref());
    field(lossy(record.referer.as_ref()).as_deref());
    field(Some(&text(record.status.into())));
    field(Some(&text(record.substatus.into())));
    field(Some(&text(record.win32_status().into())));
    field(Some(&record.duration.as_millis().to_string()));
    field(lossy(record.host.as_ref()).as_deref());
    field(record.policy.as_deref());
    field(record.mapping.as_deref());
    field(record.certificate.as_ref().map(|peer| &*peer.serial));
    field(record.reason.as_deref());
    field(lossy(record.request_id.as_ref()).as_deref());
    line.push('\n');
    line.into_bytes()
}

/// Spaces become `+`, as IIS writes them; `+`, `%` and everything that is not visible ASCII become escapes, so that no
/// value can end its field or its line, and each can be read back. Nothing is `-`; a hyphen alone is `%2D`.
fn escape(line: &mut String, value: &str) {
    let value = value.as_bytes();
    match value {
        [] => line.push('-'),
        [b'-'] => line.push_str("%2D"),
        _ => {}
    }
    if value == b"-" {
        return;
    }
    for &octet in value.iter().take(LONGEST_VALUE) {
        match octet {
            b' ' => line.push('+'),
            b'+' | b'%' | b'"' => push_escape(line, octet),
            0x21..=0x7E => line.push(char::from(octet)),
            _ => push_escape(line, octet),
        }
    }
}

fn push_escape(line: &mut String, octet: u8) {
    // Writing to a String cannot fail.
    let _written = write!(line, "%{octet:02X}");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::Event;

    fn record() -> AccessRecord {
        let address = "10.0.0.1:443".parse().unwrap();
        AccessRecord::new(Event::Request, Timestamp::UNIX_EPOCH, address, address)
    }

    #[test]
    fn a_client_cannot_write_a_line_or_a_field() {
        let mut record = record();
        record.reason = Some("a b\r\n2026-01-01 forged + 100%".to_owned());
        record.referer = Some(HeaderValue::from_static("-"));
        let line = String::from_utf8(line(&record)).unwrap();
        assert!(line.contains(" a+b%0D%0A2026-01-01+forged+%2B+100%25 -\n"), "{line}");
        assert!(line.contains(" - %2D 0 0"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    proptest! {
        #[test]
        fn every_line_has_every_field(path in any::<String>(), agent in any::<Vec<u8>>(), user in any::<String>(), reason in any::<String>()) {
            let mut record = record();
            (record.target, record.user_agent) = (path.parse().ok(), HeaderValue::from_bytes(&agent).ok());
            (record.user, record.reason) = (Some(Principal::named(user)), Some(reason.clone()));
            let line = String::from_utf8(line(&record)).unwrap();
            prop_assert_eq!(line.trim_end_matches('\n').split(' ').count(), FIELDS.split(' ').count());
            prop_assert_eq!(line.bytes().filter(|b| b.is_ascii_control()).count(), 1);
            let mut json = Vec::new();
            super::super::json::write(&record, &mut json);
            prop_assert_eq!(json.iter().filter(|b| **b == b'\n').count(), 1);
            let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(value["reason"].as_str(), Some(reason.as_str()));
        }
    }
}
