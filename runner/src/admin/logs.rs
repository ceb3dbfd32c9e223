//! Following what an install does, in the process that runs it.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use alga_model::InstallId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior};

use super::client::Lines;
use super::error::AdminError;
use super::invocations::{Count, InvocationBody, LineBody};
use super::members::Members;
use super::mistakes::Mistakes;
use super::operation::Parameters;
use super::{Admin, Author, Refused, schema};
use crate::activity::{Begin, Event, EventId, Filter, LineLevel, Tail, Tailed};
use crate::installs::Installs;

/// The events that a tail begins with where the request doesn't say.
const DEFAULT_BACKLOG: u32 = 50;
/// The most events that a tail can begin with: as many as are kept.
const MAX_BACKLOG: u32 = 356;
/// How often is looked whether the install is still there for the caller.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What of an install's doings is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogsQuery {
    /// Only lines of this level or a higher one.
    pub level: LineLevel,
    /// Whether the ends of invocations are told.
    pub invocations: bool,
    /// The most events of the past to begin with.
    pub backlog: u32,
    /// Whether to go on with what happens from now on.
    pub follow: bool,
}

/// Something that is told to who follows an install.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum LogEvent {
    /// A guest wrote a line.
    Line(LineBody),
    /// An invocation ended.
    Invocation(InvocationBody),
    /// Events are lost.
    Gap(GapBody),
    /// There is nothing more.
    End(EndBody),
}

/// How much is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapBody {
    /// So many events, those that were not asked for among them; nobody knows how many where this is
    /// absent.
    pub missed: Option<u64>,
}

/// The end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndBody {
    /// Why.
    pub reason: TailEnd,
}

/// Why a tail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TailEnd {
    /// All of the past is told, and no more was asked for.
    Done,
    /// The install is uninstalled.
    Uninstalled,
    /// The caller may not know of the install any more.
    Forbidden,
    /// The server stops.
    Draining,
}

/// An event with what it is known by, where that is anything.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// With which to go on after it.
    pub id: Option<String>,
    /// What it is.
    pub event: LogEvent,
}

/// Tells what an install does until there is nothing more to tell.
#[derive(Debug)]
pub struct LogTail {
    tail: Tail,
    install: InstallId,
    installs: Arc<Installs>,
    by: Author,
    follow: bool,
    checks: Interval,
    has_ended: bool,
}

impl LogsQuery {
    /// Where a server answers it, as server-sent events.
    pub const PATH: &'static str = "/v1/installs/{install_id}/logs";
    /// What the answer is.
    pub const SUMMARY: &'static str = "Follows the log lines of an install and the ends of its invocations, as server-sent events of the types line, invocation, gap and end";
}

impl Default for LogsQuery {
    fn default() -> Self {
        Self {
            level: LineLevel::Trace,
            invocations: true,
            backlog: DEFAULT_BACKLOG,
            follow: true,
        }
    }
}

impl Parameters for LogsQuery {
    fn read(members: &mut Members) -> Option<Self> {
        let otherwise = Self::default();
        Some(Self {
            level: members.text("level").unwrap_or(otherwise.level),
            invocations: members.text("invocations").unwrap_or(otherwise.invocations),
            backlog: members
                .text("backlog")
                .map_or(otherwise.backlog, |Count::<0, MAX_BACKLOG>(count)| count),
            follow: members.text("follow").unwrap_or(otherwise.follow),
        })
    }

    fn schema() -> Value {
        let levels = LineLevel::ALL.map(LineLevel::as_str);
        let truth = json!({ "type": "boolean", "default": true });
        schema::parameters(
            &[],
            &[
                ("level", json!({ "enum": levels, "default": "trace" })),
                ("invocations", truth.clone()),
                (
                    "backlog",
                    json!({ "type": "integer", "minimum": 0, "maximum": MAX_BACKLOG, "default": DEFAULT_BACKLOG }),
                ),
                ("follow", truth),
            ],
        )
    }
}

impl Admin {
    /// Follows an install from its last events on, or from the one after the event with the id `after`.
    pub async fn logs(
        &self,
        by: &Author,
        install: InstallId,
        query: &LogsQuery,
        after: Option<&str>,
    ) -> Result<LogTail, AdminError> {
        let from = match after.map(EventId::from_str).transpose() {
            Ok(Some(id)) => Begin::After(id),
            Ok(None) => Begin::Last(usize::try_from(query.backlog).unwrap_or(usize::MAX)),
            Err(error) => {
                let mistake = format!("Last-Event-ID: {error}");
                return Err(AdminError::invalid(
                    "the request is",
                    Mistakes::one(mistake),
                ));
            }
        };
        let found = self.find(by, install).await?;
        let filter = Filter {
            level: query.level,
            invocations: query.invocations,
        };
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(LogTail {
            tail: self.activity()?.tail(found.tenant, install, filter, from)?,
            install,
            installs: Arc::clone(&self.installs),
            by: by.clone(),
            follow: query.follow,
            checks,
            has_ended: false,
        })
    }
}

