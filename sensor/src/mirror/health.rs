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
        assert!(answer.is_err() && took < 2 * check.timeout, "{answer:?} after {took:?}");
        server.join().unwrap();
    }

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
            timeout: Duration::from_secs(20),
            unhealthy_threshold: "1".parse().unwrap(),
            ..check(Question::Http("/".parse().unwrap()), address.port())
        };
        let health = Health::new(1);
        let checks = HealthChecks::start(&[checked(address, slow)], &health).unwrap();
        let (asking, _) = listener.accept().unwrap();
        let began = now();
        drop(checks);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // The question fails now, and nobody is told.
        drop(asking);
        thread::sleep(Duration::from_millis(200));
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
            for _ in 0..500 {
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
