//! `certmap signing-key`: a Secret to sign identities with, as a manifest.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::print;
use crate::status::signing_key;

#[derive(Args, Debug)]
pub(super) struct SigningKeyArguments {
    /// The Secret's name, for forward.signedIdentity.keySecretRef
    #[arg(default_value = "certmap-signing-key", value_parser = object_name)]
    name: String,
    /// Its namespace: the policy's
    #[arg(short, long, default_value = "default", value_parser = object_name)]
    namespace: String,
}

pub(super) fn run(arguments: &SigningKeyArguments) -> anyhow::Result<ExitCode> {
    let SigningKeyArguments { name, namespace } = arguments;
    let key = || signing_key().context("no key can be made");
    let (current, next) = (indented(&key()?), indented(&key()?));
    print(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: Opaque\nstringData:\n  # Signs.\n  current.key: |\n{current}  # Published, so that it may sign later: next becomes current, current becomes previous.key.\n  next.key: |\n{next}"
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Nothing that YAML could take for something else.
fn object_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    let is_one = begins && text.len() <= 253 && text.chars().all(plain);
    is_one
        .then(|| text.to_owned())
        .ok_or_else(|| "write a name of lower-case letters, digits, - and .".to_owned())
}

fn indented(pem: &str) -> String {
    pem.lines().map(|line| format!("    {line}\n")).collect()
}
