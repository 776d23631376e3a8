//! The inputs of a denoiser or a text encoder that ControlNets and LoRAs fill.

use crate::lora::AdaptedLayer;
use crate::tensor::{DataType, Dim, GraphIo, ValueInfo};

/// An input for a ControlNet's residual, [1 or batch, channels, 1 or height, 1 or width], which is added to a skip connection
/// or to the middle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidualInput {
    /// The name in the graph.
    pub name: String,
    /// The lengths of the axes that the graph fixes: batch, channels, height and width.
    pub axes: [Option<usize>; 4],
}

impl ResidualInput {
    /// The number of channels, if the graph fixes it.
    pub fn channels(&self) -> Option<usize> {
        self.axes[1]
    }
}

/// The inputs for the two matrices of a layer's LoRA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoraInput {
    /// The name of the input for a, [1 or batch, inputs, rank].
    pub a: String,
    /// The name of the input for b, [1 or batch, rank, outputs].
    pub b: String,
    /// The layer.
    pub layer: AdaptedLayer,
}

/// All live inputs of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveInputs {
    /// In the order of a ControlNet's outputs: the skip connections, and last the middle.
    pub residuals: Vec<ResidualInput>,
    /// In the graph's order.
    pub layers: Vec<LoraInput>,
}

impl LiveInputs {
    /// Finds the live inputs of a graph. `is_other` tells the inputs with another meaning.
    pub(crate) fn find(graph: &GraphIo, is_other: impl Fn(&ValueInfo) -> bool) -> Self {
        let free: Vec<_> = graph.inputs.iter().filter(|input| !is_other(input)).collect();
        Self { residuals: residuals(&free), layers: layers(&free) }
    }

    /// Whether an input is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.residuals.iter().any(|input| input.name == name)
            || self.layers.iter().any(|input| input.a == name || input.b == name)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.residuals.is_empty() && self.layers.is_empty()
    }

    /// The name and shape of each input while nothing is active: zeros of length 1 wherever the graph allows it.
    pub fn idle_shapes(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        let length = |axis: Option<usize>| axis.unwrap_or(1);
        let residuals =
            self.residuals.iter().map(move |input| (&input.name[..], input.axes.map(length).to_vec()));
        let layers = self.layers.iter().flat_map(|input| {
            let layer = &input.layer;
            [(&input.a[..], vec![1, layer.inputs, 1]), (&input.b[..], vec![1, 1, layer.outputs])]
        });
        residuals.chain(layers)
    }

    /// The name and shape of each input for a batch whose samples have residuals of a ControlNet, and LoRAs of this rank.
    /// Without `sizes`, the height and width of each residual, residuals stay idle.
    pub(crate) fn active_shapes(
        &self,
        batch: usize,
        sizes: Option<&[[usize; 2]]>,
        rank: usize,
    ) -> Vec<(String, Vec<usize>)> {
        let mut shapes: Vec<_> = self.idle_shapes().map(|(name, shape)| (name.to_owned(), shape)).collect();
        let (residuals, layers) = shapes.split_at_mut(self.residuals.len());
        for ((input, (_, shape)), [height, width]) in
            self.residuals.iter().zip(residuals).zip(sizes.into_iter().flatten())
        {
            let [_, channels, ..] = input.axes;
            let active = [batch, channels.unwrap_or(1), *height, *width];
            *shape =
                std::iter::zip(input.axes, active).map(|(fixed, active)| fixed.unwrap_or(active)).collect();
        }
        for pair in layers.chunks_exact_mut(2) {
            let [(_, a), (_, b)] = pair else { continue };
            [a[0], a[2], b[0], b[1]] = [batch, rank, batch, rank];
        }
        shapes
    }
}

/// Residuals have four axes. Those inside a block (`intrablock`) are a T2I-Adapter's.
fn residuals(inputs: &[&ValueInfo]) -> Vec<ResidualInput> {
    let is_residual = |input: &&ValueInfo| {
        input.shape.len() == 4 && input.element.is_float() && !input.name.contains("intrablock")
    };
    let candidates: Vec<_> = inputs.iter().copied().filter(is_residual).collect();
    let residual = |input: &ValueInfo| ResidualInput {
        name: input.name.clone(),
        axes: std::array::from_fn(|axis| input.shape[axis].length()),
    };
    in_residual_order(&candidates).unwrap_or_default().into_iter().map(residual).collect()
}

