//! Bundles in a bucket: replicas whose disks have nothing in common.

use alga_test_postgres::TestDatabase;
use alga_test_s3::TestBucket;
use serde_json::json;
use uuid::Uuid;

use crate::deployment::{Deployment, Installed, get, path, send};

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
    let of_bundle = ["bundle.tar.zst", "manifest.json"].map(|file| format!("sha256/{hash}/{file}"));
    assert!(objects.ends_with(&of_bundle), "{objects:?}");
    let [code, ..] = objects.as_slice() else {
        unreachable!()
    };
    assert!(
        code.starts_with("compiled/") && objects.len() == 3,
        "{objects:?}"
    );
    assert!(uploads.is_empty(), "{uploads:?}");
    for replica in [&one, &other] {
        assert!(!replica.data().join("bundles/sha256").exists());
    }
}

#[test]
fn half_of_the_settings_of_a_bucket_is_a_mistake() {
    let mut replica = Deployment::new();
    replica.set("STORAGE_S3_BUCKET", "bundles");
    let refused = replica.fails(&["serve"]);
    assert!(refused.contains("storage.s3.access_key"), "{refused}");
    assert!(refused.contains("storage.s3.secret_key"), "{refused}");
}

#[tokio::test]
async fn a_wrong_secret_is_told_at_the_start_and_is_in_no_log() {
    let Some(bucket) = TestBucket::create().await else {
        return;
    };
    let wrong = TestBucket {
        secret_key: "hunter2-hunter2".to_owned(),
        ..bucket
    };
    let replica = replica(&TestDatabase::create().await, &wrong);
    let refused = replica.fails(&["serve"]);
    assert!(refused.contains("the secret key"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}
