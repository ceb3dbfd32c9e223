//! Making extensions ready before anybody calls them.

use std::panic::resume_unwind;
use std::sync::Arc;

use alga_model::{ContentHash, ExtensionName, InstallId};
use alga_registry::VersionKey;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::Instrument as _;
use uuid::Uuid;

use super::error::{AdminError, Missing};
use super::members::{Member, Members};
use super::operation::{Answer, Ask, Method, Operation, Parameters};
use super::{Admin, Author, schema};
use crate::execute::Executor;

/// `POST /v1/warmup`.
#[derive(Debug)]
pub struct Warmup;

/// What shall be made ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WarmupBody {
    /// One after another, up to [`WarmupBody::MOST_ITEMS`].
    pub items: Vec<WarmupItem>,
}

/// A version of an extension, told in one of three ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum WarmupItem {
    /// By what it consists of.
    Content {
        /// Its hash.
        content_hash: ContentHash,
    },
    /// By its name.
    Version {
        /// The extension.
        extension: ExtensionName,
        /// The version.
        version: String,
    },
    /// The one that an install has.
    Install {
        /// The install.
        install_id: InstallId,
    },
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmupAnswer {
    /// In the order in which it was asked.
    pub items: Vec<Warmed>,
}

/// What became of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Warmed {
    /// What it consists of, if there is such a version.
    pub content_hash: Option<ContentHash>,
    /// Whether it is ready to be called.
    pub ready: bool,
    /// Why it isn't.
    pub error: Option<WarmupError>,
}

/// Why a version is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmupError {
    /// What a call would be answered with.
    pub code: String,
    /// The same for people.
    pub message: String,
}

impl WarmupBody {
    /// How much may be asked for at once.
    pub const MOST_ITEMS: usize = 100;
}

impl Member for Vec<Value> {
    const EXPECTED: &'static str = "a list";
}

impl Operation for Warmup {
    const METHOD: Method = Method::Post;
    const PATH: &'static str = "/v1/warmup";
    const SUMMARY: &'static str = "Fetches, verifies and loads versions in this process, compiling what isn't compiled yet, so that calls needn't wait for it";
    const REFUSALS: &'static [(u16, &'static str)] = &[(400, "BAD_REQUEST")];

    type Target = ();
    type Query = ();
    type Body = WarmupBody;
    type Answer = WarmupAnswer;

    async fn run(admin: &Admin, by: &Author, ask: Ask<Self>) -> Result<WarmupAnswer, AdminError> {
        let extensions = admin.extensions.as_ref().ok_or(AdminError::RunsNothing)?;
        let mut found = Vec::new();
        for item in ask.body.items {
            found.push(match admin.version_to_warm(by, item).await {
                Err(AdminError::NotFound(missing)) => Err(AdminError::NotFound(missing)),
                content => Ok(content?),
            });
        }
        let extensions = Arc::clone(extensions);
        // Goes on when the caller goes away: what was asked for is to be ready.
        let warming = async move {
            let executor = &extensions.executor;
            let warmed = stream::iter(found).map(|found| warm(executor, found));
            warmed.buffered(Executor::WARMED_AT_ONCE).collect().await
        };
        let warmed = tokio::spawn(warming.in_current_span()).await;
        Ok(WarmupAnswer {
            items: warmed.unwrap_or_else(|error| resume_unwind(error.into_panic())),
        })
    }
}

async fn warm(executor: &Executor, found: Result<(Uuid, ContentHash), AdminError>) -> Warmed {
    let (version, hash) = match found {
        Ok(found) => found,
        Err(error) => return Warmed::failed(None, error.code(), &error),
    };
    match executor.warm(version, hash).await {
        Ok(()) => Warmed {
            content_hash: Some(hash),
            ready: true,
            error: None,
        },
        Err(error) => Warmed::failed(Some(hash), error.code(), &error),
    }
}

impl Warmed {
    fn failed(content_hash: Option<ContentHash>, code: &str, error: &impl ToString) -> Self {
        Self {
            content_hash,
            ready: false,
            error: Some(WarmupError {
                code: code.to_owned(),
                message: error.to_string(),
            }),
        }
    }
}

