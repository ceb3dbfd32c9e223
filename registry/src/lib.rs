//! Which extensions there are, in which versions, and who has installed them.
//!
//! An [`Extension`] is a name that belongs to the publisher of its first [`Version`]; an
//! [`Install`] is one version set up for one tenant, with its settings, [`Grants`] and limits.
//! [`TenantSettings`] apply to all installs of a tenant, [`Switches`] to those of all tenants; both
//! can be changed at any time. Whatever changes any of this leaves an [`AuditRecord`].
//!
//! Beside that it keeps the answers to requests that are to be answered once, a [`KeyedRequest`]
//! each, and how far bundles have come that are being sent, a [`BundleUpload`] each.
//!
//! [`Registry`] is what every backend does and promises; [`SqliteRegistry`] keeps it in a SQLite
//! file or in memory, [`PostgresRegistry`] in PostgreSQL.
//!
//! ```
//! use alga_model::{Clock, ContentHash, SystemClock, TenantId};
//! use alga_registry::{Change, NewInstall, NewVersion, Registry, SqliteRegistry};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = SqliteRegistry::open(alga_sqlite::Options::memory()).await?;
//! let change = Change { actor: "admin", request_id: None, now: SystemClock::default().now() };
//!
//! let bundle = b"the bytes of a bundle";
//! let notes = NewVersion {
//!     name: "com.example.notes".parse()?,
//!     publisher: "Example Inc.".to_owned(),
//!     version: "1.0.0".to_owned(),
//!     content_hash: ContentHash::of(bundle),
//!     manifest: "{}".to_owned(),
//!     size: bundle.len() as u64,
//! };
//! let registered = registry.register_version(&notes, change).await?;
//!
//! let new = NewInstall::new(TenantId::generate(), registered.version.id);
//! let install = registry.create_install(&new, change).await?;
//! assert_eq!(registry.install(install.id).await?, Some(install));
//! # Ok(())
//! # }
//! ```
//!
//! The crate knows no capability, no HTTP and no bundle format: a manifest, a grant and a limit are
//! JSON that others understand. Time is a parameter of every mutation.

mod audit;
mod bounds;
mod change;
mod config;
mod error;
mod extension;
mod grant;
mod idempotency;
mod install;
mod json;
mod limits;
mod listener;
mod page;
mod postgres;
mod registry;
mod rows;
mod sqlite;
#[cfg(feature = "suite")]
pub mod suite;
mod switches;
mod tenant;
mod upload;
mod version;

pub use audit::{
    AuditAction, AuditFilter, AuditOrder, AuditRecord, MAX_AUDIT_REMOVAL, ParseAuditActionError,
};
pub use change::Change;
pub use config::Config;
pub use error::{RegistryError, Resource};
pub use extension::{Extension, ExtensionKey};
pub use grant::Grants;
pub use idempotency::{
    AnswerQuota, AnswerQuotas, Claim, Claimed, IdempotencyKey, KeptAnswer, KeyedRequest, Known,
    MAX_ANSWER_BYTES, MAX_ANSWERS_REMOVAL, ParseIdempotencyKeyError,
};
pub use install::{
    FormerVersion, Install, InstallEdit, InstallFilter, InstallState, MAX_CONCURRENCY, NewInstall,
};
pub use listener::{Changed, Listener};
pub use page::{MAX_PAGE_ITEMS, Page, PageRequest};
pub use postgres::PostgresRegistry;
pub use registry::{Registry, RegistryDatabase};
pub use sqlite::SqliteRegistry;
pub use switches::{Switches, SwitchesEdit};
pub use tenant::{TenantEdit, TenantSettings};
pub use upload::{
    BundleUpload, MAX_UPLOADS_REMOVAL, NewBundleUpload, UploadEnd, UploadProgress, UploadState,
};
pub use version::{NewVersion, Registered, Version, VersionKey, VersionSummary};
