//! Rounds that take turns, and the tables of what they came to.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::figure::Figure;
use crate::load::{Mode, Outcome};
use crate::page::{Section, Verdict};
use crate::pki::{self, Kind};
use crate::process::{self, Server, free_address, myself, on_cores};
use crate::{certmap, peers};

/// The servers' core; the load and the backend have the other.
pub(crate) const SERVER: &str = "0";
pub(crate) const LOAD: &str = "1";
/// Of memory at rest in MiB, and of an idle connection in KiB.
pub(crate) const AT_REST: f64 = 16.0;
pub(crate) const IDLE: f64 = 28.0;
/// CPU time of an operation, the floor's = 1.
const FLOOR: f64 = 1.25;
/// Of a fixed rate; a server that does less than it is asked has no latency to speak of.
const KEEPS_UP: f64 = 0.97;

/// What is compared.
#[derive(Args, Debug)]
pub(crate) struct Wanted {
    /// floor, certmap and nginx alone, short rounds
    #[arg(long)]
    quick: bool,
    /// The program to measure
    #[arg(long, env = "CERTMAP_PROGRAM")]
    certmap: Vec<PathBuf>,
    /// All that are found where nothing is said
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct TableArguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Put what was measured into docs/performance.md
    #[arg(long)]
    write: bool,
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
    /// Of the fixed rate, in place of half of what certmap can do
    #[arg(long)]
    rate: Option<f64>,
}

/// What one server did, round by round, or why it did not.
#[derive(Debug, Default)]
struct Done {
    outcomes: Vec<Outcome>,
    not: Option<String>,
}

type Rounds = BTreeMap<String, Done>;

/// A run of the tables.
struct Run<'a> {
    arguments: &'a TableArguments,
    verdict: Verdict,
    /// A second, by HTTP/1.1, as far as it is known.
    certmap_can: Option<f64>,
    summary: Vec<String>,
}

pub(crate) fn run(arguments: &TableArguments) -> anyhow::Result<()> {
    let figures = match (arguments.figures.is_empty(), arguments.wanted.quick) {
        (false, _) => arguments.figures.clone(),
        (true, true) => vec![Figure::Full, Figure::Resumed, Figure::H1, Figure::H2],
        (true, false) => Figure::value_variants().to_vec(),
    };
    let mut run =
        Run { arguments, verdict: Verdict::default(), certmap_can: None, summary: Vec::new() };
    for kind in [Kind::Ec, Kind::Rsa] {
        let figures: Vec<Figure> =
            figures.iter().copied().filter(|figure| figure.kind() == kind).collect();
        if figures.is_empty() {
            continue;
        }
        let pki = pki::make(kind)?;
        let backend = backend()?;
        if figures.contains(&Figure::Memory) {
            // Weighed before anything else was done.
            run.memory(&pki, backend.address)?;
        }
        let servers = servers(&arguments.wanted, &pki, backend.address)?;
        for figure in figures.into_iter().filter(|figure| *figure != Figure::Memory) {
            run.figure(figure, &servers, &pki)?;
        }
    }
    run.summarize(arguments.write && arguments.figures.is_empty() && !arguments.wanted.quick)?;
    run.verdict.end()
}

pub(crate) fn machine() -> String {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = text("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"]).output();
    let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "Measured on {} UTC, {} cores of {}, load {}",
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

pub(crate) fn servers(
    arguments: &Wanted,
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
                    let server = certmap::start(&name, program, SERVER, &manifests)?;
                    servers.push(server.titled(format!("**{name}**")));
                }
            }
            peer => match peers::start(peer, SERVER, pki, backend)? {
                Some(server) => servers.push(server),
                None => absent.push(name),
            },
        }
    }
    if !absent.is_empty() {
        eprintln!("not on this machine, and so not measured: {}", absent.join(", "));
    }
    Ok(servers)
}

fn floor(pki: &Path, backend: SocketAddr) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = on_cores(SERVER, &myself()?);
    command.arg("floor").arg(address.to_string()).arg(backend.to_string()).arg(pki);
    Server::start("floor", address, command)
}

