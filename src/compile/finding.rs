//! What compiling has to say about an object.

use super::world::{ObjectKind, ObjectName, ObjectRef};

/// How much it matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Something refuses, or is not in force.
    Error,
    /// Everything works, perhaps not as meant.
    Warning,
}

/// One thing to say about one object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Whom it concerns.
    pub object: ObjectRef,
    /// Of a policy: the Ingress at which it matters, if it does not at all.
    pub target: Option<ObjectName>,
    /// The path of the field, such as `spec.oneToOne.mappings[3].account.secretRef`; empty for the whole object.
    pub field: String,
    /// A stable CamelCase word, as Kubernetes conditions have it.
    pub reason: &'static str,
    /// One sentence: what is wrong and what to do.
    pub message: String,
}

impl Finding {
    /// Of a policy, at all its targets.
    pub(super) fn of_policy(
        policy: &ObjectName,
        severity: Severity,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            object: ObjectRef { kind: ObjectKind::CertMappingPolicy, name: policy.clone() },
            target: None,
            field: field.into(),
            reason,
            message: message.into(),
        }
    }
    /// Of a route policy, at all its targets.
    pub(super) fn of_route_policy(
        policy: &ObjectName,
        severity: Severity,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let object = ObjectRef { kind: ObjectKind::RoutePolicy, name: policy.clone() };
        Self { object, ..Self::of_policy(policy, severity, field, reason, message) }
    }
}
