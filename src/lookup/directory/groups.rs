//! The groups of an account, nested ones included.
//!
//! What a group is in is the same for all its members, so it is remembered by group: an account costs no further question
//! once its groups are known. The controller itself works out what a group is in, at any depth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use moka::future::Cache;

use super::entry::{Entry, sid};
use super::error::DirectoryError;
use super::session::Session;
use crate::auth::{DirectoryGroup, escape_filter};

const MOST_KEPT: u64 = 50_000;
const MOST_AROUND: i32 = 1000;
const GROUP: &[&str] = &["objectSid", "sAMAccountName", "groupType"];
/// Whom a group holds at any depth (LDAP_MATCHING_RULE_IN_CHAIN).
const IN_CHAIN: &str = "member:1.2.840.113556.1.4.1941:";
/// The bit of groupType without which a group is a list of addresses.
const SECURITY: u32 = 0x8000_0000;
/// Groups of the controller's own machine: they mean nothing elsewhere.
const BUILTIN: &str = "S-1-5-32-";

type Several = Arc<[DirectoryGroup]>;

/// Groups by DN, and names by SID, for all accounts.
pub(super) struct Groups {
    /// With the group itself.
    within: Cache<String, Several>,
    names: Cache<String, Option<Named>>,
}

#[derive(Clone)]
struct Named {
    dn: Arc<str>,
    name: Arc<str>,
}

impl Groups {
    pub(super) fn new(lasts: Duration) -> Self {
        let within = Cache::builder().max_capacity(MOST_KEPT).time_to_live(lasts).build();
        let names = Cache::builder().max_capacity(MOST_KEPT).time_to_live(lasts).build();
        Self { within, names }
    }

    /// Those of an account's token.
    pub(super) async fn of(
        &self,
        session: &Session,
        account: &Entry,
    ) -> Result<Several, DirectoryError> {
        // More groups than a server lists in one go: it says itself.
        if account.is_partial("memberof") {
            return self.token(session, &account.dn).await;
        }
        let direct = account.values("memberof").iter();
        let mut direct: Vec<String> =
            direct.filter_map(|dn| String::from_utf8(dn.clone()).ok()).collect();
        let mut all: BTreeMap<Arc<str>, DirectoryGroup> = BTreeMap::new();
        if let Some(primary) = primary(account) {
            match self.named(session, &primary).await? {
                Some(named) => direct.push(named.dn.to_string()),
                None => {
                    let sid: Arc<str> = primary.into();
                    all.insert(sid.clone(), DirectoryGroup { sid, name: None });
                }
            }
        }
        let found = direct.into_iter().map(async |dn| self.above(session, dn).await);
        for group in try_join_all(found).await?.iter().flat_map(|groups| groups.iter()) {
            all.insert(group.sid.clone(), group.clone());
        }
        Ok(all.into_values().collect())
    }

    /// A group, and all that it is in.
    async fn above(&self, session: &Session, dn: String) -> Result<Several, DirectoryError> {
        let reading = async {
            let Some(entry) = session.read(&dn, GROUP).await? else {
                // Another domain's: its DN is all that is known.
                let group = DirectoryGroup { sid: dn.as_str().into(), name: None };
                return Ok([group].into());
            };
            // What a list of addresses is in is no business of its members'.
            let Some(group) = security(session, &entry) else { return Ok(Several::default()) };
            let filter = format!("(&(objectCategory=group)({IN_CHAIN}={}))", escape_filter(&dn));
            let found = session.search(&filter, GROUP, MOST_AROUND).await?;
            if found.more {
                return Err(session.broken("a group is in more groups than it lists"));
            }
            let around = found.entries.iter().filter_map(|entry| security(session, entry));
            Ok::<_, DirectoryError>(std::iter::once(group).chain(around).collect())
        };
        let key = dn.to_lowercase();
        self.within.try_get_with(key, reading).await.map_err(|error| (*error).clone())
    }

    /// What the server says that an entry is in.
    async fn token(&self, session: &Session, dn: &str) -> Result<Several, DirectoryError> {
        let entry = session.read(dn, &["tokenGroups"]).await?.unwrap_or_default();
        let sids = entry.values("tokengroups").iter().filter_map(|bytes| sid(bytes));
        let named = sids.filter(|sid| !sid.starts_with(BUILTIN)).map(async |sid| {
            let name = self.named(session, &sid).await?.map(|named| named.name);
            Ok(DirectoryGroup { sid: sid.into(), name })
        });
        try_join_all(named).await.map(Into::into)
    }

    async fn named(&self, session: &Session, sid: &str) -> Result<Option<Named>, DirectoryError> {
        let searching = async {
            let filter = format!("(objectSid={})", escape_filter(sid));
            let found = session.search(&filter, &["sAMAccountName"], 2).await?;
            let [entry] = found.entries.as_slice() else { return Ok(None) };
            let name = entry.text("samaccountname");
            Ok::<_, DirectoryError>(name.map(|name| Named {
                dn: entry.dn.as_str().into(),
                name: session.qualified(&entry.dn, name),
            }))
        };
        let named = self.names.try_get_with_by_ref(sid, searching).await;
        named.map_err(|error| (*error).clone())
    }
}

/// The group, where it is one that gives rights, and not the controller's own.
fn security(session: &Session, entry: &Entry) -> Option<DirectoryGroup> {
    let gives_rights = entry.flags("grouptype").is_none_or(|flags| flags & SECURITY != 0);
    let sid = entry.sid("objectsid").filter(|sid| gives_rights && !sid.starts_with(BUILTIN))?;
    let name = entry.text("samaccountname").map(|name| session.qualified(&entry.dn, name));
    Some(DirectoryGroup { sid: sid.into(), name })
}

/// The SID of the group that `primaryGroupID` names, which no `memberOf` lists.
fn primary(account: &Entry) -> Option<String> {
    let sid = account.sid("objectsid")?;
    let (domain, _) = sid.rsplit_once('-')?;
    account.number("primarygroupid").map(|id| format!("{domain}-{id}"))
}
