//! What one install did last: so many lines, so many invocations, and no more.
//!
//! Every event has a number, one more than the event before; the first one's is 1. Lines and invocations have a queue each,
//! so that a flood of lines drives out no invocation; a number that is in neither any more tells how
//! much is missing.

use std::collections::VecDeque;
use std::mem::size_of;
use std::sync::Arc;

use alga_host_api::LogSource;
use alga_model::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How much is kept of an install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLimits {
    /// Lines.
    pub lines: usize,
    /// Bytes of all their messages together.
    pub line_bytes: usize,
    /// Invocations.
    pub invocations: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self {
            lines: 256,
            line_bytes: 64 << 10,
            invocations: 100,
        }
    }
}

/// How much a line matters, as the guest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineLevel {
    /// Steps.
    Trace,
    /// What helps to find a mistake.
    Debug,
    /// What happens.
    Info,
    /// What may be wrong.
    Warn,
    /// What is wrong.
    Error,
}

/// What all events of an invocation share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The invocation.
    pub invocation: Uuid,
    /// The request that it answers.
    pub request_id: Arc<str>,
    /// The version that runs.
    pub version: Arc<str>,
}

/// A line that a guest wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub time: Timestamp,
    /// How much it matters.
    pub level: LineLevel,
    /// Where it was written.
    pub source: LogSource,
    /// What it says.
    pub message: Box<str>,
    /// Which invocation wrote it.
    pub subject: Arc<Subject>,
}

/// An invocation that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// When it ended.
    pub time: Timestamp,
    /// `OK`, or the code that its caller was answered with.
    pub outcome: &'static str,
    /// The status that the guest answered with.
    pub status: Option<u16>,
    /// How long its caller waited.
    pub duration_ms: u64,
    /// Bytes of linear memory it had in the end; unknown where it never ran or was given up.
    pub memory_bytes: Option<u64>,
    /// Host calls it made; unknown where it never ran or was given up.
    pub host_calls: Option<u64>,
    /// Lines it wrote, those that did not fit left out.
    pub log_lines: u32,
    /// Lines that did not fit.
    pub dropped_lines: u32,
    /// Which invocation.
    pub subject: Arc<Subject>,
}

/// Something that an install did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It wrote a line.
    Line(Line),
    /// An invocation of it ended.
    Invocation(Invocation),
}

/// The last events of an install.
#[derive(Debug)]
pub(super) struct Ring {
    limits: RingLimits,
    /// The number of the next event.
    next: u64,
    lines: VecDeque<(u64, Line)>,
    line_bytes: usize,
    invocations: VecDeque<(u64, Invocation)>,
    /// Bytes on the heap, but for those of the queues themselves.
    heap_bytes: usize,
}

impl Ring {
    pub(super) const fn new(limits: RingLimits) -> Self {
        Self {
            limits,
            next: 1,
            lines: VecDeque::new(),
            line_bytes: 0,
            invocations: VecDeque::new(),
            heap_bytes: 0,
        }
    }

    /// The number of the next event.
    pub(super) const fn head(&self) -> u64 {
        self.next
    }

    /// Bytes it holds, rounded up: what events share is counted for each.
    pub(super) fn bytes(&self) -> usize {
        self.heap_bytes
            + self.lines.capacity() * size_of::<(u64, Line)>()
            + self.invocations.capacity() * size_of::<(u64, Invocation)>()
    }

    /// Keeps a line, in the place of older ones where there is no room.
    pub(super) fn push_line(&mut self, line: Line) {
        let bytes = line.message.len();
        let number = self.take_number();
        if bytes > self.limits.line_bytes {
            return;
        }
        while self.lines.len() >= self.limits.lines
            || self.line_bytes + bytes > self.limits.line_bytes
        {
            if !self.drop_line() {
                return;
            }
        }
        self.line_bytes += bytes;
        self.heap_bytes += bytes + line.subject.bytes();
        self.lines.push_back((number, line));
    }

    /// Keeps an invocation, in the place of the oldest one where there is no room.
    pub(super) fn push_invocation(&mut self, invocation: Invocation) {
        let number = self.take_number();
        while self.invocations.len() >= self.limits.invocations {
            let Some((_, oldest)) = self.invocations.pop_front() else {
                return;
            };
            self.heap_bytes -= oldest.subject.bytes();
        }
        self.heap_bytes += invocation.subject.bytes();
        self.invocations.push_back((number, invocation));
    }