impl LogTail {
    /// What there is to tell, as soon as there is something; nothing at the end. It loses nothing
    /// where it is dropped.
    pub async fn next(&mut self) -> Option<Vec<LogEntry>> {
        if self.has_ended {
            return None;
        }
        let end = loop {
            if self.tail.has_backlog() {
                let taken = self.tail.take();
                if !taken.is_empty() {
                    return Some(taken.into_iter().map(LogEntry::from).collect());
                }
                continue;
            }
            if !self.follow {
                break TailEnd::Done;
            }
            tokio::select! {
                biased;
                _ = self.checks.tick() => {
                    if let Some(end) = check(&self.installs, &self.by, self.install).await {
                        break end;
                    }
                }
                taken = self.tail.next() => match taken {
                    Some(taken) => return Some(taken.into_iter().map(LogEntry::from).collect()),
                    None => break TailEnd::Draining,
                },
            }
        };
        self.has_ended = true;
        Some(vec![LogEntry {
            id: None,
            event: LogEvent::End(EndBody { reason: end }),
        }])
    }
}

/// Why there is nothing more to tell, if there isn't.
async fn check(installs: &Installs, by: &Author, install: InstallId) -> Option<TailEnd> {
    match installs.find(install).await {
        Ok(Some(known)) => {
            let is_allowed = by.scope.allows(known.install.tenant, install);
            (!is_allowed).then_some(TailEnd::Forbidden)
        }
        Ok(None) => Some(TailEnd::Uninstalled),
        // Nothing is known to have changed.
        Err(_) => None,
    }
}

impl From<Tailed> for LogEntry {
    fn from(tailed: Tailed) -> Self {
        let (id, event) = match tailed {
            Tailed::Event(id, Event::Line(line)) => (id, LogEvent::Line((&line).into())),
            Tailed::Event(id, Event::Invocation(invocation)) => {
                (id, LogEvent::Invocation((&invocation).into()))
            }
            Tailed::Gap(id, missed) => (id, LogEvent::Gap(GapBody { missed })),
        };
        Self {
            id: Some(id.to_string()),
            event,
        }
    }
}

/// As a server-sent event. JSON has no raw line break, so that no guest can begin another one.
impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn json(value: &impl Serialize) -> String {
            serde_json::to_string(value).expect("texts, numbers and ids have a form in JSON")
        }
        let (name, data) = match &self.event {
            LogEvent::Line(line) => ("line", json(line)),
            LogEvent::Invocation(invocation) => ("invocation", json(invocation)),
            LogEvent::Gap(gap) => ("gap", json(gap)),
            LogEvent::End(end) => ("end", json(end)),
        };
        if let Some(id) = &self.id {
            writeln!(f, "id: {id}")?;
        }
        write!(f, "event: {name}\ndata: {data}\n\n")
    }
}

/// What a server tells of an install.
#[derive(Debug)]
pub struct RemoteLogs(Lines);

impl RemoteLogs {
    pub(super) const fn new(lines: Lines) -> Self {
        Self(lines)
    }

