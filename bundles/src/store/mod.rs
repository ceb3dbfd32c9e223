//! Where bundles are kept: objects that are written once and then never change.
//!
//! An upload is staged under a name of its own, read and judged there, and then promoted to the name
//! that is its hash. Stores differ in which conditions they honour, so nothing rests on one: the only
//! writer of a canonical object has verified the bytes, and writing the same bytes twice is harmless.

mod background;
mod error;
mod key;
mod local;
mod object;
mod parts;
mod s3;
#[cfg(feature = "suite")]
pub mod suite;

use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt;

pub use error::{StoreError, Target};
pub use key::{ObjectKey, ParseKeyError, StagingKey};
pub use local::LocalStore;
pub use object::{
    Body, Content, Created, Cursor, ETag, Listed, Listing, Page, Stat, StoredObject, Unfinished,
    Verified,
};
pub use parts::{PART_BYTES, PartedUpload};
pub use s3::{S3Checksums, S3Settings, S3Store};

/// A store of bundles.
///
/// An object is visible whole or not at all, and durable when the call that wrote it returns. Nothing
/// changes one that is visible, except [`replace`](Self::replace) and [`remove`](Self::remove). Every
/// implementation passes the functions of the `suite` module.
#[async_trait]
pub trait BundleStore: fmt::Debug + Send + Sync + 'static {
    /// What is known of an object, or `None` when there is no such object.
    async fn stat(&self, key: ObjectKey) -> Result<Option<Stat>, StoreError>;

    /// Opens an object for reading from its start.
    ///
    /// The bytes are as the store has them: whoever needs them unharmed checks their hash.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when there is no such object.
    async fn open(&self, key: ObjectKey) -> Result<StoredObject, StoreError>;

    /// Writes an object unless it is there. Durable when it returns, by whichever call it was written.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongContent`] when the key promises a hash that `content` does not have, or
    /// has no more since it was checked; nothing is visible then.
    async fn create(&self, key: ObjectKey, content: Content<'_>) -> Result<Created, StoreError>;

    /// Begins an upload of exactly `size` bytes. Nothing is visible before it is finished.
    ///
    /// Whoever calls gives each upload a key of its own. Of several under one key none takes another's bytes for
    /// its own or removes them, and who comes second is told so; but of two that are finished in the same
    /// moment, the later one may replace the other in a bucket.
    ///
    /// What is no content type of a header is taken for `application/octet-stream`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`], here or when it is finished, where the key is taken.
    async fn stage(
        &self,
        key: StagingKey,
        content_type: &str,
        size: u64,
    ) -> Result<Box<dyn StagedUpload>, StoreError>;

    /// Begins an upload whose parts come in calls of their own, from any process, for as long as no sweep removes
    /// it. Nothing is visible before the parts are joined.
    ///
    /// It is among the [`unfinished`](Self::unfinished) until then, also one whose beginning nobody waited for.
    /// What is no content type of a header is taken for `application/octet-stream`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] where the key is taken.
    async fn begin_parts(
        &self,
        key: StagingKey,
        content_type: &str,
    ) -> Result<PartedUpload, StoreError>;

    /// Writes a part of 1 to [`PART_BYTES`] bytes, durable when it returns, and tells what it is joined by.
    ///
    /// Parts are numbered from 1 to 10 000; one lies at `(number - 1) * PART_BYTES`, so that all but the last
    /// are full. They may come in any order. A number that is written again is replaced, and is neither the
    /// one nor the other after a failure: the part is to be written once more then.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] when the upload was joined, given up or swept; [`StoreError::Failed`] for a
    /// number or a length that no part has.
    async fn put_part(
        &self,
        upload: &PartedUpload,
        number: u32,
        bytes: Bytes,
    ) -> Result<ETag, StoreError>;

    /// Makes the object visible, of exactly the parts told, in order. Durable when it returns.
    ///
    /// It can be repeated, whatever became of the call before: an upload that is joined already is told as it is
    /// when the object has `size` bytes.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongSize`] when the parts have other than `size` bytes together,
    /// [`StoreError::Changed`] when one is not the one told or there are others, [`StoreError::Failed`] when there
    /// is none or one before the last is not full, [`StoreError::Exists`] when the key was taken meanwhile: the
    /// upload goes on then. [`StoreError::NotFound`] when it was given up or swept.
    async fn join_parts(
        &self,
        upload: &PartedUpload,
        parts: &[ETag],
        size: u64,
    ) -> Result<Stat, StoreError>;

    /// Gives such an upload up. One that is gone is given up already, and what it was joined to stays.
    async fn abort_parts(&self, upload: &PartedUpload) -> Result<(), StoreError>;

    /// Publishes a staged upload under its hash unless that is there. The upload stays.
    ///
    /// An object that is there with another size is left alone too, and told by that size.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] when the upload is not in the state that was verified,
    /// [`StoreError::NotFound`] when it is gone; nothing is published then.
    async fn promote(&self, upload: &Verified) -> Result<Created, StoreError>;

    /// Publishes a staged upload under its hash, over whatever is there: mends a damaged object.
    ///
    /// # Errors
    ///
    /// As for [`promote`](Self::promote); the object is as it was then.
    async fn replace(&self, upload: &Verified) -> Result<(), StoreError>;

    /// Removes an object. One that is missing is removed already.
    async fn remove(&self, key: ObjectKey) -> Result<(), StoreError>;

    /// Up to `limit` objects that follow `after`, at most as many as the store gives at once. What
    /// has no name of a bundle store is left out.
    async fn list(
        &self,
        listing: Listing,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Up to `limit` uploads that began before `before` and are neither finished nor aborted, whichever
    /// process began them. One that is still being written may be among them.
    async fn unfinished(
        &self,
        before: SystemTime,
        limit: usize,
    ) -> Result<Vec<Unfinished>, StoreError>;

    /// Aborts such an upload. One that is gone is aborted already.
    async fn abort_unfinished(&self, upload: &Unfinished) -> Result<(), StoreError>;

    /// Writes, reads and removes a small object, so that a store that is out of reach or refuses is
    /// known before it is needed. Its error tells an operator what to do.
    async fn check(&self) -> Result<(), StoreError>;

    /// Waits until nothing goes on in the background: no upload, and no removal of what one left. To be
    /// waited for, with some patience, before the process ends.
    async fn settle(&self) {}

    /// Reads a whole object of at most `limit` bytes.
    async fn read(&self, key: ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        let StoredObject { stat, body } = self.open(key).await?;
        let size = stat.size;
        if size > limit {
            return Err(StoreError::TooLarge { key, size, limit });
        }
        let mut bytes = Vec::new();
        match body.take(size).read_to_end(&mut bytes).await {
            Ok(_) if bytes.len() as u64 == size => Ok(bytes),
            Ok(_) => Err(StoreError::cut_off(key)),
            Err(error) => Err(StoreError::unavailable(key, error)),
        }
    }
}

/// An upload on its way into a store.
///
/// It holds a few parts in memory, whatever its size. One that fails, or is dropped before
/// [`finish`](Self::finish) has returned, is aborted in the background, for which
/// [`BundleStore::settle`] waits: no object stays, and no part of one. Where that fails too, the upload is left
/// to be found by [`BundleStore::unfinished`] or in the list of staged uploads.
#[async_trait]
pub trait StagedUpload: fmt::Debug + Send {
    /// Takes the next bytes; waits while the store is slower than the writer.
    ///
    /// After an error, or when the call itself was dropped, the upload cannot be finished any more.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongSize`] at the first byte too many.
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the object visible. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::WrongSize`] when bytes are missing, [`StoreError::Exists`] when the key was taken
    /// meanwhile. Whatever the error, nothing of this upload stays.
    async fn finish(self: Box<Self>) -> Result<Stat, StoreError>;

    /// Gives the upload up, and returns when nothing of it is left. A failure is told after some seconds,
    /// and removing goes on in the background.
    async fn abort(self: Box<Self>) -> Result<(), StoreError>;
}
