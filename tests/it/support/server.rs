//! The program under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::{cores, write_whole};

/// Waiting for something that should be quick.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    child: Child,
    manifests: PathBuf,
    log: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(manifests: &Path, log: &Path, format: &str) -> Self {
        Self::start_with(manifests, log, format, &[])
    }

    pub(crate) fn start_with(manifests: &Path, log: &Path, format: &str, further: &[&str]) -> Self {
        let any = "127.0.0.1:0";
        let mut child = cores::program()
            .args([
                "run",
                "--http",
                any,
                "--https",
                any,
                "--admin",
                any,
                "--access-log-format",
                format,
            ])
            .arg("--manifests")
            .arg(manifests)
            .arg("--access-log")
            .arg(log)
            .args(further)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = mpsc::channel();
        let (stderr, heard) = (child.stderr.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line.clone());
                if line.starts_with("listening ") {
                    drop(tell.send(line));
                }
            }
        });
        let line = told
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("it does not start: {:#?}", said.lock().unwrap()));
        let address = |name: &str| {
            let part =
                line.split(' ').find_map(|part| part.strip_prefix(&format!("{name}="))).unwrap();
            part.split(',').next().unwrap().parse().unwrap()
        };
        let (http, https, admin) = (address("http"), address("https"), address("admin"));
        Self {
            child,
            manifests: manifests.to_owned(),
            log: log.to_owned(),
            http,
            https,
            admin,
            said,
        }
    }

    /// GET on the admin port: status and body.
    pub(crate) fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// A number of /metrics.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
    }

    /// Of /proc/PID/status, in KiB: `VmRSS` and the like.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    pub(crate) fn generation(&self) -> u64 {
        let snapshot: serde_json::Value = serde_json::from_str(&self.admin("/snapshot").1).unwrap();
        snapshot["generation"].as_u64().unwrap()
    }

    /// Writes a manifest and waits until it is in force; says how long that took.
    pub(crate) fn edit(&self, name: &str, text: &str) -> Duration {
        self.change(|manifests| write_whole(&manifests.join(name), text))
    }

    pub(crate) fn delete(&self, name: &str) -> Duration {
        self.change(|manifests| std::fs::remove_file(manifests.join(name)).unwrap())
    }

    fn change(&self, change: impl FnOnce(&Path)) -> Duration {
        let before = self.generation();
        let started = Instant::now();
        change(&self.manifests);
        wait("a new generation", || self.generation() > before);
        started.elapsed()
    }

    /// The access log's lines, once there is one that fits.
    pub(crate) fn logged(&self, fits: impl Fn(&str) -> bool) -> String {
        let mut found = None;
        wait("a line of the access log", || {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            found = text.lines().rev().find(|line| fits(line)).map(str::to_owned);
            found.is_some()
        });
        found.unwrap()
    }

    /// Every address of a listener.
    pub(crate) fn addresses(&self, listener: &str) -> Vec<SocketAddr> {
        let said = self.said.lock().unwrap();
        let line = said.iter().find(|line| line.starts_with("listening ")).unwrap();
        let prefix = format!("{listener}=");
        let part = line.split(' ').find_map(|part| part.strip_prefix(&prefix)).unwrap();
        part.split(',').map(|address| address.parse().unwrap()).collect()
    }

    /// A line of standard error that holds all of these.
    pub(crate) fn said(&self, parts: &[&str]) {
        let says = |line: &String| parts.iter().all(|part| line.contains(part));
        wait(&format!("a line with {parts:?}"), || self.said.lock().unwrap().iter().any(says));
    }

    /// Everything that it said on standard error.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Octets of memory that it occupies.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// SIGTERM; it must end of itself, and well.
    pub(crate) fn terminate(&self) {
        let killed =
            Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
    }

    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        wait("the end", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for a condition; fails in its name.
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
