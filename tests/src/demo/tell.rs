//! What the demo says: chapters, status lines, a timeline, one verdict.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::stage::Status;

/// Tells the story to standard output.
pub(crate) struct Teller {
    began: Instant,
    chapter: usize,
    marks: Vec<(Instant, String)>,
}

impl Teller {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), chapter: 0, marks: Vec::new() }
    }

    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n{}. {title}", self.chapter);
    }

    pub(crate) fn say(&self, words: &str) {
        println!("   [{:6.2} s] {words}", self.began.elapsed().as_secs_f64());
    }

    /// A manifest as it was written.
    #[allow(clippy::unused_self, reason = "everything that is told goes through the teller")]
    pub(crate) fn manifest(&self, yaml: &str) {
        for line in yaml.lines() {
            println!("      | {line}");
        }
    }

    pub(crate) fn status(&self, s: &Status) {
        self.say(&s.line());
    }

    /// Shows the status a few times a second for a while.
    pub(crate) fn while_running(
        &self,
        time: Duration,
        mut status: impl FnMut() -> Result<Status>,
    ) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.status(&status()?);
            std::thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    /// A moment of the timeline.
    pub(crate) fn mark(&mut self, what: &str) {
        self.marks.push((Instant::now(), what.to_owned()));
        self.say(what);
    }

    pub(crate) fn timeline(&self, outage: Duration) {
        println!("\n   Timeline, from the kill:");
        let Some((zero, _)) = self.marks.first() else { return };
        for (at, what) in &self.marks {
            println!("   {:8.0} ms  {what}", at.duration_since(*zero).as_secs_f64() * 1000.0);
        }
        println!(
            "   From the kill to the first byte: {:.0} ms, of which a person took none.",
            outage.as_secs_f64() * 1000.0
        );
    }

    pub(crate) fn verdict(&self, good: bool, words: &str) {
        let word = if good { "SURVIVED" } else { "FAILED" };
        println!("\n{word}: {words} ({:.1} s in all)", self.began.elapsed().as_secs_f64());
    }
}
