//! Bundles in a bucket: replicas whose disks have nothing in common.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use alga_e2e::guest;
use alga_model::ContentHash;
use alga_test_postgres::TestDatabase;
use alga_test_s3::TestBucket;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::deployment::{Deployment, Installed, get, path, refusal, send};
use crate::uploads;

const MASTER_KEY: &str = "0001020304050607080910111213141516171819202122232425262728293031";
const NOTES: &str = "com.example.notes";

/// A process with an empty data folder, in a deployment of its database and bucket. Not started.
fn replica(database: &TestDatabase, bucket: &TestBucket) -> Deployment {
    let mut replica = Deployment::new();
    replica.set("DATABASE_URL", &database.url);
    replica.set("ALGA_KEYS_MASTER_KEY", MASTER_KEY);
    use_bucket(&mut replica, bucket);
    replica
}

/// Has a process keep its bundles in a bucket.
pub(crate) fn use_bucket(deployment: &mut Deployment, bucket: &TestBucket) {
    for (name, value) in [
        ("STORAGE_S3_ENDPOINT", bucket.endpoint.as_str()),
        ("STORAGE_S3_BUCKET", &bucket.name),
        ("STORAGE_S3_ACCESS_KEY", &bucket.access_key),
        ("STORAGE_S3_SECRET_KEY", &bucket.secret_key),
        ("STORAGE_S3_FORCE_PATH_STYLE", "true"),
    ] {
        deployment.set(name, value);
    }
}

#[tokio::test]
async fn what_is_pushed_to_one_replica_runs_on_another_that_compiles_nothing() {
    let Some(bucket) = TestBucket::create().await else {
        return;
    };
    let database = TestDatabase::create().await;
    let mut one = replica(&database, &bucket);
    one.start();
    let bundle = one.pack_notes();
    let token = one.data().join("admin.token");
    let push = [
        "bundle",
        "push",
        "--server",
        one.url(),
        "--token-file",
        path(&token),
    ];
    let hash = one.ok(&[&push[..], &[path(&bundle)]].concat());
    let tenant = Uuid::new_v4().to_string();
    let create = [
        "install",
        "create",
        "--tenant",
        &tenant,
        "--extension",
        NOTES,
    ];
    let installed = Installed {
        install: one.ok(&create),
        tenant,
        extension: NOTES.to_owned(),
        hash: hash.clone(),
    };

    let mut other = replica(&database, &bucket);
    other.start();
    let note = json!({"id": "a", "title": "A", "text": "one"});
    let created = other.call(&installed, send("POST", "/notes", &note)).await;
    assert_eq!(created.status, 201);
    let read = one.call(&installed, get("/notes/a")).await;
    assert_eq!(read.json()["note"]["text"], "one");

    let metrics = other.metrics().await;
    let taken = "alga_engine_shared_code_total{outcome=\"taken\"} 1\n";
    assert!(metrics.contains(taken), "{metrics}");
    assert!(
        !metrics.contains("alga_engine_compile_duration_seconds_count"),
        "{metrics}"
    );
    let (mut objects, uploads) = bucket.contents().await;
    objects.sort();
    let hash = hash.strip_prefix("sha256:").unwrap();
    let expected = ["bundle.tar.zst", "manifest.json"].map(|file| format!("sha256/{hash}/{file}"));
    let [code, published @ ..] = objects.as_slice() else {
        unreachable!()
    };
    assert!(code.starts_with("compiled/"), "{objects:?}");
    assert_eq!(published, expected);
    assert!(uploads.is_empty(), "{uploads:?}");
    for replica in [&one, &other] {
        assert!(!replica.data().join("bundles/sha256").exists());
    }
}

