//! A socket by which the kernel is asked, one question at a time.
//!
//! Authority: netlink(7).

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// A socket to one of the kernel's families.
#[derive(Debug)]
pub(super) struct Questions {
    socket: Socket,
    sequence: u32,
}

impl Questions {
    pub(super) fn open(family: isize) -> io::Result<Self> {
        let mut socket = Socket::new(family)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and gathers what comes for it: up to an acknowledgement, the end of a dump, or the one answer.
    pub(super) fn ask<M: NetlinkSerializable + NetlinkDeserializable>(
        &mut self,
        message: M,
        flags: u16,
    ) -> io::Result<Vec<M>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let has_end = flags & (NLM_F_ACK | NLM_F_DUMP) != 0;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            let is_over = gather(&received, self.sequence, &mut answers)?;
            if is_over || (!has_end && !answers.is_empty()) {
                return Ok(answers);
            }
        }
    }
}

/// Takes the answers to the request of that number out of what was received, and tells whether no more will come. Others
/// are to requests that were given up.
fn gather<M: NetlinkDeserializable>(mut received: &[u8], sequence: u32, answers: &mut Vec<M>) -> io::Result<bool> {
    while !received.is_empty() {
        let answer = NetlinkMessage::<M>::deserialize(received)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let length = (answer.header.length as usize).next_multiple_of(4).max(HEADER_BYTES);
        received = received.get(length..).unwrap_or_default();
        if answer.header.sequence_number != sequence {
            continue;
        }
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(io::Error::from_raw_os_error(-error.raw_code()));
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::InnerMessage(inner) => answers.push(inner),
            _ => {}
        }
    }
    Ok(false)
}

const HEADER_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::bytes::message;
    use super::*;
    use netlink_packet_route::RouteNetlinkMessage;

    /// linux/netlink.h and linux/rtnetlink.h.
    const NLMSG_ERROR: u16 = 2;
    const NLMSG_DONE: u16 = 3;
    const RTM_NEWNEIGH: u16 = 28;

    fn gathered(received: &[u8]) -> (io::Result<bool>, usize) {
        let mut answers = Vec::<RouteNetlinkMessage>::new();
        let is_over = gather(received, 7, &mut answers);
        (is_over, answers.len())
    }

    /// An error is a negative number, or zero for what was done; then the header of the request.
    fn error(sequence: u32, number: i32) -> Vec<u8> {
        message(NLMSG_ERROR, sequence, &[&number.to_ne_bytes()[..], &[0; 16]].concat())
    }

    #[test]
    fn answers_are_those_of_the_request() {
        let [ours, other] = [7, 6].map(|sequence| message(RTM_NEWNEIGH, sequence, &[0; 12]));
        let (is_over, answers) = gathered(&[&ours[..], &other, &ours].concat());
        assert_eq!((is_over.unwrap(), answers), (false, 2), "more may come");
        let (is_over, answers) = gathered(&[&error(6, -19)[..], &ours].concat());
        assert_eq!((is_over.unwrap(), answers), (false, 1), "an earlier request has failed");
    }

    #[test]
    fn it_is_over_when_the_kernel_says_so() {
        let answer = message(RTM_NEWNEIGH, 7, &[0; 12]);
        let (is_over, answers) = gathered(&[&answer[..], &message(NLMSG_DONE, 7, &[0; 4])].concat());
        assert_eq!((is_over.unwrap(), answers), (true, 1));
        let (is_over, answers) = gathered(&error(7, 0));
        assert_eq!((is_over.unwrap(), answers), (true, 0), "an acknowledgement");
        let (failed, _) = gathered(&error(7, -19));
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut cut = message(RTM_NEWNEIGH, 7, &[0; 12]);
        cut.truncate(20);
        for bytes in [&cut[..], &[0; 3], &[0; 16]] {
            assert_eq!(gathered(bytes).0.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