    /// The next event, as soon as there is one; nothing where the server said no more.
    pub async fn next(&mut self) -> Result<Option<LogEntry>, Refused> {
        let mut block = Vec::new();
        while let Some(line) = self.0.next_line().await? {
            if !line.is_empty() {
                block.push(line);
                continue;
            }
            let parsed = parse(std::mem::take(&mut block)).map_err(|error| {
                Refused::unanswered("the server's events make no sense", Some(error.into()))
            })?;
            if let Some(entry) = parsed {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// An event out of its lines, by the rules of server-sent events; none where it is of a type that
/// this release doesn't know, or has no data.
fn parse(block: Vec<String>) -> Result<Option<LogEntry>, serde_json::Error> {
    let (mut id, mut name, mut data) = (None, String::new(), VecDeque::new());
    for line in block {
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "id" => id = Some(value),
            "event" => name = value,
            "data" => data.push_back(value),
            // Comments, and what is none of ours.
            _ => {}
        }
    }
    if data.is_empty() {
        return Ok(None);
    }
    let data = Vec::from(data).join("\n");
    let event = match name.as_str() {
        "line" => LogEvent::Line(serde_json::from_str(&data)?),
        "invocation" => LogEvent::Invocation(serde_json::from_str(&data)?),
        "gap" => LogEvent::Gap(serde_json::from_str(&data)?),
        "end" => LogEvent::End(serde_json::from_str(&data)?),
        _ => return Ok(None),
    };
    Ok(Some(LogEntry { id, event }))
}

#[cfg(test)]
mod tests {
    use alga_model::{TenantId, Timestamp};
    use uuid::Uuid;

    use super::*;
    use crate::activity::RingLimits;
    use crate::stage::Stage;

    fn line(message: &str) -> LogEntry {
        LogEntry {
            id: Some("0000000000000001-7".to_owned()),
            event: LogEvent::Line(LineBody {
                time: Timestamp::from_millis(0),
                level: LineLevel::Warn,
                source: "stderr".to_owned(),
                message: message.to_owned(),
                invocation_id: Uuid::nil(),
                request_id: "req-1".to_owned(),
                version: "1.0.0".to_owned(),
            }),
        }
    }

    const fn ended(reason: TailEnd) -> LogEvent {
        LogEvent::End(EndBody { reason })
    }

    fn parsed(text: &str) -> Vec<LogEntry> {
        let blocks = text.split("\n\n").map(|block| {
            let lines = block.lines().map(str::to_owned).collect();
            parse(lines).unwrap()
        });
        blocks.flatten().collect()
    }

    #[test]
    fn what_a_guest_writes_stays_within_its_event() {
        for hostile in [
            "a\n\nevent: end\ndata: {\"reason\":\"done\"}\n\n",
            "\r\revent: gap\rdata: {}",
            "\u{2028}\u{85}\0",
            "id: 9",
            "",
        ] {
            let entry = line(hostile);
            let text = entry.to_string();
            assert_eq!(text.lines().count(), 4, "{text:?}");
            assert!(!text.contains('\r'), "{text:?}");
            assert_eq!(parsed(&text), [entry]);
        }
    }

    #[test]
    fn every_event_survives_its_text() {
        let without_id = |event| LogEntry { id: None, event };
        let entries = [
            line("x"),
            without_id(LogEvent::Gap(GapBody { missed: None })),
            without_id(LogEvent::Gap(GapBody { missed: Some(3) })),
            without_id(ended(TailEnd::Done)),
            without_id(ended(TailEnd::Draining)),
        ];
        let text: String = entries.iter().map(ToString::to_string).collect();
        assert!(
            text.contains("event: gap\ndata: {\"missed\":null}\n\n"),
            "{text}"
        );
        assert!(
            text.contains("event: end\ndata: {\"reason\":\"draining\"}\n\n"),
            "{text}"
        );
        assert_eq!(parsed(&text), entries);
    }

    #[test]
    fn what_is_no_event_of_ours_is_passed_over() {
        assert_eq!(parsed(": keep-alive\n\n"), []);
        assert_eq!(parsed("event: line\nid: 1\n\n"), []);
        assert_eq!(parsed("event: news\ndata: {}\n\nretry: 5\n\n"), []);
        let split = "event:gap\ndata:{\"missed\":\ndata: 1}\n\n";
        assert_eq!(
            parsed(split)[0].event,
            LogEvent::Gap(GapBody { missed: Some(1) })
        );
        assert!(parse(vec!["event: gap".to_owned(), "data: {".to_owned()]).is_err());
    }

    #[test]
    fn the_longest_backlog_is_all_that_is_kept() {
        let limits = RingLimits::default();
        let kept = limits.lines + limits.invocations;
        assert_eq!(usize::try_from(MAX_BACKLOG).unwrap(), kept);
    }

    #[tokio::test]
    async fn a_tail_ends_with_the_install_and_with_the_process() {
        let stage = Stage::open().await;
        let admin = stage.admin();
        let author = Author::operator("admin");
        let install = stage.install(TenantId::generate()).await;
        let open = async |query| admin.logs(&author, install.id, &query, None).await.unwrap();
        let end = |reason| {
            Some(vec![LogEntry {
                id: None,
                event: ended(reason),
            }])
        };
        let follow = LogsQuery::default();
        let mut done = open(LogsQuery {
            follow: false,
            ..follow.clone()
        })
        .await;
        assert_eq!(done.next().await, end(TailEnd::Done));
        assert_eq!(done.next().await, None);

        let mut foreign = open(follow.clone()).await;
        foreign.by.scope.installs = Some([InstallId::generate()].into());
        assert_eq!(foreign.next().await, end(TailEnd::Forbidden));

        let mut uninstalled = open(follow.clone()).await;
        let state = alga_registry::InstallState::Uninstalled;
        let edited = alga_registry::Registry::set_state(
            &*stage.registry,
            install.id,
            state,
            None,
            stage.change(),
        );
        edited.await.unwrap();
        admin.installs.forget(install.id);
        assert_eq!(uninstalled.next().await, end(TailEnd::Uninstalled));

        let other = stage.install(TenantId::generate()).await;
        let mut draining = admin.logs(&author, other.id, &follow, None).await.unwrap();
        admin.activity().unwrap().close();
        assert_eq!(draining.next().await, end(TailEnd::Draining));
    }
}
