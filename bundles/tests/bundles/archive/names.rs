//! What entries may be called.

use super::*;

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
