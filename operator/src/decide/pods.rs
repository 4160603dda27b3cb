//! After a promotion: the pods whose devices belong to the old generation are deleted, so that their
//! controllers make new ones, which get the promoted disks.
//!
//! ```text
//!   generation raised ─► pods looked for once, their uids into the group object ─► deleted ─► none left
//! ```
//!
//! Which pods? Every one that used the volumes when the generation had just been raised: whoever
//! attached under the old one is among them. Later pods are not: what they attach is the new one. A
//! list of uids says this exactly; times would have to be compared between clocks. If the operator
//! dies before the list is written, the next one takes it later, and at worst a pod that is already
//! right is made anew, once.
//!
//! A node that is not ready, or whose engine is silent, may never confirm an end: its pods are
//! removed from the API at once. Should they still run there, their devices can't reach the
//! promoted disks: what serves them obeys the old generation.

use super::{Case, Step};
use crate::apply::Action;

/// What is to be done about pods.
pub(super) fn pods(case: &Case<'_>) -> Step {
    let Some(promotion) = &case.group.spec.promotion else { return Step::default() };
    if case.observed.volumes.is_none() {
        return Step::default();
    }
    let observed = &case.observed.pods;
    let Some(old) = &promotion.pods else {
        let uids = observed.iter().map(|p| p.uid.clone()).collect();
        return Step::act(vec![put(case, uids)]);
    };
    if old.is_empty() {
        return Step::default();
    }
    let left: Vec<_> = observed.iter().filter(|p| old.contains(&p.uid)).collect();
    if left.is_empty() {
        return Step::act(vec![put(case, Vec::new())]);
    }
    let silent =
        |node: &String| case.observed.nodes.get(node).is_none_or(|n| !n.ready || n.engine.is_err());
    let mut step = Step::default();
    for pod in left {
        let force = pod.node.as_ref().is_some_and(silent);
        let asked = if force { pod.deleting == Some(0) } else { pod.deleting.is_some() };
        if !asked {
            step.actions.push(Action::DeletePod { pod: pod.clone(), force });
        }
        step.waiting = Some(format!(
            "the pod {}/{} to end, whose device belongs to an older generation",
            pod.namespace, pod.name
        ));
    }
    step
}

fn put(case: &Case<'_>, pods: Vec<String>) -> Action {
    case.put(|spec| {
        if let Some(promotion) = &mut spec.promotion {
            promotion.pods = Some(pods);
        }
    })
}
