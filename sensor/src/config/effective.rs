//! Settings as the file that would make them: every default written out.

use flowlog::record::TrafficClass;
use toml::{Table, Value};

use super::interface::RawInterface;
use super::output::{Compression, Destination, FileFormat, Output};
use super::{KernelSettings, Label, Settings, TrafficSelection};
use crate::flow::FragmentRule;

impl Settings {
    /// A configuration file that comes to these settings with no flags beside it. What only flags can say (an
    /// interface for which there is no table, what they say of all interfaces) is not in it. `identity` is the host's, from
    /// which VNIs are derived that are not configured.
    pub fn effective(&self, identity: &str) -> String {
        let mut file = Table::new();
        let mut set = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                file.insert(key.to_owned(), Value::String(value));
            }
        };
        let path = |path: &std::path::PathBuf| path.display().to_string();
        set("account-id", self.account_id.as_ref().map(|label: &Label| label.as_str().to_owned()));
        set("region", self.region.as_ref().map(|label| label.as_str().to_owned()));
        set("filter", self.filter.clone());
        set("policy", self.policy.as_ref().map(path));
        set("metadata", Some(self.live.metadata.as_str().to_owned()));
        set("capture", Some(self.live.capture.as_str().to_owned()));
        set("capture-buffer", Some(format!("{}MB", self.live.capture_buffer.bytes() / 1_000_000)));
        set("fanout", Some(self.live.fanout.readers().to_string()));
        set("user", self.live.user.clone());
        set("control-socket", self.live.control_socket.as_ref().map(path));
        set("state-directory", self.live.state_directory.as_ref().map(path));
        set("metrics", Some(self.live.metrics.to_string()));
        let interfaces: Vec<_> = self.interfaces.iter().map(interface).map(Value::Table).collect();
        if !interfaces.is_empty() {
            file.insert("interface".to_owned(), Value::Array(interfaces));
        }
        file.insert("kernel".to_owned(), Value::Table(kernel(&self.live.kernel)));
        file.insert("aws-parity".to_owned(), self.mirror.aws_parity().into());
        if let Some(mirror) = super::mirror::effective(&self.mirror, identity) {
            file.insert("mirror".to_owned(), Value::Table(mirror));
        }
        file.insert("flow-log".to_owned(), Value::Table(self.flow_log()));
        file.insert("output".to_owned(), Value::Array(vec![Value::Table(output(&self.output))]));
        file.to_string()
    }

    fn flow_log(&self) -> Table {
        let traffic = match self.traffic {
            TrafficSelection::All => "all",
            TrafficSelection::Accept => "accept",
            TrafficSelection::Reject => "reject",
        };
        let fragments = match self.fragments {
            FragmentRule::Join => "join",
            FragmentRule::Apart => "apart",
        };
        let treatment = |class| if self.skipped_traffic.omits(class) { "omit" } else { "log" };
        let skipped = TrafficClass::ALL.iter().map(|class| (class.as_str().to_owned(), treatment(*class).into()));
        let mut table = Table::from_iter([
            ("format".to_owned(), self.format.clone().into()),
            ("interval".to_owned(), format!("{}s", self.interval.secs()).into()),
            ("traffic".to_owned(), traffic.into()),
            ("skipped-traffic".to_owned(), Value::Table(skipped.collect())),
            ("fragments".to_owned(), fragments.into()),
            ("flow-table-max".to_owned(), self.flow_table_max.flows().to_string().into()),
        ]);
        if let Some(workers) = self.workers {
            table.insert("workers".to_owned(), workers.count().to_string().into());
        }
        table
    }
}

fn kernel(settings: &KernelSettings) -> Table {
    let reasons: Vec<String> = settings.drop_reasons().into_iter().map(str::to_owned).collect();
    let mut table = Table::from_iter([
        ("flow-map-max".to_owned(), settings.flow_map_max.entries().to_string().into()),
        ("verdict-map-max".to_owned(), settings.verdict_map_max.entries().to_string().into()),
        ("fragment-map-max".to_owned(), settings.fragment_map_max.entries().to_string().into()),
        ("overflow-buffer".to_owned(), format!("{}MiB", settings.overflow_buffer.bytes() >> 20).into()),
    ]);
    // Written out, the names would have to be known to the kernel, which those by default need not be.
    if settings.names_drop_reasons() {
        table.insert("drop-reasons".to_owned(), Value::from(reasons));
    }
    table
}

fn interface(raw: &RawInterface) -> Table {
    let settings = &raw.settings;
    let mut table = Table::from_iter([("name".to_owned(), raw.name.as_str().into())]);
    table.extend(settings.metadata.iter().map(|(key, value)| (key.clone(), value.clone().into())));
    let lists: [(&str, Vec<String>); 3] = [
        ("vpc-cidr", settings.vpc_cidrs.iter().map(ToString::to_string).collect()),
        ("subnet-cidr", settings.subnet_cidrs.iter().map(ToString::to_string).collect()),
        ("local", settings.local.iter().map(ToString::to_string).collect()),
    ];
    let given = lists.into_iter().filter(|(_, blocks)| !blocks.is_empty());
    table.extend(given.map(|(key, blocks)| (key.to_owned(), Value::from(blocks))));
    if let Some(address) = settings.primary_address {
        table.insert("primary-address".to_owned(), address.to_string().into());
    }
    table
}

