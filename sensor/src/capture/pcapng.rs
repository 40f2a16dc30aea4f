//! The pcapng file format.
//!
//! Authority: draft-ietf-opsawg-pcapng (the obsolete Packet Block: its appendix). Sections may differ in byte order;
//! each declares its own interfaces. Blocks that hold neither frames, interfaces nor losses are stepped over.
//!
//! Two decisions of ours. An interface is known by its name, so the same `if_name` in a later section is the same
//! interface; interfaces without a name are numbered within their section: the stem of the file, `stem-1`, `stem-2`.
//! And a time stamp outside of what [`Timestamp`] can hold is moved to the nearest that it can, so that its frame is
//! still counted.

mod block;
mod interface;
mod time;

use self::block::{Fields, PacketBlock};
use self::interface::SectionInterface;
use super::order::ByteOrder;
use super::stream::{Stop, Walk, Walked};
use super::{
    CaptureDrop, Damage, Direction, FRAME_BYTES_MAX, Frame, INTERFACES_MAX, Interface, Interfaces, Loss, Part,
};
use crate::time::Timestamp;

/// The type of a Section Header Block, the same in either byte order: what a file starts with.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// The shortest pcapng block: type, length, length again.
pub(super) const PCAPNG_BLOCK_BYTES_MIN: usize = 12;

/// The longest pcapng block that is read: Wireshark's bound.
const PCAPNG_BLOCK_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// A pcapng file, as far as it is read.
pub(super) struct Pcapng {
    names: Names,
    interfaces: Interfaces,
    order: ByteOrder,
    /// What the section has declared, by the number that its blocks use.
    declared: Vec<SectionInterface>,
    /// How many of them had no name.
    unnamed: usize,
}

/// How the interfaces of one input are called.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// The input.
    pub(super) capture: String,
    /// Its stem, or what the user wants instead.
    pub(super) name: String,
    /// Whether the user wants it for all interfaces, even for those that have a name.
    pub(super) wanted: bool,
}

impl Names {
    /// The index of the interface called `name`.
    ///
    /// # Errors
    /// [`Damage::TooManyInterfaces`].
    pub(super) fn intern(&self, interfaces: &Interfaces, name: String) -> Result<u16, Damage> {
        interfaces.intern(Interface { name, capture: self.capture.clone() }).ok_or(Damage::TooManyInterfaces)
    }
}

impl Walk for Pcapng {
    fn walk(&mut self, bytes: &[u8], frames: &mut Vec<Frame>, drops: &mut Vec<CaptureDrop>) -> Walked {
        let mut consumed_bytes = 0;
        loop {
            match self.step(bytes, consumed_bytes, frames, drops) {
                Ok(next) => consumed_bytes = next,
                Err(stop) => return Walked { consumed_bytes, stop },
            }
        }
    }
}

impl Pcapng {
    /// A file with nothing read yet.
    pub(super) fn new(names: Names, interfaces: Interfaces) -> Self {
        Self { names, interfaces, order: ByteOrder::Little, declared: Vec::new(), unnamed: 0 }
    }

    /// Reads the block that starts at `start` of `bytes`, and says where the next one starts.
    fn step(
        &mut self,
        bytes: &[u8],
        start: usize,
        frames: &mut Vec<Frame>,
        drops: &mut Vec<CaptureDrop>,
    ) -> Result<usize, Stop> {
        let rest = bytes.get(start..).unwrap_or_default();
        let incomplete = |part, needed_bytes| Stop::Incomplete { part, needed_bytes };
        let Some(head) = rest.first_chunk::<PCAPNG_BLOCK_BYTES_MIN>() else {
            return Err(incomplete(Part::BlockHeader, PCAPNG_BLOCK_BYTES_MIN));
        };
        let [kind, length, magic]: [[u8; 4]; 3] = bytemuck::cast(*head);
        if kind == MAGIC {
            self.order = byte_order(magic).map_err(Stop::Damaged)?;
        }
        let length_bytes = self.order.u32(length);
        if !length_bytes.is_multiple_of(4) || !(12..=PCAPNG_BLOCK_BYTES_MAX).contains(&length_bytes) {
            return Err(Stop::Damaged(Damage::BlockLength { length_bytes, max_bytes: PCAPNG_BLOCK_BYTES_MAX }));
        }
        let Some(whole) = rest.get(..length_bytes as usize) else {
            return Err(incomplete(Part::Block, length_bytes as usize));
        };
        let body = block::body(whole, self.order).map_err(Stop::Damaged)?;
        let fields = Fields::new(body, start + block::HEAD_BYTES, self.order);
        self.read(self.order.u32(kind), fields, frames, drops).map_err(Stop::Damaged)?;
        Ok(start + whole.len())
    }

