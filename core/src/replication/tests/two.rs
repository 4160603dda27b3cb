//! A primary's and a secondary's group that are closed, changed on disk and opened again.
//!
//! ```text
//!   close ─► what was cut ends ─► change the files ─► open      None: the node died in between
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::pair::spec;
use crate::disk::Result;
use crate::overlay::{Policy, Role};
use crate::replication::{ExportKind, Group, GroupStatus, LinkState, Replica, Volume, serve_link};
use crate::runtime::Env;
use crate::sim::{Sim, SimHost};
use crate::units::VolumeIndex;

/// A group, unless it is closed: nobody else holds it.
type Slot = Rc<RefCell<Option<Group<SimHost>>>>;

pub(crate) struct Two {
    pub(crate) sim: Sim,
    slots: [Slot; 2],
}

/// Opens the group of a node with the replicas that it names.
async fn open(host: &SimHost) -> Result<Group<SimHost>> {
    let members = Group::<SimHost>::members(&host.dir("groups/g")).await?.unwrap().members;
    let mut replicas = Vec::new();
    for (volume, _) in members {
        replicas.push(Replica::open(host.dir(&format!("volumes/{volume}"))).await?);
    }
    Group::open(host, host.dir("groups/g"), replicas).await
}

impl Two {
    /// The groups of nodes a and b, started; the secondary takes no links yet.
    pub(crate) async fn apart(sim: &Sim, groups: [Group<SimHost>; 2], policy: Policy) -> Self {
        let slots = groups.map(|g| Rc::new(RefCell::new(Some(g))));
        let two = Self { sim: sim.clone(), slots };
        two.group("b").start(spec(Role::Secondary, policy.clone())).await.unwrap();
        two.group("a").start(spec(Role::Primary, policy)).await.unwrap();
        two
    }

    /// The secondary takes links, until its node dies.
    pub(crate) fn listen(&self) {
        let host = self.sim.node("b");
        let listener = host.listen("b").unwrap();
        let (host2, slot) = (host.clone(), self.slot("b").clone());
        host.spawn("link listener", async move {
            loop {
                let stream = listener.accept().await;
                let (h, g) = (host2.clone(), slot.borrow().clone());
                host2.spawn("serve link", async move {
                    serve_link(&h, stream, |_| g.ok_or_else(|| "none here".into())).await;
                });
            }
        });
    }

    fn slot(&self, node: &str) -> &Slot {
        &self.slots[usize::from(node == "b")]
    }

    pub(crate) fn is_open(&self, node: &str) -> bool {
        self.slot(node).borrow().is_some()
    }

    pub(crate) fn group(&self, node: &str) -> Group<SimHost> {
        self.slot(node).borrow().clone().unwrap()
    }

    pub(crate) fn volume(&self, node: &str, v: u16, kind: ExportKind) -> Volume<SimHost> {
        self.group(node).volume(VolumeIndex(v), kind).unwrap()
    }

    pub(crate) async fn wait_for(&self, node: &str, holds: impl Fn(&GroupStatus) -> bool) {
        let host = self.sim.node("a");
        let limit = host.now().after(Duration::from_mins(1));
        while !holds(&self.group(node).status()) {
            assert!(host.now() < limit, "{:?}", self.group(node).status());
            self.sim.pause(Duration::from_millis(1)).await;
        }
    }

    /// Until the secondary has applied all that was written.
    pub(crate) async fn in_sync(&self) {
        self.wait_for("a", |s| {
            s.link == LinkState::Running
                && s.missing == 0
                && s.window == 0
                && s.frames.0 == s.frames.2
        })
        .await;
    }

    /// Closes a group, changes what is on its node's disk, opens it again; `None` if the node dies
    /// meanwhile.
    pub(crate) async fn reshape<F: Future<Output = Result<()>> + 'static>(
        &self,
        node: &str,
        change: impl FnOnce(SimHost) -> F + 'static,
    ) -> Option<Result<()>> {
        let host = self.sim.node(node);
        let (slot, host2) = (self.slot(node).clone(), host.clone());
        let work = async move {
            let group = slot.take();
            if let Some(group) = group {
                group.shutdown().await;
            }
            // What was cut ends on its own.
            host2.sleep(Duration::from_millis(500)).await;
            change(host2.clone()).await?;
            let group = open(&host2).await?;
            *slot.borrow_mut() = Some(group);
            Ok(())
        };
        host.call("reshape", work).await
    }

    /// Ends the processes of a node.
    pub(crate) fn kill(&self, node: &str) {
        self.sim.kill(node);
        self.slot(node).take();
    }

    /// Opens the group of a node that died.
    pub(crate) async fn reopen(&self, node: &str) {
        self.slot(node).take();
        let group = open(&self.sim.node(node)).await.unwrap();
        *self.slot(node).borrow_mut() = Some(group);
        if node == "b" {
            self.listen();
        }
    }
}
