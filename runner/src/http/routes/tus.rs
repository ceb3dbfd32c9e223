//! `/api/ext-bundles/tus`: uploads that are gone on with after an interruption, by the protocol of
//! [tus](https://tus.io/protocols/resumable-upload) in version 1.0.

use alga_bundles::StagingKey;
use alga_model::{ContentHash, Timestamp};
use alga_registry::{BundleUpload, UploadState};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{head, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use super::admin::{refused, target};
use super::bundles::Incoming;
use crate::admin::{Author, MAX_FILENAME_BYTES, TUS, TUS_UPLOAD};
use crate::http::AppState;
use crate::http::auth::Administrator;
use crate::http::error::ApiError;
use crate::uploads::{Addition, NewUpload, Resumable, UploadError, expires_at};

const VERSION: &str = "1.0.0";
const EXTENSIONS: &str = "creation,termination,expiration";
const CHUNK_TYPE: &str = "application/offset+octet-stream";

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const UPLOAD_KEY: HeaderName = HeaderName::from_static("upload-key");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

/// The most entries of the metadata; clients of several kinds send a handful.
const MAX_METADATA: usize = 32;

/// The routes of these uploads, which no limit for other bodies applies to.
pub(crate) fn router() -> Router<AppState> {
    let answered = || map_response(answered);
    let all = post(create).options(options).layer(answered());
    let one = head(look)
        .patch(append)
        .delete(terminate)
        .options(options)
        .post(instead)
        .layer(answered());
    Router::new()
        .route(TUS, all.clone())
        // As some clients write the address of a folder.
        .route(&format!("{TUS}/"), all)
        .route(TUS_UPLOAD, one)
}

/// Every answer says which version of the protocol it is of.
async fn answered(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(TUS_RESUMABLE, HeaderValue::from_static(VERSION));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if response.status() == StatusCode::PRECONDITION_FAILED {
        let version = HeaderValue::from_static(VERSION);
        response.headers_mut().insert(TUS_VERSION, version);
    }
    response
}

async fn options(
    State(state): State<AppState>,
    Administrator(author): Administrator,
) -> Result<Response, ApiError> {
    let most = resumable(&state, &author)?.most_bytes();
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(TUS_VERSION, HeaderValue::from_static(VERSION));
    headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
    headers.insert(TUS_MAX_SIZE, HeaderValue::from(most));
    Ok(response)
}

async fn create(
    State(state): State<AppState>,
    Administrator(author): Administrator,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let resumable = resumable(&state, &author)?;
    ensure_version(&headers).map_err(ApiError::Upload)?;
    let announced = announced(&headers, resumable.most_bytes());
    let created = resumable.create(&author.actor, announced).await;
    let upload = created.map_err(ApiError::Upload)?;
    let mut response = empty(StatusCode::CREATED);
    let location = TUS_UPLOAD.replace("{upload_id}", &upload.id.to_string());
    let headers = response.headers_mut();
    insert(headers, LOCATION, &location);
    describe(headers, &upload);
    Ok(response)
}

async fn look(
    State(state): State<AppState>,
    Administrator(author): Administrator,
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let resumable = resumable(&state, &author)?;
    let looked = async {
        ensure_version(&headers)?;
        resumable.look(id(path)?).await
    };
    let upload = looked.await.map_err(ApiError::Upload)?;
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    describe(headers, &upload);
    headers.insert(UPLOAD_LENGTH, HeaderValue::from(upload.size));
    insert(headers, UPLOAD_METADATA, &metadata_of(&upload));
    Ok(response)
}

async fn append(
    State(state): State<AppState>,
    administrator: Result<Administrator, ApiError>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut body = Incoming::of(body);
    let appended = async {
        let Administrator(author) = administrator?;
        let resumable = resumable(&state, &author)?;
        let addition = addition(path, &headers);
        let appended = resumable.append(&author.actor, addition, &mut body).await;
        appended.map_err(ApiError::Upload)
    };
    let appended = appended.await;
    if let Err(error) = &appended {
        body.linger(&headers, error).await;
    }
    let upload = appended?;
    let mut response = empty(StatusCode::NO_CONTENT);
    describe(response.headers_mut(), &upload);
    Ok(response)
}

async fn terminate(
    State(state): State<AppState>,
    Administrator(author): Administrator,
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let resumable = resumable(&state, &author)?;
    let terminated = async {
        ensure_version(&headers)?;
        resumable.terminate(id(path)?).await
    };
    terminated.await.map_err(ApiError::Upload)?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// What a client asks for that can't send every method.
async fn instead(
    state: State<AppState>,
    administrator: Result<Administrator, ApiError>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let method = headers.get(METHOD_OVERRIDE).map(HeaderValue::as_bytes);
    match method {
        Some(b"PATCH") => append(state, administrator, path, headers, body).await,
        Some(b"DELETE") => terminate(state, administrator?, path, headers).await,
        _ => {
            administrator?;
            Err(ApiError::MethodNotAllowed)
        }
    }
}

fn resumable<'a>(state: &'a AppState, author: &Author) -> Result<&'a Resumable, ApiError> {
    let uploads = state.app.admin.uploads(author).map_err(refused)?;
    Ok(&uploads.resumable)
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Which upload a path names; none that there is where it makes no sense.
fn id(path: Result<RawPathParams, RawPathParamsRejection>) -> Result<Uuid, UploadError> {
    target::<Uuid>(path).ok_or(UploadError::NotFound)
}

/// What is answered about an upload.
fn describe(headers: &mut HeaderMap, upload: &BundleUpload) {
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.received));
    insert(headers, UPLOAD_KEY, &StagingKey::new(upload.id).to_string());
    if upload.state == UploadState::Receiving {
        insert(headers, UPLOAD_EXPIRES, &http_date(expires_at(upload)));
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // What is put in here is always visible ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The metadata that is kept, as a client sends it.
fn metadata_of(upload: &BundleUpload) -> String {
    let hash = upload.declared_hash.map(|hash| hash.to_hex());
    let entries = [
        ("filename", Some(upload.filename.as_str())),
        (
            "filetype",
            Some(upload.content_type.as_str()).filter(|it| !it.is_empty()),
        ),
        ("sha256", hash.as_deref()),
    ];
    let entries = entries
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name} {}", STANDARD.encode(value?))));
    entries.collect::<Vec<_>>().join(",")
}

