//! `alga-runner install logs`.

use std::time::Duration;

use alga_model::InstallId;
use anyhow::bail;
use clap::Args;

use super::text::Style;
use crate::activity::LineLevel;
use crate::admin::{Administration, LogEvent, LogsQuery, RemoteLogs, TailEnd};
use crate::cli::output;

/// How long to wait before the server is asked again for the first time; twice as long each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest that is waited.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(in crate::cli) struct Logs {
    /// The install
    install: InstallId,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only lines of this level or a higher one: trace, debug, info, warn or error
    #[arg(long, value_name = "LEVEL", default_value = "trace")]
    level: LineLevel,
    /// Print lines alone, not how invocations ended
    #[arg(long)]
    lines_only: bool,
    /// Begin with so many of the last lines and ends of invocations, at most 356
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    backlog: u32,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints events, and knows where to go on.
struct Printer {
    json: bool,
    style: Style,
    /// The last event that was printed.
    seen: Option<String>,
}

impl Logs {
    pub(super) async fn run(self, admin: &Administration, style: Style) -> anyhow::Result<()> {
        tokio::select! {
            done = self.print(admin, style) => done,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    }

    async fn print(&self, admin: &Administration, style: Style) -> anyhow::Result<()> {
        let mut printer = Printer {
            json: self.json,
            style,
            seen: None,
        };
        // Whoever mistyped something learns it at once.
        let mut logs = admin.logs(self.install, &self.query(), None).await?;
        while let Some(why) = printer.print_all(&mut logs).await? {
            if !self.follow {
                bail!(why);
            }
            logs = self.ask_again(admin, printer.seen.as_deref(), why).await?;
        }
        Ok(())
    }

    /// Asks until the server answers, or says that it won't.
    async fn ask_again(
        &self,
        admin: &Administration,
        after: Option<&str>,
        mut why: String,
    ) -> anyhow::Result<RemoteLogs> {
        let mut wait = FIRST_WAIT;
        loop {
            let seconds = wait.as_secs_f32();
            output::note(format_args!("{why}; asking again in {seconds} s"));
            tokio::time::sleep(wait).await;
            match admin.logs(self.install, &self.query(), after).await {
                Ok(logs) => {
                    output::note("connected again");
                    return Ok(logs);
                }
                Err(refused) if refused.is_passing() => why = refused.to_string(),
                Err(refused) => return Err(refused.into()),
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    const fn query(&self) -> LogsQuery {
        LogsQuery {
            level: self.level,
            invocations: !self.lines_only,
            backlog: self.backlog,
            follow: self.follow,
        }
    }
}

impl Printer {
    /// Prints what comes; nothing where all has come, or else why not.
    async fn print_all(&mut self, logs: &mut RemoteLogs) -> anyhow::Result<Option<String>> {
        loop {
            let entry = match logs.next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(Some("the server ended the connection".to_owned())),
                Err(refused) => return Ok(Some(refused.to_string())),
            };
            if let LogEvent::End(end) = entry.event {
                return match end.reason {
                    TailEnd::Done => Ok(None),
                    TailEnd::Draining => Ok(Some("the server stops".to_owned())),
                    TailEnd::Uninstalled => {
                        output::note("the install is uninstalled");
                        Ok(None)
                    }
                    TailEnd::Forbidden => bail!("the token is not good for the install any more"),
                };
            }
            if self.json {
                output::json(&entry.event)?;
            } else {
                output::line(self.style.event(&entry.event))?;
            }
            self.seen = entry.id.or(self.seen.take());
        }
    }
}
