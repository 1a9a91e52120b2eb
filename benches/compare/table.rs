//! Rounds that take turns, and the tables of what they came to.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::load::{Mode, Outcome};
use crate::pki::{self, Kind};
use crate::process::{self, Server, free_address, myself, on_cores};
use crate::{certmap, peers};

/// The servers' core; the load and the backend have the other.
pub(crate) const SERVER: &str = "0";
pub(crate) const LOAD: &str = "1";

#[derive(Args, Debug)]
pub(crate) struct TableArguments {
    /// floor, certmap and nginx alone, short rounds
    #[arg(long)]
    quick: bool,
    /// The program to measure
    #[arg(long, env = "CERTMAP_PROGRAM")]
    certmap: Vec<PathBuf>,
    /// All that are found where nothing is said
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    #[arg(long, value_enum, value_delimiter = ',')]
    figures: Vec<Figure>,
    /// After one round of warming up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// What costs 1
    #[arg(long, default_value = "nginx-1.26")]
    base: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Figure {
    Full,
    Rsa,
    Mlkem,
    Tls12,
    Resumed,
    H1,
    H2,
    Rate,
    Idle,
}

impl Figure {
    fn title(self) -> &'static str {
        match self {
            Self::Full => "full handshake and request, ECDSA P-256, TLS 1.3, X25519",
            Self::Rsa => "the same, RSA-2048",
            Self::Mlkem => "the same, ECDSA, X25519MLKEM768",
            Self::Tls12 => "the same, ECDSA, TLS 1.2",
            Self::Resumed => "resumed handshake and request",
            Self::H1 => "HTTP/1.1 keep-alive, 32 connections",
            Self::H2 => "HTTP/2, 4 connections of 8 streams",
            Self::Rate => "HTTP/1.1 at 2,000 a second, open loop",
            Self::Idle => "idle connections",
        }
    }

    fn load(self) -> (Mode, &'static [&'static str]) {
        match self {
            Self::Full | Self::Rsa => (Mode::Full, &[]),
            Self::Mlkem => (Mode::Full, &["--group", "mlkem"]),
            Self::Tls12 => (Mode::Full, &["--tls12"]),
            Self::Resumed => (Mode::Resumed, &[]),
            Self::H1 => (Mode::H1, &[]),
            Self::H2 => (Mode::H2, &[]),
            Self::Rate => (Mode::Rate, &[]),
            Self::Idle => (Mode::Idle, &[]),
        }
    }

    fn kind(self) -> Kind {
        if self == Self::Rsa { Kind::Rsa } else { Kind::Ec }
    }
}

/// What one server did, round by round; none where it cannot do it.
type Rounds = BTreeMap<String, Vec<Option<Outcome>>>;

pub(crate) fn run(arguments: &TableArguments) -> anyhow::Result<()> {
    let figures = match (arguments.figures.is_empty(), arguments.quick) {
        (false, _) => arguments.figures.clone(),
        (true, true) => vec![Figure::Full, Figure::Resumed, Figure::H1, Figure::H2],
        (true, false) => Figure::value_variants().to_vec(),
    };
    println!("{}\n", machine());
    for kind in [Kind::Ec, Kind::Rsa] {
        let figures: Vec<Figure> =
            figures.iter().copied().filter(|figure| figure.kind() == kind).collect();
        if figures.is_empty() {
            continue;
        }
        let pki = pki::make(kind)?;
        let backend = backend()?;
        let servers = servers(arguments, &pki, backend.address)?;
        for server in &servers {
            eprintln!("{}: {} KiB at rest", server.name, server.memory());
        }
        for figure in figures {
            if figure == Figure::Idle {
                idle(&servers, &pki)?;
            } else {
                let rounds = rounds(arguments, figure, &servers, &pki)?;
                print(figure, &rounds, &servers, &arguments.base);
            }
        }
    }
    Ok(())
}

