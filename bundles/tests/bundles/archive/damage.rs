//! What is no archive, or not all of one.

use super::*;

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
fn what_is_no_zstd_file_is_told_how_to_make_one() {
    for junk in [&b""[..], b"\x28\xb5\x2f", b"junk", b"PK\x03\x04 and more"] {
        let refused = walk_default(junk).unwrap_err();
        assert!(matches!(refused, ArchiveError::NotZstd), "{refused:?}");
        assert!(
            refused.to_string().contains("alga-runner bundle pack"),
            "{refused}"
        );
    }
    let cut = walk_default(&[0x28, 0xb5, 0x2f, 0xfd]).unwrap_err();
    assert!(matches!(cut, ArchiveError::Damaged(_)), "{cut:?}");
}
