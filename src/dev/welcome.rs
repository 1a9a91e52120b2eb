//! What `certmap dev` prints: a line to try for each outcome.

use std::net::SocketAddr;
use std::path::Path;

use super::pki::P12_PASSWORD;

/// Where everything is served.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Plain HTTP.
    pub http: SocketAddr,
    /// TLS.
    pub https: SocketAddr,
    /// Health.
    pub admin: SocketAddr,
}

/// The lines.
#[must_use]
pub fn welcome(directory: &Path, addresses: &Addresses) -> String {
    let dir = quoted(directory);
    let (http, https) = (addresses.http.port(), addresses.https.port());
    let admin = addresses.admin;
    let curl = format!("curl --cacert {dir}/server-ca.crt");
    let with = |name: &str| {
        format!("{curl} --cert {dir}/{name}.crt --key {dir}/{name}.key https://localhost:{https}")
    };
    let (alice, unmapped, expired, untrusted) =
        (with("alice"), with("unmapped"), with("expired"), with("untrusted"));
    format!(
        "certmap serves https://localhost:{https}/ and http://localhost:{http}/; health and metrics: http://{admin}/

  a mapped certificate          200 as azureuser
    {alice}/
  no certificate                403.7
    {curl} https://localhost:{https}/
  an expired one                403.17
    {expired}/
  one of another CA             403.16
    {untrusted}/
  a good one, mapped to nobody  401.2
    {unmapped}/
  plain http                    403.4
    curl http://localhost:{http}/
  no certificate, a password    200 as test
    {curl} -u test:battery-staple https://localhost:{https}/basic
  a wrong certificate           403.16, and no password helps
    {untrusted}/basic -u test:battery-staple

Change something while this runs, and ask again: unmapped.crt becomes test
    sed -i.bak 's/enabled: false/enabled: true/' {dir}/manifests/policy.yaml
    {unmapped}/

Ask why:
    certmap explain --manifests {dir}/manifests --host localhost --cert {dir}/unmapped.crt
In a browser: trust {dir}/server-ca.crt, import {dir}/alice.p12 (password {P12_PASSWORD}).
"
    )
}

/// For a shell, where the path needs it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain =
        text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
