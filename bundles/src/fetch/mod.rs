//! Bundles at hand: fetched once, verified, unpacked into a folder, and checked at every use.
//!
//! A bundle's folder appears in the cache by one rename, after its bytes had the right hash, every
//! rule of archives held and everything was synced. A crash at any point leaves either the whole
//! bundle or a work folder that the next start removes. What is in the cache is trusted only as far
//! as it can be checked: sizes and times at every [`BundleCache::get`], every digest at the first.

mod bundle;
mod error;
mod retry;
mod unpack;
mod work;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alga_model::{ContentHash, ContentHasher};
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

pub use bundle::{CachedBundle, CachedFile};
pub use error::FetchError;
pub use retry::Retry;

use crate::archive::Limits;
use crate::manifest::Manifest;
use crate::store::{BundleStore, ObjectKey, StoreError, StoredObject};
use bundle::OnDisk;
use unpack::Unpacked;
use work::WorkFolder;

/// How a cache fetches.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// How large a bundle may be; the same limits as when it was published.
    pub limits: Limits,
    /// How often a store that is unavailable is asked again.
    pub retry: Retry,
}

/// Verified bundles in a folder, filled from a store.
#[derive(Debug, Clone)]
pub struct BundleCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    store: Arc<dyn BundleStore>,
    options: FetchOptions,
    work: WorkFolder,
    state: Mutex<State>,
}

/// A flight ends with an outcome for everybody who waits.
type Flight = watch::Receiver<Option<Outcome>>;
type Outcome = Result<Arc<CachedBundle>, FetchError>;

#[derive(Debug, Default)]
struct State {
    /// The bundles that are being opened or fetched now.
    flights: HashMap<ContentHash, Flight>,
    /// The bundles whose digests this process has checked.
    verified: HashMap<ContentHash, Arc<CachedBundle>>,
}

impl BundleCache {
    /// Uses `folder`, makes it when it isn't there, and removes what a process that died left half
    /// done in it. Blocking, for a moment.
    pub fn new(
        folder: impl Into<PathBuf>,
        store: Arc<dyn BundleStore>,
        options: FetchOptions,
    ) -> io::Result<Self> {
        let folder = folder.into();
        let work = WorkFolder::open(&folder)?;
        let state = Mutex::default();
        Ok(Self {
            shared: Arc::new(Shared {
                folder,
                store,
                options,
                work,
                state,
            }),
        })
    }

    /// The bundle `hash`, verified.
    ///
    /// However many callers ask at once, it is fetched once, and goes on being fetched when some or
    /// all of them go away.
    ///
    /// # Errors
    ///
    /// [`FetchError::Integrity`] when the store has other bytes under this hash: nothing of them is
    /// kept. [`FetchError::NotFound`] when it has none.
    pub async fn get(&self, hash: ContentHash) -> Result<Arc<CachedBundle>, FetchError> {
        let mut flight = self.join(hash);
        let outcome = flight.wait_for(Option::is_some).await;
        outcome
            .ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or(Err(FetchError::Interrupted))
    }

    /// The flight for `hash`, started unless somebody else did.
    fn join(&self, hash: ContentHash) -> Flight {
        let mut state = self.shared.state();
        if let Some(flight) = state.flights.get(&hash) {
            return flight.clone();
        }
        let (outcome, flight) = watch::channel(None);
        state.flights.insert(hash, flight.clone());
        let landing = Landing {
            shared: Arc::clone(&self.shared),
            hash,
        };
        // A task of its own: it belongs to no caller, so none can cancel it for the others.
        tokio::spawn(async move {
            let opened = landing.shared.open(hash).await;
            outcome.send_replace(Some(opened));
        });
        flight
    }
}

