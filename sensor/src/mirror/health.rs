//! Whether targets are there: asked over TCP or HTTP, as a Network Load Balancer asks, since nothing answers to VXLAN.
//!
//! An answer changes nothing alone: a target is dead after so many failures on end, and back after so many good answers.
//! Each checked target has a thread that mostly sleeps.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, after, bounded};

use super::executor::Health;
use super::{HealthCheck, Question, Target};

/// Checks that go on until this is dropped. Nobody waits for their threads: each ends by itself, at the latest with the
/// question that it is asking, and says nothing more.
pub struct HealthChecks {
    /// Dropped with this: then every thread knows.
    _stop: Sender<()>,
}

impl HealthChecks {
    /// Checks those of `targets` that are to be checked, and tells `health`, which says how they are known to stand.
    ///
    /// # Errors
    /// When a thread can't be had.
    pub fn start(targets: &[Target], health: &Health) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        for (index, target) in (0..).zip(targets) {
            let Some(check) = target.health_check.clone() else { continue };
            let (health, stopped, target) = (health.clone(), stopped.clone(), target.clone());
            let thread = thread::Builder::new().name(format!("health-{}", target.name));
            thread.spawn(move || watch(index, &target, &check, &health, &stopped))?;
        }
        Ok(Self { _stop: stop })
    }
}

/// The health of another configuration's targets: of one that stays, and is checked, as it is known; others are healthy.
pub fn carried_over(before: &[Target], health: &Health, next: &[Target]) -> Health {
    let carried = Health::new(next.len());
    for (index, target) in (0..).zip(next).filter(|(_, target)| target.health_check.is_some()) {
        let known = (0..).zip(before).find(|(_, known)| (&known.name, known.address) == (&target.name, target.address));
        carried.set(index, known.is_none_or(|(at, _)| health.is_healthy(at)));
    }
    carried
}

