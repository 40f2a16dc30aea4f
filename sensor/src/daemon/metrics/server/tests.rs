//! Clients as they come, well-behaved and not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::process::geteuid;

use super::*;

/// A connection of either kind.
trait Client: Read + Write {
    fn say_no_more(&self);
}

impl Client for TcpStream {
    fn say_no_more(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Client for UnixStream {
    fn say_no_more(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

const TEXT: &str = "flowtap_up 1\n";

/// More than the buffers of a connection hold.
const LONG_BYTES: usize = 32 << 20;

/// A server on a port and one on a socket, each with a way to reach it.
fn both(text: &str, with: impl Fn(&dyn Fn() -> Box<dyn Client>)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/metrics.sock");
    let start = |address: MetricsAddress| {
        let door = Door::open(&address, None).unwrap().unwrap();
        let port = match &door {
            Door::Loopback(listener) => Some(listener.local_addr().unwrap()),
            Door::Unix(_) => None,
        };
        let text = text.to_owned();
        (Server::start(door, Arc::new(move || text.clone())).unwrap(), port)
    };
    let (_server, port) = start("127.0.0.1:0".parse().unwrap());
    with(&|| Box::new(TcpStream::connect(port.unwrap()).unwrap()));
    let (_server, _) = start(MetricsAddress::Unix(path.clone()));
    with(&|| Box::new(UnixStream::connect(&path).unwrap()));
}

/// All that is answered, whatever becomes of the connection.
fn answer(mut client: Box<dyn Client>, request: &[u8]) -> String {
    client.write_all(request).ok();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).ok();
    String::from_utf8(reply).unwrap()
}

#[track_caller]
fn assert_serves(connect: &dyn Fn() -> Box<dyn Client>) {
    let reply = answer(connect(), b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n");
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert_eq!(body, TEXT);
}

#[test]
fn metrics_are_answered_and_nothing_else() {
    both(TEXT, |connect| {
        assert_serves(connect);
        let first_line = |request: &str| {
            let reply = answer(connect(), format!("{request} HTTP/1.1\r\nhost: here\r\n\r\n").as_bytes());
            reply.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(first_line("GET /metrics?name=x"), "HTTP/1.1 200 OK");
        assert_eq!(first_line("GET /"), "HTTP/1.1 404 Not Found");
        assert_eq!(first_line("GET /metrics/x"), "HTTP/1.1 404 Not Found");
        assert_eq!(first_line("POST /metrics"), "HTTP/1.1 405 Method Not Allowed");
        let head = answer(connect(), b"HEAD /metrics HTTP/1.1\r\nhost: here\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    });
}

#[test]
fn garbage_and_too_much_are_cut_off() {
    let huge = [b"GET /metrics HTTP/1.1\r\nx: ".as_slice(), &vec![b'a'; 1 << 20]].concat();
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000));
    both(TEXT, |connect| {
        for request in
            [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], &[0xff; 4096], &huge, many.as_bytes()]
        {
            let reply = answer(connect(), request);
            // What was not read resets the connection, and the answer may go with it.
            assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
            assert_serves(connect);
        }
    });
}

#[test]
fn who_has_said_everything_may_stop_talking() {
    both(TEXT, |connect| {
        let mut client = connect();
        client.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
        client.say_no_more();
        assert!(answer(client, b"").ends_with(TEXT));
        let client = connect();
        client.say_no_more();
        assert_eq!(answer(client, b""), "");
        assert_serves(connect);
    });
}

#[test]
fn the_slow_do_not_hold_up_the_rest() {
    both(TEXT, |connect| {
        // Whoever is shown out before he has spoken was slow, too.
        let begin = || {
            let mut client = connect();
            client.write_all(b"GET /metrics HT").ok();
            client
        };
        let (begun, mut slow) = soon_enough(|| {
            let slow: Vec<_> = (1..CLIENTS_MAX).map(|_| begin()).collect();
            assert_serves(connect);
            slow
        });
        // Now all places are taken: the next waits until the first are shown out, though they go on dripping.
        slow.push(begin());
        for client in &mut slow {
            client.write_all(b"TP/1.1\r\nx").ok();
        }
        assert_serves(connect);
        assert!(begun.elapsed() >= CLIENT_TIMEOUT, "there is a bound");
        for client in slow {
            assert_eq!(answer(client, b"x"), "");
        }
    });
}

#[test]
fn who_never_reads_is_shown_out() {
    both(&"x".repeat(LONG_BYTES), |connect| {
        let are_all_out = || {
            let mut clients: Vec<_> = (0..CLIENTS_MAX).map(|_| connect()).collect();
            for client in &mut clients {
                client.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n").ok();
            }
            assert!(answer(connect(), b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").starts_with("HTTP/1.1 404"));
            // The first is out, and so is everyone who came with it by then, unless the server's thread had to wait.
            thread::sleep(CLIENT_TIMEOUT);
            clients.into_iter().all(|client| answer(client, b"").len() < LONG_BYTES)
        };
        assert!((0..ATTEMPTS_MAX).any(|_| are_all_out()), "there is a bound");
    });
}

#[test]
fn an_end_does_not_wait_for_clients() {
    let (_, client) = soon_enough(|| {
        let door = Door::open(&"127.0.0.1:0".parse().unwrap(), None).unwrap().unwrap();
        let Door::Loopback(listener) = &door else { panic!("{door:?}") };
        let address = listener.local_addr().unwrap();
        let server = Server::start(door, Arc::new(|| TEXT.to_owned())).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET /metr").ok();
        drop(server);
        client
    });
    assert_eq!(answer(Box::new(client), b""), "");
}

#[test]
fn a_socket_is_for_the_user_that_the_run_becomes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("metrics.sock");
    let address = MetricsAddress::Unix(path.clone());
    let user = User::choose(None).unwrap();
    let _door = Door::open(&address, user.as_ref()).unwrap().unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let ids = user.as_ref().map(User::ids);
    assert_eq!(metadata.uid(), ids.map_or(geteuid().as_raw(), |(uid, _)| uid));
    let taken = Door::open(&address, None).unwrap_err().to_string();
    assert_eq!(taken, format!("{}: another run answers there", path.display()));
}

#[test]
fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let refusal = Door::open(&MetricsAddress::Loopback(address), None).unwrap_err().to_string();
    assert!(refusal.starts_with(&format!("{address}: ")), "{refusal}");
    assert!(Door::open(&MetricsAddress::Off, None).unwrap().is_none());
}

/// Does what must take less time than a slow client has, and says when that began. A busy machine may need more, but not
/// always.
#[track_caller]
fn soon_enough<T>(mut attempt: impl FnMut() -> T) -> (Instant, T) {
    let mut attempts = (0..ATTEMPTS_MAX).map(|_| (now(), attempt()));
    attempts.find(|(begun, _)| begun.elapsed() < CLIENT_TIMEOUT).unwrap_or_else(|| panic!("it takes too long"))
}

const ATTEMPTS_MAX: u32 = 10;

#[expect(clippy::disallowed_methods, reason = "these tests are about time that really passes")]
fn now() -> Instant {
    Instant::now()
}
