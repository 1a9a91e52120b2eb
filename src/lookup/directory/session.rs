//! A connection that is bound, and what is known of its server.

use std::sync::Arc;

use ldap3::Scope;
use tokio::time::Instant;

use super::connection::{Connection, Entries, NO_SUCH_OBJECT, REFERRAL};
use super::entry::Entry;
use super::error::DirectoryError;
use crate::auth::DirectorySettings;

const MOST_DOMAINS: i32 = 1000;
const ANYTHING: &str = "(objectClass=*)";

/// A connection with what is known of its server.
pub(super) struct Session {
    connection: Connection,
    /// The global catalog of the same server, where accounts are found there.
    catalog: Option<Connection>,
    /// Of the settings' URLs.
    pub(super) server: usize,
    pub(super) opened: Instant,
    /// Below which accounts are looked for.
    base: String,
    /// Below which groups are: the server's own domain.
    domain: String,
    domains: Vec<Domain>,
}

/// A domain of the forest.
pub(super) struct Domain {
    /// Of its naming context, in lower case.
    dn: String,
    pub(super) netbios: Arc<str>,
    pub(super) dns: Option<Arc<str>>,
}

impl Session {
    /// Binds, and asks the server what it holds.
    pub(super) async fn start(
        connection: Connection,
        catalog: Option<Connection>,
        server: usize,
        settings: &DirectorySettings,
    ) -> Result<Self, DirectoryError> {
        connection.bind(&settings.bind).await?;
        if let Some(catalog) = &catalog {
            catalog.bind(&settings.bind).await?;
        }
        let root =
            ["defaultNamingContext", "rootDomainNamingContext", "configurationNamingContext"];
        let root = connection.search("", Scope::Base, ANYTHING, &root, 1).await?;
        let root = root.entries.into_iter().next().unwrap_or_default();
        let nameless = || {
            let url = connection.url().into();
            DirectoryError::Broken(url, "it does not name its naming contexts".into())
        };
        let domain = root.text("defaultnamingcontext").ok_or_else(nameless)?;
        let forest = root.text("rootdomainnamingcontext").filter(|_| catalog.is_some());
        let base = settings.base_dn.as_deref().or(forest).unwrap_or(domain);
        let (base, domain) = (base.to_owned(), domain.to_owned());
        let domains = match root.text("configurationnamingcontext") {
            Some(configuration) => domains(&connection, configuration).await?,
            None => Vec::new(),
        };
        let opened = Instant::now();
        Ok(Self { connection, catalog, server, opened, base, domain, domains })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.connection.is_closed() || self.catalog.as_ref().is_some_and(Connection::is_closed)
    }

    /// Accounts. A global catalog holds a part of each: the rest is read from the domain, where this server is its.
    pub(super) async fn find(
        &self,
        filter: &str,
        attributes: &[&'static str],
        most: i32,
    ) -> Result<Entries, DirectoryError> {
        let searched = self.catalog.as_ref().unwrap_or(&self.connection);
        let mut found =
            searched.search(&self.base, Scope::Subtree, filter, attributes, most).await?;
        if self.catalog.is_some() {
            for entry in &mut found.entries {
                if let Some(whole) = self.read(&entry.dn, attributes).await? {
                    *entry = whole;
                }
            }
        }
        Ok(found)
    }

    /// Groups.
    pub(super) async fn search(
        &self,
        filter: &str,
        attributes: &[&'static str],
        most: i32,
    ) -> Result<Entries, DirectoryError> {
        self.connection.search(&self.domain, Scope::Subtree, filter, attributes, most).await
    }

    /// One entry by its DN; none where this server does not hold it.
    pub(super) async fn read(
        &self,
        dn: &str,
        attributes: &[&'static str],
    ) -> Result<Option<Entry>, DirectoryError> {
        match self.connection.search(dn, Scope::Base, ANYTHING, attributes, 1).await {
            Ok(found) => Ok(found.entries.into_iter().next()),
            Err(DirectoryError::Refused(_, REFERRAL | NO_SUCH_OBJECT, _)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn broken(&self, why: &str) -> DirectoryError {
        DirectoryError::Broken(self.connection.url().into(), why.into())
    }

    /// `CORP\name`, for the domain in which a DN lies.
    pub(super) fn qualified(&self, dn: &str, name: &str) -> Arc<str> {
        match self.domain_of(dn) {
            Some(domain) => format!("{}\\{name}", domain.netbios).into(),
            None => name.into(),
        }
    }

    pub(super) fn domain_of(&self, dn: &str) -> Option<&Domain> {
        let dn = dn.to_lowercase();
        let within = |domain: &&Domain| {
            dn.strip_suffix(&domain.dn).is_some_and(|rest| rest.is_empty() || rest.ends_with(','))
        };
        self.domains.iter().filter(within).max_by_key(|domain| domain.dn.len())
    }
}

/// The forest's domains with their NetBIOS and DNS names.
async fn domains(
    connection: &Connection,
    configuration: &str,
) -> Result<Vec<Domain>, DirectoryError> {
    let base = format!("CN=Partitions,{configuration}");
    let filter = "(&(objectClass=crossRef)(nETBIOSName=*))";
    let attributes = ["nCName", "nETBIOSName", "dnsRoot"];
    let found =
        connection.search(&base, Scope::OneLevel, filter, &attributes, MOST_DOMAINS).await?;
    let domain = |entry: &Entry| {
        Some(Domain {
            dn: entry.text("ncname")?.to_lowercase(),
            netbios: entry.text("netbiosname")?.into(),
            dns: entry.text("dnsroot").map(Into::into),
        })
    };
    Ok(found.entries.iter().filter_map(domain).collect())
}
