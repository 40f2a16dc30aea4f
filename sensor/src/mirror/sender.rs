//! Copies over the network: a thread for each target, and a bounded queue before it.
//!
//! Whoever captures writes datagrams into a batch and hands full batches over; a target that takes them too slowly fills
//! its queue, and then copies are skipped and counted, or in a replay waited with. Batches come home to be used again,
//! so nothing is allocated per packet. One queue and one thread for each target keep the order of every flow.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::Target;
use super::counters::{SessionCounts, Skip};
use super::encapsulate::{Path, push_datagram};
use super::executor::{Copied, Outlet, Taken};
use super::socket::TargetSocket;
use crate::capture::Direction;

/// The senders of all targets.
pub struct Senders {
    lanes: Vec<Lane>,
    threads: Vec<JoinHandle<()>>,
    counts: SharedCounts,
    gives_up: Arc<AtomicBool>,
}

/// What senders have done with copies that were queued, by session.
pub type SharedCounts = Arc<Mutex<Vec<SessionCounts>>>;

/// What to do with a copy when its target's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Skip it: what is tapped comes first.
    Skip,
    /// Wait: a replay has time.
    Wait,
}

/// Where copies for one target are put.
#[derive(Debug, Clone)]
struct Lane {
    path: Arc<Mutex<Path>>,
    queue: Sender<Batch>,
    home: Receiver<Batch>,
}

/// Datagrams on their way to a thread.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Debug, Clone)]
struct Item {
    range: Range<usize>,
    session: u16,
    direction: Direction,
    wire_bytes: u64,
    inner_bytes: u64,
    is_partial: bool,
    may_fragment: bool,
}

impl Senders {
    /// Starts a thread for each of `sockets`, which are those of `targets`.
    ///
    /// # Errors
    /// When a thread can't be had.
    pub fn start(targets: &[Target], sockets: Vec<TargetSocket>, sessions: usize) -> io::Result<Self> {
        let counts: SharedCounts = Arc::new(Mutex::new(vec![SessionCounts::default(); sessions]));
        let gives_up = Arc::new(AtomicBool::new(false));
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        for (target, socket) in targets.iter().zip(sockets) {
            let (lane, batches, empty) = lane(socket.path());
            let sender = TargetSender {
                socket,
                path: Arc::clone(&lane.path),
                counts: Arc::clone(&counts),
                gives_up: Arc::clone(&gives_up),
            };
            let thread = thread::Builder::new().name(format!("mirror-{}", target.name));
            threads.push(thread.spawn(move || sender.run(&batches, &empty))?);
            lanes.push(lane);
        }
        Ok(Self { lanes, threads, counts, gives_up })
    }

    /// An outlet that feeds the senders. Each executor has its own.
    pub fn outlet(&self, when_full: WhenFull) -> NetworkOutlet {
        NetworkOutlet { lanes: self.lanes.iter().cloned().map(OutletLane::new).collect(), when_full }
    }

    /// What was done so far with copies that were queued.
    pub fn counts(&self) -> SharedCounts {
        Arc::clone(&self.counts)
    }

    /// Sends what is queued, and ends; the outlets must be gone.
    pub fn finish(mut self) -> SharedCounts {
        self.lanes.clear();
        for thread in mem::take(&mut self.threads) {
            // One that panicked has left its counts short, which the ledger then shows.
            thread.join().ok();
        }
        Arc::clone(&self.counts)
    }

    /// From now on nothing is sent any more: what is queued is skipped and counted.
    pub fn give_up(&self) {
        self.gives_up.store(true, Ordering::Relaxed);
    }
}

fn lane(path: Path) -> (Lane, Receiver<Batch>, Sender<Batch>) {
    let (queue, batches) = bounded(QUEUE_BATCHES_MAX);
    // Every batch there is can come home at once.
    let (empty, home) = bounded(QUEUE_BATCHES_MAX + 2);
    (Lane { path: Arc::new(Mutex::new(path)), queue, home }, batches, empty)
}

/// Feeds senders.
pub struct NetworkOutlet {
    lanes: Vec<OutletLane>,
    when_full: WhenFull,
}

struct OutletLane {
    lane: Lane,
    /// As of the last batch.
    path: Path,
    batch: Batch,
}

impl Outlet for NetworkOutlet {
    fn take(&mut self, copy: &Copied<'_>) -> Result<Taken, Skip> {
        let lane = self.lanes.get_mut(usize::from(copy.target)).ok_or(Skip::NoTarget)?;
        if lane.batch.is_full() && !lane.hand_over(self.when_full) {
            return Err(Skip::QueueFull);
        }
        lane.push(copy);
        Ok(Taken::Queued)
    }