#[tokio::test]
async fn an_upload_that_one_replica_began_is_gone_on_with_by_another() {
    const PART: usize = 5 << 20;
    let Some(bucket) = TestBucket::create().await else {
        return;
    };
    let database = TestDatabase::create().await;
    let mut one = replica(&database, &bucket);
    one.start();
    let mut other = replica(&database, &bucket);
    other.start();
    let bundle = one.pack_large("com.example.echo", &guest::echo(), 2 * PART);
    let bytes = std::fs::read(bundle).unwrap();
    let (path, key) = uploads::begin_resumable(&one, bytes.len()).await;
    let sent = &bytes[..PART + 1_000];
    let connection = uploads::half_a_chunk(&one, &path, bytes.len(), sent).await;
    uploads::until_offset(&other, &path, PART).await;
    one.kill();
    drop(connection);
    let end = uploads::go_on(&other, &path, PART, &bytes[PART..]).await;
    assert_eq!(end, bytes.len());
    let published = uploads::published(&other, &key).await;
    let hash = ContentHash::of(&bytes);
    assert_eq!(published["contentHash"], hash.to_string());

    // Nothing is left of one that is given up.
    let (given_up, _) = uploads::begin_resumable(&other, bytes.len()).await;
    uploads::go_on(&other, &given_up, 0, &bytes[..PART]).await;
    let (_, unfinished) = bucket.contents().await;
    assert_eq!(unfinished.len(), 1, "{unfinished:?}");
    let terminating = other.admin(Method::DELETE, &given_up);
    let terminated = terminating.header("tus-resumable", "1.0.0").send().await;
    assert_eq!(terminated.unwrap().status(), 204);
    let (objects, unfinished) = bucket.contents().await;
    assert!(unfinished.is_empty(), "{unfinished:?}");
    assert!(
        !objects.iter().any(|key| key.contains("_staging")),
        "{objects:?}"
    );
    let hex = hash.to_hex();
    assert!(
        objects.contains(&format!("sha256/{hex}/bundle.tar.zst")),
        "{objects:?}"
    );
}

#[test]
fn half_of_the_settings_of_a_bucket_is_a_mistake() {
    let mut replica = Deployment::new();
    replica.set("STORAGE_S3_BUCKET", "bundles");
    let refused = replica.fails(&["serve"]);
    assert!(refused.contains("storage.s3.access_key"), "{refused}");
    assert!(refused.contains("storage.s3.secret_key"), "{refused}");
}

