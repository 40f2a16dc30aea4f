//! Copies over the network: a thread for each target, and a bounded queue before it.
//!
//! Whoever captures writes datagrams into a batch and hands full batches over; a target that takes them too slowly fills
//! its queue, and then copies are skipped and counted, or in a replay waited with. Batches come home to be used again,
//! so nothing is allocated per packet. One queue and one thread for each target keep the order of every flow.

mod thread;

use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;
use std::{io, mem};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded, select_biased};

use super::Target;
use super::counters::{SessionCounts, Skip};
use super::encapsulate::{Path, push_datagram};
use super::executor::{Copied, Outlet, Taken};
use super::socket::TargetSocket;
use crate::capture::Direction;
use thread::TargetSender;

/// The senders of all targets.
pub struct Senders {
    /// In step with each other.
    lanes: Vec<Lane>,
    threads: Vec<Thread>,
    counts: SharedCounts,
    gives_up: Arc<AtomicBool>,
}

/// The thread of one target.
struct Thread {
    target: (IpAddr, NonZeroU16),
    /// Nothing ever comes: it is closed when the thread ends.
    ended: Receiver<Infallible>,
    handle: JoinHandle<()>,
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
    shared: Arc<Shared>,
    queue: Sender<Batch>,
    home: Receiver<Batch>,
}

/// What a thread and those who feed it know together.
#[derive(Debug, Default)]
struct Shared {
    /// `None` while there is no way.
    path: Mutex<Option<KnownPath>>,
    /// Those whose ends the thread waits for before it sends anything.
    predecessors: Mutex<Vec<Receiver<Infallible>>>,
}

/// How copies get to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownPath {
    /// From us to the target.
    pub path: Path,
    /// The longest outer packet that gets there whole.
    pub mtu: usize,
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
    /// Starts a thread for each of `sockets`, which are those of `targets`. One that is `None` has no way yet, and its
    /// thread looks for one.
    ///
    /// # Errors
    /// When a thread can't be had.
    pub fn start(
        targets: &[Target],
        sockets: Vec<impl Into<Option<TargetSocket>>>,
        sessions: usize,
    ) -> io::Result<Self> {
        let counts: SharedCounts = Arc::new(Mutex::new(vec![SessionCounts::default(); sessions]));
        let gives_up = Arc::new(AtomicBool::new(false));
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        for (target, socket) in targets.iter().zip(sockets) {
            let socket = socket.into();
            let (lane, batches, empty) = lane(socket.as_ref().map(TargetSocket::known_path));
            let (shared, counts) = (Arc::clone(&lane.shared), Arc::clone(&counts));
            let sender = TargetSender::new(target.clone(), socket, shared, counts, Arc::clone(&gives_up));
            let (until_end, ended) = bounded(0);
            let run = move || {
                // Closed with the thread, however it ends.
                let _until_end: Sender<Infallible> = until_end;
                sender.run(&batches, &empty);
            };
            let handle = Builder::new().name(format!("mirror-{}", target.name)).spawn(run)?;
            threads.push(Thread { target: (target.address, target.port), ended, handle });
            lanes.push(lane);
        }
        Ok(Self { lanes, threads, counts, gives_up })
    }

    /// Has these wait for all earlier senders to the same targets, so that no copy overtakes one of before. To be called
    /// before anything is queued, with all that have still to send; they must finish or give up.
    pub fn follow<'a>(&self, earlier: impl IntoIterator<Item = &'a Self>) {
        for before in earlier.into_iter().flat_map(|earlier| &earlier.threads) {
            let to_same = self.lanes.iter().zip(&self.threads).filter(|(_, thread)| thread.target == before.target);
            to_same.for_each(|(lane, _)| lock(&lane.shared.predecessors).push(before.ended.clone()));
        }
    }

    /// An outlet that feeds the senders. Each executor has its own.
    pub fn outlet(&self, when_full: WhenFull) -> NetworkOutlet {
        let lanes = self.lanes.iter().cloned().map(OutletLane::new).collect();
        NetworkOutlet { lanes, when_full, counts: Arc::clone(&self.counts) }
    }

    /// What was done so far with copies that were queued.
    pub fn counts(&self) -> SharedCounts {
        Arc::clone(&self.counts)
    }

    /// The way to each target, as far as there is one.
    pub fn paths(&self) -> Vec<Option<KnownPath>> {
        self.lanes.iter().map(|lane| *lock(&lane.shared.path)).collect()
    }

    /// Sends what is queued, however long that takes, and ends; the outlets must be gone.
    pub fn finish(mut self) -> SharedCounts {
        self.close();
        for thread in self.threads {
            // One that panicked has left its counts short, which the ledger then shows.
            thread.handle.join().ok();
        }
        self.counts
    }

    /// Nothing more comes: each thread ends when it has sent what is queued. The outlets must be gone.
    pub fn close(&mut self) {
        self.lanes.clear();
    }

    /// Whether all threads have ended.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().all(|thread| thread.ended.try_recv() == Err(TryRecvError::Disconnected))
    }

    /// Waits for the threads to end, but not longer than until a message comes; whether they have.
    pub fn end_before(&self, over: &Receiver<Instant>) -> bool {
        self.threads.iter().all(|thread| {
            select_biased! {
                recv(thread.ended) -> _ => true,
                recv(over) -> _ => false,
            }
        })
    }

    /// From now on nothing is sent any more: what is queued is skipped and counted. It takes as long as one socket that is
    /// full is waited for.
    pub fn give_up(&self) {
        self.gives_up.store(true, Ordering::Relaxed);
    }
}

