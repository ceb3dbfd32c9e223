//! Uploads in several requests, over real connections.

use std::time::Duration;

use alga_bundles::{BundleStore, Listing, ObjectKey, PART_BYTES, StagingKey};
use alga_registry::{UploadEnd, UploadProgress};
use futures_util::future::join_all;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::app::App;
use crate::bundle_care::{UPLOADS_KEPT, earlier, sweep_uploads};
use crate::config::Config;
use crate::http::Server;
use crate::uploads::parted;

/// Longer than anything takes that happens at all.
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

/// A deployment: what its processes share.
struct Scene {
    _folder: TempDir,
    config: Config,
    client: Client,
}

/// A process of it.
struct Replica {
    url: String,
    state: AppState,
    client: Client,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// An upload as a client knows it.
struct Upload {
    path: String,
    key: StagingKey,
}

impl Scene {
    fn new() -> Self {
        // It fails where another test did so before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.data.dir = folder.path().join("data");
        let client = Client::builder().timeout(PATIENCE).tls_certs_only([]);
        Self {
            _folder: folder,
            config,
            client: client.build().unwrap(),
        }
    }

    async fn replica(&self) -> Replica {
        let app = App::build(&self.config).await.unwrap();
        let state = AppState::new(app, None, None, MIB);
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", server.address);
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(server.serve(state.clone(), stopped, PATIENCE));
        Replica {
            url,
            state,
            client: self.client.clone(),
            stop,
            serving,
        }
    }
}

impl Replica {
    fn plain(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.plain(method, path).header(TUS_RESUMABLE, VERSION)
    }

    fn creation(&self, size: usize, metadata: &[(&str, &str)]) -> RequestBuilder {
        let metadata = metadata.iter();
        let metadata = metadata.map(|(name, value)| format!("{name} {}", STANDARD.encode(value)));
        let metadata = metadata.collect::<Vec<_>>().join(",");
        self.request(Method::POST, TUS)
            .header(UPLOAD_LENGTH, size)
            .header(UPLOAD_METADATA, metadata)
    }

    async fn create(&self, size: usize) -> Upload {
        let response = self
            .creation(size, &[("filename", "a.tar.zst")])
            .send()
            .await;
        let response = response.unwrap();
        assert_eq!(response.status(), 201);
        Upload {
            path: text(&response, "location").to_owned(),
            key: text(&response, "upload-key").parse().unwrap(),
        }
    }

    fn chunk(&self, upload: &Upload, offset: usize, bytes: &[u8]) -> RequestBuilder {
        self.request(Method::PATCH, &upload.path)
            .header(CONTENT_TYPE, CHUNK_TYPE)
            .header(UPLOAD_OFFSET, offset)
            .body(bytes.to_vec())
    }

    /// Sends bytes that are taken, and gives the offset that is told.
    async fn send(&self, upload: &Upload, offset: usize, bytes: &[u8]) -> usize {
        let response = self.chunk(upload, offset, bytes).send().await.unwrap();
        assert_eq!(response.status(), 204);
        told(&response)
    }

    async fn look(&self, upload: &Upload) -> Response {
        let looking = self.request(Method::HEAD, &upload.path).send();
        looking.await.unwrap()
    }

    /// Where an upload goes on.
    async fn offset(&self, upload: &Upload) -> usize {
        let response = self.look(upload).await;
        assert_eq!(response.status(), 200);
        told(&response)
    }

