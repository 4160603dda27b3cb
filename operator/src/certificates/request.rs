//! The sidecar of an engine: asks for its certificate, writes the files, and asks again in time.
//!
//! ```text
//!   files whole, young, of this identity? ─ no ─► key ─► request ─► signed ─► files
//!            │ yes
//!   authority's certificates changed? ─ yes ─► files with the old certificate
//!            │ no
//!   wait
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use tracing::{info, warn};
use understudy_crds::names::{CA_CONFIG_MAP, SIGNER};

use super::authority::Validity;
use super::files::{Files, read, write};
use super::identity::Identity;
use crate::cluster::api::{ApiError, is_absent};
use crate::observe::now;

/// How often files and authority are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// How soon to try again.
const RETRY: Duration = Duration::from_secs(5);
/// How often the answer to a request is looked for, and how often at most.
const ANSWER: (Duration, u32) = (Duration::from_millis(500), 240);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server did not take part.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The operator refused.
    #[error("the request {name} was denied: {why}")]
    Denied {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// Nobody signed it.
    #[error("the request {0} was not signed within two minutes: is the operator running?")]
    Unanswered(String),
    /// The authority is not there yet.
    #[error("the ConfigMap {CA_CONFIG_MAP} is not there yet: the operator makes it")]
    NoAuthority,
    /// The key or the request could not be made.
    #[error("the request can't be made: {0}")]
    Failed(#[from] rcgen::Error),
    /// The files could not be written.
    #[error("{dir} can't be written")]
    Files {
        /// Where.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Keeps the certificate of one identity.
#[derive(Debug)]
pub struct Keeper {
    identity: Identity,
    dir: PathBuf,
    requests: Api<CertificateSigningRequest>,
    maps: Api<ConfigMap>,
}

impl Keeper {
    /// Keeps it in this directory.
    pub fn new(client: &Client, namespace: &str, identity: Identity, dir: &Path) -> Self {
        Self {
            identity,
            dir: dir.to_owned(),
            requests: Api::all(client.clone()),
            maps: Api::namespaced(client.clone(), namespace),
        }
    }

    /// For ever.
    pub async fn run(&self) {
        let mut told = String::new();
        loop {
            match self.step().await {
                Ok(()) => {
                    told.clear();
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => {
                    let words = error.to_string();
                    if words != told {
                        warn!("{words}");
                        told = words;
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Brings the files up to date once.
    pub async fn step(&self) -> Result<(), RequestError> {
        let ca = self.authority().await?;
        let found = read(&self.dir);
        let time = now().as_second();
        let young = |f: &Files| {
            Validity::of(f.certificate.as_bytes()).is_ok_and(|v| !v.is_due(time))
                && names(&f.certificate, &self.identity)
        };
        match found.filter(young) {
            Some(files) if files.ca == ca => return Ok(()),
            Some(files) => {
                info!("the authorities that are trusted have changed");
                self.write(&Files { ca, ..files })?;
            }
            None => {
                let (certificate, key) = self.ask().await?;
                self.write(&Files { ca, certificate, key })?;
                info!(identity = %self.identity, dir = %self.dir.display(), "new certificate");
            }
        }
        Ok(())
    }

    fn write(&self, files: &Files) -> Result<(), RequestError> {
        write(&self.dir, files)
            .map_err(|source| RequestError::Files { dir: self.dir.clone(), source })
    }

    async fn authority(&self) -> Result<String, RequestError> {
        let map = self.maps.get_opt(CA_CONFIG_MAP).await;
        let map =
            map.map_err(|e| ApiError::new("reading", format!("ConfigMap {CA_CONFIG_MAP}"), &e))?;
        let text = map.and_then(|m| m.data?.remove("ca.crt"));
        text.filter(|t| !t.is_empty()).ok_or(RequestError::NoAuthority)
    }

    /// A certificate and its key.
    async fn ask(&self) -> Result<(String, String), RequestError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(self.identity.uri().try_into()?)];
        let pem = params.serialize_request(&key)?.pem()?;
        let prefix = match &self.identity {
            Identity::Engine(_) => "understudy-engine-",
            Identity::CsiController => "understudy-csi-controller-",
            Identity::Operator => "understudy-operator-",
            Identity::Metrics => "understudy-metrics-",
        };
        let request = CertificateSigningRequest {
            metadata: ObjectMeta {
                generate_name: Some(prefix.to_owned()),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: SIGNER.to_owned(),
                usages: Some(
                    ["digital signature", "client auth", "server auth"].map(str::to_owned).into(),
                ),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let failed =
            |action, e: &kube::Error| ApiError::new(action, "CertificateSigningRequest", e);
        let made = self.requests.create(&PostParams::default(), &request).await;
        let name = made.map_err(|e| failed("creating a", &e))?.name_any();
        for _ in 0..ANSWER.1 {
            tokio::time::sleep(ANSWER.0).await;
            let found = match self.requests.get(&name).await {
                Ok(found) => found,
                // Answered and taken away while we were not looking.
                Err(e) if is_absent(&e) => break,
                // One answer that gets lost is no reason for another key.
                Err(_) => continue,
            };
            let status = found.status.unwrap_or_default();
            let denied = status
                .conditions
                .iter()
                .flatten()
                .find(|c| ["Denied", "Failed"].contains(&c.type_.as_str()));
            if let Some(condition) = denied {
                let why = condition.message.clone().unwrap_or_default();
                return Err(RequestError::Denied { name, why });
            }
            if let Some(certificate) = status.certificate {
                let text = String::from_utf8_lossy(&certificate.0).into_owned();
                return Ok((text, key.serialize_pem()));
            }
        }
        Err(RequestError::Unanswered(name))
    }
}

/// Whether a certificate is of this identity.
fn names(pem: &str, identity: &Identity) -> bool {
    let Ok((_, parsed)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else { return false };
    let Ok(certificate) = parsed.parse_x509() else { return false };
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return false };
    let uri = identity.uri();
    extension.value.general_names.iter().any(
        |name| matches!(name, x509_parser::extensions::GeneralName::URI(found) if *found == uri),
    )
}
