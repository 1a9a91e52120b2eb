//! `certmap whoami`: the backend of the samples.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use super::told_to_stop;
use crate::dev::whoami;

#[derive(Args, Debug)]
pub(super) struct WhoamiArguments {
    /// Where to serve plain HTTP
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

pub(super) async fn serve(arguments: &WhoamiArguments) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", arguments.listen))?;
    tokio::select! {
        () = whoami(listener) => {}
        told = told_to_stop() => told?,
    }
    Ok(ExitCode::SUCCESS)
}
