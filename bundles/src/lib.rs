//! Extension bundles: what is in them, whether it may be, and where they are kept.
//!
//! A bundle is one file, `bundle.tar.zst`, known for ever by the SHA-256 of its bytes. It is made
//! from a folder by [`pack`], looked at by [`inspect`], taken in by [`publish`] and brought to where
//! it runs by a [`BundleCache`]. All of them read it with the same [`walk`], so that they agree on
//! what is in it and refuse the same things.
//!
//! ```no_run
//! use std::sync::Arc;
//! use alga_bundles::{BundleCache, FetchOptions, Limits, LocalStore, pack};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let packed = pack("notes".as_ref(), "notes.tar.zst".as_ref(), &Limits::default())?;
//! println!("{} in {} bytes", packed.hash, packed.size);
//!
//! let store = Arc::new(LocalStore::open("store")?);
//! let cache = BundleCache::new("cache", store, FetchOptions::default())?;
//! let bundle = cache.get(packed.hash).await?;
//! println!("{} asks for {:?}", bundle.manifest().name, bundle.manifest().capabilities());
//! # Ok(())
//! # }
//! ```
//!
//! Whether a bundle is by whom it says is judged by [`SignatureRules`].
//!
//! The crate runs no component and knows no database: [`publish`] is handed a [`ComponentCheck`] and
//! a [`VersionRegistry`]. Machine code in a bundle is never looked at.

mod archive;
mod collect;
mod fetch;
mod incoming;
mod manifest;
mod pack;
mod path;
mod patience;
mod publish;
mod signature;
mod store;

pub use archive::{
    ArchiveError, Limits, Progress, Rejection, Sink, SinkError, Walk, Walked, ZSTD_MAGIC, walk,
};
pub use collect::{Inspection, inspect};
pub use fetch::{BundleCache, CachedBundle, CachedFile, FetchError, FetchOptions, Retry};
pub use manifest::{
    Api, Endpoint, InvalidManifest, Issue, Manifest, Parsed, Reference, Runtime, Ui, UiKind,
};
pub use pack::{PackError, pack};
pub use path::{BundlePath, BundlePathError};
pub use publish::{
    CapabilityCheck, CheckError, ComponentCheck, InvalidComponent, KnownHash, NewVersion,
    PublishContext, PublishError, PublishRequest, Published, PublishedExtension, PublishedVersion,
    RegisterError, RegisteredVersion, Source, VersionRegistry, publish,
};
pub use signature::{
    KeyId, ParsePublicKeyError, PublicKey, PublisherKeys, Signature, SignatureError,
    SignatureFault, SignaturePolicy, SignatureRules, Statement,
};
#[cfg(feature = "suite")]
pub use store::suite;
pub use store::{
    Body, BundleStore, Content, Created, Cursor, ETag, Listed, Listing, LocalStore, ObjectKey,
    PART_BYTES, Page, ParseKeyError, PartedUpload, S3Checksums, S3Settings, S3Store, StagedUpload,
    StagingKey, Stat, StoreError, StoredObject, Target, Unfinished, Verified,
};
