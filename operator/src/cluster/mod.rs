//! The operator in a cluster.
//!
//! ```text
//!   API server ─ watch ─► Caches ─┬─► wanted ─► one task a BlockReplication: pass, wait, pass, ...
//!                                 └─► nodes ─► ClusterEngines: one poll a node and second
//!   API server ◄─ compare-and-swap, server-side apply ── ApiStore ◄──────┘
//!   Lease ─► only its holder works
//! ```
//!
//! Nothing of the data path waits for any of this: while the API server or the operator is away,
//! engines go on replicating and making checkpoints as they were last told.

pub mod api;
pub mod caches;
pub mod controller;
pub mod engines;
pub mod events;
pub mod inventory;
pub mod lease;
pub mod nodes;
pub mod replications;
pub mod store;
pub mod sweep;
pub mod throttle;
pub mod written;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tracing::{info, warn};

use self::caches::Caches;
use self::lease::{Leadership, Lost};

/// What the operator is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// The namespace of the installation: its Lease, Secret and ConfigMaps are there.
    pub namespace: String,
    /// Who this is among the operator's replicas.
    pub identity: String,
    /// Engines' ports.
    pub ports: nodes::Ports,
    /// Speak to engines without TLS.
    pub insecure_plaintext: bool,
    /// Where its own certificate is kept.
    pub tls_dir: PathBuf,
    /// How long figures in a status may lag.
    pub status_interval: Duration,
    /// Whether and how the certificates of all parts are signed.
    pub signing: Option<crate::certificates::Signing>,
}

/// Why the operator can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Somebody else leads.
    #[error("the lease went to {0}: this replica starts anew as a candidate")]
    Replaced(String),
    /// The API server refuses what every operator needs.
    #[error("{0}")]
    Api(#[from] api::ApiError),
    /// Its own certificate.
    #[error("{0}")]
    Certificate(String),
}

/// Works until `shutdown` is done.
pub async fn run(
    client: Client,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ClusterError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let caches = tokio::select! {
        caches = Caches::start(&client) => Arc::new(caches),
        () = &mut shutdown => return Ok(()),
    };
    let leadership = Leadership::new(&client, &options.namespace, &options.identity);
    let lead = async {
        loop {
            leadership.acquire().await;
            info!(identity = options.identity, "leading");
            let lost = tokio::select! {
                lost = leadership.keep() => lost,
                result = controller::work(&client, &options, &caches) => return result,
            };
            match lost {
                Lost::To(other) => return Err(ClusterError::Replaced(other)),
                // Nobody else can lead meanwhile either. What this one wrote stays true.
                Lost::ApiServer => warn!("the API server is away: the operator pauses"),
            }
        }
    };
    let result = tokio::select! {
        result = lead => result,
        () = &mut shutdown => Ok(()),
    };
    leadership.release().await;
    result
}