/// A server that refuses everything, its address, and how often it was asked. It has a thread of its own, as tests
/// block while they wait for processes.
fn refusing() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            count.fetch_add(1, Ordering::SeqCst);
            let refusal =
                b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            std::thread::spawn(move || {
                // An answer to what was not asked yet is no answer, but a connection that is broken.
                let _ = client.read(&mut [0; 512]);
                // Closed while the client still writes, it might never read why.
                let _ = client.write_all(refusal);
                let _ = client.shutdown(Shutdown::Write);
                let _ = client.read_to_end(&mut Vec::new());
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn what_is_in_the_cache_runs_offline_and_a_bucket_that_refuses_is_never_asked() {
    let mut deployment = Deployment::started();
    let cached = deployment.install("com.example.echo", &guest::echo());
    assert_eq!(deployment.call(&cached, get("/")).await.status, 200);
    deployment.kill();
    let (endpoint, asked) = refusing();
    for (name, value) in [
        ("STORAGE_S3_ENDPOINT", endpoint.as_str()),
        ("STORAGE_S3_BUCKET", "bundles"),
        ("STORAGE_S3_ACCESS_KEY", "key"),
        ("STORAGE_S3_SECRET_KEY", "secret"),
    ] {
        deployment.set(name, value);
    }
    assert!(
        deployment
            .fails(&["serve"])
            .contains("cannot use the bundle store")
    );
    assert!(asked.swap(0, Ordering::SeqCst) > 0);

    deployment.set("ALGA_BUNDLES_OFFLINE", "true");
    deployment.start();
    assert_eq!(deployment.call(&cached, get("/")).await.status, 200);
    let offline = (503, "BUNDLE_OFFLINE".to_owned());
    let key = format!("sha256/_staging/{}/bundle.tar.zst", Uuid::new_v4());
    for path in ["upload-proxy?filename=a&size=1", "finalize", "abort"] {
        let path = format!("/api/ext-bundles/{path}");
        let request = deployment.admin(Method::POST, &path);
        let request = request.json(&json!({ "key": key }));
        let response = request.send().await.unwrap();
        // To ask again is of no use as long as the setting stays.
        assert!(!response.headers().contains_key("retry-after"), "{path}");
        assert_eq!(refusal(response).await, offline, "{path}");
    }
    // The registry knows that, not the store.
    let known = format!("/api/ext-bundles/uploads/{}", Uuid::new_v4());
    let known = deployment.admin(Method::GET, &known).send().await.unwrap();
    assert_eq!(refusal(known).await, (404, "NOT_FOUND".to_owned()));
    let ready = readiness(&deployment).await;
    assert_eq!(ready["bundles"], Value::Null);
    assert_eq!(ready["degraded"], false);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_bucket_that_never_answers_holds_no_start_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut deployment = Deployment::new();
    for (name, value) in [
        (
            "STORAGE_S3_ENDPOINT",
            format!("http://{}", silent.local_addr().unwrap()),
        ),
        ("STORAGE_S3_BUCKET", "bundles".to_owned()),
        ("STORAGE_S3_ACCESS_KEY", "key".to_owned()),
        ("STORAGE_S3_SECRET_KEY", "secret".to_owned()),
    ] {
        deployment.set(name, &value);
    }
    let start = Instant::now();
    deployment.start();
    // Asked again and again as other requests are, it would hold it for four minutes.
    assert!(start.elapsed() < Duration::from_secs(120));
    let log = deployment
        .logged("the bundle store cannot be reached", 1)
        .await;
    let place = format!(
        "the bucket `bundles` at http://{}",
        silent.local_addr().unwrap()
    );
    assert!(log.contains(&place), "{log}");
    let metrics = deployment.metrics().await;
    assert!(metrics.contains("alga_bundles_store_up 0"), "{metrics}");
    deployment
        .logged("the bundle store cannot be used", 1)
        .await;
}

#[tokio::test]
async fn what_is_only_tried_out_goes_into_no_bucket() {
    let Some(bucket) = TestBucket::create().await else {
        return;
    };
    let mut deployment = Deployment::new();
    use_bucket(&mut deployment, &bucket);
    let bundle = deployment.pack("com.example.echo", "1.0.0", &guest::echo());
    deployment.ok(&["invoke", path(&bundle)]);
    let objects = bucket
        .client()
        .list_objects_v2()
        .bucket(&bucket.name)
        .send();
    assert_eq!(objects.await.unwrap().key_count, Some(0));
}

/// What a probe is told by a process that is ready.
async fn readiness(deployment: &Deployment) -> Value {
    let response = deployment.anonymous(Method::GET, "/readyz").send().await;
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

#[tokio::test]
async fn without_its_bucket_a_process_is_ready_and_says_what_it_lacks() {
    let mut deployment = Deployment::started();
    let installed = deployment.install("com.example.echo", &guest::echo());
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    deployment.kill();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for (name, value) in [
        ("STORAGE_S3_ENDPOINT", endpoint.as_str()),
        ("STORAGE_S3_BUCKET", "bundles"),
        ("STORAGE_S3_ACCESS_KEY", "key"),
        ("STORAGE_S3_SECRET_KEY", "secret"),
    ] {
        deployment.set(name, value);
    }
    deployment.start();
    assert_eq!(deployment.call(&installed, get("/")).await.status, 200);
    let cache = deployment.data().join("cache/bundles/.work");
    std::fs::remove_dir_all(cache).unwrap();
    let ready = readiness(&deployment).await;
    let expected = json!({
        "storage": true, "registry": true, "bundles": false, "cache": false, "degraded": true,
        "draining": false,
    });
    assert_eq!(ready, expected);
}

#[tokio::test]
async fn a_data_folder_has_nothing_that_is_elsewhere() {
    let Some(bucket) = TestBucket::create().await else {
        return;
    };
    let mut replica = replica(&TestDatabase::create().await, &bucket);
    for command in [["bundle", "fsck"], ["bundle", "gc"], ["install", "list"]] {
        replica.ok(&command);
        assert!(!replica.data().exists(), "{command:?} made the folder");
    }
    replica.start();
    assert!(replica.data().join("cache").exists());
    assert!(!replica.data().join("bundles").exists());
}

#[tokio::test]
async fn a_wrong_secret_is_told_at_the_start_and_is_in_no_log() {
    let Some(bucket) = TestBucket::create().await else {
        return;
    };
    let wrong = bucket.signed_with(&bucket.access_key, "hunter2-hunter2");
    let replica = replica(&TestDatabase::create().await, &wrong);
    let refused = replica.fails(&["serve"]);
    assert!(refused.contains("the secret key"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}
