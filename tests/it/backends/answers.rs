//! How answers end: one length or none, whoever reads it, and no coding that nobody undoes (RFC 9112, 6; RFC 9110, 8.6).

use super::super::support::Site;
use super::super::support::clients::curl_http;
use super::super::support::origin::Origin;
use super::super::support::server::Server;
use super::super::support::tls::Reply;

const VERSIONS: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

/// app.test with what this origin answers, word for word.
fn site(answers: &[(&str, &str)]) -> (Site, Server) {
    let pieces = |text: &str| vec![text.as_bytes().to_vec()];
    let answers: Vec<_> = answers.iter().map(|(path, text)| (*path, pieces(text))).collect();
    let origin = Origin::start(&answers);
    let site = Site::new();
    site.write("backend.yaml", &origin.manifest("echo"));
    let server = site.start();
    (site, server)
}

fn lengths(reply: &Reply) -> Vec<&str> {
    reply.head.lines().filter_map(|line| line.strip_prefix("content-length: ")).collect()
}

#[test]
fn what_is_chunked_has_no_length_beside_it() {
    const CHUNKS: &str = "5\r\nwhole\r\n0\r\n\r\n";
    let both = |length: &str, rest: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{rest}"
        )
    };
    let (short, long, right) = (both("2", CHUNKS), both("500", CHUNKS), both("5", CHUNKS));
    let alone = both("2", "");
    let answers = [("/short", &*short), ("/long", &long), ("/right", &right), ("/head", &alone)];
    let (_site, server) = site(&answers);
    for http in VERSIONS {
        for path in ["/short", "/long", "/right"] {
            let reply = curl_http(server.http, "app.test", path, &[http]);
            assert_eq!((reply.status, reply.body.as_str()), (200, "whole"), "{path} {http}");
            assert!(lengths(&reply).is_empty(), "{path} {http}: {}", reply.head);
        }
        let reply = curl_http(server.http, "app.test", "/head", &[http, "--head"]);
        assert_eq!((reply.status, lengths(&reply).len()), (200, 0), "{http}: {}", reply.head);
    }
}

#[test]
fn a_length_is_written_once_and_plainly() {
    let told = |fields: &str, rest: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{rest}");
    for fields in [
        "Content-Length: 5, 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5,5\r\nContent-Length: 5",
        "Content-Length: 05",
        "Content-Length: 5",
    ] {
        let (whole, alone) = (told(fields, "whole"), told(fields, ""));
        let (_site, server) = site(&[("/", &whole), ("/head", &alone)]);
        for http in VERSIONS {
            let reply = curl_http(server.http, "app.test", "/", &[http]);
            assert_eq!((reply.status, reply.body.as_str()), (200, "whole"), "{fields} {http}");
            assert_eq!(lengths(&reply), ["5"], "{fields} {http}");
            let reply = curl_http(server.http, "app.test", "/head", &[http, "--head"]);
            assert_eq!((reply.status, lengths(&reply)), (200, vec!["5"]), "{fields} {http}");
        }
    }
}

#[test]
fn a_length_that_says_nothing_is_not_passed_on_and_one_that_does_is() {
    let (_site, server) = site(&[
        ("/none", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
        ("/zero", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
        ("/wrong", "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n"),
        ("/two", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
        ("/same", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n"),
    ]);
    for http in VERSIONS {
        for (path, status) in [("/none", 204), ("/zero", 204), ("/wrong", 200), ("/two", 200)] {
            let reply = curl_http(server.http, "app.test", path, &[http, "--head"]);
            assert_eq!((reply.status, lengths(&reply).len()), (status, 0), "{path}: {reply:?}");
        }
        for path in ["/none", "/zero"] {
            let reply = curl_http(server.http, "app.test", path, &[http]);
            assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{path} {http}");
            assert!(lengths(&reply).is_empty(), "{path} {http}: {}", reply.head);
        }
        for path in ["/wrong", "/two"] {
            assert_eq!(curl_http(server.http, "app.test", path, &[http]).code(), "502", "{path}");
        }
        let reply = curl_http(server.http, "app.test", "/same", &[http]);
        assert_eq!((reply.status, reply.body.as_str()), (304, ""), "{http}");
    }
    let reply = curl_http(server.http, "app.test", "/same", &["--http2-prior-knowledge"]);
    assert_eq!(lengths(&reply), ["1234"], "what its GET would have");
}

#[test]
fn a_coding_that_nobody_would_undo_is_a_502() {
    const CHUNKS: &str = "5\r\nwhole\r\n0\r\n\r\n";
    for coding in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip",
    ] {
        let whole = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{coding}\r\n\r\n{CHUNKS}");
        let same = format!("HTTP/1.1 304 Not Modified\r\n{coding}\r\n\r\n");
        let (_site, server) = site(&[("/", &whole), ("/same", &same)]);
        for http in VERSIONS {
            let reply = curl_http(server.http, "app.test", "/", &[http]);
            assert_eq!(reply.code(), "502", "{coding} {http}: {reply:?}");
            let reply = curl_http(server.http, "app.test", "/same", &[http]);
            assert_eq!((reply.status, reply.body.as_str()), (304, ""), "{coding}: no octet has it");
            assert!(!reply.head.contains("transfer-encoding"), "{coding}: {}", reply.head);
        }
        server.logged(|line| line.contains("a transfer coding other than chunked"));
    }
}
