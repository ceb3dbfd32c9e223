//! Removes what nobody can see any more: expired records, audit records past their retention, and
//! answers that are not given again.

use std::time::{Duration, Instant};

use alga_model::{Clock, Timestamp};
use alga_registry::Registry;
use alga_storage::{Maintenance, Removed};
use anyhow::Context as _;

/// Records that are removed at once. Few enough that a write beside it hardly waits.
const BATCH: u32 = 1_000;
/// Answers that are removed at once, each of which may have a MiB.
const BATCH_OF_ANSWERS: u32 = 64;
/// How long one sweep may take; what is left waits for the next one.
const TIME: Duration = Duration::from_secs(30);

/// What a [`sweep`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Expired records.
    pub records: u64,
    /// Their values and metadata.
    pub bytes: u64,
    /// Audit records past their retention, of the storage and of the registry.
    pub audit_records: u64,
    /// Answers to requests with a key, and to writes known by an id, that are not given again.
    pub answers: u64,
    /// Whether the time was up before everything was removed.
    pub more: bool,
}

/// Removes expired records and answers, and audit records older than `retention`, in batches with
/// room for others in between, for at most about 30 seconds.
///
/// What fails keeps nothing else from being removed. Without `storage`, what it holds is another process's
/// to sweep.
///
/// # Errors
/// The first failure.
pub async fn sweep(
    storage: Option<&dyn Maintenance>,
    registry: &dyn Registry,
    clock: &dyn Clock,
    retention: Duration,
) -> anyhow::Result<Swept> {
    sweep_until(
        Instant::now() + TIME,
        storage,
        registry,
        clock.now(),
        retention,
    )
    .await
}

/// Sweeps until `deadline`, but at least one batch of everything.
async fn sweep_until(
    deadline: Instant,
    storage: Option<&dyn Maintenance>,
    registry: &dyn Registry,
    now: Timestamp,
    retention: Duration,
) -> anyhow::Result<Swept> {
    let before = earlier(now, retention);
    let of_storage = async {
        let Some(storage) = storage else {
            return [const { Ok(Removed::NOTHING) }; 3];
        };
        [
            in_batches(deadline, || storage.remove_expired(BATCH)).await,
            in_batches(deadline, || storage.remove_audit(before, BATCH)).await,
            in_batches(deadline, || storage.remove_answers(BATCH)).await,
        ]
    };
    let [expired, audit_of_storage, answers_to_writes] = of_storage.await;
    let audit_of_registry = in_batches(deadline, || {
        let removed = registry.remove_audit(before, BATCH);
        async { removed.await.map(|records| batch(records, BATCH)) }
    })
    .await;
    let answers = in_batches(deadline, || {
        let removed = registry.remove_answers(now, BATCH_OF_ANSWERS);
        async {
            removed
                .await
                .map(|answers| batch(answers, BATCH_OF_ANSWERS))
        }
    })
    .await;

    let all = [
        expired.context("cannot remove expired records")?,
        audit_of_storage.context("cannot remove old audit records of the storage")?,
        audit_of_registry.context("cannot remove old audit records of the registry")?,
        answers_to_writes.context("cannot remove old answers to writes")?,
        answers.context("cannot remove old answers")?,
    ];
    let [
        expired,
        audit_of_storage,
        audit_of_registry,
        answers_to_writes,
        answers,
    ] = all;
    Ok(Swept {
        records: expired.records,
        bytes: expired.bytes,
        audit_records: audit_of_storage.records + audit_of_registry.records,
        answers: answers_to_writes.records + answers.records,
        more: all.iter().any(|removed| removed.more),
    })
}

/// Fewer than were asked for are the last ones.
fn batch(removed: u64, asked_for: u32) -> Removed {
    Removed {
        records: removed,
        bytes: 0,
        more: removed >= asked_for.into(),
    }
}

async fn in_batches<E, F>(deadline: Instant, remove: impl Fn() -> F) -> Result<Removed, E>
where
    F: Future<Output = Result<Removed, E>>,
{
    let mut total = Removed::default();
    loop {
        let removed = remove().await?;
        total.records += removed.records;
        total.bytes += removed.bytes;
        total.more = removed.more;
        if !removed.more || Instant::now() >= deadline {
            return Ok(total);
        }
        tokio::task::yield_now().await;
    }
}

fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(ms))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::future::ready;

    use alga_model::{ContentHash, TenantId};
    use alga_registry::{KeyedRequest, PageRequest};
    use alga_storage::AuditFilter;

    use super::*;
    use crate::stage::Stage;

    const DAY: Duration = Duration::from_hours(24);

    async fn sweep_stage(stage: &Stage, retention: Duration) -> Swept {
        sweep(
            Some(&*stage.storage),
            &*stage.registry,
            &*stage.clock,
            retention,
        )
        .await
        .unwrap()
    }

    async fn audit_records(stage: &Stage) -> (usize, usize) {
        let of_storage = stage
            .storage
            .audit(&AuditFilter::default(), None, 100)
            .await;
        let of_registry = stage
            .registry
            .audit(
                &alga_registry::AuditFilter::default(),
                PageRequest::first(100),
            )
            .await;
        (of_storage.unwrap().len(), of_registry.unwrap().items.len())
    }

    #[tokio::test]
    async fn what_is_expired_is_removed_of_every_tenant_and_nothing_else() {
        let stage = Stage::open().await;
        for _ in 0..3 {
            let install = stage.install(TenantId::generate()).await;
            stage.put(install.id, "short", "\"1234\"", Some(60)).await;
            stage.put(install.id, "long", "1", Some(61)).await;
            stage.put(install.id, "for ever", "1", None).await;
        }
        assert_eq!(sweep_stage(&stage, DAY).await, Swept::default());
        stage.clock.advance(Duration::from_secs(60));
        let expected = Swept {
            records: 3,
            // The value and the metadata `{}`.
            bytes: 3 * 8,
            ..Swept::default()
        };
        assert_eq!(sweep_stage(&stage, DAY).await, expected);
        assert_eq!(sweep_stage(&stage, DAY).await, Swept::default());
    }

    #[tokio::test]
    async fn audit_records_of_storage_and_registry_go_when_their_retention_is_over() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        stage.put(install.id, "a", "1", None).await;
        stage.clock.advance(DAY);
        stage.put(install.id, "b", "1", None).await;
        assert_eq!(audit_records(&stage).await, (2, 2));

        assert_eq!(sweep_stage(&stage, DAY).await.audit_records, 0);
        stage.clock.advance(Duration::from_millis(1));
        assert_eq!(sweep_stage(&stage, DAY).await.audit_records, 3);
        assert_eq!(audit_records(&stage).await, (1, 0));
    }

    #[tokio::test]
    async fn answers_go_when_they_are_not_given_again() {
        let stage = Stage::open().await;
        let now = stage.clock.now();
        let install = stage.install(TenantId::generate()).await.id;
        for key in 0..2 * BATCH_OF_ANSWERS {
            let request = KeyedRequest {
                install,
                key: key.to_string().parse().unwrap(),
                digest: ContentHash::of(b""),
            };
            let until = now.plus(DAY * (1 + key % 2));
            stage
                .registry
                .claim_request(&request, now, until)
                .await
                .unwrap();
        }
        assert_eq!(sweep_stage(&stage, DAY).await, Swept::default());
        for _ in 0..2 {
            stage.clock.advance(DAY);
            let swept = sweep_stage(&stage, DAY * 9).await;
            assert_eq!(
                (swept.answers, swept.more),
                (BATCH_OF_ANSWERS.into(), false)
            );
        }
    }

    #[tokio::test]
    async fn a_retention_longer_than_time_itself_removes_nothing() {
        let stage = Stage::open().await;
        stage.install(TenantId::generate()).await;
        assert_eq!(sweep_stage(&stage, Duration::MAX).await, Swept::default());
    }

    #[tokio::test]
    async fn when_the_time_is_up_the_rest_waits_for_the_next_sweep() {
        let stage = Stage::open().await;
        for _ in 0..2 {
            let install = stage.install(TenantId::generate()).await;
            stage.put(install.id, "a", "1", Some(60)).await;
        }
        stage.clock.advance(Duration::from_secs(60));
        let at_once = async || {
            let now = stage.clock.now();
            let (storage, registry) = (Some(&*stage.storage as _), &*stage.registry);
            sweep_until(Instant::now(), storage, registry, now, Duration::MAX)
                .await
                .unwrap()
        };
        let first = at_once().await;
        assert_eq!((first.records, first.more), (1, true));
        let second = at_once().await;
        assert_eq!((second.records, second.more), (1, false));
    }

    #[tokio::test]
    async fn batches_go_on_until_nothing_is_left() {
        let left = Cell::new(2_500_u64);
        let deadline = Instant::now() + TIME;
        let removed = in_batches(deadline, || {
            let some = left.get().min(BATCH.into());
            left.set(left.get() - some);
            ready(Ok::<_, Infallible>(batch(some, BATCH)))
        });
        let Ok(removed) = removed.await;
        assert_eq!((removed.records, removed.more), (2_500, false));
    }

    #[tokio::test]
    async fn a_failure_keeps_nothing_else_from_being_removed() {
        let stage = Stage::open().await;
        let install = stage.install(TenantId::generate()).await;
        stage.put(install.id, "a", "1", None).await;
        stage.clock.advance(DAY * 2);
        stage.storage.database().close().await;
        let failed = sweep(Some(&*stage.storage), &*stage.registry, &*stage.clock, DAY).await;
        assert_eq!(
            failed.unwrap_err().to_string(),
            "cannot remove expired records"
        );
        let left = stage
            .registry
            .audit(
                &alga_registry::AuditFilter::default(),
                PageRequest::first(1),
            )
            .await;
        assert_eq!(left.unwrap().items, []);
    }
}
