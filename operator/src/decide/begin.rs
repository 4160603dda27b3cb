//! The first step of a group: who is who. Everything that can be wrong with the request is said
//! here, before anything is made.

use understudy_core::engine::api::{Generation, GroupStatus};
use understudy_crds::ReplicationGroupSpec;
use understudy_crds::conditions::accepted;
use understudy_crds::replication_group::{GroupMember, GroupSide, Owner};

use super::{Step, adopt};
use crate::apply::Action;
use crate::desired::{Desired, Refusal, SourceVolume, signed};
use crate::observe::{Node, Observed};

/// Chooses both sides and writes the group object.
pub(super) fn begin(desired: &Desired, observed: &Observed) -> Step {
    match choose(desired, observed) {
        Err(refusal) => Step { refused: Some(refusal), ..Step::default() },
        Ok((volumes, primary, secondary)) => {
            write(desired, observed, volumes, &primary, &secondary)
        }
    }
}

fn write(
    desired: &Desired,
    observed: &Observed,
    volumes: &[SourceVolume],
    primary: &str,
    secondary: &str,
) -> Step {
    let number = match adopt::first_number(desired, observed, volumes, primary) {
        Ok(number) => number,
        Err(step) => return *step,
    };
    for (node, engine) in
        observed.nodes.iter().filter_map(|(n, s)| Some((n, s.engine.as_ref().ok()?)))
    {
        // Volumes that carry a later generation say that it has ended since.
        let ended =
            |view: &&GroupStatus| observed.volumes.is_none() || view.generation.number >= number;
        if let Some(view) = engine.group(&desired.group).filter(ended) {
            return Step::hold(format!(
                "{node} holds a replica of {} at generation {}, but there is no group object that \
                 says whether it counts: put the group object back, or ask under another name",
                desired.group, view.generation
            ));
        }
    }
    let side = |node: &str| {
        let pool = observed.engine(node)?.pool.to_string();
        Some(GroupSide { node: node.to_owned(), pool, policy: None })
    };
    let Some(primary_side) = side(primary) else {
        return Step::wait(format!("the engine of {primary}, which is to be primary, to answer"));
    };
    let spec = ReplicationGroupSpec {
        owner: Owner { namespace: desired.name.namespace.clone(), name: desired.name.name.clone() },
        generation: Generation { number, id: observed.fresh_id }.to_string(),
        members: volumes
            .iter()
            .map(|v| GroupMember::new(v.member.volume.as_str(), signed(v.member.size.0)))
            .collect(),
        primary: primary_side,
        // A secondary that does not answer yet joins later; the VM need not wait for it.
        secondary: side(secondary),
        left_behind: Vec::new(),
        promotion: None,
    };
    Step::act(vec![Action::PutGroup { expected: None, spec: Box::new(spec) }])
}

type Choice<'a> = (&'a [SourceVolume], String, String);

fn choose<'a>(desired: &'a Desired, observed: &Observed) -> Result<Choice<'a>, Refusal> {
    let volumes = desired.volumes.as_ref().map_err(Clone::clone)?;
    for (node, field) in
        [(&desired.primary, "spec.primary.node"), (&desired.secondary, "spec.secondary.node")]
    {
        if let Some(node) = node {
            known(observed, node, field)?;
        }
    }
    let primary = primary(desired, volumes, observed)?;
    let asked = desired.secondary.as_deref();
    let secondary = secondary(asked, &primary, None, observed)
        .ok_or_else(|| no_secondary(&primary, observed))?;
    if primary == secondary {
        return Err(Refusal::new(
            accepted::SECONDARY_UNKNOWN,
            format!(
                "{primary} would be primary and secondary: name another node in spec.secondary.node"
            ),
        ));
    }
    takes_links(observed, &secondary)?;
    for volume in volumes {
        for node in [&primary, &secondary] {
            fits(volume, node, desired, observed)?;
        }
    }
    Ok((volumes, primary, secondary))
}

/// Where the volumes already are, unless the manifest says so.
fn primary(
    desired: &Desired,
    volumes: &[SourceVolume],
    observed: &Observed,
) -> Result<String, Refusal> {
    let mut born = volumes.iter().filter_map(|v| Some((v, v.node.as_ref()?)));
    let wanted = desired.primary.clone().or_else(|| born.clone().next().map(|(_, n)| n.clone()));
    if let Some(node) = wanted {
        known(observed, &node, "the primary")?;
        if let Some((volume, other)) = born.find(|(_, n)| **n != node) {
            return Err(Refusal::new(
                accepted::PRIMARY_UNKNOWN,
                format!(
                    "volume {} is on {other}, the primary is to be {node}: all volumes of a group \
                     have their primary on one node; move it first, or replicate it by itself",
                    volume.member.volume
                ),
            ));
        }
        return Ok(node);
    }
    let holds = |node: &String| {
        observed
            .engine(node)
            .is_some_and(|e| volumes.iter().any(|v| e.replica(&v.member.volume).is_some()))
    };
    let mut holders = observed.nodes.keys().filter(|n| holds(n));
    match (holders.next(), holders.next()) {
        (Some(only), None) => Ok(only.clone()),
        (found, _) => Err(Refusal::new(
            accepted::PRIMARY_UNKNOWN,
            format!(
                "{} of its volumes: name the node that serves the VM in spec.primary.node",
                if found.is_some() {
                    "more than one node has a replica"
                } else {
                    "no engine that answers has a replica"
                }
            ),
        )),
    }
}

