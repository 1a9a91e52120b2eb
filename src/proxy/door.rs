//! How a listener ends without losing a connection.
//!
//! A socket that is closed takes those with it that the kernel has accepted and nobody has asked for. So the door is shut
//! first: the kernel then drops what would begin a connection, as if it had been lost on the way. Whoever sent it sends it
//! again a second later, to whoever listens then. What was begun before is completed, and accepted.

use std::io;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::TcpListener;

/// So long what was begun may take to be completed. Less than the second after which clients try again.
pub(super) const AJAR: Duration = Duration::from_millis(500);

/// For classic BPF, which sees a segment from its TCP header on. Nothing where SYN is set without ACK, everything else.
const ONLY_BEGUN: [SockFilter; 5] = [
    // The octet of the flags.
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Lets no further connections begin.
///
/// # Errors
/// The kernel cannot do that.
pub(super) fn shut(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&ONLY_BEGUN)
}
