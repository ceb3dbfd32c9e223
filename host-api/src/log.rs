//! The log of one invocation: bounded, whatever a guest writes.
//!
//! Lines come from `alga:extension/logging`, standard output and standard error, and share one
//! budget. They are events of the target `guest`, within the span of their invocation, which holds
//! the ids; whoever wants them besides is a [`LogSink`].

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::{Level, Span};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream as WasiOutputStream, Pollable, StreamResult};

/// How much one invocation may log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Lines of an invocation.
    pub lines: usize,
    /// Bytes of all its lines together.
    pub bytes: usize,
    /// Bytes of one line; what is longer is cut.
    pub line_bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            lines: 256,
            bytes: 64 << 10,
            line_bytes: 8 << 10,
        }
    }
}

/// Hears what a guest logs while it runs.
///
/// It is called on the guest's own time, so that it must neither wait nor fail.
pub trait LogSink: Debug + Send + Sync {
    /// A line that fits the budget of its invocation.
    fn line(&self, line: LogLine);

    /// A line that doesn't fit any more.
    fn dropped(&self);
}

/// One line of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters, as the guest says.
    pub level: Level,
    /// Where the guest wrote it.
    pub source: LogSource,
    /// What it says, cut to the longest line allowed; tab is its only control character.
    pub message: String,
}

/// Where a guest wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogSource {
    /// `alga:extension/logging`.
    Logging,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The log of one invocation. Clones share one budget.
#[derive(Debug, Clone)]
pub struct InvocationLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: LogLimits,
    span: Span,
    used: Mutex<Used>,
    sink: Option<Arc<dyn LogSink>>,
}

#[derive(Debug, Default)]
struct Used {
    lines: usize,
    bytes: usize,
    dropped: usize,
}

impl InvocationLog {
    /// A log whose lines belong to `span`, and are heard by `sink`.
    pub fn new(limits: LogLimits, span: Span, sink: Option<Arc<dyn LogSink>>) -> Self {
        Self(Arc::new(Shared {
            limits,
            span,
            used: Mutex::default(),
            sink,
        }))
    }

    /// Lines that were written and did not fit.
    pub fn dropped(&self) -> usize {
        self.used().dropped
    }

    /// Writes one line, or counts it as dropped where the budget is used up.
    pub(crate) fn line(&self, level: Level, source: LogSource, text: &str) {
        let message = printable(cut(text, self.0.limits.line_bytes));
        let fits = self.admits(message.len());
        if fits {
            self.0.span.in_scope(|| emit(level, &message));
        }
        match &self.0.sink {
            Some(sink) if fits => sink.line(LogLine {
                level,
                source,
                message,
            }),
            Some(sink) => sink.dropped(),
            None => {}
        }
    }

    fn admits(&self, bytes: usize) -> bool {
        let (mut used, limits) = (self.used(), &self.0.limits);
        let fits = used.lines < limits.lines && used.bytes + bytes <= limits.bytes;
        if fits {
            used.lines += 1;
            used.bytes += bytes;
        } else {
            used.dropped += 1;
        }
        fits
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// An event's level is part of its static metadata, so each one is written out.
fn emit(level: Level, line: &str) {
    match level {
        Level::TRACE => tracing::trace!(target: "guest", "{line}"),
        Level::DEBUG => tracing::debug!(target: "guest", "{line}"),
        Level::INFO => tracing::info!(target: "guest", "{line}"),
        Level::WARN => tracing::warn!(target: "guest", "{line}"),
        Level::ERROR => tracing::error!(target: "guest", "{line}"),
    }
}

/// The start of `text`, at most `bytes` long, ending with a whole character.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes))
        .unwrap_or_default()
}

/// `text` with control characters made visible, so that a guest can't forge lines or move the
/// cursor of whoever reads the log on a terminal.
fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Where a guest wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output; its lines are of level `info`.
    Stdout,
    /// Standard error; its lines are of level `warn`.
    Stderr,
}

/// Standard output or standard error of a guest: each line written to it is a line of the log.
#[derive(Debug, Clone)]
pub struct GuestOutput {
    level: Level,
    source: LogSource,
    log: InvocationLog,
    /// What was written of a line that has not ended yet.
    partial: Arc<Mutex<Vec<u8>>>,
}

impl GuestOutput {
    /// Makes lines of `log` out of `stream`.
    pub fn new(log: InvocationLog, stream: OutputStream) -> Self {
        let (level, source) = match stream {
            OutputStream::Stdout => (Level::INFO, LogSource::Stdout),
            OutputStream::Stderr => (Level::WARN, LogSource::Stderr),
        };
        Self {
            level,
            source,
            log,
            partial: Arc::default(),
        }
    }