impl Run<'_> {
    fn count(&self) -> usize {
        if self.arguments.wanted.quick {
            self.arguments.rounds.min(3)
        } else {
            self.arguments.rounds
        }
    }

    fn figure(&mut self, figure: Figure, servers: &[Server], pki: &Path) -> anyhow::Result<()> {
        let mut section = Section::new(&figure.name());
        let machine = machine();
        let mut options = vec!["--seconds".to_owned(), self.arguments.seconds.to_string()];
        options.extend(figure.load().1.iter().map(|&option| option.to_owned()));
        let mut rate = None;
        if figure == Figure::Rate {
            let asked = self.rate(servers, pki)?;
            options.extend(["--rate".to_owned(), asked.to_string()]);
            rate = Some(asked);
        }
        let rounds = self.rounds(figure, servers, pki, &options)?;
        match rate {
            Some(rate) => latencies(&mut section, &rounds, servers, rate),
            None => self.costs(&mut section, figure, &rounds, servers),
        }
        section.line(&format!(
            "\n{machine}, {} rounds of {} s each.{}{}",
            self.count(),
            self.arguments.seconds,
            figure.aim().map_or_else(String::new, |aim| format!(
                " The aim is {:.1}, never below {:.1}.",
                aim.aim, aim.least
            )),
            left_out(&rounds, servers)
        ));
        section.finish(self.arguments.write)
    }

    /// Half of what certmap can do.
    fn rate(&self, servers: &[Server], pki: &Path) -> anyhow::Result<f64> {
        if let Some(rate) = self.arguments.rate {
            return Ok(rate);
        }
        if let Some(most) = self.certmap_can {
            return Ok((most / 2.0).round());
        }
        let certmap = servers.iter().find(|server| server.name == "certmap");
        let certmap = certmap.context("give --rate where certmap is not measured")?;
        let outcome = load(Mode::H1, certmap, pki, &[])?;
        Ok((per_second(&outcome) / 2.0).round())
    }

    fn rounds(
        &self,
        figure: Figure,
        servers: &[Server],
        pki: &Path,
        options: &[String],
    ) -> anyhow::Result<Rounds> {
        let mut rounds = Rounds::new();
        for round in 0..=self.count() {
            let mut order: Vec<&Server> = servers.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for server in order {
                let done = rounds.entry(server.name.clone()).or_default();
                // A peer that could not do it once is not asked again.
                if done.not.is_some() {
                    continue;
                }
                match one(figure, server, pki, options) {
                    Ok(outcome) if round > 0 => done.outcomes.push(outcome),
                    Ok(_) => {}
                    Err(error) => {
                        eprintln!("{}: {figure:?}: {error:#}", server.name);
                        ensure!(!server.name.starts_with("certmap"), "certmap failed: {error:#}");
                        done.not = Some(error.root_cause().to_string());
                    }
                }
            }
        }
        Ok(rounds)
    }

    fn costs(
        &mut self,
        section: &mut Section,
        figure: Figure,
        rounds: &Rounds,
        servers: &[Server],
    ) {
        let base = self.base(rounds);
        let title =
            servers.iter().find(|server| server.name == base).map_or("–", |it| it.title.as_str());
        section.line(&format!(
            "| {} | CPU µs each | a second | p50, p99 ms | {title} = 1 (least to most) | floor = 1 |\n| --- | --- | --- | --- | --- | --- |",
            figure.title()
        ));
        for server in servers {
            let Some(outcomes) = outcomes(rounds, &server.name) else { continue };
            let better = ratios(rounds, &base, outcomes, true);
            let dearer = ratios(rounds, "floor", outcomes, false);
            section.line(&format!(
                "| {}{} | {:.1} | {:.0} | {:.2}, {:.2} | {} | {} |",
                server.title,
                resumed(figure, outcomes),
                of(outcomes, cost),
                of(outcomes, per_second),
                of(outcomes, |outcome| outcome.p50),
                of(outcomes, |outcome| outcome.p99),
                spread(&better),
                dearer
                    .as_ref()
                    .map_or_else(|| "–".to_owned(), |[_, ratio, _]| format!("{ratio:.2}")),
            ));
            if server.name == "certmap" {
                self.judge(figure, outcomes, &base, better, dearer);
            }
        }
    }

    fn judge(
        &mut self,
        figure: Figure,
        outcomes: &[Outcome],
        base: &str,
        better: Option<[f64; 3]>,
        dearer: Option<[f64; 3]>,
    ) {
        if figure == Figure::H1 {
            self.certmap_can = Some(of(outcomes, per_second));
        }
        let ratio = |ratios: Option<[f64; 3]>| ratios.map_or(f64::NAN, |[_, ratio, _]| ratio);
        let (better, dearer) = (ratio(better), ratio(dearer));
        if let Some(aim) = figure.aim().filter(|_| better.is_finite()) {
            self.summary.push(format!(
                "| {} | **{better:.2}** | {:.1} | {:.1} | {dearer:.2} |",
                figure.title(),
                aim.aim,
                aim.least
            ));
            if base == "nginx-1.26" {
                self.verdict.at_least(figure.title(), better, aim.least);
            }
        }
        if dearer.is_finite() {
            let what = format!("{}, of the floor's cost", figure.title());
            self.verdict.at_most(&what, dearer, FLOOR);
        }
    }

    fn base(&self, rounds: &Rounds) -> String {
        let wanted = self.arguments.base.as_str();
        if outcomes(rounds, wanted).is_some() { wanted } else { "nginx" }.to_owned()
    }

    /// Of servers that were started for it.
    fn memory(&mut self, pki: &Path, backend: SocketAddr) -> anyhow::Result<()> {
        let mut section = Section::new(&Figure::Memory.name());
        let machine = machine();
        section.line("| memory | at rest, MiB (PSS) | KiB for each of 9,000 idle connections |\n| --- | --- | --- |");
        for server in servers(&self.arguments.wanted, pki, backend)? {
            let (title, name) = (server.title.clone(), server.name.clone());
            match weigh(&server, pki, 9000) {
                Ok((before, each)) => {
                    let before = before as f64 / 1024.0;
                    section.line(&format!("| {title} | {before:.1} | {each:.1} |"));
                    if name == "certmap" {
                        self.verdict.at_most("MiB at rest", before, AT_REST);
                        self.verdict.at_most("KiB for an idle connection", each, IDLE);
                    }
                }
                Err(error) => section.line(&format!("| {title} | {error:#} | – |")),
            }
        }
        section.line(&format!(
            "\n{machine}. The aims are 10 MiB and 20 KiB, the limits {AT_REST} MiB and {IDLE} KiB. The floor's program is the load's and the \
             backend's too, so its text counts in part only."
        ));
        section.finish(self.arguments.write)
    }

    fn summarize(&self, write: bool) -> anyhow::Result<()> {
        if self.summary.is_empty() {
            return Ok(());
        }
        let mut section = Section::new("summary");
        section.line(&format!(
            "| certmap, {} = 1 (higher is better) | measured | aim | never below | CPU time, floor = 1 |\n| --- | --- | --- | --- | --- |",
            self.arguments.base.replace('-', " ")
        ));
        self.summary.iter().for_each(|line| section.line(line));
        section.finish(write)
    }
}

