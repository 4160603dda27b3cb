use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backends;
use crate::runtime::op::Rest;
use crate::runtime::remote::Remote;
use crate::runtime::{Fd, Op, Reactor};

#[test]
fn an_answer_that_comes_between_two_turns_is_not_slept_through() {
    for config in backends() {
        let remote = Arc::new(Remote::new().unwrap());
        let reactor = Rc::new(Reactor::new(config.io, remote.clone()).unwrap());
        let file = Fd::new(tempfile::tempfile().unwrap().into());
        let wait = reactor.submit(&file, Op::Sync { ended: Rc::new(|_| {}) }, 0);
        // Other tasks are ready, so the shard does not sleep; then the answer comes.
        let mut answers = reactor.turn(Rest::No).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        // The next round of the shard's loop, with nothing else to do.
        remote.clear_poke();
        let start = Instant::now();
        if answers == 0 && remote.fall_asleep() {
            answers = reactor.turn(Rest::For(Duration::from_secs(20))).unwrap();
            remote.awake();
        }
        assert_eq!(answers, 1);
        assert!(start.elapsed() < Duration::from_secs(10));
        drop(wait);
    }
}