    fn line(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        self.log.line(self.level, self.source, &text);
    }

    fn write(&self, bytes: &[u8]) {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // One byte more than a line may have is enough to know that it must be cut.
            let room = (self.log.0.limits.line_bytes + 1).saturating_sub(partial.len());
            partial.extend(piece.iter().filter(|byte| **byte != b'\n').take(room));
            if piece.ends_with(b"\n") {
                self.line(&partial);
                partial.clear();
            }
        }
    }
}

/// What a guest wrote last may lack its line end.
impl Drop for GuestOutput {
    fn drop(&mut self) {
        let partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::strong_count(&self.partial) == 1 && !partial.is_empty() {
            self.line(&partial);
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn WasiOutputStream> {
        Box::new(self.clone())
    }
}

impl WasiOutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        Self::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestOutput {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Self::write(&self, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: usize, bytes: usize, line_bytes: usize) -> InvocationLog {
        heard_by(None, lines, bytes, line_bytes)
    }

    fn heard_by(
        sink: Option<Arc<dyn LogSink>>,
        lines: usize,
        bytes: usize,
        line_bytes: usize,
    ) -> InvocationLog {
        let limits = LogLimits {
            lines,
            bytes,
            line_bytes,
        };
        InvocationLog::new(limits, Span::none(), sink)
    }

    fn used(log: &InvocationLog) -> (usize, usize, usize) {
        let used = log.used();
        (used.lines, used.bytes, used.dropped)
    }

    #[test]
    fn lines_beyond_the_budget_are_dropped_and_counted() {
        let log = log(2, 100, 100);
        for _ in 0..5 {
            log.line(Level::INFO, LogSource::Logging, "line");
        }
        assert_eq!(used(&log), (2, 8, 3));
        let log = self::log(100, 10, 100);
        for text in ["123456", "12345", "1234", "1"] {
            log.line(Level::INFO, LogSource::Logging, text);
        }
        assert_eq!(used(&log), (2, 10, 2));
    }

    #[derive(Debug, Default)]
    struct Heard(Mutex<(Vec<LogLine>, usize)>);

    impl LogSink for Heard {
        fn line(&self, line: LogLine) {
            self.0.lock().unwrap().0.push(line);
        }

        fn dropped(&self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    #[test]
    fn a_sink_hears_what_fits_and_how_much_does_not() {
        let heard = Arc::new(Heard::default());
        let log = heard_by(Some(Arc::clone(&heard) as _), 3, 100, 4);
        log.line(Level::DEBUG, LogSource::Logging, "one\n");
        GuestOutput::new(log.clone(), OutputStream::Stdout).write(b"two");
        GuestOutput::new(log.clone(), OutputStream::Stderr).write(b"three\n");
        for _ in 0..2 {
            log.line(Level::ERROR, LogSource::Logging, "four");
        }
        let line = |level, source, message: &str| LogLine {
            level,
            source,
            message: message.to_owned(),
        };
        let expected = vec![
            line(Level::DEBUG, LogSource::Logging, "one\\n"),
            line(Level::INFO, LogSource::Stdout, "two"),
            line(Level::WARN, LogSource::Stderr, "thre"),
        ];
        assert_eq!(*heard.0.lock().unwrap(), (expected, 2));
        assert_eq!(log.dropped(), 2);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(
            printable("a\u{1b}[31m\nb\tc\u{85}"),
            "a\\u{1b}[31m\\nb\tc\\u{85}"
        );
    }

    #[test]
    fn output_becomes_lines_however_it_is_cut_up() {
        let log = log(100, 1_000, 8);
        let output = GuestOutput::new(log.clone(), OutputStream::Stdout);
        for piece in [
            "on",
            "e\ntw",
            "o\n",
            "\n",
            "a line that is too long to keep\n",
            "last",
        ] {
            output.write(piece.as_bytes());
        }
        assert_eq!(used(&log), (4, 3 + 3 + 8, 0));
        drop(output);
        assert_eq!(used(&log), (5, 3 + 3 + 8 + 4, 0));
    }

    #[test]
    fn a_line_that_never_ends_is_not_kept_whole() {
        let output = GuestOutput::new(log(1, 100, 8), OutputStream::Stderr);
        for _ in 0..1_000 {
            output.write(&[b'x'; 1_000]);
        }
        assert_eq!(output.partial.lock().unwrap().len(), 9);
    }
}
