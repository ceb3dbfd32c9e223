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
    matches!(walked, Err(ArchiveError::Damaged(_)))
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
fn names_that_lead_elsewhere_are_refused() {
    use BundlePathError::{Absolute, Backslash, Control, Dots, Empty, EmptyPart};
    let cases = [
        ("/etc/passwd", Absolute),
        ("//etc/passwd", Absolute),
        ("..", Dots),
        ("../x", Dots),
        ("ui/../../x", Dots),
        ("ui/..", Dots),
        ("./manifest.json", Dots),
        (".", Dots),
        ("ui/./x", Dots),
        ("ui//x", EmptyPart),
        ("ui/", EmptyPart),
        ("ui\\..\\..\\x", Backslash),
        ("C:\\x", Backslash),
        ("a\nb", Control),
        ("a\u{7f}b", Control),
        ("", Empty),
    ];
    for (name, expected) in cases {
        let bundle = Tar::valid().file(name, b"x").zst();
        match walk_default(&bundle) {
            Err(ArchiveError::Rejected {
                entry,
                reason: Rejection::Name(error),
            }) => {
                assert_eq!((entry.as_str(), error), (name, expected));
            }
            other => panic!("{name:?}: {other:?}"),
        }
    }
    for name in ["../x", "/x", ".", "./", "a//", "/"] {
        let bundle = Tar::valid().folder(name).zst();
        assert!(
            matches!(rejection(&bundle, &Limits::default()), Rejection::Name(_)),
            "{name}"
        );
    }
}

#[test]
fn the_same_names_are_refused_when_an_extension_record_brings_them() {
    for name in [
        "/etc/passwd",
        "../x",
        "ui/../../x",
        "./x",
        "a\\b",
        "a\0b",
        "",
    ] {
        let by_pax = Tar::valid()
            .pax(&[("path", name)])
            .file("innocent", b"x")
            .zst();
        assert!(
            matches!(rejection(&by_pax, &Limits::default()), Rejection::Name(_)),
            "pax {name:?}"
        );
        let long_name = [name.as_bytes(), b"\0"].concat();
        let by_gnu = Tar::valid()
            .extension(b'L', &long_name)
            .file("innocent", b"x")
            .zst();
        assert!(
            matches!(rejection(&by_gnu, &Limits::default()), Rejection::Name(_)),
            "gnu {name:?}"
        );
    }
    // The prefix field of a ustar header is part of the name.
    let header = Header::new(b"x", b'0', 0).with(345, b"../up");
    assert!(matches!(
        rejection(&Tar::valid().entry(header, b"").zst(), &Limits::default()),
        Rejection::Name(BundlePathError::Dots)
    ));
}

#[test]
fn a_name_that_is_not_utf_8_is_refused() {
    let header = Header::new(b"a\xff", b'0', 0);
    assert_eq!(
        rejection(&Tar::valid().entry(header, b"").zst(), &Limits::default()),
        Rejection::NotUtf8
    );
}

#[test]
fn anything_but_files_and_folders_is_refused() {
    for kind in [
        b'1', b'2', b'3', b'4', b'6', b'7', b'S', b'V', b'M', b'D', b'N', b'A', b'Z', b'X', 1, 0xff,
    ] {
        let header = Header::new(b"entry", kind, 0).with(157, b"/etc/passwd");
        let rejected = rejection(&Tar::valid().entry(header, b"").zst(), &Limits::default());
        assert!(
            matches!(rejected, Rejection::Kind(_)),
            "{kind:?}: {rejected:?}"
        );
    }
    let long_link = Tar::valid()
        .extension(b'K', b"/etc/passwd\0")
        .file("a", b"")
        .zst();
    assert!(matches!(
        rejection(&long_link, &Limits::default()),
        Rejection::Kind(_)
    ));
}

#[test]
fn pax_records_that_change_the_kind_are_refused() {
    for key in [
        "linkpath",
        "GNU.sparse.map",
        "GNU.sparse.major",
        "GNU.sparse.name",
        "SCHILY.realsize",
        "SCHILY.filetype",
    ] {
        let bundle = Tar::valid().pax(&[(key, "1")]).file("a", b"").zst();
        assert_eq!(
            rejection(&bundle, &Limits::default()),
            Rejection::Extension(key.to_owned())
        );
    }
    for key in ["path", "size", "linkpath", "GNU.sparse.name"] {
        let bundle = Tar::new()
            .extension(b'g', &pax_records(&[(key, "1")]))
            .file("a", b"")
            .zst();
        assert!(
            matches!(
                rejection(&bundle, &Limits::default()),
                Rejection::Extension(_)
            ),
            "{key}"
        );
    }
}

