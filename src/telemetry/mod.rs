//! What is seen from outside: the access record, metrics, health.
//!
//! Everything that a client wrote is escaped here, in one place for each format. Nothing here waits for a disk or a
//! scraper on behalf of a request, and no metric has a user, a subject, a host or a path as a label.

mod access_log;
mod admin;
mod json;
mod metrics;
mod otlp;
mod process;
mod record;
mod rotation;
mod spans;
mod trace_context;
mod w3c;

pub use access_log::{AccessLog, Destination, Format};
pub use admin::{Admin, Shown, serve};
pub use metrics::{Metrics, OpenConnection};
pub use record::{AccessRecord, Event};
pub use spans::{Collector, Spans};
pub use trace_context::{TraceContext, TraceParent};
