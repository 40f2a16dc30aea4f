//! IEEE 802.11 frames, with and without a radiotap header (radiotap.org).

use super::{ether_type_of, llc_snap, mac};
use crate::cast::{HOST, ROUTER};
use crate::packet::{Packet, length_u16};

/// Shape of an 802.11 data frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// From a station to the access point.
    ToAccessPoint,
    /// From the access point to a station.
    FromAccessPoint,
    /// As `ToAccessPoint`, with the two bytes of quality of service.
    WithQos,
    /// Between two access points: four addresses.
    Bridged,
    /// As `ToAccessPoint`, encrypted: nothing of the packet can be read.
    Protected,
    /// Quality of service with several packets in one frame (A-MSDU).
    Aggregate,
    /// The second piece of a fragmented frame, which has no LLC.
    LaterFragment,
}

/// An 802.11 data frame with LLC and SNAP, without check sequence.
pub fn data(shape: Shape) -> impl Fn(&Packet) -> Vec<u8> {
    move |packet| {
        let (src, dst, station) = (mac(packet.flow.src), mac(packet.flow.dst), mac(ROUTER));
        let body = [&llc_snap(ether_type_of(packet))[..], &packet.bytes].concat();
        let duration = [0x2c, 0x00];
        let sequence = [0x10, 0x00];
        match shape {
            Shape::ToAccessPoint => [&[DATA, TO_DS][..], &duration, &station, &src, &dst, &sequence, &body].concat(),
            Shape::FromAccessPoint => {
                [&[DATA, FROM_DS][..], &duration, &dst, &station, &src, &sequence, &body].concat()
            }
            Shape::WithQos => {
                [&[QOS_DATA, TO_DS][..], &duration, &station, &src, &dst, &sequence, &[5, 0], &body].concat()
            }
            Shape::Bridged => {
                let frame = [&[DATA, TO_DS | FROM_DS][..], &duration, &station, &station, &dst, &sequence, &src, &body];
                frame.concat()
            }
            Shape::Protected => {
                let cipher: Vec<u8> = body.iter().map(|byte| byte ^ 0x5a).collect();
                // Eight bytes of CCMP header: packet number, reserved, key id with the extended bit.
                let ccmp = [1, 0, 0, 0x20, 0, 0, 0, 0];
                [&[DATA, TO_DS | PROTECTED][..], &duration, &station, &src, &dst, &sequence, &ccmp, &cipher].concat()
            }
            Shape::Aggregate => {
                // Bit 7 of quality of service; then for each packet two addresses and a length.
                let subframe = [&dst[..], &src, &length_u16(body.len()).to_be_bytes(), &body].concat();
                [&[QOS_DATA, TO_DS][..], &duration, &station, &src, &dst, &sequence, &[0x85, 0], &subframe].concat()
            }
            Shape::LaterFragment => {
                let second = [0x11, 0x00];
                [&[DATA, TO_DS][..], &duration, &station, &src, &dst, &second, &body[64..]].concat()
            }
        }
    }
}

/// A data frame without data, by which a station tells that it will sleep.
pub fn null_function() -> Vec<u8> {
    let station = mac(ROUTER);
    [&[NULL_FUNCTION, TO_DS, 0, 0][..], &station, &mac(HOST), &station, &[0x30, 0x00]].concat()
}

/// A beacon: management, no packet in it.
pub fn beacon() -> Vec<u8> {
    let station = mac(ROUTER);
    let header = [&[BEACON, 0, 0, 0][..], &[0xff; 6], &station, &station, &[0x20, 0x00]].concat();
    let fixed = [0, 0, 0, 0, 0, 0, 0, 0, 0x64, 0x00, 0x01, 0x00];
    [&header[..], &fixed, &[0, 4], b"demo"].concat()
}

/// An acknowledgment: control, ten bytes in all.
pub fn acknowledgment() -> Vec<u8> {
    [&[ACK, 0, 0, 0][..], &mac(ROUTER)].concat()
}

/// A radiotap header without fields, then the frame.
pub fn radiotap_bare(frame: &[u8]) -> Vec<u8> {
    [&[0, 0, 8, 0, 0, 0, 0, 0][..], frame].concat()
}

/// A radiotap header with flags that tell of a check sequence after the frame, and rate and channel.
pub fn radiotap_with_fcs(frame: &[u8]) -> Vec<u8> {
    // Present: flags (bit 1), rate (bit 2), channel (bit 3). Flag 0x10: the frame ends in its check sequence.
    let header = [0, 0, 14, 0, 0x0e, 0, 0, 0, 0x10, 0x0c, 0x6c, 0x09, 0xa0, 0x00];
    [&header[..], frame, &[0xde, 0xad, 0xbe, 0xef]].concat()
}

/// A radiotap header with two present words, as drivers with several antennas write it.
pub fn radiotap_two_words(frame: &[u8]) -> Vec<u8> {
    // Bit 31 of the first word says that another follows; the second names one field, the antenna (bit 11).
    let header = [0, 0, 13, 0, 0, 0, 0, 0x80, 0, 0x08, 0, 0, 1];
    [&header[..], frame].concat()
}

const DATA: u8 = 0x08;
const QOS_DATA: u8 = 0x88;
const NULL_FUNCTION: u8 = 0x48;
const BEACON: u8 = 0x80;
const ACK: u8 = 0xd4;
const TO_DS: u8 = 0x01;
const FROM_DS: u8 = 0x02;
const PROTECTED: u8 = 0x40;
