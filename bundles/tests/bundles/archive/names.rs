//! What entries may be called.

use super::*;

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
