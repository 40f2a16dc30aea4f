//! Three network namespaces: a client, the tapped host (the calling thread), and a collector. Nothing is left behind,
//! however a test ends: the namespaces are the threads' own, and the kernel takes them away with their last user.

use nix::{
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::{Pid, gettid},
};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

pub(super) const TAP: &str = "tap0";
pub(super) const OUT: &str = "out0";
pub(super) const CLIENT: &str = "cli0";
pub(super) const COLLECTOR: &str = "col0";
pub(super) const HOST_V4: &str = "10.81.0.1";
pub(super) const CLIENT_V4: &str = "10.81.0.2";
pub(super) const HOST_V6: &str = "fd81::1";
pub(super) const CLIENT_V6: &str = "fd81::2";
pub(super) const OUT_V4: &str = "10.83.0.1";
pub(super) const COLLECTOR_V4: &str = "10.83.0.2";
pub(super) const COLLECTOR_V6: &str = "fd83::2";
pub(super) const DOWNLOAD_BYTES: usize = 200_000;

pub(super) struct Net {
    pub(super) client: Remote,
    pub(super) collector: Remote,
}

/// A namespace with a thread of its own.
pub(super) struct Remote {
    jobs: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
    tid: Pid,
}

impl Net {
    /// `None` where that is forbidden. Everything runs on one processor, so that order can be judged.
    pub(super) fn join() -> Option<Self> {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: no network namespace of our own ({error})");
            return None;
        }
        pin();
        let net = Self { client: Remote::start(), collector: Remote::start() };
        ip("link set lo up");
        ip(&format!("link add {TAP} type veth peer name {CLIENT} netns {}", net.client.tid));
        ip(&format!("link add {OUT} type veth peer name {COLLECTOR} netns {}", net.collector.tid));
        up(TAP, HOST_V4, HOST_V6);
        up(OUT, OUT_V4, "fd83::1");
        net.client.run(|| up(CLIENT, CLIENT_V4, CLIENT_V6));
        net.collector.run(|| up(COLLECTOR, COLLECTOR_V4, COLLECTOR_V6));
        net.mtu(1600);
        // Neighbours are known, so that no copy waits for an answer.
        ping(COLLECTOR_V4);
        ping(COLLECTOR_V6);
        ping(CLIENT_V4);
        ping(CLIENT_V6);
        Some(net)
    }

    /// Sets the MTU of the underlay, both ends.
    pub(super) fn mtu(&self, bytes: u32) {
        ip(&format!("link set {OUT} mtu {bytes}"));
        self.collector.run(move || ip(&format!("link set {COLLECTOR} mtu {bytes}")));
    }
}

impl Remote {
    fn start() -> Self {
        let (jobs, queue): (_, Receiver<Box<dyn FnOnce() + Send>>) = channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            pin();
            tell.send(gettid()).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        Self { jobs: Some(jobs), thread: Some(thread), tid: told.recv().unwrap() }
    }

    /// Runs `job` there and waits for its answer.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.begin(job).recv().unwrap()
    }

    /// Begins `job` there; its answer can be waited for.
    pub(super) fn begin<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (answer, answered) = channel();
        let jobs = self.jobs.as_ref().unwrap();
        jobs.send(Box::new(move || answer.send(job()).unwrap_or_default())).unwrap();
        answered
    }

    /// Runs `work` here while every frame that comes in by `device` there is captured.
    pub(super) fn capture<T>(&self, device: &'static str, work: impl FnOnce() -> T) -> (T, Vec<Vec<u8>>) {
        let (ready, is_ready) = channel();
        let done = Box::leak(Box::new(AtomicBool::new(false)));
        let stop: &'static AtomicBool = done;
        let frames = self.begin(move || {
            let mut capture = pcap::Capture::from_device(device)
                .unwrap()
                .snaplen(4096)
                .buffer_size(64 << 20)
                .immediate_mode(true)
                .open()
                .unwrap()
                .setnonblock()
                .unwrap();
            capture.direction(pcap::Direction::In).unwrap();
            ready.send(()).unwrap();
            let mut frames = Vec::new();
            let mut quiet_polls = 0;
            loop {
                match capture.next_packet() {
                    Ok(packet) => {
                        quiet_polls = 0;
                        frames.push(packet.data.to_vec());
                    }
                    Err(_) if quiet_polls > QUIET_POLLS => break,
                    Err(_) => {
                        // How quiet it was before the work was done tells nothing of what is still on its way.
                        quiet_polls += u32::from(stop.load(Ordering::Relaxed));
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            }
            assert_eq!(capture.stats().unwrap().dropped, 0);
            frames
        });
        is_ready.recv().unwrap();
        let answer = work();
        stop.store(true, Ordering::Relaxed);
        (answer, frames.recv().unwrap())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has shown itself already, where its answer was awaited.
            thread.join().unwrap_or_default();
        }
    }
}

/// A client fetches something from the tapped host.
pub(super) fn download(net: &Net) {
    let listener = TcpListener::bind((HOST_V4, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let client = net.client.begin(move || {
        let mut received = Vec::new();
        TcpStream::connect(address).unwrap().read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), DOWNLOAD_BYTES);
    });
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(&[7; DOWNLOAD_BYTES]).unwrap();
    drop(stream);
    client.recv().unwrap();
}

/// Sends frames as they are.
pub(super) fn send(device: &str, frames: &[Vec<u8>]) {
    let mut device = pcap::Capture::from_device(device).unwrap().open().unwrap();
    frames.iter().for_each(|frame| device.sendpacket(frame.as_slice()).unwrap());
}

pub(super) fn ip(arguments: &str) {
    run("ip", arguments);
}

pub(super) fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(super) fn ping(address: &str) {
    // While addresses settle one may be lost, and ping ends at the first word of that.
    let is_answered =
        || Command::new("ping").args(["-c", "1", "-W", "1", "-q", address]).output().unwrap().status.success();
    assert!(comes_true(is_answered), "{address} does not answer");
}

/// Waits until something is so; `false` if it does not come within a minute, as even a busy machine lets it.
pub(super) fn comes_true(mut is_so: impl FnMut() -> bool) -> bool {
    (0..LOOKS).any(|_| {
        let came = is_so();
        if !came {
            std::thread::sleep(BETWEEN_LOOKS);
        }
        came
    })
}

fn up(device: &str, v4: &str, v6: &str) {
    ip("link set lo up");
    ip(&format!("addr add {v4}/24 dev {device}"));
    ip(&format!("addr add {v6}/64 dev {device} nodad"));
    ip(&format!("link set {device} up"));
}

fn pin() {
    let mut processors = CpuSet::new();
    processors.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &processors).unwrap();
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(25);
const LOOKS: u32 = 2400;
/// So often must nothing have come, at two milliseconds each, before a capture ends.
const QUIET_POLLS: u32 = 75;
