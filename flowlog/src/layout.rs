//! Where a file of records goes and what it is called: a pure function of time and identity.
//!
//! Authority: the AWS page "Flow log files" (publish to Amazon S3): a file holds the records whose `end` lies in its
//! slot of five minutes, the name carries the slot's beginning in UTC.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use sha2::{Digest as _, Sha256};

use crate::record::Record;

/// Whose flow log it is: the constant parts of every path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    account_id: String,
    region: String,
    flow_log_id: String,
}

impl Identity {
    /// The flow log of `account_id` in `region` that `configuration` describes: any bytes that are the same when the
    /// flow log is the same. `None` stands for [`REGION_DEFAULT`] and `unknown`.
    ///
    /// # Errors
    /// [`LayoutError`] when a part cannot stand in a path: letters, digits and hyphens can.
    pub fn new(account_id: Option<&str>, region: Option<&str>, configuration: &[u8]) -> Result<Self, LayoutError> {
        let account_id = part("account-id", account_id.unwrap_or(crate::metadata::ACCOUNT_ID_DEFAULT))?;
        let region = part("region", region.unwrap_or(REGION_DEFAULT))?;
        Ok(Self { account_id, region, flow_log_id: flow_log_id(configuration) })
    }
}

/// Five minutes of records by their `end`: those at its beginning belong to it, those at the next one's do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    start_secs: i64,
}

impl Slot {
    /// The slot that holds `end_secs`. Moments before the year 0 and after 9999, which no name can express, fall into
    /// the first and the last slot: a wild timestamp costs no record.
    pub fn containing(end_secs: i64) -> Self {
        let start_secs = end_secs.div_euclid(SLOT_SECS).saturating_mul(SLOT_SECS);
        Self { start_secs: start_secs.clamp(FIRST_SLOT_SECS, LAST_SLOT_SECS) }
    }

    /// The slot of `record`: by its `end`, else its `start`, else the epoch's.
    pub fn of(record: &Record) -> Self {
        Self::containing(record.end_secs.or(record.start_secs).unwrap_or(0))
    }

    /// Unix seconds of its beginning.
    pub fn start_secs(self) -> i64 {
        self.start_secs
    }

    /// Unix seconds of the next slot's beginning.
    pub fn end_secs(self) -> i64 {
        self.start_secs + SLOT_SECS
    }

    fn civil(self) -> civil::DateTime {
        let timestamp = Timestamp::from_second(self.start_secs).unwrap_or(Timestamp::UNIX_EPOCH);
        TimeZone::UTC.to_datetime(timestamp)
    }
}

/// How files are arranged below a bucket or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Whose files they are.
    pub identity: Identity,
    /// `HiveCompatiblePartitions`: folders are called `year=2018` and not `2018`.
    pub is_hive_compatible: bool,
    /// `PerHourPartition`: the hour has a folder.
    pub is_per_hour: bool,
    /// What the names end with, from its dot.
    pub suffix: &'static str,
}

impl Layout {
    /// The folder of `slot`, with slashes between its parts and none at either end.
    pub fn directory(&self, slot: Slot) -> String {
        let Identity { account_id, region, .. } = &self.identity;
        let at = slot.civil();
        let (year, month, day, hour) = (at.year(), at.month(), at.day(), at.hour());
        let mut path = if self.is_hive_compatible {
            format!(
                "AWSLogs/aws-account-id={account_id}/aws-service=vpcflowlogs/aws-region={region}/\
                 year={year:04}/month={month:02}/day={day:02}"
            )
        } else {
            format!("AWSLogs/{account_id}/vpcflowlogs/{region}/{year:04}/{month:02}/{day:02}")
        };
        if self.is_per_hour {
            path.push_str(if self.is_hive_compatible { "/hour=" } else { "/" });
            write!(path, "{hour:02}").expect("writing to a string cannot fail");
        }
        path
    }