impl Admin {
    /// A registered version and what it consists of. What isn't registered is not for running.
    async fn version_to_warm(
        &self,
        by: &Author,
        item: WarmupItem,
    ) -> Result<(Uuid, ContentHash), AdminError> {
        match item {
            WarmupItem::Install { install_id } => {
                let install = self.find(by, install_id).await?;
                Ok((install.version_id, install.content_hash))
            }
            WarmupItem::Version { extension, version } => {
                by.ensure_unlimited()?;
                let version = self.version(&extension, version).await?;
                Ok((version.id, version.content_hash))
            }
            WarmupItem::Content { content_hash } => {
                by.ensure_unlimited()?;
                let key = VersionKey::Content(content_hash);
                let version = self.registry.version(&key).await?;
                version
                    .map(|version| (version.id, version.content_hash))
                    .ok_or(AdminError::NotFound(Missing::Content(content_hash)))
            }
        }
    }
}

impl Parameters for WarmupBody {
    fn read(members: &mut Members) -> Option<Self> {
        const EXPECTED: &str =
            "expected an object with `contentHash`, `extension` and `version`, or `installId`";
        let items: Vec<Value> = members.required("items")?;
        if items.len() > Self::MOST_ITEMS {
            members.mistake("items", format_args!("at most {}", Self::MOST_ITEMS));
            return None;
        }
        let mut read = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match serde_json::from_value(item) {
                Ok(item) => read.push(item),
                Err(_) => members.mistake(format_args!("items[{index}]"), EXPECTED),
            }
        }
        Some(Self { items: read })
    }

    fn schema() -> Value {
        let item = json!({ "oneOf": [
            schema::parameters(&[("contentHash", schema::hash())], &[]),
            schema::parameters(&[("extension", schema::name()), ("version", schema::text())], &[]),
            schema::parameters(&[("installId", schema::uuid())], &[]),
        ] });
        let mut items = schema::list(&item);
        if let Some(items) = items.as_object_mut() {
            let most = Map::from_iter([("maxItems".to_owned(), Self::MOST_ITEMS.into())]);
            items.extend(most);
        }
        schema::parameters(&[("items", items)], &[])
    }
}

impl Answer for WarmupAnswer {
    const NAME: &'static str = "Warmup";

    fn schema() -> Value {
        let error = schema::answer(&[("code", schema::text()), ("message", schema::text())]);
        let item = schema::answer(&[
            ("contentHash", schema::nullable(&schema::hash())),
            ("ready", schema::truth()),
            ("error", schema::nullable(&error)),
        ]);
        schema::answer(&[("items", schema::list(&item))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(items: &Value) -> Result<WarmupBody, AdminError> {
        let body = Map::from_iter([("items".to_owned(), items.clone())]);
        Members::parse(body)
    }

    #[test]
    fn an_item_is_told_in_one_way() {
        let hash = ContentHash::of(b"bundle").to_string();
        let install = "0192f0c1-7a7e-7d0a-8f4e-2b1c5a9d0e11";
        let name = "com.example.notes";
        let good = json!([
            { "contentHash": hash },
            { "extension": name, "version": "1.0.0" },
            { "installId": install },
        ]);
        assert_eq!(read(&good).unwrap().items.len(), 3);
        for bad in [
            json!([{}]),
            json!([{ "contentHash": "sha256:00" }]),
            json!([{ "contentHash": hash, "installId": install }]),
            json!([{ "extension": name }]),
            json!([{ "installId": 1 }]),
            json!([hash]),
            json!({}),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_item_is_told_by_its_place() {
        let good = json!({ "contentHash": ContentHash::of(b"bundle").to_string() });
        let refused = read(&json!([good, {}, good, { "contentHash": "x" }])).unwrap_err();
        let mistakes = refused.details()["mistakes"].clone();
        let expected = [1, 3].map(|index| {
            format!(
                "items[{index}]: expected an object with `contentHash`, `extension` and `version`, or `installId`"
            )
        });
        assert_eq!(mistakes, json!(expected));
    }

    #[test]
    fn there_is_a_most_that_may_be_asked_for() {
        let item = json!({ "contentHash": ContentHash::of(b"bundle").to_string() });
        for (count, fits) in [(0, true), (99, true), (100, true), (101, false)] {
            let items = vec![item.clone(); count];
            assert_eq!(read(&json!(items)).is_ok(), fits, "{count}");
        }
    }
}
