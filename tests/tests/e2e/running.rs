//! Commands that go on for a while.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::deployment::{Deployment, path};

/// Only a failure takes as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command that goes on, and what it prints.
pub(crate) struct Running {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    said: mpsc::UnboundedReceiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            lines: lines_of(child.stdout.take().unwrap()),
            said: lines_of(child.stderr.take().unwrap()),
            child,
        }
    }

    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.recv()).await;
        line.expect("nothing is printed").expect("it has ended")
    }

    /// Waits until something is said on standard error that holds the text.
    pub(crate) async fn until_said(&mut self, text: &str) {
        loop {
            let line = timeout(PATIENCE, self.said.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("{text} is not said"));
            if line.expect("it has ended").contains(text) {
                return;
            }
        }
    }

    /// What Ctrl-C does; true where it ended well.
    pub(crate) fn interrupt(self) -> bool {
        self.press_ctrl_c();
        self.end() == Some(0)
    }

    pub(crate) fn press_ctrl_c(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn lines_of(from: impl std::io::Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (send, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // The test has heard enough.
            let _ = send.send(line);
        }
    });
    lines
}

impl Deployment {
    /// A command that asks the server.
    pub(crate) fn asking(&self, arguments: &[&str]) -> Command {
        let token = self.data().join("admin.token");
        let mut command = self.command(arguments);
        command.args(["--server", self.url(), "--token-file", path(&token)]);
        command
    }

    pub(crate) fn asked(&self, arguments: &[&str]) -> String {
        let output = self.asking(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}
