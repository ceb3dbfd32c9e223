//! Uploads through the server, beside uploads straight to the same bucket.

use std::time::{Duration, Instant};

use alga_runner::admin::{UploadQuery, UploadedBody};
use alga_test_s3::TestBucket;
use anyhow::{Context as _, bail, ensure};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::task::{JoinSet, spawn_blocking};
use uuid::Uuid;

use super::bucket::{client, new_bucket};
use super::mebibytes;
use crate::measure::{in_turns, median};
use crate::report::{Bar, Figure, rounded};
use crate::server::{Program, Server};
use crate::session::Bench;

/// The bytes of every part but the last, as the server sends them. An object of up to so many is sent at
/// once.
const PART_BYTES: usize = 5 << 20;
/// The parts of one upload that are on their way, as of one of the server.
const PARTS_IN_FLIGHT: usize = 2;
/// How long an upload may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is sent in a round.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Bytes of an upload.
    bytes: usize,
    /// Uploads, one after another.
    uploads: u32,
}

const LARGE: Load = Load {
    bytes: 64 << 20,
    uploads: 1,
};
const SMALL: Load = Load {
    bytes: 4 << 20,
    uploads: 8,
};

/// A way into the bucket.
trait Way: Clone + Send + Sync + 'static {
    /// Sends bytes, and tells the key of the object that they are.
    fn upload(&self, bytes: Bytes) -> impl Future<Output = anyhow::Result<String>> + Send;
}

/// Uploads of 64 MiB through the server, and those of 4 MiB in the note.
pub(super) async fn upload(bench: Bench) -> anyhow::Result<Figure> {
    let bucket = new_bucket().await?;
    let server = start(&bench, &bucket).await?;
    let straight = Straight::new(&bucket);
    let proxied = Proxied::new(&server)?;
    let (small, small_straight) = compare(&bench, &straight, &proxied, SMALL).await?;
    let (large, large_straight) = compare(&bench, &straight, &proxied, LARGE).await?;
    Ok(Figure::new(large, "MiB/s")
        .against(large_straight, Bar::AtLeast(0.85))
        .note(format!(
            "of 4 MiB {} instead of {}, ratio {:.2}",
            rounded(small),
            rounded(small_straight),
            small / small_straight
        )))
}

/// The program's server over the bucket.
async fn start(bench: &Bench, bucket: &TestBucket) -> anyhow::Result<Server> {
    let mut program = Program::new(bench.runner(), &bench.path("server"));
    for (variable, value) in [
        ("STORAGE_S3_ENDPOINT", bucket.endpoint.as_str()),
        ("STORAGE_S3_BUCKET", &bucket.name),
        ("STORAGE_S3_ACCESS_KEY", &bucket.access_key),
        ("STORAGE_S3_SECRET_KEY", &bucket.secret_key),
        ("STORAGE_S3_FORCE_PATH_STYLE", "true"),
    ] {
        program.set(variable, value);
    }
    spawn_blocking(move || program.serve()).await?
}

/// MiB a second through the server, and straight.
async fn compare(
    bench: &Bench,
    straight: &Straight,
    proxied: &Proxied,
    load: Load,
) -> anyhow::Result<(f64, f64)> {
    // Nobody on the way looks at what they are.
    let bytes = Bytes::from(vec![7; load.bytes]);
    let turns = in_turns(
        bench,
        |_| load.send(straight.clone(), straight.clone(), bytes.clone()),
        |_| load.send(proxied.by_somebody_else(), straight.clone(), bytes.clone()),
    )
    .await?;
    let ours = median(turns.iter().map(|(_, ours)| *ours));
    let bare = median(turns.iter().map(|(bare, _)| *bare));
    Ok((ours, bare))
}

impl Load {
    /// Sends it, and removes what came of it, which is not part of the time. Gives MiB a second.
    async fn send(self, way: impl Way, cleaner: Straight, bytes: Bytes) -> anyhow::Result<f64> {
        let mut keys = Vec::new();
        let start = Instant::now();
        for _ in 0..self.uploads {
            keys.push(way.upload(bytes.clone()).await?);
        }
        let took = start.elapsed();
        for key in keys {
            cleaner.remove(&key).await?;
        }
        Ok(mebibytes(self.bytes) * f64::from(self.uploads) / took.as_secs_f64())
    }
}

