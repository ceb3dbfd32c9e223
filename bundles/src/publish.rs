//! Taking a bundle in: checked, stored under its hash, registered.
//!
//! Every step can be repeated. A crash between two of them leaves at worst an object that the next
//! attempt finds and uses, so that publishing again repairs whatever was left.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alga_model::{ContentHash, ExtensionName};
use async_trait::async_trait;
use semver::Version;
use serde::Serialize;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::archive::{ArchiveError, Limits, Progress, Walk};
use crate::collect::{Collected, Found, collect, collect_from};
use crate::incoming::incoming;
use crate::manifest::{InvalidManifest, Issue, Issues, Manifest, Parsed};
use crate::path::BundlePath;
use crate::patience::unless_stalled;
use crate::signature::{SignatureFault, SignatureRules, Statement};
use crate::store::{
    BundleStore, Content, Created, ETag, ObjectKey, StagingKey, Stat, StoreError, StoredObject,
    Verified,
};

/// Judges the component of a bundle; whoever runs components implements it.
#[async_trait]
pub trait ComponentCheck: Send + Sync {
    /// Whether the file `entry` of the bundle `hash` is a component that can be run here. A good time to
    /// compile it.
    ///
    /// The hash alone doesn't tell which file that is: for a bundle without a manifest the one beside it does,
    /// and nobody has decided for that one yet.
    async fn check(
        &self,
        hash: ContentHash,
        entry: &BundlePath,
        component: Vec<u8>,
    ) -> Result<(), CheckError>;
}

/// Why a component was not found good.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It can't be run.
    #[error(transparent)]
    Invalid(#[from] InvalidComponent),
    /// Nobody could judge it; says nothing about the bundle.
    #[error("cannot check the component")]
    Unavailable {
        /// What is behind it.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// A component that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the component is invalid: {message}")]
pub struct InvalidComponent {
    /// What is wrong, such as which import is missing.
    pub message: String,
}

/// Knows which versions there are, and decides between racing publishers.
#[async_trait]
pub trait VersionRegistry: Send + Sync {
    /// Registers a version. Doing so again with equal values gives the same ids.
    async fn register(&self, version: NewVersion) -> Result<RegisteredVersion, RegisterError>;

    /// Fails where the content is registered with another manifest at this moment, so that nothing is done
    /// for what [`register`](Self::register) would refuse.
    async fn ensure_manifest(
        &self,
        content: ContentHash,
        manifest_json: &str,
    ) -> Result<(), RegisterError>;
}

/// A version to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVersion {
    /// The name of the extension.
    pub name: ExtensionName,
    /// Who publishes it.
    pub publisher: String,
    /// Its version.
    pub version: Version,
    /// The bundle.
    pub content_hash: ContentHash,
    /// The manifest, as its author wrote it.
    pub manifest_json: String,
    /// The bytes of the bundle.
    pub size: u64,
    /// Who did it, for the audit.
    pub actor: String,
    /// The request it was done in, for the audit.
    pub request_id: Option<String>,
}

/// Where a version is found in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisteredVersion {
    /// The extension.
    pub extension_id: Uuid,
    /// The version of it.
    pub version_id: Uuid,
}

/// Why a version was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name belongs to another publisher.
    #[error("the name belongs to another publisher")]
    PublisherMismatch,
    /// The version is there with other content.
    #[error(
        "this version is already there with other content, {existing}; raise the version in manifest.json"
    )]
    DuplicateVersion {
        /// The content it has.
        existing: ContentHash,
    },
    /// The content is there with another manifest.
    #[error("this content is already there with another manifest")]
    ManifestConflict,
    /// The registry cannot be asked now.
    #[error("the registry is unavailable")]
    Unavailable {
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Finds what is wrong with the capabilities that a manifest asks for; each one's own crate knows.
pub type CapabilityCheck = dyn Fn(&Manifest) -> Vec<Issue> + Send + Sync;

/// What publishing works with.
#[derive(Clone, Copy)]
pub struct PublishContext<'a> {
    /// Where the bundle is kept.
    pub store: &'a dyn BundleStore,
    /// Judges its component.
    pub component_check: &'a dyn ComponentCheck,
    /// Where its version is registered.
    pub registry: &'a dyn VersionRegistry,
    /// Judges what it asks for; its findings are issues of the manifest.
    pub capability_check: &'a CapabilityCheck,
    /// Judges its signature.
    pub signatures: &'a SignatureRules,
    /// How large it may be.
    pub limits: &'a Limits,
    /// Who publishes, for the audit.
    pub actor: &'a str,
    /// The request in which that happens, if there is one, for the audit.
    pub request_id: Option<&'a str>,
}

