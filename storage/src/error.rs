//! Why an operation did not happen: the error table of the contract.

use std::fmt;
use std::time::Duration;

use crate::contract::{JsonError, Key, Namespace, QuotaName, Record, Revision};

/// Why an operation did not happen. A refused operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A bad name, key, guard or cursor, text that is not JSON, or a value its schema refuses.
    #[error("the request is not valid: {}", Violations(.0))]
    ValidationFailed(Vec<Violation>),
    /// One request is too large, whatever is stored.
    #[error("{0}")]
    LimitExceeded(Limit),
    /// No credentials, or wrong ones.
    #[error("the credentials are missing or wrong")]
    Unauthorized,
    /// The install may not use storage at all, or not in this way.
    #[error(
        "the install does not grant this use of storage, is disabled, or storage is switched off"
    )]
    CapabilityDenied,
    /// The install may not use this namespace.
    #[error("the install does not grant the namespace '{0}'")]
    NamespaceDenied(Namespace),
    /// There is no such record.
    #[error("there is no such record")]
    NotFound,
    /// A guard failed.
    #[error("the guard does not match the stored record")]
    RevisionMismatch(Box<Conflict>),
    /// A write would exceed a quota.
    #[error("{0}")]
    QuotaExceeded(Quota),
    /// Too many operations.
    #[error("too many operations; try again in {} ms", retry_after.as_millis())]
    RateLimited {
        /// When one more operation is allowed.
        retry_after: Duration,
    },
    /// The store cannot be reached or did not answer in time.
    #[error("the store cannot be reached")]
    Unavailable(#[source] Cause),
    /// A fault of ours.
    #[error("the operation failed inside the host")]
    Internal(#[source] Cause),
}

/// What lies behind an [`Error`]; for logs, never for a caller.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The names that errors have in every door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are those of `Error`")]
pub enum ErrorCode {
    ValidationFailed,
    LimitExceeded,
    Unauthorized,
    CapabilityDenied,
    NamespaceDenied,
    NotFound,
    RevisionMismatch,
    QuotaExceeded,
    RateLimited,
    Unavailable,
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of the contract's table.
    pub const ALL: [Self; 11] = [
        Self::ValidationFailed,
        Self::LimitExceeded,
        Self::Unauthorized,
        Self::CapabilityDenied,
        Self::NamespaceDenied,
        Self::NotFound,
        Self::RevisionMismatch,
        Self::QuotaExceeded,
        Self::RateLimited,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code as JSON bodies, logs and metrics spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ValidationFailed => "VALIDATION_FAILED",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::CapabilityDenied => "CAPABILITY_DENIED",
            Self::NamespaceDenied => "NAMESPACE_DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::RevisionMismatch => "REVISION_MISMATCH",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::RateLimited => "RATE_LIMITED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

impl ErrorCode {
    /// The status that HTTP doors answer with.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::ValidationFailed | Self::LimitExceeded => 400,
            Self::Unauthorized => 401,
            Self::CapabilityDenied | Self::NamespaceDenied => 403,
            Self::NotFound => 404,
            Self::RevisionMismatch => 409,
            Self::QuotaExceeded | Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// The code of this error.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::ValidationFailed(_) => ErrorCode::ValidationFailed,
            Self::LimitExceeded(_) => ErrorCode::LimitExceeded,
            Self::Unauthorized => ErrorCode::Unauthorized,
            Self::CapabilityDenied => ErrorCode::CapabilityDenied,
            Self::NamespaceDenied(_) => ErrorCode::NamespaceDenied,
            Self::NotFound => ErrorCode::NotFound,
            Self::RevisionMismatch(_) => ErrorCode::RevisionMismatch,
            Self::QuotaExceeded(_) => ErrorCode::QuotaExceeded,
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// A guard that failed against `stored`.
    pub(crate) fn conflict(current_revision: Option<Revision>, current: Option<Record>) -> Self {
        Self::RevisionMismatch(Box::new(Conflict {
            current_revision,
            current,
        }))
    }
}

/// One reason why a request is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer into the refused value, or the name of the argument.
    pub instance_path: String,
    /// JSON pointer into the schema that refused it; empty where none did.
    pub schema_path: String,
    /// For people.
    pub message: String,
}

impl Violation {
    /// A request refused for one of its arguments.
    pub fn argument(name: &str, message: impl Into<String>) -> Error {
        Error::ValidationFailed(vec![Self {
            instance_path: name.to_owned(),
            schema_path: String::new(),
            message: message.into(),
        }])
    }

    /// A request refused because an argument is not JSON.
    pub(crate) fn json(name: &str, error: JsonError) -> Error {
        Self::argument(name, error.to_string())
    }
}

struct Violations<'a>(&'a [Violation]);

impl fmt::Display for Violations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(
                f,
                "{separator}{}: {}",
                violation.instance_path, violation.message
            )?;
        }
        Ok(())
    }
}

