//! `POST /api/ext-bundles/upload-proxy`: a bundle on its way to the store.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, Uri};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;

use super::admin::{query, refused};
use crate::admin::{AdminError, Members, UploadQuery, UploadedBody};
use crate::http::AppState;
use crate::http::auth::Administrator;
use crate::http::error::ApiError;
use crate::uploads::{NewUpload, UploadError};

/// What a bundle is where its sender doesn't say.
pub(super) const DEFAULT_TYPE: &str = "application/octet-stream";
/// How long a client that is refused may go on sending. One that is cut off while it sends may never get
/// to see why.
const LINGER: Duration = Duration::from_secs(5);

/// The route of uploads, which no limit for other bodies applies to.
pub(crate) fn router() -> Router<AppState> {
    Router::new().route(UploadQuery::PATH, post(upload))
}

async fn upload(
    State(state): State<AppState>,
    administrator: Result<Administrator, ApiError>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Result<Json<UploadedBody>, ApiError> {
    let mut body = Incoming::of(body);
    let received = receive(&state, administrator, &headers, &uri, &mut body).await;
    if let Err(error) = &received {
        body.linger(&headers, error).await;
    }
    received.map(Json)
}

/// Whether there is time for a client to send on. A process that stops has none.
const fn may_linger(error: &ApiError) -> bool {
    !matches!(error, ApiError::Upload(UploadError::Stopping))
}

/// The bytes of an upload.
pub(super) struct Incoming<S> {
    bytes: S,
    /// Whether anybody has asked for them, which is when a client that waits is told to go on.
    is_asked_for: bool,
}

impl Incoming<BodyDataStream> {
    pub(super) fn of(body: Body) -> Self {
        Self {
            bytes: body.into_data_stream(),
            is_asked_for: false,
        }
    }

    /// Lets a client go on sending for a while that was refused.
    pub(super) async fn linger(&mut self, headers: &HeaderMap, refused: &ApiError) {
        if self.may_be_under_way(headers) && may_linger(refused) {
            let rest = async { while let Some(Ok(_)) = self.bytes.next().await {} };
            let _ = timeout(LINGER, rest).await;
        }
    }
}

impl<S> Incoming<S> {
    /// Whether a client may be sending. One that waits to be told to go on has sent nothing yet.
    fn may_be_under_way(&self, headers: &HeaderMap) -> bool {
        self.is_asked_for || !headers.contains_key(EXPECT)
    }
}

impl<S: Stream + Unpin> Stream for Incoming<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.is_asked_for = true;
        self.bytes.poll_next_unpin(context)
    }
}

async fn receive(
    state: &AppState,
    administrator: Result<Administrator, ApiError>,
    headers: &HeaderMap,
    uri: &Uri,
    body: &mut Incoming<BodyDataStream>,
) -> Result<UploadedBody, ApiError> {
    let Administrator(author) = administrator?;
    let intake = &state.app.admin.uploads(&author).map_err(refused)?.intake;
    let asked = asked(uri);
    let announced = match &asked {
        Ok(asked) => announced(asked, headers, intake.most_bytes()),
        Err(mistakes) => Err(UploadError::Invalid(mistakes.clone())),
    };
    let received = intake.receive(&author.actor, announced, body).await;
    let received = received.map_err(ApiError::Upload)?;
    let filename = asked.map(|asked| asked.filename).unwrap_or_default();
    Ok(UploadedBody::of(&received, filename))
}

/// What the query says, or everything that is wrong with it.
fn asked(uri: &Uri) -> Result<UploadQuery, String> {
    let asked = query(uri).and_then(|query| Members::parse(query).map_err(refused));
    asked.map_err(|error| match error {
        ApiError::Admin(AdminError::Invalid { mistakes, .. }) => mistakes.texts().join("; "),
        _ => "the query makes no sense".to_owned(),
    })
}

