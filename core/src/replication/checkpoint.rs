//! When an epoch is closed, and what makes its checkpoint complete. No write waits for any of it.
//!
//! ```text
//!   due (interval, asked for, undo space) ─► nothing missing, N-1 complete
//!        ─► epoch N+1 durable here ─► begin-epoch N+1 enters the stream            (the cut)
//!                 ├─ our local writes of epochs <= N end ─► flush our disks ─┐
//!                 └─ the peer's record N ────────────────────────────────────┴─► N is complete
//! ```

use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};

use super::peer::Peer;
use super::primary::Primary;
use crate::bug::{Bug, bug};
use crate::disk::{Error, ErrorKind, Host, Result};
use crate::link::frame::Body;
use crate::runtime::{Mono, timeout};
use crate::units::Epoch;

/// How long a checkpoint that was asked for may take before the caller hears of it.
const ASKED_MAX: Duration = Duration::from_secs(30);

/// Closes epochs on the policy's interval, on demand, and early when the undo space runs low.
pub(crate) async fn run<H: Host>(p: Rc<Primary<H>>, peer: Rc<Peer<H>>) {
    let mut last_cut = p.host.now();
    loop {
        wait_until_due(&p, &peer, last_cut).await;
        peer.leg.changed.wait_until(|| peer.leg.can_cut() && !peer.stopping.get()).await;
        last_cut = p.host.now();
        let early = peer.leg.wants_early_cut();
        match cut(&p, &peer).await {
            Ok(true) => {
                // Nothing was awaited since the cut: it is behind every request so far.
                peer.served.set(peer.requested.get());
                if early {
                    p.counters.early_cuts.one();
                }
                p.changed.notify();
            }
            // The session went away or a write went missing while the epoch was made durable.
            Ok(false) => {}
            Err(e) => {
                peer.note(format!("no checkpoint can be cut: {e}"));
                p.changed.notify();
                p.host.sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn wait_until_due<H: Host>(p: &Rc<Primary<H>>, peer: &Rc<Peer<H>>, last_cut: Mono) {
    loop {
        let asked = peer.requested.get() > peer.served.get();
        let interval = p.policy.borrow().checkpoint_interval;
        let due = last_cut.after(interval);
        if asked || peer.leg.wants_early_cut() || (!interval.is_zero() && p.host.now() >= due) {
            return;
        }
        // The first checkpoint is what makes the peer a peer: at once, whatever the interval.
        if peer.leg.can_cut() && !peer.leg.promotable.get() {
            return;
        }
        let changed = std::pin::pin!(peer.leg.changed.wait());
        if interval.is_zero() {
            changed.await;
        } else {
            let sleep = std::pin::pin!(p.host.sleep_until(due));
            match select(changed, sleep).await {
                Either::Left(_) | Either::Right(_) => {}
            }
        }
    }
}

/// Closes the open epoch. `false` if that was not possible after all.
pub(crate) async fn cut<H: Host>(p: &Rc<Primary<H>>, peer: &Rc<Peer<H>>) -> Result<bool> {
    let next = p.highest_epoch(peer).next();
    let last = peer.last.get();
    // Durable before the peer hears of it, so that no restart of ours uses the number again.
    let durable = if bug(Bug::EpochUsedTwice) { next.previous() } else { next };
    p.store
        .update(|s| {
            s.epoch = s.epoch.max(durable);
            s.record = s.record.max(last.epoch);
            s.joined = peer.leg.joined();
            (s.record_cut, s.record_done, s.record_bytes) = (last.cut, last.done, last.bytes);
        })
        .await?;
    if !peer.leg.can_cut() {
        return Ok(false);
    }
    let Some(closed) = peer.leg.cut(next) else { return Ok(false) };
    let (p2, peer2) = (p.clone(), peer.clone());
    let task = p.host.spawn("checkpoint", async move { finish(&p2, &peer2, closed).await });
    peer.keep_task(task);
    Ok(true)
}

/// Our half of a checkpoint: everything of its epochs is on our disks, durably.
async fn finish<H: Host>(p: &Rc<Primary<H>>, peer: &Rc<Peer<H>>, closed: Epoch) {
    if !bug(Bug::FlushWithoutWaiting) {
        peer.leg.locally_done(closed).await;
    }
    match p.flush_all().await {
        Ok(()) => {
            if let Some(done) = peer.leg.advance(None, Some(closed)) {
                p.completed(peer, done);
            }
        }
        Err(e) => {
            peer.note(format!("checkpoint {closed}: {e}"));
            p.changed.notify();
        }
    }
}

/// Asks for a checkpoint and waits until it is complete.
pub(crate) async fn ask<H: Host>(p: &Rc<Primary<H>>, peer: &Rc<Peer<H>>) -> Result<Epoch> {
    let ticket = peer.requested.get() + 1;
    peer.requested.set(ticket);
    peer.leg.changed.notify();
    let cut = async {
        p.changed.wait_until(|| p.ended.get() || peer.served.get() >= ticket).await;
        // Served means that the cut is behind us: the open epoch is the one after it.
        let closed = peer.leg.open_epoch().previous();
        p.changed.wait_until(|| p.ended.get() || peer.last.get().epoch >= closed).await;
    };
    let done = timeout(&p.host, ASKED_MAX, cut).await.is_some();
    if p.ended.get() {
        return Err(Error::own(
            ErrorKind::Stale,
            "the role ended while the checkpoint was under way",
        ));
    }
    if !done {
        let why = peer.trouble.borrow().clone();
        return Err(Error::own(
            ErrorKind::Disconnected,
            format!(
                "no checkpoint completed within {} s: {}",
                ASKED_MAX.as_secs(),
                why.unwrap_or_else(|| format!(
                    "the peer still lacks {} bytes",
                    peer.leg.holding_up()
                ))
            ),
        ));
    }
    Ok(peer.last.get().epoch)
}

/// The last frame of a replication that is stopped: both keep checkpoint `epoch`. What is written
/// from here on is the solo primary's alone. On an error the replication goes on.
pub(crate) async fn last<H: Host>(
    p: &Rc<Primary<H>>,
    peer: &Rc<Peer<H>>,
    epoch: Epoch,
    limit: Duration,
) -> Result<()> {
    // No epoch is closed behind the stop; the writes behind it count for nobody.
    peer.stopping.set(true);
    let Some(window) = peer.leg.window().filter(|_| peer.last.get().epoch == epoch) else {
        peer.stopping.set(false);
        return Err(Error::own(
            ErrorKind::Disconnected,
            "the link was lost before the last checkpoint: try again",
        ));
    };
    window.push(Body::Stop(epoch), true);
    let stopped = timeout(
        &p.host,
        limit,
        p.changed.wait_until(|| !peer.stopping.get() || window.is_closed()),
    )
    .await;
    let told = stopped.is_some() && !peer.stopping.get();
    peer.stopping.set(false);
    if told {
        return Ok(());
    }
    Err(Error::own(
        ErrorKind::Disconnected,
        format!(
            "the secondary did not confirm the stop at checkpoint {epoch} within {} s: try again, or abandon it",
            limit.as_secs()
        ),
    ))
}