    /// Waits until an upload is so far.
    async fn until(&self, upload: &Upload, offset: usize) {
        let waiting = async {
            while self.offset(upload).await != offset {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap();
    }

    fn store(&self) -> &dyn BundleStore {
        &*self.state.app.stores.bundles
    }

    /// The staged bytes.
    async fn staged(&self, upload: &Upload) -> Vec<u8> {
        let read = self.store().read(ObjectKey::from(upload.key), 1 << 30);
        read.await.unwrap()
    }

    /// Whatever the store has of uploads.
    async fn left(&self) -> usize {
        let far = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        let unfinished = self.store().unfinished(far, 100).await.unwrap();
        let staged = self.store().list(Listing::Staging, None, 100).await;
        unfinished.len() + staged.unwrap().objects.len()
    }

    async fn shown(&self, upload: &Upload) -> Value {
        let path = format!("/api/ext-bundles/uploads/{}", upload.key.id());
        let response = self.plain(Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    async fn finalize(&self, upload: &Upload) -> (u16, String) {
        refusal(self.finalizing(upload).await).await
    }

    async fn finalizing(&self, upload: &Upload) -> Response {
        let body = json!({ "key": upload.key.to_string() });
        let finalizing = self.plain(Method::POST, "/api/ext-bundles/finalize");
        finalizing.json(&body).send().await.unwrap()
    }

    /// What is said of an upload that is not there: the message and the details.
    async fn absence(&self, upload: &Upload) -> (String, Value) {
        let response = self.finalizing(upload).await;
        assert_eq!(response.status(), 400);
        let mut body: Value = response.json().await.unwrap();
        assert_eq!(body["code"], "STAGING_NOT_FOUND");
        let message = body["error"].as_str().unwrap().to_owned();
        (message, body["details"].take())
    }

    /// Notes that an upload is published, whose object is gone then.
    async fn note_as_published(&self, upload: &Upload) {
        let stores = &self.state.app.stores;
        let (id, now) = (upload.key.id(), stores.clock.now());
        let noted = stores.registry.end_upload(id, &UploadEnd::Published, now);
        assert!(noted.await.unwrap());
        self.store().remove(upload.key.into()).await.unwrap();
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.serving).await.unwrap().unwrap();
        self.state.app.stores.close().await;
    }

    /// A connection on which the head of a chunk is sent, and a part of what it announces.
    async fn half_a_chunk(&self, upload: &Upload, length: usize, sent: &[u8]) -> TcpStream {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PATCH {} HTTP/1.1\r\nhost: localhost\r\ntus-resumable: 1.0.0\r\nupload-offset: 0\r\n\
             content-type: {CHUNK_TYPE}\r\ncontent-length: {length}\r\n\r\n",
            upload.path
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(sent).await.unwrap();
        connection
    }
}

fn text<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value
        .unwrap_or_else(|| panic!("{name} is missing"))
        .to_str()
        .unwrap()
}

/// The offset that a response tells.
fn told(response: &Response) -> usize {
    text(response, "upload-offset").parse().unwrap()
}

async fn refusal(response: Response) -> (u16, String) {
    assert!(!text(&response, "x-request-id").is_empty());
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap().to_owned())
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// Bytes of which no two parts are the same.
fn bytes(len: usize) -> Vec<u8> {
    let numbers = (0_u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes());
    numbers.take(len).collect()
}

#[tokio::test]
async fn an_upload_comes_in_chunks_and_is_staged() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let options = replica.plain(Method::OPTIONS, TUS).send().await.unwrap();
    assert_eq!(options.status(), 204);
    for (name, value) in [
        ("tus-version", "1.0.0"),
        ("tus-resumable", "1.0.0"),
        ("tus-extension", "creation,termination,expiration"),
        ("tus-max-size", "209715200"),
    ] {
        assert_eq!(text(&options, name), value);
    }
    let bytes = bytes(2 * PART_BYTES + 3 * MIB);
    let upload = replica.create(bytes.len()).await;
    let looked = replica.look(&upload).await;
    assert_eq!(told(&looked), 0);
    assert_eq!(text(&looked, "upload-length"), bytes.len().to_string());
    // As it was sent: nothing was said of a type.
    assert_eq!(text(&looked, "upload-metadata"), "filename YS50YXIuenN0");
    assert_eq!(text(&looked, "cache-control"), "no-store");
    assert!(text(&looked, "upload-expires").ends_with(" GMT"));

    // What is behind the last whole part is not kept.
    let first = &bytes[..PART_BYTES + MIB];
    assert_eq!(replica.send(&upload, 0, first).await, PART_BYTES);
    let shown = replica.shown(&upload).await;
    assert_eq!(
        (&shown["state"], &shown["resumable"]),
        (&json!("receiving"), &json!(true))
    );
    assert_eq!(shown["received"], PART_BYTES);
    let rest = &bytes[PART_BYTES..];
    assert_eq!(replica.send(&upload, PART_BYTES, rest).await, bytes.len());
    assert!(replica.staged(&upload).await == bytes);
    assert_eq!(replica.left().await, 1);
    let looked = replica.look(&upload).await;
    assert_eq!(told(&looked), bytes.len());
    assert!(looked.headers().get("upload-expires").is_none());
    let shown = replica.shown(&upload).await;
    assert_eq!(
        (&shown["state"], &shown["resumable"]),
        (&json!("staged"), &json!(false))
    );
    assert_eq!(shown["sha256"], Value::Null);
    // There is nothing to go on with, and saying so again does no harm.
    assert_eq!(replica.send(&upload, bytes.len(), b"").await, bytes.len());
}

#[tokio::test]
async fn an_upload_that_was_interrupted_goes_on_on_another_replica() {
    let scene = Scene::new();
    let (one, two) = (scene.replica().await, scene.replica().await);
    let bytes = bytes(2 * PART_BYTES + 1);
    let upload = one.create(bytes.len()).await;
    let connection = one.half_a_chunk(&upload, bytes.len(), &bytes[..PART_BYTES + 2 * MIB]);
    let connection = connection.await;
    two.until(&upload, PART_BYTES).await;
    drop(connection);
    let rest = &bytes[PART_BYTES..];
    assert_eq!(two.send(&upload, PART_BYTES, rest).await, bytes.len());
    assert_eq!(one.offset(&upload).await, bytes.len());
    assert!(one.staged(&upload).await == bytes);
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let scene = Scene::new();
    let first = scene.replica().await;
    let bytes = bytes(PART_BYTES + MIB);
    let upload = first.create(bytes.len()).await;
    assert_eq!(
        first.send(&upload, 0, &bytes[..PART_BYTES]).await,
        PART_BYTES
    );
    first.stop().await;
    let second = scene.replica().await;
    assert_eq!(second.offset(&upload).await, PART_BYTES);
    let rest = &bytes[PART_BYTES..];
    assert_eq!(second.send(&upload, PART_BYTES, rest).await, bytes.len());
    assert!(second.staged(&upload).await == bytes);
}

/// Notes the last part of an upload without joining it, as a process does that dies in between.
async fn die_before_joining(replica: &Replica, upload: &Upload, last: &[u8]) {
    let registry = &replica.state.app.stores.registry;
    let id = upload.key.id();
    let found = registry.upload(id).await.unwrap().unwrap();
    let mut parts = found.parts.clone();
    let number = u32::try_from(parts.len() + 1).unwrap();
    let parted = parted(&found).unwrap();
    let etag = replica
        .store()
        .put_part(&parted, number, last.to_vec().into());
    parts.push(etag.await.unwrap().as_str().to_owned());
    let progress = UploadProgress {
        from: found.received,
        to: found.size,
        parts: Some(parts),
    };
    let now = replica.state.app.stores.clock.now();
    assert!(registry.progress_upload(id, &progress, now).await.unwrap());
}

#[tokio::test]
async fn what_was_interrupted_before_the_parts_were_joined_is_made_up_for() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let bytes = bytes(PART_BYTES + MIB);
    let begun = async || {
        let upload = replica.create(bytes.len()).await;
        replica.send(&upload, 0, &bytes[..PART_BYTES]).await;
        die_before_joining(&replica, &upload, &bytes[PART_BYTES..]).await;
        upload
    };
    let looked_at = begun().await;
    assert_eq!(replica.offset(&looked_at).await, bytes.len());
    let gone_on_with = begun().await;
    assert_eq!(
        replica.send(&gone_on_with, bytes.len(), b"").await,
        bytes.len()
    );
    let finalized = begun().await;
    assert_eq!(replica.finalize(&finalized).await, is(400, "BAD_ARCHIVE"));
    for upload in [looked_at, gone_on_with, finalized] {
        assert!(replica.staged(&upload).await == bytes);
        assert_eq!(replica.shown(&upload).await["state"], "staged");
    }
}

#[tokio::test]
async fn an_upload_whose_parts_somebody_else_wrote_is_given_up() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let bytes = bytes(PART_BYTES + 1);
    let upload = replica.create(bytes.len()).await;
    replica.send(&upload, 0, &bytes[..PART_BYTES]).await;
    let found = replica
        .state
        .app
        .stores
        .registry
        .upload(upload.key.id())
        .await;
    let parted = parted(&found.unwrap().unwrap()).unwrap();
    let other = vec![0; PART_BYTES].into();
    replica.store().put_part(&parted, 1, other).await.unwrap();
    let last = replica.chunk(&upload, PART_BYTES, &bytes[PART_BYTES..]);
    let refused = refusal(last.send().await.unwrap()).await;
    assert_eq!(refused, is(409, "UPLOAD_CONFLICT"));
    assert_eq!(replica.left().await, 0);
    assert_eq!(replica.look(&upload).await.status(), 410);
    let shown = replica.shown(&upload).await;
    assert_eq!(
        (&shown["state"], &shown["code"]),
        (&json!("failed"), &json!("UPLOAD_CONFLICT"))
    );
}

