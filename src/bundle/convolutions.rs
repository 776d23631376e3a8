//! What the convolutions of a graph show where no config.json describes it: the channels of its input, and by how much it
//! changes the size of an image.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::BundleError;
use crate::onnx::{Node, Topology};

/// The nodes of a graph, and the shapes of its weights.
pub(super) struct Convolutions(Topology);

impl Convolutions {
    /// Reads a graph without its weights.
    pub(super) fn read(graph: &Path) -> Result<Self, BundleError> {
        Ok(Self(Topology::read(graph)?))
    }

    /// The channels of an input, by the weights of the convolution that takes it.
    pub(super) fn input_channels(&self, input: &str) -> Option<usize> {
        let mut same = BTreeSet::from([input]);
        for node in &self.0.nodes {
            if !node.inputs.first().is_some_and(|first| same.contains(first.as_str())) {
                continue;
            }
            match node.operator.as_str() {
                "Cast" | "Identity" => same.extend(node.outputs.iter().map(String::as_str)),
                "Conv" => {
                    let weight = &self.0.weights.get(node.inputs.get(1)?)?.shape;
                    return usize::try_from(weight.get(1)?.checked_mul(node.group.unwrap_or(1))?).ok();
                }
                _ => {}
            }
        }
        None
    }

    /// The rows and the width of the embedding that an input of labels or of token ids selects from.
    pub(super) fn embedding_shape(&self, input: &str) -> Option<[usize; 2]> {
        let mut same = BTreeSet::from([input]);
        for node in &self.0.nodes {
            let selects = |at: usize| node.inputs.get(at).is_some_and(|name| same.contains(name.as_str()));
            match node.operator.as_str() {
                "Cast" | "Identity" | "Reshape" if selects(0) => {
                    same.extend(node.outputs.iter().map(String::as_str));
                }
                "Gather" if selects(1) => {
                    let [rows, width] = self.0.weights.get(node.inputs.first()?)?.shape[..] else {
                        return None;
                    };
                    return Some([usize::try_from(rows).ok()?, usize::try_from(width).ok()?]);
                }
                _ => {}
            }
        }
        None
    }

    /// By how much the graph of an autoencoder's encoder or decoder changes the height of its input, along the path that
    /// changes it most. `None` if nothing in it does, or if it has more such nodes than any autoencoder.
    pub(super) fn scale(&self) -> Option<usize> {
        let factor = |node: &Node| match node.operator.as_str() {
            "Conv" | "ConvTranspose" | "AveragePool" | "MaxPool" => {
                node.strides.first().and_then(|stride| usize::try_from(*stride).ok()).unwrap_or(1)
            }
            // Autoencoders double the size.
            "Resize" | "Upsample" => 2,
            "DepthToSpace" | "SpaceToDepth" => node.block_size.unwrap_or(1),
            _ => 1,
        };
        // Nodes are in the order of evaluation.
        let mut scales = HashMap::new();
        for node in &self.0.nodes {
            let before = node.inputs.iter().filter_map(|name| scales.get(name.as_str()).copied()).max();
            let after = before.unwrap_or(1_usize).checked_mul(factor(node))?;
            scales.extend(node.outputs.iter().map(|name| (name.as_str(), after)));
        }
        scales.into_values().max().filter(|scale| *scale > 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(graph: &str) -> Convolutions {
        let bundles = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/latent/bundles");
        Convolutions::read(&bundles.join(graph).join("model.onnx")).unwrap()
    }

    #[test]
    fn the_channels_and_the_scale_are_those_that_the_configurations_give() {
        assert_eq!(golden("sd/unet").input_channels("sample"), Some(4));
        assert_eq!(golden("sd_inpaint/unet").input_channels("sample"), Some(9));
        assert_eq!(golden("sd3/vae_decoder").input_channels("latent_sample"), Some(16));
        assert_eq!(golden("sd/unet").input_channels("timestep"), None);
        for graph in ["sd/vae_encoder", "sd/vae_decoder", "sd3/vae_encoder", "flux/vae_decoder"] {
            assert_eq!(golden(graph).scale(), Some(2), "{graph}");
        }
        assert_eq!(golden("sd/text_encoder").scale(), None);
    }

    #[test]
    fn numbers_of_a_broken_graph_that_are_too_large_are_none() {
        let node = |operator: &str, inputs: &[usize], output: usize| Node {
            operator: operator.to_owned(),
            inputs: inputs.iter().map(usize::to_string).collect(),
            outputs: vec![output.to_string()],
            ..Node::default()
        };
        let resize = |i: usize| node("Resize", &[i], i + 1);
        let graph = |nodes| Convolutions(Topology { nodes, ..Topology::default() });
        assert_eq!(graph((0..3).map(resize).collect()).scale(), Some(8));
        assert_eq!(graph((0..64).map(resize).collect()).scale(), None);
        // Two branches enlarge the same sample, and are added.
        let branches = vec![node("Resize", &[0], 1), node("Resize", &[0], 2), node("Add", &[1, 2], 3)];
        assert_eq!(graph(branches).scale(), Some(2));
        let names = ["sample", "weight"].map(str::to_owned).into();
        let operator = "Conv".to_owned();
        let convolution = Node { operator, inputs: names, group: Some(i64::MAX), ..Node::default() };
        let mut grouped = graph(vec![convolution]);
        let weights = golden("sd/unet").0.weights.into_values();
        let weight = weights.into_iter().find(|weight| weight.shape.len() == 4).unwrap();
        grouped.0.weights.insert("weight".to_owned(), weight);
        assert_eq!(grouped.input_channels("sample"), None);
    }
}
