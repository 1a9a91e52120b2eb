//! How a decision came about: which mappings were tried, and for each no, the first field that failed with both values.

use std::fmt;
use std::sync::Arc;

use super::compiled::Policy;
use super::many_to_one::ManyToOneMapping;
use super::rule::Mismatch;
use super::trust::{ChainResult, ChainVerdict};
use crate::identity::{Fingerprint, PeerCertificate};

/// The steps of a decision. They are spelled out only where somebody reads them.
#[derive(Clone, Debug, Default)]
pub struct Trace(Vec<(Option<Arc<Policy>>, Step)>);

/// One step, in few words.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A stage that needs no more than a sentence.
    Plain(&'static str, TraceOutcome, Option<Box<str>>),
    /// The chain was judged.
    Trust(Arc<ChainVerdict>),
    /// A certificate was looked up.
    OneToOne(Fingerprint, Option<Box<str>>, TraceOutcome),
    /// Mappings were compared up to this one, or all of them.
    ManyToOne(Arc<PeerCertificate>, Option<usize>, TraceOutcome),
}

/// How a step ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TraceOutcome {
    /// It decided for the client.
    Admitted,
    /// It decided against.
    Refused,
    /// It did not decide.
    Passed,
    /// A mapping that does not fit.
    NoMatch,
}

impl TraceOutcome {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Passed => "passed",
            Self::NoMatch => "noMatch",
        }
    }
}

/// One line of a trace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceLine {
    /// connection, trust, oneToOne, manyToOne, activeDirectory, admitAnyVerified, sslMapCert, authentication,
    /// authorization, forward.
    pub stage: &'static str,
    /// The policy object, where one is concerned.
    pub policy: Option<Arc<str>>,
    /// The mapping, where one is concerned.
    pub mapping: Option<Box<str>>,
    /// How it ended.
    pub outcome: TraceOutcome,
    /// The field that failed, such as `Issuer.O`.
    pub field: Option<String>,
    /// What the field had to be.
    pub expected: Option<String>,
    /// What it is in the certificate.
    pub actual: Option<String>,
    /// A few more words.
    pub note: Option<Box<str>>,
}

impl Trace {
    pub(super) fn add(&mut self, policy: Option<&Arc<Policy>>, step: Step) {
        self.0.push((policy.cloned(), step));
    }

    /// The lines, at most this many for each list of mappings; the last is always there.
    #[must_use]
    pub fn lines(&self, most: usize) -> Vec<TraceLine> {
        self.0.iter().flat_map(|(policy, step)| step_lines(policy.as_ref(), step, most)).collect()
    }
}

fn step_lines(policy: Option<&Arc<Policy>>, step: &Step, most: usize) -> Vec<TraceLine> {
    let line = |stage, outcome, note: Option<Box<str>>| TraceLine {
        stage,
        policy: policy.map(|policy| policy.name.clone()),
        mapping: None,
        outcome,
        field: None,
        expected: None,
        actual: None,
        note,
    };
    match step {
        Step::Plain(stage, outcome, note) => vec![line(stage, *outcome, note.clone())],
        Step::Trust(verdict) => {
            let (outcome, note) = trust(&verdict.result);
            vec![line("trust", outcome, Some(note))]
        }
        Step::OneToOne(fingerprint, mapping, outcome) => {
            let unknown = mapping.is_none();
            vec![TraceLine {
                mapping: mapping.clone(),
                field: unknown.then(|| "certificate".to_owned()),
                expected: unknown.then(|| "a mapped certificate".to_owned()),
                actual: unknown.then(|| format!("sha256 {}", fingerprint.abbreviated())),
                ..line("oneToOne", *outcome, None)
            }]
        }
        Step::ManyToOne(certificate, decided, outcome) => policy.map_or_else(Vec::new, |policy| {
            many_to_one(policy, certificate, *decided, *outcome, most)
        }),
    }
}

fn trust(result: &ChainResult) -> (TraceOutcome, Box<str>) {
    match result {
        ChainResult::Verified(_) => (TraceOutcome::Passed, "the certificate verifies".into()),
        ChainResult::Untrusted(reason) => (TraceOutcome::Refused, reason.clone()),
        ChainResult::Expired => {
            (TraceOutcome::Refused, "the certificate or its chain has expired".into())
        }
        ChainResult::NotYetValid => {
            (TraceOutcome::Refused, "the certificate or its chain is not yet valid".into())
        }
    }
}

fn many_to_one(
    policy: &Policy,
    certificate: &PeerCertificate,
    decided: Option<usize>,
    outcome: TraceOutcome,
    most: usize,
) -> Vec<TraceLine> {
    let mappings = policy.many_to_one.all();
    let tried = mappings.get(..decided.unwrap_or(mappings.len())).unwrap_or_default();
    let mut lines: Vec<TraceLine> =
        tried.iter().take(most).map(|mapping| no_match(mapping, certificate)).collect();
    if tried.len() > most {
        let note = format!("{} more mappings do not match", tried.len() - most);
        lines.push(TraceLine {
            mapping: None,
            note: Some(note.into()),
            ..plain("manyToOne", policy.name.clone())
        });
    }
    if let Some(mapping) = decided.and_then(|index| mappings.get(index)) {
        let mapping_name = Some(mapping.name.clone());
        lines.push(TraceLine {
            mapping: mapping_name,
            outcome,
            ..plain("manyToOne", mapping.policy.clone())
        });
    }
    lines
}

fn no_match(mapping: &ManyToOneMapping, certificate: &PeerCertificate) -> TraceLine {
    let (field, expected, actual) =
        mapping.mismatch(certificate).map_or((None, None, None), |mismatch| {
            let Mismatch { field, expected, actual } = mismatch;
            (
                Some(field),
                Some(expected),
                Some(if actual.is_empty() { "absent".to_owned() } else { actual.join(", ") }),
            )
        });
    let name = Some(mapping.name.clone());
    TraceLine {
        mapping: name,
        field,
        expected,
        actual,
        ..plain("manyToOne", mapping.policy.clone())
    }
}

fn plain(stage: &'static str, policy: Arc<str>) -> TraceLine {
    let outcome = TraceOutcome::NoMatch;
    let (field, expected, actual, note, mapping) = (None, None, None, None, None);
    TraceLine { stage, policy: Some(policy), mapping, outcome, field, expected, actual, note }
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stage)?;
        if let Some(mapping) = &self.mapping {
            write!(f, " {mapping}")?;
        }
        write!(f, ": {}", self.outcome.as_str())?;
        if let (Some(field), Some(expected), Some(actual)) =
            (&self.field, &self.expected, &self.actual)
        {
            write!(f, ": {field} is {actual:?}, not {expected:?}")?;
        }
        self.note.iter().try_for_each(|note| write!(f, ": {note}"))
    }
}
