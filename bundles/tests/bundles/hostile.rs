//! Hostile bundles, one table: what each is answered with when it is published and when it is
//! fetched, and that nothing of it ends up anywhere.
//!
//! What a rule is exactly, at its limit and around it, is asked of [`walk`] in `archive`.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use alga_bundles::{
    ArchiveError, BundleCache, BundlePath, BundlePathError, FetchError, FetchOptions, Limits,
    ObjectKey, PublishContext, PublishError, PublishRequest, Rejection, SignatureRules, Sink,
    SinkError, Walk, publish, walk,
};
use alga_model::ContentHash;
use serde_json::json;

use crate::support::{
    COMPONENT, Header, MemoryRegistry, Room, Tar, Verdict, compress, listing, manifest, pax_records,
};

struct Case {
    name: String,
    bundle: Vec<u8>,
    expected: Expected,
}

/// What a bundle is answered with.
enum Expected {
    /// `BAD_ARCHIVE`.
    Damaged,
    /// `ARCHIVE_REJECTED`.
    Rejected { entry: String, reason: Rejection },
    /// `INVALID_MANIFEST`, with an issue at each of these places and at no other.
    InvalidManifest(Vec<String>),
    /// It only looks odd: these files, named as they are, and no others.
    Harmless(Vec<&'static str>),
}

fn case(name: impl Into<String>, bundle: Vec<u8>, expected: Expected) -> Case {
    Case {
        name: name.into(),
        bundle,
        expected,
    }
}

fn damaged(name: impl Into<String>, bundle: Vec<u8>) -> Case {
    case(name, bundle, Expected::Damaged)
}

fn rejected(name: impl Into<String>, bundle: Vec<u8>, entry: &str, reason: Rejection) -> Case {
    let entry = entry.to_owned();
    case(name, bundle, Expected::Rejected { entry, reason })
}

/// Counts what is read of a bundle.
struct Counting<'a> {
    bytes: &'a [u8],
    read: u64,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// Counts what a walk hands out, and notes how much of it at once.
#[derive(Default)]
struct Meter {
    files: usize,
    bytes: u64,
    largest_chunk: usize,
}

impl Sink for Meter {
    fn folder(&mut self, _: &BundlePath) -> Result<(), SinkError> {
        self.files += 1;
        Ok(())
    }

    fn file(&mut self, _: &BundlePath, _: u64) -> Result<(), SinkError> {
        self.files += 1;
        Ok(())
    }

