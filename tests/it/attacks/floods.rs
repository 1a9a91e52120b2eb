//! Floods over HTTP/2: each frame is cheap to send and costs the server something. Each is bounded in time and number,
//! and most must end with the server ending the connection.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Event, H2, HEADERS,
    INDEXED, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, head, indexed,
};
use crate::support::manifests::{ingress, service};
use crate::support::server::Server;
use crate::support::{REQUIRE, Site};

use super::bystander::unnoticed;

/// SETTINGS_MAX_CONCURRENT_STREAMS.
const MOST_STREAMS: u16 = 3;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const WINDOW: u16 = 4;
/// What may be on its way when a limit is reached.
const SLACK: usize = 20;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// What a flood led to.
#[derive(Debug, Default)]
struct Seen {
    /// Pieces of it that could be sent.
    sent: usize,
    heads: usize,
    resets: usize,
    goaway: Option<(u32, String)>,
    /// Whether the server hung up.
    ended: bool,
    /// Whether it stopped reading.
    stalled: bool,
}

/// Sends pieces while another thread reads what comes: GOAWAY must be read before the connection is reset.
fn flood(server: SocketAddr, pieces: impl Iterator<Item = Vec<u8>>) -> Seen {
    let mut connection = H2::plain(server, &[]).unwrap();
    let reading = connection.stream.try_clone().unwrap();
    reading.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let reader = std::thread::spawn(move || {
        let mut seen = Seen::default();
        let mut connection = H2::of(reading);
        connection.polite = false;
        loop {
            match connection.next() {
                Ok(Event::Head { .. }) => seen.heads += 1,
                Ok(Event::Reset { .. }) => seen.resets += 1,
                Ok(Event::GoAway { code, why }) => seen.goaway = Some((code, why)),
                Ok(_) => {}
                Err(error) => {
                    seen.ended = error.kind() != std::io::ErrorKind::WouldBlock;
                    return seen;
                }
            }
        }
    });
    let mut sent = 0;
    for piece in pieces {
        if connection.send(&piece).is_err() {
            break;
        }
        sent += 1;
    }
    let seen = reader.join().unwrap();
    drop(connection.stream.shutdown(Shutdown::Both));
    Seen { sent, ..seen }
}

/// Sends pieces and reads nothing at all.
fn deaf(
    server: SocketAddr,
    settings: &[(u16, u32)],
    pieces: impl Iterator<Item = Vec<u8>>,
) -> Seen {
    let mut connection = H2::plain(server, settings).unwrap();
    connection.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut seen = Seen::default();
    for piece in pieces {
        match connection.send(&piece) {
            Ok(()) => seen.sent += 1,
            Err(error) => {
                seen.stalled = error.kind() == std::io::ErrorKind::WouldBlock;
                seen.ended = !seen.stalled;
                break;
            }
        }
    }
    seen
}

/// The bystander's backend is its own: how long a backend takes that is flooded itself says nothing of the program.
fn site() -> (Site, Backend, Server) {
    let (site, apart) = (Site::with_alice(REQUIRE), Backend::standing_back());
    site.write("apart.yaml", &apart.manifest("apart"));
    site.write("open.yaml", &ingress("open", "open.test", "/", "apart"));
    let server = site.start();
    (site, apart, server)
}

/// The identifiers of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

fn open(stream: u32, end: u8, octets: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | end, stream, octets)
}

fn calm(seen: &Seen) -> bool {
    seen.goaway.as_ref().is_none_or(|(code, _)| *code == ENHANCE_YOUR_CALM)
}

#[test]
fn rapid_reset() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let head = get("open.test", "/");
        let ids: Vec<u32> = streams(20_000).collect();
        let pieces = ids.chunks(100).map(|some| {
            let both = |id: &u32| {
                [open(*id, END_STREAM, &head), frame(RST_STREAM, 0, *id, &CANCEL)].concat()
            };
            some.iter().flat_map(both).collect()
        });
        let seen = flood(server.http, pieces);
        assert!(seen.ended && calm(&seen), "{seen:?}");
    });
}

