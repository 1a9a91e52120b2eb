//! What a RoutePolicy does to a request and its answer, apart from who is calling and which backend is asked.
//!
//! `front` is what happens on the way in: before authorization the target's length, preflights, the redirect to https and
//! the rate of an address; after it the rate of an account, the body's length, fields, path. `bounds` holds both bodies to
//! time and length. `returning` is the way back: pages, cross-origin fields, fields, compression. A route without a
//! RoutePolicy meets none of it.

mod accept_encoding;
mod bounds;
mod compression;
mod cors;
mod edits;
mod error_pages;
mod front;
mod rate_limit;
mod returning;
mod rewrite;
mod vary;

pub(super) use bounds::{Bound, Bounds, Cut, late};
pub(super) use front::{admitted, arrived};
pub(super) use rate_limit::RateLimits;
pub(super) use returning::Returning;
