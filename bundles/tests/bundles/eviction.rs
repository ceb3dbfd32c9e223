//! A cache with less room than bundles.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use alga_bundles::{BundleCache, FetchOptions, ObjectKey};
use alga_model::ContentHash;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::task::JoinSet;

use crate::support::{COMPONENT, Room, Tar, TestStore};

/// What one of the bundles takes: manifest, component and page, each a block of the disk.
const BUNDLE: u64 = 3 * 4096;

/// A store with so many bundles.
fn stocked(room: &Room, count: u8) -> (Arc<TestStore>, Vec<ContentHash>) {
    let plant = |number| {
        let bytes = Tar::valid().file("page", &[number; 1000]).zst();
        let hash = ContentHash::of(&bytes);
        room.plant(ObjectKey::Bundle(hash), &bytes);
        hash
    };
    let hashes = (0..count).map(plant).collect();
    (Arc::new(TestStore::new(room.store())), hashes)
}

fn cache(room: &Room, store: &Arc<TestStore>, budget: u64) -> BundleCache {
    let options = FetchOptions {
        budget,
        ..FetchOptions::default()
    };
    BundleCache::new(room.path("cache"), Arc::clone(store) as _, options).unwrap()
}

fn folder(room: &Room, hash: ContentHash) -> PathBuf {
    room.path("cache").join(hash.to_hex())
}

fn there(room: &Room, hashes: &[ContentHash]) -> Vec<bool> {
    let there = hashes.iter().map(|hash| folder(room, *hash).exists());
    there.collect()
}

/// Makes a bundle look as if it had been used so many hours ago.
fn age(room: &Room, hash: ContentHash, hours: u64) {
    let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000 - hours * 3600);
    File::open(folder(room, hash))
        .unwrap()
        .set_modified(used)
        .unwrap();
}

fn used(room: &Room, hash: ContentHash) -> SystemTime {
    folder(room, hash).metadata().unwrap().modified().unwrap()
}

/// Fetches all and makes them look used one after another, the first one longest ago.
async fn fill(room: &Room, store: &Arc<TestStore>, hashes: &[ContentHash]) {
    let cache = cache(room, store, u64::MAX);
    for hash in hashes {
        cache.get(*hash).await.unwrap();
    }
    cache.make_room().await;
    for (hash, hours) in hashes.iter().rev().zip(1..) {
        age(room, *hash, hours);
    }
}

