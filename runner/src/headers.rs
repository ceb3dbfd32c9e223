//! Which headers pass between callers and guests.
//!
//! A guest is third-party code: it must never see a credential of the caller, and its answer must
//! not be able to act on the product's origin.

use std::collections::HashSet;

use alga_host_api::Header;
use axum::http::{HeaderName, HeaderValue};

/// Headers of one hop (RFC 9110, section 7.6.1), which are nobody's business beyond it.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "x-runner-auth"];
const CREDENTIAL_PREFIXES: [&str; 2] = ["proxy-", "x-alga-"];
/// What whoever passes a request on, or repeats it, writes anew: for tracing, and about the way it took.
const OF_THE_WAY: [&str; 14] = [
    "b3",
    "baggage",
    "content-length",
    "date",
    "forwarded",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "via",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-real-ip",
    "x-request-id",
];
const OF_THE_WAY_PREFIXES: [&str; 3] = ["x-b3-", "x-envoy-", "x-forwarded-"];
/// The host sets the length of an answer and its ids itself. The others act on more than the
/// answer: on the cookies, caches, credentials or later requests of the whole origin.
const NOT_FROM_GUEST: [&str; 13] = [
    "alt-svc",
    "clear-site-data",
    "content-length",
    "nel",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "www-authenticate",
    "x-request-id",
];
const NOT_FROM_GUEST_PREFIXES: [&str; 3] = ["access-control-", "proxy-", "x-alga-"];

/// Headers of an answer, and bytes of their names and values. Common clients and proxies refuse more
/// than a hundred, those of everybody on the way included.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 32 << 10;

/// What of a request's headers a guest gets to see, with lowercase names.
pub(crate) fn to_guest(headers: Vec<Header>) -> Vec<Header> {
    let named = named_by_connection(&headers);
    lowercase(headers)
        .filter(|header| {
            let name = header.name.as_str();
            !HOP_BY_HOP.contains(&name)
                && !CREDENTIALS.contains(&name)
                && !CREDENTIAL_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
                && !named.contains(name)
        })
        .collect()
}

/// Whether a header, by its lowercase name, may be another one when the same request is repeated.
pub(crate) fn changes_on_the_way(name: &str) -> bool {
    OF_THE_WAY.contains(&name)
        || OF_THE_WAY_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// What of a guest's headers its caller gets to see.
///
/// # Errors
/// Says which header is none.
pub(crate) fn from_guest(headers: Vec<Header>) -> Result<Vec<Header>, String> {
    let bytes: usize = headers
        .iter()
        .map(|header| header.name.len() + header.value.len())
        .sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let count = headers.len();
        return Err(format!(
            "it has {count} headers of {bytes} bytes; {MAX_HEADERS} of {MAX_HEADER_BYTES} bytes are allowed"
        ));
    }
    let named = named_by_connection(&headers);
    for header in &headers {
        checked(&header.name, &header.value)?;
    }
    Ok(lowercase(headers)
        .filter(|header| {
            let name = header.name.as_str();
            !HOP_BY_HOP.contains(&name)
                && !NOT_FROM_GUEST.contains(&name)
                && !NOT_FROM_GUEST_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
                && !named.contains(name)
        })
        .collect())
}

fn lowercase(headers: Vec<Header>) -> impl Iterator<Item = Header> {
    headers.into_iter().map(|mut header| {
        header.name.make_ascii_lowercase();
        header
    })
}

/// The name in lowercase, if name and value are what HTTP allows.
///
/// # Errors
/// Says which header is none.
pub(crate) fn checked(name: &str, value: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{:?} is no name of a header", truncated(name)))?;
    HeaderValue::from_str(value).map_err(|_| {
        format!(
            "the header {:?} has no valid value",
            truncated(parsed.as_str())
        )
    })?;
    Ok(parsed)
}

/// The headers that `Connection` declares to be of this hop.
fn named_by_connection(headers: &[Header]) -> HashSet<String> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("connection"))
        .flat_map(|header| header.value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect()
}

fn truncated(name: &str) -> &str {
    name.get(..name.floor_char_boundary(64)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<Header> {
        list.iter()
            .map(|(name, value)| Header {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect()
    }

    fn names(headers: Vec<Header>) -> Vec<String> {
        headers.into_iter().map(|header| header.name).collect()
    }

    #[test]
    fn a_guest_sees_no_credential_and_no_hop() {
        let passed = to_guest(headers(&[
            ("Accept", "*/*"),
            ("AUTHORIZATION", "Bearer secret"),
            ("Cookie", "session=1"),
            ("Proxy-Authorization", "Basic x"),
            ("X-Runner-Auth", "secret"),
            ("x-alga-admin", "true"),
            ("X-Alga-Anything", "1"),
            ("Connection", "close, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "websocket"),
            ("x-authorization", "kept: not a credential of ours"),
        ]));
        assert_eq!(names(passed), ["accept", "x-authorization"]);
    }

    #[test]
    fn an_answer_acts_on_no_other_origin() {
        let passed = from_guest(headers(&[
            ("Content-Type", "text/html"),
            ("Set-Cookie", "a=b"),
            ("Access-Control-Allow-Origin", "*"),
            ("Strict-Transport-Security", "max-age=1"),
            ("Connection", "x-gone"),
            ("X-Gone", "1"),
            ("Content-Length", "7"),
            ("X-Alga-Actor", "admin"),
            ("ETag", "\"1\""),
            ("Clear-Site-Data", "\"*\""),
            ("WWW-Authenticate", "Basic"),
            ("Proxy-Authenticate", "Basic"),
        ]));
        assert_eq!(names(passed.unwrap()), ["content-type", "etag"]);
    }

    #[test]
    fn headers_of_an_answer_are_allowed_to_the_limit() {
        let many = |count: usize| {
            (0..count)
                .map(|i| Header {
                    name: format!("x-{i}"),
                    value: "1".to_owned(),
                })
                .collect()
        };
        assert!(from_guest(many(MAX_HEADERS)).is_ok());
        assert!(from_guest(many(MAX_HEADERS + 1)).is_err());
        let large = |bytes: usize| {
            vec![Header {
                name: "x".to_owned(),
                value: "v".repeat(bytes - 1),
            }]
        };
        assert!(from_guest(large(MAX_HEADER_BYTES)).is_ok());
        assert!(from_guest(large(MAX_HEADER_BYTES + 1)).is_err());
    }

    #[test]
    fn a_header_that_is_none_is_named() {
        for (name, value) in [
            ("a b", "1"),
            ("", "1"),
            ("a", "1\r\nset-cookie: x=y"),
            ("a", "\0"),
        ] {
            assert!(
                from_guest(headers(&[(name, value)])).is_err(),
                "{name:?}: {value:?}"
            );
        }
    }
}