    /// The name of the `sequence`-th file of `slot`:
    /// `{account}_vpcflowlogs_{region}_{fl-id}_{YYYYMMDD}T{HHmm}Z_{hash}{suffix}`, where the hash is the beginning of
    /// SHA-256 over identity, slot and sequence.
    pub fn file_name(&self, slot: Slot, sequence: u32) -> String {
        let Identity { account_id, region, flow_log_id } = &self.identity;
        let at = slot.civil();
        let stem = format!(
            "{account_id}_vpcflowlogs_{region}_{flow_log_id}_{:04}{:02}{:02}T{:02}{:02}Z",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute()
        );
        let hash = hex_prefix(format!("{stem}_{sequence}").as_bytes(), HASH_DIGITS);
        format!("{stem}_{hash}{}", self.suffix)
    }
}

/// Why an identity was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A part that is empty, too long, or holds something other than letters, digits and hyphens.
    #[error("{part} `{value}` cannot be part of a path: use 1 to {PART_BYTES_MAX} letters, digits and hyphens")]
    Part {
        /// Which part.
        part: &'static str,
        /// What it was to be.
        value: String,
    },
}

/// `fl-` and 17 hexadecimal digits, the same for the same `configuration`.
pub fn flow_log_id(configuration: &[u8]) -> String {
    format!("fl-{}", hex_prefix(configuration, FLOW_LOG_ID_DIGITS))
}

fn part(name: &'static str, value: &str) -> Result<String, LayoutError> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if value.is_empty() || value.len() > PART_BYTES_MAX || !is_plain {
        return Err(LayoutError::Part { part: name, value: value.into() });
    }
    Ok(value.into())
}

/// The first `digits` hexadecimal digits of SHA-256 over `bytes`.
fn hex_prefix(bytes: &[u8], digits: usize) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
    }
    hex.truncate(digits);
    hex
}

/// What the region is called when none is configured. A real region never is, so such files cannot mix with AWS's.
pub const REGION_DEFAULT: &str = "local";

/// The longest account or region in a path.
pub const PART_BYTES_MAX: usize = 64;

/// Files are published every five minutes.
pub const SLOT_SECS: i64 = 300;

/// 0000-01-01T00:00:00Z
const FIRST_SLOT_SECS: i64 = -62_167_219_200;

/// 9999-12-30T21:55:00Z, the last slot within the range of the calendar library.
const LAST_SLOT_SECS: i64 = 253_402_207_200 / SLOT_SECS * SLOT_SECS - SLOT_SECS;

