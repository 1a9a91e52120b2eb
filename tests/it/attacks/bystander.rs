//! Somebody else, who must not notice: how long a well-behaved client waits while others attack, and what the program
//! takes for it.

#![expect(clippy::print_stdout, reason = "figures, for who asks with --nocapture")]

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::version::TLS13;

use crate::support::server::{Server, wait};
use crate::support::tls::{Client, Stream, reply};
use crate::support::{Site, cores};

/// Two floods at once would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A bystander may wait three times as long as in quiet. Below this, waiting is the machine's: the program has a core for
/// itself then (`cores`), and what it does for the bystander is twice put behind what it does for attackers.
const FLOOR_APART: Duration = Duration::from_millis(10);
/// And below this where attackers, program, backends, bystander and whatever tests run beside them share two cores: the
/// system gives each its turn after some milliseconds, however little the program does, and our own code is not optimised
/// in the program that is built for tests. A program that an attack holds up holds everybody up for longer.
const FLOOR: Duration = Duration::from_millis(400);
/// A disturbance from elsewhere passes, that of an attack does not: the best round counts.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_millis(800);
const ATTACKERS: usize = 2;
/// KiB that the program may grow by: some connections' buffers, and what its allocator does not give back at once.
const MOST_GROWTH: u64 = 128 * 1024;

/// A client with a certificate, on a connection that it keeps.
pub(super) struct Bystander(Stream);

impl Bystander {
    pub(super) fn new(site: &Site, server: &Server) -> Self {
        let client = Client::new(&site.server_ca, Some(&site.alice), &TLS13);
        let mut bystander = Self(client.connect(server.https, "app.test"));
        bystander.once();
        bystander
    }

    /// One request, and how long it took.
    fn once(&mut self) -> Duration {
        let started = Instant::now();
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
        let reply = reply(&mut self.0).expect("the bystander is served");
        assert_eq!((reply.status, reply.told()["user"].as_str()), (200, Some("azureuser")));
        started.elapsed()
    }

    /// In a hundred requests one waits longer.
    fn p99(&mut self, mut going_on: impl FnMut(usize) -> bool) -> Duration {
        let mut waits = Vec::new();
        while going_on(waits.len()) {
            waits.push(self.once());
            std::thread::sleep(Duration::from_millis(1));
        }
        waits.sort_unstable();
        waits[(waits.len() * 99 / 100).min(waits.len() - 1)]
    }
}

/// Has attackers repeat this for a while, each on connections of its own, and asserts that nobody else notices: not by
/// waiting, not by the memory that it takes, nor by connections that stay.
pub(super) fn unnoticed(site: &Site, server: &Server, attack: impl Fn() + Sync) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut bystander = Bystander::new(site, server);
    let quiet = bystander.p99(|waits| waits < 200);
    let floor = if cores::program_apart().is_some() { FLOOR_APART } else { FLOOR };
    let limit = floor.max(quiet * 3);
    // The first time fills pools and caches that stay.
    attack();
    let before = server.memory();
    let connections = server.metric("certmap_connections_open");
    let (mut most, mut rounds) = (0, Vec::new());
    while rounds.len() < ROUNDS && rounds.iter().all(|wait| *wait > limit) {
        rounds.push(round(&mut bystander, &attack, || most = most.max(server.memory())));
    }
    let best = rounds.iter().min().unwrap();
    assert!(*best <= limit, "the bystander waits {rounds:?}, and {quiet:?} in quiet");
    let growth = most.saturating_sub(before);
    assert!(growth < MOST_GROWTH, "it grew by {growth} KiB");
    wait("connections to end", || server.metric("certmap_connections_open") <= connections);
    println!(
        "p99 {best:?}, in quiet {quiet:?} ({:.1} times); at most {growth} KiB more, in the end {}",
        best.as_secs_f64() / quiet.as_secs_f64(),
        server.memory().saturating_sub(before)
    );
}

fn round(
    bystander: &mut Bystander,
    attack: &(impl Fn() + Sync),
    mut look: impl FnMut(),
) -> Duration {
    let (started, over) = (Instant::now(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..ATTACKERS)
            .map(|_| {
                scope.spawn(|| {
                    cores::stand_back();
                    while !over.load(Ordering::Relaxed) {
                        attack();
                    }
                })
            })
            .collect();
        let wait = bystander.p99(|waits| {
            if waits % 8 == 0 {
                look();
            }
            // An attacker that found something wrong has ended with a panic.
            started.elapsed() < ROUND && attackers.iter().all(|attacker| !attacker.is_finished())
        });
        over.store(true, Ordering::Relaxed);
        look();
        wait
    })
}
