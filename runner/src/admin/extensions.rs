//! Extensions and their versions.

use alga_model::{ContentHash, ExtensionName, Timestamp, parse_json};
use alga_registry::{Extension, ExtensionKey, Version, VersionKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::error::{AdminError, Missing};
use super::operation::{Answer, Ask, Method, Operation};
use super::paging::{PageQuery, cursor};
use super::{Admin, Author, schema};

/// `GET /v1/extensions`.
#[derive(Debug)]
pub struct ListExtensions;

/// `GET /v1/extensions/{name}`.
#[derive(Debug)]
pub struct ShowExtension;

/// `GET /v1/extensions/{name}/versions/{version}`.
#[derive(Debug)]
pub struct ShowVersion;

/// `DELETE /v1/extensions/{name}/versions/{version}`.
#[derive(Debug)]
pub struct RemoveVersion;

/// Some extensions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionPage {
    /// By name.
    pub items: Vec<ExtensionSummary>,
    /// Where the next page begins, if there is one.
    pub next_cursor: Option<String>,
}

/// An extension without its versions.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionSummary {
    /// Its id.
    pub extension_id: Uuid,
    /// Its name.
    pub name: ExtensionName,
    /// Who may publish under it.
    pub publisher: String,
    /// When its first version was published.
    pub created_at: Timestamp,
}

/// An extension.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionBody {
    /// The extension.
    #[serde(flatten)]
    pub extension: ExtensionSummary,
    /// Some of its versions, the last published first.
    pub versions: Vec<VersionSummary>,
    /// Where the next page of versions begins, if there is one.
    pub next_cursor: Option<String>,
}

/// A version without its manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionSummary {
    /// Its id.
    pub version_id: Uuid,
    /// The version.
    pub version: String,
    /// Its bundle.
    pub content_hash: ContentHash,
    /// The bytes of its bundle.
    pub size: u64,
    /// When it was published.
    pub created_at: Timestamp,
}

/// A version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionBody {
    /// The extension's name.
    pub extension: ExtensionName,
    /// The version.
    #[serde(flatten)]
    pub version: VersionSummary,
    /// The manifest it was published with.
    pub manifest: Value,
}

impl Operation for ListExtensions {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/extensions";
    const SUMMARY: &'static str = "Lists the extensions that were ever published, by name";
    const REFUSALS: &'static [(u16, &'static str)] = &[(400, "BAD_REQUEST")];

    type Target = ();
    type Query = PageQuery;
    type Body = ();
    type Answer = ExtensionPage;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<ExtensionPage, AdminError> {
        by.ensure_unlimited()?;
        let page = admin.registry.extensions(ask.query.request()?).await?;
        Ok(ExtensionPage {
            items: page.items.into_iter().map(Into::into).collect(),
            next_cursor: page.next.map(cursor),
        })
    }
}

impl Operation for ShowExtension {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/extensions/{name}";
    const SUMMARY: &'static str = "Shows an extension and its versions, the last published first";
    const REFUSALS: &'static [(u16, &'static str)] = &[(400, "BAD_REQUEST"), (404, "NOT_FOUND")];

    type Target = ExtensionName;
    type Query = PageQuery;
    type Body = ();
    type Answer = ExtensionBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<ExtensionBody, AdminError> {
        by.ensure_unlimited()?;
        let page = ask.query.request()?;
        let key = ExtensionKey::Name(ask.target.clone());
        let extension = admin.registry.extension(&key).await?;
        let extension = extension.ok_or(AdminError::NotFound(Missing::Extension(ask.target)))?;
        let versions = admin.registry.versions(extension.id, page).await?;
        Ok(ExtensionBody {
            extension: extension.into(),
            versions: versions.items.into_iter().map(Into::into).collect(),
            next_cursor: versions.next.map(cursor),
        })
    }
}

impl Operation for ShowVersion {
    const METHOD: Method = Method::Get;
    const PATH: &'static str = "/v1/extensions/{name}/versions/{version}";
    const SUMMARY: &'static str = "Shows a version and its manifest";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND")];

    type Target = (ExtensionName, String);
    type Query = ();
    type Body = ();
    type Answer = VersionBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<VersionBody, AdminError> {
        by.ensure_unlimited()?;
        let (name, version) = ask.target;
        let version = admin.version(&name, version).await?;
        Ok(body(name, &version))
    }
}

