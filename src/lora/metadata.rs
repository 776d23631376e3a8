//! The scale α/r of PEFT's adapters, which their files have in the metadata instead of tensors.

use std::collections::HashMap;

use serde_json::Value;

use super::key::{Component, flat};

/// `lora_adapter_metadata`, the configuration of the adapters.
#[derive(Debug, Default)]
pub(super) struct AdapterMetadata(Value);

impl AdapterMetadata {
    /// Reads the metadata of a file. Without an adapter's, every scale is 1.
    pub(super) fn read(metadata: Option<&HashMap<String, String>>) -> Self {
        let text = metadata.and_then(|metadata| metadata.get("lora_adapter_metadata"));
        Self(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }

    /// α/r of a layer, or α/√r of a rank-stabilised adapter (Kalajdzievski 2023). `module` is the layer's name with `_` for `.`, `rank` the one of its
    /// tensors.
    pub(super) fn scale(&self, component: Component, module: &str, rank: usize) -> f64 {
        let beginning = match component {
            Component::Network => "unet.",
            Component::TextEncoder => "text_encoder.",
            Component::TextEncoder2 => "text_encoder_2.",
        };
        let value = |key: &str| self.0.get(format!("{beginning}{key}"));
        let alpha = pattern(value("alpha_pattern"), module).or_else(|| value("lora_alpha")?.as_f64());
        let Some(alpha) = alpha else { return 1.0 };
        let rank = rank as f64;
        let is_stabilised = value("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        if is_stabilised { alpha / rank.sqrt() } else { alpha / rank }
    }
}

/// The value of a layer in a table of layers' names or endings of them.
fn pattern(table: Option<&Value>, module: &str) -> Option<f64> {
    table?.as_object()?.iter().find_map(|(name, value)| {
        let name = flat(name);
        let is_ending =
            module.strip_suffix(&name).is_some_and(|start| start.is_empty() || start.ends_with('_'));
        value.as_f64().filter(|_| is_ending)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_its_own_alpha_or_that_of_the_adapter() {
        let text =
            r#"{"unet.lora_alpha": 4, "unet.r": 8, "unet.alpha_pattern": {"mid_block.attn1.to_q": 16}}"#;
        let map = HashMap::from([("lora_adapter_metadata".to_owned(), text.to_owned())]);
        let metadata = AdapterMetadata::read(Some(&map));
        assert_eq!(metadata.scale(Component::Network, "up_attn1_to_q", 8), 0.5);
        assert_eq!(metadata.scale(Component::Network, "mid_block_attn1_to_q", 8), 2.0);
        assert_eq!(metadata.scale(Component::TextEncoder, "mid_block_attn1_to_q", 8), 1.0);
        assert_eq!(AdapterMetadata::read(None).scale(Component::Network, "x", 8), 1.0);
    }

    #[test]
    fn a_rank_stabilised_adapter_divides_by_the_root_of_the_rank() {
        let text = r#"{"unet.lora_alpha": 4, "unet.use_rslora": true}"#;
        let map = HashMap::from([("lora_adapter_metadata".to_owned(), text.to_owned())]);
        assert_eq!(AdapterMetadata::read(Some(&map)).scale(Component::Network, "x", 16), 1.0);
    }
}
