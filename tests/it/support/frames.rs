//! HTTP/2 by hand (RFC 9113): frames as they are wanted, however wrong, and no more of HPACK than that takes.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// RFC 9113, 7.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xB;

/// SETTINGS_HEADER_TABLE_SIZE of 0: every status is written out, and can be read.
pub(crate) const UNINDEXED: &[(u16, u32)] = &[(1, 0)];

/// A name and a value, whatever is in them.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// What the server did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Event {
    /// A head, with its status where it is one that HPACK's table has or that is written out.
    Head {
        stream: u32,
        status: u16,
        end: bool,
    },
    Data {
        stream: u32,
        length: usize,
        end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        code: u32,
        why: String,
    },
    /// Of the connection's own upkeep.
    Other,
}

/// A connection that has sent its preface.
pub(crate) struct H2<S> {
    pub(crate) stream: S,
    /// Settings and pings are acknowledged.
    pub(crate) polite: bool,
    pub(crate) upkeep: Upkeep,
}

/// What the server said of the connection itself.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    pub(crate) settings: HashMap<u16, u32>,
    /// By how much it let each stream's window grow, and the connection's (0).
    pub(crate) windows: HashMap<u32, u64>,
    /// The last stream that it will look at, once it wants no more.
    pub(crate) last: Option<u32>,
    pongs: usize,
}

impl H2<TcpStream> {
    /// Over http, by prior knowledge.
    pub(crate) fn plain(server: SocketAddr, settings: &[(u16, u32)]) -> io::Result<Self> {
        let stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Self::over(stream, settings)
    }
}

impl<S: Read + Write> H2<S> {
    pub(crate) fn over(mut stream: S, settings: &[(u16, u32)]) -> io::Result<Self> {
        let pairs = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        let settings = frame(SETTINGS, 0, 0, &pairs.collect::<Vec<u8>>());
        stream.write_all(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat())?;
        stream.flush()?;
        Ok(Self::of(stream))
    }

    /// Where the preface is somebody else's.
    pub(crate) fn of(stream: S) -> Self {
        Self { stream, polite: true, upkeep: Upkeep::default() }
    }

    pub(crate) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)?;
        self.stream.flush()
    }

    /// The next frame; an error where the connection ends, or nothing comes.
    pub(crate) fn next(&mut self) -> io::Result<Event> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        let (kind, flags) = (head[3], head[4]);
        let number = |from: usize| {
            payload
                .get(from..from + 4)
                .map_or(0, |four| u32::from_be_bytes(four.try_into().unwrap()))
        };
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        match kind {
            SETTINGS => self.upkeep.settings.extend(payload.chunks_exact(6).map(|pair| {
                let (name, value) = pair.split_at(2);
                (
                    u16::from_be_bytes(name.try_into().unwrap()),
                    u32::from_be_bytes(value.try_into().unwrap()),
                )
            })),
            PING if flags & ACK != 0 => self.upkeep.pongs += 1,
            WINDOW_UPDATE => {
                *self.upkeep.windows.entry(stream).or_default() += u64::from(number(0));
            }
            GOAWAY => self.upkeep.last = Some(number(0)),
            _ => {}
        }
        Ok(match kind {
            HEADERS => {
                Event::Head { stream, status: status(&payload), end: flags & END_STREAM != 0 }
            }
            DATA => Event::Data { stream, length, end: flags & END_STREAM != 0 },
            RST_STREAM => Event::Reset { stream, code: number(0) },
            GOAWAY => Event::GoAway {
                code: number(4),
                why: String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned(),
            },
            SETTINGS | PING if flags & ACK == 0 && self.polite => {
                let ack = frame(kind, ACK, 0, if kind == PING { &payload } else { &[] });
                // It may have hung up by now; what it has sent is still there to be read.
                drop(self.send(&ack));
                Event::Other
            }
            _ => Event::Other,
        })
    }

    /// What came until everything that was sent had been looked at, and whether the connection goes on. An answer to
    /// what was sent last may come later: the answer to a PING goes first.
    pub(crate) fn settled(&mut self) -> (Vec<Event>, bool) {
        let (pongs, mut events) = (self.upkeep.pongs, Vec::new());
        // It may have hung up by now; what it has sent is still there to be read.
        drop(self.send(&frame(PING, 0, 0, &[2; 8])));
        while self.upkeep.pongs == pongs {
            match self.next() {
                Ok(event) => events.push(event),
                Err(_) => return (events, false),
            }
        }
        (events, true)
    }

    /// What became of a stream: the status of its answer, or none where it was reset or the connection ended.
    pub(crate) fn outcome(&mut self, wanted: u32) -> Option<u16> {
        loop {
            match self.next() {
                Ok(Event::Head { stream, status, .. }) if stream == wanted => return Some(status),
                Ok(Event::Reset { stream, .. }) if stream == wanted => return None,
                Ok(Event::GoAway { code, .. }) if code != 0 => return None,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields one after the other, written out, in no table.
pub(crate) fn block(fields: &[Field<'_>]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A field that enters the table: from then on it is [`INDEXED`], one octet.
pub(crate) fn indexed(name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![0x40], text(name), text(value)].concat()
}

/// The newest entry of the table.
pub(crate) const INDEXED: u8 = 0x80 | 62;

fn text(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if octets.len() < 127 {
        out.push(u8::try_from(octets.len()).unwrap());
    } else {
        out.push(127);
        let mut rest = octets.len() - 127;
        while rest >= 128 {
            out.push(u8::try_from(rest % 128).unwrap() | 0x80);
            rest /= 128;
        }
        out.push(u8::try_from(rest).unwrap());
    }
    out.extend_from_slice(octets);
    out
}

/// The head of a GET.
pub(crate) fn get(host: &str, path: &str) -> Vec<u8> {
    head("GET", host, path, &[])
}

pub(crate) fn head(method: &str, host: &str, path: &str, further: &[Field<'_>]) -> Vec<u8> {
    let fields = [
        (&b":method"[..], method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", host.as_bytes()),
        (b":path", path.as_bytes()),
    ];
    block(&[&fields[..], further].concat())
}

/// The first field of a response: an entry of the static table, or written out with its name in the table.
fn status(block: &[u8]) -> u16 {
    match block {
        // A change of the table's size may go before it.
        [0x20..=0x3F, rest @ ..] => status(rest),
        [octet @ 0x88..=0x8E, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(octet - 0x88)],
        [0x08 | 0x18 | 0x48, length, value @ ..] => digits(*length, value),
        _ => 0,
    }
}

fn digits(length: u8, value: &[u8]) -> u16 {
    let octets = &value[..usize::from(length & 0x7F).min(value.len())];
    if length & 0x80 == 0 {
        return std::str::from_utf8(octets).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    }
    let bits: String = octets.iter().map(|octet| format!("{octet:08b}")).collect();
    let mut rest = bits.as_str();
    let mut number = 0;
    for _ in 0..3 {
        // RFC 7541, appendix B: 0, 1 and 2 have five bits, the others six.
        let five = rest.get(..5).and_then(|it| u16::from_str_radix(it, 2).ok()).unwrap_or(0);
        let six = rest.get(..6).and_then(|it| u16::from_str_radix(it, 2).ok()).unwrap_or(0);
        let (digit, taken) = if five < 3 { (five, 5) } else { (six.saturating_sub(0x19) + 3, 6) };
        number = number * 10 + digit;
        rest = rest.get(taken..).unwrap_or_default();
    }
    number
}