/// Where a bundle to be published is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// In a file.
    File(&'a Path),
    /// In the store, as an upload that nobody has accepted yet. Publishing leaves it there.
    Staged(StagingKey),
    /// In the store, published already: what is left to do is done, and the answer is the same again.
    Published(ContentHash),
}

/// What is to be published.
pub struct PublishRequest<'a> {
    /// The bundle.
    pub source: Source<'a>,
    /// The hash it must have, if the sender named one.
    pub declared_hash: Option<ContentHash>,
    /// The hash that a staged upload was found to have, if it need not be computed again.
    pub known_hash: Option<KnownHash>,
    /// The manifest of a bundle that has none.
    pub manifest_json: Option<Vec<u8>>,
    /// The signature of its [`Statement`], as minisign writes one into a file.
    pub signature: Option<Vec<u8>>,
    /// Who wants to see progress.
    pub progress: Option<Arc<Progress<'static>>>,
    /// How long a store may take to answer, or to send anything more of the bundle, until it counts as
    /// unavailable; 30 s unless set.
    pub stall: Duration,
}

impl<'a> PublishRequest<'a> {
    /// Publishes `file` by its own manifest, whatever its hash is.
    pub fn new(file: &'a Path) -> Self {
        Self::of(Source::File(file))
    }

    /// Publishes a bundle by its own manifest, whatever its hash is.
    pub fn of(source: Source<'a>) -> Self {
        Self {
            source,
            declared_hash: None,
            known_hash: None,
            manifest_json: None,
            signature: None,
            progress: None,
            stall: Duration::from_secs(30),
        }
    }
}

/// The hash of a staged upload, by whoever hashed its bytes on their way into the store.
///
/// Trusted as long as the upload is in the very state it was in then: its bytes are read and judged all the same,
/// but not hashed. In any other state they are, as if nothing were known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHash {
    /// The hash.
    pub hash: ContentHash,
    /// The state of the upload that has it.
    pub etag: ETag,
    /// The bytes of that.
    pub size: u64,
}

impl KnownHash {
    fn is_of(&self, stat: &Stat) -> bool {
        self.etag == stat.etag && self.size == stat.size
    }
}

/// A version that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// The extension.
    pub extension: PublishedExtension,
    /// The version of it.
    pub version: PublishedVersion,
    /// The bundle.
    pub content_hash: ContentHash,
    /// Where the store keeps it.
    pub canonical_key: String,
    /// What the author should look at.
    pub warnings: Vec<Issue>,
}

/// An extension in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedExtension {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: ExtensionName,
    /// Whom the name belongs to.
    pub publisher: String,
}

/// A version in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedVersion {
    /// Its id.
    pub id: Uuid,
    /// The version.
    pub version: Version,
}

