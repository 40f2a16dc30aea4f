//! How many IPsec policies there are.
//!
//! Authority: linux/xfrm.h, `XFRM_MSG_GETSPDINFO`. The kernel answers only who has CAP_NET_ADMIN.

use std::io;

use netlink_packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator, parse_u32,
};

use super::Netlink;

impl Netlink {
    /// Whether IPsec may have a say in what leaves the host.
    ///
    /// # Errors
    /// The caller may not know.
    pub(crate) fn has_policies(&mut self) -> io::Result<bool> {
        let policies = match &mut self.policies {
            Ok(policies) => policies,
            // This kernel has none.
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(false),
            Err(error) => return Err(error.kind().into()),
        };
        let answers = policies.ask(Message::Ask, 0)?;
        let outgoing = answers.iter().find_map(|answer| match answer {
            Message::Outgoing(count) => Some(*count),
            Message::Ask => None,
        });
        outgoing.map(|count| count != 0).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The question, and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Ask,
    /// Policies for what leaves.
    Outgoing(u32),
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Ask => XFRM_MSG_GETSPDINFO,
            Self::Outgoing(_) => XFRM_MSG_NEWSPDINFO,
        }
    }

    fn buffer_len(&self) -> usize {
        FLAGS_BYTES
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != XFRM_MSG_NEWSPDINFO {
            return Err(format!("message type {}", header.message_type).into());
        }
        for attribute in NlasIterator::new(payload.get(FLAGS_BYTES..).unwrap_or_default()) {
            let attribute = attribute?;
            if attribute.kind() == XFRMA_SPD_INFO {
                return Ok(Self::Outgoing(parse_u32(attribute.value().get(4..8).unwrap_or_default())?));
            }
        }
        Err("no number of policies".into())
    }
}

const XFRM_MSG_NEWSPDINFO: u16 = 0x24;
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
/// Policies for what comes in, what leaves, and what is forwarded; then the same of sockets.
const XFRMA_SPD_INFO: u16 = 1;
/// Before the attributes.
const FLAGS_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::bytes::{attribute, message};
    use super::*;
    use netlink_packet_core::{NetlinkMessage, NetlinkPayload};

    fn read(kind: u16, body: &[u8]) -> Result<Message, DecodeError> {
        match NetlinkMessage::deserialize(&message(kind, 1, body))?.payload {
            NetlinkPayload::InnerMessage(message) => Ok(message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_answer_has_a_number_for_each_direction() {
        let counts = [1_u32, 2, 3, 4, 5, 6].map(u32::to_ne_bytes).concat();
        // `XFRMA_SPD_HINFO` comes as well.
        let body = [vec![0; 4], attribute(2, &[0; 8]), attribute(1, &counts)].concat();
        assert_eq!(read(0x24, &body).unwrap(), Message::Outgoing(2));
        let cut = [vec![0; 4], attribute(1, &counts[..7])].concat();
        for body in [&cut[..], &[0; 4], &[]] {
            assert!(read(0x24, body).is_err(), "{body:?}");
        }
        assert!(read(0x25, &body).is_err(), "no answer");
    }

    #[test]
    fn the_question_is_a_word_without_flags() {
        let mut question = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(Message::Ask));
        question.header.sequence_number = 1;
        question.finalize();
        let mut bytes = vec![0xff; question.buffer_len()];
        question.serialize(&mut bytes);
        assert_eq!(bytes, message(0x25, 1, &[0; 4]));
    }
}
