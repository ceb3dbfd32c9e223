use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, SystemTime};

use alga_bundles::{BundlePath, Inspection, Limits, PackError, Sink, SinkError, Walk, pack, walk};
use alga_model::ContentHash;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{COMPONENT, Room, listing, manifest};

fn folder_with(room: &Room, name: &str, manifest: &Value) {
    room.write(
        &format!("{name}/manifest.json"),
        manifest.to_string().as_bytes(),
    );
    room.write(&format!("{name}/dist/main.wasm"), COMPONENT);
}

fn packed(room: &Room, folder: &str, target: &str) -> Result<Inspection, PackError> {
    pack(&room.path(folder), &room.path(target), &Limits::default())
}

/// Collects files and folders.
#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Vec<u8>>,
    folders: Vec<String>,
    order: Vec<String>,
}

impl Sink for Contents {
    fn folder(&mut self, path: &BundlePath) -> Result<(), SinkError> {
        self.folders.push(path.to_string());
        Ok(())
    }

    fn file(&mut self, path: &BundlePath, _: u64) -> Result<(), SinkError> {
        self.files.insert(path.to_string(), Vec::new());
        self.order.push(path.to_string());
        Ok(())
    }

    fn data(&mut self, chunk: &[u8]) -> Result<(), SinkError> {
        let current = self.order.last().unwrap();
        self.files
            .get_mut(current)
            .unwrap()
            .extend_from_slice(chunk);
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn contents(bundle: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let limits = Limits::default();
    let about = Walk {
        size: bundle.len() as u64,
        expected: None,
        limits: &limits,
        progress: None,
    };
    walk(bundle, about, &mut contents).unwrap();
    contents
}

#[test]
fn a_packed_folder_holds_what_the_folder_held_and_begins_with_the_manifest() {
    let room = Room::new();
    folder_with(&room, "notes", &manifest());
    room.write("notes/ui/index.html", b"<p>");
    fs::create_dir(room.path("notes/empty")).unwrap();
    let inspection = packed(&room, "notes", "notes.tar.zst").unwrap();
    let bundle = fs::read(room.path("notes.tar.zst")).unwrap();
    assert_eq!(
        (inspection.hash, inspection.size),
        (ContentHash::of(&bundle), bundle.len() as u64)
    );
    assert!(inspection.is_complete());
    let contents = contents(&bundle);
    assert_eq!(
        contents.order,
        ["manifest.json", "dist/main.wasm", "ui/index.html"]
    );
    assert_eq!(contents.folders, ["dist", "empty", "ui"]);
    assert_eq!(contents.files["ui/index.html"], b"<p>");
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let room = Room::new();
    let files = ["manifest.json", "dist/main.wasm", "a", "b/c", "b.d", "b/e"];
    let content = |name: &str| match name {
        "manifest.json" => manifest().to_string().into_bytes(),
        _ => COMPONENT.to_vec(),
    };
    for name in files {
        room.write(&format!("one/{name}"), &content(name));
    }
    for name in files.iter().rev() {
        let path = room.write(&format!("two/{name}"), &content(name));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(past)
            .unwrap();
    }
    let one = packed(&room, "one", "one.tar.zst").unwrap();
    let two = packed(&room, "two", "elsewhere.tar.zst").unwrap();
    assert_eq!(one.hash, two.hash);
    assert_eq!(
        fs::read(room.path("one.tar.zst")).unwrap(),
        fs::read(room.path("elsewhere.tar.zst")).unwrap()
    );
}

#[test]
fn a_bundle_inside_its_own_folder_is_left_out() {
    let room = Room::new();
    folder_with(&room, "notes", &manifest());
    let first = packed(&room, "notes", "notes/dist/bundle.tar.zst").unwrap();
    let second = packed(&room, "notes", "notes/dist/bundle.tar.zst").unwrap();
    assert_eq!(first, second);
    assert_eq!(first.files.len(), 2);
}

#[test]
fn names_longer_than_a_tar_header_survive() {
    let room = Room::new();
    folder_with(&room, "notes", &manifest());
    let name = format!("ui/{}/{}/x.js", "d".repeat(150), "ä".repeat(100));
    room.write(&format!("notes/{name}"), b"x");
    let inspection = packed(&room, "notes", "b").unwrap();
    assert_eq!(inspection.files[name.as_str()], 1);
}

#[test]
fn links_and_special_files_are_refused() {
    let room = Room::new();
    for (case, make) in [
        (
            "link",
            &(|path| symlink("/etc/passwd", path).unwrap()) as &dyn Fn(std::path::PathBuf),
        ),
        ("dangling", &|path| symlink("nowhere", path).unwrap()),
        ("folder", &|path| symlink("/etc", path).unwrap()),
        ("socket", &|path| drop(UnixListener::bind(path).unwrap())),
    ] {
        folder_with(&room, case, &manifest());
        make(room.path(&format!("{case}/extra")));
        let error = packed(&room, case, "b").unwrap_err();
        assert!(
            matches!(&error, PackError::Kind { path, .. } if path.ends_with("extra")),
            "{case}: {error:?}"
        );
    }
    assert!(!room.path("b").exists());
}

#[test]
fn names_a_bundle_cannot_hold_are_refused() {
    let room = Room::new();
    folder_with(&room, "notes", &manifest());
    let path = room.write("notes/back\\slash", b"");
    assert!(matches!(
        packed(&room, "notes", "b"),
        Err(PackError::Name { .. })
    ));
    fs::remove_file(path).unwrap();
    let name = std::ffi::OsString::from_vec(b"\xff".to_vec());
    fs::write(room.path("notes").join(name), b"").unwrap();
    assert!(matches!(
        packed(&room, "notes", "b"),
        Err(PackError::NotUtf8 { .. })
    ));
}

#[test]
fn a_folder_that_could_not_be_published_is_not_packed() {
    let room = Room::new();
    let issues = |error: PackError| match error {
        PackError::Manifest(invalid) => invalid
            .issues
            .into_iter()
            .map(|issue| issue.path)
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };

    fs::create_dir(room.path("nothing")).unwrap();
    assert!(matches!(
        packed(&room, "nothing", "b"),
        Err(PackError::NoManifest)
    ));

    folder_with(&room, "invalid", &json!({}));
    assert_eq!(issues(packed(&room, "invalid", "b").unwrap_err()).len(), 4);

    let mut names = manifest();
    names["entry"] = json!("dist/other.wasm");
    names["ui"] = json!({ "type": "iframe", "entry": "ui" });
    names["capabilities"] = json!({ "alga.storage": { "namespaces": [{ "name": "a", "schemaReference": "./schemas/a.json" }] } });
    folder_with(&room, "missing", &names);
    fs::create_dir(room.path("missing/ui")).unwrap();
    assert_eq!(
        issues(packed(&room, "missing", "b").unwrap_err()),
        [
            "/capabilities/alga.storage/namespaces/0/schemaReference",
            "/entry",
            "/ui/entry",
        ]
    );

    folder_with(&room, "large", &manifest());
    let limits = Limits {
        entries: 2,
        ..Limits::default()
    };
    let refused = pack(&room.path("large"), &room.path("b"), &limits);
    assert!(
        matches!(refused, Err(PackError::NotAcceptable(_))),
        "{refused:?}"
    );

    assert!(
        !listing(&room.path(""))
            .iter()
            .any(|name| name == "b" || name.starts_with(".tmp"))
    );
}

#[test]
fn a_failed_pack_leaves_the_former_bundle() {
    let room = Room::new();
    folder_with(&room, "notes", &manifest());
    let former = packed(&room, "notes", "b").unwrap();
    room.write("notes/manifest.json", b"{}");
    packed(&room, "notes", "b").unwrap_err();
    assert_eq!(
        ContentHash::of(&fs::read(room.path("b")).unwrap()),
        former.hash
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_packed_is_walked_again(
        files in proptest::collection::btree_map(
            "[a-c ä.]{1,3}(/[a-c]{1,120}){0,3}",
            proptest::collection::vec(any::<u8>(), 0..2000),
            0..12,
        )
    ) {
        let room = Room::new();
        folder_with(&room, "folder", &manifest());
        let mut expected = BTreeMap::from([
            ("manifest.json".to_owned(), manifest().to_string().into_bytes()),
            ("dist/main.wasm".to_owned(), COMPONENT.to_vec()),
        ]);
        for (name, content) in files {
            // A name may be taken by a folder, or ask for a folder where a file is.
            let path = room.path(&format!("folder/{name}"));
            if name.parse::<BundlePath>().is_ok()
                && fs::create_dir_all(path.parent().unwrap()).is_ok()
                && fs::write(&path, &content).is_ok()
            {
                expected.insert(name, content);
            }
        }
        let inspection = packed(&room, "folder", "b").unwrap();
        let bundle = fs::read(room.path("b")).unwrap();
        prop_assert_eq!(inspection.hash, ContentHash::of(&bundle));
        prop_assert_eq!(contents(&bundle).files, expected);
    }
}
