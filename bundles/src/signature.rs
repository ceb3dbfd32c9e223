//! Signatures of publishers, in the format of minisign.
//!
//! What is signed is not the bundle but a [`Statement`]: a short text that names the content by its
//! hashes. Its first line says what it is for, so that no signature a publisher ever made of
//! something else counts as one of a bundle. As it is a text, the standard tool signs and verifies it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use alga_model::ContentHash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign_verify as minisign;

use crate::manifest::Issue;

/// The text that a publisher signs.
///
/// Three lines, each ended by a line feed:
///
/// ```text
/// alga-bundle-signature-v1
/// bundle sha256:<64 hexadecimal digits>
/// manifest inside
/// ```
///
/// Where the manifest is sent beside a bundle that has none, the last line is `manifest sha256:…`
/// of the bytes that are sent: the bundle's hash doesn't cover them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    bundle: ContentHash,
    manifest_beside: Option<ContentHash>,
}

impl Statement {
    /// The statement about a bundle, and about its manifest if that is not in it.
    pub fn new(bundle: ContentHash, manifest_beside: Option<&[u8]>) -> Self {
        Self {
            bundle,
            manifest_beside: manifest_beside.map(ContentHash::of),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("alga-bundle-signature-v1\n")?;
        writeln!(f, "bundle {}", self.bundle)?;
        match self.manifest_beside {
            None => f.write_str("manifest inside\n"),
            Some(hash) => writeln!(f, "manifest {hash}"),
        }
    }
}

/// What tells keys apart; a hint that proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

/// Written as minisign does.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", u64::from_le_bytes(self.0))
    }
}

/// A publisher's public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    key: minisign::PublicKey,
    text: String,
}

/// A text that is no public key of minisign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key must be the 56 characters that minisign writes, starting with RW")]
pub struct ParsePublicKeyError;

impl PublicKey {
    /// Which one it is.
    pub const fn id(&self) -> KeyId {
        self.id
    }
}

/// The line of the key, or the whole file with the comment in front.
impl FromStr for PublicKey {
    type Err = ParsePublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut lines = text.trim().lines();
        let first = lines.next().unwrap_or_default();
        let line = if first.starts_with(UNTRUSTED_COMMENT) {
            lines.next().unwrap_or_default()
        } else {
            first
        };
        let mut parse = || {
            let line = line.trim_end();
            let id = KeyId(decode::<42>(line)?.id()?);
            let key = minisign::PublicKey::from_base64(line).ok()?;
            let text = line.to_owned();
            lines.next().is_none().then_some(Self { id, key, text })
        };
        parse().ok_or(ParsePublicKeyError)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A signature as its file holds it, not yet verified.
#[derive(Clone)]
pub struct Signature {
    id: KeyId,
    signature: minisign::Signature,
}

/// Why a signature doesn't count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It isn't written as minisign does.
    #[error("it is no signature as minisign writes it")]
    Malformed,
    /// It is of minisign's older kind.
    #[error(
        "it is of minisign's older kind, which is not accepted; sign again with `minisign -S -H`"
    )]
    Legacy,
    /// It is by a key that is not one of the publisher's.
    #[error("it is by the key {0}, which is none of the publisher's")]
    UnknownKey(KeyId),
    /// It claims one of the publisher's keys, but is not by it, or signs something else.
    #[error("it is not one of this content by the key {0}")]
    Mismatch(KeyId),
}

impl Signature {
    /// The most bytes of a signature's file; the comments are what makes them different.
    pub const MAX_BYTES: usize = 4 << 10;

