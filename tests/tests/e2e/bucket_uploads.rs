//! Uploads into a bucket through the server: what they hold in memory, what is left of those that go
//! wrong, and finalizes that were killed.

use std::fs;
use std::time::{Duration, Instant};

use alga_e2e::guest;
use alga_model::ContentHash;
use alga_test_s3::{Fault, Proxy, TestBucket};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::bucket::use_bucket;
use crate::deployment::{Deployment, refusal};
use crate::uploads::{
    ECHO, FINALIZE, MIB, PATIENCE, begin, finalize, peak, send, send_slowly, staged, upload,
};

/// More than is sent in one request to the bucket.
const SEVERAL_PARTS: usize = 12 * MIB;

/// A process whose way to the bucket can be obstructed.
async fn behind_a_proxy() -> Option<(Deployment, TestBucket, Proxy)> {
    let bucket = TestBucket::create().await?;
    let proxy = Proxy::before(&bucket.endpoint).await;
    let mut deployment = Deployment::new();
    use_bucket(&mut deployment, &bucket.at(proxy.url()));
    deployment.start();
    Some((deployment, bucket, proxy))
}

/// Waits until the bucket has nothing.
async fn until_empty(bucket: &TestBucket) {
    let start = Instant::now();
    loop {
        let (objects, uploads) = bucket.contents().await;
        if objects.is_empty() && uploads.is_empty() {
            return;
        }
        let waits = start.elapsed() < PATIENCE;
        assert!(waits, "{objects:?} and {uploads:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// The proxy carries while the test waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_take_little_memory_whatever_their_size_and_the_speed_of_the_bucket() {
    let Some((mut deployment, _bucket, proxy)) = behind_a_proxy().await else {
        return;
    };
    let slow = Fault::Slow(Duration::from_millis(1));
    for (size, fault) in [
        (20 * MIB, Fault::None),
        (20 * MIB, slow),
        (200 * MIB, Fault::None),
        (200 * MIB, slow),
    ] {
        let grown = growth(&mut deployment, async |deployment| {
            proxy.set(fault);
            send_slowly(deployment, size).await;
            proxy.set(Fault::None);
        });
        let (size, grown) = (size / MIB, grown.await / MIB);
        assert!(grown <= 32, "{size} MiB took {grown} MiB with {fault:?}");
    }
    let sixteen = growth(&mut deployment, async |deployment| {
        join_all((0..16).map(|_| send_slowly(deployment, 20 * MIB))).await;
    });
    let grown = sixteen.await / MIB;
    assert!(grown <= 256, "sixteen uploads took {grown} MiB");
}

/// What a fresh process, which has had one small upload, takes for `work`, in bytes.
async fn growth(deployment: &mut Deployment, work: impl AsyncFnOnce(&Deployment)) -> usize {
    deployment.kill();
    deployment.start();
    send_slowly(deployment, MIB).await;
    let process = deployment.process().number();
    let before = peak(process);
    work(deployment).await;
    peak(process) - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_in_the_bucket_of_what_goes_wrong() {
    let Some((deployment, bucket, proxy)) = behind_a_proxy().await else {
        return;
    };
    let lie = ContentHash::of(b"something else").to_hex();
    for size in [MIB, SEVERAL_PARTS] {
        let bytes = vec![7; size];
        let query = format!("filename=a&size={size}&declaredHash={lie}");
        let refused = refusal(send(&deployment, &query, &bytes).await).await;
        assert_eq!(refused, (400, "BAD_REQUEST".to_owned()), "a lying hash");

        let rest = "transfer-encoding: chunked\r\n\r\n";
        let mut short = begin(&deployment, size, rest).await;
        let head = format!("{:x}\r\n", size - 1);
        short.write_all(head.as_bytes()).await.unwrap();
        short.write_all(&bytes[1..]).await.unwrap();
        short.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        let status = crate::uploads::status(&mut short).await;
        assert_eq!(status, 400, "a lying length");

        let rest = format!("content-length: {size}\r\n\r\n");
        let mut leaving = begin(&deployment, size, &rest).await;
        leaving.write_all(&bytes[1..]).await.unwrap();
        drop(leaving);
        until_empty(&bucket).await;

        proxy.set(Fault::CutAsked(size as u64 / 2));
        let (status, code) = refusal(upload(&deployment, &bytes).await).await;
        assert!(
            code == "STORE_UNAVAILABLE" || code == "STORE_FAILED",
            "{status} {code}"
        );
        proxy.set(Fault::None);
        until_empty(&bucket).await;
    }
}

#[tokio::test]
async fn a_finalize_that_was_killed_is_repaired_by_the_next_one_in_a_bucket_too() {
    let Some(bucket) = TestBucket::create().await else {
        return;
    };
    let mut deployment = Deployment::new();
    use_bucket(&mut deployment, &bucket);
    let mut interrupted = 0;
    for round in 0..8_u64 {
        deployment.start();
        let version = format!("1.0.{round}");
        let bytes = fs::read(deployment.pack(ECHO, &version, &guest::echo())).unwrap();
        let key = staged(&deployment, &bytes).await;
        let hash = ContentHash::of(&bytes).to_hex();
        let body = json!({ "key": key, "declaredHash": hash });
        let process = deployment.process();
        let asking = deployment.admin(Method::POST, FINALIZE).json(&body).send();
        let killing = async {
            tokio::time::sleep(Duration::from_millis(round * round * 12)).await;
            process.kill();
        };
        let (asked, ()) = tokio::join!(asking, killing);
        interrupted += u32::from(asked.is_err());
        deployment.wait();
        deployment.start();
        let published = finalize(&deployment, &body).await.unwrap();
        assert_eq!(published["version"]["version"], version);
        let (objects, uploads) = bucket.contents().await;
        let is_of = |name: &&String| name.contains(&hash) && name.starts_with("sha256/");
        assert_eq!(objects.iter().filter(is_of).count(), 2, "{objects:?}");
        let is_staged = objects.iter().any(|name| name.contains("_staging"));
        assert!(!is_staged && uploads.is_empty(), "{objects:?} {uploads:?}");
        deployment.kill();
    }
    assert!(interrupted > 0, "no finalize was interrupted");
    deployment.start();
    assert_eq!(deployment.ok(&["bundle", "fsck"]), "");
}
