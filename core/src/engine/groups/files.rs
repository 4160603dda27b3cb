//! Labels and superblocks, before there is a group, and without one.

use std::path::PathBuf;

use super::folder;
use crate::engine::api::{self, ByteLen, Refusal, Uuid, VolumeId};
use crate::engine::error::EngineError;
use crate::overlay::{GroupState, Member};
use crate::replication::Replica;
use crate::replication::reshape::{self, TakeOver};
use crate::runtime::{Env, ShardEnv};

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

/// Makes a replica larger that nobody has open.
pub(in crate::engine) async fn expand_replica(
    env: ShardEnv,
    path: PathBuf,
    size: ByteLen,
) -> Result<(), EngineError> {
    Ok(Replica::<ShardEnv>::expand(&folder(&env, &path).await?, size.0).await?)
}

/// Reads a group's superblock; the group is not open.
pub(in crate::engine) async fn read_group(
    env: ShardEnv,
    path: PathBuf,
) -> Result<GroupState, EngineError> {
    let read = reshape::read_state(&folder(&env, &path).await?).await;
    Ok(read.map_err(|e| e.context(path.display()))?)
}

/// Writes the superblock of a group that begins with volumes taken over, into an empty folder.
pub(in crate::engine) async fn create_over(
    env: ShardEnv,
    path: PathBuf,
    over: TakeOver,
) -> Result<(), EngineError> {
    Ok(reshape::create_over(&folder(&env, &path).await?, over).await?)
}

/// Gives a group that is not open the members of `over`.
pub(in crate::engine) async fn rewrite_over(
    env: ShardEnv,
    path: PathBuf,
    over: TakeOver,
) -> Result<(), EngineError> {
    Ok(reshape::rewrite_over(&folder(&env, &path).await?, over).await?)
}

/// Gives a group that is not open more members, which are joining.
pub(in crate::engine) async fn join_group(
    env: ShardEnv,
    path: PathBuf,
    joining: Vec<Member>,
) -> Result<(), EngineError> {
    Ok(reshape::join(&folder(&env, &path).await?, joining).await?)
}

/// Takes out of a replaced primary that is not open what was joining there.
pub(in crate::engine) async fn let_go(
    env: ShardEnv,
    path: PathBuf,
    left: usize,
) -> Result<(), EngineError> {
    Ok(reshape::let_go(&folder(&env, &path).await?, left).await?)
}

/// Takes volumes out of a group that is not open; says which are left.
pub(in crate::engine) async fn leave_group(
    env: ShardEnv,
    path: PathBuf,
    leaving: Vec<VolumeId>,
) -> Result<Vec<VolumeId>, EngineError> {
    Ok(reshape::leave(&folder(&env, &path).await?, &leaving).await?)
}
