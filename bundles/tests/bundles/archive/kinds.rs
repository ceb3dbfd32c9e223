//! What entries may be, and what may be said of them.

use super::*;

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
fn a_folder_with_content_is_refused() {
    let bundle = Tar::new().entry(Header::new(b"a/", b'5', 1), b"x").zst();
    assert_eq!(
        rejection(&bundle, &Limits::default()),
        Rejection::FolderWithContent
    );
}
