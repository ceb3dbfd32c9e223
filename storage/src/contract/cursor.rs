//! Cursors: where a page ended, in a form that only this system can make.
//!
//! A cursor holds the last key of a page and an HMAC-SHA256 (RFC 2104), cut to 16 bytes, over that
//! key and everything the listing is bound to. A guest can so neither read a place out of another
//! install's cursor by replaying it nor reach outside the range it asked for.

use alga_model::{InstallId, Secret, TenantId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::name::{Key, Namespace};
use super::range::KeyRange;
use crate::error::{Error, Violation};

/// The first byte of a cursor, raised when its form changes.
const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
/// The length of the longest cursor there is, in base64.
const MAX_CHARACTERS: usize = (1 + TAG_BYTES + Key::MAX_BYTES).div_ceil(3) * 4;

/// The keys that cursors are authenticated with.
///
/// While a key is being replaced, cursors made with the former one stay good.
#[derive(Debug, Clone)]
pub struct CursorKey {
    current: Secret<[u8; 32]>,
    former: Option<Secret<[u8; 32]>>,
}

/// What a cursor is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CursorScope<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) install: InstallId,
    pub(crate) namespace: &'a Namespace,
    pub(crate) range: &'a KeyRange,
    pub(crate) reverse: bool,
}

impl CursorKey {
    /// Makes cursors with `current`; accepts those of `former` as well.
    pub const fn new(current: Secret<[u8; 32]>, former: Option<Secret<[u8; 32]>>) -> Self {
        Self { current, former }
    }

    /// The cursor of a page that ended with `last`.
    pub(crate) fn seal(&self, scope: &CursorScope<'_>, last: &Key) -> String {
        let tag = authenticate(&self.current, scope, last.as_str())
            .finalize()
            .into_bytes();
        let mut bytes = vec![VERSION];
        bytes.extend(tag.iter().take(TAG_BYTES));
        bytes.extend(last.as_str().bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key at which the page ended.
    ///
    /// # Errors
    /// [`Error::ValidationFailed`] for anything that [`seal`](Self::seal) did not make for the same scope.
    pub(crate) fn open(&self, scope: &CursorScope<'_>, cursor: &str) -> Result<Key, Error> {
        self.verified(scope, cursor).ok_or_else(|| {
            Violation::argument(
                "cursor",
                "the cursor does not belong to this listing, or it was changed",
            )
        })
    }

    fn verified(&self, scope: &CursorScope<'_>, cursor: &str) -> Option<Key> {
        if cursor.len() > MAX_CHARACTERS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (&version, rest) = bytes.split_first()?;
        let (tag, last) = rest.split_at_checked(TAG_BYTES)?;
        let last = str::from_utf8(last).ok()?;
        let genuine = |key| {
            authenticate(key, scope, last)
                .verify_truncated_left(tag)
                .is_ok()
        };
        let known = genuine(&self.current) || self.former.as_ref().is_some_and(genuine);
        (version == VERSION && known).then(|| Key::from_stored(last.into()))
    }
}

/// Everything a cursor is bound to, each part behind its length so that no two scopes read alike.
fn authenticate(key: &Secret<[u8; 32]>, scope: &CursorScope<'_>, last: &str) -> Hmac<Sha256> {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.expose()).expect("HMAC takes a key of any length");
    let direction = [VERSION, u8::from(scope.reverse)];
    let parts: [&[u8]; 7] = [
        &direction,
        scope.tenant.as_bytes(),
        scope.install.as_bytes(),
        scope.namespace.as_str().as_bytes(),
        scope.range.lower().as_bytes(),
        scope.range.upper().as_bytes(),
        last.as_bytes(),
    ];
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> CursorKey {
        CursorKey::new(Secret::new([byte; 32]), None)
    }

    struct Listing {
        tenant: TenantId,
        install: InstallId,
        namespace: Namespace,
        range: KeyRange,
    }

    impl Listing {
        fn new() -> Self {
            Self {
                tenant: TenantId::generate(),
                install: InstallId::generate(),
                namespace: Namespace::parse("notes").unwrap(),
                range: KeyRange::parse(Some("a"), None, None).unwrap(),
            }
        }

        fn scope(&self) -> CursorScope<'_> {
            CursorScope {
                tenant: self.tenant,
                install: self.install,
                namespace: &self.namespace,
                range: &self.range,
                reverse: false,
            }
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_listing_alone() {
        let listing = Listing::new();
        let scope = listing.scope();
        let last = Key::parse("a7").unwrap();
        let cursor = key(1).seal(&scope, &last);
        assert_eq!(key(1).open(&scope, &cursor).unwrap(), last);

        let other = Listing::new();
        let other_namespace = Namespace::parse("cache").unwrap();
        let other_range = KeyRange::parse(Some("b"), None, None).unwrap();
        for foreign in [
            CursorScope {
                tenant: other.tenant,
                ..scope
            },
            CursorScope {
                install: other.install,
                ..scope
            },
            CursorScope {
                namespace: &other_namespace,
                ..scope
            },
            CursorScope {
                range: &other_range,
                ..scope
            },
            CursorScope {
                reverse: true,
                ..scope
            },
        ] {
            assert!(key(1).open(&foreign, &cursor).is_err(), "{foreign:?}");
        }
        assert!(key(2).open(&scope, &cursor).is_err());
    }

    #[test]
    fn cursors_of_the_former_key_stay_good() {
        let listing = Listing::new();
        let cursor = key(1).seal(&listing.scope(), &Key::parse("k").unwrap());
        let rotated = CursorKey::new(Secret::new([2; 32]), Some(Secret::new([1; 32])));
        assert!(rotated.open(&listing.scope(), &cursor).is_ok());
    }

    proptest! {
        #[test]
        fn a_changed_cursor_is_refused(position in any::<prop::sample::Index>(), bit in 0..8u8) {
            let listing = Listing::new();
            let cursor = key(1).seal(&listing.scope(), &Key::parse("some-key").unwrap());
            let mut bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
            let changed = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert!(key(1).open(&listing.scope(), &changed).is_err());
        }

        #[test]
        fn no_text_makes_it_panic_or_passes(text in any::<String>()) {
            prop_assert!(key(1).open(&Listing::new().scope(), &text).is_err());
        }
    }
}
