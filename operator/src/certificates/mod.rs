//! Who may speak as whom: the certificates of an installation.
//!
//! ```text
//!   sidecar of an engine          API server                    operator (leader)
//!     key, request  ──────► CertificateSigningRequest ──watch──► check: is the requester that?
//!     files ◄──────────── status.certificate ◄────────────────── sign with the Secret understudy-ca
//!     ca.crt ◄─────────── ConfigMap understudy-ca ◄───────────── its public part, and the next one's
//!   Prometheus ◄───────── Secret understudy-metrics ◄─────────── a certificate for reading metrics
//! ```
//!
//! A private key never leaves the pod that made it. What a request asks for is taken from it in one
//! point only, its identity, and that must be the requester's own: an engine's service account, on
//! the very node that its token is bound to.

pub mod authority;
pub mod check;
pub mod files;
pub mod identity;
mod reader;
pub mod request;
pub mod signer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use understudy_core::engine::client::{EngineClient, Tls};

use self::identity::Identity;
use self::signer::Signer;
use crate::cluster::engines::Connect;
use crate::cluster::{ClusterError, Options, controller};

/// How certificates are signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signing {
    /// How long a certificate of a part is good.
    pub lifetime: Duration,
    /// How long the authority is.
    pub authority_lifetime: Duration,
    /// Whether the Secret of who reads metrics is kept.
    pub metrics_reader: bool,
}

/// The operator's own part in it.
#[derive(Debug)]
pub struct Certificates {
    signer: Option<Signer>,
    tls: Option<Tls>,
}

/// Makes the authority ready, and the operator's own certificate.
pub async fn serve(client: &Client, options: &Options) -> Result<Certificates, ClusterError> {
    let mut signer = None;
    if let Some(signing) = options.signing {
        let mut own = Signer::new(client, &options.namespace, signing);
        own.renew().await?;
        if let Some(dir) = own_dir(options) {
            own.sign_own(dir)?;
        }
        signer = Some(own);
    }
    let tls = if options.insecure_plaintext { None } else { Some(open(&options.tls_dir)?) };
    Ok(Certificates { signer, tls })
}

/// Where the operator's own certificate is kept, if it needs one.
fn own_dir(options: &Options) -> Option<&Path> {
    (!options.insecure_plaintext).then_some(options.tls_dir.as_path())
}

fn open(dir: &Path) -> Result<Tls, ClusterError> {
    Tls::open(dir, None).map_err(|e| ClusterError::Certificate(e.to_string()))
}

impl Certificates {
    /// The way to engines.
    pub fn connect(&self, plaintext: bool) -> Connect {
        match &self.tls {
            Some(tls) if !plaintext => {
                let tls = tls.clone();
                Arc::new(move |address| EngineClient::lazy_with(address, Some(&tls)))
            }
            _ => controller::plaintext(),
        }
    }

    /// Signs what is asked for, and renews what ages. For ever, unless the authority is lost.
    pub async fn run(mut self, options: &Options) -> ClusterError {
        match &mut self.signer {
            None => std::future::pending().await,
            Some(signer) => signer.run(own_dir(options)).await,
        }
    }
}

/// The identity of the operator itself.
pub const OPERATOR: Identity = Identity::Operator;
