//! Any bytes at all, read as a capture.

use std::io::Cursor;

use super::{Block, CaptureError, Fill, Input, Interfaces, Source, open_reader};

/// Reads `data` as a capture, alone and merged with itself, and checks what holds for every input: each frame lies in
/// its block, each answer but the last brings something, an error ends a single input, and the end comes.
///
/// # Panics
/// When one of these does not hold.
pub fn fuzz(data: &[u8]) {
    let interfaces = Interfaces::default();
    let open = |name: &str| {
        let reader = Box::new(Cursor::new(data.to_vec()));
        open_reader(reader, &Input::File(name.into()), &interfaces, None)
    };
    let Ok(mut alone) = open("first") else { return };
    let alone = drain(&mut *alone, &interfaces);
    assert!(alone.errors.len() <= 1, "one input fails once: {:?}", alone.errors);
    let (Ok(first), Ok(second)) = (open("first"), open("second")) else { return };
    let merged = drain(&mut super::Merge::new(vec![first, second]), &interfaces);
    if alone.ended && merged.ended {
        assert_eq!(merged.frames, 2 * alone.frames);
        assert_eq!(merged.errors.len(), 2 * alone.errors.len());
    }
}

#[derive(Default)]
struct Drained {
    frames: usize,
    errors: Vec<CaptureError>,
    ended: bool,
}

fn drain(source: &mut dyn Source, interfaces: &Interfaces) -> Drained {
    let mut drained = Drained::default();
    let mut block = Block::default();
    for _ in 0..FILLS_MAX {
        match source.fill(&mut block) {
            Ok(Fill::More | Fill::Idle) => {}
            Ok(Fill::End) => {
                assert!(block.frames.is_empty() && block.drops.is_empty());
                drained.ended = true;
                break;
            }
            Err(error) => {
                drained.errors.push(error);
                continue;
            }
        }
        assert!(!block.frames.is_empty() || !block.drops.is_empty(), "an answer without content");
        drained.frames += block.frames.len();
        for frame in &block.frames {
            assert_eq!(block.data(frame).len(), frame.captured_bytes as usize, "{frame:?} is not in its block");
            assert!(usize::from(frame.interface) < interfaces.count());
        }
        assert!(block.drops.iter().all(|drop| drop.packets > 0));
    }
    drained
}

/// A few bytes can unpack to gigabytes; a look at this many blocks is enough.
const FILLS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{PCAP, PCAPNG};
    use super::fuzz;

    #[test]
    fn seeds() {
        for seed in [b"", PCAP, PCAPNG, b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x28\xb5\x2f\xfd\0\0"] {
            fuzz(seed);
            fuzz(&zstd::encode_all(seed, 0).unwrap());
        }
    }

    #[test]
    fn a_few_bytes_that_unpack_to_many() {
        let zeros = [PCAP, &[0; 64 * 1024 * 1024]].concat();
        fuzz(&zstd::encode_all(&*zeros, 0).unwrap());
    }

    proptest! {
        #[test]
        fn damaged_captures(
            which in any::<bool>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = if which { PCAP.repeat(3) } else { PCAPNG.repeat(3) };
            for (index, value) in changes {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            fuzz(&bytes);
        }

        #[test]
        fn noise_behind_a_header(which in any::<bool>(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let header = if which { &PCAP[..24] } else { &PCAPNG[..48] };
            fuzz(&[header, &noise].concat());
        }
    }
}
