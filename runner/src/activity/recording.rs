//! One invocation on its way into the ring of its install.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use alga_host_api::{LogLine, LogSink};

use super::ring::{Invocation, Line, Subject};
use super::{Entry, Shared};
use crate::engine::Usage;
use crate::execute::outcome_of_dropped;

/// An invocation that has begun. Dropped before it is [finished](Self::finish), it was given
/// up, or the host has a fault.
#[derive(Debug)]
pub struct Recording {
    recorder: Arc<Recorder>,
    start: Instant,
    usage: Option<Usage>,
    is_finished: bool,
}

impl Recording {
    pub(super) fn new(
        shared: Arc<Shared>,
        entry: Arc<Entry>,
        subject: Subject,
        start: Instant,
    ) -> Self {
        Self {
            recorder: Arc::new(Recorder {
                shared,
                entry,
                subject: Arc::new(subject),
                lines: AtomicU32::new(0),
                dropped: AtomicU32::new(0),
            }),
            start,
            usage: None,
            is_finished: false,
        }
    }

    /// What hears the lines of the guest.
    pub fn sink(&self) -> Arc<dyn LogSink> {
        Arc::clone(&self.recorder) as _
    }

    /// It ran, and used this.
    pub const fn used(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    /// It has ended, after `took`, with the status that the guest answered, if it did.
    pub fn finish(mut self, outcome: &'static str, status: Option<u16>, took: Duration) {
        self.end(outcome, status, took);
    }

    fn end(&mut self, outcome: &'static str, status: Option<u16>, took: Duration) {
        self.is_finished = true;
        let Recorder {
            shared,
            entry,
            subject,
            lines,
            dropped,
        } = &*self.recorder;
        let invocation = Invocation {
            time: shared.clock.now(),
            outcome,
            status,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            memory_bytes: self
                .usage
                .map(|usage| u64::try_from(usage.memory_bytes).unwrap_or(u64::MAX)),
            host_calls: self.usage.map(|usage| usage.host_calls),
            log_lines: lines.load(Ordering::Relaxed),
            dropped_lines: dropped.load(Ordering::Relaxed),
            subject: Arc::clone(subject),
        };
        shared.change(entry, |ring| ring.push_invocation(invocation));
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.is_finished {
            self.end(outcome_of_dropped(), None, self.start.elapsed());
        }
    }
}

#[derive(Debug)]
struct Recorder {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    subject: Arc<Subject>,
    lines: AtomicU32,
    dropped: AtomicU32,
}

impl LogSink for Recorder {
    fn line(&self, line: LogLine) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        let line = Line {
            time: self.shared.clock.now(),
            level: line.level.into(),
            source: line.source,
            message: line.message.into_boxed_str(),
            subject: Arc::clone(&self.subject),
        };
        self.shared.change(&self.entry, |ring| ring.push_line(line));
    }

    fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}