fn latencies(section: &mut Section, rounds: &Rounds, servers: &[Server], rate: f64) {
    section.line(&format!(
        "| HTTP/1.1 at {rate:.0} a second | CPU µs each | p50 ms | p99 ms | p99.9 ms |\n| --- | --- | --- | --- | --- |"
    ));
    for server in servers {
        let Some(outcomes) = outcomes(rounds, &server.name) else { continue };
        let (cost, done) = (of(outcomes, cost), of(outcomes, per_second));
        if done < rate * KEEPS_UP {
            section.line(&format!(
                "| {} | {cost:.1} | does not keep up: {done:.0} a second | – | – |",
                server.title
            ));
            continue;
        }
        section.line(&format!(
            "| {} | {cost:.1} | {:.2} | {:.2} | {:.2} |",
            server.title,
            of(outcomes, |outcome| outcome.p50),
            of(outcomes, |outcome| outcome.p99),
            of(outcomes, |outcome| outcome.p999),
        ));
    }
}

fn left_out(rounds: &Rounds, servers: &[Server]) -> String {
    let mut text = String::new();
    for server in servers {
        if let Some(why) = rounds.get(&server.name).and_then(|done| done.not.as_ref()) {
            text.push_str(&format!(" {} does not do it: {why}.", server.title));
        }
    }
    text
}

