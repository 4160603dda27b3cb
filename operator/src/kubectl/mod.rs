//! `kubectl understudy`: what is protected, what is at risk, and what to do.
//!
//! ```text
//!   API server ─ gather ─► Facts ─┬─ status (pure) ─► text
//!                                 ├─ loss   (pure) ─► text, asked before a failover
//!                                 └─ doctor (pure) ─► findings: cause and remedy
//! ```
//!
//! People need rights on the API server, and no way to the engines: what engines say reaches it in
//! the status of BlockReplications and in the ConfigMap `understudy-nodes`.

pub mod checkpoint;
pub mod doctor;
pub mod facts;
pub mod failover;
pub mod faults;
pub mod gather;
pub mod pool;
pub mod status;
pub mod words;

#[cfg(test)]
mod tests;

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;
use understudy_crds::BlockReplication;

use crate::desired::ObjectName;

/// Who these patches are from.
const MANAGER: &str = "kubectl-understudy";

/// How often a status is looked at while waiting for it.
const LOOK: Duration = Duration::from_millis(500);

/// An object by name, as people write it: `NAME` or `NAMESPACE/NAME`.
pub fn named(text: &str, namespace: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }
}

/// The BlockReplication of this name.
pub async fn get(client: &Client, name: &ObjectName) -> anyhow::Result<BlockReplication> {
    let api: Api<BlockReplication> = Api::namespaced(client.clone(), &name.namespace);
    match api.get_opt(&name.name).await? {
        Some(object) => Ok(object),
        None => anyhow::bail!(
            "there is no BlockReplication {} in namespace {}: kubectl understudy status -A lists all",
            name.name,
            name.namespace
        ),
    }
}

/// Changes its spec.
async fn patch(client: &Client, name: &ObjectName, patch: &Value) -> anyhow::Result<()> {
    let api: Api<BlockReplication> = Api::namespaced(client.clone(), &name.namespace);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..<_>::default() };
    api.patch(&name.name, &params, &Patch::Merge(patch)).await?;
    Ok(())
}

/// Looks at it until `done` says something.
async fn until<T>(
    client: &Client,
    name: &ObjectName,
    limit: Duration,
    done: impl Fn(&BlockReplication) -> Option<T>,
) -> anyhow::Result<T> {
    let waiting = async {
        loop {
            if let Some(found) = done(&get(client, name).await?) {
                return anyhow::Ok(found);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(limit, waiting).await {
        Ok(found) => found,
        Err(_) => anyhow::bail!(
            "not done within {} s. It is still wanted; kubectl understudy status {} says what it waits \
             for, kubectl understudy doctor why",
            limit.as_secs(),
            name
        ),
    }
}
