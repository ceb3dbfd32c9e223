//! An upload into the folder.

use std::io;

use alga_model::ErrorChain;
use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::super::{ObjectKey, StagedUpload, StagingKey, Stat, StoreError};
use super::{LocalStore, UNFINISHED, classify, ignore_missing, make_folder};

/// A file beside the uploads, whose name goes when this is dropped.
#[derive(Debug)]
pub(super) struct LocalUpload {
    store: LocalStore,
    key: StagingKey,
    size: u64,
    written: u64,
    file: tokio::fs::File,
    path: TempPath,
    /// A write is under way or has failed.
    is_broken: bool,
}

impl LocalUpload {
    pub(super) fn begin(store: LocalStore, key: StagingKey, size: u64) -> io::Result<Self> {
        let folder = store.staging();
        make_folder(&folder)?;
        let name = format!("{UNFINISHED}-{}-", key.id());
        let file = tempfile::Builder::new().prefix(&name).tempfile_in(folder)?;
        let (file, path) = file.into_parts();
        Ok(Self {
            store,
            key,
            size,
            written: 0,
            file: tokio::fs::File::from_std(file),
            path,
            is_broken: false,
        })
    }

    /// The upload that the name of a file tells of.
    pub(super) fn key_of(file: &str) -> Option<StagingKey> {
        let name = file.strip_prefix(UNFINISHED)?.strip_prefix('-')?;
        let (id, _) = name.rsplit_once('-')?;
        Some(StagingKey::new(id.parse().ok()?))
    }

    fn key(&self) -> ObjectKey {
        self.key.into()
    }

    fn wrong_size(&self, actual: u64) -> StoreError {
        StoreError::WrongSize {
            key: self.key(),
            expected: self.size,
            actual,
        }
    }

    async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await?;
        // Tokio reports the failure of a write only at the next one.
        self.file.flush().await
    }
}

#[async_trait]
impl StagedUpload for LocalUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        let written = self.written + bytes.len() as u64;
        if self.is_broken {
            return Err(StoreError::failed(self.key(), Broken));
        }
        self.is_broken = true;
        if written > self.size {
            return Err(self.wrong_size(written));
        }
        let appended = self.append(&bytes).await;
        appended.map_err(|error| classify(self.key(), error))?;
        self.written = written;
        self.is_broken = false;
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Stat, StoreError> {
        let key = self.key();
        if self.is_broken {
            return Err(StoreError::failed(key, Broken));
        }
        if self.written != self.size {
            return Err(self.wrong_size(self.written));
        }
        let (told, finished) = oneshot::channel();
        let busy = self.store.background.busy();
        // Goes on when the caller goes away, and then takes back what it did.
        tokio::spawn(async move {
            publish_for(self, told).await;
            drop(busy);
        });
        match finished.await {
            Ok(Ok((stat, receipt))) => {
                // Nothing can come between this and the end of the call.
                receipt.send(()).ok();
                Ok(stat)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StoreError::failed(key, Broken)),
        }
    }

    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        let key = self.key();
        let path = self.path;
        let removed = spawn_blocking(move || ignore_missing(path.close())).await;
        removed
            .map_err(io::Error::from)
            .flatten()
            .map_err(|error| classify(key, error))
    }
}

/// What an upload came to, and what whoever takes it sends back.
type Outcome = Result<(Stat, oneshot::Sender<()>), StoreError>;

/// Makes an upload visible, and removes it again unless somebody takes that.
async fn publish_for(upload: Box<LocalUpload>, told: oneshot::Sender<Outcome>) {
    let (store, key) = (upload.store.clone(), upload.key());
    let stat = match publish(upload).await {
        Ok(stat) => stat,
        Err(error) => return drop(told.send(Err(error))),
    };
    let (receipt, taken) = oneshot::channel();
    let is_taken = told.send(Ok((stat, receipt))).is_ok() && taken.await.is_ok();
    if !is_taken && let Err(error) = super::BundleStore::remove(&store, key).await {
        let error = ErrorChain(&error);
        tracing::warn!(%key, %error, "cannot remove an upload that nobody waits for");
    }
}

async fn publish(upload: Box<LocalUpload>) -> Result<Stat, StoreError> {
    let key = upload.key();
    let file = upload
        .file
        .try_clone()
        .await
        .map_err(|error| classify(key, error))?
        .into_std()
        .await;
    let publish = move || upload.store.publish(&file, &upload.path, upload.key);
    let published = spawn_blocking(publish).await;
    published
        .map_err(io::Error::from)
        .flatten()
        .map_err(|error| classify(key, error))?
        .ok_or(StoreError::Exists { key })
}

/// Why an upload cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("an earlier write of this upload failed or was given up")]
struct Broken;