fn lane(path: Option<KnownPath>) -> (Lane, Receiver<Batch>, Sender<Batch>) {
    let (queue, batches) = bounded(QUEUE_BATCHES_MAX);
    // Every batch there is can come home at once.
    let (empty, home) = bounded(QUEUE_BATCHES_MAX + 2);
    let shared = Arc::new(Shared { path: Mutex::new(path), predecessors: Mutex::default() });
    (Lane { shared, queue, home }, batches, empty)
}

/// Feeds senders.
pub struct NetworkOutlet {
    lanes: Vec<OutletLane>,
    when_full: WhenFull,
    counts: SharedCounts,
}

struct OutletLane {
    lane: Lane,
    /// As of the last batch, or, while there is none, of the last flush.
    path: Option<KnownPath>,
    batch: Batch,
}

impl Outlet for NetworkOutlet {
    fn take(&mut self, copy: &Copied<'_>) -> Result<Taken, Skip> {
        let lane = self.lanes.get_mut(usize::from(copy.target)).ok_or(Skip::NoTarget)?;
        let KnownPath { path, .. } = lane.path.ok_or(Skip::Unreachable)?;
        if lane.batch.is_full() && !lane.hand_over(self.when_full) {
            return Err(Skip::QueueFull);
        }
        lane.push(path, copy);
        Ok(Taken::Queued)
    }

    fn room_bytes(&self, target: u16) -> Option<usize> {
        let KnownPath { path, mtu } = self.lanes.get(usize::from(target))?.path?;
        Some(mtu.saturating_sub(path.packet_bytes(0)))
    }

    fn flush(&mut self) {
        for lane in &mut self.lanes {
            if lane.path.is_none() {
                lane.path = *lock(&lane.lane.shared.path);
            }
            if !lane.batch.items.is_empty() {
                // What does not fit now goes with the next flush, or with what comes before it.
                lane.hand_over(self.when_full);
            }
        }
    }
}

impl Drop for NetworkOutlet {
    /// Nothing more comes: what is left goes, or is counted.
    fn drop(&mut self) {
        for lane in &mut self.lanes {
            if !lane.batch.items.is_empty() && !lane.hand_over(self.when_full) {
                lane.batch.skip(Skip::QueueFull, &self.counts);
            }
        }
    }
}

impl OutletLane {
    fn new(lane: Lane) -> Self {
        let path = *lock(&lane.shared.path);
        Self { lane, path, batch: Batch::default() }
    }

