//! What goes through the tapped interface.

use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{FAR_IP, NEAR_IP, Site};
use crate::blast::Blaster;
use crate::measure::now;
use crate::wire::{ELSEWHERE, FAR, Namespace, Place, SENDER, counts, pin};

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Frames of 64 bytes come in at full speed, their checksums complete.
    Small,
    /// A TCP connection brings as much as it can.
    BulkIn,
    /// A TCP connection takes away as much as it can, in super-packets whose checksums are left to a card.
    BulkOut,
}

/// What was brought through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Packets or bytes.
    pub(super) amount: f64,
    took: Duration,
}

impl Work {
    /// In a second.
    pub(super) fn rate(&self) -> f64 {
        self.amount / self.took.as_secs_f64()
    }
}

impl Traffic {
    pub(super) const ALL: [Self; 3] = [Self::Small, Self::BulkIn, Self::BulkOut];

    /// What its rate is told in.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Small => "kpackets/s",
            Self::BulkIn | Self::BulkOut => "Gbit/s",
        }
    }

    /// How many of these one a second is.
    pub(super) fn units(self) -> f64 {
        match self {
            Self::Small => 1e-3,
            Self::BulkIn | Self::BulkOut => 8e-9,
        }
    }

    /// Sends for so long.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn send(self, site: &Site, duration: Duration) -> Result<Work> {
        match self {
            Self::Small => small(&site.far, duration),
            Self::BulkIn => bulk(&site.far, (&site.near, NEAR_IP), duration),
            Self::BulkOut => bulk(&site.near, (&site.far, FAR_IP), duration),
        }
    }
}

fn small(far: &Namespace, duration: Duration) -> Result<Work> {
    give_room(far)?;
    far.run(|| {
        pin(Place::On(SENDER))?;
        let mut blaster = Blaster::new(FAR, ELSEWHERE, SMALL_FLOWS)?;
        let begin = now();
        let sent = blaster.send(u64::MAX, || begin.elapsed() >= duration)?;
        let took = begin.elapsed();
        Ok(Work { amount: (sent - counts(FAR)?.send_drops) as f64, took })
    })
}

/// Cards leave room before a frame, at least the 64 bytes of `NET_SKB_PAD`, and headers can be put there; a packet socket on
/// a cable leaves none. A bridge asks for as much as one of its ports needs, and the kernel's tunnel device needs 64.
fn give_room(far: &Namespace) -> Result<()> {
    far.tool("ip link add bridge0 type bridge")?;
    far.tool(&format!("ip link add room0 type vxlan id 1 remote 192.0.2.1 dev {FAR} dstport 4790"))?;
    for port in [FAR, "room0"] {
        far.tool(&format!("ip link set {port} master bridge0"))?;
    }
    Ok(())
}

fn bulk(client: &Namespace, server: (&Namespace, &str), duration: Duration) -> Result<Work> {
    let (server, address) = server;
    let listener = server.run(|| Ok(TcpListener::bind((address, 0))?))?;
    let address = listener.local_addr()?;
    thread::scope(|scope| {
        let begin = now();
        let client = scope.spawn(move || {
            client.run(|| {
                pin(Place::On(SENDER))?;
                let mut stream = TcpStream::connect(address)?;
                while begin.elapsed() < duration {
                    stream.write_all(&[0; CHUNK_BYTES])?;
                }
                Ok(())
            })
        });
        let received = server.run(|| {
            pin(Place::Beside(SENDER))?;
            let (mut stream, _) = listener.accept()?;
            let (mut chunk, mut sum) = (vec![0; CHUNK_BYTES], 0);
            loop {
                match stream.read(&mut chunk)? {
                    0 => break Ok(sum),
                    bytes => sum += bytes,
                }
            }
        });
        let took = begin.elapsed();
        match client.join() {
            Ok(sent) => sent?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(Work { amount: received? as f64, took })
    })
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "frames of 64 bytes in",
            Self::BulkIn => "bulk TCP in",
            Self::BulkOut => "bulk TCP out",
        })
    }
}

const SMALL_FLOWS: u32 = 1 << 10;
const CHUNK_BYTES: usize = 128 * 1024;