/// Why a bundle was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The archive is damaged, refused, too large, not the one that was declared, or unreadable.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There is no manifest, neither in the archive nor beside it.
    #[error("the bundle has no manifest.json and none was sent beside it")]
    ManifestRequired,
    /// The manifest is wrong, or names files that the bundle lacks.
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    /// It is not signed as it must be.
    #[error(transparent)]
    Signature(#[from] SignatureFault),
    /// The component cannot be run.
    #[error(transparent)]
    Component(#[from] InvalidComponent),
    /// The component could not be judged.
    #[error("cannot check the component")]
    Check(#[source] Box<dyn Error + Send + Sync>),
    /// The store failed, or the file changed before it was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has an object under this key that cannot be the same.
    #[error("{key} is there with {size} bytes instead of {expected}")]
    StoreDamaged {
        /// The object.
        key: ObjectKey,
        /// What it has.
        size: u64,
        /// What it should have.
        expected: u64,
    },
    /// The content was published with another manifest.
    #[error("this content is already there with another manifest")]
    ManifestConflict,
    /// The registry refuses the version, or cannot be asked.
    #[error(transparent)]
    Registry(RegisterError),
    /// The check was interrupted from inside; says nothing about the bundle.
    #[error("cannot finish checking the bundle")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl PublishError {
    /// The code that the HTTP interface gives for it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Archive(error) => match error {
                ArchiveError::Damaged(_) | ArchiveError::NotZstd => "BAD_ARCHIVE",
                ArchiveError::Rejected { .. } => "ARCHIVE_REJECTED",
                ArchiveError::TooLarge { .. } => "TOO_LARGE",
                ArchiveError::HashMismatch { .. } => "HASH_MISMATCH",
                ArchiveError::Read(_) | ArchiveError::Write { .. } => "INTERNAL_ERROR",
            },
            Self::ManifestRequired => "MANIFEST_REQUIRED",
            Self::Manifest(_) => "INVALID_MANIFEST",
            Self::Signature(fault) => fault.code(),
            Self::Component(_) => "INVALID_COMPONENT",
            Self::Check(_) => "COMPILER_UNAVAILABLE",
            Self::Store(StoreError::WrongContent { .. } | StoreError::Changed { .. }) => {
                "HASH_MISMATCH"
            }
            Self::Store(StoreError::NotFound {
                key: ObjectKey::Staging(_),
            }) => "STAGING_NOT_FOUND",
            Self::Store(StoreError::Unavailable { .. }) => "STORE_UNAVAILABLE",
            Self::Store(
                StoreError::NotFound { .. }
                | StoreError::Exists { .. }
                | StoreError::TooLarge { .. }
                | StoreError::WrongSize { .. }
                | StoreError::Failed { .. },
            )
            | Self::StoreDamaged { .. } => "STORE_FAILED",
            Self::ManifestConflict => "MANIFEST_CONFLICT",
            Self::Registry(error) => match error {
                RegisterError::PublisherMismatch => "PUBLISHER_MISMATCH",
                RegisterError::DuplicateVersion { .. } => "DUPLICATE_VERSION",
                RegisterError::ManifestConflict => "MANIFEST_CONFLICT",
                RegisterError::Unavailable { .. } => "REGISTRY_UNAVAILABLE",
            },
            Self::Interrupted(_) => "INTERNAL_ERROR",
        }
    }
}

impl From<CheckError> for PublishError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Invalid(invalid) => Self::Component(invalid),
            CheckError::Unavailable { source } => Self::Check(source),
        }
    }
}

impl From<RegisterError> for PublishError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::ManifestConflict => Self::ManifestConflict,
            RegisterError::PublisherMismatch
            | RegisterError::DuplicateVersion { .. }
            | RegisterError::Unavailable { .. } => Self::Registry(error),
        }
    }
}

/// Publishes a bundle: checks it, stores it under its hash and registers its version.
///
/// Nothing is stored before everything was checked. Publishing the same bundle again succeeds with
/// the same answer, also after a failure or a crash half-way. A stored object of another size than its
/// name promises is replaced where the bytes come from a staged upload, and an error where they don't.
pub async fn publish(
    request: PublishRequest<'_>,
    context: PublishContext<'_>,
) -> Result<Published, PublishError> {
    let PublishRequest {
        source,
        declared_hash,
        known_hash,
        manifest_json,
        signature,
        progress,
        stall,
    } = request;
    let reading = Reading {
        expected: declared_hash,
        known: known_hash,
        limits: context.limits,
        progress,
        stall,
    };
    let (collected, checked) = reading.read(source, context.store).await?;
    let Collected {
        walked,
        files,
        manifest,
        components,
    } = collected;

    let Chosen {
        manifest,
        mut warnings,
        bytes,
        is_beside,
    } = choose_manifest(manifest, manifest_json)?;
    let mut issues = Issues::default();
    issues.extend(manifest.missing_files(|file| files.contains_key(file)));
    issues.extend((context.capability_check)(&manifest));
    issues.into_result()?;
    // Before the component: what nobody vouches for is not compiled.
    let statement = Statement::new(walked.hash, is_beside.then_some(&bytes));
    let publisher = &manifest.publisher;
    let rules = context.signatures;
    warnings.extend(rules.check(publisher, &statement, signature.as_deref())?);
    let manifest_json = String::from_utf8_lossy(&bytes).into_owned();
    let is_free = context
        .registry
        .ensure_manifest(walked.hash, &manifest_json);
    is_free.await?;
    let component = take_component(components, manifest.entry())?;
    context
        .component_check
        .check(walked.hash, manifest.entry(), component)
        .await?;

    let bundle = ObjectKey::Bundle(walked.hash);
    checked
        .store(context.store, walked.hash, walked.size)
        .await?;
    let registered = context.registry.register(NewVersion {
        name: manifest.name.clone(),
        publisher: manifest.publisher.clone(),
        version: manifest.version.clone(),
        content_hash: walked.hash,
        manifest_json,
        size: walked.size,
        actor: context.actor.to_owned(),
        request_id: context.request_id.map(str::to_owned),
    });
    let RegisteredVersion {
        extension_id,
        version_id,
    } = registered.await?;
    // An object that was there may have been collected as garbage until now, when somebody needs it.
    if context.store.stat(bundle).await?.is_none() {
        checked
            .store(context.store, walked.hash, walked.size)
            .await?;
    }
    store_manifest(context, walked.hash, &bytes).await?;
    Ok(Published {
        extension: PublishedExtension {
            id: extension_id,
            name: manifest.name,
            publisher: manifest.publisher,
        },
        version: PublishedVersion {
            id: version_id,
            version: manifest.version,
        },
        content_hash: walked.hash,
        canonical_key: bundle.to_string(),
        warnings,
    })
}

