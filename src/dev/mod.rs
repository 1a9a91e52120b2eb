//! What `certmap dev` makes for the first five minutes: certificates, manifests, and a backend that says what it was told.
//!
//! Everything lands in one directory and is kept on the next start, so that a browser's imported certificate and an
//! edited manifest go on working. Nothing of it is for production.

mod manifests;
mod pki;
mod welcome;
mod whoami;

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

pub use welcome::{Addresses, welcome};
pub use whoami::whoami;

/// Says that a directory is ours.
const MARKER: &str = ".certmap-dev";

/// Why the directory cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else's files are there.
    #[error("{0} holds files that certmap dev did not make: name a directory of its own")]
    NotOurs(PathBuf),
    /// Another one serves from there, and its manifests name its own backend.
    #[error("{0} is served by another certmap dev: end that one, or name another directory")]
    Served(PathBuf),
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A .p12 file cannot be made.
    #[error("{0}: a PKCS#12 file cannot be made: {1}")]
    Pkcs12(PathBuf, String),
}

/// A directory in which everything is there. It is nobody else's until this is dropped, or the process is gone.
#[derive(Debug)]
pub struct Prepared {
    /// Where the manifests are.
    pub manifests: PathBuf,
    _claim: File,
}

/// Makes what is missing.
///
/// # Errors
/// Something cannot be written, or the directory is somebody else's.
pub fn prepare(directory: &Path, whoami: SocketAddr, now: Timestamp) -> Result<Prepared, DevError> {
    let _claim = claim(directory)?;
    let manifests = directory.join("manifests");
    if !pki::is_current(directory, now) {
        // First these: should the rest fail, the next start makes it all again.
        manifests::set_aside(&manifests)?;
        pki::make(directory, now)?;
    }
    manifests::write(directory, &manifests, whoami)?;
    Ok(Prepared { manifests, _claim })
}

/// Takes a directory for its own, if it is empty or was taken before and is not in use: nobody else's files are ever touched.
fn claim(directory: &Path) -> Result<File, DevError> {
    let file_error = |error| DevError::File { path: directory.to_owned(), error };
    let marker = directory.join(MARKER);
    let foreign = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if foreign && !marker.exists() {
        return Err(DevError::NotOurs(directory.to_owned()));
    }
    std::fs::create_dir_all(directory.join("manifests")).map_err(file_error)?;
    private(directory, 0o700)?;
    let marker_error = |error| DevError::File { path: marker.clone(), error };
    // Before anything is written: what is in use stays as it is.
    let mut claim =
        File::options().create(true).append(true).open(&marker).map_err(marker_error)?;
    claim.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => DevError::Served(directory.to_owned()),
        TryLockError::Error(error) => marker_error(error),
    })?;
    claim.set_len(0).map_err(marker_error)?;
    claim
        .write_all(b"Made by certmap dev. Delete the directory to begin anew.\n")
        .map_err(marker_error)?;
    Ok(claim)
}

fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), DevError> {
    std::fs::write(path, content).map_err(|error| DevError::File { path: path.to_owned(), error })
}

fn read(path: &Path) -> Result<String, DevError> {
    std::fs::read_to_string(path).map_err(|error| DevError::File { path: path.to_owned(), error })
}

fn private(path: &Path, mode: u32) -> Result<(), DevError> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions)
        .map_err(|error| DevError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{PeerCertificate, read_certificates};

    #[test]
    fn makes_everything_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let now = Timestamp::now();
        let manifests = prepare(root, "127.0.0.1:9".parse().unwrap(), now).unwrap().manifests;
        std::fs::remove_file(root.join("server-ca.crt")).unwrap();
        prepare(root, "127.0.0.1:9".parse().unwrap(), now).unwrap();
        assert!(
            root.join("server-ca.crt").exists() && manifests.join("policy.yaml.1.old").exists()
        );
        let first = read(&root.join("alice.crt")).unwrap();
        write(&manifests.join("policy.yaml"), "# edited\n").unwrap();
        prepare(root, "127.0.0.1:10".parse().unwrap(), now).unwrap();
        assert_eq!(read(&root.join("alice.crt")).unwrap(), first);
        assert_eq!(read(&manifests.join("policy.yaml")).unwrap(), "# edited\n");
        assert!(read(&manifests.join("whoami.yaml")).unwrap().contains("port: 10"));
    }

    #[test]
    fn what_another_one_serves_from_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let prepare = |port: u16| {
            let backend = SocketAddr::from(([127, 0, 0, 1], port));
            prepare(directory.path(), backend, Timestamp::now())
        };
        let first = prepare(9).unwrap();
        assert!(matches!(prepare(10), Err(DevError::Served(_))));
        let manifest = first.manifests.join("whoami.yaml");
        assert!(read(&manifest).unwrap().contains("port: 9}"));
        drop(first);
        prepare(10).unwrap();
        assert!(read(&manifest).unwrap().contains("port: 10}"));
    }

    #[test]
    fn other_peoples_files_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("localhost.key"), "mine").unwrap();
        let made = prepare(directory.path(), "127.0.0.1:9".parse().unwrap(), Timestamp::now());
        assert!(matches!(made, Err(DevError::NotOurs(_))), "{made:?}");
        assert_eq!(read(&directory.path().join("localhost.key")).unwrap(), "mine");
    }

    #[test]
    fn the_expired_one_is_expired() {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path(), "127.0.0.1:9".parse().unwrap(), Timestamp::now()).unwrap();
        let pem = read(&directory.path().join("expired.crt")).unwrap();
        let certificate =
            PeerCertificate::parse(&read_certificates(pem.as_bytes()).unwrap()).unwrap();
        assert!(certificate.validity.not_after < Timestamp::now().as_second());
        assert_eq!(certificate.issuer.to_string(), "CN=ZeroSSL Dev Client CA,O=ZeroSSL");
    }
}