/// The limit that one request exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// `value-bytes`, `metadata-bytes`, `ttl-seconds`, `limit`, `items`, `batch-bytes`, `keys` or `body-bytes`.
    pub name: &'static str,
    /// What is allowed: at least, where `actual` is below it, else at most.
    pub limit: u64,
    /// What was asked for.
    pub actual: u64,
}

impl Limit {
    /// The limit of a whole request, which is there before anybody looks into it.
    pub const BODY: &'static str = "body-bytes";

    /// Every name.
    const NAMES: [&'static str; 8] = [
        "value-bytes",
        "metadata-bytes",
        "ttl-seconds",
        "limit",
        "items",
        "batch-bytes",
        "keys",
        Self::BODY,
    ];

    /// A name that another process has said.
    pub(crate) fn known(name: &str) -> &'static str {
        let known = Self::NAMES.into_iter().find(|known| *known == name);
        known.unwrap_or(Self::BODY)
    }

    /// The name that the limit has where it is set.
    fn setting(&self) -> &'static str {
        match self.name {
            "value-bytes" => "requests.valueBytes",
            "metadata-bytes" => "requests.metadataBytes",
            "ttl-seconds" if self.actual < self.limit => "requests.minTtlSeconds",
            "ttl-seconds" => "requests.maxTtlSeconds",
            "limit" => "requests.maxPageItems",
            "items" => "requests.bulkItems",
            "batch-bytes" => "requests.bulkBytes",
            Self::BODY => "server.max_body_bytes",
            _ => "requests.getManyKeys",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            limit,
            actual,
        } = self;
        let bound = if actual < limit {
            "must be at least"
        } else {
            "may be at most"
        };
        let setting = self.setting();
        write!(f, "{name} ({setting}) {bound} {limit}, not {actual}")
    }
}

/// What a guard found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The revision of the stored record; none where there is no record.
    pub current_revision: Option<Revision>,
    /// The stored record, where it was asked for.
    pub current: Option<Record>,
}

/// The quota that a write would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name} ({}) may be at most {limit}; {used} are used and the write needs {attempted}", .name.setting())]
pub struct Quota {
    /// Which one.
    pub name: QuotaName,
    /// What is allowed.
    pub limit: u64,
    /// What is used.
    pub used: u64,
    /// What would be used after the write.
    pub attempted: u64,
}

/// Why a `bulkPut` did not happen.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct BulkError {
    /// The item that failed; none where the request failed as a whole.
    pub item: Option<FailedItem>,
    /// How it failed.
    pub error: Error,
}

/// The item of a `bulkPut` that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedItem {
    /// Its position, from 0.
    pub index: usize,
    /// Its key, as the caller wrote it; of one that is too long the beginning.
    pub key: String,
}

impl FailedItem {
    /// The item at `index`, from 0. Whatever `key` is, no more of it is kept than a key may have.
    pub fn new(index: usize, key: &str) -> Self {
        let end = key.floor_char_boundary(Key::MAX_BYTES);
        let key = key.get(..end).unwrap_or_default().to_owned();
        Self { index, key }
    }
}

impl From<Error> for BulkError {
    fn from(error: Error) -> Self {
        Self { item: None, error }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::contract::{LimitOverrides, LimitsOf};

    /// Whether overrides know a limit by this name, so that `Display` names no other.
    fn is_a_setting(setting: &str) -> bool {
        let (section, name) = setting.split_once('.').unwrap();
        let json = json!({ section: { name: Value::Null } });
        let refused = LimitOverrides::parse(&json, LimitsOf::Tenant).unwrap_err();
        refused.to_string().contains("whole number")
    }

    #[test]
    fn a_limit_is_told_by_the_name_it_is_set_by() {
        for (name, setting, [limit, actual]) in [
            ("value-bytes", "requests.valueBytes", [1, 2]),
            ("metadata-bytes", "requests.metadataBytes", [1, 2]),
            ("ttl-seconds", "requests.minTtlSeconds", [2, 1]),
            ("ttl-seconds", "requests.maxTtlSeconds", [1, 2]),
            ("limit", "requests.maxPageItems", [1, 2]),
            ("items", "requests.bulkItems", [1, 2]),
            ("batch-bytes", "requests.bulkBytes", [1, 2]),
            ("keys", "requests.getManyKeys", [1, 2]),
        ] {
            let limit = Limit {
                name,
                limit,
                actual,
            };
            let said = limit.to_string();
            assert!(said.starts_with(&format!("{name} ({setting})")), "{said}");
            assert!(is_a_setting(setting), "{setting}");
        }
    }

    #[test]
    fn a_quota_is_told_by_the_name_it_is_set_by() {
        for name in QuotaName::ALL {
            assert!(is_a_setting(name.setting()), "{name}");
            let quota = Quota {
                name,
                limit: 1,
                used: 1,
                attempted: 2,
            };
            let said = quota.to_string();
            assert!(said.contains(name.setting()), "{said}");
            let plain = name.setting().replace("quotas.", "").to_lowercase();
            assert_eq!(plain, name.as_str().replace('-', ""));
        }
    }
}
