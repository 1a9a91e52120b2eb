//! How long a client waits while others attack the server that it speaks to, at each server.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::flood::Flood;
use crate::load::Mode;
use crate::page::{Section, Verdict};
use crate::pki::{self, Kind};
use crate::process::{Server, myself, on_cores};
use crate::table::{self, LOAD, Wanted, load, machine, median};

/// Of the client that does no harm: connections, and requests a second.
const BYSTANDER: [&str; 4] = ["--connections", "8", "--rate", "500"];
/// An attack is under way before anybody else comes, and goes on when they are gone.
const BEFORE: Duration = Duration::from_millis(300);
/// In seconds: before, after, and until connections are there.
const AROUND: f64 = 1.5;
/// What a server may keep a client waiting, in quiet = 1; and what is nobody's doing, in milliseconds.
const MOST: f64 = 3.0;
const MACHINE: f64 = 5.0;

#[derive(Args, Debug)]
pub(crate) struct FloodsArguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Put what was measured into docs/performance.md
    #[arg(long)]
    write: bool,
    #[arg(long, value_enum, value_delimiter = ',')]
    floods: Vec<Flood>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// What each server's client waited in each round, in quiet and under each flood: the p99 in milliseconds.
type Waits = BTreeMap<(String, Option<&'static str>), Vec<f64>>;

pub(crate) fn run(arguments: &FloodsArguments) -> anyhow::Result<()> {
    let (mut section, mut verdict) = (Section::new("floods"), Verdict::default());
    let machine = machine();
    let (pki, backend) = (pki::make(Kind::Ec)?, table::backend()?);
    let servers = table::servers(&arguments.wanted, &pki, backend.address)?;
    let mut floods = arguments.floods.clone();
    if floods.is_empty() {
        floods = Flood::value_variants().to_vec();
    }
    let mut waits = Waits::new();
    for _ in 0..arguments.rounds {
        for flood in std::iter::once(None).chain(floods.iter().copied().map(Some)) {
            for server in &servers {
                let wait = wait(server, flood, &pki, arguments.seconds)?;
                let key = (server.name.clone(), flood.map(Flood::title));
                waits.entry(key).or_default().push(wait);
            }
        }
    }
    let of = |server: &Server, flood: Option<Flood>| {
        let key = (server.name.clone(), flood.map(Flood::title));
        median(waits.get(&key).cloned().unwrap_or_default())
    };
    let row = |title: &str, cell: &dyn Fn(&Server) -> String| {
        let cells: Vec<String> = servers.iter().map(cell).collect();
        format!("| {title} | {} |", cells.join(" | "))
    };
    section.line(&row("p99 of another client, ms (in quiet = 1)", &|server| server.title.clone()));
    section.line(&row("---", &|_| "---".to_owned()));
    section.line(&row("in quiet", &|server| format!("{:.2}", of(server, None))));
    for flood in floods {
        let cell = |server: &Server| {
            let (wait, quiet) = (of(server, Some(flood)), of(server, None));
            if server.name == "certmap" {
                let what = format!("ms that another waits while there are {}", flood.title());
                verdict.at_most(&what, wait, MACHINE.max(quiet * MOST));
            }
            format!("{wait:.2} ({:.1})", wait / quiet)
        };
        let cells: Vec<String> = servers.iter().map(cell).collect();
        section.line(&format!("| {} | {} |", flood.title(), cells.join(" | ")));
    }
    section.line(&format!(
        "\n{machine}, {} rounds of {} s each.",
        arguments.rounds, arguments.seconds
    ));
    section.finish(arguments.write)?;
    verdict.end()
}

/// What a client waits while this goes on.
fn wait(server: &Server, flood: Option<Flood>, pki: &Path, seconds: f64) -> anyhow::Result<f64> {
    let attack = flood.map(|flood| attack(server, flood, pki, seconds + AROUND)).transpose()?;
    let seconds = seconds.to_string();
    let outcome =
        load(Mode::Rate, server, pki, &[&BYSTANDER[..], &["--seconds", &seconds]].concat());
    if let Some(attack) = attack {
        let done = attack.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{}: {flood:?}: {said}", server.name);
    }
    let outcome = outcome.with_context(|| format!("{}: {flood:?}", server.name))?;
    ensure!(outcome.failures == 0, "{}: {flood:?}: {outcome:?}", server.name);
    Ok(outcome.p99)
}

/// Attackers run when nobody else on their core wants to: they are still more than a server can bear, as if each were a machine.
fn attack(server: &Server, flood: Flood, pki: &Path, seconds: f64) -> anyhow::Result<Child> {
    let mut command = on_cores(LOAD, Path::new("chrt"));
    let flood = flood.to_possible_value().context("a flood without a name")?;
    command.args(["--idle", "0"]).arg(myself()?).arg("flood").arg(flood.get_name());
    command.arg(server.address.to_string()).arg(pki).args(["--seconds", &seconds.to_string()]);
    let attack = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    std::thread::sleep(BEFORE);
    Ok(attack)
}