#[tokio::test]
async fn of_two_who_go_on_at_once_one_does() {
    let scene = Scene::new();
    let (one, two) = (scene.replica().await, scene.replica().await);
    let bytes = bytes(2 * PART_BYTES + 7);
    for _ in 0..4 {
        let upload = one.create(bytes.len()).await;
        let both = [one.chunk(&upload, 0, &bytes), two.chunk(&upload, 0, &bytes)];
        let both = join_all(both.map(|chunk| async { chunk.send().await.unwrap() })).await;
        let mut statuses: Vec<_> = both.iter().map(|it| it.status().as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 409]);
        assert_eq!(two.offset(&upload).await, bytes.len());
        assert!(two.staged(&upload).await == bytes);
    }
}

#[tokio::test]
async fn nothing_is_left_of_an_upload_that_is_given_up() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let bytes = bytes(PART_BYTES + 1);
    let half = replica.create(bytes.len()).await;
    replica.send(&half, 0, &bytes[..PART_BYTES]).await;
    let whole = replica.create(1).await;
    replica.send(&whole, 0, b"a").await;
    assert_eq!(replica.left().await, 2);
    for (upload, left) in [(&half, 1), (&whole, 0)] {
        for _ in 0..2 {
            let terminating = replica.request(Method::DELETE, &upload.path).send();
            assert_eq!(terminating.await.unwrap().status(), 204);
            assert_eq!(replica.left().await, left);
        }
        assert_eq!(replica.look(upload).await.status(), 410);
        let chunk = replica.chunk(upload, 0, b"").send().await.unwrap();
        assert_eq!(refusal(chunk).await, is(410, "UPLOAD_GONE"));
        assert_eq!(replica.shown(upload).await["state"], "aborted");
        assert_eq!(replica.finalize(upload).await, is(400, "STAGING_NOT_FOUND"));
    }
    // So it is by its key.
    let half = replica.create(bytes.len()).await;
    replica.send(&half, 0, &bytes[..PART_BYTES]).await;
    let body = json!({ "key": half.key.to_string() });
    let aborting = replica
        .plain(Method::POST, "/api/ext-bundles/abort")
        .json(&body);
    assert_eq!(aborting.send().await.unwrap().status(), 200);
    assert_eq!(replica.left().await, 0);
    assert_eq!(replica.look(&half).await.status(), 410);
}

