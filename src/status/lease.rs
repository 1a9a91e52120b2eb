//! Which replica writes: a Lease, as Kubernetes' own controllers hold one.
//!
//! Whether somebody else's lease has run out is told by this replica's own clock, from when it saw the lease change last:
//! clocks of different machines need not agree.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::watch;

/// A holder that was not heard of for so long has lost the lease.
const DURATION: Duration = Duration::from_secs(6);
/// How often it is renewed, or looked at.
const INTERVAL: Duration = Duration::from_secs(2);
/// An answer that takes longer is none.
const LIMIT: Duration = Duration::from_secs(2);

/// Whether this replica writes.
pub type Leadership = watch::Receiver<bool>;

/// Runs for the lease.
#[derive(Debug)]
pub struct Election {
    leases: Api<Lease>,
    name: String,
    /// This replica.
    identity: String,
    leads: watch::Sender<bool>,
    /// The lease of somebody else, and when it was first seen so.
    seen: Option<(Option<String>, Instant)>,
    renewed: Option<Instant>,
}

impl Election {
    /// Begins as nobody.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> (Self, Leadership) {
        let (leads, leadership) = watch::channel(false);
        let leases = Api::namespaced(client, namespace);
        let (name, identity) = (name.to_owned(), identity.to_owned());
        (Self { leases, name, identity, leads, seen: None, renewed: None }, leadership)
    }

    /// Holds the lease or waits for it, until dropped.
    pub async fn run(&mut self) {
        loop {
            match tokio::time::timeout(LIMIT, self.turn()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the lease cannot be renewed or taken"),
                Err(_) => tracing::debug!("the lease cannot be renewed or taken in time"),
            }
            // Before the others may take it, which is before the next look if that takes as long as it may.
            let next = INTERVAL + LIMIT;
            let lost = self.renewed.is_some_and(|at| at.elapsed() + next >= DURATION);
            if lost {
                self.renewed = None;
            }
            self.tell(self.renewed.is_some());
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Gives the lease back, so that the next replica need not wait.
    pub async fn resign(mut self) {
        if self.renewed.take().is_none() {
            return;
        }
        self.tell(false);
        let given_back = async {
            let mut lease = self.leases.get(&self.name).await?;
            if let Some(spec) = lease
                .spec
                .as_mut()
                .filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
            {
                spec.holder_identity = Some(String::new());
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if !matches!(tokio::time::timeout(LIMIT, given_back).await, Ok(Ok(()))) {
            tracing::debug!("the lease is not given back, and runs out");
        }
    }

    fn tell(&self, leads: bool) {
        let changed = self.leads.send_if_modified(|was| std::mem::replace(was, leads) != leads);
        if changed {
            tracing::info!(leads, "this replica writes status and events, or no longer does");
        }
    }

    async fn turn(&mut self) -> Result<(), kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let lease = self.lease(None);
            self.leases.create(&PostParams::default(), &lease).await?;
            self.hold();
            return Ok(());
        };
        if self.may_take(&lease) {
            let mine = self.lease(Some(&lease));
            self.leases.replace(&self.name, &PostParams::default(), &mine).await?;
            self.hold();
        } else {
            self.renewed = None;
        }
        Ok(())
    }

    fn hold(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "how old the lease is, is measured here")]
        let now = Instant::now();
        (self.renewed, self.seen) = (Some(now), None);
    }

    fn may_take(&mut self, lease: &Lease) -> bool {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if holder.is_none_or(|holder| holder.is_empty() || holder == self.identity) {
            return true;
        }
        let version = lease.metadata.resource_version.clone();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() > DURATION,
            _ => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "how old the lease is, is measured here"
                )]
                let now = Instant::now();
                self.seen = Some((version, now));
                false
            }
        }
    }

    /// Ours, over whatever was there before.
    fn lease(&self, before: Option<&Lease>) -> Lease {
        let spec = before.and_then(|lease| lease.spec.as_ref());
        let is_mine =
            spec.is_some_and(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let now = MicroTime(Timestamp::now());
        let acquired = spec.filter(|_| is_mine).and_then(|spec| spec.acquire_time.clone());
        let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        let metadata = before.map(|lease| lease.metadata.clone());
        Lease {
            metadata: metadata.unwrap_or_else(|| ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            }),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: acquired.or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(if is_mine || before.is_none() {
                    transitions
                } else {
                    transitions.saturating_add(1)
                }),
                ..LeaseSpec::default()
            }),
        }
    }
}