    fn flush(&mut self) {
        for lane in &mut self.lanes {
            if !lane.batch.items.is_empty() {
                // What does not fit now goes with the next flush, or with what comes before it.
                lane.hand_over(self.when_full);
            }
        }
    }
}

impl Drop for NetworkOutlet {
    /// Nothing more comes: what is left must go, or be counted, by the thread that has the counters.
    fn drop(&mut self) {
        for lane in &mut self.lanes {
            if !lane.batch.items.is_empty() {
                lane.hand_over(WhenFull::Wait);
            }
        }
    }
}

impl OutletLane {
    fn new(lane: Lane) -> Self {
        let path = *lock(&lane.path);
        Self { lane, path, batch: Batch::default() }
    }

    fn push(&mut self, copy: &Copied<'_>) {
        let Batch { bytes, items } = &mut self.batch;
        let start = bytes.len();
        push_datagram(self.path, &copy.envelope, copy.inner, bytes);
        items.push(Item {
            range: start..bytes.len(),
            session: copy.session,
            direction: copy.direction,
            wire_bytes: copy.wire_bytes,
            inner_bytes: copy.inner.len() as u64,
            is_partial: copy.is_partial,
            may_fragment: copy.may_fragment,
        });
    }

    /// Hands the batch to the thread; `false` if the queue is full, and then the batch stays.
    fn hand_over(&mut self, when_full: WhenFull) -> bool {
        let batch = mem::take(&mut self.batch);
        let refused = match when_full {
            WhenFull::Wait => self.lane.queue.send(batch).err().map(|error| error.0),
            WhenFull::Skip => self.lane.queue.try_send(batch).err().map(|error| match error {
                TrySendError::Full(batch) | TrySendError::Disconnected(batch) => batch,
            }),
        };
        match refused {
            Some(batch) => {
                self.batch = batch;
                false
            }
            None => {
                self.batch = self.lane.home.try_recv().unwrap_or_default();
                self.path = *lock(&self.lane.path);
                true
            }
        }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.items.len() >= BATCH_FRAMES_MAX || self.bytes.len() >= BATCH_BYTES_MAX
    }
}

/// The thread of one target.
struct TargetSender {
    socket: TargetSocket,
    path: Arc<Mutex<Path>>,
    counts: SharedCounts,
    gives_up: Arc<AtomicBool>,
}

