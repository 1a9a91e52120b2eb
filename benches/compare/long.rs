//! What needs more than one table: mappings by the thousand, hosts by the thousand, two cores, a long run.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use rcgen::{CertificateParams, KeyPair};

use crate::certmap::{self, Mappings};
use crate::load::{Mode, Outcome};
use crate::pki::{self, Kind};
use crate::process::{self, Server};
use crate::table::{self, LOAD, SERVER, load, machine, median, memory, program};

#[derive(Args, Debug)]
pub(crate) struct IdleArguments {
    #[arg(long, env = "CERTMAP_PROGRAM")]
    certmap: Option<PathBuf>,
    #[arg(long, default_value_t = 9000)]
    connections: usize,
}

#[derive(Args, Debug)]
pub(crate) struct PoliciesArguments {
    #[arg(long, env = "CERTMAP_PROGRAM")]
    certmap: Option<PathBuf>,
    #[arg(long, default_value_t = 100_000)]
    one_to_one: usize,
    #[arg(long, default_value_t = 10_000)]
    many_to_one: usize,
    #[arg(long, default_value_t = 11)]
    rounds: usize,
}

#[derive(Args, Debug)]
pub(crate) struct HostsArguments {
    #[arg(long, env = "CERTMAP_PROGRAM")]
    certmap: Option<PathBuf>,
    #[arg(long, default_value_t = 10_000)]
    hosts: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Args, Debug)]