#[test]
fn rapid_reset_of_requests_that_have_been_begun() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let head = get("open.test", "/slow");
        let ids: Vec<u32> = streams(5_000).collect();
        // Fifty at a time, and only once they are on their way.
        let pieces = ids.chunks(50).flat_map(|some| {
            let begin: Vec<u8> = some.iter().flat_map(|id| open(*id, END_STREAM, &head)).collect();
            let take_back = some.iter().flat_map(|id| frame(RST_STREAM, 0, *id, &CANCEL));
            [begin, take_back.collect()]
        });
        let paced = pieces.inspect(|_| std::thread::sleep(Duration::from_millis(20)));
        let seen = flood(server.http, paced);
        assert!(seen.ended && seen.sent < 40, "a thousand requests were taken back: {seen:?}");
    });
}

/// Each piece is looked at before the next is sent.
fn one_by_one(server: SocketAddr, pieces: impl Iterator<Item = Vec<u8>>) -> Seen {
    let mut connection = H2::plain(server, &[]).unwrap();
    let mut seen = Seen::default();
    for piece in pieces {
        drop(connection.send(&piece));
        let (events, goes_on) = connection.settled();
        for event in events {
            match event {
                Event::Reset { .. } => seen.resets += 1,
                Event::GoAway { code, why } => seen.goaway = Some((code, why)),
                _ => {}
            }
        }
        if !goes_on {
            seen.ended = true;
            break;
        }
        seen.sent += 1;
    }
    seen
}

#[test]
fn resets_are_counted_up_to_the_limits_that_are_set() {
    let (site, _apart, server) = site();
    let low = ["--http2-max-error-resets", "10", "--http2-max-pending-resets", "5"];
    let strict = Server::start_with(&site.manifests(), &site.path("low.log"), "json", &low);
    let slow = head("POST", "open.test", "/slow", &[]);
    let provoked = |id| {
        let overflow = frame(WINDOW_UPDATE, 0, id, &0x7FFF_FFFF_u32.to_be_bytes());
        [open(id, 0, &slow), overflow].concat()
    };
    let is_told =
        |seen: &Seen| seen.goaway.as_ref().is_some_and(|(code, _)| *code == ENHANCE_YOUR_CALM);
    // Each was a request too, of which 200 may be taken back: sooner than the protocol's own limit.
    let seen = one_by_one(server.http, streams(1_000).map(provoked));
    assert!(seen.ended && seen.resets <= 256, "{seen:?}");
    let seen = one_by_one(strict.http, streams(1_000).map(provoked));
    assert!(seen.ended && is_told(&seen) && seen.resets.abs_diff(10) <= 1, "{seen:?}");
    // Nothing is looked at until all that came at once has been read.
    let taken_back = |count: u32| {
        let both = |id| [open(id, 0, &slow), frame(RST_STREAM, 0, id, &CANCEL)].concat();
        streams(count).flat_map(both).collect::<Vec<u8>>()
    };
    for (server, pending) in [(&server, 20), (&strict, 5)] {
        let few = one_by_one(server.http, [taken_back(pending)].into_iter());
        let many = one_by_one(server.http, [taken_back(pending * 2)].into_iter());
        assert!(!few.ended && many.ended && is_told(&many), "{pending}: {few:?}, {many:?}");
    }
}

