//! A bundle that is brought from a bucket into the cache, beside programs that everybody has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alga_bundles::{BundleStore as _, Content, ObjectKey};
use alga_test_s3::TestBucket;
use anyhow::{Context as _, ensure};
use aws_sdk_s3::presigning::PresigningConfig;
use tokio::task::spawn_blocking;

use super::bucket::{client, new_bucket};
use super::fetch::fetch;
use super::sample::{COMPONENT, COMPONENT_FILE, Packed};
use crate::measure::{in_turns, median};
use crate::report::{Bar, Figure};
use crate::session::Bench;

/// Brings what is at a URL into a file, tells its digest, and unpacks it into a folder.
const PIPELINE: &str = r#"
curl -s -f --noproxy '*' "$1" | tee "$2" | sha256sum &&
    zstd -d <"$2" | tar -x -f - -C "$3"
"#;
/// How long the URL is good for: longer than all rounds take.
const VALID: Duration = Duration::from_secs(3_600);

/// A bundle from a bucket into an empty cache, beside a shell that fetches, hashes and unpacks the same
/// object, nothing checked and nothing made durable.
pub(super) async fn cold_fetch(bench: Bench) -> anyhow::Result<Figure> {
    let bucket = new_bucket().await?;
    let packed = Packed::new(&bench).await?;
    let key = ObjectKey::Bundle(packed.hash);
    let store = Arc::new(bucket.store());
    store.create(key, Content::File(&packed.file)).await?;
    let url = presigned(&bucket, key).await?;
    let turns = in_turns(
        &bench,
        |round| {
            let folder = bench.path(&format!("shell-{round}"));
            spawn_pipeline(url.clone(), folder, packed.clone())
        },
        |round| {
            let cache = bench.path(&format!("cache-{round}"));
            fetch(cache, Arc::clone(&store), packed.hash)
        },
    )
    .await?;
    let shell = median(turns.iter().map(|(shell, _)| *shell));
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    Ok(Figure::new(ours, "ms")
        .against(shell, Bar::AtMost(1.5))
        .note(packed.note()?))
}

/// A URL with which whoever has it may read an object.
async fn presigned(bucket: &TestBucket, key: ObjectKey) -> anyhow::Result<String> {
    let object = client(bucket).get_object();
    let object = object.bucket(&bucket.name).key(key.to_string());
    let presigned = object.presigned(PresigningConfig::expires_in(VALID)?);
    Ok(presigned.await?.uri().to_owned())
}

async fn spawn_pipeline(url: String, folder: PathBuf, packed: Packed) -> anyhow::Result<f64> {
    spawn_blocking(move || {
        let took = run_pipeline(&url, &folder, &packed)?;
        // Nothing of it waits to be written when the other side syncs.
        fs::remove_dir_all(&folder)?;
        Ok(took)
    })
    .await?
}

/// How long the programs take, in milliseconds, if they get what they should.
fn run_pipeline(url: &str, folder: &Path, packed: &Packed) -> anyhow::Result<f64> {
    let (file, unpacked) = (folder.join("bundle.tar.zst"), folder.join("files"));
    fs::create_dir_all(&unpacked)?;
    let mut shell = Command::new("sh");
    shell.args(["-c", PIPELINE, "sh", url]);
    shell.args([&file, &unpacked]);
    let start = Instant::now();
    let ran = shell.output().context("cannot run a shell")?;
    let took = start.elapsed();
    let digest = String::from_utf8_lossy(&ran.stdout);
    let complaint = String::from_utf8_lossy(&ran.stderr);
    ensure!(
        ran.status.success() && digest.starts_with(&packed.hash.to_hex()),
        "curl, sha256sum, zstd and tar failed: {digest}{complaint}"
    );
    let component = unpacked.join(COMPONENT_FILE).metadata()?.len();
    ensure!(
        usize::try_from(component)? == COMPONENT,
        "a part is missing"
    );
    Ok(took.as_secs_f64() * 1e3)
}