/// Where the copy is to be: as asked; else where the primary was before the last failover; else
/// the only other node that takes links, or the one with the most space. Nodes that are cordoned or
/// tainted hold one only if asked to.
pub(super) fn secondary(
    asked: Option<&str>,
    primary: &str,
    before: Option<&str>,
    observed: &Observed,
) -> Option<String> {
    // After a failover to it, the node named as secondary is the primary: roles are swapped.
    let asked = asked.filter(|node| before.is_none() || *node != primary);
    if let Some(node) = asked.or(before.filter(|node| observed.nodes.contains_key(*node))) {
        return Some(node.to_owned());
    }
    let mut others = open(primary, observed);
    match (others.next(), others.next()) {
        (Some((only, _)), None) => return Some(only.clone()),
        (None, _) => return None,
        _ => {}
    }
    roomiest(primary, observed)
}

/// The nodes that could hold the copy without anybody naming them.
fn open<'a>(
    primary: &'a str,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a String, &'a Node)> {
    let nodes = observed.nodes.iter();
    nodes.filter(move |(n, node)| *n != primary && node.link.is_some() && node.closed.is_none())
}

/// Of all that could hold the copy now, the node with the most space; where that is not known,
/// a person chooses.
fn roomiest(primary: &str, observed: &Observed) -> Option<String> {
    let fit = open(primary, observed).filter(|(_, node)| node.ready && node.engine.is_ok());
    let space = fit.filter_map(|(name, node)| Some((node.available?, name)));
    // Among equals the first by name, so that the choice is the same each time.
    let best = space.max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.cmp(x)));
    best.map(|(_, name)| name.clone())
}

/// Why no secondary can be chosen.
pub(super) fn no_secondary(primary: &str, observed: &Observed) -> Refusal {
    let others = observed.nodes.iter().filter(|(name, _)| *name != primary);
    let names: Vec<_> = others.clone().map(|(name, _)| name.as_str()).collect();
    let closed: Vec<_> =
        others.filter_map(|(n, node)| Some(format!("{n} {}", node.closed.as_ref()?))).collect();
    let words = match names.as_slice() {
        [] => format!("there is no node but {primary}: add one that takes links"),
        _ if open(primary, observed).next().is_none() && !closed.is_empty() => format!(
            "no node is free to hold the copy ({}): uncordon or add one, or name one of them in \
             spec.secondary.node",
            closed.join(", ")
        ),
        _ => format!(
            "name the node for the copy in spec.secondary.node; known are {}",
            names.join(", ")
        ),
    };
    Refusal::new(accepted::SECONDARY_UNKNOWN, words)
}

/// Whether we were told of the node.
pub(super) fn known(observed: &Observed, node: &str, field: &str) -> Result<(), Refusal> {
    if observed.nodes.contains_key(node) {
        return Ok(());
    }
    let names: Vec<_> = observed.nodes.keys().map(String::as_str).collect();
    Err(Refusal::new(
        accepted::UNKNOWN_NODE,
        format!("{field}: no node {node} is known; known are {}", names.join(", ")),
    ))
}

/// Whether a node can be a secondary.
pub(super) fn takes_links(observed: &Observed, node: &str) -> Result<(), Refusal> {
    known(observed, node, "spec.secondary.node")?;
    match observed.nodes.get(node).and_then(|n| n.link.as_ref()) {
        Some(_) => Ok(()),
        None => Err(Refusal::new(
            accepted::NODE_HAS_NO_LINK,
            format!(
                "{node} takes no links: give it one, as in --node {node}=ADDRESS,link=tcp:HOST:PORT"
            ),
        )),
    }
}

/// Whether a replica that is already there can be the volume's.
pub(super) fn fits(
    volume: &SourceVolume,
    node: &str,
    desired: &Desired,
    observed: &Observed,
) -> Result<(), Refusal> {
    let member = &volume.member;
    if observed.volumes.is_some() {
        // Volumes say themselves which group they are in, and which replica counts; any other one
        // is removed before it is needed.
        return Ok(());
    }
    let Some(replica) = observed.engine(node).and_then(|e| e.replica(&member.volume)) else {
        return Ok(());
    };
    if replica.size != member.size {
        return Err(Refusal::new(
            accepted::SIZE_MISMATCH,
            format!(
                "volume {} is {} bytes, its replica on {node} has {}: ask for the replica's size, \
                 or delete that replica if it holds nothing you need",
                member.volume, member.size, replica.size
            ),
        ));
    }
    match &replica.group {
        Some(other) if *other != desired.group => Err(Refusal::new(
            accepted::SOURCE_CONFLICT,
            format!(
                "volume {} on {node} belongs to group {other}: a volume is in one group",
                member.volume
            ),
        )),
        _ => Ok(()),
    }
}