/// Through the server, as an administrator.
#[derive(Debug, Clone)]
struct Proxied {
    client: reqwest::Client,
    url: String,
    token: String,
    actor: String,
}

impl Proxied {
    fn new(server: &Server) -> anyhow::Result<Self> {
        // It fails where somebody did so before, and theirs is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .tls_certs_only([])
            .build()?;
        Ok(Self {
            client,
            url: format!("{}{}", server.url(), UploadQuery::PATH),
            token: server.service_token()?,
            actor: "nobody".to_owned(),
        })
    }

    /// The same for another actor, as one alone may not upload so often.
    fn by_somebody_else(&self) -> Self {
        let mut other = self.clone();
        other.actor = Uuid::new_v4().to_string();
        other
    }
}

impl Way for Proxied {
    async fn upload(&self, bytes: Bytes) -> anyhow::Result<String> {
        let query = UploadQuery {
            filename: "bundle.tar.zst".to_owned(),
            size: u64::try_from(bytes.len())?,
            declared_hash: None,
            upload_id: None,
        };
        let request = self.client.post(&self.url).query(&query);
        let response = request
            .bearer_auth(&self.token)
            .header("x-alga-admin", "true")
            .header("x-alga-actor", &self.actor)
            .body(bytes)
            .send()
            .await?;
        let status = response.status();
        if !status.is_success() {
            bail!(
                "an upload is answered with {status}: {}",
                response.text().await?
            );
        }
        let received: UploadedBody = response.json().await?;
        ensure!(received.size == query.size, "bytes were lost");
        Ok(received.upload.key)
    }
}

/// Straight to the bucket, as a client of S3 does it that has the keys.
#[derive(Debug, Clone)]
struct Straight {
    client: Client,
    bucket: String,
}

impl Straight {
    fn new(bucket: &TestBucket) -> Self {
        Self {
            client: client(bucket),
            bucket: bucket.name.clone(),
        }
    }

    async fn send_in_parts(&self, key: &str, mut bytes: Bytes) -> anyhow::Result<()> {
        let begin = self.client.create_multipart_upload();
        let begun = begin.bucket(&self.bucket).key(key).send().await?;
        let upload = begun.upload_id.context("an upload has no id")?;
        let mut numbers = 1..;
        let mut on_their_way = JoinSet::new();
        let mut parts = Vec::new();
        loop {
            while on_their_way.len() < PARTS_IN_FLIGHT && !bytes.is_empty() {
                let part = bytes.split_to(bytes.len().min(PART_BYTES));
                let number = numbers.next().context("there are too many parts")?;
                let sent = self
                    .clone()
                    .put_part(key.into(), upload.clone(), number, part);
                on_their_way.spawn(sent);
            }
            let Some(sent) = on_their_way.join_next().await else {
                break;
            };
            parts.push(sent??);
        }
        parts.sort_unstable_by_key(CompletedPart::part_number);
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts));
        let complete = self.client.complete_multipart_upload();
        let complete = complete.bucket(&self.bucket).key(key).upload_id(upload);
        complete.multipart_upload(parts.build()).send().await?;
        Ok(())
    }

    async fn put_part(
        self,
        key: String,
        upload: String,
        number: i32,
        bytes: Bytes,
    ) -> anyhow::Result<CompletedPart> {
        let put = self.client.upload_part().bucket(&self.bucket).key(key);
        let put = put.upload_id(upload).part_number(number);
        let sent = put.body(ByteStream::from(bytes)).send().await?;
        let part = CompletedPart::builder().part_number(number);
        Ok(part.set_e_tag(sent.e_tag).build())
    }

    async fn remove(&self, key: &str) -> anyhow::Result<()> {
        let remove = self.client.delete_object();
        remove.bucket(&self.bucket).key(key).send().await?;
        Ok(())
    }
}

impl Way for Straight {
    async fn upload(&self, bytes: Bytes) -> anyhow::Result<String> {
        let key = format!("straight/{}", Uuid::new_v4());
        if bytes.len() > PART_BYTES {
            self.send_in_parts(&key, bytes).await?;
        } else {
            let put = self.client.put_object().bucket(&self.bucket).key(&key);
            put.body(ByteStream::from(bytes)).send().await?;
        }
        Ok(key)
    }
}
