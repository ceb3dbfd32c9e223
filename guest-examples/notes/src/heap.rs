//! The allocator: hands out memory from front to back and takes back only what lies at the end.
//!
//! An instance lives for one request and is thrown away whole, so remembering free blocks would be
//! work for nothing. What matters is not to ask the host for memory: each `memory.grow` costs the
//! host several system calls, Rust's default allocator makes one on its first allocation, and a
//! request that makes none is served more than twice as fast. So small requests are served from
//! an arena that is part of the memory the instance starts with, and only large ones grow it.
//!
//! An extension that allocates and frees a lot within one request (a parser, an image library)
//! is better off without this module: delete it and Rust's own allocator takes its place.

#![cfg(target_family = "wasm")]
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::arch::wasm32;
use core::cell::{Cell, UnsafeCell};
use core::ptr;

/// Enough for a note of the largest size (64 KiB) being read, changed and written. Memory that is
/// never touched costs nothing, so there is no reason to be stingy.
const ARENA_BYTES: usize = 832 * 1024;

const PAGE_BYTES: usize = 64 * 1024;

/// Grow by at least this much, since the number of growths is what costs.
const MIN_GROWTH_PAGES: usize = 16;

#[global_allocator]
static HEAP: Heap = Heap {
    arena: UnsafeCell::new([0; ARENA_BYTES]),
    free: Cell::new(0),
    end: Cell::new(0),
};

struct Heap {
    arena: UnsafeCell<[u8; ARENA_BYTES]>,
    /// Address of the first free byte; 0 before the first allocation.
    free: Cell<usize>,
    /// Address after the last free byte.
    end: Cell<usize>,
}

// SAFETY: a component has one thread.
unsafe impl Sync for Heap {}

impl Heap {
    /// Makes room for `size` bytes at a multiple of `align`; none where the host gives no memory.
    fn reserve(&self, size: usize, align: usize) -> Option<usize> {
        if self.end.get() == 0 {
            let arena = self.arena.get() as usize;
            self.free.set(arena);
            self.end.set(arena + ARENA_BYTES);
        }
        if let Some(start) = self.fit(size, align) {
            return Some(start);
        }
        self.grow(size.checked_add(align)?)?;
        self.fit(size, align)
    }

    fn fit(&self, size: usize, align: usize) -> Option<usize> {
        // Alignments are powers of two.
        let start = self.free.get().checked_add(align - 1)? & !(align - 1);
        let end = start.checked_add(size)?;
        (end <= self.end.get()).then(|| {
            self.free.set(end);
            start
        })
    }

    fn grow(&self, bytes: usize) -> Option<()> {
        let pages = bytes.div_ceil(PAGE_BYTES).max(MIN_GROWTH_PAGES);
        let before = wasm32::memory_grow::<0>(pages);
        if before == usize::MAX {
            return None;
        }
        let start = before * PAGE_BYTES;
        // Somebody else (libc, where it is linked) may have grown the memory in between: only
        // what follows on is one piece.
        if start != self.end.get() {
            self.free.set(start);
        }
        // The last page of all ends at 4 GiB, one more than an address can say.
        self.end.set(start.saturating_add(pages * PAGE_BYTES));
        Some(())
    }

    /// Whether this block is the one handed out last, and so can be resized or taken back.
    fn is_last(&self, block: *mut u8, size: usize) -> bool {
        block as usize + size == self.free.get()
    }
}

// SAFETY: blocks lie in the arena or in memory that was grown for them, are aligned by `fit`, and
// don't overlap, since `free` moves back only over the block that was handed out last.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.reserve(layout.size(), layout.align()) {
            Some(start) => start as *mut u8,
            None => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.is_last(block, layout.size()) {
            self.free.set(block as usize);
        }
    }

    /// Strings and vectors that are being filled are most often the last block: they grow in place.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if self.is_last(block, layout.size()) {
            self.free.set(block as usize);
            if self.fit(new_size, layout.align()).is_some() {
                return block;
            }
            self.free.set(block as usize + layout.size());
        }
        if new_size <= layout.size() {
            return block;
        }
        let Some(moved) = self.reserve(new_size, layout.align()) else {
            return ptr::null_mut();
        };
        let moved = moved as *mut u8;
        // SAFETY: both blocks are at least this long, and the new one lies behind the old.
        unsafe { ptr::copy_nonoverlapping(block, moved, layout.size()) };
        moved
    }
}

/// Where the host puts arguments and results: it calls this for every text and list it hands over.
///
/// `wit-bindgen` has one as well (feature `realloc`), but only for some targets.
#[unsafe(export_name = "cabi_realloc")]
unsafe extern "C" fn cabi_realloc(
    old: *mut u8,
    old_size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    if new_size == 0 {
        return ptr::without_provenance_mut(align);
    }
    // SAFETY: the canonical ABI gives alignments that are powers of two and sizes that fit, and
    // passes only blocks back that came from here.
    let block = unsafe {
        let layout = Layout::from_size_align_unchecked(old_size, align);
        if old_size == 0 {
            HEAP.alloc(Layout::from_size_align_unchecked(new_size, align))
        } else {
            HEAP.realloc(old, layout, new_size)
        }
    };
    if block.is_null() {
        wasm32::unreachable();
    }
    block
}
