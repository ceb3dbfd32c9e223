//! Bodies that arrive, and their checksums.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use s3s::crypto::{Checksum as _, Crc32, Md5};
use s3s::dto::{ChecksumAlgorithm, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};

const TRAILER: &str = "x-amz-checksum-crc32";

/// A body that has arrived whole and undamaged.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) md5: [u8; 16],
    /// Of those that came with one.
    pub(super) crc32: Option<[u8; 4]>,
}

impl Received {
    /// What is known of these bytes; with a checksum or without.
    pub(super) fn new(bytes: Bytes, has_checksum: bool) -> Self {
        Self {
            md5: Md5::checksum(&bytes),
            crc32: has_checksum.then(|| Crc32::checksum(&bytes)),
            bytes,
        }
    }

    /// Waits for a body, and compares it with the checksum that came before or behind it.
    pub(super) async fn wait(
        body: Option<StreamingBlob>,
        algorithm: Option<ChecksumAlgorithm>,
        told: Option<String>,
        trailers: Option<TrailingHeaders>,
    ) -> S3Result<Self> {
        let algorithm = algorithm.as_ref().map(ChecksumAlgorithm::as_str);
        if algorithm.is_some_and(|algorithm| algorithm != ChecksumAlgorithm::CRC32) {
            return Err(s3_error!(NotImplemented, "checksums other than CRC32"));
        }
        let mut bytes = BytesMut::new();
        if let Some(mut body) = body {
            while let Some(chunk) = body.next().await {
                bytes.extend_from_slice(&chunk.map_err(|error| refusal(&error.to_string()))?);
            }
        }
        let behind = trailers.and_then(|trailers| trailers.take());
        let behind = behind.and_then(|trailers| {
            let told = trailers.get(TRAILER)?.to_str().ok()?;
            Some(told.to_owned())
        });
        let told = told.or(behind);
        if algorithm.is_some() && told.is_none() {
            return Err(s3_error!(InvalidRequest, "the checksum is missing"));
        }
        let received = Self::new(bytes.freeze(), told.is_some());
        if received.checksum() == told {
            Ok(received)
        } else {
            Err(s3_error!(BadDigest, "the bytes have another CRC32"))
        }
    }

    /// The checksum, as it is written.
    pub(super) fn checksum(&self) -> Option<String> {
        self.crc32.map(|sum| STANDARD.encode(sum))
    }
}

/// The checksum of an object of parts: that of their checksums, with their number. None if one part has none.
pub(super) fn checksum_of_parts(parts: &[&Received]) -> Option<String> {
    let sums: Option<Vec<_>> = parts.iter().map(|part| part.crc32).collect();
    let sum = STANDARD.encode(Crc32::checksum(&sums?.concat()));
    Some(format!("{sum}-{}", parts.len()))
}

/// Why a body is refused. What can be wrong with one has no type outside of the library.
fn refusal(error: &str) -> S3Error {
    if error.contains("Sha256Mismatch") {
        let mut refusal = S3Error::new(S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()));
        if let Some(status) = S3ErrorCode::BadDigest.status_code() {
            refusal.set_status_code(status);
        }
        refusal
    } else if error.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch)
    } else {
        s3_error!(IncompleteBody)
    }
}
