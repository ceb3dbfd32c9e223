//! What an install may do with storage, and where that is looked up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use alga_model::{ExtensionName, InstallId, TenantId};
use async_trait::async_trait;
use serde::Deserialize;

use crate::contract::{Limits, Namespace};
use crate::error::Error;

/// The name of the capability that this crate's grants belong to.
pub const CAPABILITY: &str = "alga.storage";

/// A use of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// `get`, `getMany`, `list`.
    Read,
    /// `put`, `bulkPut`, `delete`.
    Write,
}

impl Access {
    /// The word manifests, logs and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// The namespaces of an `alga.storage` capability, as a manifest asks for it or an install grants
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorageGrant {
    namespaces: BTreeMap<Namespace, Accesses>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Accesses {
    read: bool,
    write: bool,
}

/// A JSON value that is not an `alga.storage` capability.
#[derive(Debug, thiserror::Error)]
#[error("an alga.storage grant is not valid: {reason}")]
pub struct InvalidGrant {
    reason: String,
}

impl StorageGrant {
    /// Reads `{"namespaces": [{"name": "settings", "access": ["read", "write"]}]}`.
    ///
    /// Members it doesn't know, such as `schemaReference`, are somebody else's and left alone.
    ///
    /// # Errors
    /// [`InvalidGrant`] says what is wrong.
    pub fn parse(json: &serde_json::Value) -> Result<Self, InvalidGrant> {
        let invalid = |reason: String| InvalidGrant { reason };
        let body = GrantBody::deserialize(json).map_err(|error| invalid(error.to_string()))?;
        let mut grant = Self::default();
        for NamespaceBody { name, access } in body.namespaces {
            let namespace = Namespace::parse(name).map_err(|error| invalid(error.to_string()))?;
            let accesses = Accesses {
                read: access.contains(&AccessBody::Read),
                write: access.contains(&AccessBody::Write),
            };
            if grant
                .namespaces
                .insert(namespace.clone(), accesses)
                .is_some()
            {
                return Err(invalid(format!(
                    "the namespace '{namespace}' is named twice"
                )));
            }
        }
        Ok(grant)
    }

    /// A grant of reading and writing `namespaces`, for embedding and tests.
    pub fn all_of(namespaces: impl IntoIterator<Item = Namespace>) -> Self {
        let all = Accesses {
            read: true,
            write: true,
        };
        Self {
            namespaces: namespaces
                .into_iter()
                .map(|namespace| (namespace, all))
                .collect(),
        }
    }

    /// Whether everything this grant allows, `other` allows as well.
    pub fn is_within(&self, other: &Self) -> bool {
        self.namespaces.iter().all(|(namespace, mine)| {
            other
                .namespaces
                .get(namespace)
                .is_some_and(|theirs| (theirs.read || !mine.read) && (theirs.write || !mine.write))
        })
    }

    /// Everything this grant allows.
    pub fn uses(&self) -> impl Iterator<Item = (&Namespace, Access)> {
        self.namespaces.iter().flat_map(|(namespace, accesses)| {
            let read = accesses.read.then_some(Access::Read);
            let write = accesses.write.then_some(Access::Write);
            let allowed = read.into_iter().chain(write);
            allowed.map(move |access| (namespace, access))
        })
    }

    /// Fails unless `namespace` may be used in this way.
    pub(crate) fn ensure(&self, namespace: &Namespace, access: Access) -> Result<(), Error> {
        let accesses = self
            .namespaces
            .get(namespace)
            .ok_or_else(|| Error::NamespaceDenied(namespace.clone()))?;
        let allowed = match access {
            Access::Read => accesses.read,
            Access::Write => accesses.write,
        };
        if allowed {
            Ok(())
        } else {
            Err(Error::CapabilityDenied)
        }
    }
}

#[derive(Deserialize)]
struct GrantBody {
    namespaces: Vec<NamespaceBody>,
}

#[derive(Deserialize)]
struct NamespaceBody {
    name: String,
    access: Vec<AccessBody>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum AccessBody {
    Read,
    Write,
}

/// Everything the gate needs to know of an install, as it was at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Whose data it is. The authority: a caller never says so itself.
    pub tenant: TenantId,
    /// Which extension is installed.
    pub extension: ExtensionName,
    /// What it may do; none without an `alga.storage` grant.
    pub grant: Option<StorageGrant>,
    /// How much of it.
    pub limits: Limits,
    /// Whether it runs at all.
    pub active: bool,
    /// Whether storage is switched on, for everybody, for the tenant and for the extension.
    pub switched_on: bool,
}

/// Looks installs up; asked before every operation, so that what was revoked bites on the next
/// call.
#[async_trait]
pub trait GrantSource: fmt::Debug + Send + Sync + 'static {
    /// The install as it is now, at most five seconds old; none where there is no such install.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it cannot be looked up.
    async fn snapshot(&self, install: InstallId) -> Result<Option<Arc<Snapshot>>, Error>;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grant(json: &serde_json::Value) -> StorageGrant {
        StorageGrant::parse(json).unwrap()
    }

    #[test]
    fn a_grant_allows_what_it_names_and_nothing_else() {
        let grant = grant(&json!({"namespaces": [
            {"name": "settings", "access": ["read", "write"], "schemaReference": "./schemas/settings.json"},
            {"name": "cache", "access": ["read"]},
        ]}));
        let [settings, cache, other] =
            ["settings", "cache", "other"].map(|name| Namespace::parse(name).unwrap());
        assert!(grant.ensure(&settings, Access::Write).is_ok());
        assert!(grant.ensure(&cache, Access::Read).is_ok());
        assert!(matches!(
            grant.ensure(&cache, Access::Write),
            Err(Error::CapabilityDenied)
        ));
        assert!(matches!(
            grant.ensure(&other, Access::Read),
            Err(Error::NamespaceDenied(_))
        ));
    }

    #[test]
    fn a_malformed_grant_says_why() {
        for (json, reason) in [
            (json!({}), "namespaces"),
            (json!("all"), "struct"),
            (json!({"namespaces": [{"name": "A", "access": []}]}), "a-z"),
            (
                json!({"namespaces": [{"name": "a", "access": ["admin"]}]}),
                "admin",
            ),
            (
                json!({"namespaces": [{"name": "a", "access": []}, {"name": "a", "access": []}]}),
                "twice",
            ),
        ] {
            let error = StorageGrant::parse(&json).unwrap_err().to_string();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn a_narrower_grant_is_within_a_wider_one() {
        let asked = grant(&json!({"namespaces": [
            {"name": "a", "access": ["read", "write"]}, {"name": "b", "access": ["read"]},
        ]}));
        for (json, within) in [
            (json!([]), true),
            (json!([{"name": "a", "access": ["read"]}]), true),
            (json!([{"name": "b", "access": ["read", "write"]}]), false),
            (json!([{"name": "c", "access": []}]), false),
        ] {
            let granted = grant(&json!({ "namespaces": json }));
            assert_eq!(granted.is_within(&asked), within, "{granted:?}");
        }
    }
}
