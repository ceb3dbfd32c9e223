//! Killed in the middle of writes: what was answered is there, and the counters are exact.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alga_e2e::guest;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use crate::deployment::{Deployment, path};

const ROUNDS: usize = 20;
const WRITERS: usize = 4;
const KEYS: usize = 8;

/// What a writer knows of its keys: the revision last answered, none after an answered delete.
type Acknowledged = BTreeMap<String, Option<u64>>;

#[tokio::test]
async fn every_acknowledged_write_survives_a_kill_and_counters_stay_exact() {
    let mut deployment = Deployment::new();
    // The rate is not what is tested here.
    deployment.set("ALGA_STORAGE_RATES_WRITE_PER_SECOND", "1000000");
    deployment.set("ALGA_STORAGE_RATES_WRITE_BURST", "1000000");
    let bundle = deployment.scratch("notes.tar.zst");
    deployment.ok(&[
        "bundle",
        "pack",
        path(&guest::notes_bundle_dir()),
        "--output",
        path(&bundle),
    ]);
    let installed = deployment.publish("com.example.notes", &bundle);
    let mut known: Vec<Acknowledged> = vec![Acknowledged::new(); WRITERS];
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        deployment.start();
        let stop = AtomicBool::new(false);
        let writing = async {
            let writers = known.iter_mut().enumerate().map(|(writer, known)| {
                write(&deployment, &installed.install, writer, known, &stop)
            });
            let mut total = 0;
            for written in join_all(writers).await {
                total += written;
            }
            total
        };
        let killing = async {
            // The moment varies from round to round; somewhere in a write is what counts.
            tokio::time::sleep(Duration::from_millis(120 + (round as u64 * 37) % 160)).await;
            stop.store(true, Ordering::Relaxed);
        };
        // The kill comes while requests are under way: the writers stop at their next failure.
        let ((), written) = tokio::join!(killing, async {
            tokio::select! {
                written = writing => written,
                () = until(&stop) => 0,
            }
        });
        acknowledged += written;
        deployment.kill();
        verify(&deployment, &known, round).await;
    }
    let writes: u64 = known.iter().flat_map(BTreeMap::values).flatten().sum();
    assert!(
        writes > ROUNDS as u64,
        "hardly anything was written: {writes}, {acknowledged}"
    );
}

async fn until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Writes and deletes notes, one after another, until a request fails. Keys are the writer's own.
async fn write(
    deployment: &Deployment,
    install: &str,
    writer: usize,
    known: &mut Acknowledged,
    stop: &AtomicBool,
) -> usize {
    let mut written = 0;
    for i in 0.. {
        let id = format!("w{writer}-{}", i % KEYS);
        let url = format!("/v1/installs/{install}/http/notes/{id}");
        let delete = i % 5 == 4;
        let request = if delete {
            deployment.request(Method::DELETE, &url)
        } else {
            deployment
                .request(Method::PUT, &url)
                .json(&json!({"title": id, "text": "x".repeat(i % 50)}))
        };
        // From here to the answer the outcome is unknown.
        let before = known.remove(&id);
        let Ok(response) = request.send().await else {
            break;
        };
        match response.status() {
            StatusCode::NO_CONTENT => drop(known.insert(id, None)),
            StatusCode::NOT_FOUND if delete => drop(known.insert(id, None)),
            StatusCode::OK | StatusCode::CREATED => {
                let etag = response.headers()["etag"]
                    .to_str()
                    .unwrap()
                    .trim_matches('"')
                    .parse()
                    .unwrap();
                if let Some(Some(before)) = before {
                    assert!(etag > before, "{id}: {etag} after {before}");
                }
                known.insert(id, Some(etag));
            }
            status => panic!("{status}: {:?}", response.text().await),
        }
        written += 1;
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    written
}

/// Looks into the database itself.
async fn verify(deployment: &Deployment, known: &[Acknowledged], round: usize) {
    let database = format!(
        "sqlite://{}",
        deployment.data().join("storage.sqlite3").display()
    );
    let mut connection = SqliteConnection::connect(&database).await.unwrap();
    let records = sqlx::query("SELECT key, revision, bytes, length(CAST(value AS BLOB)) + length(CAST(metadata AS BLOB)) AS real FROM ext_storage_records")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let mut stored = BTreeMap::new();
    let mut bytes = 0;
    for row in &records {
        stored.insert(
            row.get::<String, _>("key"),
            row.get::<i64, _>("revision").unsigned_abs(),
        );
        assert_eq!(row.get::<i64, _>("bytes"), row.get::<i64, _>("real"));
        bytes += row.get::<i64, _>("bytes");
    }
    for (id, revision) in known.iter().flatten() {
        assert_eq!(stored.get(id), revision.as_ref(), "round {round}: {id}");
    }
    let usage = sqlx::query("SELECT keys, bytes FROM ext_storage_usage")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    for row in usage {
        let counted = (row.get::<i64, _>("keys"), row.get::<i64, _>("bytes"));
        assert_eq!(
            counted,
            (i64::try_from(stored.len()).unwrap(), bytes),
            "round {round}: counters"
        );
    }
    // The audit tells the same story: the last change of every key is what is stored.
    let audit = sqlx::query("SELECT key, revision_after FROM ext_storage_audit ORDER BY audit_id")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let mut last = BTreeMap::new();
    for row in audit {
        last.insert(
            row.get::<String, _>("key"),
            row.get::<Option<i64>, _>("revision_after")
                .map(i64::unsigned_abs),
        );
    }
    let told: BTreeMap<_, _> = last
        .into_iter()
        .filter_map(|(key, revision)| Some((key, revision?)))
        .collect();
    assert_eq!(told, stored, "round {round}: audit");
    connection.close().await.unwrap();
}
