//! What a process held, second by second, and whether it is more and more.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::measure::median;

/// More handles than this are a leak. Connections that happen to be open at a moment, and those of
/// databases that are opened when they are first needed, are fewer.
pub(super) const HANDLES: f64 = 16.0;
/// More threads than this are a leak. Blocking work has as many as there happens to be of it.
pub(super) const THREADS: f64 = 8.0;
/// Memory that a steady server may gain: what it remembers within its own budgets, and what the
/// allocator makes of it.
const MEMORY: fn(f64) -> f64 = |start| start * 0.1 + 16.0;

/// What a process holds at a moment. Memory is in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) resident: f64,
    /// What nobody else has in memory: files that are mapped count where they were changed.
    pub(super) private: f64,
    pub(super) handles: f64,
    pub(super) threads: f64,
}

impl Sample {
    /// What the process `pid` holds now.
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let of = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
        let gone = "the server is gone";
        let memory = std::fs::read_to_string(of("smaps_rollup")).context(gone)?;
        let mib = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
            let kib = kib.and_then(|kib| kib.trim().parse::<f64>().ok());
            kib.map(|kib| kib / 1024.0)
                .with_context(|| format!("the kernel doesn't say {name}"))
        };
        let count = |folder: &str| -> anyhow::Result<f64> {
            let entries = std::fs::read_dir(of(folder)).context(gone)?.count();
            Ok(f64::from(u32::try_from(entries)?))
        };
        Ok(Self {
            resident: mib("Rss:")?,
            private: mib("Private_Clean:")? + mib("Private_Dirty:")?,
            handles: count("fd")?,
            threads: count("task")?,
        })
    }
}

/// What a process held before, in the course of, and after the load.
#[derive(Debug)]
pub(super) struct Samples {
    before: Sample,
    course: Vec<(Duration, Sample)>,
    after: Option<Sample>,
    steps: Vec<(&'static str, u32)>,
}

/// One kind of what a process holds.
struct Kind {
    name: &'static str,
    of: fn(&Sample) -> f64,
    may_grow: fn(f64) -> f64,
    /// Whether as much must be there after the load as was before it. Memory that an allocator keeps
    /// for the next time is no leak.
    is_given_back: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "resident MiB",
        of: |sample| sample.resident,
        may_grow: MEMORY,
        is_given_back: false,
    },
    Kind {
        name: "private MiB",
        of: |sample| sample.private,
        may_grow: MEMORY,
        is_given_back: false,
    },
    Kind {
        name: "handles",
        of: |sample| sample.handles,
        may_grow: |_| HANDLES,
        is_given_back: true,
    },
    Kind {
        name: "threads",
        of: |sample| sample.threads,
        may_grow: |_| THREADS,
        is_given_back: true,
    },
];

/// What is to be said of a kind.
struct Course {
    before: f64,
    /// The median of the second tenth of the time: in the first one caches fill.
    start: f64,
    /// The median of the last tenth.
    end: f64,
    allowed: f64,
    per_hour: f64,
    after: f64,
    is_fine: bool,
}

impl Samples {
    /// Nothing yet but what was held before.
    pub(super) const fn at_rest(before: Sample) -> Self {
        Self {
            before,
            course: Vec::new(),
            after: None,
            steps: Vec::new(),
        }
    }

    pub(super) const fn before(&self) -> Sample {
        self.before
    }

    pub(super) fn add(&mut self, at: Duration, sample: Sample) {
        self.course.push((at, sample));
    }

    /// What is held when the load is over.
    pub(super) const fn ended(&mut self, after: Sample) {
        self.after = Some(after);
    }

