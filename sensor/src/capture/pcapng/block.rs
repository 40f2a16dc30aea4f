//! The inside of a pcapng block: fields, options, and the blocks that hold a frame.

use super::super::order::ByteOrder;
use super::super::{Damage, Direction};
use super::FRAME_BYTES_MAX;

/// Type and length, in front of every block's body.
pub(super) const HEAD_BYTES: usize = 8;

/// What is between the head of the block `whole` and its trailing length.
///
/// # Errors
/// [`Damage::BlockTrailer`] when the two lengths differ.
pub(super) fn body(whole: &[u8], order: ByteOrder) -> Result<&[u8], Damage> {
    let short = Damage::BlockShort { needed_bytes: HEAD_BYTES + 4, left_bytes: whole.len() };
    let (front, trailer) = whole.split_last_chunk::<4>().ok_or(short)?;
    let trailer_bytes = order.u32(*trailer);
    if trailer_bytes as usize != whole.len() {
        return Err(Damage::BlockTrailer { length_bytes: whole.len() as u32, trailer_bytes });
    }
    front.get(HEAD_BYTES..).ok_or(short)
}

/// A cursor over a block's body. All that it is asked for is there, or it is damage.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// Where `rest` starts in the bytes that are walked.
    position: usize,
    order: ByteOrder,
}

/// One option of a block.
pub(super) struct BlockOption<'a> {
    pub(super) code: u16,
    pub(super) value: &'a [u8],
    order: ByteOrder,
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8], position: usize, order: ByteOrder) -> Self {
        Self { rest: body, position, order }
    }

    pub(super) fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(|bytes| self.order.u16(bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(|bytes| self.order.u32(bytes))
    }

    /// Four numbers in one step, which is what makes packets quick to read.
    fn words(&mut self) -> Result<[u32; 4], Damage> {
        let order = self.order;
        self.array::<16>().map(|bytes| bytemuck::cast::<_, [[u8; 4]; 4]>(bytes).map(|word| order.u32(word)))
    }

    /// A time stamp or a count in two halves, the high one first in either byte order.
    pub(super) fn high_low(&mut self) -> Result<u64, Damage> {
        Ok(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }

    /// Steps over a frame and says where it starts.
    pub(super) fn frame(&mut self, captured_bytes: u32) -> Result<u32, Damage> {
        if captured_bytes as usize > FRAME_BYTES_MAX {
            return Err(Damage::FrameLength { captured_bytes });
        }
        let offset = self.position as u32;
        self.padded(captured_bytes as usize)?;
        Ok(offset)
    }

    /// The next option; `None` when there is none left.
    pub(super) fn option(&mut self) -> Result<Option<BlockOption<'a>>, Damage> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (code, length_bytes) = (self.u16()?, self.u16()?);
        if code == END_OF_OPTIONS {
            return Ok(None);
        }
        let value = self.padded(usize::from(length_bytes))?;
        Ok(Some(BlockOption { code, value, order: self.order }))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short(N))?;
        self.rest = rest;
        self.position += N;
        Ok(*bytes)
    }

    /// `length_bytes` bytes, of which the padding to a multiple of four is stepped over.
    fn padded(&mut self, length_bytes: usize) -> Result<&'a [u8], Damage> {
        let padded_bytes = length_bytes.next_multiple_of(4);
        let (bytes, rest) = self.rest.split_at_checked(padded_bytes).ok_or_else(|| self.short(padded_bytes))?;
        self.rest = rest;
        self.position += padded_bytes;
        Ok(bytes.get(..length_bytes).unwrap_or_default())
    }

    fn short(&self, needed_bytes: usize) -> Damage {
        Damage::BlockShort { needed_bytes, left_bytes: self.rest.len() }
    }
}

impl BlockOption<'_> {
    pub(super) fn u8(&self) -> Result<u8, Damage> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u32(&self) -> Result<u32, Damage> {
        self.array().map(|bytes| self.order.u32(bytes))
    }

    pub(super) fn u64(&self) -> Result<u64, Damage> {
        self.array().map(|bytes| self.order.u64(bytes))
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], Damage> {
        let length_bytes = self.value.len();
        self.value.try_into().map_err(|_| Damage::OptionLength { code: self.code, length_bytes })
    }
}

/// What an Enhanced Packet Block and an obsolete Packet Block both tell.
pub(super) struct PacketBlock {
    pub(super) interface: u32,
    pub(super) ticks: u64,
    pub(super) offset: u32,
    pub(super) captured_bytes: u32,
    pub(super) original_bytes: u32,
    pub(super) direction: Direction,
    /// Packets lost since the one before, where the block says.
    pub(super) lost_packets: Option<u64>,
}

#[inline(always)]
pub(super) fn enhanced_packet(mut fields: Fields<'_>) -> Result<PacketBlock, Damage> {
    let interface = fields.u32()?;
    packet(interface, None, fields)
}

pub(super) fn obsolete_packet(mut fields: Fields<'_>) -> Result<PacketBlock, Damage> {
    let interface = u32::from(fields.u16()?);
    let lost_packets = match fields.u16()? {
        DROPS_UNKNOWN => None,
        drops_count => Some(u64::from(drops_count)),
    };
    packet(interface, lost_packets, fields)
}

/// From the time stamp on, both blocks are alike. Inlined, because handing the packet on through memory was measured
/// to cost as much as all the rest.
#[inline(always)]
fn packet(interface: u32, lost_packets: Option<u64>, mut fields: Fields<'_>) -> Result<PacketBlock, Damage> {
    let [high, low, captured_bytes, original_bytes] = fields.words()?;
    let ticks = u64::from(high) << 32 | u64::from(low);
    let offset = fields.frame(captured_bytes)?;
    let direction = Direction::Unknown;
    let mut packet = PacketBlock { interface, ticks, offset, captured_bytes, original_bytes, direction, lost_packets };
    while let Some(option) = fields.option()? {
        match option.code {
            FLAGS => packet.direction = direction_of(option.u32()?),
            DROP_COUNT => packet.lost_packets = Some(option.u64()?),
            _ => {}
        }
    }
    Ok(packet)
}

fn direction_of(flags: u32) -> Direction {
    match flags & 0b11 {
        0b01 => Direction::Ingress,
        0b10 => Direction::Egress,
        _ => Direction::Unknown,
    }
}

/// `opt_endofopt`
const END_OF_OPTIONS: u16 = 0;
/// `epb_flags`, and `pack_flags` of the obsolete block.
const FLAGS: u16 = 2;
/// `epb_dropcount`
const DROP_COUNT: u16 = 4;
/// What the obsolete block's drop count says when nobody counted.
const DROPS_UNKNOWN: u16 = 0xffff;