    /// Forgets everything but how much there was.
    pub(super) fn clear(&mut self) {
        *self = Self {
            next: self.next,
            ..Self::new(self.limits)
        };
    }

    /// The first event from the number `from` on that is still there, with its number.
    pub(super) fn first_from(&self, from: u64) -> Option<(u64, EventRef<'_>)> {
        let line = at(&self.lines, from).map(|(number, line)| (*number, EventRef::Line(line)));
        let invocation = at(&self.invocations, from)
            .map(|(number, invocation)| (*number, EventRef::Invocation(invocation)));
        match (line, invocation) {
            (Some(line), Some(invocation)) if invocation.0 < line.0 => Some(invocation),
            (Some(line), _) => Some(line),
            (None, invocation) => invocation,
        }
    }

    /// The number from which on there are `count` events that `wanted` takes, or all there are.
    pub(super) fn last(&self, count: usize, wanted: impl Fn(EventRef<'_>) -> bool) -> u64 {
        let lines = self
            .lines
            .iter()
            .map(|(number, it)| (*number, EventRef::Line(it)));
        let invocations = self.invocations.iter();
        let invocations = invocations.map(|(number, it)| (*number, EventRef::Invocation(it)));
        let mut numbers: Vec<_> = lines
            .chain(invocations)
            .filter_map(|(number, event)| wanted(event).then_some(number))
            .collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        match count.checked_sub(1) {
            None => self.next,
            Some(before) => numbers
                .get(before)
                .or(numbers.last())
                .copied()
                .unwrap_or(self.next),
        }
    }

    /// The numbers, from `from` on, of the events that are there, in order.
    pub(super) fn numbers_from(&self, from: u64) -> VecDeque<u64> {
        let lines = self.lines.iter().map(|(number, _)| *number);
        let invocations = self.invocations.iter().map(|(number, _)| *number);
        let numbers = lines.chain(invocations).filter(|number| *number >= from);
        let mut numbers: Vec<_> = numbers.collect();
        numbers.sort_unstable();
        numbers.into()
    }

    /// The invocations, the last one first.
    pub(super) fn invocations(&self) -> impl Iterator<Item = &Invocation> {
        self.invocations.iter().rev().map(|(_, it)| it)
    }

    /// The lines that are still there, the first one first.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().map(|(_, it)| it)
    }

    const fn take_number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn drop_line(&mut self) -> bool {
        let Some((_, oldest)) = self.lines.pop_front() else {
            return false;
        };
        self.line_bytes -= oldest.message.len();
        self.heap_bytes -= oldest.message.len() + oldest.subject.bytes();
        true
    }
}

/// The first element whose number is `from` or higher.
fn at<T>(queue: &VecDeque<(u64, T)>, from: u64) -> Option<&(u64, T)> {
    queue.get(queue.partition_point(|(number, _)| *number < from))
}

/// An event where it lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum EventRef<'a> {
    Line(&'a Line),
    Invocation(&'a Invocation),
}

impl EventRef<'_> {
    pub(super) fn to_event(self) -> Event {
        match self {
            Self::Line(line) => Event::Line(line.clone()),
            Self::Invocation(invocation) => Event::Invocation(invocation.clone()),
        }
    }

    /// Bytes that copying it takes, about.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Line(line) => size_of::<Line>() + line.message.len(),
            Self::Invocation(_) => size_of::<Invocation>(),
        }
    }
}

impl Subject {
    fn bytes(&self) -> usize {
        /// Two counters before what an `Arc` points to.
        const COUNTERS: usize = 2 * size_of::<usize>();
        size_of::<Self>() + self.request_id.len() + self.version.len() + 3 * COUNTERS
    }
}

impl From<tracing::Level> for LineLevel {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::TRACE => Self::Trace,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::INFO => Self::Info,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::ERROR => Self::Error,
        }
    }
}

impl LineLevel {
    /// Every level, the least one first.
    pub const ALL: [Self; 5] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl std::str::FromStr for LineLevel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.into_iter().find(|level| level.as_str() == text);
        named.ok_or("expected trace, debug, info, warn or error")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Arc<Subject> {
        Arc::new(Subject {
            invocation: Uuid::nil(),
            request_id: "req-1".into(),
            version: "1.0.0".into(),
        })
    }

    fn line(message: &str) -> Line {
        Line {
            time: Timestamp::from_millis(0),
            level: LineLevel::Info,
            source: LogSource::Logging,
            message: message.into(),
            subject: subject(),
        }
    }