fn ensure_version(headers: &HeaderMap) -> Result<(), UploadError> {
    match one(headers, &TUS_RESUMABLE)? {
        Some(VERSION) => Ok(()),
        Some(_) | None => Err(UploadError::Version(VERSION)),
    }
}

/// What the headers of a new upload say.
fn announced(headers: &HeaderMap, most_bytes: u64) -> Result<NewUpload, UploadError> {
    if headers.contains_key(UPLOAD_DEFER_LENGTH) {
        return Err(invalid("Upload-Defer-Length: the length must be known"));
    }
    if number(headers, &CONTENT_LENGTH)?.is_some_and(|length| length > 0) {
        return Err(invalid("the bytes are sent with PATCH"));
    }
    let size = number(headers, &UPLOAD_LENGTH)?;
    let size = size.ok_or_else(|| invalid("Upload-Length: it is missing"))?;
    if size > most_bytes {
        return Err(UploadError::TooLarge { limit: most_bytes });
    }
    let metadata = one(headers, &UPLOAD_METADATA)?.unwrap_or_default();
    let metadata = Metadata::parse(metadata)?;
    Ok(NewUpload {
        id: None,
        filename: metadata
            .filename
            .ok_or_else(|| invalid("Upload-Metadata: `filename` is missing"))?,
        size,
        declared_hash: metadata.sha256,
        // The store has a type for what nobody says, which is not told as if somebody had.
        content_type: metadata.filetype.unwrap_or_default(),
    })
}

