//! Fields of a RoutePolicy one by one, and which policy they are taken from, seen by real clients.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::clients::{curl, curl_http};
use super::support::manifests::{config_map, ingress, ingress_with};
use super::support::origin::{Origin, answer};
use super::support::server::{Server, wait};
use super::support::tls::get;
use super::support::{REQUIRE, Site};
use super::traffic::{carried, field, open, site, site_of};

const BOTH: [&str; 2] = ["--http1.1", "--http2"];

#[test]
fn a_path_is_replaced_as_a_whole_and_the_query_stays() {
    let (site, server) = site("rewrite: {path: {replaceFull: /one/page}}");
    for http in BOTH {
        for (path, target) in [
            ("/", "/one/page"),
            ("/shop/c%61rt?q=/shop", "/one/page?q=/shop"),
            ("/one/page/?", "/one/page?"),
        ] {
            assert_eq!(open(&site, &server, path, &[http]).told()["target"], target, "{path}");
        }
        let app = curl(&site, server.https, "alice", "app.test", "/x", &[http]);
        assert_eq!(
            (&app.told()["user"], &app.told()["target"]),
            (&"azureuser".into(), &"/one/page".into())
        );
    }
    // The path is judged as the client wrote it.
    assert_eq!(curl(&site, server.https, "-", "app.test", "/x", &[]).code(), "403.7");
    for path in ["/a/../b", "/a/..%2fb"] {
        assert_eq!(open(&site, &server, path, &["--path-as-is"]).code(), "400", "{path}");
    }
}

#[test]
fn fields_are_added_to_the_backends_answers_and_taken_out_of_them_and_added_to_ours() {
    let text = "Content-Type: text/plain\r\nLink: </theirs>\r\nX-Kind: theirs\r\nX-Powered-By: them\r\nX-Powered-By: all\r\n";
    let origin = Origin::start(&[("/", answer("200 OK", text, b"whole"))]);
    let spec = "responseHeaders: {add: [{name: Link, value: </ours>}, {name: Link, value: </more>}, {name: X-New, value: '1'}], set: [{name: X-Kind, value: ours}], remove: [X-Powered-By]}";
    let (site, server) = site_of(&origin, spec);
    let all = |head: &str, name: &str| -> Vec<String> {
        let of_name = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
        head.lines().filter_map(of_name).collect()
    };
    for http in BOTH {
        let reply = open(&site, &server, "/", &[http]);
        assert_eq!((reply.status, reply.body.as_str()), (200, "whole"));
        assert_eq!(all(&reply.head, "link"), ["</theirs>", "</ours>", "</more>"], "{reply:?}");
        assert_eq!(all(&reply.head, "x-new"), ["1"]);
        assert_eq!(all(&reply.head, "x-kind"), ["ours"]);
        assert!(all(&reply.head, "x-powered-by").is_empty(), "{reply:?}");
    }
    server.delete("origin.yaml");
    let reply = open(&site, &server, "/", &[]);
    assert_eq!(
        (reply.status, all(&reply.head, "link")),
        (503, vec!["</ours>".into(), "</more>".into()])
    );
}

