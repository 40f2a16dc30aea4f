//! A packet socket (packet(7)) that tells of each frame what libpcap does not: what was left to the card, which way it
//! went, and the VLAN tag that the kernel keeps beside it.
//!
//! Authority: packet(7), linux/if_packet.h and linux/virtio_net.h for the layouts.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use bytemuck::{Pod, Zeroable};
use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::socket_option::set_option;

/// An open packet socket, bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
}

/// A frame that was received; its bytes are in the [`Inbox`].
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// How much of it is there.
    pub captured_bytes: usize,
    /// How long it was.
    pub original_bytes: usize,
    /// `PACKET_OUTGOING` and its like.
    pub packet_type: u8,
    /// `ARPHRD_ETHER` and its like.
    pub hardware_type: u16,
    /// Nanoseconds since the epoch, 0 if the kernel did not say.
    pub time_ns: u64,
    /// Type and control of a tag that is not in the frame.
    pub tag: Option<[u8; 4]>,
    /// What was left to the card.
    pub offload: VirtioNetHeader,
}

/// `struct virtio_net_hdr`, in the host's byte order.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
pub struct VirtioNetHeader {
    /// [`NEEDS_CSUM`](Self::NEEDS_CSUM) and others.
    pub flags: u8,
    /// 0 for no super-packet.
    pub gso_type: u8,
    /// Length of the headers.
    pub hdr_len: u16,
    /// Payload of a segment.
    pub gso_size: u16,
    /// From where on the checksum is computed.
    pub csum_start: u16,
    /// Where it stands, from there.
    pub csum_offset: u16,
}

impl VirtioNetHeader {
    /// The checksum is still to be computed.
    pub const NEEDS_CSUM: u8 = 1;
}

impl PacketSocket {
    /// Opens a socket on the interface of this index. `filter` selects frames before anything is copied.
    ///
    /// # Errors
    /// When the right is missing or the interface is gone.
    pub fn open(interface_index: u32, filter: &[SockFilter], buffer_bytes: usize) -> io::Result<Self> {
        // Of no protocol, so that nothing arrives before the filter is there and the socket is bound.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.attach_filter(filter)?;
        socket.set_recv_buffer_size(buffer_bytes)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        // Beyond the limit that others have; refused to those without the right, who have the limit then.
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, i32::try_from(buffer_bytes).unwrap_or(i32::MAX))
            .ok();
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        set_option(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        bind(&socket, interface_index, libc::ETH_P_ALL as u16)?;
        Ok(Self { socket })
    }

