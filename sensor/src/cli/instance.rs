//! Asking the cloud what it knows of this host.

use std::env;

use flowtap::config::InstanceFacts;
use flowtap::ec2;

use super::clock;

/// Adds what EC2 says to what is `known`. One warning names what it does not say, and the run goes on without.
pub(super) fn ask(known: &mut InstanceFacts) {
    let endpoint = env::var(ec2::ENDPOINT_VARIABLE).unwrap_or_else(|_| ec2::ENDPOINT_DEFAULT.to_owned());
    let hardware = ec2::hardware().unwrap_or_else(|error| {
        tracing::warn!(%error, "the system does not list its interfaces: the cloud is not asked about them");
        Vec::new()
    });
    let answers = ec2::ask(&endpoint, &hardware, &clock::wall);
    *known = answers.facts.or(known);
    if answers.missing.is_empty() {
        tracing::info!(endpoint, "instance metadata read");
    } else {
        let missing = answers.missing.join(", ");
        tracing::warn!(endpoint, missing, "instance metadata: what was configured or known before stays in force");
    }
}
