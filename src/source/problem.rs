//! What is wrong with a manifest, and where.

use std::fmt;
use std::path::PathBuf;

use crate::compile::ObjectRef;

/// One thing that keeps something from being read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Below the directory.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Whom it concerns, where that much can be read.
    pub object: Option<ObjectRef>,
    /// The field's path; empty for the whole object.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        self.object.iter().try_for_each(|object| write!(f, "{object}: "))?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
