//! Bundles at hand: fetched once, verified, unpacked into a folder, and checked at every use.
//!
//! A bundle's folder appears in the cache by one rename, after its bytes had the right hash, every
//! rule of archives held and everything was synced. A crash at any point leaves either the whole
//! bundle or a work folder that the next start removes. What is in the cache is trusted only as far
//! as it can be checked: sizes and times at every [`BundleCache::get`], every digest at the first.
//!
//! The cache has a budget. Beyond it goes what was used least recently, away from the path of those who
//! wait for a bundle, and never what anybody uses: a [`CachedBundle`] is a lease of its folder.

mod bundle;
mod download;
mod error;
mod evict;
mod lease;
mod retry;
mod unpack;
mod work;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use alga_model::{ContentHash, ErrorChain};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

pub use bundle::{CachedBundle, CachedFile};
pub use error::FetchError;
pub use retry::Retry;

use crate::archive::Limits;
use crate::manifest::{InvalidManifest, Manifest};
use crate::store::{BundleStore, ObjectKey, StagingKey};
use bundle::{Contents, OnDisk};
use download::{Source, Terms};
use evict::{Trimmed, trim};
use lease::Lease;
use unpack::Unpacked;
use work::WorkFolder;

/// How a cache fetches.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// How large a bundle may be; the same limits as when it was published.
    pub limits: Limits,
    /// How often a store that is unavailable is asked again.
    pub retry: Retry,
    /// How long a store may take to answer, or to send anything more, until it counts as
    /// unavailable; 30 s unless set.
    pub stall: Duration,
    /// Whether the store is not asked at all. Nothing is removed to make room then.
    pub offline: bool,
    /// How many bytes the bundles may have together, beyond which those go that nobody uses; 10 GiB
    /// unless set. A bundle that is being fetched comes on top, packed and unpacked.
    pub budget: u64,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            retry: Retry::default(),
            stall: Duration::from_secs(30),
            offline: false,
            budget: 10 << 30,
        }
    }
}

/// Verified bundles in a folder, filled from a store.
#[derive(Debug, Clone)]
pub struct BundleCache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    source: Source,
    options: FetchOptions,
    work: WorkFolder,
    state: Mutex<State>,
    /// Held while room is made.
    trimming: tokio::sync::Mutex<()>,
    /// Whether somebody is about to make room.
    is_trim_due: AtomicBool,
}

/// A bundle, and the object to take it from where the cache has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Wanted {
    hash: ContentHash,
    key: ObjectKey,
    /// The digest that its manifest must have where its archive has none.
    manifest: Option<ContentHash>,
}

/// What is in the cache and gives way to what is fetched.
enum Unwanted {
    Damaged(Lease),
    /// Whole, but with another manifest than the registered one.
    Other(Arc<CachedBundle>),
}

impl Unwanted {
    /// The lease of its folder.
    fn lease(&self) -> &Lease {
        match self {
            Self::Damaged(lease) => lease,
            Self::Other(bundle) => bundle.lease(),
        }
    }
}

/// A flight ends with an outcome for everybody who waits.
type Flight = watch::Receiver<Option<Outcome>>;
type Outcome = Result<Arc<CachedBundle>, FetchError>;

#[derive(Debug, Default)]
struct State {
    /// The bundles that are being opened or fetched now.
    flights: HashMap<Wanted, Flight>,
    /// The bundles whose digests this process has checked.
    verified: HashMap<ContentHash, Known>,
}

/// A bundle whose digests this process has checked, and those who use it.
#[derive(Debug, Clone)]
struct Known {
    contents: Arc<Contents>,
    in_use: Weak<CachedBundle>,
}

impl BundleCache {
    /// Uses `folder`, makes it when it isn't there, and removes what a process that died left half
    /// done in it, and what is beyond the budget. Blocking, for a moment.
    pub fn new(
        folder: impl Into<PathBuf>,
        store: Arc<dyn BundleStore>,
        options: FetchOptions,
    ) -> io::Result<Self> {
        let folder = folder.into();
        let work = WorkFolder::open(&folder)?;
        if !options.offline {
            trim(&folder, options.budget, &work)?;
        }
        let state = Mutex::default();
        Ok(Self {
            shared: Arc::new(Shared {
                folder,
                source: Source::new(store),
                options,
                work,
                state,
                trimming: tokio::sync::Mutex::default(),
                is_trim_due: AtomicBool::new(false),
            }),
        })
    }

