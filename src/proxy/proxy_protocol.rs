//! The PROXY protocol, versions 1 and 2: a load balancer in front says whose connection it passes on.
//!
//! Who is to write such a header must do so on every connection; from everybody else the same octets are what they are
//! without it. Nothing behind the header is read here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A header with everything that load balancers add to one, a client's certificate included.
const LONGEST: usize = 16 * 1024;
/// What comes in one go, as a rule.
const USUAL: usize = 536;
/// The head of version 2, its length included; shorter than any header of version 1.
const FIXED: usize = 16;
/// No line of version 1 is longer.
const LONGEST_LINE: usize = 107;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a connection that must begin with a header is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("PROXY protocol: no header within {0:?}")]
    Timeout(Duration),
    #[error("PROXY protocol: the connection does not begin with a header")]
    Malformed,
    #[error("PROXY protocol: {0}")]
    Io(#[from] io::Error),
}

/// Takes the header off the connection. Says who the client is; nobody else than the load balancer where that speaks for
/// itself.
pub(super) async fn client(
    stream: &mut TcpStream,
    limit: Duration,
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let header = tokio::time::timeout(limit, header(stream))
        .await
        .map_err(|_| ProxyHeaderError::Timeout(limit))??;
    source(&header)
}

fn source(header: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let config = ParseConfig { include_tlvs: false, allow_v1: true, allow_v2: true };
    let parsed = ProxyHeader::parse(header, config);
    let (parsed, length) = parsed.map_err(|_| ProxyHeaderError::Malformed)?;
    if length != header.len() {
        return Err(ProxyHeaderError::Malformed);
    }
    let source = parsed.proxied_address().map(|address| address.source);
    Ok(source.map(|source| SocketAddr::new(source.ip().to_canonical(), source.port())))
}

/// Reads the octets of the header, and none behind them.
async fn header(stream: &mut TcpStream) -> Result<Vec<u8>, ProxyHeaderError> {
    let mut header = Vec::new();
    let mut seen = [0; USUAL];
    loop {
        let there = stream.peek(&mut seen).await?;
        if there == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let fresh = seen.get(..there).unwrap_or_default();
        let more = wanted(&header, fresh)?;
        let begun = header.len();
        header.resize(begun + more.of_it, 0);
        stream.read_exact(header.get_mut(begun..).unwrap_or_default()).await?;
        if more.is_last {
            return Ok(header);
        }
    }
}

/// How much of what is there belongs to the header for certain.
#[derive(Debug, Eq, PartialEq)]
struct Wanted {
    of_it: usize,
    is_last: bool,
}

fn wanted(read: &[u8], fresh: &[u8]) -> Result<Wanted, ProxyHeaderError> {
    let together = [read, fresh].concat();
    let begins = |with: &[u8]| together.iter().zip(with).all(|(octet, wanted)| octet == wanted);
    if begins(SIGNATURE) {
        let whole = match together.get(FIXED - 2..FIXED) {
            Some(&[high, low]) => Some(FIXED + usize::from(u16::from_be_bytes([high, low]))),
            _ => None,
        };
        return up_to(whole, read, fresh, LONGEST);
    }
    if begins(b"PROXY ") {
        let line = together.iter().position(|octet| *octet == b'\n').map(|end| end + 1);
        let line = line.or_else(|| (together.len() > LONGEST_LINE).then_some(together.len()));
        return up_to(line, read, fresh, LONGEST_LINE);
    }
    Err(ProxyHeaderError::Malformed)
}

fn up_to(
    whole: Option<usize>,
    read: &[u8],
    fresh: &[u8],
    longest: usize,
) -> Result<Wanted, ProxyHeaderError> {
    let Some(whole) = whole else { return Ok(Wanted { of_it: fresh.len(), is_last: false }) };
    if whole > longest {
        return Err(ProxyHeaderError::Malformed);
    }
    let of_it = whole.saturating_sub(read.len()).min(fresh.len());
    Ok(Wanted { of_it, is_last: read.len() + of_it == whole })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All of the header, given in pieces of this size, and what is left.
    fn taken(sent: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>), ProxyHeaderError> {
        let (mut header, mut rest) = (Vec::new(), sent.to_vec());
        loop {
            let fresh: Vec<u8> = rest.iter().take(piece).copied().collect();
            if fresh.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let more = wanted(&header, &fresh)?;
            header.extend(rest.drain(..more.of_it));
            if more.is_last {
                return Ok((header, rest));
            }
        }
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, body].concat()
    }

    const TCP4: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0xC3, 0x50, 0x01, 0xBB];

    #[test]
    fn a_header_is_read_to_its_end_and_no_further_in_whatever_pieces_it_comes() {
        let tlvs = [TCP4, &[0x04, 0x00, 0x03, 1, 2, 3]].concat();
        for header in [
            b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 443\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::7 ::1 50000 443\r\n".to_vec(),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN whatever it is\r\n".to_vec(),
            version_2(1, 0x11, TCP4),
            version_2(1, 0x11, &tlvs),
            version_2(0, 0x00, &[]),
        ] {
            for piece in [1, 7, 16, 1000] {
                let sent = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
                let (taken, rest) = taken(&sent, piece).unwrap();
                assert_eq!((taken, &rest[..]), (header.clone(), &b"GET / HTTP/1.1\r\n"[..]));
                source(&header).unwrap();
            }
        }
    }

    #[test]
    fn the_source_is_the_client_except_where_the_load_balancer_speaks_for_itself() {
        let client = "192.0.2.7:50000".parse().ok();
        let mapped = [&[0; 10][..], &[0xFF, 0xFF, 192, 0, 2, 7], &[0; 16], &[0xC3, 0x50, 0, 80]];
        for (header, expected) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 443\r\n".to_vec(), client),
            (b"PROXY UNKNOWN 192.0.2.7 10.0.0.1 50000 443\r\n".to_vec(), None),
            (version_2(1, 0x11, TCP4), client),
            (version_2(1, 0x21, &mapped.concat()), client),
            (version_2(0, 0x11, TCP4), None),
            (version_2(1, 0x31, &[0; 216]), None),
            (version_2(1, 0x00, &[]), None),
            (version_2(1, 0x00, TCP4), None),
        ] {
            assert_eq!(source(&header).unwrap(), expected, "{header:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let endless = [b"PROXY TCP4 ", &[b'1'; 200][..]].concat();
        for sent in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00".to_vec(),
            b"proxy TCP4 192.0.2.7 10.0.0.1 50000 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 50000 443\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 443\r\n".to_vec(),
            b"PROXY TCP4 example.test 10.0.0.1 50000 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 50000 443\r\n".to_vec(),
            b"PROXY \r\nGET / HTTP/1.1\r\n".to_vec(),
            version_2(1, 0x11, &TCP4[1..]),
            version_2(2, 0x11, TCP4),
            version_2(1, 0x11, &[0; LONGEST]),
            endless,
        ] {
            let refused = taken(&sent, 1000).and_then(|(header, _)| source(&header));
            assert!(refused.is_err(), "{sent:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(sent in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
            let begin: &[u8] = match kind { 0 => SIGNATURE, 1 => b"PROXY TCP4 ", _ => b"" };
            let sent = [begin, &sent].concat();
            if let Ok((header, _)) = taken(&sent, 64) {
                drop(source(&header));
            }
        }
    }
}