/// How a bundle is read.
struct Reading<'a> {
    expected: Option<ContentHash>,
    /// Counts for a staged upload alone.
    known: Option<KnownHash>,
    limits: &'a Limits,
    progress: Option<Arc<Progress<'static>>>,
    stall: Duration,
}

/// Bytes that were found good, where they can be had again.
enum Checked<'a> {
    File(&'a Path),
    Staged(StagingKey, ETag),
    Published,
}

impl Reading<'_> {
    async fn read<'a>(
        self,
        source: Source<'a>,
        store: &dyn BundleStore,
    ) -> Result<(Collected, Checked<'a>), PublishError> {
        match source {
            Source::File(file) => Ok((self.read_file(file).await?, Checked::File(file))),
            Source::Staged(key) => {
                let object = self.open(key.into(), store).await?;
                let etag = object.stat.etag.clone();
                let known = self
                    .known
                    .as_ref()
                    .filter(|known| known.is_of(&object.stat));
                let known = known.map(|known| known.hash);
                let collected = self.read_object(key.into(), object, known).await?;
                Ok((collected, Checked::Staged(key, etag)))
            }
            Source::Published(hash) => {
                Ok((self.read_published(hash, store).await?, Checked::Published))
            }
        }
    }

    async fn open(
        &self,
        key: ObjectKey,
        store: &dyn BundleStore,
    ) -> Result<StoredObject, StoreError> {
        unless_stalled(self.stall, key, store.open(key)).await
    }

    async fn read_file(self, file: &Path) -> Result<Collected, PublishError> {
        let Self {
            expected,
            limits,
            progress,
            ..
        } = self;
        let (file, limits) = (file.to_owned(), limits.clone());
        let collected =
            spawn_blocking(move || collect(&file, expected, &limits, progress.as_deref())).await;
        Ok(collected.map_err(PublishError::Interrupted)??)
    }

    async fn read_published(
        self,
        hash: ContentHash,
        store: &dyn BundleStore,
    ) -> Result<Collected, PublishError> {
        let (key, declared) = (ObjectKey::Bundle(hash), self.expected);
        if let Some(declared) = declared.filter(|declared| *declared != hash) {
            return Err(PublishError::Archive(ArchiveError::HashMismatch {
                expected: declared,
                actual: hash,
            }));
        }
        let reading = Self {
            expected: Some(hash),
            ..self
        };
        let object = reading.open(key, store).await?;
        let read = reading.read_object(key, object, None).await;
        read.map_err(|error| match error {
            // Nobody sent these bytes: they are the store's.
            PublishError::Archive(error @ ArchiveError::HashMismatch { .. }) => {
                PublishError::Store(StoreError::failed(key, error))
            }
            error => error,
        })
    }

    /// One pass over an object as it comes in, of which no more than a few chunks are ever held.
    async fn read_object(
        self,
        key: ObjectKey,
        object: StoredObject,
        known: Option<ContentHash>,
    ) -> Result<Collected, PublishError> {
        let Self {
            expected,
            limits,
            progress,
            stall,
            ..
        } = self;
        let (limits, size) = (limits.clone(), object.stat.size);
        let (pump, incoming) = incoming(key, object, stall);
        let collecting = spawn_blocking(move || {
            let walk = Walk {
                size,
                expected,
                limits: &limits,
                progress: progress.as_deref(),
            };
            collect_from(incoming, walk, known)
        });
        let pumped = pump.run().await;
        let collected = collecting.await.map_err(PublishError::Interrupted)?;
        // The store's failure is why the reader failed.
        pumped?;
        Ok(collected?)
    }
}