#[tokio::test]
async fn what_there_is_of_an_upload_is_said_where_it_cannot_be_published() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let size = PART_BYTES + 1;
    let half = replica.create(size).await;
    replica.send(&half, 0, &bytes(PART_BYTES)).await;
    let (said, details) = replica.absence(&half).await;
    assert!(said.contains("go on with it at byte 5242880"), "{said}");
    let expected = json!({ "state": "receiving", "offset": PART_BYTES, "size": size });
    assert_eq!(details, expected);

    let published = replica.create(1).await;
    replica.send(&published, 0, b"a").await;
    replica.note_as_published(&published).await;
    let (said, details) = replica.absence(&published).await;
    assert!(said.contains("name its `declaredHash`"), "{said}");
    assert_eq!(details, json!({ "state": "published" }));

    let given_up = replica.request(Method::DELETE, &half.path).send().await;
    assert_eq!(given_up.unwrap().status(), 204);
    let (said, details) = replica.absence(&half).await;
    assert!(said.contains("given up; send it again"), "{said}");
    assert_eq!(details, json!({ "state": "aborted" }));

    let never = Upload {
        path: String::new(),
        key: StagingKey::new(Uuid::from_u128(7)),
    };
    let (said, details) = replica.absence(&never).await;
    assert!(said.contains("never sent"), "{said}");
    assert_eq!(details, Value::Null);
}