#[test]
fn more_requests_at_a_time_than_were_allowed_are_refused_and_the_others_answered() {
    let (site, apart) = (Site::with_alice(REQUIRE), Backend::start());
    site.write("apart.yaml", &apart.manifest("apart"));
    site.write("open.yaml", &ingress("open", "open.test", "/", "apart"));
    let options = ["--http2-max-streams", "5"];
    let server = Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options);
    let mut connection = H2::plain(server.http, &[]).unwrap();
    let slow = get("open.test", "/slow");
    let six: Vec<u8> = streams(6).flat_map(|id| open(id, END_STREAM, &slow)).collect();
    connection.send(&six).unwrap();
    let mut answered = Vec::new();
    while answered.len() < 6 {
        match connection.next().unwrap() {
            Event::Head { stream, status, .. } => answered.push((stream, u32::from(status))),
            Event::Reset { stream, code } => answered.push((stream, code)),
            Event::GoAway { why, .. } => panic!("{why}"),
            Event::Data { .. } | Event::Other => {}
        }
    }
    answered.sort_unstable();
    // RFC 9113, 7: REFUSED_STREAM, which says that nothing was done of it.
    assert_eq!(answered, [(1, 200), (3, 200), (5, 200), (7, 200), (9, 200), (11, 7)]);
    assert_eq!(connection.upkeep.settings.get(&MOST_STREAMS), Some(&5));
    assert_eq!(apart.requests.load(Ordering::SeqCst), 5);
    connection.send(&open(13, END_STREAM, &slow)).unwrap();
    assert_eq!(connection.outcome(13), Some(200), "there is room again");
}

#[test]
fn a_body_that_no_backend_takes_is_stopped_at_the_window() {
    // What it accepts it does not read.
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let site = Site::with_alice(REQUIRE);
    site.write("apart.yaml", &service("apart", &[backend.local_addr().unwrap().port()]));
    site.write("open.yaml", &ingress("open", "open.test", "/", "apart"));
    let options = ["--http2-window", "100000"];
    let server = Server::start_with(&site.manifests(), &site.path("access.log"), "json", &options);
    let mut connection = H2::plain(server.http, &[]).unwrap();
    connection.stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert!(connection.settled().1);
    assert_eq!(connection.upkeep.settings.get(&WINDOW), Some(&100_000));
    connection.send(&open(1, 0, &head("POST", "open.test", "/", &[]))).unwrap();
    let (before, mut sent) = (server.memory(), 0);
    loop {
        let more = |stream: u32| connection.upkeep.windows.get(&stream).copied().unwrap_or(0);
        let room = (100_000 + more(1)).min(65_535 + more(0)) - sent;
        if room > 0 {
            let length = room.min(16_384);
            let octets = vec![b'x'; usize::try_from(length).unwrap()];
            connection.send(&frame(DATA, 0, 1, &octets)).unwrap();
            sent += length;
        } else if connection.next().is_err() {
            // Nothing came for two seconds.
            break;
        }
    }
    // Beyond the window lies what the system holds of a connection that nobody reads, some megabytes.
    assert!((100_000..32 << 20).contains(&sent), "{sent} octets were taken");
    let growth = server.memory().saturating_sub(before);
    assert!(growth < 16 * 1024, "it grew by {growth} KiB");
    // Who sends a window more all the same is told: FLOW_CONTROL_ERROR.
    connection.send(&frame(DATA, 0, 1, &[b'x'; 16_384]).repeat(7)).unwrap();
    let is_told = |event: &Event| {
        matches!(event, Event::Reset { code: 3, .. } | Event::GoAway { code: 3, .. })
    };
    // Not before the answer to a PING: what concerns a stream is written after what concerns all of them.
    while !is_told(&connection.next().unwrap()) {}
    drop(backend);
}

/// The client makes the server take back what the client began.
fn made_you_reset(provoke: impl Fn(u32) -> Vec<u8> + Sync) {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let pieces = streams(5_000).map(&provoke);
        let seen = flood(server.http, pieces);
        assert!(seen.ended && seen.resets <= 256 + SLACK, "{seen:?}");
    });
}

#[test]
fn made_you_reset_by_a_window_that_overflows() {
    let head = head("POST", "open.test", "/slow", &[]);
    made_you_reset(|id| {
        [open(id, 0, &head), frame(WINDOW_UPDATE, 0, id, &0x7FFF_FFFF_u32.to_be_bytes())].concat()
    });
}

