//! Waiting for the peer's answers, at most `max_delay`.

use super::Leg;
use super::span::Ticket;
use crate::link::frame::Body;
use crate::runtime::{Env, timeout};

impl<E: Env> Leg<E> {
    /// Flushes the peer's disks: ends when all that was sent before is durable there, or when the
    /// session is over or given up (then `false`).
    pub(crate) async fn flush_peer(&self, flushed: impl Fn() -> u64) -> bool {
        let Some(window) = self.window().filter(|_| self.is_up()) else { return false };
        let sequence = window.push(Body::Flush, true);
        let wait = window
            .drained()
            .wait_until(|| window.is_closed() || !self.is_up() || flushed() >= sequence);
        let ended = timeout(&self.env, self.max_delay.get(), wait).await.is_some();
        if !ended {
            self.overflow(&window);
        }
        ended && flushed() >= sequence && !window.is_dropped(sequence)
    }

    /// Ends when the peer has acknowledged the ticket's frame, or it never will on this session, or
    /// `max_delay` has passed: then the link counts as too slow, and is given up.
    pub(crate) async fn acknowledgement(&self, ticket: &Ticket) -> bool {
        let Some((window, sequence)) = &ticket.frame else { return false };
        if window.is_acknowledged(*sequence) {
            return true;
        }
        window.hurry();
        let wait = window.drained().wait_until(|| {
            window.is_closed()
                || window.acknowledged() >= *sequence
                || window.is_dropped(*sequence)
                || !self.is_up()
        });
        if timeout(&self.env, self.max_delay.get(), wait).await.is_none() {
            self.overflow(window);
        }
        window.is_acknowledged(*sequence)
    }
}
