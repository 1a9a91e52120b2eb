//! What is told to the program, and not by objects.

use std::sync::Arc;

use super::world::ObjectName;
use crate::snapshot::{ServerCertificate, TlsRules};

/// What does not come from objects.
#[derive(Clone, Debug)]
pub struct Options {
    /// The objects come from a directory: loopback endpoints are allowed, and Ingresses without a class are ours.
    pub directory: bool,
    /// `spec.controller` of the IngressClasses that are ours.
    pub controller_name: String,
    /// The class that is ours by its name, where IngressClasses cannot be read.
    pub class_name: String,
    /// Every Ingress needs a policy.
    pub policy_required: bool,
    /// Services of type ExternalName may be backends.
    pub external_names: bool,
    /// The zone that this replica stands in: endpoints that the cluster means for it go first.
    pub zone: Option<String>,
    /// In whose name identities are signed.
    pub identity_issuer: String,
    /// The route policy that says what others leave out, and all of it where no other targets an Ingress.
    pub default_route_policy: Option<ObjectName>,
    /// Shown to clients whose host has no certificate, if it can be read.
    pub default_certificate: Option<ObjectName>,
    /// The Secret with keys for session tickets; without one sessions are kept in memory.
    pub ticket_keys: Option<ObjectName>,
    /// What every handshake goes by.
    pub tls: TlsRules,
    /// Shown to clients where there is nothing better.
    pub fallback_certificate: Arc<ServerCertificate>,
}
