//! Now and then: leftover replicas are removed, and how each node's engine is, is told.
//!
//! The ConfigMap `understudy-nodes` has a key for each node, with a small JSON document. It is what
//! `kubectl understudy doctor` knows of engines: people need no way to the engines themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};
use understudy_core::engine::api::EngineStatus;
use understudy_crds::names::{FIELD_MANAGER, NODES_CONFIG_MAP};

use super::Options;
use super::engines::ClusterEngines;
use super::store::ApiStore;
use crate::decide::leftovers::{Leftover, leftovers};
use crate::engines::Engines;
use crate::observe::Nodes;
use crate::store::Store;

/// How often.
const SWEEP: Duration = Duration::from_secs(15);
/// Two looks in a row must find a leftover before it is removed: caches lag, never so long.
const LOOKS: usize = 2;

/// How a node's engine is, for people.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// Why the engine did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The engine's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Bytes of the pool in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Bytes that a new replica could take, in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Replicas that nobody names and that are not proven to be old.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<String>,
}

/// Sweeps for ever.
pub async fn run(
    client: &Client,
    options: &Options,
    store: &Arc<ApiStore>,
    engines: &Arc<ClusterEngines>,
    places: watch::Receiver<Nodes>,
) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &options.namespace);
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut told = None;
    loop {
        tokio::time::sleep(SWEEP).await;
        let names: Vec<String> = places.borrow().keys().cloned().collect();
        let mut answers = BTreeMap::new();
        for name in names {
            let answer = engines.status(&name).await.map_err(|e| e.to_string());
            answers.insert(name, answer);
        }
        let answered: BTreeMap<String, EngineStatus> = answers
            .iter()
            .filter_map(|(n, a)| Some((n.clone(), a.as_ref().ok()?.clone())))
            .collect();
        // The engines were asked first: what they hold is older than what the store says of it.
        let groups = store.groups().await.unwrap_or_default();
        let found = leftovers(&store.all_volumes(), &groups, &answered);
        let key = |l: &Leftover| (l.node.clone(), l.volume.clone());
        seen =
            found.iter().map(|l| (key(l), seen.get(&key(l)).copied().unwrap_or(0) + 1)).collect();
        for leftover in found.iter().filter(|l| seen.get(&key(l)).is_some_and(|n| *n >= LOOKS)) {
            remove(leftover, engines).await;
        }
        let reports = reports(&answers, &found, engines);
        if told.as_ref() != Some(&reports) && tell(&maps, &reports).await {
            told = Some(reports);
        }
    }
}

async fn remove(leftover: &Leftover, engines: &ClusterEngines) {
    for call in &leftover.calls {
        match engines.run(&leftover.node, call).await {
            Ok(_) => info!(node = leftover.node, volume = leftover.volume, "leftover: {call:?}"),
            Err(error) => {
                let (node, volume) = (&leftover.node, &leftover.volume);
                warn!(node, volume, "the leftover replica stays for now: {error}");
                return;
            }
        }
    }
}

fn reports(
    answers: &BTreeMap<String, Result<EngineStatus, String>>,
    found: &[Leftover],
    engines: &ClusterEngines,
) -> BTreeMap<String, NodeReport> {
    let one = |(node, answer): (&String, &Result<EngineStatus, String>)| {
        let capacity = engines.capacity(node);
        let report = NodeReport {
            error: answer.as_ref().err().cloned(),
            version: answer.as_ref().ok().map(|e| e.version.clone()),
            pool: answer.as_ref().ok().map(|e| e.pool.to_string()),
            total_bytes: capacity.map(|c| c.total.0),
            available_bytes: capacity.map(|c| steps(c.available.0, c.total.0)),
            leftovers: found
                .iter()
                .filter(|l| l.node == *node && l.calls.is_empty())
                .map(|l| l.volume.clone())
                .collect(),
        };
        (node.clone(), report)
    };
    answers.iter().map(one).collect()
}

/// Rounded down to a hundredth of the whole, so that the object is not written all the time.
fn steps(available: u64, total: u64) -> u64 {
    let step = (total / 100).max(1);
    available / step * step
}

async fn tell(maps: &Api<ConfigMap>, reports: &BTreeMap<String, NodeReport>) -> bool {
    let data = reports
        .iter()
        .map(|(node, report)| (node.clone(), serde_json::to_string(report).unwrap_or_default()))
        .collect();
    let map = ConfigMap {
        metadata: ObjectMeta { name: Some(NODES_CONFIG_MAP.to_owned()), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match maps.patch(NODES_CONFIG_MAP, &params, &Patch::Apply(&map)).await {
        Ok(_) => true,
        Err(error) => {
            warn!("the ConfigMap {NODES_CONFIG_MAP} was not written: {error}");
            false
        }
    }
}
