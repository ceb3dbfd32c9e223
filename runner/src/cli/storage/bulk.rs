//! `alga-runner storage bulk-put`: many records, at once or in batches.

use std::io::{self, BufRead, Cursor, IsTerminal as _};
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use alga_storage::{BulkError, BulkItem, BulkPutRequest, Error, Namespace, Written, WrittenBody};
use anyhow::Context as _;
use clap::Args;

use super::items::{Entry, Items, Life, MOST_OF_DOCUMENT, Position, Skipped};
use super::refusal::Refusal;
use super::{Door, Place, quoted};
use crate::cli::input;
use crate::cli::output::{self, Tally};

#[derive(Debug, Args)]
pub(in crate::cli) struct BulkPut {
    #[command(flatten)]
    pub(super) place: Place,
    /// JSON lines, or a JSON array, of `key`, `value` and, where wanted, `metadata`, `ttlSeconds`,
    /// `schemaVersion` and one of `ifRevision` (0: there is none), `ifAbsent`, `ifExists`; or what
    /// `list --values` and `get-many` print; `-` reads standard input
    #[arg(default_value = input::STDIN)]
    file: PathBuf,
    /// Write batches of up to N records, each all or none, instead of everything at once; fewer
    /// where the limits of the install ask for it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    batch: Option<u8>,
}

impl BulkPut {
    pub(super) async fn run(self, door: &Door) -> anyhow::Result<()> {
        let namespace = self.place.namespace()?;
        let life = Life {
            clock: Arc::clone(&door.clock),
            shortest: door.limits.request.ttl.0,
        };
        let mut items = Items::open(self.source()?, life)
            .with_context(|| format!("cannot read {}", input::name(&self.file)))?;
        let mut bulk = Bulk::new(door, namespace, self.batch);
        if let Err(error) = bulk.write_all(&mut items).await {
            let so_far = bulk.so_far(&error);
            return Err(error.context(so_far));
        }
        if items.none_was_read() {
            let file = input::name(&self.file);
            let empty = Refusal::not_valid(format!("nothing to write: {file} has no items"));
            return Err(empty.into());
        }
        Ok(())
    }

    /// What is written at once is read at once; batches may go on for ever.
    fn source(&self) -> anyhow::Result<Box<dyn BufRead>> {
        match self.batch {
            None => {
                let text = input::text(&self.file, MOST_OF_DOCUMENT)?;
                Ok(Box::new(Cursor::new(text)))
            }
            Some(_) => input::open(&self.file),
        }
    }
}

/// A bulk on its way into the storage.
struct Bulk<'a> {
    door: &'a Door,
    namespace: Namespace,
    /// How much one batch may hold; everything where none was asked for.
    room: Option<Room>,
    written: u64,
    /// The last item that was written.
    up_to: Option<Position>,
    tally: Option<Tally>,
    /// Whether anybody reads our output.
    is_read: bool,
}

#[derive(Clone, Copy)]
struct Room {
    items: usize,
    bytes: u64,
}

/// What is written all or none.
#[derive(Default)]
struct Batch {
    positions: Vec<Position>,
    items: Vec<BulkItem>,
    bytes: u64,
}

impl<'a> Bulk<'a> {
    fn new(door: &'a Door, namespace: Namespace, batch: Option<u8>) -> Self {
        let limits = &door.limits.request;
        Self {
            door,
            namespace,
            room: batch.map(|most| Room {
                items: usize::from(most).min(limits.bulk_items),
                bytes: limits.bulk_bytes,
            }),
            written: 0,
            up_to: None,
            // On a terminal the results show as well how far it has come.
            tally: (batch.is_some() && !io::stdout().is_terminal()).then(tally),
            is_read: true,
        }
    }

    async fn write_all(&mut self, items: &mut Items) -> anyhow::Result<()> {
        let mut batch = Batch::default();
        while let Some((position, entry)) = items.read()? {
            match entry {
                Entry::Skipped(skipped) => self.note_skipped(position, &skipped),
                Entry::Item(item) => {
                    if self.room.is_some_and(|room| !batch.has_room(room, &item)) {
                        self.write(mem::take(&mut batch)).await?;
                    }
                    batch.push(position, item);
                }
            }
        }
        if !batch.items.is_empty() {
            self.write(batch).await?;
        }
        Ok(())
    }

    async fn write(&mut self, batch: Batch) -> anyhow::Result<()> {
        let request = BulkPutRequest {
            namespace: self.namespace.clone(),
            items: batch.items,
        };
        let written = patient_bulk_put(self.door, request).await;
        let written = written.map_err(|failed| self.refusal(failed, &batch.positions))?;
        self.written += written.len() as u64;
        self.up_to = batch.positions.last().copied();
        if let Some(tally) = &mut self.tally {
            tally.show(self.written);
        }
        Ok(written.into_iter().try_for_each(|one| self.print(one))?)
    }

