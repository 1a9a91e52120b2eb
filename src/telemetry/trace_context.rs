//! W3C trace context: which trace a request belongs to, and which span of it is ours.

/// The span of one request, and the trace that it belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceContext {
    /// The trace.
    pub trace: u128,
    /// Our span of it.
    pub span: u64,
    /// The span of whoever asked us.
    pub parent: Option<u64>,
    /// Whether spans of this trace are kept.
    pub sampled: bool,
}

/// What `traceparent` says of whoever asked us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    sampled: bool,
}

impl TraceParent {
    /// Reads version 00, and of later ones what version 00 knows; none where it is not as W3C Trace Context 3.2 says.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let ended = parts.next().is_none();
        let version = hex(version, 2)?;
        if version == 0xFF || (version == 0 && !ended) {
            return None;
        }
        let trace = hex(trace, 32).filter(|trace| *trace != 0)?;
        let span = hex(span, 16).and_then(|span| u64::try_from(span).ok());
        let sampled = hex(flags, 2)? & 1 == 1;
        Some(Self { trace, span: span.filter(|span| *span != 0)?, sampled })
    }
}

/// Lower-case digits, so many of them.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = |octet: u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
    let well = text.len() == digits && text.bytes().all(lower);
    well.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl TraceContext {
    /// Our span in the trace of whoever asked us.
    #[must_use]
    pub fn within(parent: TraceParent, span: u64) -> Self {
        let TraceParent { trace, span: parent, sampled } = parent;
        Self { trace, span, parent: Some(parent), sampled }
    }

    /// A trace that begins here; of all such, this share is kept.
    #[must_use]
    pub fn begin(trace: u128, span: u64, ratio: f64) -> Self {
        // By the octets that are random in every trace (W3C Trace Context 2), so that others decide alike.
        let random = (trace & 0x00FF_FFFF_FFFF_FFFF) as f64;
        let sampled = random < ratio * (1_u64 << 56) as f64;
        Self { trace, span, parent: None, sampled }
    }

    /// What the backend is told.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", self.trace_id(), self.span_id())
    }

    /// In hex.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// In hex.
    #[must_use]
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parents_trace_goes_on_with_a_span_of_ours() {
        let context = TraceContext::within(TraceParent::parse(GOOD.as_bytes()).unwrap(), 0xAB);
        assert_eq!(
            context.traceparent(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-01"
        );
        assert_eq!(context.parent, Some(0x00f0_67aa_0ba9_02b7));
        let unsampled = GOOD.replace("-01", "-02");
        assert!(!TraceParent::parse(unsampled.as_bytes()).unwrap().sampled);
    }

    #[test]
    fn later_versions_are_read_as_far_as_this_one_knows_them() {
        let later = GOOD.replace("00-4b", "cc-4b");
        assert!(TraceParent::parse(later.as_bytes()).is_some());
        assert!(TraceParent::parse(format!("{later}-more").as_bytes()).is_some());
    }

    #[test]
    fn what_is_no_parent_is_none() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn so_many_traces_are_kept_as_were_asked_for() {
        let kept = |ratio: f64| {
            let step = (1_u128 << 56) / 1_000;
            (0..1_000).filter(|at| TraceContext::begin(at * step, 1, ratio).sampled).count()
        };
        assert_eq!((kept(0.0), kept(1.0)), (0, 1_000));
        assert!((99..=101).contains(&kept(0.1)), "{}", kept(0.1));
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(trace in 1..u128::MAX, span in 1..u64::MAX) {
            let context = TraceContext::begin(trace, span, 1.0);
            let parent = TraceParent::parse(context.traceparent().as_bytes()).unwrap();
            prop_assert_eq!((parent.trace, parent.span), (trace, span));
        }
    }
}
