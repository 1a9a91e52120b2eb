//! The program: arguments in, exit code out.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use certmap::cli::{Arguments, run};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_from_env("CERTMAP_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok()
        .context("a TLS provider is installed already")?;
    run(Arguments::parse())
}
