//! Where objects come from: a directory of manifests. (A cluster's watches will stand beside it.)
//!
//! Text becomes objects here and nowhere else, with file, line and field for everything that is wrong. What cannot be
//! read keeps its last good state; what never could is said to be unreadable, so that it refuses. The room feeds
//! `compile`'s World and knows nothing of requests.

mod directory;
mod document;
mod manifest;
mod problem;
mod schema;
mod watch;

pub use directory::{Directory, Scan};
pub use problem::Problem;
pub use watch::DirectoryWatch;