impl Checked<'_> {
    /// Has these bytes in the store under their hash. The key is the hash: an object of this size is the
    /// same bytes.
    async fn store(
        &self,
        store: &dyn BundleStore,
        hash: ContentHash,
        expected: u64,
    ) -> Result<(), PublishError> {
        let key = ObjectKey::Bundle(hash);
        let created = match self {
            Self::File(file) => store.create(key, Content::File(file)).await?,
            Self::Staged(upload, etag) => {
                let verified = Verified {
                    key: *upload,
                    etag: etag.clone(),
                    hash,
                    size: expected,
                };
                return promote(store, &verified).await;
            }
            Self::Published => match store.stat(key).await? {
                Some(stat) => Created::Existing { size: stat.size },
                None => return Err(StoreError::NotFound { key }.into()),
            },
        };
        match created {
            Created::Existing { size } if size != expected => Err(PublishError::StoreDamaged {
                key,
                size,
                expected,
            }),
            Created::Existing { .. } | Created::Written => Ok(()),
        }
    }
}

async fn promote(store: &dyn BundleStore, upload: &Verified) -> Result<(), PublishError> {
    match store.promote(upload).await {
        // What is there can't be the bundle, and these bytes are.
        Ok(Created::Existing { size }) if size != upload.size => {
            tracing::warn!(
                bundle.hash = %upload.hash,
                size,
                expected = upload.size,
                "a damaged bundle in the store is replaced"
            );
            Ok(store.replace(upload).await?)
        }
        Ok(Created::Existing { .. } | Created::Written) => Ok(()),
        // Whoever published the same upload meanwhile has removed it.
        Err(error @ StoreError::NotFound { .. }) => {
            let there = store.stat(ObjectKey::Bundle(upload.hash)).await?;
            if there.is_some_and(|stat| stat.size == upload.size) {
                Ok(())
            } else {
                Err(error.into())
            }
        }
        Err(error) => Err(error.into()),
    }
}

struct Chosen {
    manifest: Manifest,
    warnings: Vec<Issue>,
    bytes: Vec<u8>,
    is_beside: bool,
}

/// The manifest in the archive counts; the one beside it only where there is none.
fn choose_manifest(inside: Option<Found>, beside: Option<Vec<u8>>) -> Result<Chosen, PublishError> {
    let ignored = inside
        .as_ref()
        .zip(beside.as_ref())
        .is_some_and(|(inside, beside)| inside.bytes != *beside);
    let is_beside = inside.is_none();
    let Found { bytes, parsed } = match (inside, beside) {
        (Some(found), _) => found,
        (None, Some(bytes)) => Found {
            parsed: Manifest::parse(&bytes),
            bytes,
        },
        (None, None) => return Err(PublishError::ManifestRequired),
    };
    let Parsed {
        manifest,
        mut warnings,
    } = parsed?;
    if ignored {
        let message =
            "the bundle has a manifest of its own, the other one sent beside it was not used";
        warnings.push(Issue {
            path: String::new(),
            message: message.to_owned(),
        });
    }
    Ok(Chosen {
        manifest,
        warnings,
        bytes,
        is_beside,
    })
}

fn take_component(
    mut components: BTreeMap<BundlePath, Vec<u8>>,
    entry: &BundlePath,
) -> Result<Vec<u8>, InvalidComponent> {
    components.remove(entry).ok_or_else(|| InvalidComponent {
        message: format!("{entry} is not a WebAssembly binary"),
    })
}

/// Puts the copy of the manifest that was registered beside the bundle.
///
/// The registry has decided by now, so whatever else lies there is no copy of anything: it is damaged, or was
/// left by a version that is removed.
async fn store_manifest(
    PublishContext {
        store, registry, ..
    }: PublishContext<'_>,
    hash: ContentHash,
    bytes: &[u8],
) -> Result<(), PublishError> {
    let key = ObjectKey::Manifest(hash);
    let content = Content::Bytes(bytes);
    if matches!(store.create(key, content).await?, Created::Written) {
        return Ok(());
    }
    match store.read(key, Manifest::MAX_BYTES as u64).await {
        Ok(existing) if existing == bytes => return Ok(()),
        Ok(_) | Err(StoreError::TooLarge { .. } | StoreError::NotFound { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Unless this version was removed in its turn, and the copy is that of the next one.
    let manifest_json = String::from_utf8_lossy(bytes);
    registry.ensure_manifest(hash, &manifest_json).await?;
    tracing::warn!(
        bundle = %hash,
        "the copy of a manifest in the store is not the one that is registered, and is replaced"
    );
    store.remove(key).await?;
    store.create(key, content).await?;
    Ok(())
}
