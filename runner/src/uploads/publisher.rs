//! Makes an upload that was received a version.

use std::sync::Arc;
use std::time::Duration;

use alga_bundles::{
    ArchiveError, BundleStore, ETag, KnownHash, Limits, PublishContext, PublishError,
    PublishRequest, Published, SignatureRules, Source, StagingKey, StoreError, publish,
};
use alga_model::{ContentHash, ErrorChain, Timestamp};
use alga_registry::{BundleUpload, RegistryError, UploadEnd, UploadState, VersionKey};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::fault::report;
use super::intake::UploadError;
use super::measure::{FINALIZED, Measure};
use super::recording::Recorder;
use super::resumable::{complete, expires_at, is_to_be_joined};
use crate::app::Extensions;
use crate::publishing::{EngineCheck, Versions, add_capability_warnings, capability_issues};

/// How long one waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Publishes uploads.
#[derive(Debug)]
pub struct Publisher {
    store: Arc<dyn BundleStore>,
    recorder: Recorder,
    extensions: Arc<Extensions>,
    versions: Versions,
    rules: PublishRules,
    places: Semaphore,
}

/// How uploads are published.
#[derive(Debug, Clone)]
pub struct PublishRules {
    /// Who must have signed them.
    pub signatures: SignatureRules,
    /// How many are judged at once. Each keeps a component in memory while it is compiled.
    pub at_once: usize,
    /// How long a store may give nothing before it counts as unavailable.
    pub stall: Duration,
    /// Whether a hash counts that was computed while an upload came, and noted with the state of its object.
    pub trust_stream_hash: bool,
}

/// What is to be published, and what its sender says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalize {
    /// The upload.
    pub key: StagingKey,
    /// The bytes it must have.
    pub size: Option<u64>,
    /// The hash it must have. With it, an upload that was published before gets the same answer again.
    pub declared_hash: Option<ContentHash>,
    /// The manifest of a bundle that has none.
    pub manifest_json: Option<String>,
    /// The signature of the publisher, as minisign writes it.
    pub signature: Option<String>,
}

/// Who publishes it, for the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publishing<'a> {
    /// Who the audit says it was.
    pub actor: &'a str,
    /// The request, if there is one.
    pub request_id: Option<&'a str>,
}

/// Why an upload was not published.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeError {
    /// It is not as large as its sender says.
    #[error("the upload has {actual} bytes, not {declared}")]
    Size {
        /// What the sender says.
        declared: u64,
        /// What it has.
        actual: u64,
    },
    /// It is larger than a bundle may be.
    #[error("the upload has {actual} bytes, a bundle has {limit} at most")]
    TooLarge {
        /// What it has.
        actual: u64,
        /// What a bundle may have.
        limit: u64,
    },
    /// There is no such upload, or not all of it.
    #[error("{0}")]
    Absent(Absence),
    /// Too many are being published.
    #[error("too many uploads are being published")]
    Busy,
    /// It can't be published, or something failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The registry failed.
    #[error("cannot use the registry")]
    Registry(#[from] RegistryError),
}

/// What is known of an upload that is not there to be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    /// A part of it is there, and somebody may go on with it.
    #[error(
        "the upload is not complete: {received} of its {size} bytes are there; go on with it at byte {received}"
    )]
    Incomplete {
        /// The bytes that are there.
        received: u64,
        /// The bytes it has.
        size: u64,
    },
    /// It is being received in a single request.
    #[error(
        "the upload is being received: {received} of its {size} bytes came; publish it when all did"
    )]
    Receiving {
        /// The bytes that came.
        received: u64,
        /// The bytes it has.
        size: u64,
    },
    /// It is a version.
    #[error(
        "the upload is published already; name its `declaredHash` to get the same answer again"
    )]
    Published {
        /// The hash of its bytes, where they were hashed while they came.
        hash: Option<ContentHash>,
    },
    /// It became a version, and none has the hash that its sender declares.
    #[error(
        "the upload is published already, and no version has the declared hash: it was another one, or its version \
         was removed; send it again to publish it again"
    )]
    PublishedOtherwise,
    /// It was not received, or can't be gone on with any more.
    #[error("the upload failed with {code}; send it again")]
    Failed {
        /// The code of the error.
        code: String,
    },
    /// Somebody gave it up.
    #[error("the upload was given up; send it again")]
    Aborted,
    /// It was never there, or was removed.
    #[error(
        "there is no such upload: it was never sent, or was removed as nobody published it for a day; send it again"
    )]
    Unknown,
}

