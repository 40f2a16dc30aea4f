//! Interfaces of a pcapng section: how they are declared, and what they lost.

use super::super::{Damage, LinkType};
use super::block::Fields;
use super::time::{Clock, Resolution};

/// An interface that a section declared.
pub(super) struct SectionInterface {
    /// Its index among all interfaces of the run.
    pub(super) index: u16,
    pub(super) settings: Settings,
    pub(super) losses: Losses,
}

impl SectionInterface {
    pub(super) fn new(index: u16, settings: Settings) -> Self {
        Self { index, settings, losses: Losses::default() }
    }
}

/// What is needed to read an interface's packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) link_type: LinkType,
    /// 0: no limit.
    pub(super) snap_length_bytes: u32,
    pub(super) clock: Clock,
}

/// An Interface Description Block.
pub(super) struct Description {
    pub(super) name: Option<String>,
    pub(super) settings: Settings,
}

pub(super) fn description(mut fields: Fields<'_>) -> Result<Description, Damage> {
    let link_type = LinkType::from_number(fields.u16()?);
    let _reserved = fields.u16()?;
    let snap_length_bytes = fields.u32()?;
    let mut name = None;
    let mut clock = Clock::default();
    while let Some(option) = fields.option()? {
        match option.code {
            IF_NAME => name = text(option.value),
            IF_TSRESOL => clock.resolution = Resolution::new(option.u8()?),
            IF_TSOFFSET => clock.offset_secs = option.u64()?.cast_signed(),
            _ => {}
        }
    }
    Ok(Description { name, settings: Settings { link_type, snap_length_bytes, clock } })
}

/// An option's text; some writers end it with a zero byte, which is none of it.
fn text(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let text = text.trim_end_matches('\0');
    (!text.is_empty()).then(|| text.to_owned())
}

/// An Interface Statistics Block.
pub(super) struct Statistics {
    pub(super) interface: u32,
    pub(super) ticks: u64,
    /// By the interface and by the operating system, since the capture began.
    pub(super) lost_packets: u64,
}

pub(super) fn statistics(mut fields: Fields<'_>) -> Result<Statistics, Damage> {
    let mut statistics = Statistics { interface: fields.u32()?, ticks: fields.high_low()?, lost_packets: 0 };
    let (mut by_interface, mut by_system) = (0, 0);
    while let Some(option) = fields.option()? {
        match option.code {
            ISB_IFDROP => by_interface = option.u64()?,
            ISB_OSDROP => by_system = option.u64()?,
            _ => {}
        }
    }
    statistics.lost_packets = u64::saturating_add(by_interface, by_system);
    Ok(statistics)
}

/// What an interface has lost so far in this section, as told in two ways: by each packet, since the one before, and by
/// statistics blocks, since the start. Both tell of the same packets, so the loss is the greater of the two totals, and
/// a report is by how much that has grown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    by_packets: u64,
    by_statistics: u64,
}

impl Losses {
    /// A packet says that `packets` were lost before it. Returns how many of them are news.
    pub(super) fn before_packet(&mut self, packets: u64) -> u64 {
        let known = self.total();
        self.by_packets = self.by_packets.saturating_add(packets);
        self.total() - known
    }

    /// Statistics say that `packets` were lost since the start. Returns how many of them are news.
    pub(super) fn since_start(&mut self, packets: u64) -> u64 {
        let known = self.total();
        self.by_statistics = self.by_statistics.max(packets);
        self.total() - known
    }

    fn total(self) -> u64 {
        self.by_packets.max(self.by_statistics)
    }
}

// Option codes: draft-ietf-opsawg-pcapng, sections 4.2 and 4.6.
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;
const ISB_IFDROP: u16 = 5;
const ISB_OSDROP: u16 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_told_twice_is_one_loss() {
        let mut losses = Losses::default();
        assert_eq!(losses.before_packet(5), 5);
        assert_eq!(losses.since_start(5), 0, "the same five");
        assert_eq!(losses.since_start(7), 2);
        assert_eq!(losses.before_packet(2), 0, "the same two, now told by the packet after them");
        assert_eq!(losses.before_packet(1), 1);
        assert_eq!(losses.since_start(3), 0, "a total that went back is no loss");
    }

    #[test]
    fn totals_stop_at_the_largest_number() {
        let mut losses = Losses::default();
        assert_eq!(losses.before_packet(u64::MAX), u64::MAX);
        assert_eq!(losses.before_packet(1), 0);
    }
}
