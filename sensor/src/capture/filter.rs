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