/// What is to be added, by what the request says.
fn addition(
    path: Result<RawPathParams, RawPathParamsRejection>,
    headers: &HeaderMap,
) -> Result<Addition, UploadError> {
    ensure_version(headers)?;
    if one(headers, &CONTENT_TYPE)? != Some(CHUNK_TYPE) {
        return Err(UploadError::MediaType(CHUNK_TYPE));
    }
    let offset = number(headers, &UPLOAD_OFFSET)?;
    Ok(Addition {
        id: id(path)?,
        offset: offset.ok_or_else(|| invalid("Upload-Offset: it is missing"))?,
        length: number(headers, &CONTENT_LENGTH)?,
    })
}

/// What is used of the metadata of an upload. Whatever else a client sends is left alone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metadata {
    filename: Option<String>,
    filetype: Option<String>,
    sha256: Option<ContentHash>,
}

impl Metadata {
    /// Reads pairs of a name and a value in base64, which may be absent.
    fn parse(text: &str) -> Result<Self, UploadError> {
        let mut metadata = Self::default();
        let mut names = Vec::new();
        for entry in text.split(',').map(str::trim) {
            if entry.is_empty() && text.trim().is_empty() {
                break;
            }
            let (name, value) = entry.split_once(' ').unwrap_or((entry, ""));
            if name.is_empty() || names.contains(&name) || names.len() == MAX_METADATA {
                return Err(invalid(
                    "Upload-Metadata: it must be up to 32 names, each once, with values in base64",
                ));
            }
            names.push(name);
            let value = STANDARD.decode(value.trim());
            let value = value.ok().and_then(|value| String::from_utf8(value).ok());
            match name {
                "filename" => metadata.filename = Some(filename(value)?),
                "filetype" => metadata.filetype = Some(filetype(value)?),
                "sha256" => metadata.sha256 = Some(sha256(value)?),
                _ => {}
            }
        }
        Ok(metadata)
    }
}

fn filename(value: Option<String>) -> Result<String, UploadError> {
    let fits = |name: &String| (1..=MAX_FILENAME_BYTES).contains(&name.len());
    let rule = "Upload-Metadata: `filename` must be 1 to 255 bytes of UTF-8 in base64";
    value.filter(fits).ok_or_else(|| invalid(rule))
}

fn filetype(value: Option<String>) -> Result<String, UploadError> {
    let fits = |text: &String| text.len() <= MAX_FILENAME_BYTES && text.is_ascii();
    let rule = "Upload-Metadata: `filetype` must be a media type in base64";
    value.filter(fits).ok_or_else(|| invalid(rule))
}

fn sha256(value: Option<String>) -> Result<ContentHash, UploadError> {
    let hash = value.and_then(|value| value.parse().ok());
    let rule = "Upload-Metadata: `sha256` must be 64 lower-case hexadecimal digits in base64";
    hash.ok_or_else(|| invalid(rule))
}

fn invalid(text: &str) -> UploadError {
    UploadError::Invalid(text.to_owned())
}

/// The value of a header that may be there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, UploadError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(value) => Ok(Some(value.trim())),
            Err(_) => Err(invalid(&format!("{name}: it must be visible ASCII"))),
        },
        (Some(_), Some(_)) => Err(invalid(&format!("{name}: it is there twice"))),
    }
}

/// A header that is a whole number.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, UploadError> {
    let Some(text) = one(headers, name)? else {
        return Ok(None);
    };
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok());
    let mistake = || invalid(&format!("{name}: it must be a whole number"));
    number.map(Some).ok_or_else(mistake)
}

/// A time as HTTP writes it (RFC 9110, section 5.6.7).
fn http_date(time: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
    // `2026-11-21T18:49:41.000Z`
    let text = time.to_string();
    let part = |range| text.get(range).unwrap_or_default();
    let month = part(5..7).parse().unwrap_or(1_usize);
    let month = MONTHS
        .get(month.saturating_sub(1))
        .copied()
        .unwrap_or_default();
    // 1970 began on a Thursday.
    let day = usize::try_from(time.as_millis() / DAY_MS % 7).unwrap_or_default();
    let day = DAYS.get(day).copied().unwrap_or_default();
    let (date, year, clock) = (part(8..10), part(0..4), part(11..19));
    format!("{day}, {date} {month} {year} {clock} GMT")
}

#[cfg(test)]
mod tests;
