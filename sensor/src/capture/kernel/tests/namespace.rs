//! Two network namespaces joined by a veth pair. Nothing is left behind, however a test ends: both namespaces are the
//! threads' own, and the kernel takes them away with their last user.

use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use std::{
    process::Command,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

/// The near end is the calling thread; work for the far end is sent there.
pub(super) struct Pair {
    jobs: Option<Sender<Box<dyn FnOnce() + Send>>>,
    far: Option<JoinHandle<()>>,
}

pub(super) const NEAR: &str = "near0";
pub(super) const NEAR_V4: &str = "10.9.0.1";
pub(super) const FAR_V4: &str = "10.9.0.2";
pub(super) const NEAR_V6: &str = "fd09::1";
pub(super) const FAR_V6: &str = "fd09::2";

impl Pair {
    /// Moves the calling thread into a namespace of its own and joins it with another; `None` where that is forbidden.
    pub(super) fn join() -> Option<Self> {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace of our own ({error})");
            return None;
        }
        let (jobs, queue): (_, Receiver<Box<dyn FnOnce() + Send>>) = channel();
        let (tell, told) = channel();
        let far = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let far_thread = told.recv().unwrap();
        let pair = Self { jobs: Some(jobs), far: Some(far) };
        ip(&format!("link add {NEAR} type veth peer name far0 netns {far_thread}"));
        up(NEAR, NEAR_V4, NEAR_V6);
        pair.far(|| up("far0", FAR_V4, FAR_V6));
        Some(pair)
    }

    /// Runs `job` at the far end and waits for its answer.
    pub(super) fn far<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let jobs = self.jobs.as_ref().unwrap();
        jobs.send(Box::new(move || answer.send(job()).unwrap())).unwrap();
        answered.recv().unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(far) = self.far.take() {
            // A panic at the far end has shown itself already, where its answer was awaited.
            far.join().unwrap_or_default();
        }
    }
}

fn up(device: &str, v4: &str, v6: &str) {
    ip("link set lo up");
    ip(&format!("addr add {v4}/24 dev {device}"));
    ip(&format!("addr add {v6}/64 dev {device} nodad"));
    ip(&format!("link set {device} up"));
}

pub(super) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}
