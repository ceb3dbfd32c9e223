//! The program `alga-runner`, its commands, and the process of its server.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, ensure};

/// Lines that are kept of the log, in case it matters what the last ones were.
const LAST_LINES: usize = 10;

/// The program, on a data folder of its own and with its defaults where nothing else is set.
#[derive(Debug)]
pub(crate) struct Program {
    file: PathBuf,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
}

/// A server that listens. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    url: String,
    data: PathBuf,
    log: Arc<Mutex<Log>>,
}

#[derive(Debug, Default)]
struct Log {
    last: VecDeque<String>,
    errors: Vec<String>,
}

impl Program {
    pub(crate) fn new(file: &Path, folder: &Path) -> Self {
        Self {
            file: file.to_owned(),
            folder: folder.to_owned(),
            settings: Vec::new(),
        }
    }

    /// Has a setting in a variable of its environment.
    pub(crate) fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.settings.push((variable, value.into()));
    }

    /// A place for files that the program is given.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs a command that must succeed.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> anyhow::Result<()> {
        let output = self.command().args(arguments).output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the command failed: {errors}");
        Ok(())
    }

    /// Starts the server on a free port and waits until it listens.
    pub(crate) fn serve(&self) -> anyhow::Result<Server> {
        let mut child = self
            .command()
            .args(["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.file.display()))?;
        let out = child.stdout.take().context("it has no output")?;
        let errors = child.stderr.take().context("it has no log")?;
        let log = Arc::<Mutex<Log>>::default();
        let heard = Arc::clone(&log);
        std::thread::spawn(move || listen(errors, &heard));
        let mut server = Server {
            child,
            url: String::new(),
            data: self.data(),
            log,
        };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ");
        url.context("the server did not start")?
            .clone_into(&mut server.url);
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        command
            .env_clear()
            .env("ALGA_DATA_DIR", self.data())
            .env("ALGA_LOG_FORMAT", "json")
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }
}

impl Server {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The administrator's token that the server made for itself.
    pub(crate) fn admin_token(&self) -> anyhow::Result<String> {
        self.secret("admin.token")
    }

    /// The service token that the server made for itself.
    pub(crate) fn service_token(&self) -> anyhow::Result<String> {
        self.secret("service.token")
    }

    fn secret(&self, file: &str) -> anyhow::Result<String> {
        let secret = std::fs::read_to_string(self.data.join(file))?;
        Ok(secret.trim().to_owned())
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        let log = lock(&self.log);
        log.last
            .iter()
            .fold(String::new(), |all, line| all + line + "\n")
    }

    /// The first errors that it logged.
    pub(crate) fn errors(&self) -> Vec<String> {
        lock(&self.log).errors.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its data is removed next, so nobody minds how it ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(errors: ChildStderr, log: &Mutex<Log>) {
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        let mut log = lock(log);
        if line.contains(r#""level":"ERROR""#) && log.errors.len() < LAST_LINES {
            log.errors.push(line.clone());
        }
        log.last.push_back(line);
        if log.last.len() > LAST_LINES {
            log.last.pop_front();
        }
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
