//! Publishing bundles that come over the network.

use std::sync::Arc;

use alga_bundles::{Issue, PublishError, Published, StagingKey};
use alga_model::{ContentHash, ExtensionName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::Instrument as _;
use uuid::Uuid;

use super::error::AdminError;
use super::members::Members;
use super::operation::{Answer, Ask, Method, Operation, Parameters};
use super::{Admin, Author, schema};
use crate::uploads::{Finalize, FinalizeError, NewUpload, Publishing, Received};

/// What the paths of uploads begin with.
pub const UPLOADS: &str = "/api/ext-bundles/";

/// Where uploads begin that are gone on with after an interruption, and where each of them is.
pub const TUS: &str = "/api/ext-bundles/tus";
/// See [`TUS`].
pub const TUS_UPLOAD: &str = "/api/ext-bundles/tus/{upload_id}";

/// The most bytes of the name of a file.
pub const MAX_FILENAME_BYTES: usize = 255;

/// What is said of an upload, beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadQuery {
    /// What the file is called, for people.
    pub filename: String,
    /// The bytes it has.
    pub size: u64,
    /// The hash it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared_hash: Option<ContentHash>,
    /// What the client calls the upload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<Uuid>,
}

/// An upload that was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedBody {
    /// Where it is.
    pub upload: UploadKeyBody,
    /// What the file is called.
    pub filename: String,
    /// The bytes it has.
    pub size: u64,
    /// The hash of these bytes, 64 hexadecimal digits.
    pub sha256: String,
}

/// Where an upload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadKeyBody {
    /// Its name in the store.
    pub key: String,
    /// What becomes of it: it is staged.
    pub strategy: String,
}

/// `POST /api/ext-bundles/finalize`.
#[derive(Debug)]
pub struct FinalizeUpload;

/// `POST /api/ext-bundles/abort`.
#[derive(Debug)]
pub struct AbortUpload;

/// Which upload is to be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FinalizeUploadBody {
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    pub key: StagingKey,
    /// The bytes it must have.
    pub size: Option<u64>,
    /// The hash it must have.
    pub declared_hash: Option<ContentHash>,
    /// The manifest of a bundle that has none.
    pub manifest_json: Option<String>,
    /// The signature of the publisher.
    pub signature: Option<String>,
}

/// Which upload is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AbortUploadBody {
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    pub key: StagingKey,
}

/// An upload that is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAbortedBody {
    /// Where it was.
    pub key: String,
}

/// A version that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedBody {
    /// The extension.
    pub extension: PublishedExtensionBody,
    /// The version of it.
    pub version: PublishedVersionBody,
    /// The bundle.
    pub content_hash: ContentHash,
    /// Where the store keeps it.
    pub canonical_key: String,
    /// What the author should look at.
    pub warnings: Vec<IssueBody>,
}

/// An extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedExtensionBody {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: ExtensionName,
    /// Whom the name belongs to.
    pub publisher: String,
}

/// A version of an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedVersionBody {
    /// Its id.
    pub id: Uuid,
    /// The version, as semver text.
    pub version: String,
}

/// Something about a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueBody {
    /// Where, as a JSON pointer.
    pub path: String,
    /// What.
    pub message: String,
}

