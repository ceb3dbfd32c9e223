//! Compiled code that processes leave for each other in the bundle store.
//!
//! Whoever can write to the store must not be able to run anything here. So the code is sealed as it is
//! on disk, under a key that the store never sees: what is not genuine was as good as not there, and the
//! component is compiled. Only processes with the same master key have anything of each other's code.
//!
//! The store is never needed. Where it is slow, away or full, components are compiled.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alga_bundles::{BundleStore, Content, ObjectKey, StoreError};
use alga_model::{ContentHash, ContentHasher, ErrorChain};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::code::Code;
use super::code_seal::Seal;
use super::component_id::ComponentId;

/// What can become of code that is looked for or left.
pub(crate) const OUTCOMES: [&str; 5] = ["taken", "absent", "rejected", "left", "failed"];

/// Compiled code in a store of bundles, for one engine configuration.
#[derive(Debug, Clone)]
pub(super) struct SharedCode(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Arc<dyn BundleStore>,
    seal: Seal,
    /// Components whose code in the store is not genuine.
    rejected: Mutex<HashSet<ComponentId>>,
    /// Who reads: each may have all of the code in memory.
    readers: Semaphore,
    /// Who writes, which holds up nobody who reads.
    writers: Semaphore,
    /// How much is still to be left there.
    pending: watch::Sender<usize>,
}

impl SharedCode {
    /// The largest code that is shared.
    const MOST_BYTES: u64 = 256 << 20;
    /// How long it may take to find the code, which compiling might take too.
    const LOOK: Duration = Duration::from_secs(15);
    /// How long to wait for a turn to look; less than a call may take.
    const WAIT: Duration = Duration::from_secs(5);
    /// How long it may take to leave it, which nobody waits for.
    const LEAVE: Duration = Duration::from_secs(120);
    const READERS: usize = 4;
    const WRITERS: usize = 2;

    pub(super) fn new(store: Arc<dyn BundleStore>, seal: Seal) -> Self {
        Self(Arc::new(Shared {
            store,
            seal,
            rejected: Mutex::default(),
            readers: Semaphore::new(Self::READERS),
            writers: Semaphore::new(Self::WRITERS),
            pending: watch::Sender::new(0),
        }))
    }

    /// The compiled code of a component, if another process has left it and it is genuine.
    pub(super) async fn take(&self, id: ComponentId) -> Option<Code> {
        let shared = &*self.0;
        let Ok(_turn) = timeout(Self::WAIT, shared.readers.acquire()).await else {
            tracing::debug!(bundle = %id.bundle(), "too many look for compiled code in the store");
            count("failed");
            return None;
        };
        let read = shared.store.read(shared.key(id), Self::MOST_BYTES);
        let outcome = match timeout(Self::LOOK, read).await {
            Ok(Ok(sealed)) => match shared.seal.open(id, sealed) {
                Some(code) => {
                    count("taken");
                    return Some(code);
                }
                None => shared.reject(id, "it is not what was written"),
            },
            Ok(Err(StoreError::NotFound { .. })) => "absent",
            Ok(Err(error @ StoreError::TooLarge { .. })) => shared.reject(id, &error.to_string()),
            Ok(Err(error)) => {
                let error = ErrorChain(&error);
                tracing::warn!(bundle = %id.bundle(), %error, "cannot look for compiled code in the store");
                "failed"
            }
            Err(_) => {
                tracing::warn!(bundle = %id.bundle(), "looking for compiled code in the store took too long");
                "failed"
            }
        };
        count(outcome);
        None
    }

    /// The code that was taken is genuine and can't be used all the same: it gives way to what is compiled
    /// now, so that nobody else tries it in vain.
    pub(super) fn give_up(&self, id: ComponentId) {
        self.0.rejected().insert(id);
    }

    /// Leaves the sealed code in `file` for other processes, in the background.
    pub(super) fn leave(&self, id: ComponentId, file: impl AsRef<Path> + Send + 'static) {
        let leaving = Leaving::begin(Arc::clone(&self.0));
        tokio::spawn(async move {
            let Leaving(shared) = &leaving;
            let left = timeout(Self::LEAVE, shared.leave(id, file.as_ref())).await;
            let problem = match left {
                Ok(Ok(())) => return count("left"),
                Ok(Err(error)) => ErrorChain(&error).to_string(),
                Err(_) => "it took too long".to_owned(),
            };
            count("failed");
            tracing::warn!(bundle = %id.bundle(), problem, "cannot leave compiled code in the store");
        });
    }

    /// Waits until all that was to be left is, or can't be.
    pub(super) async fn settle(&self) {
        let mut pending = self.0.pending.subscribe();
        // The sender is here.
        let _ = pending.wait_for(|pending| *pending == 0).await;
    }
}

