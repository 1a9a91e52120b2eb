//! A TLS client that does what other clients would not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::pki::{Ca, Identity};

/// How a client shakes hands.
pub(crate) struct Client {
    config: ClientConfig,
    /// Cut the ClientHello into records of one octet.
    pub(crate) fragment: bool,
    /// What goes before the ClientHello.
    pub(crate) prefix: Vec<u8>,
}

/// An answer in short.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The dotted code of a refusal, or the bare status.
    pub(crate) fn code(&self) -> String {
        let in_page = self.body.split("<title>").nth(1).and_then(|rest| rest.split(' ').next());
        in_page.map_or_else(|| self.status.to_string(), str::to_owned)
    }

    /// What the backend was told, or null.
    pub(crate) fn told(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

pub(crate) type Stream = StreamOwned<ClientConnection, Pipe>;

impl Client {
    pub(crate) fn new(
        server_ca: &Ca,
        identity: Option<&Identity>,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(server_ca.der())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                let (chain, key) = identity.for_rustls();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        Self { config, fragment: false, prefix: Vec::new() }
    }

    /// Uses one store of sessions for every host, whatever their names.
    pub(crate) fn with_sessions(mut self, sessions: &Arc<Promiscuous>) -> Self {
        self.config.resumption = Resumption::store(sessions.clone());
        self
    }

    pub(crate) fn without_sni(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    /// Speaks this protocol and no other.
    pub(crate) fn with_alpn(mut self, protocol: &str) -> Self {
        self.config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        self
    }

    pub(crate) fn connect(&self, server: SocketAddr, sni: &str) -> Stream {
        let name = ServerName::try_from(sni.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(self.config.clone()), name).unwrap();
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&self.prefix).unwrap();
        StreamOwned::new(connection, Pipe { stream, fragment: self.fragment })
    }

    /// One request on a connection of its own; whether the handshake resumed.
    pub(crate) fn get(
        &self,
        server: SocketAddr,
        sni: &str,
        host: &str,
        path: &str,
    ) -> (Reply, bool) {
        let mut stream = self.connect(server, sni);
        let reply = get(&mut stream, host, path);
        (reply, stream.conn.handshake_kind() == Some(HandshakeKind::Resumed))
    }
}

/// The record that a client begins with.
pub(crate) fn client_hello(sni: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut octets = Vec::new();
    connection.write_tls(&mut octets).unwrap();
    octets
}

/// A request without a body on an open connection.
pub(crate) fn get(stream: &mut (impl Read + Write), host: &str, path: &str) -> Reply {
    request(stream, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

/// Whatever is written, and one answer.
pub(crate) fn request(stream: &mut (impl Read + Write), text: &str) -> Reply {
    stream.write_all(text.as_bytes()).unwrap();
    stream.flush().unwrap();
    reply(stream).unwrap_or_else(|error| panic!("no answer: {error}"))
}

/// Reads an answer with a Content-Length, or of no body.
pub(crate) fn reply(stream: &mut impl Read) -> io::Result<Reply> {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        head.push(octet[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Reply { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A TCP stream that may cut the first record it sends.
pub(crate) struct Pipe {
    stream: TcpStream,
    fragment: bool,
}

impl Pipe {
    /// How long a read may take.
    pub(crate) fn patience(&self, time: Duration) {
        self.stream.set_read_timeout(Some(time)).unwrap();
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.fragment) {
            let (header, hello) = buffer.split_at(5);
            for octet in hello {
                self.stream.write_all(&[header[0], header[1], header[2], 0, 1, *octet])?;
            }
            return Ok(buffer.len());
        }
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Offers what one host gave to every other.
#[derive(Debug, Default)]
pub(crate) struct Promiscuous {
    tls12: std::sync::Mutex<Option<rustls::client::Tls12ClientSessionValue>>,
    tls13: std::sync::Mutex<Vec<rustls::client::Tls13ClientSessionValue>>,
}

impl rustls::client::ClientSessionStore for Promiscuous {
    fn set_kx_hint(&self, _: ServerName<'static>, _: rustls::NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        None
    }

    fn set_tls12_session(
        &self,
        _: ServerName<'static>,
        value: rustls::client::Tls12ClientSessionValue,
    ) {
        *self.tls12.lock().unwrap() = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.tls12.lock().unwrap().clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *self.tls12.lock().unwrap() = None;
    }

    fn insert_tls13_ticket(
        &self,
        _: ServerName<'static>,
        value: rustls::client::Tls13ClientSessionValue,
    ) {
        self.tls13.lock().unwrap().push(value);
    }

    fn take_tls13_ticket(
        &self,
        _: &ServerName<'static>,
    ) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.tls13.lock().unwrap().pop()
    }
}
