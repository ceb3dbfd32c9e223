//! `alga-runner install invocations`.

use alga_model::InstallId;
use clap::Args;
use uuid::Uuid;

use super::text::{Style, memory, visible};
use crate::admin::{
    Administration, Ask, InvocationBody, InvocationQuery, ListInvocations, LogEvent, Outcome,
    ShowInvocation,
};
use crate::cli::output;

#[derive(Debug, Args)]
pub(in crate::cli) struct Invocations {
    /// The install
    install: InstallId,
    /// Only this one, with the lines that it wrote
    invocation: Option<Uuid>,
    /// Only those that were not answered
    #[arg(long, conflicts_with = "invocation")]
    failed: bool,
    /// Only those that ended with this code, such as `GUEST_TRAP`; OK are those that were answered
    #[arg(long, value_name = "CODE", conflicts_with = "invocation")]
    outcome: Option<Outcome>,
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

impl Invocations {
    pub(super) async fn run(self, admin: &Administration, style: Style) -> anyhow::Result<()> {
        match self.invocation {
            Some(invocation) => self.show(admin, invocation, style).await,
            None => self.list(admin).await,
        }
    }

    async fn list(self, admin: &Administration) -> anyhow::Result<()> {
        let query = InvocationQuery {
            outcome: self.outcome,
            failed: self.failed,
            limit: None,
        };
        let ask = Ask::<ListInvocations>::by(self.install, query);
        let found = admin.ask(ask).await?.items;
        if self.json {
            return Ok(found.iter().try_for_each(output::json)?);
        }
        let rows: Vec<_> = found.iter().map(row).collect();
        Ok(output::table(
            [
                "ENDED",
                "OUTCOME",
                "STATUS",
                "MS",
                "MEMORY",
                "HOST CALLS",
                "LINES",
                "VERSION",
                "INVOCATION",
                "REQUEST",
            ],
            &rows,
        )?)
    }

    async fn show(
        self,
        admin: &Administration,
        invocation: Uuid,
        style: Style,
    ) -> anyhow::Result<()> {
        let ask = Ask::<ShowInvocation>::of((self.install, invocation));
        let found = admin.ask(ask).await?;
        if self.json {
            return Ok(output::json(&found)?);
        }
        for line in found.lines {
            output::line(style.event(&LogEvent::Line(line)))?;
        }
        Ok(output::line(
            style.event(&LogEvent::Invocation(found.invocation)),
        )?)
    }
}

fn row(invocation: &InvocationBody) -> [String; 10] {
    let InvocationBody {
        invocation_id,
        request_id,
        time,
        outcome,
        status,
        duration_ms,
        memory_bytes,
        host_calls,
        log_lines,
        dropped_lines,
        version,
    } = invocation;
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let lines = match dropped_lines {
        0 => log_lines.to_string(),
        dropped => format!("{log_lines}+{dropped}"),
    };
    [
        time.to_string(),
        visible(outcome),
        or_dash(status.map(|status| status.to_string())),
        duration_ms.to_string(),
        or_dash(memory_bytes.map(memory)),
        or_dash(host_calls.map(|calls| calls.to_string())),
        lines,
        visible(version),
        invocation_id.to_string(),
        visible(request_id),
    ]
}