#[tokio::test]
async fn an_upload_that_is_published_is_not_given_up() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let upload = replica.create(1).await;
    replica.send(&upload, 0, b"a").await;
    replica.note_as_published(&upload).await;
    let terminating = replica.request(Method::DELETE, &upload.path).send().await;
    let response = terminating.unwrap();
    assert_eq!(response.status(), 410);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], "UPLOAD_GONE");
    let said = body["error"].as_str().unwrap();
    assert!(said.contains("published already"), "{said}");
    assert_eq!(replica.shown(&upload).await["state"], "published");
}

#[tokio::test]
async fn an_upload_may_be_begun_with_a_slash_at_the_end_and_keeps_the_type_it_was_sent_with() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let slashed = [TUS, "/"].concat();
    let metadata = format!(
        "filename {},filetype {}",
        STANDARD.encode("a.tar.zst"),
        STANDARD.encode("application/zstd")
    );
    let creation = replica
        .request(Method::POST, &slashed)
        .header(UPLOAD_LENGTH, 1)
        .header(UPLOAD_METADATA, &metadata);
    let created = creation.send().await.unwrap();
    assert_eq!(created.status(), 201);
    let upload = Upload {
        path: text(&created, "location").to_owned(),
        key: text(&created, "upload-key").parse().unwrap(),
    };
    assert!(upload.path.starts_with(&slashed), "{}", upload.path);
    let looked = replica.look(&upload).await;
    assert_eq!(text(&looked, "upload-metadata"), metadata);
    let options = replica.plain(Method::OPTIONS, &slashed).send().await;
    assert_eq!(options.unwrap().status(), 204);
}

#[tokio::test]
async fn an_upload_that_nobody_goes_on_with_expires() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let upload = replica.create(PART_BYTES + 1).await;
    replica.send(&upload, 0, &bytes(PART_BYTES)).await;
    let stores = &replica.state.app.stores;
    let later = stores
        .clock
        .now()
        .plus(UPLOADS_KEPT + Duration::from_secs(60));
    // The store goes by its own time.
    assert!(earlier(later, UPLOADS_KEPT) > earlier(stores.clock.now(), Duration::ZERO));
    let swept = sweep_uploads(replica.store(), &*stores.registry, later, UPLOADS_KEPT).await;
    let swept = swept.unwrap();
    assert_eq!((swept.staged, swept.unfinished, swept.records), (0, 1, 1));
    assert_eq!(replica.left().await, 0);
    assert_eq!(replica.look(&upload).await.status(), 404);
}

#[tokio::test]
async fn a_chunk_lies_where_the_upload_ends_and_within_it() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let bytes = bytes(PART_BYTES + 2);
    let upload = replica.create(bytes.len()).await;
    let refused = async |offset, bytes: &[u8]| {
        refusal(replica.chunk(&upload, offset, bytes).send().await.unwrap()).await
    };
    let (conflict, short) = (is(409, "OFFSET_CONFLICT"), is(400, "BAD_REQUEST"));
    for (offset, len, expected) in [
        (1, PART_BYTES, &conflict),
        (PART_BYTES, 2, &conflict),
        (0, PART_BYTES - 1, &short),
        (0, 0, &short),
        (0, PART_BYTES + 3, &is(413, "TOO_LARGE")),
    ] {
        let mut chunk = bytes.clone();
        chunk.resize(len, 0);
        assert_eq!(refused(offset, &chunk).await, *expected, "{offset} {len}");
        assert_eq!(replica.offset(&upload).await, 0);
    }
    let response = replica.chunk(&upload, 7, &bytes).send().await.unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["details"]["offset"], 0);
    assert_eq!(
        replica.send(&upload, 0, &bytes[..PART_BYTES]).await,
        PART_BYTES
    );
    for (offset, len, expected) in [
        (0, PART_BYTES, &conflict),
        (PART_BYTES, 1, &short),
        (PART_BYTES, 3, &is(413, "TOO_LARGE")),
    ] {
        assert_eq!(
            refused(offset, &vec![0; len]).await,
            *expected,
            "{offset} {len}"
        );
    }
    assert_eq!(
        replica
            .send(&upload, PART_BYTES, &bytes[PART_BYTES..])
            .await,
        bytes.len()
    );
    assert_eq!(refused(0, &bytes).await, conflict);
    assert!(replica.staged(&upload).await == bytes);
}

