//! The thread of one target: sends what is queued, looks at the way once a second, and says what has become of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::{Batch, Item, Shared, SharedCounts, lock};
use crate::mirror::Target;
use crate::mirror::counters::Skip;
use crate::mirror::socket::{OpenError, TargetSocket};

/// Sends to one target.
pub(super) struct TargetSender {
    target: Target,
    /// `None` until there is a way.
    socket: Option<TargetSocket>,
    has_route: bool,
    shared: Arc<Shared>,
    counts: SharedCounts,
    gives_up: Arc<AtomicBool>,
}

impl TargetSender {
    /// Sends by `socket`, or by one that is found.
    pub(super) fn new(
        target: Target,
        socket: Option<TargetSocket>,
        shared: Arc<Shared>,
        counts: SharedCounts,
        gives_up: Arc<AtomicBool>,
    ) -> Self {
        Self { target, socket, has_route: true, shared, counts, gives_up }
    }

    /// Goes on until nobody can queue anything more, all is sent, and whoever has copies of before has ended: so it is enough
    /// for those that come later to wait for this one.
    pub(super) fn run(mut self, batches: &Receiver<Batch>, empty: &Sender<Batch>) {
        let ticks = crossbeam_channel::tick(REFRESH_EVERY);
        if self.socket.is_none() {
            self.refresh();
        }
        loop {
            match batches.recv_timeout(REFRESH_EVERY) {
                Ok(mut batch) => {
                    self.follow();
                    self.send(&batch);
                    batch.bytes.clear();
                    batch.items.clear();
                    // Nobody is there to take it when all is over.
                    empty.try_send(batch).ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.follow(),
            }
            if ticks.try_recv().is_ok() {
                self.refresh();
            }
        }
    }

    /// Waits for the end of whoever has copies of before.
    fn follow(&self) {
        let predecessors = std::mem::take(&mut *lock(&self.shared.predecessors));
        for predecessor in predecessors {
            // It ends when it is closed: nothing is ever sent there.
            predecessor.recv().ok();
        }
    }

    /// Looks at the way again, or for one.
    fn refresh(&mut self) {
        let found = match &mut self.socket {
            Some(socket) => socket.refresh(),
            None => TargetSocket::open(&self.target).map(|socket| self.socket = Some(socket)),
        };
        let known = found.is_ok().then(|| self.socket.as_ref().map(TargetSocket::known_path));
        *lock(&self.shared.path) = known.flatten();
        self.tell(found.err());
    }

    /// Says that there is no way any more, or one again.
    fn tell(&mut self, refusal: Option<OpenError>) {
        let Target { name, address, .. } = &self.target;
        match refusal {
            Some(cause) if self.has_route => tracing::warn!(
                "there is no route to mirror target `{name}` ({address}): {cause}; its copies are skipped as \
                 `unreachable`, and a route is looked for every {} s",
                REFRESH_EVERY.as_secs()
            ),
            None if !self.has_route => {
                tracing::info!("there is a route to mirror target `{name}` ({address}): it gets its copies");
            }
            _ => return,
        }
        self.has_route = !self.has_route;
    }

    /// Sends a batch in runs of datagrams that go the same way.
    fn send(&mut self, batch: &Batch) {
        if self.gives_up.load(Ordering::Relaxed) {
            return batch.skip(Skip::QueueFull, &self.counts);
        }
        let Some(socket) = &mut self.socket else { return batch.skip(Skip::Unreachable, &self.counts) };
        let mut settled = vec![Err(Skip::Refused); batch.items.len()];
        let mut at = 0;
        while let Some(first) = batch.items.get(at) {
            let way = Way::of(first, socket);
            let rest = batch.items.get(at..).unwrap_or_default();
            let run = rest.iter().take_while(|item| Way::of(item, socket) == way).count();
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
                    socket.send(&datagrams, fragmented, &self.gives_up, |number, outcome| {
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
}

/// How a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Fragmented,
    TooBig,
}

impl Way {
    fn of(item: &Item, socket: &TargetSocket) -> Self {
        let packet_bytes = socket.path().ip_header_bytes() + item.range.len();
        match (packet_bytes <= socket.path_mtu(), item.may_fragment) {
            (true, _) => Self::Whole,
            (false, true) => Self::Fragmented,
            (false, false) => Self::TooBig,
        }
    }
}

/// How often the way is looked at, and one looked for where there is none.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
