//! Every field of a flow log, once: its name, version, Parquet type, origin and meaning.
//!
//! Authority: the AWS page "Flow log records", versions 2 to 11. Version 6 is Transit Gateway's and stays out. Fields
//! of our own carry the prefix `x-` and never change a record's version. The order of the table is the specification's
//! order: it is the order of the short formats (`v2` .. `v11`, `all`, `full`).

use std::fmt;

/// How a field is stored in a Parquet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// AWS's `STRING`: BYTE_ARRAY with the logical type String.
    Str,
    /// AWS's `INT_32`.
    Int32,
    /// AWS's `INT_64`.
    Int64,
}

/// Who knows the value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The format itself: only `version`.
    Format,
    /// Packets, or the interval that should have held some.
    Packets,
    /// Configuration: it lives in [`crate::metadata::Metadata`].
    Metadata,
}

/// What the table says of one field.
struct Row {
    name: &'static str,
    column_name: &'static str,
    version: Option<u8>,
    column_type: ColumnType,
    origin: Origin,
}

macro_rules! fields {
    ($($variant:ident $name:literal $column_name:literal
        $version:expr, $column_type:ident, $origin:ident: $meaning:literal)*) => {
        /// One column of a flow log. The order of the variants is the specification's order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Field {
            $(#[doc = concat!("`", $name, "`: ", $meaning)] $variant,)*
        }

        impl Field {
            /// How many fields there are.
            pub const COUNT: usize = [$($name),*].len();

            /// Every field, AWS's in specification order and then ours.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),*];
        }

        static ROWS: [Row; Field::COUNT] = [$(Row {
            name: $name,
            column_name: $column_name,
            version: $version,
            column_type: ColumnType::$column_type,
            origin: Origin::$origin,
        }),*];
    };
}

