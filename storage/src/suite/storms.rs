//! Many writers at a quota at once.
//!
//! Each behaviour is shown at each quota. All records have one size unless a behaviour is about
//! sizes, so that every quota can be told in records.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alga_model::TenantId;
use futures_util::future::{Either, select};
use tokio::task::{JoinSet, yield_now};

use super::stage::{everything, item, key_of, namespace};
use super::{Install, Stage};
use crate::{
    BulkItem, Caller, DeleteRequest, Error, Gate, Guard, Limits, ListRequest, Namespace,
    PutRequest, Quota, QuotaName, Quotas, StorageGrant,
};

const WRITERS: usize = 64;
/// What a value of eight bytes takes with its metadata of two.
const RECORD_BYTES: u64 = 10;
const TTL_SECONDS: u64 = 60;

pub async fn exactly_as_many_writers_succeed_as_fit(stage: &Stage) {
    for contested in Contested::ALL {
        for room in [1, 40, WRITERS - 1, WRITERS] {
            let arena = Arena::new(stage, contested, room);
            arena.assert_room_for(room).await;
        }
    }
}

pub async fn room_that_expired_records_hold_is_free(stage: &Stage) {
    for contested in Contested::ALL {
        for expired in [1, 20, 40] {
            let arena = Arena::new(stage, contested, 40);
            arena.fill(0..expired, Some(TTL_SECONDS)).await;
            arena.fill(expired..40, None).await;
            stage.clock.advance(Duration::from_secs(TTL_SECONDS));
            arena.assert_room_for(expired).await;
        }
    }
}

pub async fn writers_of_different_sizes_are_refused_only_what_does_not_fit(stage: &Stage) {
    for contested in [Contested::InstallBytes, Contested::TenantBytes] {
        let arena = Arena::new(stage, contested, 40);
        let outcomes = arena
            .at_once(|slot| async move {
                let bytes = RECORD_BYTES + slot.index as u64 % 13;
                (bytes, slot.put_sized(bytes).await)
            })
            .await;
        let stored = arena.stored().await;
        let limit = contested.limit(40);
        assert!(stored.bytes <= limit, "{contested:?}");
        for (bytes, outcome) in outcomes {
            let Err(quota) = outcome else { continue };
            assert_eq!(quota.attempted, quota.used + bytes, "{contested:?}");
            assert!(quota.attempted > limit, "{contested:?}");
            // Nothing was removed meanwhile, so what didn't fit then doesn't fit now.
            assert!(stored.bytes + bytes > limit, "{contested:?}");
        }
    }
}

pub async fn whoever_made_room_is_never_refused(stage: &Stage) {
    for contested in Contested::ALL {
        let arena = Arena::new(stage, contested, WRITERS);
        arena.fill(0..WRITERS, None).await;
        let outcomes = arena
            .at_once(|slot| async move {
                assert!(slot.filler.delete().await);
                slot.put().await
            })
            .await;
        for outcome in outcomes {
            assert_eq!(outcome, Ok(()), "{contested:?}");
        }
        assert_eq!(arena.stored().await.keys, WRITERS, "{contested:?}");
    }
}

pub async fn writers_that_try_again_fill_every_gap(stage: &Stage) {
    for contested in Contested::ALL {
        let arena = Arena::new(stage, contested, WRITERS);
        arena.fill(0..WRITERS, None).await;
        let fillers: Vec<_> = (0..WRITERS).map(|index| arena.filler(index)).collect();
        let fillers = Arc::new(Mutex::new(fillers));
        let put_at_last = |slot: Slot| {
            let fillers = Arc::clone(&fillers);
            async move {
                while slot.put().await.is_err() {
                    let filler = fillers.lock().unwrap().pop();
                    match filler {
                        Some(filler) => assert!(filler.delete().await),
                        // Others are just making the last room.
                        None => yield_now().await,
                    }
                }
            }
        };
        arena.at_once(put_at_last).await;
        assert_eq!(arena.stored().await.keys, WRITERS, "{contested:?}");
        for index in 0..WRITERS {
            assert!(arena.slot(index).record.delete().await, "{contested:?}");
        }
        assert_eq!(arena.stored().await, Stored::default(), "{contested:?}");
    }
}

