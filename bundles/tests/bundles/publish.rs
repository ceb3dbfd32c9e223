use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alga_bundles::{
    BundlePath, BundleStore, CheckError, ComponentCheck, InvalidComponent, Limits, LocalStore,
    Manifest, ObjectKey, PublishContext, PublishError, PublishRequest, Published, RegisterError,
    SignatureRules, publish,
};
use alga_model::ContentHash;
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::support::{COMPONENT, MemoryRegistry, Room, Tar, Verdict, listing, manifest};

/// Everything publishing needs, real but for the component check.
pub(crate) struct Scene {
    pub(crate) room: Room,
    pub(crate) store: LocalStore,
    pub(crate) registry: MemoryRegistry,
    pub(crate) verdict: Verdict,
    pub(crate) limits: Limits,
    pub(crate) signatures: SignatureRules,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let room = Room::new();
        let store = room.store();
        Self {
            room,
            store,
            registry: MemoryRegistry::default(),
            verdict: Verdict::Good,
            limits: Limits::default(),
            signatures: SignatureRules::default(),
        }
    }

    pub(crate) fn context(&self) -> PublishContext<'_> {
        PublishContext {
            store: &self.store,
            component_check: &self.verdict,
            registry: &self.registry,
            capability_check: &|_| Vec::new(),
            signatures: &self.signatures,
            limits: &self.limits,
            actor: "admin",
            request_id: Some("req-1"),
        }
    }

    pub(crate) fn file(&self, bundle: &[u8]) -> PathBuf {
        self.room.write(
            &format!("bundle-{}", ContentHash::of(bundle).to_hex()),
            bundle,
        )
    }

    pub(crate) async fn publish(&self, bundle: &[u8]) -> Result<Published, PublishError> {
        publish(PublishRequest::new(&self.file(bundle)), self.context()).await
    }

    pub(crate) async fn code(&self, bundle: &[u8]) -> &'static str {
        self.publish(bundle).await.unwrap_err().code()
    }

    pub(crate) fn stored(&self) -> Vec<String> {
        listing(&self.room.path("store"))
    }
}

pub(crate) fn with_manifest(manifest: &Value) -> Tar {
    Tar::new()
        .file("manifest.json", manifest.to_string().as_bytes())
        .file("dist/main.wasm", COMPONENT)
}

fn version(version: &str) -> Value {
    let mut manifest = manifest();
    manifest["version"] = json!(version);
    manifest
}

