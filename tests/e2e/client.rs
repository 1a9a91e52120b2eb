//! curl, from outside of the cluster.

use std::path::Path;
use std::process::Command;

use super::cluster::run;
use super::install::Installed;

/// An answer in short.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The dotted code of a refusal, or the bare status; "0" where nobody answered.
    pub(crate) fn code(&self) -> String {
        let in_page = self.body.split("<title>").nth(1).and_then(|rest| rest.split(' ').next());
        in_page.map_or_else(|| self.status.to_string(), str::to_owned)
    }

    /// Whom the backend was told of; "-" for nobody.
    pub(crate) fn user(&self) -> &str {
        self.body.strip_prefix("user: ").and_then(|rest| rest.lines().next()).unwrap_or_default()
    }

    /// Which pod, and which of its ports, served it.
    pub(crate) fn served_by(&self) -> &str {
        let header = self.head.lines().find_map(|line| line.strip_prefix("x-served-by: "));
        header.unwrap_or_default()
    }

    /// The port alone.
    pub(crate) fn port(&self) -> &str {
        self.served_by().rsplit(':').next().unwrap_or_default()
    }
}

/// A request over TLS; `who` names files `who.crt` and `who.key` in `files`, `-` for nobody. With `server-ca.crt` there the
/// server's certificate is checked.
pub(crate) fn curl(
    installed: &Installed,
    files: &Path,
    who: &str,
    host: &str,
    path: &str,
    further: &[&str],
) -> Reply {
    let mut command = command(installed, installed.https);
    let ca = files.join("server-ca.crt");
    if ca.exists() {
        command.arg("--cacert").arg(ca)
    } else {
        command.arg("--insecure")
    };
    if who != "-" {
        command.arg("--cert").arg(files.join(format!("{who}.crt")));
        command.arg("--key").arg(files.join(format!("{who}.key")));
    }
    reply(command.args(further).arg(format!("https://{host}{path}")))
}

/// A request over plain http.
pub(crate) fn curl_http(installed: &Installed, host: &str, path: &str, further: &[&str]) -> Reply {
    reply(command(installed, installed.http).args(further).arg(format!("http://{host}{path}")))
}

fn command(installed: &Installed, port: u16) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--path-as-is", "--max-time", "10"]);
    command.args(["--connect-to", &format!("::{}:{port}", installed.address)]);
    command
}

fn reply(command: &mut Command) -> Reply {
    let (_, text) = run(command);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.get(..3)?.parse().ok());
    Reply { status: status.unwrap_or(0), head: head.to_ascii_lowercase(), body: body.to_owned() }
}
