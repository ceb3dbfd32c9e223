//! One sequence of operations, played on the storage and on the model.

use std::time::Duration;

use alga_model::{Clock as _, TenantId};
use proptest::prop_assert_eq;
use proptest::test_runner::TestCaseError;

use super::answer::Answer;
use super::operation::{
    Expectation, INSTALLS, Item, Listing, NAMESPACES, Operation, Place, Room, Step,
};
use super::state::{Model, PAGE_BYTES, PAGE_ITEMS, tenant_of};
use crate::suite::stage::{key_of, namespace, revision_of};
use crate::suite::{Install, Stage};
use crate::{
    BulkItem, BulkPutRequest, DeleteRequest, GetManyRequest, GetRequest, Guard, KeyRange, Limits,
    ListRequest, PutRequest, StorageGrant,
};

/// New installs and a model of them.
pub(super) struct Play<'a> {
    stage: &'a Stage,
    installs: Vec<Install<'a>>,
    model: Model,
    /// Per install, where the last listing stopped.
    bookmarks: Vec<Option<Bookmark>>,
}

#[derive(Clone)]
struct Bookmark {
    at: Place,
    listing: Listing,
    cursor: String,
    last: String,
}

impl<'a> Play<'a> {
    pub(super) fn on(stage: &'a Stage) -> Self {
        let model = Model::new(stage.clock.now().as_millis());
        let tenants = [TenantId::generate(), TenantId::generate()];
        let installs = INSTALLS.map(|install| {
            stage.install_with(tenants[tenant_of(install)], limits(model.room(install)))
        });
        Self {
            stage,
            installs: installs.collect(),
            model,
            bookmarks: INSTALLS.map(|_| None).collect(),
        }
    }

    /// Does one operation; fails where the storage answers otherwise than the model.
    pub(super) async fn step(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        let (answered, expected) = self.both(operation).await;
        prop_assert_eq!(
            answered,
            expected,
            "{:?} (left is the answer, right the model)",
            operation
        );
        Ok(())
    }

    /// Looks at everything there is, page by page, and at what is counted.
    pub(super) async fn finish(mut self) -> Result<(), TestCaseError> {
        for install in INSTALLS {
            for namespace in NAMESPACES {
                let at = Place { install, namespace };
                self.step(&Operation::List {
                    at,
                    listing: Listing::everything(),
                })
                .await?;
                while self.bookmarks[install].is_some() {
                    self.step(&Operation::NextPage { install }).await?;
                }
            }
            self.step(&Operation::Usage { install }).await?;
        }
        Ok(())
    }

    /// What the storage answers, and what it should.
    async fn both(&mut self, operation: &Operation) -> (Answer, Answer) {
        match operation {
            Operation::Put {
                at,
                item,
                return_previous,
                return_current,
            } => self.put(*at, item, *return_previous, *return_current).await,
            Operation::BulkPut { at, items } => self.bulk_put(*at, items).await,
            Operation::Get { at, key, revision } => {
                let revision = revision.map(|named| self.model.revision(*at, key, named));
                let answered = self.get(*at, key, revision).await;
                (answered, self.model.get(*at, key, revision))
            }
            Operation::GetMany { at, keys } => {
                let answered = self.get_many(*at, keys).await;
                (answered, self.model.get_many(*at, keys))
            }
            Operation::List { at, listing } => self.list(*at, listing, None).await,
            Operation::NextPage { install } => match self.bookmarks[*install].clone() {
                Some(Bookmark {
                    at,
                    listing,
                    cursor,
                    last,
                }) => self.list(at, &listing, Some((cursor, last))).await,
                None => (Answer::Nothing, Answer::Nothing),
            },
            Operation::Delete { at, key, guard } => {
                let answered = self.delete(*at, key, *guard).await;
                (answered, self.model.delete(*at, key, *guard))
            }
            Operation::Usage { install } => self.usage(*install).await,
            Operation::Advance(step) => {
                self.advance(*step);
                (Answer::Nothing, Answer::Nothing)
            }
            Operation::Allow { install, room } => {
                let all = StorageGrant::all_of(NAMESPACES.map(namespace));
                self.installs[*install].grant(Some(all), limits(*room), true);
                self.model.allow(*install, *room);
                (Answer::Nothing, Answer::Nothing)
            }
        }
    }

    async fn put(
        &mut self,
        at: Place,
        item: &Item,
        return_previous: bool,
        return_current: bool,
    ) -> (Answer, Answer) {
        let request = PutRequest {
            namespace: namespace(at.namespace),
            item: self.bulk_item(at, item),
            return_previous,
            return_current,
        };
        let install = &self.installs[at.install];
        let answered = Answer::of_put(install.gate().put(&install.caller, request).await);
        let revisions = revisions(&answered);
        let expected = self
            .model
            .put(at, item, &revisions, return_previous, return_current);
        (answered, expected)
    }

