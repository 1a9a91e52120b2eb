//! What questions to the outside are answered by.

use std::sync::Arc;

use anyhow::Context;

use crate::auth::{Answer, Question};
use crate::lookup::{
    CountFetch, DirectoryCounts, DirectoryLookup, ExternalLookup, KeyLookup, Lookups, NameLookup,
    PasswordLookup,
};
use crate::snapshot::Snapshot;
use crate::telemetry::Metrics;

pub(super) fn lookups(metrics: &Arc<Metrics>) -> anyhow::Result<Lookups> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let no_random = "the system has no random numbers";
    let count = |outcome| metrics.directory_questions(outcome);
    let counts = DirectoryCounts {
        asked: count("asked"),
        remembered: count("remembered"),
        stale: count("stale"),
        failed: count("failed"),
    };
    let names = Arc::new(NameLookup::new());
    let counted = metrics.clone();
    let fetched: CountFetch = Arc::new(move |outcome| counted.keys_fetched(outcome));
    Ok(Lookups {
        passwords: PasswordLookup::new(cores).context(no_random)?,
        directories: DirectoryLookup::new(names.clone(), counts).context(no_random)?,
        keys: Arc::new(KeyLookup::new(names.clone(), fetched)),
        external: ExternalLookup::new(names),
    })
}

/// Asks the outside once, for a command that shows what it says.
///
/// # Errors
/// It does not say.
pub fn ask(question: &Question, snapshot: &Snapshot) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lookups = lookups(&Arc::new(Metrics::default()))?;
    Ok(runtime.block_on(lookups.answer(question, snapshot))?)
}
