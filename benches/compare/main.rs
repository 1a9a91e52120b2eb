//! certmap beside its peers and the least that a proxy of hyper and rustls can be.
//!
//! `benches/compare/run table` prints the tables of docs/performance.md. Each server has one worker on one core, the load and
//! the backend have another; rounds take turns, and what is compared is the server's CPU time for each operation. The
//! other commands measure what needs more than one table: `idle`, `policies`, `hosts`, `cores`, `soak`, `floods`.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench measures time, prints, and fails by panicking"
)]

mod backend;
mod certmap;
mod figure;
mod flood;
mod floods;
mod floor;
mod load;
mod long;
mod page;
mod peers;
mod pki;
mod process;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare: the tables
    Table(table::TableArguments),
    /// Memory of idle connections, and a policy change judged on all of them
    Idle(long::IdleArguments),
    /// HTTP/1.1 with 100,000 one-to-one and 10,000 many-to-one mappings against none
    Policies(long::PoliciesArguments),
    /// Many hosts, each with a certificate of its own
    Hosts(long::HostsArguments),
    /// The same load on one core and on two
    Cores(long::CoresArguments),
    /// A long run at part of the load while policies are edited
    Soak(long::SoakArguments),
    /// How long a client waits while others attack
    Floods(floods::FloodsArguments),
    /// What a server needs for this backend, in this directory: for benches/compare/instructions
    Files { directory: PathBuf, backend: SocketAddr },
    /// A server: the least proxy
    Floor { listen: SocketAddr, backend: SocketAddr, pki: PathBuf },
    /// A server: the backend
    Backend { listen: SocketAddr },
    /// The load; prints one line of JSON
    Load(load::LoadArguments),
    /// The attack; prints how often it was done
    Flood(flood::FloodArguments),
}

fn main() -> anyhow::Result<()> {
    // cargo bench says what it is doing.
    let arguments = std::env::args_os().filter(|argument| argument != "--bench");
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    match Arguments::parse_from(arguments).command {
        Command::Table(arguments) => table::run(&arguments),
        Command::Idle(arguments) => long::idle(&arguments),
        Command::Policies(arguments) => long::policies(&arguments),
        Command::Hosts(arguments) => long::hosts(&arguments),
        Command::Cores(arguments) => long::cores(&arguments),
        Command::Soak(arguments) => long::soak(&arguments),
        Command::Floods(arguments) => floods::run(&arguments),
        Command::Files { directory, backend } => certmap::files(&directory, backend),
        Command::Floor { listen, backend, pki } => floor::run(listen, backend, &pki),
        Command::Backend { listen } => backend::run(listen),
        Command::Load(arguments) => load::run(&arguments),
        Command::Flood(arguments) => flood::run(&arguments),
    }
}
