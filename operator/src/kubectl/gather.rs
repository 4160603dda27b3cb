//! From the API server to facts.

use std::fmt::Debug;

use anyhow::Context;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use understudy_crds::names::{DRIVER, LEASE, NODES_CONFIG_MAP, SIGNER};
use understudy_crds::{BlockReplication, ReplicatedVolume, ReplicationGroup};

use super::facts::Facts;
use crate::observe::now;

/// Objects asked for at once: an answer stays small.
const PAGE: u32 = 500;

/// Every object of a kind.
pub async fn all<K>(api: Api<K>, params: ListParams) -> anyhow::Result<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let mut found = Vec::new();
    let mut params = params.limit(PAGE);
    loop {
        let page = api.list(&params).await;
        let page = page.with_context(|| format!("cannot list {}", K::plural(&())))?;
        let next = page.metadata.continue_.clone().filter(|c| !c.is_empty());
        found.extend(page.items);
        match next {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// BlockReplications of one namespace, or of all.
pub async fn replications(
    client: &Client,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<BlockReplication>> {
    let api = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    all(api, ListParams::default()).await
}

/// Everything that the doctor looks at.
pub async fn facts(client: &Client, namespace: &str) -> anyhow::Result<Facts> {
    let everywhere = ListParams::default;
    let persistent_volumes: Vec<PersistentVolume> =
        all(Api::all(client.clone()), everywhere()).await?;
    let persistent_volumes: Vec<_> = persistent_volumes
        .into_iter()
        .filter(|v| {
            let csi = v.spec.as_ref().and_then(|s| s.csi.as_ref());
            csi.is_some_and(|csi| csi.driver == DRIVER)
        })
        .collect();
    let claimed = persistent_volumes
        .iter()
        .filter_map(|v| v.spec.as_ref()?.claim_ref.as_ref()?.namespace.clone());
    let mut namespaces: Vec<_> = claimed.collect();
    namespaces.sort();
    namespaces.dedup();
    let mut users = Vec::new();
    for namespace in namespaces {
        users.extend(all(Api::<Pod>::namespaced(client.clone(), &namespace), everywhere()).await?);
    }
    let kubelets: Vec<CSINode> = all(Api::all(client.clone()), everywhere()).await?;
    let knows = |node: &CSINode| node.spec.drivers.iter().any(|d| d.name == DRIVER);
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let report = maps.get_opt(NODES_CONFIG_MAP).await.context("cannot read what nodes report")?;
    let reports = report.and_then(|m| m.data).unwrap_or_default();
    let ours = ListParams::default().fields(&format!("spec.signerName={SIGNER}"));
    Ok(Facts {
        now: now(),
        namespace: namespace.to_owned(),
        replications: replications(client, None).await?,
        groups: all::<ReplicationGroup>(Api::all(client.clone()), everywhere()).await?,
        volumes: all::<ReplicatedVolume>(Api::all(client.clone()), everywhere()).await?,
        nodes: all::<Node>(Api::all(client.clone()), everywhere()).await?,
        drivers: kubelets.iter().filter(|n| knows(n)).map(ResourceExt::name_any).collect(),
        reports: reports
            .into_iter()
            .map(|(node, text)| (node, serde_json::from_str(&text).unwrap_or_default()))
            .collect(),
        parts: all::<Pod>(Api::namespaced(client.clone(), namespace), everywhere()).await?,
        users,
        persistent_volumes,
        requests: all::<CertificateSigningRequest>(Api::all(client.clone()), ours).await?,
        lease: leases.get_opt(LEASE).await.context("cannot read the operator's Lease")?,
    })
}