fn issue_paths(error: PublishError) -> Vec<String> {
    match error {
        PublishError::Manifest(invalid) => {
            invalid.issues.into_iter().map(|issue| issue.path).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_published_bundle_is_stored_registered_and_answered() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let hash = ContentHash::of(&bundle);
    let published = scene.publish(&bundle).await.unwrap();

    assert_eq!(
        scene
            .store
            .read(ObjectKey::Bundle(hash), u64::MAX)
            .await
            .unwrap(),
        bundle
    );
    let stored = scene
        .store
        .read(ObjectKey::Manifest(hash), u64::MAX)
        .await
        .unwrap();
    assert_eq!(stored, manifest().to_string().as_bytes());
    let versions = scene.registry.versions.lock().unwrap();
    let (row, ids) = &versions[&("com.example.notes".to_owned(), "1.2.0".to_owned())];
    assert_eq!(
        (row.content_hash, row.size, row.actor.as_str()),
        (hash, bundle.len() as u64, "admin")
    );
    assert_eq!(row.request_id.as_deref(), Some("req-1"));
    assert_eq!(row.manifest_json, manifest().to_string());
    assert_eq!(
        serde_json::to_value(&published).unwrap(),
        json!({
            "extension": { "id": ids.extension_id, "name": "com.example.notes", "publisher": "Example Ltd" },
            "version": { "id": ids.version_id, "version": "1.2.0" },
            "contentHash": hash.to_string(),
            "canonicalKey": format!("sha256/{}/bundle.tar.zst", hash.to_hex()),
            "warnings": [],
        })
    );
}

#[tokio::test]
async fn publishing_again_gives_the_same_answer() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let first = scene.publish(&bundle).await.unwrap();
    let stored = scene.stored();
    assert_eq!(scene.publish(&bundle).await.unwrap(), first);
    assert_eq!(scene.stored(), stored);
}

#[tokio::test]
async fn warnings_of_the_manifest_are_answered() {
    let mut manifest = manifest();
    manifest["colour"] = json!("red");
    let published = Scene::new()
        .publish(&with_manifest(&manifest).zst())
        .await
        .unwrap();
    assert_eq!(published.warnings[0].path, "/colour");
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_publishers_of_one_bundle_both_succeed() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let (one, two) = tokio::join!(scene.publish(&bundle), scene.publish(&bundle));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(scene.registry.versions.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_publishers_of_one_version_one_wins() {
    let scene = Scene::new();
    let (one, two) = (
        Tar::valid().file("a", b"1").zst(),
        Tar::valid().file("a", b"2").zst(),
    );
    let (one, two) = tokio::join!(scene.publish(&one), scene.publish(&two));
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    let winner = winner.unwrap().content_hash;
    match loser.unwrap_err() {
        PublishError::Registry(RegisterError::DuplicateVersion { existing }) => {
            assert_eq!(existing, winner);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_bundle_has_its_code_and_nothing_is_stored() {
    let scene = Scene::new();
    let valid = Tar::valid().zst();
    assert_eq!(scene.code(b"no bundle").await, "BAD_ARCHIVE");
    assert_eq!(scene.code(&valid[..valid.len() - 1]).await, "BAD_ARCHIVE");
    assert_eq!(
        scene.code(&Tar::valid().file("../x", b"").zst()).await,
        "ARCHIVE_REJECTED"
    );
    assert_eq!(
        scene
            .code(&Tar::new().file("dist/main.wasm", COMPONENT).zst())
            .await,
        "MANIFEST_REQUIRED"
    );
    assert_eq!(
        scene.code(&with_manifest(&json!({})).zst()).await,
        "INVALID_MANIFEST"
    );
    let no_wasm = Tar::new()
        .file("manifest.json", manifest().to_string().as_bytes())
        .file("dist/main.wasm", b"console.log(1)");
    assert_eq!(scene.code(&no_wasm.zst()).await, "INVALID_COMPONENT");
    let small = Scene {
        limits: Limits {
            compressed_bytes: 10,
            ..Limits::default()
        },
        ..Scene::new()
    };
    assert_eq!(small.code(&valid).await, "TOO_LARGE");
    let strict = Scene {
        verdict: Verdict::Bad("it imports nothing:known"),
        ..Scene::new()
    };
    assert_eq!(strict.code(&valid).await, "INVALID_COMPONENT");
    let blind = Scene {
        verdict: Verdict::Unavailable,
        ..Scene::new()
    };
    assert_eq!(blind.code(&valid).await, "COMPILER_UNAVAILABLE");

    for scene in [scene, small, strict, blind] {
        assert_eq!(scene.stored(), Vec::<String>::new());
        assert!(scene.registry.versions.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn files_that_the_manifest_names_must_be_there() {
    let mut named = manifest();
    named["entry"] = json!("./dist/other.wasm");
    named["ui"] = json!({ "type": "iframe", "entry": "ui/index.html" });
    let error = Scene::new()
        .publish(&with_manifest(&named).zst())
        .await
        .unwrap_err();
    assert_eq!(issue_paths(error), ["/entry", "/ui/entry"]);
}

#[tokio::test]
async fn a_name_belongs_to_its_first_publisher_and_a_version_to_its_first_content() {
    let scene = Scene::new();
    scene.publish(&Tar::valid().zst()).await.unwrap();
    assert_eq!(
        scene.code(&Tar::valid().file("more", b"").zst()).await,
        "DUPLICATE_VERSION"
    );
    let mut other = version("1.3.0");
    other["publisher"] = json!("Somebody Else");
    assert_eq!(
        scene.code(&with_manifest(&other).zst()).await,
        "PUBLISHER_MISMATCH"
    );
    scene
        .publish(&with_manifest(&version("1.3.0")).zst())
        .await
        .unwrap();
}

#[tokio::test]
async fn another_hash_than_declared_wins_over_damage() {
    let scene = Scene::new();
    let valid = Tar::valid().zst();
    let declared_hash = Some(ContentHash::of(&valid));
    let mut flipped = valid.clone();
    flipped[valid.len() / 2] ^= 1;
    for bundle in [
        &valid[..10],
        b"",
        &flipped,
        &Tar::valid().file("../x", b"").zst(),
    ] {
        let file = scene.file(bundle);
        let request = PublishRequest {
            declared_hash,
            ..PublishRequest::new(&file)
        };
        assert_eq!(
            publish(request, scene.context()).await.unwrap_err().code(),
            "HASH_MISMATCH"
        );
    }
    let file = scene.file(&valid);
    publish(
        PublishRequest {
            declared_hash,
            ..PublishRequest::new(&file)
        },
        scene.context(),
    )
    .await
    .unwrap();
}

async fn publish_with(
    scene: &Scene,
    bundle: &[u8],
    manifest: &Value,
) -> Result<Published, PublishError> {
    let file = scene.file(bundle);
    let manifest_json = Some(manifest.to_string().into_bytes());
    publish(
        PublishRequest {
            manifest_json,
            ..PublishRequest::new(&file)
        },
        scene.context(),
    )
    .await
}

#[tokio::test]
async fn a_manifest_beside_the_bundle_counts_only_where_it_has_none() {
    let scene = Scene::new();
    let without = Tar::new().file("dist/main.wasm", COMPONENT).zst();
    let published = publish_with(&scene, &without, &version("2.0.0"))
        .await
        .unwrap();
    assert_eq!(published.version.version.to_string(), "2.0.0");

    let error = publish_with(&scene, &without, &version("2.0.1"))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "MANIFEST_CONFLICT");
    publish_with(&scene, &without, &version("2.0.0"))
        .await
        .unwrap();

    let published = publish_with(&scene, &Tar::valid().zst(), &version("3.0.0"))
        .await
        .unwrap();
    assert_eq!(published.version.version.to_string(), "1.2.0");
    assert_eq!(published.warnings[0].path, "");
    let invalid = publish_with(&scene, &without, &json!({}))
        .await
        .unwrap_err();
    assert_eq!(invalid.code(), "INVALID_MANIFEST");
}

#[tokio::test]
async fn a_manifest_that_the_registry_would_refuse_costs_no_check_of_the_component() {
    let mut scene = Scene::new();
    let without = Tar::new().file("dist/main.wasm", COMPONENT).zst();
    publish_with(&scene, &without, &version("2.0.0"))
        .await
        .unwrap();
    scene.verdict = Verdict::Bad("it was looked at");
    let error = publish_with(&scene, &without, &version("2.0.1")).await;
    assert_eq!(error.unwrap_err().code(), "MANIFEST_CONFLICT");
    let error = publish_with(&scene, &without, &version("2.0.0")).await;
    assert_eq!(error.unwrap_err().code(), "INVALID_COMPONENT");
}

#[tokio::test]
async fn a_copy_of_another_manifest_gives_way_to_the_registered_one() {
    let scene = Scene::new();
    let without = Tar::new().file("dist/main.wasm", COMPONENT).zst();
    let key = ObjectKey::Manifest(ContentHash::of(&without));
    for (number, copy) in [&b""[..], b"{}", &vec![b' '; Manifest::MAX_BYTES + 1]]
        .into_iter()
        .enumerate()
    {
        scene.room.plant(key, copy);
        let manifest = version(&format!("2.0.{number}"));
        publish_with(&scene, &without, &manifest).await.unwrap();
        let stored = scene.store.read(key, u64::MAX).await.unwrap();
        assert_eq!(stored, manifest.to_string().as_bytes());
        // The version is removed, and what is in the store stays for a while.
        scene.registry.versions.lock().unwrap().clear();
    }
    let next = version("3.0.0");
    publish_with(&scene, &without, &next).await.unwrap();
    let stored = scene.store.read(key, u64::MAX).await.unwrap();
    assert_eq!(stored, next.to_string().as_bytes());
}

#[tokio::test]
async fn an_attempt_that_failed_half_way_is_repaired_by_the_next() {
    let scene = Scene::new();
    scene.registry.unavailable.store(1, Ordering::SeqCst);
    let bundle = Tar::valid().zst();
    assert_eq!(scene.code(&bundle).await, "REGISTRY_UNAVAILABLE");
    scene.publish(&bundle).await.unwrap();

    // A crash between the two objects.
    let scene = Scene::new();
    scene
        .room
        .plant(ObjectKey::Bundle(ContentHash::of(&bundle)), &bundle);
    scene.publish(&bundle).await.unwrap();
}

#[tokio::test]
async fn an_object_that_cannot_be_the_bundle_is_a_failure_of_the_store() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    scene
        .room
        .plant(ObjectKey::Bundle(ContentHash::of(&bundle)), &bundle[1..]);
    assert_eq!(scene.code(&bundle).await, "STORE_FAILED");
}

#[tokio::test]
async fn a_file_that_changes_after_its_check_is_not_stored() {
    struct Swap(PathBuf);
    #[async_trait]
    impl ComponentCheck for Swap {
        async fn check(
            &self,
            _: ContentHash,
            _: &BundlePath,
            _: Vec<u8>,
        ) -> Result<(), CheckError> {
            fs::write(&self.0, Tar::valid().file("evil", b"").zst()).unwrap();
            Ok(())
        }
    }
    let scene = Scene::new();
    let file = scene.file(&Tar::valid().zst());
    let swap = Swap(file.clone());
    let context = PublishContext {
        component_check: &swap,
        ..scene.context()
    };
    let error = publish(PublishRequest::new(&file), context)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "HASH_MISMATCH");
    assert!(
        !scene
            .stored()
            .iter()
            .any(|name| Path::new(name).extension().is_some()),
        "{:?}",
        scene.stored()
    );
}

/// Takes one component in one place and no other.
struct Only(&'static str, &'static [u8]);

#[async_trait]
impl ComponentCheck for Only {
    async fn check(
        &self,
        _: ContentHash,
        entry: &BundlePath,
        component: Vec<u8>,
    ) -> Result<(), CheckError> {
        if entry.as_str() == self.0 && component == self.1 {
            Ok(())
        } else {
            Err(CheckError::Invalid(InvalidComponent {
                message: "another file".to_owned(),
            }))
        }
    }
}

#[tokio::test]
async fn the_component_is_found_wherever_the_manifest_stands_in_the_archive() {
    let mut named = manifest();
    named["entry"] = json!("z/notes.bin");
    let named = named.to_string();
    let right = b"\0asm the right one";
    let check = Only("z/notes.bin", right);
    for manifest_at in 0..4 {
        let mut files: Vec<(&str, &[u8])> = vec![
            ("a.wasm", b"\0asm another"),
            ("z/notes.bin", right),
            ("z/other.wasm", b"\0asm third"),
        ];
        files.insert(manifest_at, ("manifest.json", named.as_bytes()));
        let tar = files
            .into_iter()
            .fold(Tar::new(), |tar, (name, content)| tar.file(name, content));
        let scene = Scene::new();
        let file = scene.file(&tar.zst());
        let context = PublishContext {
            component_check: &check,
            ..scene.context()
        };
        publish(PublishRequest::new(&file), context).await.unwrap();
    }
}

#[tokio::test]
async fn the_memory_for_components_is_limited() {
    let component = [COMPONENT, &[1; 992]].concat();
    let manifest_first = |component: &[u8]| {
        Tar::new()
            .file("manifest.json", manifest().to_string().as_bytes())
            .file("dist/main.wasm", component)
    };
    let manifest_last = |component: &[u8]| {
        Tar::new()
            .file("dist/main.wasm", component)
            .file("manifest.json", manifest().to_string().as_bytes())
    };
    for (limit, fits) in [(1001, true), (1000, true), (999, false)] {
        let scene = Scene {
            limits: Limits {
                component_bytes: limit,
                ..Limits::default()
            },
            ..Scene::new()
        };
        for tar in [manifest_first(&component), manifest_last(&component)] {
            let published = scene.publish(&tar.file("asset", &[b'x'; 5000]).zst()).await;
            assert_eq!(
                published.as_ref().err().map(PublishError::code),
                (!fits).then_some("ARCHIVE_REJECTED")
            );
            scene.registry.versions.lock().unwrap().clear();
        }
    }
}

#[tokio::test]
async fn the_size_of_the_manifest_is_limited_in_the_archive() {
    let scene = Scene::new();
    let text = manifest().to_string();
    let padded = |len: usize| format!("{text}{}", " ".repeat(len - text.len()));
    let with = |len| {
        Tar::new()
            .file("manifest.json", padded(len).as_bytes())
            .file("dist/main.wasm", COMPONENT)
    };
    scene.publish(&with(256 << 10).zst()).await.unwrap();
    assert_eq!(
        scene.code(&with((256 << 10) + 1).zst()).await,
        "ARCHIVE_REJECTED"
    );
}

#[tokio::test]
async fn progress_is_told_up_to_the_size() {
    let scene = Scene::new();
    let bundle = Tar::valid().zst();
    let file = scene.file(&bundle);
    let read = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&read);
    let progress = Some(Arc::new(move |bytes| told.store(bytes, Ordering::SeqCst)) as _);
    publish(
        PublishRequest {
            progress,
            ..PublishRequest::new(&file)
        },
        scene.context(),
    )
    .await
    .unwrap();
    assert_eq!(read.load(Ordering::SeqCst), bundle.len() as u64);
}

#[tokio::test]
async fn a_bundle_file_that_is_not_there_is_no_fault_of_the_bundle() {
    let scene = Scene::new();
    let missing = scene.room.path("missing");
    let error = publish(PublishRequest::new(&missing), scene.context())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "INTERNAL_ERROR");
}

#[tokio::test]
async fn what_the_capability_check_finds_is_wrong_with_the_manifest() {
    let scene = Scene::new();
    let file = scene.file(&Tar::valid().zst());
    let context = PublishContext {
        capability_check: &|manifest| {
            vec![alga_bundles::Issue {
                path: "/capabilities".to_owned(),
                message: format!("{} asks for too much", manifest.name),
            }]
        },
        ..scene.context()
    };
    let error = publish(PublishRequest::new(&file), context)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "INVALID_MANIFEST");
    assert!(error.to_string().contains("asks for too much"), "{error}");
    assert!(
        scene.stored().is_empty(),
        "nothing is stored of what is refused"
    );
}
