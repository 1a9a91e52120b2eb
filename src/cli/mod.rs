//! Arguments, and what each command prints.

mod cluster;
mod dev;
mod explain;
mod listener;
mod signing_key;
mod tls;
mod trace;
mod validate;
mod whoami;

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::crds_yaml;
use crate::app::{self, Drain, Running, Settings, Sockets, Source};
use crate::compile::{Finding, World};
use crate::proxy::{ListenerSettings, Timeouts};
use crate::source;
use crate::telemetry::{Destination, Format};
use cluster::{AccessArguments, RuleArguments, StatusArguments};
use listener::ListenerArguments;
use tls::TlsArguments;
use trace::TraceArguments;

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
    /// Serve what a cluster, or a directory of Kubernetes manifests, says
    Run(Box<RunArguments>),
    /// Make a CA, certificates, manifests and a backend to try everything with, and serve them
    Dev(Box<dev::DevArguments>),
    /// Say what is wrong with manifests: schema, CEL rules, references, dead and shadowed mappings
    Validate(validate::ValidateArguments),
    /// Print the CustomResourceDefinitions
    Crds,
    /// Say what a request would get, and why
    Explain(explain::ExplainArguments),
    /// Print a Secret with new keys to sign identities with (forward.signedIdentity)
    SigningKey(signing_key::SigningKeyArguments),
    /// Serve a backend that answers with what it was told (for samples and tests)
    Whoami(whoami::WhoamiArguments),
}

/// Options that `run` and `dev` share.
#[derive(Args, Clone, Debug)]
struct ServeArguments {
    /// Where to serve plain HTTP (may be given several times; [::] is for IPv4 too)
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    http: Vec<SocketAddr>,
    /// Where to serve HTTPS (the same)
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    https: Vec<SocketAddr>,
    /// Let another process listen on the same addresses (SO_REUSEPORT), such as the one that takes over
    #[arg(long)]
    reuse_port: bool,
    /// Where to serve /healthz, /readyz, /metrics, /snapshot and /jwks.json
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
    /// Threads that serve; one for each core where nothing is said
    #[arg(long, value_name = "NUMBER")]
    workers: Option<NonZeroUsize>,
    /// How long a backend may take to accept a connection (504)
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    connect_timeout: f64,
    /// How long a backend may take to begin its response (504)
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    response_timeout: f64,
    /// Told to stop, how long new connections are still served, until everybody knows
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds_or_none)]
    drain_delay: f64,
    /// How long open requests may take after that
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    drain_timeout: f64,
    #[command(flatten)]
    listener: ListenerArguments,
    #[command(flatten)]
    tls: TlsArguments,
    #[command(flatten)]
    trace: TraceArguments,
    #[command(flatten)]
    rules: RuleArguments,
}

#[derive(Args, Clone, Debug)]
struct RunArguments {
    /// A directory of manifests instead of a cluster; changes are in force at once
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "context", "watch_namespaces"])]
    manifests: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    status: StatusArguments,
    #[command(flatten)]
    serve: ServeArguments,
}

impl RunArguments {
    fn settings(self) -> anyhow::Result<Settings> {
        let source = match self.manifests {
            Some(directory) => Source::Directory(directory),
            None => {
                let rules = self.serve.rules();
                Source::Cluster(Box::new(self.status.settings(&self.access, &rules)?))
            }
        };
        Ok(self.serve.settings(source))
    }
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
    fn rules(&self) -> app::Rules {
        self.tls.rules(self.rules.rules())
    }

    fn settings(self, source: Source) -> Settings {
        let rules = self.rules();
        let stdout = self.access_log.as_os_str() == "-";
        let file = Destination::File { path: self.access_log, longest: self.access_log_size };
        Settings {
            source,
            http: self.http,
            https: self.https,
            sockets: Sockets { shared: self.reuse_port },
            admin: self.admin,
            access_log: if stdout { Destination::Stdout } else { file },
            access_log_format: match self.access_log_format {
                LogFormat::Json => Format::Json,
                LogFormat::W3c => Format::W3c,
            },
            timeouts: Timeouts {
                connect: Duration::from_secs_f64(self.connect_timeout),
                response: Duration::from_secs_f64(self.response_timeout),
                ..Timeouts::default()
            },
            listener: ListenerSettings { trace: self.trace.settings(), ..self.listener.settings() },
            collector: self.trace.collector(std::env::var("POD_NAME").ok()),
            drain: Drain {
                delay: Duration::from_secs_f64(self.drain_delay),
                timeout: Duration::from_secs_f64(self.drain_timeout),
            },
            workers: self.workers.unwrap_or_else(cores),
            rules,
        }
    }
}

/// That this process may use.
fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn seconds_or_none(text: &str) -> Result<f64, String> {
    let none = text.parse::<f64>().ok().filter(|seconds| *seconds == 0.0);
    none.map_or_else(|| seconds(text), Ok)
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
        Command::Run(run) => runtime()?.block_on(serve(run.settings()?)),
        Command::Dev(arguments) => runtime()?.block_on(dev::dev(*arguments)),
        Command::Validate(arguments) => validate::validate(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::SigningKey(arguments) => signing_key::run(&arguments),
        Command::Whoami(arguments) => runtime()?.block_on(whoami::serve(arguments)),
        Command::Crds => {
            print(&crds_yaml())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Requests are served by threads of their own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    // A cluster may be waited for without end.
    let running = tokio::select! {
        running = app::start(settings) => running?,
        told = told_to_stop() => return told.map(|()| ExitCode::SUCCESS),
    };
    announce(&running);
    until_told(running).await
}

/// The objects of a cluster as they are now, and which of them cannot be read.
fn read_cluster(
    access: &AccessArguments,
    rules: &app::Rules,
) -> anyhow::Result<(World, Vec<Finding>)> {
    runtime()?.block_on(async {
        let client = app::connect(&access.access()).await?;
        let read = source::read_cluster(&client, &access.scope(rules)).await;
        let (world, unreadable) = read.context("the cluster cannot be read")?;
        Ok((world, unreadable.into_values().collect()))
    })
}

/// Scripts wait for this line.
fn announce(running: &Running) {
    let list = |addresses: &[SocketAddr]| {
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    };
    let (http, https) = (list(&running.http), list(&running.https));
    let line = format!("listening http={http} https={https} admin={}\n", running.admin);
    // Without a standard error nobody waits for it.
    drop(std::io::stderr().lock().write_all(line.as_bytes()));
}

async fn told_to_stop() -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn until_told(running: Running) -> anyhow::Result<ExitCode> {
    told_to_stop().await?;
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