#[test]
fn a_page_for_a_hundred_of_statuses_gives_way_to_one_of_a_status() {
    let origin = Origin::start(&[
        ("/ill", answer("500 Internal Server Error", "Content-Type: text/plain\r\n", b"theirs")),
        ("/busy", answer("503 Service Unavailable", "Retry-After: 7\r\n", b"theirs")),
        ("/gone", answer("404 Not Found", "Content-Type: text/plain\r\n", b"theirs")),
    ]);
    let site = Site::new();
    site.write("origin.yaml", &origin.manifest("origin"));
    let paths = [("/", "Prefix", "origin"), ("/none", "Prefix", "none")];
    site.write("open.yaml", &ingress_with("open", "open.test", &paths));
    site.write("pages.yaml", &config_map("pages", "any.html", "<p>Sorry.</p>"));
    site.write("busy.yaml", &config_map("busy", "busy.html", "<p>Later.</p>"));
    let pages = |of_backend: bool| {
        carried(
            "open",
            &format!(
                "errorPages:\n- {{codes: [5xx], ofBackend: {of_backend}, configMapRef: {{name: pages, key: any.html}}}}\n- {{codes: ['503'], ofBackend: {of_backend}, configMapRef: {{name: busy, key: busy.html}}}}"
            ),
        )
    };
    site.write("route.yaml", &pages(true));
    let server = site.start();
    let get = |path: &str, http: &str| {
        let reply = open(&site, &server, path, &[http]);
        (reply.status, reply.body.trim().to_owned(), field(&reply, "retry-after"))
    };
    for http in BOTH {
        assert_eq!(get("/ill", http), (500, "<p>Sorry.</p>".into(), None));
        assert_eq!(get("/busy", http), (503, "<p>Later.</p>".into(), Some("7".into())));
        assert_eq!(get("/none", http).1, "<p>Later.</p>", "and of ours");
        assert_eq!(get("/gone", http), (404, "theirs".into(), None));
    }
    server.edit("route.yaml", &pages(false));
    for (path, body) in [("/ill", "theirs"), ("/busy", "theirs"), ("/none", "<p>Later.</p>")] {
        assert_eq!(get(path, "--http2").1, body, "{path}: the backend's own are left to it");
    }
}

#[test]
fn everybodys_scripts_may_read_where_the_route_says_so_and_send_what_it_lists() {
    let spec = "cors: {allowOrigins: ['*'], allowHeaders: [X-Token, Content-Type]}";
    let (site, server) = site(spec);
    let origin = ["-H", "Origin: https://anybody.example"];
    let preflight = [
        "-X",
        "OPTIONS",
        "-H",
        "Access-Control-Request-Method: POST",
        "-H",
        "Access-Control-Request-Headers: x-token, x-other",
    ];
    for http in BOTH {
        let options = [&origin[..], &preflight, &[http]].concat();
        let reply = curl(&site, server.https, "-", "app.test", "/", &options);
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{reply:?}");
        for (name, value) in [
            ("access-control-allow-origin", Some("*")),
            ("access-control-allow-headers", Some("x-token, content-type")),
            ("access-control-allow-methods", Some("get, head, post")),
            ("access-control-max-age", Some("5")),
            ("access-control-allow-credentials", None),
        ] {
            assert_eq!(field(&reply, name).as_deref(), value, "{name}: {}", reply.head);
        }
        let reply = open(&site, &server, "/", &[&origin[..], &[http]].concat());
        assert_eq!(reply.status, 200);
        assert_eq!(field(&reply, "access-control-allow-origin").as_deref(), Some("*"));
        assert_eq!(field(&reply, "access-control-allow-credentials"), None);
        assert_eq!(field(&reply, "vary"), None, "everybody gets the same");
    }
    // Who may read answers is not who may have them.
    assert_eq!(curl(&site, server.https, "-", "app.test", "/", &origin).code(), "403.7");
}

#[test]
fn a_burst_passes_at_once_and_then_one_in_each_period() {
    const PERIOD: Duration = Duration::from_secs(4);
    let (_site, server) =
        site("rateLimits: [{per: ClientAddress, requests: 1, period: 4s, burst: 3}]");
    let started = Instant::now();
    let mut stream = TcpStream::connect(server.http).unwrap();
    let mut ask = || get(&mut stream, "open.test", "/");
    assert_eq!([ask().status, ask().status, ask().status], [200; 3]);
    let refused = ask();
    assert_eq!(refused.code(), "429");
    let after: u64 = field(&refused, "retry-after").unwrap().parse().unwrap();
    assert!((1..=4).contains(&after), "{after}");
    wait("the next one", || ask().status == 200);
    assert!(started.elapsed() >= PERIOD, "{:?}", started.elapsed());
    assert_eq!(ask().code(), "429", "one, and no burst");
}

