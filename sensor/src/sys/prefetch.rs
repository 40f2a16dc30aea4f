//! Cache prefetch: ask for a table slot before it is needed, so that many misses wait together.
//!
//! With a million flows nearly every packet misses the cache once. A batch that first names all its slots and then
//! updates them pays for the misses side by side. Intel SDM volume 2, PREFETCHh and PREFETCHW; other processors than
//! x86-64 do nothing here, which changes no result.

/// Hints that `table[index]` is about to be written. Does nothing when `index` lies outside the table.
#[inline]
pub fn for_write<T>(table: &[T], index: usize) {
    if let Some(slot) = table.get(index) {
        let first = std::ptr::from_ref(slot).cast::<u8>();
        prefetch_line(first);
        // Whether a large slot reaches into a second line is cheaper asked for than found out.
        if size_of::<T>() > SLOT_IN_LINE_BYTES {
            prefetch_line(first.wrapping_add(size_of::<T>() - 1));
        }
    }
}

/// A slot of a power of two of bytes up to this never reaches into a second cache line.
const SLOT_IN_LINE_BYTES: usize = 16;

/// Hints the cache line that holds `byte`.
#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(byte: *const u8) {
    use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};

    // SAFETY: a prefetch neither faults nor changes memory, whatever the address, and SSE, which brought the
    // instruction, is part of every x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_ET0>(byte.cast()) }
}

/// No stable intrinsic for this processor: the table is only slower.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_line(_byte: *const u8) {}

#[cfg(test)]
mod tests {
    use super::for_write;

    #[test]
    fn any_index_is_accepted_and_the_table_is_left_alone() {
        let table = [1_u64, 2, 3];
        for index in [0, 2, 3, 4096, usize::MAX] {
            for_write(&table, index);
        }
        assert_eq!(table, [1, 2, 3]);
        for_write::<u64>(&[], 0);
        for_write(&[(), ()], 1);
    }
}