    /// Takes what has arrived, without waiting, and tells how many frames that is.
    ///
    /// # Errors
    /// `WouldBlock` if nothing has; `InvalidInput` for one frame that is gone, as the kernel can't say what was left to the
    /// card; what is wrong with the interface otherwise.
    pub fn receive(&self, inbox: &mut Inbox) -> io::Result<usize> {
        inbox.aim();
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let (messages, count) = (inbox.messages.as_mut_ptr(), inbox.messages.len() as u32);
        // SAFETY: `aim` has just pointed every header at buffers of the inbox, which nobody moves before this returns.
        let received =
            unsafe { libc::recvmmsg(self.socket.as_raw_fd(), messages, count, flags as _, std::ptr::null_mut()) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// How large its buffer is, in bytes: the kernel counts what it needs itself, so twice what was asked for, or less.
    ///
    /// # Errors
    /// What the system says.
    pub fn buffer_bytes(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size()
    }

    /// How many frames were lost for want of buffer since the last call.
    ///
    /// # Errors
    /// What the system says.
    pub fn take_drops(&self) -> io::Result<u64> {
        let mut statistics = [0_u32; 2];
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes, which is the size of the two counters it is pointed at.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(statistics[1].into()) }
    }
}

/// A socket that sends whole frames by the interface of this index, and is handed none.
///
/// # Errors
/// When the right is missing or the interface is gone.
pub fn outgoing(interface_index: u32) -> io::Result<Socket> {
    // Of no protocol, for which nothing arrives; the kernel reads a frame's own from the frame.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    bind(&socket, interface_index, NO_PROTOCOL)?;
    Ok(socket)
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<PacketSocket> for OwnedFd {
    fn from(socket: PacketSocket) -> Self {
        socket.socket.into()
    }
}

/// Room for frames that arrive at once.
pub struct Inbox {
    messages: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    addresses: Vec<Address>,
    controls: Vec<Control>,
    /// One stretch for each frame, the header of its offloads first.
    bytes: Vec<u8>,
}

// SAFETY: the pointers in `messages` and `vectors` are written anew before each use and point into the inbox itself.
unsafe impl Send for Inbox {}

type Address = libc::sockaddr_ll;

/// Room for a time stamp and auxiliary data, aligned as control messages are.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

impl Inbox {
    /// Room for so many frames.
    pub fn new(frames: usize) -> Self {
        // SAFETY: every member of these structures is a number or a pointer, for which zero is a value.
        let message: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let address: Address = unsafe { MaybeUninit::zeroed().assume_init() };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            messages: vec![message; frames],
            vectors: vec![vector; frames],
            addresses: vec![address; frames],
            controls: vec![Control([0; CONTROL_BYTES]); frames],
            bytes: vec![0; frames * STRETCH_BYTES],
        }
    }

    /// Points the headers at their buffers.
    fn aim(&mut self) {
        let stretches = self.bytes.chunks_exact_mut(STRETCH_BYTES);
        let parts = self.vectors.iter_mut().zip(&mut self.addresses).zip(&mut self.controls).zip(stretches);
        for (message, (((vector, address), control), stretch)) in self.messages.iter_mut().zip(parts) {
            vector.iov_base = stretch.as_mut_ptr().cast();
            vector.iov_len = stretch.len();
            let header = &mut message.msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_name = std::ptr::from_mut(address).cast();
            header.msg_namelen = size_of::<Address>() as libc::socklen_t;
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
    }

    /// The frame of this number, of those that the last call received.
    pub fn arrival(&self, number: usize) -> Option<(Arrival, &[u8])> {
        let (message, address) = (self.messages.get(number)?, self.addresses.get(number)?);
        let stretch = self.bytes.get(number * STRETCH_BYTES..(number + 1) * STRETCH_BYTES)?;
        let (header, frame) = stretch.split_at_checked(VIRTIO_NET_HEADER_BYTES)?;
        // With MSG_TRUNC the length is the frame's own, whatever there was room for.
        let original_bytes = (message.msg_len as usize).checked_sub(VIRTIO_NET_HEADER_BYTES)?;
        let frame = frame.get(..original_bytes.min(frame.len()))?;
        let mut arrival = Arrival {
            captured_bytes: frame.len(),
            original_bytes,
            packet_type: address.sll_pkttype,
            hardware_type: address.sll_hatype,
            time_ns: 0,
            tag: None,
            offload: bytemuck::pod_read_unaligned(header),
        };
        let control = self.controls.get(number)?;
        arrival.read_control(control.0.get(..message.msg_hdr.msg_controllen)?);
        Some((arrival, frame))
    }
}

impl Arrival {
    /// Reads control messages: a length, a level and a type, then the data, each padded to eight bytes (cmsg(3)).
    fn read_control(&mut self, mut control: &[u8]) {
        while let Some((header, _)) = control.split_first_chunk::<CONTROL_HEADER_BYTES>() {
            let [l0, l1, l2, l3, l4, l5, l6, l7, v0, v1, v2, v3, t0, t1, t2, t3] = *header;
            let length = u64::from_ne_bytes([l0, l1, l2, l3, l4, l5, l6, l7]) as usize;
            let kind = (i32::from_ne_bytes([v0, v1, v2, v3]), i32::from_ne_bytes([t0, t1, t2, t3]));
            let Some(data) = control.get(CONTROL_HEADER_BYTES..length) else { return };
            match kind {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    if let Ok([secs, nanos]) = bytemuck::try_pod_read_unaligned::<[i64; 2]>(data) {
                        self.time_ns = secs.cast_unsigned().saturating_mul(1_000_000_000) + nanos.cast_unsigned();
                    }
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    if let Ok(auxiliary) = bytemuck::try_pod_read_unaligned::<Auxiliary>(data)
                        && auxiliary.status & libc::TP_STATUS_VLAN_VALID != 0
                    {
                        let has_type = auxiliary.status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                        let [type_0, type_1] = if has_type { auxiliary.vlan_tpid } else { 0x8100 }.to_be_bytes();
                        let [control_0, control_1] = auxiliary.vlan_tci.to_be_bytes();
                        self.tag = Some([type_0, type_1, control_0, control_1]);
                    }
                }
                _ => {}
            }
            control = control.get(length.next_multiple_of(8)..).unwrap_or_default();
        }
    }
}

/// `struct tpacket_auxdata`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Auxiliary {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

fn bind(socket: &Socket, interface_index: u32, protocol: u16) -> io::Result<()> {
    let address = Address {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(interface_index).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes, which is the size of the address it is pointed at.
    let answer = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const NO_PROTOCOL: u16 = 0;
/// linux/if_packet.h; the libc crate has no name for it.
const PACKET_VNET_HDR: i32 = 15;
const VIRTIO_NET_HEADER_BYTES: usize = 10;
const _: () = assert!(size_of::<VirtioNetHeader>() == VIRTIO_NET_HEADER_BYTES);
/// For each frame: the longest super-packet that the kernel makes unless BIG TCP is asked for, and room for more.
const STRETCH_BYTES: usize = 192 * 1024;
/// Length, level and type.
const CONTROL_HEADER_BYTES: usize = 16;
/// A time stamp has 16 bytes of data, auxiliary data 20; both padded, with their headers.
const CONTROL_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// Needs root: what is sent over loopback arrives, with its direction and its length. Loopback is that of a network
    /// namespace where nobody else sends anything.
    #[test]
    fn what_goes_over_loopback_arrives() {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace of our own ({error})");
            return;
        }
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let everything = [SockFilter::new(0x06, 0, 0, u32::MAX)];
        let socket = PacketSocket::open(1, &everything, 1_000_000).unwrap();
        let (sender, receiver) =
            (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let payload: Vec<u8> = (0..1000).map(|at| at as u8).collect();
        sender.send_to(&payload, receiver.local_addr().unwrap()).unwrap();
        let port = receiver.local_addr().unwrap().port().to_be_bytes();
        let mut inbox = Inbox::new(8);
        let mut found = Vec::new();
        let mut looks = LOOKS_MAX;
        while looks > 0 {
            let received = socket.receive(&mut inbox).unwrap_or(0);
            for number in 0..received {
                let (arrival, frame) = inbox.arrival(number).unwrap();
                // Ethernet, IP, UDP: the destination port at 36.
                if frame.get(36..38) == Some(&port) {
                    assert_eq!((arrival.captured_bytes, arrival.original_bytes), (1042, 1042));
                    assert_eq!(frame[42..], payload);
                    assert_eq!(arrival.hardware_type, libc::ARPHRD_LOOPBACK);
                    assert!(arrival.time_ns > 1_700_000_000_000_000_000);
                    assert_eq!(arrival.offload.flags & VirtioNetHeader::NEEDS_CSUM, VirtioNetHeader::NEEDS_CSUM);
                    assert_eq!((arrival.offload.csum_start, arrival.offload.csum_offset), (34, 6));
                    found.push(arrival.packet_type);
                }
            }
            looks = if found.len() < 2 { looks - 1 } else { looks.min(LOOKS_BEHIND) - 1 };
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        assert_eq!(found, [libc::PACKET_OUTGOING, libc::PACKET_HOST]);
        assert_eq!(socket.take_drops().unwrap(), 0);
    }

    /// Two milliseconds between: what comes in may take a while on a busy machine.
    const LOOKS_MAX: u32 = 15_000;
    /// How often to look for more than should come.
    const LOOKS_BEHIND: u32 = 50;
}