/// What the query says of an upload, if the headers don't say otherwise.
fn announced(
    asked: &UploadQuery,
    headers: &HeaderMap,
    most_bytes: u64,
) -> Result<NewUpload, UploadError> {
    let text = |name| headers.get(name)?.to_str().ok();
    let length: Option<u64> = text(CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let content_type = text(CONTENT_TYPE).unwrap_or(DEFAULT_TYPE);
    if is_form(content_type) {
        return Err(UploadError::Invalid(
            "the body is a form (multipart/form-data), not the file; send the file itself, \
             as `curl --data-binary @FILE` does"
                .to_owned(),
        ));
    }
    match length {
        Some(length) if length > most_bytes => {
            return Err(UploadError::TooLarge { limit: most_bytes });
        }
        Some(length) if length == asked.size => {}
        Some(length) => {
            return Err(UploadError::Invalid(format!(
                "size: it is {}, but the body has {length} bytes",
                asked.size
            )));
        }
        None => {}
    }
    Ok(asked.announced(content_type))
}

/// Whether a body has the file in it among other things, so that neither its size nor its hash would be those of the
/// file. What `curl --data-binary` calls a form when nobody says a type is none.
fn is_form(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("multipart/form-data")
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn who_waits_to_be_told_to_go_on_sends_nothing_before_that() {
        let mut waiting = HeaderMap::new();
        waiting.insert(EXPECT, HeaderValue::from_static("100-continue"));
        let mut body = Incoming {
            bytes: stream::iter([1, 2]),
            is_asked_for: false,
        };
        assert!(body.may_be_under_way(&HeaderMap::new()));
        assert!(!body.may_be_under_way(&waiting));
        assert_eq!(body.next().await, Some(1));
        assert!(body.may_be_under_way(&waiting));
    }

    #[test]
    fn a_process_that_stops_waits_for_nobody_to_send_on() {
        assert!(!may_linger(&ApiError::Upload(UploadError::Stopping)));
        assert!(may_linger(&ApiError::Upload(UploadError::IdTaken)));
        assert!(may_linger(&ApiError::Unauthorized));
    }

    fn code(
        query: &str,
        headers: &[(HeaderName, &'static str)],
    ) -> Result<NewUpload, &'static str> {
        let uri = format!("/api/ext-bundles/upload-proxy?{query}");
        let asked = asked(&uri.parse().unwrap()).map_err(|_| "BAD_REQUEST")?;
        let headers = headers.iter().cloned();
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        announced(&asked, &headers.collect(), 100).map_err(|error| error.code())
    }

    #[test]
    fn an_upload_is_announced_by_its_query() {
        let hash = "0".repeat(64);
        let query = format!(
            "filename=a.tar.zst&size=9&declaredHash={hash}&uploadId=0b9a8c3e-5a1f-4c6d-9e2b-7f3a1d5c8e90"
        );
        let new = code(&query, &[(CONTENT_TYPE, "application/zstd")]).unwrap();
        assert_eq!(new.size, 9);
        assert_eq!(new.declared_hash.map(|it| it.to_hex()), Some(hash));
        assert!(new.id.is_some());
        assert_eq!(new.content_type, "application/zstd");
        let plain = code("filename=a&size=9", &[(CONTENT_LENGTH, "9")]).unwrap();
        assert_eq!(plain.content_type, DEFAULT_TYPE);
    }

    #[test]
    fn a_query_that_makes_no_sense_is_refused() {
        for query in [
            "",
            "size=9",
            "filename=&size=9",
            "filename=a",
            "filename=a&size=",
            "filename=a&size=-1",
            "filename=a&size=1e3",
            "filename=a&size=18446744073709551616",
            "filename=a&size=9&size=9",
            "filename=a&size=9&declaredHash=abc",
            "filename=a&size=9&uploadId=abc",
            "filename=a&size=9&other=1",
        ] {
            assert_eq!(code(query, &[]), Err("BAD_REQUEST"), "{query}");
        }
        let long = format!("size=9&filename={}", "a".repeat(256));
        assert_eq!(code(&long, &[]), Err("BAD_REQUEST"));
        assert!(code(&long[..long.len() - 1], &[]).is_ok());
    }

    #[test]
    fn a_length_that_is_not_the_size_is_refused() {
        let of = |size: u64, length| {
            code(
                &format!("filename=a&size={size}"),
                &[(CONTENT_LENGTH, length)],
            )
            .map(drop)
        };
        assert_eq!(of(100, "100"), Ok(()));
        assert_eq!(of(100, "99"), Err("BAD_REQUEST"));
        assert_eq!(of(99, "100"), Err("BAD_REQUEST"));
        assert_eq!(of(100, "101"), Err("TOO_LARGE"));
        assert_eq!(of(101, "101"), Err("TOO_LARGE"));
    }

    #[test]
    fn the_file_is_the_body_and_not_a_part_of_it() {
        let of =
            |content_type| code("filename=a&size=9", &[(CONTENT_TYPE, content_type)]).map(drop);
        for form in ["multipart/form-data; boundary=a", "Multipart/Form-Data"] {
            assert_eq!(of(form), Err("BAD_REQUEST"), "{form}");
        }
        // What curl says of `--data-binary` unless told otherwise.
        assert_eq!(of("application/x-www-form-urlencoded"), Ok(()));
    }

    #[test]
    fn an_id_that_is_none_is_told_what_it_must_be() {
        let uri = "/api/ext-bundles/upload-proxy?filename=a&size=9&uploadId=nope";
        let mistakes = asked(&uri.parse().unwrap()).unwrap_err();
        assert_eq!(mistakes, "uploadId: must be a UUID");
    }
}
