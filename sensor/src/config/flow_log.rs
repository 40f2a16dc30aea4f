//! The choices of a flow log: `[flow-log]` in the file, flags of the same names.
//!
//! Authority for the words: the AWS API's `CreateFlowLogs`. Each type is parsed from one text, so that flag and file
//! cannot differ.

use std::num::NonZeroUsize;
use std::str::FromStr;

use flowlog::record::{Action, TrafficClass};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::value::{ValueError, read_as_text};
use crate::flow::{FragmentRule, table};

/// The aggregation interval, in whole seconds from 1 to 600. AWS offers 60 and 600.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    secs: u16,
}

impl Interval {
    /// Its length in seconds.
    pub fn secs(self) -> u32 {
        self.secs.into()
    }
}

impl Default for Interval {
    /// One minute.
    fn default() -> Self {
        Self { secs: 60 }
    }
}

impl FromStr for Interval {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let secs = match text.split_at_checked(text.len().saturating_sub(1)) {
            Some((number, "s")) => whole_number(number),
            Some((number, "m")) => whole_number(number).and_then(|minutes| minutes.checked_mul(60)),
            _ => None,
        };
        match secs.map(u16::try_from) {
            Some(Ok(secs @ 1..=INTERVAL_SECS_MAX)) => Ok(Self { secs }),
            _ => Err(ValueError::new(text, "an interval", "write `1s` to `600s`, or minutes like `10m`")),
        }
    }
}

/// AWS's longest interval.
const INTERVAL_SECS_MAX: u16 = 600;

/// Digits only: Rust's own parser also takes a sign.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Likewise.
pub(crate) fn whole_number_u16(text: &str) -> Option<u16> {
    whole_number(text).and_then(|number| number.try_into().ok())
}

/// Which rows are written (AWS: `TrafficType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficSelection {
    /// All rows.
    #[default]
    All,
    /// ACCEPT rows only.
    Accept,
    /// REJECT rows only.
    Reject,
}

impl TrafficSelection {
    /// Whether a row with this action is written.
    pub fn includes(self, action: Action) -> bool {
        match self {
            Self::All => true,
            Self::Accept => action == Action::Accept,
            Self::Reject => action == Action::Reject,
        }
    }
}

impl FromStr for TrafficSelection {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "all" => Ok(Self::All),
            "accept" => Ok(Self::Accept),
            "reject" => Ok(Self::Reject),
            _ => Err(ValueError::new(text, "a selection of traffic", "write `all`, `accept` or `reject`")),
        }
    }
}

impl FromStr for FragmentRule {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "join" => Ok(Self::Join),
            "apart" => Ok(Self::Apart),
            _ => Err(ValueError::new(text, "a way to treat fragments", "write `join` or `apart`")),
        }
    }
}

/// Which of the classes of traffic that AWS leaves out are left out here too. By default none is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkippedTraffic {
    /// In the order of [`TrafficClass::ALL`].
    is_omitted: [bool; TrafficClass::ALL.len()],
}

impl SkippedTraffic {
    /// Nothing is left out.
    pub const LOG: Self = Self { is_omitted: [false; TrafficClass::ALL.len()] };
    /// Everything that AWS leaves out is: the log is as AWS would write it.
    pub const OMIT: Self = Self { is_omitted: [true; TrafficClass::ALL.len()] };

    /// Whether rows of this class are left out.
    pub fn omits(&self, class: TrafficClass) -> bool {
        TrafficClass::ALL.into_iter().zip(self.is_omitted).any(|(known, omitted)| known == class && omitted)
    }

    fn set(&mut self, class: TrafficClass, treatment: Treatment) {
        for (known, omitted) in TrafficClass::ALL.into_iter().zip(&mut self.is_omitted) {
            if known == class {
                *omitted = treatment == Treatment::Omit;
            }
        }
    }
}

impl FromStr for SkippedTraffic {
    type Err = ValueError;

    /// `log`, `omit` or a list like `dns=omit,dhcp=log`; a class that is not in the list is logged.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refusal = || {
            let allowed = "write `log`, `omit` or a list like `dns=omit,dhcp=log` of the classes dns, dhcp, metadata, \
                           time, activation, router, mirror";
            ValueError::new(text, "a treatment of skipped traffic", allowed)
        };
        match text.parse() {
            Ok(Treatment::Log) => return Ok(Self::LOG),
            Ok(Treatment::Omit) => return Ok(Self::OMIT),
            Err(_) => {}
        }
        let mut skipped = Self::LOG;
        for entry in text.split(',') {
            let (name, treatment) = entry.split_once('=').ok_or_else(refusal)?;
            let class = TrafficClass::from_word(name.trim()).ok_or_else(refusal)?;
            skipped.set(class, treatment.trim().parse().map_err(|_| refusal())?);
        }
        Ok(skipped)
    }
}

impl<'de> Deserialize<'de> for SkippedTraffic {
    /// One word, or a table with a word for each class.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SkippedTrafficVisitor)
    }
}

struct SkippedTrafficVisitor;

impl<'de> Visitor<'de> for SkippedTrafficVisitor {
    type Value = SkippedTraffic;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("`log`, `omit` or a table of classes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SkippedTraffic, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SkippedTraffic, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Classes {
            dns: Option<Treatment>,
            dhcp: Option<Treatment>,
            metadata: Option<Treatment>,
            time: Option<Treatment>,
            activation: Option<Treatment>,
            router: Option<Treatment>,
            mirror: Option<Treatment>,
        }