impl Operation for RemoveVersion {
    const METHOD: Method = Method::Delete;
    const PATH: &'static str = "/v1/extensions/{name}/versions/{version}";
    const SUMMARY: &'static str = "Removes a version that no install has nor would go back to, and answers what it was; it can be published again only with the same bytes, and the extension's name stays its publisher's";
    const REFUSALS: &'static [(u16, &'static str)] = &[(404, "NOT_FOUND"), (409, "VERSION_IN_USE")];

    type Target = (ExtensionName, String);
    type Query = ();
    type Body = ();
    type Answer = VersionBody;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<VersionBody, AdminError> {
        by.ensure_unlimited()?;
        let (name, version) = ask.target;
        let version = admin.version(&name, version).await?;
        let change = by.change(admin);
        admin.registry.remove_version(version.id, change).await?;
        Ok(body(name, &version))
    }
}

impl Admin {
    /// A version of an extension.
    pub(super) async fn version(
        &self,
        name: &ExtensionName,
        version: String,
    ) -> Result<Version, AdminError> {
        let key = VersionKey::Named {
            name: name.clone(),
            version: version.clone(),
        };
        let missing = || AdminError::NotFound(Missing::Version(name.clone(), version));
        self.registry.version(&key).await?.ok_or_else(missing)
    }

    /// The highest version by the rules of semver; a pre-release only where there is nothing else.
    pub(super) async fn newest_version(&self, name: &ExtensionName) -> Result<Version, AdminError> {
        let missing = || AdminError::NotFound(Missing::AnyVersion(name.clone()));
        let key = ExtensionKey::Name(name.clone());
        let extension = self.registry.extension(&key).await?.ok_or_else(missing)?;
        let rank = |version: &alga_registry::VersionSummary| {
            let parsed = semver::Version::parse(&version.version).ok()?;
            Some((parsed.pre.is_empty(), parsed))
        };
        let mut newest = None;
        let mut page = PageQuery::most_after(None).request()?;
        loop {
            let found = self.registry.versions(extension.id, page).await?;
            newest = newest.into_iter().chain(found.items).max_by_key(rank);
            match found.next {
                Some(_) => page.after = found.next,
                None => break,
            }
        }
        let newest = VersionKey::Id(newest.ok_or_else(missing)?.id);
        self.registry.version(&newest).await?.ok_or_else(missing)
    }
}

impl From<Extension> for ExtensionSummary {
    fn from(extension: Extension) -> Self {
        Self {
            extension_id: extension.id,
            name: extension.name,
            publisher: extension.publisher,
            created_at: extension.created_at,
        }
    }
}

impl From<alga_registry::VersionSummary> for VersionSummary {
    fn from(version: alga_registry::VersionSummary) -> Self {
        Self {
            version_id: version.id,
            version: version.version,
            content_hash: version.content_hash,
            size: version.size,
            created_at: version.created_at,
        }
    }
}

fn body(extension: ExtensionName, version: &Version) -> VersionBody {
    VersionBody {
        extension,
        version: version.summary().into(),
        // The registry takes nothing that isn't JSON.
        manifest: parse_json(version.manifest.as_bytes()).map_or(Value::Null, |(value, _)| value),
    }
}

impl Answer for ExtensionPage {
    const NAME: &'static str = "ExtensionPage";

    fn schema() -> Value {
        schema::answer(&[
            ("items", schema::list(&schema::answer(&of_extension()))),
            ("nextCursor", schema::nullable(&schema::text())),
        ])
    }
}

impl Answer for ExtensionBody {
    const NAME: &'static str = "Extension";

    fn schema() -> Value {
        let versions = [
            ("versions", schema::list(&schema::answer(&of_version()))),
            ("nextCursor", schema::nullable(&schema::text())),
        ];
        schema::answer(&[&of_extension()[..], &versions].concat())
    }
}

impl Answer for VersionBody {
    const NAME: &'static str = "Version";

    fn schema() -> Value {
        let others = [
            ("extension", schema::name()),
            ("manifest", serde_json::json!({ "type": "object" })),
        ];
        schema::answer(&[&of_version()[..], &others].concat())
    }
}

fn of_extension() -> [(&'static str, Value); 4] {
    [
        ("extensionId", schema::uuid()),
        ("name", schema::name()),
        ("publisher", schema::text()),
        ("createdAt", schema::time()),
    ]
}

fn of_version() -> [(&'static str, Value); 5] {
    [
        ("versionId", schema::uuid()),
        ("version", schema::text()),
        ("contentHash", schema::hash()),
        ("size", schema::count()),
        ("createdAt", schema::time()),
    ]
}