    #[inline(always)]
    fn read(
        &mut self,
        kind: u32,
        fields: Fields<'_>,
        frames: &mut Vec<Frame>,
        drops: &mut Vec<CaptureDrop>,
    ) -> Result<(), Damage> {
        match kind {
            ENHANCED_PACKET => self.packet(&block::enhanced_packet(fields)?, frames, drops),
            SIMPLE_PACKET => self.simple_packet(fields, frames),
            OBSOLETE_PACKET => self.packet(&block::obsolete_packet(fields)?, frames, drops),
            INTERFACE_DESCRIPTION => self.declare(fields),
            INTERFACE_STATISTICS => self.statistics(fields, drops),
            SECTION_HEADER => self.section(fields),
            _ => Ok(()),
        }
    }

    fn section(&mut self, mut fields: Fields<'_>) -> Result<(), Damage> {
        let _byte_order_magic = fields.u32()?;
        let (major, minor) = (fields.u16()?, fields.u16()?);
        if major != 1 {
            return Err(Damage::Version { major, minor });
        }
        self.declared.clear();
        self.unnamed = 0;
        Ok(())
    }

    fn declare(&mut self, fields: Fields<'_>) -> Result<(), Damage> {
        if self.declared.len() >= INTERFACES_MAX {
            return Err(Damage::TooManyInterfaces);
        }
        let description = interface::description(fields)?;
        let name = match description.name {
            _ if self.names.wanted => self.names.name.clone(),
            Some(name) => name,
            None => {
                self.unnamed += 1;
                match self.unnamed - 1 {
                    0 => self.names.name.clone(),
                    number => format!("{}-{number}", self.names.name),
                }
            }
        };
        let index = self.names.intern(&self.interfaces, name)?;
        self.declared.push(SectionInterface::new(index, description.settings));
        Ok(())
    }

    #[inline(always)]
    fn packet(
        &mut self,
        packet: &PacketBlock,
        frames: &mut Vec<Frame>,
        drops: &mut Vec<CaptureDrop>,
    ) -> Result<(), Damage> {
        let interface = self.interface(packet.interface)?;
        let time = interface.settings.clock.time(packet.ticks);
        let lost = packet.lost_packets.map_or(0, |packets| interface.losses.before_packet(packets));
        report(drops, interface.index, time, lost);
        frames.push(Frame {
            time,
            offset: packet.offset,
            captured_bytes: packet.captured_bytes,
            original_bytes: packet.original_bytes,
            interface: interface.index,
            link_type: interface.settings.link_type,
            direction: packet.direction,
        });
        Ok(())
    }

    /// A Simple Packet Block: the section's first interface, no time, captured as far as the snap length allows.
    fn simple_packet(&mut self, mut fields: Fields<'_>, frames: &mut Vec<Frame>) -> Result<(), Damage> {
        let interface = self.interface(0)?;
        let original_bytes = fields.u32()?;
        let captured_bytes = match interface.settings.snap_length_bytes {
            0 => original_bytes,
            snap_length_bytes => original_bytes.min(snap_length_bytes),
        };
        let offset = fields.frame(captured_bytes)?;
        frames.push(Frame {
            time: Timestamp(0),
            offset,
            captured_bytes,
            original_bytes,
            interface: interface.index,
            link_type: interface.settings.link_type,
            direction: Direction::Unknown,
        });
        Ok(())
    }

    fn statistics(&mut self, fields: Fields<'_>, drops: &mut Vec<CaptureDrop>) -> Result<(), Damage> {
        let statistics = interface::statistics(fields)?;
        let interface = self.interface(statistics.interface)?;
        let time = interface.settings.clock.time(statistics.ticks);
        let lost = interface.losses.since_start(statistics.lost_packets);
        report(drops, interface.index, time, lost);
        Ok(())
    }

    fn interface(&mut self, number: u32) -> Result<&mut SectionInterface, Damage> {
        let declared = self.declared.len();
        self.declared.get_mut(number as usize).ok_or(Damage::UnknownInterface { interface: number, declared })
    }
}

fn report(drops: &mut Vec<CaptureDrop>, interface: u16, time: Timestamp, packets: u64) {
    if packets > 0 {
        drops.push(CaptureDrop { interface, time, packets, loss: Loss::CaptureBuffer });
    }
}

fn byte_order(magic: [u8; 4]) -> Result<ByteOrder, Damage> {
    match magic {
        [0x4d, 0x3c, 0x2b, 0x1a] => Ok(ByteOrder::Little),
        [0x1a, 0x2b, 0x3c, 0x4d] => Ok(ByteOrder::Big),
        _ => Err(Damage::ByteOrder { magic }),
    }
}

// Block types: draft-ietf-opsawg-pcapng, section 11.1.
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const SECTION_HEADER: u32 = 0x0a0d_0d0a;

#[cfg(test)]
mod tests;
