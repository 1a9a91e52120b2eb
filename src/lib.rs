//! certmap: client certificates become named accounts, on every request, in front of any backend.
//!
//! Two straight lines run through the rooms below; `docs/architecture.md` walks along both.
//!
//! ```text
//! kubectl apply   source ──▶ compile ──▶ snapshot::SnapshotStore          (an object becomes rules)
//!                                  └────▶ status                           (and is told what became of it)
//!                                             │
//! a request       proxy::listener ─▶ tls ─▶ http ─▶ authorize ─▶ policy::decide ─▶ headers ─▶ upstream ─▶ telemetry
//! ```
//!
//! A room may import only what stands left of it (held by `tests/it/house.rs`):
//!
//! ```text
//! spine   identity ← auth ← policy ← snapshot ← compile ← source, status ← app ← cli
//! wire    identity, auth, policy, snapshot ← lookup, telemetry ← proxy ← app
//! words   api ← policy, snapshot, compile, source, proxy, cli        dev ← cli
//! ```

pub mod api;
pub mod app;
pub mod auth;
pub mod cli;
pub mod compile;
pub mod dev;
pub mod identity;
pub mod lookup;
pub mod policy;
pub mod proxy;
pub mod snapshot;
pub mod source;
pub mod status;
pub mod telemetry;
