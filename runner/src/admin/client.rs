//! A server, asked over HTTP.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use alga_bundles::Progress;
use alga_model::{InstallId, Secret};
use alga_storage::http_client_builder;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, IF_MATCH, RETRY_AFTER};
use reqwest::{Body, ClientBuilder, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::administration::Refused;
use super::audit::AuditQuery;
use super::bundles::{
    FinalizeUpload, FinalizeUploadBody, PublishedBody, UploadQuery, UploadedBody,
};
use super::logs::{LogsQuery, RemoteLogs};
use super::operation::{Ask, Guard, Operation, Parameters as _, Target as _};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent while an answer is waited for.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a server may take to judge a bundle: it may compile others first.
const FINALIZE_TIMEOUT: Duration = Duration::from_mins(15);
/// How much of a file is sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// The most bytes of a line of the audit; details of a record are far smaller.
const MAX_LINE_BYTES: usize = 8 << 20;

/// Says which event a client has seen last (HTML, section 9.2.4).
const LAST_EVENT_ID: &str = "last-event-id";

/// Asks a server.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    /// For requests that are answered only when a whole file was sent, or judged.
    patient: reqwest::Client,
    url: Url,
    token: Option<Secret<String>>,
}

impl Client {
    /// Asks the server at `url`, a base that paths are added to, with an administrator's token. A server
    /// at https is who the certificates in the PEM text `authorities` vouch for, or else the system's.
    pub fn new(
        url: &str,
        authorities: Option<&[u8]>,
        token: Option<Secret<String>>,
    ) -> Result<Self, Refused> {
        const CANNOT: &str = "cannot make an HTTP client";
        let url = Url::parse(url.trim_end_matches('/')).map_err(|error| {
            Refused::unanswered("the address of the server is no URL", Some(error.into()))
        })?;
        let client = |configure: fn(ClientBuilder) -> ClientBuilder| {
            let builder = http_client_builder(&url, authorities)
                .map_err(|error| Refused::unanswered(CANNOT, Some(error.into())))?
                .connect_timeout(CONNECT_TIMEOUT)
                // It would get to see the token.
                .no_proxy()
                // What a server answers elsewhere isn't its own to say; and the token is for it alone.
                .redirect(reqwest::redirect::Policy::none());
            let client = configure(builder).build();
            client.map_err(|error| unanswered(CANNOT, error))
        };
        Ok(Self {
            http: client(|builder| builder.read_timeout(SILENCE_TIMEOUT))?,
            patient: client(|builder| builder.tcp_keepalive(SILENCE_TIMEOUT))?,
            url,
            token,
        })
    }

    /// Sends a bundle, and tells `progress` how much of it is sent.
    pub(super) async fn upload(
        &self,
        query: &UploadQuery,
        file: File,
        progress: Arc<Progress<'static>>,
    ) -> Result<UploadedBody, Refused> {
        let sent = Sent {
            file,
            progress,
            bytes: 0,
        };
        let chunks = stream::try_unfold(sent, async |mut sent| {
            let chunk = sent.next().await?;
            Ok::<_, io::Error>(chunk.map(|chunk| (Frame::data(chunk), sent)))
        });
        let request = self
            .request_of(&self.patient, "POST", UploadQuery::PATH)
            .query(query)
            .header(CONTENT_LENGTH, query.size)
            .header(CONTENT_TYPE, "application/zstd")
            .body(Body::wrap(StreamBody::new(chunks)));
        decoded(self.answered(request).await?).await
    }

    /// Has a staged bundle published.
    pub(super) async fn finalize(
        &self,
        body: &FinalizeUploadBody,
    ) -> Result<PublishedBody, Refused> {
        let request = self.request_of(&self.patient, "POST", FinalizeUpload::PATH);
        decoded(
            self.answered(request.json(body).timeout(FINALIZE_TIMEOUT))
                .await?,
        )
        .await
    }

    /// Asks for an operation.
    pub(super) async fn ask<O: Operation>(&self, ask: Ask<O>) -> Result<O::Answer, Refused> {
        let path = filled(O::PATH, &ask.target.texts());
        let mut request = self.request(O::METHOD.as_str(), &path).query(&ask.query);
        if O::GUARD != Guard::None {
            let expected = ask.expected;
            let tag = expected.map_or("*".to_owned(), |generation| format!("\"{generation}\""));
            request = request.header(IF_MATCH, tag);
        }
        if !O::Body::schema().is_null() {
            request = request.json(&ask.body);
        }
        decoded(self.answered(request).await?).await
    }

    /// Asks for the audit.
    pub(super) async fn audit(&self, query: AuditQuery) -> Result<Lines, Refused> {
        let request = self.request("GET", AuditQuery::PATH).query(&query);
        let response = self.answered(request).await?;
        Ok(Lines {
            response,
            read: Vec::new(),
        })
    }

    /// Follows what an install does, from the event after the one with the id `after` on.
    pub(super) async fn logs(
        &self,
        install: InstallId,
        query: &LogsQuery,
        after: Option<&str>,
    ) -> Result<RemoteLogs, Refused> {
        let path = filled(LogsQuery::PATH, &install.texts());
        let mut request = self.request("GET", &path).query(query);
        if let Some(after) = after {
            request = request.header(LAST_EVENT_ID, after);
        }
        let response = self.answered(request).await?;
        Ok(RemoteLogs::new(Lines {
            response,
            read: Vec::new(),
        }))
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.request_of(&self.http, method, path)
    }

