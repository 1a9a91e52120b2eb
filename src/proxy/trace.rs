//! Which trace a request belongs to: the one of whoever asked, where that is believed, or one that begins here.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::settings::{Believed, TraceSettings};
use crate::telemetry::{TraceContext, TraceParent};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// W3C Trace Context 3.3.1.5: at least so many octets are passed on.
const LONGEST_STATE: usize = 512;

/// A request's trace, as the backend is told of it.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) context: TraceContext,
    state: Option<HeaderValue>,
}

impl Trace {
    /// The trace of a request that a trusted proxy brought, or not; `ids` are for a new trace and for our span.
    pub(super) fn of(
        headers: &HeaderMap,
        trusted: bool,
        ids: (u128, u64),
        settings: &TraceSettings,
    ) -> Self {
        let (trace, span) = ids;
        let believed = trusted || settings.believed == Believed::Everyone;
        match parent(headers).filter(|_| believed) {
            Some(parent) => {
                Self { context: TraceContext::within(parent, span), state: state(headers) }
            }
            None => Self { context: TraceContext::begin(trace, span, settings.ratio), state: None },
        }
    }

    /// Says it in place of what the client said.
    pub(super) fn set(&self, headers: &mut HeaderMap) {
        headers.remove(TRACESTATE);
        headers.remove(TRACEPARENT);
        if let Ok(value) = HeaderValue::try_from(self.context.traceparent()) {
            headers.insert(TRACEPARENT, value);
            headers.extend(self.state.clone().map(|state| (TRACESTATE, state)));
        }
    }
}

fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    TraceParent::parse(value.as_bytes())
}

/// Several fields are one list. What is too long to be passed on whole is not passed on.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let lists: Vec<&[u8]> = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes).collect();
    let state = lists.join(&b","[..]);
    let visible = state.iter().all(|octet| matches!(octet, b' '..=b'~' | b'\t'));
    let fits = visible && !state.is_empty() && state.len() <= LONGEST_STATE;
    fits.then(|| HeaderValue::from_bytes(&state).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn told(fields: &[(&'static str, &str)], trusted: bool, believed: Believed) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let settings = TraceSettings { believed, ratio: 0.0, spans: None };
        Trace::of(&headers, trusted, (0xA, 0xB), &settings).set(&mut headers);
        headers
    }

    #[test]
    fn a_trace_goes_on_where_it_is_believed_and_begins_anew_elsewhere() {
        let fields = [("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")];
        for (trusted, believed, goes_on) in [
            (true, Believed::Trusted, true),
            (false, Believed::Trusted, false),
            (false, Believed::Everyone, true),
        ] {
            let headers = told(&fields, trusted, believed);
            let expected = if goes_on {
                "00-4bf92f3577b34da6a3ce929d0e0e4736-000000000000000b-01"
            } else {
                "00-0000000000000000000000000000000a-000000000000000b-00"
            };
            assert_eq!(headers["traceparent"], expected);
            assert_eq!(
                headers.get("tracestate").map(|it| it == "a=1,b=2"),
                goes_on.then_some(true)
            );
        }
    }

    #[test]
    fn what_is_no_parent_begins_anew_and_its_state_is_dropped() {
        for parents in [&["00-x"][..], &[PARENT, PARENT], &[]] {
            let mut fields: Vec<_> = parents.iter().map(|it| ("traceparent", *it)).collect();
            fields.push(("tracestate", "a=1"));
            let headers = told(&fields, true, Believed::Trusted);
            assert_eq!(headers.get_all("traceparent").iter().count(), 1);
            assert!(headers["traceparent"].to_str().unwrap().contains("-000000000000000b-"));
            assert!(!headers.contains_key("tracestate"));
        }
        let long = "a".repeat(513);
        let headers =
            told(&[("traceparent", PARENT), ("tracestate", &long)], true, Believed::Trusted);
        assert!(!headers.contains_key("tracestate"));
    }
}