#[tokio::test]
async fn bytes_that_come_without_a_length_are_counted() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    for (sent, expected, offset) in [
        ("3\r\nabc\r\n0\r\n\r\n", "204", 3),
        ("4\r\nabcd\r\n0\r\n\r\n", "413", 0),
        ("2\r\nab\r\n0\r\n\r\n", "400", 0),
    ] {
        let upload = replica.create(3).await;
        let address = replica.url.strip_prefix("http://").unwrap();
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PATCH {} HTTP/1.1\r\nhost: localhost\r\ntus-resumable: 1.0.0\r\nupload-offset: 0\r\n\
             content-type: {CHUNK_TYPE}\r\ntransfer-encoding: chunked\r\n\r\n{sent}",
            upload.path
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut connection, &mut status)
            .await
            .unwrap();
        assert_eq!(status, format!("HTTP/1.1 {expected}").as_bytes());
        assert_eq!(replica.offset(&upload).await, offset);
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_keeps_its_whole_parts() {
    let mut scene = Scene::new();
    scene.config.bundles.upload_silence = Duration::from_millis(1_500);
    let replica = scene.replica().await;
    let bytes = bytes(PART_BYTES + 2);
    let upload = replica.create(bytes.len()).await;
    let sent = &bytes[..=PART_BYTES];
    let mut connection = replica.half_a_chunk(&upload, bytes.len(), sent).await;
    let mut status = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut connection, &mut status)
        .await
        .unwrap();
    assert_eq!(&status, b"HTTP/1.1 400");
    assert_eq!(replica.offset(&upload).await, PART_BYTES);
}

#[tokio::test]
async fn headers_of_a_new_upload_that_make_no_sense_are_refused() {
    let mut scene = Scene::new();
    scene.config.bundles.uploads_per_minute = 1_000;
    let replica = scene.replica().await;
    let create = || replica.request(Method::POST, TUS);
    let named = || create().header(UPLOAD_METADATA, "filename YQ==");
    let bad = is(400, "BAD_REQUEST");
    for length in [
        "",
        "-1",
        "+1",
        "1e3",
        "0x10",
        "1.0",
        "1 2",
        "0",
        "18446744073709551616",
    ] {
        let refused = named().header(UPLOAD_LENGTH, length).send().await.unwrap();
        assert_eq!(refusal(refused).await, bad, "{length}");
    }
    for length in ["209715201", "18446744073709551615"] {
        let refused = named().header(UPLOAD_LENGTH, length).send().await.unwrap();
        assert_eq!(refusal(refused).await, is(413, "TOO_LARGE"), "{length}");
    }
    let with = |metadata: &str| {
        create()
            .header(UPLOAD_LENGTH, 1)
            .header(UPLOAD_METADATA, metadata)
    };
    let many = (0..33)
        .map(|name| format!("n{name}"))
        .collect::<Vec<_>>()
        .join(",");
    let long = format!("filename {}", STANDARD.encode("a".repeat(256)));
    for metadata in [
        "",
        "filename",
        "filename !",
        "filename YQ",
        "filename /w==",
        "filename YQ==,filename YQ==",
        "filetype YQ==",
        "filename YQ==,",
        ", filename YQ==",
        "filename YQ==,sha256 YQ==",
        "filename YQ==,sha256",
        "filename YQ==,filetype w6Q=",
        &format!("filename YQ==,{many}"),
        &long,
    ] {
        let refused = with(metadata).send().await.unwrap();
        assert_eq!(refusal(refused).await, bad, "{metadata}");
    }
    for request in [
        named(),
        create().header(UPLOAD_LENGTH, 1),
        named().header(UPLOAD_LENGTH, 1).header(UPLOAD_LENGTH, 1),
        named().header(UPLOAD_DEFER_LENGTH, 1),
        named().header(UPLOAD_LENGTH, 1).body("a"),
    ] {
        assert_eq!(refusal(request.send().await.unwrap()).await, bad);
    }
    assert_eq!(replica.left().await, 0);
}