    fn request_of(&self, http: &reqwest::Client, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().unwrap_or_default();
        let base = self.url.as_str().trim_end_matches('/');
        let request = http.request(method, format!("{base}{path}"));
        let request = request.header(
            ACCEPT,
            "application/json, application/x-ndjson, text/event-stream",
        );
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn answered(&self, request: RequestBuilder) -> Result<Response, Refused> {
        let response = request.send().await;
        let response = response.map_err(|error| {
            let is_unreachable = error.is_connect();
            let hint = if is_nobody_there(&error) {
                "; is it running there?"
            } else {
                ""
            };
            let message = format!("cannot reach the server at {}{hint}", self.url);
            let mut refused = unanswered(message, error);
            refused.is_unreachable = is_unreachable;
            refused
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        let body = response.json::<Value>().await.unwrap_or_default();
        let said = || Refused::unanswered(format!("the server answered {status}"), None);
        let mut refused = refusal(&body).unwrap_or_else(said);
        refused.retry_after = retry_after;
        Err(refused)
    }
}

/// Whether nobody listens at the address, as opposed to somebody who isn't trusted, or to a name that there is not.
fn is_nobody_there(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    if !error.is_connect() {
        return false;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref().map(io::Error::kind);
        if let Some(ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut) = kind {
            return true;
        }
        cause = error.source();
    }
    error.is_timeout()
}

/// How soon it makes sense to ask again, where that is said in seconds, as our servers do.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// What the body of a refusal says: that of the API, or the flat one of the interface for bundles.
fn refusal(body: &Value) -> Option<Refused> {
    let error = body.get("error")?;
    let (members, message) = match error.as_str() {
        Some(message) => (body, message),
        None => (error, error.get("message")?.as_str()?),
    };
    let code = members.get("code")?.as_str()?;
    let details = members.get("details").cloned().unwrap_or_default();
    Some(Refused::by_server(
        code.to_owned(),
        message.to_owned(),
        details,
    ))
}

/// A file that is being sent.
struct Sent {
    file: File,
    progress: Arc<Progress<'static>>,
    bytes: u64,
}

impl Sent {
    /// The next bytes; none at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        let read = self.file.read_buf(&mut chunk).await?;
        self.bytes += read as u64;
        (self.progress)(self.bytes);
        Ok((read > 0).then(|| chunk.freeze()))
    }
}

async fn decoded<T: DeserializeOwned>(response: Response) -> Result<T, Refused> {
    let answer = response.json().await;
    answer.map_err(|error| unanswered("the answer of the server makes no sense", error))
}

/// Lines of an answer, as they come.
#[derive(Debug)]
pub struct Lines {
    response: Response,
    read: Vec<u8>,
}

impl Lines {
    /// The next line, without its break; nothing at the end.
    pub(super) async fn next_line(&mut self) -> Result<Option<String>, Refused> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let rest = self.read.split_off(end + 1);
                let line = std::mem::replace(&mut self.read, rest);
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                return Ok(Some(line));
            }
            let cut_short = "the server's answer ended before it was complete";
            if self.read.len() > MAX_LINE_BYTES {
                return Err(Refused::unanswered("the server's lines are too long", None));
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|error| unanswered(cut_short, error))? {
                Some(chunk) => self.read.extend_from_slice(&chunk),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Refused::unanswered(cut_short, None)),
            }
        }
    }
}

fn unanswered(message: impl Into<String>, error: reqwest::Error) -> Refused {
    // Its own text would say the URL again.
    Refused::unanswered(message, Some(error.without_url().into()))
}

/// A path with its placeholders filled, percent-encoded.
fn filled(path: &str, texts: &[String]) -> String {
    let mut texts = texts.iter();
    let segments = path.split('/').map(|segment| {
        let placeholder = segment.starts_with('{');
        let text = placeholder.then(|| texts.next()).flatten();
        text.map_or_else(|| segment.to_owned(), |text| encoded(text))
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Percent-encoding of everything but the unreserved characters of RFC 3986, section 2.3.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_understood_in_either_shape() {
        let details = json!({ "issues": [] });
        let nested = json!({ "code": "A", "message": "b", "details": details, "requestId": "c" });
        let flat = json!({ "error": "b", "code": "A", "details": details, "requestId": "c" });
        for body in [json!({ "error": nested }), flat] {
            let refused = refusal(&body).unwrap();
            assert_eq!(
                (refused.code.as_str(), refused.message.as_str()),
                ("A", "b")
            );
            assert_eq!(refused.details, details);
        }
        for body in [
            Value::Null,
            json!({ "error": "b" }),
            json!({ "error": { "code": "A" } }),
        ] {
            assert!(refusal(&body).is_none(), "{body}");
        }
    }

    #[test]
    fn a_path_is_filled_with_what_it_names() {
        let texts = ["com.example.notes".to_owned(), "1.0.0+a/b".to_owned()];
        assert_eq!(
            filled("/v1/extensions/{name}/versions/{version}", &texts),
            "/v1/extensions/com.example.notes/versions/1.0.0%2Ba%2Fb"
        );
        assert_eq!(filled("/v1/switches", &[]), "/v1/switches");
    }
}