pub async fn records_that_grow_and_shrink_at_once_stay_within_the_quota(stage: &Stage) {
    for contested in [Contested::InstallBytes, Contested::TenantBytes] {
        let arena = Arena::new(stage, contested, WRITERS);
        for index in 0..WRITERS {
            arena.slot(index).put().await.unwrap();
        }
        // Half of them give five bytes back, the others would like to have six more.
        let outcomes = arena
            .at_once(|slot| async move {
                let grows = slot.index % 2 == 0;
                let bytes = if grows {
                    RECORD_BYTES + 6
                } else {
                    RECORD_BYTES - 5
                };
                (grows, slot.put_sized(bytes).await.is_ok())
            })
            .await;
        assert!(
            outcomes.iter().all(|(grows, written)| *grows || *written),
            "{contested:?}"
        );
        let grown = outcomes
            .iter()
            .filter(|(grows, written)| *grows && *written)
            .count() as u64;
        let expected = contested.limit(WRITERS) - 5 * WRITERS as u64 / 2 + 6 * grown;
        let stored = arena.stored().await;
        assert_eq!(
            stored,
            Stored {
                keys: WRITERS,
                bytes: expected
            },
            "{contested:?}"
        );
        assert!(stored.bytes <= contested.limit(WRITERS), "{contested:?}");
    }
}

/// The quota that writers are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contested {
    Keys,
    Namespaces,
    InstallBytes,
    /// By several installs.
    TenantBytes,
}

impl Contested {
    const ALL: [Self; 4] = [
        Self::Keys,
        Self::Namespaces,
        Self::InstallBytes,
        Self::TenantBytes,
    ];

    const fn name(self) -> QuotaName {
        match self {
            Self::Keys => QuotaName::KeysPerNamespace,
            Self::Namespaces => QuotaName::Namespaces,
            Self::InstallBytes => QuotaName::BytesPerInstall,
            Self::TenantBytes => QuotaName::BytesPerTenant,
        }
    }

    /// The quota that has room for so many records.
    const fn limit(self, room: usize) -> u64 {
        match self {
            Self::Keys | Self::Namespaces => room as u64,
            Self::InstallBytes | Self::TenantBytes => room as u64 * RECORD_BYTES,
        }
    }

    fn quotas(self, room: usize) -> Quotas {
        let mut quotas = Quotas {
            namespaces: 1_000,
            ..Quotas::default()
        };
        let quota = match self {
            Self::Keys => &mut quotas.keys_per_namespace,
            Self::Namespaces => &mut quotas.namespaces,
            Self::InstallBytes => &mut quotas.bytes_per_install,
            Self::TenantBytes => &mut quotas.bytes_per_tenant,
        };
        *quota = self.limit(room);
        quotas
    }

    const fn installs(self) -> usize {
        match self {
            Self::TenantBytes => 5,
            _ => 1,
        }
    }

    /// The install and the namespace of a record.
    fn place(self, index: usize) -> (usize, Namespace) {
        match self {
            Self::Keys => (0, namespace("n")),
            Self::Namespaces => (0, namespace(&format!("n{index}"))),
            Self::InstallBytes => (0, namespace(&format!("n{}", index % 3))),
            Self::TenantBytes => (index % 4, namespace("n")),
        }
    }

    /// The install and the namespace of a record that is there before the writers come: where the
    /// installs of a tenant share the room, one that none of them is.
    fn filler_place(self, index: usize) -> (usize, Namespace) {
        match self {
            Self::TenantBytes => (4, namespace("n")),
            _ => self.place(WRITERS + index),
        }
    }

    fn namespaces(self) -> Vec<Namespace> {
        let mut namespaces: Vec<_> = (0..2 * WRITERS).map(|index| self.place(index).1).collect();
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }
}

/// Installs of one tenant that share one quota.
struct Arena<'a> {
    contested: Contested,
    room: usize,
    installs: Vec<Install<'a>>,
}

/// What an arena holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stored {
    keys: usize,
    bytes: u64,
}

impl<'a> Arena<'a> {
    /// Installs in which so many records have room.
    fn new(stage: &'a Stage, contested: Contested, room: usize) -> Self {
        let limits = Limits {
            quotas: contested.quotas(room),
            ..Stage::roomy()
        };
        let tenant = TenantId::generate();
        let installs = (0..contested.installs()).map(|_| {
            let install = stage.install_with(tenant, limits);
            let all = StorageGrant::all_of(contested.namespaces());
            install.grant(Some(all), limits, true);
            install
        });
        Self {
            contested,
            room,
            installs: installs.collect(),
        }
    }

    /// What the writer of this number uses.
    fn slot(&self, index: usize) -> Slot {
        let record = self.handle(self.contested.place(index), &format!("k{index}"));
        Slot {
            index,
            record,
            filler: self.filler(index),
        }
    }

    fn filler(&self, index: usize) -> Handle {
        self.handle(
            self.contested.filler_place(index),
            &format!("filler{index}"),
        )
    }

    fn handle(&self, (install, namespace): (usize, Namespace), key: &str) -> Handle {
        Handle {
            gate: self.installs[install].gate().clone(),
            caller: self.installs[install].caller.clone(),
            namespace,
            key: key.to_owned(),
        }
    }

