//! TLS to backends: CAs, names and perhaps a certificate of ours → what handshakes are made by. What cannot be made out is
//! no TLS at all, and whoever needs it refuses.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use super::certificates::LastGood;
use super::dependency::Lookup;
use super::server_certificates::certified_key;
use super::world::ObjectName;
use crate::api;
use crate::identity::Fingerprint;
use crate::snapshot::{BackendName, BackendNames, BackendTls};

/// Sessions that are kept for coming back, of one policy's backends.
const SESSIONS: usize = 256;

/// The certificate that is shown, and the Secret it was read from: kept while that cannot be read.
pub(super) type Client = Option<(ObjectName, Arc<CertifiedKey>)>;

/// Why there is none: field, sentence.
pub(super) type Unusable = (String, String);

/// What was made, and what is wrong all the same.
pub(super) struct Made {
    /// Or why it cannot be made out.
    pub(super) tls: Result<Arc<BackendTls>, Unusable>,
    pub(super) client: Client,
    /// Field, reason, sentence.
    pub(super) problems: Vec<Problem>,
}

type Problem = (String, &'static str, String);

/// Makes it. Everything is looked at, whatever is wrong before it: of what was not looked at it would not be seen that it
/// was deleted, and then something older could come back.
pub(super) fn backend_tls(
    namespace: &str,
    spec: &api::BackendTls,
    lookup: &Lookup<'_>,
    last_good: &mut LastGood,
    earlier: &Client,
) -> Made {
    let (mut problems, mut unusable) = (Vec::new(), None);
    let mut cas: Vec<CertificateDer<'static>> = Vec::new();
    for (index, reference) in spec.ca_certificate_refs.iter().enumerate() {
        let field = format!("spec.backendTLS.caCertificateRefs[{index}]");
        match last_good.cas(lookup, namespace, reference) {
            Ok((found, stale)) => {
                cas.extend(found.iter().cloned());
                problems.extend(stale.map(|problem| {
                    let message = format!("{problem}; the CAs read before stay in force");
                    (field, "CABundleInvalid", message)
                }));
            }
            Err(problem) => drop(unusable.get_or_insert((field, problem))),
        }
    }
    let (client, problem) = match client(namespace, spec, lookup, earlier) {
        Ok(found) => found,
        Err(problem) => {
            unusable.get_or_insert(problem);
            (None, None)
        }
    };
    problems.extend(problem);
    let tls = match unusable {
        Some(unusable) => Err(unusable),
        None => configured(spec, &cas, client.as_ref().map(|(_, key)| key)).map(Arc::new),
    };
    Made { tls, client, problems }
}

type Found = (Client, Option<Problem>);

/// A certificate that is demanded and not there is not left out: the backend would see nobody in our place.
fn client(
    namespace: &str,
    spec: &api::BackendTls,
    lookup: &Lookup<'_>,
    earlier: &Client,
) -> Result<Found, Unusable> {
    let Some(reference) = &spec.client_certificate_ref else { return Ok((None, None)) };
    let name = ObjectName::new(namespace, &reference.name);
    let field = || "spec.backendTLS.clientCertificateRef".to_owned();
    let Some(secret) = lookup.secret(&name) else {
        let message =
            format!("Secret {name} does not exist: create it with kubectl create secret tls");
        return Err((field(), message));
    };
    match (certified_key(secret), earlier) {
        (Ok(key), _) => Ok((Some((name, Arc::new(key))), None)),
        (Err(problem), Some((then, key))) if *then == name => {
            let message =
                format!("Secret {name}: {problem}; the certificate read before stays in force");
            let problem = (field(), "ClientCertificateInvalid", message);
            Ok((Some((name, key.clone())), Some(problem)))
        }
        (Err(problem), _) => Err((field(), format!("Secret {name}: {problem}"))),
    }
}

fn configured(
    spec: &api::BackendTls,
    cas: &[CertificateDer<'static>],
    client: Option<&Arc<CertifiedKey>>,
) -> Result<BackendTls, Unusable> {
    let hostname = &spec.hostname;
    let whole = |problem: String| ("spec.backendTLS".to_owned(), problem);
    let name = ServerName::try_from(hostname.clone())
        .map_err(|_| whole(format!("hostname {hostname} is no DNS name: write one")))?;
    let names = spec.subject_alt_names.as_deref().map(names).transpose()?;
    let mut roots = RootCertStore::empty();
    for ca in cas {
        roots.add(ca.clone()).map_err(|error| whole(format!("a CA cannot be used: {error}")))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let digest = digest(hostname, cas, client, names.as_deref().unwrap_or_default());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| whole(error.to_string()))?;
    let config = match names {
        Some(names) => {
            let verifier = Arc::new(BackendNames::new(roots, names, &provider));
            config.dangerous().with_custom_certificate_verifier(verifier)
        }
        None => config.with_root_certificates(roots),
    };
    let mut config = match client {
        Some(key) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())))
        }
        None => config.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(BackendTls { config: Arc::new(config), name, digest })
}

/// The names that a backend may have. A list that holds one that makes no sense, or none at all, is no list.
fn names(written: &[api::BackendSubjectAltName]) -> Result<Box<[BackendName]>, Unusable> {
    let field = "spec.backendTLS.subjectAltNames";
    if written.is_empty() {
        let message = "an empty list names no backend: write a name, or leave the list out";
        return Err((field.to_owned(), message.to_owned()));
    }
    let name = |(index, name): (usize, &api::BackendSubjectAltName)| {
        use api::SubjectAltNameType::{Hostname, Uri};
        match (name.kind, &name.hostname, &name.uri) {
            (Hostname, Some(hostname), None) => {
                let name = DnsName::try_from(hostname.clone()).map_err(|_| {
                    let message = format!("hostname {hostname} is no DNS name: write one");
                    (format!("{field}[{index}].hostname"), message)
                })?;
                Ok(BackendName::Hostname(ServerName::DnsName(name)))
            }
            (Uri, None, Some(uri)) => Ok(BackendName::Uri(uri.as_str().into())),
            (Hostname, ..) => {
                let message = "type is Hostname: write hostname, and no uri";
                Err((format!("{field}[{index}]"), message.to_owned()))
            }
            (Uri, ..) => {
                let message = "type is URI: write uri, and no hostname";
                Err((format!("{field}[{index}]"), message.to_owned()))
            }
        }
    };
    written.iter().enumerate().map(name).collect()
}

/// Of everything that a connection is made under.
fn digest(
    hostname: &str,
    cas: &[CertificateDer<'static>],
    client: Option<&Arc<CertifiedKey>>,
    names: &[BackendName],
) -> Fingerprint {
    let mut all: Vec<u8> = hostname.to_ascii_lowercase().into_bytes();
    let mut add = |mark: u8, octets: &[u8]| {
        all.push(mark);
        all.extend((octets.len() as u64).to_be_bytes());
        all.extend_from_slice(octets);
    };
    cas.iter().for_each(|ca| add(0, ca));
    client.into_iter().flat_map(|key| &key.cert).for_each(|shown| add(1, shown));
    for name in names {
        match name {
            BackendName::Hostname(host) => add(2, host.to_str().to_ascii_lowercase().as_bytes()),
            BackendName::Uri(uri) => add(3, uri.as_bytes()),
        }
    }
    Fingerprint::of(&all)
}
