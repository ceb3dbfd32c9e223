//! How large archives may be, packed and unpacked.

use super::*;

#[test]
fn the_number_of_entries_is_limited() {
    let with = |files: usize| {
        let files = (0..files).map(|n| format!("{n:x}"));
        files
            .fold(Tar::new(), |tar, name| tar.file(&name, b""))
            .zst()
    };
    let limits = Limits::default();
    assert_eq!(limits.entries, 10_000);
    for files in [9_999, 10_000] {
        assert!(walk_default(&with(files)).is_ok());
    }
    assert_eq!(
        rejection(&with(10_001), &limits),
        Rejection::TooManyEntries { limit: 10_000 }
    );
}

#[test]
fn the_unpacked_size_is_limited() {
    let bundle = Tar::valid().file("a", &[1; 5000]).zst();
    let unpacked = walk_default(&bundle).unwrap().unpacked;
    assert_eq!(
        unpacked,
        Tar::valid().file("a", &[1; 5000]).tar().len() as u64
    );
    for (limit, fits) in [
        (unpacked + 1, true),
        (unpacked, true),
        (unpacked - 1, false),
    ] {
        let limits = Limits {
            unpacked_bytes: limit,
            ..Limits::default()
        };
        assert_eq!(walk_with(&bundle, &limits, None).0.is_ok(), fits, "{limit}");
    }
    assert_eq!(Limits::default().unpacked_bytes, 1 << 30);
}

#[test]
fn a_size_that_cannot_fit_is_refused_before_anything_is_read() {
    let header = Header::new(b"huge", b'0', 0o77_777_777_777);
    let bundle = Tar::new().entry(header, b"").zst();
    let limits = Limits {
        ratio: u64::MAX,
        ..Limits::default()
    };
    match walk_with(&bundle, &limits, None) {
        (Err(ArchiveError::Rejected { entry, reason }), seen) => {
            assert_eq!(entry, "huge");
            assert_eq!(reason, Rejection::UnpackedTooLarge { limit: 1 << 30 });
            assert!(seen.files.is_empty());
        }
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn the_ratio_is_limited_exactly_and_small_archives_are_free() {
    let bundle = Tar::new().file("zeros", &vec![0; 2 << 20]).zst();
    let Walked { size, unpacked, .. } = walk_with(
        &bundle,
        &Limits {
            ratio: u64::MAX,
            ..Limits::default()
        },
        None,
    )
    .0
    .unwrap();
    let ratio = unpacked.div_ceil(size);
    for (ratio, fits) in [(ratio + 1, true), (ratio, true), (ratio - 1, false)] {
        let limits = Limits {
            ratio,
            ..Limits::default()
        };
        assert_eq!(walk_with(&bundle, &limits, None).0.is_ok(), fits, "{ratio}");
    }
    for (free, fits) in [(unpacked, true), (unpacked - 1, false)] {
        let limits = Limits {
            ratio: 1,
            ratio_free_bytes: free,
            ..Limits::default()
        };
        assert_eq!(walk_with(&bundle, &limits, None).0.is_ok(), fits, "{free}");
    }
    assert_eq!(
        rejection(&bundle, &Limits::default()),
        Rejection::Ratio { limit: 200 }
    );
}

#[test]
fn the_size_of_the_bundle_itself_is_limited() {
    let bundle = Tar::valid().zst();
    let size = bundle.len() as u64;
    for limit in [size + 1, size] {
        assert!(
            walk_with(
                &bundle,
                &Limits {
                    compressed_bytes: limit,
                    ..Limits::default()
                },
                None
            )
            .0
            .is_ok()
        );
    }
    let (walked, _) = walk_with(
        &bundle,
        &Limits {
            compressed_bytes: size - 1,
            ..Limits::default()
        },
        None,
    );
    assert!(matches!(walked, Err(ArchiveError::TooLarge { .. })));
    assert_eq!(Limits::default().compressed_bytes, 209_715_200);
}
