//! The secondary's side of a session: one at a time, the newest wins.
//!
//! ```text
//!   hello ─► the old session ends: staged frames applied, no record in flight ─► hello back
//!         ─► frames are staged and acknowledged, in order, until the stream ends
//! ```

use std::rc::Rc;
use std::time::Duration;

use super::group::Group;
use super::hello::{check_epochs, check_hello, check_members, check_sizes};
use super::secondary::Secondary;
use super::session::{HEARTBEAT, HELLO_LIMIT, SILENCE_MAX};
use super::staging::{Item, Staged};
use crate::bug::{Bug, bug};
use crate::disk::Host;
use crate::link::frame::{Body, Hello};
use crate::link::{Connection, LinkError, Window};
use crate::overlay::{Role, Stage};
use crate::runtime::{Address, Stream};
use crate::units::GroupId;

/// Serves one incoming link: reads its hello, finds the group that it names, applies its frames.
/// `find` may refuse, and says why. Returns why it ended. What is wrong with the hello is told to the peer.
pub async fn serve_link<H: Host>(
    host: &H,
    stream: H::Stream,
    find: impl FnOnce(&GroupId) -> Result<Group<H>, String>,
) -> LinkError {
    let window = Window::one_way();
    let sender = {
        let (host2, window, stream) = (host.clone(), window.clone(), stream.clone());
        host.spawn("link answers", async move {
            let _ = window.run(&host2, &stream, Duration::from_millis(1)).await;
            stream.shutdown();
        })
    };
    let ended = match talk(host, &window, stream.clone(), find).await {
        Ok(never) => match never {},
        Err(e) => e,
    };
    if let LinkError::Own(text) = &ended {
        window.push(Body::Error(text.clone()), true);
    }
    // Lets the last words out; a peer that does not take them is not waited for.
    let _ = crate::runtime::timeout(host, Duration::from_millis(200), async {
        window.drained().wait_until(|| window.is_sent()).await;
    })
    .await;
    window.close();
    stream.shutdown();
    sender.cancel();
    ended
}

async fn talk<H: Host>(
    host: &H,
    window: &Window,
    stream: H::Stream,
    find: impl FnOnce(&GroupId) -> Result<Group<H>, String>,
) -> Result<std::convert::Infallible, LinkError> {
    let mut connection = Connection::new(host, stream.clone());
    let theirs = match connection.receive(HELLO_LIMIT).await?.1 {
        Body::Hello(h) => *h,
        other => {
            return Err(LinkError::Own(format!("a link begins with a hello, not with {other:?}")));
        }
    };
    let group = find(&theirs.group).map_err(LinkError::Own)?;
    let s = group.secondary().ok_or_else(|| {
        LinkError::Own(format!(
            "group {} is not a running secondary here: start it as one first",
            theirs.group
        ))
    })?;
    check_hello(&hello(&s), &theirs).map_err(LinkError::Own)?;
    check_members(&theirs, &hello(&s)).map_err(LinkError::Own)?;
    check_sizes(&theirs, &hello(&s)).map_err(LinkError::Own)?;
    check_epochs(&hello(&s), &theirs).map_err(LinkError::Own)?;
    if s.store.state().inbound {
        return Err(LinkError::Own(format!(
            "group {} takes its writes from an NBD client",
            theirs.group
        )));
    }
    let blank = take_over(&s, &stream, &theirs).await?;
    let ours = Hello { blank, ..hello(&s) };
    s.adopt_epoch(ours.epoch.max(theirs.epoch));
    window.push(Body::Hello(Box::new(ours)), true);
    let turn = s.sessions.get();
    // The hello is queued: what the apply task answers from here on stands behind it.
    *s.session.borrow_mut() = Some(window.clone());
    let heartbeat = {
        let (host2, window) = (host.clone(), window.clone());
        host.spawn("link heartbeat", async move {
            while !window.is_closed() {
                host2.sleep(HEARTBEAT).await;
                window.push(Body::Status, true);
            }
        })
    };
    let ended = receive(&s, window, &mut connection).await;
    heartbeat.cancel();
    if s.sessions.get() == turn {
        s.cut();
    }
    s.changed.notify();
    ended
}

fn hello<H: Host>(s: &Secondary<H>) -> Hello {
    let g = s.store.state();
    Hello {
        group: g.group.clone(),
        generation: g.generation,
        pool: g.pool,
        epoch: g.epoch.max(s.open_epoch.get()),
        record: g.record,
        blank: g.blank,
        anew: g.anew,
        members: g.members.iter().map(|m| (m.volume.clone(), m.size)).collect(),
        joined: g.joined,
    }
}

/// Ends the session before this one, for good, and begins a new one.
/// Says whether the replicas hold nothing but zeroes.
async fn take_over<H: Host>(
    s: &Rc<Secondary<H>>,
    stream: &H::Stream,
    theirs: &Hello,
) -> Result<bool, LinkError> {
    s.cut();
    let turn = s.sessions.get();
    let cut = stream.clone();
    *s.cut_session.borrow_mut() = Some(Rc::new(move || cut.shutdown()));
    s.quiet().await;
    if s.sessions.get() != turn || s.ended.get() {
        return Err(LinkError::Own("a newer session took over".into()));
    }
    let settling = Settling::begin(s);
    let blank = settle(s, theirs).await?;
    drop(settling);
    if s.sessions.get() != turn || s.ended.get() {
        return Err(LinkError::Own("a newer session took over".into()));
    }
    *s.failed.borrow_mut() = None;
    s.applied.set(0);
    s.received.set(0);
    s.progress.borrow_mut().clear();
    s.changed.notify();
    Ok(blank)
}

