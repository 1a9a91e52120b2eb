//! Spans on their way to a collector. Requests hand them over and never wait; what there is no room for, and what the
//! collector does not take, is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::otlp;
use super::record::AccessRecord;
use super::trace_context::TraceContext;

/// Spans that may wait.
const MOST_WAITING: usize = 4096;
/// Spans of one request to the collector.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const PAUSE: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(10);

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Such as `http://collector:4318/v1/traces`.
    pub endpoint: Uri,
    /// What this replica is called.
    pub instance: String,
}

/// The way to the collector; clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Spans(Arc<Way>);

#[derive(Debug)]
struct Way {
    spans: mpsc::Sender<Value>,
    dropped: Counter,
    end: CancellationToken,
    ended: CancellationToken,
}

impl Spans {
    /// Starts to send.
    #[must_use]
    pub fn start(collector: Collector, sent: Counter, dropped: Counter) -> Self {
        let (spans, waiting) = mpsc::channel(MOST_WAITING);
        let (end, ended) = (CancellationToken::new(), CancellationToken::new());
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(LIMIT));
        let client =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let sender = Sender { collector, client, sent, dropped: dropped.clone() };
        let done = ended.clone().drop_guard();
        let told = end.clone();
        tokio::spawn(async move {
            sender.run(waiting, told).await;
            drop(done);
        });
        Self(Arc::new(Way { spans, dropped, end, ended }))
    }

    /// Hands the span of a request over. Never waits.
    pub fn finish(&self, context: &TraceContext, record: &AccessRecord) {
        // What there is no room for is not even made.
        match self.0.spans.try_reserve() {
            Ok(room) => room.send(otlp::span(context, record)),
            Err(_) => drop(self.0.dropped.inc()),
        }
    }

    /// Sends what waits, but not for longer than this.
    pub async fn flush(&self, limit: Duration) {
        self.0.end.cancel();
        drop(tokio::time::timeout(limit, self.0.ended.cancelled()).await);
    }
}

struct Sender {
    collector: Collector,
    client: Client<HttpConnector, Full<Bytes>>,
    sent: Counter,
    dropped: Counter,
}

impl Sender {
    async fn run(&self, mut waiting: mpsc::Receiver<Value>, end: CancellationToken) {
        let mut spans = Vec::new();
        loop {
            let first = tokio::select! {
                first = waiting.recv() => first,
                () = end.cancelled() => waiting.try_recv().ok(),
            };
            let Some(first) = first else { return };
            spans.push(first);
            tokio::select! {
                () = fill(&mut waiting, &mut spans) => {}
                () = tokio::time::sleep(PAUSE) => {}
                () = end.cancelled() => {
                    while spans.len() < BATCH && let Ok(span) = waiting.try_recv() {
                        spans.push(span);
                    }
                }
            }
            self.send(&spans).await;
            spans.clear();
        }
    }

    async fn send(&self, spans: &[Value]) {
        let count = spans.len() as u64;
        let body = Bytes::from(otlp::batch(&self.collector.instance, spans));
        match self.post(body).await {
            Ok(()) => drop(self.sent.inc_by(count)),
            Err(problem) => {
                self.dropped.inc_by(count);
                tracing::debug!(count, problem, "spans are dropped");
            }
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), String> {
        let request = Request::post(self.collector.endpoint.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(LIMIT, self.client.request(request)).await;
        let answer = answer.map_err(|_| "no answer in time".to_owned())?;
        match answer.map_err(|error| error.to_string())?.status() {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
            status => Err(format!("the collector says {status}")),
        }
    }
}

/// Waits until there is a whole batch.
async fn fill(waiting: &mut mpsc::Receiver<Value>, spans: &mut Vec<Value>) {
    while spans.len() < BATCH {
        match waiting.recv().await {
            Some(span) => spans.push(span),
            None => return,
        }
    }
}
