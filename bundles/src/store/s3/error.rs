//! What a server says when it doesn't do what it is asked.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::super::{StoreError, Target};

/// A request that failed, in words: whatever the client keeps of it stays out of logs, where its headers
/// and their signatures would be.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refusal {
    text: String,
    status: Option<u16>,
    code: Option<String>,
    is_transient: bool,
}

impl Refusal {
    /// What went wrong with a request that is called `operation`.
    pub(super) fn of<E>(operation: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        match error {
            SdkError::ServiceError(error) => {
                let answered = error.err().meta();
                Self::answered(
                    operation,
                    error.raw().status().as_u16(),
                    answered.code(),
                    answered.message(),
                )
            }
            SdkError::TimeoutError(_) => Self::transient(format!("{operation} took too long")),
            SdkError::DispatchFailure(failure) => {
                let reason = failure.as_connector_error().map(chain);
                let reason = reason.unwrap_or_else(|| "no connection".to_owned());
                Self {
                    is_transient: !failure.is_user(),
                    ..Self::transient(format!("{operation} got no answer: {reason}"))
                }
            }
            SdkError::ResponseError(error) => {
                let status = error.raw().status().as_u16();
                Self {
                    is_transient: status < 300 || is_transient(status, None),
                    status: Some(status),
                    ..Self::transient(format!(
                        "{operation} was answered with {status} and a body that cannot be read"
                    ))
                }
            }
            error => Self {
                is_transient: false,
                ..Self::transient(format!("{operation} cannot be sent: {}", chain(error)))
            },
        }
    }

    fn transient(text: String) -> Self {
        Self {
            text,
            status: None,
            code: None,
            is_transient: true,
        }
    }

    pub(super) fn answered(
        operation: &str,
        status: u16,
        code: Option<&str>,
        message: Option<&str>,
    ) -> Self {
        let named = code.map(|code| format!(" {code}")).unwrap_or_default();
        let said = message
            .filter(|message| !message.is_empty())
            .map(|message| format!(" ({message})"))
            .unwrap_or_default();
        let advice = advice(status, code).map(|advice| format!(": {advice}"));
        let advice = advice.unwrap_or_default();
        Self {
            text: format!("{operation} was answered with {status}{named}{said}{advice}"),
            status: Some(status),
            code: code.map(str::to_owned),
            is_transient: is_transient(status, code),
        }
    }

    /// An answer that lacks what every server says.
    pub(super) fn without(operation: &str, what: &str) -> Self {
        Self {
            is_transient: false,
            ..Self::transient(format!("{operation} was answered without {what}"))
        }
    }

    pub(super) fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// The server doesn't know something that the request asks for.
    pub(super) fn is_not_implemented(&self) -> bool {
        self.status == Some(501)
    }

    /// A condition of the request didn't hold.
    pub(super) fn is_condition(&self) -> bool {
        self.status == Some(412)
    }

    /// The object, or the upload, is not there; its bucket is.
    pub(super) fn is_missing(&self) -> bool {
        self.status == Some(404) && self.code.as_deref() != Some("NoSuchBucket")
    }

    /// A part of an upload is not the one that was told.
    pub(super) fn is_other_part(&self) -> bool {
        self.code.as_deref() == Some("InvalidPart")
    }

    pub(super) fn into_error(self, target: impl Into<Target>) -> StoreError {
        if self.is_transient {
            StoreError::unavailable(target, self)
        } else {
            StoreError::failed(target, self)
        }
    }
}

/// Whether the same request may succeed later. What arrived damaged may arrive whole.
fn is_transient(status: u16, code: Option<&str>) -> bool {
    let passing = [
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch",
    ];
    matches!(status, 408 | 429 | 500 | 502..=504)
        || code.is_some_and(|code| passing.contains(&code))
}

/// What an operator can do about an answer.
fn advice(status: u16, code: Option<&str>) -> Option<&'static str> {
    let by_code = match code.unwrap_or_default() {
        "InvalidAccessKeyId" => Some("the server does not know this access key"),
        "SignatureDoesNotMatch" => Some(
            "the secret key does not belong to the access key, or something on the way changes requests",
        ),
        "NoSuchBucket" => Some("make the bucket, or name another one"),
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException" => {
            Some("the bucket is in another region or at another endpoint")
        }
        "RequestTimeTooSkewed" => Some("the clock here and that of the server differ"),
        "NotImplemented" => {
            Some("the server cannot do this; set checksums to when_required if they are not")
        }
        "InvalidBucketName" => Some("this is not the name of a bucket"),
        _ => None,
    };
    by_code.or(match status {
        301 | 307 => Some("the bucket is in another region or at another endpoint"),
        401 | 403 => Some(
            "the access key may not do this; let it read, write, remove and list objects and uploads of the \
             bucket",
        ),
        _ => None,
    })
}

/// An error with everything behind it.
fn chain<E: Error>(error: &E) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: &str) -> Refusal {
        Refusal::answered("PutObject", status, Some(code), None)
    }

    #[test]
    fn an_overloaded_server_is_asked_again_and_a_refusing_one_is_not() {
        for (status, code, is_transient) in [
            (503, "SlowDown", true),
            (500, "InternalError", true),
            (429, "", true),
            (400, "RequestTimeout", true),
            (400, "XAmzContentSHA256Mismatch", true),
            (409, "ConditionalRequestConflict", true),
            (501, "NotImplemented", false),
            (403, "AccessDenied", false),
            (404, "NoSuchBucket", false),
            (400, "InvalidArgument", false),
        ] {
            assert_eq!(
                answered(status, code).is_transient(),
                is_transient,
                "{status} {code}"
            );
        }
    }

    #[test]
    fn what_is_refused_says_what_to_do() {
        let text = answered(404, "NoSuchBucket").to_string();
        assert_eq!(
            text,
            "PutObject was answered with 404 NoSuchBucket: make the bucket, or name another one"
        );
        for (status, code) in [
            (403, "AccessDenied"),
            (403, "SignatureDoesNotMatch"),
            (301, ""),
        ] {
            assert!(answered(status, code).to_string().contains(": the "));
        }
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        assert!(answered(404, "NoSuchKey").is_missing());
        assert!(Refusal::answered("HeadObject", 404, None, None).is_missing());
        assert!(!answered(404, "NoSuchBucket").is_missing());
    }
}