#[test]
fn made_you_reset_by_data_after_the_end() {
    let head = head("POST", "open.test", "/slow", &[]);
    made_you_reset(|id| [open(id, END_STREAM, &head), frame(DATA, 0, id, b"x")].concat());
}

#[test]
fn made_you_reset_by_a_length_that_is_wrong() {
    let head = head("POST", "open.test", "/slow", &[(b"content-length", b"1")]);
    made_you_reset(|id| [open(id, 0, &head), frame(DATA, END_STREAM, id, b"xyz")].concat());
}

#[test]
fn made_you_reset_by_a_stream_that_depends_on_itself() {
    let head = head("POST", "open.test", "/slow", &[]);
    made_you_reset(|id| {
        [open(id, 0, &head), frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[1]].concat())]
            .concat()
    });
}

#[test]
fn a_window_that_grows_by_nothing_or_too_far_ends_the_connection() {
    let (site, _apart, server) = site();
    for grow in [
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(WINDOW_UPDATE, 0, 0, &0x7FFF_FFFF_u32.to_be_bytes()),
    ] {
        let seen = flood(server.http, [grow].into_iter());
        assert!(seen.ended && seen.goaway.is_some(), "{seen:?}");
    }
    // One octet at a time is allowed, and harms nobody.
    unnoticed(&site, &server, || {
        let one = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(100);
        let mut connection = H2::plain(server.http, &[]).unwrap();
        for _ in 0..100 {
            connection.send(&one).unwrap();
        }
        connection.send(&open(1, END_STREAM, &get("open.test", "/"))).unwrap();
        assert_eq!(connection.outcome(1), Some(200));
    });
}

#[test]
fn continuations_without_end() {
    for further in [vec![], block(&[(b"x", &[b'x'; 100])]), block(&[(b"x", &[b'x'; 16_000])])] {
        let (site, _apart, server) = site();
        unnoticed(&site, &server, || {
            let begin = frame(HEADERS, END_STREAM, 1, &get("open.test", "/"));
            let more = frame(CONTINUATION, 0, 1, &further);
            let pieces = std::iter::once(begin).chain(std::iter::repeat_n(more, 10_000));
            let seen = flood(server.http, pieces);
            assert!(seen.ended && seen.heads == 0, "{seen:?}");
        });
    }
}

#[test]
fn a_head_that_grows_when_it_is_unpacked() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        // 4000 octets in the table, and then one octet for each time they are meant.
        let bomb = |times: usize| {
            let block =
                [get("open.test", "/"), indexed(b"x", &[b'x'; 4_000]), vec![INDEXED; times]]
                    .concat();
            open(1, END_STREAM, &block)
        };
        for times in [4_000, 12_000] {
            let seen = flood(server.http, [bomb(times)].into_iter());
            assert!(seen.ended && calm(&seen) && seen.heads == 0, "{times}: {seen:?}");
        }
        // Only just too long: the request is refused, and the connection may stay.
        let mut connection = H2::plain(server.http, &[]).unwrap();
        connection.send(&bomb(20)).unwrap();
        assert_ne!(connection.outcome(1), Some(200));
    });
}

#[test]
fn data_that_is_empty() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let begin = open(1, 0, &head("POST", "open.test", "/", &[]));
        let empty = frame(DATA, 0, 1, &[]).repeat(100);
        let seen =
            flood(server.http, std::iter::once(begin).chain(std::iter::repeat_n(empty, 5_000)));
        assert!(seen.ended && calm(&seen), "{seen:?}");
    });
}

#[test]
fn data_an_octet_at_a_time() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let begin = open(1, 0, &head("POST", "open.test", "/", &[]));
        let one = frame(DATA, 0, 1, b"x").repeat(50);
        let end = frame(DATA, END_STREAM, 1, b"x");
        let pieces = std::iter::once(begin).chain(std::iter::repeat_n(one, 200)).chain([end]);
        let seen = flood(server.http, pieces);
        assert!(calm(&seen) && (seen.heads == 1 || seen.ended), "{seen:?}");
    });
}

