//! The Secret with which a scraper reads metrics: kept by the leader, mounted by Prometheus.
//!
//! ```text
//!   Secret understudy-metrics   ca.crt    whom to believe
//!                               tls.crt   spiffe://understudy.dev/metrics, renewed at two thirds of its life
//!                               tls.key
//! ```
//! That identity may read metrics and nothing else.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use tracing::info;
use understudy_crds::names::METRICS_SECRET;

use super::authority::{Authority, Parts, Validity, bundle};
use super::identity::Identity;
use super::signer::{parts_of, unusable};
use crate::cluster::ClusterError;
use crate::cluster::api::{ApiError, is_conflict};

/// Makes the Secret, or renews what is in it when it is time or the authority has changed.
pub(super) async fn keep(
    secrets: &Api<Secret>,
    authority: &Parts,
    now: i64,
    lifetime: Duration,
) -> Result<(), ClusterError> {
    let failed = |action, e: &kube::Error| {
        ClusterError::from(ApiError::new(action, format!("Secret {METRICS_SECRET}"), e))
    };
    let found = secrets.get_opt(METRICS_SECRET).await.map_err(|e| failed("reading", &e))?;
    let ca = bundle(authority);
    if found.as_ref().is_some_and(|secret| is_young(&parts_of(secret), &ca, now)) {
        return Ok(());
    }
    let signer = Authority::open(authority).map_err(unusable)?;
    let (certificate, key) = signer.make(&Identity::Metrics, now, lifetime).map_err(unusable)?;
    let files = [("ca.crt", ca), ("tls.crt", certificate), ("tls.key", key)];
    let data = files.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))).into();
    let made = Secret {
        metadata: ObjectMeta {
            name: Some(METRICS_SECRET.to_owned()),
            resource_version: found.as_ref().and_then(ResourceExt::resource_version),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    let params = PostParams::default();
    let written = match found {
        None => secrets.create(&params, &made).await,
        Some(_) => secrets.replace(METRICS_SECRET, &params, &made).await,
    };
    match written {
        Ok(_) => {
            info!("Secret {METRICS_SECRET}: a new certificate for who reads metrics");
            Ok(())
        }
        // Another leader, or a person, was there first; it is looked at again.
        Err(e) if is_conflict(&e) => Ok(()),
        Err(e) => Err(failed("writing", &e)),
    }
}

/// Whether what is there will do.
fn is_young(parts: &Parts, ca: &str, now: i64) -> bool {
    let is_ours = parts.get("ca.crt").is_some_and(|found| found.as_slice() == ca.as_bytes());
    let certificate = parts.get("tls.crt").map(Vec::as_slice).unwrap_or_default();
    let has_key = parts.get("tls.key").is_some_and(|key| !key.is_empty());
    is_ours && has_key && Validity::of(certificate).is_ok_and(|v| !v.is_due(now))
}