    /// The bundle `hash`, verified, with the manifest in its archive.
    ///
    /// However many callers ask at once, it is fetched once, and goes on being fetched when some or
    /// all of them go away.
    ///
    /// # Errors
    ///
    /// [`FetchError::Integrity`] when the store has other bytes under this hash: nothing of them is
    /// kept. [`FetchError::NotFound`] when it has none, [`FetchError::Offline`] when it may not be asked.
    /// [`FetchError::Manifest`] when its archive has no manifest.
    pub async fn get(&self, hash: ContentHash) -> Result<Arc<CachedBundle>, FetchError> {
        self.get_registered(hash, None).await
    }

    /// The same, but where the archive has no manifest, with the one beside it in the store if that has
    /// the digest `manifest`, the SHA-256 of the one that was registered.
    ///
    /// The hash of a bundle doesn't cover what is beside it, and who can write to the store must not decide
    /// which file of a bundle is run.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get), and [`FetchError::ManifestIntegrity`] when the one in the store is another.
    pub async fn get_with_manifest(
        &self,
        hash: ContentHash,
        manifest: ContentHash,
    ) -> Result<Arc<CachedBundle>, FetchError> {
        self.get_registered(hash, Some(manifest)).await
    }

    async fn get_registered(&self, hash: ContentHash, manifest: Option<ContentHash>) -> Outcome {
        if let Some(bundle) = self.shared.at_hand(hash)
            && bundle.has_manifest(manifest)
        {
            return Ok(bundle);
        }
        let key = ObjectKey::Bundle(hash);
        self.land(Wanted {
            hash,
            key,
            manifest,
        })
        .await
    }

    /// Whether a bundle could be put into the cache, as far as a small file can tell.
    ///
    /// # Errors
    ///
    /// [`FetchError::Cache`] when it could not.
    pub async fn check(&self) -> Result<(), FetchError> {
        let path = self.shared.work.new_path();
        blocking(move || {
            let written = std::fs::write(&path, b"check");
            written
                .and_then(|()| std::fs::remove_file(&path))
                .map_err(|error| FetchError::cache(&path, error))
        })
        .await
    }

    /// Removes what is beyond the budget now, which otherwise happens after every fetch by itself.
    pub async fn make_room(&self) {
        Arc::clone(&self.shared).trim().await;
    }

    /// An upload that nobody has accepted yet, if it has the hash `expected`, verified as any bundle.
    ///
    /// It is in the cache then under that hash, as the bundle would be: bytes with this hash are the
    /// same wherever they came from. Therefore it must have its manifest in its archive, as one beside it
    /// would be nobody's word.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get), but [`FetchError::Store`] when there is no such upload.
    pub async fn preview(
        &self,
        upload: StagingKey,
        expected: ContentHash,
    ) -> Result<Arc<CachedBundle>, FetchError> {
        self.land(Wanted {
            hash: expected,
            key: upload.into(),
            manifest: None,
        })
        .await
    }

    async fn land(&self, wanted: Wanted) -> Outcome {
        let mut flight = self.join(wanted);
        let outcome = flight.wait_for(Option::is_some).await;
        outcome
            .ok()
            .and_then(|outcome| outcome.clone())
            .unwrap_or(Err(FetchError::Interrupted))
    }

    /// The flight for a bundle, started unless somebody else did.
    fn join(&self, wanted: Wanted) -> Flight {
        let mut state = self.shared.state();
        if let Some(flight) = state.flights.get(&wanted) {
            return flight.clone();
        }
        let (outcome, flight) = watch::channel(None);
        state.flights.insert(wanted, flight.clone());
        let landing = Landing {
            shared: Arc::clone(&self.shared),
            wanted,
        };
        // A task of its own: it belongs to no caller, so none can cancel it for the others.
        tokio::spawn(async move {
            let opened = landing.shared.open(wanted).await;
            outcome.send_replace(Some(opened));
        });
        flight
    }
}

