//! Filter expressions, as of tcpdump.
//!
//! Authority: pcap-filter(7); libpcap compiles and runs them. One expression makes one program for each link type,
//! compiled when the first frame of it comes.
//!
//! libpcap's program is given the captured bytes alone, so `len`, `less` and `greater` mean the captured length of a
//! frame that was cut short. A frame that ends before the bytes an expression asks for isn't selected.

use pcap::{BpfProgram, Capture, Linktype};

use super::{Block, CaptureError, Fill, LinkType, Source};

/// A source whose frames pass a filter before anyone else sees them.
pub struct Filtered {
    source: Box<dyn Source>,
    filter: Filter,
}

impl Filtered {
    /// What `source` holds and `filter` selects.
    pub fn new(source: Box<dyn Source>, filter: Filter) -> Self {
        Self { source, filter }
    }
}

impl Source for Filtered {
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
        let fill = self.source.fill(block)?;
        block.excluded = self.filter.apply(block);
        Ok(fill)
    }
}

/// A filter expression, ready to run.
pub struct Filter {
    expression: String,
    /// By [`LinkType`].
    programs: [Program; LINK_TYPES.len()],
}

/// An expression for one link type.
#[derive(Default)]
enum Program {
    /// No frame of this link type came yet.
    #[default]
    Uncompiled,
    Compiled(BpfProgram),
    /// The expression asks for something this link type has not, or libpcap does not know the link type.
    Impossible,
}

/// What a filter took out of a block, in frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Excluded {
    /// Frames that the expression doesn't select.
    pub unselected_frames: u64,
    /// Frames of a link type for which the expression can't be compiled.
    pub unfilterable_frames: u64,
}

/// An expression that libpcap refuses.
#[derive(Debug, thiserror::Error)]
#[error("filter `{expression}`: {cause}")]
pub struct FilterError {
    /// As the user wrote it.
    pub expression: String,
    /// libpcap's own words.
    pub cause: pcap::Error,
}

impl Filter {
    /// The filter of `expression`. One that makes sense for some link type is right, as the link types to come are not
    /// known.
    ///
    /// # Errors
    /// When libpcap can compile it for no link type; the cause is what is wrong with it on Ethernet.
    pub fn new(expression: &str) -> Result<Self, FilterError> {
        let refusal = |cause| FilterError { expression: expression.to_owned(), cause };
        let on_ethernet = compile(expression, Linktype::ETHERNET);
        if let Err(cause) = on_ethernet
            && !LINK_TYPES.iter().flatten().any(|&link_type| compile(expression, Linktype(link_type)).is_ok())
        {
            return Err(refusal(cause));
        }
        Ok(Self { expression: expression.to_owned(), programs: Default::default() })
    }

    /// Takes the frames out of `block` that the expression doesn't select.
    pub fn apply(&mut self, block: &mut Block) -> Excluded {
        let mut excluded = Excluded::default();
        let Block { bytes, frames, .. } = block;
        frames.retain(|frame| {
            let data = frame.data(bytes);
            match self.program(frame.link_type) {
                Program::Compiled(program) if program.filter(data) => return true,
                Program::Compiled(_) | Program::Uncompiled => excluded.unselected_frames += 1,
                Program::Impossible => excluded.unfilterable_frames += 1,
            }
            false
        });
        excluded
    }

    fn program(&mut self, link_type: LinkType) -> &Program {
        let program = &mut self.programs[link_type as usize];
        if matches!(program, Program::Uncompiled) {
            let compiled = LINK_TYPES[link_type as usize].map(|number| compile(&self.expression, Linktype(number)));
            *program = compiled.and_then(Result::ok).map_or(Program::Impossible, Program::Compiled);
        }
        program
    }
}

fn compile(expression: &str, link_type: Linktype) -> Result<BpfProgram, pcap::Error> {
    Capture::dead(link_type)?.compile(expression, true)
}

/// libpcap's number (Linux's `DLT_`) for each [`LinkType`], in that order.
const LINK_TYPES: [Option<i32>; 13] = [
    Some(1),
    Some(113),
    Some(276),
    Some(12),
    Some(0),
    Some(108),
    Some(9),
    Some(51),
    Some(104),
    Some(105),
    Some(127),
    Some(239),
    None,
];

