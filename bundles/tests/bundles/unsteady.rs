//! Fetching from stores that are slow, fail, or have been tampered with.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alga_bundles::{BundleCache, FetchError, FetchOptions, ObjectKey, Retry, StagingKey};
use alga_model::ContentHash;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::Instant;
use uuid::Uuid;

use crate::fetch::{bundle, cache, contents, stocked};
use crate::support::{COMPONENT, Room, Tar, TestStore};

const STALL: Duration = Duration::from_secs(7);

/// A cache with the pauses of a server.
fn patient(room: &Room, store: &Arc<TestStore>) -> BundleCache {
    let options = FetchOptions {
        stall: STALL,
        ..FetchOptions::default()
    };
    BundleCache::new(room.path("cache"), Arc::clone(store) as _, options).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_says_nothing_more_is_given_up_and_asked_again() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    store.stalled.store(1, Ordering::SeqCst);
    store.stalled_bodies.store(1, Ordering::SeqCst);
    let start = Instant::now();
    let fetched = patient(&room, &store).get(hash).await.unwrap();
    assert_eq!(fetched.read_component().await.unwrap(), COMPONENT);
    assert_eq!(store.opens(), 3);
    let took = start.elapsed();
    assert!(took >= 2 * STALL && took < 3 * STALL, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_ends_as_unavailable() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    store.stalled.store(usize::MAX, Ordering::SeqCst);
    let start = Instant::now();
    let error = patient(&room, &store).get(hash).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let attempts = Retry::default().attempts;
    assert_eq!(store.opens(), attempts as usize);
    assert!(start.elapsed() < STALL * (attempts + 1));
    assert_eq!(contents(&room), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_gives_a_byte_now_and_then_is_not_read_for_ever() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    store.dripping_bodies.store(1, Ordering::SeqCst);
    let start = Instant::now();
    patient(&room, &store).get(hash).await.unwrap();
    assert_eq!(store.opens(), 2);
    let took = start.elapsed();
    assert!(took >= STALL && took < 3 * STALL, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn between_attempts_there_is_a_growing_pause() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    store.unavailable.store(4, Ordering::SeqCst);
    let start = Instant::now();
    patient(&room, &store).get(hash).await.unwrap();
    // Of 100, 200, 400 and 800 ms at least half each.
    let took = start.elapsed();
    let (least, most) = (Duration::from_millis(750), Duration::from_millis(1_510));
    assert!(took >= least && took <= most, "{took:?}");
    assert_eq!(store.opens(), 5);
}

#[tokio::test]
async fn bodies_that_are_cut_are_attempts_like_others() {
    for (cuts, succeeds) in [(2, true), (3, false)] {
        let room = Room::new();
        let (store, hash) = stocked(&room);
        store.broken_bodies.store(cuts, Ordering::SeqCst);
        let fetched = cache(&room, &store).get(hash).await;
        assert_eq!((fetched.is_ok(), store.opens()), (succeeds, 3), "{cuts}");
        let (_, work) = contents(&room);
        assert_eq!(work, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_object_is_downloaded_once_for_all_who_ask_in_the_next_minute() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let cache = cache(&room, &store);
    let other = Tar::valid().file("extra", b"").zst();
    room.plant(ObjectKey::Bundle(hash), &other);
    for _ in 0..5 {
        let error = cache.get(hash).await.unwrap_err();
        let FetchError::Integrity { actual, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(actual, ContentHash::of(&other));
        // From now on its bytes would take for ever.
        store.stalled_bodies.store(usize::MAX, Ordering::SeqCst);
    }
    // It may have been the network: what is the same then is read again.
    store.stalled_bodies.store(0, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(cache.get(hash).await.is_err());
    room.plant(ObjectKey::Bundle(hash), &bundle());
    cache.get(hash).await.unwrap();
}

#[test]
fn fetches_attempts_and_damage_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let room = Room::new();
            let (store, hash) = stocked(&room);
            let cache = cache(&room, &store);
            room.plant(ObjectKey::Bundle(hash), b"tampered with");
            // Once, though it is told twice; and not for whoever is wrong about an upload.
            cache.get(hash).await.unwrap_err();
            cache.get(hash).await.unwrap_err();
            let upload = StagingKey::new(Uuid::new_v4());
            room.plant(upload.into(), &bundle());
            let other = ContentHash::of(b"other");
            cache.preview(upload, other).await.unwrap_err();
            room.plant(ObjectKey::Bundle(hash), &bundle());
            store.unavailable.store(1, Ordering::SeqCst);
            cache.get(hash).await.unwrap();
            cache.get(hash).await.unwrap();
        });
    });
    let text = handle.render();
    for line in [
        "alga_bundles_integrity_failures_total 1",
        "alga_bundles_fetch_retries_total 1",
        "alga_bundles_fetched_total 1",
    ] {
        assert!(text.lines().any(|said| said == line), "{line}\n{text}");
    }
}
