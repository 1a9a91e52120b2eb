//! Servers as processes: started on a core, weighed, ended.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// Raises the limit of open files as far as it goes, and stays on its cores.
const ON_CORES: &str = "ulimit -n \"$(ulimit -Hn)\"; exec taskset -c \"$0\" \"$@\"";
/// Of the kernel's clock that CPU times are told in.
const TICKS: u64 = 100;

/// A server under test, or the backend.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    /// As a table names it.
    pub(crate) title: String,
    pub(crate) address: SocketAddr,
    child: Child,
}

/// A place for files that does not outlive the next run.
pub(crate) fn scratch(name: &str) -> anyhow::Result<PathBuf> {
    let directory = std::env::temp_dir().join("certmap-compare").join(name);
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The files of a directory, in another that may have to be made.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)?.flatten() {
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// This program with other arguments.
pub(crate) fn myself() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?)
}

/// An address on which nobody listens.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A command that will stay on these cores.
pub(crate) fn on_cores(cores: &str, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", ON_CORES, cores]).arg(program).stdin(Stdio::null());
    command
}

impl Server {
    /// Starts it and waits until it accepts connections; what it says is in a file of its name.
    pub(crate) fn start(
        name: &str,
        address: SocketAddr,
        mut command: Command,
    ) -> anyhow::Result<Self> {
        let said = std::env::temp_dir().join("certmap-compare").join(format!("{name}.log"));
        let file = std::fs::File::create(&said)?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let mut server = Self { name: name.to_owned(), title: name.to_owned(), address, child };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                let mut text = String::new();
                std::fs::File::open(&said)?.read_to_string(&mut text)?;
                bail!("{name} ended ({status}): {text}");
            }
            ensure!(begun.elapsed() < Duration::from_secs(120), "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub(crate) fn titled(mut self, title: String) -> Self {
        self.title = title;
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Proportional set size of its processes, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        tree(self.pid()).into_iter().map(|pid| pss(pid).unwrap_or(0)).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.pid().to_string();
        drop(Command::new("kill").args(["-TERM", &pid]).status());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Microseconds of CPU that a process and those below it have used.
pub(crate) fn cpu(pid: u32) -> u64 {
    tree(pid).into_iter().filter_map(ticks).sum::<u64>() * (1_000_000 / TICKS)
}

fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A program's name may hold anything, and ends with the last parenthesis.
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn ticks(pid: u32) -> Option<u64> {
    let fields = stat(pid)?;
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn tree(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let parent = pid.and_then(stat).and_then(|fields| fields.get(1)?.parse::<u32>().ok());
        parents.extend(pid.zip(parent));
    }
    let mut found = vec![root];
    let mut index = 0;
    while let Some(&parent) = found.get(index) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        index += 1;
    }
    found
}

fn pss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
