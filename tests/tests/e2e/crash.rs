//! Killed in the middle of writes: what was answered is there, and the counters are exact.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use rusqlite::{Connection, Row};
use serde_json::json;

use crate::deployment::Deployment;

const ROUNDS: usize = 50;
const WRITERS: usize = 4;
const KEYS: usize = 8;

/// What is known of a note.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// The last change was answered: the revision, none where it is not there.
    Answered(Option<u64>),
    /// The last change was not answered: what was there before, and whether it was a delete.
    Open { before: Option<u64>, delete: bool },
}

/// What a writer knows of its notes, and how many of its changes were answered.
#[derive(Debug, Default)]
struct Writer {
    notes: BTreeMap<String, Known>,
    acknowledged: usize,
    /// Whether the last request was cut off under way, not refused by a server that was gone.
    interrupted: bool,
}

#[tokio::test]
async fn every_acknowledged_write_survives_a_kill_and_counters_stay_exact() {
    let mut deployment = Deployment::new();
    // The rate is not what is tested here.
    deployment.set("ALGA_STORAGE_RATES_WRITE_PER_SECOND", "1000000");
    deployment.set("ALGA_STORAGE_RATES_WRITE_BURST", "1000000");
    let installed = deployment.install_notes();
    let mut notes = BTreeMap::new();
    let mut interrupted = 0;
    let mut silent = 0;
    for round in 0..ROUNDS {
        deployment.start();
        let process = deployment.process();
        let writing = join_all((0..WRITERS).map(|writer| {
            let known = notes_of(writer, &notes);
            write(&deployment, &installed.install, writer, known)
        }));
        let killing = async {
            // The moment varies from round to round; somewhere in a write is what counts.
            tokio::time::sleep(Duration::from_millis(120 + (round as u64 * 37) % 160)).await;
            process.kill();
        };
        // Nothing stops the writers but the kill, which each of them runs into.
        let (writers, ()) = tokio::join!(writing, killing);
        assert!(!deployment.wait(), "round {round}: it stopped by itself");
        let acknowledged: usize = writers.iter().map(|writer| writer.acknowledged).sum();
        silent += usize::from(acknowledged == 0);
        interrupted += writers.iter().filter(|writer| writer.interrupted).count();
        let known = writers.into_iter().flat_map(|writer| writer.notes);
        notes = verify(&deployment, &known.collect(), round);
    }
    // A kill may come before the first answer, where the machine has other things to do.
    assert!(
        silent < ROUNDS / 4,
        "nothing was written in {silent} rounds"
    );
    // Not every kill finds every writer waiting for an answer, but the most of them.
    assert!(
        interrupted > ROUNDS * WRITERS / 2,
        "only {interrupted} requests were cut off"
    );
}

fn id(writer: usize, note: usize) -> String {
    format!("w{writer}-{note}")
}

/// What is stored of a writer's notes.
fn notes_of(writer: usize, stored: &BTreeMap<String, u64>) -> BTreeMap<String, Known> {
    (0..KEYS)
        .map(|note| id(writer, note))
        .map(|id| (id.clone(), Known::Answered(stored.get(&id).copied())))
        .collect()
}

/// Writes and deletes notes, one after another, until a request fails. Keys are the writer's own.
async fn write(
    deployment: &Deployment,
    install: &str,
    writer: usize,
    notes: BTreeMap<String, Known>,
) -> Writer {
    let mut known = Writer {
        notes,
        ..Writer::default()
    };
    for i in 0.. {
        let id = id(writer, i % KEYS);
        let url = format!("/v1/installs/{install}/http/notes/{id}");
        let delete = i % 5 == 4;
        let request = if delete {
            deployment.request(Method::DELETE, &url)
        } else {
            deployment
                .request(Method::PUT, &url)
                .json(&json!({"title": id, "text": "x".repeat(i % 50)}))
        };
        let Known::Answered(before) = known.notes[&id] else {
            unreachable!("a request that fails is the last one");
        };
        known
            .notes
            .insert(id.clone(), Known::Open { before, delete });
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                known.interrupted = !error.is_connect();
                break;
            }
        };
        let after = match response.status() {
            StatusCode::NO_CONTENT => None,
            StatusCode::NOT_FOUND if delete && before.is_none() => None,
            StatusCode::OK | StatusCode::CREATED => {
                let etag = response.headers()["etag"].to_str().unwrap();
                let etag = etag.trim_matches('"').parse().unwrap();
                assert!(Some(etag) > before, "{id}: {etag} after {before:?}");
                Some(etag)
            }
            status => panic!("{id}: {status} after {before:?}"),
        };
        known.notes.insert(id, Known::Answered(after));
        known.acknowledged += 1;
        // Read to its end, so that the connection is used again.
        if response.bytes().await.is_err() {
            known.interrupted = true;
            break;
        }
    }
    known
}

/// Looks into the database itself, and gives the revision of every note.
fn verify(
    deployment: &Deployment,
    known: &BTreeMap<String, Known>,
    round: usize,
) -> BTreeMap<String, u64> {
    let database = Connection::open(deployment.data().join("storage.sqlite3")).unwrap();
    let records: Vec<(String, u64, u64, u64)> = select(
        &database,
        "SELECT key, revision, bytes, length(CAST(value AS BLOB)) + length(CAST(metadata AS BLOB))
         FROM ext_storage_records",
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    );
    let mut stored = BTreeMap::new();
    let mut total = 0;
    for (key, revision, bytes, real) in records {
        stored.insert(key, revision);
        assert_eq!(bytes, real);
        total += bytes;
    }
    for (id, known) in known {
        let stored = stored.get(id).copied();
        let agrees = match *known {
            Known::Answered(revision) => stored == revision,
            // Done or not, but nothing in between.
            Known::Open { before, delete } => {
                stored == before
                    || if delete {
                        stored.is_none()
                    } else {
                        stored > before
                    }
            }
        };
        assert!(agrees, "round {round}: {id} is {stored:?} after {known:?}");
    }
    let usage: Vec<(usize, u64)> = select(
        &database,
        "SELECT keys, bytes FROM ext_storage_usage",
        |row| Ok((row.get(0)?, row.get(1)?)),
    );
    // One of the tenant, the install and the namespace.
    let counted = vec![(stored.len(), total); 3];
    assert_eq!(usage, counted, "round {round}: counters");
    // The audit tells the same story: the last change of every key is what is stored.
    let changes: Vec<(String, Option<u64>)> = select(
        &database,
        "SELECT c.value ->> 0, c.value ->> 2
         FROM ext_storage_audit, json_each(changes) AS c ORDER BY audit_id",
        |row| Ok((row.get(0)?, row.get(1)?)),
    );
    let last: BTreeMap<_, _> = changes.into_iter().collect();
    let told: BTreeMap<_, _> = last
        .into_iter()
        .filter_map(|(key, revision)| Some((key, revision?)))
        .collect();
    assert_eq!(told, stored, "round {round}: audit");
    stored
}

fn select<T>(database: &Connection, sql: &str, row: fn(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let mut statement = database.prepare(sql).unwrap();
    let rows = statement.query_map((), row).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}
