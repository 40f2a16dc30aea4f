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
            Ok(Fill::More) => {}
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