/// Ends a flight, also when it panics.
struct Landing {
    shared: Arc<Shared>,
    wanted: Wanted,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shared.state().flights.remove(&self.wanted);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(self: &Arc<Self>, wanted: Wanted) -> Outcome {
        let hash = wanted.hash;
        let known = self.known(hash);
        let folder = self.folder.join(hash.to_hex());
        let on_disk = blocking(move || match known {
            Some(known) => known.contents.recheck(),
            None => CachedBundle::load(&folder, hash),
        });
        let bundle = match on_disk.await? {
            OnDisk::Ready(bundle) if bundle.has_manifest(wanted.manifest) => bundle,
            OnDisk::Ready(_) if wanted.manifest.is_none() => return Err(without_manifest(hash)),
            // The version that it was fetched for is removed, or the cache is older than a repair of the store.
            OnDisk::Ready(other) => {
                let reason = "its manifest is not the one that is registered";
                self.fetch_instead(wanted, reason.to_owned(), Unwanted::Other(other))
                    .await?
            }
            OnDisk::Absent => self.fetch(wanted).await?,
            OnDisk::Damaged(reason, damaged) => {
                self.fetch_instead(wanted, reason, Unwanted::Damaged(damaged))
                    .await?
            }
        };
        self.remember(&bundle);
        Ok(bundle)
    }

    async fn fetch_instead(
        self: &Arc<Self>,
        wanted: Wanted,
        reason: String,
        unwanted: Unwanted,
    ) -> Outcome {
        let hash = wanted.hash;
        // What nobody can replace is left to whoever may mend it.
        if self.options.offline {
            let damage = Some(reason);
            return Err(FetchError::Offline { hash, damage });
        }
        tracing::warn!(bundle = %hash, reason, "a cached bundle is damaged and is fetched again");
        self.discard(hash, unwanted).await?;
        self.fetch(wanted).await
    }

    fn known(&self, hash: ContentHash) -> Option<Known> {
        self.state().verified.get(&hash).cloned()
    }

    fn remember(&self, bundle: &Arc<CachedBundle>) {
        let known = Known {
            contents: Arc::clone(bundle.contents()),
            in_use: Arc::downgrade(bundle),
        };
        self.state().verified.insert(bundle.hash(), known);
    }

    /// A bundle that can be had without waiting for anything.
    fn at_hand(&self, hash: ContentHash) -> Option<Arc<CachedBundle>> {
        let Known { contents, in_use } = self.known(hash)?;
        if !contents.is_small() {
            return None;
        }
        if let Some(bundle) = in_use.upgrade() {
            return bundle.is_unchanged().then_some(bundle);
        }
        let bundle = contents.use_at_once()?;
        self.remember(&bundle);
        Some(bundle)
    }

    /// Makes room a little later, once for all who want that by then.
    fn trim_soon(self: &Arc<Self>) {
        if !self.is_trim_due.swap(true, Ordering::SeqCst) {
            let shared = Arc::downgrade(self);
            tokio::spawn(async move {
                if let Some(shared) = shared.upgrade() {
                    shared.trim().await;
                }
            });
        }
    }

    async fn trim(self: Arc<Self>) {
        let _turn = self.trimming.lock().await;
        // Before it looks: what comes afterwards makes it due again.
        self.is_trim_due.store(false, Ordering::SeqCst);
        if self.options.offline {
            return;
        }
        let shared = Arc::clone(&self);
        let trimmed =
            spawn_blocking(move || trim(&shared.folder, shared.options.budget, &shared.work)).await;
        match trimmed.map_err(io::Error::from).flatten() {
            Ok(trimmed) => self.note(&trimmed),
            Err(error) => {
                tracing::warn!(%error, "cannot look for room in the bundle cache");
            }
        }
        self.forget_what_is_gone().await;
    }

    /// Forgets the bundles that other processes have removed.
    async fn forget_what_is_gone(self: &Arc<Self>) {
        let known: Vec<_> = self.state().verified.keys().copied().collect();
        let shared = Arc::clone(self);
        let gone = move |hash: &ContentHash| !shared.folder.join(hash.to_hex()).exists();
        let gone = spawn_blocking(move || known.into_iter().filter(gone).collect::<Vec<_>>());
        let gone = gone.await.unwrap_or_default();
        let mut state = self.state();
        for hash in gone {
            state.verified.remove(&hash);
        }
    }

    fn note(&self, Trimmed { bytes, evicted }: &Trimmed) {
        metrics::counter!("alga_bundles_evicted_total").increment(evicted.len() as u64);
        #[expect(clippy::cast_precision_loss, reason = "a gauge, of less than 8 PiB")]
        metrics::gauge!("alga_bundles_cache_bytes").set(*bytes as f64);
        let mut state = self.state();
        for hash in evicted {
            state.verified.remove(hash);
        }
    }

