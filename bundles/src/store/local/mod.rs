//! A folder as a store.

mod list;
mod parts;
mod upload;

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{self, Path, PathBuf};
use std::time::SystemTime;

use alga_model::{ContentHash, ContentHasher};
use async_trait::async_trait;
use bytes::Bytes;
use tempfile::{NamedTempFile, TempPath};
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::background::Background;
use super::{
    BundleStore, Content, Created, Cursor, ETag, Listing, ObjectKey, Page, PartedUpload,
    StagedUpload, StagingKey, Stat, StoreError, StoredObject, Target, Unfinished, Verified,
};
use upload::LocalUpload;

/// What the name of a file begins with until it is an object.
const UNFINISHED: &str = ".tmp";

/// Keeps objects as files in a folder, under the keys a bucket would have.
///
/// Several processes may share the folder. A process that dies while it writes may leave a file
/// `.tmp…` behind, which nobody ever reads, and which is among the unfinished uploads. The content type
/// of an upload is not kept.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: PathBuf,
    background: Background,
}

impl LocalStore {
    /// Uses `root`, and makes it when it isn't there.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        // Wherever the process works from later, and however often paths are joined.
        let root = path::absolute(root.into())?;
        make_folder(&root)?;
        if let Some(parent) = root.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self {
            root,
            background: Background::default(),
        })
    }

    fn path(&self, key: impl Into<ObjectKey>) -> PathBuf {
        self.root.join(key.into().to_string())
    }

    /// Where uploads lie that are not finished.
    fn staging(&self) -> PathBuf {
        self.root.join("sha256/_staging")
    }

    /// Does blocking work with the folder.
    async fn blocking<T: Send + 'static>(
        &self,
        target: impl Into<Target>,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let done = spawn_blocking(move || work(&store)).await;
        done.map_err(io::Error::from)
            .flatten()
            .map_err(|error| classify(target, error))
    }

    /// A new link to a staged upload, if that is in the state that was verified.
    ///
    /// Whatever happens to the upload from here on, the link leads to the bytes that were judged.
    fn pin(&self, upload: &Verified) -> io::Result<Pin> {
        let staged = self.path(upload.key);
        let folder = self.root.join("sha256").join(upload.hash.to_hex());
        make_folder(&folder)?;
        let link = folder.join(format!("{UNFINISHED}{}", Uuid::new_v4()));
        match fs::hard_link(staged, &link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pin::Gone),
            Err(error) => return Err(error),
        }
        let link = TempPath::try_from_path(link)?;
        let stat = stat(&fs::symlink_metadata(&link)?)?;
        if stat.etag == upload.etag && stat.size == upload.size {
            Ok(Pin::Held(link))
        } else {
            Ok(Pin::Changed)
        }
    }

    /// Makes the names below `folder` durable, and the way to it.
    fn sync(&self, folder: &Path) -> io::Result<()> {
        folder
            .ancestors()
            .take_while(|folder| folder.starts_with(&self.root))
            .try_for_each(|folder| File::open(folder)?.sync_all())
    }

    /// Makes a file that is written and synced an object, unless there is one.
    fn link(&self, file: &Path, path: &Path) -> io::Result<Created> {
        let created = name(file, path)?;
        // Also when somebody else was first: they may not have come this far yet.
        self.sync(path.parent().unwrap_or(&self.root))?;
        Ok(created)
    }

    /// Makes a file that is written the object of an upload, unless there is one.
    fn publish(&self, file: &File, path: &Path, key: StagingKey) -> io::Result<Option<Stat>> {
        file.sync_all()?;
        let object = self.path(key);
        let folder = object.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        match name(path, &object)? {
            Created::Existing { .. } => Ok(None),
            Created::Written => {
                let synced = self.sync(folder).and_then(|()| stat(&file.metadata()?));
                or_take_back(synced, &object).map(Some)
            }
        }
    }

    fn create_blocking(&self, key: ObjectKey, content: Source) -> io::Result<Outcome> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        make_folder(folder)?;
        if let Some(size) = existing(&path)?.map(|meta| meta.len()) {
            self.sync(folder)?;
            return Ok(Outcome::Created(Created::Existing { size }));
        }
        let mut file = NamedTempFile::new_in(folder)?;
        let actual = match content {
            Source::File(source) => copy(File::open(source)?, &mut file)?,
            Source::Bytes(bytes) => copy(bytes.as_slice(), &mut file)?,
        };
        if key.promised_hash().is_some_and(|hash| hash != actual) {
            return Ok(Outcome::WrongContent(actual));
        }
        file.as_file().sync_all()?;
        Ok(Outcome::Created(self.link(file.path(), &path)?))
    }

    fn remove_blocking(&self, key: ObjectKey) -> io::Result<()> {
        let path = self.path(key);
        ignore_missing(fs::remove_file(&path))?;
        let Some(folder) = path.parent().filter(|folder| folder.exists()) else {
            return Ok(());
        };
        self.sync(folder)?;
        // The folder of an upload is used once; in that of a bundle somebody may be about to write.
        if matches!(key, ObjectKey::Staging(_)) {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                done => ignore_missing(done)?,
            }
        }
        Ok(())
    }

    fn check_blocking(&self) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.root)?;
        file.write_all(b"check")?;
        file.as_file().sync_all()?;
        if fs::read(file.path())? != b"check" {
            return Err(io::Error::other("what was written is not what is read"));
        }
        file.close()
    }
}

