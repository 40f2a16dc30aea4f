//! The whole pipeline on frames that a test makes, against a plain map, with faults injected.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use flowlog::record::{LogStatus, Record};
use flowlog::segment::Published;
use flowlog::sink::SinkError;
use proptest::prelude::*;

use super::*;
use crate::capture::{Block, CaptureDrop, Direction, Fill, Frame, Interface, LinkType, Loss};
use crate::classify::{Classifier, LocalNetworks};
use crate::config::{SkippedTraffic, TrafficSelection};
use crate::flow::FragmentRule;
use crate::recorder::{InterfaceFacts, Recording, Rules};
use crate::time::{NANOS_PER_SEC, Timestamp};

/// One UDP packet over raw IPv4: when, between which hosts, and what kind of piece of a datagram it is.
#[derive(Debug, Clone, Copy)]
struct Given {
    secs: u64,
    src: u8,
    dst: u8,
    piece: Piece,
    interface: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Whole,
    First,
    Later,
}

const HEADERS_BYTES: u16 = 28;

impl Given {
    fn bytes(&self) -> Vec<u8> {
        let fragment: u16 = match self.piece {
            Piece::Whole => 0,
            Piece::First => 0x2000,
            Piece::Later => 5,
        };
        let mut bytes = vec![0x45, 0];
        bytes.extend(HEADERS_BYTES.to_be_bytes());
        // One identification for all: the addresses alone tell datagrams apart.
        bytes.extend([0, 1]);
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, 17, 0, 0, 10, 0, 0, self.src, 10, 0, 1, self.dst]);
        bytes.extend([0x10, self.src, 0x20, self.dst, 0, 8, 0, 0]);
        bytes
    }
}

/// Hands out a few frames a block.
struct Script {
    frames: Vec<Given>,
    block_frames: usize,
    drops: Vec<CaptureDrop>,
}

impl Source for Script {
    fn fill(&mut self, block: &mut Block) -> Result<Fill, CaptureError> {
        *block = Block::default();
        block.drops.append(&mut self.drops);
        for given in self.frames.drain(..self.block_frames.min(self.frames.len())) {
            let data = given.bytes();
            block.frames.push(Frame {
                time: Timestamp(given.secs * NANOS_PER_SEC),
                offset: block.bytes.len() as u32,
                captured_bytes: data.len() as u32,
                original_bytes: data.len() as u32,
                interface: given.interface,
                link_type: LinkType::Raw,
                direction: Direction::Unknown,
            });
            block.bytes.extend(data);
        }
        Ok(if block.frames.is_empty() && block.drops.is_empty() { Fill::End } else { Fill::More })
    }
}

/// Keeps records, or fails at the one it is told.
#[derive(Clone, Default)]
struct Kept {
    records: Arc<Mutex<Vec<Record>>>,
    fails_at: Option<usize>,
}

impl Sink for Kept {
    fn write(&mut self, record: &Record) -> Result<(), SinkError> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if Some(records.len()) == self.fails_at {
            return Err(SinkError::BrokenPipe { name: "the test".to_owned() });
        }
        records.push(record.clone());
        Ok(())
    }

    fn advance(&mut self, _end_secs: i64) -> Result<(), SinkError> {
        Ok(())
    }

    fn publish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn drain_published(&mut self) -> Vec<Published> {
        Vec::new()
    }
}

fn job(script: Script, kept: &Kept, workers: usize, flows_max: usize) -> Job {
    let interfaces = Interfaces::default();
    for name in ["a", "b"] {
        interfaces.intern(Interface { name: name.to_owned(), capture: String::new() });
    }
    Job {
        source: Box::new(script),
        interfaces,
        workers: NonZeroUsize::new(workers).unwrap(),
        limits: Limits { flows_max, fragments: FragmentRule::Join, keep_detail: false, seed: 1 },
        recording: Recording {
            rules: Rules {
                interval_secs: 60,
                skipped_traffic: SkippedTraffic::LOG,
                traffic: TrafficSelection::All,
                threads: NonZeroUsize::new(workers).unwrap(),
                with_community_id: false,
                seed: 1,
            },
            policy: None,
            describe: Box::new(|_| InterfaceFacts {
                metadata: Arc::default(),
                classifier: Classifier::new(&[], &[]),
                local: LocalNetworks::new(&[]),
                stand_in: None,
            }),
        },
        sink: Box::new(kept.clone()),
        progress: Box::new(|_| {}),
    }
}

fn run(frames: &[Given], block_frames: usize, workers: usize, flows_max: usize) -> (Vec<Record>, Outcome) {
    let kept = Kept::default();
    let script = Script { frames: frames.to_vec(), block_frames, drops: Vec::new() };
    let outcome = replay(job(script, &kept, workers, flows_max));
    let records = std::mem::take(&mut *kept.records.lock().unwrap());
    (records, outcome)
}

/// What identifies a flow in a row, without its interval.
type Row = (String, String, u16, u16);

fn packets_by_flow(records: &[Record]) -> BTreeMap<Row, u64> {
    let mut sums = BTreeMap::new();
    for Record { flow, .. } in records {
        let row = (
            flow.srcaddr.unwrap().to_string(),
            flow.dstaddr.unwrap().to_string(),
            flow.srcport.unwrap(),
            flow.dstport.unwrap(),
        );
        *sums.entry(row).or_default() += flow.packets.unwrap();
    }
    sums
}

