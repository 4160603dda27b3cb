//! The primary's side of a session: connect, hello, receive; again with backoff when it ends.
//!
//! ```text
//!   connect ─► hello ─► adopt (epoch, record) ─► receive acks, records, errors ─► ended
//!      ▲                                                                            │
//!      └────────────── backoff 50 ms … 2 s ◄── what was unrecorded is missing ──────┘
//! ```

use std::rc::Rc;
use std::time::Duration;

use super::hello::{
    check_epochs, check_hello, check_members, check_own_age, check_record, check_sizes,
};
use super::peer::Peer;
use super::primary::Primary;
use crate::bug::{Bug, bug};
use crate::disk::Host;
use crate::link::frame::{Body, Hello};
use crate::link::{Connection, LinkError, Window};
use crate::overlay::UndoFull;
use crate::runtime::{Address, Mono, Stream, Task, timeout};
use crate::units::{Epoch, VolumeCount};

/// How long connecting and each hello may take.
pub(crate) const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Each side says something at least this often.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);

/// A peer that says nothing for this long is gone.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long small `Checkpointed` frames wait for company.
const CORK: Duration = Duration::from_millis(1);

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Keeps a session with the peer up until cancelled.
pub(crate) async fn run<H: Host>(p: Rc<Primary<H>>, peer: Rc<Peer<H>>, to: Address) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = p.host.now();
        let why = session(&p, &peer, &to).await;
        let was_up = peer.leg.window().is_some();
        peer.leg.session_down();
        if was_up && peer.last.get().epoch < peer.leg.open_epoch().previous() {
            // A checkpoint that was under way is none any more: who asked for it gets the next one.
            peer.served.set(peer.served.get().saturating_sub(1));
        }
        peer.note(format!("link to {to}: {why}"));
        p.changed.notify();
        if p.host.now().since(began) > SILENCE_MAX {
            backoff = BACKOFF_MIN;
        }
        // Half of it at random: many groups of one dead node do not return in one moment.
        let half = backoff / 2;
        let jitter =
            half.mul_f64(f64::from(u8::try_from(p.host.random() & 0xff).unwrap_or(0)) / 256.0);
        p.host.sleep(half + jitter).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// One session; returns why it ended.
async fn session<H: Host>(p: &Rc<Primary<H>>, peer: &Rc<Peer<H>>, to: &Address) -> LinkError {
    let stream = match timeout(&p.host, HELLO_LIMIT, p.host.connect(to)).await {
        None => return LinkError::Silent(HELLO_LIMIT),
        Some(Err(e)) => return e.into(),
        Some(Ok(s)) => s,
    };
    let window = Window::new(p.policy.borrow().window);
    let sender = spawn_sender(p, &window, stream.clone());
    let ended = talk(p, peer, &window, stream.clone()).await;
    window.close();
    stream.shutdown();
    sender.join().await;
    match ended {
        Ok(never) => match never {},
        Err(e) => e,
    }
}

fn spawn_sender<H: Host>(p: &Rc<Primary<H>>, window: &Window, stream: H::Stream) -> Task {
    let (host, window) = (p.host.clone(), window.clone());
    // `Synchronous` writes hurry their frames themselves; the cork is for all others.
    p.host.spawn("link sender", async move {
        if window.run(&host, &stream, CORK).await.is_err() {
            // The receiver sees the end of the stream and ends the session.
            stream.shutdown();
        }
    })
}