impl Shared {
    fn key(&self, id: ComponentId) -> ObjectKey {
        key(id, self.seal.compatibility())
    }

    /// Code that may not be used is logged loudly, and gives way to what is compiled now.
    fn reject(&self, id: ComponentId, problem: &str) -> &'static str {
        self.rejected().insert(id);
        tracing::error!(bundle = %id.bundle(), problem, "compiled code in the store was refused, and is compiled again");
        "rejected"
    }

    async fn leave(&self, id: ComponentId, file: &Path) -> Result<(), StoreError> {
        let _turn = self.writers.acquire().await;
        let key = self.key(id);
        let size = tokio::fs::metadata(file).await.map_or(0, |meta| meta.len());
        let limit = SharedCode::MOST_BYTES;
        if size > limit {
            return Err(StoreError::TooLarge { key, size, limit });
        }
        if self.rejected().contains(&id) {
            self.store.remove(key).await?;
        }
        self.store.create(key, Content::File(file)).await?;
        self.rejected().remove(&id);
        Ok(())
    }

    fn rejected(&self) -> std::sync::MutexGuard<'_, HashSet<ComponentId>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that is being left, until it is dropped.
struct Leaving(Arc<Shared>);

impl Leaving {
    fn begin(shared: Arc<Shared>) -> Self {
        shared.pending.send_modify(|pending| *pending += 1);
        Self(shared)
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.pending.send_modify(|pending| *pending -= 1);
    }
}