#[cfg(test)]
mod tests {
    use super::super::{Direction, Frame};
    use super::*;
    use crate::time::Timestamp;

    /// A UDP packet from 10.0.0.1:53 to 10.0.0.2:1024 without data.
    const IP: [u8; 28] = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 4, 0, 0, 8, 0, 0];

    /// A block with a frame for each of `frames`.
    fn block(frames: &[(LinkType, Vec<u8>)]) -> Block {
        let mut block = Block::default();
        for (link_type, data) in frames {
            block.frames.push(Frame {
                time: Timestamp(0),
                offset: block.bytes.len() as u32,
                captured_bytes: data.len() as u32,
                original_bytes: 1500,
                interface: 0,
                link_type: *link_type,
                direction: Direction::Unknown,
            });
            block.bytes.extend(data);
        }
        block
    }

    fn ethernet(ether_type: [u8; 2]) -> (LinkType, Vec<u8>) {
        (LinkType::Ethernet, [&[2; 12], &ether_type[..], &IP].concat())
    }

    fn cooked() -> (LinkType, Vec<u8>) {
        (LinkType::LinuxSll, [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0], &IP[..]].concat())
    }

    fn left_by(expression: &str, frames: &[(LinkType, Vec<u8>)]) -> (Vec<LinkType>, Excluded) {
        let mut block = block(frames);
        let excluded = Filter::new(expression).unwrap().apply(&mut block);
        (block.frames.iter().map(|frame| frame.link_type).collect(), excluded)
    }

    #[test]
    fn an_expression_works_on_every_link_type() {
        let frames = [ethernet([8, 0]), cooked(), (LinkType::Raw, IP.to_vec())];
        let all = vec![LinkType::Ethernet, LinkType::LinuxSll, LinkType::Raw];
        assert_eq!(left_by("udp port 53 and host 10.0.0.2", &frames), (all, Excluded::default()));
        let excluded = Excluded { unselected_frames: 3, unfilterable_frames: 0 };
        assert_eq!(left_by("tcp", &frames), (vec![], excluded));
    }

    #[test]
    fn only_what_is_selected_stays() {
        let frames = [ethernet([8, 0]), ethernet([8, 6]), (LinkType::Ethernet, vec![2; 10]), ethernet([8, 0])];
        let excluded = Excluded { unselected_frames: 2, unfilterable_frames: 0 };
        assert_eq!(left_by("ip", &frames), (vec![LinkType::Ethernet; 2], excluded));
    }

    #[test]
    fn frames_without_a_program_are_counted_apart() {
        let frames = [ethernet([8, 0]), (LinkType::Raw, IP.to_vec()), (LinkType::Unsupported, IP.to_vec())];
        let excluded = Excluded { unselected_frames: 0, unfilterable_frames: 2 };
        // Raw IP has no Ethernet addresses.
        assert_eq!(left_by("ether src 02:02:02:02:02:02", &frames), (vec![LinkType::Ethernet], excluded));
    }

    #[test]
    fn an_expression_for_another_link_type_is_right() {
        assert!(Filter::new("wlan type mgt").is_ok());
    }

    #[test]
    fn a_wrong_expression_is_refused_in_the_words_of_libpcap() {
        let error = Filter::new("tcp prot 80").err().unwrap().to_string();
        assert!(error.starts_with("filter `tcp prot 80`: libpcap error: "), "{error}");
        assert!(error.contains("syntax error"), "{error}");
        assert!(Filter::new("tcp\0").is_err());
    }

    #[test]
    fn a_filter_can_move_to_a_worker() {
        let mut filter = Filter::new("udp").unwrap();
        let mut block = block(&[cooked()]);
        let excluded = std::thread::scope(|scope| scope.spawn(|| filter.apply(&mut block)).join().unwrap());
        assert_eq!(excluded, Excluded::default());
    }

    #[test]
    fn each_link_type_has_the_number_of_the_registry() {
        for (index, number) in LINK_TYPES.iter().enumerate() {
            let number = number.map_or(u16::MAX, |number| u16::try_from(number).unwrap());
            assert_eq!(LinkType::from_number(number) as usize, index);
        }
    }
}