/// Sorts residuals as a ControlNet returns them, whatever exporter named them: all number those of the skip connections, and
/// name the middle's, which is the last one. `None` if the names are not such.
pub(in crate::bundle) fn in_residual_order<'a>(values: &[&'a ValueInfo]) -> Option<Vec<&'a ValueInfo>> {
    let (middle, others): (Vec<&ValueInfo>, Vec<_>) =
        values.iter().partition(|value| value.name.contains("mid"));
    let number = |value: &ValueInfo| {
        let digits = value.name.rsplit(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?;
        digits.parse::<usize>().ok()
    };
    let numbered = others.into_iter().map(|value| Some((number(value)?, value)));
    let mut numbered = numbered.collect::<Option<Vec<_>>>().filter(|numbered| !numbered.is_empty())?;
    numbered.sort_by_key(|(number, _)| *number);
    match middle.as_slice() {
        [middle] => Some(numbered.into_iter().map(|(_, value)| value).chain([*middle]).collect()),
        _ => None,
    }
}

/// `lora_a.MODULE` and `lora_b.MODULE`, with the lengths that the layer has.
fn layers(inputs: &[&ValueInfo]) -> Vec<LoraInput> {
    let named = |name: &str| inputs.iter().find(|input| input.name == name);
    let layer = |input: &&ValueInfo| {
        let module = input.name.strip_prefix("lora_a.")?;
        let b = named(&format!("lora_b.{module}"))?;
        let ([_, Dim::Fixed(inputs), _], [_, _, Dim::Fixed(outputs)]) = (&input.shape[..], &b.shape[..])
        else {
            return None;
        };
        let layer = AdaptedLayer { module: module.to_owned(), inputs: *inputs, outputs: *outputs };
        let is_float = |element: DataType| element.is_float();
        (is_float(input.element) && is_float(b.element)).then(|| LoraInput {
            a: input.name.clone(),
            b: b.name.clone(),
            layer,
        })
    };
    inputs.iter().filter_map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(inputs: &[(&str, &[Option<usize>])]) -> GraphIo {
        let inputs = inputs.iter().map(|(name, axes)| ValueInfo::with_axes(name, DataType::F32, axes));
        GraphIo { inputs: inputs.collect(), outputs: Vec::new() }
    }

    #[test]
    fn residuals_are_found_by_the_names_of_all_exporters() {
        let axes = [None, Some(8), None, None];
        for names in [
            [
                "down_block_additional_residuals_10",
                "down_block_additional_residuals_2",
                "mid_block_additional_residual",
            ],
            [
                "down_block_10_additional_residual",
                "down_block_2_additional_residual",
                "mid_block_additional_residual",
            ],
            [
                "down_block_additional_residuals.10",
                "down_block_additional_residuals.2",
                "mid_block_additional_residual",
            ],
            ["down_block_10", "down_block_2", "mid_block_additional_residual"],
            ["input_control_10", "input_control_02", "input_control_middle"],
        ] {
            let mut inputs = names.map(|name| (name, &axes[..])).to_vec();
            inputs.push(("sample", &axes));
            let live = LiveInputs::find(&graph(&inputs), |input| input.name == "sample");
            let found: Vec<_> = live.residuals.iter().map(|input| input.name.as_str()).collect();
            assert_eq!(found, [names[1], names[0], names[2]]);
            assert!(live.contains(names[2]) && !live.contains("sample"));
        }
        let without_middle = graph(&[("down_block_0", &axes)]);
        assert!(LiveInputs::find(&without_middle, |_| false).is_empty());
    }

    #[test]
    fn a_layer_has_two_inputs() {
        let graph = graph(&[
            ("lora_a.conv1", &[None, Some(27), None]),
            ("lora_b.conv1", &[None, None, Some(4)]),
            ("lora_a.alone", &[None, Some(27), None]),
        ]);
        let live = LiveInputs::find(&graph, |_| false);
        let layer = AdaptedLayer { module: "conv1".to_owned(), inputs: 27, outputs: 4 };
        assert_eq!(live.layers.iter().map(|input| &input.layer).collect::<Vec<_>>(), [&layer]);
        let idle: Vec<_> = live.idle_shapes().collect();
        assert_eq!(idle, [("lora_a.conv1", vec![1, 27, 1]), ("lora_b.conv1", vec![1, 1, 4])]);
        let named = [("lora_a.conv1".to_owned(), vec![2, 27, 8]), ("lora_b.conv1".to_owned(), vec![2, 8, 4])];
        assert_eq!(live.active_shapes(2, None, 8), named);
    }
}