#[test]
fn records_that_say_nothing_about_content_are_skipped() {
    let bundle = Tar::new()
        .extension(b'g', &pax_records(&[("comment", "a commit")]))
        .pax(&[
            ("mtime", "1.5"),
            ("LIBARCHIVE.xattr.x", "eA=="),
            ("uname", "me"),
        ])
        .file("a", b"x")
        .zst();
    let (walked, seen) = walk_with(&bundle, &Limits::default(), None);
    walked.unwrap();
    assert_eq!(seen.files, [("a".to_owned(), b"x".to_vec())]);
}

#[test]
fn archives_of_the_usual_writer_are_accepted_in_every_format() {
    let long = format!("ui/{}.js", "x".repeat(200));
    for header in [tar::Header::new_ustar(), tar::Header::new_gnu()] {
        for with_pax in [false, true] {
            let mut builder = tar::Builder::new(Vec::new());
            for (name, content) in [("manifest.json", "{}"), (long.as_str(), "x")] {
                if with_pax {
                    let size = content.len().to_string();
                    let records = [
                        ("path", name.as_bytes()),
                        ("mtime", b"1.25"),
                        ("size", size.as_bytes()),
                    ];
                    builder.append_pax_extensions(records).unwrap();
                }
                let mut header = header.clone();
                header.set_size(content.len() as u64);
                header.set_mtime(1_700_000_000);
                let name = if with_pax { "short" } else { name };
                builder
                    .append_data(&mut header, name, content.as_bytes())
                    .unwrap();
            }
            let (walked, seen) = walk_with(
                &compress(&builder.into_inner().unwrap()),
                &Limits::default(),
                None,
            );
            walked.unwrap();
            let names: Vec<_> = seen.files.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["manifest.json", long.as_str()]);
        }
    }
}

#[test]
fn a_long_name_replaces_the_one_in_the_header_in_both_spellings() {
    let name = format!("ui/{}/x.js", "d".repeat(200));
    for tar in [
        Tar::new().pax(&[("path", &name), ("size", "1")]),
        Tar::new().extension(b'L', format!("{name}\0").as_bytes()),
        Tar::new().extension(b'L', name.as_bytes()),
    ] {
        let (walked, seen) = walk_with(&tar.file("short", b"x").zst(), &Limits::default(), None);
        walked.unwrap();
        assert_eq!(seen.files, [(name.clone(), b"x".to_vec())]);
    }
}

#[test]
fn an_entry_with_two_names_or_two_sizes_is_refused() {
    let limits = Limits::default();
    let both = Tar::new()
        .extension(b'L', b"a\0")
        .pax(&[("path", "b")])
        .file("c", b"")
        .zst();
    assert_eq!(rejection(&both, &limits), Rejection::TwoNames);
    let twice = Tar::new()
        .extension(b'L', b"a\0")
        .extension(b'L', b"b\0")
        .file("c", b"")
        .zst();
    assert_eq!(rejection(&twice, &limits), Rejection::TwoNames);
    let twice = Tar::new()
        .pax(&[("path", "a")])
        .pax(&[("path", "b")])
        .file("c", b"")
        .zst();
    assert_eq!(rejection(&twice, &limits), Rejection::TwoNames);
    let repeated = Tar::new()
        .pax(&[("path", "a"), ("path", "b")])
        .file("c", b"")
        .zst();
    assert_eq!(
        rejection(&repeated, &limits),
        Rejection::Extension("path".to_owned())
    );
    for size in ["512", "0", "+1", "01", "1 ", "", "99999999999999999999999"] {
        let bundle = Tar::new().pax(&[("size", size)]).file("a", b"x").zst();
        assert!(
            matches!(
                rejection(&bundle, &limits),
                Rejection::TwoSizes { header: 1, .. }
            ),
            "{size}"
        );
    }
}

#[test]
fn a_repeated_name_is_refused() {
    let limits = Limits::default();
    assert_eq!(
        rejection(&Tar::valid().file("manifest.json", b"{}").zst(), &limits),
        Rejection::Duplicate
    );
    assert_eq!(
        rejection(&Tar::new().folder("a").folder("a/").zst(), &limits),
        Rejection::Duplicate
    );
    assert_eq!(
        rejection(&Tar::new().file("a", b"").folder("a/").zst(), &limits),
        Rejection::Duplicate
    );
    assert_eq!(
        rejection(&Tar::new().file("a/b", b"").file("a", b"").zst(), &limits),
        Rejection::Duplicate
    );
    assert_eq!(
        rejection(&Tar::new().file("a", b"").file("a/b", b"").zst(), &limits),
        Rejection::InsideFile("a".to_owned())
    );
    let by_pax = Tar::valid()
        .pax(&[("path", "manifest.json")])
        .file("innocent", b"{}")
        .zst();
    assert_eq!(rejection(&by_pax, &limits), Rejection::Duplicate);
}

