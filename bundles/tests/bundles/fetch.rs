use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use alga_bundles::{BundleCache, FetchError, FetchOptions, Limits, ObjectKey, Retry, StoreError};
use alga_model::ContentHash;
use tokio::task::JoinSet;

use crate::support::{COMPONENT, Room, Tar, TestStore, listing, manifest};

pub(crate) const INDEX: &[u8] = b"<p>hello</p>";

pub(crate) fn bundle() -> Vec<u8> {
    Tar::valid()
        .folder("ui/")
        .file("ui/index.html", INDEX)
        .file("empty", b"")
        .zst()
}

/// A bundle in a store.
pub(crate) fn stocked(room: &Room) -> (Arc<TestStore>, ContentHash) {
    let hash = ContentHash::of(&bundle());
    room.plant(ObjectKey::Bundle(hash), &bundle());
    (Arc::new(TestStore::new(room.store())), hash)
}

pub(crate) fn cache(room: &Room, store: &Arc<TestStore>) -> BundleCache {
    let retry = Retry {
        attempts: 3,
        base: Duration::ZERO,
        cap: Duration::ZERO,
    };
    let options = FetchOptions {
        retry,
        ..FetchOptions::default()
    };
    BundleCache::new(room.path("cache"), Arc::clone(store) as _, options).unwrap()
}

/// What the cache holds for good, and what lies in its work folders.
pub(crate) fn contents(room: &Room) -> (Vec<String>, Vec<String>) {
    let names = listing(&room.path("cache")).into_iter();
    let names = names.filter(|name| {
        ![".work", ".work.lock", ".evict.lock"].contains(&name.as_str()) && !name.ends_with("/lock")
    });
    // The work folders themselves stay as long as their process.
    names
        .filter(|name| name.matches('/').count() != 1 || !name.starts_with(".work"))
        .partition(|name| !name.starts_with(".work"))
}

/// Writes other bytes of the same length and puts the time back, as a failing disk would.
fn rot(path: &Path) {
    let modified = path.metadata().unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

#[tokio::test]
async fn a_fetched_bundle_has_its_manifest_its_component_and_its_files() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let bundle = cache(&room, &store).get(hash).await.unwrap();
    assert_eq!(bundle.hash(), hash);
    assert_eq!(bundle.manifest().name.as_str(), "com.example.notes");
    assert_eq!(bundle.read_component().await.unwrap(), COMPONENT);
    assert_eq!(fs::read(bundle.component_path()).unwrap(), COMPONENT);
    let index = bundle.file("ui/index.html").unwrap();
    assert_eq!(fs::read(&index.path).unwrap(), INDEX);
    assert_eq!(
        (index.size, index.sha256),
        (INDEX.len() as u64, ContentHash::of(INDEX))
    );
    let files: Vec<_> = bundle.files().map(ToString::to_string).collect();
    assert_eq!(
        files,
        ["dist/main.wasm", "empty", "manifest.json", "ui/index.html"]
    );
}

#[tokio::test]
async fn only_files_of_the_bundle_are_files_of_the_bundle() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let bundle = cache(&room, &store).get(hash).await.unwrap();
    for path in [
        "",
        "ui",
        "ui/",
        "../index.json",
        "./manifest.json",
        "ui/../manifest.json",
        "/etc/passwd",
        "MANIFEST.JSON",
    ] {
        assert_eq!(bundle.file(path), None, "{path}");
    }
}

