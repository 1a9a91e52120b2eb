//! Arguments, and what each command prints.

mod dev;
mod explain;
mod validate;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::crd_yaml;
use crate::app::{self, Running, Settings};
use crate::proxy::Timeouts;
use crate::telemetry::{Destination, Format};

/// 20 MiB, as IIS has it.
const DEFAULT_LOG_SIZE: u64 = 20_971_520;

/// Client certificates become named accounts, on every request, in front of any backend.
#[derive(Debug, Parser)]
#[command(
    name = "certmap",
    version,
    about,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve what a directory of Kubernetes manifests says
    Run(RunArguments),
    /// Make a CA, certificates, manifests and a backend to try everything with, and serve them
    Dev(dev::DevArguments),
    /// Say what is wrong with manifests: schema, CEL rules, references, dead and shadowed mappings
    Validate(validate::ValidateArguments),
    /// Print the CustomResourceDefinitions
    Crds,
    /// Say what a request would get, and why
    Explain(explain::ExplainArguments),
}

/// Options that `run` and `dev` share.
#[derive(Args, Clone, Debug)]
struct ServeArguments {
    /// Where to serve plain HTTP
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// Where to serve HTTPS
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    https: SocketAddr,
    /// Where to serve /healthz, /readyz, /metrics and /snapshot
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    admin: SocketAddr,
    /// Where access records go: a file, or - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    access_log: PathBuf,
    /// How access records are written
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    access_log_format: LogFormat,
    /// A file larger than this many octets is rotated (every file is at midnight UTC)
    #[arg(long, value_name = "OCTETS", default_value_t = DEFAULT_LOG_SIZE)]
    access_log_size: u64,
    /// How long a client's connection is kept without a request (up to twice as long)
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    idle_timeout: f64,
    /// How long a backend may take to accept a connection (504)
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    connect_timeout: f64,
    /// How long a backend may take to begin its response (504)
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    response_timeout: f64,
    /// Refuse (503.90) every Ingress that no policy targets
    #[arg(long)]
    policy_required: bool,
}

#[derive(Args, Clone, Debug)]
struct RunArguments {
    /// The directory of manifests; changes are in force at once
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Json,
    W3c,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

impl ServeArguments {
    fn settings(self, manifests: PathBuf) -> Settings {
        let stdout = self.access_log.as_os_str() == "-";
        let file = Destination::File { path: self.access_log, longest: self.access_log_size };
        Settings {
            manifests,
            http: self.http,
            https: self.https,
            admin: self.admin,
            access_log: if stdout { Destination::Stdout } else { file },
            access_log_format: match self.access_log_format {
                LogFormat::Json => Format::Json,
                LogFormat::W3c => Format::W3c,
            },
            timeouts: Timeouts {
                client: Duration::from_secs_f64(self.idle_timeout),
                connect: Duration::from_secs_f64(self.connect_timeout),
                response: Duration::from_secs_f64(self.response_timeout),
                ..Timeouts::default()
            },
            policy_required: self.policy_required,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "write seconds, from 0.001 to 86400".to_owned())
}

/// Runs a command.
///
/// # Errors
/// It cannot be done; the message says why.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run(run) => runtime()?.block_on(serve(run.serve.settings(run.manifests))),
        Command::Dev(arguments) => runtime()?.block_on(dev::dev(arguments)),
        Command::Validate(arguments) => validate::validate(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Crds => {
            print(&crd_yaml())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")
}

async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    let running = app::start(settings).await?;
    announce(&running);
    until_told(running).await
}

/// Scripts wait for this line.
fn announce(running: &Running) {
    let line = format!(
        "listening http={} https={} admin={}\n",
        running.http, running.https, running.admin
    );
    // Without a standard error nobody waits for it.
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
}

async fn until_told(running: Running) -> anyhow::Result<ExitCode> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("told to stop: open requests come to their end");
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// A reader that has seen enough is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