impl Operation for FinalizeUpload {
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/api/ext-bundles/finalize";
    const SUMMARY: &'static str = "Checks an upload, publishes it and registers its version; doing so again repairs what was interrupted";
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (400, "STAGING_NOT_FOUND"),
        (400, "HASH_MISMATCH"),
        (400, "BAD_ARCHIVE"),
        (400, "ARCHIVE_REJECTED"),
        (400, "MANIFEST_REQUIRED"),
        (400, "INVALID_MANIFEST"),
        (400, "INVALID_COMPONENT"),
        (400, "SIGNATURE_REQUIRED"),
        (400, "SIGNATURE_INVALID"),
        (403, "PUBLISHER_MISMATCH"),
        (409, "DUPLICATE_VERSION"),
        (409, "MANIFEST_CONFLICT"),
        (421, "MISDIRECTED"),
        (502, "STORE_FAILED"),
        (503, "BUNDLE_OFFLINE"),
        (503, "COMPILER_UNAVAILABLE"),
        (503, "OVERLOADED"),
        (503, "REGISTRY_UNAVAILABLE"),
        (503, "STORE_UNAVAILABLE"),
    ];

    type Target = ();
    type Query = ();
    type Body = FinalizeUploadBody;
    type Answer = PublishedBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<PublishedBody, AdminError> {
        let uploads = Arc::clone(admin.open_uploads(by)?);
        let (actor, request_id) = (by.actor.clone(), by.request_id.clone());
        // Goes on when the caller goes away: whoever asks again finds that it is done.
        let publishing = async move {
            let by = Publishing {
                actor: &actor,
                request_id: request_id.as_deref(),
            };
            uploads.publisher.finalize(ask.body.into(), by).await
        };
        let published = tokio::spawn(publishing.in_current_span()).await;
        let published = published
            .map_err(|error| FinalizeError::Publish(PublishError::Interrupted(error)))??;
        Ok(published.into())
    }
}

impl Operation for AbortUpload {
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/api/ext-bundles/abort";
    const SUMMARY: &'static str =
        "Gives an upload up that is not published; one that is gone is given up already";
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (400, "BAD_REQUEST"),
        (421, "MISDIRECTED"),
        (502, "STORE_FAILED"),
        (503, "BUNDLE_OFFLINE"),
        (503, "OVERLOADED"),
        (503, "STORE_UNAVAILABLE"),
    ];

    type Target = ();
    type Query = ();
    type Body = AbortUploadBody;
    type Answer = UploadAbortedBody;

    async fn run(
        admin: &Admin,
        by: &Author,
        ask: Ask<Self>,
    ) -> Result<UploadAbortedBody, AdminError> {
        let AbortUploadBody { key } = ask.body;
        admin.open_uploads(by)?.intake.abort(key).await?;
        tracing::info!(actor = by.actor, upload.key = %key, "an upload was given up");
        Ok(UploadAbortedBody {
            key: key.to_string(),
        })
    }
}

impl UploadQuery {
    /// Its method and path are `POST` and this.
    pub const PATH: &'static str = "/api/ext-bundles/upload-proxy";
    /// What it does, for the documentation.
    pub const SUMMARY: &'static str =
        "Stages a bundle, whose bytes are the body, until it is published or given up";

    /// What is received, of a type that the sender says.
    pub fn announced(&self, content_type: &str) -> NewUpload {
        NewUpload {
            id: self.upload_id,
            filename: self.filename.clone(),
            size: self.size,
            declared_hash: self.declared_hash,
            content_type: content_type.to_owned(),
        }
    }
}

impl UploadedBody {
    /// What is answered about an upload of a file with this name.
    pub fn of(received: &Received, filename: String) -> Self {
        Self {
            upload: UploadKeyBody {
                key: received.key.to_string(),
                strategy: "staging".to_owned(),
            },
            filename,
            size: received.size,
            sha256: received.hash.to_hex(),
        }
    }

    /// The schema of the answer.
    pub fn schema() -> Value {
        let upload = schema::answer(&[
            ("key", schema::text()),
            ("strategy", json!({ "const": "staging" })),
        ]);
        schema::answer(&[
            ("upload", upload),
            ("filename", schema::text()),
            ("size", schema::count()),
            ("sha256", digest()),
        ])
    }
}

impl Parameters for UploadQuery {
    fn read(members: &mut Members) -> Option<Self> {
        let filename = members.required::<String>("filename").filter(|name| {
            let fits = (1..=MAX_FILENAME_BYTES).contains(&name.len());
            if !fits {
                members.mistake("filename", "expected 1 to 255 bytes");
            }
            fits
        });
        let size = members.required::<String>("size");
        let size = size.and_then(|size| {
            let parsed = size.parse().ok();
            if parsed.is_none() {
                members.mistake("size", "expected a whole number");
            }
            parsed
        });
        let declared_hash = members.text("declaredHash");
        let upload_id = members.optional::<String>("uploadId").and_then(|text| {
            // What the parser says of it is about its characters.
            let parsed = Uuid::parse_str(&text);
            parsed
                .map_err(|_| members.mistake("uploadId", "must be a UUID"))
                .ok()
        });
        Some(Self {
            filename: filename?,
            size: size?,
            declared_hash,
            upload_id,
        })
    }