    fn invocation(outcome: &'static str) -> Invocation {
        Invocation {
            time: Timestamp::from_millis(0),
            outcome,
            status: None,
            duration_ms: 0,
            memory_bytes: None,
            host_calls: None,
            log_lines: 0,
            dropped_lines: 0,
            subject: subject(),
        }
    }

    fn ring(lines: usize, line_bytes: usize, invocations: usize) -> Ring {
        Ring::new(RingLimits {
            lines,
            line_bytes,
            invocations,
        })
    }

    fn messages(ring: &Ring) -> Vec<&str> {
        ring.lines().map(|line| &*line.message).collect()
    }

    /// The numbers of all events that are there, in order.
    fn numbers(ring: &Ring) -> Vec<u64> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some((number, _)) = ring.first_from(from) {
            found.push(number);
            from = number + 1;
        }
        found
    }

    #[test]
    fn the_last_lines_stay_by_number_and_by_bytes() {
        let mut ring = ring(3, 10, 1);
        for message in ["1", "2", "3"] {
            ring.push_line(line(message));
        }
        assert_eq!(messages(&ring), ["1", "2", "3"]);
        ring.push_line(line("4"));
        assert_eq!(messages(&ring), ["2", "3", "4"]);
        ring.push_line(line("12345678"));
        assert_eq!(messages(&ring), ["3", "4", "12345678"]);
        ring.push_line(line("1234567890"));
        assert_eq!(messages(&ring), ["1234567890"]);
        // What could never fit drives nothing out, and is missed.
        ring.push_line(line("12345678901"));
        assert_eq!(messages(&ring), ["1234567890"]);
        assert_eq!((numbers(&ring), ring.head()), (vec![6], 8));
    }

    #[test]
    fn a_ring_without_room_keeps_nothing_and_counts_all() {
        for mut ring in [ring(0, 10, 0), ring(10, 0, 0)] {
            for _ in 0..3 {
                ring.push_line(line("a"));
                ring.push_invocation(invocation("OK"));
            }
            assert_eq!((numbers(&ring), ring.head()), (vec![], 7));
        }
    }

    #[test]
    fn a_flood_of_lines_drives_no_invocation_out() {
        let mut ring = ring(2, 100, 2);
        ring.push_invocation(invocation("GUEST_TRAP"));
        for _ in 0..1_000 {
            ring.push_line(line("flood"));
        }
        ring.push_invocation(invocation("OK"));
        assert_eq!(numbers(&ring), [1, 1_000, 1_001, 1_002]);
        ring.push_invocation(invocation("TIMEOUT"));
        let outcomes: Vec<_> = ring.invocations().map(|it| it.outcome).collect();
        assert_eq!(outcomes, ["TIMEOUT", "OK"]);
    }

    #[test]
    fn bytes_are_those_of_what_is_there() {
        let mut ring = ring(2, 1_000, 2);
        assert_eq!(ring.bytes(), 0);
        for length in [0, 1_000, 10, 500, 1_001] {
            ring.push_line(line(&"x".repeat(length)));
            ring.push_invocation(invocation("OK"));
        }
        let of_lines: usize = ring.lines().map(|line| line.message.len()).sum();
        assert_eq!(of_lines, ring.line_bytes);
        let held = ring.heap_bytes - of_lines;
        assert_eq!(held, 4 * subject().bytes());
        ring.clear();
        assert_eq!((ring.bytes(), ring.head()), (0, 11));
        assert!(numbers(&ring).is_empty());
    }

    #[test]
    fn the_last_events_are_counted_by_what_is_wanted() {
        let mut ring = ring(10, 100, 10);
        for message in ["a", "b", "a", "b"] {
            ring.push_line(line(message));
            ring.push_invocation(invocation("OK"));
        }
        let from = |count| ring.last(count, |_| true);
        assert_eq!(
            [from(0), from(1), from(3), from(8), from(99)],
            [9, 8, 6, 1, 1]
        );
        let is_a =
            |event: EventRef<'_>| matches!(event, EventRef::Line(line) if &*line.message == "a");
        assert_eq!([ring.last(1, is_a), ring.last(2, is_a)], [5, 1]);
        assert_eq!(ring.last(5, |_| false), 9);
    }

    #[test]
    fn a_level_is_known_by_its_name() {
        for level in LineLevel::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
        for text in ["", "WARN", "3", "all"] {
            assert!(text.parse::<LineLevel>().is_err(), "{text}");
        }
        assert!(LineLevel::Warn > LineLevel::Info);
    }
}