    fn data(&mut self, chunk: &[u8]) -> Result<(), SinkError> {
        self.bytes += chunk.len() as u64;
        self.largest_chunk = self.largest_chunk.max(chunk.len());
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

impl Case {
    /// Walks, publishes and fetches the bundle, each in a room of its own.
    async fn check(&self) {
        self.walk_is_bounded();
        self.check_published().await;
        self.check_fetched().await;
    }

    fn walk_is_bounded(&self) {
        let limits = Limits::default();
        let size = self.bundle.len() as u64;
        let about = Walk {
            size,
            expected: None,
            limits: &limits,
            progress: None,
        };
        let mut source = Counting {
            bytes: &self.bundle,
            read: 0,
        };
        let mut meter = Meter::default();
        let walked = walk(&mut source, about, &mut meter);
        // Only who keeps the manifest knows how long it may be.
        let fits = match &self.expected {
            Expected::Harmless(_) | Expected::InvalidManifest(_) => true,
            Expected::Rejected { reason, .. } => {
                matches!(reason, Rejection::ManifestTooLarge { .. })
            }
            Expected::Damaged => false,
        };
        assert_eq!(walked.is_ok(), fits, "{}: {walked:?}", self.name);
        let allowance = (size * limits.ratio).max(limits.ratio_free_bytes);
        assert!(source.read <= size, "{}: read twice", self.name);
        assert!(
            meter.bytes <= allowance,
            "{}: {} bytes",
            self.name,
            meter.bytes
        );
        assert!(meter.files <= limits.entries, "{}", self.name);
        assert!(meter.largest_chunk <= 64 << 10, "{}", self.name);
    }

    async fn check_published(&self) {
        let room = Room::new();
        let file = room.write("inbox/bundle", &self.bundle);
        let store = room.store();
        let registry = MemoryRegistry::default();
        let context = PublishContext {
            store: &store,
            component_check: &Verdict::Good,
            registry: &registry,
            capability_check: &|_| Vec::new(),
            signatures: &SignatureRules::default(),
            limits: &Limits::default(),
            actor: "admin",
            request_id: None,
        };
        let before = listing(&room.path(""));
        let published = publish(PublishRequest::new(&file), context).await;
        let code = published.as_ref().map_err(PublishError::code).err();
        match (&self.expected, published) {
            (Expected::Harmless(_), Ok(_)) => return,
            (
                Expected::Damaged,
                Err(PublishError::Archive(ArchiveError::Damaged(_) | ArchiveError::NotZstd)),
            ) => {
                assert_eq!(code, Some("BAD_ARCHIVE"), "{}", self.name);
            }
            (
                Expected::Rejected { entry, reason },
                Err(PublishError::Archive(ArchiveError::Rejected {
                    entry: named,
                    reason: given,
                })),
            ) => {
                assert_eq!(code, Some("ARCHIVE_REJECTED"), "{}", self.name);
                assert_eq!((&named, &given), (entry, reason), "{}", self.name);
            }
            (Expected::InvalidManifest(paths), Err(PublishError::Manifest(invalid))) => {
                assert_eq!(code, Some("INVALID_MANIFEST"), "{}", self.name);
                let named: Vec<_> = invalid.issues.into_iter().map(|it| it.path).collect();
                assert_eq!(&named, paths, "{}", self.name);
            }
            (_, other) => panic!("{}: {other:?}", self.name),
        }
        assert_eq!(listing(&room.path("")), before, "{}", self.name);
        assert!(
            registry.versions.lock().unwrap().is_empty(),
            "{}",
            self.name
        );
    }

    /// As if the bundle had been put into the store by somebody else.
    async fn check_fetched(&self) {
        let room = Room::new();
        let hash = ContentHash::of(&self.bundle);
        let store = Arc::new(room.store());
        room.plant(ObjectKey::Bundle(hash), &self.bundle);
        let cache = BundleCache::new(room.path("a/cache"), store, FetchOptions::default()).unwrap();
        let before = listing(&room.path(""));
        let error = match (&self.expected, cache.get(hash).await) {
            (Expected::Harmless(files), Ok(bundle)) => {
                let has = |file: &&str| bundle.file(file).is_some();
                assert!(files.iter().all(has), "{}", self.name);
                let unpacked = listing(&room.path(""));
                assert!(
                    unpacked
                        .iter()
                        .all(|path| before.contains(path) || path.starts_with("a/cache/")),
                    "{}: {unpacked:?}",
                    self.name
                );
                return;
            }
            (_, fetched) => fetched.unwrap_err(),
        };
        match (&self.expected, &error) {
            (Expected::InvalidManifest(_), FetchError::Manifest { .. })
            | (Expected::Damaged | Expected::Rejected { .. }, FetchError::Archive { .. }) => {}
            _ => panic!("{}: {error:?}", self.name),
        }
        assert_eq!(listing(&room.path("")), before, "{}", self.name);
    }
}

async fn check_all(cases: Vec<Case>) {
    let mut names = HashSet::new();
    for case in cases {
        assert!(names.insert(case.name.clone()), "{} is twice", case.name);
        case.check().await;
    }
}

/// Names no entry may have, as far as they fit into UTF-8.
const WAYS_OUT: [(&str, BundlePathError); 22] = {
    use BundlePathError::{Absolute, Backslash, Control, Dots, EmptyPart};
    [
        ("..", Dots),
        ("../x", Dots),
        ("../../../../../../tmp/x", Dots),
        ("ui/../../x", Dots),
        ("ui/..", Dots),
        ("ui/../manifest.json", Dots),
        (".", Dots),
        ("./x", Dots),
        ("ui/./x", Dots),
        ("ui/.", Dots),
        ("/", Absolute),
        ("/etc/passwd", Absolute),
        ("//host/share", Absolute),
        ("/../x", Absolute),
        ("ui//x", EmptyPart),
        ("ui/", EmptyPart),
        ("..\\x", Backslash),
        ("ui\\..\\..\\x", Backslash),
        ("C:\\x", Backslash),
        ("\\\\host\\share", Backslash),
        ("a\nb", Control),
        ("a\u{7f}b", Control),
    ]
};

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused_wherever_it_stands() {
    let mut cases = Vec::new();
    for (name, error) in WAYS_OUT {
        let reason = Rejection::Name(error);
        let long_name = [name.as_bytes(), b"\0"].concat();
        let file = |tar: Tar| tar.file("innocent", b"x").zst();
        cases.extend([
            rejected(
                format!("{name:?} in the header"),
                Tar::valid().file(name, b"x").zst(),
                name,
                reason.clone(),
            ),
            rejected(
                format!("{name:?} in a pax record"),
                file(Tar::valid().pax(&[("path", name)])),
                name,
                reason.clone(),
            ),
            rejected(
                format!("{name:?} in a GNU long name"),
                file(Tar::valid().extension(b'L', &long_name)),
                name,
                reason,
            ),
        ]);
    }
    check_all(cases).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table, one case after another")]
async fn a_name_that_no_file_can_have_is_refused() {
    use BundlePathError::{Control, Dots, Empty, EmptyPart, PartTooLong, TooLong};
    let innocent = |tar: Tar| tar.file("innocent", b"x").zst();
    let by_header = |name: &[u8]| Tar::valid().entry(Header::new(name, b'0', 0), b"").zst();
    let by_pax = |name: &str| innocent(Tar::valid().pax(&[("path", name)]));
    let raw_pax = |name: &[u8]| {
        let len = name.len() + b"NN path=\n".len();
        let record = [format!("{len} path=").as_bytes(), name, b"\n"].concat();
        innocent(Tar::valid().extension(b'x', &record))
    };
    let long = "x".repeat(BundlePath::MAX_BYTES + 1);
    let part = "x".repeat(BundlePath::MAX_PART_BYTES + 1);
    let replaced = |count: usize| "\u{fffd}".repeat(count);
    let prefix = Header::new(b"x", b'0', 0).with(345, b"../up");
    let cases = vec![
        rejected("no name", by_header(b""), "", Rejection::Name(Empty)),
        rejected(
            "no name in a pax record",
            by_pax(""),
            "",
            Rejection::Name(Empty),
        ),
        rejected(
            "a NUL in a pax record",
            by_pax("a\0b"),
            "a\0b",
            Rejection::Name(Control),
        ),
        rejected(
            "a NUL in a GNU long name",
            innocent(Tar::valid().extension(b'L', b"innocent\0/../../x\0")),
            "innocent\0/../../x",
            Rejection::Name(Control),
        ),
        rejected(
            "a byte that is not UTF-8",
            by_header(b"a\xff"),
            "a\u{fffd}",
            Rejection::NotUtf8,
        ),
        rejected(
            "overlong dots",
            by_header(b"\xc0\xae\xc0\xae/x"),
            &format!("{}/x", replaced(4)),
            Rejection::NotUtf8,
        ),
        rejected(
            "an overlong slash in a pax record",
            raw_pax(b"..\xc0\xaf..x"),
            &format!("..{}..x", replaced(2)),
            Rejection::NotUtf8,
        ),
        rejected(
            "half a surrogate pair",
            by_header(b"a\xed\xa0\x80"),
            &format!("a{}", replaced(3)),
            Rejection::NotUtf8,
        ),
        rejected(
            "a long name",
            by_pax(&long),
            &long[..512],
            Rejection::Name(TooLong),
        ),
        rejected(
            "a long part",
            by_pax(&part),
            &part,
            Rejection::Name(PartTooLong),
        ),
        rejected(
            "a name as long as a record may be",
            by_pax(&"../".repeat(80_000)),
            &"../".repeat(171)[..512],
            Rejection::Name(TooLong),
        ),
        rejected(
            "dots in the prefix of a header",
            Tar::valid().entry(prefix, b"").zst(),
            "../up/x",
            Rejection::Name(Dots),
        ),
        rejected(
            "dots as a folder",
            Tar::valid().folder("../x/").zst(),
            "../x/",
            Rejection::Name(Dots),
        ),
        rejected(
            "the folder itself",
            Tar::valid().folder("./").zst(),
            "./",
            Rejection::Name(Dots),
        ),
        rejected(
            "a folder with two slashes behind",
            Tar::valid().folder("a//").zst(),
            "a//",
            Rejection::Name(EmptyPart),
        ),
    ];
    check_all(cases).await;
}

#[tokio::test]
async fn what_only_looks_like_a_way_out_is_a_name_like_any_other() {
    let nested = Tar::new()
        .file("../../x", b"x")
        .file("manifest.json", b"{}");
    let cases = vec![
        (
            "percent-encoded dots",
            Tar::valid().file("%2e%2e/%2e%2e%2fx", b"x"),
            "%2e%2e/%2e%2e%2fx",
        ),
        ("a drive letter", Tar::valid().file("C:x", b"x"), "C:x"),
        (
            "dots behind",
            Tar::valid().file("ui./x...", b"x"),
            "ui./x...",
        ),
        ("three dots", Tar::valid().file(".../x", b"x"), ".../x"),
        (
            "a device of another system",
            Tar::valid().file("NUL", b"x"),
            "NUL",
        ),
        (
            "a full-width slash",
            Tar::valid().file("\u{ff0e}\u{ff0e}\u{ff0f}x", b"x"),
            "\u{ff0e}\u{ff0e}\u{ff0f}x",
        ),
        (
            "another case",
            Tar::valid().file("Manifest.JSON", b"x"),
            "Manifest.JSON",
        ),
        ("a tilde", Tar::valid().file("~/x", b"x"), "~/x"),
        (
            "a tar archive",
            Tar::valid().file("inner.tar", &nested.clone().tar()),
            "inner.tar",
        ),
        (
            "a bundle",
            Tar::valid().file("inner.tar.zst", &nested.zst()),
            "inner.tar.zst",
        ),
    ];
    let cases = cases.into_iter().map(|(name, tar, file)| {
        let files = vec![file, "manifest.json", "dist/main.wasm"];
        case(name, tar.zst(), Expected::Harmless(files))
    });
    check_all(cases.collect()).await;
}

#[tokio::test]
async fn whatever_is_neither_file_nor_folder_is_refused() {
    let kinds = [
        (b'1', "a hard link"),
        (b'2', "a symbolic link"),
        (b'3', "a device"),
        (b'4', "a device"),
        (b'6', "a fifo"),
        (b'S', "a sparse file"),
        (b'7', "of an unknown type"),
        (b'V', "of an unknown type"),
        (b'M', "of an unknown type"),
        (b'D', "of an unknown type"),
        (b'N', "of an unknown type"),
        (b'A', "of an unknown type"),
        (b'X', "of an unknown type"),
        (1, "of an unknown type"),
        (0xff, "of an unknown type"),
    ];
    let mut cases = Vec::new();
    for (kind, what) in kinds {
        for (target, means) in [("/etc/passwd", "outside"), ("manifest.json", "inside")] {
            let header = Header::new(b"entry", kind, 0).with(157, target.as_bytes());
            cases.push(rejected(
                format!("{what} of type {kind:#x} to the {means}"),
                Tar::valid().entry(header, b"").zst(),
                "entry",
                Rejection::Kind(what),
            ));
        }
    }
    let then_through_it = Tar::valid()
        .entry(Header::new(b"ui", b'2', 0).with(157, b"/tmp"), b"")
        .file("ui/x", b"x");
    let manifest_folder = Tar::new().folder("manifest.json/");
    cases.extend([
        rejected(
            "a link and a file through it",
            then_through_it.zst(),
            "ui",
            Rejection::Kind("a symbolic link"),
        ),
        rejected(
            "a link with a long target",
            Tar::valid()
                .extension(b'K', b"/etc/passwd\0")
                .file("a", b"")
                .zst(),
            "extension",
            Rejection::Kind("a link with a long target"),
        ),
        rejected(
            "a folder for a manifest",
            manifest_folder.zst(),
            "manifest.json",
            Rejection::Kind("a folder where the manifest belongs"),
        ),
        rejected(
            "a folder with content",
            Tar::valid().entry(Header::new(b"a/", b'5', 1), b"x").zst(),
            "a/",
            Rejection::FolderWithContent,
        ),
    ]);
    for key in [
        "linkpath",
        "GNU.sparse.map",
        "GNU.sparse.major",
        "GNU.sparse.name",
        "GNU.sparse.realsize",
        "SCHILY.realsize",
        "SCHILY.filetype",
    ] {
        let record = [(key, "1")];
        let reason = Rejection::Extension(key.to_owned());
        let of_one = Tar::valid().pax(&record).file("a", b"").zst();
        let of_all = Tar::valid()
            .extension(b'g', &pax_records(&record))
            .file("a", b"")
            .zst();
        cases.extend([
            rejected(
                format!("{key} of an entry"),
                of_one,
                "extension",
                reason.clone(),
            ),
            rejected(format!("{key} of every entry"), of_all, "extension", reason),
        ]);
    }
    for key in ["path", "size"] {
        let of_all = Tar::valid()
            .extension(b'g', &pax_records(&[(key, "1")]))
            .file("a", b"");
        cases.push(rejected(
            format!("{key} of every entry"),
            of_all.zst(),
            "extension",
            Rejection::Extension("path or size of every entry".to_owned()),
        ));
    }
    check_all(cases).await;
}

#[tokio::test]
async fn a_size_that_two_readers_could_read_differently_is_refused() {
    let mut cases = Vec::new();
    let sizes = [
        ("more", "513"),
        ("less", "0"),
        ("negative", "-1"),
        ("signed", "+1"),
        ("with a zero in front", "01"),
        ("with space", "1 "),
        ("empty", ""),
        ("in hexadecimal digits", "0x1"),
        ("huge", "99999999999999999999999"),
        ("of 64 bits", "18446744073709551615"),
    ];
    for (what, size) in sizes {
        let pax = size.chars().take(20).collect();
        cases.push(rejected(
            format!("a pax size that is {what}"),
            Tar::valid().pax(&[("size", size)]).file("a", b"x").zst(),
            "a",
            Rejection::TwoSizes { header: 1, pax },
        ));
    }
    cases.push(rejected(
        "a pax size twice",
        Tar::valid()
            .pax(&[("size", "1"), ("size", "1")])
            .file("a", b"x")
            .zst(),
        "extension",
        Rejection::Extension("size".to_owned()),
    ));
    for (what, size) in [
        ("binary", b"\x80\0\0\0\0\0\0\0\0\0\0\x01"),
        (
            "binary and huge",
            b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        (
            "binary and negative",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ),
        ("signed", b"+0000000001\0"),
        ("negative", b"-0000000001\0"),
        ("hexadecimal", b"0000000000a\0"),
        ("decimal", b"00000000008\0"),
        ("missing", &[0; 12]),
        ("broken by a NUL", b"0000\x00000001\0"),
    ] {
        let header = Header::new(b"a", b'0', 0).with(124, size);
        cases.push(damaged(
            format!("a size in a header that is {what}"),
            Tar::valid().entry(header, b"x").zst(),
        ));
    }
    let largest = Header::new(b"huge", b'0', 0o77_777_777_777);
    cases.push(rejected(
        "the largest size in octal digits",
        Tar::valid().entry(largest, b"").zst(),
        "huge",
        Rejection::Ratio { limit: 200 },
    ));
    check_all(cases).await;
}

#[tokio::test]
async fn a_name_that_is_there_already_is_refused() {
    let duplicate =
        |name: &str, tar: Tar, entry: &str| rejected(name, tar.zst(), entry, Rejection::Duplicate);
    let inside = |name: &str, tar: Tar, entry: &str, file: &str| {
        rejected(
            name,
            tar.zst(),
            entry,
            Rejection::InsideFile(file.to_owned()),
        )
    };
    let two_names = |name: &str, tar: Tar, entry: &str| {
        rejected(name, tar.file("c", b"").zst(), entry, Rejection::TwoNames)
    };
    let file = |name: &str| Tar::valid().file(name, b"");
    let cases = vec![
        duplicate("the manifest twice", file("manifest.json"), "manifest.json"),
        duplicate(
            "the manifest again in a pax record",
            Tar::valid()
                .pax(&[("path", "manifest.json")])
                .file("innocent", b"{}"),
            "manifest.json",
        ),
        duplicate(
            "the manifest again in a GNU long name",
            Tar::valid()
                .extension(b'L', b"manifest.json\0")
                .file("innocent", b"{}"),
            "manifest.json",
        ),
        duplicate(
            "the component again behind the prefix of a header",
            Tar::valid().entry(Header::new(b"main.wasm", b'0', 0).with(345, b"dist"), b""),
            "dist/main.wasm",
        ),
        duplicate("a folder twice", Tar::valid().folder("a").folder("a/"), "a"),
        duplicate("a file, then a folder", file("a").folder("a/"), "a"),
        duplicate(
            "a folder, then a file",
            Tar::valid().folder("a/").file("a", b""),
            "a",
        ),
        duplicate(
            "a folder that is implied, then a file",
            file("a/b").file("a", b""),
            "a",
        ),
        duplicate(
            "the folder of the component as a file",
            file("dist"),
            "dist",
        ),
        inside(
            "a file, then one in it",
            file("a").file("a/b", b""),
            "a/b",
            "a",
        ),
        inside(
            "a file in the component",
            file("dist/main.wasm/x/y"),
            "dist/main.wasm/x/y",
            "dist/main.wasm",
        ),
        two_names(
            "a GNU and a pax name",
            Tar::valid().extension(b'L', b"a\0").pax(&[("path", "b")]),
            "a",
        ),
        two_names(
            "two GNU names",
            Tar::valid().extension(b'L', b"a\0").extension(b'L', b"b\0"),
            "extension",
        ),
        two_names(
            "two pax records",
            Tar::valid().pax(&[("path", "a")]).pax(&[("path", "b")]),
            "extension",
        ),
        rejected(
            "two names in one pax record",
            Tar::valid()
                .pax(&[("path", "a"), ("path", "b")])
                .file("c", b"")
                .zst(),
            "extension",
            Rejection::Extension("path".to_owned()),
        ),
    ];
    check_all(cases).await;
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let step = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..len).map(step).collect()
}

/// A zstd frame: its header, and blocks of the given type, size field and content.
fn frame(header: &[u8], blocks: impl IntoIterator<Item = (u32, u32, Vec<u8>)>) -> Vec<u8> {
    let mut frame = [&[0x28, 0xb5, 0x2f, 0xfd], header].concat();
    let mut blocks = blocks.into_iter().peekable();
    while let Some((kind, size, content)) = blocks.next() {
        let is_last = u32::from(blocks.peek().is_none());
        let [a, b, c, _] = (size << 3 | kind << 1 | is_last).to_le_bytes();
        frame.extend([a, b, c]);
        frame.extend(content);
    }
    frame
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table, one case after another")]
async fn bombs_are_refused_before_they_unpack() {
    const RAW: u32 = 0;
    const RUN: u32 = 1;
    let ratio = || Rejection::Ratio { limit: 200 };
    let after = "(after the last entry)";
    let zeros = |tar: Vec<u8>, level| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
        encoder.write_all(&tar).unwrap();
        io::copy(&mut io::repeat(0).take(64 << 20), &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let of_zeros = |name: &[u8]| Tar::valid().entry(Header::new(name, b'0', 2 << 30), b"");
    // A window of 8 MiB; then runs of 128 KiB, each in four bytes.
    let runs = frame(
        &[0, 13 << 3],
        std::iter::repeat_n((RUN, 128 << 10, vec![0]), 8192),
    );
    let header_then_runs = {
        let tar = of_zeros(b"bomb").unfinished();
        let first = (RAW, u32::try_from(tar.len()).unwrap(), tar);
        let runs = std::iter::repeat_n((RUN, 128 << 10, vec![0]), 100_000);
        frame(&[0, 13 << 3], std::iter::once(first).chain(runs))
    };
    let empty_blocks = frame(
        &[0, 13 << 3],
        std::iter::repeat_n((RAW, 0, vec![]), 1 << 20),
    );
    let entries =
        |count: usize| (0..count).fold(Tar::new(), |tar, n| tar.file(&format!("{n:x}"), b""));
    let too_many = || Rejection::TooManyEntries { limit: 10_000 };
    // Owners of noise, lest the ratio be noticed first.
    let comments = (0..20_001_u64).fold(Tar::new(), |tar, n| {
        let header = Header::new(b"extension", b'g', 0).with(265, &noise(n, 32));
        tar.entry(header, b"")
    });
    let deep = |n: usize| format!("{n}/{}x", "a/".repeat(240));
    let implied = (0..50).fold(Tar::new(), |tar, n| {
        tar.pax(&[("path", &deep(n))]).file("x", b"")
    });
    let record = pax_records(&[("comment", &"x".repeat(300 << 10))]);
    let too_long = Rejection::ExtensionTooLarge { limit: 256 << 10 };
    let skippable = |len: usize| {
        let size = u32::try_from(len).unwrap().to_le_bytes();
        [&[0x50, 0x2a, 0x4d, 0x18], &size[..], &vec![b'x'; len]].concat()
    };
    let bundle = Tar::valid().zst();
    let many = |frame: &[u8]| [&bundle[..], &frame.repeat(1000)].concat();
    let cases = vec![
        rejected(
            "zeros in a file",
            zeros(of_zeros(b"bomb").unfinished(), 1),
            "bomb",
            ratio(),
        ),
        rejected(
            "zeros after the archive",
            zeros(Tar::valid().tar(), 3),
            after,
            ratio(),
        ),
        rejected("runs in a file", header_then_runs, "bomb", ratio()),
        rejected("runs of nothing but zeros", runs, after, ratio()),
        damaged("a million empty blocks", empty_blocks),
        damaged("a thousand empty frames", many(&compress(b""))),
        damaged("a thousand frames", many(&bundle)),
        damaged("a thousand skippable frames", many(&skippable(0))),
        damaged(
            "a large skippable frame",
            [&bundle[..], &skippable(1 << 20)].concat(),
        ),
        damaged(
            "a skippable frame in front",
            [&skippable(1)[..], &bundle].concat(),
        ),
        damaged(
            "a window of 2 TiB",
            frame(&[0, 31 << 3], [(RAW, 0, vec![])]),
        ),
        damaged(
            "a content size of 4 EiB",
            frame(&[0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40], [(RAW, 0, vec![])]),
        ),
        damaged(
            "another content size than it has",
            frame(&[0x20, 9], [(RAW, 1, vec![0])]),
        ),
        damaged(
            "a dictionary nobody has",
            frame(&[0x21, 7, 0], [(RAW, 0, vec![])]),
        ),
        damaged("a block of no type", frame(&[0x20, 1], [(3, 1, vec![0])])),
        rejected("10 001 entries", entries(10_001).zst(), "2710", too_many()),
        rejected(
            "20 001 empty records",
            comments.zst(),
            "extension",
            too_many(),
        ),
        rejected("a few deep names", implied.zst(), &deep(41), too_many()),
        rejected(
            "a record of 300 KiB",
            Tar::valid().extension(b'x', &record).file("a", b"").zst(),
            "extension",
            too_long.clone(),
        ),
        rejected(
            "a GNU name of 300 KiB",
            Tar::valid()
                .extension(b'L', &vec![b'x'; 300 << 10])
                .file("a", b"")
                .zst(),
            "extension",
            too_long,
        ),
    ];
    check_all(cases).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table, one case after another")]
async fn an_archive_that_is_not_whole_is_damage_at_every_stage() {
    let tar = Tar::valid()
        .pax(&[("path", "ui/index.html")])
        .file("short", b"<p>hello</p>")
        .tar();
    let cut = |at: usize| compress(&tar[..at]);
    let record = tar.len() - 1024 - 4 * 512;
    let mut cases: Vec<Case> = [
        ("before anything", 0),
        ("in the first header", 100),
        ("after the first header", 512),
        ("in the manifest", 520),
        ("in the padding", 1000),
        ("between two entries", 1024),
        ("in the header of a record", record + 9),
        ("in a record", record + 515),
        ("after a record", record + 1024),
        ("in the header behind it", record + 1200),
        ("in the last file", record + 1540),
        ("before the end", tar.len() - 1024),
        ("in the end", tar.len() - 1000),
        ("between the two blocks of the end", tar.len() - 512),
        ("one byte before it is over", tar.len() - 1),
    ]
    .into_iter()
    .map(|(stage, at)| damaged(format!("cut off {stage}"), cut(at)))
    .collect();
    let bundle = Tar::valid().zst();
    for (stage, at) in [
        ("the magic number", 3),
        ("the frame's header", 5),
        ("a block", bundle.len() / 2),
        ("the checksum", bundle.len() - 2),
    ] {
        cases.push(damaged(
            format!("cut off in {stage}"),
            bundle[..at].to_vec(),
        ));
    }
    let mut flipped = bundle.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let whole = Tar::valid().tar();
    let second = Tar::new().file("second", b"x").tar();
    let header = || Header::new(b"a", b'0', 0);
    let with = |header: Header| Tar::valid().entry(header, b"").zst();
    let pax = |record: &[u8]| Tar::valid().extension(b'x', record).file("a", b"").zst();
    cases.extend([
        damaged("nothing", Vec::new()),
        damaged("a tar archive that is not compressed", whole.clone()),
        damaged("another format", b"PK\x03\x04".to_vec()),
        damaged("a frame with nothing in it", compress(b"")),
        damaged("a frame whose checksum is wrong", flipped),
        damaged("a byte after the frame", [&bundle[..], b"x"].concat()),
        damaged("a zero after the frame", [&bundle[..], &[0]].concat()),
        damaged(
            "a MiB of zeros after the frame",
            [&bundle[..], &vec![0; 1 << 20]].concat(),
        ),
        damaged(
            "a byte after the end",
            compress(&[&whole[..], b"x"].concat()),
        ),
        damaged(
            "a byte in the block after the end",
            compress(&[&whole[..], &[0; 511], b"x"].concat()),
        ),
        damaged(
            "a second archive after the end",
            compress(&[&whole[..], &second].concat()),
        ),
        damaged(
            "a file after one empty block",
            Tar::valid().raw(&[0; 512]).file("hidden", b"x").zst(),
        ),
        damaged(
            "a header whose checksum is wrong",
            with(header().with(148, b"000001\0 ")),
        ),
        damaged(
            "a header whose checksum is negative",
            with(header().with(148, b"-00001\0 ")),
        ),
        damaged(
            "a header whose checksum is no number",
            with(header().with(148, b"checksum")),
        ),
        damaged("a header of no format", with(header().with(257, &[0; 8]))),
        damaged("a header of noise", Tar::valid().raw(&[0xa5; 512]).zst()),
        damaged(
            "a record about no entry",
            Tar::valid().pax(&[("path", "a")]).zst(),
        ),
        damaged(
            "a name of no entry",
            Tar::valid().extension(b'L', b"a\0").zst(),
        ),
        damaged("a record longer than it is", pax(b"99 path=a\n")),
        damaged("a record shorter than it is", pax(b"5 path=a\n")),
        damaged("a record of length 0", pax(b"0 path=a\n")),
        damaged("a record with a signed length", pax(b"+10 path=a\n")),
        damaged("a record without a key", pax(b"6 abc\n")),
    ]);
    check_all(cases).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table, one case after another")]
async fn a_hostile_manifest_is_refused_place_by_place() {
    let with = |text: &[u8]| {
        let tar = Tar::new().file("manifest.json", text);
        tar.file("dist/main.wasm", COMPONENT).zst()
    };
    let invalid = |name: &str, text: &[u8], paths: &[&str]| {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        case(name, with(text), Expected::InvalidManifest(paths))
    };
    let changed = |name: &str, place: &str, value: serde_json::Value, path: &str| {
        let mut manifest = manifest();
        manifest[place] = value;
        invalid(name, manifest.to_string().as_bytes(), &[path])
    };
    let plain = manifest().to_string();
    let twice = plain.replacen('{', r#"{"publisher": "Example Ltd", "#, 1);
    let escaped = plain.replacen('{', r#"{"n\u0061me": "com.example.other", "#, 1);
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        plain.replacen('{', &format!(r#"{{"x": {open}{close}, "#), 1)
    };
    let entry = |file: &str| json!(file);
    let storage = |file: &str| {
        json!({ "alga.storage": { "namespaces": [
            { "name": "notes", "access": ["read"], "schemaReference": file }
        ] } })
    };
    let mut cases = vec![
        invalid("no bytes", b"", &[""]),
        invalid("no JSON", b"name: notes", &[""]),
        invalid("no UTF-8", b"{\"name\": \"\xff\"}", &[""]),
        invalid("UTF-16", b"\xff\xfe{\0}\0", &[""]),
        invalid(
            "a mark of byte order",
            format!("\u{feff}{plain}").as_bytes(),
            &[""],
        ),
        invalid("two manifests", format!("{plain}{plain}").as_bytes(), &[""]),
        invalid("an array", b"[]", &[""]),
        invalid("null", b"null", &[""]),
        invalid(
            "half a surrogate pair",
            plain.replace("Ltd", "\\ud800").as_bytes(),
            &[""],
        ),
        invalid(
            "a number no reader holds",
            deep(1).replace("[]", "1e999").as_bytes(),
            &[""],
        ),
        invalid("200 levels", deep(200).as_bytes(), &[""]),
        invalid("100 000 levels", deep(100_000).as_bytes(), &[""]),
        invalid("a member twice", twice.as_bytes(), &["/publisher"]),
        invalid(
            "a member twice in two spellings",
            escaped.as_bytes(),
            &["/name"],
        ),
        invalid(
            "nothing in it",
            b"{}",
            &["/name", "/publisher", "/runtime", "/version"],
        ),
        invalid(
            "wrong types",
            br#"{"name": 1, "publisher": [], "version": {}, "runtime": null, "entry": true,
                "ui": "x", "api": [], "capabilities": "storage.kv", "assets": {}, "sbom": 0,
                "precompiled": []}"#,
            &[
                "/api",
                "/assets",
                "/capabilities",
                "/entry",
                "/name",
                "/precompiled",
                "/publisher",
                "/runtime",
                "/sbom",
                "/ui",
                "/version",
            ],
        ),
        rejected(
            "a manifest of 1 MiB",
            with(&noise(0, 1 << 20)),
            "manifest.json",
            Rejection::ManifestTooLarge { limit: 256 << 10 },
        ),
        changed("a name that is a path", "name", json!("../../etc"), "/name"),
        changed(
            "a name with a NUL",
            "name",
            json!("com.example\0.x"),
            "/name",
        ),
        changed(
            "a publisher with a line break",
            "publisher",
            json!("A\nB"),
            "/publisher",
        ),
        changed(
            "a runtime of the future",
            "runtime",
            json!("wasm-component@2"),
            "/runtime",
        ),
        changed(
            "a version with a path",
            "version",
            json!("1.0.0/../x"),
            "/version",
        ),
        changed(
            "a capability that is a path",
            "capabilities",
            json!({"../x": {}}),
            "/capabilities/..~1x",
        ),
        changed(
            "an endpoint that is relative",
            "api",
            json!({"endpoints": [{"method": "GET", "path": "x"}]}),
            "/api/endpoints/0/path",
        ),
    ];
    for (file, _) in WAYS_OUT.into_iter().filter(|(file, _)| *file != "./x") {
        let page = json!({ "type": "iframe", "entry": file });
        let schema = "/capabilities/alga.storage/namespaces/0/schemaReference";
        cases.extend([
            changed(
                &format!("the entry {file:?}"),
                "entry",
                entry(file),
                "/entry",
            ),
            changed(&format!("the page {file:?}"), "ui", page, "/ui/entry"),
            changed(
                &format!("the schema {file:?}"),
                "capabilities",
                storage(file),
                schema,
            ),
        ]);
    }
    check_all(cases).await;
}
