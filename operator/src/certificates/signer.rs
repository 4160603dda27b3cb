//! The leader signs requests, and keeps the authority young.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tracing::{info, warn};
use understudy_crds::names::{CA_CONFIG_MAP, CA_SECRET, FIELD_MANAGER, SIGNER};

use super::authority::{Authority, Parts, Validity, bundle, create, turn};
use super::check::{Asked, NODE_NAME, check};
use super::files::{Files, read, write};
use super::{OPERATOR, Signing, reader};
use crate::cluster::ClusterError;
use crate::cluster::api::{ApiError, is_absent, is_conflict};
use crate::observe::now;

/// How often requests are looked for. A pod that starts waits for this.
const LOOK: Duration = Duration::from_millis(500);
/// How long an answered request stays, in seconds: many times what its maker waits between looks.
const KEPT: i64 = 15;
/// How often the authority is looked at, in looks for requests.
const RENEW_LOOKS: u32 = 120;
/// Marks the Secret that the operator made, and so may change.
const MADE_HERE: &str = "understudy.dev/made-by-operator";

/// Signs for one installation.
#[derive(Debug)]
pub struct Signer {
    namespace: String,
    signing: Signing,
    secrets: Api<Secret>,
    maps: Api<ConfigMap>,
    requests: Api<CertificateSigningRequest>,
    parts: Parts,
    published: String,
}

impl Signer {
    /// Signs nothing before [`renew`](Self::renew).
    pub fn new(client: &Client, namespace: &str, signing: Signing) -> Self {
        Self {
            namespace: namespace.to_owned(),
            signing,
            secrets: Api::namespaced(client.clone(), namespace),
            maps: Api::namespaced(client.clone(), namespace),
            requests: Api::all(client.clone()),
            parts: Parts::new(),
            published: String::new(),
        }
    }

    /// Makes the authority if there is none, renews it when it is time, and publishes what is to be
    /// trusted.
    pub async fn renew(&mut self) -> Result<(), ClusterError> {
        let failed =
            |action, e: &kube::Error| ApiError::new(action, format!("Secret {CA_SECRET}"), e);
        let time = now().as_second();
        let found = self.secrets.get_opt(CA_SECRET).await.map_err(|e| failed("reading", &e))?;
        let secret = if let Some(secret) = found {
            secret
        } else {
            let parts = create(time, self.signing.authority_lifetime).map_err(unusable)?;
            let fresh = secret(None, &parts);
            match self.secrets.create(&PostParams::default(), &fresh).await {
                Ok(made) => {
                    info!("made a certificate authority: Secret {CA_SECRET}");
                    made
                }
                Err(e) if is_conflict(&e) => {
                    self.secrets.get(CA_SECRET).await.map_err(|e| failed("reading", &e))?
                }
                Err(e) => return Err(failed("creating", &e).into()),
            }
        };
        let mut parts = parts_of(&secret);
        let ours = secret.annotations().contains_key(MADE_HERE);
        if ours
            && let Some(next) =
                turn(&parts, time, self.signing.authority_lifetime).map_err(unusable)?
        {
            let changed = self::secret(Some(&secret), &next);
            match self.secrets.replace(CA_SECRET, &PostParams::default(), &changed).await {
                Ok(_) => {
                    info!("the certificate authority goes on to its next life");
                    parts = next;
                }
                // Another leader was there first; its word is read the next time.
                Err(e) if is_conflict(&e) => {}
                Err(e) => return Err(failed("renewing", &e).into()),
            }
        }
        self.parts = parts;
        self.publish().await?;
        if self.signing.metrics_reader {
            reader::keep(&self.secrets, &self.parts, time, self.signing.lifetime).await?;
        }
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), ClusterError> {
        let text = bundle(&self.parts);
        if text == self.published {
            return Ok(());
        }
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(CA_CONFIG_MAP.to_owned()), ..ObjectMeta::default() },
            data: Some([("ca.crt".to_owned(), text.clone())].into()),
            ..ConfigMap::default()
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.maps
            .patch(CA_CONFIG_MAP, &params, &Patch::Apply(&map))
            .await
            .map_err(|e| ApiError::new("writing", format!("ConfigMap {CA_CONFIG_MAP}"), &e))?;
        self.published = text;
        Ok(())
    }

    /// The operator's own certificate, if it is time for one.
    pub fn sign_own(&self, dir: &Path) -> Result<(), ClusterError> {
        let time = now().as_second();
        let ca = bundle(&self.parts);
        let young = |f: &Files| {
            f.ca == ca && Validity::of(f.certificate.as_bytes()).is_ok_and(|v| !v.is_due(time))
        };
        if read(dir).as_ref().is_some_and(young) {
            return Ok(());
        }
        let authority = Authority::open(&self.parts).map_err(unusable)?;
        let (certificate, key) =
            authority.make(&OPERATOR, time, self.signing.lifetime).map_err(unusable)?;
        write(dir, &Files { ca, certificate, key }).map_err(|e| {
            ClusterError::Certificate(format!("{} can't be written: {e}", dir.display()))
        })
    }

    /// Signs for ever, unless the authority becomes unusable.
    pub async fn run(&mut self, own: Option<&Path>) -> ClusterError {
        let mut looks: u32 = 0;
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK).await;
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(RENEW_LOOKS) {
                match self.renew().await {
                    Ok(()) => {}
                    Err(error @ ClusterError::Certificate(_)) => return error,
                    Err(error) => warn!("{error}"),
                }
                if let Some(Err(error)) = own.map(|dir| self.sign_own(dir)) {
                    warn!("{error}");
                }
            }
            match self.look().await {
                Ok(()) => told.clear(),
                Err(error) => {
                    let words = error.to_string();
                    if words != told {
                        warn!("{words}");
                        told = words;
                    }
                }
            }
        }
    }

    async fn look(&self) -> Result<(), ApiError> {
        let ours = ListParams::default().fields(&format!("spec.signerName={SIGNER}"));
        let list = self.requests.list(&ours).await;
        let list = list.map_err(|e| ApiError::new("listing", "CertificateSigningRequests", &e))?;
        for request in list {
            if is_open(&request) {
                self.answer(&request).await?;
            } else if is_old(&request, now().as_second()) {
                self.remove(&request).await?;
            }
        }
        Ok(())
    }

    /// Takes an answered request away: who asked has the answer, and an installation that goes shall
    /// leave none.
    async fn remove(&self, request: &CertificateSigningRequest) -> Result<(), ApiError> {
        let name = request.name_any();
        match self.requests.delete(&name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(e) if is_absent(&e) => Ok(()),
            Err(e) => {
                Err(ApiError::new("deleting", format!("CertificateSigningRequest {name}"), &e))
            }
        }
    }

    async fn answer(&self, request: &CertificateSigningRequest) -> Result<(), ApiError> {
        let name = request.name_any();
        let time = now().as_second();
        let asked = asked(request);
        let signed = check(&asked, &self.namespace).and_then(|(identity, parsed)| {
            let lifetime = lifetime(request, self.signing.lifetime);
            let authority = Authority::open(&self.parts).map_err(|e| e.to_string())?;
            let pem = authority.sign(&identity, &parsed, time, lifetime);
            Ok((identity, pem.map_err(|e| e.to_string())?))
        });
        let failed = |action, e: &kube::Error| {
            ApiError::new(action, format!("CertificateSigningRequest {name}"), e)
        };
        let (type_, reason, message) = match &signed {
            Ok((identity, _)) => ("Approved", "OwnIdentity", format!("{identity} asks for itself")),
            Err(why) => ("Denied", "NotOwnIdentity", why.clone()),
        };
        if !has(request, type_) {
            let condition = json!([{
                "type": type_, "status": "True", "reason": reason, "message": message,
            }]);
            let patch = json!({
                "metadata": { "resourceVersion": request.resource_version() },
                "status": { "conditions": condition },
            });
            let params = PatchParams::default();
            match self.requests.patch_approval(&name, &params, &Patch::Merge(&patch)).await {
                Ok(_) => {}
                Err(e) if is_absent(&e) || is_conflict(&e) => return Ok(()),
                Err(e) => return Err(failed("approving", &e)),
            }
        }
        match signed {
            Err(why) => warn!(request = name, user = asked.username, "denied: {why}"),
            Ok((identity, pem)) => {
                let certificate = ByteString(pem.into_bytes());
                let patch = json!({ "status": { "certificate": certificate } });
                let params = PatchParams::default();
                let answer =
                    self.requests.patch_status(&name, &params, &Patch::Merge(&patch)).await;
                answer.map_err(|e| failed("signing", &e))?;
                info!(%identity, request = name, "certificate signed");
            }
        }
        Ok(())
    }
}

