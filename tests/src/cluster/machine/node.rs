//! One node: namespaces around containerd, kubelet and kube-proxy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::leftovers::{hierarchies, remove_cgroup};
use super::{Place, loops, network};
use crate::cluster::image;
use crate::cluster::pki::{Authority, Use};
use crate::cluster::programs;
use crate::harness::process::Child;
use crate::harness::tools;

/// What a node's first process does.
const SCRIPT: &str = include_str!("node.sh");
/// How long the kernel may take to end everything in a pid namespace.
const END: Duration = Duration::from_secs(20);

/// A node, running or without power.
pub(super) struct Node {
    name: String,
    index: u8,
    disk: PathBuf,
    images: PathBuf,
    /// `unshare`, whose only child is the node's process 1 and dies with it.
    power: Option<Child>,
}

impl Node {
    /// Makes what outlives its power: address, certificates, configuration.
    pub(super) fn new(
        place: &Place,
        authority: &Authority,
        server: &str,
        index: u8,
    ) -> Result<Self> {
        let name = super::node_name(index);
        let disk = place.node(&name);
        std::fs::create_dir_all(&disk)?;
        network::make_node(&name, index)?;
        let user = format!("system:node:{name}");
        let address = network::address(index);
        authority.issue(&name, &user, Some("system:nodes"), Use::Both, &[address], &[&name])?;
        std::fs::copy(authority.kubeconfig(&name, server)?, disk.join("kubelet.kubeconfig"))?;
        let proxy = authority.path("kube-proxy.kubeconfig");
        std::fs::copy(proxy, disk.join("kube-proxy.kubeconfig"))?;
        let node = Self { name, index, disk, images: place.images(), power: None };
        node.configure(authority)?;
        Ok(node)
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Power on. Its pool and images are as they were; everything else begins anew.
    pub(super) fn start(&mut self) -> Result<()> {
        if self.power.is_some() {
            bail!("{} has power already", self.name);
        }
        self.make_cgroups()?;
        let script = self.disk.join("node.sh");
        let text = SCRIPT.replace("POD_RANGE", network::POD_RANGE);
        std::fs::write(
            &script,
            text.replace("NODE_ADDRESS", &network::address(self.index).to_string()),
        )?;
        let namespace = network::namespace(&self.name);
        let words = [
            format!("--net=/run/netns/{namespace}"),
            tools::find("unshare")?.display().to_string(),
            "--mount".to_owned(),
            "--uts".to_owned(),
            "--pid".to_owned(),
            "--fork".to_owned(),
            "--kill-child".to_owned(),
            "/bin/sh".to_owned(),
            script.display().to_string(),
            self.name.clone(),
            self.disk.display().to_string(),
            self.images.display().to_string(),
            programs::directory()?.display().to_string(),
        ];
        self.power = Some(Child::start("node", &tools::find("nsenter")?, words, &self.disk)?);
        Ok(())
    }

    /// Power off, at once: process 1 is killed, and the kernel ends the rest. The loop devices that
    /// a real machine would lose with its kernel go too.
    pub(super) fn kill(&mut self) -> Result<()> {
        let Some(mut power) = self.power.take() else {
            bail!("{} has no power already", self.name)
        };
        let devices = loops::over(&loops::held(Some(&network::namespace(&self.name))))?;
        if let Some(first) = first_child(power.pid()).and_then(|pid| i32::try_from(pid).ok()) {
            let first = rustix::process::Pid::from_raw(first).context("process 0")?;
            // It may have ended by itself.
            let _ended = rustix::process::kill_process(first, rustix::process::Signal::KILL);
            // unshare ends when its child has, and that when its whole namespace has.
            power.wait(END)?;
        }
        power.kill();
        loops::detach(&devices);
        Ok(())
    }

    /// Runs a program inside the node, for looking at it.
    pub(super) fn first_process(&self) -> Option<u32> {
        first_child(self.power.as_ref()?.pid())
    }

    /// The kubelet's own parent in every hierarchy; those of the life before go, or the kubelet
    /// spends seconds on each.
    fn make_cgroups(&self) -> Result<()> {
        let name = network::namespace(&self.name);
        for hierarchy in hierarchies() {
            let own = hierarchy.join(&name);
            for entry in std::fs::read_dir(&own).into_iter().flatten().flatten() {
                if entry.file_type()?.is_dir() {
                    remove_cgroup(&entry.path());
                }
            }
            std::fs::create_dir_all(&own)?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                // Version 1 begins with none, and nothing may run in it then.
                if let Ok(value) = std::fs::read_to_string(hierarchy.join(file)) {
                    let _kept = std::fs::write(own.join(file), value);
                }
            }
            for directory in [&hierarchy, &own] {
                let control = directory.join("cgroup.subtree_control");
                if control.exists() {
                    let _kept = std::fs::write(control, "+cpuset +cpu +io +memory +pids");
                }
            }
        }
        Ok(())
    }

    fn configure(&self, authority: &Authority) -> Result<()> {
        let pki = |file: &str| authority.path(file).display().to_string();
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false }, "webhook": { "enabled": true },
                "x509": { "clientCAFile": pki("ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "tlsCertFile": pki(&format!("{}.crt", self.name)),
            "tlsPrivateKeyFile": pki(&format!("{}.key", self.name)),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", network::namespace(&self.name)),
            "failCgroupV1": false,
            "failSwapOn": false,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            // Nobody answers there; without an address every pod would be warned about.
            "clusterDomain": "cluster.local", "clusterDNS": ["10.96.0.10"],
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
            "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        });
        self.write("kubelet.yaml", &serde_yaml::to_string(&kubelet)?)?;
        let pods = json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [
            { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
              "ipam": { "type": "host-local", "ranges": [[{ "subnet": network::pods(self.index) }]],
                        "routes": [{ "dst": "0.0.0.0/0" }] } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ]});
        self.write("cni.conflist", &serde_json::to_string(&pods)?)?;
        self.write("containerd.toml", &containerd())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.disk.join(file);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The only child of a process.
fn first_child(pid: u32) -> Option<u32> {
    let path = Path::new("/proc").join(pid.to_string()).join(format!("task/{pid}/children"));
    std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// Where the right to lower a process's OOM score is missing (as in sandboxes), runc dies early
/// unless containerd restricts the score.
fn containerd() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"#,
        pause = image::PAUSE
    )
}
