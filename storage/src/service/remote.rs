//! The storage service in another process, asked over HTTP.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use alga_model::Secret;
use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{CheckedList, Put, Scope, StorageClient};
use crate::contract::{
    DeleteRequest, GetManyRequest, GetRequest, Namespace, OperationId, Page, Record, Usage, Written,
};
use crate::error::{BulkError, Error, ErrorCode, FailedItem};
use crate::wire::{
    self, DeletedBody, ManyBody, PageBody, RecordBody, UsageBody, WrittenAllBody, WrittenBody,
};

/// The header that says who asks.
const AUTH: HeaderName = HeaderName::from_static("x-runner-auth");
/// The header that says for whom.
const ACTOR: HeaderName = HeaderName::from_static("x-alga-actor");
/// The header that joins what both processes log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that says which API is spoken.
const VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-alga-storage-version"),
    HeaderValue::from_static("1"),
);
/// How long after a failure of the way there a request is sent again; twice as long after the next one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How often a request is sent again.
const RETRIES: u32 = 2;
/// More than any answer may have: a `getMany` of as many and as large records as can be configured.
const MOST_OF_ANSWER: usize = 64 << 20;
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(60);

/// Asks a storage service that another process serves.
///
/// Every write is known by an id, so that it may be sent again where its answer was lost: it is done once.
pub struct RemoteService {
    http: Client,
    url: Url,
    token: HeaderValue,
    /// As many requests as may be under way.
    places: Semaphore,
    timeout: Duration,
}

/// Where a storage service is and how it is asked.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// What the paths of the API are added to.
    pub url: Url,
    /// Says who asks.
    pub token: Secret<String>,
    /// Certificates, as PEM, that vouch for the service where it is at https; the system's otherwise.
    pub authorities: Option<Vec<u8>>,
    /// Requests under way at once; with HTTP/1.1 as many connections. Others wait.
    pub max_in_flight: NonZeroU32,
    /// How long an operation may take, with all that is repeated, before it is [`Error::Unavailable`].
    pub timeout: Duration,
    /// Speak HTTP/2 without TLS too: the service is known to. Over TLS it is agreed upon.
    pub http2_without_tls: bool,
}

