//! Where objects come from: a cluster's watches, or a directory of manifests.
//!
//! Text becomes objects here and nowhere else, with file, line and field for everything that is wrong. What cannot be
//! read keeps its last good state; what never could is said to be unreadable, so that it refuses. The room feeds
//! `compile`'s World and knows nothing of requests.

mod cluster;
mod directory;
mod document;
mod lines;
mod locator;
mod manifest;
mod problem;
mod reading;
mod schema;
mod watch;

pub use cluster::{Scope, Update, read_cluster, watch_cluster};
pub use directory::{Directory, Scan};
pub use locator::Locator;
pub use problem::Problem;
pub use watch::DirectoryWatch;