    /// Moves a damaged bundle out of the way at once, and removes it then.
    async fn discard(&self, hash: ContentHash, unwanted: Unwanted) -> Result<(), FetchError> {
        self.state().verified.remove(&hash);
        let (folder, grave) = (self.folder.join(hash.to_hex()), self.work.new_path());
        blocking(move || discard(&folder, unwanted.lease(), &grave)).await
    }

    async fn fetch(self: &Arc<Self>, wanted: Wanted) -> Outcome {
        if self.options.offline {
            let (hash, damage) = (wanted.hash, None);
            return Err(FetchError::Offline { hash, damage });
        }
        with_room(|| self.fetch_once(wanted), || Arc::clone(self).trim()).await
    }

    async fn fetch_once(self: &Arc<Self>, wanted: Wanted) -> Outcome {
        let Wanted {
            hash,
            key,
            manifest,
        } = wanted;
        let (options, work) = (&self.options, &self.work);
        if let Some(manifest) = manifest
            && self.source.doubts_manifest(hash)
        {
            self.source.manifest(hash, manifest, options).await?;
        }
        let spool = self
            .source
            .bundle(key, hash, Terms { options, work })
            .await?;
        let (scratch, limits) = (work.new_path(), options.limits.clone());
        let mut unpacked =
            blocking(move || Unpacked::from_bundle(spool.path(), &scratch, hash, &limits)).await?;
        if !unpacked.has_own_manifest() {
            let expected = manifest.ok_or_else(|| without_manifest(hash))?;
            let manifest = self.source.manifest(hash, expected, options).await?;
            unpacked = blocking(move || unpacked.with_manifest(&manifest)).await?;
        }
        let (folder, grave) = (self.folder.join(hash.to_hex()), work.new_path());
        let bundle = blocking(move || install(unpacked, &folder, &grave, wanted)).await?;
        metrics::counter!("alga_bundles_fetched_total").increment(1);
        tracing::info!(bundle = %hash, "fetched a bundle");
        self.trim_soon();
        Ok(bundle)
    }
}

/// What `attempt` gives; made once more, after `make_room`, where the disk is full. Bundles that were in use when
/// room was made last may have been left since.
async fn with_room<T, F, R>(
    attempt: impl Fn() -> F,
    make_room: impl FnOnce() -> R,
) -> Result<T, FetchError>
where
    F: Future<Output = Result<T, FetchError>>,
    R: Future<Output = ()>,
{
    match attempt().await {
        Err(error) if error.is_disk_full() => {
            tracing::warn!(error = %ErrorChain(&error), "the disk of the bundle cache is full");
            make_room().await;
            attempt().await
        }
        outcome => outcome,
    }
}

fn without_manifest(hash: ContentHash) -> FetchError {
    let message = format!("the archive has no {}", Manifest::FILE);
    let source = InvalidManifest::of(String::new(), message);
    FetchError::Manifest { hash, source }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    spawn_blocking(work)
        .await
        .unwrap_or(Err(FetchError::Interrupted))
}

/// Makes an unpacked bundle the one in the cache.
fn install(unpacked: Unpacked, folder: &Path, grave: &Path, wanted: Wanted) -> Outcome {
    let hash = wanted.hash;
    let scratch = unpacked.seal(hash)?;
    // Before anybody else sees the folder, so that nobody removes it before it is used.
    let lease = Lease::take(scratch.path());
    let lease = lease.map_err(|error| FetchError::cache(scratch.path(), error))?;
    let Some(lease) = lease else {
        let gone = io::Error::from(io::ErrorKind::NotFound);
        return Err(FetchError::cache(scratch.path(), gone));
    };
    while let Err(error) = std::fs::rename(scratch.path(), folder) {
        if !matches!(
            error.kind(),
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
        ) {
            return Err(FetchError::cache(folder, error));
        }
        // Another process was faster. Its bundle is as good as ours, or is in the way, or gone again.
        match CachedBundle::load(folder, hash)? {
            OnDisk::Ready(bundle) if bundle.has_manifest(wanted.manifest) => return Ok(bundle),
            OnDisk::Ready(other) => discard(folder, other.lease(), grave)?,
            OnDisk::Damaged(_, damaged) => discard(folder, &damaged, grave)?,
            OnDisk::Absent => {}
        }
    }
    if let Some(parent) = folder.parent() {
        sync(parent).map_err(|error| FetchError::cache(parent, error))?;
    }
    CachedBundle::open(folder, hash, lease)
}

