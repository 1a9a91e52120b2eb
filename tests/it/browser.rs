//! Chromium with a client certificate out of its NSS database, chosen by policy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::support::manifests::{ingress, policy, route_policy};
use super::support::origin::{Origin, answer};
use super::support::{REQUIRE, Site, run};

/// What is managed is so for every browser of the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MANAGED: &str = "/etc/chromium/policies/managed/certmap-test.json";

/// A home directory in which alice's certificate and the server's CA are known.
fn home(site: &Site) -> PathBuf {
    let home = site.path("home");
    let database = home.join(".pki/nssdb");
    std::fs::create_dir_all(&database).unwrap();
    let database = format!("sql:{}", database.display());
    let must = |command: &mut Command| {
        let (ok, text) = run(command);
        assert!(ok, "{command:?}: {text}");
    };
    must(Command::new("certutil").args(["-N", "--empty-password", "-d", &database]));
    must(
        Command::new("certutil")
            .args(["-A", "-n", "server-ca", "-t", "C,,", "-d", &database, "-i"])
            .arg(site.path("server-ca.crt")),
    );
    let p12 = site.path("alice.p12");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["pkcs12", "-export", "-passout", "pass:x", "-name", "alice", "-in"])
        .arg(site.path("alice.crt"));
    must(openssl.arg("-inkey").arg(site.path("alice.key")).arg("-out").arg(&p12));
    must(Command::new("pk12util").args(["-d", &database, "-W", "x", "-i"]).arg(&p12));
    home
}

/// The page as the browser shows it.
fn page(home: &Path, url: &str, https: u16) -> String {
    let mut chromium = Command::new("timeout");
    chromium.args([
        "60",
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
    ]);
    chromium.args([
        &format!("--host-resolver-rules=MAP *.test:443 127.0.0.1:{https}"),
        "--no-proxy-server",
    ]);
    chromium.arg(format!("--user-data-dir={}", home.join("profile").display()));
    run(chromium.args(["--dump-dom", url]).env("HOME", home)).1
}

struct Managed;

impl Managed {
    /// Which certificate is sent without asking anybody.
    fn install() -> Self {
        std::fs::create_dir_all(Path::new(MANAGED).parent().unwrap())
            .expect("managed policies need root");
        let select = r#"{"AutoSelectCertificateForUrls": ["{\"pattern\":\"https://app.test\",\"filter\":{}}"]}"#;
        std::fs::write(MANAGED, select).unwrap();
        Self
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        drop(std::fs::remove_file(MANAGED));
    }
}

#[test]
#[ignore = "needs Chromium, certutil and root; .ci/run runs it"]
fn the_story_in_a_browser() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let site = Site::with_alice(REQUIRE);
    let server = site.start();
    let home = home(&site);
    let managed = Managed::install();
    let dom = page(&home, "https://app.test/", server.https.port());
    assert!(dom.contains("azureuser"), "{dom}");
    server.edit(
        "policy.yaml",
        &policy(
            "app",
            "app",
            &site.alice_spec(REQUIRE).replace("userName: azureuser", "userName: test"),
        ),
    );
    let dom = page(&home, "https://app.test/", server.https.port());
    assert!(dom.contains("\"user\":\"test\""), "{dom}");
    drop(managed);
    let other = super::support::pki::Ca::new("Elsewhere");
    server.edit(
        "trust.yaml",
        &super::support::manifests::config_map("corporate-ca", "ca.crt", &other.pem()),
    );
    let dom = page(&home, "https://app.test/", server.https.port());
    assert!(dom.contains("403.7"), "no certificate of the advertised CAs, none sent: {dom}");
}

/// Asks app.test as a script of open.test, and writes down what it gets.
const SCRIPT: &str = "<!doctype html><script>
const ask = (method, path) => {
  const request = new XMLHttpRequest();
  request.open(method, 'https://app.test' + path, false);
  request.withCredentials = true;
  request.setRequestHeader('X-Token', '1');
  try { request.send(); } catch { return 'blocked'; }
  return request.status + ' ' + request.getResponseHeader('X-Total') + ' ' + request.responseText;
};
document.write('<p>PUT ' + ask('PUT', '/') + '<p>DELETE ' + ask('DELETE', '/'));
</script>";

#[test]
#[ignore = "needs Chromium, certutil and root; .ci/run runs it"]
fn a_script_of_another_site_asks_with_the_certificate_where_the_route_lets_it() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let site = Site::with_alice(REQUIRE);
    let kind = "Content-Type: text/html\r\n";
    let origin = Origin::start(&[("/", answer("200 OK", kind, SCRIPT.as_bytes()))]);
    site.write("origin.yaml", &origin.manifest("origin"));
    site.write("open.yaml", &ingress("open", "open.test", "/", "origin"));
    let cors = "cors: {allowOrigins: ['https://*.open.test'], allowMethods: [PUT], allowCredentials: true}";
    site.write("route.yaml", &route_policy("app", "app", cors));
    let server = site.start();
    let home = home(&site);
    let _managed = Managed::install();
    let blocked = page(&home, "https://open.test/", server.https.port());
    assert!(blocked.contains("PUT blocked"), "*.open.test is not open.test: {blocked}");
    let cors = cors.replace("*.open.test", "open.test");
    let spec = format!(
        "{}\nresponseHeaders: {{set: [{{name: X-Total, value: '7'}}]}}",
        cors.replace("allowMethods", "exposeHeaders: [X-Total], allowMethods")
    );
    server.edit("route.yaml", &route_policy("app", "app", &spec));
    let dom = page(&home, "https://open.test/", server.https.port());
    assert!(dom.contains("PUT 200 7") && dom.contains("\"user\":\"azureuser\""), "{dom}");
    assert!(dom.contains("DELETE blocked"), "not among the methods: {dom}");
}
