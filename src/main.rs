//! The program: arguments in, exit code out.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use certmap::cli::{Arguments, run};
use clap::{CommandFactory, FromArgMatches, Parser};
use tracing_subscriber::EnvFilter;

/// docs/performance.md says what it is worth.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What goes wrong with watches is said by certmap itself. What a client does wrong is in the access log: the libraries that
/// read what it sends say some of it once for each frame, and who waits for standard error serves nobody.
const QUIET: &str =
    "kube_client=error,kube_runtime=error,h2=off,hyper=off,hyper_util=off,rustls=off";

/// What goes wrong is one line, as clap writes it.
fn main() -> ExitCode {
    certmap().unwrap_or_else(|error| {
        // Where nobody reads, the exit code is left to say so.
        let _unread = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn certmap() -> anyhow::Result<ExitCode> {
    let wanted = std::env::var("CERTMAP_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(format!("{QUIET},{wanted}"))
        .context("CERTMAP_LOG: write a level (info), or a filter of the tracing crate")?;
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
    run(arguments())
}

/// Under the name `kubectl-certmap`, kubectl finds it as a plugin of its own.
fn arguments() -> Arguments {
    let is_plugin = std::env::args_os().next().is_some_and(|program| {
        Path::new(&program).file_stem().is_some_and(|name| name == "kubectl-certmap")
    });
    if !is_plugin {
        return Arguments::parse();
    }
    let command = Arguments::command().name("kubectl certmap").bin_name("kubectl certmap");
    Arguments::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}
