//! The keeper: runs the cluster, takes orders, and ends it.
//!
//! ```text
//!   Client ──"kill node-b"──► keeper.sock ──► one order at a time ──► "ok" | "error: …"
//!   "down", or the owner is gone (pidfd)  ──► everything is taken apart
//! ```

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::node::Node;
use super::{Place, leftovers, network, settings};
use crate::cluster::control_plane::{self, ControlPlane};
use crate::cluster::programs;
use crate::harness::process::Child;

/// How soon the node controller calls a silent node NotReady.
const GRACE: &str = "20s";

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes.
    pub nodes: u8,
    /// The process whose end is the cluster's end.
    pub owner: Option<u32>,
}

struct Cluster {
    // Dropped in this order: nodes first, the store last.
    nodes: Vec<Node>,
    _controllers: Vec<Child>,
    plane: ControlPlane,
}

/// Brings a cluster up, keeps it until it is told to end or its owner is gone, and removes it.
pub fn run(place: &Place, options: &Options) -> Result<()> {
    anyhow::ensure!(
        (1..=network::NODES_MAX).contains(&options.nodes),
        "{} nodes: there can be 1 to {}",
        options.nodes,
        network::NODES_MAX
    );
    leftovers::clean(place)?;
    std::fs::create_dir_all(place.root())?;
    let kept = keep(place, options);
    // The cluster is dropped by now: its processes are dead.
    let cleaned = leftovers::clean(place);
    kept.and(cleaned)
}

fn keep(place: &Place, options: &Options) -> Result<()> {
    let owner = options.owner.map(open_owner).transpose()?;
    let mut cluster = Cluster::start(place, options.nodes)?;
    let listener = UnixListener::bind(place.socket())?;
    loop {
        let mut descriptors = vec![PollFd::new(&listener, PollFlags::IN)];
        descriptors.extend(owner.as_ref().map(|owner| PollFd::new(owner, PollFlags::IN)));
        poll(&mut descriptors, None::<&Timespec>)?;
        if descriptors.get(1).is_some_and(|owner| !owner.revents().is_empty()) {
            return Ok(());
        }
        let (stream, _) = listener.accept()?;
        // Whoever asks and goes away is no reason to end the cluster.
        if serve(&mut cluster, &stream).unwrap_or(false) {
            return Ok(());
        }
    }
}

/// A descriptor that becomes readable when the process ends.
fn open_owner(owner: u32) -> Result<std::os::fd::OwnedFd> {
    let pid =
        i32::try_from(owner).ok().and_then(Pid::from_raw).context("no process has this id")?;
    pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("the owner {owner} is gone"))
}

/// Answers one order; `true`: it was the last.
fn serve(cluster: &mut Cluster, stream: &UnixStream) -> Result<bool> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let answer = match words.as_slice() {
        ["down"] => return Ok(true),
        words => cluster.obey(words),
    };
    let mut stream = stream;
    match answer {
        Ok(text) => writeln!(stream, "ok {text}")?,
        Err(error) => writeln!(stream, "error {error:#}")?,
    }
    Ok(false)
}

impl Cluster {
    fn start(place: &Place, nodes: u8) -> Result<Self> {
        let begun = Instant::now();
        let tell = |what: &str| println!("[{:5.1} s] {what}", begun.elapsed().as_secs_f64());
        settings::change(&place.root().join("settings.json"))?;
        network::make_bridge()?;
        let options = control_plane::Options { address: network::GATEWAY, audit: true };
        let plane = ControlPlane::start(place.root(), &options)?;
        tell("the API server is ready");
        let controllers = start_controllers(place, &plane)?;
        let authority = plane.authority();
        authority.user("kube-proxy", "system:kube-proxy", None, plane.server())?;
        let mut own = Self { nodes: Vec::new(), _controllers: controllers, plane };
        for index in 0..nodes {
            let mut node = Node::new(place, own.plane.authority(), own.plane.server(), index)?;
            node.start()?;
            own.nodes.push(node);
        }
        own.wait_until_ready()?;
        tell(&format!("{nodes} nodes are ready"));
        Ok(own)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let kubectl = self.plane.kubectl()?;
        let end = Instant::now() + Duration::from_secs(180);
        for node in &self.nodes {
            while kubectl.run(["get", "node", node.name()]).is_err() {
                anyhow::ensure!(Instant::now() < end, "{} did not come up", node.name());
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        kubectl.run(["wait", "--for=condition=Ready", "node", "--all", "--timeout=180s"])?;
        Ok(())
    }

    fn obey(&mut self, words: &[&str]) -> Result<String> {
        let [order, name] = words else {
            return match words {
                ["stop-api"] => {
                    self.plane.stop_api();
                    Ok(String::new())
                }
                ["start-api"] => self.plane.start_api().map(|()| String::new()),
                ["ping"] => Ok(String::new()),
                _ => bail!("no such order: {words:?}"),
            };
        };
        let node = self.nodes.iter_mut().find(|node| node.name() == *name);
        let node = node.with_context(|| format!("there is no node {name}"))?;
        match *order {
            "kill" => node.kill()?,
            "start" => node.start()?,
            "partition" => network::set_link(name, false)?,
            "heal" => network::set_link(name, true)?,
            "pid" => {
                let pid = node.first_process().with_context(|| format!("{name} has no power"))?;
                return Ok(pid.to_string());
            }
            _ => bail!("no such order: {order}"),
        }
        Ok(String::new())
    }
}

fn start_controllers(place: &Place, plane: &ControlPlane) -> Result<Vec<Child>> {
    let authority = plane.authority();
    let mut started = Vec::new();
    for (program, more) in [
        (
            "kube-controller-manager",
            vec![
                format!(
                    "--service-account-private-key-file={}",
                    authority.path("service-accounts.key").display()
                ),
                format!("--root-ca-file={}", authority.path("ca.crt").display()),
                "--use-service-account-credentials=true".to_owned(),
                format!("--cluster-cidr={}", network::POD_RANGE),
                "--allocate-node-cidrs=true".to_owned(),
                format!("--service-cluster-ip-range={}", control_plane::SERVICE_RANGE),
                format!("--node-monitor-grace-period={GRACE}"),
            ],
        ),
        ("kube-scheduler", Vec::new()),
    ] {
        let kubeconfig =
            authority.user(program, &format!("system:{program}"), None, plane.server())?;
        let mut words = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--leader-elect=false".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
        ];
        words.extend(more);
        started.push(Child::start(program, &programs::find(program)?, words, place.root())?);
    }
    Ok(started)
}
