//! What was measured, for people and for programs.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Serialize, Serializer};

/// What a value must be, measured by its baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    /// At least so many times the baseline.
    AtLeast(f64),
    /// At most so many times the baseline.
    AtMost(f64),
    /// At most so many times the baseline and so much on top, in the unit of both: for what can't be
    /// told from nothing where the baseline is small.
    Within { times: f64, and: f64 },
}

/// What came of one benchmark.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    unit: String,
    value: f64,
    against: Option<(f64, Bar)>,
    note: String,
}

/// All lines, in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
    /// Names of lines that could not be measured, with reasons.
    skipped: Vec<(&'static str, String)>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    unit: String,
    value: f64,
    baseline: Option<f64>,
    ratio: Option<f64>,
    bar: Option<Bar>,
    ok: Option<bool>,
    #[serde(skip)]
    note: String,
}

impl Bar {
    fn is_kept_by(self, value: f64, baseline: f64) -> bool {
        match self {
            Self::AtLeast(times) => value / baseline >= times,
            Self::AtMost(times) => value / baseline <= times,
            Self::Within { times, and } => value <= times.mul_add(baseline, and),
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, ">= {bar}"),
            Self::AtMost(bar) => write!(f, "<= {bar}"),
            Self::Within { times, and } => write!(f, "<= {times} x + {and}"),
        }
    }
}

impl Serialize for Bar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Figure {
    pub(crate) fn new(value: f64, unit: impl Into<String>) -> Self {
        Self {
            unit: unit.into(),
            value,
            against: None,
            note: String::new(),
        }
    }

    /// Compares the value to `baseline`, by which it must keep the bar.
    #[must_use]
    pub(crate) fn against(mut self, baseline: f64, bar: Bar) -> Self {
        self.against = Some((baseline, bar));
        self
    }

    /// Says more, to people alone.
    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

impl Report {
    pub(crate) fn add(&mut self, name: &'static str, figure: Figure) {
        let compared = figure
            .against
            .map(|(baseline, bar)| (baseline, figure.value / baseline, bar));
        self.lines.push(Line {
            name,
            unit: figure.unit,
            value: figure.value,
            baseline: compared.map(|(baseline, ..)| baseline),
            ratio: compared.map(|(_, ratio, _)| ratio),
            bar: compared.map(|(.., bar)| bar),
            ok: compared.map(|(baseline, _, bar)| bar.is_kept_by(figure.value, baseline)),
            note: figure.note,
        });
    }

    /// Says why a line has no figure.
    pub(crate) fn skip(&mut self, name: &'static str, reason: String) {
        self.skipped.push((name, reason));
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.skipped.is_empty()
    }

    /// Whether no bar was missed.
    pub(crate) fn is_passed(&self) -> bool {
        self.lines.iter().all(|line| line.ok != Some(false))
    }

    /// Prints a table, and below it what was skipped.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let rows: Vec<_> = self.lines.iter().map(Line::cells).collect();
        let titles = ["name", "value", "baseline", "ratio", "bar", "", "note"].map(str::to_owned);
        let table: Vec<_> = std::iter::once(titles).chain(rows).collect();
        let widths: Vec<usize> = (0..7)
            .map(|column| {
                let cells = table.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &table {
            let cells: Vec<_> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        for (name, reason) in &self.skipped {
            writeln!(out, "{name} was skipped: {reason}")?;
        }
        Ok(())
    }

    /// Writes the lines that have figures as JSON, without the notes.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let mut file = File::create(path).with_context(cannot)?;
        serde_json::to_writer_pretty(&file, &self.lines).with_context(cannot)?;
        writeln!(file).with_context(cannot)
    }
}

impl Line {
    fn cells(&self) -> [String; 7] {
        let verdict = match self.ok {
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "",
        };
        [
            self.name.to_owned(),
            format!("{} {}", rounded(self.value), self.unit),
            self.baseline.map(rounded).unwrap_or_default(),
            self.ratio
                .map(|ratio| format!("{ratio:.2}"))
                .unwrap_or_default(),
            self.bar.map(|bar| bar.to_string()).unwrap_or_default(),
            verdict.to_owned(),
            self.note.clone(),
        ]
    }
}

/// As many digits as a measurement deserves, in groups of three.
pub(crate) fn rounded(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_kept_at_its_value_and_missed_beyond() {
        let within = Bar::Within {
            times: 2.0,
            and: 10.0,
        };
        for (bar, at, beyond) in [
            (Bar::AtMost(1.4), 140.0, 141.0),
            (Bar::AtLeast(0.6), 60.0, 59.0),
            (within, 210.0, 211.0),
        ] {
            assert!(bar.is_kept_by(at, 100.0), "{bar}");
            assert!(!bar.is_kept_by(beyond, 100.0), "{bar}");
        }
    }

    #[test]
    fn nothing_that_cannot_be_compared_keeps_a_bar() {
        let within = Bar::Within {
            times: 2.0,
            and: 10.0,
        };
        for bar in [Bar::AtMost(1.4), Bar::AtLeast(0.6), within] {
            assert!(!bar.is_kept_by(f64::NAN, 1.0), "{bar}");
            assert!(!bar.is_kept_by(1.0, f64::NAN), "{bar}");
        }
    }

    #[test]
    fn one_missed_bar_fails_the_report() {
        let mut report = Report::default();
        report.add("a", Figure::new(1.0, "s"));
        report.add("b", Figure::new(2.0, "s").against(1.0, Bar::AtLeast(1.0)));
        assert!(report.is_passed());
        report.add("c", Figure::new(2.0, "s").against(1.0, Bar::AtMost(1.0)));
        assert!(!report.is_passed());
    }

    #[test]
    fn a_line_without_a_bar_has_neither_ratio_nor_verdict() {
        let mut report = Report::default();
        report.add("a", Figure::new(1.5, "s").note("for people"));
        let expected = serde_json::json!([{
            "name": "a", "unit": "s", "value": 1.5,
            "baseline": null, "ratio": null, "bar": null, "ok": null,
        }]);
        assert_eq!(serde_json::to_value(&report.lines).unwrap(), expected);
    }

    #[test]
    fn a_line_that_was_skipped_misses_no_bar_and_is_in_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        let mut report = Report::default();
        assert!(report.is_empty());
        report.skip("a", "there is no server".to_owned());
        assert!(report.is_passed() && !report.is_empty());
        report.write(&file).unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "[]\n");
    }

    #[test]
    fn large_figures_are_grouped_and_small_ones_keep_a_decimal() {
        assert_eq!(rounded(99.94), "99.9");
        assert_eq!(rounded(123.4), "123");
        assert_eq!(rounded(1234.5), "1 234");
        assert_eq!(rounded(1_234_567.0), "1 234 567");
    }
}