fn given() -> impl Strategy<Value = Given> {
    let piece = prop_oneof![4 => Just(Piece::Whole), 1 => Just(Piece::First), 1 => Just(Piece::Later)];
    (0..400_u64, 0..4_u8, 0..4_u8, piece, 0..2_u16).prop_map(|(secs, src, dst, piece, interface)| Given {
        secs,
        src,
        dst,
        piece,
        interface,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_number_of_workers_writes_the_same_rows(
        frames in proptest::collection::vec(given(), 0..300),
        block_frames in 1..40_usize,
    ) {
        let (alone, outcome) = run(&frames, block_frames, 1, 1 << 20);
        prop_assert!(outcome.frames.balances() && outcome.rows.balances(&outcome.frames));
        prop_assert_eq!(outcome.frames.packets, frames.len() as u64);
        for workers in 2..=4 {
            let (together, outcome) = run(&frames, block_frames, workers, 1 << 20);
            prop_assert!(outcome.frames.balances() && outcome.rows.balances(&outcome.frames));
            prop_assert_eq!(&together, &alone);
        }
    }

    #[test]
    fn a_full_flow_table_splits_rows_and_loses_nothing(
        mut frames in proptest::collection::vec(given(), 1..300),
        flows_max in 1..20_usize,
        workers in 1..4_usize,
    ) {
        frames.iter_mut().for_each(|frame| frame.piece = Piece::Whole);
        let (unbounded, _) = run(&frames, 7, 1, 1 << 20);
        let (bounded, outcome) = run(&frames, 7, workers, flows_max);
        prop_assert!(outcome.frames.balances() && outcome.rows.balances(&outcome.frames));
        prop_assert_eq!(packets_by_flow(&bounded), packets_by_flow(&unbounded));
    }

    #[test]
    fn packets_in_order_add_up_as_in_a_plain_map(mut frames in proptest::collection::vec(given(), 0..300)) {
        // In order of time nothing is late, so the model needs no windows.
        frames.sort_by_key(|frame| frame.secs);
        let datagram = |frame: &Given| (frame.secs / 60, frame.interface, frame.src, frame.dst);
        let mut model: BTreeMap<_, u64> = BTreeMap::new();
        for frame in &frames {
            let first_is_there =
                frames.iter().any(|other| other.piece == Piece::First && datagram(other) == datagram(frame));
            let has_ports = frame.piece != Piece::Later || first_is_there;
            *model.entry((datagram(frame), has_ports)).or_default() += 1;
        }
        let (records, _) = run(&frames, 11, 2, 1 << 20);
        let mut expected: Vec<_> = model.into_values().collect();
        let mut seen: Vec<_> = records.iter().filter_map(|record| record.flow.packets).collect();
        expected.sort_unstable();
        seen.sort_unstable();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn the_peak_is_what_was_held_when_the_table_was_full() {
    let frames: Vec<_> = (0..1_000)
        .map(|n| Given { secs: 0, src: n as u8, dst: (n / 256) as u8, piece: Piece::Whole, interface: 0 })
        .collect();
    // One block, a thousand different flows: the table fills up several times on the way.
    let (records, outcome) = run(&frames, frames.len(), 1, 300);
    assert_eq!(records.len(), 1_000);
    assert!(outcome.frames.early_drains >= 3);
    // Room is made for a batch of first fragments, so up to two batches are left free.
    assert!((300 - 64..=300).contains(&outcome.frames.flows_peak), "{}", outcome.frames.flows_peak);
}

#[test]
fn several_open_windows_together_stay_within_the_bound() {
    // Eight flows at a time go to each of four open intervals in turn.
    let frames: Vec<_> = (0..1_600)
        .map(|n| Given { secs: n / 8 % 4 * 60, src: n as u8, dst: (n / 256) as u8, piece: Piece::Whole, interface: 0 })
        .collect();
    let (_, outcome) = run(&frames, frames.len(), 1, 80);
    assert!(outcome.frames.early_drains > 0);
    assert!(outcome.frames.flows_peak <= 80, "{}", outcome.frames.flows_peak);
    assert!(outcome.frames.balances() && outcome.rows.balances(&outcome.frames));
}

#[test]
fn a_sink_that_fails_ends_the_run_whatever_the_workers_are_doing() {
    let frames: Vec<_> = (0..2_000)
        .map(|n| Given { secs: n, src: n as u8, dst: (n / 256) as u8, piece: Piece::Whole, interface: 0 })
        .collect();
    for workers in 1..=4 {
        for flows_max in [1, 64, 1 << 20] {
            let kept = Kept { fails_at: Some(5), ..Kept::default() };
            let script = Script { frames: frames.clone(), block_frames: 10, drops: Vec::new() };
            let outcome = replay(job(script, &kept, workers, flows_max));
            assert!(matches!(outcome.failure, Some(RecorderError::Sink(SinkError::BrokenPipe { .. }))));
            assert_eq!(kept.records.lock().unwrap().len(), 5);
        }
    }
}

#[test]
fn a_loss_that_the_capture_reports_is_told_once_an_interval_and_interface() {
    let frame = |secs, interface| Given { secs, src: 1, dst: 2, piece: Piece::Whole, interface };
    let drop = |secs, interface, packets| CaptureDrop {
        interface,
        time: Timestamp(secs * NANOS_PER_SEC),
        packets,
        loss: Loss::CaptureBuffer,
    };
    let kept = Kept::default();
    let script = Script {
        frames: vec![frame(60, 0), frame(61, 1), frame(120, 0)],
        block_frames: 10,
        drops: vec![drop(70, 1, 3), drop(80, 1, 4), drop(121, 0, 5)],
    };
    let outcome = replay(job(script, &kept, 2, 1 << 20));
    assert_eq!(outcome.frames.lost.total(), 12);
    let records = kept.records.lock().unwrap();
    let told: Vec<_> = records
        .iter()
        .filter(|record| record.status == Some(LogStatus::SkipData))
        .map(|record| (record.start_secs, record.end_secs))
        .collect();
    assert_eq!(told, [(Some(60), Some(119)), (Some(120), Some(179))]);
}