#[async_trait]
impl BundleStore for LocalStore {
    async fn stat(&self, key: ObjectKey) -> Result<Option<Stat>, StoreError> {
        self.blocking(key, move |store| {
            existing(&store.path(key))?
                .map(|meta| stat(&meta))
                .transpose()
        })
        .await
    }

    async fn open(&self, key: ObjectKey) -> Result<StoredObject, StoreError> {
        let open = async {
            let file = tokio::fs::File::open(self.path(key)).await?;
            let stat = stat(&file.metadata().await?)?;
            Ok(StoredObject {
                body: Box::pin(file.take(stat.size)),
                stat,
            })
        };
        open.await.map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound { key },
            _ => classify(key, error),
        })
    }

    async fn create(&self, key: ObjectKey, content: Content<'_>) -> Result<Created, StoreError> {
        let content = Source::from(content);
        let create = move |store: &Self| store.create_blocking(key, content);
        match self.blocking(key, create).await? {
            Outcome::Created(created) => Ok(created),
            Outcome::WrongContent(actual) => Err(StoreError::WrongContent { key, actual }),
        }
    }

    async fn stage(
        &self,
        key: StagingKey,
        _content_type: &str,
        size: u64,
    ) -> Result<Box<dyn StagedUpload>, StoreError> {
        let begin = move |store: &Self| LocalUpload::begin(store.clone(), key, size);
        let upload = self.blocking(ObjectKey::from(key), begin).await?;
        Ok(Box::new(upload))
    }

    async fn begin_parts(
        &self,
        key: StagingKey,
        _content_type: &str,
    ) -> Result<PartedUpload, StoreError> {
        let begin = move |store: &Self| parts::begin(store, key);
        self.blocking(ObjectKey::from(key), begin).await?
    }

    async fn put_part(
        &self,
        upload: &PartedUpload,
        number: u32,
        bytes: Bytes,
    ) -> Result<ETag, StoreError> {
        let (key, upload) = (upload.object(), upload.clone());
        let put = move |store: &Self| parts::put(store, &upload, number, &bytes);
        self.blocking(key, put).await?
    }

    async fn join_parts(
        &self,
        upload: &PartedUpload,
        parts: &[ETag],
        size: u64,
    ) -> Result<Stat, StoreError> {
        let (key, upload, parts) = (upload.object(), upload.clone(), parts.to_owned());
        let join = move |store: &Self| parts::join(store, &upload, &parts, size);
        self.blocking(key, join).await?
    }

    async fn abort_parts(&self, upload: &PartedUpload) -> Result<(), StoreError> {
        let (key, upload) = (upload.object(), upload.clone());
        self.blocking(key, move |store| parts::abort(store, &upload))
            .await
    }

    async fn promote(&self, upload: &Verified) -> Result<Created, StoreError> {
        let target = ObjectKey::Bundle(upload.hash);
        let (verified, source) = (upload.clone(), ObjectKey::from(upload.key));
        let promoted = self.blocking(target, move |store| {
            let path = store.path(target);
            if let Some(meta) = existing(&path)? {
                store.sync(path.parent().unwrap_or(&store.root))?;
                return Ok(Ok(Created::Existing { size: meta.len() }));
            }
            Ok(match store.pin(&verified)? {
                Pin::Held(link) => Ok(store.link(&link, &path)?),
                missing => Err(missing),
            })
        });
        promoted.await?.map_err(|pin| pin.into_error(source))
    }

    async fn replace(&self, upload: &Verified) -> Result<(), StoreError> {
        let target = ObjectKey::Bundle(upload.hash);
        let (verified, source) = (upload.clone(), ObjectKey::from(upload.key));
        let replaced = self.blocking(target, move |store| {
            Ok(match store.pin(&verified)? {
                Pin::Held(link) => {
                    let path = store.path(target);
                    // Where the object is this very file already, nothing is renamed, and the link
                    // goes with its guard.
                    fs::rename(&link, &path)?;
                    store.sync(path.parent().unwrap_or(&store.root))?;
                    Ok(())
                }
                missing => Err(missing),
            })
        });
        replaced.await?.map_err(|pin| pin.into_error(source))
    }

    async fn remove(&self, key: ObjectKey) -> Result<(), StoreError> {
        self.blocking(key, move |store| store.remove_blocking(key))
            .await
    }

    async fn list(
        &self,
        listing: Listing,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let after = after.cloned();
        self.blocking(listing, move |store| {
            list::objects(&store.root, listing, after, limit)
        })
        .await
    }

    async fn unfinished(
        &self,
        before: SystemTime,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError> {
        self.blocking(Target::Unfinished, move |store| {
            list::unfinished(&store.root, before, limit)
        })
        .await
    }

    async fn abort_unfinished(&self, upload: &Unfinished) -> Result<(), StoreError> {
        let name = upload.name.clone();
        self.blocking(Target::Unfinished, move |store| {
            ignore_missing(fs::remove_file(store.root.join(name)))
        })
        .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        let checked = self
            .blocking(ObjectKey::Check(Uuid::nil()), Self::check_blocking)
            .await;
        checked.map_err(|error| match error {
            StoreError::Failed { target, source } => StoreError::failed(
                target,
                format!(
                    "the folder {} cannot be written and read ({source}): make it this user's, and the \
                     disk neither full nor read-only",
                    self.root.display()
                ),
            ),
            error => error,
        })
    }

    async fn settle(&self) {
        self.background.settle().await;
    }
}

