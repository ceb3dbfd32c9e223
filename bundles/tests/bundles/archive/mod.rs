//! Archives, hostile ones above all.

mod damage;
mod kinds;
mod limits;
mod names;

use std::io::{self, Read, Write};

use alga_bundles::{
    ArchiveError, BundlePath, BundlePathError, Limits, Rejection, Sink, SinkError, Walk, Walked,
    walk,
};
use alga_model::ContentHash;

use crate::support::{COMPONENT, Header, Room, Tar, compress, manifest, pax_records};

/// Remembers what it was given.
#[derive(Default)]
struct Seen {
    folders: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
}

impl Sink for Seen {
    fn folder(&mut self, path: &BundlePath) -> Result<(), SinkError> {
        self.folders.push(path.to_string());
        Ok(())
    }

    fn file(&mut self, path: &BundlePath, _: u64) -> Result<(), SinkError> {
        self.files.push((path.to_string(), Vec::new()));
        Ok(())
    }

    fn data(&mut self, chunk: &[u8]) -> Result<(), SinkError> {
        self.files.last_mut().unwrap().1.extend_from_slice(chunk);
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn walk_with(
    bundle: &[u8],
    limits: &Limits,
    expected: Option<ContentHash>,
) -> (Result<Walked, ArchiveError>, Seen) {
    let mut seen = Seen::default();
    let about = Walk {
        size: bundle.len() as u64,
        expected,
        limits,
        progress: None,
    };
    let walked = walk(bundle, about, &mut seen);
    (walked, seen)
}

fn walk_default(bundle: &[u8]) -> Result<Walked, ArchiveError> {
    walk_with(bundle, &Limits::default(), None).0
}

fn rejection(bundle: &[u8], limits: &Limits) -> Rejection {
    match walk_with(bundle, limits, None).0 {
        Err(ArchiveError::Rejected { reason, .. }) => reason,
        other => panic!("not rejected: {other:?}"),
    }
}

fn is_damaged(walked: &Result<Walked, ArchiveError>) -> bool {
    matches!(
        walked,
        Err(ArchiveError::Damaged(_) | ArchiveError::NotZstd)
    )
}

#[test]
fn a_plain_bundle_is_walked_in_order_and_hashed() {
    let bundle = Tar::new()
        .folder("ui/")
        .file("ui/a.js", b"a")
        .file("manifest.json", manifest().to_string().as_bytes())
        .file("empty", b"")
        .file("big", &vec![7; 100_000])
        .zst();
    let (walked, seen) = walk_with(&bundle, &Limits::default(), None);
    let Walked { hash, size, .. } = walked.unwrap();
    assert_eq!(
        (hash, size),
        (ContentHash::of(&bundle), bundle.len() as u64)
    );
    assert_eq!(seen.folders, ["ui"]);
    let names: Vec<_> = seen.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ui/a.js", "manifest.json", "empty", "big"]);
    assert_eq!(seen.files[0].1, b"a");
    assert!(seen.files[3].1 == vec![7; 100_000]);
}

#[test]
fn progress_ends_at_the_size() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let noise: Vec<u8> = (0..3_000_000_u64)
        .map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()[1])
        .collect();
    let bundle = Tar::valid().file("noise", &noise).zst();
    let (calls, last) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |bytes| {
        calls.fetch_add(1, Ordering::Relaxed);
        assert!(bytes >= last.swap(bytes, Ordering::Relaxed));
    };
    let limits = Limits::default();
    let about = Walk {
        size: bundle.len() as u64,
        expected: None,
        limits: &limits,
        progress: Some(&progress),
    };
    walk(bundle.as_slice(), about, &mut Seen::default()).unwrap();
    assert_eq!(last.into_inner(), bundle.len() as u64);
    assert!(calls.into_inner() > 1);
}

#[test]
fn what_is_shown_of_an_entry_is_short_and_harmless() {
    let name = format!("\u{1b}[2J{}", "x".repeat(100_000));
    let error = walk_default(&Tar::new().pax(&[("path", &name)]).file("a", b"").zst()).unwrap_err();
    let shown = error.to_string();
    assert!(shown.len() < 1000 && !shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn an_inspection_lists_files_and_issues() {
    let room = Room::new();
    let mut named = manifest();
    named["ui"] = serde_json::json!({ "type": "iframe", "entry": "ui/index.html" });
    let bundle = Tar::new()
        .file("manifest.json", named.to_string().as_bytes())
        .file("dist/main.wasm", COMPONENT);
    let file = room.write("bundle", &bundle.zst());
    let inspection = alga_bundles::inspect(&file, &Limits::default(), None).unwrap();
    let files: Vec<_> = inspection
        .files
        .iter()
        .map(|(path, size)| (path.as_str(), *size))
        .collect();
    assert_eq!(
        files,
        [
            ("dist/main.wasm", 8),
            ("manifest.json", named.to_string().len() as u64)
        ]
    );
    assert_eq!(inspection.issues[0].path, "/ui/entry");
    assert!(!inspection.is_complete());

    let file = room.write("bundle", &Tar::valid().zst());
    assert!(
        alga_bundles::inspect(&file, &Limits::default(), None)
            .unwrap()
            .is_complete()
    );
    let file = room.write("bundle", &Tar::new().file("a", b"").zst());
    assert!(
        !alga_bundles::inspect(&file, &Limits::default(), None)
            .unwrap()
            .is_complete()
    );
}
