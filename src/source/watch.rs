//! A thread that reads the directory again when something in it changes.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::directory::{Directory, GRACE, Scan};

/// Editors and copies write in several steps: this long nothing more must come.
const QUIET: Duration = Duration::from_millis(50);
/// But not more often than this is waited for.
const MOST_ROUNDS: usize = 6;
/// Without being told, it looks all the same.
const INTERVAL: Duration = Duration::from_secs(2);
/// Where it cannot be told.
const SHORT_INTERVAL: Duration = Duration::from_millis(500);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct DirectoryWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _watcher: Option<RecommendedWatcher>,
}

impl DirectoryWatch {
    /// Calls `on_change` with each new state, on a thread of its own.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        mut directory: Directory,
        mut on_change: impl FnMut(&Directory, Scan) + Send + 'static,
    ) -> io::Result<Self> {
        let (bell, rings) = mpsc::channel();
        let watcher = watch(directory.root(), bell.clone());
        let interval = if watcher.is_some() { INTERVAL } else { SHORT_INTERVAL };
        let thread = thread::Builder::new().name("manifests".to_owned()).spawn(move || {
            let mut patience = interval;
            // The first time was before this thread.
            let mut has_read = true;
            while wait(&rings, patience) {
                patience = interval;
                match directory.rescan() {
                    Ok(scan) => {
                        patience = if scan.pending { GRACE } else { interval };
                        if scan.changed {
                            has_read = true;
                            on_change(&directory, scan);
                        } else if std::mem::take(&mut has_read) {
                            give_back();
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the manifests cannot be listed: everything stays as it is");
                    }
                }
            }
        })?;
        Ok(Self { stop: Some(bell), thread: Some(thread), _watcher: watcher })
    }
}

impl Drop for DirectoryWatch {
    fn drop(&mut self) {
        self._watcher = None;
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Memory that reading took for a while: the allocator gives back what has been free for a second when somebody frees
/// something larger, or a thread ends that allocated anything. Where nothing else happens, nobody does.
fn give_back() {
    let thread = thread::Builder::new().spawn(|| drop(std::hint::black_box(Box::new(0))));
    if let Ok(thread) = thread {
        drop(thread.join());
    }
}

fn watch(root: &Path, bell: Sender<()>) -> Option<RecommendedWatcher> {
    let ring = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Nobody listens any more only when the watch ends.
            let _rung = bell.send(());
        }
    };
    let watcher = notify::recommended_watcher(ring).and_then(|mut watcher| {
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    watcher
        .inspect_err(
            |error| tracing::warn!(%error, "changes are not told, and looked for twice a second"),
        )
        .ok()
}

/// Until it is time to look; false when it is time to stop.
fn wait(rings: &Receiver<()>, interval: Duration) -> bool {
    match rings.recv_timeout(interval) {
        Ok(()) => {}
        Err(RecvTimeoutError::Timeout) => return true,
        Err(RecvTimeoutError::Disconnected) => return false,
    }
    for _ in 0..MOST_ROUNDS {
        match rings.recv_timeout(QUIET) {
            Ok(()) => while rings.try_recv().is_ok() {},
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}