impl Absence {
    /// What is known of `upload`, if anything is, of which there is no object to be published.
    fn of(upload: Option<BundleUpload>, declared: Option<ContentHash>, now: Timestamp) -> Self {
        let Some(upload) = upload else {
            return Self::Unknown;
        };
        let is_resumable = upload.store_upload.is_some();
        let BundleUpload { received, size, .. } = upload;
        match upload.state {
            // It is removed at any moment.
            UploadState::Receiving if is_resumable && now >= expires_at(&upload) => Self::Unknown,
            UploadState::Receiving if is_resumable => Self::Incomplete { received, size },
            UploadState::Receiving => Self::Receiving { received, size },
            UploadState::Published if declared.is_some() => Self::PublishedOtherwise,
            UploadState::Published => Self::Published { hash: upload.hash },
            UploadState::Failed => Self::Failed {
                code: upload.code.unwrap_or_default(),
            },
            UploadState::Aborted => Self::Aborted,
            // The store has lost it, or a sweep has removed it.
            UploadState::Staged => Self::Unknown,
        }
    }

    /// What became of the upload, as [`UploadState`] calls it; none where nothing is known.
    pub const fn state(&self) -> Option<UploadState> {
        match self {
            Self::Incomplete { .. } | Self::Receiving { .. } => Some(UploadState::Receiving),
            Self::Published { .. } | Self::PublishedOtherwise => Some(UploadState::Published),
            Self::Failed { .. } => Some(UploadState::Failed),
            Self::Aborted => Some(UploadState::Aborted),
            Self::Unknown => None,
        }
    }
}

impl FinalizeError {
    /// What programs branch on.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Size { .. }
            | Self::TooLarge { .. }
            | Self::Publish(PublishError::Archive(ArchiveError::TooLarge { .. })) => "BAD_REQUEST",
            Self::Absent(_) => "STAGING_NOT_FOUND",
            Self::Busy => "OVERLOADED",
            Self::Publish(error) => error.code(),
            Self::Registry(_) => "REGISTRY_UNAVAILABLE",
        }
    }
}

impl From<StoreError> for FinalizeError {
    fn from(error: StoreError) -> Self {
        Self::Publish(error.into())
    }
}

impl Publisher {
    /// Publishes uploads in `store`, whose components `extensions` will run, where `rules` let them.
    pub fn new(
        store: Arc<dyn BundleStore>,
        recorder: Recorder,
        extensions: Arc<Extensions>,
        versions: Versions,
        rules: PublishRules,
    ) -> Self {
        Self {
            store,
            recorder,
            extensions,
            versions,
            places: Semaphore::new(rules.at_once),
            rules,
        }
    }

    /// Judges an upload, publishes it, and removes it from the staging area.
    ///
    /// Doing so again repairs whatever a crash or a failure left, and gives the same answer; once the
    /// upload is gone, to a sender who declares its hash. An upload that is refused stays, so that it
    /// can be published with what was missing.
    pub async fn finalize(
        &self,
        request: Finalize,
        by: Publishing<'_>,
    ) -> Result<Published, FinalizeError> {
        let actor = by.actor;
        let mut measure = Measure::begin(&FINALIZED);
        let key = request.key;
        tracing::debug!(actor, upload.key = %key, "an upload is to be published");
        let published = self.finalize_measured(request, by, &mut measure).await;
        measure.end(published.as_ref().err().map(FinalizeError::code));
        match &published {
            Ok(published) => tracing::info!(
                actor,
                upload.key = %key,
                bundle = %published.content_hash,
                extension.id = %published.extension.name,
                extension.version = %published.version.version,
                duration_ms = u64::try_from(measure.elapsed().as_millis()).unwrap_or(u64::MAX),
                "an upload is published"
            ),
            Err(error) => report(error, actor, key),
        }
        published
    }