#[tokio::test]
async fn a_cached_bundle_needs_no_store_not_even_in_a_new_process() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let first = cache(&room, &store);
    first.get(hash).await.unwrap();
    first.get(hash).await.unwrap();
    let second = cache(&room, &store);
    fs::remove_dir_all(room.path("store")).unwrap();
    assert_eq!(
        second
            .get(hash)
            .await
            .unwrap()
            .read_component()
            .await
            .unwrap(),
        COMPONENT
    );
    assert_eq!(store.opens(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_callers_wait_it_is_fetched_once() {
    let room = Room::new();
    let (_, hash) = stocked(&room);
    let store = Arc::new(TestStore::closed(room.store()));
    let cache = cache(&room, &store);
    let mut callers = JoinSet::new();
    for _ in 0..50 {
        let cache = cache.clone();
        callers.spawn(async move { cache.get(hash).await.unwrap() });
    }
    while store.opens() == 0 {
        tokio::task::yield_now().await;
    }
    store.gate.add_permits(100);
    let bundles = callers.join_all().await;
    assert!(
        bundles
            .iter()
            .all(|bundle| Arc::ptr_eq(bundle, &bundles[0]))
    );
    assert_eq!(store.opens(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_nobody() {
    let room = Room::new();
    let (_, hash) = stocked(&room);
    let store = Arc::new(TestStore::closed(room.store()));
    let cache = cache(&room, &store);
    let first = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(hash).await }
    });
    while store.opens() == 0 {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(hash).await }
    });
    tokio::task::yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    store.gate.add_permits(1);
    second.await.unwrap().unwrap();
    assert_eq!(store.opens(), 1);
}

#[tokio::test]
async fn a_fetch_that_everybody_left_still_fills_the_cache() {
    let room = Room::new();
    let (_, hash) = stocked(&room);
    let store = Arc::new(TestStore::closed(room.store()));
    let cache = cache(&room, &store);
    tokio::select! {
        biased;
        _ = cache.get(hash) => unreachable!("the store has not answered"),
        () = async { while store.opens() == 0 { tokio::task::yield_now().await } } => {}
    }
    store.gate.add_permits(1);
    cache.get(hash).await.unwrap();
    assert_eq!(store.opens(), 1);
}

#[tokio::test]
async fn a_missing_bundle_is_asked_for_once() {
    let room = Room::new();
    let (store, _) = stocked(&room);
    let hash = ContentHash::of(b"never published");
    let error = cache(&room, &store).get(hash).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound { hash: named } if named == hash));
    assert_eq!(store.opens(), 1);
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_pass_ends() {
    for (failures, opens, succeeds) in [(0, 1, true), (2, 3, true), (3, 3, false)] {
        let room = Room::new();
        let (store, hash) = stocked(&room);
        store.unavailable.store(failures, Ordering::SeqCst);
        let fetched = cache(&room, &store).get(hash).await;
        assert_eq!(
            (fetched.is_ok(), store.opens()),
            (succeeds, opens),
            "{failures}: {fetched:?}"
        );
        assert!(fetched.is_ok() || fetched.unwrap_err().is_transient());
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_starts_again() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    store.broken_bodies.store(1, Ordering::SeqCst);
    store.short_bodies.store(1, Ordering::SeqCst);
    let bundle = cache(&room, &store).get(hash).await.unwrap();
    assert_eq!(bundle.read_component().await.unwrap(), COMPONENT);
    assert_eq!(store.opens(), 3);
}

#[tokio::test]
async fn other_bytes_are_refused_at_once_and_nothing_of_them_is_kept() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let cache = cache(&room, &store);
    let other = Tar::valid().file("extra", b"").zst();
    room.plant(ObjectKey::Bundle(hash), &other);
    let error = cache.get(hash).await.unwrap_err();
    let FetchError::Integrity { expected, actual } = error else {
        panic!("{error:?}")
    };
    assert_eq!((expected, actual), (hash, ContentHash::of(&other)));
    assert_eq!(store.opens(), 1);
    assert_eq!(contents(&room), (vec![], vec![]));

    room.plant(ObjectKey::Bundle(hash), &bundle());
    cache.get(hash).await.unwrap();
}

#[tokio::test]
async fn a_bundle_damaged_in_the_store_is_never_accepted() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let cache = cache(&room, &store);
    let whole = bundle();
    let mut damaged: Vec<_> = (0..whole.len())
        .step_by(7)
        .map(|len| whole[..len].to_vec())
        .collect();
    damaged.push([&whole[..], b"x"].concat());
    for at in (0..whole.len()).step_by(5) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        damaged.push(flipped);
    }
    for bytes in damaged {
        room.plant(ObjectKey::Bundle(hash), &bytes);
        let error = cache.get(hash).await.unwrap_err();
        assert!(matches!(error, FetchError::Integrity { .. }), "{error:?}");
    }
    assert_eq!(contents(&room), (vec![], vec![]));
}