#[test]
fn one_policy_carries_all_that_it_targets_and_nothing_else() {
    let site = Site::new();
    site.write("other.yaml", &ingress("other", "other.test", "/", "echo"));
    let spec = "responseHeaders: {set: [{name: X-Carried, value: 'yes'}]}\nrateLimits: [{per: ClientAddress, requests: 4, period: 1h}]";
    let to = |further: &[&str]| {
        let further: String = further
            .iter()
            .map(|name| format!(", {{group: networking.k8s.io, kind: Ingress, name: {name}}}"))
            .collect();
        carried("app", spec).replacen("name: app}]", &format!("name: app}}{further}]"), 1)
    };
    site.write("route.yaml", &to(&["open"]));
    let server = site.start();
    let ask = |host: &str| {
        let reply = curl_http(server.http, host, "/", &[]);
        (reply.status, field(&reply, "x-carried").is_some())
    };
    assert_eq!(
        [ask("app.test"), ask("open.test"), ask("other.test")],
        [(200, true), (200, true), (200, false)]
    );
    assert_eq!([ask("app.test"), ask("open.test")], [(200, true); 2]);
    // They are counted together.
    assert_eq!(
        [ask("app.test"), ask("open.test"), ask("other.test")],
        [(429, true), (429, true), (200, false)]
    );
    server.edit("route.yaml", &to(&[]));
    assert_eq!([ask("app.test"), ask("open.test")], [(429, true), (200, false)]);
}

#[test]
fn the_default_policy_says_what_others_leave_out_and_without_it_nothing_is_carried() {
    let site = Site::with_alice(REQUIRE);
    let all = "apiVersion: certmap.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {name: all, namespace: web}\nspec:\n  httpsRedirect: true\n  limits: {target: 64, requestBody: 1Mi}\n  responseHeaders: {set: [{name: X-From, value: default}]}\n";
    site.write("all.yaml", all);
    let own = "limits: {requestBody: 1Ki}\nresponseHeaders: {set: [{name: X-From, value: own}]}";
    site.write("route.yaml", &carried("open", own));
    std::fs::write(site.path("body"), [b'x'; 1025]).unwrap();
    let options = ["--default-route-policy", "web/all"];
    let server = Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options);
    let ask = |host: &str, path: &str, further: &[&str]| {
        let reply = curl(&site, server.https, "alice", host, path, further);
        (reply.code(), field(&reply, "x-from").unwrap_or_default())
    };
    let said = |code: &str, from: &str| (code.to_owned(), from.to_owned());
    let body = format!("@{}", site.path("body").display());
    let (long, post) = (format!("/{}", "a".repeat(64)), ["--data-binary", body.as_str()]);
    assert_eq!(ask("app.test", "/", &[]), said("200", "default"));
    assert_eq!(ask("app.test", "/", &post), said("200", "default"));
    assert_eq!(ask("open.test", "/", &[]), said("200", "own"));
    assert_eq!(ask("open.test", "/", &post), said("413", "own"));
    // Of the default, field by field.
    assert_eq!(ask("app.test", &long, &[]), said("414", "default"));
    assert_eq!(ask("open.test", &long, &[]), said("414", "own"));
    for host in ["app.test", "open.test"] {
        assert_eq!(curl_http(server.http, host, "/", &[]).code(), "308", "{host}");
    }
    server.edit("route.yaml", &carried("open", &format!("{own}\nhttpsRedirect: false")));
    assert_eq!(curl_http(server.http, "open.test", "/", &[]).status, 200);
    server.delete("all.yaml");
    for host in ["app.test", "open.test"] {
        assert_eq!(ask(host, "/", &[]).0, "503.96", "{host}");
        assert_eq!(curl_http(server.http, host, "/", &[]).code(), "503.96", "{host}");
    }
    server.said(&["RoutePolicy web/all", "--default-route-policy", "DefaultMissing"]);
    server.edit("all.yaml", &all.replace("value: default", "value: another"));
    assert_eq!(ask("app.test", "/", &[]), said("200", "another"));
}