#[tokio::test]
async fn what_was_used_least_recently_makes_room_at_the_start() {
    for (budget, left) in [
        (3 * BUNDLE, [true, true, true]),
        (3 * BUNDLE - 1, [false, true, true]),
        (2 * BUNDLE, [false, true, true]),
        (BUNDLE - 1, [false, false, false]),
        (0, [false, false, false]),
    ] {
        let room = Room::new();
        let (store, hashes) = stocked(&room, 3);
        fill(&room, &store, &hashes).await;
        let cache = cache(&room, &store, budget);
        assert_eq!(there(&room, &hashes), left, "{budget}");
        drop(cache);
        assert_eq!(fs::read_dir(room.path("cache/.work")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn what_is_fetched_makes_room_for_itself_and_what_went_is_fetched_again() {
    let room = Room::new();
    let (store, hashes) = stocked(&room, 3);
    let cache = cache(&room, &store, 2 * BUNDLE);
    for (hash, hours) in [(hashes[0], 3), (hashes[1], 2)] {
        cache.get(hash).await.unwrap();
        age(&room, hash, hours);
    }
    cache.get(hashes[2]).await.unwrap();
    cache.make_room().await;
    assert_eq!(there(&room, &hashes), [false, true, true]);
    let again = cache.get(hashes[0]).await.unwrap();
    assert_eq!(again.read_component().await.unwrap(), COMPONENT);
    cache.make_room().await;
    assert_eq!(there(&room, &hashes), [true, false, true]);
    assert_eq!(store.opens(), 4);
}

#[tokio::test]
async fn what_is_in_use_stays_however_long_ago_it_was_asked_for() {
    let room = Room::new();
    let (store, hashes) = stocked(&room, 3);
    fill(&room, &store, &hashes).await;
    let ours = cache(&room, &store, u64::MAX);
    let (here, elsewhere) = (ours.clone(), cache(&room, &store, u64::MAX));
    let bundles = (here.get(hashes[0]).await, elsewhere.get(hashes[1]).await);
    for (hash, hours) in hashes.iter().zip([9, 8, 7]) {
        age(&room, *hash, hours);
    }
    let tight = cache(&room, &store, 0);
    assert_eq!(there(&room, &hashes), [true, true, false]);
    let component = bundles.0.as_ref().unwrap().read_component().await;
    assert_eq!(component.unwrap(), COMPONENT);
    drop(bundles);
    tight.make_room().await;
    assert_eq!(there(&room, &hashes), [false, false, false]);
    // Those who knew it see that it is gone, and fetch it.
    let again = ours.get(hashes[0]).await.unwrap();
    assert_eq!(again.read_component().await.unwrap(), COMPONENT);
}

#[tokio::test]
async fn what_another_process_uses_stays_until_that_ends() {
    let room = Room::new();
    let (store, hashes) = stocked(&room, 2);
    fill(&room, &store, &hashes).await;
    let mut other = Command::new("flock")
        .arg("--shared")
        .arg(folder(&room, hashes[0]))
        .args(["sh", "-c", "echo held; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = String::new();
    BufReader::new(other.stdout.take().unwrap())
        .read_line(&mut held)
        .unwrap();
    assert_eq!(held, "held\n");
    let cache = cache(&room, &store, 0);
    assert_eq!(there(&room, &hashes), [true, false]);
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    cache.make_room().await;
    assert_eq!(there(&room, &hashes), [false, false]);
}

#[tokio::test]
async fn what_is_of_no_use_goes_first_and_what_is_no_bundle_stays() {
    let room = Room::new();
    let (store, hashes) = stocked(&room, 2);
    fill(&room, &store, &hashes).await;
    fs::write(folder(&room, hashes[1]).join("index.json"), b"{}").unwrap();
    room.write("cache/notes/README", &[b'x'; 9000]);
    // Its index takes a block too, as nothing tells any more which files there should be.
    let cache = cache(&room, &store, 2 * BUNDLE);
    assert_eq!(there(&room, &hashes), [true, false]);
    assert!(room.path("cache/notes/README").exists());
    cache.get(hashes[1]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_use_is_noted_once_a_minute_also_by_those_who_keep_the_bundle() {
    let room = Room::new();
    let (store, hashes) = stocked(&room, 1);
    let (cache, hash) = (cache(&room, &store, u64::MAX), hashes[0]);
    let kept = cache.get(hash).await.unwrap();
    age(&room, hash, 1);
    let aged = used(&room, hash);
    tokio::time::advance(Duration::from_secs(59)).await;
    cache.get(hash).await.unwrap();
    assert_eq!(used(&room, hash), aged);
    tokio::time::advance(Duration::from_secs(1)).await;
    cache.get(hash).await.unwrap();
    let noted = used(&room, hash);
    assert!(noted > aged);
    drop(kept);
    age(&room, hash, 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    cache.get(hash).await.unwrap();
    assert!(used(&room, hash) > aged);
    assert_eq!(store.opens(), 1);
}

#[tokio::test]
async fn offline_nothing_makes_room_as_it_could_not_be_fetched_again() {
    let room = Room::new();
    let (store, hashes) = stocked(&room, 2);
    fill(&room, &store, &hashes).await;
    let options = FetchOptions {
        budget: 0,
        offline: true,
        ..FetchOptions::default()
    };
    let cache = BundleCache::new(room.path("cache"), store as _, options).unwrap();
    cache.make_room().await;
    cache.get(hashes[0]).await.unwrap();
    assert_eq!(there(&room, &hashes), [true, true]);
}

#[tokio::test]
async fn a_bundle_of_many_files_is_found_unchanged_and_damaged_alike() {
    let room = Room::new();
    let mut tar = Tar::valid();
    for number in 0..200 {
        tar = tar.file(&format!("ui/{number}.js"), b"import {};");
    }
    let (bytes, store) = (tar.zst(), Arc::new(TestStore::new(room.store())));
    let hash = ContentHash::of(&bytes);
    room.plant(ObjectKey::Bundle(hash), &bytes);
    let cache = cache(&room, &store, u64::MAX);
    let first = cache.get(hash).await.unwrap();
    cache.get(hash).await.unwrap();
    assert_eq!(store.opens(), 1);
    fs::write(first.file("ui/199.js").unwrap().path, b"damaged").unwrap();
    cache.get(hash).await.unwrap();
    assert_eq!(store.opens(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_processes_under_pressure_never_see_half_a_bundle() {
    let room = Room::new();
    let (store, hashes) = stocked(&room, 6);
    let mut users = JoinSet::new();
    for user in 0..4 {
        let (cache, mut hashes) = (cache(&room, &store, 2 * BUNDLE), hashes.clone());
        hashes.rotate_left(user);
        users.spawn(async move {
            for hash in hashes.iter().cycle().take(60) {
                let bundle = cache.get(*hash).await.unwrap();
                tokio::task::yield_now().await;
                assert_eq!(bundle.read_component().await.unwrap(), COMPONENT);
                let page = bundle.file("page").unwrap();
                let bytes = tokio::fs::read(&page.path).await.unwrap();
                assert_eq!(ContentHash::of(&bytes), page.sha256);
            }
            cache.make_room().await;
        });
    }
    users.join_all().await;
    cache(&room, &store, 2 * BUNDLE);
    let left = there(&room, &hashes);
    assert!(left.iter().filter(|there| **there).count() <= 2, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_that_fetch_the_same_bundle_all_get_it() {
    let room = Room::new();
    let (store, hashes) = stocked(&room, 1);
    let mut users = JoinSet::new();
    for _ in 0..8 {
        let (cache, hash) = (cache(&room, &store, u64::MAX), hashes[0]);
        users.spawn(async move { cache.get(hash).await.unwrap().read_component().await });
    }
    for component in users.join_all().await {
        assert_eq!(component.unwrap(), COMPONENT);
    }
    assert_eq!(there(&room, &hashes), [true]);
}

#[test]
fn what_went_and_what_is_left_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let room = Room::new();
            let (store, hashes) = stocked(&room, 3);
            let cache = cache(&room, &store, BUNDLE);
            for hash in &hashes {
                cache.get(*hash).await.unwrap();
                cache.make_room().await;
            }
        });
    });
    let text = handle.render();
    for line in [
        "alga_bundles_evicted_total 2".to_owned(),
        format!("alga_bundles_cache_bytes {BUNDLE}"),
    ] {
        assert!(text.lines().any(|said| said == line), "{line}\n{text}");
    }
}
