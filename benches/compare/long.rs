//! What needs more than one table: mappings by the thousand, hosts by the thousand, two cores, a long run.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use rcgen::{CertificateParams, KeyPair};

use crate::certmap::{self, Mappings};
use crate::load::{Mode, Outcome};
use crate::page::{Section, Verdict};
use crate::pki::{self, Kind};
use crate::process::Server;
use crate::table::{self, LOAD, SERVER, load, machine, median, memory, program};

#[derive(Args, Debug)]
struct Of {
    /// The program to measure
    #[arg(long, env = "CERTMAP_PROGRAM")]
    certmap: Option<PathBuf>,
    /// Put what was measured into docs/performance.md
    #[arg(long)]
    write: bool,
}

#[derive(Args, Debug)]
pub(crate) struct IdleArguments {
    #[command(flatten)]
    of: Of,
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
}

#[derive(Args, Debug)]
pub(crate) struct PoliciesArguments {
    #[command(flatten)]
    of: Of,
    #[arg(long, default_value_t = 100_000)]
    one_to_one: usize,
    #[arg(long, default_value_t = 10_000)]
    many_to_one: usize,
    #[arg(long, default_value_t = 11)]
    rounds: usize,
}

#[derive(Args, Debug)]
pub(crate) struct HostsArguments {
    #[command(flatten)]
    of: Of,
    #[arg(long, default_value_t = 10_000)]
    hosts: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Args, Debug)]
pub(crate) struct CoresArguments {
    #[command(flatten)]
    of: Of,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Args, Debug)]
pub(crate) struct SoakArguments {
    #[command(flatten)]
    of: Of,
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Of what one core can do
    #[arg(long, default_value_t = 0.7)]
    part: f64,
}

/// CPU time for each request with mappings, without = 1.
const POLICIES: f64 = 1.05;
/// CPU time of a handshake with many hosts, with one = 1; the KiB of one host; and seconds until all of them are served.
const HOSTS: f64 = 1.02;
const HOST: f64 = 20.0;
const START: f64 = 10.0;
/// What two cores get done, one = 1.
const CORES: f64 = 1.8;

