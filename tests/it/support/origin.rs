//! A server whose answers are written out: for each path one, octet by octet.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// Serves until the test is over.
pub(crate) struct Origin {
    pub(crate) port: u16,
    /// Heads that were read.
    pub(crate) requests: Arc<AtomicUsize>,
    /// Lets the next piece of an answer go that waits for it.
    pub(crate) go_on: Sender<()>,
}

/// An answer in pieces: after each the connection is flushed, and all but the first wait until they may.
pub(crate) type Pieces = Vec<Vec<u8>>;

impl Origin {
    pub(crate) fn start(answers: &[(&str, Pieces)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers: HashMap<String, Pieces> =
            answers.iter().map(|(path, pieces)| ((*path).to_owned(), pieces.clone())).collect();
        let (go_on, may) = channel();
        let (answers, may) = (Arc::new(answers), Arc::new(Mutex::new(may)));
        let requests = Arc::<AtomicUsize>::default();
        let count = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, may, count) = (answers.clone(), may.clone(), count.clone());
                thread::spawn(move || serve(stream.unwrap(), &answers, &may, &count));
            }
        });
        Self { port, requests, go_on }
    }

    /// The Service of this name.
    pub(crate) fn manifest(&self, name: &str) -> String {
        super::manifests::service(name, &[self.port])
    }
}

/// A whole answer in one piece.
pub(crate) fn answer(status: &str, fields: &str, body: &[u8]) -> Pieces {
    let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    vec![[head.as_bytes(), body].concat()]
}

fn serve(
    stream: TcpStream,
    answers: &HashMap<String, Pieces>,
    may: &Mutex<Receiver<()>>,
    count: &AtomicUsize,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            let (name, value) = line.split_once(':').unwrap();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        count.fetch_add(1, Ordering::SeqCst);
        drop(std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()));
        let path = first.split(' ').nth(1).unwrap();
        let Some(pieces) = answers.get(path) else { return };
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 && may.lock().unwrap().recv().is_err() {
                return;
            }
            if stream.write_all(piece).and_then(|()| stream.flush()).is_err() {
                return;
            }
        }
    }
}