    fn schema() -> Value {
        let filename = json!({ "type": "string", "minLength": 1, "maxLength": MAX_FILENAME_BYTES });
        let most = alga_bundles::Limits::default().compressed_bytes;
        let size = json!({ "type": "integer", "minimum": 1, "maximum": most });
        schema::parameters(
            &[("filename", filename), ("size", size)],
            &[("declaredHash", digest()), ("uploadId", schema::uuid())],
        )
    }
}

impl Parameters for FinalizeUploadBody {
    fn read(members: &mut Members) -> Option<Self> {
        let key = staging_key(members);
        let size = members.optional("size");
        let declared_hash = members.text("declaredHash");
        let manifest_json = members.optional("manifestJson");
        let signature = members.optional("signature");
        Some(Self {
            key: key?,
            size,
            declared_hash,
            manifest_json,
            signature,
        })
    }

    fn schema() -> Value {
        schema::parameters(
            &[("key", schema::text())],
            &[
                ("size", schema::count()),
                ("declaredHash", digest()),
                ("manifestJson", schema::text()),
                ("signature", schema::text()),
            ],
        )
    }
}

impl Parameters for AbortUploadBody {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            key: staging_key(members)?,
        })
    }

    fn schema() -> Value {
        schema::parameters(&[("key", schema::text())], &[])
    }
}

impl Answer for PublishedBody {
    const NAME: &'static str = "Published";

    fn schema() -> Value {
        let extension = schema::answer(&[
            ("id", schema::uuid()),
            ("name", schema::name()),
            ("publisher", schema::text()),
        ]);
        let version = schema::answer(&[("id", schema::uuid()), ("version", schema::text())]);
        let issue = schema::answer(&[("path", schema::text()), ("message", schema::text())]);
        schema::answer(&[
            ("extension", extension),
            ("version", version),
            ("contentHash", schema::hash()),
            ("canonicalKey", schema::text()),
            ("warnings", schema::list(&issue)),
        ])
    }
}

impl Answer for UploadAbortedBody {
    const NAME: &'static str = "UploadAborted";

    fn schema() -> Value {
        schema::answer(&[("key", schema::text())])
    }
}

impl From<FinalizeUploadBody> for Finalize {
    fn from(body: FinalizeUploadBody) -> Self {
        let FinalizeUploadBody {
            key,
            size,
            declared_hash,
            manifest_json,
            signature,
        } = body;
        Self {
            key,
            size,
            declared_hash,
            manifest_json,
            signature,
        }
    }
}

impl From<Published> for PublishedBody {
    fn from(published: Published) -> Self {
        let Published {
            extension,
            version,
            content_hash,
            canonical_key,
            warnings,
        } = published;
        Self {
            extension: PublishedExtensionBody {
                id: extension.id,
                name: extension.name,
                publisher: extension.publisher,
            },
            version: PublishedVersionBody {
                id: version.id,
                version: version.version.to_string(),
            },
            content_hash,
            canonical_key,
            warnings: warnings.into_iter().map(IssueBody::from).collect(),
        }
    }
}

impl From<Issue> for IssueBody {
    fn from(Issue { path, message }: Issue) -> Self {
        Self { path, message }
    }
}

/// The key of an upload, which no other object may be named by.
fn staging_key(members: &mut Members) -> Option<StagingKey> {
    let key: String = members.required("key")?;
    let parsed = key.parse();
    parsed.map_err(|error| members.mistake("key", error)).ok()
}

fn as_text<S: serde::Serializer>(key: &StagingKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// A SHA-256, with the prefix that is written elsewhere or without.
fn digest() -> Value {
    json!({ "type": "string", "pattern": "^(sha256:)?[0-9a-f]{64}$" })
}