#[test]
fn names_that_differ_in_case_are_two_files() {
    assert!(walk_default(&Tar::new().file("A", b"").file("a", b"").zst()).is_ok());
}

#[test]
fn a_folder_with_content_is_refused() {
    let bundle = Tar::new().entry(Header::new(b"a/", b'5', 1), b"x").zst();
    assert_eq!(
        rejection(&bundle, &Limits::default()),
        Rejection::FolderWithContent
    );
}

#[test]
fn headers_that_are_not_strict_tar_are_damage() {
    let cases = [
        ("no magic", Header::new(b"a", b'0', 0).with(257, &[0; 8])),
        (
            "binary size",
            Header::new(b"a", b'0', 0).with(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x01"),
        ),
        (
            "signed size",
            Header::new(b"a", b'0', 0).with(124, b"+0000000001\0"),
        ),
        ("no size", Header::new(b"a", b'0', 0).with(124, &[0; 12])),
        (
            "size in hex",
            Header::new(b"a", b'0', 0).with(124, b"0000000000a\0"),
        ),
        (
            "wrong checksum",
            Header::new(b"a", b'0', 0).with(148, b"000001\0 "),
        ),
    ];
    for (case, header) in cases {
        assert!(
            is_damaged(&walk_default(&Tar::valid().entry(header, b"").zst())),
            "{case}"
        );
    }
    let malformed = Tar::valid()
        .extension(b'x', b"99 path=a\n")
        .file("a", b"")
        .zst();
    assert!(is_damaged(&walk_default(&malformed)));
}

#[test]
fn an_archive_without_its_end_is_damage() {
    let whole = Tar::valid().unfinished();
    for end in [0, 512] {
        assert!(
            is_damaged(&walk_default(&compress(
                &[whole.clone(), vec![0; end]].concat()
            ))),
            "{end}"
        );
    }
    assert!(walk_default(&compress(&[whole.clone(), vec![0; 1024]].concat())).is_ok());
    // Tools fill the last record up with zeros.
    assert!(walk_default(&compress(&[whole, vec![0; 10240]].concat())).is_ok());
    assert!(is_damaged(&walk_default(&compress(b""))));
    assert!(is_damaged(&walk_default(
        &Tar::valid().extension(b'L', b"a\0").zst()
    )));
    assert!(is_damaged(&walk_default(
        &Tar::valid().pax(&[("path", "a")]).zst()
    )));
}

#[test]
fn anything_after_the_end_is_damage() {
    let tar = Tar::valid().tar();
    let second = Tar::new().file("second", b"x").tar();
    for tail in [&b"x"[..], &[0, 1], &[&[0; 511][..], b"x"].concat(), &second] {
        assert!(
            is_damaged(&walk_default(&compress(&[&tar, tail].concat()))),
            "after the tar archive"
        );
    }
    let one_zero_block = Tar::valid().raw(&[0; 512]).file("hidden", b"x").zst();
    assert!(is_damaged(&walk_default(&one_zero_block)));

    let bundle = compress(&tar);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'x'];
    for tail in [
        &b"x"[..],
        &[0],
        &compress(b""),
        &bundle,
        &skippable,
        &vec![0; 1 << 20],
    ] {
        assert!(
            is_damaged(&walk_default(&[&bundle, tail].concat())),
            "after the frame"
        );
    }
    assert!(
        is_damaged(&walk_default(&[&skippable[..], &bundle].concat())),
        "before the frame"
    );
}

#[test]
fn a_bundle_cut_off_anywhere_is_damage() {
    let bundle = Tar::valid().zst();
    let hash = ContentHash::of(&bundle);
    for len in 0..bundle.len() {
        let cut = &bundle[..len];
        assert!(is_damaged(&walk_default(cut)), "{len}");
        let (walked, _) = walk_with(cut, &Limits::default(), Some(hash));
        assert!(
            matches!(walked, Err(ArchiveError::HashMismatch { .. })),
            "{len}"
        );
    }
}

#[test]
fn a_source_with_another_size_than_announced_is_damage() {
    let bundle = Tar::valid().zst();
    let limits = Limits::default();
    for size in [bundle.len() as u64 - 1, bundle.len() as u64 + 1] {
        let about = Walk {
            size,
            expected: None,
            limits: &limits,
            progress: None,
        };
        assert!(
            is_damaged(&walk(bundle.as_slice(), about, &mut Seen::default())),
            "{size}"
        );
    }
}

