//! Objects asked for by name or in a list, outside of watches.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, Error};

use super::keeper::Asked;
use super::kinds::Watched;
use crate::compile::ObjectRef;

const AGAIN_AFTER: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);
const PAGE: u32 = 200;

/// An object that is on its way.
pub(super) type Fetch = Pin<Box<dyn Future<Output = Fetched> + Send>>;

/// What came of asking.
pub(super) struct Fetched {
    pub(super) asked: Asked,
    /// Whether it was asked for again after a failure.
    pub(super) again: bool,
    /// The object; none where there is none.
    pub(super) found: Result<Option<DynamicObject>, String>,
}

pub(super) fn now(client: Client, asked: Asked) -> Fetch {
    Box::pin(async move {
        let found = match tokio::time::timeout(LIMIT, get(&client, &asked.reference)).await {
            Ok(found) => found.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        };
        Fetched { asked, again: false, found }
    })
}

pub(super) fn later(client: Client, asked: Asked) -> Fetch {
    Box::pin(async move {
        tokio::time::sleep(AGAIN_AFTER).await;
        Fetched { again: true, ..now(client, asked).await }
    })
}

/// # Errors
/// The API server does not say.
pub(super) async fn get(
    client: &Client,
    reference: &ObjectRef,
) -> Result<Option<DynamicObject>, Error> {
    let Some(watched) = Watched::of(reference.kind) else { return Ok(None) };
    let name = &reference.name;
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &name.namespace, &watched.resource());
    api.get_opt(&name.name).await
}

/// # Errors
/// The kind cannot be listed.
pub(super) async fn list(
    client: &Client,
    watched: &Watched,
    namespaces: &[String],
) -> Result<Vec<DynamicObject>, Error> {
    let mut found = Vec::new();
    for scope in scopes(watched, namespaces) {
        let api = api(client, watched, &scope);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list(&page).await?;
            found.extend(list.items);
            page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
            if page.continue_token.is_none() {
                break;
            }
        }
    }
    Ok(found)
}

/// An empty namespace stands for all.
pub(super) fn api(client: &Client, watched: &Watched, namespace: &str) -> Api<DynamicObject> {
    let resource = watched.resource();
    if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    }
}

/// The namespaces to ask for; an empty one stands for all.
pub(super) fn scopes(watched: &Watched, namespaces: &[String]) -> Vec<String> {
    if namespaces.is_empty() || !watched.kind.is_namespaced() {
        vec![String::new()]
    } else {
        namespaces.to_vec()
    }
}
