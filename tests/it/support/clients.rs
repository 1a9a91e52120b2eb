//! Real clients: curl, openssl, Go, Python.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::tls::Reply;
use super::{Site, run};

/// Whose certificate a client sends: `-` for none.
pub(crate) type Who<'a> = &'a str;

/// curl's answer; `further` are options.
pub(crate) fn curl(
    site: &Site,
    https: SocketAddr,
    who: Who<'_>,
    url_host: &str,
    path: &str,
    further: &[&str],
) -> Reply {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--max-time", "20"]).arg("--cacert").arg(site.path("server-ca.crt"));
    command.args(["--connect-to", &format!("::127.0.0.1:{}", https.port())]);
    if who != "-" {
        command
            .arg("--cert")
            .arg(site.path(&format!("{who}.crt")))
            .arg("--key")
            .arg(site.path(&format!("{who}.key")));
    }
    let (_, text) = run(command.args(further).arg(format!("https://{url_host}{path}")));
    parse(&text)
}

/// curl over plain http.
pub(crate) fn curl_http(http: SocketAddr, host: &str, path: &str, further: &[&str]) -> Reply {
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "-i",
        "--max-time",
        "20",
        "--connect-to",
        &format!("::127.0.0.1:{}", http.port()),
    ]);
    let (_, text) = run(command.args(further).arg(format!("http://{host}{path}")));
    parse(&text)
}

fn parse(text: &str) -> Reply {
    // The last head counts: curl shows each, such as that of a 100.
    let (mut head, mut body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    while body.starts_with("HTTP/") {
        (head, body) = body.split_once("\r\n\r\n").unwrap_or((body, ""));
    }
    let status =
        head.split(' ').nth(1).and_then(|status| status.get(..3)?.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// What `openssl s_client` prints for one request.
pub(crate) fn s_client(
    site: &Site,
    https: SocketAddr,
    who: Who<'_>,
    host: &str,
    further: &[&str],
) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &https.to_string(), "-servername", host, "-ign_eof"]);
    command.arg("-CAfile").arg(site.path("server-ca.crt"));
    if who != "-" {
        command
            .arg("-cert")
            .arg(site.path(&format!("{who}.crt")))
            .arg("-key")
            .arg(site.path(&format!("{who}.key")));
    }
    command.args(further).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl is needed for this test");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    // It may have given up by then: what it says of that is in its output.
    drop(child.stdin.take().unwrap().write_all(request.as_bytes()));
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Python's two answers, the second one perhaps resumed; and those to three bodies.
pub(crate) fn python(
    site: &Site,
    https: SocketAddr,
    who: Who<'_>,
    host: &str,
    version: &str,
) -> Vec<Value> {
    let file = |kind: &str| {
        if who == "-" { PathBuf::from("-") } else { site.path(&format!("{who}.{kind}")) }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/client.py");
    let mut command = Command::new("python3");
    command.arg(script).args([&https.port().to_string(), host]).arg(site.path("server-ca.crt"));
    let (ok, text) = run(command.arg(version).arg(file("crt")).arg(file("key")));
    assert!(ok, "{text}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// A Go client that keeps its connection.
pub(crate) struct Go {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Go {
    pub(crate) fn start(
        site: &Site,
        https: SocketAddr,
        who: Who<'_>,
        host: &str,
        further: &[&str],
    ) -> Self {
        let mut command = Command::new(go_client());
        command
            .args(["-connect", &https.to_string(), "-host", host])
            .arg("-ca")
            .arg(site.path("server-ca.crt"));
        if who != "-" {
            command
                .arg("-cert")
                .arg(site.path(&format!("{who}.crt")))
                .arg("-key")
                .arg(site.path(&format!("{who}.key")));
        }
        let mut child =
            command.args(further).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    pub(crate) fn get(&mut self, path: &str) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{path}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Built once for all tests.
fn go_client() -> &'static Path {
    static CLIENT: OnceLock<PathBuf> = OnceLock::new();
    CLIENT.get_or_init(|| go_program("go"))
}

/// A program of tests/clients.
pub(crate) fn go_program(folder: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(folder);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{folder}-client"));
    let (ok, text) =
        run(Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(source));
    assert!(ok, "go cannot build {folder}: {text}");
    program
}

/// The dotted code in a page, or the status.
pub(crate) fn code(answer: &Value) -> String {
    let status = u16::try_from(answer["status"].as_u64().unwrap_or(0)).unwrap();
    let body = answer["body"].as_str().unwrap_or_default().to_owned();
    Reply { status, head: String::new(), body }.code()
}

/// Who the backend was told it is.
pub(crate) fn user(answer: &Value) -> String {
    let told: Value =
        serde_json::from_str(answer["body"].as_str().unwrap_or_default()).unwrap_or_default();
    told["user"].as_str().unwrap_or("-").to_owned()
}
