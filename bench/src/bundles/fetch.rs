//! Bundles that are looked up in the cache, or brought into it from a folder.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use alga_bundles::{BundleCache, BundleStore, Content, FetchOptions, LocalStore, ObjectKey};
use alga_model::{ContentHash, ContentHasher};
use anyhow::ensure;
use tokio::task::spawn_blocking;

use super::sample::Packed;
use crate::measure::{in_turns, median, rounds};
use crate::report::{Bar, Figure};
use crate::session::Bench;

/// What looking up a bundle at hand may take, in microseconds.
const WARM: f64 = 20.0;
const LOOKUPS: u32 = 2_000;

/// One lookup after another of a bundle that nobody holds meanwhile.
pub(super) async fn warm_lookup(bench: Bench) -> anyhow::Result<Figure> {
    let (store, Packed { hash, .. }) = stocked(&bench).await?;
    let cache = cache(bench.path("cache"), &store)?;
    let files = cache.get(hash).await?.files().count();
    let rounds = rounds(&bench, |_| {
        let cache = cache.clone();
        async move {
            let start = Instant::now();
            for _ in 0..LOOKUPS {
                cache.get(hash).await?;
            }
            Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKUPS))
        }
    });
    let took = median(rounds.await?);
    Ok(Figure::new(took, "µs")
        .against(WARM, Bar::AtMost(1.0))
        .note(format!("{files} files")))
}

/// A bundle into an empty cache, beside reading the file once, its digest and unpacking it, with the
/// same crates, nothing checked and nothing made durable.
pub(super) async fn cold_fetch(bench: Bench) -> anyhow::Result<Figure> {
    let (store, packed) = stocked(&bench).await?;
    let turns = in_turns(
        &bench,
        |round| spawn_bare(packed.clone(), bench.path(&format!("bare-{round}"))),
        |round| {
            let cache = bench.path(&format!("cache-{round}"));
            fetch(cache, Arc::clone(&store), packed.hash)
        },
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    Ok(Figure::new(ours, "ms")
        .against(bare, Bar::AtMost(3.0))
        .note(packed.note()?))
}

/// Brings a bundle into a new cache in `folder`, in milliseconds.
pub(super) async fn fetch<S: BundleStore>(
    folder: PathBuf,
    store: Arc<S>,
    hash: ContentHash,
) -> anyhow::Result<f64> {
    let cache = cache(folder, &store)?;
    let start = Instant::now();
    cache.get(hash).await?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn cache<S: BundleStore>(folder: PathBuf, store: &Arc<S>) -> anyhow::Result<BundleCache> {
    let store = Arc::clone(store) as _;
    Ok(BundleCache::new(folder, store, FetchOptions::default())?)
}

/// A store with one bundle.
async fn stocked(bench: &Bench) -> anyhow::Result<(Arc<LocalStore>, Packed)> {
    let packed = Packed::new(bench).await?;
    let store = Arc::new(LocalStore::open(bench.path("store"))?);
    let content = Content::File(&packed.file);
    store
        .create(ObjectKey::Bundle(packed.hash), content)
        .await?;
    Ok((store, packed))
}

async fn spawn_bare(Packed { hash, file }: Packed, folder: PathBuf) -> anyhow::Result<f64> {
    spawn_blocking(move || {
        let start = Instant::now();
        let mut input = Hashing(File::open(file)?, ContentHasher::new());
        let tar = zstd::stream::read::Decoder::new(&mut input)?;
        tar::Archive::new(tar).unpack(folder)?;
        io::copy(&mut input, &mut io::sink())?;
        ensure!(input.1.finish() == hash, "the bytes are others");
        Ok(start.elapsed().as_secs_f64() * 1e3)
    })
    .await?
}

/// What is read, with its digest.
struct Hashing(File, ContentHasher);

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