#[tokio::test]
async fn headers_of_a_chunk_that_make_no_sense_are_refused() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let bad = is(400, "BAD_REQUEST");
    let upload = replica.create(1).await;
    let patch = || {
        replica
            .request(Method::PATCH, &upload.path)
            .header(CONTENT_TYPE, CHUNK_TYPE)
    };
    for offset in ["", "-1", "a", "18446744073709551616", "0, 0"] {
        let refused = patch().header(UPLOAD_OFFSET, offset).body("a").send().await;
        assert_eq!(refusal(refused.unwrap()).await, bad, "{offset}");
    }
    let far = patch()
        .header(UPLOAD_OFFSET, u64::MAX)
        .body("a")
        .send()
        .await;
    assert_eq!(refusal(far.unwrap()).await, is(409, "OFFSET_CONFLICT"));
    let missing = patch().body("a").send().await.unwrap();
    assert_eq!(refusal(missing).await, bad);
    let other_type = replica
        .request(Method::PATCH, &upload.path)
        .header(UPLOAD_OFFSET, 0);
    let other_type = other_type.header(CONTENT_TYPE, "application/octet-stream");
    for request in [
        other_type,
        replica
            .request(Method::PATCH, &upload.path)
            .header(UPLOAD_OFFSET, 0),
    ] {
        let refused = refusal(request.body("a").send().await.unwrap()).await;
        assert_eq!(refused, is(415, "UNSUPPORTED_MEDIA_TYPE"));
    }
    for version in [None, Some("0.2.2"), Some("1.0.1"), Some("")] {
        for (method, path) in [
            (Method::POST, TUS),
            (Method::PATCH, &upload.path),
            (Method::DELETE, &upload.path),
        ] {
            let mut request = replica.plain(method, path).header(CONTENT_TYPE, CHUNK_TYPE);
            if let Some(version) = version {
                request = request.header(TUS_RESUMABLE, version);
            }
            let response = request.send().await.unwrap();
            assert_eq!(text(&response, "tus-version"), "1.0.0");
            assert_eq!(refusal(response).await, is(412, "PRECONDITION_FAILED"));
        }
    }
    for path in [
        "/api/ext-bundles/tus/x",
        "/api/ext-bundles/tus/0b9a8c3e-5a1f-4c6d-9e2b-7f3a1d5c8e90",
    ] {
        let unknown = replica.request(Method::DELETE, path).send().await.unwrap();
        assert_eq!(refusal(unknown).await, is(404, "NOT_FOUND"), "{path}");
    }
    assert_eq!(replica.offset(&upload).await, 0);
}

#[tokio::test]
async fn an_upload_that_came_in_one_request_is_not_gone_on_with() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let path = "/api/ext-bundles/upload-proxy?filename=a&size=1";
    let sent = replica
        .plain(Method::POST, path)
        .body("a")
        .send()
        .await
        .unwrap();
    let body: Value = sent.json().await.unwrap();
    let key: StagingKey = body["upload"]["key"].as_str().unwrap().parse().unwrap();
    let upload = Upload {
        path: format!("{TUS}/{}", key.id()),
        key,
    };
    assert_eq!(replica.shown(&upload).await["state"], "staged");
    assert_eq!(replica.look(&upload).await.status(), 404);
    let terminating = replica.request(Method::DELETE, &upload.path).send().await;
    assert_eq!(refusal(terminating.unwrap()).await, is(404, "NOT_FOUND"));
    assert_eq!(replica.left().await, 1);
}

#[tokio::test]
async fn a_client_that_cannot_send_every_method_says_which_one_it_means() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let upload = replica.create(1).await;
    let post = |method: &str| {
        let request = replica.request(Method::POST, &upload.path);
        let request = request.header(METHOD_OVERRIDE, method);
        request
            .header(CONTENT_TYPE, CHUNK_TYPE)
            .header(UPLOAD_OFFSET, 0)
    };
    assert_eq!(post("PATCH").body("a").send().await.unwrap().status(), 204);
    assert_eq!(replica.offset(&upload).await, 1);
    assert_eq!(post("DELETE").send().await.unwrap().status(), 204);
    assert_eq!(replica.left().await, 0);
    let other = refusal(post("PUT").send().await.unwrap()).await;
    assert_eq!(other, is(405, "METHOD_NOT_ALLOWED"));
}

