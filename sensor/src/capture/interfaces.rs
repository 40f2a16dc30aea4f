//! The interfaces that frames were seen on, by index.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An interface as the flow log knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    by_index: Vec<Interface>,
    /// The same the other way round: a hostile capture may declare interfaces by the ten thousand.
    indices: HashMap<Interface, u16>,
}

impl Interfaces {
    /// The index of `interface`, which is added if it is new; `None` when [`INTERFACES_MAX`] is reached.
    pub fn intern(&self, interface: Interface) -> Option<u16> {
        let mut list = self.lock();
        if let Some(&index) = list.indices.get(&interface) {
            return Some(index);
        }
        if list.by_index.len() >= INTERFACES_MAX {
            return None;
        }
        let index = u16::try_from(list.by_index.len()).ok()?;
        list.by_index.push(interface.clone());
        list.indices.insert(interface, index);
        Some(index)
    }

    /// The interface at `index`.
    pub fn get(&self, index: u16) -> Option<Interface> {
        self.lock().by_index.get(usize::from(index)).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().by_index.len()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, capture: &str) -> Interface {
        Interface { name: name.to_owned(), capture: capture.to_owned() }
    }

    #[test]
    fn an_interface_is_its_name_and_its_capture() {
        let interfaces = Interfaces::default();
        assert_eq!(interfaces.intern(interface("eth0", "a.pcap")), Some(0));
        assert_eq!(interfaces.intern(interface("eth0", "b.pcap")), Some(1));
        assert_eq!(interfaces.clone().intern(interface("eth0", "a.pcap")), Some(0));
        assert_eq!(interfaces.count(), 2);
        assert_eq!(interfaces.get(1), Some(interface("eth0", "b.pcap")));
        assert_eq!(interfaces.get(2), None);
    }

    #[test]
    fn there_is_room_for_interfaces_max() {
        let interfaces = Interfaces::default();
        for number in 0..INTERFACES_MAX {
            assert!(interfaces.intern(interface(&number.to_string(), "")).is_some());
        }
        assert_eq!(interfaces.intern(interface("one too many", "")), None);
        assert_eq!(interfaces.intern(interface("65534", "")), Some(65_534));
    }
}
