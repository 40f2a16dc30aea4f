//! A capture from beginning to end: the parts put together, and the threads they run on.
//!
//! The clock is the capture's own. Each worker runs [`crate::worker`]'s loop on a thread; the calling thread is the
//! recorder. Nothing but a closed window's table crosses a thread.

use std::num::NonZeroUsize;
use std::thread;

use crossbeam_channel::{bounded, unbounded};
use flowlog::sink::Sink;

use crate::capture::{CaptureError, Interfaces, Source};
use crate::feed::CaptureFeed;
use crate::flow::interval::Windows;
use crate::ledger::{FrameCounts, RowCounts};
use crate::recorder::{Recorder, RecorderError, Recording};
use crate::worker::{Handover, Limits, Worker};

/// Everything a replay needs.
pub struct Job {
    /// Where frames come from.
    pub source: Box<dyn Source>,
    /// The interfaces that `source` meets.
    pub interfaces: Interfaces,
    /// How many threads count.
    pub workers: NonZeroUsize,
    /// How each worker counts.
    pub limits: Limits,
    /// How flows become records.
    pub recording: Recording,
    /// Where records go.
    pub sink: Box<dyn Sink>,
    /// Is told the bytes of each block read.
    pub progress: Box<dyn FnMut(u64) + Send>,
}

/// What came of a replay.
pub struct Outcome {
    /// What became of the frames.
    pub frames: FrameCounts,
    /// What became of the flows.
    pub rows: RowCounts,
    /// What was wrong with the captures. What could be read was counted.
    pub damage: Vec<CaptureError>,
    /// The sink, to be finished.
    pub sink: Box<dyn Sink>,
    /// Why no more records could be written.
    pub failure: Option<RecorderError>,
}

/// Replays a capture.
pub fn replay(job: Job) -> Outcome {
    let workers = job.workers.get();
    let windows = Windows::new(job.recording.rules.interval_secs);
    let feed = CaptureFeed::new(job.source, windows, workers, job.limits, job.progress);
    let (recorder_sender, handovers) = bounded::<Handover>(workers * SHARES_WAITING_MAX);
    let (homes, homecomings): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded()).unzip();
    let mut recorder = Recorder::new(job.recording, job.interfaces, job.sink, homes);
    let mut frames = FrameCounts::default();
    let written = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, home) in homecomings.into_iter().enumerate() {
            let worker = Worker::new(number, &feed, recorder_sender.clone(), home);
            threads.push(scope.spawn(move || worker.run()));
        }
        drop(recorder_sender);
        let written = recorder.run(&handovers);
        // Workers that wait for a recorder that has failed must not wait for ever.
        drop(handovers);
        recorder.release_workers();
        for thread in threads {
            // A worker that panicked has told the recorder, and its counts are gone.
            thread.join().into_iter().for_each(|counts| frames.add(&counts));
        }
        written
    });
    let (rows, sink) = recorder.into_parts();
    Outcome { frames, rows, damage: feed.into_damage(), sink, failure: written.err() }
}

/// How many shares a worker may have waiting before it waits itself.
const SHARES_WAITING_MAX: usize = 2;

#[cfg(test)]
mod tests;
