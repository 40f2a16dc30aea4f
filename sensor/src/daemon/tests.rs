//! Workers, live feed and recorder together, on scripted sources and a clock that a test sets.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;
use flowlog::metadata::Metadata;
use flowlog::record::{LogStatus, Record};
use flowlog::segment::Published;
use flowlog::sink::{Sink, SinkError};

use super::*;
use crate::capture::{Block, CaptureDrop, CaptureError, Direction, Fill, Frame, LinkType, Loss, Source};
use crate::classify::{Classifier, LocalNetworks};
use crate::config::{SkippedTraffic, TrafficSelection};
use crate::feed::Closing;
use crate::flow::FragmentRule;
use crate::flow::interval::Window;
use crate::policy::Policy;
use crate::recorder::{Change, InterfaceFacts, Rules};
use crate::time::NANOS_PER_SEC;

/// What a source does at one call.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Sets the clock to this second, and hands out so many packets of an interface, captured then.
    Packets { now: u64, interface: u16, count: u32 },
    /// Hands out a packet that was captured at this second, whatever the clock says.
    Straggler { at: u64, interface: u16 },
    /// Reports so many packets lost at this second.
    Drops { at: u64, interface: u16, packets: u64 },
    /// Sets the clock to this second and has nothing.
    Quiet { now: u64 },
    /// Changes the configuration: other intervals, and a sink that writes `after:` before its rows.
    Change { interval_secs: u32 },
}

struct Script {
    acts: VecDeque<Act>,
    clock: Arc<AtomicU64>,
    /// Where a change is asked for, and where it is said to be done.
    changes: Option<Sender<u32>>,
    changed: Receiver<()>,
}

/// An IPv4 UDP packet from 10.0.0.1:1 to 10.0.0.2:2 without data (RFC 791, RFC 768).
const PACKET: [u8; 28] = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 0, 8, 0, 0];

impl Source for Script {
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
        *block = Block::default();
        let Some(act) = self.acts.pop_front() else {
            self.changes = None;
            return Ok(Fill::End);
        };
        let mut frames = |at: u64, interface, count| {
            block.bytes = PACKET.to_vec();
            block.frames = vec![
                Frame {
                    time: Timestamp(at * NANOS_PER_SEC),
                    offset: 0,
                    captured_bytes: 28,
                    original_bytes: 28,
                    interface,
                    link_type: LinkType::Raw,
                    direction: Direction::Ingress,
                };
                count
            ];
        };
        match act {
            Act::Packets { now, interface, count } => {
                self.clock.store(now, Ordering::SeqCst);
                frames(now, interface, count as usize);
            }
            Act::Straggler { at, interface } => frames(at, interface, 1),
            Act::Drops { at, interface, packets } => {
                block.drops.push(CaptureDrop {
                    interface,
                    time: Timestamp(at * NANOS_PER_SEC),
                    packets,
                    loss: Loss::CaptureBuffer,
                });
            }
            Act::Quiet { now } => {
                self.clock.store(now, Ordering::SeqCst);
                return Ok(Fill::Idle);
            }
            Act::Change { interval_secs } => {
                self.changes.as_ref().unwrap().send(interval_secs).unwrap();
                self.changed.recv().unwrap();
                return Ok(Fill::Idle);
            }
        }
        Ok(Fill::More)
    }
}

/// Notes what it is told, with a name of its own before each line.
#[derive(Clone)]
struct Kept {
    name: &'static str,
    rows: Arc<Mutex<Vec<String>>>,
}

impl Sink for Kept {
    fn write(&mut self, record: &Record) -> Result<(), SinkError> {
        let (start, end) = (record.start_secs.unwrap(), record.end_secs.unwrap());
        let interface = record.metadata.get(flowlog::field::Field::InterfaceId).unwrap();
        let what = match record.status {
            Some(LogStatus::NoData) => "NODATA".to_owned(),
            Some(LogStatus::SkipData) => "SKIPDATA".to_owned(),
            _ => record.flow.packets.unwrap().to_string(),
        };
        self.rows.lock().unwrap().push(format!("{}{interface} {start}-{end} {what}", self.name));
        Ok(())
    }

