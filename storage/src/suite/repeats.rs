//! Writes that are known by an id and come again.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use std::time::Duration;

use futures_util::future::join_all;

use super::Stage;
use super::stage::{Install, item, namespace, revision_of};
use crate::{AuditFilter, BulkItem, BulkPutRequest, Error, Guard, OperationId, Revision, Written};

impl Install<'_> {
    /// The same install, whose writes are all known by one id.
    fn known_by(&self, id: OperationId) -> Self {
        let mut known = self.clone();
        known.caller.operation_id = Some(id);
        known
    }
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::ValidationFailed(violations) if violations.iter().any(|v| v.instance_path == "operationId"))
}

async fn changes(stage: &Stage, install: &Install<'_>) -> usize {
    let filter = AuditFilter {
        install: Some(install.caller.install),
        tenant: Some(install.tenant),
        ..AuditFilter::default()
    };
    let audit = stage.maintenance().audit(&filter, None, 1_000).await;
    audit.unwrap().len()
}

pub async fn a_repeated_put_is_answered_as_the_first_time(stage: &Stage) {
    let install = stage.install();
    install.put("k", "0").await.unwrap();
    let known = install.known_by(OperationId::generate());
    let at_one = || item("k", "1", Guard::Exactly(Revision::FIRST));
    let first = known.put_item(at_one()).await.unwrap();
    assert_eq!(first.revision, revision_of(2));
    let previous = first.previous.as_ref().unwrap();
    assert_eq!(previous.value.as_str(), "0");
    // By now the guard is wrong, and the record is another one.
    assert_eq!(known.put_item(at_one()).await.unwrap(), first);
    install.put("k", "2").await.unwrap();
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(known.put_item(at_one()).await.unwrap(), first);
    let stored = install.get("k").await.unwrap();
    assert_eq!((stored.value.as_str(), stored.revision.get()), ("2", 3));
    assert_eq!(changes(stage, &install).await, 3);
    let drift = stage.maintenance().verify_usage(install.tenant, false);
    assert_eq!(drift.await.unwrap(), []);
}

pub async fn a_repeated_batch_is_answered_as_the_first_time(stage: &Stage) {
    let install = stage.install();
    let known = install.known_by(OperationId::generate());
    let items = || ["a", "b"].map(|key| item(key, "1", Guard::Absent)).to_vec();
    let first = known.bulk_put(items()).await.unwrap();
    let again = known.bulk_put(items()).await.unwrap();
    assert_eq!(again, first);
    let revisions: Vec<_> = first.iter().map(|written| written.revision.get()).collect();
    assert_eq!(revisions, [1, 1]);
    assert_eq!(changes(stage, &install).await, 2);
}

pub async fn a_repeated_delete_removes_nothing_that_came_later(stage: &Stage) {
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    let known = install.known_by(OperationId::generate());
    let guard = Guard::Exactly(Revision::FIRST);
    assert!(known.delete_if("k", guard).await.unwrap());
    install.put("k", "2").await.unwrap();
    assert!(known.delete_if("k", guard).await.unwrap());
    assert_eq!(install.get("k").await.unwrap().value.as_str(), "2");
}

pub async fn a_refused_write_is_judged_anew_when_it_is_repeated(stage: &Stage) {
    let install = stage.install();
    let known = install.known_by(OperationId::generate());
    let there = || known.put_if("k", "2", Guard::Exists);
    assert!(matches!(there().await, Err(Error::RevisionMismatch(_))));
    install.put("k", "1").await.unwrap();
    assert_eq!(there().await.unwrap().revision, revision_of(2));
    assert_eq!(there().await.unwrap().revision, revision_of(2));
}

pub async fn repeats_at_once_are_one_write(stage: &Stage) {
    let install = stage.install();
    for key in ["new", "newer"] {
        let known = install.known_by(OperationId::generate());
        let puts = (0..16).map(|_| known.put_if(key, "1", Guard::Absent));
        let written: Vec<Written> = join_all(puts)
            .await
            .into_iter()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(written.iter().all(|again| *again == written[0]));
    }
    assert_eq!(changes(stage, &install).await, 2);
    assert_eq!(install.usage().await.unwrap().keys, 2);
}