/// Removes a damaged folder, unless another one has taken its place, which may be sound and in use.
fn discard(folder: &Path, damaged: &Lease, grave: &Path) -> Result<(), FetchError> {
    let failed = |error| FetchError::cache(folder, error);
    if move_away(folder, damaged, grave).map_err(failed)? {
        // What cannot be removed now goes with the work folder.
        let _ = std::fs::remove_dir_all(grave);
    }
    Ok(())
}

fn move_away(folder: &Path, damaged: &Lease, grave: &Path) -> io::Result<bool> {
    // Of all who found damage one does this at a time. Nobody else moves the folder between the look at it and
    // the rename: who makes room doesn't touch what is leased.
    let turn = File::open(folder.parent().unwrap_or(folder))?;
    turn.lock()?;
    let is_there = damaged.is_of(folder)?;
    if is_there {
        std::fs::rename(folder, grave)?;
    }
    Ok(is_there)
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::pack;
    use crate::store::{Content, LocalStore};

    #[test]
    fn what_took_the_place_of_a_damaged_bundle_is_not_removed() {
        let room = tempfile::tempdir().unwrap();
        let [folder, aside, grave] = ["bundle", "aside", "grave"].map(|it| room.path().join(it));
        fs::create_dir(&folder).unwrap();
        let damaged = Lease::take(&folder).unwrap().unwrap();
        // Another process repairs it.
        fs::rename(&folder, &aside).unwrap();
        fs::create_dir(&folder).unwrap();
        discard(&folder, &damaged, &grave).unwrap();
        assert!(folder.exists());
        let damaged = Lease::take(&folder).unwrap().unwrap();
        discard(&folder, &damaged, &grave).unwrap();
        assert!(!folder.exists() && !grave.exists());
    }

    #[tokio::test]
    async fn a_full_disk_is_tried_once_more_when_room_was_made() {
        let full = || FetchError::cache(Path::new("cache"), io::ErrorKind::StorageFull.into());
        let other = || FetchError::cache(Path::new("cache"), io::ErrorKind::NotFound.into());
        for (failures, attempts, succeeds) in [
            (vec![], 1, true),
            (vec![full()], 2, true),
            (vec![full(), full()], 2, false),
            (vec![other()], 1, false),
        ] {
            let (made, is_full) = (Cell::new(0), Cell::new(true));
            let attempt = || {
                let failure = failures.get(made.replace(made.get() + 1)).cloned();
                assert!(made.get() == 1 || !is_full.get(), "no room was made");
                async move { failure.map_or(Ok(()), Err) }
            };
            let outcome = with_room(attempt, || async { is_full.set(false) }).await;
            assert_eq!((made.get(), outcome.is_ok()), (attempts, succeeds));
        }
    }

    #[tokio::test]
    async fn a_bundle_that_another_process_removed_is_forgotten() {
        let room = tempfile::tempdir().unwrap();
        let source = room.path().join("source");
        fs::create_dir_all(source.join("dist")).unwrap();
        fs::write(source.join("dist/main.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
        let manifest = r#"{"name": "com.example.notes", "publisher": "Example Ltd",
            "version": "1.2.0", "runtime": "wasm-component@1"}"#;
        fs::write(source.join("manifest.json"), manifest).unwrap();
        let file = room.path().join("bundle");
        let hash = pack(&source, &file, &Limits::default()).unwrap().hash;
        let store = LocalStore::open(room.path().join("store")).unwrap();
        let key = ObjectKey::Bundle(hash);
        store.create(key, Content::File(&file)).await.unwrap();
        let cache = room.path().join("cache");
        let cache = BundleCache::new(cache, Arc::new(store), FetchOptions::default()).unwrap();
        let bundle = cache.get(hash).await.unwrap();
        let folder = cache.shared.folder.join(hash.to_hex());
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "what is unpacked is its owner's");
        drop(bundle);
        cache.make_room().await;
        assert!(cache.shared.known(hash).is_some());
        fs::remove_dir_all(&folder).unwrap();
        cache.make_room().await;
        assert!(cache.shared.known(hash).is_none());
    }
}
