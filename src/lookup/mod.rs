//! Whatever the engine asks the outside for: today, whether a password belongs to a hash.
//!
//! Answers go back to `policy::decide`, which alone decides what they mean.

mod passwords;

pub use passwords::{Overloaded, PasswordLookup};
