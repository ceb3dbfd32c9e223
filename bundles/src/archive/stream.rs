//! A tar stream as blocks of 512 bytes, within its allowance.

use std::io::{self, Read};

use super::{ArchiveError, Limits, Rejection};

/// The size of everything in a tar archive.
pub(super) const BLOCK: usize = 512;

/// One block.
pub(super) type Block = [u8; BLOCK];

/// Reads blocks and never more bytes than the bundle's size allows.
pub(super) struct TarStream<R> {
    source: R,
    position: u64,
    allowance: Allowance,
    /// For content; kept, as there may be thousands of entries.
    buffer: Vec<u8>,
}

impl<R: Read> TarStream<R> {
    pub(super) fn new(source: R, compressed: u64, limits: &Limits) -> Self {
        Self {
            source,
            position: 0,
            allowance: Allowance::new(compressed, limits),
            buffer: vec![0; 64 << 10],
        }
    }

    /// The bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn into_inner(self) -> R {
        self.source
    }

    /// The next header, or `None` at the first of the zero blocks that end an archive.
    pub(super) fn next_header(&mut self) -> Result<Option<Block>, ArchiveError> {
        let block = self.block()?;
        Ok((block != [0; BLOCK]).then_some(block))
    }

    /// Refuses an entry of `size` bytes that will not fit, before any of it is read.
    pub(super) fn ensure_room(&self, size: u64) -> Result<(), Rejection> {
        let padded = size
            .checked_next_multiple_of(BLOCK as u64)
            .unwrap_or(u64::MAX);
        self.allowance.check(self.position.saturating_add(padded))
    }

    /// Hands on the content of an entry of `size` bytes and skips its padding.
    pub(super) fn content(
        &mut self,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut left = size;
        while left > 0 {
            let len = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let chunk = buffer.get_mut(..len).unwrap_or_default();
            let read = self.read(chunk)?;
            if read == 0 {
                return Err(cut_off());
            }
            take(chunk.get(..read).unwrap_or_default())?;
            left -= read as u64;
        }
        self.buffer = buffer;
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let mut block: Block = [0; BLOCK];
        let padding = usize::try_from(padding)
            .ok()
            .and_then(|len| block.get_mut(..len));
        self.fill(padding.unwrap_or_default())
    }

    /// Reads the rest after the first zero block: another one, then nothing but zeros.
    pub(super) fn finish_tar(&mut self) -> Result<(), ArchiveError> {
        let after_end =
            || ArchiveError::Damaged("there are bytes after the end of the tar archive".to_owned());
        if self.block()? != [0; BLOCK] {
            return Err(after_end());
        }
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = self.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            if buffer.iter().take(read).any(|byte| *byte != 0) {
                return Err(after_end());
            }
        }
    }

    fn block(&mut self) -> Result<Block, ArchiveError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), ArchiveError> {
        while !buffer.is_empty() {
            let read = self.read(buffer)?;
            if read == 0 {
                return Err(cut_off());
            }
            buffer = buffer.get_mut(read..).unwrap_or_default();
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let read = self
            .source
            .read(buffer)
            .map_err(|error| ArchiveError::damaged(&error))?;
        self.position += read as u64;
        self.allowance
            .check(self.position)
            .map_err(|reason| ArchiveError::rejected(b"(after the last entry)", reason))?;
        Ok(read)
    }
}

/// How many bytes of tar stream a bundle of a given size may have.
struct Allowance {
    bytes: u64,
    exceeded: Rejection,
}

impl Allowance {
    fn new(compressed: u64, limits: &Limits) -> Self {
        let by_ratio = compressed
            .saturating_mul(limits.ratio)
            .max(limits.ratio_free_bytes);
        if by_ratio < limits.unpacked_bytes {
            Self {
                bytes: by_ratio,
                exceeded: Rejection::Ratio {
                    limit: limits.ratio,
                },
            }
        } else {
            let limit = limits.unpacked_bytes;
            Self {
                bytes: limit,
                exceeded: Rejection::UnpackedTooLarge { limit },
            }
        }
    }

    fn check(&self, bytes: u64) -> Result<(), Rejection> {
        if bytes <= self.bytes {
            Ok(())
        } else {
            Err(self.exceeded.clone())
        }
    }
}

fn cut_off() -> ArchiveError {
    ArchiveError::damaged(&io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the tar archive is cut off",
    ))
}
