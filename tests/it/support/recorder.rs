//! A backend on a bare socket. It keeps every octet that reaches it, and reads requests as narrowly as RFC 9112 lets it:
//! what passes here is read the same by everybody.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::manifests::service;

/// Serves until the test ends.
pub(crate) struct Recorder {
    pub(crate) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

/// One request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    /// Octets as characters of Latin-1, so that nothing is lost.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// What another reader might have read differently.
    pub(crate) fault: Option<String>,
}

impl Received {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Arc::<Mutex<Vec<Received>>>::default();
        let keep = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let keep = keep.clone();
                std::thread::spawn(move || converse(&stream, &keep));
            }
        });
        Self { port, received }
    }

    /// The Service of this name.
    pub(crate) fn manifest(&self, name: &str) -> String {
        service(name, &[self.port])
    }

    /// Everything that came, in the order in which it was complete.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// What came of a target that begins so.
    pub(crate) fn of(&self, prefix: &str) -> Vec<Received> {
        let of = |received: &Received| received.target().starts_with(prefix);
        self.received().into_iter().filter(of).collect()
    }

    /// Fails where anything came that could be read in two ways.
    pub(crate) fn is_unambiguous(&self) {
        for received in self.received() {
            assert_eq!(received.fault, None, "{received:?}");
        }
    }
}

fn converse(stream: &TcpStream, keep: &Mutex<Vec<Received>>) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(mut received) = read(&mut reader) {
        let upgrade = !received.all("upgrade").is_empty() && received.fault.is_none();
        let answer = match received.method() {
            _ if upgrade => {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
            }
            "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        };
        if upgrade {
            let mut writer = stream;
            drop(writer.write_all(answer.as_bytes()));
            drop(reader.read_to_end(&mut received.body));
            keep.lock().unwrap().push(received);
            return;
        }
        let faulty = received.fault.is_some();
        keep.lock().unwrap().push(received);
        let mut writer = stream;
        if writer.write_all(answer.as_bytes()).is_err() || faulty {
            return;
        }
    }
}

/// The next request; none where the connection ends, be it in the middle of one.
fn read(reader: &mut impl BufRead) -> Option<Received> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
        if head.len() > 1 << 20 {
            break;
        }
    }
    let mut received = Received {
        head: head.iter().map(|octet| char::from(*octet)).collect(),
        ..Default::default()
    };
    match framing(&received) {
        Ok(Framing::Length(length)) => {
            received.body = vec![0; length];
            reader.read_exact(&mut received.body).ok()?;
        }
        Ok(Framing::Chunked) => match chunks(reader) {
            Ok(body) => received.body = body?,
            Err(fault) => received.fault = Some(fault),
        },
        Err(fault) => received.fault = Some(fault),
    }
    Some(received)
}

enum Framing {
    Length(usize),
    Chunked,
}

const FRAMES: &[&str] = &["connection", "content-length", "host", "transfer-encoding", "upgrade"];

fn is_token(text: &str) -> bool {
    let of_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(of_token)
}

/// How the body is framed, where the head can be read in one way only.
fn framing(received: &Received) -> Result<Framing, String> {
    let text = received.head.strip_suffix("\r\n\r\n").ok_or("an endless head")?;
    let mut lines = text.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1"] = first[..] else {
        return Err(format!("request line {first:?}"));
    };
    let visible = |c: char| c > ' ' && c != '\x7F';
    if !is_token(method) || !target.starts_with('/') || !target.chars().all(visible) {
        return Err(format!("request line {first:?}"));
    }
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no field: {line:?}"))?;
        let printable = |c: char| c == '\t' || (c >= ' ' && c != '\x7F');
        if !is_token(name) || !value.chars().all(printable) {
            return Err(format!("field {line:?}"));
        }
        // Some readers take anything that is no letter for a hyphen.
        let folded = name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        if name.contains(['_', '.']) && FRAMES.contains(&&*folded) {
            return Err(format!("a lookalike: {line:?}"));
        }
    }
    if received.all("host").len() != 1 {
        return Err("not one host".to_owned());
    }
    match (&received.all("content-length")[..], &received.all("transfer-encoding")[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) if length.chars().all(|c| c.is_ascii_digit()) => {
            length.parse().map(Framing::Length).map_err(|error| error.to_string())
        }
        ([], ["chunked"]) => Ok(Framing::Chunked),
        both => Err(format!("framed by {both:?}")),
    }
}

/// A chunked body without extensions; `None` where it breaks off.
fn chunks(reader: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    loop {
        let Some(size) = line(reader)? else { return Ok(None) };
        let length =
            usize::from_str_radix(&size, 16).map_err(|_| format!("chunk size {size:?}"))?;
        if size.len() > 8 || size.starts_with('+') {
            return Err(format!("chunk size {size:?}"));
        }
        if length == 0 {
            break;
        }
        let mut chunk = vec![0; length + 2];
        if reader.read_exact(&mut chunk).is_err() {
            return Ok(None);
        }
        if !chunk.ends_with(b"\r\n") {
            return Err("a chunk that is longer than its size".to_owned());
        }
        body.extend_from_slice(&chunk[..length]);
    }
    loop {
        match line(reader)? {
            Some(trailer) if trailer.is_empty() => return Ok(Some(body)),
            Some(trailer) if trailer.split_once(':').is_some_and(|(name, _)| is_token(name)) => {}
            Some(trailer) => return Err(format!("trailer {trailer:?}")),
            None => return Ok(None),
        }
    }
}

/// A line that ends in CRLF and holds neither elsewhere.
fn line(reader: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line).is_err() || !line.ends_with(b"\n") {
        return Ok(None);
    }
    let text: String = line.iter().map(|octet| char::from(*octet)).collect();
    match text.strip_suffix("\r\n") {
        Some(text) if !text.contains('\r') => Ok(Some(text.to_owned())),
        _ => Err(format!("line {text:?}")),
    }
}
