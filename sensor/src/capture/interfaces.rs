//! The interfaces that frames were seen on, by index.

use std::sync::{Arc, Mutex, PoisonError};

/// An interface as the flow log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its own name (pcapng, live), or the capture file's stem.
    pub name: String,
    /// The capture file it comes from; empty for a live interface. Interfaces of two files are never one.
    pub capture: String,
}

/// How many interfaces one run can tell apart.
pub const INTERFACES_MAX: usize = 65_535;

/// All interfaces met so far. Cheap to clone; all clones are one list. Touched only when an interface is new.
#[derive(Debug, Clone, Default)]
pub struct Interfaces {
    list: Arc<Mutex<Vec<Interface>>>,
}

impl Interfaces {
    /// The index of `interface`, which is added if it is new; `None` when [`INTERFACES_MAX`] is reached.
    pub fn intern(&self, interface: Interface) -> Option<u16> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = list.iter().position(|known| *known == interface) {
            return u16::try_from(at).ok();
        }
        if list.len() >= INTERFACES_MAX {
            return None;
        }
        list.push(interface);
        u16::try_from(list.len() - 1).ok()
    }

    /// The interface at `index`.
    pub fn get(&self, index: u16) -> Option<Interface> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).get(usize::from(index)).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
