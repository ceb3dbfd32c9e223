//! Pages of a listing that can't skip or repeat.

use crate::bounds::ensure;
use crate::error::RegistryError;

/// Which part of a listing is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest<K> {
    /// The [`Page::next`] of the page before; `None` for the first one.
    pub after: Option<K>,
    /// The most items wanted, 1 to [`MAX_PAGE_ITEMS`].
    pub limit: u32,
}

/// The most items of one page. Bounds what one listing can make the process hold.
pub const MAX_PAGE_ITEMS: u32 = 200;

impl<K> PageRequest<K> {
    /// The first page.
    pub const fn first(limit: u32) -> Self {
        Self { after: None, limit }
    }

    /// The page that follows the item with `key`.
    pub const fn after(key: K, limit: u32) -> Self {
        Self {
            after: Some(key),
            limit,
        }
    }

    /// What a backend fetches: one item more than asked for, which tells whether there is a next page.
    pub(crate) fn lookahead(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        ensure(
            (1..=MAX_PAGE_ITEMS).contains(&self.limit),
            "limit",
            "1 to 200",
        )
    }
}

/// One part of a listing.
///
/// Items are in the order of a key that never changes, so going from page to page skips and
/// repeats nothing that was there all the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, K> {
    /// The items, at most as many as asked for.
    pub items: Vec<T>,
    /// Where the next page starts; `None` when this is the last one.
    pub next: Option<K>,
}

impl<T, K> Page<T, K> {
    /// Makes a page of `found`, which was asked for one item more than `limit`.
    pub(crate) fn from_lookahead(mut found: Vec<T>, limit: u32, key: impl Fn(&T) -> K) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = if has_more {
            found.last().map(key)
        } else {
            None
        };
        Self { items: found, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_next_one_only_when_something_is_left() {
        let page = |found: Vec<u8>| Page::from_lookahead(found, 2, |item| *item);
        assert_eq!(
            page(vec![]),
            Page {
                items: vec![],
                next: None
            }
        );
        assert_eq!(
            page(vec![1, 2]),
            Page {
                items: vec![1, 2],
                next: None
            }
        );
        assert_eq!(
            page(vec![1, 2, 3]),
            Page {
                items: vec![1, 2],
                next: Some(2)
            }
        );
    }
}
