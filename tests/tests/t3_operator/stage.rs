//! A real API server, real engines that speak TLS, the operator as its service account; no kubelet.
//!
//! ```text
//!   Node objects a, b    engine at 127.0.0.1: two free ports each would not do, for all nodes have the
//!                        same ports: so each node has an address of its own, 127.77.N.1
//!   volumes              made as the CSI driver makes them: object first, then the engine
//!
//!   counted              all that the operator says goes through a gate, in plaintext
//! ```

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use understudy_core::engine::api::{Address, EngineStatus};
use understudy_core::engine::client::EngineClient;
use understudy_crds::{BlockReplication, ReplicatedVolume, ReplicationGroup};
use understudy_tests::cluster::{Bench, Kubectl, programs};
use understudy_tests::harness::gate::Gate;
use understudy_tests::harness::process::Child;
use understudy_tests::harness::tools::{self, workspace};

/// How long anything may take: machines that test are slow, and two things are not waited for.
const LIMIT: Duration = Duration::from_mins(1);

pub const NAMESPACE: &str = "understudy";
const OPERATOR: &str = "system:serviceaccount:understudy:understudy-operator";

/// Whether what these tests need is there.
pub fn is_possible(test: &str) -> bool {
    programs::require(test, &["etcd", "kube-apiserver", "kubectl", "helm"])
}

pub struct Stage {
    // Dropped first: processes end before their directory and their API server go.
    pub operators: BTreeMap<String, Child>,
    pub nodes: BTreeMap<String, NodeStage>,
    pub bench: Bench,
    pub client: Client,
    pub kubectl: Kubectl,
    directory: TempDir,
    /// The engines' API, their links, and the API again behind a gate.
    ports: [u16; 3],
    gate: Option<Gate>,
}

pub struct NodeStage {
    pub ip: String,
    engine: Option<Child>,
    api: Address,
}

impl Stage {
    /// With these nodes, and an operator.
    pub async fn start(nodes: &[&str]) -> Self {
        Self::with(nodes, None).await
    }

    /// The same behind a gate.
    pub async fn counted(nodes: &[&str], gate: &Gate) -> Self {
        Self::with(nodes, Some(gate.clone())).await
    }

