//! Arguments about clusters, and about what objects do not say.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::api::{CLASS_NAME, CONTROLLER_NAME, IDENTITY_ISSUER};
use crate::app::{Access, ClusterSettings, Rules};
use crate::compile::ObjectName;
use crate::source::Scope;
use crate::status::Publish;

/// Which cluster, and what of it.
#[derive(Args, Clone, Debug)]
pub(super) struct AccessArguments {
    /// The kubeconfig file; without it what kubectl would use, or in a pod its service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Look at these namespaces only (comma-separated; needs no more than Roles there)
    #[arg(
        short = 'n',
        long,
        value_name = "NAMESPACES",
        value_delimiter = ',',
        alias = "namespace"
    )]
    watch_namespaces: Vec<String>,
}

impl AccessArguments {
    pub(super) fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }

    pub(super) fn scope(&self, rules: &Rules) -> Scope {
        let mut namespaces = self.watch_namespaces.clone();
        namespaces.retain(|namespace| !namespace.is_empty());
        namespaces.sort_unstable();
        namespaces.dedup();
        let secrets = rules.default_certificate.iter().chain(&rules.ticket_keys).cloned();
        Scope { namespaces, secrets: secrets.collect() }
    }
}

/// What objects do not say.
#[derive(Args, Clone, Debug)]
pub(super) struct RuleArguments {
    /// Refuse (503.90) every Ingress that no policy targets
    #[arg(long)]
    policy_required: bool,
    /// Let Services of type ExternalName be backends: whoever may write one reaches what this program reaches
    #[arg(long)]
    allow_external_names: bool,
    /// The zone this replica stands in: endpoints whose EndpointSlice hints name it go first
    #[arg(long, value_name = "ZONE", env = "CERTMAP_ZONE")]
    zone: Option<String>,
    /// spec.controller of the IngressClasses to serve
    #[arg(long, value_name = "NAME", default_value = CONTROLLER_NAME)]
    controller_name: String,
    /// The class that is served by its name, where IngressClasses cannot be read
    #[arg(long, value_name = "NAME", default_value = CLASS_NAME)]
    ingress_class: String,
    /// The TLS Secret whose certificate is shown for hosts without one
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_name)]
    default_tls_secret: Option<ObjectName>,
    /// The RoutePolicy that says what others leave out, and all of it where none targets an Ingress
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_name)]
    default_route_policy: Option<ObjectName>,
    /// In whose name identities are signed (iss of forward.signedIdentity)
    #[arg(long, value_name = "NAME", default_value = IDENTITY_ISSUER)]
    identity_issuer: String,
}

impl RuleArguments {
    pub(super) fn rules(&self) -> Rules {
        Rules {
            policy_required: self.policy_required,
            external_names: self.allow_external_names,
            zone: self.zone.clone().filter(|zone| !zone.is_empty()),
            controller_name: self.controller_name.clone(),
            class_name: self.ingress_class.clone(),
            default_certificate: self.default_tls_secret.clone(),
            default_route_policy: self.default_route_policy.clone(),
            identity_issuer: self.identity_issuer.clone(),
            ..Rules::default()
        }
    }
}

/// What is said back to the cluster.
#[derive(Args, Clone, Debug)]
pub(super) struct StatusArguments {
    /// Write neither status nor events
    #[arg(long)]
    no_status: bool,
    /// The Service whose addresses are written into the status of Ingresses
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object_name)]
    publish_service: Option<ObjectName>,
    /// Write this address or name into the status of Ingresses, instead (may be given several times)
    #[arg(long, value_name = "ADDRESS")]
    publish_address: Vec<String>,
    /// Write the addresses of the nodes on which this installation's pods run, instead
    #[arg(long)]
    publish_node_addresses: bool,
    /// The Lease that says which replica writes
    #[arg(long, value_name = "NAME", default_value = "certmap")]
    lease_name: String,
    /// Create and rotate the Secrets that forward.signedIdentity.keySecretRef names, where nobody else made them
    #[arg(long, conflicts_with = "no_status")]
    manage_signing_keys: bool,
    /// After how many hours signing keys move up by one
    #[arg(long, value_name = "HOURS", default_value_t = 720, value_parser = clap::value_parser!(u32).range(1..=87_600))]
    signing_key_rotation: u32,
    /// After how many hours the keys of --ticket-key-secret move up by one, where nobody else made that Secret; 0: keys are
    /// made and moved up by hand
    #[arg(long, value_name = "HOURS", default_value_t = 12.0, value_parser = hours_or_none)]
    ticket_key_rotation: f64,
    /// This replica's name
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod_name: Option<String>,
    /// The namespace of this installation, where its Lease is
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "default")]
    pod_namespace: String,
}

impl StatusArguments {
    pub(super) fn settings(
        &self,
        access: &AccessArguments,
        rules: &Rules,
    ) -> anyhow::Result<ClusterSettings> {
        let pod = self.pod_name.as_ref().map(|name| ObjectName::new(&self.pod_namespace, name));
        if self.publish_node_addresses && pod.is_none() {
            anyhow::bail!("--publish-node-addresses needs --pod-name (or POD_NAME)");
        }
        // In a container the process id is 1 everywhere.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let anyone = || format!("{}-{}", host.trim(), std::process::id());
        let identity = self.pod_name.clone().unwrap_or_else(anyone);
        Ok(ClusterSettings {
            access: access.access(),
            scope: access.scope(rules),
            write_status: !self.no_status,
            publish: Publish {
                service: self.publish_service.clone(),
                addresses: self.publish_address.clone(),
                nodes_of: pod.filter(|_| self.publish_node_addresses),
            },
            signing_keys: self
                .manage_signing_keys
                .then(|| Duration::from_secs(u64::from(self.signing_key_rotation) * 3600)),
            ticket_keys: rules
                .ticket_keys
                .clone()
                .filter(|_| self.ticket_key_rotation > 0.0)
                .map(|name| (name, Duration::from_secs_f64(self.ticket_key_rotation * 3600.0))),
            lease: (self.pod_namespace.clone(), self.lease_name.clone()),
            identity,
        })
    }
}

fn hours_or_none(text: &str) -> Result<f64, String> {
    let hours = text.parse::<f64>().ok();
    let hours = hours.filter(|hours| *hours == 0.0 || (0.001..=87_600.0).contains(hours));
    hours.ok_or_else(|| "write hours, from 0.001 to 87600, or 0".to_owned())
}

pub(super) fn object_name(text: &str) -> anyhow::Result<ObjectName> {
    let (namespace, name) = text.split_once('/').context("write NAMESPACE/NAME")?;
    anyhow::ensure!(!namespace.is_empty() && !name.is_empty(), "write NAMESPACE/NAME");
    Ok(ObjectName::new(namespace, name))
}
