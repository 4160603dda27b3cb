//! A bench: a real API server with our CRDs, in seconds.
//!
//! Nothing outlives the process that made it: its children die with it, and its directory is removed
//! by the next bench if it could not do so itself.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::control_plane::{ControlPlane, Options};
use super::kubectl::Kubectl;
use super::scratch::Scratch;
use crate::harness::tools::workspace;

/// An API server with the project's CRDs.
pub struct Bench {
    // Dropped first: the processes end before their directory goes.
    plane: ControlPlane,
    scratch: Scratch,
}

impl Bench {
    /// Starts one.
    pub fn start() -> Result<Self> {
        let scratch = Scratch::new("api")?;
        let options = Options { address: Ipv4Addr::LOCALHOST.into(), audit: false };
        let plane = ControlPlane::start(scratch.path(), &options)?;
        apply_crds(&plane.kubectl()?)?;
        Ok(Self { plane, scratch })
    }

    /// One for all tests of a process that run at the same time; it goes with the last of them.
    pub fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Bench>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bench) = shared.upgrade() {
            return Ok(bench);
        }
        let bench = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&bench);
        Ok(bench)
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.plane.kubeconfig()
    }

    /// kubectl as an administrator.
    pub fn kubectl(&self) -> Result<Kubectl> {
        self.plane.kubectl()
    }

    /// A client as an administrator.
    pub async fn client(&self) -> Result<kube::Client> {
        client(&self.kubeconfig()).await
    }

    /// The kubeconfig of another user, with at most one group.
    pub fn user(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let file = user.replace([':', '/'], "-");
        self.plane.authority().user(&file, user, group, self.plane.server())
    }

    /// The process id of the API server while it is up.
    pub fn api_pid(&self) -> Option<u32> {
        self.plane.api_pid()
    }

    /// Kills the API server; the store stays.
    pub fn stop_api(&mut self) {
        self.plane.stop_api();
    }

    /// Starts the API server again.
    pub fn start_api(&mut self) -> Result<()> {
        self.plane.start_api()
    }

    /// Its directory: logs, certificates.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// The process ids of what it runs.
    pub fn store_pid(&self) -> u32 {
        self.plane.store_pid()
    }
}

/// A client with the identity of a kubeconfig.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    // Two crypto providers may be linked; whoever comes first decides, and the second is the same.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let config = Kubeconfig::read_from(kubeconfig)?;
    let config =
        kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// Applies the chart's CRDs and waits until they are served.
pub fn apply_crds(kubectl: &Kubectl) -> Result<()> {
    let crds = workspace().join("charts/understudy/crds");
    let crds = crds.display().to_string();
    kubectl.run(["apply", "--server-side", "-f", &crds]).context("the CRDs were refused")?;
    kubectl.run(["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds])?;
    // They are explained a little later than they are served.
    let end = Instant::now() + Duration::from_mins(1);
    for kind in ["blockreplications", "replicationgroups", "replicatedvolumes"] {
        while let Err(error) = kubectl.run(["explain", kind]) {
            if Instant::now() >= end {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}