#[tokio::test]
async fn a_hostile_bundle_with_the_right_hash_is_not_unpacked() {
    let room = Room::new();
    let (store, _) = stocked(&room);
    let cache = cache(&room, &store);
    let no_manifest_named = Tar::new().file("manifest.json", b"{}");
    let no_component = Tar::new().file("manifest.json", manifest().to_string().as_bytes());
    for tar in [
        Tar::valid().file("../../../../escaped", b"x"),
        no_manifest_named,
        no_component,
    ] {
        let bytes = tar.zst();
        let hash = ContentHash::of(&bytes);
        room.plant(ObjectKey::Bundle(hash), &bytes);
        let error = cache.get(hash).await.unwrap_err();
        assert!(
            matches!(
                error,
                FetchError::Archive { .. } | FetchError::Manifest { .. }
            ),
            "{error:?}"
        );
        assert_eq!(contents(&room), (vec![], vec![]));
    }
    assert!(
        !listing(&room.path(""))
            .iter()
            .any(|name| name.contains("escaped"))
    );
}

#[tokio::test]
async fn the_limit_of_size_holds_for_fetching_too() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let size = bundle().len() as u64;
    for (limit, fits) in [(size + 1, true), (size, true), (size - 1, false)] {
        let limits = Limits {
            compressed_bytes: limit,
            ..Limits::default()
        };
        let options = FetchOptions {
            limits,
            ..FetchOptions::default()
        };
        let folder = room.path(&format!("cache-{limit}"));
        let fetched = BundleCache::new(folder, Arc::clone(&store) as _, options)
            .unwrap()
            .get(hash)
            .await;
        assert_eq!(fetched.is_ok(), fits, "{limit}");
        if let Err(error) = fetched {
            assert!(
                matches!(error, FetchError::Store(error) if matches!(*error, StoreError::TooLarge { .. }))
            );
        }
    }
}

#[tokio::test]
async fn damage_that_shows_is_repaired_at_the_next_use() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let cache = cache(&room, &store);
    let page = cache
        .get(hash)
        .await
        .unwrap()
        .file("ui/index.html")
        .unwrap()
        .path;
    let folder = room.path("cache").join(hash.to_hex());
    let damages: [&dyn Fn(); 5] = [
        &|| fs::write(&page, b"shorter").unwrap(),
        &|| fs::write(&page, [b'x'; INDEX.len()]).unwrap(),
        &|| fs::remove_file(&page).unwrap(),
        &|| {
            fs::remove_file(&page).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", &page).unwrap();
        },
        &|| fs::remove_dir_all(&folder).unwrap(),
    ];
    for (count, damage) in damages.iter().enumerate() {
        damage();
        let repaired = cache.get(hash).await.unwrap();
        assert_eq!(
            fs::read(repaired.file("ui/index.html").unwrap().path).unwrap(),
            INDEX
        );
        cache.get(hash).await.unwrap();
        assert_eq!(store.opens(), count + 2, "fetched again once");
    }
}

#[tokio::test]
async fn damage_that_does_not_show_is_repaired_at_the_first_use_in_a_process() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let page = cache(&room, &store)
        .get(hash)
        .await
        .unwrap()
        .file("ui/index.html")
        .unwrap()
        .path;
    let folder = room.path("cache").join(hash.to_hex());
    let index = folder.join("index.json");
    let damages: [&dyn Fn(); 5] = [
        &|| rot(&page),
        &|| fs::write(&index, b"{}").unwrap(),
        &|| fs::write(&index, b"").unwrap(),
        &|| fs::remove_file(&index).unwrap(),
        &|| {
            let text = fs::read_to_string(&index).unwrap();
            fs::write(
                &index,
                text.replace(&hash.to_hex(), &ContentHash::of(b"").to_hex()),
            )
            .unwrap();
        },
    ];
    for (count, damage) in damages.iter().enumerate() {
        damage();
        let repaired = cache(&room, &store).get(hash).await.unwrap();
        assert_eq!(
            fs::read(repaired.file("ui/index.html").unwrap().path).unwrap(),
            INDEX
        );
        assert_eq!(store.opens(), count + 2, "damage {count}");
    }
}