fn watch(index: u16, target: &Target, check: &HealthCheck, health: &Health, stopped: &Receiver<()>) {
    let address = SocketAddr::new(target.address, check.port.get());
    let mut standing = Standing::new(check, health.is_healthy(index));
    loop {
        let is_good = answers(check, address).is_ok();
        if stopped.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        if let Some(is_healthy) = standing.hear(is_good) {
            health.set(index, is_healthy);
            match is_healthy {
                true => tracing::info!(target = target.name, "mirror target is back: it gets its flows again"),
                false => tracing::warn!(target = target.name, "mirror target is dead: its flows go to the others"),
            }
        }
        if stopped.recv_timeout(check.interval) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Asks once. All of it must be done within the timeout, or a tenth of it later.
fn answers(check: &HealthCheck, address: SocketAddr) -> io::Result<()> {
    let over = after(check.timeout);
    let mut stream = TcpStream::connect_timeout(&address, check.timeout)?;
    let Question::Http(path) = &check.question else { return Ok(()) };
    stream.set_read_timeout(Some(check.timeout / LOOKS_PER_TIMEOUT))?;
    stream.set_write_timeout(Some(check.timeout / LOOKS_PER_TIMEOUT))?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n", path.as_str());
    // It is less than a new connection's buffer holds.
    stream.write_all(request.as_bytes())?;
    let mut line = [0; STATUS_BYTES];
    let mut missing = &mut line[..];
    while !missing.is_empty() {
        let read = match stream.read(missing) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        missing = missing.get_mut(read..).unwrap_or_default();
        if over.try_recv().is_ok() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'2' | b'3', b'0'..=b'9', b'0'..=b'9'] => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// How a target stands, and what it takes to change that.
#[derive(Debug, Clone, Copy)]
struct Standing {
    is_healthy: bool,
    /// Answers on end that say otherwise.
    against: u8,
    healthy_threshold: u8,
    unhealthy_threshold: u8,
}

impl Standing {
    /// As it was known to stand.
    fn new(check: &HealthCheck, is_healthy: bool) -> Self {
        let (healthy_threshold, unhealthy_threshold) =
            (check.healthy_threshold.count(), check.unhealthy_threshold.count());
        Self { is_healthy, against: 0, healthy_threshold, unhealthy_threshold }
    }

    /// Takes note of an answer; says how the target stands if that has changed.
    fn hear(&mut self, is_good: bool) -> Option<bool> {
        self.against = if is_good == self.is_healthy { 0 } else { self.against.saturating_add(1) };
        let threshold = if self.is_healthy { self.unhealthy_threshold } else { self.healthy_threshold };
        if self.against < threshold {
            return None;
        }
        (self.is_healthy, self.against) = (is_good, 0);
        Some(is_good)
    }
}

/// `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;
/// How often, while an answer is waited for, it is asked whether the time is over.
const LOOKS_PER_TIMEOUT: u32 = 10;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::num::NonZeroU16;
    use std::time::{Duration, Instant};

    use super::*;

    fn check(question: Question, port: u16) -> HealthCheck {
        HealthCheck {
            question,
            port: NonZeroU16::new(port).unwrap(),
            interval: Duration::from_millis(10),
            timeout: Duration::from_millis(500),
            healthy_threshold: "2".parse().unwrap(),
            unhealthy_threshold: "3".parse().unwrap(),
        }
    }

    #[test]
    fn an_answer_changes_nothing_alone() {
        let mut standing = Standing::new(&check(Question::Tcp, 1), true);
        let heard: Vec<_> = [false, false, true, false, false, false, false, true, false, true, true, true, false]
            .map(|good| standing.hear(good))
            .into();
        let mut expected = vec![None; 13];
        (expected[5], expected[10]) = (Some(false), Some(true));
        assert_eq!(heard, expected);
    }

    #[test]
    fn targets_that_stay_keep_their_health() {
        let target = |name: &str, address: &str| Target {
            name: name.to_owned(),
            ..checked(address.parse().unwrap(), check(Question::Tcp, 1))
        };
        let one = target("one", "10.0.0.1:1");
        let (two, three) = (target("two", "10.0.0.2:1"), target("three", "10.0.0.3:1"));
        let before = [one.clone(), two.clone(), three.clone()];
        let health = Health::new(3);
        [0, 2].into_iter().for_each(|dead| health.set(dead, false));
        let next = [
            target("four", "10.0.0.4:1"),
            three,
            two,
            target("renamed", "10.0.0.3:1"),
            target("three", "10.0.0.5:1"),
            // Nobody would find out that it is back.
            Target { health_check: None, ..one },
        ];
        let carried = carried_over(&before, &health, &next);
        let carried: Vec<_> = (0..6).map(|index| carried.is_healthy(index)).collect();
        assert_eq!(carried, [true, false, true, true, true, true]);
    }

    #[test]
    fn tcp_and_http_are_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let http = move || check(Question::Http("/up".parse().unwrap()), address.port());
        assert!(answers(&check(Question::Tcp, address.port()), address).is_ok());
        drop(listener.accept().unwrap());
        for (status, is_good) in [("200 OK", true), ("302 Found", true), ("404 Not Found", false), ("503 Busy", false)]
        {
            let asking = thread::spawn(move || answers(&http(), address).is_ok());
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request[..], b"GET /up HTTP/1.1");
            stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(asking.join().unwrap(), is_good, "{status}");
        }
        drop(listener);
        assert!(answers(&check(Question::Tcp, address.port()), address).is_err());
    }

    /// A status line that comes byte by byte, each within the timeout.
    #[test]
    fn the_timeout_is_that_of_the_whole_check() {
        let is_over_in_time = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let check = check(Question::Http("/".parse().unwrap()), address.port());
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                for byte in b"HTTP/1.1 200" {
                    thread::sleep(check_gap());
                    // Whoever asked may be gone.
                    stream.write_all(&[*byte]).ok();
                }
            });
            let began = now();
            let answer = answers(&check, address);
            let took = began.elapsed();
            server.join().unwrap();
            assert!(answer.is_err(), "{answer:?}");
            took < 2 * check.timeout
        };
        // A busy machine may need longer, but not always.
        assert!((0..ATTEMPTS_MAX).any(|_| is_over_in_time()), "it takes too long");
    }

    const ATTEMPTS_MAX: u32 = 10;

    #[expect(clippy::disallowed_methods, reason = "these tests are about time that really passes")]
    fn now() -> Instant {
        Instant::now()
    }

    /// Twelve of them are three times the timeout.
    fn check_gap() -> Duration {
        Duration::from_millis(125)
    }

    #[test]
    fn nobody_waits_for_an_answer_that_is_not_wanted_any_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let slow = HealthCheck {
            timeout: Duration::from_secs(60),
            ..check(Question::Http("/".parse().unwrap()), address.port())
        };
        let checks = HealthChecks::start(&[checked(address, slow)], &Health::new(1)).unwrap();
        let (mut asking, _) = listener.accept().unwrap();
        asking.read_exact(&mut [0; 16]).unwrap();
        drop(checks);
        asking.set_nonblocking(true).unwrap();
        let mut rest = Vec::new();
        let end = asking.read_to_end(&mut rest).map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::WouldBlock), "the question is still asked");
    }

    #[test]
    fn an_answer_that_is_not_wanted_any_more_is_not_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let slow = HealthCheck {
            timeout: Duration::from_secs(60),
            unhealthy_threshold: "1".parse().unwrap(),
            ..check(Question::Http("/".parse().unwrap()), address.port())
        };
        let (health, (stop, stopped)) = (Health::new(1), bounded(0));
        let (told, target) = (health.clone(), checked(address, slow.clone()));
        let watching = thread::spawn(move || watch(0, &target, &slow, &told, &stopped));
        let (asking, _) = listener.accept().unwrap();
        drop(stop);
        // The question fails now.
        drop(asking);
        watching.join().unwrap();
        assert!(health.is_healthy(0));
    }

    fn checked(address: SocketAddr, check: HealthCheck) -> Target {
        Target {
            name: "ids".to_owned(),
            address: address.ip(),
            port: NonZeroU16::new(4789).unwrap(),
            encapsulation: Default::default(),
            weight: Default::default(),
            health_check: Some(check),
        }
    }

    #[test]
    fn a_dead_target_is_told_and_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = checked(address, check(Question::Tcp, address.port()));
        let health = Health::new(1);
        let checks = HealthChecks::start(&[target], &health).unwrap();
        let until = |wanted: bool| {
            for _ in 0..6000 {
                if health.is_healthy(0) == wanted {
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
            panic!("it never became {wanted}");
        };
        drop(listener);
        until(false);
        let _listener = TcpListener::bind(address).unwrap();
        until(true);
        drop(checks);
    }
}
