//! `certmap dev`: the first five minutes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::{ServeArguments, announce, print, until_told};
use crate::app;
use crate::dev::{Addresses, prepare, welcome, whoami};

#[derive(Args, Clone, Debug)]
pub(super) struct DevArguments {
    /// Where everything is made and kept
    #[arg(value_name = "DIR", default_value = "certmap-dev")]
    directory: PathBuf,
    /// Serve on every interface, not on loopback alone
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    serve: ServeArguments,
}

pub(super) async fn dev(arguments: DevArguments) -> anyhow::Result<ExitCode> {
    let backend = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let manifests = prepare(&arguments.directory, backend.local_addr()?, Timestamp::now())?;
    tokio::spawn(whoami(backend, "whoami"));
    let mut settings = arguments.serve.settings(app::Source::Directory(manifests));
    if !arguments.public {
        (settings.http, settings.https) = (loopback(settings.http), loopback(settings.https));
    }
    let running = app::start(settings).await?;
    let addresses = Addresses { http: running.http, https: running.https, admin: running.admin };
    print(&welcome(&arguments.directory, &addresses))?;
    announce(&running);
    until_told(running).await
}

/// Passwords that everybody knows are not for the network.
fn loopback(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        (std::net::Ipv4Addr::LOCALHOST, address.port()).into()
    } else {
        address
    }
}