    fn of<'a>(&self, request: Finalize, source: Source<'a>) -> PublishRequest<'a> {
        PublishRequest {
            stall: self.rules.stall,
            ..request.of(source)
        }
    }

    async fn finalize_measured(
        &self,
        request: Finalize,
        by: Publishing<'_>,
        measure: &mut Measure,
    ) -> Result<Published, FinalizeError> {
        let key = request.key;
        let _place = self.place().await?;
        let upload = self.known(&request).await?;
        let request = Finalize {
            declared_hash: request.declared_hash.or(declared(upload.as_ref())),
            ..request
        };
        let source = self.source(&request, measure).await?;
        let known_hash = self.known_hash(upload.as_ref());
        let context = PublishContext {
            store: &*self.store,
            component_check: &EngineCheck(self.extensions.executor.engine()),
            registry: &self.versions,
            capability_check: &capability_issues,
            signatures: &self.rules.signatures,
            limits: &Limits::default(),
            actor: by.actor,
            request_id: by.request_id,
        };
        let again = request.clone();
        let first = PublishRequest {
            known_hash,
            ..self.of(request, source)
        };
        let published = match publish(first, context).await {
            // Somebody else published it, and was done with it, since it was looked for.
            Err(PublishError::Store(StoreError::NotFound { key: gone })) if gone == key.into() => {
                let source = self.published(&again).await?;
                publish(self.of(again, source), context).await
            }
            published => published,
        };
        let mut published = published?;
        self.recorder.end(key, UploadEnd::Published).await;
        add_capability_warnings(&mut published, &*self.versions.registry).await?;
        if let Err(error) = self.store.remove(key.into()).await {
            tracing::warn!(
                upload.key = %key,
                error = %ErrorChain(&error),
                "cannot remove an upload that is published; a sweep does"
            );
        }
        Ok(published)
    }

    async fn place(&self) -> Result<SemaphorePermit<'_>, FinalizeError> {
        let place = timeout(LONGEST_WAIT, self.places.acquire()).await;
        let place = place.map_err(|_| FinalizeError::Busy)?;
        Ok(place.expect("the semaphore is never closed"))
    }

    /// What is noted of an upload. One in several requests, all of which is there, is staged now.
    async fn known(&self, request: &Finalize) -> Result<Option<BundleUpload>, FinalizeError> {
        let key = request.key;
        let Some(found) = self.recorder.find(key.id()).await? else {
            return Ok(None);
        };
        if !is_to_be_joined(&found) {
            return Ok(Some(found));
        }
        match complete(&*self.store, &self.recorder, found).await {
            Ok(completed) => Ok(Some(completed)),
            Err(UploadError::Registry(error)) => Err(error.into()),
            Err(UploadError::Store(error)) => Err(error.into()),
            // It is gone, whatever made it so.
            Err(_) => Err(self.absent(request).await?),
        }
    }

    /// What to say of an upload that is not there.
    async fn absent(&self, request: &Finalize) -> Result<FinalizeError, RegistryError> {
        let upload = self.recorder.find(request.key.id()).await?;
        let now = self.recorder.now();
        let absence = Absence::of(upload, request.declared_hash, now);
        Ok(FinalizeError::Absent(absence))
    }

    /// The hash that was computed while an upload came, for the state of its object that was noted with it.
    fn known_hash(&self, upload: Option<&BundleUpload>) -> Option<KnownHash> {
        let upload = upload.filter(|_| self.rules.trust_stream_hash)?;
        let is_staged = upload.state == UploadState::Staged;
        let (hash, etag) = upload.hash.zip(upload.etag.as_deref())?;
        is_staged.then(|| KnownHash {
            hash,
            etag: ETag::new(etag),
            size: upload.size,
        })
    }

    /// Where the bytes are, as far as can be told without reading them.
    async fn source(
        &self,
        request: &Finalize,
        measure: &mut Measure,
    ) -> Result<Source<'static>, FinalizeError> {
        let Some(stat) = self.store.stat(request.key.into()).await? else {
            return self.published(request).await;
        };
        let actual = stat.size;
        measure.bytes(actual);
        let limit = Limits::default().compressed_bytes;
        match request.size {
            Some(declared) if declared != actual => Err(FinalizeError::Size { declared, actual }),
            _ if actual > limit => Err(FinalizeError::TooLarge { actual, limit }),
            _ => Ok(Source::Staged(request.key)),
        }
    }

    /// What an upload that is gone was published as, if its sender knows that.
    async fn published(&self, request: &Finalize) -> Result<Source<'static>, FinalizeError> {
        let Some(hash) = request.declared_hash else {
            return Err(self.absent(request).await?);
        };
        let registered = VersionKey::Content(hash);
        let registered = self.versions.registry.version(&registered).await?;
        let Some(actual) = registered.map(|version| version.size) else {
            return Err(self.absent(request).await?);
        };
        match request.size {
            Some(declared) if declared != actual => Err(FinalizeError::Size { declared, actual }),
            _ => Ok(Source::Published(hash)),
        }
    }
}

/// The hash that an upload in several requests must have, as its sender said when it began. One in a single
/// request was compared with it then.
fn declared(upload: Option<&BundleUpload>) -> Option<ContentHash> {
    let upload = upload.filter(|upload| upload.store_upload.is_some())?;
    upload.declared_hash
}

