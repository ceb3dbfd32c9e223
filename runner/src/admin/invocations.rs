//! The invocations of an install that the process remembers.

use std::str::FromStr;

use alga_host_api::LogSource;
use alga_model::{InstallId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::{AdminError, Missing};
use super::members::Members;
use super::operation::{Answer, Ask, Method, Operation, Parameters};
use super::{Admin, Author, schema};
use crate::activity::{Invocation, Line, LineLevel};
use crate::execute::{OK, OUTCOMES};

/// The most invocations of an answer: as many as are remembered.
const MAX_ITEMS: u32 = 100;

/// `GET /v1/installs/{install_id}/invocations`.
#[derive(Debug)]
pub struct ListInvocations;

/// `GET /v1/installs/{install_id}/invocations/{invocation_id}`.
#[derive(Debug)]
pub struct ShowInvocation;

/// Which invocations are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InvocationQuery {
    /// Only those that ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Only those that were not answered.
    pub failed: bool,
    /// The most wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Invocations that have ended, the last one first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvocationList {
    /// The invocations.
    pub items: Vec<InvocationBody>,
}

/// An invocation that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvocationBody {
    /// Its id.
    pub invocation_id: Uuid,
    /// The request that it answered.
    pub request_id: String,
    /// When it ended.
    pub time: Timestamp,
    /// `OK`, or the code that its caller was answered with.
    pub outcome: String,
    /// The status that the guest answered with, if it did.
    pub status: Option<u16>,
    /// How long its caller waited.
    pub duration_ms: u64,
    /// Bytes of memory it had in the end, if it ran to an end.
    pub memory_bytes: Option<u64>,
    /// Host calls it made, if it ran to an end.
    pub host_calls: Option<u64>,
    /// Lines it wrote.
    pub log_lines: u32,
    /// Lines beyond what an invocation may write.
    pub dropped_lines: u32,
    /// The version that ran.
    pub version: String,
}

/// An invocation and what it wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvocationDetailBody {
    /// How it ended.
    #[serde(flatten)]
    pub invocation: InvocationBody,
    /// Those of its lines that are remembered; `logLines` tells how many there were.
    pub lines: Vec<LineBody>,
}

/// A line that a guest wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LineBody {
    /// When.
    pub time: Timestamp,
    /// How much it matters, as the guest says.
    pub level: LineLevel,
    /// Where it was written: `log`, `stdout` or `stderr`.
    pub source: String,
    /// What it says.
    pub message: String,
    /// The invocation that wrote it.
    pub invocation_id: Uuid,
    /// The request that it answered.
    pub request_id: String,
    /// The version that ran.
    pub version: String,
}

impl InvocationBody {
    /// Whether it was not answered.
    pub fn is_failed(&self) -> bool {
        self.outcome != OK
    }
}

impl InvocationQuery {
    fn wants(&self, invocation: &Invocation) -> bool {
        self.outcome
            .is_none_or(|outcome| outcome.0 == invocation.outcome)
            && !(self.failed && invocation.outcome == OK)
    }
}

impl Operation for ListInvocations {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/installs/{install_id}/invocations";
    const SUMMARY: &'static str =
        "Lists the last invocations of an install in this process, the last one first";
    const REFUSALS: &'static [(u16, &'static str)] = &[(400, "BAD_REQUEST"), (404, "NOT_FOUND")];

    type Target = InstallId;
    type Query = InvocationQuery;
    type Body = ();
    type Answer = InvocationList;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<InvocationList, AdminError> {
        let install = admin.find(by, ask.target).await?;
        let found = admin.activity()?.invocations(install.id);
        let wanted = found
            .iter()
            .filter(|invocation| ask.query.wants(invocation));
        let limit = ask.query.limit.unwrap_or(MAX_ITEMS);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(InvocationList {
            items: wanted.take(limit).map(InvocationBody::from).collect(),
        })
    }
}

impl Operation for ShowInvocation {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/installs/{install_id}/invocations/{invocation_id}";
    const SUMMARY: &'static str =
        "Shows an invocation that this process remembers, with the lines that it wrote";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = (InstallId, Uuid);
    type Query = ();
    type Body = ();
    type Answer = InvocationDetailBody;

    async fn run(
        admin: &Admin,
        by: &Author,
        ask: Ask<Self>,
    ) -> Result<InvocationDetailBody, AdminError> {
        let (install, id) = ask.target;
        let install = admin.find(by, install).await?;
        let found = admin.activity()?.invocation(install.id, id);
        let (invocation, lines) = found.ok_or(AdminError::NotFound(Missing::Invocation(id)))?;
        Ok(InvocationDetailBody {
            invocation: (&invocation).into(),
            lines: lines.iter().map(LineBody::from).collect(),
        })
    }
}

