//! The peers that this machine has, each doing the same: a client certificate demanded, its subject and itself passed on,
//! connections to the backend kept, one worker, no access log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Server, free_address};

/// What starts a peer.
struct Peer {
    name: &'static str,
    /// Where it may be found.
    programs: Vec<PathBuf>,
    configuration: fn(&Place) -> String,
    /// Put before its configuration's path.
    arguments: &'static [&'static str],
    /// As a table calls it, and what makes it say its version.
    called: &'static str,
    version: &'static str,
}

/// What stands in a configuration.
struct Place {
    listen: SocketAddr,
    backend: SocketAddr,
    /// As the peer sees it.
    directory: PathBuf,
}

/// Where `benches/compare/peers` puts what no package installs.
pub(crate) fn fetched() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    std::env::var_os("CERTMAP_COMPARE")
        .map_or_else(|| home.join(".cache/certmap-compare"), PathBuf::from)
}

fn peers() -> Vec<Peer> {
    let (fetched, nginx) = (fetched(), &["-c"]);
    let haproxy: &[&str] = &["-db", "-f"];
    let trixie = fetched.join("trixie");
    vec![
        Peer {
            name: "nginx-1.26",
            programs: vec![trixie.join("usr/sbin/nginx")],
            configuration: nginx_conf,
            arguments: nginx,
            called: "nginx",
            version: "-v",
        },
        Peer {
            name: "nginx",
            programs: vec!["/usr/sbin/nginx".into()],
            configuration: nginx_conf,
            arguments: nginx,
            called: "nginx",
            version: "-v",
        },
        Peer {
            name: "haproxy-3.0",
            programs: vec![trixie.join("usr/sbin/haproxy")],
            configuration: haproxy_conf,
            arguments: haproxy,
            called: "HAProxy",
            version: "-v",
        },
        Peer {
            name: "haproxy",
            programs: vec!["/usr/sbin/haproxy".into()],
            configuration: haproxy_conf,
            arguments: haproxy,
            called: "HAProxy",
            version: "-v",
        },
        Peer {
            name: "envoy",
            programs: vec![fetched.join("envoy/envoy/_bin/envoy"), "/usr/bin/envoy".into()],
            configuration: envoy_conf,
            arguments: &["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"],
            called: "Envoy",
            version: "--version",
        },
        Peer {
            name: "caddy",
            programs: vec![fetched.join("go/bin/caddy"), "/usr/bin/caddy".into()],
            configuration: caddy_conf,
            arguments: &["run", "--adapter", "caddyfile", "--config"],
            called: "Caddy",
            version: "version",
        },
        Peer {
            name: "traefik",
            programs: vec![fetched.join("go/bin/traefik"), "/usr/bin/traefik".into()],
            configuration: traefik_conf,
            arguments: &["--configFile"],
            called: "Traefik",
            version: "version",
        },
    ]
}

/// The names of all, in the order of a table.
pub(crate) fn names() -> Vec<&'static str> {
    peers().iter().map(|peer| peer.name).collect()
}

/// Starts a peer, unless it is not there.
pub(crate) fn start(
    name: &str,
    core: &str,
    pki: &Path,
    backend: SocketAddr,
) -> anyhow::Result<Option<Server>> {
    let found = peers().into_iter().find(|peer| peer.name == name);
    let Some((peer, program)) = found.and_then(|peer| {
        let program = peer.programs.iter().find(|program| program.exists()).cloned();
        program.map(|program| (peer, program))
    }) else {
        return Ok(None);
    };
    let root = fetched().join("trixie");
    let inside = program.strip_prefix(&root).ok();
    let seen = PathBuf::from("/tmp").join(format!("certmap-compare-{name}"));
    let real = inside.map_or_else(|| seen.clone(), |_| root.join(seen.strip_prefix("/").unwrap()));
    process::copy(pki, &real)?;
    let place = Place { listen: free_address()?, backend, directory: seen.clone() };
    std::fs::write(real.join("configuration.yaml"), (peer.configuration)(&place))?;
    std::fs::write(real.join("routes.yaml"), traefik_routes(&place))?;
    let root = inside.map(|_| root.as_path());
    let mut number = version(&said(command(core, &program, root).arg(peer.version)));
    if number.is_empty() {
        number = version(&module(&program));
    }
    let title = format!("{} {number}", peer.called);
    let mut command = command(core, &program, root);
    command.args(peer.arguments).arg(seen.join("configuration.yaml"));
    command.env("GOMAXPROCS", "1").env("XDG_DATA_HOME", &real).env("XDG_CONFIG_HOME", &real);
    let server = Server::start(name, place.listen, command)?;
    Ok(Some(server.titled(title.trim_end().to_owned())))
}

fn said(command: &mut Command) -> String {
    let output = command.output().map(|output| [output.stdout, output.stderr].concat());
    String::from_utf8_lossy(&output.unwrap_or_default()).into_owned()
}

/// As a Go program's module has it.
fn module(program: &Path) -> String {
    let said = said(Command::new("go").args(["version", "-m"]).arg(program));
    said.lines().find(|line| line.starts_with("\tmod\t")).unwrap_or_default().to_owned()
}