/// Opens connections, turns the policy against them, and asks on each.
pub(crate) fn idle(arguments: &IdleArguments) -> anyhow::Result<()> {
    let (mut section, mut verdict) = (Section::new("idle"), Verdict::default());
    let (machine, count) = (machine(), arguments.connections);
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let manifests = certmap::manifests("manifests", &pki, backend.address, certmap::USUAL)?;
    let server =
        certmap::start("certmap", &program(arguments.of.certmap.as_ref())?, SERVER, &manifests)?;
    load(Mode::H1, &server, &pki, &["--connections", "1", "--seconds", "0.1"])?;
    let before = server.memory();
    let mut command = table::load_command(Mode::Idle, &server, &pki)?;
    command.args(["--connections", &count.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim() == "ready", "not every connection was accepted");
    let each = (server.memory() as f64 - before as f64) / count as f64;
    let policy = std::fs::read_to_string(manifests.join("policy.yaml"))?;
    let denied = policy.replace("{name: client, ", "{name: client, enabled: false, ");
    ensure!(denied != policy, "the mapping of the client is not found");
    let used = table::used(&server);
    std::fs::write(manifests.join("policy.yaml"), denied)?;
    std::thread::sleep(Duration::from_secs(5));
    let change = table::used(&server) - used;
    writeln!(child.stdin.take().context("no input")?, "again")?;
    line.clear();
    output.read_line(&mut line)?;
    child.wait()?;
    let outcome: Outcome = serde_json::from_str(&line)?;
    section.line(&format!(
        "{count} connections are {each:.1} KiB each (PSS). A policy is turned against them: {change:.2} s of CPU until it is in force; \
         asked again on each, {} are refused and {} admitted, in {:.2} s. {machine}.",
        outcome.failures, outcome.operations, outcome.seconds
    ));
    section.finish(arguments.of.write)?;
    verdict.at_most("KiB for an idle connection", each, table::IDLE);
    verdict.must(
        &format!("every connection judged anew: {:?}", outcome.failure),
        outcome.operations == 0 && outcome.failures as usize == count,
    );
    verdict.end()
}

/// Rounds that take turns; the median of their costs in microseconds, and of their ratios.
fn compare(
    servers: &[Server; 2],
    pki: &Path,
    rounds: usize,
    options: [&[&str]; 2],
    mode: Mode,
) -> anyhow::Result<([f64; 2], f64)> {
    let (mut costs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 0..=rounds {
        let mut both = [0.0; 2];
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for index in order {
            let (Some(server), Some(options)) = (servers.get(index), options.get(index)) else {
                continue;
            };
            let outcome = load(mode, server, pki, options)?;
            ensure!(outcome.failures == 0, "{}: {outcome:?}", server.name);
            if let Some(cost) = both.get_mut(index) {
                *cost = outcome.server as f64 / outcome.operations as f64;
            }
        }
        if round > 0 {
            ratios.push(both[1] / both[0]);
            costs[0].push(both[0]);
            costs[1].push(both[1]);
        }
    }
    let [first, second] = costs;
    Ok(([median(first), median(second)], median(ratios)))
}

pub(crate) fn policies(arguments: &PoliciesArguments) -> anyhow::Result<()> {
    let (mut section, mut verdict) = (Section::new("policies"), Verdict::default());
    let machine = machine();
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let program = program(arguments.of.certmap.as_ref())?;
    let none = Mappings { one_to_one: 0, many_to_one: 0 };
    let many = Mappings { one_to_one: arguments.one_to_one, many_to_one: arguments.many_to_one };
    let none = certmap::manifests("none", &pki, backend.address, none)?;
    let many = certmap::manifests("many", &pki, backend.address, many)?;
    let (none, start_of_none) = started("certmap-none", &program, &none)?;
    let (many, start_of_many) = started("certmap-many", &program, &many)?;
    let servers = [none, many];
    let rest = [memory(&servers[0]), memory(&servers[1])];
    let (costs, ratio) = compare(&servers, &pki, arguments.rounds, [&[], &[]], Mode::H1)?;
    section.line(
        "| HTTP/1.1 keep-alive | CPU µs each | start, s | MiB at rest |\n| --- | --- | --- | --- |",
    );
    section.line(&format!(
        "| everybody whose certificate verifies | {:.2} | {start_of_none:.2} | {:.1} |",
        costs[0], rest[0]
    ));
    section.line(&format!(
        "| {} one-to-one and {} many-to-one mappings | {:.2} | {start_of_many:.2} | {:.1} |",
        arguments.one_to_one, arguments.many_to_one, costs[1], rest[1]
    ));
    section.line(&format!(
        "\nThe ratio is {ratio:.3}, the median of {} rounds; at most {POLICIES} is allowed. {machine}.",
        arguments.rounds
    ));
    section.finish(arguments.of.write)?;
    verdict
        .must(&format!("mappings cost {ratio:.3} of none"), ratio <= 1.0 + (POLICIES - 1.0) * 1.2);
    verdict.end()
}

/// And the seconds until it accepts connections.
fn started(name: &str, program: &Path, manifests: &Path) -> anyhow::Result<(Server, f64)> {
    let begun = Instant::now();
    let server = certmap::start(name, program, SERVER, manifests)?;
    let took = begun.elapsed().as_secs_f64();
    // What reading took is given back to the system a little later.
    std::thread::sleep(Duration::from_secs(6));
    Ok((server, took))
}

pub(crate) fn hosts(arguments: &HostsArguments) -> anyhow::Result<()> {
    let (mut section, mut verdict) = (Section::new("hosts"), Verdict::default());
    let machine = machine();
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let program = program(arguments.of.certmap.as_ref())?;
    let one = certmap::manifests("one", &pki, backend.address, certmap::USUAL)?;
    let many = certmap::manifests("hosts", &pki, backend.address, certmap::USUAL)?;
    let policy = certmap::policy(&pki, certmap::USUAL)?;
    let (mut targets, mut policies) = (0, String::new());
    for chunk in 0..arguments.hosts.div_ceil(16) {
        let names: Vec<String> = (chunk * 16..arguments.hosts.min(chunk * 16 + 16))
            .map(|host| format!("{{group: networking.k8s.io, kind: Ingress, name: host-{host}}}"))
            .collect();
        targets += names.len();
        let policy = policy
            .replace(
                "{name: bench, namespace: bench}\nspec",
                &format!("{{name: hosts-{chunk}, namespace: bench}}\nspec"),
            )
            .replace("{group: networking.k8s.io, kind: Ingress, name: bench}", &names.join(", "));
        writeln!(policies, "{policy}---")?;
    }
    ensure!(targets == arguments.hosts, "a host has no policy");
    std::fs::write(many.join("policies.yaml"), policies)?;
    let mut text = String::new();
    for host in 0..arguments.hosts {
        let name = format!("host-{host}.test");
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.clone()])?.self_signed(&key)?;
        std::fs::write(pki.join("host.crt"), certificate.pem())?;
        std::fs::write(pki.join("host.key"), key.serialize_pem())?;
        text.push_str(&certmap::ingress(&format!("host-{host}"), &name, &format!("tls-{host}")));
        text.push_str(&certmap::secret(&format!("tls-{host}"), &pki, "host")?);
    }
    // The class is said once.
    let class = text.split_inclusive("---\n").next().unwrap_or_default().to_owned();
    std::fs::write(many.join("hosts.yaml"), text.replace(&class, ""))?;
    let (few, start_of_one) = started("certmap-one", &program, &one)?;
    let (many, start_of_many) = started("certmap-hosts", &program, &many)?;
    let servers = [few, many];
    let rest = [memory(&servers[0]), memory(&servers[1])];
    let hosts = arguments.hosts.to_string();
    let options: [&[&str]; 2] = [&[], &["--hosts", &hosts]];
    let (costs, ratio) = compare(&servers, &pki, arguments.rounds, options, Mode::Full)?;
    let each = (rest[1] - rest[0]) * 1024.0 / arguments.hosts as f64;
    section.line("| hosts | start, s | MiB at rest | full handshake and request, CPU µs |\n| --- | --- | --- | --- |");
    section.line(&format!("| 1 | {start_of_one:.2} | {:.1} | {:.0} |", rest[0], costs[0]));
    section.line(&format!("| {hosts} | {start_of_many:.2} | {:.1} | {:.0} |", rest[1], costs[1]));
    section.line(&format!(
        "\nThe ratio is {ratio:.3}, the median of {} rounds; a host takes {each:.1} KiB. {machine}.",
        arguments.rounds
    ));
    section.finish(arguments.of.write)?;
    verdict.at_most("CPU time of a handshake, with one host = 1", ratio, HOSTS);
    verdict.at_most("KiB a host", each, HOST);
    verdict.at_most("seconds until it serves", start_of_many, START);
    verdict.end()
}

