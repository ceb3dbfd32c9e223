//! One tar header, read strictly.

use std::borrow::Cow;

use super::ArchiveError;
use super::stream::Block;

/// A header whose checksum is right.
pub(super) struct Header<'b> {
    tar: &'b tar::Header,
    kind: Kind,
    size: u64,
}

/// What a header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    /// The name of the next entry, as GNU tar writes long ones.
    LongName,
    /// Records about the next entry.
    Pax,
    /// Records about every entry that follows.
    GlobalPax,
    /// What must not be in a bundle, in words.
    Refused(&'static str),
}

impl Kind {
    /// Whether it says something about another entry.
    pub(super) fn is_extension(self) -> bool {
        matches!(self, Self::LongName | Self::Pax | Self::GlobalPax)
    }
}

impl<'b> Header<'b> {
    pub(super) fn parse(block: &'b Block) -> Result<Self, ArchiveError> {
        let tar = tar::Header::from_byte_slice(block);
        if tar.as_ustar().is_none() && tar.as_gnu().is_none() {
            return Err(ArchiveError::Damaged(
                "a tar header is neither ustar nor GNU".to_owned(),
            ));
        }
        let old = tar.as_old();
        if octal(&old.cksum) != Some(checksum(block)) {
            return Err(ArchiveError::Damaged(
                "the checksum of a tar header is wrong".to_owned(),
            ));
        }
        let size = octal(&old.size).ok_or_else(|| {
            ArchiveError::Damaged("the size in a tar header is no octal number".to_owned())
        })?;
        Ok(Self {
            tar,
            kind: kind(old.linkflag),
            size,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// The bytes of content that follow.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The name in the header itself.
    pub(super) fn name(&self) -> Cow<'b, [u8]> {
        self.tar.path_bytes()
    }
}

fn kind([flag]: [u8; 1]) -> Kind {
    match flag {
        b'0' | 0 => Kind::File,
        b'5' => Kind::Folder,
        b'L' => Kind::LongName,
        b'x' => Kind::Pax,
        b'g' => Kind::GlobalPax,
        b'1' => Kind::Refused("a hard link"),
        b'2' => Kind::Refused("a symbolic link"),
        b'K' => Kind::Refused("a link with a long target"),
        b'3' | b'4' => Kind::Refused("a device"),
        b'6' => Kind::Refused("a fifo"),
        b'S' => Kind::Refused("a sparse file"),
        _ => Kind::Refused("of an unknown type"),
    }
}

/// The sum of all bytes, those of the checksum itself counted as spaces.
fn checksum(block: &Block) -> u64 {
    const FIELD: std::ops::Range<usize> = 148..156;
    let byte = |(at, byte): (usize, &u8)| if FIELD.contains(&at) { b' ' } else { *byte };
    block.iter().enumerate().map(byte).map(u64::from).sum()
}

/// Octal digits with spaces in front and NULs or spaces behind. The binary form, for numbers that
/// need more digits, is not taken: nothing so large is allowed.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_start_matches(' ').trim_end_matches(['\0', ' ']);
    // `from_str_radix` takes a sign, and other readers do not.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_digits_and_nothing_else() {
        assert_eq!(octal(b"00000000017\0"), Some(15));
        assert_eq!(octal(b"     17 \0   "), Some(15));
        assert_eq!(octal(b"777777777777"), Some((1 << 36) - 1));
        for field in [
            b"\0\0\0\0",
            b"    ",
            b"+017",
            b"-001",
            b"0 17",
            b"0\x0017",
            b"0x1f",
            b"0018",
            b"\x80\0\0\x0f",
        ] {
            assert_eq!(octal(field), None, "{field:?}");
        }
    }
}
