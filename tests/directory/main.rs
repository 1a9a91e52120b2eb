//! The whole program against a real Active Directory: see `run` beside this file.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and measures time"
)]

mod alone;
mod certificates;
mod domain;
mod logon;
mod mapping;
mod site;

#[expect(dead_code, clippy::needless_pass_by_value, reason = "the other tests use the rest of it")]
#[path = "../it/support/mod.rs"]
mod support;
