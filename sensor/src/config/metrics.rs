//! Where a live run tells its metrics.
//!
//! Only this machine is told: the ledger names interfaces and shows when traffic flows, and nobody is asked for a
//! password. Whoever wants them elsewhere has a proxy that does ask.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::value::{ValueError, read_as_text};

/// The address of the metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MetricsAddress {
    /// Nobody is told.
    #[default]
    Off,
    /// A Unix socket, which its owner and root can use.
    Unix(PathBuf),
    /// A port of a loopback address, which everybody on this machine can use.
    Loopback(SocketAddr),
}

impl FromStr for MetricsAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix(UNIX).filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => Ok(Self::Loopback(address)),
            Ok(_) => Err(ValueError::new(
                text,
                "an address of this machine alone",
                "write `127.0.0.1:PORT` or `[::1]:PORT`, and let a proxy that asks for a password serve other machines",
            )),
            Err(_) => Err(ValueError::new(
                text,
                "an address for metrics",
                "write `off`, `unix:/run/flowtap/metrics.sock`, `127.0.0.1:9817` or `[::1]:9817`",
            )),
        }
    }
}

/// As written.
impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

const UNIX: &str = "unix:";

read_as_text!(MetricsAddress);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_off_a_socket_or_loopback() {
        let read = |text: &str| text.parse::<MetricsAddress>().unwrap();
        assert_eq!(read("off"), MetricsAddress::Off);
        assert_eq!(read("unix:/run/m.sock"), MetricsAddress::Unix("/run/m.sock".into()));
        assert_eq!(read("127.0.0.1:9817"), MetricsAddress::Loopback(([127, 0, 0, 1], 9817).into()));
        assert_eq!(read("[::1]:9817"), MetricsAddress::Loopback(([0, 0, 0, 0, 0, 0, 0, 1], 9817).into()));
        for text in ["off", "unix:m.sock", "127.0.0.2:1", "[::1]:65535"] {
            assert_eq!(read(text).to_string(), text);
        }
    }

    #[test]
    fn nobody_else_is_told() {
        for text in ["0.0.0.0:9817", "[::]:9817", "192.0.2.1:9817", "[::ffff:127.0.0.1]:9817"] {
            let refusal = text.parse::<MetricsAddress>().unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("`{text}` is not an address of this machine alone: ")), "{refusal}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_examples() {
        for text in ["", "on", "unix:", "9817", ":9817", "localhost:9817", "127.0.0.1", "127.0.0.1:65536", "::1:9817"] {
            let expected = format!(
                "`{text}` is not an address for metrics: \
                 write `off`, `unix:/run/flowtap/metrics.sock`, `127.0.0.1:9817` or `[::1]:9817`"
            );
            assert_eq!(text.parse::<MetricsAddress>().unwrap_err().to_string(), expected);
        }
    }
}