const FLOW_LOG_ID_DIGITS: usize = 17;
const HASH_DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(is_hive_compatible: bool, is_per_hour: bool) -> Layout {
        let identity = Identity::new(Some("123456789012"), Some("us-east-1"), b"configuration").unwrap();
        Layout { identity, is_hive_compatible, is_per_hour, suffix: ".log.gz" }
    }

    /// 2018-06-20T16:20:00Z, the moment in AWS's example of a name.
    const EXAMPLE_SECS: i64 = 1_529_511_600;

    #[test]
    fn the_four_arrangements_are_the_documented_ones() {
        let slot = Slot::containing(EXAMPLE_SECS);
        let plain = "AWSLogs/123456789012/vpcflowlogs/us-east-1/2018/06/20";
        let hive = "AWSLogs/aws-account-id=123456789012/aws-service=vpcflowlogs/aws-region=us-east-1/\
                    year=2018/month=06/day=20";
        assert_eq!(layout(false, false).directory(slot), plain);
        assert_eq!(layout(false, true).directory(slot), format!("{plain}/16"));
        assert_eq!(layout(true, false).directory(slot), hive);
        assert_eq!(layout(true, true).directory(slot), format!("{hive}/hour=16"));
    }

    #[test]
    fn a_name_has_the_shape_of_the_documented_one() {
        let documented = "123456789012_vpcflowlogs_us-east-1_fl-1234abcd_20180620T1620Z_fe123456.log.gz";
        let name = layout(false, false).file_name(Slot::containing(EXAMPLE_SECS), 0);
        let shape = |name: &str| -> Vec<String> { name.split('_').map(str::to_owned).collect() };
        let (ours, theirs) = (shape(&name), shape(documented));
        assert_eq!(ours.len(), theirs.len());
        for index in [0, 1, 2, 4] {
            assert_eq!(ours[index], theirs[index]);
        }
        assert_eq!(ours[3].len(), "fl-".len() + 17);
        assert_eq!(ours[5].len(), theirs[5].len());
        assert!(conforms(&format!("{}/{name}", layout(false, true).directory(Slot::containing(EXAMPLE_SECS)))));
        assert!(conforms(&format!("AWSLogs/123456789012/vpcflowlogs/us-east-1/2018/06/20/{documented}")));
    }

    /// `^(?:.*/)?AWSLogs/\d{12}/vpcflowlogs/[a-z0-9-]+/\d{4}/\d{2}/\d{2}/(?:\d{2}/)?\d{12}_vpcflowlogs_[a-z0-9-]+_
    /// fl-[0-9a-f]+_\d{8}T\d{4}Z_[0-9a-f]{8}\.log\.(gz|parquet)$`, what readers of such buckets look for, as code.
    fn conforms(key: &str) -> bool {
        let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
        let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let region =
            |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z' | b'-'));
        let mut parts: Vec<&str> = key.split('/').collect();
        let name = parts.pop().unwrap();
        let [aws_logs, account, service, in_region, year, month, day, hour @ ..] = &parts[..] else { return false };
        let folders = *aws_logs == "AWSLogs" && digits(account, 12) && *service == "vpcflowlogs" && region(in_region);
        let date = digits(year, 4) && digits(month, 2) && digits(day, 2) && hour.iter().all(|hour| digits(hour, 2));
        let Some((stem, "gz" | "parquet")) = name.split_once(".log.") else { return false };
        let [account, service, in_region, flow_log, at, hash] = stem.split('_').collect::<Vec<_>>()[..] else {
            return false;
        };
        let (date_of_name, time) = at.split_once('T').unwrap();
        let name = digits(account, 12) && service == "vpcflowlogs" && region(in_region) && hex(&flow_log[3..]);
        let at = digits(date_of_name, 8) && digits(time.strip_suffix('Z').unwrap(), 4);
        folders && date && hour.len() <= 1 && name && at && hash.len() == 8 && hex(hash)
    }

    #[test]
    fn hashes_begin_as_sha_256_does() {
        // FIPS 180-2, appendix B.1: SHA-256 of "abc" is ba7816bf 8f01cfea 414140de ...
        assert_eq!(flow_log_id(b"abc"), "fl-ba7816bf8f01cfea4");
        let slot = Slot::containing(EXAMPLE_SECS);
        let names: Vec<String> = (0..3).map(|sequence| layout(false, false).file_name(slot, sequence)).collect();
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
        assert_eq!(names[0], layout(true, true).file_name(slot, 0));
    }

    #[test]
    fn slots_are_five_minutes_by_end() {
        let slot = Slot::containing(EXAMPLE_SECS);
        assert_eq!(slot, Slot::containing(EXAMPLE_SECS + 299));
        assert_ne!(slot, Slot::containing(EXAMPLE_SECS + 300));
        assert_ne!(slot, Slot::containing(EXAMPLE_SECS - 1));
        assert_eq!((slot.start_secs(), slot.end_secs()), (EXAMPLE_SECS, EXAMPLE_SECS + 300));
        assert_eq!(Slot::containing(-1).start_secs(), -300);
    }

    #[test]
    fn wild_moments_have_a_name_too() {
        let layout = layout(false, false);
        assert!(layout.directory(Slot::containing(i64::MIN)).ends_with("/0000/01/01"));
        assert!(layout.directory(Slot::containing(i64::MAX)).contains("/9999/12/"));
        assert!(layout.file_name(Slot::containing(i64::MAX), 0).contains("_9999123"));
    }

    #[test]
    fn an_identity_cannot_leave_its_folder() {
        for wrong in ["", "..", "a/b", "a_b", "é", &"x".repeat(65)] {
            assert!(Identity::new(Some(wrong), None, b"").is_err(), "{wrong}");
            assert!(Identity::new(None, Some(wrong), b"").is_err(), "{wrong}");
        }
        let identity = Identity::new(None, None, b"").unwrap();
        let layout = Layout { identity, is_hive_compatible: false, is_per_hour: false, suffix: ".log.gz" };
        assert_eq!(layout.directory(Slot::containing(0)), "AWSLogs/unknown/vpcflowlogs/local/1970/01/01");
    }
}
