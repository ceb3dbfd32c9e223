//! Bundles in the cache, and on their way into it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use alga_bundles::{
    BundleCache, BundleStore as _, Content, FetchOptions, Limits, LocalStore, ObjectKey, pack,
};
use alga_model::{ContentHash, ContentHasher};
use anyhow::ensure;
use tokio::task::spawn_blocking;

use crate::measure::{in_turns, median, rounds};
use crate::report::{Bar, Figure, rounded};
use crate::session::{Bench, Session};

/// What looking up a bundle at hand may take, in microseconds.
const WARM: f64 = 20.0;
const LOOKUPS: u32 = 2_000;
/// Bytes of the component, as of one that holds a JavaScript engine; a third of them packed.
const COMPONENT: usize = 12 << 20;

/// Measures every line of the bundles that is wanted.
pub(crate) async fn run(session: &mut Session) -> anyhow::Result<()> {
    session.line("bundles/warm-lookup", warm_lookup).await?;
    session.line("bundles/cold-fetch", cold_fetch).await
}

/// One lookup after another of a bundle that nobody holds meanwhile.
async fn warm_lookup(bench: Bench) -> anyhow::Result<Figure> {
    let (store, hash, _) = stocked(&bench).await?;
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
async fn cold_fetch(bench: Bench) -> anyhow::Result<Figure> {
    let (store, hash, file) = stocked(&bench).await?;
    let packed = file.metadata()?.len();
    let turns = in_turns(
        &bench,
        |round| {
            let (file, folder) = (file.clone(), bench.path(&format!("bare-{round}")));
            spawn_bare(file, folder, hash)
        },
        |round| {
            let cache = cache(bench.path(&format!("cache-{round}")), &store);
            async move {
                let cache = cache?;
                let start = Instant::now();
                cache.get(hash).await?;
                Ok(start.elapsed().as_secs_f64() * 1e3)
            }
        },
    )
    .await?;
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    #[expect(clippy::cast_precision_loss, reason = "a few MiB")]
    let mebibytes = packed as f64 / f64::from(1 << 20);
    Ok(Figure::new(ours, "ms")
        .against(bare, Bar::AtMost(3.0))
        .note(format!("{} MiB packed", rounded(mebibytes))))
}

fn cache(folder: PathBuf, store: &Arc<LocalStore>) -> anyhow::Result<BundleCache> {
    let store = Arc::clone(store) as _;
    Ok(BundleCache::new(folder, store, FetchOptions::default())?)
}

/// A store with one bundle, its hash and its file.
async fn stocked(bench: &Bench) -> anyhow::Result<(Arc<LocalStore>, ContentHash, PathBuf)> {
    let (folder, target) = (bench.path("bundle"), bench.path("bundle.tar.zst"));
    let packed = target.clone();
    let hash = spawn_blocking(move || {
        write_bundle(&folder)?;
        anyhow::Ok(pack(&folder, &packed, &Limits::default())?.hash)
    })
    .await??;
    let store = Arc::new(LocalStore::open(bench.path("store"))?);
    let content = Content::File(&target);
    store.create(ObjectKey::Bundle(hash), content).await?;
    Ok((store, hash, target))
}

fn write_bundle(folder: &Path) -> anyhow::Result<()> {
    let manifest = r#"{
        "name": "com.example.bench",
        "publisher": "Benchmarks",
        "version": "1.0.0",
        "runtime": "wasm-component@1"
    }"#;
    fs::create_dir_all(folder.join("dist"))?;
    fs::create_dir_all(folder.join("ui"))?;
    fs::write(folder.join("manifest.json"), manifest)?;
    fs::write(folder.join("dist/main.wasm"), script(COMPONENT))?;
    for file in ["index.html", "index.js", "index.css", "logo.svg"] {
        fs::write(folder.join("ui").join(file), script(20_000))?;
    }
    Ok(())
}

/// So many bytes that look like a script, of which about a third can't be foreseen.
fn script(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 128);
    let mut state = 1_u64;
    while text.len() < bytes {
        // Knuth's, of which the upper half is good enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = state >> 32;
        let _ = writeln!(text, "let v{word:08x}={:08x};", (state >> 16) & 0xffff_ffff);
    }
    text.truncate(bytes);
    text
}

async fn spawn_bare(file: PathBuf, folder: PathBuf, hash: ContentHash) -> anyhow::Result<f64> {
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
