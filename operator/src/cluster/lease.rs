//! Leadership by a Lease: of all replicas of the operator, one works.
//!
//! ```text
//!   nobody holds it, or its holder has not renewed it for its duration ─► take it (compare-and-swap)
//!   mine ─► renew it every RENEW; not possible for PAUSE ─► stop working, try to get it back
//!   another's ─► look again
//! ```
//!
//! Whether a holder is gone is measured on the own clock, from when its last renewal was first seen:
//! clocks of machines are not compared. A leader that is wrong about it for a moment does no harm:
//! what it writes names versions, and engines refuse stale generations. So this spares work and
//! contradictory log lines; safety does not rest on it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use understudy_crds::names::LEASE;

use super::api::{is_absent, is_conflict};
use crate::observe::now;

/// How long a holder may be silent before another may take over.
const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews it.
const RENEW: Duration = Duration::from_secs(4);
/// After so long without a renewal the holder stops working: before anybody else begins.
const PAUSE: Duration = Duration::from_secs(10);
/// How often others look.
const LOOK: Duration = Duration::from_secs(3);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(3);

/// Why leadership ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// Another replica has it.
    To(String),
    /// It could not be renewed.
    ApiServer,
}

/// One replica's part in the election.
#[derive(Debug)]
pub struct Leadership {
    leases: Api<Lease>,
    identity: String,
}

/// A lease as it was seen, and since when it has been so.
#[derive(Debug)]
struct Seen {
    version: Option<String>,
    since: Instant,
}

/// What a candidate does.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Wait,
}

fn next(lease: &Lease, unchanged: Duration, identity: &str) -> Step {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
    let duration = seconds.map_or(DURATION, Duration::from_secs);
    match spec.holder_identity.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == identity => Step::Take,
        Some(_) if unchanged >= duration => Step::Take,
        Some(_) => Step::Wait,
    }
}

impl Leadership {
    /// The election of the installation in this namespace.
    pub fn new(client: &Client, namespace: &str, identity: &str) -> Self {
        let leases = Api::namespaced(client.clone(), namespace);
        Self { leases, identity: identity.to_owned() }
    }

    /// Waits until this replica leads.
    pub async fn acquire(&self) {
        let mut seen = Seen { version: None, since: Instant::now() };
        let mut told = String::new();
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(None) => return,
                Ok(Some(holder)) => {
                    if told != holder {
                        info!("{holder} leads: this replica waits");
                        told = holder;
                    }
                }
                Err(error) => {
                    let words = format!("the Lease {LEASE} can't be had: {error}");
                    if told != words {
                        warn!("{words}");
                        told = words;
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes the lease if it is free; else who has it.
    async fn try_acquire(&self, seen: &mut Seen) -> Result<Option<String>, String> {
        let Some(lease) = self.look().await? else {
            let fresh = self.lease(None, 0);
            return self
                .call(self.leases.create(&PostParams::default(), &fresh))
                .await
                .map(|_| None);
        };
        let version = lease.metadata.resource_version.clone();
        if seen.version != version {
            *seen = Seen { version, since: Instant::now() };
        }
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone());
        if next(&lease, seen.since.elapsed(), &self.identity) == Step::Wait {
            return Ok(holder);
        }
        let transitions = lease.spec.as_ref().and_then(|s| s.lease_transitions).unwrap_or(0);
        let mine = self.lease(Some(&lease), transitions.saturating_add(1));
        // If not, another candidate was faster.
        let is_ours = self.replace(&mine).await?;
        Ok(if is_ours { None } else { holder })
    }

    /// Renews the lease until that is impossible.
    pub async fn keep(&self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW).await;
            match self.renew().await {
                Ok(None) => renewed = Instant::now(),
                Ok(Some(other)) => return Lost::To(other),
                Err(error) => {
                    debug!("the lease was not renewed: {error}");
                    if renewed.elapsed() >= PAUSE.saturating_sub(CALL) {
                        return Lost::ApiServer;
                    }
                }
            }
        }
    }

    async fn renew(&self) -> Result<Option<String>, String> {
        let lease = self.look().await?;
        let lease = lease.ok_or_else(|| "it is gone".to_owned())?;
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone());
        if holder.as_deref() != Some(self.identity.as_str()) {
            return Ok(Some(holder.unwrap_or_else(|| "nobody".to_owned())));
        }
        let transitions = lease.spec.as_ref().and_then(|s| s.lease_transitions).unwrap_or(0);
        if self.replace(&self.lease(Some(&lease), transitions)).await? {
            return Ok(None);
        }
        Err("it has changed meanwhile".to_owned())
    }

    /// Lets another replica lead at once.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.look().await else { return };
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(self.identity.as_str())
        {
            spec.holder_identity = None;
            let _tried = self.replace(&lease).await;
        }
    }

    fn lease(&self, before: Option<&Lease>, transitions: i32) -> Lease {
        let metadata = before.map_or_else(
            || ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
            |l| l.metadata.clone(),
        );
        let acquired = before.and_then(|l| {
            let spec = l.spec.as_ref()?;
            let same = spec.holder_identity.as_deref() == Some(self.identity.as_str());
            spec.acquire_time.clone().filter(|_| same)
        });
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: acquired.or_else(|| Some(MicroTime(now()))),
                renew_time: Some(MicroTime(now())),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn look(&self) -> Result<Option<Lease>, String> {
        match tokio::time::timeout(CALL, self.leases.get(LEASE)).await {
            Ok(Ok(lease)) => Ok(Some(lease)),
            Ok(Err(error)) if is_absent(&error) => Ok(None),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server did not answer".to_owned()),
        }
    }

    /// Whether it still was the version that it names.
    async fn replace(&self, lease: &Lease) -> Result<bool, String> {
        let params = PostParams::default();
        let call = self.leases.replace(LEASE, &params, lease);
        match tokio::time::timeout(CALL, call).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if is_conflict(&error) => Ok(false),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API server did not answer".to_owned()),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
        match tokio::time::timeout(CALL, call).await {
            Ok(answer) => answer.map_err(|e| e.to_string()),
            Err(_) => Err("the API server did not answer".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_nobody_has_it_or_its_holder_was_silent_for_its_duration() {
        let held = |holder: Option<&str>, seconds: Option<i32>| Lease {
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: seconds,
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let table = [
            (held(None, None), 0, Step::Take),
            (held(Some(""), Some(15)), 0, Step::Take),
            (held(Some("me"), Some(15)), 0, Step::Take),
            (held(Some("other"), Some(15)), 14, Step::Wait),
            (held(Some("other"), Some(15)), 15, Step::Take),
            (held(Some("other"), Some(60)), 15, Step::Wait),
            (held(Some("other"), Some(-1)), 14, Step::Wait),
            (Lease::default(), 0, Step::Take),
        ];
        for (lease, unchanged, step) in table {
            let found = next(&lease, Duration::from_secs(unchanged), "me");
            assert_eq!(found, step, "{lease:?}");
        }
    }

    #[test]
    fn a_leader_stops_before_another_can_begin() {
        assert!(PAUSE + CALL < DURATION);
        assert!(RENEW + CALL < PAUSE);
    }
}