/// [`Content`] on its way to another thread.
enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl From<Content<'_>> for Source {
    fn from(content: Content<'_>) -> Self {
        match content {
            Content::File(path) => Self::File(path.to_owned()),
            Content::Bytes(bytes) => Self::Bytes(bytes.to_owned()),
        }
    }
}

enum Outcome {
    Created(Created),
    WrongContent(ContentHash),
}

/// What became of a staged upload since it was verified.
enum Pin {
    /// It is as it was, and this leads to it.
    Held(TempPath),
    Changed,
    Gone,
}

impl Pin {
    fn into_error(self, key: ObjectKey) -> StoreError {
        match self {
            Self::Gone => StoreError::NotFound { key },
            Self::Held(_) | Self::Changed => StoreError::Changed { key },
        }
    }
}

/// The state of a file by where it lies and when it was last written, without reading it. A further link
/// to it changes neither.
fn stat(meta: &Metadata) -> io::Result<Stat> {
    let (device, inode, size) = (meta.dev(), meta.ino(), meta.len());
    let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
    Ok(Stat {
        size,
        etag: ETag::new(format!(
            "{device:x}-{inode:x}-{size:x}-{seconds:x}-{nanos:x}"
        )),
        modified: meta.modified()?,
    })
}

/// Gives a file a name, unless that is taken.
fn name(file: &Path, path: &Path) -> io::Result<Created> {
    // Unlike a rename, a link never replaces what is there: of several writers one is first.
    match fs::hard_link(file, path) {
        Ok(()) => Ok(Created::Written),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Existing {
            size: fs::metadata(path)?.len(),
        }),
        Err(error) => Err(error),
    }
}

/// What came of an object that has just got its name; the name goes again where that failed. For uploads alone, as
/// of another object somebody may have been told by then that it is there.
fn or_take_back<T>(outcome: io::Result<T>, object: &Path) -> io::Result<T> {
    if outcome.is_err() {
        // What can't be removed is among the staged uploads, and goes with the next sweep.
        let _ = fs::remove_file(object);
    }
    outcome
}

fn copy(mut source: impl Read, target: &mut impl Write) -> io::Result<ContentHash> {
    let mut hasher = ContentHasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let chunk = buffer.get(..read).unwrap_or_default();
        hasher.update(chunk);
        target.write_all(chunk)?;
    }
}

fn existing(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    // What an extension is made of is nobody else's business on a shared machine.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn classify(target: impl Into<Target>, error: io::Error) -> StoreError {
    use io::ErrorKind::{Interrupted, ResourceBusy, StaleNetworkFileHandle, TimedOut};
    match error.kind() {
        Interrupted | ResourceBusy | StaleNetworkFileHandle | TimedOut => {
            StoreError::unavailable(target, error)
        }
        _ => StoreError::failed(target, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_could_not_be_made_durable_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let object = folder.path().join("bundle.tar.zst");
        for (outcome, stays) in [(Ok(()), true), (Err(io::Error::other("no disk")), false)] {
            fs::write(&object, b"bundle").unwrap();
            assert_eq!(or_take_back(outcome, &object).is_ok(), stays);
            assert_eq!(object.exists(), stays);
        }
    }
}
