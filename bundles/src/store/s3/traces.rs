//! What an upload may have left in a bucket.

use std::time::Duration;

use tokio::time::sleep;

use super::super::{ObjectKey, StoreError};
use super::bucket::{Bucket, Mark};
use super::error::Refusal;

/// How often what an upload left is cleaned up, with pauses that double.
const CLEAN_UPS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(200);

/// What an upload may have left in a bucket.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// An upload in parts.
    pub(super) upload: Option<String>,
    /// The object that bears this mark, as nobody can tell whether the last request was carried out.
    pub(super) object: Option<Mark>,
}

impl Traces {
    /// Removes them; tried for some seconds, as a server that has just failed may be back soon. One that doesn't
    /// answer at all holds it up for a minute or two.
    pub(super) async fn clean_up(&self, bucket: &Bucket, key: ObjectKey) -> Result<(), StoreError> {
        if self.upload.is_none() && self.object.is_none() {
            return Ok(());
        }
        let (bucket, mut attempt) = (bucket.hasty(), 1);
        loop {
            let Err(refusal) = self.clean_up_once(&bucket, key).await else {
                return Ok(());
            };
            if attempt == CLEAN_UPS {
                let error = refusal.to_string();
                tracing::warn!(%key, error, "an upload that failed stays until the next sweep");
                return Err(refusal.into_error(key));
            }
            pause(attempt).await;
            attempt += 1;
        }
    }

    async fn clean_up_once(&self, bucket: &Bucket, key: ObjectKey) -> Result<(), Refusal> {
        let name = key.to_string();
        if let Some(upload) = &self.upload {
            bucket.abort(&name, upload).await?;
        }
        if let Some(mark) = &self.object
            && let Some(found) = bucket.look(key).await?
            && found.bears(mark)
        {
            bucket.delete(key).await?;
        }
        Ok(())
    }
}

/// Waits before the next attempt.
pub(super) async fn pause(attempt: u32) {
    sleep(PAUSE * 2_u32.saturating_pow(attempt - 1)).await;
}