impl Finalize {
    fn of(self, source: Source<'_>) -> PublishRequest<'_> {
        PublishRequest {
            declared_hash: self.declared_hash,
            manifest_json: self.manifest_json.map(String::into_bytes),
            signature: self.signature.map(String::into_bytes),
            ..PublishRequest::of(source)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use alga_bundles::{Limits, ObjectKey, SignaturePolicy, pack};
    use alga_registry::NewBundleUpload;
    use bytes::Bytes;
    use futures_util::poll;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::app::App;
    use crate::config::Config;

    #[tokio::test]
    async fn so_many_are_judged_at_once_as_the_setting_says() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.dir = folder.path().join("data");
        config.bundles.finalizes_at_once = 3;
        let app = App::build(&config).await.unwrap();
        let publisher = &app.admin.uploads.as_ref().unwrap().publisher;
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(publisher.place().await.unwrap());
        }
        let mut next = pin!(publisher.place());
        assert!(poll!(&mut next).is_pending());
        places.pop();
        assert!(next.await.is_ok());
    }

    /// A bundle that is good but for its component, which is looked at last.
    fn bundle() -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::create_dir_all(source.join("dist")).unwrap();
        let manifest = json!({
            "name": "com.example.notes",
            "publisher": "Tests",
            "version": "1.0.0",
            "runtime": "wasm-component@1",
            "capabilities": {},
        });
        std::fs::write(source.join("manifest.json"), manifest.to_string()).unwrap();
        std::fs::write(source.join("dist/main.wasm"), "none").unwrap();
        let file = folder.path().join("bundle.tar.zst");
        pack(&source, &file, &Limits::default()).unwrap();
        std::fs::read(file).unwrap()
    }

    /// What is said of an upload that is noted with another hash than it has, by a sender who declares that
    /// one. Whoever believes it goes on to ask for a signature.
    async fn said_of_a_lie(trust_stream_hash: bool, noted_etag: Option<&str>) -> &'static str {
        const KEY: &str = "RWSkttj8n8NzstI4NSitL4HcItTPed+8BS7pcLY1vr8ylixhMg1C5i9d";
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.dir = folder.path().join("data");
        config.bundles.trust_stream_hash = trust_stream_hash;
        config.bundles.signature_policy = SignaturePolicy::Require;
        let keys = vec![KEY.parse().unwrap()];
        config.bundles.publishers.insert("Tests".to_owned(), keys);
        let app = App::build(&config).await.unwrap();
        let (bytes, key) = (bundle(), StagingKey::new(Uuid::from_u128(7)));
        let size = bytes.len() as u64;
        let mut upload = app.stores.bundles.stage(key, "", size).await.unwrap();
        upload.write(Bytes::from(bytes)).await.unwrap();
        let etag = upload.finish().await.unwrap().etag;
        let lie = ContentHash::of(b"other");
        let new = NewBundleUpload {
            id: key.id(),
            actor: "admin".to_owned(),
            filename: "a".to_owned(),
            content_type: String::new(),
            size,
            declared_hash: None,
            store_upload: None,
        };
        let (registry, now) = (&app.stores.registry, app.stores.clock.now());
        assert!(registry.begin_upload(&new, now).await.unwrap());
        let staged = UploadEnd::Staged {
            hash: Some(lie),
            etag: noted_etag.unwrap_or(etag.as_str()).to_owned(),
        };
        assert!(registry.end_upload(key.id(), &staged, now).await.unwrap());
        let finalize = Finalize {
            key,
            size: None,
            declared_hash: Some(lie),
            manifest_json: None,
            signature: None,
        };
        let publisher = &app.admin.uploads.as_ref().unwrap().publisher;
        let by = Publishing {
            actor: "admin",
            request_id: None,
        };
        let refused = publisher.finalize(finalize, by).await.unwrap_err();
        let stat = app.stores.bundles.stat(ObjectKey::from(key)).await.unwrap();
        assert!(stat.is_some(), "what is refused stays");
        refused.code()
    }

    #[tokio::test]
    async fn a_noted_hash_counts_where_that_is_wanted_and_for_the_object_it_was_noted_with() {
        assert_eq!(said_of_a_lie(true, None).await, "SIGNATURE_REQUIRED");
        assert_eq!(said_of_a_lie(false, None).await, "HASH_MISMATCH");
        assert_eq!(said_of_a_lie(true, Some("other")).await, "HASH_MISMATCH");
    }
}
