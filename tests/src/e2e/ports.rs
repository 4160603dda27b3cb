//! Every listening port of ours refuses whoever has no certificate.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::world::World;
use crate::cluster::strangers;

/// The programs of ours and of our sidecars, as the kernel names them (15 characters).
const OURS: [&str; 5] =
    ["understudyd", "understudy-atta", "understudy-csi", "understudy-oper", "csi-provisioner"];

/// Every listening TCP socket of a node's processes, as `ADDRESS:PORT PROGRAM`.
const LISTENERS: &str =
    "busybox netstat -tlnp | awk '/LISTEN/ { split($7, p, \"/\"); print $4, p[2] }'";

pub(super) fn play(world: &World) -> Result<()> {
    let mut tried = BTreeSet::new();
    for (node, _) in world.nodes()? {
        let address = address(world, &node)?;
        let list = world.provider.exec(&node, &["sh", "-c", LISTENERS])?;
        for line in list.lines() {
            let Some((socket, program)) = line.split_once(' ') else { continue };
            if !OURS.iter().any(|ours| program.starts_with(ours)) {
                continue;
            }
            let (host, port) = socket.rsplit_once(':').context(line.to_owned())?;
            let everywhere = ["0.0.0.0", "::", ":::"].contains(&host);
            let target = if everywhere { format!("{address}:{port}") } else { socket.to_owned() };
            strangers::are_refused(&target).with_context(|| format!("{program} on {node}"))?;
            tried.insert(format!("{program}:{port}"));
        }
    }
    // The engine API, NBD and the link at least: or nothing was looked at.
    ensure!(tried.len() >= 3, "only these ports were found: {tried:?}");
    world.step(&format!(
        "no stranger is served: {}",
        tried.into_iter().collect::<Vec<_>>().join(", ")
    ));
    Ok(())
}

fn address(world: &World, node: &str) -> Result<String> {
    let node = world.get(&format!("/api/v1/nodes/{node}"))?.context("the node is gone")?;
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP");
    Ok(super::world::text(&internal.context("no InternalIP")?["address"]))
}
