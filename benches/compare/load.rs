//! The load: clients with a certificate, and what an operation cost the server.
//!
//! An operation counts once a 200 came back whole: in TLS 1.3 a client has finished before the server has judged its
//! certificate. The server's certificate is not verified, so that the client stays cheaper than the server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    ProtocolVersion, SignatureScheme, version,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{pki, process};

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Mode {
    /// Connect, shake hands in full, one request, close
    Full,
    /// The same with the session of an earlier handshake
    Resumed,
    /// HTTP/1.1 over connections that are kept
    H1,
    /// HTTP/2 over connections that are kept
    H2,
    /// HTTP/1.1 at a fixed rate, whatever the answers take
    Rate,
    /// Connections that are kept and do nothing, until standard input ends
    Idle,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Group {
    X25519,
    /// X25519MLKEM768
    Mlkem,
}

impl Group {
    fn name(self) -> NamedGroup {
        match self {
            Self::X25519 => NamedGroup::X25519,
            Self::Mlkem => NamedGroup::X25519MLKEM768,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArguments {
    #[arg(value_enum)]
    pub(crate) mode: Mode,
    pub(crate) target: SocketAddr,
    pub(crate) pki: PathBuf,
    /// Of the server, to weigh it
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    #[arg(long, value_enum, default_value = "x25519")]
    pub(crate) group: Group,
    #[arg(long)]
    pub(crate) tls12: bool,
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// 16 for handshakes, 32 for HTTP/1.1, 4 for HTTP/2 where nothing is said
    #[arg(long)]
    pub(crate) connections: Option<usize>,
    #[arg(long, default_value_t = 8)]
    pub(crate) streams: usize,
    #[arg(long, default_value_t = 2000.0)]
    pub(crate) rate: f64,
    #[arg(long, default_value = pki::HOST)]
    pub(crate) host: String,
    /// host-0 to host-N-1 in turn, in place of one
    #[arg(long)]
    pub(crate) hosts: Option<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) failures: u64,
    pub(crate) resumed: u64,
    pub(crate) seconds: f64,
    /// Microseconds of CPU that the server used.
    pub(crate) server: u64,
    /// And this process.
    pub(crate) own: u64,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) failure: Option<String>,
}

struct Load {
    arguments: LoadArguments,
    config: Arc<ClientConfig>,
    /// What the server has to show; none where each host has its own.
    shown: Option<CertificateDer<'static>>,
    measuring: AtomicBool,
    stop: AtomicBool,
    failures: AtomicU64,
    resumed: AtomicU64,
    failure: std::sync::Mutex<Option<String>>,
    next_host: AtomicU64,
}

pub(crate) fn run(arguments: &LoadArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(measure(arguments.clone()))?;
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

async fn measure(arguments: LoadArguments) -> anyhow::Result<Outcome> {
    let shown = arguments.hosts.is_none().then(|| pki::read(&arguments.pki, "server"));
    let protocol: &[u8] = if arguments.mode == Mode::H2 { b"h2" } else { b"http/1.1" };
    let load = Arc::new(Load {
        config: Arc::new(config(&arguments.pki, arguments.group, arguments.tls12, protocol)?),
        shown: shown.transpose()?.and_then(|(chain, _)| chain.into_iter().next()),
        arguments,
        measuring: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        failures: AtomicU64::new(0),
        resumed: AtomicU64::new(0),
        failure: std::sync::Mutex::default(),
        next_host: AtomicU64::new(0),
    });
    if load.arguments.mode == Mode::Idle {
        return idle(load).await;
    }
    let mut workers = JoinSet::new();
    load.start(&mut workers).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let cpu = |pid: Option<u32>| pid.map_or(0, process::cpu);
    let (server, own) = (cpu(load.arguments.pid), cpu(Some(std::process::id())));
    let begun = Instant::now();
    load.measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs_f64(load.arguments.seconds)).await;
    load.measuring.store(false, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    let (server, own) = (cpu(load.arguments.pid) - server, cpu(Some(std::process::id())) - own);
    load.stop.store(true, Ordering::Relaxed);
    let mut took: Vec<f64> = workers.join_all().await.concat();
    took.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (took.len() as f64 * part) as usize;
        took.get(index.min(took.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    Ok(Outcome {
        operations: took.len() as u64,
        failures: load.failures.load(Ordering::Relaxed),
        resumed: load.resumed.load(Ordering::Relaxed),
        seconds,
        server,
        own,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        failure: load.failure.lock().unwrap().take(),
    })
}

async fn idle(load: Arc<Load>) -> anyhow::Result<Outcome> {
    let mut kept = Vec::new();
    for _ in 0..load.arguments.connections.unwrap_or(9000) {
        let mut sender = h1(load.connect(&load.config).await?).await?;
        check(sender.send_request(load.request(Version::HTTP_11)).await?).await?;
        kept.push(sender);
    }
    println!("ready");
    let (kept, mut outcome) = (kept.into_iter(), Outcome::default());
    let mut line = String::new();
    let read = move || std::io::stdin().read_line(&mut line).map(|_| line);
    let told = tokio::task::spawn_blocking(read).await??;
    if told.trim() == "again" {
        let begun = Instant::now();
        for mut sender in kept {
            let answer = sender.send_request(load.request(Version::HTTP_11)).await;
            match answer {
                Ok(answer) if answer.status() == 200 => outcome.operations += 1,
                Ok(_) => outcome.failures += 1,
                Err(error) => outcome.failure = Some(error.to_string()),
            }
        }
        outcome.seconds = begun.elapsed().as_secs_f64();
    }
    Ok(outcome)
}

impl Load {
    async fn start(self: &Arc<Self>, workers: &mut JoinSet<Vec<f64>>) -> anyhow::Result<()> {
        let (mode, wanted) = (self.arguments.mode, self.arguments.connections);
        match mode {
            Mode::Full | Mode::Resumed => {
                for _ in 0..wanted.unwrap_or(16) {
                    workers.spawn(self.clone().shake_hands());
                }
            }
            Mode::H1 | Mode::Idle => {
                for _ in 0..wanted.unwrap_or(32) {
                    let sender = h1(self.connect(&self.config).await?).await?;
                    workers.spawn(self.clone().ask_h1(sender));
                }
            }
            Mode::H2 => {
                for _ in 0..wanted.unwrap_or(4) {
                    let stream = TokioIo::new(self.connect(&self.config).await?);
                    let executor = TokioExecutor::new();
                    let (sender, connection) = http2::handshake(executor, stream).await?;
                    tokio::spawn(connection);
                    for _ in 0..self.arguments.streams {
                        workers.spawn(self.clone().ask_h2(sender.clone()));
                    }
                }
            }
            Mode::Rate => {
                let (due, dues) = async_channel();
                for _ in 0..wanted.unwrap_or(32) {
                    let sender = h1(self.connect(&self.config).await?).await?;
                    workers.spawn(self.clone().ask_when_due(sender, dues.clone()));
                }
                let load = self.clone();
                // A thread's sleep is finer than a timer of the runtime.
                std::thread::spawn(move || load.tick(&due));
            }
        }
        Ok(())
    }

    fn tick(&self, due: &tokio::sync::mpsc::UnboundedSender<Instant>) {
        let step = Duration::from_secs_f64(1.0 / self.arguments.rate);
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Relaxed) && due.send(next).is_ok() {
            next += step;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn failed(&self, error: &anyhow::Error) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.failure.lock().unwrap() = Some(format!("{error:#}"));
    }

    fn running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn took(&self, since: Instant, into: &mut Vec<f64>) {
        if self.measuring.load(Ordering::Relaxed) {
            into.push(since.elapsed().as_secs_f64() * 1000.0);
        }
    }

    fn host(&self) -> String {
        let number = self.next_host.fetch_add(1, Ordering::Relaxed);
        self.arguments.hosts.map_or_else(
            || self.arguments.host.clone(),
            |hosts| format!("host-{}.test", number % hosts as u64),
        )
    }

    fn request(&self, version: Version) -> Request<Empty<Bytes>> {
        request(version, &self.arguments.host)
    }

    async fn connect(&self, config: &Arc<ClientConfig>) -> anyhow::Result<TlsStream<TcpStream>> {
        self.connect_to(config, self.arguments.host.clone()).await
    }

    async fn connect_to(
        &self,
        config: &Arc<ClientConfig>,
        host: String,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.arguments.target).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(config.clone());
        let stream = connector.connect(ServerName::try_from(host)?, stream).await?;
        self.as_asked(stream.get_ref().1)?;
        Ok(stream)
    }

    /// A row is of the version, the group and the kind of key that it says.
    fn as_asked(&self, connection: &ClientConnection) -> anyhow::Result<()> {
        let tls12 = self.arguments.tls12;
        let wanted = if tls12 { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
        let version = connection.protocol_version();
        ensure!(version == Some(wanted), "{version:?} in place of {wanted:?}");
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        ensure!(!resumed || self.arguments.mode != Mode::Full, "resumed in place of in full");
        // A resumed session of TLS 1.2 exchanges no keys.
        if !(tls12 && resumed) {
            let wanted = self.arguments.group.name();
            let group = connection.negotiated_key_exchange_group().map(|group| group.name());
            ensure!(group == Some(wanted), "{group:?} in place of {wanted:?}");
        }
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        ensure!(self.shown.is_none() || self.shown.as_ref() == shown, "another certificate");
        Ok(())
    }

    /// With sessions of its own, so that nobody takes another's.
    async fn shake_hands(self: Arc<Self>) -> Vec<f64> {
        let mut config = (*self.config).clone();
        if self.arguments.mode == Mode::Resumed {
            config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(32)));
        }
        let (config, mut took) = (Arc::new(config), Vec::new());
        while self.running() {
            let begun = Instant::now();
            match self.handshake_and_request(&config).await {
                Ok(()) => self.took(begun, &mut took),
                Err(error) => self.failed(&error),
            }
        }
        took
    }

    async fn handshake_and_request(&self, config: &Arc<ClientConfig>) -> anyhow::Result<()> {
        let host = self.host();
        let stream = self.connect_to(config, host.clone()).await.context("handshake")?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let mut sender = h1(stream).await?;
        check(sender.send_request(request(Version::HTTP_11, &host)).await?).await?;
        if resumed && self.measuring.load(Ordering::Relaxed) {
            self.resumed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ask_h1(self: Arc<Self>, mut sender: http1::SendRequest<Empty<Bytes>>) -> Vec<f64> {
        let mut took = Vec::new();
        while self.running() {
            let begun = Instant::now();
            match ask(&mut sender, self.request(Version::HTTP_11)).await {
                Ok(()) => self.took(begun, &mut took),
                Err(error) => return self.gave_up(&error, took),
            }
        }
        took
    }

    async fn ask_h2(self: Arc<Self>, mut sender: http2::SendRequest<Empty<Bytes>>) -> Vec<f64> {
        let mut took = Vec::new();
        while self.running() {
            let begun = Instant::now();
            let answer =
                async { check(sender.send_request(self.request(Version::HTTP_2)).await?).await };
            match answer.await {
                Ok(()) => self.took(begun, &mut took),
                Err(error) => return self.gave_up(&error, took),
            }
        }
        took
    }

    async fn ask_when_due(
        self: Arc<Self>,
        mut sender: http1::SendRequest<Empty<Bytes>>,
        dues: Arc<tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<Instant>>>,
    ) -> Vec<f64> {
        let mut took = Vec::new();
        loop {
            let due = dues.lock().await.recv().await;
            // What could not be asked for in time is not asked for afterwards.
            let Some(due) = due.filter(|_| self.running()) else { return took };
            match ask(&mut sender, self.request(Version::HTTP_11)).await {
                Ok(()) => self.took(due, &mut took),
                Err(error) => return self.gave_up(&error, took),
            }
        }
    }

    fn gave_up(&self, error: &anyhow::Error, took: Vec<f64>) -> Vec<f64> {
        self.failed(error);
        took
    }
}

fn async_channel() -> (
    tokio::sync::mpsc::UnboundedSender<Instant>,
    Arc<tokio::sync::Mutex<tokio::sync::mpsc::UnboundedReceiver<Instant>>>,
) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    (sender, Arc::new(tokio::sync::Mutex::new(receiver)))
}

async fn h1(stream: TlsStream<TcpStream>) -> anyhow::Result<http1::SendRequest<Empty<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(
    sender: &mut http1::SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> anyhow::Result<()> {
    sender.ready().await?;
    check(sender.send_request(request).await?).await
}

fn request(version: Version, host: &str) -> Request<Empty<Bytes>> {
    let request = Request::builder().version(version).header("user-agent", "compare/1");
    let request = if version == Version::HTTP_2 {
        request.uri(format!("https://{host}/path/of/a/request?with=query"))
    } else {
        request.uri("/path/of/a/request?with=query").header("host", host)
    };
    request.header("accept", "*/*").body(Empty::new()).unwrap()
}

async fn check(response: Response<Incoming>) -> anyhow::Result<()> {
    let (status, mut body) = (response.status(), response.into_body());
    while let Some(frame) = body.frame().await {
        frame?;
    }
    ensure!(status == 200, "status {status}");
    Ok(())
}

/// A client with a certificate, and without any session.
pub(crate) fn config(
    pki: &Path,
    group: Group,
    tls12: bool,
    protocol: &[u8],
) -> anyhow::Result<ClientConfig> {
    let group = match group {
        Group::X25519 => aws_lc_rs::kx_group::X25519,
        Group::Mlkem => aws_lc_rs::kx_group::X25519MLKEM768,
    };
    let mut kx_groups = vec![group];
    if tls12 {
        // Before TLS 1.3 this is the list of the curves of certificates too. Which was agreed on is looked at.
        kx_groups.push(aws_lc_rs::kx_group::SECP256R1);
    }
    let provider = CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    let versions = if tls12 { &[&version::TLS12] } else { &[&version::TLS13] };
    let (chain, key) = pki::read(pki, "client")?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// Takes any server: all of them are this machine's.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
