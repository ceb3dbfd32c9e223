//! Records that say more about an entry than its header can: GNU long names and pax.

use std::io::Read;

use super::header::{Header, Kind};
use super::stream::TarStream;
use super::{ArchiveError, Rejection};

/// The most bytes of one extension record. Tools put extended attributes into them, which are
/// skipped, but nobody needs more than this.
const MAX_BYTES: u64 = 256 << 10;

/// What the records in front of an entry say about it.
#[derive(Default)]
pub(super) struct Extensions {
    long_name: Option<Vec<u8>>,
    pax: Option<Pax>,
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
}

impl Extensions {
    /// Reads the record that `header` announces.
    pub(super) fn read(
        &mut self,
        header: &Header<'_>,
        stream: &mut TarStream<impl Read>,
    ) -> Result<(), ArchiveError> {
        let name = header.name();
        let reject = |reason| ArchiveError::rejected(&name, reason);
        if header.size() > MAX_BYTES {
            return Err(reject(Rejection::ExtensionTooLarge { limit: MAX_BYTES }));
        }
        let mut content = Vec::new();
        stream.content(header.size(), |chunk| {
            content.extend_from_slice(chunk);
            Ok(())
        })?;
        match header.kind() {
            Kind::LongName => {
                let long_name = content.strip_suffix(b"\0").unwrap_or(&content).to_vec();
                if self.long_name.replace(long_name).is_some() {
                    return Err(reject(Rejection::TwoNames));
                }
            }
            Kind::Pax => {
                let pax = Pax::parse(&content).map_err(|fault| fault.at(&name))?;
                if self.pax.replace(pax).is_some() {
                    return Err(reject(Rejection::TwoNames));
                }
            }
            Kind::GlobalPax => {
                let pax = Pax::parse(&content).map_err(|fault| fault.at(&name))?;
                if pax.path.is_some() || pax.size.is_some() {
                    return Err(reject(Rejection::Extension(
                        "path or size of every entry".to_owned(),
                    )));
                }
            }
            Kind::File | Kind::Folder | Kind::Refused(_) => {}
        }
        Ok(())
    }

    /// The one name of the entry that `header` announces.
    pub(super) fn name(self, header: &Header<'_>) -> Result<Vec<u8>, ArchiveError> {
        let pax = self.pax.unwrap_or_default();
        let name = match (self.long_name, pax.path) {
            (None, None) => header.name().into_owned(),
            (Some(name), None) | (None, Some(name)) => name,
            (Some(name), Some(_)) => {
                return Err(ArchiveError::rejected(&name, Rejection::TwoNames));
            }
        };
        match pax.size {
            Some(size) if size != header.size().to_string().as_bytes() => {
                let pax = String::from_utf8_lossy(size.get(..20).unwrap_or(&size)).into_owned();
                let header = header.size();
                Err(ArchiveError::rejected(
                    &name,
                    Rejection::TwoSizes { header, pax },
                ))
            }
            _ => Ok(name),
        }
    }

    /// Refuses an archive that ends with records about nothing.
    pub(super) fn ensure_used(&self) -> Result<(), ArchiveError> {
        if self.long_name.is_none() && self.pax.is_none() {
            Ok(())
        } else {
            Err(ArchiveError::Damaged(
                "an extension record is about no entry".to_owned(),
            ))
        }
    }
}

enum Fault {
    Malformed,
    NotAllowed(Vec<u8>),
}

impl Fault {
    fn at(self, name: &[u8]) -> ArchiveError {
        match self {
            Self::Malformed => ArchiveError::Damaged("a pax record is malformed".to_owned()),
            Self::NotAllowed(key) => {
                let key = String::from_utf8_lossy(key.get(..64).unwrap_or(&key)).into_owned();
                ArchiveError::rejected(name, Rejection::Extension(key))
            }
        }
    }
}

impl Pax {
    /// Reads `<length> <key>=<value>\n` again and again, where the length counts itself.
    fn parse(mut rest: &[u8]) -> Result<Self, Fault> {
        let mut pax = Self::default();
        while !rest.is_empty() {
            let (record, after) = next_record(rest).ok_or(Fault::Malformed)?;
            rest = after;
            let at = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or(Fault::Malformed)?;
            let (key, value) = record.split_at(at);
            let value = value.strip_prefix(b"=").unwrap_or(value);
            let field = match key {
                b"path" => &mut pax.path,
                b"size" => &mut pax.size,
                // These turn a file into a link or a sparse file behind the header's back.
                b"linkpath" | b"SCHILY.realsize" | b"SCHILY.filetype" => {
                    return Err(Fault::NotAllowed(key.to_vec()));
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(Fault::NotAllowed(key.to_vec()));
                }
                // Times, owners, attributes and comments say nothing about the content.
                _ => continue,
            };
            // Of two equal keys some readers take the first and some the last.
            if field.replace(value.to_vec()).is_some() {
                return Err(Fault::NotAllowed(key.to_vec()));
            }
        }
        Ok(pax)
    }
}

/// The first record without its length and line end, and what follows it.
fn next_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let (digits, _) = bytes.split_at_checked(space)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let len: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let (record, after) = bytes.split_at_checked(len)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    Some((record, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_by_their_length() {
        let pax = Pax::parse(b"12 path=a=b\n21 comment=x\n path=z\n6 a=b\n")
            .ok()
            .unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a=b"[..]));
        assert_eq!(pax.size, None);
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"12 path=a=b"[..],
            b"11 path=a=b\n",
            b"13 path=a=b\n",
            b"+12 path=a=b\n",
            b"0 path=a=b\n",
            b"1 path=a=b\n",
            b"99999999999999999999 path=a\n",
            b"7 patha\n",
            b"path=a\n",
            b" ",
            b"\0",
        ] {
            assert!(
                matches!(Pax::parse(records), Err(Fault::Malformed)),
                "{records:?}"
            );
        }
    }
}