fn output(output: &Output) -> Table {
    let file_format = match output.file_format {
        FileFormat::Text => "text",
        FileFormat::Json => "json",
        FileFormat::Parquet => "parquet",
    };
    let compression = match output.compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    let mut table = Table::from_iter([
        ("file-format".to_owned(), file_format.into()),
        ("compression".to_owned(), compression.into()),
    ]);
    match &output.destination {
        Destination::Stdout => {}
        Destination::File(path) => {
            table.insert("file".to_owned(), path.display().to_string().into());
        }
        Destination::Directory(path) => {
            table.insert("directory".to_owned(), path.display().to_string().into());
            table.insert("segment-max".to_owned(), size(output.segment_max.bytes()).into());
            table.insert("hive-compatible-partitions".to_owned(), output.hive_compatible_partitions.into());
            table.insert("per-hour-partition".to_owned(), output.per_hour_partition.into());
        }
    }
    table
}

/// Every size that can be written is a whole number of one of the two.
fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1_000_000) { format!("{}MB", bytes / 1_000_000) } else { format!("{}MiB", bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use crate::config::{Flags, RawConfig, Settings};

    fn settings(text: &str) -> Settings {
        Settings::new(Some(RawConfig::parse(text).unwrap()), Flags::default()).unwrap()
    }

    #[test]
    fn the_effective_file_comes_to_the_same_settings() {
        let full = r#"
            account-id = "123456789012"
            region = "eu-dc-1"
            filter = "tcp"
            policy = "policy.toml"
            aws-parity = true
            metadata = "ec2"
            capture = "pcap"
            capture-buffer = "4MB"
            fanout = 2
            user = "log"
            control-socket = "/run/x.sock"
            state-directory = "/var/lib/x"
            metrics = "unix:/run/x/metrics.sock"
            [[interface]]
            name = "eth*"
            interface-id = "eni-1"
            interface-tag = "web server"
            vpc-cidr = "10.0.0.0/16"
            local = ["10.0.1.0/24", "2001:db8::/64"]
            [[interface]]
            name = "lo"
            [kernel]
            flow-map-max = 4096
            overflow-buffer = "2MiB"
            drop-reasons = ["NETFILTER_DROP", "XDP"]
            [flow-log]
            format = "v5"
            interval = "10m"
            traffic = "reject"
            skipped-traffic = { dns = "omit", dhcp = "log" }
            fragments = "apart"
            workers = 3
            flow-table-max = 1000
            [[output]]
            directory = "/var/log/x"
            file-format = "parquet"
            segment-max = "64MiB"
            per-hour-partition = true
            [[mirror.target]]
            name = "ids-1"
            address = "10.83.0.2"
            weight = 3
            health-check = { protocol = "http", port = 8080, path = "/up", interval = "5s", unhealthy-threshold = 2 }
            [[mirror.target]]
            name = "ids-2"
            address = "2001:db8::2"
            port = 6082
            encapsulation = "geneve"
            health-check = { protocol = "tcp", port = 22, timeout = "1s" }
            [[mirror.filter]]
            name = "web"
            rules = [
              { number = 7, action = "accept", service = "dns", description = "the resolver" },
              { direction = "egress", number = 2, action = "reject", protocol = "tcp", source = "10.0.0.0/8" },
              { direction = "ingress", number = 9, action = "accept", protocol = 17, destination = "2001:db8::/32",
                source-ports = 53, destination-ports = "1024-65535" },
            ]
            [[mirror.filter]]
            name = "unused"
            [[mirror.session]]
            number = 2
            interface = "eth*"
            filter = "web"
            targets = ["ids-2", "ids-1"]
            mode = "replicate"
            too-big = "skip"
            offload = "auto"
            vni = 77
            packets-per-second-max = "unlimited"
            bits-per-second-max = "1500kbit"
            description = "for the night shift"
            [[mirror.session]]
            number = 1
            interface = "lo"
            filter = "unused"
            target = "ids-1"
            vni = 4242
            packet-length = 128
        "#;
        // What AWS never mirrors can't be beside `aws-parity`.
        let rejected = full.replace("aws-parity = true", "aws-parity = false").replace(
            "action = \"accept\", protocol = 17",
            "action = \"accept\", verdict = \"rejected\", protocol = 17",
        );
        assert!(settings(&rejected).effective("host").contains("verdict = \"rejected\""));
        for text in [full, &rejected, "", "[[output]]\nfile = 'x.json.gz'"] {
            let settings_given = settings(text);
            let again = settings(&settings_given.effective("host"));
            assert_eq!(format!("{again:?}"), format!("{settings_given:?}"), "{text}");
        }
    }

    /// The expected identifier is one more than what the first four bytes of
    /// `printf 'host\0002\0eth*\0000\0' | sha256sum` leave when divided by 2^24 - 1.
    #[test]
    fn a_derived_vni_is_written_out() {
        let text = r#"
            [[mirror.target]]
            name = "ids"
            address = "10.83.0.2"
            [[mirror.filter]]
            name = "all"
            [[mirror.session]]
            number = 2
            interface = "eth*"
            filter = "all"
            target = "ids"
        "#;
        let effective = settings(text).effective("host");
        assert!(effective.lines().any(|line| line == "vni = 11659569"), "{effective}");
        assert_eq!(settings(&effective).effective("another"), effective);
    }

    #[test]
    fn defaults_are_written_out() {
        let effective = settings("").effective("host");
        for line in
            ["interval = \"60s\"", "format = \"v2\"", "capture-buffer = \"16MB\"", "dns = \"log\"", "metrics = \"off\""]
        {
            assert!(effective.lines().any(|found| found == line), "{line} is not in\n{effective}");
        }
    }
}
