//! From a world to what is in force: compile, swap, say.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;

use crate::compile::{
    Finding, ObjectName, Options, PolicySummary, Reuse, Severity, World, compile,
};
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::telemetry::Metrics;

/// What stays from one compilation to the next.
pub(super) struct Control {
    pub(super) options: Options,
    reuse: Reuse,
    /// What was said already is not said again.
    said: HashSet<String>,
    metrics: Arc<Metrics>,
}

/// What became of a world, besides its snapshot.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) findings: Vec<Finding>,
    pub(super) summaries: HashMap<ObjectName, PolicySummary>,
    pub(super) ours: HashSet<ObjectName>,
}

impl Control {
    pub(super) fn new(options: Options, metrics: Arc<Metrics>) -> Self {
        Self { options, reuse: Reuse::default(), said: HashSet::new(), metrics }
    }

    /// Compiles, and puts the snapshot in force: in `store`, or in a new one. `problems` are about things that did not even
    /// get into the world.
    ///
    /// # Errors
    /// The TLS provider is unusable; what is in force stays so.
    pub(super) fn put_in_force(
        &mut self,
        world: &World,
        further: Vec<Finding>,
        problems: &[String],
        store: &mut Option<Arc<SnapshotStore>>,
        describe: impl Fn(&Finding) -> String,
    ) -> anyhow::Result<Outcome> {
        #[expect(clippy::disallowed_methods, reason = "how long compiling takes is measured here")]
        let started = std::time::Instant::now();
        let compiled = compile(world, &self.reuse, &self.options)?;
        self.reuse = compiled.reuse;
        let duration = started.elapsed();
        let generation = compiled.snapshot.generation;
        swap(store, compiled.snapshot);
        let mut findings = compiled.findings;
        findings.extend(further);
        findings.sort();
        self.say(problems, &findings, describe);
        self.count(world, &findings, problems.len(), generation, duration);
        let named = |ends: Vec<(ObjectName, i64)>| {
            ends.into_iter().map(|(name, at)| (name.to_string(), at))
        };
        self.metrics.certificates(named(compiled.expiries.certificates));
        self.metrics.staples(named(compiled.expiries.staples));
        Ok(Outcome { findings, summaries: compiled.summaries, ours: compiled.ours })
    }

    fn count(
        &self,
        world: &World,
        findings: &[Finding],
        problems: usize,
        generation: u64,
        duration: Duration,
    ) {
        let count =
            |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings) = (problems + count(Severity::Error), count(Severity::Warning));
        let now = UnixTime::now().as_secs() as f64;
        self.metrics.snapshot(generation, now, errors, warnings);
        self.metrics.compiled(duration);
        let policies: HashSet<String> = world.policies.keys().map(ToString::to_string).collect();
        self.metrics.keep_policies(|name| policies.contains(name));
        tracing::info!(generation, errors, warnings, ?duration, "a new snapshot is in force");
    }

    fn say(
        &mut self,
        problems: &[String],
        findings: &[Finding],
        describe: impl Fn(&Finding) -> String,
    ) {
        let mut now = HashSet::new();
        for problem in problems {
            if now.insert(problem.clone()) && !self.said.contains(problem) {
                log(Severity::Error, problem);
            }
        }
        for finding in findings {
            let key = format!("{finding:?}");
            if !self.said.contains(&key) {
                log(finding.severity, &describe(finding));
            }
            now.insert(key);
        }
        self.said = now;
    }
}

fn log(severity: Severity, text: &str) {
    match severity {
        Severity::Error => tracing::error!("{text}"),
        Severity::Warning => tracing::warn!("{text}"),
    }
}

fn swap(store: &mut Option<Arc<SnapshotStore>>, snapshot: Snapshot) {
    match store {
        Some(store) => store.swap(snapshot),
        None => *store = Some(Arc::new(SnapshotStore::new(snapshot))),
    }
}

/// One line about a finding.
pub(super) fn describe(finding: &Finding) -> String {
    let Finding { object, field, reason, message, .. } = finding;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    format!("{object}: {field}{message} ({reason})")
}
