//! What objects are called.

use std::fmt;
use std::str::FromStr;

use alga_model::ContentHash;
use uuid::Uuid;

/// The name of an object, spelled as in the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    /// A published bundle.
    Bundle(ContentHash),
    /// The copy of its manifest beside it.
    Manifest(ContentHash),
    /// Its component, compiled.
    Compiled {
        /// The bundle.
        bundle: ContentHash,
        /// What the machine code is good for: engine, settings and processor, as one digest.
        compatibility: ContentHash,
    },
    /// An upload that nobody has accepted yet.
    Staging(StagingKey),
    /// What [`check`](super::BundleStore::check) writes and removes.
    Check(Uuid),
    /// Says whose the store is.
    Owner,
}

/// The name of an upload that nobody has accepted yet: `sha256/_staging/<uuid>/bundle.tar.zst`.
///
/// Parsed from what a client sends, so only the one spelling that [`Display`](fmt::Display) gives is
/// accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StagingKey(Uuid);

/// A text that is not an [`ObjectKey`], or not a [`StagingKey`] where one was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not the key of {expected}")]
pub struct ParseKeyError {
    expected: &'static str,
}

impl ObjectKey {
    /// The hash the object's bytes must have, where its name promises one.
    pub const fn promised_hash(&self) -> Option<ContentHash> {
        match self {
            Self::Bundle(hash) => Some(*hash),
            Self::Manifest(_)
            | Self::Compiled { .. }
            | Self::Staging(_)
            | Self::Check(_)
            | Self::Owner => None,
        }
    }
}

impl StagingKey {
    /// The key of the upload `id`.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The upload it is the key of.
    pub const fn id(&self) -> Uuid {
        self.0
    }
}

impl From<StagingKey> for ObjectKey {
    fn from(key: StagingKey) -> Self {
        Self::Staging(key)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle(hash) => write!(f, "sha256/{}/bundle.tar.zst", hash.to_hex()),
            Self::Manifest(hash) => write!(f, "sha256/{}/manifest.json", hash.to_hex()),
            Self::Compiled {
                bundle,
                compatibility,
            } => write!(
                f,
                "compiled/{}/{}.cwasm",
                bundle.to_hex(),
                compatibility.to_hex()
            ),
            Self::Staging(key) => key.fmt(f),
            Self::Check(id) => write!(f, "sha256/_check/{id}"),
            Self::Owner => f.write_str("sha256/_owner"),
        }
    }
}

impl fmt::Display for StagingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/_staging/{}/bundle.tar.zst", self.0)
    }
}

impl FromStr for ObjectKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = |text: &str| text.parse::<ContentHash>().ok();
        let id = |text: &str| Uuid::try_parse(text).ok();
        let parts: Vec<&str> = text.splitn(5, '/').collect();
        let key = match parts.as_slice() {
            ["sha256", "_staging", name, "bundle.tar.zst"] => {
                id(name).map(|id| Self::Staging(StagingKey(id)))
            }
            ["sha256", "_check", name] => id(name).map(Self::Check),
            ["sha256", "_owner"] => Some(Self::Owner),
            ["sha256", name, "bundle.tar.zst"] => hash(name).map(Self::Bundle),
            ["sha256", name, "manifest.json"] => hash(name).map(Self::Manifest),
            ["compiled", bundle, file] => {
                let compatibility = file.strip_suffix(".cwasm").and_then(hash);
                hash(bundle)
                    .zip(compatibility)
                    .map(|(bundle, compatibility)| Self::Compiled {
                        bundle,
                        compatibility,
                    })
            }
            _ => None,
        };
        // Ids and hashes have other spellings too, which would make two names of one object.
        key.filter(|key| key.to_string() == text)
            .ok_or(ParseKeyError {
                expected: "an object of the bundle store",
            })
    }
}

impl FromStr for StagingKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(ObjectKey::Staging(key)) => Ok(key),
            _ => Err(ParseKeyError {
                expected: "a staged upload",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b9a8c3e-5a1f-4c6d-9e2b-7f3a1d5c8e90";

    #[test]
    fn every_key_parses_back_from_its_spelling() {
        let hash = ContentHash::of(b"bundle");
        let id = ID.parse().unwrap();
        for key in [
            ObjectKey::Bundle(hash),
            ObjectKey::Manifest(hash),
            ObjectKey::Compiled {
                bundle: hash,
                compatibility: ContentHash::of(b"engine"),
            },
            ObjectKey::Staging(StagingKey::new(id)),
            ObjectKey::Check(id),
            ObjectKey::Owner,
        ] {
            assert_eq!(key.to_string().parse(), Ok(key), "{key}");
        }
    }

    #[test]
    fn a_staging_key_has_one_spelling() {
        let key = format!("sha256/_staging/{ID}/bundle.tar.zst");
        assert_eq!(
            key.parse::<StagingKey>().unwrap().id().to_string(),
            ID,
            "{key}"
        );
        let id = ID.parse::<Uuid>().unwrap();
        let hex = ContentHash::of(b"bundle").to_hex();
        for other in [
            String::new(),
            ID.to_owned(),
            format!("/{key}"),
            format!("{key}/"),
            format!("{key}\0"),
            format!("{key}/../bundle.tar.zst"),
            format!(" {key}"),
            format!("sha256//_staging/{ID}/bundle.tar.zst"),
            format!("sha256/_staging/../_staging/{ID}/bundle.tar.zst"),
            format!("sha256/_staging/{ID}/manifest.json"),
            format!("sha256/_staging/{}/bundle.tar.zst", ID.to_uppercase()),
            format!("sha256/_staging/{}/bundle.tar.zst", id.simple()),
            format!("sha256/_staging/{}/bundle.tar.zst", id.braced()),
            format!("sha256/_staging/{}/bundle.tar.zst", id.urn()),
            format!("sha256/_staging/{hex}/bundle.tar.zst"),
            format!("sha256/%5fstaging/{ID}/bundle.tar.zst"),
            format!("sha256/{hex}/bundle.tar.zst"),
            format!("sha256/_check/{ID}"),
        ] {
            assert!(other.parse::<StagingKey>().is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_canonical_key_has_one_spelling() {
        let hex = ContentHash::of(b"bundle").to_hex();
        for other in [
            format!("sha256/sha256:{hex}/bundle.tar.zst"),
            format!("sha256/{}/bundle.tar.zst", hex.to_uppercase()),
            format!("sha256/{hex}/"),
            format!("sha256/{hex}/bundle.tar.zst/more"),
            format!("compiled/{hex}/{hex}"),
            format!("compiled/{hex}/sha256:{hex}.cwasm"),
        ] {
            assert!(other.parse::<ObjectKey>().is_err(), "{other:?}");
        }
    }
}