    /// Somebody has done something so often.
    pub(super) fn count(&mut self, name: &'static str, steps: u32) {
        match self.steps.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => *all += steps,
            None => self.steps.push((name, steps)),
        }
    }

    /// Whether nothing grew by more than it may.
    pub(super) fn are_fine(&self) -> bool {
        KINDS.iter().all(|kind| self.course_of(kind).is_fine)
    }

    fn course_of(&self, kind: &Kind) -> Course {
        let figures: Vec<_> = self
            .course
            .iter()
            .map(|(at, sample)| (at.as_secs_f64(), (kind.of)(sample)))
            .collect();
        let tenth = figures.len().div_ceil(10);
        let steady = figures.get(tenth..).unwrap_or_default();
        let of = |part: &[(f64, f64)]| median(part.iter().map(|(_, figure)| *figure));
        let start = of(steady.get(..tenth).unwrap_or(steady));
        let end = of(steady
            .get(steady.len().saturating_sub(tenth)..)
            .unwrap_or(steady));
        let before = (kind.of)(&self.before);
        let after = self.after.as_ref().map_or(f64::NAN, kind.of);
        let allowed = (kind.may_grow)(start);
        Course {
            before,
            start,
            end,
            allowed,
            per_hour: slope(steady) * 3_600.0,
            after,
            is_fine: end - start <= allowed
                && (!kind.is_given_back || after - before <= (kind.may_grow)(before)),
        }
    }

    /// Prints what was done and a table.
    pub(super) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (name, steps) in &self.steps {
            writeln!(out, "{name:<14}{steps:>9} times")?;
        }
        let titles = [
            "at rest", "start", "end", "grown", "allowed", "per hour", "at rest",
        ];
        write!(out, "\n{:<14}", "")?;
        for title in titles {
            write!(out, "{title:>10}")?;
        }
        writeln!(out)?;
        for kind in &KINDS {
            let course = self.course_of(kind);
            let grown = course.end - course.start;
            write!(out, "{:<14}", kind.name)?;
            for figure in [
                course.before,
                course.start,
                course.end,
                grown,
                course.allowed,
                course.per_hour,
                course.after,
            ] {
                write!(out, "{figure:>10.1}")?;
            }
            writeln!(out, "  {}", if course.is_fine { "ok" } else { "GREW" })?;
        }
        Ok(())
    }

    /// Writes every sample as a line of CSV.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = "seconds,resident_mib,private_mib,handles,threads\n".to_owned();
        for (at, sample) in &self.course {
            let Sample {
                resident,
                private,
                handles,
                threads,
            } = sample;
            let at = at.as_secs();
            writeln!(text, "{at},{resident:.1},{private:.1},{handles},{threads}")?;
        }
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// By how much the second of the figures grows with each of the first, by least squares.
fn slope(figures: &[(f64, f64)]) -> f64 {
    let count: f64 = figures.iter().map(|_| 1.0).sum();
    let mean = |of: fn(&(f64, f64)) -> f64| figures.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|it| it.0), mean(|it| it.1));
    let (together, alone) = figures
        .iter()
        .fold((0.0, 0.0), |(together, alone), (x, y)| {
            let off = x - mean_x;
            (together + off * (y - mean_y), alone + off * off)
        });
    together / alone
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Sample = Sample {
        resident: 100.0,
        private: 50.0,
        handles: 20.0,
        threads: 10.0,
    };

    /// Of a hundred seconds, where `change` is what a second makes of what was held at rest.
    fn samples(change: impl Fn(f64, &mut Sample)) -> Samples {
        let mut samples = Samples::at_rest(REST);
        for second in 0_u32..100 {
            let mut sample = REST;
            change(second.into(), &mut sample);
            samples.add(Duration::from_secs(second.into()), sample);
        }
        samples.ended(REST);
        samples
    }

    #[test]
    fn what_fills_in_the_first_tenth_is_no_growth() {
        let filled = samples(|second, sample| sample.private += second.min(9.0) * 100.0);
        assert!(filled.are_fine());
        let course = filled.course_of(&KINDS[1]);
        assert!((course.start - 950.0).abs() < 1e-9 && course.per_hour.abs() < 1e-9);
    }

    #[test]
    fn memory_may_grow_by_a_tenth_and_sixteen_mib() {
        // From the middle of the second tenth to that of the last one it is 80 seconds.
        for (mib, is_fine) in [(25.9, true), (26.2, false)] {
            let grew = samples(|second, sample| sample.resident += (second - 15.0) * mib / 80.0);
            assert_eq!(grew.are_fine(), is_fine, "{mib}");
        }
    }

    #[test]
    fn a_handle_or_thread_now_and_then_is_found() {
        assert!(samples(|second, sample| sample.handles += second % 16.0).are_fine());
        assert!(!samples(|second, sample| sample.handles += second / 4.0).are_fine());
        assert!(!samples(|second, sample| sample.threads += second / 8.0).are_fine());
    }

    #[test]
    fn handles_that_stay_after_the_load_are_found_and_memory_may_stay() {
        let mut stayed = samples(|_, _| {});
        let after = |handles| Sample {
            handles,
            private: 500.0,
            ..REST
        };
        stayed.ended(after(36.0));
        assert!(stayed.are_fine());
        stayed.ended(after(37.0));
        assert!(!stayed.are_fine());
    }

    #[test]
    fn a_slope_is_what_a_step_adds() {
        let line: Vec<_> = (0..10).map(f64::from).map(|x| (x, 3.0 * x + 7.0)).collect();
        assert!((slope(&line) - 3.0).abs() < 1e-9);
    }
}
