//! Whatever the engine or the wire asks the outside for: whether a password belongs to a hash, where a name leads.
//!
//! Answers go back to `policy::decide`, which alone decides what they mean.

mod names;
mod passwords;

pub use names::{NameError, NameLookup};
pub use passwords::{Overloaded, PasswordLookup};
