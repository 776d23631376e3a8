//! The daemon as a device of Home Assistant.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The daemon as a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// `[A-Za-z0-9_-]+`, a level of the discovery topics.
    pub(super) id: String,
    name: String,
    board: Option<String>,
}

impl Device {
    /// Creates the device of a daemon with this name, on this board.
    pub(crate) fn new(node: &str, board: Option<String>) -> Self {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let mut id: String = node.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect();
        if id != node {
            // Another name may differ only in these characters.
            let digest = format!("{:x}", Sha256::digest(node));
            id = format!("{id}_{}", &digest[..8]);
        }
        Self { id: format!("denoised_{id}"), name: format!("denoised {node}"), board }
    }

    /// The device as the entities name it.
    pub(super) fn to_json(&self) -> Value {
        let mut device = json!({
            "identifiers": [self.id],
            "name": self.name,
            "manufacturer": "denoised",
            "sw_version": env!("CARGO_PKG_VERSION"),
        });
        if let Some(board) = &self.board {
            device["model"] = board.as_str().into();
        }
        device
    }
}

/// The program that announces the device.
pub(super) fn origin() -> Value {
    json!({"name": "denoised", "sw_version": env!("CARGO_PKG_VERSION")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_have_ids_that_differ() {
        let id = |node: &str| Device::new(node, None).id;
        assert_eq!(id("living-room_2"), "denoised_living-room_2");
        assert!(id("a.b").starts_with("denoised_a_b_"), "{}", id("a.b"));
        assert_ne!(id("a.b"), id("a_b"));
        assert!(id("a.b.c").chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)));
    }

    #[test]
    fn the_board_is_the_model_of_the_device() {
        assert_eq!(Device::new("a", Some("NVIDIA Jetson".to_owned())).to_json()["model"], "NVIDIA Jetson");
        assert_eq!(Device::new("a", None).to_json().get("model"), None);
    }
}
