//! Access records on their way to a file or to standard output, by a thread of their own.

use std::cell::Cell;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;

use super::record::AccessRecord;
use super::rotation::RotatingFile;
use super::{json, w3c};

/// Records and octets that may wait; more are dropped and counted, for a slow disk must not slow requests.
const MOST_WAITING: usize = 65_536;
const MOST_OCTETS: usize = 64 * 1024 * 1024;
/// Room for so many octets is kept.
const MOST_SPARE: usize = 1024 * 1024;
/// Most lines are shorter; room for longer ones is not kept.
const MOST_ROOM: usize = 8 * 1024;
/// How long the first record that waits does so for others: a write and a change of threads for each would cost more than
/// many a request.
const GATHERING: Duration = Duration::from_millis(5);

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
    way: Arc<Way>,
    dropped: Counter,
}

/// The writer ends with the last who could tell it something.
#[derive(Debug)]
struct Way(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    something: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    batch: Batch,
    /// Who wants to know when everything so far is written.
    flushes: Vec<SyncSender<()>>,
    closed: bool,
}

/// Lines one after the other, and for each where it ends and when it was.
#[derive(Debug, Default)]
struct Batch {
    text: Vec<u8>,
    lines: Vec<(usize, Timestamp)>,
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
        let shared = Arc::new(Shared::default());
        let way = Arc::new(Way(shared.clone()));
        let mut writer =
            Writer { sink, spare: Batch::default(), lost: dropped.clone(), failing: false };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || while shared.write(&mut writer) {})?;
        Ok(Self { format, way, dropped })
    }

    /// Hands a record over. Never waits.
    pub fn log(&self, record: &AccessRecord) {
        thread_local! {
            // Made anew for each record it would be somewhere else each time, and far from the processor.
            static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        let mut line = ROOM.take();
        match self.format {
            Format::Json => json::write(record, &mut line),
            Format::W3c => line = w3c::line(record),
        }
        if !self.way.0.add(&line, record.time) {
            self.dropped.inc();
        }
        if line.capacity() <= MOST_ROOM {
            line.clear();
            ROOM.set(line);
        }
    }

    /// Waits until everything logged so far is written, but not longer than this. Not for the event loop.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = mpsc::sync_channel(1);
        self.way.0.waiting().flushes.push(done);
        self.way.0.something.notify_one();
        if wait.recv_timeout(limit).is_err() {
            tracing::warn!("the access log could not be written to its end");
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.0.waiting().closed = true;
        self.0.something.notify_one();
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room for it.
    fn add(&self, line: &[u8], time: Timestamp) -> bool {
        let mut waiting = self.waiting();
        let Batch { text, lines } = &mut waiting.batch;
        if lines.len() >= MOST_WAITING || text.len() + line.len() > MOST_OCTETS {
            return false;
        }
        text.extend_from_slice(line);
        lines.push((text.len(), time));
        let is_first = lines.len() == 1;
        drop(waiting);
        if is_first {
            self.something.notify_one();
        }
        true
    }

    /// Waits for something, gathers, and writes it; false once there will be no more.
    fn write(&self, writer: &mut Writer) -> bool {
        let nothing = |waiting: &mut Waiting| {
            waiting.batch.lines.is_empty() && waiting.flushes.is_empty() && !waiting.closed
        };
        let waiting = self.something.wait_while(self.waiting(), nothing);
        let hurry = {
            let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            waiting.closed || !waiting.flushes.is_empty()
        };
        if !hurry {
            std::thread::sleep(GATHERING);
        }
        let mut batch = std::mem::take(&mut writer.spare);
        let (flushes, closed) = {
            let mut waiting = self.waiting();
            std::mem::swap(&mut waiting.batch, &mut batch);
            (std::mem::take(&mut waiting.flushes), waiting.closed)
        };
        writer.write(&batch);
        if batch.text.capacity() <= MOST_SPARE {
            batch.text.clear();
            batch.lines.clear();
            writer.spare = batch;
        }
        for done in flushes {
            // Whoever asked may have given up.
            let _gone = done.try_send(());
        }
        !closed
    }
}

struct Writer {
    sink: Sink,
    /// Room that was made before, for the lines to come.
    spare: Batch,
    lost: Counter,
    /// Said once, until it can write again.
    failing: bool,
}

enum Sink {
    Stdout { begin: Option<fn(Timestamp) -> Vec<u8>> },
    File(RotatingFile),
}

impl Writer {
    /// As few writes as the turns of the file allow.
    fn write(&mut self, batch: &Batch) {
        let (mut block, mut count) = (0..0, 0);
        for &(end, time) in &batch.lines {
            let length = end - block.end;
            if self.sink.turns_for(length, time) {
                self.put(batch.text.get(block.clone()).unwrap_or_default(), count);
                (block, count) = (block.end..block.end, 0);
            }
            match self.sink.prepare(length, time) {
                Ok(()) => {
                    block.end = end;
                    count += 1;
                }
                Err(error) => {
                    self.failed(&error, 1);
                    // What is before it is written already: a file that is to be opened turns first.
                    block = end..end;
                }
            }
        }
        self.put(batch.text.get(block).unwrap_or_default(), count);
    }

    fn put(&mut self, block: &[u8], lines: u64) {
        if lines == 0 {
            return;
        }
        match self.sink.append(block) {
            Ok(()) => self.failing = false,
            Err(error) => self.failed(&error, lines),
        }
    }

    fn failed(&mut self, error: &io::Error, lines: u64) {
        self.lost.inc_by(lines);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "the access log cannot be written: records are lost until it can");
        }
    }
}

impl Sink {
    fn turns_for(&self, length: usize, time: Timestamp) -> bool {
        match self {
            Self::Stdout { .. } => false,
            Self::File(file) => file.turns_for(length, time),
        }
    }

    fn prepare(&mut self, length: usize, time: Timestamp) -> io::Result<()> {
        match self {
            Self::Stdout { begin } => match begin.take() {
                Some(begin) => io::stdout().write_all(&begin(time)),
                None => Ok(()),
            },
            Self::File(file) => file.prepare(length, time),
        }
    }

    fn append(&mut self, block: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout { .. } => io::stdout().write_all(block),
            Self::File(file) => file.append(block),
        }
    }
}