async fn talk<H: Host>(
    p: &Rc<Primary<H>>,
    peer: &Rc<Peer<H>>,
    window: &Window,
    stream: H::Stream,
) -> Result<std::convert::Infallible, LinkError> {
    let ours = hello(p, peer);
    window.push(Body::Hello(Box::new(ours.clone())), true);
    let mut connection = Connection::new(&p.host, stream);
    let mut theirs = match connection.receive(HELLO_LIMIT).await?.1 {
        Body::Hello(h) => *h,
        Body::Error(t) => return Err(LinkError::Peer(t)),
        other => {
            return Err(LinkError::Own(format!(
                "the peer began with {other:?} instead of a hello"
            )));
        }
    };
    let heard = p.host.now();
    if bug(Bug::LostAnswerIsNever) {
        theirs.record = theirs.record.min(peer.last.get().epoch);
    }
    check_hello(&ours, &theirs).map_err(LinkError::Own)?;
    check_members(&ours, &theirs).map_err(LinkError::Own)?;
    check_sizes(&ours, &theirs).map_err(LinkError::Own)?;
    check_epochs(&ours, &theirs).map_err(LinkError::Own)?;
    check_own_age(ours.anew, ours.epoch, theirs.record).map_err(LinkError::Own)?;
    let open = ours.epoch.max(theirs.epoch);
    if ours.anew && theirs.record != Epoch::NONE {
        return Err(LinkError::Own(
            "the peer kept its checkpoint, but nothing is known of what it holds".into(),
        ));
    }
    check_record(theirs.record, peer.last.get().epoch).map_err(LinkError::Own)?;
    if theirs.record == Epoch::NONE && is_unknown(p, peer, &theirs) {
        lacks_all(p, peer, theirs.blank).await?;
    }
    // What its record covers is decided over there; without a record the first one covers all.
    let all = VolumeCount::of(p.volumes.len());
    let joined = if theirs.record == Epoch::NONE { all } else { theirs.joined.min(all) };
    // It may be forgotten that nothing was known: what is missing stands in the intent log.
    p.store
        .update(|s| {
            s.epoch = s.epoch.max(open);
            s.anew = false;
            s.joined = joined;
        })
        .await
        .map_err(|e| LinkError::Own(format!("superblock: {e}")))?;
    peer.flushed.set(0);
    peer.is_dropping.set(false);
    peer.leg.session_up(window.clone(), open, theirs.record, joined);
    *peer.trouble.borrow_mut() = None;
    settle(p, peer, None);
    if theirs.record > peer.last.get().epoch && peer.leg.is_single() {
        // A checkpoint of before our restart, of which the answer was lost: ours is on disk too. When
        // its cut was made is forgotten, but not when the one before it was; the VM may have written
        // since our restart what it does not hold, so "now" would promise too much.
        p.flush_all().await.map_err(|e| LinkError::Own(format!("flush: {e}")))?;
        peer.last.set(super::status::Checkpoint {
            epoch: theirs.record,
            cut: peer.last.get().cut,
            done: p.host.wall(),
            bytes: 0,
        });
    }
    p.changed.notify();
    let heartbeat = spawn_heartbeat(p, window);
    let ended = receive(p, peer, window, &mut connection, heard).await;
    heartbeat.cancel();
    ended
}

fn hello<H: Host>(p: &Primary<H>, peer: &Peer<H>) -> Hello {
    let s = p.store.state();
    Hello {
        group: s.group.clone(),
        generation: s.generation,
        pool: s.pool,
        epoch: s.epoch.max(peer.leg.open_epoch()),
        record: peer.last.get().epoch,
        blank: false,
        anew: s.anew,
        members: s.members.iter().map(|m| (m.volume.clone(), m.size)).collect(),
        joined: peer.leg.joined(),
    }
}

/// Whether nothing is known of what a peer without a checkpoint holds: of the first hello, of a replica
/// that was started since, and of one that had a checkpoint and is now an older copy of itself.
fn is_unknown<H: Host>(p: &Primary<H>, peer: &Peer<H>, theirs: &Hello) -> bool {
    let first = p.store.state().anew && !peer.is_dropping.get();
    first || theirs.anew || peer.last.get().epoch != Epoch::NONE
}