pub(crate) fn machine() -> String {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = text("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]).output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{} UTC, {} cores of {}, load {}",
        date.unwrap_or_default(),
        std::thread::available_parallelism().map_or(0, usize::from),
        model.map_or("unknown", |(_, model)| model),
        text("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

pub(crate) fn backend() -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = on_cores(LOAD, &myself()?);
    command.arg("backend").arg(address.to_string());
    Server::start("backend", address, command)
}

/// certmap's program: the one that is named, or the one that deploy/static-program made.
pub(crate) fn program(named: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    let mut places: Vec<PathBuf> = named.into_iter().cloned().collect();
    places.push(env!("CARGO_BIN_EXE_certmap").into());
    places.into_iter().find(|place| place.exists()).context("there is no certmap")
}

fn servers(
    arguments: &TableArguments,
    pki: &Path,
    backend: SocketAddr,
) -> anyhow::Result<Vec<Server>> {
    let mut wanted: Vec<String> = arguments.servers.clone();
    if wanted.is_empty() {
        wanted = vec!["floor".to_owned(), "certmap".to_owned()];
        let all = if arguments.quick { vec!["nginx"] } else { peers::names() };
        wanted.extend(all.into_iter().map(str::to_owned));
    }
    let (mut servers, mut absent) = (Vec::new(), Vec::new());
    for name in wanted {
        match name.as_str() {
            "floor" => servers.push(floor(pki, backend)?),
            "certmap" => {
                let manifests = certmap::manifests("manifests", pki, backend, certmap::USUAL)?;
                let mut programs = arguments.certmap.clone();
                if programs.is_empty() {
                    programs.push(program(None)?);
                }
                for (number, program) in programs.iter().enumerate() {
                    let name = if number == 0 { name.clone() } else { format!("{name}-{number}") };
                    servers.push(certmap::start(&name, program, SERVER, &manifests)?);
                }
            }
            peer => match peers::start(peer, SERVER, pki, backend)? {
                Some(server) => servers.push(server),
                None => absent.push(name),
            },
        }
    }
    if !absent.is_empty() {
        println!("Not on this machine, and so not measured: {}.\n", absent.join(", "));
    }
    Ok(servers)
}

fn floor(pki: &Path, backend: SocketAddr) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = on_cores(SERVER, &myself()?);
    command.arg("floor").arg(address.to_string()).arg(backend.to_string()).arg(pki);
    Server::start("floor", address, command)
}

fn rounds(
    arguments: &TableArguments,
    figure: Figure,
    servers: &[Server],
    pki: &Path,
) -> anyhow::Result<Rounds> {
    let mut rounds = Rounds::new();
    let count = if arguments.quick { arguments.rounds.min(3) } else { arguments.rounds };
    for round in 0..=count {
        let mut order: Vec<&Server> = servers.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for server in order {
            // A peer that could not do it once is not asked again.
            if rounds.get(&server.name).is_some_and(|rounds| rounds.iter().any(Option::is_none)) {
                continue;
            }
            let outcome = one(arguments, figure, server, pki)?;
            if round > 0 || outcome.is_none() {
                rounds.entry(server.name.clone()).or_default().push(outcome);
            }
        }
    }
    Ok(rounds)
}

fn one(
    arguments: &TableArguments,
    figure: Figure,
    server: &Server,
    pki: &Path,
) -> anyhow::Result<Option<Outcome>> {
    let (mode, more) = figure.load();
    let seconds = arguments.seconds.to_string();
    let mut options = vec!["--seconds", &seconds];
    options.extend(more);
    let outcome = load(mode, server, pki, &options);
    match outcome {
        Ok(outcome) if outcome.operations > 0 && outcome.failures == 0 => Ok(Some(outcome)),
        Ok(outcome) => {
            eprintln!("{}: {figure:?}: {outcome:?}", server.name);
            ensure!(server.name != "certmap", "certmap failed");
            Ok(None)
        }
        Err(error) => {
            eprintln!("{}: {figure:?}: {error:#}", server.name);
            ensure!(server.name != "certmap", "certmap failed");
            Ok(None)
        }
    }
}

/// Runs the load against a server.
pub(crate) fn load(
    mode: Mode,
    server: &Server,
    pki: &Path,
    options: &[&str],
) -> anyhow::Result<Outcome> {
    let mut command = load_command(mode, server, pki)?;
    let output = command.args(options).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| format!("the load: {said}"))
}

pub(crate) fn load_command(mode: Mode, server: &Server, pki: &Path) -> anyhow::Result<Command> {
    let mut command = on_cores(LOAD, &myself()?);
    let mode = mode.to_possible_value().context("a mode without a name")?;
    command.arg("load").arg(mode.get_name()).arg(server.address.to_string()).arg(pki);
    command.args(["--pid", &server.pid().to_string()]);
    Ok(command)
}

