//! A bucket of a real server on this machine.

use alga_test_s3::{Server, TestBucket};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::{Client, Config};
use tokio::task::spawn_blocking;

use crate::session::Skipped;

/// An empty bucket, where radosgw can be started.
pub(super) async fn new_bucket() -> anyhow::Result<TestBucket> {
    if Server::is_installed()
        && let Err(error) = spawn_blocking(Server::shared).await
    {
        return Err(Skipped(format!("radosgw does not start: {error}")).into());
    }
    let bucket = TestBucket::create().await;
    bucket.ok_or_else(|| Skipped("radosgw is not installed".to_owned()).into())
}

/// A client of the bucket with the settings that a store's has.
pub(super) fn client(bucket: &TestBucket) -> Client {
    let config: Config = bucket
        .client()
        .config()
        .to_builder()
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}
