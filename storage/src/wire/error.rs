//! Why something is refused.

use std::fmt;
use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use super::answer::RecordBody;
use crate::contract::{Namespace, QuotaName, Revision};
use crate::error::{BulkError, Conflict, Error, ErrorCode, FailedItem, Limit, Quota, Violation};

/// An error as it is written: `{"error": {"code", "message", "details", "requestId"}}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is within.
    pub error: ErrorMembers,
}

/// The members of an error.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorMembers {
    /// What programs branch on.
    pub code: String,
    /// For people.
    pub message: String,
    /// What programs may want to know beside the code; an object.
    #[serde(default = "no_details")]
    pub details: Box<RawValue>,
    /// What the request is called in logs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// Without the details, which may hold a record.
impl fmt::Debug for ErrorMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrorMembers")
            .field("code", &self.code)
            .field("message", &self.message)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

fn no_details() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

/// The member `details` of a refusal.
#[derive(Debug, Clone, Copy)]
pub struct ErrorDetails<'a>(pub &'a BulkError);

impl ErrorDetails<'_> {
    /// As JSON.
    pub fn to_json(self) -> Box<RawValue> {
        to_raw_value(&self).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

impl Serialize for ErrorDetails<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut details = serializer.serialize_map(None)?;
        match &self.0.error {
            Error::ValidationFailed(violations) => {
                let violations: Vec<_> = violations.iter().map(ViolationBody::of).collect();
                details.serialize_entry("violations", &violations)?;
            }
            Error::LimitExceeded(exceeded) => {
                details.serialize_entry("name", exceeded.name)?;
                details.serialize_entry("limit", &exceeded.limit)?;
                details.serialize_entry("actual", &exceeded.actual)?;
            }
            Error::NamespaceDenied(namespace) => {
                details.serialize_entry("namespace", namespace.as_str())?;
            }
            Error::RevisionMismatch(found) => {
                if let Some(revision) = found.current_revision {
                    details.serialize_entry("currentRevision", &revision.get())?;
                }
                if let Some(current) = found.current.clone() {
                    let current = RecordBody::of(current).map_err(serde::ser::Error::custom)?;
                    details.serialize_entry("current", &current)?;
                }
            }
            Error::QuotaExceeded(quota) => {
                details.serialize_entry("quota", quota.name.as_str())?;
                details.serialize_entry("limit", &quota.limit)?;
                details.serialize_entry("used", &quota.used)?;
                details.serialize_entry("attempted", &quota.attempted)?;
            }
            Error::RateLimited { retry_after } => {
                details.serialize_entry("retryAfterMs", &retry_after.as_millis())?;
            }
            Error::Unauthorized
            | Error::CapabilityDenied
            | Error::NotFound
            | Error::Unavailable(_)
            | Error::Internal(_) => {}
        }
        if let Some(item) = &self.0.item {
            details.serialize_entry("index", &item.index)?;
            details.serialize_entry("key", &item.key)?;
        }
        details.end()
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ViolationBody {
    instance_path: String,
    schema_path: String,
    message: String,
}

impl ViolationBody {
    fn of(violation: &Violation) -> Self {
        Self {
            instance_path: violation.instance_path.clone(),
            schema_path: violation.schema_path.clone(),
            message: violation.message.clone(),
        }
    }
}

/// What details may hold, of whichever error.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    violations: Vec<ViolationBody>,
    name: String,
    limit: u64,
    actual: Option<u64>,
    current_revision: Option<u64>,
    current: Option<RecordBody>,
    quota: String,
    used: u64,
    attempted: u64,
    retry_after_ms: Option<u64>,
    index: Option<usize>,
    key: Option<String>,
}

/// What a service says in `body`, which came with `status`, asked about `namespace`; nothing where that is
/// no error of a storage service.
pub(crate) fn told(
    (status, body): (u16, &[u8]),
    namespace: Option<&Namespace>,
) -> Option<BulkError> {
    let ErrorMembers {
        code,
        message,
        details,
        ..
    } = serde_json::from_slice::<ErrorBody>(body).ok()?.error;
    let code = ErrorCode::ALL
        .into_iter()
        .find(|known| known.as_str() == code)?;
    let is_large_body = code == ErrorCode::LimitExceeded && status == 413;
    if status != code.http_status() && !is_large_body {
        return None;
    }
    let Ok(details) = serde_json::from_str::<Option<Details>>(details.get()) else {
        let odd = format!("the details of {code} make no sense");
        return Some(Error::Internal(odd.into()).into());
    };
    let details = details.unwrap_or_default();
    let item = details
        .index
        .zip(details.key.clone())
        .map(|(index, key)| FailedItem { index, key });
    let error = details.error(code, message, namespace);
    Some(BulkError { item, error })
}

impl Details {
    fn error(self, code: ErrorCode, message: String, namespace: Option<&Namespace>) -> Error {
        match code {
            ErrorCode::ValidationFailed => self.validation_failed(message),
            ErrorCode::LimitExceeded => Error::LimitExceeded(Limit {
                name: Limit::known(&self.name),
                limit: self.limit,
                // It is not said of a body.
                actual: self.actual.unwrap_or(self.limit.saturating_add(1)),
            }),
            // Not whoever asked, but the credentials of the client itself are wrong.
            ErrorCode::Unauthorized => {
                Error::Unavailable("the storage service does not accept the token".into())
            }
            ErrorCode::CapabilityDenied => Error::CapabilityDenied,
            ErrorCode::NamespaceDenied => namespace.map_or(Error::CapabilityDenied, |namespace| {
                Error::NamespaceDenied(namespace.clone())
            }),
            ErrorCode::NotFound => Error::NotFound,
            ErrorCode::RevisionMismatch => self.conflict(),
            ErrorCode::QuotaExceeded => self.quota_exceeded(),
            ErrorCode::RateLimited => Error::RateLimited {
                retry_after: self
                    .retry_after_ms
                    .map_or(Duration::from_secs(1), Duration::from_millis),
            },
            ErrorCode::Unavailable => Error::Unavailable(message.into()),
            ErrorCode::Internal => Error::Internal(message.into()),
        }
    }

    fn validation_failed(self, message: String) -> Error {
        if self.violations.is_empty() {
            return Violation::argument("request", message);
        }
        let violations = self.violations.into_iter().map(|body| Violation {
            instance_path: body.instance_path,
            schema_path: body.schema_path,
            message: body.message,
        });
        Error::ValidationFailed(violations.collect())
    }

    fn conflict(self) -> Error {
        let revision = self.current_revision.map(Revision::parse).transpose();
        let current = self.current.map(RecordBody::into_record).transpose();
        match (revision, current) {
            (Ok(current_revision), Ok(current)) => Error::RevisionMismatch(Box::new(Conflict {
                current_revision,
                current,
            })),
            (Err(error), _) | (_, Err(error)) => Error::Internal(error.into()),
        }
    }

    fn quota_exceeded(self) -> Error {
        let known = QuotaName::ALL
            .into_iter()
            .find(|known| known.as_str() == self.quota);
        match known {
            Some(name) => Error::QuotaExceeded(Quota {
                name,
                limit: self.limit,
                used: self.used,
                attempted: self.attempted,
            }),
            None => Error::Internal("a quota without a name that is known".into()),
        }
    }
}