pub(super) fn unusable(error: impl std::fmt::Display) -> ClusterError {
    ClusterError::Certificate(error.to_string())
}

pub(super) fn parts_of(secret: &Secret) -> Parts {
    let data = secret.data.iter().flatten();
    data.map(|(name, bytes)| (name.clone(), bytes.0.clone())).collect()
}

fn secret(before: Option<&Secret>, parts: &Parts) -> Secret {
    let metadata = before.map_or_else(
        || ObjectMeta {
            name: Some(CA_SECRET.to_owned()),
            annotations: Some([(MADE_HERE.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        |s| s.metadata.clone(),
    );
    let data = parts.iter().map(|(name, bytes)| (name.clone(), ByteString(bytes.clone())));
    Secret {
        metadata,
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    }
}

fn has(request: &CertificateSigningRequest, type_: &str) -> bool {
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == type_)
}

/// Whether it was answered long enough ago that nobody waits for the answer any more.
fn is_old(request: &CertificateSigningRequest, time: i64) -> bool {
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_ref());
    let answered = conditions.into_iter().flatten().filter_map(|c| c.last_update_time.as_ref());
    let answered = answered.map(|time| time.0.as_second()).max();
    answered.is_some_and(|answered| time.saturating_sub(answered) > KEPT)
}

/// Whether it waits for us.
fn is_open(request: &CertificateSigningRequest) -> bool {
    let signed = request.status.as_ref().is_some_and(|s| s.certificate.is_some());
    request.spec.signer_name == SIGNER
        && !signed
        && !has(request, "Denied")
        && !has(request, "Failed")
}

fn asked(request: &CertificateSigningRequest) -> Asked {
    let spec = &request.spec;
    let extra = spec.extra.as_ref().and_then(|e| e.get(NODE_NAME));
    Asked {
        username: spec.username.clone().unwrap_or_default(),
        // One node, or none that counts.
        node: extra.and_then(|v| match v.as_slice() {
            [node] => Some(node.clone()),
            _ => None,
        }),
        usages: spec.usages.clone().unwrap_or_default(),
        pem: String::from_utf8_lossy(&spec.request.0).into_owned(),
    }
}

/// As short as is asked for, never longer than is granted.
fn lifetime(request: &CertificateSigningRequest, granted: Duration) -> Duration {
    let asked = request.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok());
    asked.map_or(granted, |s| granted.min(Duration::from_secs(s)))
}
