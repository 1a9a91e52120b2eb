//! What people write: the resources `CertMappingPolicy` and `RoutePolicy` of group `certmap.dev`, as serde types, JSON
//! schema and CEL.
//!
//! This room holds words, not behaviour: nothing here decides, compiles or reads anything. The words are IIS's where IIS
//! has one (`sslFlags`, `oneToOne`, `permissionMode`, `certificateSubField`, …) and Kubernetes' elsewhere
//! (`targetRefs`, `conditions`). Each rule that a value alone can break stands here as a schema bound or a CEL rule whose
//! message says what to write instead; what needs other objects is found in `compile`.

mod active_directory;
mod authentication;
mod authorization;
mod bearer;
mod crd;
mod external;
mod forward;
mod mapping;
mod policy;
mod reference;
mod reference_grant;
mod route_backend;
mod route_edits;
mod route_policy;
mod status;

pub use active_directory::{ActiveDirectory, DirectoryBind, DirectoryCache, WeakMapping};
pub use authentication::{Anonymous, AuthenticationModule, Basic, CredentialsRef, Reserved};
pub use authorization::{Authorization, People};
pub use bearer::{Bearer, CertificateBound, KeySetRef, KeySetSource, TokenAlgorithm};
pub use crd::{CrdKind, crd_yaml, crds_yaml, schema};
pub use external::{External, OnRefusal, ServiceRef};
pub use forward::{CertificateFormat, Domain, Forward, KeySecretRef, SignedIdentity, UserFormat};
pub use mapping::{
    Account, CertificateField, CertificateRef, ManyToOne, ManyToOneMapping, MatchRule, OneToOne,
    OneToOneMapping, PermissionMode, SecretRef,
};
pub use policy::{
    AdmitAnyVerified, CertMappingPolicy, CertMappingPolicySpec, SslFlag, TargetRef, Trust, UserFrom,
};
pub use reference::{CaCertificateRef, DURATION, LONG_DURATION, ObjectKind, QUANTITY};
pub use reference_grant::{GrantFrom, GrantTo, ReferenceGrant, ReferenceGrantSpec};
pub use route_backend::{
    BackendSubjectAltName, BackendTls, CookieAffinity, Ejection, LoadBalancing, Retry,
    SubjectAltNameType,
};
pub use route_edits::{
    Coding, Compression, Cors, ErrorPage, HeaderField, HeaderNames, PageRef, PathRewrite,
    RequestHeaders, ResponseHeaders, Rewrite, TAKEN_IN_REQUESTS, TAKEN_IN_RESPONSES,
};
pub use route_policy::{
    ClientTls, Limits, RateKey, RateLimit, RoutePolicy, RoutePolicySpec, Timeouts, TlsVersion,
};
pub use status::{AncestorRef, CertMappingPolicyStatus, PolicyAncestorStatus, RoutePolicyStatus};

/// The API group of certmap's own kinds.
pub const GROUP: &str = "certmap.dev";
/// `spec.controller` of the IngressClasses that certmap serves.
pub const CONTROLLER_NAME: &str = "certmap.dev/ingress-controller";
/// The usual name of that IngressClass.
pub const CLASS_NAME: &str = "certmap";
/// In whose name identities are signed, if nothing else is said.
pub const IDENTITY_ISSUER: &str = "certmap";
/// Where a host serves the public keys of its policies.
pub const KEYS_PATH: &str = "/.well-known/certmap/jwks.json";
/// An Ingress with this annotation set to "true" is refused (503) while no accepted policy targets it.
pub const POLICY_REQUIRED_ANNOTATION: &str = "certmap.dev/policy-required";
/// On a Service: what its ports speak (HTTP, HTTPS, H2C, H2, GRPC, GRPCS), whatever their `appProtocol` says.
pub const BACKEND_PROTOCOL_ANNOTATION: &str = "certmap.dev/backend-protocol";
/// On an EndpointSlice: the weight of each of its endpoints, 0 to 1000; without it 1.
pub const WEIGHT_ANNOTATION: &str = "certmap.dev/weight";
