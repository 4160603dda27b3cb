//! Whether the hellos of two sides fit together: pure, and each says what does not.
//!
//! ```text
//!   group, generation, pool ─► volumes: the secondary may have more behind the primary's
//!                           ─► sizes: the secondary's may be larger ─► epochs and record
//! ```

use crate::link::frame::Hello;
use crate::units::Epoch;

/// Whether two ends belong together; says what does not fit.
pub(crate) fn check_hello(ours: &Hello, theirs: &Hello) -> Result<(), String> {
    if ours.group != theirs.group {
        return Err(format!("the peer serves group {}, this is {}", theirs.group, ours.group));
    }
    if ours.generation != theirs.generation {
        return Err(format!(
            "group {}: the peer is of generation {}, this side of {}; start both with the same",
            ours.group, theirs.generation, ours.generation
        ));
    }
    if ours.pool == theirs.pool {
        return Err(format!(
            "group {}: the peer address leads back to this very engine",
            ours.group
        ));
    }
    Ok(())
}

/// Whether the volumes of both sides are the same, in one order. The secondary may have more behind
/// them: a volume joins there first. Says what does not fit.
pub(crate) fn check_members(primary: &Hello, secondary: &Hello) -> Result<(), String> {
    let group = &primary.group;
    let names = |h: &Hello| h.members.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
    let (here, there) = (names(primary), names(secondary));
    if !here.is_empty() && there.starts_with(&here) {
        let covered = secondary.joined.get();
        if covered == 0 && secondary.record != Epoch::NONE {
            return Err(format!(
                "group {group}: checkpoint {} of the secondary covers no volume",
                secondary.record
            ));
        }
        if covered > here.len() && secondary.record != Epoch::NONE && !primary.anew {
            return Err(format!(
                "group {group}: checkpoint {} covers {covered} volumes, the primary has {}",
                secondary.record,
                here.len()
            ));
        }
        return Ok(());
    }
    if here.starts_with(&there) {
        let lacking = here.get(there.len()).map(ToString::to_string).unwrap_or_default();
        return Err(format!(
            "group {group}: the secondary does not have volume {lacking} yet: start it there with \
             the volumes of the primary"
        ));
    }
    let of = |h: &Hello| {
        h.members.iter().map(|(n, s)| format!("{n} ({s} bytes)")).collect::<Vec<_>>().join(", ")
    };
    Err(format!(
        "group {group}: the volumes differ; the primary has {}, the secondary {}",
        of(primary),
        of(secondary)
    ))
}

/// Whether all that the primary may write fits on the secondary; says what does not. A secondary
/// may be larger, for it is expanded first: what it has beyond the primary's end reads as zeroes.
pub(crate) fn check_sizes(primary: &Hello, secondary: &Hello) -> Result<(), String> {
    let pairs = primary.members.iter().zip(&secondary.members);
    for ((volume, has), (_, fits)) in pairs {
        if has > fits {
            return Err(format!(
                "group {}: volume {volume} has {has} bytes on the primary and only {fits} on the secondary: expand the secondary's replica first",
                primary.group
            ));
        }
    }
    Ok(())
}

/// Whether the other side's numbers can be true; says what is wrong with them.
pub(crate) fn check_epochs(ours: &Hello, theirs: &Hello) -> Result<(), String> {
    if theirs.epoch.0 > ours.epoch.0.saturating_add(super::record::EPOCHS_AHEAD_MAX) {
        return Err(format!(
            "the peer says epoch {}, absurdly far ahead of {}",
            theirs.epoch, ours.epoch
        ));
    }
    if theirs.record != Epoch::NONE && theirs.record >= theirs.epoch {
        return Err(format!(
            "the peer says record {} of the open epoch {}",
            theirs.record, theirs.epoch
        ));
    }
    Ok(())
}

/// A primary whose open epoch is not beyond the peer's record is an older copy of itself: it has each
/// epoch durable before it begins it. What it knows to be missing says nothing about what the peer holds.
/// `anew`: nothing is taken for known of the peer anyway.
pub(crate) fn check_own_age(anew: bool, open: Epoch, record: Epoch) -> Result<(), String> {
    if anew || record == Epoch::NONE || record < open {
        return Ok(());
    }
    Err(format!(
        "the peer says checkpoint {record}, and this side is only at epoch {open}: this pool is an older \
         copy of itself. If it is the one to go on, stop the replication and start it anew; else fail over"
    ))
}

/// A peer that is behind what was complete there holds an older copy: the marks here say nothing
/// about what it lacks. One with no checkpoint at all gets everything anew.
pub(crate) fn check_record(theirs: Epoch, reported: Epoch) -> Result<(), String> {
    if theirs == Epoch::NONE || theirs >= reported {
        return Ok(());
    }
    Err(format!(
        "the peer says checkpoint {theirs}, but {reported} was complete there: its pool is an older \
         copy. Delete its replica, so that it gets everything anew"
    ))
}

#[cfg(test)]
mod tests {
    use super::{check_own_age, check_record};
    use crate::units::Epoch;

    #[test]
    fn a_primary_that_is_an_older_copy_of_itself_is_refused() {
        for record in [Epoch(5), Epoch(10)] {
            let refused = check_own_age(false, Epoch(5), record).unwrap_err();
            assert!(refused.contains("older copy of itself"), "{refused}");
        }
        for (anew, record) in [(false, Epoch(4)), (false, Epoch::NONE), (true, Epoch(9))] {
            assert_eq!(check_own_age(anew, Epoch(5), record), Ok(()));
        }
    }

    #[test]
    fn a_peer_that_went_back_behind_a_complete_checkpoint_is_refused() {
        assert!(check_record(Epoch(4), Epoch(5)).unwrap_err().contains("older"));
        for theirs in [Epoch::NONE, Epoch(5), Epoch(6)] {
            assert_eq!(check_record(theirs, Epoch(5)), Ok(()));
        }
    }
}