#[test]
fn settings_and_pings_that_nobody_reads_the_answers_to() {
    for piece in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, &[7; 8])] {
        let (site, _apart, server) = site();
        unnoticed(&site, &server, || {
            let many = piece.repeat((1 << 16) / piece.len());
            let seen = deaf(server.http, &[], std::iter::repeat_n(many, 1 << 10));
            assert!(seen.ended || seen.stalled, "64 MiB were read, and the answers kept: {seen:?}");
        });
    }
}

#[test]
fn frames_that_mean_nothing() {
    let (site, _apart, server) = site();
    let said = server.lines().len();
    unnoticed(&site, &server, || {
        let ping = frame(PING, ACK, 0, &[7; 8]);
        let priority = frame(PRIORITY, 0, 1_001, &[0, 0, 0, 0, 1]);
        let unknown = frame(0xEE, 0xFF, 0, &[7; 100]);
        let mut connection = H2::plain(server.http, &[]).unwrap();
        for piece in [ping, priority, unknown] {
            for _ in 0..200 {
                connection.send(&piece.repeat(100)).unwrap();
            }
        }
        connection.send(&open(1_003, END_STREAM, &get("open.test", "/"))).unwrap();
        assert_eq!(connection.outcome(1_003), Some(200));
    });
    assert_eq!(server.lines().len(), said, "a line for each would be a flood of its own");
}

#[test]
fn more_streams_than_are_allowed() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let head = head("POST", "open.test", "/", &[]);
        let seen = flood(server.http, streams(2_000).map(|id| open(id, 0, &head)));
        assert!(seen.ended || seen.resets >= 1_800, "{seen:?}");
    });
}

#[test]
fn answers_that_nobody_lets_come() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        // No window at all: a hundred answers of 64 MiB wait.
        let mut connection = H2::plain(server.http, &[(WINDOW, 0)]).unwrap();
        for id in streams(100) {
            connection.send(&open(id, END_STREAM, &get("open.test", "/big"))).unwrap();
        }
        let mut heads = 0;
        while heads < 100 {
            heads += usize::from(matches!(connection.next().unwrap(), Event::Head { .. }));
        }
        // And then an octet for each.
        for id in streams(100) {
            connection.send(&frame(WINDOW_UPDATE, 0, id, &1_u32.to_be_bytes())).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
    });
}

#[test]
fn answers_over_http_1_that_nobody_reads() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let open = (0..20).map(|_| {
            let mut stream = TcpStream::connect(server.http).unwrap();
            stream.write_all(b"GET /big HTTP/1.1\r\nHost: open.test\r\n\r\n").unwrap();
            stream
        });
        let open: Vec<TcpStream> = open.collect();
        std::thread::sleep(Duration::from_millis(200));
        drop(open);
    });
}

#[test]
fn requests_over_http_1_in_a_row_whose_answers_nobody_reads() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let mut stream = TcpStream::connect(server.http).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let many =
            b"GET / HTTP/1.1\r\nHost: open.test\r\nX-Remote-User: root\r\n\r\n".repeat(1_000);
        let written = (0..1_000).take_while(|_| stream.write_all(&many).is_ok()).count();
        assert!(written < 1_000, "60 MB of requests were read, and their answers kept");
    });
}

#[test]
fn connections_that_say_nothing_and_hang_up() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        for address in [server.http, server.https] {
            let open: Vec<TcpStream> =
                (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
            drop(open);
        }
    });
}

#[test]
fn handshakes_that_are_never_finished() {
    let (site, _apart, server) = site();
    unnoticed(&site, &server, || {
        let hellos = (0..20).map(|_| {
            let mut stream = TcpStream::connect(server.https).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(&super::handshakes::hello("app.test")).unwrap();
            // The server has signed by then, which is what it costs.
            stream.read_exact(&mut [0; 64]).unwrap();
            stream
        });
        drop(hellos.collect::<Vec<_>>());
    });
}
