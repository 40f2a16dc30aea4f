//! What the cloud says of the host, at the start and at a reload: a service in the daemon's namespace that insists on its
//! token.

use flowtap_tests::Dir;

use super::daemon::{Daemon, ask};
use super::net::{Net, comes_true, namespaced, python, until_ready};

/// The instance metadata service on 127.0.0.1:8169; its pages are in `pages.json`, read again for each question.
const SERVICE: &str = r#"
import http.server, json
class Service(http.server.BaseHTTPRequestHandler):
    def say(self, status, body=''):
        self.send_response(status); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body.encode())
    def do_PUT(self):
        good = self.path == '/latest/api/token' and self.headers['X-aws-ec2-metadata-token-ttl-seconds']
        self.say(200, 'TOKEN') if good else self.say(400)
    def do_GET(self):
        if self.headers['X-aws-ec2-metadata-token'] != 'TOKEN':
            return self.say(401)
        mac = open('/sys/class/net/near0/address').read().strip()
        page = json.load(open('pages.json')).get(self.path.removeprefix('/latest/').replace(mac, 'MAC'))
        if page == 'MAC': page = mac + '/'
        self.say(404) if page is None else self.say(200, page)
    def log_message(self, *_): pass
server = http.server.HTTPServer(('127.0.0.1', 8169), Service)
print('ready', flush=True)
server.serve_forever()
"#;

fn pages(interface_id: &str) -> String {
    let document = r#"{\"accountId\":\"123456789012\",\"region\":\"eu-west-1\",\"instanceId\":\"i-1\"}"#;
    let mac = "meta-data/network/interfaces/macs/";
    format!(
        r#"{{"dynamic/instance-identity/document":"{document}","{mac}":"MAC","{mac}MAC/interface-id":"{interface_id}",
            "{mac}MAC/subnet-id":"subnet-1","{mac}MAC/vpc-id":"vpc-1","{mac}MAC/subnet-ipv4-cidr-block":"10.9.0.0/24"}}"#
    )
}

#[test]
fn the_cloud_fills_what_is_left_out_and_is_asked_again_behind_the_fence() {
    let Some(net) = Net::new() else { return };
    assert!((0..RUNS_MAX).any(|_| is_filled(&net)), "the cloud was late in each of {RUNS_MAX} runs");
}

/// `false` if a machine was so busy that the daemon gave the service up when it started: it waits for three seconds.
fn is_filled(net: &Net) -> bool {
    let dir = Dir::new();
    dir.add("pages.json", pages("eni-first"));
    let mut service = namespaced(&net.near, "python3", &["-c", SERVICE]);
    service.current_dir(dir.path("."));
    let service = until_ready(&mut service);
    // It has come to answer once.
    let question = "import http.client; c = http.client.HTTPConnection('127.0.0.1', 8169); c.request('GET', '/'); \
                    assert c.getresponse().status == 401";
    python(&net.near, question);

    dir.add("flowtap.toml", "metadata = 'ec2'\n[[interface]]\nname = 'near0'\nvpc-id = 'vpc-mine'\n");
    let environment = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:8169")];
    let arguments = ["--config", "flowtap.toml", "--interval", "1s"];
    let mut daemon = Daemon::start_with(net, &dir, &arguments, &environment);
    if ["timeout", "not within 3 s"].iter().any(|late| daemon.log().contains(late)) {
        return false;
    }
    assert!(daemon.log().contains("missing=\"az-id (there is none)\""), "one warning:\n{}", daemon.log());
    let is_published = |interface: &str| {
        let files = dir.files().into_iter().filter(|file| file.starts_with("logs/AWSLogs/123456789012/"));
        files.filter(|file| file.ends_with(".log")).any(|file| {
            let text = String::from_utf8(dir.read(&file)).unwrap();
            text.lines().any(|line| line.split(' ').next() == Some(interface))
        })
    };
    daemon.until(|_| is_published("eni-first"));

    dir.add("pages.json", pages("eni-second"));
    // What was known stays as long as the service is late.
    daemon.until(|_| {
        ask(&dir, &["reload"]);
        is_published("eni-second")
    });

    // The service is gone: what was known stays.
    drop(service);
    let is_read_again = || ask(&dir, &["reload"]).code == Some(0);
    assert!(comes_true(is_read_again), "{}", daemon.log());
    daemon.until(|log| log.contains("missing=\"everything ("));
    assert!(daemon.stop().iter().all(|row| row.interface.starts_with("eni-")));
    true
}

const RUNS_MAX: u32 = 10;
