//! Where a bucket is and how it is talked to.

use std::time::Duration;

use alga_model::Secret;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_sdk_s3::{Client, Config};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

/// A bucket, and how it is talked to.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// The URL of the server; that of AWS for the region when it isn't set.
    pub endpoint: Option<String>,
    /// The region, which every request is signed for.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// Who asks.
    pub access_key: Secret<String>,
    /// What requests are signed with.
    pub secret_key: Secret<String>,
    /// Whether the bucket is named in the path of a URL rather than in its host.
    pub force_path_style: bool,
    /// Which requests carry a checksum beside the SHA-256 that their signature covers.
    pub checksums: S3Checksums,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one attempt of a request may take until the answer begins.
    pub request_timeout: Duration,
    /// How long nothing may come of a body, or be taken of one, until it is given up. At least as long as those
    /// who read from the store are patient, who would never wait as long as they may otherwise.
    pub stall: Duration,
}

/// Which requests carry a checksum of their own, and which answers are checked by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum S3Checksums {
    /// Those that S3 wants one for. Every server understands this.
    #[default]
    WhenRequired,
    /// All that may, as AWS recommends.
    WhenSupported,
}

impl S3Checksums {
    /// What uploads in parts are begun with, and each of their parts has then. The parts of one that is begun
    /// without have none: S3 refuses whatever differs.
    pub(super) fn of_parts(self) -> Option<ChecksumAlgorithm> {
        match self {
            Self::WhenRequired => None,
            Self::WhenSupported => Some(ChecksumAlgorithm::Crc32),
        }
    }

    pub(super) fn of_requests(self) -> RequestChecksumCalculation {
        match self {
            Self::WhenRequired => RequestChecksumCalculation::WhenRequired,
            Self::WhenSupported => RequestChecksumCalculation::WhenSupported,
        }
    }

    fn of_answers(self) -> ResponseChecksumValidation {
        match self {
            Self::WhenRequired => ResponseChecksumValidation::WhenRequired,
            Self::WhenSupported => ResponseChecksumValidation::WhenSupported,
        }
    }
}

impl S3Settings {
    /// How often a request is sent at most, unless somebody else repeats it.
    const ATTEMPTS: u32 = 3;

    /// A bucket of AWS, with what holds unless it is set.
    pub fn new(
        region: impl Into<String>,
        bucket: impl Into<String>,
        access_key: Secret<String>,
        secret_key: Secret<String>,
    ) -> Self {
        Self {
            endpoint: None,
            region: region.into(),
            bucket: bucket.into(),
            access_key,
            secret_key,
            force_path_style: false,
            checksums: S3Checksums::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            stall: Duration::from_secs(30),
        }
    }

    pub(super) fn client(&self) -> Client {
        let credentials = Credentials::builder()
            .access_key_id(self.access_key.expose())
            .secret_access_key(self.secret_key.expose())
            .provider_name("alga-runner")
            .build();
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(http)
            .region(Region::new(self.region.clone()))
            .credentials_provider(credentials)
            .force_path_style(self.force_path_style)
            .request_checksum_calculation(self.checksums.of_requests())
            .response_checksum_validation(self.checksums.of_answers())
            .retry_config(RetryConfig::standard().with_max_attempts(Self::ATTEMPTS))
            .timeout_config(self.timeouts(self.request_timeout))
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .grace_period(self.stall)
                    .build(),
            );
        config.set_endpoint_url(self.endpoint.clone());
        Client::from_conf(config.build())
    }

    /// The limits of a request whose answer begins within `answer`.
    pub(super) fn timeouts(&self, answer: Duration) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout)
            .read_timeout(answer)
            .operation_attempt_timeout(answer)
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_waits_for_bodies_as_long_as_it_is_told() {
        let secret = || Secret::new("secret".to_owned());
        for seconds in [1, 30, 600] {
            let stall = Duration::from_secs(seconds);
            let settings = S3Settings {
                stall,
                ..S3Settings::new("region", "bucket", secret(), secret())
            };
            let client = settings.client();
            let protection = client.config().stalled_stream_protection().unwrap();
            assert!(protection.download_enabled() && protection.upload_enabled());
            assert_eq!(protection.grace_period(), stall);
        }
    }
}
