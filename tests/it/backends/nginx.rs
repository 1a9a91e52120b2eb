//! nginx as the backend: files, uploads that it does not want, connections that it closes when it has had enough; with
//! curl, and with h2load as a client that sends many requests at a time.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::super::support::clients::curl;
use super::super::support::manifests::service;
use super::super::support::server::{Server, wait};
use super::super::support::{REQUIRE, Site, run};
use super::MIB;

/// It serves one folder, and closes each connection after a few requests.
struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    fn start(site: &Site) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = site.path("nginx");
        std::fs::create_dir_all(folder.join("files")).unwrap();
        let here = folder.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {here}/{name};"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n{temporary} access_log {here}/access.log; sendfile on; keepalive_requests 7;\n\
             client_max_body_size 64k;\n\
             server {{ listen 127.0.0.1:{port}; root {here}/files; gzip on; gzip_types text/plain;\n\
             location /who {{ return 200 \"$http_x_remote_user $http_host $http_x_forwarded_proto\"; }}\n\
             absolute_redirect off; location /moved {{ return 302 /who; }}\n}}\n}}\n"
        );
        std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
        // Debian puts it where not everybody looks.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("env");
        command.arg(format!("PATH={path}")).arg("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf"));
        let child = command.stderr(Stdio::null()).spawn().expect("nginx is needed for this test");
        let nginx = Self { child, port };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait("nginx listens", || TcpStream::connect(address).is_ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn site() -> (Site, Nginx, Server) {
    let site = Site::with_alice(REQUIRE);
    let nginx = Nginx::start(&site);
    site.write("backend.yaml", &service("echo", &[nginx.port]));
    let server = site.start();
    (site, nginx, server)
}

#[test]
fn nginx_learns_who_is_calling_and_its_answers_come_back_whole() {
    let (site, _nginx, server) = site();
    let large: Vec<u8> = (0..16 * MIB).map(|at| ((at * at) >> 7) as u8).collect();
    std::fs::write(site.path("nginx/files/large"), &large).unwrap();
    std::fs::write(site.path("nginx/files/text.txt"), "all work and no play\n".repeat(5000))
        .unwrap();
    for http in ["--http1.1", "--http2"] {
        let get = |path: &str, further: &[&str]| {
            curl(&site, server.https, "alice", "app.test", path, &[&[http], further].concat())
        };
        assert_eq!(get("/who", &[]).body, "azureuser app.test https");
        let got = site.path("got");
        // The head is in the file too.
        get("/large", &["-o", got.to_str().unwrap()]);
        let got = std::fs::read(got).unwrap();
        assert!(got.ends_with(&large), "{http}: {} octets", got.len());
        let part = get("/text.txt", &["-r", "4-8"]);
        assert_eq!((part.status, part.body.as_str()), (206, "work "));
        let text = get("/text.txt", &["--compressed"]);
        assert!(text.head.contains("content-encoding: gzip") && text.body.len() == 105_000);
        let moved = get("/moved", &[]);
        assert_eq!(moved.status, 302);
        assert!(moved.head.contains("location: /who"), "{}", moved.head);
        assert_eq!(get("/nothing", &[]).status, 404);
        let head = get("/large", &["-I"]);
        assert!(head.head.contains(&format!("content-length: {}", large.len())), "{}", head.head);
        // It answers, and closes, before it has read a body that it does not want.
        std::fs::write(site.path("upload"), vec![b'x'; 2 << 20]).unwrap();
        let upload = format!("@{}", site.path("upload").display());
        assert_eq!(get("/who", &["--data-binary", &upload]).status, 413);
        assert_eq!(get("/who", &["--data-binary", &upload, "-H", "Expect:"]).status, 413);
    }
    assert_eq!(curl(&site, server.https, "-", "app.test", "/who", &[]).code(), "403.7");
}

/// What h2load says at its end of so many requests.
fn h2load(server: &Server, further: &[&str]) -> String {
    let mut command = Command::new("h2load");
    command.args(["-n", "3000", "-c", "12", "-t", "1"]).args(further);
    command.arg(format!("--connect-to=127.0.0.1:{}", server.https.port()));
    let (ok, text) = run(command.arg("https://open.test/who"));
    assert!(ok, "{text}");
    text
}

#[test]
fn h2load_loses_nothing_though_nginx_closes_connections_all_the_time() {
    let (_site, _nginx, server) = site();
    for further in [&["-m", "20"][..], &["--h1"]] {
        let said = h2load(&server, further);
        let all =
            "3000 total, 3000 started, 3000 done, 3000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(said.contains(all), "{said}");
        assert!(said.contains("status codes: 3000 2xx"), "{said}");
    }
}