#[tokio::test]
async fn a_component_that_rots_while_the_process_runs_is_not_handed_out() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let cache = cache(&room, &store);
    let bundle = cache.get(hash).await.unwrap();
    rot(&bundle.component_path());
    let error = bundle.read_component().await.unwrap_err();
    assert!(matches!(error, FetchError::Changed { .. }), "{error:?}");
    let repaired = cache.get(hash).await.unwrap();
    assert_eq!(repaired.read_component().await.unwrap(), COMPONENT);
    assert_eq!(store.opens(), 2);
}

#[tokio::test]
async fn damage_that_cannot_be_repaired_is_not_served() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let cache = cache(&room, &store);
    let bundle = cache.get(hash).await.unwrap();
    fs::remove_dir_all(room.path("store")).unwrap();
    fs::write(bundle.component_path(), b"\0asm other").unwrap();
    assert!(matches!(
        cache.get(hash).await,
        Err(FetchError::NotFound { .. })
    ));
    assert_eq!(contents(&room), (vec![], vec![]));
}

#[tokio::test]
async fn what_a_dead_process_left_is_removed_and_never_used() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    room.write("cache/.work/dead/lock", b"");
    room.write("cache/.work/dead/half/files/manifest.json", b"{");
    room.write(
        &format!("cache/{}/files/manifest.json", hash.to_hex()),
        b"{",
    );
    let cache = cache(&room, &store);
    assert!(!room.path("cache/.work/dead").exists());
    assert_eq!(
        cache
            .get(hash)
            .await
            .unwrap()
            .read_component()
            .await
            .unwrap(),
        COMPONENT
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_may_fill_one_folder_at_once() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    for _ in 0..20 {
        let (one, two) = (cache(&room, &store), cache(&room, &store));
        let (one, two) = tokio::join!(one.get(hash), two.get(hash));
        assert_eq!(one.unwrap().read_component().await.unwrap(), COMPONENT);
        assert_eq!(two.unwrap().read_component().await.unwrap(), COMPONENT);
        fs::remove_dir_all(room.path("cache").join(hash.to_hex())).unwrap();
    }
}

#[tokio::test]
async fn what_another_process_repaired_is_not_fetched_again() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let (one, two) = (cache(&room, &store), cache(&room, &store));
    let page = one
        .get(hash)
        .await
        .unwrap()
        .file("ui/index.html")
        .unwrap()
        .path;
    two.get(hash).await.unwrap();
    fs::write(&page, b"damaged").unwrap();
    two.get(hash).await.unwrap();
    one.get(hash).await.unwrap();
    assert_eq!(fs::read(&page).unwrap(), INDEX);
    assert_eq!(store.opens(), 2);
}

#[tokio::test]
async fn a_bundle_without_a_manifest_takes_the_one_beside_it() {
    let room = Room::new();
    let (store, _) = stocked(&room);
    let bytes = Tar::new().file("dist/main.wasm", COMPONENT).zst();
    let hash = ContentHash::of(&bytes);
    room.plant(ObjectKey::Bundle(hash), &bytes);
    let cache = cache(&room, &store);
    let registered = manifest().to_string();
    let digest = ContentHash::of(registered.as_bytes());
    let fetched = cache.get_with_manifest(hash, digest).await;
    assert!(matches!(fetched, Err(FetchError::Store(_))), "{fetched:?}");
    assert_eq!(contents(&room), (vec![], vec![]));

    room.plant(ObjectKey::Manifest(hash), registered.as_bytes());
    for _ in 0..2 {
        let bundle = cache.get_with_manifest(hash, digest).await.unwrap();
        assert_eq!(bundle.manifest().name.as_str(), "com.example.notes");
        assert_eq!(bundle.read_component().await.unwrap(), COMPONENT);
    }
    assert_eq!(store.opens(), 4, "twice the bundle and its manifest");
    // Who can't say which manifest it should be gets none, at hand or not.
    for _ in 0..2 {
        let error = cache.get(hash).await.unwrap_err();
        assert!(matches!(error, FetchError::Manifest { .. }), "{error:?}");
        fs::remove_dir_all(room.path("cache").join(hash.to_hex())).unwrap_or_default();
    }
}

