//! Compiled code that processes leave for each other in the bundle store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use alga_bundles::{BundleStore as _, Content, Listing, LocalStore, ObjectKey};
use alga_e2e::guest;
use alga_model::{ContentHash, Secret};
use alga_runner::engine::{CompileOptions, Compiler, ComponentId, Engine, EngineOptions, Prepared};
use tempfile::TempDir;

use crate::deployment::RUNNER;

fn store(folder: &TempDir) -> Arc<LocalStore> {
    Arc::new(LocalStore::open(folder.path().join("store")).unwrap())
}

/// A replica with a disk of its own, and the key of its deployment.
fn replica(folder: &TempDir, name: &str, key: u8, fuel: Option<u64>) -> Engine {
    Engine::new(EngineOptions {
        max_instances: 1,
        fuel,
        code_cache: Some((folder.path().join(name), Secret::new([key; 32]))),
        shared_code: Some(store(folder)),
        compile: CompileOptions {
            compiler: Compiler::Child {
                program: RUNNER.into(),
            },
            ..CompileOptions::default()
        },
        ..EngineOptions::default()
    })
    .unwrap()
}

fn id(component: &[u8]) -> ComponentId {
    ComponentId::alone(ContentHash::of(component))
}

async fn compiled(engine: &Engine, component: &[u8]) {
    let (id, bytes) = (id(component), component.to_vec());
    let load = async { Ok::<_, std::convert::Infallible>(bytes) };
    engine.prepare(id, load).await.unwrap();
    engine.settle().await;
}

/// The component, if there is no need to compile it.
async fn at_hand(engine: &Engine, component: &[u8]) -> Option<Prepared> {
    let load = async { Err("it would have to be compiled") };
    engine.prepare(id(component), load).await.ok()
}

/// Where the one piece of code in the store is.
async fn in_store(folder: &TempDir) -> (ObjectKey, PathBuf) {
    let page = store(folder)
        .list(Listing::Compiled, None, 10)
        .await
        .unwrap();
    let [object] = page.objects.as_slice() else {
        panic!("{page:?}")
    };
    let path = folder.path().join("store").join(object.key.to_string());
    (object.key, path)
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_compiled_another_takes_and_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let component = guest::echo();
    compiled(&replica(&folder, "one", 1, None), &component).await;
    let other = replica(&folder, "other", 1, None);
    assert!(at_hand(&other, &component).await.is_some());
    assert_eq!(files(&folder.path().join("other")), 1);
    drop(other);
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    let restarted = replica(&folder, "other", 1, None);
    assert!(at_hand(&restarted, &component).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_another_key_or_other_settings_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let component = guest::echo();
    compiled(&replica(&folder, "one", 1, None), &component).await;
    let other_settings = replica(&folder, "other-settings", 1, Some(1 << 40));
    assert!(at_hand(&other_settings, &component).await.is_none());
    let other_key = replica(&folder, "other-key", 2, None);
    assert!(at_hand(&other_key, &component).await.is_none());
    assert_eq!(files(&folder.path().join("other-key")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_somebody_changed_in_the_store_is_refused_and_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let component = guest::echo();
    compiled(&replica(&folder, "one", 1, None), &component).await;
    let (key, path) = in_store(&folder).await;
    let genuine = fs::read(&path).unwrap();

    // Real code, sealed by somebody with another key, and ours with a bit flipped.
    let forger = tempfile::tempdir().unwrap();
    compiled(&replica(&forger, "one", 2, None), &component).await;
    let forged = fs::read(in_store(&forger).await.1).unwrap();
    let mut flipped = genuine.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (number, bad) in [forged, flipped].into_iter().enumerate() {
        store(&folder).remove(key).await.unwrap();
        let content = Content::Bytes(&bad);
        store(&folder).create(key, content).await.unwrap();
        let victim = replica(&folder, &format!("victim-{number}"), 1, None);
        assert!(at_hand(&victim, &component).await.is_none());
        compiled(&victim, &component).await;
        let next = replica(&folder, &format!("next-{number}"), 1, None);
        assert!(at_hand(&next, &component).await.is_some());
    }
}
