//! Access records as JSON, one object on a line. Every request writes one: it is put together by hand, for a serializer and
//! the formatting of its values cost several times as much.

use std::cell::Cell;
use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderValue, Method};
use jiff::Timestamp;

use super::record::{AccessRecord, Event, lossy};
use crate::auth::Principal;

/// Longer values are cut: a line must not become a way to fill a disk.
const LONGEST_VALUE: usize = 4096;
/// A name of ours, with what stands around it: before a text its first quote as well.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
    ($name:literal, text) => {
        concat!(",\"", $name, "\":\"")
    };
}

/// Writes the line, newline included; what is not known is left out. Control characters are escaped.
pub(super) fn write(record: &AccessRecord, room: &mut Vec<u8>) {
    let mut line = Line::begin(room, record.time);
    line.plain(
        key!("event", text),
        match record.event {
            Event::Request => "request",
            Event::Handshake => "handshakeFailed",
        },
    );
    line.end_point([key!("client_ip", text), key!("client_port")], record.client);
    line.end_point([key!("server_ip", text), key!("server_port")], record.local);
    line.text(key!("tls", text), record.tls);
    line.plain(key!("protocol", text), record.protocol);
    line.text(key!("method", text), record.method.as_ref().map(Method::as_str));
    line.field(key!("host", text), record.host.as_ref());
    line.text(key!("path", text), Some(record.path()).filter(|path| !path.is_empty()));
    line.text(key!("query", text), record.query());
    line.value(key!("user_agent", text), record.user_agent.as_ref());
    line.value(key!("referer", text), record.referer.as_ref());
    line.number(key!("status"), record.status);
    line.number(key!("substatus"), record.substatus);
    match record.code {
        Some(code) => line.text(key!("code", text), Some(code)),
        None if record.status > 0 => {
            line.key(key!("code", text));
            line.digits(record.status);
            line.quote();
        }
        None => {}
    }
    line.text(key!("user", text), record.user.as_ref().map(Principal::name));
    line.text(key!("mechanism", text), record.mechanism);
    line.text(key!("policy", text), record.policy.as_deref());
    line.text(key!("mapping", text), record.mapping.as_deref());
    let peer = record.certificate.as_deref();
    line.text(key!("certificate_serial", text), peer.map(|peer| &*peer.serial));
    line.text(key!("certificate_subject", text), peer.map(|peer| &*peer.subject_text));
    line.text(key!("reason", text), record.reason.as_deref());
    line.field(key!("request_id", text), record.request_id.as_ref());
    line.text(key!("trace_id", text), record.trace_id.as_deref());
    if let Some(backend) = record.backend {
        line.key(key!("backend", text));
        line.socket(backend);
        line.quote();
    }
    line.number(key!("bytes_sent"), record.bytes_sent);
    line.milliseconds(key!("duration_ms"), record.duration);
    line.texts(key!("trace"), &record.trace);
    line.end();
}

/// An object that is being written.
struct Line<'r>(&'r mut Vec<u8>);

impl<'r> Line<'r> {
    fn begin(room: &'r mut Vec<u8>, time: Timestamp) -> Self {
        let mut line = Self(room);
        line.0.extend_from_slice(b"{\"time\":\"");
        line.time(time);
        line.quote();
        line
    }

    fn end(self) {
        self.0.extend_from_slice(b"}\n");
    }

    fn key(&mut self, key: &str) {
        self.0.extend_from_slice(key.as_bytes());
    }

    fn quote(&mut self) {
        self.0.push(b'"');
    }

    /// A text of ours: there is nothing to escape.
    fn plain(&mut self, key: &str, text: &str) {
        self.key(key);
        self.0.extend_from_slice(text.as_bytes());
        self.quote();
    }

