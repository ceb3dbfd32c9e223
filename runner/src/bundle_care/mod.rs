//! Looking after the store of bundles: uploads that nobody publishes, objects that no version needs, and
//! objects that are not what they should be.

mod damage;
mod garbage;
mod owner;
mod sweep;
#[cfg(test)]
mod unsteady;

use std::time::{Duration, SystemTime};

use alga_bundles::{BundleStore, Cursor, Listed, Listing, Page, StoreError};
use alga_model::Timestamp;
use alga_registry::RegistryError;

pub use self::damage::{Damage, Finding, Search, VersionName, repair};
pub use self::garbage::{Garbage, garbage, remove_garbage};
pub use self::owner::{ANOTHERS, Owner};
pub use self::sweep::{SweptUploads, sweep_uploads};

/// Why a store could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum CareError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// How long an upload may stay that nobody publishes.
pub const UPLOADS_KEPT: Duration = Duration::from_hours(24);

/// The most objects that are asked for at once.
const PAGE: usize = 1_000;

/// The time so long before `now`.
pub fn earlier(now: Timestamp, by: Duration) -> SystemTime {
    let now = u64::try_from(now.as_millis()).unwrap_or_default();
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now);
    now.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The objects of a list, page by page.
struct Pages<'a> {
    store: &'a dyn BundleStore,
    listing: Listing,
    after: Option<Cursor>,
    was_last: bool,
}

impl<'a> Pages<'a> {
    const fn of(store: &'a dyn BundleStore, listing: Listing) -> Self {
        Self {
            store,
            listing,
            after: None,
            was_last: false,
        }
    }

    /// The next objects; none after the last page.
    async fn next(&mut self) -> Result<Option<Vec<Listed>>, StoreError> {
        if self.was_last {
            return Ok(None);
        }
        let page = self.store.list(self.listing, self.after.as_ref(), PAGE);
        let Page { objects, next } = page.await?;
        self.was_last = next.is_none();
        self.after = next;
        Ok(Some(objects))
    }
}
