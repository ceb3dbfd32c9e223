//! Reading records.

use alga_storage::{Error, GetManyRequest, GetRequest, KeyRange, ListRequest, Page, Revision};
use clap::Args;

use super::lines::{MissLine, listed, record};
use super::refusal::Refusal;
use super::{Door, Place, key};
use crate::cli::output;

#[derive(Debug, Args)]
pub(in crate::cli) struct Get {
    #[command(flatten)]
    pub(super) place: Place,
    /// The key
    key: String,
    /// Fail unless the record has this revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct GetMany {
    #[command(flatten)]
    pub(super) place: Place,
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    pub(super) place: Place,
    /// Only keys that start with this
    #[arg(long)]
    prefix: Option<String>,
    /// Only this key and those after it
    #[arg(long, value_name = "KEY")]
    start: Option<String>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    end: Option<String>,
    /// Last key first
    #[arg(long)]
    reverse: bool,
    /// At most this many records; all of them if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Print values and metadata as well
    #[arg(long)]
    values: bool,
}

impl Get {
    pub(super) async fn run(self, door: &Door) -> anyhow::Result<()> {
        let if_revision = self.if_revision.map(Revision::parse);
        let request = GetRequest {
            namespace: self.place.namespace()?,
            key: key(self.key)?,
            if_revision: if_revision.transpose().map_err(Refusal::from)?,
        };
        let found = door.gate.get(&door.caller, request).await;
        let record = found.map_err(|error| door.refusal(error))?;
        output::note(format_args!(
            "revision {}, written {}",
            record.revision, record.updated_at
        ));
        Ok(output::line(record.value.as_str())?)
    }
}

impl GetMany {
    pub(super) async fn run(self, door: &Door) -> anyhow::Result<()> {
        let namespace = self.place.namespace()?;
        let keys = self.keys.into_iter().map(key);
        let keys = keys.collect::<anyhow::Result<Vec<_>>>()?;
        let request = GetManyRequest {
            namespace: namespace.clone(),
            keys: keys.clone(),
        };
        let found = door.gate.get_many(&door.caller, request).await;
        let found = found.map_err(|error| door.refusal(error))?;
        for (key, found) in keys.iter().zip(found) {
            match found {
                Some(found) => output::json(&record(&namespace, found)?)?,
                None => output::json(&MissLine::of(key))?,
            }
        }
        Ok(())
    }
}

impl List {
    pub(super) async fn run(self, door: &Door) -> anyhow::Result<()> {
        let (most_of_page, _) = door.limits.request.page_items;
        let mut left = self.limit.unwrap_or(u32::MAX);
        let range = KeyRange::parse(
            self.prefix.as_deref(),
            self.start.as_deref(),
            self.end.as_deref(),
        );
        let mut request = ListRequest {
            namespace: self.place.namespace()?,
            range: range.map_err(Refusal::from)?,
            reverse: self.reverse,
            limit: None,
            cursor: None,
            include_values: self.values,
            include_metadata: self.values,
        };
        while left > 0 {
            request.limit = Some(left.min(most_of_page));
            let page = patient_list(door, &request).await?;
            left = left.saturating_sub(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
            for record in page.items {
                output::json(&listed(&request.namespace, record)?)?;
            }
            match page.next_cursor {
                Some(cursor) => request.cursor = Some(cursor),
                None => break,
            }
        }
        Ok(())
    }
}

/// A page, as soon as the rate allows it: a long listing is one command, however many pages it has.
async fn patient_list(door: &Door, request: &ListRequest) -> Result<Page, Refusal> {
    loop {
        match door.gate.list(&door.caller, request.clone()).await {
            Err(Error::RateLimited { retry_after }) => tokio::time::sleep(retry_after).await,
            listed => return listed.map_err(|error| door.refusal(error)),
        }
    }
}
