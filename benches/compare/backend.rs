//! The backend: as little work as an answer can be, and proof that every server did its whole job.
//!
//! A request without the field that names the user is answered 400, which the load counts as a failure.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NAMES_THE_USER: &[u8] = b"x-remote-user:";
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 64\r\n\r\n\
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

pub(crate) fn run(listen: SocketAddr) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut read = Vec::with_capacity(16 * 1024);
    loop {
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) if !read.ends_with(b"\r\n\r\n") => {}
            Ok(_) => {
                let named = read
                    .windows(NAMES_THE_USER.len())
                    .any(|octets| octets.eq_ignore_ascii_case(NAMES_THE_USER));
                if stream.write_all(if named { GOOD } else { BAD }).await.is_err() {
                    return;
                }
                read.clear();
            }
        }
    }
}
