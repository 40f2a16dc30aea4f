//! What the running kernel says of its own types: offsets of members, values of enums, arguments of tracepoints.
//!
//! Authority: the kernel's `Documentation/bpf/btf.rst`. Only what the loader asks for is read; everything else is
//! stepped over by its size. The kernel wrote the bytes, yet every access is checked: a kind from the future is an
//! error with its number, not a guess.

use std::{fs, io, path::Path};

/// Where a kernel with BTF shows it.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Type information, parsed as far as finding each type.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Offset of each type in `bytes`; type 0 is `void` and has none.
    types: Vec<usize>,
    strings: usize,
}

/// Why type information cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("type information cannot be read")]
    Read(#[from] io::Error),
    /// The bytes end too early, or do not begin as type information of this machine does.
    #[error("type information is damaged at byte {offset}")]
    Damaged {
        /// Where.
        offset: usize,
    },
    /// A kind of type that is younger than this reader.
    #[error("type information has a kind of type, {kind}, that is not known")]
    Kind {
        /// Its number.
        kind: u32,
    },
    /// The kernel has no such type or member.
    #[error("the kernel has no {name}")]
    Missing {
        /// Its name.
        name: String,
    },
}

impl Btf {
    /// Reads a file of type information.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        Self::parse(fs::read(path)?)
    }

    /// Takes `bytes` as type information in this machine's byte order.
    ///
    /// # Errors
    /// They are none.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let mut this = Self { bytes, types: Vec::new(), strings: 0 };
        // Magic, version and flags; length of this header; offset and length of the types; offset of the strings.
        if this.word(0)? & 0xffff != MAGIC {
            return Err(BtfError::Damaged { offset: 0 });
        }
        let header = this.word(4)? as usize;
        let mut at = header + this.word(8)? as usize;
        let end = at + this.word(12)? as usize;
        this.strings = header + this.word(16)? as usize;
        while at < end {
            this.types.push(at);
            at += TYPE_BYTES + this.trailer_bytes(at)?;
        }
        Ok(this)
    }

    /// Offset of a member in bytes. `path` may lead through members that are structures themselves: `nd_net.net`.
    /// Members without a name are looked through, as C does.
    ///
    /// # Errors
    /// The kernel has no such structure or member.
    pub fn offset(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        Ok(self.bit_offset(structure, path)? / 8)
    }

    /// The same in bits, for members that are less than a byte.
    ///
    /// # Errors
    /// The kernel has no such structure or member.
    pub fn bit_offset(&self, structure: &str, path: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::Missing { name: format!("{structure}.{path}") };
        let mut of = self.find(structure, &[STRUCT, UNION])?.ok_or_else(missing)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (member_bits, member_type) = self.member(of, name, NESTING_MAX)?.ok_or_else(missing)?;
            bits += member_bits;
            of = member_type;
        }
        Ok(bits)
    }

    /// Names and values of an enum.
    ///
    /// # Errors
    /// The kernel has no such enum.
    pub fn enum_values(&self, name: &str) -> Result<Vec<(String, u32)>, BtfError> {
        let missing = || BtfError::Missing { name: format!("enum {name}") };
        let at = self.at(self.find(name, &[ENUM, ENUM64])?.ok_or_else(missing)?)?;
        let info = self.info(at)?;
        let entry_bytes = if info.kind == ENUM { 8 } else { 12 };
        (0..info.count)
            .map(|index| {
                let entry = at + TYPE_BYTES + index * entry_bytes;
                let name = String::from_utf8_lossy(self.string(self.word(entry)?)?).into_owned();
                Ok((name, self.word(entry + 4)?))
            })
            .collect()
    }

    /// Which argument of a tracepoint has the type named `type_name`, itself or behind a pointer, counted from 0.
    /// Parameters have no names there.
    ///
    /// # Errors
    /// The kernel has no such tracepoint, or none of its arguments is of that type.
    pub fn tracepoint_argument(&self, tracepoint: &str, type_name: &str) -> Result<u32, BtfError> {
        let typedef = format!("btf_trace_{tracepoint}");
        let missing = |name: String| BtfError::Missing { name };
        let pointer = self.find(&typedef, &[TYPEDEF])?.ok_or_else(|| missing(format!("tracepoint {tracepoint}")))?;
        let at = self.at(self.pointee(self.strip(pointer)?)?)?;
        let prototype = self.info(at)?;
        if prototype.kind != FUNC_PROTO {
            return Err(BtfError::Damaged { offset: at });
        }
        // The first parameter is the tracepoint's own data, which no program is given.
        for index in 1..prototype.count {
            let parameter = self.word(at + TYPE_BYTES + index * 8 + 4)?;
            let target = self.strip(self.pointee(self.strip(parameter)?)?)?;
            if target != VOID && self.name(self.at(target)?)? == type_name.as_bytes() {
                return u32::try_from(index - 1).map_err(|_| BtfError::Damaged { offset: at });
            }
        }
        Err(missing(format!("argument {type_name} of tracepoint {tracepoint}")))
    }

    /// Offset in bits and type of the member `name` of type `of`.
    fn member(&self, of: u32, name: &str, nesting: u32) -> Result<Option<(u32, u32)>, BtfError> {
        let of = self.strip(of)?;
        if of == VOID || nesting == 0 {
            return Ok(None);
        }
        let at = self.at(of)?;
        let info = self.info(at)?;
        if !matches!(info.kind, STRUCT | UNION) {
            return Ok(None);
        }
        for index in 0..info.count {
            let member = at + TYPE_BYTES + index * 12;
            let member_name = self.string(self.word(member)?)?;
            let member_type = self.word(member + 4)?;
            let offset = self.word(member + 8)?;
            let bits = if info.flag { offset & 0x00ff_ffff } else { offset };
            if member_name == name.as_bytes() {
                return Ok(Some((bits, member_type)));
            }
            if member_name.is_empty()
                && let Some((inner_bits, found)) = self.member(member_type, name, nesting - 1)?
            {
                return Ok(Some((bits + inner_bits, found)));
            }
        }
        Ok(None)
    }

    /// The type of that name and one of these kinds.
    fn find(&self, name: &str, kinds: &[u32]) -> Result<Option<u32>, BtfError> {
        for (&at, number) in self.types.iter().zip(1..) {
            if kinds.contains(&self.info(at)?.kind) && self.name(at)? == name.as_bytes() {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// The type without the names and qualifiers around it.
    fn strip(&self, mut number: u32) -> Result<u32, BtfError> {
        for _ in 0..NESTING_MAX {
            if number == VOID || !matches!(self.info(self.at(number)?)?.kind, TYPEDEF..=RESTRICT | TYPE_TAG) {
                break;
            }
            number = self.word(self.at(number)? + 8)?;
        }
        Ok(number)
    }

    /// What a pointer points to; anything else is its own answer.
    fn pointee(&self, number: u32) -> Result<u32, BtfError> {
        if number == VOID || self.info(self.at(number)?)?.kind != PTR {
            return Ok(number);
        }
        self.word(self.at(number)? + 8)
    }

    fn at(&self, number: u32) -> Result<usize, BtfError> {
        let index = (number as usize).checked_sub(1);
        index.and_then(|index| self.types.get(index)).copied().ok_or(BtfError::Damaged { offset: self.strings })
    }

    fn name(&self, at: usize) -> Result<&[u8], BtfError> {
        self.string(self.word(at)?)
    }

    fn string(&self, offset: u32) -> Result<&[u8], BtfError> {
        let start = self.strings + offset as usize;
        let bytes = self.bytes.get(start..).ok_or(BtfError::Damaged { offset: start })?;
        let (string, _) = bytes.split_at(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
        Ok(string)
    }

    fn info(&self, at: usize) -> Result<Info, BtfError> {
        let word = self.word(at + 4)?;
        Ok(Info { kind: word >> 24 & 0x1f, count: (word & 0xffff) as usize, flag: word >> 31 == 1 })
    }

    /// Size of what stands behind a type's three words.
    fn trailer_bytes(&self, at: usize) -> Result<usize, BtfError> {
        let info = self.info(at)?;
        Ok(match info.kind {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * info.count,
            ENUM | FUNC_PROTO => 8 * info.count,
            PTR | FWD..=FUNC | FLOAT | TYPE_TAG => 0,
            kind => return Err(BtfError::Kind { kind }),
        })
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        let bytes =
            self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or(BtfError::Damaged { offset: at })?;
        Ok(u32::from_ne_bytes(*bytes))
    }
}

struct Info {
    kind: u32,
    count: usize,
    flag: bool,
}

const MAGIC: u32 = 0xeb9f;
const TYPE_BYTES: usize = 12;
const VOID: u32 = 0;
/// How deep types may lie in each other.
const NESTING_MAX: u32 = 16;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FWD: u32 = 7;
const TYPEDEF: u32 = 8;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    /// Strings of the hand-made blob; the number is where each begins.
    const STRINGS: &[u8] = b"\0int\0outer\0inner\0first\0deep\0reason\0NONE\0DROPPED\0btf_trace_gone\0bits\0";
    const S_INT: u32 = 1;
    const S_OUTER: u32 = 5;
    const S_INNER: u32 = 11;
    const S_FIRST: u32 = 17;
    const S_DEEP: u32 = 23;
    const S_REASON: u32 = 28;
    const S_NONE: u32 = 35;
    const S_DROPPED: u32 = 40;
    const S_GONE: u32 = 48;
    const S_BITS: u32 = 63;

    fn info(kind: u32, count: u32, flag: bool) -> u32 {
        kind << 24 | count | u32::from(flag) << 31
    }

    fn blob() -> Vec<u8> {
        let types: Vec<u32> = [
            // 1: int
            [S_INT, info(INT, 0, false), 4, 32].as_slice(),
            // 2: struct with int at byte 4, named `deep`
            &[0, info(STRUCT, 1, false), 8, S_DEEP, 1, 32],
            // 3: struct outer { int first; struct { .. deep }; inner at byte 16 }, with bit-field encoding
            &[S_OUTER, info(STRUCT, 4, true), 24, S_FIRST, 1, 0, S_BITS, 1, 3 << 24 | 40, 0, 2, 64, S_INNER, 4, 128],
            // 4: const 2
            &[0, info(10, 0, false), 2],
            // 5: enum reason
            &[S_REASON, info(ENUM, 2, false), 4, S_NONE, 0, S_DROPPED, 7],
            // 6: pointer to outer, 7: const void pointer
            &[0, info(PTR, 0, false), 3],
            &[0, info(PTR, 0, false), 0],
            // 8: prototype (void *, struct outer *, void *, enum reason), 9: pointer to it, 10: its typedef
            &[0, info(FUNC_PROTO, 4, false), 0, 0, 7, 0, 6, 0, 7, 0, 5],
            &[0, info(PTR, 0, false), 8],
            &[S_GONE, info(TYPEDEF, 0, false), 9],
        ]
        .concat();
        let type_bytes = u32::try_from(types.len() * 4).unwrap();
        let header = [MAGIC | 1 << 16, 24, 0, type_bytes, type_bytes, u32::try_from(STRINGS.len()).unwrap()];
        let mut bytes: Vec<u8> = header.iter().chain(&types).flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(STRINGS);
        bytes
    }

    #[test]
    fn offsets_lead_through_unnamed_and_qualified_members() {
        let btf = Btf::parse(blob()).unwrap();
        assert_eq!(btf.offset("outer", "first").unwrap(), 0);
        assert_eq!(btf.offset("outer", "bits").unwrap(), 5);
        assert_eq!(btf.bit_offset("outer", "bits").unwrap(), 40);
        assert_eq!(btf.offset("outer", "deep").unwrap(), 12);
        assert_eq!(btf.offset("outer", "inner.deep").unwrap(), 20);
    }

    #[test]
    fn what_is_missing_is_named() {
        let btf = Btf::parse(blob()).unwrap();
        for (structure, path) in [("outer", "second"), ("nobody", "first"), ("outer", "first.deep")] {
            let error = btf.offset(structure, path).unwrap_err();
            assert_eq!(error.to_string(), format!("the kernel has no {structure}.{path}"));
        }
        assert!(btf.tracepoint_argument("gone", "inner").is_err());
        assert!(btf.tracepoint_argument("come", "outer").is_err());
    }

    #[test]
    fn enums_and_arguments_are_found_by_name() {
        let btf = Btf::parse(blob()).unwrap();
        assert_eq!(btf.enum_values("reason").unwrap(), [("NONE".to_owned(), 0), ("DROPPED".to_owned(), 7)]);
        assert_eq!(btf.tracepoint_argument("gone", "outer").unwrap(), 0);
        assert_eq!(btf.tracepoint_argument("gone", "reason").unwrap(), 2);
    }

    #[test]
    fn no_beginning_of_the_blob_panics() {
        let whole = blob();
        for length in 0..whole.len() {
            let Ok(btf) = Btf::parse(whole.get(..length).unwrap().to_vec()) else { continue };
            // Whatever it answers, it answers.
            drop((btf.offset("outer", "inner.deep"), btf.enum_values("reason"), btf.tracepoint_argument("gone", "x")));
        }
    }

    #[test]
    fn a_kind_from_the_future_is_named() {
        let mut bytes = blob();
        let first_info = 24 + 4;
        bytes.get_mut(first_info..first_info + 4).unwrap().copy_from_slice(&info(20, 0, false).to_ne_bytes());
        assert!(matches!(Btf::parse(bytes), Err(BtfError::Kind { kind: 20 })));
    }

    #[test]
    fn the_running_kernel_is_understood() {
        let Ok(btf) = Btf::from_file(Path::new(KERNEL_BTF)) else {
            eprintln!("skipped: this kernel shows no BTF");
            return;
        };
        // A list head is two pointers, and `struct sk_buff` begins with one in a union: stable since long.
        assert_eq!(btf.offset("list_head", "prev").unwrap(), 8);
        assert_eq!(btf.offset("sk_buff", "next").unwrap(), 0);
        assert!(btf.offset("net_device", "nd_net.net").unwrap() > 0);
        assert_eq!(btf.tracepoint_argument("kfree_skb", "sk_buff").unwrap(), 0);
        assert_eq!(btf.tracepoint_argument("kfree_skb", "skb_drop_reason").unwrap(), 2);
        let reasons = btf.enum_values("skb_drop_reason").unwrap();
        assert!(reasons.iter().any(|(name, value)| name == "SKB_DROP_REASON_NETFILTER_DROP" && *value > 2));
    }
}
