//! Arguments about traces.

use clap::{Args, ValueEnum};
use http::Uri;
use http::uri::Scheme;

use crate::proxy::{Believed, TraceSettings};
use crate::telemetry::Collector;

/// How requests are traced.
#[derive(Args, Clone, Debug)]
pub(super) struct TraceArguments {
    /// Whose W3C trace context goes on here; other requests begin a trace of their own. Off, all of it is passed on as it
    /// is (with --otlp-endpoint: trusted)
    #[arg(long, value_name = "WHOSE", value_enum)]
    trace_context: Option<Whose>,
    /// Where spans go, as OTLP over HTTP in JSON, such as http://collector:4318/v1/traces
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    otlp_endpoint: Option<Uri>,
    /// Which share of the traces that begin here is kept, from 0 to 1
    #[arg(long, value_name = "RATIO", default_value_t = 1.0, value_parser = ratio)]
    trace_ratio: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Whose {
    Off,
    Trusted,
    Everyone,
}

impl TraceArguments {
    pub(super) fn settings(&self) -> Option<TraceSettings> {
        let usual = if self.otlp_endpoint.is_some() { Whose::Trusted } else { Whose::Off };
        let believed = match self.trace_context.unwrap_or(usual) {
            Whose::Off => return None,
            Whose::Trusted => Believed::Trusted,
            Whose::Everyone => Believed::Everyone,
        };
        Some(TraceSettings { believed, ratio: self.trace_ratio, spans: None })
    }

    pub(super) fn collector(&self, instance: Option<String>) -> Option<Collector> {
        let endpoint = self.otlp_endpoint.clone()?;
        Some(Collector {
            endpoint,
            instance: instance.unwrap_or_else(|| std::process::id().to_string()),
        })
    }
}

fn endpoint(text: &str) -> Result<Uri, String> {
    let uri = text.parse::<Uri>().ok();
    uri.filter(|uri| uri.scheme() == Some(&Scheme::HTTP) && uri.host().is_some())
        .ok_or_else(|| "write http://HOST:PORT/v1/traces (a collector that is not near takes TLS from one that is)".to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "write a number from 0 to 1".to_owned())
}