impl From<&Invocation> for InvocationBody {
    fn from(invocation: &Invocation) -> Self {
        let subject = &invocation.subject;
        Self {
            invocation_id: subject.invocation,
            request_id: subject.request_id.to_string(),
            time: invocation.time,
            outcome: invocation.outcome.to_owned(),
            status: invocation.status,
            duration_ms: invocation.duration_ms,
            memory_bytes: invocation.memory_bytes,
            host_calls: invocation.host_calls,
            log_lines: invocation.log_lines,
            dropped_lines: invocation.dropped_lines,
            version: subject.version.to_string(),
        }
    }
}

impl From<&Line> for LineBody {
    fn from(line: &Line) -> Self {
        let source = match line.source {
            LogSource::Logging => "log",
            LogSource::Stdout => "stdout",
            LogSource::Stderr => "stderr",
        };
        Self {
            time: line.time,
            level: line.level,
            source: source.to_owned(),
            message: line.message.to_string(),
            invocation_id: line.subject.invocation,
            request_id: line.subject.request_id.to_string(),
            version: line.subject.version.to_string(),
        }
    }
}

impl Parameters for InvocationQuery {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            outcome: members.text("outcome"),
            failed: members.text("failed").unwrap_or_default(),
            limit: members
                .text("limit")
                .map(|Count::<1, MAX_ITEMS>(limit)| limit),
        })
    }

    fn schema() -> Value {
        schema::parameters(
            &[],
            &[
                ("outcome", json!({ "enum": OUTCOMES })),
                ("failed", json!({ "type": "boolean", "default": false })),
                (
                    "limit",
                    json!({ "type": "integer", "minimum": 1, "maximum": MAX_ITEMS, "default": MAX_ITEMS }),
                ),
            ],
        )
    }
}

/// How an invocation can have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outcome(&'static str);

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = OUTCOMES.into_iter().find(|outcome| *outcome == text);
        known
            .map(Self)
            .ok_or_else(|| format!("expected one of {}", OUTCOMES.join(", ")))
    }
}

/// A number from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count<const LEAST: u32, const MOST: u32>(pub(super) u32);

impl<const LEAST: u32, const MOST: u32> FromStr for Count<LEAST, MOST> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|count| (LEAST..=MOST).contains(count))
            .map(Self)
            .ok_or_else(|| format!("expected a number from {LEAST} to {MOST}"))
    }
}

impl Answer for InvocationList {
    const NAME: &'static str = "InvocationList";

    fn schema() -> Value {
        schema::answer(&[("items", schema::list(&schema::answer(&invocation())))])
    }
}

impl Answer for InvocationDetailBody {
    const NAME: &'static str = "InvocationDetail";

    fn schema() -> Value {
        let lines = ("lines", schema::list(&schema::answer(&line())));
        schema::answer(&[&invocation()[..], &[lines]].concat())
    }
}

fn invocation() -> Vec<(&'static str, Value)> {
    vec![
        ("invocationId", schema::uuid()),
        ("requestId", schema::text()),
        ("time", schema::time()),
        (
            "outcome",
            json!({ "type": "string", "examples": ["OK", "GUEST_TRAP"] }),
        ),
        ("status", schema::nullable(&schema::count())),
        ("durationMs", schema::count()),
        ("memoryBytes", schema::nullable(&schema::count())),
        ("hostCalls", schema::nullable(&schema::count())),
        ("logLines", schema::count()),
        ("droppedLines", schema::count()),
        ("version", schema::text()),
    ]
}

fn line() -> Vec<(&'static str, Value)> {
    vec![
        ("time", schema::time()),
        (
            "level",
            json!({ "enum": LineLevel::ALL.map(LineLevel::as_str) }),
        ),
        ("source", json!({ "enum": ["log", "stdout", "stderr"] })),
        ("message", schema::text()),
        ("invocationId", schema::uuid()),
        ("requestId", schema::text()),
        ("version", schema::text()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_no_invocation_has_is_refused_with_those_there_are() {
        for outcome in OUTCOMES {
            assert_eq!(outcome.parse(), Ok(Outcome(outcome)));
        }
        for text in ["", "ok", "CONCURRENCY_LIMITED", "OK,TIMEOUT"] {
            let refused = text.parse::<Outcome>().unwrap_err();
            assert!(
                refused.starts_with("expected one of OK, CANCELLED, "),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_limit_is_within_its_bounds() {
        let limit = |text: &str| text.parse::<Count<1, MAX_ITEMS>>().ok().map(|it| it.0);
        assert_eq!([limit("1"), limit("100")], [Some(1), Some(100)]);
        for text in ["0", "101", "-1", "", "1.0", "99999999999999999999"] {
            assert_eq!(limit(text), None, "{text}");
        }
    }
}
