//! Counters for Prometheus.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::process;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    code: u16,
    protocol: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DecisionLabels {
    policy: Arc<str>,
    mechanism: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HandshakeLabels {
    outcome: &'static str,
    version: &'static str,
    resumed: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct SeverityLabel {
    severity: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct SecretLabel {
    secret: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WriteLabels {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FetchLabels {
    outcome: &'static str,
}

/// Kinds that are watched.
const KINDS: &[&str] = &[
    "CertMappingPolicy",
    "ConfigMap",
    "EndpointSlice",
    "Ingress",
    "IngressClass",
    "ReferenceGrant",
    "RoutePolicy",
    "Secret",
    "Service",
];

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    /// Where the first kinds of answers are counted: found sooner than among all.
    usual: [OnceLock<(RequestLabels, Counter)>; 8],
    seconds: Histogram,
    decisions: Family<DecisionLabels, Counter>,
    handshakes: Family<HandshakeLabels, Counter>,
    connections: Gauge,
    refused: Family<ReasonLabel, Counter>,
    generation: Gauge,
    compiled: Gauge<f64, AtomicU64>,
    age: Gauge<f64, AtomicU64>,
    findings: Family<SeverityLabel, Gauge>,
    compilations: Histogram,
    expiries: Family<SecretLabel, Gauge>,
    staples: Family<SecretLabel, Gauge>,
    failing: Family<KindLabel, Gauge>,
    writes: Family<WriteLabels, Counter>,
    fetches: Family<FetchLabels, Counter>,
    leads: Gauge,
    dropped: Counter,
    spans: Family<OutcomeLabel, Counter>,
    directory: Family<OutcomeLabel, Counter>,
    /// Labels in use, to forget them with their policy.
    decided: Mutex<HashSet<DecisionLabels>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds =
            [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("certmap"),
            requests: Family::default(),
            usual: Default::default(),
            seconds: Histogram::new(seconds),
            decisions: Family::default(),
            handshakes: Family::default(),
            connections: Gauge::default(),
            refused: Family::default(),
            generation: Gauge::default(),
            compiled: Gauge::default(),
            age: Gauge::default(),
            findings: Family::default(),
            compilations: Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
            ]),
            expiries: Family::default(),
            staples: Family::default(),
            failing: Family::default(),
            writes: Family::default(),
            fetches: Family::default(),
            leads: Gauge::default(),
            dropped: Counter::default(),
            spans: Family::default(),
            directory: Family::default(),
            decided: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        r.register("requests", "Requests by status and protocol", self.requests.clone());
        r.register(
            "request_duration_seconds",
            "From request head to the end of the response",
            self.seconds.clone(),
        );
        r.register("decisions", "Decisions by policy, mechanism and code", self.decisions.clone());
        r.register("handshakes", "TLS handshakes by outcome", self.handshakes.clone());
        r.register("connections_open", "Connections that are open", self.connections.clone());
        r.register(
            "connections_refused",
            "Connections that were closed at once: too many in all, too many of one client, no PROXY header",
            self.refused.clone(),
        );
        r.register("snapshot_generation", "Counted up by each swap", self.generation.clone());
        r.register(
            "snapshot_timestamp_seconds",
            "When the snapshot was put in force",
            self.compiled.clone(),
        );
        r.register("snapshot_age_seconds", "How long it has been in force", self.age.clone());
        r.register("findings", "What there is to say about the objects", self.findings.clone());
        r.register(
            "compile_duration_seconds",
            "From objects to a snapshot",
            self.compilations.clone(),
        );
        r.register(
            "certificate_expiry_timestamp_seconds",
            "When the server certificate of a Secret expires",
            self.expiries.clone(),
        );
        r.register(
            "ocsp_staple_expiry_timestamp_seconds",
            "Until when the OCSP response of a Secret is stapled",
            self.staples.clone(),
        );
        r.register(
            "watch_failing",
            "1 while objects of a kind cannot be watched: what was known stays in force",
            self.failing.clone(),
        );
        r.register("status_writes", "Statuses and events, by outcome", self.writes.clone());
        r.register(
            "key_fetches",
            "Fetches of token issuers' keys, by outcome",
            self.fetches.clone(),
        );
        r.register("leads", "1 on the replica that writes status and events", self.leads.clone());
        r.register(
            "directory_questions",
            "Questions to directories: asked of a server, remembered, stale, failed",
            self.directory.clone(),
        );
        r.register(
            "spans",
            "Spans that the collector took, and that were dropped",
            self.spans.clone(),
        );
        r.register(
            "access_log_dropped_records",
            "Access records that were lost",
            self.dropped.clone(),
        );
    }

    /// A request came to its end.
    pub fn request(&self, status: u16, protocol: &'static str, duration: Duration) {
        let labels = RequestLabels { code: status, protocol };
        let counter = || self.requests.get_or_create_owned(&labels);
        let mut usual =
            self.usual.iter().map(|usual| usual.get_or_init(|| (labels.clone(), counter())));
        match usual.find(|(of, _)| *of == labels) {
            Some((_, counter)) => counter.inc(),
            None => counter().inc(),
        };
        self.seconds.observe(duration.as_secs_f64());
    }

    /// A request was decided upon: `code` is "admitted" or the code of the refusal.
    pub fn decision(&self, policy: &Arc<str>, mechanism: &'static str, code: &'static str) {
        let labels = DecisionLabels { policy: policy.clone(), mechanism, code };
        if let Some(counter) = self.decisions.get(&labels) {
            counter.inc();
            return;
        }
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.insert(labels.clone());
        drop(decided);
        self.decisions.get_or_create(&labels).inc();
    }

    /// A handshake ended: "ok", "failed" or "timeout".
    pub fn handshake(&self, outcome: &'static str, version: &'static str, resumed: bool) {
        let resumed = if resumed { "true" } else { "false" };
        self.handshakes.get_or_create(&HandshakeLabels { outcome, version, resumed }).inc();
    }

    /// A connection was opened; it counts until the guard goes.
    #[must_use]
    pub fn connection(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    /// A connection was closed at once: "total", "client" or "proxy_header".
    pub fn connection_refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Where questions to directories are counted that end in this way.
    #[must_use]
    pub fn directory_questions(&self, outcome: &'static str) -> Counter {
        self.directory.get_or_create(&OutcomeLabel { outcome }).clone()
    }

    /// Where the access log counts what it loses.
    #[must_use]
    pub fn dropped_records(&self) -> Counter {
        self.dropped.clone()
    }

    /// Where spans are counted that are "sent" or "dropped".
    #[must_use]
    pub fn spans(&self, outcome: &'static str) -> Counter {
        self.spans.get_or_create(&OutcomeLabel { outcome }).clone()
    }

    /// Forgets policies that are no more.
    pub fn keep_policies(&self, is_there: impl Fn(&str) -> bool) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.retain(|labels| {
            let kept = is_there(&labels.policy);
            if !kept {
                self.decisions.remove(labels);
            }
            kept
        });
    }

    /// A snapshot was put in force at this time (seconds since 1970), with so many errors and warnings.
    pub fn snapshot(&self, generation: u64, now: f64, errors: usize, warnings: usize) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.compiled.set(now);
        for (severity, count) in [("error", errors), ("warning", warnings)] {
            self.findings
                .get_or_create(&SeverityLabel { severity })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A world was compiled.
    pub fn compiled(&self, duration: Duration) {
        self.compilations.observe(duration.as_secs_f64());
    }

    /// When the server certificates in use expire (seconds since 1970), by Secret.
    pub fn certificates(&self, expiries: impl Iterator<Item = (String, i64)>) {
        set_all(&self.expiries, expiries);
    }

    /// Until when OCSP responses are stapled (seconds since 1970), by Secret.
    pub fn staples(&self, expiries: impl Iterator<Item = (String, i64)>) {
        set_all(&self.staples, expiries);
    }

    /// Which kinds cannot be watched.
    pub fn watches(&self, is_failing: impl Fn(&str) -> bool) {
        for kind in KINDS {
            self.failing.get_or_create(&KindLabel { kind }).set(i64::from(is_failing(kind)));
        }
    }

    /// A status or an event was written, or could not be.
    pub fn written(&self, kind: &'static str, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        self.writes.get_or_create(&WriteLabels { kind, outcome }).inc();
    }

    /// Keys of an issuer of tokens were fetched ("ok"), or could not be ("failed").
    pub fn keys_fetched(&self, outcome: &'static str) {
        self.fetches.get_or_create(&FetchLabels { outcome }).inc();
    }

    /// Whether this replica writes.
    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    /// Everything in OpenMetrics text.
    ///
    /// # Errors
    /// Formatting fails.
    pub fn text(&self, now: f64) -> Result<String, fmt::Error> {
        self.age.set((now - self.compiled.get()).max(0.0));
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        process::write(&mut text)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// One open connection.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is no longer among them is gone.
fn set_all(gauges: &Family<SecretLabel, Gauge>, values: impl Iterator<Item = (String, i64)>) {
    gauges.clear();
    for (secret, value) in values {
        gauges.get_or_create(&SecretLabel { secret }).set(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_is_counted_whichever_came_first() {
        let metrics = Metrics::default();
        for code in (200..220).chain(200..220) {
            metrics.request(code, "HTTP/1.1", Duration::ZERO);
        }
        metrics.request(200, "HTTP/2.0", Duration::ZERO);
        let text = metrics.text(0.0).unwrap();
        for code in 200..220 {
            let line = format!("requests_total{{code=\"{code}\",protocol=\"HTTP/1.1\"}} 2\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.contains("requests_total{code=\"200\",protocol=\"HTTP/2.0\"} 1\n"), "{text}");
    }
}
