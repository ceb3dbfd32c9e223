//! What callers see of failures: one body, `{"error": {"code", "message", "details", "requestId"}}`, and
//! one that the interface for bundles had before there was this program, `{"error", "code", "requestId",
//! "details"}`.

use std::any::Any;
use std::time::Duration;

use alga_bundles::{ArchiveError, FetchError, ObjectKey, PublishError, RegisterError, StoreError};
use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use alga_registry::RegistryError;
use alga_storage::{
    BulkError, ErrorBody as StorageErrorBody, ErrorCode, ErrorDetails, ErrorMembers, Limit,
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::activity::TailRefused;
use crate::admin::AdminError;
use crate::admission::{Reason, Refusal};
use crate::engine::RunError;
use crate::execute::ExecuteError;
use crate::idempotency::Crowd;
use crate::uploads::{FinalizeError, FollowRefused, UploadError};

/// A request that was not answered as it wished.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The request makes no sense.
    BadRequest(String),
    /// No token, or none that is accepted.
    Unauthorized,
    /// The token is good, but not for this.
    Forbidden(&'static str),
    /// The envelope names another tenant, extension or content than the install has.
    ContextMismatch(&'static str),
    /// There is no such thing, or the caller may not know that there is.
    NotFound(&'static str),
    /// There is no such path.
    NoSuchPath,
    /// The path exists with other methods.
    MethodNotAllowed,
    /// The body is larger than the limit, in bytes.
    TooLarge(usize),
    /// The registry can't be asked.
    Unavailable,
    /// A fault of ours; what it was is in the log.
    Internal,
    /// The idempotency key belongs to another request.
    IdempotencyConflict,
    /// The same request is being answered, and takes longer than this one could wait.
    IdempotencyInProgress,
    /// The request was answered before, and its answer is not kept: status and size of that.
    IdempotencyAnswerNotKept(u16, u64),
    /// Too many requests with an idempotency key are there already.
    Crowded(Crowd, Refusal),
    /// The extension gave no answer.
    Execute(ExecuteError),
    /// An administrator did not get what was asked for.
    Admin(AdminError),
    /// An upload was not received.
    Upload(UploadError),
    /// The storage refused an operation, or failed.
    Storage(BulkError),
    /// A request to the storage is larger than the limit, in bytes.
    StorageBodyTooLarge(usize),
    /// Another process does this.
    Misdirected(&'static str),
}

/// How details are written where there are none.
const NO_DETAILS: &str = "{}";
/// How soon it makes sense to try again where nothing is known about that.
const RETRY_UNAVAILABLE: Duration = Duration::from_secs(1);
/// How soon somebody else may have stopped following an install: they are people.
const RETRY_TAIL: Duration = Duration::from_secs(5);

impl ApiError {
    /// One match without a wildcard: a new failure doesn't compile until its status is decided.
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::ContextMismatch(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::NoSuchPath => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge(_) | Self::StorageBodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::IdempotencyConflict
            | Self::IdempotencyInProgress
            | Self::IdempotencyAnswerNotKept(..) => StatusCode::CONFLICT,
            Self::Storage(failed) => {
                let status = failed.error.code().http_status();
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::Misdirected(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Upload(error) => match error {
                UploadError::Invalid(_)
                | UploadError::Size { .. }
                | UploadError::Hash { .. }
                | UploadError::IdTaken
                | UploadError::Gone
                | UploadError::Silent(_) => StatusCode::BAD_REQUEST,
                UploadError::TooLarge { .. } | UploadError::BeyondEnd { .. } => {
                    StatusCode::PAYLOAD_TOO_LARGE
                }
                UploadError::NotFound => StatusCode::NOT_FOUND,
                UploadError::Ended | UploadError::Published => StatusCode::GONE,
                UploadError::Offset { .. } | UploadError::Overwritten => StatusCode::CONFLICT,
                UploadError::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                UploadError::Version(_) => StatusCode::PRECONDITION_FAILED,
                UploadError::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
                UploadError::Busy | UploadError::Stopping | UploadError::Registry(_) => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                UploadError::Store(error) => store_status(error),
            },
            Self::Admin(error) => match error {
                AdminError::Finalize(error) => finalize_status(error),
                AdminError::Store(error) => store_status(error),
                AdminError::Invalid { .. } => StatusCode::BAD_REQUEST,
                AdminError::Elsewhere(_) | AdminError::RunsNothing => {
                    StatusCode::MISDIRECTED_REQUEST
                }
                AdminError::Forbidden(_) => StatusCode::FORBIDDEN,
                AdminError::NotFound(_) => StatusCode::NOT_FOUND,
                AdminError::Uninstalled
                | AdminError::ExtensionNotAllowed
                | AdminError::VersionInUse { .. }
                | AdminError::ApprovalNeeded(_)
                | AdminError::NothingToRollBack => StatusCode::CONFLICT,
                AdminError::Changed { .. } => StatusCode::PRECONDITION_FAILED,
                AdminError::GuardMissing => StatusCode::PRECONDITION_REQUIRED,
                AdminError::Tail(TailRefused::Install | TailRefused::Tenant) => {
                    StatusCode::TOO_MANY_REQUESTS
                }
                AdminError::Offline
                | AdminError::Stopping
                | AdminError::Tail(TailRefused::Process | TailRefused::Closed)
                | AdminError::Follow(FollowRefused::Process | FollowRefused::Closed)
                | AdminError::Registry(RegistryError::Unavailable { .. })
                | AdminError::Storage(alga_storage::Error::Unavailable(_)) => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                AdminError::Manifest(_) | AdminError::Registry(_) | AdminError::Storage(_) => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            },
            Self::Crowded(_, refusal) => refused(refusal.reason),
            Self::Execute(error) => match error {
                ExecuteError::Disabled => StatusCode::CONFLICT,
                ExecuteError::Bundle(error) => match **error {
                    FetchError::NotFound { .. } => StatusCode::NOT_FOUND,
                    FetchError::Integrity { .. }
                    | FetchError::ManifestIntegrity { .. }
                    | FetchError::Archive { .. }
                    | FetchError::Manifest { .. } => StatusCode::BAD_GATEWAY,
                    FetchError::Offline { .. }
                    | FetchError::Store(_)
                    | FetchError::Cache { .. }
                    | FetchError::Changed { .. }
                    | FetchError::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
                },
                ExecuteError::Component(_) => StatusCode::BAD_GATEWAY,
                ExecuteError::Refused(refusal) => refused(refusal.reason),
                ExecuteError::Registry(_) | ExecuteError::Compiler(_) | ExecuteError::Stopping => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
                ExecuteError::Run(error) => match error {
                    RunError::Trap { .. } | RunError::Nonsense(_) => StatusCode::BAD_GATEWAY,
                    RunError::Timeout | RunError::OutOfFuel => StatusCode::GATEWAY_TIMEOUT,
                    RunError::MemoryLimit | RunError::HostCallLimit { .. } => {
                        StatusCode::INSUFFICIENT_STORAGE
                    }
                    RunError::Host(_) => StatusCode::INTERNAL_SERVER_ERROR,
                },
            },
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BAD_REQUEST",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden(_) => "FORBIDDEN",
            Self::ContextMismatch(_) => "CONTEXT_MISMATCH",
            Self::NotFound(_) => "NOT_FOUND",
            // Not that of a record that there isn't: a client of the storage must not take it for one.
            Self::NoSuchPath => "NO_SUCH_PATH",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::TooLarge(_) => "TOO_LARGE",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
            Self::IdempotencyConflict => "IDEMPOTENCY_CONFLICT",
            Self::IdempotencyInProgress => "IDEMPOTENCY_IN_PROGRESS",
            Self::IdempotencyAnswerNotKept(..) => "IDEMPOTENCY_ANSWER_NOT_KEPT",
            Self::Crowded(_, refusal) => ExecuteError::Refused(*refusal).code(),
            Self::Execute(error) => error.code(),
            Self::Admin(error) => error.code(),
            Self::Upload(error) => error.code(),
            Self::Storage(failed) => failed.error.code().as_str(),
            Self::StorageBodyTooLarge(_) => ErrorCode::LimitExceeded.as_str(),
            Self::Misdirected(_) => "MISDIRECTED",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::BadRequest(message) => message.clone(),
            Self::Unauthorized => {
                "a token that is accepted is needed, as `Authorization: Bearer` or `x-runner-auth`"
                    .to_owned()
            }
            Self::Forbidden(message)
            | Self::ContextMismatch(message)
            | Self::NotFound(message)
            | Self::Misdirected(message) => (*message).to_owned(),
            Self::NoSuchPath => "there is no such path".to_owned(),
            Self::MethodNotAllowed => "this path does not have this method".to_owned(),
            Self::TooLarge(limit) | Self::StorageBodyTooLarge(limit) => {
                format!("the body may have at most {limit} bytes")
            }
            Self::Storage(failed) => failed.to_string(),
            Self::Unavailable => "the registry can't be reached".to_owned(),
            Self::Internal => "the runner failed".to_owned(),
            Self::IdempotencyConflict => {
                "the idempotency key was used for another request".to_owned()
            }
            Self::IdempotencyInProgress => {
                "the request with this idempotency key is still being answered".to_owned()
            }
            Self::IdempotencyAnswerNotKept(status, bytes) => format!(
                "the request was carried out with status {status}; its answer of {bytes} bytes is not kept"
            ),
            Self::Crowded(crowd, refusal) => crowd.told(refusal.reason).to_owned(),
            Self::Execute(error) => error.to_string(),
            Self::Admin(error) => error.to_string(),
            Self::Upload(error) => error.to_string(),
        }
    }

    fn details(&self) -> Box<RawValue> {
        match self {
            // Not through values, which would write numbers in their own way.
            Self::Storage(failed) => ErrorDetails(failed).to_json(),
            _ => to_raw_value(&self.plain_details()).unwrap_or_default(),
        }
    }

    fn plain_details(&self) -> Value {
        match self {
            Self::StorageBodyTooLarge(limit) => json!({ "name": Limit::BODY, "limit": limit }),
            Self::TooLarge(limit) => json!({ "limit": limit }),
            Self::IdempotencyAnswerNotKept(status, bytes) => {
                json!({ "status": status, "bytes": bytes })
            }
            Self::Execute(ExecuteError::Run(RunError::OutOfFuel)) => json!({ "limit": "fuel" }),
            Self::Admin(error) => error.details(),
            Self::Upload(UploadError::TooLarge { limit }) => json!({ "limit": limit }),
            Self::Upload(UploadError::Hash { actual, .. }) => json!({ "contentHash": actual }),
            Self::Upload(UploadError::Size { expected, .. }) => json!({ "size": expected }),
            Self::Upload(UploadError::BeyondEnd { size }) => json!({ "size": size }),
            Self::Upload(UploadError::Offset { actual }) => json!({ "offset": actual }),
            Self::Crowded(_, refusal) | Self::Execute(ExecuteError::Refused(refusal)) => {
                match refusal.reason {
                    Reason::Install => json!({ "limit": "install" }),
                    Reason::Tenant => json!({ "limit": "tenant" }),
                    Reason::Process | Reason::Closed => json!({}),
                }
            }
            _ => json!({}),
        }
    }

    /// How soon it makes sense to try again, where it does: whole seconds, at least one.
    fn retry_after(&self) -> Option<u64> {
        let wait = match self {
            Self::Crowded(_, Refusal { retry_after, .. })
            | Self::Execute(ExecuteError::Refused(Refusal { retry_after, .. }))
            | Self::Storage(BulkError {
                error: alga_storage::Error::RateLimited { retry_after },
                ..
            })
            | Self::Upload(UploadError::RateLimited { retry_after }) => *retry_after,
            Self::IdempotencyInProgress => RETRY_UNAVAILABLE,
            Self::Admin(AdminError::Tail(TailRefused::Install | TailRefused::Tenant)) => RETRY_TAIL,
            // Somebody has decided that: it doesn't pass by itself.
            Self::Admin(AdminError::Offline) => return None,
            Self::Execute(ExecuteError::Bundle(error))
                if matches!(**error, FetchError::Offline { .. }) =>
            {
                return None;
            }
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => RETRY_UNAVAILABLE,
            _ => return None,
        };
        Some(wait.as_millis().div_ceil(1_000).max(1)).and_then(|seconds| seconds.try_into().ok())
    }
}

const fn refused(reason: Reason) -> StatusCode {
    match reason {
        Reason::Install | Reason::Tenant => StatusCode::TOO_MANY_REQUESTS,
        Reason::Process | Reason::Closed => StatusCode::SERVICE_UNAVAILABLE,
    }
}

const fn store_status(error: &StoreError) -> StatusCode {
    match error {
        StoreError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        StoreError::NotFound { .. }
        | StoreError::Exists { .. }
        | StoreError::Changed { .. }
        | StoreError::TooLarge { .. }
        | StoreError::WrongSize { .. }
        | StoreError::WrongContent { .. }
        | StoreError::Failed { .. } => StatusCode::BAD_GATEWAY,
    }
}

const fn finalize_status(error: &FinalizeError) -> StatusCode {
    let error = match error {
        FinalizeError::Size { .. } | FinalizeError::TooLarge { .. } | FinalizeError::Absent(_) => {
            return StatusCode::BAD_REQUEST;
        }
        FinalizeError::Busy | FinalizeError::Registry(_) => return StatusCode::SERVICE_UNAVAILABLE,
        FinalizeError::Publish(error) => error,
    };
    match error {
        PublishError::Archive(error) => match error {
            // Also where the staged object is too large: the body of the request is not.
            ArchiveError::Damaged(_)
            | ArchiveError::NotZstd
            | ArchiveError::Rejected { .. }
            | ArchiveError::TooLarge { .. }
            | ArchiveError::HashMismatch { .. } => StatusCode::BAD_REQUEST,
            ArchiveError::Read(_) | ArchiveError::Write { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        },
        PublishError::ManifestRequired
        | PublishError::Manifest(_)
        | PublishError::Signature(_)
        | PublishError::Component(_)
        // The upload was changed or is gone: whoever did that knows.
        | PublishError::Store(
            StoreError::NotFound {
                key: ObjectKey::Staging(_),
            }
            | StoreError::WrongContent { .. }
            | StoreError::Changed { .. },
        ) => StatusCode::BAD_REQUEST,
        PublishError::Check(_) => StatusCode::SERVICE_UNAVAILABLE,
        PublishError::Store(error) => store_status(error),
        PublishError::StoreDamaged { .. } => StatusCode::BAD_GATEWAY,
        PublishError::ManifestConflict => StatusCode::CONFLICT,
        PublishError::Registry(error) => match error {
            RegisterError::PublisherMismatch => StatusCode::FORBIDDEN,
            RegisterError::DuplicateVersion { .. } | RegisterError::ManifestConflict => {
                StatusCode::CONFLICT
            }
            RegisterError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        },
        PublishError::Interrupted(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            code: self.code(),
            message: self.message(),
            details: self.details(),
            is_flat: false,
        };
        let mut response = self.status().into_response();
        if let Some(seconds) = self.retry_after() {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(body);
        response
    }
}

/// An error body without its request id, which the middleware that knows the id writes.
#[derive(Debug, Clone)]
pub(super) struct ErrorBody {
    code: &'static str,
    message: String,
    details: Box<RawValue>,
    is_flat: bool,
}

/// The body of a refusal where bundles are uploaded.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FlatBody<'a> {
    error: &'a str,
    code: &'a str,
    request_id: &'a str,
    /// Absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a RawValue>,
}

impl ErrorBody {
    /// The same in the shape, and with the code, that the interface for bundles has for it.
    pub(super) fn of_bundles(&mut self) {
        self.is_flat = true;
        self.code = match self.code {
            "FORBIDDEN" => "RBAC_FORBIDDEN",
            "INTERNAL" => "INTERNAL_ERROR",
            // Nothing else of theirs has this one.
            "UNAVAILABLE" => "REGISTRY_UNAVAILABLE",
            code => code,
        };
    }

    /// The response that carries this body.
    pub(super) fn write(self, response: Response, request_id: &str) -> Response {
        let (mut parts, _) = response.into_parts();
        let body = if self.is_flat {
            let details = (self.details.get() != NO_DETAILS).then_some(&*self.details);
            let flat = FlatBody {
                error: &self.message,
                code: self.code,
                request_id,
                details,
            };
            Json(flat).into_response()
        } else {
            let error = ErrorMembers {
                code: self.code.to_owned(),
                message: self.message,
                details: self.details,
                request_id: request_id.to_owned(),
            };
            Json(StorageErrorBody { error }).into_response()
        };
        parts.headers.extend(body.headers().clone());
        Response::from_parts(parts, body.into_body())
    }
}

/// A panic is a fault of ours; what it said is in the log, where the panic hook wrote it.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
    response.extensions_mut().insert(ErrorBody {
        code: "INTERNAL",
        message: "the runner failed".to_owned(),
        details: to_raw_value(&json!({})).unwrap_or_default(),
        is_flat: false,
    });
    response
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::Arc;

    use alga_bundles::{
        InvalidComponent, InvalidManifest, Issue, Rejection, SignatureError, SignatureFault,
        StagingKey,
    };
    use alga_model::{ContentHash, InstallId};

    use super::*;
    use crate::admin::{Difference, Missing, Mistakes};
    use crate::execute::OUTCOMES;
    use crate::storage_place::KeptElsewhere;
    use crate::uploads::{APPENDED, Absence, FINALIZED, Fault, UPLOADED};

    /// Every failure there is, once.
    fn all() -> Vec<ApiError> {
        let hash = ContentHash::of(b"");
        let bundle = |error| ApiError::Execute(ExecuteError::Bundle(Arc::new(error)));
        let refused = |reason| ApiError::Execute(Refusal::because(reason).into());
        let mut all = vec![
            ApiError::BadRequest("why".to_owned()),
            ApiError::Unauthorized,
            ApiError::Forbidden("why"),
            ApiError::ContextMismatch("why"),
            ApiError::NotFound("why"),
            ApiError::NoSuchPath,
            ApiError::MethodNotAllowed,
            ApiError::TooLarge(10),
            ApiError::Unavailable,
            ApiError::Internal,
            ApiError::IdempotencyConflict,
            ApiError::IdempotencyInProgress,
            ApiError::IdempotencyAnswerNotKept(200, 2_000_000),
            ApiError::Execute(ExecuteError::Disabled),
            bundle(FetchError::NotFound { hash }),
            bundle(FetchError::Integrity {
                expected: hash,
                actual: hash,
            }),
            bundle(FetchError::ManifestIntegrity {
                hash,
                expected: hash,
                actual: hash,
            }),
            bundle(FetchError::Archive {
                hash,
                source: Arc::new(ArchiveError::Damaged("cut short".to_owned())),
            }),
            bundle(FetchError::Manifest {
                hash,
                source: InvalidManifest { issues: Vec::new() },
            }),
            bundle(FetchError::Offline { hash, damage: None }),
            bundle(FetchError::Interrupted),
            ApiError::Execute(ExecuteError::Component("why".to_owned())),
            refused(Reason::Install),
            refused(Reason::Tenant),
            refused(Reason::Process),
            refused(Reason::Closed),
            ApiError::Execute(ExecuteError::Stopping),
            ApiError::Misdirected("why"),
            ApiError::StorageBodyTooLarge(10),
        ];
        let reasons = [
            Reason::Install,
            Reason::Tenant,
            Reason::Process,
            Reason::Closed,
        ];
        for crowd in [Crowd::LookUps, Crowd::Repeats] {
            let refusals = reasons.map(Refusal::because);
            all.extend(refusals.map(|refusal| ApiError::Crowded(crowd, refusal)));
        }
        let install = InstallId::new(uuid::Uuid::nil());
        let admin = [
            AdminError::invalid("the limits are", Mistakes::one("why")),
            AdminError::Forbidden("why"),
            AdminError::NotFound(Missing::Install(install)),
            AdminError::Changed {
                expected: 1,
                actual: 2,
            },
            AdminError::GuardMissing,
            AdminError::Uninstalled,
            AdminError::ExtensionNotAllowed,
            AdminError::VersionInUse {
                installs: vec![install],
            },
            AdminError::ApprovalNeeded(Difference::default()),
            AdminError::NothingToRollBack,
            AdminError::Tail(TailRefused::Install),
            AdminError::Tail(TailRefused::Tenant),
            AdminError::Tail(TailRefused::Process),
            AdminError::Tail(TailRefused::Closed),
            AdminError::Follow(FollowRefused::Process),
            AdminError::Follow(FollowRefused::Closed),
            AdminError::Registry(RegistryError::Unavailable {
                source: "inner".into(),
            }),
            AdminError::Registry(RegistryError::Internal {
                source: "inner".into(),
            }),
        ];
        all.extend(admin.map(ApiError::Admin));
        let not_here = [
            AdminError::Elsewhere(KeptElsewhere),
            AdminError::RunsNothing,
            AdminError::Offline,
            AdminError::Stopping,
        ];
        all.extend(not_here.map(ApiError::Admin));
        all.extend(of_bundles());
        all.extend(storage().map(ApiError::Storage));
        all.extend(RunError::each().map(|error| ApiError::Execute(ExecuteError::Run(error))));
        all
    }

    fn of_bundles() -> Vec<ApiError> {
        let mut all: Vec<_> = uploads().map(ApiError::Upload).into();
        all.extend(resumable().map(ApiError::Upload));
        let finalize = |error| ApiError::Admin(AdminError::Finalize(error));
        all.extend([
            finalize(FinalizeError::Size {
                declared: 1,
                actual: 2,
            }),
            finalize(FinalizeError::Busy),
        ]);
        all.extend(absences().map(|absence| finalize(FinalizeError::Absent(absence))));
        all.extend(publish().into_iter().map(|error| finalize(error.into())));
        all.extend(stores().map(|error| ApiError::Admin(error.into())));
        all
    }

    /// Everything that can be known of an upload that is not there, once.
    fn absences() -> [Absence; 8] {
        let (received, size) = (5, 10);
        let published = |hash| Absence::Published { hash };
        [
            Absence::Incomplete { received, size },
            Absence::Receiving { received, size },
            published(None),
            published(Some(ContentHash::of(b""))),
            Absence::PublishedOtherwise,
            Absence::Failed {
                code: "CANCELLED".to_owned(),
            },
            Absence::Aborted,
            Absence::Unknown,
        ]
    }

    fn staging() -> ObjectKey {
        StagingKey::new(uuid::Uuid::nil()).into()
    }

    /// How a store fails.
    fn stores() -> [StoreError; 2] {
        let target = || staging().into();
        [
            StoreError::Unavailable {
                target: target(),
                source: "inner".into(),
            },
            StoreError::Failed {
                target: target(),
                source: "inner".into(),
            },
        ]
    }

    /// Every failure of an upload, once.
    fn uploads() -> [UploadError; 12] {
        let hash = ContentHash::of(b"");
        let [unavailable, failed] = stores();
        [
            UploadError::Invalid("why".to_owned()),
            UploadError::TooLarge { limit: 10 },
            UploadError::Size {
                expected: 1,
                actual: 2,
            },
            UploadError::Hash {
                declared: hash,
                actual: hash,
            },
            UploadError::IdTaken,
            UploadError::Gone,
            UploadError::Silent(Duration::from_secs(60)),
            UploadError::RateLimited {
                retry_after: Duration::from_millis(1_500),
            },
            UploadError::Busy,
            UploadError::Stopping,
            UploadError::Store(unavailable),
            UploadError::Store(failed),
        ]
    }

    /// Every failure that only an upload in several requests has, once.
    fn resumable() -> [UploadError; 9] {
        [
            UploadError::NotFound,
            UploadError::Ended,
            UploadError::Published,
            UploadError::Offset { actual: 5 },
            UploadError::BeyondEnd { size: 10 },
            UploadError::MediaType("a/b"),
            UploadError::Version("1.0.0"),
            UploadError::Overwritten,
            UploadError::Registry(RegistryError::Unavailable {
                source: "inner".into(),
            }),
        ]
    }

    /// Every failure of publishing, once.
    fn publish() -> Vec<PublishError> {
        let hash = ContentHash::of(b"");
        let issue = Issue {
            path: "/name".to_owned(),
            message: "why".to_owned(),
        };
        let mut all = vec![
            PublishError::Signature(SignatureFault::Missing),
            PublishError::Signature(SignatureFault::Invalid(SignatureError::Malformed)),
            PublishError::Archive(ArchiveError::Damaged("cut short".to_owned())),
            PublishError::Archive(ArchiveError::NotZstd),
            PublishError::Archive(ArchiveError::Rejected {
                entry: "a".to_owned(),
                reason: Rejection::Duplicate,
            }),
            PublishError::Archive(ArchiveError::TooLarge { size: 2, limit: 1 }),
            PublishError::Archive(ArchiveError::HashMismatch {
                expected: hash,
                actual: hash,
            }),
            PublishError::Archive(ArchiveError::Read(std::io::ErrorKind::Other.into())),
            PublishError::ManifestRequired,
            PublishError::Manifest(InvalidManifest {
                issues: vec![issue],
            }),
            PublishError::Component(InvalidComponent {
                message: "why".to_owned(),
            }),
            PublishError::Check("inner".into()),
            PublishError::Store(StoreError::NotFound { key: staging() }),
            PublishError::Store(StoreError::Changed { key: staging() }),
            PublishError::StoreDamaged {
                key: ObjectKey::Bundle(hash),
                size: 1,
                expected: 2,
            },
            PublishError::ManifestConflict,
            PublishError::Registry(RegisterError::PublisherMismatch),
            PublishError::Registry(RegisterError::DuplicateVersion { existing: hash }),
            PublishError::Registry(RegisterError::Unavailable {
                source: "inner".into(),
            }),
        ];
        all.extend(stores().map(PublishError::Store));
        all
    }

    #[test]
    fn every_failure_of_an_upload_is_an_outcome() {
        for error in uploads() {
            assert!(UPLOADED.outcomes.contains(&error.code()), "{error:?}");
        }
        for error in resumable() {
            assert!(APPENDED.outcomes.contains(&error.code()), "{error:?}");
        }
        for error in publish() {
            let error = FinalizeError::from(error);
            assert!(FINALIZED.outcomes.contains(&error.code()), "{error:?}");
        }
    }

    #[test]
    fn who_is_to_blame_for_an_upload_that_was_not_published_is_told_by_the_status() {
        for error in publish() {
            let error = FinalizeError::from(error);
            let is_of_the_host = error.fault() != Fault::Caller;
            let status = finalize_status(&error);
            assert_eq!(status.is_server_error(), is_of_the_host, "{error:?}");
        }
    }

    /// Every failure of the storage, once.
    fn storage() -> [BulkError; 11] {
        use alga_storage::{
            Conflict, Error, FailedItem, Key, Namespace, Quota, QuotaName, Record, Revision,
            Violation,
        };
        let json = |text| alga_storage::JsonText::parse(text).unwrap();
        let time = alga_model::Timestamp::from_millis(1_800_000_000_000);
        let current = Record {
            key: Key::parse("a").unwrap(),
            value: json("1e5"),
            metadata: json("{}"),
            revision: Revision::FIRST,
            expires_at: None,
            created_at: time,
            updated_at: time,
        };
        let of_item = |error| BulkError {
            item: Some(FailedItem {
                index: 1,
                key: "a".to_owned(),
            }),
            error,
        };
        [
            Violation::argument("key", "why").into(),
            Error::LimitExceeded(Limit {
                name: "value-bytes",
                limit: 1,
                actual: 2,
            })
            .into(),
            Error::Unauthorized.into(),
            Error::CapabilityDenied.into(),
            Error::NamespaceDenied(Namespace::parse("notes").unwrap()).into(),
            Error::NotFound.into(),
            of_item(Error::RevisionMismatch(Box::new(Conflict {
                current_revision: Some(Revision::FIRST),
                current: Some(current),
            }))),
            of_item(Error::QuotaExceeded(Quota {
                name: QuotaName::Namespaces,
                limit: 1,
                used: 1,
                attempted: 2,
            })),
            Error::RateLimited {
                retry_after: Duration::from_millis(1_500),
            }
            .into(),
            Error::Unavailable("inner".into()).into(),
            Error::Internal("inner".into()).into(),
        ]
    }

    #[test]
    fn when_to_try_again_is_said_in_whole_seconds() {
        let after = |millis| {
            let refusal = Refusal {
                reason: Reason::Install,
                retry_after: Duration::from_millis(millis),
            };
            ApiError::Execute(refusal.into()).retry_after()
        };
        assert_eq!(after(0), Some(1));
        assert_eq!(after(1_000), Some(1));
        assert_eq!(after(1_001), Some(2));
        assert_eq!(ApiError::Unavailable.retry_after(), Some(1));
        assert_eq!(ApiError::IdempotencyInProgress.retry_after(), Some(1));
        assert_eq!(ApiError::Internal.retry_after(), None);
        let hash = ContentHash::of(b"");
        let offline = Arc::new(FetchError::Offline { hash, damage: None });
        for fixed in [
            ApiError::Admin(AdminError::Offline),
            ApiError::Execute(ExecuteError::Bundle(offline)),
        ] {
            assert_eq!(fixed.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(fixed.retry_after(), None, "{fixed:?}");
        }
    }

    #[test]
    fn every_failure_of_a_call_that_was_let_in_is_an_outcome() {
        for error in all() {
            match error {
                ApiError::Execute(ExecuteError::Disabled | ExecuteError::Refused(_)) => {}
                ApiError::Execute(error) => {
                    assert!(OUTCOMES.contains(&error.code()), "{error:?}");
                }
                _ => {}
            }
        }
    }

    async fn written(mut error: ErrorBody, of_bundles: bool) -> Value {
        if of_bundles {
            error.of_bundles();
        }
        let written = error.write(StatusCode::OK.into_response(), "req-1");
        let body = axum::body::to_bytes(written.into_body(), 1 << 20).await;
        serde_json::from_slice(&body.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_interface_for_bundles_has_a_body_of_its_own() {
        let body = |error: ApiError| {
            let mut response = error.into_response();
            response.extensions_mut().remove::<ErrorBody>().unwrap()
        };
        let forbidden = body(ApiError::Forbidden("why"));
        let nested = json!({ "error": {
            "code": "FORBIDDEN", "message": "why", "details": {}, "requestId": "req-1",
        } });
        assert_eq!(written(forbidden.clone(), false).await, nested);
        let flat = json!({ "error": "why", "code": "RBAC_FORBIDDEN", "requestId": "req-1" });
        assert_eq!(written(forbidden, true).await, flat);
        let too_large = body(ApiError::Upload(UploadError::TooLarge { limit: 10 }));
        let flat = json!({
            "error": "a bundle may have at most 10 bytes",
            "code": "TOO_LARGE",
            "requestId": "req-1",
            "details": { "limit": 10 },
        });
        assert_eq!(written(too_large, true).await, flat);
    }

    #[test]
    fn the_table_of_codes() {
        let mut table = String::new();
        for error in all() {
            writeln!(
                table,
                "{} {:<20} {} {}",
                error.status().as_u16(),
                error.code(),
                error.message(),
                error.details()
            )
            .unwrap();
        }
        insta::assert_snapshot!(table);
        assert!(
            !table.contains("backtrace") && !table.contains("inner"),
            "what lies behind is for the log"
        );
    }
}
