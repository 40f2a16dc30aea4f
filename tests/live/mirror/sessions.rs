//! What an IDS reads in copies of ordinary sessions, with all offloads at the tapped interface: HTTP, DNS and TLS, over
//! both address families. Judged by tshark, and by the strict receiver.
//!
//! Needs `tshark`, `dnsmasq` and `openssl` besides.

use std::collections::BTreeMap;
use std::path::Path;

use flowtap_tests::Dir;
use flowtap_tests::mirror::{Receiver, read_pcap};
use flowtap_tests::program::command;

use super::super::daemon::{in_each_plane, status};
use super::super::net::{Net, Process, has, inside, namespaced, until_bound, until_ready};
use super::{ALL, CALM, Collector, VXLAN_PORT, is_mark, ledger, start, until_quiet};

#[test]
fn ordinary_sessions_are_read_as_on_a_wire() {
    in_each_plane(sessions);
}

fn sessions(plane: &str) {
    let programs = [("tshark", "--version"), ("dnsmasq", "--version"), ("openssl", "version")];
    if !programs.iter().all(|(program, version)| has(program, &[version])) {
        return;
    }
    let Some((net, collector)) = Collector::new(1600) else { return };
    net.add_ipv6();
    until_quiet(&net);
    let dir = Dir::new();
    let daemon = start(plane, &net, &dir, ALL);
    let _servers = (serve(&net, &dir), resolve(&net));
    let capture = collector.capture(&dir);
    for address in ["10.9.0.1", "fd09::1"] {
        inside(&net.far, "taskset", &["-c", "0", "python3", "-c", CLIENT, address, &BODY_BYTES.to_string()]);
    }
    capture.until_marked(&net);
    assert_eq!(status(&dir)["mirror"]["tap-drops"], 0, "{plane}: this machine is too slow for what is sent");
    let file = capture.file();

    let mut receiver = Receiver::new(1514);
    read_pcap(&std::fs::read(&file).unwrap()).iter().for_each(|record| receiver.take(&record.bytes, VXLAN_PORT));
    receiver.assert_content();
    let copies = receiver.copies();
    assert_eq!(copies.iter().filter(|copy| is_mark(&copy.inner)).count(), 1);
    let counts = ledger(&dir);
    let bytes: usize = copies.iter().map(|copy| copy.inner.len()).sum();
    assert_eq!((counts.mirrored, counts.skipped), ((copies.len() as u64, bytes as u64), (0, 0)), "{plane}");
    let body: Vec<u8> = (0..BODY_BYTES).map(|at| (at % 251) as u8).collect();
    let pages = receiver.streams().iter().filter(|(key, _)| key.src_port == HTTP_PORT);
    let whole = pages.filter(|(_, stream)| stream.bytes().windows(body.len()).any(|bytes| bytes == body));
    assert_eq!(whole.count(), 2, "{plane}: the page comes whole, in each family");

    judge(plane, &dir, &file, copies.len());
    daemon.finish();
}

/// What tshark reads.
#[track_caller]
fn judge(plane: &str, dir: &Dir, file: &Path, copies: usize) {
    let fields = |filter: &str, fields: &[&str]| -> Vec<String> {
        // The server of TLS is at no port of its own.
        let tls = format!("tcp.port=={TLS_PORT},tls");
        let mut tshark = command(Path::new("tshark"));
        tshark.env("HOME", dir.path(".")).arg("-r").arg(file).args(["-d", &tls]);
        tshark.args(["tcp", "ip", "udp"].map(|of| format!("-o{of}.check_checksum:TRUE")));
        tshark.args(["-Y", filter, "-T", "fields", "-E", "occurrence=l"]);
        tshark.args(fields.iter().flat_map(|field| ["-e", field]));
        dir.run(&mut tshark).success().lines().map(str::to_owned).collect()
    };
    let counted = |filter: &str, of: &[&str]| -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        fields(filter, of).into_iter().for_each(|line| *counts.entry(line).or_default() += 1);
        counts
    };
    let expected = |lines: &[(&str, usize)]| -> BTreeMap<String, usize> {
        lines.iter().map(|(line, count)| ((*line).to_owned(), *count)).collect()
    };

    let right = "vxlan.vni == 4242 && vxlan.flag_i == 1 && vxlan.flags_reserved == 0 && vxlan.reserved8 == 0";
    assert_eq!(fields(right, &["frame.number"]).len(), copies, "{plane}");
    let wrong = "tcp.checksum.status == 0 || ip.checksum.status == 0 || udp.checksum.status == 0 || \
                 icmp.checksum.status == 0 || _ws.malformed || tcp.analysis.lost_segment || \
                 tcp.analysis.ack_lost_segment";
    assert_eq!(fields(wrong, &["frame.number", "_ws.col.Info"]), [""; 0], "{plane}");
    // It did look.
    assert!(!fields("tcp.checksum.status == 1 && ipv6", &["frame.number"]).is_empty(), "{plane}");
    assert!(!fields("udp.port == 53 && udp.checksum.status == 1", &["frame.number"]).is_empty(), "{plane}");

    // Each family has the same, with a page, what is not there, and what is sent to the server.
    let long = BODY_BYTES.to_string();
    let page = format!("200\t{long}");
    let pages = expected(&[(&page, 2), ("200\t2", 2), ("404\t4", 2)]);
    assert_eq!(counted("http.response", &["http.response.code", "http.content_length"]), pages, "{plane}");
    let asked = expected(&[("GET\t/page", 2), ("GET\t/missing", 2), ("POST\t/page", 2)]);
    assert_eq!(counted("http.request", &["http.request.method", "http.request.uri"]), asked, "{plane}");
    // Over UDP and over TCP: an address, and none.
    let answers = expected(&[("0\tknown.test\t192.0.2.7", 4), ("3\tunknown.test\t", 4)]);
    assert_eq!(counted("dns.flags.response == 1", &["dns.flags.rcode", "dns.qry.name", "dns.a"]), answers, "{plane}");
    assert_eq!(fields("dns.flags.response == 1 && tcp", &["dns.id"]).len(), 4, "{plane}");
    // TLS 1.3 and 1.2. Of the first all is hidden but how it begins, of the other all that comes before it is hidden.
    let of_type = |number: u8| fields(&format!("tls.handshake.type == {number}"), &["frame.number"]).len();
    assert_eq!([1, 2, 11, 16].map(of_type), [4, 4, 2, 2], "{plane}: hellos, certificate and key");
    assert!(!fields("tls.record.content_type == 23", &["frame.number"]).is_empty(), "{plane}");
}

