//! The bytes of a bundle, on their way from the store to a file.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alga_model::{ContentHash, ContentHasher};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::work::WorkFolder;
use super::{FetchError, FetchOptions};
use crate::manifest::Manifest;
use crate::patience::{Patience, unless_stalled};
use crate::store::{Body, BundleStore, ETag, ObjectKey, StoreError, StoredObject};

/// A store as a cache reads it: patient, but not for ever, and believing nothing.
#[derive(Debug)]
pub(super) struct Source {
    store: Arc<dyn BundleStore>,
    found: Found,
}

/// Where downloads go, and within which bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) options: &'a FetchOptions,
    pub(super) work: &'a WorkFolder,
}

impl Source {
    pub(super) fn new(store: Arc<dyn BundleStore>) -> Self {
        Self {
            store,
            found: Found::default(),
        }
    }

    /// Brings the object `key`, which must have the hash `expected`, into a file of the work folder,
    /// where it is gone with its handle.
    ///
    /// A read that breaks off is repeated from the start, so that what is hashed came in one piece.
    pub(super) async fn bundle(
        &self,
        key: ObjectKey,
        expected: ContentHash,
        terms: Terms<'_>,
    ) -> Result<NamedTempFile, FetchError> {
        let retry = terms.options.retry;
        retry.run(|| self.attempt(key, expected, terms)).await
    }

    /// Whether the manifest beside a bundle was another than it should be a moment ago. Then it is looked at
    /// before the bundle is downloaded, which would be for nothing.
    pub(super) fn doubts_manifest(&self, hash: ContentHash) -> bool {
        self.found.recent(ObjectKey::Manifest(hash)).is_some()
    }

    /// The manifest of a bundle that has none in its archive, which must have the digest `expected`.
    pub(super) async fn manifest(
        &self,
        hash: ContentHash,
        expected: ContentHash,
        options: &FetchOptions,
    ) -> Result<Vec<u8>, FetchError> {
        let bytes = self.read_manifest(hash, options).await?;
        let actual = ContentHash::of(&bytes);
        if actual == expected {
            return Ok(bytes);
        }
        count_damage();
        let key = ObjectKey::Manifest(hash);
        if self.found.recent(key) != Some(actual) {
            // As loudly as a bundle with other bytes: the manifest says which file is run.
            tracing::error!(
                bundle = %hash,
                %expected,
                %actual,
                %key,
                "the manifest beside a bundle is not the one that was registered; `alga-runner bundle fsck --repair` writes it again"
            );
            self.found.remember(key, ETag::new(actual.to_hex()), actual);
        }
        Err(FetchError::ManifestIntegrity {
            hash,
            expected,
            actual,
        })
    }

    async fn read_manifest(
        &self,
        hash: ContentHash,
        options: &FetchOptions,
    ) -> Result<Vec<u8>, FetchError> {
        let (key, limit) = (ObjectKey::Manifest(hash), Manifest::MAX_BYTES as u64);
        let read = || async {
            unless_stalled(options.stall, key, self.store.read(key, limit))
                .await
                .map_err(FetchError::from_store)
        };
        options.retry.run(read).await
    }

