//! `certmap dev`: the first five minutes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
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
    let prepared = prepare(&arguments.directory, backend.local_addr()?, Timestamp::now())?;
    tokio::spawn(whoami(backend, "whoami"));
    let mut settings = arguments.serve.settings(app::Source::Directory(prepared.manifests.clone()));
    if !arguments.public {
        settings.http.iter_mut().chain(&mut settings.https).for_each(loopback);
    }
    let running = app::start(settings).await?;
    let first = |addresses: &[SocketAddr]| addresses.first().copied().context("no address");
    let (http, https) = (first(&running.http)?, first(&running.https)?);
    let addresses = Addresses { http, https, admin: running.admin };
    print(&welcome(&arguments.directory, &addresses))?;
    announce(&running);
    until_told(running).await
}

/// Passwords that everybody knows are not for the network.
fn loopback(address: &mut SocketAddr) {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
}
