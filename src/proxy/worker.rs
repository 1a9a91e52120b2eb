//! The threads that serve. Each has a runtime of its own: a request, its client's connection and the backend's stay on one
//! thread, and none is ever handed to another.
//!
//! All of them accept from the same sockets: whoever is free takes the next connection, and nothing waits in the queue of a
//! thread that is busy, or gone.

use std::io;
use std::net::TcpListener;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// One of them.
#[derive(Debug)]
pub(super) struct Worker(Handle);

impl Worker {
    /// Starts a thread that does what it is given until it is told to end.
    ///
    /// # Errors
    /// The system has no threads left.
    pub(super) fn start(number: usize, ended: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let work = move || runtime.block_on(ended.cancelled());
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(work)?;
        Ok(Self(handle))
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.0
    }

    /// The socket, for tasks of this worker.
    ///
    /// # Errors
    /// There are no descriptors left, or it cannot be watched.
    pub(super) fn share(&self, socket: &TcpListener) -> io::Result<tokio::net::TcpListener> {
        let _entered = self.0.enter();
        tokio::net::TcpListener::from_std(socket.try_clone()?)
    }
}