    /// Writes records that are in the way.
    async fn fill(&self, indexes: std::ops::Range<usize>, ttl_seconds: Option<u64>) {
        for index in indexes {
            self.filler(index)
                .put(RECORD_BYTES, ttl_seconds)
                .await
                .unwrap();
        }
    }

    /// Lets every writer do the same at once; nobody who looks meanwhile sees too much.
    async fn at_once<T, F>(&self, work: impl Fn(Slot) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut writers = JoinSet::new();
        for index in 0..WRITERS {
            writers.spawn(work(self.slot(index)));
        }
        match select(pin!(writers.join_all()), pin!(self.watch())).await {
            Either::Left((outcomes, _)) => outcomes,
            Either::Right((never, _)) => match never {},
        }
    }

    async fn watch(&self) -> Infallible {
        let Self {
            contested, room, ..
        } = self;
        let quotas = contested.quotas(*room);
        loop {
            for install in &self.installs {
                let usage = install.usage().await.unwrap();
                let bytes = usage.bytes - usage.expired_bytes;
                let bytes_fit = bytes <= quotas.bytes_per_install.min(quotas.bytes_per_tenant);
                let keys = usage.keys - usage.expired_keys;
                let keys_fit = keys <= quotas.keys_per_namespace || *contested != Contested::Keys;
                assert!(
                    bytes_fit && keys_fit,
                    "{contested:?} with room for {room}: {usage:?}"
                );
            }
        }
    }

    /// All writers come at once; so many of them must find room, the others must be told why not.
    async fn assert_room_for(&self, free: usize) {
        let outcomes = self.at_once(|slot| async move { slot.put().await }).await;
        let Self {
            contested, room, ..
        } = self;
        let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(
            written,
            free.min(WRITERS),
            "{contested:?} with room for {room}"
        );
        let one = contested.limit(1);
        let full = Quota {
            name: contested.name(),
            limit: contested.limit(*room),
            used: contested.limit(*room),
            attempted: contested.limit(*room) + one,
        };
        for refused in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(refused, full);
        }
        assert_eq!(
            self.stored().await.keys,
            room - free + written,
            "{contested:?}"
        );
    }

    /// What all installs hold by their listings, which must be what their counters say.
    async fn stored(&self) -> Stored {
        let mut stored = Stored::default();
        for install in &self.installs {
            let mut listed = Stored::default();
            for namespace in self.contested.namespaces() {
                let request = ListRequest {
                    namespace,
                    limit: Some(1_000),
                    include_values: true,
                    include_metadata: true,
                    ..everything()
                };
                let page = install.list(request).await.unwrap();
                assert_eq!(page.next_cursor, None);
                let text = page
                    .items
                    .iter()
                    .flat_map(|listed| [&listed.value, &listed.metadata]);
                listed.bytes += text.flatten().map(crate::JsonText::size).sum::<u64>();
                listed.keys += page.items.len();
            }
            let usage = install.usage().await.unwrap();
            assert_eq!(usage.keys - usage.expired_keys, listed.keys as u64);
            assert_eq!(usage.bytes - usage.expired_bytes, listed.bytes);
            stored.keys += listed.keys;
            stored.bytes += listed.bytes;
        }
        stored
    }
}

/// What one writer writes, and the record that it may remove for it.
struct Slot {
    index: usize,
    record: Handle,
    filler: Handle,
}

impl Slot {
    async fn put(&self) -> Result<(), Quota> {
        self.put_sized(RECORD_BYTES).await
    }

    async fn put_sized(&self, bytes: u64) -> Result<(), Quota> {
        self.record.put(bytes, None).await
    }
}

/// One record, for whoever owns it.
struct Handle {
    gate: Gate,
    caller: Caller,
    namespace: Namespace,
    key: String,
}

impl Handle {
    /// Writes a record of so many bytes, the two of its metadata included.
    async fn put(&self, bytes: u64, ttl_seconds: Option<u64>) -> Result<(), Quota> {
        let value = "1".repeat(usize::try_from(bytes - 2).unwrap());
        let request = PutRequest {
            namespace: self.namespace.clone(),
            item: BulkItem {
                ttl_seconds,
                ..item(&self.key, &value, Guard::Any)
            },
            return_previous: false,
            return_current: false,
        };
        match self.gate.put(&self.caller, request).await {
            Ok(_) => Ok(()),
            Err(Error::QuotaExceeded(quota)) => Err(quota),
            Err(other) => panic!("expected a quota, not {other}"),
        }
    }

    async fn delete(&self) -> bool {
        let request = DeleteRequest {
            namespace: self.namespace.clone(),
            key: key_of(&self.key),
            guard: Guard::Any,
        };
        self.gate.delete(&self.caller, request).await.unwrap()
    }
}