#[tokio::test]
async fn a_manifest_beside_a_bundle_that_is_not_the_registered_one_is_damage() {
    let room = Room::new();
    let (store, _) = stocked(&room);
    let bytes = Tar::new()
        .file("dist/main.wasm", COMPONENT)
        .file("dist/other.wasm", b"\0asm other")
        .zst();
    let hash = ContentHash::of(&bytes);
    room.plant(ObjectKey::Bundle(hash), &bytes);
    let registered = manifest().to_string();
    let digest = ContentHash::of(registered.as_bytes());
    let mut swapped = manifest();
    swapped["entry"] = serde_json::json!("dist/other.wasm");
    room.plant(ObjectKey::Manifest(hash), swapped.to_string().as_bytes());
    let cache = cache(&room, &store);
    for opens in [2, 3] {
        let error = cache.get_with_manifest(hash, digest).await.unwrap_err();
        let FetchError::ManifestIntegrity {
            expected, actual, ..
        } = error
        else {
            panic!("{error:?}")
        };
        let other = ContentHash::of(swapped.to_string().as_bytes());
        assert_eq!((expected, actual), (digest, other));
        assert_eq!(contents(&room), (vec![], vec![]));
        assert_eq!(store.opens(), opens, "the bundle is downloaded once");
    }
    room.plant(ObjectKey::Manifest(hash), registered.as_bytes());
    let bundle = cache.get_with_manifest(hash, digest).await.unwrap();
    assert_eq!(bundle.read_component().await.unwrap(), COMPONENT);
}

#[tokio::test]
async fn a_cached_bundle_is_no_more_than_the_manifest_it_was_fetched_with() {
    let room = Room::new();
    let (store, _) = stocked(&room);
    let bytes = Tar::new()
        .file("dist/main.wasm", COMPONENT)
        .file("dist/other.wasm", b"\0asm other")
        .zst();
    let hash = ContentHash::of(&bytes);
    room.plant(ObjectKey::Bundle(hash), &bytes);
    let of_entry = |entry: &str| {
        let mut of_entry = manifest();
        of_entry["entry"] = serde_json::json!(entry);
        of_entry.to_string()
    };
    let cache = cache(&room, &store);
    // Published, removed, and published with another manifest.
    for (entry, component) in [
        ("dist/other.wasm", &b"\0asm other"[..]),
        ("dist/main.wasm", COMPONENT),
    ] {
        let text = of_entry(entry);
        room.plant(ObjectKey::Manifest(hash), text.as_bytes());
        let digest = ContentHash::of(text.as_bytes());
        let bundle = cache.get_with_manifest(hash, digest).await.unwrap();
        assert_eq!(bundle.read_component().await.unwrap(), component);
        let in_another_process = self::cache(&room, &store);
        let bundle = in_another_process.get_with_manifest(hash, digest).await;
        assert_eq!(bundle.unwrap().read_component().await.unwrap(), component);
    }
    let former = ContentHash::of(of_entry("dist/other.wasm").as_bytes());
    let error = cache.get_with_manifest(hash, former).await.unwrap_err();
    assert!(
        matches!(error, FetchError::ManifestIntegrity { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_manifest_in_an_archive_needs_nobody_to_vouch_for_it() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let other = ContentHash::of(b"another manifest");
    let cache = cache(&room, &store);
    cache.get_with_manifest(hash, other).await.unwrap();
    cache.get(hash).await.unwrap();
    assert_eq!(store.opens(), 1);
}

#[tokio::test]
async fn nothing_is_left_in_the_work_folder_after_a_fetch() {
    let room = Room::new();
    let (store, hash) = stocked(&room);
    let cache = cache(&room, &store);
    cache.get(hash).await.unwrap();
    cache.make_room().await;
    let (kept, work) = contents(&room);
    assert_eq!(work, Vec::<String>::new());
    assert!(kept.iter().all(|name| name.starts_with(&hash.to_hex())));
    drop(cache);
    assert_eq!(fs::read_dir(room.path("cache/.work")).unwrap().count(), 0);
}
