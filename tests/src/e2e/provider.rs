//! A cluster and its power switch. What differs between ways to have one is here and nowhere else.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cluster::image;
use crate::cluster::machine::{Client, Place, up};
use crate::harness::tools::{self, workspace};

/// A cluster of at least two nodes, with our images on all of them.
pub(super) trait Provider {
    /// An administrator's kubeconfig.
    fn kubeconfig(&self) -> PathBuf;
    /// Power off, at once.
    fn kill(&self, node: &str) -> Result<()>;
    /// Power on.
    fn start(&self, node: &str) -> Result<()>;
    /// Cut off from everything, or put back.
    fn set_link(&self, node: &str, up: bool) -> Result<()>;
    /// Runs a program in the node itself; its output.
    fn exec(&self, node: &str, words: &[&str]) -> Result<String>;
    /// Stops or starts the API server; `false`: it can't.
    fn set_api(&self, up: bool) -> Result<bool>;
    /// The API server's audit log, where it can be read.
    fn audit_log(&self) -> Option<PathBuf>;
}

/// The provider that `E2E_PROVIDER` names: `local` (the default) or `kind`.
pub(super) fn choose(build_images: bool, keep: bool) -> Result<Box<dyn Provider>> {
    let name = std::env::var("E2E_PROVIDER").unwrap_or_else(|_| "local".to_owned());
    let place = Place::default();
    if build_images {
        println!("Building the images");
        image::build_all(&place.images())?;
    }
    match name.as_str() {
        "local" => Ok(Box::new(Local::up(place, keep)?)),
        "kind" => Ok(Box::new(Kind::find(&place)?)),
        other => bail!("E2E_PROVIDER={other}: there are local and kind"),
    }
}

/// Nodes in namespaces of this machine. The keeper ends them when this process is gone.
struct Local {
    place: Place,
    client: Client,
    keep: bool,
}

impl Local {
    fn up(place: Place, keep: bool) -> Result<Self> {
        let client = Client::new(&place);
        // What a killed run left; a living one is not ours to end.
        if !client.is_up() {
            client.down()?;
        }
        println!("Bringing the cluster up in {}", place.root().display());
        let client = up(&place, 2, !keep)?;
        Ok(Self { place, client, keep })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.client.down()
        {
            println!("the cluster did not go: {error:#}");
        }
    }
}

impl Provider for Local {
    fn kubeconfig(&self) -> PathBuf {
        self.place.kubeconfig()
    }

    fn kill(&self, node: &str) -> Result<()> {
        self.client.order(&format!("kill {node}")).map(drop)
    }

    fn start(&self, node: &str) -> Result<()> {
        self.client.order(&format!("start {node}")).map(drop)
    }

    fn set_link(&self, node: &str, up: bool) -> Result<()> {
        let order = if up { "heal" } else { "partition" };
        self.client.order(&format!("{order} {node}")).map(drop)
    }

    fn exec(&self, node: &str, words: &[&str]) -> Result<String> {
        let pid = self.client.order(&format!("pid {node}"))?;
        let mut command = Command::new(tools::find("nsenter")?);
        command.args(["--target", &pid, "--mount", "--net", "--uts", "--pid", "--"]).args(words);
        output(command, node)
    }

    fn set_api(&self, up: bool) -> Result<bool> {
        self.client.order(if up { "start-api" } else { "stop-api" })?;
        Ok(true)
    }

    fn audit_log(&self) -> Option<PathBuf> {
        Some(self.place.audit_log())
    }
}

/// A kind cluster that is up already (`tests/kind`); its nodes are containers.
struct Kind {
    kubeconfig: PathBuf,
}

impl Kind {
    /// The cluster's name in `tests/kind/cluster.yaml`.
    const NAME: &str = "understudy";

    fn find(place: &Place) -> Result<Self> {
        let text = kind(&["get", "kubeconfig", "--name", Self::NAME]);
        let text = text.context("no kind cluster: run tests/kind/up.sh first")?;
        let kubeconfig = workspace().join("target/kind.kubeconfig");
        std::fs::write(&kubeconfig, text)?;
        for entry in std::fs::read_dir(place.images())? {
            let path = entry?.path();
            kind(&["load", "image-archive", "--name", Self::NAME, &path.to_string_lossy()])?;
        }
        Ok(Self { kubeconfig })
    }
}

impl Provider for Kind {
    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    fn kill(&self, node: &str) -> Result<()> {
        docker(&["kill", "--signal", "KILL", node]).map(drop)
    }

    fn start(&self, node: &str) -> Result<()> {
        docker(&["start", node]).map(drop)
    }

    fn set_link(&self, node: &str, up: bool) -> Result<()> {
        let order = if up { "connect" } else { "disconnect" };
        docker(&["network", order, "kind", node]).map(drop)
    }

    fn exec(&self, node: &str, words: &[&str]) -> Result<String> {
        docker(&[&["exec", node], words].concat())
    }

    fn set_api(&self, _up: bool) -> Result<bool> {
        Ok(false)
    }

    fn audit_log(&self) -> Option<PathBuf> {
        None
    }
}

fn kind(words: &[&str]) -> Result<String> {
    let mut command = Command::new(tools::find("kind")?);
    command.args(words);
    output(command, "kind")
}

fn docker(words: &[&str]) -> Result<String> {
    let mut command = Command::new(tools::find("docker")?);
    command.args(words);
    output(command, "docker")
}

fn output(mut command: Command, who: &str) -> Result<String> {
    let output = command.output().with_context(|| format!("{who}: cannot run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{who}: {:?}: {}", command.get_args().collect::<Vec<_>>(), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
