//! Buckets.

use std::env;
use std::sync::Arc;

use alga_bundles::{ObjectKey, S3Checksums, S3Settings, S3Store};
use alga_model::Secret;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::{Client, Config};
use uuid::Uuid;

use crate::{MemoryServer, Server};

const REGION: &str = "us-east-1";

/// An empty bucket of its own.
#[derive(Debug, Clone)]
pub struct TestBucket {
    /// The URL of the server.
    pub endpoint: String,
    /// The bucket.
    pub name: String,
    /// Who may do everything with it.
    pub access_key: String,
    /// What they sign with.
    pub secret_key: String,
    checksums: S3Checksums,
    /// Where it is the bucket's own, it goes with the bucket.
    _server: Option<Arc<MemoryServer>>,
}

impl TestBucket {
    /// Makes one on the shared server. Where that is not installed there is none, and a line says so.
    ///
    /// # Panics
    /// Where `CI` is set and the server is not installed.
    pub async fn create() -> Option<Self> {
        if !Server::is_installed() {
            assert!(
                env::var("CI").is_err(),
                "there is no radosgw here; install it as scripts/test does"
            );
            println!("skipped: radosgw is not installed");
            return None;
        }
        let server = tokio::task::spawn_blocking(Server::shared)
            .await
            .expect("starting a server does not panic");
        Some(Self::on(&server.endpoint(), Server::ACCESS_KEY, Server::SECRET_KEY).await)
    }

    /// Makes one on a server of its own, in this process. It is gone with the last clone of this.
    pub async fn in_memory() -> Self {
        Self::on_memory(MemoryServer::start()).await
    }

    /// Makes one on such a server that lists at most so many objects, uploads or parts at once.
    pub async fn in_memory_with_pages_of(page: usize) -> Self {
        Self::on_memory(MemoryServer::with_pages_of(page)).await
    }

    async fn on_memory(server: MemoryServer) -> Self {
        let [access_key, secret_key] = [MemoryServer::ACCESS_KEY, MemoryServer::SECRET_KEY];
        let bucket = Self::on(&server.endpoint(), access_key, secret_key).await;
        Self {
            _server: Some(Arc::new(server)),
            ..bucket
        }
    }

    /// Makes one on any server.
    ///
    /// # Panics
    /// Where the server refuses.
    pub async fn on(endpoint: &str, access_key: &str, secret_key: &str) -> Self {
        let bucket = Self {
            endpoint: endpoint.to_owned(),
            name: format!("test-{}", Uuid::new_v4().simple()),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            checksums: S3Checksums::default(),
            _server: None,
        };
        let created = bucket.client().create_bucket().bucket(&bucket.name).send();
        created.await.expect("the server makes buckets");
        bucket
    }

    /// The bucket, at another address of the same server.
    #[must_use]
    pub fn at(&self, endpoint: String) -> Self {
        Self {
            endpoint,
            ..self.clone()
        }
    }

    /// The bucket, for whoever signs with this key.
    #[must_use]
    pub fn signed_with(&self, access_key: &str, secret_key: &str) -> Self {
        Self {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            ..self.clone()
        }
    }

    /// The bucket, for stores that send these checksums.
    #[must_use]
    pub fn with(self, checksums: S3Checksums) -> Self {
        Self { checksums, ..self }
    }

    /// How a store reaches it.
    pub fn settings(&self) -> S3Settings {
        let [access_key, secret_key] =
            [&self.access_key, &self.secret_key].map(|key| Secret::new(key.clone()));
        let settings = S3Settings::new(REGION, &self.name, access_key, secret_key);
        S3Settings {
            endpoint: Some(self.endpoint.clone()),
            force_path_style: true,
            checksums: self.checksums,
            ..settings
        }
    }

    /// A store in it.
    pub fn store(&self) -> S3Store {
        S3Store::new(self.settings())
    }

    /// Whoever does to the bucket what no store does.
    pub fn client(&self) -> Client {
        let credentials = Credentials::builder()
            .access_key_id(&self.access_key)
            .secret_access_key(&self.secret_key)
            .provider_name("tests")
            .build();
        let config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new(REGION))
            .credentials_provider(credentials)
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .build();
        Client::from_conf(config)
    }

    /// The keys of all objects but the note whose the bucket is, and of all uploads in parts that have not ended.
    ///
    /// # Panics
    /// Where the server refuses, or has more than it tells at once.
    pub async fn contents(&self) -> (Vec<String>, Vec<String>) {
        let client = self.client();
        let objects = client.list_objects_v2().bucket(&self.name).send();
        let objects = objects.await.expect("objects can be listed");
        assert_ne!(objects.is_truncated, Some(true));
        let uploads = client.list_multipart_uploads().bucket(&self.name).send();
        let uploads = uploads.await.expect("uploads can be listed");
        assert_ne!(uploads.is_truncated, Some(true));
        let objects = objects.contents.unwrap_or_default().into_iter();
        let uploads = uploads.uploads.unwrap_or_default().into_iter();
        (
            objects
                .filter_map(|object| object.key)
                .filter(|key| *key != ObjectKey::Owner.to_string())
                .collect(),
            uploads.filter_map(|upload| upload.key).collect(),
        )
    }
}
