//! What uploads hold in memory. One test, so that nothing else of its process is counted.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests may fail like the tests themselves"
)]

use std::time::Duration;

use alga_bundles::{BundleStore, S3Store, StagingKey};
use alga_test_s3::{Fault, Proxy, TestBucket};
use uuid::Uuid;

/// What one upload may take.
const ONE: u64 = 32 << 20;
/// What sixteen may take together.
const SIXTEEN: u64 = 256 << 20;

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    resident * 4096
}

/// Uploads so many bytes, and gives the most that were in memory meanwhile.
async fn peak_of_upload(store: S3Store, size: u64) -> u64 {
    const CHUNK: u64 = 64 << 10;
    let key = StagingKey::new(Uuid::new_v4());
    let mut upload = store.stage(key, "application/zstd", size).await.unwrap();
    let mut peak = 0;
    for chunk in 0..size / CHUNK {
        let bytes = vec![u8::try_from(chunk % 251).unwrap(); usize::try_from(CHUNK).unwrap()];
        upload.write(bytes.into()).await.unwrap();
        peak = peak.max(resident());
    }
    upload.finish().await.unwrap();
    store.remove(key.into()).await.unwrap();
    peak.max(resident())
}

#[tokio::test]
async fn uploads_take_little_memory_whatever_their_size_and_the_speed_of_the_store() {
    let Some(bucket) = TestBucket::create().await else {
        return;
    };
    let proxy = Proxy::before(&bucket.endpoint).await;
    let store = bucket.at(proxy.url()).store();
    store.check().await.unwrap();
    let before = resident();
    for (size, fault) in [
        (20 << 20, Fault::None),
        (40 << 20, Fault::Slow(Duration::from_millis(1))),
        (200 << 20, Fault::None),
    ] {
        proxy.set(fault);
        let peak = peak_of_upload(store.clone(), size).await;
        let grown = peak.saturating_sub(before);
        assert!(grown <= ONE, "{size} bytes took {grown} with {fault:?}");
    }
    let uploads: Vec<_> = (0..16)
        .map(|_| tokio::spawn(peak_of_upload(store.clone(), 30 << 20)))
        .collect();
    for upload in uploads {
        let grown = upload.await.unwrap().saturating_sub(before);
        assert!(grown <= SIXTEEN, "16 uploads took {grown}");
    }
}
