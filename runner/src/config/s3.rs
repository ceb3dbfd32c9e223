//! Settings of the bucket of bundles.

use std::path::PathBuf;
use std::time::Duration;

use alga_bundles::S3Checksums;
use alga_model::Secret;

use super::client::{ServerUrl, TokenText};
use super::kind::{Flag, Kind, OneOf, Optional, Path, Raw, millis, toml_text};
use super::setting::section;

section! {
    /// Where bundles are kept, if not in the data folder.
    pub struct S3Config {
        /// The bucket of bundles. Where neither this nor `storage.s3.bundle_bucket` is set, bundles are in a
        /// folder in the data folder.
        bucket: Option<String> = None, "storage.s3.bucket" or "STORAGE_S3_BUCKET": Optional(Name);
        /// The bucket of bundles where the other one is for something else. Stronger than
        /// `storage.s3.bucket`.
        bundle_bucket: Option<String> = None, "storage.s3.bundle_bucket" or "STORAGE_S3_BUNDLE_BUCKET": Optional(Name);
        /// The server of the bucket; that of AWS for the region where it is not set.
        endpoint: Option<String> = None, "storage.s3.endpoint" or "STORAGE_S3_ENDPOINT": Optional(ServerUrl);
        /// The region of the bucket. Servers of one's own take any.
        region: String = "us-east-1".to_owned(), "storage.s3.region" or "STORAGE_S3_REGION": Name;
        /// The access key.
        access_key: Option<Secret<String>> = None, "storage.s3.access_key" or "STORAGE_S3_ACCESS_KEY": Optional(TokenText);
        /// The secret key, which requests are signed with.
        secret_key: Option<Secret<String>> = None, "storage.s3.secret_key" or "STORAGE_S3_SECRET_KEY": Optional(TokenText);
        /// The file of the secret key, which others must not be able to read. Stronger than the key.
        secret_key_file: Option<PathBuf> = None, "storage.s3.secret_key_file" or "STORAGE_S3_SECRET_KEY_FILE": Optional(Path);
        /// Whether the bucket is named in the path of URLs rather than in their host, as most servers of
        /// one's own want it.
        force_path_style: bool = false, "storage.s3.force_path_style" or "STORAGE_S3_FORCE_PATH_STYLE": Flag;
        /// Which requests carry a checksum beside the hash that they are signed with: those that need one,
        /// which every server understands, or all that may.
        checksums: S3Checksums = S3Checksums::WhenRequired, "storage.s3.checksums" or "STORAGE_S3_CHECKSUMS": OneOf(&[
            ("when_required", S3Checksums::WhenRequired),
            ("when_supported", S3Checksums::WhenSupported),
        ]);
        /// How long connecting to the server may take.
        connect_timeout: Duration = Duration::from_secs(5), "storage.s3.connect_timeout_ms" or "STORAGE_S3_CONNECT_TIMEOUT_MS": millis(1..=60_000);
        /// How long the server may take to answer one attempt of a request, the sending of up to 5 MiB
        /// included.
        request_timeout: Duration = Duration::from_secs(60), "storage.s3.request_timeout_ms" or "STORAGE_S3_REQUEST_TIMEOUT_MS": millis(100..=600_000);
    }
}

impl S3Config {
    /// The bucket of bundles, if there is one.
    pub fn bundles(&self) -> Option<&str> {
        self.bundle_bucket.as_deref().or(self.bucket.as_deref())
    }
}

/// The name of a bucket or a region. S3 makes no bucket with an underscore any more, but has some, and so do other
/// servers.
struct Name;

impl Kind for Name {
    type Value = String;

    fn parse(&self, raw: &Raw) -> Result<String, Vec<String>> {
        let fine = |text: &&str| {
            (1..=255).contains(&text.len())
                && text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        self.expect_value(raw.as_text().filter(fine).map(str::to_owned))
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(toml_text(value))
    }

    fn expects(&self) -> String {
        "a name of up to 255 letters, digits, dots, hyphens and underscores that begins with a letter or digit"
            .into()
    }
}