    /// Whoever read our output may have had enough of it; the records are written all the same.
    fn print(&mut self, written: Written) -> io::Result<()> {
        if !self.is_read {
            return Ok(());
        }
        // Nothing was replaced that could be damaged.
        let written = WrittenBody::of(written).map_err(io::Error::other)?;
        match output::json(&written) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.is_read = false,
            printed => return printed,
        }
        Ok(())
    }

    fn note_skipped(&mut self, position: Position, Skipped { key, why }: &Skipped) {
        // The former one ends its line.
        self.tally = self.tally.take().map(|_| tally());
        let key = quoted(key.as_str());
        output::note(format_args!("skipped {position}, key {key}: {why}"));
    }

    /// Why a batch failed, whose items are at these positions.
    fn refusal(&self, failed: BulkError, positions: &[Position]) -> anyhow::Error {
        let is_too_much = failed.item.is_none() && matches!(failed.error, Error::LimitExceeded(_));
        let mut reason = self.door.refusal(failed.error);
        if is_too_much && self.room.is_none() {
            reason = reason.hinted("--batch writes as many at a time as are allowed");
        }
        let position = failed.item.as_ref().and_then(|item| {
            let position = positions.get(item.index)?;
            Some(position.cannot_write(Some(&item.key)))
        });
        match position {
            Some(position) => anyhow::Error::new(reason).context(position),
            None => reason.into(),
        }
    }

    /// What was written before an error.
    fn so_far(&self, error: &anyhow::Error) -> String {
        let is_uncertain = error
            .downcast_ref::<Refusal>()
            .is_some_and(Refusal::is_uncertain);
        match (self.up_to, self.written) {
            (None, _) if is_uncertain => "nothing is certain to be written".to_owned(),
            (None, _) => "nothing was written".to_owned(),
            (Some(position), 1) => format!("1 record was written, {position}"),
            (Some(position), many) => format!("{many} records were written, up to {position}"),
        }
    }
}

impl Batch {
    /// Whether an item still goes into this batch. An item of its own always does: the storage says
    /// what is wrong with it.
    fn has_room(&self, room: Room, item: &BulkItem) -> bool {
        self.items.is_empty()
            || (self.items.len() < room.items && self.bytes + size(item) <= room.bytes)
    }

    fn push(&mut self, position: Position, item: BulkItem) {
        self.bytes += size(&item);
        self.positions.push(position);
        self.items.push(item);
    }
}

/// At least what the storage counts, which leaves white space out.
fn size(item: &BulkItem) -> u64 {
    let metadata = item.metadata.as_deref().unwrap_or("{}");
    (item.value.len() + metadata.len()) as u64
}

const fn tally() -> Tally {
    Tally::new("records written:")
}

/// Writes a batch as soon as the rate allows it: a long bulk is one command, however many batches it
/// has.
async fn patient_bulk_put(door: &Door, request: BulkPutRequest) -> Result<Vec<Written>, BulkError> {
    loop {
        match door.gate.bulk_put(&door.caller, request.clone()).await {
            Err(BulkError {
                error: Error::RateLimited { retry_after },
                ..
            }) => tokio::time::sleep(retry_after).await,
            written => return written,
        }
    }
}

#[cfg(test)]
mod tests {
    use alga_storage::{Guard, Key};

    use super::*;

    fn item(value: &str, metadata: Option<&str>) -> BulkItem {
        BulkItem {
            key: Key::parse("a").unwrap(),
            value: value.to_owned(),
            metadata: metadata.map(ToOwned::to_owned),
            ttl_seconds: None,
            schema_version: None,
            guard: Guard::Any,
        }
    }

    fn batch_of<const N: usize>(items: [&BulkItem; N]) -> Batch {
        let mut batch = Batch::default();
        for item in items {
            batch.items.push(item.clone());
            batch.bytes += size(item);
        }
        batch
    }

    #[test]
    fn a_batch_holds_as_many_items_and_bytes_as_it_has_room_for() {
        let room = Room {
            items: 2,
            bytes: 10,
        };
        let three = item("1", None);
        assert!(batch_of([&three]).has_room(room, &three));
        assert!(!batch_of([&three, &three]).has_room(room, &three));
        let [ten, eleven] = ["12345678", "123456789"].map(|value| item(value, None));
        assert!(batch_of([]).has_room(room, &eleven), "the storage refuses");
        assert!(!batch_of([&three]).has_room(room, &ten));
        let seven = item("12", Some("{   }"));
        assert!(batch_of([&three]).has_room(room, &seven));
    }
}
