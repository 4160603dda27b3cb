//! What a group says of itself, in the API's words.

use super::{Local, all};
use crate::engine::api::{
    Address, ByteLen, ExportKind, ExportStatus, GroupId, GroupStatus, LinkState, Role, Stage, Wall,
};
use crate::engine::metrics::GroupSample;
use crate::units::VolumeIndex;
use crate::{overlay, replication};

/// All groups of this shard. `nbd`: where their exports are served.
pub(in crate::engine) fn status(nbd: Option<&Address>) -> Vec<GroupStatus> {
    all().into_iter().map(|(name, local)| of(name, &local, nbd)).collect()
}

/// All groups of this shard, for metrics.
pub(in crate::engine) fn samples() -> Vec<GroupSample> {
    let sample = |(group, local): (GroupId, std::rc::Rc<Local>)| GroupSample {
        group,
        status: local.group.status(),
        clients: local.hall.all_clients(),
    };
    all().into_iter().map(sample).collect()
}

fn of(group: GroupId, local: &Local, nbd: Option<&Address>) -> GroupStatus {
    let s = local.group.status();
    let wall = |w: Wall| (w != Wall::default()).then_some(w);
    let offers = local.offers();
    let exports = (0..).map(VolumeIndex).zip(&offers).flat_map(|(index, o)| {
        o.kinds.iter().map(move |kind| ExportStatus {
            name: o.name(*kind),
            volume: o.volume.clone(),
            kind: *kind,
            uri: nbd.map(|a| uri(a, &o.name(*kind))).unwrap_or_default(),
            clients: u32::try_from(local.hall.count(index, *kind)).unwrap_or(u32::MAX),
        })
    });
    let joining = local.members().iter().skip(s.joined.get()).map(|(volume, _)| volume.clone());
    GroupStatus {
        group,
        generation: s.generation,
        role: s.role.and_then(|(role, _)| match role {
            overlay::Role::None => None,
            overlay::Role::Primary => Some(Role::Primary),
            overlay::Role::Secondary => Some(Role::Secondary),
        }),
        stage: stage_of(&s),
        link: match s.link {
            replication::LinkState::Solo => LinkState::Solo,
            replication::LinkState::Syncing => LinkState::Syncing,
            replication::LinkState::Running => LinkState::Running,
            replication::LinkState::Degraded => LinkState::Degraded,
        },
        epoch: s.epoch,
        record: s.checkpoint.epoch,
        checkpoint_cut: wall(s.checkpoint.cut),
        checkpoint_done: wall(s.checkpoint.done),
        checkpoint_bytes: ByteLen(s.checkpoint.bytes),
        bytes_at_risk: ByteLen(s.at_risk),
        missing: ByteLen(s.missing),
        resync_rate: ByteLen(s.resync_rate),
        window: ByteLen(s.window),
        undo: ByteLen(s.undo),
        active: ByteLen(s.active),
        commit_done: ByteLen(s.commit.0),
        commit_total: ByteLen(s.commit.1),
        frames_sent: s.frames.0,
        frames_acknowledged: s.frames.1,
        frames_applied: s.frames.2,
        error: s.error.clone(),
        exports: exports.collect(),
        joining: joining.collect(),
    }
}

pub(super) fn stage_of(s: &replication::GroupStatus) -> Stage {
    match s.role.map_or(overlay::Stage::None, |(_, stage)| stage) {
        overlay::Stage::None => Stage::None,
        overlay::Stage::Running => Stage::Running,
        overlay::Stage::Failover => Stage::Failover,
        overlay::Stage::FailoverFailed => Stage::FailoverFailed,
        overlay::Stage::Done => Stage::Done,
    }
}

pub(super) fn kind_of(kind: ExportKind) -> replication::ExportKind {
    match kind {
        ExportKind::Primary => replication::ExportKind::Primary,
        ExportKind::View => replication::ExportKind::View,
        ExportKind::Secondary => replication::ExportKind::Secondary,
        ExportKind::Inbound => replication::ExportKind::Inbound,
    }
}

/// The export as `qemu-img` and others take it. An export's name has only characters that a URI may.
fn uri(at: &Address, name: &str) -> String {
    match at {
        Address::Tcp(host_port) => format!("nbd://{host_port}/{name}"),
        Address::Tls { host_port, .. } => format!("nbds://{host_port}/{name}"),
        Address::Unix(path) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"/.-_~".contains(&b);
            let escaped =
                path.as_os_str().as_encoded_bytes().iter().map(|b| {
                    if plain(*b) { char::from(*b).to_string() } else { format!("%{b:02X}") }
                });
            let socket: String = escaped.collect();
            format!("nbd+unix:///{name}?socket={socket}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_export_and_address_and_escapes_the_path() {
        let name = "db-0/primary@1-00c0ffee00c0ffee";
        assert_eq!(
            uri(&Address::Unix("/run/a b&c.sock".into()), name),
            format!("nbd+unix:///{name}?socket=/run/a%20b%26c.sock")
        );
        assert_eq!(
            uri(&Address::Tcp("[::1]:10809".into()), name),
            format!("nbd://[::1]:10809/{name}")
        );
    }
}