/// Ends a flight, also when it panics.
struct Landing {
    shared: Arc<Shared>,
    hash: ContentHash,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shared.state().flights.remove(&self.hash);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self, hash: ContentHash) -> Outcome {
        let known = self.state().verified.get(&hash).cloned();
        let folder = self.folder.join(hash.to_hex());
        let on_disk = blocking(move || match known {
            Some(bundle) => bundle.recheck(),
            None => CachedBundle::load(&folder, hash),
        });
        let bundle = match on_disk.await? {
            OnDisk::Ready(bundle) => bundle,
            OnDisk::Absent => self.fetch(hash).await?,
            OnDisk::Damaged(reason) => {
                tracing::warn!(bundle = %hash, reason, "a cached bundle is damaged and is fetched again");
                self.discard(hash).await?;
                self.fetch(hash).await?
            }
        };
        self.state().verified.insert(hash, Arc::clone(&bundle));
        Ok(bundle)
    }

    /// Moves a bundle out of the way at once, and removes it then.
    async fn discard(&self, hash: ContentHash) -> Result<(), FetchError> {
        self.state().verified.remove(&hash);
        let (folder, grave) = (self.folder.join(hash.to_hex()), self.work.new_path());
        blocking(move || discard(&folder, &grave)).await
    }

    async fn fetch(&self, hash: ContentHash) -> Outcome {
        let spool = self.options.retry.run(|| self.download(hash)).await?;
        let (scratch, limits) = (self.work.new_path(), self.options.limits.clone());
        let mut unpacked =
            blocking(move || Unpacked::from_bundle(spool.path(), &scratch, hash, &limits)).await?;
        if !unpacked.has_manifest() {
            let manifest = self
                .options
                .retry
                .run(|| self.manifest_beside(hash))
                .await?;
            unpacked = blocking(move || unpacked.with_manifest(&manifest)).await?;
        }
        let (folder, grave) = (self.folder.join(hash.to_hex()), self.work.new_path());
        let bundle = blocking(move || install(unpacked, &folder, &grave, hash)).await?;
        tracing::info!(bundle = %hash, "fetched a bundle");
        Ok(bundle)
    }

    /// Brings the bundle into a file of the work folder, where it is gone with its handle.
    async fn download(&self, hash: ContentHash) -> Result<NamedTempFile, FetchError> {
        let key = ObjectKey::Bundle(hash);
        let limit = self.options.limits.compressed_bytes;
        let StoredObject { stat, body } =
            self.store.open(key).await.map_err(FetchError::from_store)?;
        let size = stat.size;
        if size > limit {
            return Err(FetchError::from_store(StoreError::TooLarge {
                key,
                size,
                limit,
            }));
        }
        let spool =
            NamedTempFile::new_in(self.work.path()).map_err(|error| self.cannot_use(error))?;
        let mut file =
            tokio::fs::File::from_std(spool.reopen().map_err(|error| self.cannot_use(error))?);

        let mut body = body.take(size);
        let mut hasher = ContentHasher::new();
        let mut received = 0;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = body.read(&mut buffer).await;
            let read =
                read.map_err(|error| FetchError::from_store(StoreError::unavailable(key, error)))?;
            if read == 0 {
                break;
            }
            let chunk = buffer.get(..read).unwrap_or_default();
            hasher.update(chunk);
            received += read as u64;
            write_all(&mut file, chunk)
                .await
                .map_err(|error| self.cannot_use(error))?;
        }
        if received != size {
            return Err(FetchError::from_store(StoreError::cut_off(key)));
        }
        let actual = hasher.finish();
        if actual == hash {
            Ok(spool)
        } else {
            Err(FetchError::integrity(hash, actual))
        }
    }

    /// The manifest of a bundle that has none in its archive.
    async fn manifest_beside(&self, hash: ContentHash) -> Result<Vec<u8>, FetchError> {
        let limit = Manifest::MAX_BYTES as u64;
        self.store
            .read(ObjectKey::Manifest(hash), limit)
            .await
            .map_err(FetchError::from_store)
    }

    fn cannot_use(&self, error: io::Error) -> FetchError {
        FetchError::cache(&self.folder, error)
    }
}

async fn write_all(file: &mut tokio::fs::File, chunk: &[u8]) -> io::Result<()> {
    use tokio::io::AsyncWriteExt;
    file.write_all(chunk).await?;
    // Tokio reports the failure of a write only at the next one.
    file.flush().await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    spawn_blocking(work)
        .await
        .unwrap_or(Err(FetchError::Interrupted))
}

/// Makes an unpacked bundle the one in the cache.
fn install(unpacked: Unpacked, folder: &Path, grave: &Path, hash: ContentHash) -> Outcome {
    let scratch = unpacked.seal(hash)?;
    if let Err(error) = std::fs::rename(scratch.path(), folder) {
        if !matches!(
            error.kind(),
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
        ) {
            return Err(FetchError::cache(folder, error));
        }
        // Another process was faster. Its bundle is as good as ours, or it is in the way.
        if let OnDisk::Ready(bundle) = CachedBundle::load(folder, hash)? {
            return Ok(bundle);
        }
        discard(folder, grave)?;
        std::fs::rename(scratch.path(), folder)
            .map_err(|error| FetchError::cache(folder, error))?;
    }
    if let Some(parent) = folder.parent() {
        sync(parent).map_err(|error| FetchError::cache(parent, error))?;
    }
    CachedBundle::open(folder, hash)
}

fn discard(folder: &Path, grave: &Path) -> Result<(), FetchError> {
    match std::fs::rename(folder, grave) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FetchError::cache(folder, error))
        }
        // What cannot be removed now goes with the work folder.
        _ => {
            let _ = std::fs::remove_dir_all(grave);
            Ok(())
        }
    }
}

/// Writes a small file so that it survives a power cut, its name aside.
fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