    fn text(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.key(key);
            self.escaped(text);
            self.quote();
        }
    }

    /// What a client wrote, whatever octets it used.
    fn value(&mut self, key: &str, value: Option<&HeaderValue>) {
        match value.map(HeaderValue::to_str) {
            Some(Ok(text)) => self.text(key, Some(text)),
            Some(Err(_)) => self.text(key, lossy(value).as_deref()),
            None => {}
        }
    }

    /// The same, but nothing is as good as none.
    fn field(&mut self, key: &str, value: Option<&HeaderValue>) {
        self.value(key, value.filter(|value| !value.is_empty()));
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        let Some((first, others)) = texts.split_first() else { return };
        self.key(key);
        self.0.extend_from_slice(b"[\"");
        self.escaped(first);
        for text in others {
            self.0.extend_from_slice(b"\",\"");
            self.escaped(text);
        }
        self.0.extend_from_slice(b"\"]");
    }

    fn number(&mut self, key: &str, number: impl itoa::Integer) {
        self.key(key);
        self.digits(number);
    }

    /// With as many decimals as there are.
    fn milliseconds(&mut self, key: &str, duration: Duration) {
        self.key(key);
        self.digits(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        self.0.push(b'.');
        self.decimals::<6>(duration.subsec_nanos() % 1_000_000);
        let mut spare = 5;
        while spare > 0 && self.0.pop_if(|digit| *digit == b'0').is_some() {
            spare -= 1;
        }
    }

    fn end_point(&mut self, [address, port]: [&str; 2], end: SocketAddr) {
        self.key(address);
        self.address(end.ip().to_canonical());
        self.quote();
        self.number(port, end.port());
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                for (at, octet) in address.octets().into_iter().enumerate() {
                    if at > 0 {
                        self.0.push(b'.');
                    }
                    self.digits(octet);
                }
            }
            IpAddr::V6(address) => self.shown(address),
        }
    }

    fn socket(&mut self, socket: SocketAddr) {
        match socket {
            SocketAddr::V4(socket) => {
                self.address((*socket.ip()).into());
                self.0.push(b':');
                self.digits(socket.port());
            }
            SocketAddr::V6(socket) => self.shown(socket),
        }
    }

    fn shown(&mut self, value: impl Display) {
        // Neither can a vector refuse, nor does an address.
        let _written = write!(self, "{value}");
    }

    fn digits(&mut self, number: impl itoa::Integer) {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// So many, with noughts before them.
    fn decimals<const COUNT: usize>(&mut self, number: u32) {
        let (mut left, mut digits) = (number, [b'0'; COUNT]);
        for digit in digits.iter_mut().rev() {
            *digit += (left % 10) as u8;
            left /= 10;
        }
        self.0.extend_from_slice(&digits);
    }

    /// RFC 3339 with milliseconds. Many requests come in one second, and a date takes some working out.
    fn time(&mut self, time: Timestamp) {
        thread_local! {
            static LAST: Cell<(i64, [u8; 20])> = const { Cell::new((i64::MIN, [0; 20])) };
        }
        let (second, nanosecond) = (time.as_second(), time.subsec_nanosecond());
        let (mut last, mut text) = LAST.get();
        // "1970-01-01T00:00:00." with a year of four digits, and a time after 1970.
        if last != second || nanosecond < 0 {
            let written = format!("{time:.3}");
            let begin = written.as_bytes().split_at_checked(text.len()).map(|(begin, _)| begin);
            let begin = begin.and_then(|begin| begin.try_into().ok());
            match begin.filter(|_| written.len() == 24 && nanosecond >= 0) {
                Some(begin) => (last, text) = (second, begin),
                None => return self.0.extend_from_slice(written.as_bytes()),
            }
            LAST.set((last, text));
        }
        self.0.extend_from_slice(&text);
        self.decimals::<3>(nanosecond.unsigned_abs() / 1_000_000);
        self.0.push(b'Z');
    }

    /// What a client wrote, but not at any length. JSON allows some that a terminal obeys: C1 controls, and marks that turn
    /// the direction of writing.
    fn escaped(&mut self, text: &str) {
        let text = text.get(..text.floor_char_boundary(LONGEST_VALUE)).unwrap_or_default();
        if is_plain(text.as_bytes()) {
            return self.0.extend_from_slice(text.as_bytes());
        }
        let obeyed = |c: char| matches!(c, '\0'..='\u{1F}' | '\u{7F}'..='\u{9F}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.0.extend_from_slice(&[b'\\', c as u8]),
                '\n' => self.0.extend_from_slice(b"\\n"),
                '\r' => self.0.extend_from_slice(b"\\r"),
                '\t' => self.0.extend_from_slice(b"\\t"),
                _ if obeyed(c) => self.shown(format_args!("\\u{:04x}", u32::from(c))),
                _ => self.0.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}

/// Whether nothing in it is escaped. Looking at all of it costs less than stopping early, and at eight octets no more than at
/// one.
fn is_plain(octets: &[u8]) -> bool {
    let (eights, rest) = octets.as_chunks();
    let mut last = [b' '; 8];
    last.iter_mut().zip(rest).for_each(|(last, octet)| *last = *octet);
    let odd = eights.iter().fold(odd(last), |all, eight| all | odd(*eight));
    odd & HIGH == 0
}

/// The highest bit of each of eight octets.
const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);

/// Has the highest bit of some octet set if any of them is a control character, a quote, a backslash or not ASCII.
fn odd(eight: [u8; 8]) -> u64 {
    const fn each(octet: u8) -> u64 {
        u64::from_ne_bytes([octet; 8])
    }
    let octets = u64::from_ne_bytes(eight);
    // No sum of it carries from one octet into the next.
    let low = octets & !HIGH;
    let is = |octet: u8| !((low ^ each(octet)) + each(0x7F));
    let is_control = !(low + each(0x80 - b' '));
    octets | is_control | is(b'"') | is(b'\\') | is(0x7F)
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use jiff::Timestamp;

    use super::*;

    fn line(record: &AccessRecord) -> Vec<u8> {
        let mut line = Vec::new();
        write(record, &mut line);
        line
    }

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

    #[test]
    fn a_value_is_read_as_it_was() {
        let address = "[2001:db8::1]:443".parse().unwrap();
        let mut record = AccessRecord::new(Event::Request, Timestamp::UNIX_EPOCH, address, address);
        let all: String = ('\0'..='\u{FF}').chain(['\u{2028}', '\u{FFFD}', '\u{1F600}']).collect();
        record.reason = Some(all.clone());
        record.trace = vec![all.clone(), String::new()];
        record.backend = Some(address);
        (record.status, record.bytes_sent) = (200, u64::MAX);
        let value: serde_json::Value = serde_json::from_slice(&line(&record)).unwrap();
        assert_eq!(value["reason"], all);
        assert_eq!(value["trace"], serde_json::json!([all, ""]));
        assert_eq!(
            (&value["client_ip"], &value["backend"]),
            (&"2001:db8::1".into(), &"[2001:db8::1]:443".into())
        );
        assert_eq!((&value["code"], &value["status"]), (&"200".into(), &200.into()));
        assert_eq!(value["bytes_sent"], u64::MAX);
    }

    #[test]
    fn everything_that_is_known_can_be_read() {
        let address = "192.0.2.7:443".parse().unwrap();
        let mut record =
            AccessRecord::new(Event::Handshake, Timestamp::UNIX_EPOCH, address, address);
        (record.tls, record.protocol) = (Some("TLSv1.3"), "HTTP/2.0");
        (record.method, record.target) = (Some(Method::GET), "/path?query".parse().ok());
        let value = |text| Some(HeaderValue::from_static(text));
        (record.host, record.user_agent, record.referer) =
            (value("host"), value("agent"), value("referer"));
        (record.status, record.substatus, record.code) = (403, 16, Some("403.16"));
        (record.user, record.mechanism) = (Some(Principal::named("user")), Some("oneToOne"));
        (record.policy, record.mapping) = (Some("policy".into()), Some("mapping".into()));
        (record.request_id, record.trace_id) = (value("id"), Some("trace".into()));
        let value: serde_json::Value = serde_json::from_slice(&line(&record)).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00.000Z", "event": "handshakeFailed",
            "client_ip": "192.0.2.7", "client_port": 443, "server_ip": "192.0.2.7", "server_port": 443,
            "tls": "TLSv1.3", "protocol": "HTTP/2.0", "method": "GET", "host": "host",
            "path": "/path", "query": "query", "user_agent": "agent", "referer": "referer",
            "status": 403, "substatus": 16, "code": "403.16",
            "user": "user", "mechanism": "oneToOne", "policy": "policy", "mapping": "mapping",
            "request_id": "id", "trace_id": "trace", "bytes_sent": 0, "duration_ms": 0.0,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn an_odd_octet_is_found_wherever_it_is() {
        for length in 0..40 {
            let text = vec![b'a'; length];
            assert!(is_plain(&text));
            for (place, octet) in
                (0..length).flat_map(|place| (0..=u8::MAX).map(move |it| (place, it)))
            {
                let mut text = text.clone();
                text[place] = octet;
                let plain = matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\');
                assert_eq!(is_plain(&text), plain, "{octet:#x} at {place} of {length}");
            }
        }
    }

    #[test]
    fn times_are_exact() {
        let address = "192.0.2.7:443".parse().unwrap();
        let shown = |time: Timestamp, duration| {
            let mut record = AccessRecord::new(Event::Request, time, address, address);
            record.duration = duration;
            let line = String::from_utf8(line(&record)).unwrap();
            let duration = line.split("duration_ms\":").nth(1).unwrap().trim_end_matches("}\n");
            (line.split('"').nth(3).unwrap().to_owned(), duration.to_owned())
        };
        for (nanoseconds, time) in [
            (0_i128, "1970-01-01T00:00:00.000Z"),
            (999_999_999, "1970-01-01T00:00:00.999Z"),
            (1_000_000_000, "1970-01-01T00:00:01.000Z"),
            (-1_000_000, "1969-12-31T23:59:59.999Z"),
            (1_795_996_862_007_000_000, "2026-11-30T00:01:02.007Z"),
        ] {
            let time_of = Timestamp::from_nanosecond(nanoseconds).unwrap();
            assert_eq!(shown(time_of, Duration::ZERO).0, time);
        }
        for (nanoseconds, duration) in [
            (0, "0.0"),
            (1, "0.000001"),
            (207_117, "0.207117"),
            (1_500_000, "1.5"),
            (61_000_000_000, "61000.0"),
        ] {
            assert_eq!(shown(Timestamp::UNIX_EPOCH, Duration::from_nanos(nanoseconds)).1, duration);
        }
    }
}
