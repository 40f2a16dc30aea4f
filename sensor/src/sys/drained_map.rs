//! Taking everything out of a hash map of the kernel, many entries a call.
//!
//! Authority: `BPF_MAP_LOOKUP_AND_DELETE_BATCH` of bpf(2) and `include/uapi/linux/bpf.h`. One call an entry was measured
//! to take six times as long.

use aya::maps::{MapData, MapError, MapType};
use bytemuck::Pod;
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// A hash map of the kernel with keys `K` and values `V`, and room for one batch of them.
#[derive(Debug)]
pub struct DrainedMap<K, V> {
    map: MapData,
    entries_max: usize,
    keys: Vec<K>,
    values: Vec<V>,
}

/// Where the last batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cursor {
    /// Nothing was taken yet.
    #[default]
    Start,
    /// More may follow behind this place.
    At(u64),
    /// Everything was taken.
    End,
}

/// The map is not what it was taken for.
#[derive(Debug, thiserror::Error)]
pub enum DrainedMapError {
    /// The kernel does not say what the map is.
    #[error("a map cannot be described")]
    Map(#[from] MapError),
    /// Another kind of map, or other sizes.
    #[error("a map has keys of {key_bytes} and values of {value_bytes} bytes, or is no hash map")]
    Layout {
        /// Size of its keys.
        key_bytes: u32,
        /// Size of its values.
        value_bytes: u32,
    },
}

impl<K: Pod, V: Pod> DrainedMap<K, V> {
    /// Takes over `map`.
    ///
    /// # Errors
    /// It is no hash map shared by all processors, or its keys and values have other sizes than `K` and `V`.
    pub fn new(map: MapData) -> Result<Self, DrainedMapError> {
        let info = map.info()?;
        let (key_bytes, value_bytes) = (info.key_size(), info.value_size());
        let fits = key_bytes as usize == size_of::<K>() && value_bytes as usize == size_of::<V>();
        if !fits || !matches!(info.map_type()?, MapType::Hash) {
            return Err(DrainedMapError::Layout { key_bytes, value_bytes });
        }
        let entries_max = info.max_entries() as usize;
        let mut this = Self { map, entries_max, keys: Vec::new(), values: Vec::new() };
        this.make_room(BATCH_ENTRIES);
        Ok(this)
    }

    /// Takes the next batch out of the map: what `cursor` has not passed yet. The kernel gives entries by hash bucket,
    /// so with nobody writing to the map each entry comes once.
    ///
    /// # Errors
    /// The kernel refuses; then nothing was taken.
    pub fn take_batch(&mut self, cursor: &mut Cursor) -> io::Result<impl Iterator<Item = (&K, &V)>> {
        let count = loop {
            match self.take(cursor) {
                // One bucket holds more than a batch has room for. The map's own bound ends this.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && self.keys.len() < self.entries_max => {
                    self.make_room(self.keys.len() * 2);
                }
                other => break other?,
            }
        };
        Ok(self.keys.iter().zip(&self.values).take(count))
    }

    fn make_room(&mut self, entries: usize) {
        let entries = entries.min(self.entries_max);
        self.keys.resize(entries, K::zeroed());
        self.values.resize(entries, V::zeroed());
    }

    fn take(&mut self, cursor: &mut Cursor) -> io::Result<usize> {
        let resume = match *cursor {
            Cursor::Start => None,
            Cursor::At(place) => Some(place),
            Cursor::End => return Ok(0),
        };
        let mut next: u64 = 0;
        let room = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        let mut request = BatchRequest {
            in_batch: resume.as_ref().map_or(0, |place| std::ptr::from_ref(place).expose_provenance() as u64),
            out_batch: (&raw mut next).expose_provenance() as u64,
            keys: self.keys.as_mut_ptr().expose_provenance() as u64,
            values: self.values.as_mut_ptr().expose_provenance() as u64,
            count: room,
            map_fd: self.map.fd().as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads and writes `request`, whose size is passed. Through it, it reads four bytes of
        // `resume` (or nothing), writes four bytes of `next`, and writes at most `count` keys and values; the vectors
        // hold that many, of the map's own sizes, as `new` has checked, and any bytes are valid for them.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_AND_DELETE_BATCH,
                &raw mut request,
                size_of::<BatchRequest>() as libc::c_uint,
            )
        };
        let count = (request.count as usize).min(self.keys.len());
        if answer == 0 {
            *cursor = Cursor::At(next);
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOENT) {
            *cursor = Cursor::End;
            return Ok(count);
        }
        Err(error)
    }
}

/// The part of `union bpf_attr` that batches use.
#[repr(C)]
struct BatchRequest {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_int = 25;

/// Entries a call: more were measured to bring nothing.
const BATCH_ENTRIES: usize = 8192;
