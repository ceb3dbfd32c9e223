//! A folder as a store.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use alga_model::{ContentHash, ContentHasher};
use async_trait::async_trait;
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt;
use tokio::task::spawn_blocking;

use super::{BundleStore, Content, Created, ObjectKey, StoreError, StoredObject};

/// Keeps objects as files in a folder, under the keys a bucket would have.
///
/// Several processes may share the folder. A process that dies while it writes may leave a file
/// `.tmp…` behind, which nobody ever reads.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: PathBuf,
}

impl LocalStore {
    /// Uses `root`, and makes it when it isn't there.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        make_folder(&root)?;
        if let Some(parent) = root.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self { root })
    }

    fn path(&self, key: ObjectKey) -> PathBuf {
        self.root.join(key.to_string())
    }
}

#[async_trait]
impl BundleStore for LocalStore {
    async fn size(&self, key: ObjectKey) -> Result<Option<u64>, StoreError> {
        match tokio::fs::metadata(self.path(key)).await {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(classify(key, error)),
        }
    }

    async fn open(&self, key: ObjectKey) -> Result<StoredObject, StoreError> {
        let open = async {
            let file = tokio::fs::File::open(self.path(key)).await?;
            let size = file.metadata().await?.len();
            Ok(StoredObject {
                size,
                body: Box::pin(file.take(size)),
            })
        };
        open.await.map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound { key },
            _ => classify(key, error),
        })
    }

    async fn create(&self, key: ObjectKey, content: Content<'_>) -> Result<Created, StoreError> {
        let (root, path) = (self.root.clone(), self.path(key));
        let content = Source::from(content);
        let created =
            spawn_blocking(move || create(&root, &path, content, key.promised_hash())).await;
        match created.map_err(io::Error::from).flatten() {
            Ok(Outcome::Created(created)) => Ok(created),
            Ok(Outcome::WrongContent(actual)) => Err(StoreError::WrongContent { key, actual }),
            Err(error) => Err(classify(key, error)),
        }
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

fn create(
    root: &Path,
    path: &Path,
    content: Source,
    promised: Option<ContentHash>,
) -> io::Result<Outcome> {
    let folder = path.parent().unwrap_or(root);
    make_folder(folder)?;
    let created = if let Some(size) = size_of(path)? {
        Created::Existing { size }
    } else {
        let mut file = NamedTempFile::new_in(folder)?;
        let actual = match content {
            Source::File(source) => copy(File::open(source)?, &mut file)?,
            Source::Bytes(bytes) => copy(bytes.as_slice(), &mut file)?,
        };
        if promised.is_some_and(|promised| promised != actual) {
            return Ok(Outcome::WrongContent(actual));
        }
        file.as_file().sync_all()?;
        // Unlike a rename, a link never replaces what is there: of several writers one is first.
        match fs::hard_link(file.path(), path) {
            Ok(()) => Created::Written,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Created::Existing {
                size: fs::metadata(path)?.len(),
            },
            Err(error) => return Err(error),
        }
    };
    // Also when somebody else was first: they may not have come this far yet.
    for folder in folder
        .ancestors()
        .take_while(|folder| folder.starts_with(root))
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(Outcome::Created(created))
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

fn size_of(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    // What an extension is made of is nobody else's business on a shared machine.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn classify(key: ObjectKey, error: io::Error) -> StoreError {
    use io::ErrorKind::{Interrupted, ResourceBusy, StaleNetworkFileHandle, TimedOut};
    match error.kind() {
        Interrupted | ResourceBusy | StaleNetworkFileHandle | TimedOut => {
            StoreError::unavailable(key, error)
        }
        _ => StoreError::Failed {
            key,
            source: Box::new(error),
        },
    }
}
