//! Pages of lists, whose cursors mean nothing to callers.

use std::fmt::Display;
use std::str::FromStr;

use alga_registry::{MAX_PAGE_ITEMS, PageRequest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Value, json};

use super::error::AdminError;
use super::members::Members;
use super::mistakes::Mistakes;
use super::operation::Parameters;
use super::schema;

/// The items of a page where the request doesn't say.
const DEFAULT_ITEMS: u32 = 50;

/// Which part of a list is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PageQuery {
    /// The most items wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

impl PageQuery {
    /// As much as there can be in one page, after `cursor`.
    pub const fn most_after(cursor: Option<String>) -> Self {
        Self {
            limit: Some(MAX_PAGE_ITEMS),
            cursor,
        }
    }

    /// What that is for the registry.
    pub(super) fn request<K: FromStr>(&self) -> Result<PageRequest<K>, AdminError> {
        let limit = self.limit.unwrap_or(DEFAULT_ITEMS);
        Ok(match &self.cursor {
            None => PageRequest::first(limit),
            Some(cursor) => PageRequest::after(key(cursor)?, limit),
        })
    }

    pub(super) fn members() -> [(&'static str, Value); 2] {
        [
            (
                "limit",
                json!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE_ITEMS, "default": DEFAULT_ITEMS }),
            ),
            ("cursor", schema::text()),
        ]
    }
}

impl Parameters for PageQuery {
    fn read(members: &mut Members) -> Option<Self> {
        Some(Self {
            limit: members.text("limit"),
            cursor: members.optional("cursor"),
        })
    }

    fn schema() -> Value {
        schema::parameters(&[], &Self::members())
    }
}

/// What stands for the end of a page.
pub(super) fn cursor(key: impl Display) -> String {
    URL_SAFE_NO_PAD.encode(key.to_string())
}

fn key<K: FromStr>(cursor: &str) -> Result<K, AdminError> {
    let decoded = URL_SAFE_NO_PAD.decode(cursor).ok();
    decoded
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            let mistake = Mistakes::one("cursor: it must be the `nextCursor` of a page before");
            AdminError::invalid("the request is", mistake)
        })
}

#[cfg(test)]
mod tests {
    use alga_model::InstallId;

    use super::*;

    #[test]
    fn a_cursor_is_good_for_what_it_was_made_of_and_nothing_else() {
        let id = InstallId::generate();
        let at = |cursor: &str| {
            let query = PageQuery {
                limit: None,
                cursor: Some(cursor.to_owned()),
            };
            query.request::<InstallId>()
        };
        assert_eq!(at(&cursor(id)).unwrap().after, Some(id));
        for foreign in ["", "*", &id.to_string(), &cursor("com.example.notes")] {
            assert!(at(foreign).is_err(), "{foreign}");
        }
    }
}
