//! `alga-runner storage`: the records of an install, through the same gate as its guest's.

use std::io::Read as _;
use std::process::ExitCode;

use alga_model::{InstallId, Timestamp};
use alga_registry::InstallState;
use alga_storage::{
    Actor, BulkItem, Caller, Gate, GetRequest, Guard, JsonText, Key, KeyRange, ListRequest, Listed,
    Namespace, PutRequest, Revision,
};
use anyhow::ensure;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::bundle::ACTOR;
use super::install::find;
use super::output;
use crate::app::Stores;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the value of a record
    Get(Get),
    /// Write a record; prints its revision
    Put(Put),
    /// Print records as JSON lines, in key order
    List(List),
}

#[derive(Debug, Args)]
struct Place {
    /// The install
    install: InstallId,
    /// The namespace
    namespace: String,
}

#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    place: Place,
    /// The key
    key: String,
}

#[derive(Debug, Args)]
pub(super) struct Put {
    #[command(flatten)]
    place: Place,
    /// The key
    key: String,
    /// The value, as JSON; `-` reads it from standard input
    value: String,
    /// A JSON object to keep beside the value
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Let the record vanish after this time
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u64>,
    /// Write only if the record has this revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Write only if there is no such record
    #[arg(long, conflicts_with = "if_revision")]
    if_absent: bool,
    /// Write only if there is such a record
    #[arg(long, conflicts_with_all = ["if_revision", "if_absent"])]
    if_exists: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    place: Place,
    /// Only keys that start with this
    #[arg(long)]
    prefix: Option<String>,
    /// Last key first
    #[arg(long)]
    reverse: bool,
    /// At most this many records; all of them if not given
    #[arg(long)]
    limit: Option<u32>,
    /// Print values and metadata as well
    #[arg(long)]
    values: bool,
}

impl Command {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let stores = Stores::open_existing(config).await?;
        let (_, gate) = stores.gate(config);
        let install = find(&stores, self.install()).await?;
        ensure!(
            install.state == InstallState::Enabled,
            "the install {} is {}",
            install.id,
            install.state.as_str()
        );
        match self {
            Self::Get(command) => command.run(&gate).await?,
            Self::Put(command) => command.run(&gate).await?,
            Self::List(command) => command.run(&gate).await?,
        }
        stores.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

impl Command {
    const fn install(&self) -> InstallId {
        match self {
            Self::Get(command) => command.place.install,
            Self::Put(command) => command.place.install,
            Self::List(command) => command.place.install,
        }
    }
}

impl Get {
    async fn run(self, gate: &Gate) -> anyhow::Result<()> {
        let request = GetRequest {
            namespace: Namespace::parse(self.place.namespace)?,
            key: Key::parse(self.key)?,
            if_revision: None,
        };
        let record = gate.get(&caller(self.place.install), request).await?;
        output::note(format_args!(
            "revision {}, written {}",
            record.revision, record.updated_at
        ));
        Ok(output::line(record.value.as_str())?)
    }
}

impl Put {
    async fn run(self, gate: &Gate) -> anyhow::Result<()> {
        let guard = self.guard()?;
        let value = if self.value == "-" {
            std::io::read_to_string(std::io::stdin().lock().take(MAX_INPUT))?
        } else {
            self.value
        };
        let item = BulkItem {
            key: Key::parse(self.key)?,
            value,
            metadata: self.metadata,
            ttl_seconds: self.ttl,
            schema_version: None,
            guard,
        };
        let namespace = Namespace::parse(self.place.namespace)?;
        let request = PutRequest {
            namespace,
            item,
            return_previous: false,
            return_current: false,
        };
        let written = gate.put(&caller(self.place.install), request).await?;
        Ok(output::line(written.revision)?)
    }

    fn guard(&self) -> Result<Guard, alga_storage::Error> {
        Ok(match self.if_revision {
            Some(revision) => Guard::Exactly(Revision::parse(revision)?),
            None if self.if_absent => Guard::Absent,
            None if self.if_exists => Guard::Exists,
            None => Guard::Any,
        })
    }
}

/// More than any value may have; the gate says so then.
const MAX_INPUT: u64 = 1 << 20;

impl List {
    async fn run(self, gate: &Gate) -> anyhow::Result<()> {
        let caller = caller(self.place.install);
        let mut left = self.limit.unwrap_or(u32::MAX);
        let mut request = ListRequest {
            namespace: Namespace::parse(self.place.namespace)?,
            range: KeyRange::parse(self.prefix.as_deref(), None, None)?,
            reverse: self.reverse,
            limit: None,
            cursor: None,
            include_values: self.values,
            include_metadata: self.values,
        };
        while left > 0 {
            request.limit = Some(left.min(PAGE));
            let page = gate.list(&caller, request.clone()).await?;
            left = left.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
            for record in page.items {
                output::line(json_line(record)?)?;
            }
            match page.next_cursor {
                Some(cursor) => request.cursor = Some(cursor),
                None => break,
            }
        }
        Ok(())
    }
}

const PAGE: u32 = 1_000;

/// A record in the shape the storage API gives it. Values go out as they were stored, not as a
/// parser would write them again.
fn json_line(record: Listed) -> anyhow::Result<String> {
    let raw = |text: Option<JsonText>| {
        text.map(|text| RawValue::from_string(text.into_string()))
            .transpose()
    };
    let line = RecordLine {
        key: record.key.as_str(),
        revision: record.revision.get(),
        value: raw(record.value)?,
        metadata: raw(record.metadata)?,
        ttl_expires_at: record.expires_at,
        created_at: record.created_at,
        updated_at: record.updated_at,
    };
    Ok(serde_json::to_string(&line)?)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordLine<'a> {
    key: &'a str,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    ttl_expires_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

fn caller(install: InstallId) -> Caller {
    Caller {
        install,
        actor: Actor::Admin(ACTOR.into()),
        request_id: Uuid::now_v7().to_string().into(),
        may_use_storage: true,
    }
}
