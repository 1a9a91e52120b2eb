//! Clients that do not stop asking: Go's, over kept HTTP/1.1 and HTTP/2 connections and over a new one for each request.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::cluster::run;
use super::site::Site;

/// Between one client's requests.
const PAUSE: Duration = Duration::from_millis(2);

/// What is wrong with an answer.
pub(crate) type Judge = fn(&Value) -> Result<(), String>;

/// Clients at work.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Traffic {
    /// Three clients with Alice's certificate.
    pub(crate) fn start(site: &Site, host: &str, path: &str, judge: Judge) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = [&[][..], &["-http2"], &["-again"]].map(|further| {
            let mut command = Command::new(client());
            let at = format!("{}:{}", site.installed.address, site.installed.https);
            command.args(["-connect", &at, "-host", host]).args(further);
            let files = site.path();
            for (flag, file) in
                [("-ca", "server-ca.crt"), ("-cert", "alice.crt"), ("-key", "alice.key")]
            {
                command.arg(flag).arg(files.join(file));
            }
            let (stop, path) = (stop.clone(), path.to_owned());
            std::thread::spawn(move || ask(command, &path, judge, &stop))
        });
        Self { stop, clients: clients.into() }
    }

    /// Ends it. Every client must have got answers, and every answer must have been right.
    pub(crate) fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = 0;
        for client in self.clients {
            let (count, failures) = client.join().unwrap();
            let shown = &failures[..failures.len().min(5)];
            assert!(failures.is_empty(), "{} of {count} failed: {shown:#?}", failures.len());
            assert!(count > 20, "only {count} answers");
            all += count;
        }
        all
    }
}

/// An answer of 200 for the account that Alice is mapped to.
pub(crate) fn as_azureuser(answer: &Value) -> Result<(), String> {
    let body = answer["body"].as_str().unwrap_or_default();
    let right = answer["status"] == 200 && body.starts_with("user: azureuser\n");
    if right { Ok(()) } else { Err(answer.to_string()) }
}

fn ask(mut command: Command, path: &str, judge: Judge, stop: &AtomicBool) -> (usize, Vec<String>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut questions, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut answers = BufReader::new(answers).lines();
    let (mut count, mut failures) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        writeln!(questions, "{path}").unwrap();
        let answer = answers.next().unwrap().unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        count += 1;
        failures.extend(judge(&answer).err());
        std::thread::sleep(PAUSE);
    }
    drop(questions);
    child.wait().unwrap();
    (count, failures)
}

fn client() -> &'static Path {
    static CLIENT: OnceLock<PathBuf> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let program =
            std::env::temp_dir().join(format!("certmap-e2e-client-{}", std::process::id()));
        let (ok, text) = run(Command::new("go")
            .args(["-C", &format!("{}/tests/clients/go", env!("CARGO_MANIFEST_DIR"))])
            .args(["build", "-o"])
            .arg(&program)
            .arg("."));
        assert!(ok, "{text}");
        program
    })
}

/// Whether anybody listens there.
pub(crate) fn listens(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}