impl TargetSender {
    fn run(mut self, batches: &Receiver<Batch>, empty: &Sender<Batch>) {
        let ticks = crossbeam_channel::tick(REFRESH_EVERY);
        loop {
            match batches.recv_timeout(REFRESH_EVERY) {
                Ok(mut batch) => {
                    self.send(&batch);
                    batch.bytes.clear();
                    batch.items.clear();
                    // Nobody is there to take it when all is over.
                    empty.try_send(batch).ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if ticks.try_recv().is_ok() {
                self.refresh();
            }
        }
    }

    /// Looks at the path again, and says what has become of it.
    fn refresh(&mut self) {
        let before = self.socket.path_mtu();
        // Without a route nothing arrives, and every copy is counted as unreachable.
        if self.socket.refresh().is_ok() {
            *lock(&self.path) = self.socket.path();
        }
        let now = self.socket.path_mtu();
        if now != before {
            tracing::warn!(before, now, "the path to a mirror target takes packets of another size");
        }
    }

    /// Sends a batch in runs of datagrams that go the same way.
    fn send(&mut self, batch: &Batch) {
        let mut settled = vec![Err(Skip::Refused); batch.items.len()];
        let header_bytes = self.socket.path().ip_header_bytes();
        let mut at = 0;
        while let Some(first) = batch.items.get(at) {
            let way = self.way(first, header_bytes);
            let rest = batch.items.get(at..).unwrap_or_default();
            let run = rest.iter().take_while(|item| self.way(item, header_bytes) == way).count();
            let items = rest.get(..run).unwrap_or_default();
            let mut settle = |number: usize, outcome| {
                if let Some(place) = settled.get_mut(at + number) {
                    *place = outcome;
                }
            };
            match way {
                _ if self.gives_up.load(Ordering::Relaxed) => {
                    (0..run).for_each(|number| settle(number, Err(Skip::QueueFull)));
                }
                Way::TooBig => (0..run).for_each(|number| settle(number, Err(Skip::TooBig))),
                Way::Whole | Way::Fragmented => {
                    let fragmented = way == Way::Fragmented;
                    let datagram = |item: &Item| batch.bytes.get(item.range.clone()).unwrap_or_default();
                    let datagrams: Vec<_> = items.iter().map(datagram).collect();
                    self.socket.send(&datagrams, fragmented, |number, outcome| {
                        settle(number, outcome.map(|()| fragmented));
                    });
                }
            }
            at += run;
        }
        let mut counts = lock(&self.counts);
        for (item, outcome) in batch.items.iter().zip(settled) {
            let Some(session) = counts.get_mut(usize::from(item.session)) else { continue };
            let counts = session.of(item.direction);
            match outcome {
                Ok(fragmented) => counts.sent(item.wire_bytes, item.inner_bytes, item.is_partial, fragmented),
                Err(reason) => counts.skip(reason, 1, item.wire_bytes),
            }
        }
    }

    fn way(&self, item: &Item, header_bytes: usize) -> Way {
        match (header_bytes + item.range.len() <= self.socket.path_mtu(), item.may_fragment) {
            (true, _) => Way::Whole,
            (false, true) => Way::Fragmented,
            (false, false) => Way::TooBig,
        }
    }
}

/// How a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Fragmented,
    TooBig,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many datagrams one call of the kernel takes.
pub const BATCH_FRAMES_MAX: usize = 128;
/// A batch that holds so much is full as well; one datagram may reach beyond it.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// How many batches wait for a target: at most 8192 copies, in at most 20 MB.
pub const QUEUE_BATCHES_MAX: usize = 64;
/// What they hold together at most.
pub const QUEUE_BYTES_MAX: usize = QUEUE_BATCHES_MAX * (BATCH_BYTES_MAX + u16::MAX as usize);
/// How often the path is looked at.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::encapsulate::Envelope;
    use crate::time::Timestamp;

    const PATH: Path = Path::V4 { src: std::net::Ipv4Addr::LOCALHOST, dst: std::net::Ipv4Addr::LOCALHOST };

    fn copy(inner: &[u8]) -> Copied<'_> {
        Copied {
            time: Timestamp(0),
            session: 0,
            direction: Direction::Ingress,
            target: 0,
            envelope: Envelope { src_port: 50_000, dst_port: 4789, tunnel: [0; 8] },
            inner,
            wire_bytes: inner.len() as u64,
            is_partial: false,
            may_fragment: true,
        }
    }

    /// M9: nobody takes anything from the queue.
    #[test]
    fn a_queue_that_nobody_empties_is_bounded_and_skips() {
        let (lane, batches, _empty) = lane(PATH);
        let mut outlet = NetworkOutlet { lanes: vec![OutletLane::new(lane)], when_full: WhenFull::Skip };
        let outcomes: Vec<_> = (0..20_000).map(|_| outlet.take(&copy(&[0; 60]))).collect();
        let queued = outcomes.iter().filter(|outcome| **outcome == Ok(Taken::Queued)).count();
        assert_eq!(queued, (QUEUE_BATCHES_MAX + 1) * BATCH_FRAMES_MAX, "the queue, and the batch that is being filled");
        assert!(outcomes[queued..].iter().all(|outcome| *outcome == Err(Skip::QueueFull)));
        // Once something is taken, more is; and what was queued is all there, in its order.
        let taken = batches.recv().unwrap();
        assert_eq!(taken.items.len(), BATCH_FRAMES_MAX);
        assert_eq!(outlet.take(&copy(&[0; 60])), Ok(Taken::Queued));
        let mut left = 0;
        while let Ok(batch) = batches.try_recv() {
            left += batch.items.len();
        }
        assert_eq!(left, QUEUE_BATCHES_MAX * BATCH_FRAMES_MAX);
    }

    #[test]
    fn large_copies_fill_a_batch_too() {
        let (lane, batches, _empty) = lane(PATH);
        let mut outlet = NetworkOutlet { lanes: vec![OutletLane::new(lane)], when_full: WhenFull::Skip };
        let large = vec![0; 60_000];
        (0..6).for_each(|_| assert_eq!(outlet.take(&copy(&large)), Ok(Taken::Queued)));
        outlet.flush();
        let sizes: Vec<_> = batches.try_iter().map(|batch| batch.items.len()).collect();
        assert_eq!(sizes, [5, 1]);
    }
}
