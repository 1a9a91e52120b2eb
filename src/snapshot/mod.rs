//! What control and data plane share: immutable once made.

mod backend;

pub use backend::Backend;