/// Memory of 9,000 connections, by how much it grows.
fn idle(servers: &[Server], pki: &Path) -> anyhow::Result<()> {
    println!(
        "| memory | at rest, MiB (PSS) | KiB for each of 9,000 idle connections |\n| --- | --- | --- |"
    );
    for server in servers {
        match weigh(server, pki, 9000) {
            Ok((before, each)) => {
                println!("| {} | {:.1} | {each:.1} |", server.name, before as f64 / 1024.0);
            }
            Err(error) => println!("| {} | {error:#} | – |", server.name),
        }
    }
    println!();
    Ok(())
}

/// KiB before, and for each connection.
pub(crate) fn weigh(server: &Server, pki: &Path, connections: usize) -> anyhow::Result<(u64, f64)> {
    let before = server.memory();
    let mut command = load_command(Mode::Idle, server, pki)?;
    command.args(["--connections", &connections.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut ready = [0; 6];
    let read = child.stdout.as_mut().context("no output")?.read_exact(&mut ready);
    let after = server.memory();
    drop(child.stdin.take());
    child.wait()?;
    read.context("not every connection was accepted")?;
    Ok((before, (after as f64 - before as f64) / connections as f64))
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn cost(outcome: &Outcome) -> f64 {
    outcome.server as f64 / outcome.operations as f64
}

fn print(figure: Figure, rounds: &Rounds, servers: &[Server], base: &str) {
    let base = if rounds.contains_key(base) { base } else { "nginx" };
    println!(
        "| {} | CPU µs each | a second | p50, p99 ms | {base} = 1 (least to most) | floor = 1 |",
        figure.title()
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for server in servers {
        let all: Option<Vec<&Outcome>> =
            rounds.get(&server.name).and_then(|rounds| rounds.iter().map(Option::as_ref).collect());
        let Some(outcomes) = all.filter(|outcomes| !outcomes.is_empty()) else {
            println!("| {} | not done | – | – | – | – |", server.name);
            continue;
        };
        let of = |value: fn(&Outcome) -> f64| median(outcomes.iter().map(|it| value(it)).collect());
        let resumed = of(|outcome| outcome.resumed as f64 / outcome.operations as f64);
        let resumed = if figure == Figure::Resumed {
            format!(" ({:.0}% resumed)", resumed * 100.0)
        } else {
            String::new()
        };
        println!(
            "| {}{resumed} | {:.1} | {:.0} | {:.2}, {:.2} | {} | {} |",
            server.name,
            of(cost),
            of(|outcome| outcome.operations as f64 / outcome.seconds),
            of(|outcome| outcome.p50),
            of(|outcome| outcome.p99),
            ratio(rounds, base, &outcomes, true),
            ratio(rounds, "floor", &outcomes, false),
        );
    }
    println!();
}

/// Of the base's cost to this one's, round by round; of the floor the other way round, for that is how it is said.
fn ratio(rounds: &Rounds, base: &str, outcomes: &[&Outcome], higher_is_better: bool) -> String {
    let base: Option<Vec<&Outcome>> =
        rounds.get(base).and_then(|rounds| rounds.iter().map(Option::as_ref).collect());
    let Some(base) = base else { return "–".to_owned() };
    let mut ratios: Vec<f64> = base
        .iter()
        .zip(outcomes)
        .map(|(base, this)| {
            let better = cost(base) / cost(this);
            if higher_is_better { better } else { 1.0 / better }
        })
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let (least, most) = (ratios.first(), ratios.last());
    match (least, most) {
        (Some(least), Some(most)) if higher_is_better => {
            format!("**{:.2}** ({least:.2}–{most:.2})", median(ratios.clone()))
        }
        (Some(_), Some(_)) => format!("{:.2}", median(ratios.clone())),
        _ => "–".to_owned(),
    }
}

pub(crate) fn memory(server: &Server) -> f64 {
    server.memory() as f64 / 1024.0
}

/// CPU seconds of a server so far.
pub(crate) fn used(server: &Server) -> f64 {
    process::cpu(server.pid()) as f64 / 1e6
}