fields! {
    Version "version" "version" Some(2), Int32, Format: "the highest version among the fields of the format"
    AccountId "account-id" "account_id" Some(2), Str, Metadata: "owner of the interface, or `unknown`"
    InterfaceId "interface-id" "interface_id" Some(2), Str, Metadata: "the interface the traffic was seen on"
    Srcaddr "srcaddr" "srcaddr" Some(2), Str, Packets: "source address; on egress the interface's own"
    Dstaddr "dstaddr" "dstaddr" Some(2), Str, Packets: "destination address; on ingress the interface's own"
    Srcport "srcport" "srcport" Some(2), Int32, Packets: "source port, 0 for ICMP"
    Dstport "dstport" "dstport" Some(2), Int32, Packets: "destination port, 0 for ICMP"
    Protocol "protocol" "protocol" Some(2), Int32, Packets: "IANA protocol number"
    Packets "packets" "packets" Some(2), Int64, Packets: "packets in the interval, this direction only"
    Bytes "bytes" "bytes" Some(2), Int64, Packets: "sum of IP total lengths in the interval"
    Start "start" "start" Some(2), Int64, Packets: "Unix seconds of the first packet in the interval"
    End "end" "end" Some(2), Int64, Packets: "Unix seconds of the last packet in the interval"
    Action "action" "action" Some(2), Str, Packets: "`ACCEPT` or `REJECT`"
    LogStatus "log-status" "log_status" Some(2), Str, Packets: "`OK`, `NODATA` or `SKIPDATA`"

    VpcId "vpc-id" "vpc_id" Some(3), Str, Metadata: "VPC of the interface"
    SubnetId "subnet-id" "subnet_id" Some(3), Str, Metadata: "subnet of the interface"
    InstanceId "instance-id" "instance_id" Some(3), Str, Metadata: "instance the interface is attached to"
    TcpFlags "tcp-flags" "tcp_flags" Some(3), Int32, Packets: "OR of FIN 1, SYN 2, RST 4 and SYN-ACK 18"
    Type "type" "type" Some(3), Str, Packets: "`IPv4`, `IPv6` or `EFA`"
    PktSrcaddr "pkt-srcaddr" "pkt_srcaddr" Some(3), Str, Packets: "source address as the packet has it"
    PktDstaddr "pkt-dstaddr" "pkt_dstaddr" Some(3), Str, Packets: "destination address as the packet has it"

    Region "region" "region" Some(4), Str, Metadata: "region of the interface"
    AzId "az-id" "az_id" Some(4), Str, Metadata: "identifier (not name) of the availability zone"
    SublocationType "sublocation-type" "sublocation_type" Some(4), Str, Metadata:
        "`wavelength`, `outpost` or `localzone`"
    SublocationId "sublocation-id" "sublocation_id" Some(4), Str, Metadata: "identifier of the sublocation"

    PktSrcAwsService "pkt-src-aws-service" "pkt_src_aws_service" Some(5), Str, Packets:
        "subset of ip-ranges.json holding pkt-srcaddr"
    PktDstAwsService "pkt-dst-aws-service" "pkt_dst_aws_service" Some(5), Str, Packets:
        "subset of ip-ranges.json holding pkt-dstaddr"
    FlowDirection "flow-direction" "flow_direction" Some(5), Str, Packets:
        "`ingress` or `egress`, as the interface sees it"
    TrafficPath "traffic-path" "traffic_path" Some(5), Int32, Packets: "where egress traffic goes, 1 to 8"

    EcsClusterArn "ecs-cluster-arn" "ecs_cluster_arn" Some(7), Str, Metadata: "ARN of the ECS cluster"
    EcsClusterName "ecs-cluster-name" "ecs_cluster_name" Some(7), Str, Metadata: "name of the ECS cluster"
    EcsContainerInstanceArn "ecs-container-instance-arn" "ecs_container_instance_arn" Some(7), Str, Metadata:
        "ARN of the container instance"
    EcsContainerInstanceId "ecs-container-instance-id" "ecs_container_instance_id" Some(7), Str, Metadata:
        "identifier of the container instance"
    EcsContainerId "ecs-container-id" "ecs_container_id" Some(7), Str, Metadata:
        "runtime identifier of the task's first container"
    EcsSecondContainerId "ecs-second-container-id" "ecs_second_container_id" Some(7), Str, Metadata:
        "runtime identifier of the task's second container"
    EcsServiceName "ecs-service-name" "ecs_service_name" Some(7), Str, Metadata: "service that started the task"
    EcsTaskDefinitionArn "ecs-task-definition-arn" "ecs_task_definition_arn" Some(7), Str, Metadata:
        "ARN of the task definition"
    EcsTaskArn "ecs-task-arn" "ecs_task_arn" Some(7), Str, Metadata: "ARN of the task"
    EcsTaskId "ecs-task-id" "ecs_task_id" Some(7), Str, Metadata: "identifier of the task"

    RejectReason "reject-reason" "reject_reason" Some(8), Str, Packets: "`BPA` or `EC`"
    ResourceId "resource-id" "resource_id" Some(9), Str, Metadata:
        "resource without an interface, such as a regional NAT gateway"
    EncryptionStatus "encryption-status" "encryption_status" Some(10), Int32, Packets:
        "0 none, 1 network layer, 2 application layer, 3 both"

    InstanceTag "instance-tag" "instance_tag" Some(11), Str, Metadata:
        "percent-encoded value of the first chosen instance tag"
    InstanceTag2 "instance-tag-2" "instance_tag_2" Some(11), Str, Metadata:
        "percent-encoded value of the second chosen instance tag"
    InterfaceTag "interface-tag" "interface_tag" Some(11), Str, Metadata:
        "percent-encoded value of the first chosen interface tag"
    InterfaceTag2 "interface-tag-2" "interface_tag_2" Some(11), Str, Metadata:
        "percent-encoded value of the second chosen interface tag"
    AsgTag "asg-tag" "asg_tag" Some(11), Str, Metadata:
        "percent-encoded value of the first chosen Auto Scaling group tag"
    AsgTag2 "asg-tag-2" "asg_tag_2" Some(11), Str, Metadata:
        "percent-encoded value of the second chosen Auto Scaling group tag"
    InterfaceType "interface-type" "interface_type" Some(11), Str, Metadata:
        "kind of the interface, such as `nat_gateway`"
    NextHopInterfaceId "next-hop-interface-id" "next_hop_interface_id" Some(11), Str, Metadata:
        "the interface on the other side"
    NextHopSubnetId "next-hop-subnet-id" "next_hop_subnet_id" Some(11), Str, Metadata:
        "subnet of the interface on the other side"
    NextHopAzId "next-hop-az-id" "next_hop_az_id" Some(11), Str, Metadata:
        "availability zone of the interface on the other side"
    NextHopVpcId "next-hop-vpc-id" "next_hop_vpc_id" Some(11), Str, Metadata: "VPC of the interface on the other side"
    NextHopInterfaceType "next-hop-interface-type" "next_hop_interface_type" Some(11), Str, Metadata:
        "kind of the interface on the other side"

    XTrafficClass "x-traffic-class" "x_traffic_class" None, Str, Packets:
        "which kind of traffic that AWS leaves out this is"
    XDropReason "x-drop-reason" "x_drop_reason" None, Str, Packets: "why the kernel turned the packets away"
    XCommunityId "x-community-id" "x_community_id" None, Str, Packets: "Community ID version 1, seed 0"
    XTcpFlagsRaw "x-tcp-flags-raw" "x_tcp_flags_raw" None, Int32, Packets: "OR of the TCP flag bytes as on the wire"
    XIcmpType "x-icmp-type" "x_icmp_type" None, Int32, Packets: "ICMP type, when the row holds one"
    XIcmpCode "x-icmp-code" "x_icmp_code" None, Int32, Packets: "ICMP code, when the row holds one"
    XVlan "x-vlan" "x_vlan" None, Int32, Packets: "outermost VLAN identifier, when the row holds one"
    XEtherSrc "x-ether-src" "x_ether_src" None, Str, Packets: "source Ethernet address, when the row holds one"
    XEtherDst "x-ether-dst" "x_ether_dst" None, Str, Packets: "destination Ethernet address, when the row holds one"
    XFirstNs "x-first-ns" "x_first_ns" None, Int64, Packets: "nanoseconds since the Unix epoch of the first packet"
    XLastNs "x-last-ns" "x_last_ns" None, Int64, Packets: "nanoseconds since the Unix epoch of the last packet"
    XInterface "x-interface" "x_interface" None, Str, Metadata: "the host's own name of the interface"
}

