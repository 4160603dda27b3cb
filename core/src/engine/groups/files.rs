//! Labels and superblocks, before there is a group, and without one.

use std::path::PathBuf;

use super::folder;
use crate::disk::Dir;
use crate::engine::api::{self, ByteLen, GroupId, Refusal, Uuid, VolumeId};
use crate::engine::error::EngineError;
use crate::overlay::Superblock;
use crate::replication::Replica;
use crate::runtime::{Env, ShardEnv};

const SUPERBLOCK: &str = "superblock";

/// Makes the files of a replica in an empty folder.
pub(in crate::engine) async fn make_replica(
    env: ShardEnv,
    path: PathBuf,
    volume: VolumeId,
    size: ByteLen,
) -> Result<api::Replica, EngineError> {
    let dir = folder(&env, &path).await?;
    let uuid = Uuid(u128::from(env.random()) << 64 | u128::from(env.random()));
    Replica::<ShardEnv>::create(dir, volume, uuid, size.0).await?;
    Ok(api::Replica { uuid, size })
}

/// Reads who a replica is, and checks that it is the one its folder says.
pub(in crate::engine) async fn read_replica(
    env: ShardEnv,
    path: PathBuf,
    volume: VolumeId,
) -> Result<api::Replica, EngineError> {
    let label = Replica::<ShardEnv>::open(folder(&env, &path).await?).await?.label;
    if label.volume != volume {
        let text = format!("its label is that of volume {}: move the folder back", label.volume);
        return Err(EngineError::new(Refusal::DataLoss, text));
    }
    Ok(api::Replica { uuid: label.uuid, size: ByteLen(label.size) })
}

/// What a group's superblock says that the engine must know before it opens the group.
#[derive(Debug)]
pub(in crate::engine) struct Summary {
    pub(in crate::engine) group: GroupId,
    pub(in crate::engine) pool: Uuid,
    pub(in crate::engine) members: Vec<(VolumeId, api::Replica)>,
    /// It has no generation: it holds nothing that anybody was told of.
    pub(in crate::engine) never_started: bool,
}

/// Reads a group's superblock.
pub(in crate::engine) async fn read_group(env: ShardEnv, path: PathBuf) -> Result<Summary, EngineError> {
    let dir = folder(&env, &path).await?;
    let Some(file) = dir.open(SUPERBLOCK).await? else {
        let text = format!("{} is missing: restore the folder", path.join(SUPERBLOCK).display());
        return Err(EngineError::new(Refusal::DataLoss, text));
    };
    let (_, state) = Superblock::open(file).await?;
    let member = |m: crate::overlay::Member| {
        (m.volume, api::Replica { uuid: m.uuid, size: ByteLen(m.size) })
    };
    Ok(Summary {
        group: state.group,
        pool: state.pool,
        members: state.members.into_iter().map(member).collect(),
        never_started: state.generation.number == 0,
    })
}