#[tokio::test]
async fn the_declared_hash_is_compared_when_the_upload_is_published() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    for (hash, expected) in [
        (ContentHash::of(b"other"), "HASH_MISMATCH"),
        (ContentHash::of(b"no bundle"), "BAD_ARCHIVE"),
    ] {
        let metadata = [("filename", "a"), ("sha256", &hash.to_hex())];
        let created = replica.creation(9, &metadata).send().await.unwrap();
        let upload = Upload {
            path: text(&created, "location").to_owned(),
            key: text(&created, "upload-key").parse().unwrap(),
        };
        replica.send(&upload, 0, b"no bundle").await;
        assert_eq!(replica.finalize(&upload).await, is(400, expected));
    }
}

#[tokio::test]
async fn who_begins_too_many_is_told_when_to_come_again() {
    let mut scene = Scene::new();
    scene.config.bundles.uploads_per_minute = 2;
    let replica = scene.replica().await;
    let upload = replica.create(1).await;
    replica.create(1).await;
    let third = replica
        .creation(1, &[("filename", "a")])
        .send()
        .await
        .unwrap();
    assert!(third.headers().contains_key("retry-after"));
    assert_eq!(refusal(third).await, is(429, "RATE_LIMIT"));
    // What has begun goes on.
    assert_eq!(replica.send(&upload, 0, b"a").await, 1);
}

#[tokio::test]
async fn without_the_registry_nothing_goes_on() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let upload = replica.create(1).await;
    replica.state.app.stores.registry.database().close().await;
    let unavailable = is(503, "REGISTRY_UNAVAILABLE");
    let creation = replica
        .creation(1, &[("filename", "a")])
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(creation).await, unavailable);
    let chunk = replica.chunk(&upload, 0, b"a").send().await.unwrap();
    assert_eq!(refusal(chunk).await, unavailable);
    let terminating = replica.request(Method::DELETE, &upload.path).send().await;
    assert_eq!(refusal(terminating.unwrap()).await, unavailable);
    assert_eq!(replica.look(&upload).await.status(), 503);
    // Of the new one, nothing.
    assert_eq!(replica.left().await, 1);
    // In one request it goes as ever.
    let path = "/api/ext-bundles/upload-proxy?filename=a&size=1";
    let sent = replica
        .plain(Method::POST, path)
        .body("a")
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 200);
}

#[tokio::test]
async fn a_process_that_stops_lets_chunks_end_and_takes_no_more() {
    let scene = Scene::new();
    let replica = scene.replica().await;
    let other = scene.replica().await;
    let bytes = bytes(PART_BYTES + 1);
    let upload = replica.create(bytes.len()).await;
    let begun = replica.half_a_chunk(&upload, bytes.len(), &bytes[..PART_BYTES]);
    let mut begun = begun.await;
    other.until(&upload, PART_BYTES).await;
    replica.state.start_draining();
    let overloaded = is(503, "OVERLOADED");
    let late = replica
        .chunk(&upload, PART_BYTES, &bytes[PART_BYTES..])
        .send()
        .await;
    assert_eq!(refusal(late.unwrap()).await, overloaded);
    let creation = replica
        .creation(1, &[("filename", "a")])
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(creation).await, overloaded);
    begun.write_all(&bytes[PART_BYTES..]).await.unwrap();
    other.until(&upload, bytes.len()).await;
    assert!(other.staged(&upload).await == bytes);
}

#[test]
fn a_time_is_written_as_http_writes_it() {
    for (ms, text) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (1_795_286_981_042, "Sat, 21 Nov 2026 18:49:41 GMT"),
        (1_709_164_800_000, "Thu, 29 Feb 2024 00:00:00 GMT"),
    ] {
        assert_eq!(http_date(Timestamp::from_millis(ms)), text);
    }
}