        let Classes { dns, dhcp, metadata, time, activation, router, mirror } =
            Classes::deserialize(MapAccessDeserializer::new(map))?;
        let treatments = [
            (TrafficClass::Dns, dns),
            (TrafficClass::Dhcp, dhcp),
            (TrafficClass::Metadata, metadata),
            (TrafficClass::Time, time),
            (TrafficClass::Activation, activation),
            (TrafficClass::Router, router),
            (TrafficClass::Mirror, mirror),
        ];
        let mut skipped = SkippedTraffic::LOG;
        for (class, treatment) in treatments {
            skipped.set(class, treatment.unwrap_or(Treatment::Log));
        }
        Ok(skipped)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Log,
    Omit,
}

impl FromStr for Treatment {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "log" => Ok(Self::Log),
            "omit" => Ok(Self::Omit),
            _ => Err(ValueError::new(text, "a treatment of skipped traffic", "write `log` or `omit`")),
        }
    }
}

/// How many threads count packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers(NonZeroUsize);

impl Workers {
    /// Their number, from 1 to 256.
    pub fn count(self) -> NonZeroUsize {
        self.0
    }
}

impl FromStr for Workers {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= WORKERS_MAX);
        count.map(Self).ok_or_else(|| ValueError::new(text, "a number of workers", "write a number from 1 to 256"))
    }
}

/// More than any machine gains from; a larger number is a slip.
const WORKERS_MAX: usize = 256;

/// How many flows are counted at once before rows are handed out early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowTableMax(NonZeroUsize);

impl FlowTableMax {
    /// Their number, for all workers together.
    pub fn flows(self) -> NonZeroUsize {
        self.0
    }
}

impl Default for FlowTableMax {
    /// 4,194,304 flows.
    fn default() -> Self {
        Self(NonZeroUsize::MIN.saturating_add((1 << 22) - 1))
    }
}

impl FromStr for FlowTableMax {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let flows = text.parse().ok().filter(|flows: &NonZeroUsize| flows.get() <= FLOW_TABLE_FLOWS_MAX);
        let allowed = "write a number of flows from 1 to 268435456";
        flows.map(Self).ok_or_else(|| ValueError::new(text, "a bound for the flow table", allowed))
    }
}

/// 2^28, tens of gigabytes of table.
const FLOW_TABLE_FLOWS_MAX: usize = 1 << 28;

// The table itself knows no bound but this one.
const _: () = assert!(FLOW_TABLE_FLOWS_MAX <= table::FLOWS_MAX);

read_as_text!(Interval, TrafficSelection, FragmentRule, Treatment, Workers, FlowTableMax);

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = ValueError> + std::fmt::Debug>(text: &str) -> String {
        text.parse::<T>().unwrap_err().to_string()
    }

    #[test]
    fn intervals() {
        for (text, secs) in [("1s", 1), ("60s", 60), ("600s", 600), ("1m", 60), ("10m", 600)] {
            assert_eq!(text.parse::<Interval>().unwrap().secs(), secs);
        }
        assert_eq!(Interval::default(), "60s".parse().unwrap());
        for text in ["", "s", "60", "0s", "601s", "11m", "+5s", "1h", "1.5s", "\u{e9}", "99999999999999999999m"] {
            let expected = format!("`{text}` is not an interval: write `1s` to `600s`, or minutes like `10m`");
            assert_eq!(refusal::<Interval>(text), expected);
        }
    }

    #[test]
    fn selections() {
        let includes = |text: &str| {
            let selection: TrafficSelection = text.parse().unwrap();
            [Action::Accept, Action::Reject].map(|action| selection.includes(action))
        };
        assert_eq!(
            [includes("all"), includes("accept"), includes("reject")],
            [[true, true], [true, false], [false, true]]
        );
        assert_eq!(
            refusal::<TrafficSelection>("ACCEPT"),
            "`ACCEPT` is not a selection of traffic: write `all`, `accept` or `reject`"
        );
        assert_eq!(refusal::<FragmentRule>(""), "`` is not a way to treat fragments: write `join` or `apart`");
    }

    #[test]
    fn skipped_traffic_by_class() {
        let omitted = |text: &str| {
            let skipped: SkippedTraffic = text.parse().unwrap();
            TrafficClass::ALL.map(|class| u8::from(skipped.omits(class)))
        };
        assert_eq!(omitted("log"), [0; 7]);
        assert_eq!(omitted("omit"), [1; 7]);
        assert_eq!(omitted("dns=omit, mirror=omit,dhcp=log"), [1, 0, 0, 0, 0, 0, 1]);
        for text in ["", "dns", "dns=drop", "dnz=omit", "omit,dns=log"] {
            assert!(refusal::<SkippedTraffic>(text).starts_with(&format!("`{text}` is not a treatment of skipped")));
        }
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!("8".parse::<Workers>().unwrap().count().get(), 8);
        assert_eq!(refusal::<Workers>("0"), "`0` is not a number of workers: write a number from 1 to 256");
        assert!("257".parse::<Workers>().is_err());
        assert_eq!(FlowTableMax::default().flows().get(), 4_194_304);
        assert!("268435456".parse::<FlowTableMax>().is_ok() && "268435457".parse::<FlowTableMax>().is_err());
    }
}
