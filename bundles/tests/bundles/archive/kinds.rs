//! What entries may be, and what may be said of them.

use super::*;

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