/// Options that no client can be made of.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRemote {
    /// The token is no text for a header.
    #[error("the token of the storage service holds characters that no header can")]
    Token,
    /// The certificates are none.
    #[error("cannot use the certificates that shall vouch for the storage service")]
    Authorities(#[source] Option<reqwest::Error>),
    /// The client can't be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

impl RemoteService {
    /// A client of the service that `options` describe. It connects when it is first used.
    pub fn new(options: &RemoteOptions) -> Result<Self, InvalidRemote> {
        let token = HeaderValue::from_str(options.token.expose());
        let mut token = token.map_err(|_| InvalidRemote::Token)?;
        token.set_sensitive(true);
        let most = usize::try_from(options.max_in_flight.get()).unwrap_or(usize::MAX);
        let builder = trusting(options)?
            // They would get to see the token.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.timeout)
            .pool_max_idle_per_host(most)
            .pool_idle_timeout(IDLE)
            .http2_keep_alive_interval(IDLE / 2)
            .tcp_nodelay(true);
        let builder = if options.http2_without_tls && options.url.scheme() == "http" {
            builder.http2_prior_knowledge()
        } else {
            builder
        };
        Ok(Self {
            http: builder.build().map_err(InvalidRemote::Client)?,
            url: options.url.clone(),
            token,
            places: Semaphore::new(most.min(Semaphore::MAX_PERMITS)),
            timeout: options.timeout,
        })
    }

    /// Asks, and reads what is answered.
    async fn ask<T: DeserializeOwned>(
        &self,
        scope: &Scope,
        namespace: Option<&Namespace>,
        body: Vec<u8>,
    ) -> Result<T, BulkError> {
        let deadline = Instant::now() + self.timeout;
        let asking = async {
            let place = self.places.acquire().await;
            let _place = place.map_err(|error| Error::Unavailable(error.into()))?;
            self.ask_again_and_again(scope, body, deadline).await
        };
        let answered = tokio::time::timeout_at(deadline, asking).await;
        let answered = answered.map_err(|elapsed| Error::Unavailable(elapsed.into()))??;
        match answered {
            Answered::Done(body) => Ok(wire::parse(&body)?),
            Answered::Refused(body) => Err(wire::told(&body, namespace)
                .unwrap_or_else(|| Error::Internal("an error of no service".into()).into())),
        }
    }

    /// Sends a request until it is answered: what failed on the way may be repeated, as reading twice is
    /// nothing and a write is known by its id.
    async fn ask_again_and_again(
        &self,
        scope: &Scope,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<Answered, Error> {
        let body = bytes::Bytes::from(body);
        let mut pause = FIRST_PAUSE;
        let mut left = RETRIES;
        loop {
            let failure = match self.ask_once(scope, body.clone()).await {
                Ok(answered) => return Ok(answered),
                Err(failure) => failure,
            };
            if left == 0 || Instant::now() + pause >= deadline {
                return Err(Error::Unavailable(failure.into()));
            }
            metrics::counter!("alga_storage_remote_retries_total").increment(1);
            tracing::debug!(error = %failure, "asking the storage service again");
            tokio::time::sleep(pause).await;
            pause *= 2;
            left -= 1;
        }
    }

    async fn ask_once(&self, scope: &Scope, body: bytes::Bytes) -> Result<Answered, Lost> {
        let path = format!(
            "{}/api/internal/ext-storage/install/{}",
            self.url.as_str().trim_end_matches('/'),
            scope.install
        );
        let request = self
            .http
            .post(path)
            .headers(self.headers(scope))
            .body(body)
            .send();
        // Its own text would say the URL again.
        let response = request.await.map_err(reqwest::Error::without_url)?;
        let status = response.status();
        let body = read(response).await?;
        if status.is_success() {
            return Ok(Answered::Done(body));
        }
        if wire::told(&body, None).is_some() {
            return Ok(Answered::Refused(body));
        }
        // Somebody in between answers, or something else than a storage service is there.
        Err(Lost::NoService(status.as_u16()))
    }

    fn headers(&self, scope: &Scope) -> HeaderMap {
        let text = |text: &str| HeaderValue::from_str(text).ok();
        let mut headers = HeaderMap::from_iter([
            (AUTH, self.token.clone()),
            VERSION,
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        headers.extend(text(&scope.actor.to_string()).map(|actor| (ACTOR, actor)));
        headers.extend(text(&scope.request_id).map(|id| (REQUEST_ID, id)));
        headers
    }
}

/// An answer of the service.
enum Answered {
    Done(Vec<u8>),
    Refused(Vec<u8>),
}

/// Why a request, or its answer, did not get through.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the storage service can't be reached")]
    Transport(#[from] reqwest::Error),
    #[error("what answers with status {0} is no storage service")]
    NoService(u16),
    #[error("the answer of the storage service is too large")]
    TooLarge,
}

async fn read(mut response: Response) -> Result<Vec<u8>, Lost> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(reqwest::Error::without_url)?
    {
        if body.len() + chunk.len() > MOST_OF_ANSWER {
            return Err(Lost::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A client that knows whom to trust.
fn trusting(options: &RemoteOptions) -> Result<reqwest::ClientBuilder, InvalidRemote> {
    // It fails where somebody did so before, and theirs is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder();
    let Some(pem) = &options.authorities else {
        // Without TLS there is nobody to trust: reading whom the system trusts would be for nothing.
        return Ok(match options.url.scheme() {
            "https" => builder,
            _ => builder.tls_certs_only([]),
        });
    };
    let certificates = reqwest::Certificate::from_pem_bundle(pem);
    let certificates = certificates.map_err(|error| InvalidRemote::Authorities(Some(error)))?;
    if certificates.is_empty() {
        return Err(InvalidRemote::Authorities(None));
    }
    Ok(builder.tls_certs_only(certificates))
}

#[async_trait]
impl StorageClient for RemoteService {
    async fn get(&self, scope: &Scope, request: GetRequest) -> Result<Record, Error> {
        let body = wire::get_body(&request);
        let record: RecordBody = alone(self.ask(scope, Some(&request.namespace), body).await)?;
        record.into_record()
    }

    async fn get_many(
        &self,
        scope: &Scope,
        request: GetManyRequest,
    ) -> Result<Vec<Option<Record>>, Error> {
        let body = wire::get_many_body(&request);
        let many: ManyBody = alone(self.ask(scope, Some(&request.namespace), body).await)?;
        let records = many.into_records()?;
        ensure_all(records.len(), request.keys.len())?;
        Ok(records)
    }

    async fn put(&self, scope: &Scope, put: Put) -> Result<Vec<Written>, BulkError> {
        let body = wire::put_body(&put, operation_id(scope))?;
        let namespace = Some(&put.namespace);
        let [item] = put.items.as_slice() else {
            let all: WrittenAllBody = self.ask(scope, namespace, body).await?;
            let written = all.items.into_iter().map(WrittenBody::into_written);
            let written = written.collect::<Result<Vec<_>, _>>()?;
            ensure_all(written.len(), put.items.len())?;
            return Ok(written);
        };
        let written: Result<WrittenBody, _> = self.ask(scope, namespace, body).await;
        let written = written.map_err(|failed| BulkError {
            // Of one record it is not said which.
            item: is_of_an_item(failed.error.code()).then(|| FailedItem {
                index: 0,
                key: item.key.to_string(),
            }),
            ..failed
        })?;
        Ok(vec![written.into_written()?])
    }

    async fn delete(&self, scope: &Scope, request: DeleteRequest) -> Result<bool, Error> {
        let body = wire::delete_body(&request, operation_id(scope));
        let deleted: DeletedBody = alone(self.ask(scope, Some(&request.namespace), body).await)?;
        Ok(deleted.deleted)
    }

    async fn list(&self, scope: &Scope, list: CheckedList) -> Result<Page, Error> {
        let body = wire::list_body(&list);
        let namespace = Some(&list.request.namespace);
        let page: PageBody = alone(self.ask(scope, namespace, body).await)?;
        page.into_page()
    }

    async fn usage(&self, scope: &Scope) -> Result<Usage, Error> {
        let usage: UsageBody = alone(self.ask(scope, None, wire::usage_body()).await)?;
        usage.into_usage()
    }
}

fn operation_id(scope: &Scope) -> OperationId {
    scope.operation_id.unwrap_or_else(OperationId::generate)
}

/// What came of a request that is of one thing.
fn alone<T>(answered: Result<T, BulkError>) -> Result<T, Error> {
    answered.map_err(|failed| failed.error)
}

const fn is_of_an_item(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::RevisionMismatch | ErrorCode::QuotaExceeded | ErrorCode::ValidationFailed
    )
}

fn ensure_all(answered: usize, asked: usize) -> Result<(), Error> {
    if answered == asked {
        return Ok(());
    }
    Err(Error::Internal(
        format!("{answered} answers to {asked} items").into(),
    ))
}

/// Without the token.
impl fmt::Debug for RemoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteService")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}
