//! EC2's instance metadata service, version 2: what the cloud knows of this host and of its interfaces.
//!
//! Authority: "Use the Instance Metadata Service to access instance metadata" in the EC2 user guide. A session is opened
//! with PUT `/latest/api/token`; each question carries the token. Answers are texts without a final line end, and 404
//! means that there is no such thing, as with the IPv6 blocks of a subnet that has none.
//!
//! No redirect is followed and no proxy asked: the service is on the link.

use std::io;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use serde::Deserialize;
use ureq::Agent;
use ureq::http::{Response, StatusCode};

use crate::config::InstanceFacts;
use crate::time::Timestamp;

/// Where the service is, unless [`ENDPOINT_VARIABLE`] says otherwise.
pub const ENDPOINT_DEFAULT: &str = "http://169.254.169.254";

/// The environment variable by which AWS's own tools are told of another place.
pub const ENDPOINT_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";

/// What was learned, and what was not.
#[derive(Debug, Default)]
pub struct Answers {
    /// What the service said.
    pub facts: InstanceFacts,
    /// What it did not say, each with the reason.
    pub missing: Vec<String>,
}

/// A network interface of this host: its name and hardware address.
pub type Hardware = (String, [u8; 6]);

/// The interfaces that have hardware addresses.
///
/// # Errors
/// When the system does not list them.
pub fn hardware() -> io::Result<Vec<Hardware>> {
    let addresses = getifaddrs()?;
    let hardware = addresses.filter_map(|found| Some((found.interface_name, found.address?.as_link_addr()?.addr()?)));
    // Loopback and tunnels have zeros.
    Ok(hardware.filter(|(_, address)| *address != [0; 6]).collect())
}

/// Asks the service at `endpoint`, which takes at most [`TIMEOUT`] in all.
pub fn ask(endpoint: &str, hardware: &[Hardware], now: &dyn Fn() -> Timestamp) -> Answers {
    let agent = Agent::config_builder().proxy(None).max_redirects(0).http_status_as_error(false).build().new_agent();
    let base = format!("{}/latest", endpoint.trim_end_matches('/'));
    let mut session = Session { agent, base, token: String::new(), began: now(), now, answers: Answers::default() };
    match session.open() {
        Ok(token) => {
            session.token = token;
            session.ask_everything(hardware);
        }
        Err(error) => session.answers.missing.push(format!("everything ({error})")),
    }
    session.answers
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("there is none")]
    Absent,
    #[error("HTTP status {0}")]
    Refused(StatusCode),
    #[error("not within {} s", TIMEOUT.as_secs())]
    Late,
    #[error("not understood: {0}")]
    Nonsense(String),
    #[error(transparent)]
    Http(#[from] ureq::Error),
}

struct Session<'a> {
    agent: Agent,
    base: String,
    token: String,
    began: Timestamp,
    now: &'a dyn Fn() -> Timestamp,
    answers: Answers,
}

/// The part of the instance identity document that flow logs have fields for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityDocument {
    account_id: String,
    region: String,
    instance_id: String,
}

impl Session<'_> {
    fn open(&self) -> Result<String, AskError> {
        let request = self.agent.put(format!("{}/api/token", self.base)).header(TTL_HEADER, TTL_SECS);
        text(request.config().timeout_global(Some(self.left()?)).build().send_empty()?)
    }

    fn get(&self, path: &str) -> Result<String, AskError> {
        let request = self.agent.get(format!("{}/{path}", self.base)).header(TOKEN_HEADER, &self.token);
        text(request.config().timeout_global(Some(self.left()?)).build().call()?)
    }

    /// The time that is left. A clock that was set back gives no more than there was.
    fn left(&self) -> Result<Duration, AskError> {
        let passed = Duration::from_nanos((self.now)().0.saturating_sub(self.began.0));
        TIMEOUT.checked_sub(passed).filter(|left| !left.is_zero()).ok_or(AskError::Late)
    }

    fn ask_everything(&mut self, hardware: &[Hardware]) {
        let document = self.get("dynamic/instance-identity/document").and_then(|text| {
            serde_json::from_str::<IdentityDocument>(&text).map_err(|error| AskError::Nonsense(error.to_string()))
        });
        match document {
            Ok(document) => {
                self.tell("account-id", &document.account_id);
                self.tell("region", &document.region);
                self.tell("instance-id", &document.instance_id);
            }
            Err(error) => self.miss("account-id, region, instance-id", &error),
        }
        match self.get("meta-data/placement/availability-zone-id") {
            Ok(az_id) => self.tell("az-id", &az_id),
            Err(error) => self.miss("az-id", &error),
        }
        let listed = match self.get("meta-data/network/interfaces/macs/") {
            Ok(list) => list,
            Err(error) => return self.miss("interfaces", &error),
        };
        let listed = listed.lines().filter_map(|line| hardware_address(line.trim().trim_end_matches('/')));
        for address in listed.take(INTERFACES_MAX) {
            let names: Vec<_> = hardware.iter().filter(|(_, own)| *own == address).map(|(name, _)| name).collect();
            if !names.is_empty() {
                self.ask_of(address, &names);
            }
        }
    }

    /// Asks about the interfaces that have this hardware address: a bridge or VLAN shares that of its port.
    fn ask_of(&mut self, [a, b, c, d, e, f]: [u8; 6], names: &[&String]) {
        let address = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        for (key, page, is_optional) in INTERFACE_PAGES {
            let values = match self.get(&format!("meta-data/network/interfaces/macs/{address}/{page}")) {
                Ok(values) => values,
                Err(AskError::Absent) if is_optional => continue,
                Err(error) => {
                    self.miss(&format!("{key} of {address}"), &error);
                    continue;
                }
            };
            for (name, value) in names.iter().flat_map(|name| values.lines().map(move |value| (name, value.trim()))) {
                if let Err(error) = self.answers.facts.tell_of(name, key, value) {
                    self.answers.missing.push(format!("{key} of {name} ({error})"));
                }
            }
        }
    }

    fn tell(&mut self, key: &str, value: &str) {
        if let Err(error) = self.answers.facts.tell(key, value.trim()) {
            self.answers.missing.push(format!("{key} ({error})"));
        }
    }

    fn miss(&mut self, what: &str, error: &AskError) {
        self.answers.missing.push(format!("{what} ({error})"));
    }
}

fn text(mut response: Response<ureq::Body>) -> Result<String, AskError> {
    match response.status() {
        StatusCode::OK => Ok(response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?),
        StatusCode::NOT_FOUND => Err(AskError::Absent),
        status => Err(AskError::Refused(status)),
    }
}

/// Six bytes in hexadecimal with colons between.
fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// What is asked of each interface: our key, the service's page, and whether there may be none.
const INTERFACE_PAGES: [(&str, &str, bool); 7] = [
    ("interface-id", "interface-id", false),
    ("subnet-id", "subnet-id", false),
    ("vpc-id", "vpc-id", false),
    ("vpc-cidr", "vpc-ipv4-cidr-block", true),
    ("subnet-cidr", "subnet-ipv4-cidr-block", true),
    ("subnet-cidr", "subnet-ipv6-cidr-blocks", true),
    ("primary-address", "local-ipv4s", true),
];

const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TTL_SECS: &str = "60";

/// How long all questions together may take.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// No instance type has more interfaces.
const INTERFACES_MAX: usize = 64;
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests;
