//! The machine room: a bridge, and for each node a namespace with one leg on it.
//!
//! ```text
//!   understudy0  10.213.0.1/24   the API server's address
//!     us-node-a ── eth0 10.213.0.11 in netns us-node-a; its pods 10.214.0.0/24
//!     us-node-b ── eth0 10.213.0.12 in netns us-node-b; its pods 10.214.1.0/24
//! ```
//!
//! Nodes reach each other's pods by plain routes: they are neighbours on the bridge.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::harness::tools;

/// The bridge.
pub(super) const BRIDGE: &str = "understudy0";
/// The control plane's address.
pub(super) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 213, 0, 1));
/// All pods.
pub(super) const POD_RANGE: &str = "10.214.0.0/16";
/// The most nodes that there can be.
pub(super) const NODES_MAX: u8 = 5;
/// Namespaces and links begin so.
pub(super) const PREFIX: &str = "us-";

/// A node's address.
pub(super) fn address(index: u8) -> IpAddr {
    Ipv4Addr::new(10, 213, 0, 11 + index).into()
}

/// The pods of a node.
pub(super) fn pods(index: u8) -> String {
    format!("10.214.{index}.0/24")
}

/// The node's network namespace, and its leg's name on the bridge.
pub(super) fn namespace(node: &str) -> String {
    format!("{PREFIX}{node}")
}

/// Runs `ip` with these words.
pub(super) fn ip(words: &str) -> Result<String> {
    run("ip", words)
}

/// Runs a program with words that hold no blanks.
pub(super) fn run(program: &str, words: &str) -> Result<String> {
    let mut command = Command::new(tools::find(program)?);
    let output = command.args(words.split_whitespace()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes the bridge.
pub(super) fn make_bridge() -> Result<()> {
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("addr add {GATEWAY}/24 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up")).map(drop)
}

/// Makes a node's namespace and its leg; nothing if it is there already.
pub(super) fn make_node(node: &str, index: u8) -> Result<()> {
    let name = namespace(node);
    if std::path::Path::new("/run/netns").join(&name).exists() {
        return Ok(());
    }
    ip(&format!("netns add {name}"))?;
    ip(&format!("link add {name} type veth peer name eth0 netns {name}"))?;
    ip(&format!("link set {name} master {BRIDGE} up"))?;
    ip(&format!("-n {name} addr add {}/24 dev eth0", address(index)))?;
    ip(&format!("-n {name} link set lo up"))?;
    ip(&format!("-n {name} link set eth0 up"))?;
    ip(&format!("-n {name} route add default via {GATEWAY}"))?;
    let forwarding = "net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1";
    ip(&format!("netns exec {name} sysctl -qw {forwarding}"))?;
    for other in (0..NODES_MAX).filter(|other| *other != index) {
        ip(&format!("-n {name} route add {} via {}", pods(other), address(other)))?;
    }
    // For what the control plane asks of pods, as of webhooks.
    ip(&format!("route replace {} via {}", pods(index), address(index))).map(drop)
}

/// Cuts a node off from everything, or puts it back.
pub(super) fn set_link(node: &str, up: bool) -> Result<()> {
    ip(&format!("link set {} {}", namespace(node), if up { "up" } else { "down" })).map(drop)
}