/// The peer has no checkpoint: it lacks everything; of a replica just made only what is allocated.
async fn lacks_all<H: Host>(
    p: &Rc<Primary<H>>,
    peer: &Rc<Peer<H>>,
    blank: bool,
) -> Result<(), LinkError> {
    use crate::disk::Disk;
    for (i, volume) in p.volumes.iter().enumerate() {
        // Writes that began while there was no peer end first: they are in no bitmap.
        drop(volume.lock.lock(crate::units::ByteRange::new(0, u64::MAX)).await);
        let v = crate::units::VolumeIndex::of(i);
        let all = crate::units::ByteRange::new(0, volume.local.len());
        let mut parts = vec![(all, true)];
        if blank || bug(Bug::HolesLeft) {
            let found = volume.local.allocation(all).await;
            parts = found.map_err(|e| LinkError::Own(e.to_string()))?;
            parts.retain(|(_, allocated)| *allocated);
        }
        for (range, _) in &parts {
            peer.leg.mark_missing(v, *range);
        }
        if bug(Bug::FirstRecordUnflushed) {
            continue;
        }
        // A restart of ours goes on from there.
        let marked = peer.intent.mark_many(v, parts.into_iter().map(|(range, _)| range)).await;
        marked.map_err(|e| LinkError::Own(e.to_string()))?;
    }
    // Writes that began while there was no peer are in no bitmap: the peer's first record must hold nothing that a power cut here
    // could still take away.
    if bug(Bug::FirstRecordUnflushed) {
        return Ok(());
    }
    p.flush_all().await.map_err(|e| LinkError::Own(format!("flush: {e}")))
}

fn spawn_heartbeat<H: Host>(p: &Rc<Primary<H>>, window: &Window) -> Task {
    let (host, window) = (p.host.clone(), window.clone());
    p.host.spawn("link heartbeat", async move {
        while !window.is_closed() {
            host.sleep(HEARTBEAT).await;
            window.push(Body::Status, true);
        }
    })
}

async fn receive<H: Host>(
    p: &Rc<Primary<H>>,
    peer: &Rc<Peer<H>>,
    window: &Window,
    connection: &mut Connection<H>,
    heard: Mono,
) -> Result<std::convert::Infallible, LinkError> {
    // The silence began at the hello, however long our own disk took since; what came meanwhile is
    // still to be read.
    let passed = p.host.now().since(heard);
    let mut limit = SILENCE_MAX.saturating_sub(passed).max(HEARTBEAT);
    loop {
        match connection.receive(std::mem::replace(&mut limit, SILENCE_MAX)).await?.1 {
            Body::Ack(ack) => {
                window.acknowledge(ack);
                peer.leg.acknowledged();
                if peer.leg.wants_early_cut() {
                    peer.leg.changed.notify();
                }
                if peer.leg.is_undo_full()
                    && p.policy.borrow().undo_full == UndoFull::DropCheckpoint
                {
                    return Err(drop_checkpoint(p, peer).await);
                }
            }
            Body::Record(e) => settle(p, peer, Some(e)),
            Body::Flushed(s) => {
                peer.flushed.set(peer.flushed.get().max(s));
                window.drained().notify();
            }
            Body::Error(t) => return Err(LinkError::Peer(t)),
            Body::Stop(_) => {
                peer.stopping.set(false);
                p.changed.notify();
            }
            Body::Status => {}
            other @ (Body::Hello(_)
            | Body::Write(..)
            | Body::Resync(..)
            | Body::Zeroes(..)
            | Body::Discard(..)
            | Body::Flush
            | Body::BeginEpoch(..)) => {
                return Err(LinkError::Own(format!(
                    "the secondary sent {other:?}, which only a primary may"
                )));
            }
        }
    }
}

/// Gives the peer's checkpoint up, as the policy says: the next hello makes the peer forget it. What it
/// lacks stays known, unless this engine is restarted before that hello: then everything counts.
async fn drop_checkpoint<H: Host>(p: &Primary<H>, peer: &Peer<H>) -> LinkError {
    let durable = p
        .store
        .update(|s| {
            s.anew = true;
            s.record = Epoch::NONE;
        })
        .await;
    if let Err(e) = durable {
        return LinkError::Own(format!("superblock: {e}"));
    }
    peer.is_dropping.set(true);
    peer.last.set(super::status::Checkpoint::default());
    p.counters.dropped_checkpoints.one();
    LinkError::Own(
        "what the peer lacks does not fit into its undo logs: its checkpoint is dropped, as the \
         policy whenUndoFull says"
            .into(),
    )
}

/// Takes a record of the peer into account; completes what is complete by it.
pub(crate) fn settle<H: Host>(p: &Primary<H>, peer: &Peer<H>, recorded: Option<Epoch>) {
    if let Some(done) = peer.leg.advance(recorded, None) {
        p.completed(peer, done);
    } else if bug(Bug::IntentBeforeFlush) {
        peer.sweep_intent(&p.host);
    }
}
