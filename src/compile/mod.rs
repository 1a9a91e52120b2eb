//! World of objects → Snapshot and findings: a pure function.

mod finding;
mod world;

pub use finding::{Finding, Severity};
pub use world::{Object, ObjectKind, ObjectName, ObjectRef, PolicyObject, World};
