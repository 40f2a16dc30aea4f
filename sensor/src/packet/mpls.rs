//! An MPLS label stack (RFC 3032), entered only where IP lies beneath it.
//!
//! Labels do not say what they carry. RFC 4928 section 3 has routers look at the four bits behind the stack: 4 and 6
//! are IP, and pseudowires must begin otherwise. We do the same, and never enter a pseudowire.

use super::cursor::Cursor;
use super::link::Network;
use super::{Fault, NotIp, Refusal};

/// How many labels one frame may stack. Segment routing hardware pushes about ten.
pub(super) const LABELS_MAX: usize = 16;

/// Takes the label stack.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Network, Refusal> {
    for _ in 0..LABELS_MAX {
        let [_, _, label_end, _time_to_live] = cursor.take_array().ok_or(Fault::TruncatedTag)?;
        if label_end & BOTTOM_OF_STACK != 0 {
            return match cursor.peek().ok_or(Fault::TruncatedIp)? >> 4 {
                4 => Ok(Network::Ipv4),
                6 => Ok(Network::Ipv6),
                _ => Err(NotIp::MplsPayload.into()),
            };
        }
    }
    Err(Fault::TooManyTags.into())
}

const BOTTOM_OF_STACK: u8 = 0x01;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottom_of_the_stack_is_found() {
        // Label 16, time to live 64; then label 2 (IPv6 explicit null) at the bottom.
        let frame = [0x00, 0x01, 0x00, 0x40, 0x00, 0x00, 0x21, 0x40, 0x60];
        assert_eq!(read(&mut Cursor::new(&frame)), Ok(Network::Ipv6));
        assert_eq!(read(&mut Cursor::new(&[0x00, 0x01, 0x01, 0x40, 0x45])), Ok(Network::Ipv4));
    }

    #[test]
    fn a_pseudowire_is_not_ip() {
        // A control word begins with four zero bits (RFC 4385).
        assert_eq!(read(&mut Cursor::new(&[0x00, 0x01, 0x01, 0x40, 0x00])), Err(NotIp::MplsPayload.into()));
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(read(&mut Cursor::new(&[0x00, 0x01, 0x01])), Err(Fault::TruncatedTag.into()));
        assert_eq!(read(&mut Cursor::new(&[0x00, 0x01, 0x00, 0x40])), Err(Fault::TruncatedTag.into()));
        assert_eq!(read(&mut Cursor::new(&[0x00, 0x01, 0x01, 0x40])), Err(Fault::TruncatedIp.into()));
    }

    #[test]
    fn a_stack_ends_at_its_bound() {
        let stack = |labels: usize| {
            let mut bytes = [0x00, 0x01, 0x00, 0x40].repeat(labels - 1);
            bytes.extend([0x00, 0x01, 0x01, 0x40, 0x45]);
            read(&mut Cursor::new(&bytes))
        };
        assert_eq!(stack(LABELS_MAX), Ok(Network::Ipv4));
        assert_eq!(stack(LABELS_MAX + 1), Err(Fault::TooManyTags.into()));
    }
}
