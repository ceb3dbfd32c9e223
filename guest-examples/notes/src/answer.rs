//! Responses, and what each failure looks like from outside.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::bindings::alga::storage::types::{Conflict, Error, Limit, Quota, Violation};
use crate::bindings::exports::alga::extension::handler::{Header, Response};
use crate::json::{self, Malformed, Object, decimal};

/// Why a request is not answered with what it asked for.
pub enum Failure {
    UnknownPath,
    WrongMethod {
        allow: &'static str,
    },
    /// The request itself is wrong; the text says what to do about it.
    BadRequest(&'static str),
    /// A record that somebody else wrote, in another shape.
    NotANote,
    Storage(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::BadRequest(match malformed {
            Malformed::Syntax => "the body must be a JSON object whose members are text",
            Malformed::UnknownMember => "the body has a member that isn't known here",
            Malformed::DuplicateMember => "the body has a member twice",
        })
    }
}

/// A response with a JSON body.
pub fn json(status: u16, body: String) -> Response {
    Response {
        status,
        headers: vec![header("content-type", "application/json")],
        body: Some(body.into_bytes()),
    }
}

pub fn no_content() -> Response {
    Response {
        status: 204,
        headers: Vec::new(),
        body: None,
    }
}

/// A response with a note that is stored, and its revision as `ETag` for a later `if-match`.
pub fn saved(status: u16, id: &str, revision: u64, value: &str) -> Response {
    let mut response = json(status, note(id, revision, value));
    let etag = ["\"", &decimal(revision), "\""].concat();
    response.headers.push(header("etag", etag));
    response
}

/// A note as it appears in a body.
pub fn note(id: &str, revision: u64, value: &str) -> String {
    Object::new()
        .text("id", id)
        .number("revision", revision)
        .raw("note", value)
        .finish()
}

pub fn header(name: &str, value: impl Into<String>) -> Header {
    Header {
        name: name.into(),
        value: value.into(),
    }
}

/// The answer to a request that failed.
pub fn failure(failure: Failure) -> Response {
    match failure {
        Failure::UnknownPath => error(404, "NOT_FOUND", "there is nothing at this path"),
        Failure::WrongMethod { allow } => {
            let mut response = error(405, "METHOD_NOT_ALLOWED", "this path has other methods");
            response.headers.push(header("allow", allow));
            response
        }
        Failure::BadRequest(message) => error(400, "BAD_REQUEST", message),
        Failure::NotANote => error(409, "NOT_A_NOTE", "what is stored here isn't a note"),
        Failure::Storage(error) => storage_failure(error),
    }
}

/// One arm for each case and no wildcard: when storage learns to fail in a new way, this stops
/// compiling rather than answering something vague.
fn storage_failure(failure: Error) -> Response {
    match failure {
        Error::ValidationFailed(violations) => invalid(&violations),
        Error::LimitExceeded(limit) => too_large(&limit),
        Error::Unauthorized | Error::CapabilityDenied => error(
            403,
            "CAPABILITY_DENIED",
            "this install may not do that with storage",
        ),
        Error::NamespaceDenied(_) => error(
            403,
            "NAMESPACE_DENIED",
            "this install may not use the notes' namespace",
        ),
        Error::NotFound => error(404, "NOT_FOUND", "there is no such note"),
        Error::RevisionMismatch(conflict) => changed(&conflict),
        Error::QuotaExceeded(quota) => full(&quota),
        Error::RateLimited(retry_after_ms) => {
            let mut response = error(429, "RATE_LIMITED", "too many requests, try again later");
            // The header counts whole seconds; rounding down would invite a request too early.
            let seconds = decimal(retry_after_ms.div_ceil(1000));
            response.headers.push(header("retry-after", seconds));
            response
        }
        Error::Unavailable => error(
            503,
            "UNAVAILABLE",
            "storage didn't answer; a change may have been made, so read before trying again",
        ),
        Error::Internal(request_id) => respond(
            500,
            details("INTERNAL", "storage failed").text("requestId", &request_id),
        ),
    }
}

fn invalid(violations: &[Violation]) -> Response {
    let violations = json::array(violations.iter().map(|violation| {
        Object::new()
            .text("instancePath", &violation.instance_path)
            .text("schemaPath", &violation.schema_path)
            .text("message", &violation.message)
            .finish()
    }));
    let details = details("VALIDATION_FAILED", "storage refused a value");
    respond(400, details.raw("violations", &violations))
}

fn too_large(limit: &Limit) -> Response {
    let details = details(
        "LIMIT_EXCEEDED",
        "this request asks for more than storage allows",
    )
    .text("name", &limit.name)
    .number("limit", limit.limit)
    .number("actual", limit.actual);
    respond(400, details)
}

fn full(quota: &Quota) -> Response {
    let details = details(
        "QUOTA_EXCEEDED",
        "there is no room left, remove something first",
    )
    .text("quota", &quota.name)
    .number("limit", quota.limit)
    .number("used", quota.used)
    .number("attempted", quota.attempted);
    respond(429, details)
}

/// A conflict shows what is stored, so that a page can offer to merge without asking again.
fn changed(conflict: &Conflict) -> Response {
    let details = details(
        "REVISION_MISMATCH",
        "the note isn't what this request expects",
    );
    let details = match conflict.current_revision {
        Some(revision) => details.number("currentRevision", revision),
        None => details.raw("currentRevision", "null"),
    };
    let details = match &conflict.current {
        Some(entry) => details.raw("current", &note(&entry.key, entry.revision, &entry.value)),
        None => details.raw("current", "null"),
    };
    respond(409, details)
}

fn error(status: u16, code: &str, message: &str) -> Response {
    respond(status, details(code, message))
}

fn details(code: &str, message: &str) -> Object {
    Object::new().text("code", code).text("message", message)
}

fn respond(status: u16, details: Object) -> Response {
    json(
        status,
        Object::new().raw("error", &details.finish()).finish(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::alga::storage::types::Entry;

    fn answered(error: Error) -> (u16, String) {
        let response = failure(error.into());
        (
            response.status,
            String::from_utf8(response.body.unwrap()).unwrap(),
        )
    }

    #[test]
    fn every_storage_error_has_its_status() {
        let limit = Limit {
            name: String::new(),
            limit: 1,
            actual: 2,
        };
        let quota = Quota {
            name: String::new(),
            limit: 1,
            used: 1,
            attempted: 2,
        };
        let conflict = Conflict {
            current_revision: None,
            current: None,
        };
        for (error, status, code) in [
            (
                Error::ValidationFailed(Vec::new()),
                400,
                "VALIDATION_FAILED",
            ),
            (Error::LimitExceeded(limit), 400, "LIMIT_EXCEEDED"),
            (Error::Unauthorized, 403, "CAPABILITY_DENIED"),
            (Error::CapabilityDenied, 403, "CAPABILITY_DENIED"),
            (
                Error::NamespaceDenied("notes".to_owned()),
                403,
                "NAMESPACE_DENIED",
            ),
            (Error::NotFound, 404, "NOT_FOUND"),
            (Error::RevisionMismatch(conflict), 409, "REVISION_MISMATCH"),
            (Error::QuotaExceeded(quota), 429, "QUOTA_EXCEEDED"),
            (Error::RateLimited(1), 429, "RATE_LIMITED"),
            (Error::Unavailable, 503, "UNAVAILABLE"),
            (Error::Internal("r".to_owned()), 500, "INTERNAL"),
        ] {
            let (answered, body) = answered(error);
            assert_eq!(answered, status, "{code}");
            assert!(
                body.starts_with(&format!(r#"{{"error":{{"code":"{code}","message":""#)),
                "{body}"
            );
        }
    }

    #[test]
    fn a_conflict_shows_what_is_stored() {
        let entry = Entry {
            key: "todo".to_owned(),
            value: r#"{"title":"T","text":""}"#.to_owned(),
            metadata: "{}".to_owned(),
            revision: 7,
            expires_at: None,
            created_at: 0,
            updated_at: 0,
        };
        let conflict = Conflict {
            current_revision: Some(7),
            current: Some(entry),
        };
        let (_, body) = answered(Error::RevisionMismatch(conflict));
        let stored = r#""currentRevision":7,"current":{"id":"todo","revision":7,"note":{"title":"T","text":""}}}}"#;
        assert!(body.ends_with(stored), "{body}");
    }

    #[test]
    fn a_violation_names_its_place() {
        let violation = Violation {
            instance_path: "/title".to_owned(),
            schema_path: "/properties/title/maxLength".to_owned(),
            message: "too \"long\"".to_owned(),
        };
        let (_, body) = answered(Error::ValidationFailed(vec![violation]));
        let listed = r#""violations":[{"instancePath":"/title","schemaPath":"/properties/title/maxLength","message":"too \"long\""}]}}"#;
        assert!(body.ends_with(listed), "{body}");
    }

    #[test]
    fn the_wait_for_the_rate_is_rounded_up() {
        for (milliseconds, seconds) in [(0, "0"), (1, "1"), (1000, "1"), (1001, "2")] {
            let response = failure(Error::RateLimited(milliseconds).into());
            let retry_after = response
                .headers
                .iter()
                .find(|header| header.name == "retry-after");
            assert_eq!(
                retry_after.map(|header| header.value.as_str()),
                Some(seconds)
            );
        }
    }

    #[test]
    fn a_wrong_method_is_answered_with_allow() {
        let response = failure(Failure::WrongMethod { allow: "GET" });
        assert_eq!(response.status, 405);
        assert!(
            response
                .headers
                .iter()
                .any(|header| header.name == "allow" && header.value == "GET")
        );
    }
}
