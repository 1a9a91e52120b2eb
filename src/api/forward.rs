//! How the backend learns who is calling.
#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, its `pub` included, into a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is written into the request for the backend. Whatever a client sends under these names is removed, on every
/// route.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(self.basicCredentials && self.passAuthorization)")
        .message("basicCredentials and passAuthorization both fill Authorization: write one of them"),
    validation = Rule::new("!has(self.userHeader) || !has(self.groupsHeader) || self.userHeader.lowerAscii() != self.groupsHeader.lowerAscii()")
        .message("userHeader and groupsHeader are the same header: write two, for example X-Remote-User and X-Remote-Groups"),
    validation = Rule::new("!has(self.signedIdentity) || !((has(self.userHeader) && self.userHeader.lowerAscii() == self.signedIdentity.header.lowerAscii()) || (has(self.groupsHeader) && self.groupsHeader.lowerAscii() == self.signedIdentity.header.lowerAscii()))")
        .message("signedIdentity.header is the userHeader or the groupsHeader: write another, for example X-Certmap-Identity")
)]
pub struct Forward {
    /// The header that carries the account's name, for example X-Remote-User.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))]
    #[x_kube(
        validation = Rule::new(FREE_NAME).message("userHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Remote-User"),
        validation = Rule::new(FREE_FAMILY).message("userHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Remote-User")
    )]
    pub user_header: Option<String>,
    /// How the account's name is written, in userHeader and in the signed identity. A form that the account does not
    /// have is refused (502).
    #[serde(default)]
    pub user_format: UserFormat,
    /// The domain of accounts that are written without one, and the two names of that domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// The header that carries the account's groups, for example X-Remote-Groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))]
    #[x_kube(
        validation = Rule::new(FREE_NAME).message("groupsHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Remote-Groups"),
        validation = Rule::new(FREE_FAMILY).message("groupsHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Remote-Groups")
    )]
    pub groups_header: Option<String>,
    /// What stands between two groups: one punctuation character. A group that holds it is refused (502).
    #[serde(default = "comma")]
    #[schemars(length(min = 1, max = 1), regex(pattern = r"^[!-/:-@\[-`{-~]$"))]
    pub groups_separator: String,
    /// Send Authorization: Basic with the account's user name and password.
    #[serde(default)]
    pub basic_credentials: bool,
    /// Leave the client's own Authorization in the request; otherwise it is removed.
    #[serde(default)]
    pub pass_authorization: bool,
    /// The verified certificate, in these forms.
    #[serde(default)]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "set"))]
    pub client_certificate: Vec<CertificateFormat>,
    /// Who is calling, as a short-lived token that the backend can verify (JWT, ES256).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_identity: Option<SignedIdentity>,
}

impl Default for Forward {
    fn default() -> Self {
        Self {
            user_header: None,
            user_format: UserFormat::AsWritten,
            domain: None,
            groups_header: None,
            groups_separator: comma(),
            basic_credentials: false,
            pass_authorization: false,
            client_certificate: Vec::new(),
            signed_identity: None,
        }
    }
}

/// Which names are free for what a policy tells.
pub(super) const FREE_NAME: &str = "!(self.lowerAscii() in ['accept','accept-charset','accept-encoding','accept-language','authorization','cache-control','client-cert','client-cert-chain','connection','content-encoding','content-language','content-length','content-location','content-range','content-type','cookie','date','expect','forwarded','from','host','http2-settings','keep-alive','max-forwards','origin','pragma','proxy-authenticate','proxy-authorization','proxy-connection','range','referer','set-cookie','te','trailer','transfer-encoding','upgrade','user-agent','via','x-arr-clientcert','x-forwarded-client-cert','x-real-ip','x-request-id'])";
pub(super) const FREE_FAMILY: &str = "!self.lowerAscii().startsWith('if-') && !self.lowerAscii().startsWith('sec-') && !self.lowerAscii().startsWith('x-forwarded-for') && !self.lowerAscii().startsWith('x-forwarded-proto') && !self.lowerAscii().startsWith('x-forwarded-host') && !self.lowerAscii().startsWith('x-forwarded-port') && !self.lowerAscii().startsWith('x-forwarded-tls-client-cert') && !self.lowerAscii().startsWith('ssl-client-')";

/// How a name is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum UserFormat {
    /// As the mapping, the Secret, the client or the directory writes it.
    #[default]
    AsWritten,
    /// `CORP\alice`.
    DownLevelLogonName,
    /// `alice@corp.example`.
    UserPrincipalName,
    /// `alice`.
    AccountName,
}

/// One domain by both of its names.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Domain {
    /// The name before a backslash, such as CORP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r#"^[^\\/:*?"<>|@\s]+$"#))]
    pub netbios: Option<String>,
    /// The name after an @, such as corp.example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$")
    )]
    pub dns: Option<String>,
}

/// A token that says who is calling, signed by certmap.
#[derive(KubeSchema, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignedIdentity {
    /// The header that carries it.
    #[serde(default = "identity_header")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))]
    #[x_kube(
        validation = Rule::new(FREE_NAME).message("signedIdentity.header cannot be a header of HTTP itself or one that certmap fills: write for example X-Certmap-Identity"),
        validation = Rule::new(FREE_FAMILY).message("signedIdentity.header cannot be a header of HTTP itself or one that certmap fills: write for example X-Certmap-Identity")
    )]
    pub header: String,
    /// Whom the token is for (aud); left out, the backend's Service as namespace/name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[!-~]+$"))]
    pub audience: Option<String>,
    /// How long a token holds. One is made for each request.
    #[serde(default = "a_minute")]
    #[schemars(with = "i32", range(min = 5, max = 600))]
    pub lifetime_seconds: u16,
    /// The Secret with the keys, in the policy's namespace: current.key, which signs, and perhaps previous.key and
    /// next.key, which are published with it. EC P-256 private keys in PEM.
    pub key_secret_ref: KeySecretRef,
    /// Serve the public keys (JWKS) at /.well-known/certmap/jwks.json of every host that the policy protects, over https
    /// and to everyone.
    #[serde(default)]
    pub publish: bool,
}

/// A Secret of the policy's namespace.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A way to write a certificate into headers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateFormat {
    /// Client-Cert and Client-Cert-Chain (RFC 9440).
    Rfc9440,
    /// X-Forwarded-Client-Cert, as Envoy writes it.
    Xfcc,
    /// ssl-client-verify, -subject-dn, -issuer-dn and -cert, as ingress-nginx writes them.
    Nginx,
    /// X-ARR-ClientCert, as IIS's Application Request Routing writes it.
    Arr,
    /// X-Forwarded-Tls-Client-Cert and X-Forwarded-Tls-Client-Cert-Info, as Traefik's passTLSClientCert writes them.
    Traefik,
}

fn comma() -> String {
    ",".to_owned()
}

fn identity_header() -> String {
    "X-Certmap-Identity".to_owned()
}

fn a_minute() -> u16 {
    60
}
