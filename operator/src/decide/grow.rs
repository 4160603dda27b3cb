//! A volume that is to be larger: first the group object says so, then the secondary grows, then
//! the primary. The device follows by the CSI driver, which may have done all of this before us.

use super::{Case, Step};
use crate::desired::signed;
use crate::engines::Call;

/// The next step towards the sizes that are wanted.
pub(super) fn grow(case: &Case<'_>) -> Step {
    let members = &case.group.members;
    let wanted: Vec<_> = case.desired.volumes.iter().flatten().map(|v| &v.member).collect();
    let sizes: Vec<_> = members
        .iter()
        .map(|m| {
            let wanted = wanted.iter().find(|w| w.volume == m.volume).map_or(m.size, |w| w.size);
            wanted.max(m.size)
        })
        .collect();
    if members.iter().zip(&sizes).any(|(m, size)| m.size < *size) {
        return Step::act(vec![case.put(|spec| {
            for (member, size) in spec.members.iter_mut().zip(&sizes) {
                member.size_bytes = signed(size.0);
            }
        })]);
    }
    let mut step = Step::default();
    for side in [case.secondary(), Some(case.primary())].into_iter().flatten() {
        let Some(engine) = case.observed.engine(&side.node).filter(|_| case.answers(side)) else {
            continue;
        };
        let small = members
            .iter()
            .filter(|m| engine.replica(&m.volume).is_some_and(|r| r.size < m.size))
            .map(|m| Case::engine(&side.node, Call::ExpandReplica(m.clone())));
        let small: Vec<_> = small.collect();
        let other = case.secondary().filter(|s| s.node != side.node && !case.answers(s));
        match other {
            Some(other) if !small.is_empty() => {
                let node = &other.node;
                step.waiting = Some(format!("the engine of {node}, whose replica grows first"));
            }
            _ => step.actions.extend(small),
        }
    }
    step
}