    async fn attempt(
        &self,
        key: ObjectKey,
        expected: ContentHash,
        Terms { options, work }: Terms<'_>,
    ) -> Result<NamedTempFile, FetchError> {
        let opened = unless_stalled(options.stall, key, self.store.open(key)).await;
        let StoredObject { stat, body } = opened.map_err(FetchError::from_store)?;
        let (size, limit) = (stat.size, options.limits.compressed_bytes);
        if size > limit {
            let too_large = StoreError::TooLarge { key, size, limit };
            return Err(FetchError::from_store(too_large));
        }
        if let Some(actual) = self.found.in_state(key, &stat.etag)
            && actual != expected
        {
            // Nothing was read: it was counted when it was found.
            return Err(FetchError::Integrity { expected, actual });
        }
        let cannot_use = |error| FetchError::cache(work.path(), error);
        let spool = NamedTempFile::new_in(work.path()).map_err(cannot_use)?;
        let file = spool.reopen().map_err(cannot_use)?;
        let into = tokio::fs::File::from_std(file);
        let actual = match copy(body, size, into, (key, options.stall)).await {
            Ok(actual) => actual,
            Err(Broken::Store(error)) => return Err(FetchError::from_store(error)),
            Err(Broken::File(error)) => return Err(cannot_use(error)),
        };
        if actual == expected {
            return Ok(spool);
        }
        if key.promised_hash().is_some() {
            count_damage();
            // Loudly, as somebody or something changed a bundle; and once, however many ask for it.
            tracing::error!(
                bundle = %expected,
                %actual,
                %key,
                "a bundle's bytes are not those it was published with; \
                 remove it with `alga-runner bundle fsck --repair` and publish it again"
            );
        } else {
            // Whoever asks may be wrong as well.
            tracing::info!(%expected, %actual, %key, "an upload is another one than was asked for");
        }
        self.found.remember(key, stat.etag, actual);
        Err(FetchError::Integrity { expected, actual })
    }
}

/// What objects were found to be that were not what they should: one that everybody asks for is not
/// downloaded for everybody.
#[derive(Debug, Default)]
struct Found(Mutex<HashMap<ObjectKey, Finding>>);

#[derive(Debug)]
struct Finding {
    etag: ETag,
    actual: ContentHash,
    at: Instant,
}

impl Found {
    /// It may have been the way here that did the damage, so the object is looked at again then.
    const LIFETIME: Duration = Duration::from_secs(60);

    /// The hash that an object has, if it was read in this state.
    fn in_state(&self, key: ObjectKey, etag: &ETag) -> Option<ContentHash> {
        let found = self.lock();
        let finding = found.get(&key)?;
        (finding.is_recent() && finding.etag == *etag).then_some(finding.actual)
    }

    /// The hash that an object had a moment ago, in whatever state.
    fn recent(&self, key: ObjectKey) -> Option<ContentHash> {
        let found = self.lock();
        let finding = found.get(&key)?;
        finding.is_recent().then_some(finding.actual)
    }

    fn remember(&self, key: ObjectKey, etag: ETag, actual: ContentHash) {
        let at = Instant::now();
        let mut found = self.lock();
        found.retain(|_, finding| finding.is_recent());
        found.insert(key, Finding { etag, actual, at });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Finding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Finding {
    fn is_recent(&self) -> bool {
        self.at.elapsed() < Found::LIFETIME
    }
}

/// Counts bytes that do not have the hash they should.
pub(super) fn count_damage() {
    metrics::counter!("alga_bundles_integrity_failures_total").increment(1);
}

/// What broke a copy off.
enum Broken {
    Store(StoreError),
    File(io::Error),
}

/// Copies exactly `size` bytes, and tells their hash.
async fn copy(
    body: Body,
    size: u64,
    mut file: tokio::fs::File,
    (key, stall): (ObjectKey, Duration),
) -> Result<ContentHash, Broken> {
    let mut body = body.take(size);
    let mut hasher = ContentHasher::new();
    let mut received = 0;
    let mut buffer = vec![0; 256 << 10];
    let mut patience = Patience::new(key, stall, size);
    loop {
        let read = async {
            let read = body.read(&mut buffer).await;
            read.map_err(|error| StoreError::unavailable(key, error))
        };
        let read = patience.wait(read).await.map_err(Broken::Store)?;
        if read == 0 {
            break;
        }
        let chunk = buffer.get(..read).unwrap_or_default();
        hasher.update(chunk);
        received += read as u64;
        file.write_all(chunk).await.map_err(Broken::File)?;
    }
    if received != size {
        return Err(Broken::Store(StoreError::cut_off(key)));
    }
    // Tokio reports the failure of a write only at the next one.
    file.flush().await.map_err(Broken::File)?;
    Ok(hasher.finish())
}
