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
    /// Where to serve plain HTTP (may be given several times)
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    listen: Vec<SocketAddr>,
    /// What to call itself in the header x-served-by
    #[arg(long, env = "POD_NAME", default_value = "whoami")]
    name: String,
}

pub(super) async fn serve(arguments: WhoamiArguments) -> anyhow::Result<ExitCode> {
    for address in arguments.listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("{address} cannot be listened on"))?;
        let name = arguments.name.clone();
        tokio::spawn(async move { whoami(listener, &name).await });
    }
    told_to_stop().await?;
    Ok(ExitCode::SUCCESS)
}
