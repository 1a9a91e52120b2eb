//! The kinds that are watched, and what of each.

use kube::core::{ApiResource, GroupVersionKind};

use crate::compile::ObjectKind;

/// A kind, as the API server knows it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) kind: ObjectKind,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    /// Only objects that others refer to are held: these are listed once the others are known.
    pub(super) referenced_only: bool,
    /// Without it, everything goes on as if there were none.
    pub(super) optional: bool,
    /// What of it, as the API server filters it.
    pub(super) fields: Option<&'static str>,
}

/// Large Secrets of other programs, and credentials that are nobody's business here.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg,type!=kubernetes.io/ssh-auth,type!=bootstrap.kubernetes.io/token";

pub(super) const ALL: &[Watched] = &[
    Watched::new(
        ObjectKind::CertMappingPolicy,
        crate::api::GROUP,
        "v1alpha1",
        "certmappingpolicies",
    ),
    Watched::new(ObjectKind::RoutePolicy, crate::api::GROUP, "v1alpha1", "routepolicies"),
    Watched::new(ObjectKind::Ingress, "networking.k8s.io", "v1", "ingresses"),
    Watched::new(ObjectKind::IngressClass, "networking.k8s.io", "v1", "ingressclasses"),
    Watched::new(ObjectKind::Service, "", "v1", "services"),
    Watched::new(ObjectKind::EndpointSlice, "discovery.k8s.io", "v1", "endpointslices"),
    Watched {
        optional: true,
        ..Watched::new(
            ObjectKind::ReferenceGrant,
            "gateway.networking.k8s.io",
            "v1beta1",
            "referencegrants",
        )
    },
    Watched {
        referenced_only: true,
        ..Watched::new(ObjectKind::ConfigMap, "", "v1", "configmaps")
    },
    Watched {
        referenced_only: true,
        fields: Some(SECRETS),
        ..Watched::new(ObjectKind::Secret, "", "v1", "secrets")
    },
];

impl Watched {
    const fn new(
        kind: ObjectKind,
        group: &'static str,
        version: &'static str,
        plural: &'static str,
    ) -> Self {
        let (referenced_only, optional, fields) = (false, false, None);
        Self { kind, group, version, plural, referenced_only, optional, fields }
    }

    pub(super) fn of(kind: ObjectKind) -> Option<&'static Self> {
        ALL.iter().find(|watched| watched.kind == kind)
    }

    pub(super) fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, &self.kind.to_string());
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// With its group, as RBAC has it.
    pub(super) fn plural(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}