    async fn with(nodes: &[&str], gate: Option<Gate>) -> Self {
        let bench = Bench::start().unwrap();
        let kubectl = bench.kubectl().unwrap();
        let client = bench.client().await.unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut stage = Self {
            operators: BTreeMap::new(),
            nodes: BTreeMap::new(),
            bench,
            client,
            kubectl,
            directory: tempfile::tempdir().unwrap(),
            ports: [port(), port(), port()],
            gate,
        };
        stage.install();
        stage.open_gate().await;
        // Signs the engines' certificates.
        stage.operator("first");
        for node in nodes {
            stage.add_node(node).await;
        }
        stage
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Roles and accounts as the chart has them.
    fn install(&self) {
        for namespace in [NAMESPACE, "shop"] {
            self.kubectl.run(["create", "namespace", namespace]).unwrap();
        }
        self.kubectl.run(["create", "serviceaccount", "default", "-n", "shop"]).unwrap();
        let mut helm = Command::new(programs::find("helm").unwrap());
        let chart = workspace().join("charts/understudy");
        helm.args(["template", "understudy"]).arg(chart);
        helm.args(["--namespace", NAMESPACE, "--kube-version", "1.36.0"]);
        for part in ["service-accounts", "rbac-operator", "rbac-certificates"] {
            helm.args(["-s", &format!("templates/{part}.yaml")]);
        }
        let output = helm.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let manifests = String::from_utf8(output.stdout).unwrap();
        self.kubectl.run_with(&manifests, ["apply", "-f", "-"]).unwrap();
    }

    /// The gate's way to the API server: as the operator, whoever asks.
    async fn open_gate(&self) {
        let Some(gate) = &self.gate else { return };
        let kubeconfig = self.bench.user(OPERATOR, Some("system:serviceaccounts")).unwrap();
        let client = understudy_tests::cluster::api::client(&kubeconfig).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "gate",
            "clusters": [{ "name": "gate", "cluster": { "server": server } }],
            "contexts": [{ "name": "gate", "context": { "cluster": "gate", "user": "" } }],
        });
        std::fs::write(self.path("gate.kubeconfig"), config.to_string()).unwrap();
        tokio::spawn(gate.clone().serve_api(listener, client));
    }

    /// Starts an operator with the rights of its service account, and no more.
    pub fn operator(&mut self, identity: &str) {
        let (kubeconfig, wire) = if self.gate.is_some() {
            let plain = vec!["--insecure-plaintext".to_owned(), "--no-signer".to_owned()];
            (self.path("gate.kubeconfig"), plain)
        } else {
            let tls = self.path(&format!("tls-{identity}"));
            let user = self.bench.user(OPERATOR, Some("system:serviceaccounts"));
            (user.unwrap(), vec![format!("--tls={}", tls.display())])
        };
        let mut arguments = vec![
            "controller".to_owned(),
            format!("--namespace={NAMESPACE}"),
            format!("--identity={identity}"),
            format!("--engine-port={}", self.ports[0]),
            format!("--link-port={}", self.ports[1]),
            "--status-interval=1".to_owned(),
            "--log=info".to_owned(),
        ];
        arguments.extend(wire);
        let child = self.spawn(
            &format!("operator-{identity}"),
            &kubeconfig,
            "understudy-operator",
            &arguments,
        );
        self.operators.insert(identity.to_owned(), child);
    }

    fn spawn(&self, name: &str, kubeconfig: &Path, program: &str, arguments: &[String]) -> Child {
        let mut all = vec![
            format!("KUBECONFIG={}", kubeconfig.display()),
            tools::own(program).unwrap().display().to_string(),
        ];
        all.extend(arguments.iter().cloned());
        Child::start(name, Path::new("/usr/bin/env"), all, self.directory.path()).unwrap()
    }

    /// A node, ready, whose engine has got its certificate in the way that the chart's sidecar does.
    pub async fn add_node(&mut self, name: &str) {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        // Tests of one process run at the same time; of others, the process id tells apart.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip =
            format!("127.{}.{}.{}", 64 + high % 128, low, NEXT.fetch_add(1, Ordering::Relaxed));
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": { "csi.understudy.dev/installation": "test" } },
        });
        self.apply(&node);
        self.set_node(name, &ip, true).await;
        if let Some(gate) = &self.gate {
            let listener = tokio::net::TcpListener::bind((ip.as_str(), self.ports[0])).await;
            let engine = format!("{ip}:{}", self.ports[2]).parse().unwrap();
            tokio::spawn(gate.clone().serve_engine(listener.unwrap(), engine));
        } else {
            let tls = self.path(&format!("tls-node-{name}"));
            let output = self.certificate(name, name, &tls);
            assert!(output.is_ok(), "{output:?}");
        }
        let api = Address::Unix(self.path(&format!("{name}.sock")));
        std::fs::create_dir(self.path(&format!("pool-{name}"))).unwrap();
        self.nodes.insert(name.to_owned(), NodeStage { ip, engine: None, api });
        self.start_engine(name).await;
    }

    /// Asks for the certificate of `wanted` as the sidecar of the engine on `node`; what it said, if
    /// it got none.
    pub fn certificate(&self, node: &str, wanted: &str, into: &Path) -> Result<(), String> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("engine-{node}"), "namespace": NAMESPACE },
            "spec": {
                "serviceAccountName": "understudy-engine",
                "nodeName": node,
                "containers": [{ "name": "engine", "image": "none" }],
            },
        });
        self.apply(&pod);
        let bound = format!("--bound-object-name=engine-{node}");
        let token = self.kubectl.run([
            "create",
            "token",
            "understudy-engine",
            "-n",
            NAMESPACE,
            "--bound-object-kind=Pod",
            &bound,
        ]);
        let text = std::fs::read_to_string(self.bench.kubeconfig()).unwrap();
        let mut config: Value = serde_yaml::from_str(&text).unwrap();
        config["users"][0]["user"] = json!({ "token": token.unwrap().trim() });
        let kubeconfig = self.path(&format!("engine-{node}.kubeconfig"));
        std::fs::write(&kubeconfig, serde_yaml::to_string(&config).unwrap()).unwrap();
        let arguments = [
            "certificate".to_owned(),
            "--identity=engine".to_owned(),
            format!("--node={wanted}"),
            format!("--namespace={NAMESPACE}"),
            format!("--dir={}", into.display()),
            "--once".to_owned(),
        ];
        let mut child = self.spawn(
            &format!("certificate-{node}-{wanted}"),
            &kubeconfig,
            "understudy-operator",
            &arguments,
        );
        let status = child.wait(LIMIT).unwrap();
        if status.success() { Ok(()) } else { Err(child.output()) }
    }

    /// The node's address, and whether it is ready, as its kubelet would say.
    pub async fn set_node(&self, name: &str, ip: &str, ready: bool) {
        let status = json!({ "status": {
            "addresses": [{ "type": "InternalIP", "address": ip }],
            "conditions": [{
                "type": "Ready",
                "status": if ready { "True" } else { "Unknown" },
                "reason": "Test", "message": "",
                "lastHeartbeatTime": null, "lastTransitionTime": null,
            }],
        }});
        let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }

    pub async fn start_engine(&mut self, name: &str) {
        let path = |file: &str| self.path(file).display().to_string();
        let ip = self.nodes[name].ip.clone();
        let mut arguments = vec![
            format!("--pool={}", path(&format!("pool-{name}"))),
            format!("--node={name}"),
            format!("--api=unix:{}", path(&format!("{name}.sock"))),
            format!("--nbd=unix:{}", path(&format!("{name}-nbd.sock"))),
        ];
        let [api, link, behind] = self.ports;
        if self.gate.is_some() {
            arguments.push("--insecure-plaintext".to_owned());
            arguments.push(format!("--api=tcp:{ip}:{behind}"));
            arguments.push(format!("--link=tcp:{ip}:{link}"));
        } else {
            arguments.push(format!("--tls={}", path(&format!("tls-node-{name}"))));
            arguments.push(format!("--api=tls:{ip}:{api}"));
            arguments.push(format!("--link=tls:{ip}:{link}"));
        }
        let program = tools::own("understudyd").unwrap();
        let engine =
            Child::start(&format!("engine-{name}"), &program, &arguments, self.directory.path());
        self.nodes.get_mut(name).unwrap().engine = Some(engine.unwrap());
        let end = Instant::now() + LIMIT;
        while self.engine(name).await.is_none() {
            assert!(Instant::now() < end, "engine {name}: {}", self.log(&format!("engine-{name}")));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGKILL to the engine.
    pub fn kill_engine(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().engine = None;
    }

    /// The same, and its node is not ready any more.
    pub async fn lose(&mut self, name: &str) {
        self.kill_engine(name);
        let ip = self.nodes[name].ip.clone();
        self.set_node(name, &ip, false).await;
    }

    /// The node and its engine are back.
    pub async fn bring_back(&mut self, name: &str) {
        let ip = self.nodes[name].ip.clone();
        self.set_node(name, &ip, true).await;
        self.start_engine(name).await;
    }

    pub fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub async fn engine_client(&self, name: &str) -> Option<EngineClient> {
        EngineClient::connect(&self.nodes[name].api).await.ok()
    }

    pub async fn engine(&self, name: &str) -> Option<EngineStatus> {
        self.engine_client(name).await?.status().await.ok()
    }

    /// Applies a manifest as an administrator.
    pub fn apply(&self, object: &Value) {
        self.kubectl.run_with(&object.to_string(), ["apply", "-f", "-"]).unwrap();
    }

    pub async fn patch(&self, name: &str, patch: Value) {
        let api: Api<BlockReplication> = Api::namespaced(self.client.clone(), "shop");
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    pub async fn replication(&self, name: &str) -> Option<BlockReplication> {
        let api: Api<BlockReplication> = Api::namespaced(self.client.clone(), "shop");
        api.get_opt(name).await.unwrap()
    }

    pub async fn group(&self, name: &str) -> Option<ReplicationGroup> {
        Api::all(self.client.clone()).get_opt(name).await.unwrap()
    }

    pub async fn volume(&self, name: &str) -> ReplicatedVolume {
        Api::all(self.client.clone()).get(name).await.unwrap()
    }

    /// Waits until the status is as wanted.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        is: impl Fn(&BlockReplication) -> bool,
    ) -> BlockReplication {
        let end = Instant::now() + LIMIT;
        loop {
            let found = self.replication(name).await;
            if let Some(object) = found.as_ref().filter(|o| is(o)) {
                return object.clone();
            }
            if Instant::now() >= end {
                let shown = serde_yaml::to_string(&found.and_then(|o| o.status)).unwrap();
                let logs: Vec<_> =
                    self.operators.keys().map(|k| self.log(&format!("operator-{k}"))).collect();
                panic!("{name} did not come to: {what}\n{shown}\n{}", logs.join("\n---\n"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until an object is gone.
    pub async fn until_gone(&self, name: &str) {
        let end = Instant::now() + LIMIT;
        while self.replication(name).await.is_some() {
            if Instant::now() >= end {
                let object = self.kubectl.run(["get", "br", "-n", "shop", name, "-o", "yaml"]);
                panic!("{name} is still there:\n{}", object.unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The reasons of the events of an object.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let kind = kube::api::GroupVersionKind::gvk("events.k8s.io", "v1", "Event");
        let resource = kube::api::ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), "shop", &resource);
        let all = api.list(&kube::api::ListParams::default()).await.unwrap();
        all.iter()
            .filter(|e| e.data.pointer("/regarding/name").and_then(Value::as_str) == Some(name))
            .filter_map(|e| e.data.get("reason")?.as_str().map(str::to_owned))
            .collect()
    }
}