#[test]
fn a_flipped_bit_never_passes_for_the_bundle() {
    let bundle = Tar::valid().file("ui/index.html", b"<p>hello</p>").zst();
    let hash = ContentHash::of(&bundle);
    for at in 0..bundle.len() {
        for bit in 0..8 {
            let mut flipped = bundle.clone();
            flipped[at] ^= 1 << bit;
            let (walked, _) = walk_with(&flipped, &Limits::default(), Some(hash));
            assert!(
                matches!(walked, Err(ArchiveError::HashMismatch { .. })),
                "{at} {bit}"
            );
            if let Ok(walked) = walk_default(&flipped) {
                assert_ne!(walked.hash, hash, "{at} {bit}");
            }
        }
    }
}

#[test]
fn bytes_that_are_no_zstd_are_damage() {
    for bundle in [
        &b""[..],
        b"x",
        b"PK\x03\x04",
        &Tar::valid().tar(),
        &[0; 4096],
    ] {
        assert!(is_damaged(&walk_default(bundle)));
    }
}

#[test]
fn a_frame_that_asks_for_a_huge_window_is_refused() {
    let frame = |window_log| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&Tar::valid().tar()).unwrap();
        encoder.finish().unwrap()
    };
    assert!(walk_default(&frame(23)).is_ok());
    assert!(is_damaged(&walk_default(&frame(24))));
}

#[test]
fn every_level_of_the_usual_tool_up_to_19_is_accepted() {
    let tar = Tar::valid().file("big", &vec![1; 20 << 20]).tar();
    let limits = Limits {
        ratio: u64::MAX,
        ..Limits::default()
    };
    for level in [1, 3, 19] {
        let bundle = zstd::stream::encode_all(tar.as_slice(), level).unwrap();
        walk_with(&bundle, &limits, None).0.unwrap();
    }
}

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
fn one_deep_name_cannot_stand_for_countless_folders() {
    let deep = |n: usize| format!("{n}/{}x", "a/".repeat(240));
    let tar = (0..50).fold(Tar::new(), |tar, n| {
        tar.pax(&[("path", &deep(n))]).file("x", b"")
    });
    assert_eq!(
        rejection(&tar.zst(), &Limits::default()),
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
fn bombs_are_refused_wherever_the_zeros_are() {
    let header = Header::new(b"bomb", b'0', 2 << 30);
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder
        .write_all(&Tar::valid().entry(header, b"").unfinished())
        .unwrap();
    io::copy(&mut io::repeat(0).take(64 << 20), &mut encoder).unwrap();
    let in_a_file = encoder.finish().unwrap();
    assert_eq!(
        rejection(&in_a_file, &Limits::default()),
        Rejection::Ratio { limit: 200 }
    );

    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&Tar::valid().tar()).unwrap();
    io::copy(&mut io::repeat(0).take(64 << 20), &mut encoder).unwrap();
    let after_the_end = encoder.finish().unwrap();
    assert_eq!(
        rejection(&after_the_end, &Limits::default()),
        Rejection::Ratio { limit: 200 }
    );

    let record = pax_records(&[("comment", &"x".repeat(300 << 10))]);
    let in_a_record = Tar::new().extension(b'x', &record).file("a", b"").zst();
    assert!(matches!(
        rejection(&in_a_record, &Limits::default()),
        Rejection::ExtensionTooLarge { .. }
    ));
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

#[test]
fn a_path_of_512_bytes_is_the_longest() {
    let name = |len: usize| format!("{}/{}", "a".repeat(255), "b".repeat(len - 256));
    let with = |len| Tar::new().pax(&[("path", &name(len))]).file("x", b"").zst();
    assert!(walk_default(&with(511)).is_ok());
    // The last part alone would be 256 bytes, one more than a file system takes.
    assert_eq!(
        rejection(&with(512), &Limits::default()),
        Rejection::Name(BundlePathError::PartTooLong)
    );
    assert_eq!(
        rejection(&with(513), &Limits::default()),
        Rejection::Name(BundlePathError::TooLong)
    );
}

#[test]
fn a_source_that_fails_is_not_called_damage() {
    struct Failing<'a>(&'a [u8]);
    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::ErrorKind::ConnectionReset.into()),
                read => Ok(read),
            }
        }
    }
    let bundle = Tar::valid().zst();
    let limits = Limits::default();
    for len in [0, 10, bundle.len() - 1] {
        let about = Walk {
            size: bundle.len() as u64,
            expected: None,
            limits: &limits,
            progress: None,
        };
        let walked = walk(Failing(&bundle[..len]), about, &mut Seen::default());
        assert!(
            matches!(&walked, Err(ArchiveError::Read(error)) if error.kind() == io::ErrorKind::ConnectionReset),
            "{len}: {walked:?}"
        );
    }
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