pub async fn an_id_is_that_of_one_write_of_one_install(stage: &Stage) {
    let install = stage.install();
    let id = OperationId::generate();
    let known = install.known_by(id);
    known.put("k", "1").await.unwrap();
    // Neither another operation, nor another namespace, nor more items.
    assert!(is_taken(&known.delete("k").await.unwrap_err()));
    let gate = known.gate();
    let elsewhere = BulkPutRequest {
        namespace: namespace("cache"),
        items: vec![item("k", "1", Guard::Any)],
    };
    let refused = gate.bulk_put(&known.caller, elsewhere).await;
    assert!(is_taken(&refused.unwrap_err().error));
    // Nor another key, value, guard or time to live.
    for other in [
        item("l", "1", Guard::Any),
        item("k", "2", Guard::Any),
        item("k", "1", Guard::Exists),
        BulkItem {
            ttl_seconds: Some(60),
            ..item("k", "1", Guard::Any)
        },
    ] {
        assert!(is_taken(&known.put_item(other).await.unwrap_err()));
    }
    let more = ["k", "l"].map(|key| item(key, "1", Guard::Any)).to_vec();
    assert!(is_taken(&known.bulk_put(more).await.unwrap_err().error));
    // Of another install it may be the id again, of the same tenant or not.
    for stranger in [
        stage.install_with(install.tenant, Stage::roomy()),
        stage.install(),
    ] {
        let stranger = stranger.known_by(id);
        let written = stranger.put_if("k", "2", Guard::Absent).await.unwrap();
        assert_eq!(written.revision, Revision::FIRST);
    }
    assert_eq!(install.get("k").await.unwrap().value.as_str(), "1");
}

pub async fn answers_are_forgotten_after_their_time(stage: &Stage) {
    let install = stage.install();
    let known = install.known_by(OperationId::generate());
    let absent = || vec![item("k", "1", Guard::Absent)];
    let first = known.bulk_put(absent()).await.unwrap();
    let maintenance = stage.maintenance();
    let forget = async || {
        let removed = maintenance.remove_answers(10).await;
        removed.unwrap().records
    };
    let second = Duration::from_secs(1);
    stage
        .clock
        .advance(OperationId::RETENTION.saturating_sub(second));
    assert_eq!(forget().await, 0);
    let again = known.bulk_put(absent()).await.unwrap();
    assert_eq!(again, first);
    stage.clock.advance(second * 2);
    assert_eq!(forget().await, 1);
    let refused = known.bulk_put(absent()).await.unwrap_err().error;
    assert!(matches!(refused, Error::RevisionMismatch(_)));
}

pub async fn answers_with_values_are_forgotten_sooner(stage: &Stage) {
    let install = stage.install();
    install.put("k", "1").await.unwrap();
    let known = install.known_by(OperationId::generate());
    known.put("k", "2").await.unwrap();
    let maintenance = stage.maintenance();
    stage.clock.advance(OperationId::RETENTION_OF_VALUES * 2);
    let removed = maintenance.remove_answers(10).await.unwrap();
    assert_eq!(removed.records, 1);
}

pub async fn answers_are_forgotten_a_batch_at_a_time(stage: &Stage) {
    let install = stage.install();
    for key in ["a", "b", "c"] {
        let known = install.known_by(OperationId::generate());
        known.put(key, "1").await.unwrap();
    }
    stage.clock.advance(OperationId::RETENTION * 2);
    let mut removed = Vec::new();
    for _ in 0..2 {
        let batch = stage.maintenance();
        let batch = batch.remove_answers(2).await;
        let batch = batch.unwrap();
        removed.push((batch.records, batch.more));
    }
    assert_eq!(removed, [(2, true), (1, false)]);
}