    async fn bulk_put(&mut self, at: Place, items: &[Item]) -> (Answer, Answer) {
        let request = BulkPutRequest {
            namespace: namespace(at.namespace),
            items: items.iter().map(|item| self.bulk_item(at, item)).collect(),
        };
        let install = &self.installs[at.install];
        let answered = Answer::of_bulk_put(install.gate().bulk_put(&install.caller, request).await);
        let expected = self.model.bulk_put(at, items, &revisions(&answered));
        (answered, expected)
    }

    async fn get(&self, at: Place, key: &str, revision: Option<u64>) -> Answer {
        let request = GetRequest {
            namespace: namespace(at.namespace),
            key: key_of(key),
            if_revision: revision.map(revision_of),
        };
        let install = &self.installs[at.install];
        Answer::of_get(install.gate().get(&install.caller, request).await)
    }

    async fn get_many(&self, at: Place, keys: &[&str]) -> Answer {
        let request = GetManyRequest {
            namespace: namespace(at.namespace),
            keys: keys.iter().map(|key| key_of(key)).collect(),
        };
        let install = &self.installs[at.install];
        Answer::of_get_many(install.gate().get_many(&install.caller, request).await)
    }

    async fn list(
        &mut self,
        at: Place,
        listing: &Listing,
        after: Option<(String, String)>,
    ) -> (Answer, Answer) {
        let (cursor, after) = after.unzip();
        let install = &self.installs[at.install];
        let request = listing.request(at, cursor);
        let outcome = install.gate().list(&install.caller, request).await;
        let bookmark = outcome.as_ref().ok().and_then(|page| {
            Some(Bookmark {
                at,
                listing: listing.clone(),
                cursor: page.next_cursor.clone()?,
                last: page.items.last()?.key.to_string(),
            })
        });
        self.bookmarks[at.install] = bookmark;
        let expected = self.model.list(at, listing, after.as_deref());
        (Answer::of_list(outcome), expected)
    }

    async fn delete(&self, at: Place, key: &str, guard: Expectation) -> Answer {
        let request = DeleteRequest {
            namespace: namespace(at.namespace),
            key: key_of(key),
            guard: self.guard(at, key, guard),
        };
        let install = &self.installs[at.install];
        Answer::of_delete(install.gate().delete(&install.caller, request).await)
    }

    async fn usage(&self, install: usize) -> (Answer, Answer) {
        let answered = Answer::of_usage(self.installs[install].usage().await);
        let exact = matches!(&answered, Answer::Used(used) if used.per_namespace.is_some());
        (answered, self.model.usage(install, exact))
    }

    fn advance(&mut self, step: Step) {
        let now_ms = self.stage.clock.now().as_millis();
        let left_ms = self.model.next_expiry_ms().map_or(1, |at| at - now_ms);
        let by_ms = match step {
            Step::Millis(by_ms) => by_ms.cast_signed(),
            Step::BeforeExpiry => left_ms - 1,
            Step::ToExpiry => left_ms,
        };
        self.stage
            .clock
            .advance(Duration::from_millis(by_ms.unsigned_abs()));
        self.model.advance(by_ms);
    }

    fn bulk_item(&self, at: Place, item: &Item) -> BulkItem {
        BulkItem {
            key: key_of(item.key),
            value: item.value.to_owned(),
            metadata: item.metadata.map(str::to_owned),
            ttl_seconds: item.ttl_seconds,
            schema_version: None,
            guard: self.guard(at, item.key, item.guard),
        }
    }

    fn guard(&self, at: Place, key: &str, guard: Expectation) -> Guard {
        match guard {
            Expectation::Any => Guard::Any,
            Expectation::Absent => Guard::Absent,
            Expectation::Exists => Guard::Exists,
            Expectation::Revision(named) => {
                Guard::Exactly(revision_of(self.model.revision(at, key, named)))
            }
        }
    }
}

impl Listing {
    fn everything() -> Self {
        Self {
            prefix: None,
            start: None,
            end: None,
            reverse: false,
            limit: Some(2),
            include_values: true,
            include_metadata: true,
        }
    }

    fn request(&self, at: Place, cursor: Option<String>) -> ListRequest {
        ListRequest {
            namespace: namespace(at.namespace),
            range: KeyRange::parse(self.prefix, self.start, self.end).unwrap(),
            reverse: self.reverse,
            limit: self.limit,
            cursor,
            include_values: self.include_values,
            include_metadata: self.include_metadata,
        }
    }
}

/// The revisions of the records that were written.
fn revisions(answered: &Answer) -> Vec<u64> {
    match answered {
        Answer::Written { rows, .. } => rows.iter().map(|row| row.revision).collect(),
        _ => Vec::new(),
    }
}

fn limits(room: Room) -> Limits {
    let mut limits = Limits {
        quotas: room.quotas(),
        ..Stage::roomy()
    };
    limits.request.page_bytes = PAGE_BYTES;
    limits.request.page_items.1 = PAGE_ITEMS;
    limits
}