    fn advance(&mut self, _end_secs: i64) -> Result<(), SinkError> {
        Ok(())
    }

    fn publish(&mut self) -> Result<(), SinkError> {
        self.rows.lock().unwrap().push(format!("{}published", self.name));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.rows.lock().unwrap().push(format!("{}finished", self.name));
        Ok(())
    }

    fn drain_published(&mut self) -> Vec<Published> {
        Vec::new()
    }
}

fn recording(interval_secs: u32) -> Recording {
    Recording {
        rules: Rules {
            interval_secs,
            skipped_traffic: SkippedTraffic::LOG,
            traffic: TrafficSelection::All,
            threads: NonZeroUsize::MIN,
            with_community_id: false,
            seed: 1,
        },
        policy: None,
        describe: Box::new(|interface| {
            let mut metadata = Metadata::default();
            metadata.set(flowlog::field::Field::InterfaceId, interface.name.clone()).unwrap();
            InterfaceFacts {
                metadata: Arc::new(metadata),
                classifier: Classifier::new(&[], &[]),
                local: LocalNetworks::new(&[]),
                stand_in: None,
            }
        }),
    }
}

/// Plays one script with one worker: what was written, published and finished, in order.
fn play(acts: &[Act], flows_max: usize) -> Vec<String> {
    let interfaces = Interfaces::default();
    let roster = Roster::default();
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        interfaces.intern(Interface { name: name.to_owned(), capture: String::new() });
        roster.attach(index as u16, name, Timestamp(0));
    }
    let clock_secs = Arc::new(AtomicU64::new(600));
    let clock: Clock = {
        let secs = Arc::clone(&clock_secs);
        Arc::new(move || Timestamp(secs.load(Ordering::SeqCst) * NANOS_PER_SEC))
    };
    let ((asked, asks), (done, changed)) = (unbounded(), unbounded());
    let script = Script { acts: acts.iter().copied().collect(), clock: clock_secs, changes: Some(asked), changed };
    let limits = Limits { flows_max, fragments: FragmentRule::Join, keep_detail: false, seed: 1 };
    let feed = LiveFeed::new(vec![Box::new(script)], Windows::new(60), limits, clock);

    let rows = Arc::new(Mutex::new(Vec::new()));
    let (changes_sender, changes) = unbounded();
    let live = Live { roster, drop_reasons: DropReasons::default(), changes, published: Box::new(|_| {}) };
    let (home, homecoming) = unbounded();
    let sink = Box::new(Kept { name: "", rows: Arc::clone(&rows) });
    let mut recorder = Recorder::live(recording(60), interfaces, sink, vec![home], live);
    let (sender, handovers) = bounded(2);
    thread::scope(|scope| {
        let (feed, rows) = (&feed, &rows);
        let worker = Worker::new(0, feed, sender, homecoming);
        scope.spawn(move || worker.run());
        scope.spawn(move || {
            for interval_secs in asks {
                let sink = Kept { name: "after:", rows: Arc::clone(rows) };
                let prepare = |generation, _| {
                    let recording = recording(interval_secs);
                    changes_sender.send(Change { generation, recording, sink: Some(Box::new(sink)) }).unwrap();
                };
                assert_eq!(feed.change(interval_secs, limits, prepare), Some(Timestamp(660 * NANOS_PER_SEC)));
                done.send(()).unwrap();
            }
        });
        recorder.run(&handovers).unwrap();
    });
    drop(recorder);
    Arc::into_inner(rows).unwrap().into_inner().unwrap()
}

#[test]
fn quiet_interfaces_and_quiet_intervals_get_nodata_rows() {
    let acts = [
        Act::Quiet { now: 605 },
        Act::Packets { now: 610, interface: 0, count: 3 },
        Act::Quiet { now: 661 },
        Act::Straggler { at: 659, interface: 0 },
        Act::Quiet { now: 662 },
        Act::Quiet { now: 722 },
    ];
    let expected = [
        "a 610-659 4",
        "b 600-659 NODATA",
        "published",
        "a 660-719 NODATA",
        "b 660-719 NODATA",
        "published",
        // The end came at 722, before the interval's.
        "a 720-721 NODATA",
        "b 720-721 NODATA",
        "published",
    ];
    assert_eq!(play(&acts, 100), expected);
}