    fn push(&mut self, path: Path, copy: &Copied<'_>) {
        let Batch { bytes, items } = &mut self.batch;
        let start = bytes.len();
        push_datagram(path, &copy.envelope, copy.inner, bytes);
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
                self.path = *lock(&self.lane.shared.path);
                true
            }
        }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.items.len() >= BATCH_FRAMES_MAX || self.bytes.len() >= BATCH_BYTES_MAX
    }

    /// Counts all of it as not sent.
    fn skip(&self, reason: Skip, counts: &Mutex<Vec<SessionCounts>>) {
        let mut counts = lock(counts);
        for item in &self.items {
            if let Some(session) = counts.get_mut(usize::from(item.session)) {
                session.of(item.direction).skip(reason, 1, item.wire_bytes);
            }
        }
    }
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

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use crossbeam_channel::{RecvTimeoutError, after};

    use super::*;
    use crate::mirror::encapsulate::Envelope;
    use crate::time::Timestamp;

    const PATH: KnownPath = KnownPath {
        path: Path::V4 { src: std::net::Ipv4Addr::LOCALHOST, dst: std::net::Ipv4Addr::LOCALHOST },
        mtu: 65_535,
    };

    /// Senders of one session to a target that takes nothing until what is returned is dropped, and three copies that wait,
    /// of 60 bytes each.
    pub(in crate::mirror) fn stalled() -> (Senders, Sender<Infallible>) {
        let senders = senders_to(&[1]);
        let stall = stall(&senders, 0);
        let mut outlet = senders.outlet(WhenFull::Skip);
        outlet.lanes[0].path = Some(PATH);
        (0..3).for_each(|_| assert_eq!(outlet.take(&copy(&[0; 60])), Ok(Taken::Queued)));
        (senders, stall)
    }

    /// Senders of one session to targets at 127.0.0.0/24, which end with these. They may be at the same address.
    pub(in crate::mirror) fn senders_to(ends: &[u8]) -> Senders {
        let target = |(at, end): (usize, &u8)| Target {
            name: format!("ids-{at}"),
            address: IpAddr::from([127, 0, 0, *end]),
            port: NonZeroU16::MIN,
            encapsulation: Default::default(),
            weight: Default::default(),
            health_check: None,
        };
        let targets: Vec<_> = ends.iter().enumerate().map(target).collect();
        Senders::start(&targets, targets.iter().map(|_| None::<TargetSocket>).collect(), 1).unwrap()
    }

    /// Has one of them send nothing until what is returned is dropped.
    fn stall(senders: &Senders, at: usize) -> Sender<Infallible> {
        let (stall, stalled) = bounded(0);
        lock(&senders.lanes[at].shared.predecessors).push(stalled);
        stall
    }

    fn outlet(lane: Lane) -> NetworkOutlet {
        let counts = Arc::new(Mutex::new(vec![SessionCounts::default()]));
        NetworkOutlet { lanes: vec![OutletLane::new(lane)], when_full: WhenFull::Skip, counts }
    }

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
        let (lane, batches, _empty) = lane(Some(PATH));
        let mut outlet = outlet(lane);
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
        let (lane, batches, _empty) = lane(Some(PATH));
        let mut outlet = outlet(lane);
        let large = vec![0; 60_000];
        (0..6).for_each(|_| assert_eq!(outlet.take(&copy(&large)), Ok(Taken::Queued)));
        outlet.flush();
        let sizes: Vec<_> = batches.try_iter().map(|batch| batch.items.len()).collect();
        assert_eq!(sizes, [5, 1]);
    }

    #[test]
    fn what_is_left_when_the_queue_is_full_is_counted() {
        let (lane, batches, _empty) = lane(Some(PATH));
        let mut outlet = outlet(lane);
        let counts = Arc::clone(&outlet.counts);
        let queued = (QUEUE_BATCHES_MAX + 1) * BATCH_FRAMES_MAX;
        (0..queued).for_each(|_| assert_eq!(outlet.take(&copy(&[0; 60])), Ok(Taken::Queued)));
        // Nobody waits here, as nobody takes anything.
        drop(outlet);
        assert_eq!(batches.len(), QUEUE_BATCHES_MAX);
        let mut expected = SessionCounts::default();
        expected.ingress.skip(Skip::QueueFull, BATCH_FRAMES_MAX as u64, 60 * BATCH_FRAMES_MAX as u64);
        assert_eq!(lock(&counts).as_slice(), [expected]);
    }

    #[test]
    fn without_a_way_copies_are_skipped_until_there_is_one() {
        let (lane, batches, _empty) = lane(None);
        let shared = Arc::clone(&lane.shared);
        let mut outlet = outlet(lane);
        assert_eq!(outlet.take(&copy(&[0; 60])), Err(Skip::Unreachable));
        assert_eq!(outlet.room_bytes(0), None);
        *lock(&shared.path) = Some(KnownPath { mtu: 1500, ..PATH });
        outlet.flush();
        assert_eq!(outlet.take(&copy(&[0; 60])), Ok(Taken::Queued));
        // IP, UDP and VXLAN take 20 + 8 + 8 of it.
        assert_eq!((outlet.room_bytes(0), outlet.room_bytes(1)), (Some(1464), None));
        outlet.flush();
        assert_eq!(batches.try_iter().map(|batch| batch.items.len()).sum::<usize>(), 1);
    }

    #[test]
    fn what_is_given_up_is_counted() {
        let (mut senders, stall) = stalled();
        senders.close();
        assert!(!senders.end_before(&after(Duration::from_millis(20))) && !senders.has_ended());
        senders.give_up();
        drop(stall);
        let mut expected = SessionCounts::default();
        expected.ingress.skip(Skip::QueueFull, 3, 180);
        assert_eq!(lock(&senders.finish()).as_slice(), [expected]);
    }

    /// So that no copy overtakes one of before; those to other targets have nothing to wait for.
    #[test]
    fn a_sender_waits_for_its_predecessor_alone() {
        let (mut before, stall) = stalled();
        let mut next = senders_to(&[1, 2]);
        next.follow([&before]);
        // Nothing is really sent.
        next.give_up();
        let mut outlet = next.outlet(WhenFull::Skip);
        for at in [0, 1] {
            outlet.lanes[at].path = Some(PATH);
            outlet.take(&Copied { target: at as u16, ..copy(&[0; 60]) }).unwrap();
        }
        drop(outlet);
        before.close();
        next.close();
        assert!(ends(&next, 1) && waits(&next, 0));
        drop(stall);
        before.finish();
        let counts = next.finish();
        assert_eq!(lock(&counts)[0].total().skipped_total().packets, 2);
    }

    #[test]
    fn a_sender_with_nothing_to_send_waits_as_well() {
        let (mut first, stall) = stalled();
        // Nothing is really sent.
        first.give_up();
        first.close();
        let [mut second, mut third] = [senders_to(&[1]), senders_to(&[1])];
        second.follow([&first]);
        third.follow([&second]);
        second.close();
        third.close();
        assert!(waits(&second, 0) && waits(&third, 0));
        drop(stall);
        assert!(ends(&third, 0) && second.has_ended() && first.has_ended());
    }

    /// Two targets at one address, such as one for each encapsulation.
    #[test]
    fn a_sender_waits_for_all_to_the_same_address() {
        let (mut before, mut next) = (senders_to(&[1, 1, 2]), senders_to(&[2, 1, 1]));
        let stall = stall(&before, 1);
        next.follow([&before]);
        before.close();
        next.close();
        assert!(ends(&before, 0) && ends(&next, 0));
        assert!(waits(&next, 1) && waits(&next, 2));
        drop(stall);
        assert!(ends(&next, 1) && ends(&next, 2));
    }

    fn ends(senders: &Senders, at: usize) -> bool {
        senders.threads[at].ended.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Disconnected)
    }

    /// Whether it goes on for a moment; one that need not would end at once.
    pub(in crate::mirror) fn waits(senders: &Senders, at: usize) -> bool {
        senders.threads[at].ended.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout)
    }
}