    /// Parses the file of a signature, strictly: one text is one signature and nothing else.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let text = std::str::from_utf8(bytes)
            .ok()
            .filter(|text| text.len() <= Self::MAX_BYTES)
            .ok_or(SignatureError::Malformed)?;
        let lines: Vec<_> = text.lines().collect();
        let [comment, signature, trusted_comment, global_signature] = lines.as_slice() else {
            return Err(SignatureError::Malformed);
        };
        let decoded = decode::<74>(signature).filter(|_| {
            comment.starts_with(UNTRUSTED_COMMENT)
                && trusted_comment.starts_with(TRUSTED_COMMENT)
                && decode::<64>(global_signature).is_some()
        });
        let decoded = decoded.ok_or(SignatureError::Malformed)?;
        match decoded.0.first_chunk() {
            Some(b"ED") => {}
            Some(b"Ed") => return Err(SignatureError::Legacy),
            _ => return Err(SignatureError::Malformed),
        }
        let id = decoded.id().ok_or(SignatureError::Malformed)?;
        let signature = minisign::Signature::decode(text).map_err(|_| SignatureError::Malformed)?;
        Ok(Self {
            id: KeyId(id),
            signature,
        })
    }

    /// Which key it claims to be by.
    pub const fn key_id(&self) -> KeyId {
        self.id
    }

    /// The comment that is signed along; to be believed only when the signature was verified.
    pub fn trusted_comment(&self) -> &str {
        self.signature.trusted_comment()
    }

    /// Succeeds when one of `keys` signed `statement`, and the comment, with it.
    pub fn verify(&self, statement: &Statement, keys: &[PublicKey]) -> Result<(), SignatureError> {
        // Ids are eight bytes that anybody can choose: two keys may have the same.
        let mut of_this_id = keys.iter().filter(|key| key.id == self.id).peekable();
        if of_this_id.peek().is_none() {
            return Err(SignatureError::UnknownKey(self.id));
        }
        let text = statement.to_string();
        let by = |key: &PublicKey| {
            key.key
                .verify(text.as_bytes(), &self.signature, false)
                .is_ok()
        };
        if of_this_id.any(by) {
            Ok(())
        } else {
            Err(SignatureError::Mismatch(self.id))
        }
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature(by {})", self.id)
    }
}

const UNTRUSTED_COMMENT: &str = "untrusted comment: ";
const TRUSTED_COMMENT: &str = "trusted comment: ";

struct Decoded<const N: usize>([u8; N]);

impl<const N: usize> Decoded<N> {
    /// After the two bytes of the algorithm.
    fn id(&self) -> Option<[u8; 8]> {
        self.0.get(2..)?.first_chunk().copied()
    }
}

/// Exactly `N` bytes, in the one way there is to write them.
fn decode<const N: usize>(text: &str) -> Option<Decoded<N>> {
    STANDARD.decode(text).ok()?.try_into().ok().map(Decoded)
}

/// What is done about signatures when a bundle is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignaturePolicy {
    /// They are not looked at.
    #[default]
    Off,
    /// A bundle that isn't signed as it should be is published with a warning.
    Warn,
    /// A bundle that isn't signed as it should be is refused.
    Require,
}

/// The keys of each publisher. Several while a new one replaces an old one.
pub type PublisherKeys = BTreeMap<String, Vec<PublicKey>>;

/// Who may sign, and whether somebody must.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SignatureRules {
    /// What is done about signatures.
    pub policy: SignaturePolicy,
    /// The keys of each publisher, by the name in the manifest.
    pub publishers: PublisherKeys,
}

/// Why the rules don't let a bundle through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// There is no signature.
    #[error("the bundle is not signed")]
    Missing,
    /// There is one that doesn't count.
    #[error("the signature is not accepted: {0}")]
    Invalid(SignatureError),
}

impl SignatureFault {
    /// The code that the HTTP interface gives for it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "SIGNATURE_REQUIRED",
            Self::Invalid(_) => "SIGNATURE_INVALID",
        }
    }
}

impl SignatureRules {
    /// What is to be said about the signature of a bundle that may be published.
    ///
    /// # Errors
    ///
    /// Only where signatures are required.
    pub fn check(
        &self,
        publisher: &str,
        statement: &Statement,
        signature: Option<&[u8]>,
    ) -> Result<Option<Issue>, SignatureFault> {
        let warning = |message: String| Issue {
            path: "/publisher".to_owned(),
            message,
        };
        match self.policy {
            SignaturePolicy::Off => Ok(signature.map(|_| {
                warning("the signature was not looked at: signatures are not checked here".into())
            })),
            SignaturePolicy::Warn => {
                let checked = self.verify(publisher, statement, signature);
                Ok(checked.err().map(|fault| warning(fault.to_string())))
            }
            SignaturePolicy::Require => {
                let checked = self.verify(publisher, statement, signature);
                checked.map(|_| None)
            }
        }
    }

    /// The signature, when it is one of `statement` by a key of `publisher`; whatever the policy is.
    pub fn verify(
        &self,
        publisher: &str,
        statement: &Statement,
        signature: Option<&[u8]>,
    ) -> Result<Signature, SignatureFault> {
        let bytes = signature.ok_or(SignatureFault::Missing)?;
        let keys = self
            .publishers
            .get(publisher)
            .map_or(&[][..], Vec::as_slice);
        let signature = Signature::parse(bytes).map_err(SignatureFault::Invalid)?;
        let verified = signature.verify(statement, keys);
        verified.map_err(SignatureFault::Invalid)?;
        Ok(signature)
    }
}
