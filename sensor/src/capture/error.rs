//! What can be wrong with a capture.

use super::FRAME_BYTES_MAX;

/// Damage or trouble in one input. The text names the input, the offset and the cause.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The input could not be opened.
    #[error("{input}: {cause}")]
    Io {
        /// The file's name, or `standard input`.
        input: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The input could not be read on, or its compression is damaged.
    #[error("{input}: after {offset} bytes (uncompressed): {cause}")]
    Read {
        /// The file's name, or `standard input`.
        input: String,
        /// How many bytes of the capture were read before, counted after decompression.
        offset: u64,
        /// What the system or the decoder said.
        cause: std::io::Error,
    },
    /// There is not a single byte in the input.
    #[error("{input}: is empty, there is not even a file header")]
    Empty {
        /// The file's name, or `standard input`.
        input: String,
    },
    /// The first bytes are of no format that is read here.
    #[error(
        "{input}: is not a capture: its first bytes {first_bytes:02x?} are neither those of pcap nor of pcapng, plain \
         or inside gzip or zstd"
    )]
    Format {
        /// The file's name, or `standard input`.
        input: String,
        /// At most four of them, after decompression.
        first_bytes: Vec<u8>,
    },
    /// The capture contradicts its own format. Everything before the offset was handed out.
    #[error("{input}: damaged at offset {offset}: {damage}")]
    Damaged {
        /// The file's name, or `standard input`.
        input: String,
        /// Where the bad record starts, counted after decompression.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
}

/// How a capture contradicts its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The input ends too early.
    #[error("the input ends inside {part}: {needed_bytes} bytes needed, {left_bytes} left")]
    Cut {
        /// What it ends in.
        part: Part,
        /// How long that is.
        needed_bytes: usize,
        /// How much of it there is.
        left_bytes: usize,
    },
    /// pcap other than 2.x, pcapng other than 1.x.
    #[error("version {major}.{minor} is not supported")]
    Version {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// A captured length beyond [`FRAME_BYTES_MAX`].
    #[error("a frame of {captured_bytes} bytes, of at most {FRAME_BYTES_MAX}")]
    FrameLength {
        /// What its record says.
        captured_bytes: u32,
    },
    /// A pcapng section of neither byte order.
    #[error("a section with the byte-order magic {magic:02x?}")]
    ByteOrder {
        /// The four bytes that should tell it.
        magic: [u8; 4],
    },
    /// A pcapng block length that cannot be.
    #[error("a block of {length_bytes} bytes, which is no multiple of 4 from 12 to {max_bytes}")]
    BlockLength {
        /// What it says of itself.
        length_bytes: u32,
        /// The longest that is read.
        max_bytes: u32,
    },
    /// The two lengths of a pcapng block differ.
    #[error("a block of {length_bytes} bytes whose last word says {trailer_bytes}")]
    BlockTrailer {
        /// The length in front.
        length_bytes: u32,
        /// The length behind.
        trailer_bytes: u32,
    },
    /// A pcapng block is too short for what it must hold.
    #[error("a field, frame or option of {needed_bytes} bytes in a block with {left_bytes} bytes left")]
    BlockShort {
        /// How much was to be read.
        needed_bytes: usize,
        /// How much there is.
        left_bytes: usize,
    },
    /// A pcapng option whose value has a fixed length, and another one here.
    #[error("option {code} with a value of {length_bytes} bytes")]
    OptionLength {
        /// The option's code.
        code: u16,
        /// The length of its value.
        length_bytes: usize,
    },
    /// A pcapng block of an interface that its section did not declare.
    #[error("a block of interface {interface} in a section that declared {declared}")]
    UnknownInterface {
        /// The number it names.
        interface: u32,
        /// How many there are so far.
        declared: usize,
    },
    /// No room for another interface.
    #[error("more than {} interfaces", super::INTERFACES_MAX)]
    TooManyInterfaces,
}

/// A piece of a capture that an input can end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The header of a pcap file.
    FileHeader,
    /// The header of a pcap record.
    RecordHeader,
    /// A pcap record.
    Record,
    /// The first words of a pcapng block.
    BlockHeader,
    /// A pcapng block.
    Block,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FileHeader => "the file header",
            Self::RecordHeader => "a record header",
            Self::Record => "a record",
            Self::BlockHeader => "a block header",
            Self::Block => "a block",
        })
    }
}