#[test]
fn a_loss_is_told_in_its_interval_and_is_no_quiet() {
    let acts = [
        Act::Packets { now: 605, interface: 0, count: 2 },
        Act::Drops { at: 606, interface: 0, packets: 7 },
        Act::Drops { at: 607, interface: 1, packets: 1 },
        Act::Quiet { now: 662 },
    ];
    let expected = ["a 605-605 2", "a 600-659 SKIPDATA", "b 600-659 SKIPDATA", "published"];
    assert_eq!(play(&acts, 100)[..4], expected);
}

#[test]
fn what_comes_after_the_grace_is_late_and_not_lost() {
    let acts = [
        Act::Packets { now: 605, interface: 0, count: 1 },
        Act::Quiet { now: 662 },
        Act::Straggler { at: 606, interface: 0 },
        Act::Quiet { now: 722 },
    ];
    let expected = [
        "a 605-605 1",
        "b 600-659 NODATA",
        "published",
        "a 606-606 1",
        "a 660-719 NODATA",
        "b 660-719 NODATA",
        "published",
    ];
    assert_eq!(play(&acts, 100)[..7], expected);
}

#[test]
fn a_configuration_is_exchanged_between_two_intervals_without_losing_a_packet() {
    let acts = [
        Act::Packets { now: 605, interface: 0, count: 1 },
        Act::Change { interval_secs: 30 },
        Act::Packets { now: 659, interface: 0, count: 2 },
        Act::Packets { now: 660, interface: 1, count: 5 },
        Act::Straggler { at: 658, interface: 0 },
        Act::Quiet { now: 662 },
        Act::Quiet { now: 692 },
    ];
    let expected = [
        "a 605-659 4",
        "b 600-659 NODATA",
        "published",
        "finished",
        "after:b 660-660 5",
        "after:a 660-689 NODATA",
        "after:published",
    ];
    assert_eq!(play(&acts, 100)[..7], expected);
}

#[test]
fn an_interface_whose_rows_went_out_early_was_not_quiet() {
    let acts = [
        Act::Packets { now: 605, interface: 0, count: 1 },
        Act::Packets { now: 606, interface: 1, count: 1 },
        Act::Quiet { now: 662 },
    ];
    assert_eq!(play(&acts, 1)[..3], ["a 605-605 1", "b 606-606 1", "published"]);
}

#[test]
fn a_milestone_tells_what_the_policy_in_force_could_not_judge() {
    let interfaces = Interfaces::default();
    interfaces.intern(Interface { name: "a".to_owned(), capture: String::new() });
    let told = Arc::new(Mutex::new(Vec::new()));
    let published = {
        let told = Arc::clone(&told);
        Box::new(move |milestone: &Milestone<'_>| told.lock().unwrap().push(milestone.counts.policy.interfaces_unruled))
    };
    let policy = "[[security-group]]\nname = 'other'\ninterfaces = ['b']\n";
    let recording = Recording { policy: Some(Policy::parse(policy).unwrap()), ..recording(60) };
    let live =
        Live { roster: Roster::default(), drop_reasons: DropReasons::default(), changes: unbounded().1, published };
    let sink = Box::new(Kept { name: "", rows: Arc::default() });
    let mut recorder = Recorder::live(recording, interfaces, sink, vec![unbounded().0], live);
    let (sender, handovers) = unbounded();
    for order in 0..2 {
        let start_ns = order * 60 * NANOS_PER_SEC;
        let window = Window { serial: order, start_ns, end_ns: start_ns + 1, generation: 0, late: false };
        sender.send(Handover::Closed { closing: Closing { order, window }, share: None, losses: Vec::new() }).unwrap();
    }
    drop(sender);
    recorder.run(&handovers).unwrap();
    assert_eq!(*told.lock().unwrap(), [1, 1], "and it is not added up with each interval");
    assert_eq!(recorder.into_parts().0.policy.interfaces_unruled, 1);
}
