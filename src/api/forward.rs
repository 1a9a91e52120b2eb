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
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(self.basicCredentials && self.passAuthorization)")
        .message("basicCredentials and passAuthorization both fill Authorization: write one of them")
)]
pub struct Forward {
    /// The header that carries the account's name, for example X-Remote-User.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z][A-Za-z0-9-]*$"))]
    #[x_kube(
        validation = Rule::new("!(self.lowerAscii() in ['accept','accept-charset','accept-encoding','accept-language','authorization','cache-control','client-cert','client-cert-chain','connection','content-encoding','content-language','content-length','content-location','content-range','content-type','cookie','date','expect','forwarded','from','host','http2-settings','keep-alive','max-forwards','origin','pragma','proxy-authenticate','proxy-authorization','proxy-connection','range','referer','set-cookie','te','trailer','transfer-encoding','upgrade','user-agent','via','x-arr-clientcert','x-forwarded-client-cert','x-real-ip','x-request-id'])")
            .message("userHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Remote-User"),
        validation = Rule::new("!self.lowerAscii().startsWith('if-') && !self.lowerAscii().startsWith('sec-') && !self.lowerAscii().startsWith('x-forwarded-for') && !self.lowerAscii().startsWith('x-forwarded-proto') && !self.lowerAscii().startsWith('x-forwarded-host') && !self.lowerAscii().startsWith('x-forwarded-port') && !self.lowerAscii().startsWith('ssl-client-')")
            .message("userHeader cannot be a header of HTTP itself or one that certmap fills: write for example X-Remote-User")
    )]
    pub user_header: Option<String>,
    /// Send Authorization: Basic with the account's user name and password.
    #[serde(default)]
    pub basic_credentials: bool,
    /// Leave the client's own Authorization in the request; otherwise it is removed.
    #[serde(default)]
    pub pass_authorization: bool,
    /// The verified certificate, in these forms.
    #[serde(default)]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub client_certificate: Vec<CertificateFormat>,
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
}