/// While it lives, a hello is being answered; also when that is given up half-way.
struct Settling<H: Host>(Rc<Secondary<H>>);

impl<H: Host> Settling<H> {
    fn begin(s: &Rc<Secondary<H>>) -> Self {
        s.taking_over.set(true);
        Self(s.clone())
    }
}

impl<H: Host> Drop for Settling<H> {
    fn drop(&mut self) {
        self.0.taking_over.set(false);
        self.0.changed.notify();
    }
}

/// Makes durable what the hello decides. A promotion, or a newer hello, waits until it has.
async fn settle<H: Host>(s: &Rc<Secondary<H>>, theirs: &Hello) -> Result<bool, LinkError> {
    if theirs.anew {
        s.forget().await.map_err(|e| LinkError::Own(format!("superblock: {e}")))?;
    }
    s.clear_overhang(theirs).await.map_err(|e| LinkError::Own(e.to_string()))?;
    // Only this first session is told so: it may write, and then it is no longer true. The epoch
    // that both will agree on is durable before a log carries it.
    let blank = s.store.state().blank;
    let open = s.open_epoch.get().max(theirs.epoch);
    s.store
        .update(|g| {
            g.blank = false;
            g.epoch = g.epoch.max(open);
        })
        .await
        .map_err(|e| LinkError::Own(format!("superblock: {e}")))?;
    Ok(blank)
}

async fn receive<H: Host>(
    s: &Rc<Secondary<H>>,
    window: &Window,
    connection: &mut Connection<H>,
) -> Result<std::convert::Infallible, LinkError> {
    let mut told = (0, 0);
    loop {
        let (sequence, body) = connection.receive(SILENCE_MAX).await?;
        if s.store.state().anew {
            // It goes on, so it has read our hello, and knows that nothing was known.
            let known = s.store.update(|g| g.anew = false).await;
            known.map_err(|e| LinkError::Own(format!("superblock: {e}")))?;
        }
        if s.failed.borrow().is_some() {
            return Err(LinkError::Own(s.failed.borrow().clone().unwrap_or_default()));
        }
        if window.is_closed() || s.ended.get() {
            return Err(LinkError::Own("the session is over".into()));
        }
        let item = match body {
            Body::Write(v, r, d) => Some(Item::Write(v, r, d)),
            Body::Resync(v, r, d) => Some(Item::Resync(v, r, d)),
            Body::Zeroes(volume, range) => Some(Item::Zero { volume, range, punch: false }),
            Body::Discard(volume, range) => Some(Item::Zero { volume, range, punch: true }),
            Body::Flush => Some(Item::Flush),
            Body::BeginEpoch(e, cut, covers) => Some(Item::BeginEpoch(e, cut, covers)),
            Body::Stop(e) => Some(Item::Stop(e)),
            Body::Status => None,
            Body::Error(t) => return Err(LinkError::Peer(t)),
            other @ (Body::Hello(_) | Body::Ack(_) | Body::Record(_) | Body::Flushed(_)) => {
                return Err(LinkError::Own(format!(
                    "the primary sent {other:?}, which only a secondary may"
                )));
            }
        };
        if let Some(item) = item {
            if let Some((v, r)) = item.place() {
                s.check_place(v, r).map_err(|e| LinkError::Own(e.to_string()))?;
            }
            // Behind its end a session stages nothing, or it would stand behind the next one's hello.
            let is_over = || window.is_closed() && !bug(Bug::OldFrameLate);
            if !s.staging.push(Staged::new(sequence, item, None), is_over).await {
                return Err(LinkError::Own("the session is over".into()));
            }
            s.received.set(sequence);
        } else {
            // Nothing in it to apply: on an idle link both counts stay level with what was sent.
            s.received.set(sequence);
            if s.staging.is_empty() && s.batches.get() == 0 {
                s.applied.set(sequence);
            }
        }
        // One acknowledgement per batch of frames that arrived together; the heartbeat of the
        // primary brings the last "applied" of an idle link.
        let now = (sequence, s.applied.get());
        if !connection.is_buffered() && now != told {
            told = now;
            window.push(s.acknowledgement(), true);
        }
    }
}

impl<H: Host> Group<H> {
    /// The node whose links alone are taken, if the start named one.
    pub fn peer_node(&self) -> Option<String> {
        let address = self.state().peer_address.clone()?;
        address.parse::<Address>().ok()?.node().map(str::to_owned)
    }

    /// The running secondary, if this is one.
    pub(crate) fn secondary(&self) -> Option<Rc<Secondary<H>>> {
        let state = self.state();
        let runs = state.role == Role::Secondary && state.stage == Stage::Running;
        drop(state);
        self.running_secondary().filter(|s| runs && !s.ended.get())
    }
}
