//! The CSI driver as it runs: a controller and a node plugin, over an API server, an engine, an attach
//! daemon.
//!
//! ```text
//!   directory/  controller.sock ── understudy-csi controller ── TLS ──► understudyd (node-a)
//!               node.sock       ── understudy-csi node ── Unix socket ──► understudy-attachd
//!               plugins/        where it registers
//! ```

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::attach::Attachd;
use super::certs::Authority;
use super::engine::Engine;
use super::process::Child;
use super::tools;
use crate::cluster::Bench;

/// How long a program may take to answer after its start.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The node's name.
const NODE: &str = "node-a";

/// The driver, with all that it needs, on one node.
pub struct Driver {
    // In the order in which they end: users before what they use.
    node: Child,
    controller: Child,
    /// The devices.
    pub attachd: Attachd,
    /// The replicas.
    pub engine: Engine,
    directory: PathBuf,
    kubeconfig: PathBuf,
}

impl Driver {
    /// Starts everything in `directory`.
    pub fn start(directory: &Path, bench: &Bench) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let authority = Authority::new()?;
        let certificates = |identity: &str| -> Result<String> {
            let folder = directory.join(identity.replace('/', "-"));
            std::fs::create_dir_all(&folder)?;
            authority.issue(&folder, identity)?;
            Ok(folder.display().to_string())
        };
        let own = certificates(&format!("engine/{NODE}"))?;
        let api = format!("tls:127.0.0.1:{port}");
        let engine = Engine::start(NODE, directory, &["--api", &api, "--tls", &own])?;
        let attachd = Attachd::start(directory)?;
        let kubeconfig = bench.kubeconfig();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { register_node(bench.client().await?).await })?;
        let arguments = vec![
            format!("--tls-dir={}", certificates("csi-controller")?),
            format!("--engine-port={port}"),
        ];
        let controller = start(directory, &kubeconfig, "controller", &arguments)?;
        let node = start(directory, &kubeconfig, "node", &node_arguments(directory, &engine))?;
        let directory = directory.to_owned();
        Ok(Self { node, controller, attachd, engine, directory, kubeconfig })
    }

    /// Where the controller or the node plugin is served.
    pub fn socket(&self, mode: &str) -> PathBuf {
        self.directory.join(format!("{mode}.sock"))
    }

    /// SIGKILL of the node plugin, and a new one.
    pub fn restart_node(&mut self) -> Result<()> {
        self.node.kill();
        let arguments = node_arguments(&self.directory, &self.engine);
        self.node = start(&self.directory, &self.kubeconfig, "node", &arguments)?;
        Ok(())
    }

    /// All its processes, by what they are.
    pub fn processes(&self) -> Vec<(&'static str, u32)> {
        let engine = self.engine.pid().map(|pid| ("engine", pid));
        let attachd = self.attachd.pid().map(|pid| ("attach daemon", pid));
        let own = [("controller", self.controller.pid()), ("node plugin", self.node.pid())];
        own.into_iter().chain(engine).chain(attachd).collect()
    }

    /// What the two printed.
    pub fn log(&self) -> String {
        format!("controller:\n{}\nnode:\n{}", self.controller.output(), self.node.output())
    }

    /// SIGTERM of both; their exit statuses.
    pub fn end(&mut self) -> Result<Vec<Option<i32>>> {
        let mut statuses = Vec::new();
        for child in [&mut self.node, &mut self.controller] {
            child.signal("TERM")?;
            statuses.push(child.wait(START_LIMIT)?.code());
        }
        Ok(statuses)
    }
}

fn node_arguments(directory: &Path, engine: &Engine) -> Vec<String> {
    let unix = |address: understudy_core::runtime::Address| {
        address.to_string().trim_start_matches("unix:").to_owned()
    };
    vec![
        format!("--node={NODE}"),
        format!("--registration-dir={}", directory.join("plugins").display()),
        format!("--attach-socket={}", directory.join("attach.sock").display()),
        format!("--engine-socket={}", unix(engine.api_address())),
        format!("--nbd-socket={}", unix(engine.nbd_address())),
    ]
}

fn start(directory: &Path, kubeconfig: &Path, mode: &str, arguments: &[String]) -> Result<Child> {
    let program = tools::own("understudy-csi")?;
    let socket = format!("--socket={}", directory.join(format!("{mode}.sock")).display());
    let mut all = vec![
        format!("KUBECONFIG={}", kubeconfig.display()),
        program.display().to_string(),
        mode.to_owned(),
        socket.clone(),
        "--installation=prod".to_owned(),
    ];
    all.extend(arguments.iter().cloned());
    let mut child = Child::start(mode, &tools::find("env")?, &all, directory)?;
    child.wait_until("it answered a probe", START_LIMIT, || {
        let probe = std::process::Command::new(&program).args(["probe", &socket]).output();
        probe.is_ok_and(|output| output.status.success()).then_some(())
    })?;
    Ok(child)
}

/// A node as the kubelet of a node with our plugin makes it.
async fn register_node(client: kube::Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client);
    let label = json!({ "csi.understudy.dev/installation": "prod" });
    let node = json!({ "metadata": { "name": NODE, "labels": label } });
    match nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => drop(other?),
    }
    let address = json!([{ "type": "InternalIP", "address": "127.0.0.1" }]);
    let status = Patch::Merge(json!({ "status": { "addresses": address } }));
    nodes.patch_status(NODE, &PatchParams::default(), &status).await?;
    Ok(())
}