/// The load shares the cores with a server that has both, so throughput says little: what is compared is the work that the
/// server gets done for each second of CPU that it is given, and how much of it both workers do.
pub(crate) fn cores(arguments: &CoresArguments) -> anyhow::Result<()> {
    let (mut section, mut verdict) = (Section::new("cores"), Verdict::default());
    let machine = machine();
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let program = program(arguments.of.certmap.as_ref())?;
    let manifests = certmap::manifests("manifests", &pki, backend.address, certmap::USUAL)?;
    let servers = [
        certmap::start("certmap-1", &program, SERVER, &manifests)?,
        certmap::start("certmap-2", &program, &format!("{SERVER},{LOAD}"), &manifests)?,
    ];
    section.line(
        "| load | one core: CPU µs each | two cores: CPU µs each | what two get done, one = 1 |\n| --- | --- | --- | --- |",
    );
    for (name, mode) in [("full handshakes", Mode::Full), ("HTTP/1.1", Mode::H1)] {
        let (costs, ratio) = compare(&servers, &pki, arguments.rounds, [&[], &[]], mode)?;
        let two = 2.0 / ratio;
        section.line(&format!("| {name} | {:.1} | {:.1} | {two:.2} |", costs[0], costs[1]));
        verdict.at_least(&format!("{name} on two cores, one = 1"), two, CORES);
    }
    let busy = busy(servers[1].pid());
    let busy: Vec<String> =
        busy.iter().map(|(name, seconds)| format!("{name} {seconds:.1}")).collect();
    section.line(&format!(
        "\nThe busiest threads of the server with two cores, in seconds of CPU: {}. {machine}.",
        busy.join(", ")
    ));
    section.finish(arguments.of.write)?;
    verdict.end()
}

