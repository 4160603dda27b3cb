//! A pod that keeps a ledger over its block volumes, over all its lives and on every node.

use anyhow::{Context, Result, bail};

use super::shop::{LONG, NAMESPACE};
use super::world::{World, text};
use crate::ledger::Journal;

/// Who keeps it, and where a node has what it notes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ledger {
    pub(super) pod: &'static str,
    pub(super) journals: &'static str,
}

/// A pod at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) node: String,
    pub(super) ready: bool,
}

impl Ledger {
    /// Waits for a pod that runs and is one that is wanted.
    pub(super) fn wait_for_pod(&self, world: &World, wanted: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}", self.pod);
        World::wait("the pod runs", LONG, || {
            let Some(pod) = world.get(&path)? else { return Ok(None) };
            let pod = Pod {
                uid: text(&pod["metadata"]["uid"]),
                node: text(&pod["spec"]["nodeName"]),
                ready: pod["status"]["containerStatuses"][0]["ready"] == true
                    && pod["metadata"].get("deletionTimestamp").is_none(),
            };
            Ok((pod.ready && wanted(&pod)).then_some(pod))
        })
    }

    /// Which prefix the pod found at its start.
    pub(super) fn found(&self, world: &World) -> Result<u64> {
        World::wait("the ledger has been read", LONG, || {
            let log = world.kubectl.run(["logs", "-n", NAMESPACE, self.pod])?;
            if let Some(line) = log.lines().find(|line| line.contains("hold no legal prefix")) {
                bail!("{line}\n{log}");
            }
            let words = log.lines().find_map(|line| line.strip_prefix("found: "));
            let Some(words) = words else { return Ok(None) };
            let number =
                words.strip_prefix("exactly the records up to ").context(words.to_owned())?;
            Ok(number.split(',').next().and_then(|number| number.parse().ok()))
        })
    }

    /// The newest journal on a node, and the aftermath of the same life, if there was one.
    pub(super) fn notes(&self, world: &World, node: &str) -> Result<(Journal, Option<String>)> {
        let list = world.provider.exec(node, &["ls", self.journals])?;
        let last = list.lines().filter(|name| name.ends_with(".journal")).max();
        let last = last.with_context(|| format!("no journal on {node}"))?;
        let mut text = world.provider.exec(node, &["cat", &format!("{}/{last}", self.journals)])?;
        // The last line of a node that lost power may be cut short.
        if !text.ends_with('\n') {
            text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        }
        let aftermath = format!("{}/{}", self.journals, last.replace(".journal", ".aftermath"));
        Ok((Journal::parse(&text)?, world.provider.exec(node, &["cat", &aftermath]).ok()))
    }

    /// Waits until the ledger on this node has grown.
    pub(super) fn wait_for_writes(&self, world: &World, node: &str, more: u64) -> Result<u64> {
        let before = self.notes(world, node).map_or(0, |(journal, _)| journal.last());
        World::wait("the ledger grows", LONG, || {
            let last = self.notes(world, node)?.0.last();
            Ok((last >= before + more).then_some(last))
        })
    }
}
