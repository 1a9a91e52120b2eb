//! `spec.activeDirectory` → settings by which a directory is asked.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use rustls::pki_types::CertificateDer;

use super::account::{key, missing};
use super::dependency::Lookup;
use super::world::{ObjectKind, ObjectName};
use crate::api::{ActiveDirectory, SecretRef, WeakMapping};
use crate::auth::{
    Directory, DirectoryBind, DirectorySettings, DirectoryUrl, Form, Keeping, Secret,
};
use crate::identity::read_certificates;

/// The directory of a policy in a namespace; `cas` may have issued its servers' certificates.
///
/// # Errors
/// The field below activeDirectory, and one sentence.
pub(super) fn directory(
    lookup: &Lookup<'_>,
    namespace: &str,
    spec: &ActiveDirectory,
    cas: Vec<CertificateDer<'static>>,
) -> Result<Directory, (&'static str, String)> {
    let parse = |url: &String| {
        let no_url = || format!("{url} is no URL of a directory: write ldaps://host[:port]");
        DirectoryUrl::parse(url).ok_or_else(no_url)
    };
    let urls: Result<Vec<_>, _> = spec.urls.iter().map(parse).collect();
    let urls = urls.map_err(|problem| ("urls", problem))?;
    if let Some(url) = urls.iter().find(|url| url.host.contains(':'))
        && spec.server_name.is_none()
    {
        let problem = format!("{url} has no name that a certificate could have: write serverName");
        return Err(("serverName", problem));
    }
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let mut weak: Vec<Form> = spec.weak_mappings.iter().map(|it| form(*it)).collect();
    weak.sort_unstable();
    Ok(Directory::new(DirectorySettings {
        urls,
        cas,
        server_name: spec.server_name.as_deref().map(Into::into),
        bind: bind(lookup, namespace, spec).map_err(|problem| ("bind", problem))?,
        base_dn: spec.base_dn.as_deref().map(Into::into),
        timeout: seconds(spec.timeout_seconds),
        keeping: Keeping {
            found: seconds(spec.cache.ttl_seconds),
            not_found: seconds(spec.cache.negative_ttl_seconds),
            stale: seconds(spec.cache.stale_seconds),
        },
        weak,
        refuse_expired_password: spec.refuse_expired_password,
    }))
}

fn form(weak: WeakMapping) -> Form {
    match weak {
        WeakMapping::IssuerSubject => Form::IssuerSubject,
        WeakMapping::Subject => Form::Subject,
        WeakMapping::Rfc822 => Form::Rfc822,
        WeakMapping::Upn => Form::Upn,
    }
}

fn bind(
    lookup: &Lookup<'_>,
    namespace: &str,
    spec: &ActiveDirectory,
) -> Result<DirectoryBind, String> {
    match (&spec.bind.secret_ref, &spec.bind.certificate_ref) {
        (Some(reference), None) => {
            let (name, secret) = secret(lookup, namespace, reference)?;
            let text = |field: &str| {
                let bytes = key(secret, field).filter(|bytes| !bytes.is_empty());
                let bytes = bytes.ok_or_else(|| missing(&name, secret, field))?;
                let unclear = || format!("Secret {name}: {field} is not text");
                std::str::from_utf8(bytes).map_err(|_| unclear())
            };
            let (user, password) = (text("username")?, text("password")?);
            Ok(DirectoryBind::Simple { name: user.into(), password: Secret::new(password.into()) })
        }
        (None, Some(reference)) => {
            let (name, secret) = secret(lookup, namespace, reference)?;
            let bytes = |field| key(secret, field).ok_or_else(|| missing(&name, secret, field));
            let chain = read_certificates(bytes("tls.crt")?)
                .map_err(|error| format!("Secret {name}, key tls.crt: {error}"))?;
            Ok(DirectoryBind::External { chain, key: Secret::new(bytes("tls.key")?.into()) })
        }
        _ => Err("bind is exactly one of secretRef and certificateRef".to_owned()),
    }
}

fn secret<'a>(
    lookup: &Lookup<'a>,
    namespace: &str,
    reference: &SecretRef,
) -> Result<(ObjectName, &'a core::Secret), String> {
    let elsewhere = reference.namespace.as_deref();
    let name = lookup.resolve(namespace, ObjectKind::Secret, &reference.name, elsewhere)?;
    match lookup.secret(&name) {
        Some(secret) => Ok((name, secret)),
        None => Err(format!("Secret {name} does not exist: create it")),
    }
}
