//! Against a real cluster: certmap installed by Helm, pods as backends, real clients. Started by `tests/e2e/run`.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, measures time, and shows what it measured"
)]

mod client;
mod cluster;
mod conformance;
mod install;
mod lifecycle;
mod modules;
#[path = "../it/support/pki.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod pki;
mod rights;
mod route_policies;
mod samples;
mod signing;
mod site;
mod status;
mod story;
mod tickets;
#[path = "../it/support/tls.rs"]
#[expect(dead_code, reason = "the other tests use more of it")]
mod tls;
mod traffic;

/// What wants the cluster, or the machine, for itself.
mod alone {
    mod load;
    mod outage;
}

use std::time::{Duration, Instant};

/// Pods take their time to start, and nodes are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again; fails in the name of what does not come.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(started.elapsed() < PATIENCE, "{what} does not come: {why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