fn resumed(figure: Figure, outcomes: &[Outcome]) -> String {
    if figure != Figure::Resumed {
        return String::new();
    }
    let part = of(outcomes, |outcome| outcome.resumed as f64 / outcome.operations as f64);
    format!(" ({:.0}% resumed)", part * 100.0)
}

fn one(figure: Figure, server: &Server, pki: &Path, options: &[String]) -> anyhow::Result<Outcome> {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let outcome = load(figure.load().0, server, pki, &options)?;
    let failure = outcome.failure.clone().unwrap_or_default();
    ensure!(outcome.failures == 0, "{failure}");
    ensure!(outcome.operations > 0, "nothing came back");
    Ok(outcome)
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
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    ensure!(output.status.success(), "{}", last.unwrap_or("the load failed"));
    serde_json::from_slice(&output.stdout).with_context(|| format!("the load: {said}"))
}

pub(crate) fn load_command(mode: Mode, server: &Server, pki: &Path) -> anyhow::Result<Command> {
    let mut command = on_cores(LOAD, &myself()?);
    let mode = mode.to_possible_value().context("a mode without a name")?;
    command.arg("load").arg(mode.get_name()).arg(server.address.to_string()).arg(pki);
    command.args(["--pid", &server.pid().to_string()]);
    Ok(command)
}

/// KiB before, and for each connection.
pub(crate) fn weigh(server: &Server, pki: &Path, connections: usize) -> anyhow::Result<(u64, f64)> {
    load(Mode::H1, server, pki, &["--connections", "1", "--seconds", "0.1"])?;
    std::thread::sleep(Duration::from_secs(1));
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

fn of(outcomes: &[Outcome], value: fn(&Outcome) -> f64) -> f64 {
    median(outcomes.iter().map(value).collect())
}

fn cost(outcome: &Outcome) -> f64 {
    outcome.server as f64 / outcome.operations as f64
}

fn per_second(outcome: &Outcome) -> f64 {
    outcome.operations as f64 / outcome.seconds
}

/// Of every round, or none.
fn outcomes<'a>(rounds: &'a Rounds, name: &str) -> Option<&'a [Outcome]> {
    let done = rounds.get(name).filter(|done| done.not.is_none() && !done.outcomes.is_empty())?;
    Some(&done.outcomes)
}

/// Least, median and most of the base's cost to this one's, round by round; of the floor the other way round, for that is
/// how it is said.
fn ratios(
    rounds: &Rounds,
    base: &str,
    these: &[Outcome],
    higher_is_better: bool,
) -> Option<[f64; 3]> {
    let base = outcomes(rounds, base)?;
    let both = base.iter().zip(these);
    let mut ratios: Vec<f64> = both
        .map(|(base, this)| cost(base) / cost(this))
        .map(|better| if higher_is_better { better } else { 1.0 / better })
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    Some([*ratios.first()?, median(ratios.clone()), *ratios.last()?])
}

fn spread(ratios: &Option<[f64; 3]>) -> String {
    ratios.as_ref().map_or_else(
        || "–".to_owned(),
        |[least, ratio, most]| format!("**{ratio:.2}** ({least:.2}–{most:.2})"),
    )
}

pub(crate) fn memory(server: &Server) -> f64 {
    server.memory() as f64 / 1024.0
}

/// CPU seconds of a server so far.
pub(crate) fn used(server: &Server) -> f64 {
    process::cpu(server.pid()) as f64 / 1e6
}
