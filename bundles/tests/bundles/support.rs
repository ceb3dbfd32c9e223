//! Bundles made by hand, and a store and a registry that do as they are told.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use alga_bundles::{
    BundlePath, BundleStore, CheckError, ComponentCheck, Content, Created, Cursor, ETag,
    InvalidComponent, Listing, LocalStore, NewVersion, ObjectKey, Page, PartedUpload,
    RegisterError, RegisteredVersion, StagedUpload, StagingKey, Stat, StoreError, StoredObject,
    Unfinished, Verified, VersionRegistry,
};
use alga_model::ContentHash;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// The smallest thing that begins like WebAssembly.
pub(crate) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

pub(crate) fn manifest() -> Value {
    json!({
        "name": "com.example.notes",
        "publisher": "Example Ltd",
        "version": "1.2.0",
        "runtime": "wasm-component@1",
    })
}

/// A tar archive written byte by byte, so that it can be wrong.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An archive that holds nothing wrong.
    pub(crate) fn valid() -> Self {
        Self::new()
            .file("manifest.json", manifest().to_string().as_bytes())
            .file("dist/main.wasm", COMPONENT)
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(
            Header::new(name.as_bytes(), b'0', content.len() as u64),
            content,
        )
    }

    pub(crate) fn folder(self, name: &str) -> Self {
        self.entry(Header::new(name.as_bytes(), b'5', 0), b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        self.extension(b'x', &pax_records(records))
    }

    pub(crate) fn extension(self, kind: u8, content: &[u8]) -> Self {
        self.entry(
            Header::new(b"extension", kind, content.len() as u64),
            content,
        )
    }

    pub(crate) fn entry(mut self, header: Header, content: &[u8]) -> Self {
        self.0.extend(header.finish());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// The archive with its end.
    pub(crate) fn tar(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// The archive as it stands, without an end.
    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn zst(self) -> Vec<u8> {
        compress(&self.tar())
    }
}

pub(crate) fn compress(tar: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn pax_records(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let len = (1..9)
            .map(|digits| rest + digits)
            .find(|len| len.to_string().len() == len - rest)
            .unwrap();
        writeln!(text, "{len} {key}={value}").unwrap();
    }
    text
}

/// A tar header to be spoilt.
pub(crate) struct Header([u8; 512]);

impl Header {
    pub(crate) fn new(name: &[u8], kind: u8, size: u64) -> Self {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self(block)
    }

    pub(crate) fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn finish(mut self) -> [u8; 512] {
        if self.0[148..156] == [0; 8] {
            self.0[148..156].fill(b' ');
            let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
            self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        self.0
    }
}

/// A folder that is gone after the test, with bundles, a store and a cache in it.
pub(crate) struct Room(TempDir);

impl Room {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        // A cache is its owner's, whatever the umask.
        let mut folders = DirBuilder::new();
        folders.recursive(true).mode(0o700);
        folders.create(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn store(&self) -> LocalStore {
        LocalStore::open(self.path("store")).unwrap()
    }

    /// Puts bytes into the store behind its back.
    pub(crate) fn plant(&self, key: ObjectKey, bytes: &[u8]) {
        self.write(&format!("store/{key}"), bytes);
    }
}

/// Every file and folder below `folder`, hidden ones too, by relative path.
pub(crate) fn listing(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            names.push(
                path.strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
            if path.symlink_metadata().unwrap().is_dir() {
                folders.push(path);
            }
        }
    }
    names.sort();
    names
}

/// A local store that counts, waits and fails as it is told.
#[derive(Debug)]
pub(crate) struct TestStore {
    pub(crate) inner: LocalStore,
    pub(crate) opens: AtomicUsize,
    /// Opens that fail as unavailable before one succeeds.
    pub(crate) unavailable: AtomicUsize,
    /// Opens whose body breaks off half-way before one is whole.
    pub(crate) broken_bodies: AtomicUsize,
    /// Opens whose body ends half-way before one is whole.
    pub(crate) short_bodies: AtomicUsize,
    /// Opens that are never answered before one is.
    pub(crate) stalled: AtomicUsize,
    /// Opens whose body stops half-way, and neither ends nor fails, before one is whole.
    pub(crate) stalled_bodies: AtomicUsize,
    /// Opens whose body gives a byte every few seconds, before one is whole.
    pub(crate) dripping_bodies: AtomicUsize,
    /// An open takes one permit and waits for it.
    pub(crate) gate: Semaphore,
}

impl TestStore {
    pub(crate) fn new(inner: LocalStore) -> Self {
        Self {
            inner,
            opens: AtomicUsize::new(0),
            unavailable: AtomicUsize::new(0),
            broken_bodies: AtomicUsize::new(0),
            short_bodies: AtomicUsize::new(0),
            stalled: AtomicUsize::new(0),
            stalled_bodies: AtomicUsize::new(0),
            dripping_bodies: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }

    pub(crate) fn closed(inner: LocalStore) -> Self {
        Self {
            gate: Semaphore::new(0),
            ..Self::new(inner)
        }
    }

    pub(crate) fn opens(&self) -> usize {
        self.opens.load(Ordering::SeqCst)
    }
}

fn take_one(count: &AtomicUsize) -> bool {
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
            count.checked_sub(1)
        })
        .is_ok()
}

#[async_trait]
impl BundleStore for TestStore {
    async fn stat(&self, key: ObjectKey) -> Result<Option<Stat>, StoreError> {
        self.inner.stat(key).await
    }

    async fn open(&self, key: ObjectKey) -> Result<StoredObject, StoreError> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if take_one(&self.unavailable) {
            return Err(StoreError::Unavailable {
                target: key.into(),
                source: "told to fail".into(),
            });
        }
        if take_one(&self.stalled) {
            return std::future::pending().await;
        }
        let StoredObject { stat, body } = self.inner.open(key).await?;
        let size = stat.size;
        if take_one(&self.stalled_bodies) {
            let body = body.take(size / 2).chain(cut::Stalled);
            return Ok(StoredObject {
                stat,
                body: Box::pin(body),
            });
        }
        if take_one(&self.dripping_bodies) {
            let body = Box::pin(cut::Dripping(body, None));
            return Ok(StoredObject { stat, body });
        }
        if take_one(&self.broken_bodies) {
            let broken = cut::Broken;
            return Ok(StoredObject {
                stat,
                body: Box::pin(body.take(size / 2).chain(broken)),
            });
        }
        if take_one(&self.short_bodies) {
            return Ok(StoredObject {
                stat,
                body: Box::pin(body.take(size / 2)),
            });
        }
        Ok(StoredObject { stat, body })
    }

    async fn create(&self, key: ObjectKey, content: Content<'_>) -> Result<Created, StoreError> {
        self.inner.create(key, content).await
    }

    async fn stage(
        &self,
        key: StagingKey,
        content_type: &str,
        size: u64,
    ) -> Result<Box<dyn StagedUpload>, StoreError> {
        self.inner.stage(key, content_type, size).await
    }

    async fn begin_parts(
        &self,
        key: StagingKey,
        content_type: &str,
    ) -> Result<PartedUpload, StoreError> {
        self.inner.begin_parts(key, content_type).await
    }

    async fn put_part(
        &self,
        upload: &PartedUpload,
        number: u32,
        bytes: Bytes,
    ) -> Result<ETag, StoreError> {
        self.inner.put_part(upload, number, bytes).await
    }

    async fn join_parts(
        &self,
        upload: &PartedUpload,
        parts: &[ETag],
        size: u64,
    ) -> Result<Stat, StoreError> {
        self.inner.join_parts(upload, parts, size).await
    }

    async fn abort_parts(&self, upload: &PartedUpload) -> Result<(), StoreError> {
        self.inner.abort_parts(upload).await
    }

    async fn promote(&self, upload: &Verified) -> Result<Created, StoreError> {
        self.inner.promote(upload).await
    }

    async fn replace(&self, upload: &Verified) -> Result<(), StoreError> {
        self.inner.replace(upload).await
    }

    async fn remove(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.inner.remove(key).await
    }

    async fn list(
        &self,
        listing: Listing,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.list(listing, after, limit).await
    }

    async fn unfinished(
        &self,
        before: SystemTime,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        self.inner.unfinished(before, limit).await
    }

    async fn abort_unfinished(&self, upload: &Unfinished) -> Result<(), StoreError> {
        self.inner.abort_unfinished(upload).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}

mod cut {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use alga_bundles::Body;
    use tokio::io::{AsyncRead, ReadBuf};
    use tokio::time::{Sleep, sleep};

    /// A connection over which a byte comes now and then.
    pub(crate) struct Dripping(pub(crate) Body, pub(crate) Option<Pin<Box<Sleep>>>);

    impl AsyncRead for Dripping {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let pause = || Box::pin(sleep(Duration::from_secs(5)));
            ready!(self.1.get_or_insert_with(pause).as_mut().poll(context));
            let mut byte = [0];
            let mut byte = ReadBuf::new(&mut byte);
            ready!(self.0.as_mut().poll_read(context, &mut byte))?;
            self.1 = None;
            buffer.put_slice(byte.filled());
            Poll::Ready(Ok(()))
        }
    }

    /// A connection that is cut.
    pub(crate) struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    /// A connection over which nothing comes any more.
    pub(crate) struct Stalled;

    impl AsyncRead for Stalled {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
}

/// Takes every component, or none.
pub(crate) enum Verdict {
    Good,
    Bad(&'static str),
    Unavailable,
}

#[async_trait]
impl ComponentCheck for Verdict {
    async fn check(
        &self,
        _: ContentHash,
        _: &BundlePath,
        component: Vec<u8>,
    ) -> Result<(), CheckError> {
        assert!(component.starts_with(b"\0asm"));
        match self {
            Self::Good => Ok(()),
            Self::Bad(message) => Err(CheckError::Invalid(InvalidComponent {
                message: (*message).to_owned(),
            })),
            Self::Unavailable => Err(CheckError::Unavailable {
                source: "the compiler is gone".into(),
            }),
        }
    }
}

/// A registry in memory with the rules of the real one.
#[derive(Default)]
pub(crate) struct MemoryRegistry {
    pub(crate) versions: Mutex<HashMap<(String, String), (NewVersion, RegisteredVersion)>>,
    /// Calls that fail before one succeeds.
    pub(crate) unavailable: AtomicUsize,
}

#[async_trait]
impl VersionRegistry for MemoryRegistry {
    async fn register(&self, new: NewVersion) -> Result<RegisteredVersion, RegisterError> {
        if take_one(&self.unavailable) {
            return Err(RegisterError::Unavailable {
                source: "told to fail".into(),
            });
        }
        let mut versions = self.versions.lock().unwrap();
        let name = new.name.to_string();
        let of_name = versions
            .values()
            .find(|(version, _)| version.name == new.name);
        if of_name.is_some_and(|(version, _)| version.publisher != new.publisher) {
            return Err(RegisterError::PublisherMismatch);
        }
        let extension_id = of_name.map_or_else(Uuid::now_v7, |(_, ids)| ids.extension_id);
        let of_content = versions
            .values()
            .find(|(version, _)| version.content_hash == new.content_hash);
        if of_content.is_some_and(|(version, _)| version.manifest_json != new.manifest_json) {
            return Err(RegisterError::ManifestConflict);
        }
        let key = (name, new.version.to_string());
        match versions.get(&key) {
            Some((version, _)) if version.content_hash != new.content_hash => {
                Err(RegisterError::DuplicateVersion {
                    existing: version.content_hash,
                })
            }
            Some((_, ids)) => Ok(*ids),
            None => {
                let ids = RegisteredVersion {
                    extension_id,
                    version_id: Uuid::now_v7(),
                };
                versions.insert(key, (new, ids));
                Ok(ids)
            }
        }
    }

    async fn ensure_manifest(
        &self,
        content: ContentHash,
        manifest_json: &str,
    ) -> Result<(), RegisterError> {
        let versions = self.versions.lock().unwrap();
        let mut of_content = versions
            .values()
            .filter(|(version, _)| version.content_hash == content);
        if of_content.any(|(version, _)| version.manifest_json != manifest_json) {
            return Err(RegisterError::ManifestConflict);
        }
        Ok(())
    }
}
