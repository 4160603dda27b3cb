//! One pass over one group: observe, decide, apply; again while there is something to do.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tracing::{info, warn};
use understudy_core::engine::api::Refusal;
use understudy_core::engine::client::ClientError;
use understudy_crds::block_replication_status::TriggerStatus;

use crate::apply::{Action, ApplyError, apply};
use crate::decide::{Plan, decide};
use crate::desired::{Desired, Wish, signed};
use crate::engines::{Call, Engines};
use crate::observe::{Failure, Nodes, Observed, now, observe};
use crate::store::{Store, StoreError};

/// Most rounds of one pass. The longest chain of steps (a group of fresh volumes) takes six; a bound
/// keeps a step that has no effect from spinning.
const ROUNDS_MAX: usize = 10;

/// How a pass ended.
#[derive(Debug)]
pub struct Outcome {
    /// When to look again.
    pub requeue: std::time::Duration,
    /// The action that failed, for the status of the next pass.
    pub failure: Option<Failure>,
}

/// Brings one group as far as it goes now, and writes what is true then.
pub async fn pass<E: Engines, S: Store>(
    desired: &Desired,
    nodes: &Nodes,
    engines: &E,
    store: &S,
    mut failure: Option<Failure>,
) -> Result<Outcome, StoreError> {
    let mut round = 0;
    loop {
        round += 1;
        let mut observed = observe(desired, nodes, engines, store).await?;
        observed.failure.clone_from(&failure);
        let mut plan = decide(desired, &observed, now());
        if plan.actions.is_empty() && observed.failure.take().is_some() {
            // What failed is not wanted any more, or has come about.
            plan = decide(desired, &observed, now());
            failure = None;
        }
        write(desired, &plan, &observed, store).await?;
        if plan.actions.is_empty() || round > ROUNDS_MAX {
            return Ok(Outcome { requeue: plan.requeue, failure });
        }
        let known = failure.take();
        if let Err(failed) = run(desired, &plan, engines, store).await? {
            if known.as_ref() != Some(&failed) {
                warn!(group = %desired.group, "{}", failed.message);
                observed.failure = Some(failed.clone());
                let plan = decide(desired, &observed, now());
                write(desired, &plan, &observed, store).await?;
            }
            return Ok(Outcome { requeue: plan.requeue, failure: Some(failed) });
        }
    }
}

/// Carries a plan out up to its first failure.
async fn run<E: Engines, S: Store>(
    desired: &Desired,
    plan: &Plan,
    engines: &E,
    store: &S,
) -> Result<Result<(), Failure>, StoreError> {
    for action in &plan.actions {
        info!(group = %desired.group, "{action}");
        match apply(action, desired, engines, store).await {
            Ok(epoch) => {
                if let (Action::Engine { call: Call::Checkpoint { token, .. }, .. }, Some(epoch)) =
                    (action, epoch)
                {
                    let mut status = plan.status.clone();
                    status.trigger = Some(TriggerStatus {
                        token: token.clone(),
                        epoch: signed(epoch.0),
                        completion_time: Time(now()),
                    });
                    store.put_status(&desired.name, &status).await?;
                }
            }
            // Somebody else changed the object: look again.
            Err(ApplyError::Store(StoreError::Conflict { .. })) => return Ok(Ok(())),
            Err(ApplyError::Store(error)) => return Err(error),
            Err(ApplyError::Engine(error)) => {
                return Ok(Err(Failure {
                    message: format!("{action} failed: {error}"),
                    no_last_checkpoint: is_without_checkpoint(action, &error),
                }));
            }
        }
    }
    Ok(Ok(()))
}

/// Whether a stop failed because the peer gave no last checkpoint: the engine has waited long enough.
fn is_without_checkpoint(action: &Action, error: &ClientError) -> bool {
    let stops =
        matches!(action, Action::Engine { call: Call::Stop { abandon_peer: false, .. }, .. });
    let unavailable = matches!(
        error,
        ClientError::Deadline { .. } | ClientError::Refused { refusal: Refusal::Unavailable, .. }
    );
    stops && unavailable
}

/// Writes the status, unless the object is being forgotten or nothing has changed.
async fn write<S: Store>(
    desired: &Desired,
    plan: &Plan,
    before: &Observed,
    store: &S,
) -> Result<(), StoreError> {
    let forgotten = desired.wish == Wish::Delete && !before.remembered;
    if forgotten || plan.actions.contains(&Action::ForgetStatus) || plan.status == before.status {
        return Ok(());
    }
    store.put_status(&desired.name, &plan.status).await
}
