//! The whole program from outside, with real clients and real sockets; and the rules of the house.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and measures time"
)]

mod attacks;
mod authorization;
mod backends;
mod browser;
mod clients;
mod commands;
mod corpus;
mod crds;
mod edge;
mod edge_tls;
mod endpoints;
mod fields;
mod forward;
mod fuzz;
mod handover;
mod house;
mod independence;
mod modules;
mod reload;
mod route_policies;
mod route_tls;
mod serving;
mod signing_keys;
mod story;
mod support;
mod traces;
mod traffic;
