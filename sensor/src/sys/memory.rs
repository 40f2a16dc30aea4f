//! Huge pages for the flow table: with a million flows most packets also miss the processor's address cache.
//!
//! madvise(2), `MADV_HUGEPAGE`. Where the system has none, nothing changes but the speed.

use std::mem::MaybeUninit;

/// Asks the kernel to back `memory` with huge pages when it is first touched. A hint: it is never wrong to give.
pub fn prefer_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    let start = memory.as_mut_ptr() as usize;
    let end = start + size_of_val(memory);
    let first_page = start.next_multiple_of(PAGE_BYTES);
    if end.saturating_sub(first_page) < HUGE_PAGE_BYTES {
        return;
    }
    let page = std::ptr::without_provenance_mut(first_page);
    let length = (end - first_page) / PAGE_BYTES * PAGE_BYTES;
    // SAFETY: the range lies inside `memory`, which is borrowed mutably, and MADV_HUGEPAGE changes neither the contents
    // nor the protection of pages, only how the kernel backs them.
    let advice = unsafe { rustix::mm::madvise(page, length, rustix::mm::Advice::LinuxHugepage) };
    // A kernel without huge pages refuses the hint, and that is all the harm there is.
    advice.ok();
}

const PAGE_BYTES: usize = 4096;

/// Below this there is no page to be had.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_memory_is_accepted_and_stays_as_it_was() {
        prefer_huge_pages::<u8>(&mut []);
        let mut small = [MaybeUninit::new(7_u8); 100];
        prefer_huge_pages(&mut small);
        let mut large: Vec<u64> = Vec::with_capacity(1 << 20);
        large.push(9);
        prefer_huge_pages(large.spare_capacity_mut());
        large.resize(1 << 20, 3);
        assert_eq!((large[0], large[1], large[(1 << 20) - 1]), (9, 3, 3));
    }
}
