//! What every scenario has.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::provider::Provider;
use crate::cluster::Kubectl;
use crate::cluster::api::client;
use crate::harness::tools::workspace;

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(100);

/// The cluster under test.
pub(super) struct World {
    pub(super) provider: Box<dyn Provider>,
    pub(super) kubectl: Kubectl,
    client: kube::Client,
    runtime: tokio::runtime::Runtime,
    begun: Instant,
    last: Cell<Instant>,
}

impl World {
    pub(super) fn new(provider: Box<dyn Provider>) -> Result<Self> {
        let kubeconfig = provider.kubeconfig();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(client(&kubeconfig))?;
        let kubectl = Kubectl::new(&kubeconfig)?;
        let now = Instant::now();
        Ok(Self { provider, kubectl, client, runtime, begun: now, last: Cell::new(now) })
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.provider.kubeconfig()
    }

    /// Says that a step is done, and how long it took.
    pub(super) fn step(&self, what: &str) {
        let now = Instant::now();
        let took = now.duration_since(self.last.replace(now)).as_secs_f64();
        println!("[{:6.1} s] {took:6.1} s  {what}", now.duration_since(self.begun).as_secs_f64());
    }

    /// An object or a list by its path; `None`: there is none.
    pub(super) fn get(&self, path: &str) -> Result<Option<Value>> {
        let request = http::Request::get(path).body(Vec::new())?;
        match self.runtime.block_on(self.client.request::<Value>(request)) {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot get {path}")),
        }
    }

    /// The items of a list by its path.
    pub(super) fn list(&self, path: &str) -> Result<Vec<Value>> {
        let list = self.get(path)?.unwrap_or_default();
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Merges a patch into an object.
    pub(super) fn patch(&self, path: &str, patch: &Value) -> Result<()> {
        let request = http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(patch)?)?;
        self.runtime
            .block_on(self.client.request::<Value>(request))
            .with_context(|| format!("cannot patch {path}"))?;
        Ok(())
    }

    /// Applies manifests as they stand.
    pub(super) fn apply(&self, manifests: &[Value]) -> Result<()> {
        let documents: Result<Vec<String>, _> =
            manifests.iter().map(serde_yaml::to_string).collect();
        self.kubectl.run_with(&documents?.join("---\n"), ["apply", "--server-side", "-f", "-"])?;
        Ok(())
    }

    /// Waits until `look` finds something. What `look` cannot ask just now it is asked again.
    pub(super) fn wait<T>(
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            let looked = look();
            if let Ok(Some(found)) = looked {
                return Ok(found);
            }
            if Instant::now() >= end {
                return match looked {
                    Err(error) => Err(error.context(format!("{what}: not in {limit:?}"))),
                    Ok(_) => bail!("{what}: not in {limit:?}"),
                };
            }
            std::thread::sleep(POLL);
        }
    }

    /// The nodes by name, and whether they are ready.
    pub(super) fn nodes(&self) -> Result<Vec<(String, bool)>> {
        let ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let nodes = self.list("/api/v1/nodes")?;
        let named = nodes.iter().map(|node| (text(&node["metadata"]["name"]), ready(node)));
        Ok(named.collect())
    }

    pub(super) fn wait_for_node(&self, node: &str, ready: bool) -> Result<()> {
        let what = format!("{node} is {}", if ready { "Ready" } else { "NotReady" });
        Self::wait(&what, Duration::from_mins(2), || {
            Ok(self.nodes()?.contains(&(node.to_owned(), ready)).then_some(()))
        })?;
        self.step(&what);
        Ok(())
    }

    /// Where what was seen at a failure is kept.
    pub(super) fn evidence() -> PathBuf {
        workspace().join("target/e2e")
    }

    /// Keeps what helps to understand a failure; whatever cannot be asked is left out.
    pub(super) fn save_evidence(&self, name: &str) {
        let directory = Self::evidence().join(name);
        let _there = std::fs::create_dir_all(&directory);
        let keep = |file: &str, words: &[&str]| {
            let text = self.kubectl.run(words).unwrap_or_else(|error| format!("{error:#}"));
            let _kept = std::fs::write(directory.join(file), text);
        };
        keep("objects.txt", &["get", "all,pvc,pv,br,rgroup,rvol,nodes,csr", "-A", "-o", "wide"]);
        keep("ours.yaml", &["get", "br,rgroup,rvol", "-A", "-o", "yaml"]);
        keep("pods.txt", &["describe", "pods", "-A"]);
        keep("events.txt", &["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        for pod in self.list("/api/v1/namespaces/understudy/pods").unwrap_or_default() {
            let pod = text(&pod["metadata"]["name"]);
            let words =
                ["logs", "-n", "understudy", &pod, "--all-containers", "--prefix", "--tail=2000"];
            keep(&format!("{pod}.log"), &words);
        }
    }
}

/// A string of an object; empty if it is none.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The documents of a YAML file of the repository.
pub(super) fn manifests(path: &Path) -> Result<Vec<Value>> {
    let file = workspace().join(path);
    let content = std::fs::read_to_string(&file);
    let content = content.with_context(|| format!("cannot read {}", file.display()))?;
    let documents = serde_yaml::Deserializer::from_str(&content);
    let read = |document| -> Result<Value> { Ok(serde::Deserialize::deserialize(document)?) };
    documents.map(read).collect()
}