/// The first two numbers of what has at least three; nothing where there is none.
fn version(text: &str) -> String {
    let numbers = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let mut versions = numbers.filter(|numbers| numbers.split('.').count() >= 3);
    versions.next().map_or_else(String::new, |numbers| {
        numbers.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
    })
}

fn command(core: &str, program: &Path, root: Option<&Path>) -> Command {
    let Some(root) = root else { return process::on_cores(core, program) };
    let mut command = process::on_cores(core, Path::new("/usr/sbin/chroot"));
    command.arg(root).arg(Path::new("/").join(program.strip_prefix(root).unwrap()));
    command
}

fn nginx_conf(place: &Place) -> String {
    let Place { listen, backend, directory } = place;
    let directory = directory.display();
    // 1.25.1 made the parameter of listen a directive, and still takes the parameter.
    format!(
        "daemon off; user www-data; worker_processes 1; pid {directory}/pid; error_log stderr crit;
events {{ worker_connections 19000; }}
http {{
  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  keepalive_requests 1000000000; keepalive_timeout 3600s;
  upstream backend {{ server {backend}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen {listen} ssl http2; server_name bench.test;
    ssl_certificate {directory}/server.crt; ssl_certificate_key {directory}/server.key;
    ssl_client_certificate {directory}/ca.crt; ssl_verify_client on;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:20m; ssl_session_tickets on;
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
      proxy_set_header X-Remote-User $ssl_client_s_dn; proxy_set_header X-Client-Cert $ssl_client_escaped_cert;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"
    )
}

fn haproxy_conf(place: &Place) -> String {
    let Place { listen, backend, directory } = place;
    let directory = directory.display();
    format!(
        "global
  maxconn 9900
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 3600s
  timeout server 60s
frontend f
  bind {listen} ssl crt {directory}/server.pem ca-file {directory}/ca.crt verify required alpn h2,http/1.1
  http-request set-header X-Remote-User %[ssl_c_s_dn]
  http-request set-header X-Client-Cert %[ssl_c_der,base64]
  http-request set-header X-Forwarded-Proto https
  option forwardfor
  default_backend b
backend b
  http-reuse always
  server s {backend}
"
    )
}

fn caddy_conf(place: &Place) -> String {
    let Place { listen, backend, directory } = place;
    let (directory, port) = (directory.display(), listen.port());
    format!(
        "{{
  admin off
  auto_https off
  log {{
    level ERROR
  }}
}}
https://bench.test:{port} {{
  bind 127.0.0.1
  tls {directory}/server.crt {directory}/server.key {{
    client_auth {{
      mode require_and_verify
      trust_pool file {directory}/ca.crt
    }}
  }}
  reverse_proxy {backend} {{
    header_up X-Remote-User {{http.request.tls.client.subject}}
    header_up X-Client-Cert {{http.request.tls.client.certificate_der_base64}}
    transport http {{
      keepalive_idle_conns_per_host 64
    }}
  }}
}}
"
    )
}

fn envoy_conf(place: &Place) -> String {
    let Place { listen, backend, directory } = place;
    let directory = directory.display();
    let (port, to) = (listen.port(), backend.port());
    format!(
        "static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}}
            tls_certificates: [{{certificate_chain: {{filename: {directory}/server.crt}}, private_key: {{filename: {directory}/server.key}}}}]
            validation_context: {{trusted_ca: {{filename: {directory}/ca.crt}}}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: f
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {{subject: true, cert: true}}
          use_remote_address: true
          route_config:
            request_headers_to_add: [{{header: {{key: x-remote-user, value: \"%DOWNSTREAM_PEER_SUBJECT%\"}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]
            virtual_hosts: [{{name: v, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: backend}}}}]}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: backend
    type: STATIC
    circuit_breakers: {{thresholds: [{{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}}]}}
    load_assignment: {{cluster_name: backend, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {to}}}}}}}}}]}}]}}
"
    )
}

fn traefik_conf(place: &Place) -> String {
    let Place { listen, directory, .. } = place;
    format!(
        "entryPoints: {{f: {{address: \"{listen}\"}}}}\nproviders: {{file: {{filename: {}/routes.yaml}}}}\nlog: {{level: ERROR}}\n",
        directory.display()
    )
}

fn traefik_routes(place: &Place) -> String {
    let Place { backend, directory, .. } = place;
    let directory = directory.display();
    format!(
        "http:
  routers: {{r: {{rule: \"PathPrefix(`/`)\", entryPoints: [f], service: s, middlewares: [c, u], tls: {{}}}}}}
  middlewares:
    c: {{passTLSClientCert: {{pem: true}}}}
    u: {{headers: {{customRequestHeaders: {{X-Remote-User: somebody}}}}}}
  services: {{s: {{loadBalancer: {{servers: [{{url: \"http://{backend}\"}}]}}}}}}
tls:
  certificates: [{{certFile: {directory}/server.crt, keyFile: {directory}/server.key}}]
  options: {{default: {{clientAuth: {{caFiles: [{directory}/ca.crt], clientAuthType: RequireAndVerifyClientCert}}}}}}
"
    )
}
