//! Answers, in both directions.

use std::time::Duration;

use super::{Invalid, name, parse};
use crate::engine::api::{
    ByteLen, Capacity, EngineStatus, Epoch, ExportStatus, Generation, GroupStatus, LinkState,
    Replica, ReplicaStatus, Role, Stage, Wall,
};
use crate::engine::proto;

impl From<EngineStatus> for proto::EngineStatus {
    fn from(s: EngineStatus) -> Self {
        Self {
            pool_uuid: s.pool.to_string(),
            version: s.version,
            groups: s.groups.into_iter().map(Into::into).collect(),
            replicas: s.replicas.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::EngineStatus> for EngineStatus {
    type Error = Invalid;

    fn try_from(s: proto::EngineStatus) -> Result<Self, Invalid> {
        Ok(Self {
            pool: parse("pool_uuid", &s.pool_uuid)?,
            version: s.version,
            groups: s.groups.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            replicas: s.replicas.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<ReplicaStatus> for proto::ReplicaStatus {
    fn from(r: ReplicaStatus) -> Self {
        Self {
            volume: r.volume.to_string(),
            replica_uuid: r.uuid.to_string(),
            size_bytes: r.size.0,
            group: r.group.map(|g| g.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<proto::ReplicaStatus> for ReplicaStatus {
    type Error = Invalid;

    fn try_from(r: proto::ReplicaStatus) -> Result<Self, Invalid> {
        Ok(Self {
            volume: name("volume", &r.volume)?,
            uuid: parse("replica_uuid", &r.replica_uuid)?,
            size: ByteLen(r.size_bytes),
            group: if r.group.is_empty() { None } else { Some(name("group", &r.group)?) },
        })
    }
}

impl From<GroupStatus> for proto::GroupStatus {
    fn from(g: GroupStatus) -> Self {
        Self {
            group: g.group.to_string(),
            generation: g.generation.to_string(),
            role: match g.role {
                None => proto::Role::Unspecified,
                Some(Role::Primary) => proto::Role::Primary,
                Some(Role::Secondary) => proto::Role::Secondary,
            }
            .into(),
            stage: match g.stage {
                Stage::None => proto::Stage::None,
                Stage::Running => proto::Stage::Running,
                Stage::Failover => proto::Stage::Failover,
                Stage::FailoverFailed => proto::Stage::FailoverFailed,
                Stage::Done => proto::Stage::Done,
            }
            .into(),
            link: match g.link {
                LinkState::Solo => proto::LinkState::Solo,
                LinkState::Syncing => proto::LinkState::Syncing,
                LinkState::Running => proto::LinkState::Running,
                LinkState::Degraded => proto::LinkState::Degraded,
            }
            .into(),
            epoch: g.epoch.0,
            record: g.record.0,
            checkpoint_cut_unix_ms: unix_ms(g.checkpoint_cut),
            checkpoint_done_unix_ms: unix_ms(g.checkpoint_done),
            checkpoint_bytes: g.checkpoint_bytes.0,
            bytes_at_risk: g.bytes_at_risk.0,
            missing_bytes: g.missing.0,
            resync_bytes_per_second: g.resync_rate.0,
            window_bytes: g.window.0,
            undo_bytes: g.undo.0,
            active_bytes: g.active.0,
            commit_done_bytes: g.commit_done.0,
            commit_total_bytes: g.commit_total.0,
            frames_sent: g.frames_sent,
            frames_acknowledged: g.frames_acknowledged,
            frames_applied: g.frames_applied,
            error: g.error.unwrap_or_default(),
            exports: g.exports.into_iter().map(Into::into).collect(),
            joining: g.joining.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<proto::GroupStatus> for GroupStatus {
    type Error = Invalid;

    fn try_from(g: proto::GroupStatus) -> Result<Self, Invalid> {
        let unknown =
            |field| Invalid::new(field, "unknown value: the engine is newer than this client");
        Ok(Self {
            group: name("group", &g.group)?,
            generation: parse::<Generation>("generation", &g.generation)?,
            role: match proto::Role::try_from(g.role).map_err(|_| unknown("role"))? {
                proto::Role::Unspecified => None,
                proto::Role::Primary => Some(Role::Primary),
                proto::Role::Secondary => Some(Role::Secondary),
            },
            stage: match g.stage() {
                proto::Stage::None => Stage::None,
                proto::Stage::Running => Stage::Running,
                proto::Stage::Failover => Stage::Failover,
                proto::Stage::FailoverFailed => Stage::FailoverFailed,
                proto::Stage::Done => Stage::Done,
                proto::Stage::Unspecified => return Err(unknown("stage")),
            },
            link: match g.link() {
                proto::LinkState::Solo => LinkState::Solo,
                proto::LinkState::Syncing => LinkState::Syncing,
                proto::LinkState::Running => LinkState::Running,
                proto::LinkState::Degraded => LinkState::Degraded,
                proto::LinkState::Unspecified => return Err(unknown("link")),
            },
            epoch: Epoch(g.epoch),
            record: Epoch(g.record),
            checkpoint_cut: wall(g.checkpoint_cut_unix_ms),
            checkpoint_done: wall(g.checkpoint_done_unix_ms),
            checkpoint_bytes: ByteLen(g.checkpoint_bytes),
            bytes_at_risk: ByteLen(g.bytes_at_risk),
            missing: ByteLen(g.missing_bytes),
            resync_rate: ByteLen(g.resync_bytes_per_second),
            window: ByteLen(g.window_bytes),
            undo: ByteLen(g.undo_bytes),
            active: ByteLen(g.active_bytes),
            commit_done: ByteLen(g.commit_done_bytes),
            commit_total: ByteLen(g.commit_total_bytes),
            frames_sent: g.frames_sent,
            frames_acknowledged: g.frames_acknowledged,
            frames_applied: g.frames_applied,
            error: (!g.error.is_empty()).then_some(g.error),
            exports: g.exports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            joining: g.joining.iter().map(|v| name("joining", v)).collect::<Result<_, _>>()?,
        })
    }
}

impl From<ExportStatus> for proto::ExportStatus {
    fn from(e: ExportStatus) -> Self {
        Self {
            name: e.name,
            volume: e.volume.to_string(),
            kind: e.kind.to_string(),
            uri: e.uri,
            clients: e.clients,
        }
    }
}

impl TryFrom<proto::ExportStatus> for ExportStatus {
    type Error = Invalid;

    fn try_from(e: proto::ExportStatus) -> Result<Self, Invalid> {
        Ok(Self {
            name: e.name,
            volume: name("volume", &e.volume)?,
            kind: parse("kind", &e.kind)?,
            uri: e.uri,
            clients: e.clients,
        })
    }
}

impl TryFrom<proto::CreateReplicaResponse> for Replica {
    type Error = Invalid;

    fn try_from(r: proto::CreateReplicaResponse) -> Result<Self, Invalid> {
        Ok(Self { uuid: parse("replica_uuid", &r.replica_uuid)?, size: ByteLen(r.size_bytes) })
    }
}

impl TryFrom<proto::CapacityResponse> for Capacity {
    type Error = Invalid;

    fn try_from(c: proto::CapacityResponse) -> Result<Self, Invalid> {
        Ok(Self {
            total: ByteLen(c.total_bytes),
            available: ByteLen(c.available_bytes),
            pool: parse("pool_uuid", &c.pool_uuid)?,
        })
    }
}

fn unix_ms(t: Option<Wall>) -> u64 {
    t.map_or(0, |t| u64::try_from(t.0.as_millis()).unwrap_or(u64::MAX))
}

fn wall(unix_ms: u64) -> Option<Wall> {
    (unix_ms != 0).then(|| Wall(Duration::from_millis(unix_ms)))
}
