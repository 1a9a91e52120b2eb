//! The account behind a mapping.

use std::sync::Arc;

use crate::auth::{Principal, Secret};

/// What a mapping stands for, as its Secret makes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Account {
    /// It can be used.
    Usable {
        /// Who it is.
        principal: Principal,
        /// Its password, where a Secret is named.
        password: Option<Secret<Arc<[u8]>>>,
    },
    /// It cannot (401.1), until what is missing appears.
    Unusable {
        /// What is wrong: object, field, reason. Never a password.
        problem: Box<str>,
    },
}
