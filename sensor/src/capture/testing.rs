//! What the tests of this stage share: reading bytes as a capture, to the end.

use std::io::{Cursor, Read};

use super::{Block, CaptureDrop, CaptureError, Damage, Fill, Frame, Input, Interfaces, Source, open_reader};

/// All that a source handed out.
#[derive(Debug, Default)]
pub(super) struct Drained {
    /// Frames with their bytes; their offsets mean nothing any more.
    pub(super) frames: Vec<(Frame, Vec<u8>)>,
    pub(super) drops: Vec<CaptureDrop>,
    /// Errors, each with the number of frames that came before it.
    pub(super) errors: Vec<(usize, CaptureError)>,
}

impl Drained {
    /// The bytes of the frames, one after the other.
    pub(super) fn payloads(&self) -> Vec<&[u8]> {
        self.frames.iter().map(|(_, data)| &**data).collect()
    }

    pub(super) fn times_ns(&self) -> Vec<u64> {
        self.frames.iter().map(|(frame, _)| frame.time.0).collect()
    }

    /// The damage at the end, with its offset.
    pub(super) fn damage(&self) -> Option<(u64, Damage)> {
        match &*self.errors {
            [] => None,
            [(_, CaptureError::Damaged { offset, damage, .. })] => Some((*offset, *damage)),
            errors => panic!("{errors:?}"),
        }
    }
}

pub(super) fn drain(source: &mut dyn Source) -> Drained {
    let mut drained = Drained::default();
    let mut block = Block::default();
    loop {
        match source.fill(&mut block) {
            Ok(Fill::More | Fill::Idle) => {}
            Ok(Fill::End) => break,
            Err(error) => drained.errors.push((drained.frames.len(), error)),
        }
        drained.frames.extend(block.frames.iter().map(|frame| (*frame, block.data(frame).to_vec())));
        drained.drops.append(&mut block.drops);
    }
    assert_eq!(source.fill(&mut block).unwrap(), Fill::End, "the end stays the end");
    drained
}

/// A reader that hands out a few bytes at a time, as a slow pipe does.
struct Trickle(Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let few = room.len().min(7);
        self.0.read(&mut room[..few])
    }
}

pub(super) fn open_bytes(bytes: &[u8], name: &str, interfaces: &Interfaces) -> Result<Box<dyn Source>, CaptureError> {
    open_reader(Box::new(Cursor::new(bytes.to_vec())), &Input::File(name.into()), interfaces, None)
}

/// Reads `bytes` as the file `test.pcap`, at once and again in small pieces, which must make no difference.
pub(super) fn read_with(bytes: &[u8], interfaces: &Interfaces) -> Result<Drained, CaptureError> {
    let at_once = drain(&mut *open_bytes(bytes, "test.pcap", interfaces)?);
    let trickle = Box::new(Trickle(Cursor::new(bytes.to_vec())));
    let in_pieces = drain(&mut *open_reader(trickle, &Input::File("test.pcap".into()), interfaces, None)?);
    assert_eq!(at_once.payloads(), in_pieces.payloads());
    assert_eq!(at_once.times_ns(), in_pieces.times_ns());
    assert_eq!(at_once.drops, in_pieces.drops);
    assert_eq!(format!("{:?}", at_once.errors), format!("{:?}", in_pieces.errors));
    Ok(at_once)
}

pub(super) fn read(bytes: &[u8]) -> Result<Drained, CaptureError> {
    read_with(bytes, &Interfaces::default())
}

/// A pcap file with two frames, `abc` at 1 s 2 µs and `defgh` (of 9 bytes on the wire) at 4 s 5 µs.
pub(super) const PCAP: &[u8] = b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\xff\xff\0\0\x01\0\0\0\
    \x01\0\0\0\x02\0\0\0\x03\0\0\0\x03\0\0\0abc\
    \x04\0\0\0\x05\0\0\0\x05\0\0\0\x09\0\0\0defgh";

/// The same two frames in pcapng: section, interface (Ethernet), two enhanced packets.
pub(super) const PCAPNG: &[u8] =
    b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0\
    \x01\0\0\0\x14\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\
    \x06\0\0\0\x24\0\0\0\0\0\0\0\0\0\0\0\x42\x42\x0f\0\x03\0\0\0\x03\0\0\0abc\0\x24\0\0\0\
    \x06\0\0\0\x28\0\0\0\0\0\0\0\0\0\0\0\x05\x09\x3d\0\x05\0\0\0\x09\0\0\0defgh\0\0\0\x28\0\0\0";

/// The borders between the blocks of [`PCAPNG`].
pub(super) const PCAPNG_BORDERS: [usize; 5] = [0, 28, 48, 84, 124];
