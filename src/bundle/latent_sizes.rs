//! Which sizes of latents a network takes.

use std::path::Path;

use serde::Deserialize;

use super::BundleError;
use super::json_file::read_or_default;
use crate::onnx::{Node, Topology};

/// The sizes of latents that a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LatentSizes {
    /// The height and width must be multiples of this.
    pub(crate) multiple: usize,
    /// The largest height and width, if the network bounds them.
    pub(crate) largest: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworkBlocks {
    down_block_types: Option<Vec<serde_json::Value>>,
    block_out_channels: Option<Vec<serde_json::Value>>,
    /// A list in the configurations of video networks.
    patch_size: serde_json::Value,
    pos_embed_max_size: Option<usize>,
}

impl LatentSizes {
    /// Reads the graph of a network and the config.json beside it.
    ///
    /// A U-Net halves the latent in each block but the last, and joins each half again with what it came from. A graph
    /// that doubles by a constant factor, as exports do that were traced at an even size, fails at a size that cannot be
    /// halved as often. A graph that enlarges to a size that it computes does not. A transformer cuts the latent into
    /// patches, and may have a table of their positions.
    pub(crate) fn read(graph: &Path) -> Result<Self, BundleError> {
        let blocks: NetworkBlocks = read_or_default(&graph.with_file_name("config.json"))?;
        let patch = blocks.patch_size.as_u64().and_then(|patch| usize::try_from(patch).ok());
        if let Some(patch) = patch.filter(|_| blocks.down_block_types.is_none()) {
            let multiple = patch.max(1);
            return Ok(Self {
                multiple,
                largest: blocks.pos_embed_max_size.map(|patches| patches.saturating_mul(multiple)),
            });
        }
        let doublings = doublings(graph)?;
        let halvings = blocks.count(doublings).saturating_sub(1);
        Ok(Self { multiple: if doublings == 0 { 1 } else { 1 << halvings }, largest: None })
    }
}

/// Returns the number of blocks of a U-Net, which halves its sample after each block except the last.
///
/// The config.json beside the graph gives the number. Without it, the graph does.
pub(crate) fn unet_blocks(graph: &Path) -> Result<usize, BundleError> {
    let blocks: NetworkBlocks = read_or_default(&graph.with_file_name("config.json"))?;
    Ok(blocks.count(doublings(graph)?))
}

impl NetworkBlocks {
    fn count(self, doublings: usize) -> usize {
        let configured = self.down_block_types.or(self.block_out_channels);
        configured.map_or(doublings + 1, |blocks| blocks.len()).min(MAX_LEVELS + 1)
    }
}

/// More levels than any network or autoencoder has; bounds the multiple of a broken configuration.
pub(super) const MAX_LEVELS: usize = 10;

/// The number of nodes that double a size by a constant factor.
fn doublings(graph: &Path) -> Result<usize, BundleError> {
    Ok(Topology::read(graph)?.nodes.iter().filter(|node| doubles(node)).count())
}

fn doubles(node: &Node) -> bool {
    match node.operator.as_str() {
        "Upsample" | "ConvTranspose" => true,
        // The inputs are X, roi, scales and sizes, or X and scales in opset 10.
        "Resize" => {
            let has = |index: usize| node.inputs.get(index).is_some_and(|name| !name.is_empty());
            !has(3) && (has(2) || node.inputs.len() == 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rten_onnx::onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto};

    fn sizes(resizes: &[&[&str]], config: &str) -> LatentSizes {
        let folder = tempfile::tempdir().unwrap();
        let graph = folder.path().join("model.onnx");
        let node = |inputs: &&[&str]| NodeProto {
            op_type: Some("Resize".to_owned()),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            ..NodeProto::default()
        };
        let graph_of_nodes = GraphProto {
            node: resizes.iter().map(node).collect(),
            output: vec![ValueInfoProto { name: Some("out_sample".to_owned()), ..ValueInfoProto::default() }],
            ..GraphProto::default()
        };
        let model = ModelProto { graph: Some(graph_of_nodes), ..ModelProto::default() };
        std::fs::write(&graph, model.write_buf().unwrap()).unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        LatentSizes::read(&graph).unwrap()
    }

    fn multiple(resizes: &[&[&str]], config: &str) -> usize {
        sizes(resizes, config).multiple
    }

    #[test]
    fn a_network_that_doubles_by_a_constant_factor_needs_sizes_that_it_can_halve() {
        let (by_scale, by_size) = (&["x", "", "scales"][..], &["x", "", "", "sizes"][..]);
        let blocks = r#"{"down_block_types": ["A", "B", "C", "D"], "patch_size": null}"#;
        assert_eq!(multiple(&[by_scale; 3], blocks), 8);
        assert_eq!(multiple(&[&["x", "scales"]], r#"{"block_out_channels": [8, 16]}"#), 2);
        // Without a configuration, each level doubles once.
        assert_eq!(multiple(&[by_scale; 3], "{}"), 8);
        // Sizes that the graph computes fit at any size.
        assert_eq!(multiple(&[by_size; 3], blocks), 1);
        assert_eq!(multiple(&[], blocks), 1);
    }

    #[test]
    fn a_transformer_needs_whole_patches() {
        assert_eq!(multiple(&[], r#"{"patch_size": 4}"#), 4);
        let sizes = sizes(&[], r#"{"patch_size": 2, "pos_embed_max_size": 192}"#);
        assert_eq!(sizes, LatentSizes { multiple: 2, largest: Some(384) });
        assert_eq!(multiple(&[], "{}"), 1);
    }
}