/// Servers of HTTP and of TLS, for both families, on the processor where everything of the sessions is, so that nothing
/// overtakes.
#[track_caller]
fn serve(net: &Net, dir: &Dir) -> Process {
    let (key, certificate) = (dir.path("key.pem"), dir.path("certificate.pem"));
    let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=near.test -days 2";
    let make: Vec<_> = make.split(' ').chain(["-keyout", key, "-out", certificate]).collect();
    inside(&net.near, "openssl", &make);
    let bytes = BODY_BYTES.to_string();
    let server = format!("{CALM}{SERVER}");
    let arguments = ["-c", "0", "python3", "-c", &server, key, certificate, &bytes];
    until_ready(&mut namespaced(&net.near, "taskset", &arguments))
}

/// A server of DNS that knows one name, and that there are no others beside it.
#[track_caller]
fn resolve(net: &Net) -> Process {
    let words = "-c 0 dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --no-resolv --no-hosts \
                 --bind-interfaces --interface=near0 --except-interface=lo --local=/test/ \
                 --host-record=known.test,192.0.2.7 --log-facility=/dev/null";
    let process =
        Process(namespaced(&net.near, "taskset", &words.split_whitespace().collect::<Vec<_>>()).spawn().unwrap());
    until_bound(&net.near, "-t", 53);
    until_bound(&net.near, "-u", 53);
    process
}

/// A page, as long as several super-packets.
const BODY_BYTES: usize = 300_000;
const HTTP_PORT: u16 = 80;
const TLS_PORT: u16 = 4433;

/// KEY CERTIFICATE BODY-BYTES: what is asked for by TLS is as long as what is sent, and then as the page.
const SERVER: &str = "import socket, ssl, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
key, certificate, body_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
body = bytes(i % 251 for i in range(body_bytes))
def send(write, data):
    for at in range(0, len(data), 32768): calm(); write(data[at:at + 32768])
def take(file, left):
    taken, part = b'', b'-'
    while part and len(taken) < left: calm(); part = file.read(min(32768, left - len(taken))); taken += part
    return taken
def limit(s):
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF): s.setsockopt(socket.SOL_SOCKET, buffer, 65536)
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def answer(self, code, body):
        self.send_response(code); self.send_header('Content-Length', len(body)); self.end_headers()
        send(self.wfile.write, body)
    def do_GET(self): self.answer(*(200, body) if self.path == '/page' else (404, b'none'))
    def do_POST(self):
        sent = take(self.rfile, int(self.headers['Content-Length']))
        self.answer(*(200, b'ok') if sent == body else (400, b''))
    def log_message(self, *words): pass
class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(certificate, key)
listener = socket.create_server(('::', 4433), family=socket.AF_INET6, dualstack_ipv6=True); limit(listener)
def secret(s):
    with context.wrap_socket(s, server_side=True) as tls:
        if take(tls.makefile('rb'), body_bytes) == body: send(tls.sendall, body)
        tls.unwrap()
def accept():
    while True: threading.Thread(target=secret, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
server = Server(('::', 80), Handler); limit(server.socket)
print('ready', flush=True); server.serve_forever()
";

/// ADDRESS BODY-BYTES
const CLIENT: &str = "import http.client, socket, ssl, struct, sys
address, body_bytes = sys.argv[1], int(sys.argv[2])
socket.setdefaulttimeout(60)
body = bytes(i % 251 for i in range(body_bytes))
web = http.client.HTTPConnection(address, 80)
for method, path, sent, code, expected in (
    ('GET', '/page', None, 200, body), ('GET', '/missing', None, 404, b'none'), ('POST', '/page', body, 200, b'ok')):
    web.request(method, path, sent)
    answer = web.getresponse()
    assert (answer.status, answer.read()) == (code, expected), path
web.close()
family = socket.AF_INET6 if ':' in address else socket.AF_INET
for number, name in enumerate((b'known', b'unknown')):
    query = struct.pack('!6H', number, 0x0100, 1, 0, 0, 0) + bytes([len(name)]) + name + b'\\x04test\\0' + struct.pack('!HH', 1, 1)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(family, kind) as s:
            s.connect((address, 53))
            if kind == socket.SOCK_DGRAM:
                s.send(query); answer = s.recv(2000)
            else:
                s.sendall(struct.pack('!H', len(query)) + query)
                with s.makefile('rb') as read: answer = read.read(*struct.unpack('!H', read.read(2)))
        assert answer[:2] == query[:2] and answer[3] & 15 == (3 if number else 0), answer
for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    with context.wrap_socket(socket.create_connection((address, 4433))) as tls:
        tls.sendall(body)
        assert tls.makefile('rb').read(body_bytes) == body
        tls.unwrap()
";
