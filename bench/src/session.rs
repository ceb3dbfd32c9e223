//! One run of the benchmarks: which of them, where, and what came of them.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::report::{Figure, Report};

/// A run under way. Its databases are removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    data: TempDir,
    runner: PathBuf,
    filters: Vec<String>,
    report: Report,
}

/// Why a line can't be measured on this machine, which is no fault of what it measures. A benchmark that
/// fails with this is left out.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Skipped {}

impl Session {
    /// A run of the benchmarks whose names contain one of `filters`, or of all where there is none, with
    /// `runner` as the program `alga-runner`.
    pub(crate) fn start(
        folder: &Path,
        runner: PathBuf,
        filters: Vec<String>,
    ) -> anyhow::Result<Self> {
        let cannot = || format!("cannot use the folder {}", folder.display());
        std::fs::create_dir_all(folder).with_context(cannot)?;
        let data = TempDir::with_prefix_in("data-", folder).with_context(cannot)?;
        Ok(Self {
            data,
            runner,
            filters,
            report: Report::default(),
        })
    }

    /// Measures the line called `name`, if it is wanted.
    pub(crate) async fn line<F>(
        &mut self,
        name: &'static str,
        measure: impl FnOnce(Bench) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<Figure>>,
    {
        let wanted = |filter: &String| name.contains(filter.as_str());
        if !self.filters.is_empty() && !self.filters.iter().any(wanted) {
            return Ok(());
        }
        self.measure(name, measure).await
    }

    /// Measures a line that takes minutes: only if a filter is its whole name.
    pub(crate) async fn long_line<F>(
        &mut self,
        name: &'static str,
        measure: impl FnOnce(Bench) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<Figure>>,
    {
        if !self.filters.iter().any(|filter| filter == name) {
            return Ok(());
        }
        self.measure(name, measure).await
    }

    async fn measure<F>(
        &mut self,
        name: &'static str,
        measure: impl FnOnce(Bench) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<Figure>>,
    {
        let failed = || format!("cannot measure {name}");
        let folder = TempDir::new_in(&self.data).with_context(failed)?;
        let bench = Bench {
            name,
            folder: folder.path().to_owned(),
            runner: self.runner.clone(),
        };
        bench.progress("starting");
        let measured = measure(bench).await;
        clear_progress();
        match measured {
            Ok(figure) => self.report.add(name, figure),
            Err(error) => {
                let Skipped(reason) = error.downcast().with_context(failed)?;
                self.report.skip(name, reason);
            }
        }
        Ok(())
    }

    /// What was measured.
    ///
    /// # Errors
    /// Where nothing was, which no filter can have meant.
    pub(crate) fn finish(self) -> anyhow::Result<Report> {
        ensure!(!self.report.is_empty(), "no benchmark has such a name");
        Ok(self.report)
    }
}

/// What a benchmark is given.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    name: &'static str,
    folder: PathBuf,
    runner: PathBuf,
}

impl Bench {
    /// The program `alga-runner`.
    pub(crate) fn runner(&self) -> &Path {
        &self.runner
    }

    /// A path in a folder of this benchmark's own, on the disk that is measured.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Tells whoever watches what is being done.
    pub(crate) fn progress(&self, doing: &str) {
        show_progress(&format!("{}: {doing}", self.name));
    }
}

fn clear_progress() {
    show_progress("");
}

/// Overwrites the line of a terminal. Nobody reads progress in a file.
pub(crate) fn show_progress(text: &str) {
    let mut terminal = io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[K{text}");
        let _ = terminal.flush();
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn session(folder: &TempDir) -> Session {
        Session::start(folder.path(), "alga-runner".into(), Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_measured_here_leaves_the_others_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut session = session(&folder);
        let skipped = Skipped("there is no server".to_owned());
        let line = session.line("a", async |_| Err(skipped.into()));
        line.await.unwrap();
        let line = session.line("b", async |_| Ok(Figure::new(1.0, "s")));
        line.await.unwrap();
        assert!(session.finish().unwrap().is_passed());
    }

    #[tokio::test]
    async fn a_line_that_fails_ends_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let line = session(&folder)
            .line("a", async |_| bail!("no answer"))
            .await;
        assert_eq!(
            format!("{:#}", line.unwrap_err()),
            "cannot measure a: no answer"
        );
    }
}
