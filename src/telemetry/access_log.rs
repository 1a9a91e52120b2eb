//! Access records on their way to a file or to standard output, by a thread of their own.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;

use super::record::AccessRecord;
use super::rotation::RotatingFile;
use super::{json, w3c};

/// Records and octets that may wait; more are dropped and counted, for a slow disk must not slow requests.
const MOST_WAITING: usize = 65_536;
const MOST_OCTETS: usize = 64 * 1024 * 1024;

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// W3C extended.
    W3c,
}

/// Where records go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file that is rotated by day and by size.
    File {
        /// The current file.
        path: PathBuf,
        /// Octets.
        longest: u64,
    },
}

/// The way to the writer; clones lead to the same one.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: Format,
    lines: SyncSender<Message>,
    waiting_octets: Arc<AtomicUsize>,
    dropped: Counter,
}

enum Message {
    Line(Vec<u8>, Timestamp),
    Flush(SyncSender<()>),
}

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened, or no thread started.
    pub fn start(destination: Destination, format: Format, dropped: Counter) -> io::Result<Self> {
        let begin = match format {
            Format::Json => |_| Vec::new(),
            Format::W3c => w3c::directives,
        };
        let sink = match destination {
            Destination::Stdout => Sink::Stdout { begin: Some(begin) },
            Destination::File { path, longest } => {
                RotatingFile::check(&path)?;
                Sink::File(RotatingFile::new(&path, longest, begin))
            }
        };
        let (lines, waiting) = mpsc::sync_channel(MOST_WAITING);
        let waiting_octets = Arc::new(AtomicUsize::new(0));
        let (lost, written) = (dropped.clone(), waiting_octets.clone());
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(sink, &waiting, &written, &lost))?;
        Ok(Self { format, lines, waiting_octets, dropped })
    }

    /// Hands a record over. Never waits.
    pub fn log(&self, record: &AccessRecord) {
        let line = match self.format {
            Format::Json => json::line(record),
            Format::W3c => w3c::line(record),
        };
        let length = line.len();
        let room = self.waiting_octets.fetch_add(length, Ordering::Relaxed) < MOST_OCTETS;
        if !room || self.lines.try_send(Message::Line(line, record.time)).is_err() {
            self.waiting_octets.fetch_sub(length, Ordering::Relaxed);
            self.dropped.inc();
        }
    }

    /// Waits until everything logged so far is written, but not longer than this. Not for the event loop.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = mpsc::sync_channel(1);
        for _ in 0..100 {
            if self.lines.try_send(Message::Flush(done.clone())).is_ok() {
                break;
            }
            std::thread::sleep(limit / 100);
        }
        if wait.recv_timeout(limit).is_err() {
            tracing::warn!("the access log could not be written to its end");
        }
    }
}

enum Sink {
    Stdout { begin: Option<fn(Timestamp) -> Vec<u8>> },
    File(RotatingFile),
}

impl Sink {
    fn write(&mut self, line: &[u8], time: Timestamp) -> io::Result<()> {
        match self {
            Self::Stdout { begin } => {
                let mut stdout = io::stdout().lock();
                if let Some(begin) = begin.take() {
                    stdout.write_all(&begin(time))?;
                }
                stdout.write_all(line)
            }
            Self::File(file) => file.write(line, time),
        }
    }
}

fn write_all(mut sink: Sink, waiting: &Receiver<Message>, octets: &AtomicUsize, lost: &Counter) {
    let mut failing = false;
    loop {
        match waiting.recv_timeout(Duration::from_secs(60)) {
            Ok(Message::Line(line, time)) => {
                octets.fetch_sub(line.len(), Ordering::Relaxed);
                match sink.write(&line, time) {
                    Ok(()) => failing = false,
                    Err(error) => {
                        lost.inc();
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!(%error, "the access log cannot be written: records are lost until it can");
                        }
                    }
                }
            }
            Ok(Message::Flush(done)) => drop(done.try_send(())),
            Err(RecvTimeoutError::Timeout) => failing = false,
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