/// Below the bundle, so that the code of each of its files goes when the bundle goes.
fn key(id: ComponentId, compatibility: ContentHash) -> ObjectKey {
    let mut hasher = ContentHasher::new();
    hasher.update(id.digest().as_bytes());
    hasher.update(compatibility.as_bytes());
    ObjectKey::Compiled {
        bundle: id.bundle(),
        compatibility: hasher.finish(),
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("alga_engine_shared_code_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use alga_bundles::LocalStore;
    use alga_model::Secret;
    use tempfile::TempDir;

    use super::*;

    fn engine(fuel: bool) -> wasmtime::Engine {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(fuel);
        wasmtime::Engine::new(&config).unwrap()
    }

    fn seal(key: u8) -> Seal {
        Seal::new(Secret::new([key; 32]), &engine(false))
    }

    fn shared(folder: &TempDir, seal: Seal) -> SharedCode {
        let store = LocalStore::open(folder.path().join("store")).unwrap();
        SharedCode::new(Arc::new(store), seal)
    }

    /// The one component of a bundle with these bytes.
    fn component(bytes: &[u8]) -> ComponentId {
        ComponentId::new(ContentHash::of(bytes), "dist/main.wasm")
    }

    /// Where an object is.
    fn object(folder: &TempDir, bundle: ComponentId, seal: &Seal) -> PathBuf {
        let key = key(bundle, seal.compatibility());
        folder.path().join("store").join(key.to_string())
    }

    async fn leave(folder: &TempDir, seal: Seal, bundle: ComponentId, code: &[u8]) {
        let file = folder.path().join("sealed");
        fs::write(&file, [&seal.of(bundle, code)[..], code].concat()).unwrap();
        let shared = shared(folder, seal);
        shared.leave(bundle, file);
        shared.settle().await;
    }

    async fn take(folder: &TempDir, seal: Seal, bundle: ComponentId) -> Option<Vec<u8>> {
        let code = shared(folder, seal).take(bundle).await?;
        Some(code.bytes().to_vec())
    }

    #[tokio::test]
    async fn what_one_left_another_with_the_same_key_and_engine_takes() {
        let folder = tempfile::tempdir().unwrap();
        let (bundle, other) = (component(b"bundle"), component(b"other"));
        assert_eq!(take(&folder, seal(1), bundle).await, None);
        leave(&folder, seal(1), bundle, b"code").await;
        let taken = take(&folder, seal(1), bundle).await;
        assert_eq!(taken.as_deref(), Some(b"code".as_slice()));
        assert_eq!(take(&folder, seal(2), bundle).await, None);
        assert_eq!(take(&folder, seal(1), other).await, None);
        let with_fuel = Seal::new(Secret::new([1; 32]), &engine(true));
        assert_eq!(take(&folder, with_fuel, bundle).await, None);
    }

    #[tokio::test]
    async fn code_of_another_file_of_the_bundle_is_neither_found_nor_taken() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = ContentHash::of(b"bundle");
        let entries = ["dist/debug.wasm", "dist/main.wasm"];
        let [debug, main] = entries.map(|entry| ComponentId::new(bundle, entry));
        leave(&folder, seal(1), debug, b"code").await;
        assert_eq!(take(&folder, seal(1), main).await, None);
        let from = object(&folder, debug, &seal(1));
        let to = object(&folder, main, &seal(1));
        assert_eq!(from.parent(), to.parent(), "both go with the bundle");
        fs::rename(from, to).unwrap();
        assert_eq!(take(&folder, seal(1), main).await, None);
        assert_eq!(take(&folder, seal(1), debug).await, None);
    }

    #[tokio::test]
    async fn what_anybody_else_wrote_is_refused_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = component(b"bundle");
        leave(&folder, seal(1), bundle, b"code").await;
        let path = object(&folder, bundle, &seal(1));
        let genuine = fs::read(&path).unwrap();
        let forged = [&seal(2).of(bundle, b"evil")[..], b"evil"].concat();
        let elsewhere = [&seal(1).of(component(b"x"), b"code")[..], b"code"].concat();
        let cut = genuine[..Seal::BYTES - 1].to_vec();
        let mut bad = vec![forged, elsewhere, cut, Vec::new()];
        for position in 0..genuine.len() {
            let mut flipped = genuine.clone();
            flipped[position] ^= 1;
            bad.push(flipped);
        }
        for bytes in bad {
            fs::write(&path, &bytes).unwrap();
            let shared = shared(&folder, seal(1));
            assert!(shared.take(bundle).await.is_none(), "{bytes:?}");
            shared.leave(bundle, folder.path().join("sealed"));
            shared.settle().await;
            assert_eq!(fs::read(&path).unwrap(), genuine);
            assert!(shared.take(bundle).await.is_some());
        }
    }

    #[tokio::test]
    async fn code_that_is_there_already_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = component(b"bundle");
        leave(&folder, seal(1), bundle, b"first").await;
        leave(&folder, seal(1), bundle, b"second").await;
        let taken = take(&folder, seal(1), bundle).await;
        assert_eq!(taken.as_deref(), Some(b"first".as_slice()));
    }

    #[tokio::test]
    async fn code_that_turned_out_to_be_of_no_use_gives_way_to_other() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = component(b"bundle");
        leave(&folder, seal(1), bundle, b"first").await;
        let file = folder.path().join("second");
        fs::write(
            &file,
            [&seal(1).of(bundle, b"second")[..], b"second"].concat(),
        )
        .unwrap();
        let shared = shared(&folder, seal(1));
        assert!(shared.take(bundle).await.is_some());
        shared.give_up(bundle);
        shared.leave(bundle, file);
        shared.settle().await;
        let taken = take(&folder, seal(1), bundle).await;
        assert_eq!(taken.as_deref(), Some(b"second".as_slice()));
    }

    #[tokio::test]
    async fn who_leaves_code_keeps_nobody_from_taking_any_and_the_other_way_round() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = component(b"bundle");
        leave(&folder, seal(1), bundle, b"code").await;
        let shared = shared(&folder, seal(1));
        let writing = shared.0.writers.acquire_many(2).await.unwrap();
        assert!(shared.take(bundle).await.is_some());
        drop(writing);
        let _reading = shared.0.readers.acquire_many(4).await.unwrap();
        let other = component(b"other");
        let file = folder.path().join("other");
        fs::write(&file, [&seal(1).of(other, b"code")[..], b"code"].concat()).unwrap();
        shared.leave(other, file);
        shared.settle().await;
        assert!(object(&folder, other, &seal(1)).exists());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_turn_to_look_goes_on_without() {
        let folder = tempfile::tempdir().unwrap();
        let shared = shared(&folder, seal(1));
        let _reading = shared.0.readers.acquire_many(4).await.unwrap();
        let start = tokio::time::Instant::now();
        assert!(shared.take(component(b"bundle")).await.is_none());
        assert_eq!(start.elapsed(), SharedCode::WAIT);
    }

    #[tokio::test]
    async fn code_beyond_the_limit_is_neither_left_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = component(b"bundle");
        let sized = |path: &Path, bytes| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap().set_len(bytes).unwrap();
        };
        let file = folder.path().join("large");
        sized(&file, SharedCode::MOST_BYTES + 1);
        let shared = shared(&folder, seal(1));
        shared.leave(bundle, file);
        shared.settle().await;
        let path = object(&folder, bundle, &seal(1));
        assert!(!path.exists());
        sized(&path, SharedCode::MOST_BYTES + 1);
        assert!(shared.take(bundle).await.is_none());
        assert!(shared.0.rejected().contains(&bundle));
    }

    #[tokio::test]
    async fn a_store_that_fails_is_as_good_as_one_that_has_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = component(b"bundle");
        let shared = shared(&folder, seal(1));
        fs::remove_dir_all(folder.path().join("store")).unwrap();
        fs::write(folder.path().join("store"), b"no folder").unwrap();
        assert!(shared.take(bundle).await.is_none());
        shared.leave(bundle, folder.path().join("nothing"));
        shared.settle().await;
        assert!(!shared.0.rejected().contains(&bundle));
    }
}
