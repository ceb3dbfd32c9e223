//! One run of the benchmarks: which of them, where, and what came of them.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::report::{Figure, Report};

/// A run under way. Its databases are removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    data: TempDir,
    filters: Vec<String>,
    report: Report,
}

impl Session {
    /// A run of the benchmarks whose names contain one of `filters`, or of all where there is none.
    pub(crate) fn start(folder: &Path, filters: Vec<String>) -> anyhow::Result<Self> {
        let cannot = || format!("cannot use the folder {}", folder.display());
        std::fs::create_dir_all(folder).with_context(cannot)?;
        let data = TempDir::with_prefix_in("data-", folder).with_context(cannot)?;
        Ok(Self {
            data,
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
        };
        bench.progress("starting");
        let figure = measure(bench).await.with_context(failed)?;
        clear_progress();
        self.report.add(name, figure);
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
}

impl Bench {
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
