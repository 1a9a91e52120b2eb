//! One encrypted connection to one server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ldap3::{
    Ldap, LdapConnAsync, LdapConnSettings, LdapError, ResultEntry, Scope, SearchOptions,
    SearchResult, StdStream,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use super::entry::Entry;
use super::error::DirectoryError;
use crate::auth::{DirectoryBind, DirectorySettings, DirectoryUrl};
use crate::lookup::names::NameLookup;

/// LDAP result codes (RFC 4511, 4.1.9).
const SUCCESS: u32 = 0;
const SIZE_LIMIT_EXCEEDED: u32 = 4;
pub(super) const REFERRAL: u32 = 10;
pub(super) const NO_SUCH_OBJECT: u32 = 32;
pub(super) const INVALID_CREDENTIALS: u32 = 49;

/// A connection that many may use at once: each operation has its own number on it.
pub(super) struct Connection {
    ldap: Ldap,
    url: Box<str>,
    timeout: Duration,
}

/// What a search found.
pub(super) struct Entries {
    pub(super) entries: Vec<Entry>,
    /// Whether there are more than were asked for.
    pub(super) more: bool,
}

/// The client's side of TLS: the directory's own CAs, and perhaps a certificate.
pub(super) fn tls(settings: &DirectorySettings) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for ca in &settings.cas {
        roots.add(ca.clone()).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match &settings.bind {
        DirectoryBind::Simple { .. } => builder.with_no_client_auth(),
        DirectoryBind::External { chain, key } => {
            let key = private_key(key.expose())?;
            let chain: Vec<CertificateDer<'static>> = chain.clone();
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
    };
    Ok(Arc::new(config))
}

fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(bytes)
        .or_else(|_| PrivateKeyDer::try_from(bytes.to_vec()))
        .map_err(|_| "the bind certificate's key cannot be read".to_owned())
}

impl Connection {
    /// Connects, encrypts and checks whose certificate it is; nobody is bound yet.
    pub(super) async fn open(
        settings: &DirectorySettings,
        url: &DirectoryUrl,
        tls: Arc<ClientConfig>,
        names: &NameLookup,
    ) -> Result<Self, DirectoryError> {
        let text: Box<str> = url.to_string().into();
        let opening = Self::encrypted(settings, url, tls, names);
        let opened = tokio::time::timeout(settings.timeout, opening).await;
        let ldap = opened.map_err(|_| DirectoryError::TimedOut(text.clone()))??;
        Ok(Self { ldap, url: text, timeout: settings.timeout })
    }

    async fn encrypted(
        settings: &DirectorySettings,
        url: &DirectoryUrl,
        tls: Arc<ClientConfig>,
        names: &NameLookup,
    ) -> Result<Ldap, DirectoryError> {
        let failed = |error: String| DirectoryError::Connect(url.to_string().into(), error.into());
        let stream = connect(url, names).await?;
        let stream = stream.into_std().map_err(|error| failed(error.to_string()))?;
        // The host of this URL is the name that is checked; where to connect is settled.
        let name = settings.server_name.as_deref().unwrap_or(&url.host);
        let scheme = if url.ldaps { "ldaps" } else { "ldap" };
        let checked = format!("{scheme}://{name}:{}", url.port);
        let connection = LdapConnSettings::new()
            .set_config(tls)
            .set_starttls(!url.ldaps)
            .set_std_stream(StdStream::Tcp(stream));
        let (driver, ldap) = LdapConnAsync::with_settings(connection, &checked)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let label = url.to_string();
        tokio::spawn(async move {
            if let Err(error) = driver.drive().await {
                tracing::debug!(url = label, %error, "the directory's connection ends");
            }
        });
        Ok(ldap)
    }

    /// As whom the policy says.
    pub(super) async fn bind(&self, bind: &DirectoryBind) -> Result<(), DirectoryError> {
        let mut ldap = self.ldap.clone();
        ldap.with_timeout(self.timeout);
        let result = match bind {
            DirectoryBind::Simple { name, password } => {
                ldap.simple_bind(name, password.expose()).await
            }
            DirectoryBind::External { .. } => ldap.sasl_external_bind().await,
        };
        let result = result.map_err(|error| self.failed(&error))?;
        if result.rc == SUCCESS {
            return Ok(());
        }
        Err(DirectoryError::Bind(self.url.clone(), result.text.into()))
    }

    /// By name and password: the result's code and text.
    pub(super) async fn try_bind(
        &self,
        dn: &str,
        password: &str,
    ) -> Result<(u32, String), DirectoryError> {
        let mut ldap = self.ldap.clone();
        ldap.with_timeout(self.timeout);
        let result = ldap.simple_bind(dn, password).await.map_err(|error| self.failed(&error))?;
        Ok((result.rc, result.text))
    }

    /// Referrals are not followed: who the server points to is nobody that the policy named.
    pub(super) async fn search(
        &self,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[&'static str],
        most: i32,
    ) -> Result<Entries, DirectoryError> {
        let mut ldap = self.ldap.clone();
        let seconds = i32::try_from(self.timeout.as_secs()).unwrap_or(i32::MAX).max(1);
        let options = SearchOptions::new().sizelimit(most).timelimit(seconds);
        ldap.with_timeout(self.timeout).with_search_options(options);
        let searching = ldap.search(base, scope, filter, attributes.to_vec());
        // The library's own limit begins anew with each entry.
        let searched = tokio::time::timeout(self.timeout, searching).await;
        let searched = searched.map_err(|_| DirectoryError::TimedOut(self.url.clone()))?;
        let SearchResult(found, result) = searched.map_err(|error| self.failed(&error))?;
        if !matches!(result.rc, SUCCESS | SIZE_LIMIT_EXCEEDED) {
            return Err(DirectoryError::Refused(self.url.clone(), result.rc, result.text.into()));
        }
        let found =
            found.into_iter().filter(|it: &ResultEntry| !it.is_ref() && !it.is_intermediate());
        let entries: Option<Vec<Entry>> = found.map(Entry::read).collect();
        let broken = || DirectoryError::Broken(self.url.clone(), "an entry cannot be read".into());
        Ok(Entries { entries: entries.ok_or_else(broken)?, more: result.rc == SIZE_LIMIT_EXCEEDED })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ldap.clone().is_closed()
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    fn failed(&self, error: &LdapError) -> DirectoryError {
        match error {
            LdapError::Timeout { .. } => DirectoryError::TimedOut(self.url.clone()),
            error => DirectoryError::Broken(self.url.clone(), error.to_string().into()),
        }
    }
}

async fn connect(url: &DirectoryUrl, names: &NameLookup) -> Result<TcpStream, DirectoryError> {
    let addresses = match url.host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, url.port)],
        Err(_) => names.find(&url.host, url.port).await?,
    };
    let mut last = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Without it small requests wait for each other's acknowledgement.
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(DirectoryError::Connect(url.to_string().into(), last.into()))
}
