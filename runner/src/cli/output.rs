//! What commands print.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Prints one line of a result.
pub(super) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints one line of a result that programs read.
pub(super) fn json(value: &impl serde::Serialize) -> io::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Says something to a person, beside the result.
pub(super) fn note(text: impl std::fmt::Display) {
    // Nobody listens: not a reason to fail.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says why a command failed, with every cause on a line of its own.
pub(super) fn error(error: &anyhow::Error) {
    note(format_args!("error: {error}"));
    for cause in error.chain().skip(1) {
        note(format_args!("  because: {cause}"));
    }
}

/// Rows under a heading, in columns as wide as their widest cell.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let format = |cells: [&str; N]| {
        let cells: Vec<_> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    line(format(heading))?;
    for row in rows {
        line(format(row.each_ref().map(String::as_str)))?;
    }
    Ok(())
}

/// Shows on a terminal how far a long piece of work has come; elsewhere it is silent. What is said after
/// the last of its clones is gone begins on a line of its own.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    shown: Arc<Shown>,
}

impl Progress {
    /// Work of `total` bytes.
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        Self {
            what,
            total,
            shown: Arc::default(),
        }
    }

    /// `done` bytes are done.
    pub(super) fn show(&self, done: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let percent = done
            .saturating_mul(100)
            .checked_div(self.total)
            .unwrap_or(100)
            .min(100);
        if self.shown.advance(percent) {
            let end = if percent == 100 { "\n" } else { "" };
            let _ = write!(io::stderr().lock(), "\r{} {percent:>3} %{end}", self.what);
        }
    }

    /// What is said next begins on a line of its own; what is done afterwards is shown again.
    pub(super) fn pause(&self) {
        if self.shown.pause() {
            note("");
        }
    }

    /// Shows nothing more, whoever still works; what is said next begins on a line of its own.
    pub(super) fn end(&self) {
        self.shown.end();
    }
}

/// The percentage that is shown.
#[derive(Debug)]
struct Shown(AtomicU64);

impl Shown {
    const NOTHING: u64 = u64::MAX;
    const ENDED: u64 = u64::MAX - 1;

    /// Whether this is to be shown now.
    fn advance(&self, percent: u64) -> bool {
        let shown = self
            .0
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |shown| {
                (shown != Self::ENDED && shown != percent).then_some(percent)
            });
        shown.is_ok()
    }

    /// Whether it leaves a line that has no end, on which nothing more is shown.
    fn pause(&self) -> bool {
        let shown = &self.0;
        let paused = shown.try_update(Ordering::Relaxed, Ordering::Relaxed, |shown| {
            (shown < 100).then_some(Self::NOTHING)
        });
        paused.is_ok()
    }

    /// Whether it leaves a line that has no end.
    fn finish(&self) -> bool {
        self.0.swap(Self::ENDED, Ordering::Relaxed) < 100
    }

    fn end(&self) {
        if self.finish() {
            note("");
        }
    }
}

impl Default for Shown {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NOTHING))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.end();
    }
}

/// Shows on a terminal how much is done of work whose end nobody knows; elsewhere it is silent.
#[derive(Debug)]
pub(super) struct Tally {
    what: &'static str,
    shown: Option<u64>,
}

impl Tally {
    /// `what` stands before the number.
    pub(super) const fn new(what: &'static str) -> Self {
        Self { what, shown: None }
    }

    /// So much is done.
    pub(super) fn show(&mut self, done: u64) {
        if self.shown != Some(done) && io::stderr().is_terminal() {
            let _ = write!(io::stderr().lock(), "\r{} {done}", self.what);
            self.shown = Some(done);
        }
    }

    /// What is said next begins on a line of its own.
    pub(super) fn pause(&mut self) {
        if self.shown.take().is_some() {
            note("");
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_begun_is_ended_once_and_then_nothing_is_shown() {
        let shown = Shown::default();
        assert!(shown.advance(0));
        assert!(!shown.advance(0));
        assert!(shown.advance(42));
        assert!(shown.finish());
        assert!(!shown.finish());
        assert!(!shown.advance(43));
    }

    #[test]
    fn a_line_that_was_interrupted_is_ended_once_and_shown_again() {
        let shown = Shown::default();
        assert!(!shown.pause());
        assert!(shown.advance(42));
        assert!(shown.pause());
        assert!(!shown.pause());
        assert!(shown.advance(42));
        assert!(shown.advance(100));
        assert!(!shown.pause());
        assert!(!shown.finish());
    }

    #[test]
    fn what_was_never_shown_or_came_to_its_end_leaves_no_line_open() {
        assert!(!Shown::default().finish());
        let whole = Shown::default();
        assert!(whole.advance(100));
        assert!(!whole.finish());
    }
}
