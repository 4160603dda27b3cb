//! The metrics of a group: one line each, with where its value comes from.
//!
//! Names get the prefix `understudy_`, counters the suffix `_total`, and those with a unit that.

use prometheus_client::registry::Unit;

use super::GroupSample;
use crate::runtime::Wall;

/// A metric of each group.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Option<Unit>,
    /// `None`: this group has none now.
    pub(super) value: fn(&GroupSample) -> Option<f64>,
}

const fn metric(
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
    value: fn(&GroupSample) -> Option<f64>,
) -> Metric {
    Metric { name, help, unit, value }
}

const BYTES: Option<Unit> = Some(Unit::Bytes);
const SECONDS: Option<Unit> = Some(Unit::Seconds);

/// As Prometheus counts: in doubles. Counts beyond 2^53 lose their last digits.
#[allow(clippy::cast_precision_loss, reason = "what a double can't hold nobody reads off a graph")]
pub(super) fn number(n: u64) -> f64 {
    n as f64
}

fn micros(n: u64) -> f64 {
    number(n) / 1e6
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

fn time(w: Wall) -> Option<f64> {
    (w != Wall::default()).then_some(w.0.as_secs_f64())
}

/// A count or size.
macro_rules! of {
    ($($field:tt).+) => {
        |g| Some(number(g.status.$($field).+))
    };
}

/// What goes up and down.
pub(super) const GAUGES: &[Metric] = &[
    metric("group_generation", None, "Number of the generation", of!(generation.number)),
    metric("group_epoch", None, "The open epoch", of!(epoch.0)),
    metric(
        "group_checkpoint_epoch",
        None,
        "The last complete checkpoint; 0: none",
        of!(checkpoint.epoch.0),
    ),
    metric(
        "group_checkpoint_cut_timestamp",
        SECONDS,
        "When the last complete checkpoint was cut: what a failover goes back to",
        |g| time(g.status.checkpoint.cut),
    ),
    metric("group_checkpoint_done_timestamp", SECONDS, "When it was complete", |g| {
        time(g.status.checkpoint.done)
    }),
    metric(
        "group_checkpoint_size",
        BYTES,
        "What its epoch took to the peer",
        of!(checkpoint.bytes),
    ),
    metric(
        "group_at_risk",
        BYTES,
        "Written and covered by no checkpoint: what a failover would lose, at most",
        of!(at_risk),
    ),
    metric(
        "group_joining_volumes",
        None,
        "Volumes that no checkpoint covers yet: a failover would leave them behind",
        |g| {
            let (all, joined) = (g.status.volumes.0, g.status.joined.0);
            Some(number(u64::from(all.saturating_sub(joined))))
        },
    ),
    metric("group_missing", BYTES, "What the peer lacks", of!(missing)),
    metric(
        "group_resync_rate",
        BYTES,
        "Bytes a second at which that is being sent",
        of!(resync_rate),
    ),
    metric("group_window", BYTES, "Queued for the peer and not acknowledged", of!(window)),
    metric("group_window_limit", BYTES, "The most of it", of!(limits.window)),
    metric("group_undo", BYTES, "Old content that the secondary holds in undo logs", of!(undo)),
    metric(
        "group_undo_limit",
        BYTES,
        "The most of it; at a quarter the epoch is closed early",
        of!(limits.undo),
    ),
    metric(
        "group_undo_full",
        None,
        "1: what the peer lacks does not fit into its undo logs, so no checkpoint completes",
        |g| Some(flag(g.status.undo_full)),
    ),
    metric("group_active", BYTES, "A consumer's own writes on the secondary", of!(active)),
    metric("group_active_limit", BYTES, "The most of it", of!(limits.active)),
    metric(
        "group_failover_merged",
        BYTES,
        "Of the roll-back after a failover: merged into the disks",
        of!(commit.0),
    ),
    metric("group_failover_to_merge", BYTES, "All of that roll-back", of!(commit.1)),
    metric("group_error", None, "1: there is an error that no later checkpoint has cleared", |g| {
        Some(flag(g.status.error.is_some()))
    }),
    metric("group_clients", None, "NBD connections that have a volume of it open", |g| {
        Some(number(crate::units::u64_of(g.clients)))
    }),
];

/// What only grows, since the group was opened.
pub(super) const COUNTERS: &[Metric] = &[
    metric("group_reads", None, "Reads of the VM", of!(counts.reads)),
    metric("group_read", BYTES, "Bytes of them", of!(counts.read_bytes)),
    metric("group_writes", None, "Writes of the VM, zeroes and discards too", of!(counts.writes)),
    metric("group_written", BYTES, "Bytes of them", of!(counts.write_bytes)),
    metric("group_flushes", None, "Flushes of the VM", of!(counts.flushes)),
    metric(
        "group_failed_requests",
        None,
        "Requests of the VM that were answered with an error",
        of!(counts.failed),
    ),
    metric(
        "group_forwarded",
        BYTES,
        "The VM's writes that went to the peer",
        of!(counts.forwarded_bytes),
    ),
    metric(
        "group_resynced",
        BYTES,
        "What was sent of what the peer lacked",
        of!(counts.resync_bytes),
    ),
    metric(
        "group_delayed_writes",
        None,
        "Writes that waited for room in the window or the peer's undo logs",
        of!(counts.delayed),
    ),
    metric("group_delay", SECONDS, "How long they waited", |g| {
        Some(micros(g.status.counts.delayed_micros))
    }),
    metric(
        "group_window_overflows",
        None,
        "How often the link was given up because it was full for maxDelay",
        of!(counts.overflows),
    ),
    metric("group_sessions", None, "Sessions with the peer that began", of!(counts.sessions)),
    metric("group_checkpoints", None, "Checkpoints that completed", of!(counts.checkpoints)),
    metric(
        "group_early_checkpoints",
        None,
        "Epochs that were closed early because of the undo limit",
        of!(counts.early_cuts),
    ),
    metric(
        "group_checkpoint_duration",
        SECONDS,
        "From cut to completion, all checkpoints together",
        |g| Some(micros(g.status.counts.checkpoint_micros)),
    ),
    metric(
        "group_dropped_checkpoints",
        None,
        "Checkpoints given up to make room, as whenUndoFull says",
        of!(counts.dropped_checkpoints),
    ),
    metric("group_intent_syncs", None, "Syncs of the intent log", of!(intent_syncs)),
    metric("group_applied", BYTES, "Applied to the secondary disk", of!(counts.applied_bytes)),
    metric("group_saved", BYTES, "Old content saved before that", of!(counts.saved_bytes)),
    metric("group_undo_syncs", None, "Syncs of undo logs", of!(counts.undo_syncs)),
    metric(
        "group_secondary_errors",
        None,
        "Sessions that ended by an error of the secondary: pool full, disk broken",
        of!(counts.secondary_errors),
    ),
    metric(
        "group_active_full",
        None,
        "Writes that the active disk's limit refused, or after a failover held up",
        of!(counts.active_full),
    ),
];