/// CPU seconds of a process's threads, the busiest first.
fn busy(pid: u32) -> Vec<(String, f64)> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let used = read("schedstat").split(' ').next().and_then(|it| it.parse::<f64>().ok());
        threads.push((read("comm").trim().to_owned(), used.unwrap_or(0.0) / 1e9));
    }
    threads.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
    threads.truncate(4);
    threads
}

pub(crate) fn soak(arguments: &SoakArguments) -> anyhow::Result<()> {
    let (mut section, mut verdict) = (Section::new("soak"), Verdict::default());
    let machine = machine();
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let manifests = certmap::manifests("manifests", &pki, backend.address, certmap::USUAL)?;
    let server =
        certmap::start("certmap", &program(arguments.of.certmap.as_ref())?, SERVER, &manifests)?;
    let most = load(Mode::H1, &server, &pki, &["--seconds", "5"])?;
    let rate = most.operations as f64 / most.seconds * arguments.part;
    let mut command = table::load_command(Mode::Rate, &server, &pki)?;
    command.args(["--rate", &rate.to_string(), "--seconds", &arguments.seconds.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let (begun, mut edits, mut weights) = (Instant::now(), 0_u64, Vec::new());
    let every = (arguments.seconds / 20).max(1);
    while child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_secs(1));
        edit(&manifests, edits)?;
        if edits % every == 0 {
            let now = memory(&server);
            eprintln!("after {:.0} s: {now:.1} MiB", begun.elapsed().as_secs_f64());
            weights.push(now);
        }
        edits += 1;
    }
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let outcome: Outcome = serde_json::from_str(&line)?;
    let snapshots = generation(&server)?;
    // What a tenth of the time brought is what it takes to be at work.
    let settled = weights.get(weights.len() / 10).copied().unwrap_or(f64::NAN);
    let last = weights.last().copied().unwrap_or(f64::NAN);
    let most = weights.iter().copied().fold(f64::NAN, f64::max);
    section.line(&format!(
        "{} s at {rate:.0} requests a second ({:.0} % of what one core does), the policy edited each second: {edits} edits, {} requests, \
         {} failed; p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms. Memory (PSS) {settled:.1} MiB after a tenth of the time, {last:.1} MiB at \
         the end, {most:.1} MiB at most. {machine}.",
        arguments.seconds,
        arguments.part * 100.0,
        outcome.operations,
        outcome.failures,
        outcome.p50,
        outcome.p99,
        outcome.p999
    ));
    section.finish(arguments.of.write)?;
    verdict.must(&format!("no failure: {:?}", outcome.failure), outcome.failures == 0);
    verdict.at_most("memory at the end, settled = 1", last / settled, 1.0);
    verdict.must(
        &format!("the edits in force: {snapshots} snapshots of {edits} edits"),
        snapshots as f64 > edits as f64 * 0.8,
    );
    verdict.end()
}

/// The client stays who it is, and another mapping is renamed.
fn edit(manifests: &Path, number: u64) -> anyhow::Result<()> {
    let path = manifests.join("policy.yaml");
    let policy = std::fs::read_to_string(&path)?;
    let edited: Vec<String> = policy
        .lines()
        .map(|line| {
            let (before, renamed) = line.split_once("{name: r0").unwrap_or((line, ""));
            match renamed.split_once(',') {
                Some((_, rest)) => format!("{before}{{name: r0-{number},{rest}"),
                None => line.to_owned(),
            }
        })
        .collect();
    let new = manifests.join(".policy");
    std::fs::write(&new, edited.join("\n") + "\n")?;
    Ok(std::fs::rename(new, path)?)
}

/// How many snapshots have been in force, as the program's log says.
fn generation(server: &Server) -> anyhow::Result<usize> {
    let said = std::env::temp_dir().join("certmap-compare").join(format!("{}.log", server.name));
    Ok(std::fs::read_to_string(said)?.matches("a new snapshot is in force").count())
}