impl Field {
    /// The field called `name`, AWS's hyphenated spelling.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// The field whose Parquet column is called `name`.
    pub fn from_column_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.column_name() == name)
    }

    /// The name in templates, headers and JSON: hyphenated.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The name of the Parquet column: with `_` for `-`.
    pub fn column_name(self) -> &'static str {
        self.row().column_name
    }

    /// The flow log version that brought the field; `None` for ours.
    pub fn version(self) -> Option<u8> {
        self.row().version
    }

    /// The type of the Parquet column.
    pub fn column_type(self) -> ColumnType {
        self.row().column_type
    }

    /// Who knows the value.
    pub const fn origin(self) -> Origin {
        self.row().origin
    }

    /// Whether the value comes from configuration, that is from [`crate::metadata::Metadata`].
    pub const fn is_metadata(self) -> bool {
        matches!(self.origin(), Origin::Metadata)
    }

    /// Whether the value is the percent-encoded value of a tag.
    pub fn is_tag(self) -> bool {
        matches!(
            self,
            Self::InstanceTag
                | Self::InstanceTag2
                | Self::InterfaceTag
                | Self::InterfaceTag2
                | Self::AsgTag
                | Self::AsgTag2
        )
    }

    const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }
}

impl fmt::Display for Field {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_columns_are_unique_and_lead_back() {
        for field in Field::ALL {
            assert_eq!(Field::from_name(field.name()), Some(field));
            assert_eq!(Field::from_column_name(field.column_name()), Some(field));
            assert_eq!(field.column_name(), field.name().replace('-', "_"));
        }
        assert_eq!(Field::from_name("tgw-id"), None);
        assert_eq!(Field::from_name("Version"), None);
    }

    #[test]
    fn versions_hold_as_many_fields_as_aws_lists() {
        let up_to = |version| Field::ALL.into_iter().filter(|f| f.version().is_some_and(|v| v <= version)).count();
        // Elastic tells layouts apart by these counts: 14 default, 29 = v5, 39 = with ECS, 40 = with reject-reason.
        for (version, count) in [(2, 14), (3, 21), (4, 25), (5, 29), (6, 29), (7, 39), (8, 40), (9, 41), (10, 42)] {
            assert_eq!(up_to(version), count, "version {version}");
        }
        assert_eq!(up_to(11), 54);
        assert_eq!(Field::COUNT, 54 + 12);
    }

    #[test]
    fn only_our_fields_have_no_version_and_they_come_last() {
        for field in Field::ALL {
            assert_eq!(field.version().is_none(), field.name().starts_with("x-"), "{field}");
        }
        assert!(Field::ALL.is_sorted_by_key(|field| field.version().unwrap_or(u8::MAX)));
    }

    #[test]
    fn integer_columns_are_the_ones_aws_lists() {
        let of = |column_type| -> Vec<&str> {
            Field::ALL.into_iter().filter(|f| f.column_type() == column_type).map(Field::name).collect()
        };
        assert_eq!(
            of(ColumnType::Int32).join(" "),
            "version srcport dstport protocol tcp-flags traffic-path encryption-status \
             x-tcp-flags-raw x-icmp-type x-icmp-code x-vlan"
        );
        assert_eq!(of(ColumnType::Int64).join(" "), "packets bytes start end x-first-ns x-last-ns");
    }

    #[test]
    fn tags_are_metadata() {
        let tags: Vec<Field> = Field::ALL.into_iter().filter(|field| field.is_tag()).collect();
        assert_eq!(tags.len(), 6);
        assert!(tags.iter().all(|field| field.is_metadata()));
    }
}
