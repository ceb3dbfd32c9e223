//! How far bundles have come that are being sent.

use alga_bundles::StagingKey;
use alga_model::Timestamp;
use alga_registry::{BundleUpload, UploadState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::{AdminError, Missing};
use super::operation::{Answer, Ask, Method, Operation};
use super::{Admin, Author, schema};
use crate::uploads::Following;

/// `GET /api/ext-bundles/uploads/{upload_id}`.
#[derive(Debug)]
pub struct ShowUpload;

/// What is known of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadBody {
    /// What it is known by.
    pub upload_id: Uuid,
    /// Where it is staged, once it is.
    pub key: String,
    /// What its file is called.
    pub filename: String,
    /// What became of it: `receiving`, `staged`, `failed`, `published` or `aborted`.
    pub state: String,
    /// The bytes that were there when it was last noted.
    pub received: u64,
    /// The bytes it has.
    pub size: u64,
    /// The hash of its bytes, 64 hexadecimal digits, where they were hashed while they came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The code of the error that it failed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether it can be gone on with in another request.
    pub resumable: bool,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last noted.
    pub updated_at: Timestamp,
}

/// `GET /api/ext-bundles/uploads/{upload_id}/events`.
#[derive(Debug)]
pub struct UploadEvents;

impl UploadEvents {
    /// Where a server answers it, as server-sent events.
    pub const PATH: &'static str = "/api/ext-bundles/uploads/{upload_id}/events";
    /// What the answer is.
    pub const SUMMARY: &'static str =
        "Follows how far an upload comes, as server-sent events of the types progress and error";
}

impl Operation for ShowUpload {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/api/ext-bundles/uploads/{upload_id}";
    const SUMMARY: &'static str = "Shows how far an upload is, or what became of it";
    const REFUSALS: &'static [(u16, &'static str)] = &[
        (404, "NOT_FOUND"),
        (421, "MISDIRECTED"),
        (503, "REGISTRY_UNAVAILABLE"),
    ];

    type Target = Uuid;
    type Query = ();
    type Body = ();
    type Answer = UploadBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<UploadBody, AdminError> {
        let found = admin.known_uploads(by)?.recorder.find(ask.target).await?;
        let found = found.ok_or(AdminError::NotFound(Missing::Upload(ask.target)))?;
        Ok(found.into())
    }
}

impl Admin {
    /// Follows an upload, which may not have begun yet; after the event `after`, if there was one.
    pub async fn follow_upload(
        &self,
        by: &Author,
        id: Uuid,
        after: Option<u64>,
    ) -> Result<Following, AdminError> {
        let uploads = self.known_uploads(by)?;
        let following = uploads.followers.follow(id, after)?;
        // A registry that can't be asked is told now, while there is a status to tell it by.
        Ok(following.begin().await?)
    }
}

impl From<BundleUpload> for UploadBody {
    fn from(upload: BundleUpload) -> Self {
        Self {
            upload_id: upload.id,
            key: StagingKey::new(upload.id).to_string(),
            filename: upload.filename,
            state: upload.state.as_str().to_owned(),
            received: upload.received,
            size: upload.size,
            sha256: upload.hash.map(|hash| hash.to_hex()),
            code: upload.code,
            resumable: upload.store_upload.is_some() && upload.state == UploadState::Receiving,
            created_at: upload.created_at,
            updated_at: upload.updated_at,
        }
    }
}

impl Answer for UploadBody {
    const NAME: &'static str = "Upload";

    fn schema() -> Value {
        let states = ["receiving", "staged", "failed", "published", "aborted"];
        let mut schema = schema::answer(&[
            ("uploadId", schema::uuid()),
            ("key", schema::text()),
            ("filename", schema::text()),
            ("state", json!({ "enum": states })),
            ("received", schema::count()),
            ("size", schema::count()),
            ("resumable", schema::truth()),
            ("createdAt", schema::time()),
            ("updatedAt", schema::time()),
        ]);
        // Those may be absent.
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            let digest = json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" });
            properties.insert("sha256".to_owned(), digest);
            properties.insert("code".to_owned(), schema::text());
        }
        schema
    }
}
