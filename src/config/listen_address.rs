//! The address of the HTTP server.

use std::net::SocketAddr;

use serde::de::{Deserialize, Deserializer};

use super::values::invalid;

/// The address of a server; unset: there is no server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenAddress(Option<SocketAddr>);

impl ListenAddress {
    /// Returns the address, if it is set.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0
    }

    /// Returns the address, if it is set and other machines can reach it.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.0.filter(|address| !address.ip().to_canonical().is_loopback())
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::default());
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 => Ok(Self(Some(address))),
            _ => Err(invalid(&text, "an IP address and a port, such as 127.0.0.1:8188 or [::]:8188")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_not_remote() {
        let parse = |text: &str| ListenAddress(Some(text.parse().unwrap()));
        for text in ["127.0.0.1:8188", "127.1.2.3:1", "[::1]:8188", "[::ffff:127.0.0.1]:8188"] {
            assert_eq!(parse(text).remote(), None, "{text}");
        }
        for text in ["0.0.0.0:8188", "[::]:8188", "192.168.1.5:80"] {
            assert!(parse(text).remote().is_some(), "{text}");
        }
        assert_eq!(ListenAddress::default().remote(), None);
    }
}
