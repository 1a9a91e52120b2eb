//! Sockets that are listened on.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// So many connections wait to be accepted, if the system allows it (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// How sockets are opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets {
    /// Another process may listen beside this one (SO_REUSEPORT), and take over.
    pub shared: bool,
}

impl Sockets {
    /// Listens on all of these addresses.
    ///
    /// # Errors
    /// One of them cannot be listened on: the message names the option to change.
    pub(super) fn listen(
        self,
        addresses: &[SocketAddr],
        option: &str,
    ) -> anyhow::Result<Vec<TcpListener>> {
        let opened = addresses.iter().map(|address| {
            self.open(*address, is_v6_alone(*address, addresses)).with_context(|| {
                format!(
                    "{address} cannot be listened on: free it, or give {option} another address"
                )
            })
        });
        opened.collect()
    }

    fn open(self, address: SocketAddr, v6_alone: bool) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart does not wait for what is left of old connections.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(v6_alone)?;
        }
        if self.shared {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }
}

/// `[::]` is for IPv4 as well, unless an IPv4 address of the same port is listened on besides.
fn is_v6_alone(address: SocketAddr, all: &[SocketAddr]) -> bool {
    let any_v6 = address.ip() == IpAddr::from([0; 16]);
    let beside = all
        .iter()
        .any(|other| other.is_ipv4() && other.port() == address.port() && address.port() != 0);
    !any_v6 || beside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_of_ipv6_is_for_ipv4_too_unless_that_is_listened_on_as_well() {
        let all = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|address| address.parse().unwrap()).collect()
        };
        for (addresses, expected) in [
            ("[::]:80", false),
            ("[::]:80 0.0.0.0:81", false),
            ("[::]:80 0.0.0.0:80", true),
            ("[::]:80 192.0.2.1:80", true),
            ("[::1]:80", true),
            ("[::]:0 0.0.0.0:0", false),
        ] {
            let all = all(addresses);
            assert_eq!(is_v6_alone(all[0], &all), expected, "{addresses}");
        }
    }
}