pub(crate) struct CoresArguments {
    #[arg(long, env = "CERTMAP_PROGRAM")]
    certmap: Option<PathBuf>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

#[derive(Args, Debug)]
pub(crate) struct SoakArguments {
    #[arg(long, env = "CERTMAP_PROGRAM")]
    certmap: Option<PathBuf>,
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Of what one core can do
    #[arg(long, default_value_t = 0.7)]
    part: f64,
}

/// Opens connections, turns the policy against them, and asks on each.
pub(crate) fn idle(arguments: &IdleArguments) -> anyhow::Result<()> {
    println!("{}\n", machine());
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let manifests = certmap::manifests("manifests", &pki, backend.address, certmap::USUAL)?;
    let server =
        certmap::start("certmap", &program(arguments.certmap.as_ref())?, SERVER, &manifests)?;
    let before = server.memory();
    let mut command = table::load_command(Mode::Idle, &server, &pki)?;
    command.args(["--connections", &arguments.connections.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim() == "ready", "not every connection was accepted");
    let each = (server.memory() as f64 - before as f64) / arguments.connections as f64;
    println!(
        "{} connections: {each:.1} KiB each (PSS), {:.1} MiB at rest",
        arguments.connections,
        before as f64 / 1024.0
    );
    let policy = std::fs::read_to_string(manifests.join("policy.yaml"))?;
    let denied = policy.replace("{name: client, ", "{name: client, enabled: false, ");
    ensure!(denied != policy, "the mapping of the client is not found");
    let used = table::used(&server);
    std::fs::write(manifests.join("policy.yaml"), denied)?;
    std::thread::sleep(Duration::from_secs(5));
    println!(
        "after the policy changed, before anybody asked: {:.3} s of CPU",
        table::used(&server) - used
    );
    writeln!(child.stdin.take().context("no input")?, "again")?;
    line.clear();
    output.read_line(&mut line)?;
    child.wait()?;
    let outcome: Outcome = serde_json::from_str(&line)?;
    println!(
        "asked again on each: {} refused, {} admitted, in {:.2} s; {:?}",
        outcome.failures, outcome.operations, outcome.seconds, outcome.failure
    );
    ensure!(
        outcome.operations == 0 && outcome.failures as usize == arguments.connections,
        "not all of them were judged anew"
    );
    Ok(())
}

/// Rounds that take turns; the median of their costs in microseconds, and of their ratios.
fn compare(
    servers: &[Server; 2],
    pki: &std::path::Path,
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
    println!("{}\n", machine());
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let program = program(arguments.certmap.as_ref())?;
    let none = Mappings { one_to_one: 0, many_to_one: 0 };
    let many = Mappings { one_to_one: arguments.one_to_one, many_to_one: arguments.many_to_one };
    let none = certmap::manifests("none", &pki, backend.address, none)?;
    let many = certmap::manifests("many", &pki, backend.address, many)?;
    let servers = [
        certmap::start("certmap-none", &program, SERVER, &none)?,
        certmap::start("certmap-many", &program, SERVER, &many)?,
    ];
    println!("| HTTP/1.1 keep-alive | CPU µs each | MiB at rest |\n| --- | --- | --- |");
    let rest = [memory(&servers[0]), memory(&servers[1])];
    let (costs, ratio) = compare(&servers, &pki, arguments.rounds, [&[], &[]], Mode::H1)?;
    println!("| everybody whose certificate verifies | {:.2} | {:.1} |", costs[0], rest[0]);
    println!(
        "| {} one-to-one and {} many-to-one mappings | {:.2} | {:.1} |\n\nratio, median of {} rounds: {ratio:.3}",
        arguments.one_to_one, arguments.many_to_one, costs[1], rest[1], arguments.rounds
    );
    Ok(())
}

pub(crate) fn hosts(arguments: &HostsArguments) -> anyhow::Result<()> {
    println!("{}\n", machine());
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let program = program(arguments.certmap.as_ref())?;
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
    let begun = Instant::now();
    let few = certmap::start("certmap-one", &program, SERVER, &one)?;
    let start_of_one = begun.elapsed();
    let begun = Instant::now();
    let servers = [few, certmap::start("certmap-hosts", &program, SERVER, &many)?];
    let start_of_many = begun.elapsed();
    let rest = [memory(&servers[0]), memory(&servers[1])];
    let hosts = arguments.hosts.to_string();
    let options: [&[&str]; 2] = [&[], &["--hosts", &hosts]];
    let (costs, ratio) = compare(&servers, &pki, arguments.rounds, options, Mode::Full)?;
    println!(
        "| hosts | start, s | MiB at rest | full handshake and request, CPU µs |\n| --- | --- | --- | --- |"
    );
    println!("| 1 | {:.2} | {:.1} | {:.0} |", start_of_one.as_secs_f64(), rest[0], costs[0]);
    println!("| {hosts} | {:.2} | {:.1} | {:.0} |", start_of_many.as_secs_f64(), rest[1], costs[1]);
    println!(
        "\nratio, median of {} rounds: {ratio:.3}; {:.1} KiB a host",
        arguments.rounds,
        (rest[1] - rest[0]) * 1024.0 / arguments.hosts as f64
    );
    Ok(())
}

/// The load shares the cores with a server that has both, so throughput says little: what is compared is the work that the
/// server gets done for each second of CPU that it is given, and how much of it both workers do.
pub(crate) fn cores(arguments: &CoresArguments) -> anyhow::Result<()> {
    println!("{}\n", machine());
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let program = program(arguments.certmap.as_ref())?;
    let manifests = certmap::manifests("manifests", &pki, backend.address, certmap::USUAL)?;
    let servers = [
        certmap::start("certmap-1", &program, SERVER, &manifests)?,
        certmap::start("certmap-2", &program, &format!("{SERVER},{LOAD}"), &manifests)?,
    ];
    println!(
        "| load | one core: CPU µs each | two cores: CPU µs each | operations for each second of CPU, one = 1 |\n| --- | --- | --- | --- |"
    );
    for (name, mode) in [("full handshakes", Mode::Full), ("HTTP/1.1", Mode::H1)] {
        let (costs, ratio) = compare(&servers, &pki, arguments.rounds, [&[], &[]], mode)?;
        println!(
            "| {name} | {:.1} | {:.1} | {:.2} (so {:.2} for two) |",
            costs[0],
            costs[1],
            1.0 / ratio,
            2.0 / ratio
        );
    }
    let busy = busy(servers[1].pid());
    println!("\nCPU seconds of the two-core server's busiest threads: {busy:?}");
    Ok(())
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
    println!("{}\n", machine());
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let manifests = certmap::manifests("manifests", &pki, backend.address, certmap::USUAL)?;
    let server =
        certmap::start("certmap", &program(arguments.certmap.as_ref())?, SERVER, &manifests)?;
    let most = load(Mode::H1, &server, &pki, &["--seconds", "5"])?;
    let rate = most.operations as f64 / most.seconds * arguments.part;
    println!(
        "{:.0} requests a second at most; {rate:.0} for {} s",
        most.operations as f64 / most.seconds,
        arguments.seconds
    );
    let mut command = table::load_command(Mode::Rate, &server, &pki)?;
    command.args(["--rate", &rate.to_string(), "--seconds", &arguments.seconds.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let policy = std::fs::read_to_string(manifests.join("policy.yaml"))?;
    let (begun, mut edits, mut weights) = (Instant::now(), 0_u64, Vec::new());
    while child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_secs(1));
        edits += 1;
        // The client stays who it is, and another mapping comes and goes.
        let edited = policy.replace("userName: unit1}", &format!("userName: edit{edits}}}"));
        let (new, path) = (manifests.join(".policy"), manifests.join("policy.yaml"));
        std::fs::write(&new, edited)?;
        std::fs::rename(new, path)?;
        if edits % 30 == 1 {
            let now = memory(&server);
            println!(
                "after {:>4.0} s: {now:.1} MiB, {:.1} s of CPU",
                begun.elapsed().as_secs_f64(),
                table::used(&server)
            );
            weights.push(now);
        }
    }
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let outcome: Outcome = serde_json::from_str(&line)?;
    println!(
        "{edits} edits, {} requests, {} failed, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
        outcome.operations, outcome.failures, outcome.p50, outcome.p99, outcome.p999
    );
    ensure!(outcome.failures == 0, "requests failed: {:?}", outcome.failure);
    let _last = process::cpu(server.pid());
    Ok(())
}
